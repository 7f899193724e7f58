-- What may be bought beside what, how the quantity of a price comes about, and which customers exist at Stripe.

-- +goose Up
ALTER TABLE plans ADD COLUMN beside boolean NOT NULL DEFAULT false;
-- "licensed" or "metered"; null for one-time prices, and until a product that was stored before is read again.
ALTER TABLE plan_prices ADD COLUMN usage_type text;
-- Since when Stripe has answered 404 for a customer; null where it knows it. Only who exists at Stripe is somebody's primary one.
ALTER TABLE stripe_customers ADD COLUMN missing_since timestamptz;
UPDATE stripe_customers c SET missing_since = d.seen_at FROM drift d
    WHERE d.entity = 'customer/' || c.stripe_customer_id AND d.class = 'customer_missing_in_stripe' AND d.resolved_at IS NULL;

-- Stripe alone knows of products what was not stored: each is read once more. Users whose primary customer is gone
-- are given another.
INSERT INTO pokes (entity, due_at)
    SELECT 'product/' || stripe_product_id, now() FROM plans WHERE stripe_product_id IS NOT NULL
    UNION ALL SELECT 'user/' || u.clerk_user_id, now() FROM person_user u JOIN stripe_customers c USING (stripe_customer_id)
        WHERE (c.deleted_in_stripe OR c.missing_since IS NOT NULL) AND u.deletion_requested_at IS NULL
    ON CONFLICT (entity) DO UPDATE SET due_at = least(pokes.due_at, excluded.due_at), token = nextval('sync_seq'), event_token = 0;

-- +goose Down
ALTER TABLE stripe_customers DROP COLUMN missing_since;
ALTER TABLE plan_prices DROP COLUMN usage_type;
ALTER TABLE plans DROP COLUMN beside;
