-- The number of the last read that showed a subscription, where the last one of its customer that was stored did not; null where it did.

-- +goose Up
ALTER TABLE subscriptions ADD COLUMN kept_read_seq bigint;
-- Of a customer of whom not all was shown it is not known what was.
UPDATE subscriptions s SET kept_read_seq = c.whole_read_seq FROM stripe_customers c
    WHERE c.stripe_customer_id = s.stripe_customer_id AND c.whole_read_seq IS NOT NULL;

-- +goose Down
ALTER TABLE subscriptions DROP COLUMN kept_read_seq;
