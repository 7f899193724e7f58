-- The number of the last read that showed all of a customer, where the last read did not; null where it did.

-- +goose Up
ALTER TABLE stripe_customers ADD COLUMN whole_read_seq bigint;

-- +goose Down
ALTER TABLE stripe_customers DROP COLUMN whole_read_seq;
