-- Whether checkouts may be open on a customer that came to its user when they were being deleted already: nobody has listed them.

-- +goose Up
ALTER TABLE stripe_customers ADD COLUMN checkouts_due boolean NOT NULL DEFAULT false;
CREATE INDEX stripe_customers_checkouts_due ON stripe_customers (user_id) WHERE checkouts_due;

-- +goose Down
DROP INDEX stripe_customers_checkouts_due;
ALTER TABLE stripe_customers DROP COLUMN checkouts_due;
