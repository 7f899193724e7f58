-- What Stripe would still collect of a user who is being deleted, and deletions that the product has noted before these tables came.

-- +goose Up

-- Whether the latest invoice may still be collected, and whether the schedule has phases that have not begun, as the last read showed it:
-- only of users who are being deleted, or are. Null where not, which takes no room in the rows of everybody else.
ALTER TABLE subscriptions
    ADD COLUMN outstanding  boolean,
    ADD COLUMN phases_ahead boolean;

-- Invoices and invoice items that Stripe collects of a customer of such a user by itself, as the last read showed them.
CREATE TABLE pending_charges (
    stripe_id          text PRIMARY KEY,
    stripe_customer_id text NOT NULL,
    kind               text NOT NULL CHECK (kind IN ('invoice', 'invoice_item')),
    -- In the currency's smallest unit; negative where it is credited.
    amount             bigint NOT NULL,
    seen_at            timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX pending_charges_customer ON pending_charges (stripe_customer_id);

-- Of whoever is not erased yet nobody has looked for that.
UPDATE stripe_customers c SET schedules_read_seq = NULL FROM person_user u
    WHERE u.id = c.user_id AND u.deletion_requested_at IS NOT NULL AND (u.deleted_at IS NULL OR u.deletion_seq IS NULL);

-- A deletion that carries no number of ours was noted by the product, and is looked into: nothing of it was erased by us.
DROP INDEX person_user_erase_retry;
CREATE INDEX person_user_erase_retry ON person_user (erase_retry_at) WHERE erase_retry_at IS NOT NULL;
UPDATE person_user SET erase_retry_at = NULL WHERE deletion_seq IS NOT NULL AND deleted_at IS NOT NULL AND erase_retry_at IS NOT NULL;
UPDATE person_user SET erase_retry_at = now() WHERE deletion_seq IS NULL AND (deletion_requested_at IS NOT NULL OR deleted_at IS NOT NULL);

-- +goose Down
DROP INDEX person_user_erase_retry;
CREATE INDEX person_user_erase_retry ON person_user (erase_retry_at) WHERE deletion_requested_at IS NOT NULL AND deleted_at IS NULL;
DROP TABLE pending_charges;
ALTER TABLE subscriptions DROP COLUMN outstanding, DROP COLUMN phases_ahead;
