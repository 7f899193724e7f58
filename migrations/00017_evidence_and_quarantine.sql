-- Who may have written whose a customer is; and what a pass over everything has set aside and comes back to.

-- +goose Up
-- Users whom a claim names and whom Clerk does not have: they lose to any other. They may sign up, and nobody tell us, so
-- that an answer counts for an hour.
CREATE TABLE users_not_in_clerk (
    clerk_user_id text PRIMARY KEY,
    seen_at       timestamptz NOT NULL DEFAULT now()
);

-- The client_reference_id of a checkout was stored without whether the session's metadata said the same. Where the event is
-- kept, it tells; any other proves nothing any more, as whoever paid may have written it. Links stay as they are. What jsonb does not
-- take is passed over: the character of the number zero, and halves of others.
UPDATE customer_claims cl SET source = 'checkout_metadata:' || substr(cl.source, length('checkout:') + 1)
FROM webhook_events e
WHERE cl.source LIKE 'checkout:%' AND e.source = 'stripe' AND e.event_id = cl.event_id
    AND CASE WHEN e.payload IS NULL OR e.payload ~ '\\u(0000|[dD][89a-fA-F])' THEN false
        ELSE cl.clerk_user_id = coalesce(e.payload::jsonb #>> '{data,object,metadata,clerk_user_id}', e.payload::jsonb #>> '{data,object,metadata,clerkUserId}',
            e.payload::jsonb #>> '{data,object,metadata,userId}', e.payload::jsonb #>> '{data,object,metadata,user_id}') END
    AND NOT EXISTS (SELECT FROM customer_claims o WHERE o.stripe_customer_id = cl.stripe_customer_id
        AND o.source = 'checkout_metadata:' || substr(cl.source, length('checkout:') + 1));

-- That of a Payment Link's session counts for nobody, not even where every other session is a server's own.
UPDATE customer_claims cl SET source = 'payment_link_reference:' || substr(cl.source, length('checkout:') + 1)
FROM webhook_events e
WHERE cl.source LIKE 'checkout:%' AND e.source = 'stripe' AND e.event_id = cl.event_id
    AND CASE WHEN e.payload IS NULL OR e.payload ~ '\\u(0000|[dD][89a-fA-F])' THEN false
        ELSE e.payload::jsonb #>> '{data,object,payment_link}' IS NOT NULL END
    AND NOT EXISTS (SELECT FROM customer_claims o WHERE o.stripe_customer_id = cl.stripe_customer_id
        AND o.source = 'payment_link_reference:' || substr(cl.source, length('checkout:') + 1));

-- What was a conflict may be none any more.
INSERT INTO pokes (entity, job, due_at)
SELECT DISTINCT entity, 1, now() FROM drift WHERE class = 'conflicting_claims' AND resolved_at IS NULL AND entity LIKE 'customer/%'
ON CONFLICT (entity) DO UPDATE SET due_at = least(pokes.due_at, excluded.due_at), token = nextval('sync_seq');

-- A customer that onboarding has made in vain, and whom for, until that is undone.
ALTER TABLE stripe_customers ADD COLUMN made_in_vain_for text;
CREATE INDEX stripe_customers_made_in_vain ON stripe_customers (made_in_vain_for) WHERE made_in_vain_for IS NOT NULL;

-- What could not be brought in for now is tried again: when next, and how often it was.
ALTER TABLE bulk_failures
    ADD COLUMN retry_at timestamptz,
    ADD COLUMN attempts integer NOT NULL DEFAULT 1;
CREATE INDEX bulk_failures_retry ON bulk_failures (run_id, retry_at) WHERE retry_at IS NOT NULL;

-- Of what a comparison could not read: what, and why.
CREATE TABLE reconciliation_failures (
    run_id text NOT NULL REFERENCES reconciliation_runs (id) ON DELETE CASCADE,
    entity text NOT NULL,
    reason text NOT NULL,
    at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, entity)
);

-- +goose Down
DROP TABLE reconciliation_failures;
DROP INDEX bulk_failures_retry;
ALTER TABLE bulk_failures DROP COLUMN retry_at, DROP COLUMN attempts;
DROP INDEX stripe_customers_made_in_vain;
ALTER TABLE stripe_customers DROP COLUMN made_in_vain_for;
UPDATE customer_claims cl SET source = 'checkout:' || substr(source, length('checkout_metadata:') + 1) WHERE source LIKE 'checkout_metadata:%'
    AND NOT EXISTS (SELECT FROM customer_claims o WHERE o.stripe_customer_id = cl.stripe_customer_id AND o.source = 'checkout:' || substr(cl.source, length('checkout_metadata:') + 1));
DROP TABLE users_not_in_clerk;
