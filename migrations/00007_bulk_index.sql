-- Finding users who have no customer yet. Built beside the writes that go on.

-- +goose NO TRANSACTION
-- +goose Up
-- What an interrupted attempt has left is no use.
DROP INDEX CONCURRENTLY IF EXISTS person_user_without_customer;
CREATE INDEX CONCURRENTLY person_user_without_customer ON person_user (id) WHERE stripe_customer_id IS NULL AND deletion_requested_at IS NULL;

-- +goose Down
DROP INDEX CONCURRENTLY IF EXISTS person_user_without_customer;
