-- Finding whose a customer is by what the product's own table says. Built beside the writes that go on.

-- +goose NO TRANSACTION
-- +goose Up
-- What an interrupted attempt has left is no use.
DROP INDEX CONCURRENTLY IF EXISTS person_user_stripe_customer;
CREATE INDEX CONCURRENTLY person_user_stripe_customer ON person_user (stripe_customer_id) WHERE stripe_customer_id IS NOT NULL;

-- +goose Down
DROP INDEX CONCURRENTLY IF EXISTS person_user_stripe_customer;
