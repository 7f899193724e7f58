-- Since when a past_due subscription owes, which item makes its plan, and refunds that fail. Every statement can be made
-- again, and the indexes are built beside the writes that go on.

-- +goose NO TRANSACTION
-- +goose Up
ALTER TABLE payments DROP CONSTRAINT IF EXISTS payments_kind_check;
ALTER TABLE payments
    ADD CONSTRAINT payments_kind_check CHECK (kind IN ('invoice', 'payment_intent', 'charge', 'dispute', 'refund')),
    -- Of an invoice: until when it is to be paid, and when it was opened.
    ADD COLUMN IF NOT EXISTS due_at           timestamptz,
    ADD COLUMN IF NOT EXISTS finalized_at     timestamptz,
    -- The first failure that an event told: of an invoice, to collect it; of a refund, to reach the payer.
    ADD COLUMN IF NOT EXISTS first_failed_at  timestamptz,
    -- Of a charge: what was refunded of it in all, as the charge's latest event told, and when that was.
    ADD COLUMN IF NOT EXISTS refunded_told    bigint,
    ADD COLUMN IF NOT EXISTS refunded_told_at timestamptz;

-- What has been stored by now was told by events of payments and of failures only.
UPDATE payments SET first_failed_at = least(told_at, recorded_at) WHERE kind = 'invoice' AND status = 'open' AND first_failed_at IS NULL;
UPDATE payments SET refunded_told = amount_refunded, refunded_told_at = told_at, status_rank = 3 WHERE kind = 'charge' AND refunded_told IS NULL;
-- A status has come between.
UPDATE payments SET status_rank = CASE status WHEN 'won' THEN 8 WHEN 'lost' THEN 7 ELSE 6 END WHERE kind = 'dispute' AND status IN ('won', 'lost', 'prevented');

ALTER TABLE subscriptions
    -- See account.PastDueSince; null while the status is another.
    ADD COLUMN IF NOT EXISTS past_due_since   timestamptz,
    ADD COLUMN IF NOT EXISTS past_due_invoice text,
    -- The item that makes the plan, and all items; null in a row that no read has been stored in since.
    ADD COLUMN IF NOT EXISTS stripe_item_id   text,
    ADD COLUMN IF NOT EXISTS items            jsonb;
ALTER TABLE plans ADD COLUMN IF NOT EXISTS add_on boolean NOT NULL DEFAULT false;
-- Null where what a unit costs is no whole number of the smallest unit.
ALTER TABLE plan_prices ALTER COLUMN unit_amount DROP NOT NULL;

-- What the rows of invoices say. Where they say nothing, the next read asks for the open invoices.
UPDATE subscriptions s SET past_due_since = coalesce(i.due, s.latest_invoice_created, s.current_period_start AT TIME ZONE 'utc', now()), past_due_invoice = i.id
FROM subscriptions t LEFT JOIN LATERAL (
    SELECT id, coalesce(due_at, first_failed_at, finalized_at, occurred_at) AS due FROM payments
    WHERE kind = 'invoice' AND stripe_subscription_id = t.stripe_subscription_id AND status = 'open' AND occurred_at > coalesce(
        (SELECT max(occurred_at) FROM payments WHERE kind = 'invoice' AND stripe_subscription_id = t.stripe_subscription_id AND status = 'paid'), '-infinity')
    ORDER BY 2, 1 LIMIT 1) i ON true
WHERE s.id = t.id AND s.status = 'past_due' AND s.past_due_since IS NULL;

-- The plan and the amount were those of the first item that was in the catalogue, and what a product is was not known:
-- all of that is read once.
INSERT INTO pokes AS p (entity, job, urgent, due_at)
SELECT DISTINCT 'customer/' || stripe_customer_id, 1, false, now() FROM subscriptions
WHERE items IS NULL AND stripe_customer_id IN (SELECT stripe_customer_id FROM stripe_customers WHERE user_id IS NOT NULL)
    AND (quantity = 0 OR status NOT IN ('canceled', 'incomplete_expired'))
UNION SELECT 'product/' || stripe_product_id, 1, false, now() FROM plans WHERE stripe_product_id IS NOT NULL
ON CONFLICT (entity) DO UPDATE SET due_at = least(p.due_at, excluded.due_at), token = excluded.token, event_token = 0,
    job = greatest(CASE WHEN p.due_at IS NULL THEN 0 ELSE p.job END, excluded.job);

DROP INDEX CONCURRENTLY IF EXISTS payments_invoices;
CREATE INDEX CONCURRENTLY payments_invoices ON payments (stripe_subscription_id, occurred_at) WHERE kind = 'invoice' AND stripe_subscription_id IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS payments_intent;
CREATE INDEX CONCURRENTLY payments_intent ON payments (payment_intent_id) WHERE payment_intent_id IS NOT NULL;
-- Whose subscriptions hold an item of a product.
DROP INDEX CONCURRENTLY IF EXISTS subscriptions_items;
CREATE INDEX CONCURRENTLY subscriptions_items ON subscriptions USING gin (items jsonb_path_ops);

-- +goose Down
DROP INDEX CONCURRENTLY IF EXISTS subscriptions_items;
DROP INDEX CONCURRENTLY IF EXISTS payments_intent;
DROP INDEX CONCURRENTLY IF EXISTS payments_invoices;
UPDATE plan_prices SET unit_amount = 0 WHERE unit_amount IS NULL;
ALTER TABLE plan_prices ALTER COLUMN unit_amount SET NOT NULL;
ALTER TABLE plans DROP COLUMN IF EXISTS add_on;
ALTER TABLE subscriptions DROP COLUMN IF EXISTS items, DROP COLUMN IF EXISTS stripe_item_id, DROP COLUMN IF EXISTS past_due_invoice, DROP COLUMN IF EXISTS past_due_since;
DELETE FROM payments WHERE kind = 'refund';
ALTER TABLE payments DROP CONSTRAINT IF EXISTS payments_kind_check;
ALTER TABLE payments ADD CONSTRAINT payments_kind_check CHECK (kind IN ('invoice', 'payment_intent', 'charge', 'dispute')),
    DROP COLUMN IF EXISTS refunded_told_at, DROP COLUMN IF EXISTS refunded_told, DROP COLUMN IF EXISTS first_failed_at,
    DROP COLUMN IF EXISTS finalized_at, DROP COLUMN IF EXISTS due_at;
