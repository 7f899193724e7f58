-- When the last read began that showed a customer to be missing; null where none has since this was kept, or the customer is there.

-- +goose Up
ALTER TABLE stripe_customers ADD COLUMN missing_read_at timestamptz;

-- +goose Down
ALTER TABLE stripe_customers DROP COLUMN missing_read_at;
