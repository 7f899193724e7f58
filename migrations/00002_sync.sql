-- What keeping Clerk, Stripe and these tables in step needs beside the product's own tables.

-- +goose Up

-- One sequence numbers deliveries and reads alike, so that "received before this read began"
-- is a comparison of two numbers. It must not hand out numbers ahead of use: CACHE 1.
CREATE SEQUENCE sync_seq AS bigint CACHE 1;

-- Which accounts these tables belong to. One row; each column is set once, when first seen.
CREATE TABLE provider_identity (
    singleton         boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    stripe_account_id text,
    stripe_livemode   boolean,
    clerk_instance_id text
);
INSERT INTO provider_identity DEFAULT VALUES;

ALTER TABLE person_user
    ADD COLUMN email_verified        boolean NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS deletion_requested_at timestamptz,
    -- Orders the mark among the reads: a customer read after it was read with the mark in force.
    ADD COLUMN deletion_seq          bigint,
    ADD COLUMN IF NOT EXISTS deleted_at timestamptz,
    -- The number of the last read of Clerk whose result was stored.
    ADD COLUMN read_seq              bigint NOT NULL DEFAULT 0,
    -- The profile's number, raised with each change of name or email; a customer carries the
    -- one that it was last given.
    ADD COLUMN profile_version       bigint NOT NULL DEFAULT 1,
    -- Part of the key under which the user's customer is created. It is raised when an answer
    -- under the old key can no longer be used.
    ADD COLUMN customer_generation   integer NOT NULL DEFAULT 1,
    ADD COLUMN projection            jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN projection_version    bigint NOT NULL DEFAULT 0,
    ADD COLUMN published_version     bigint NOT NULL DEFAULT 0,
    -- Since when the two versions differ; null while they are equal.
    ADD COLUMN publish_due_since     timestamptz,
    ADD COLUMN publish_retry_at      timestamptz,
    ADD COLUMN publish_error         text;

CREATE INDEX person_user_email ON person_user (lower(email)) WHERE email IS NOT NULL;
CREATE INDEX person_user_publish_due ON person_user (publish_retry_at) WHERE projection_version <> published_version;
CREATE INDEX person_user_deleting ON person_user (deletion_requested_at) WHERE deletion_requested_at IS NOT NULL AND deleted_at IS NULL;

CREATE TABLE stripe_customers (
    stripe_customer_id text PRIMARY KEY,
    user_id            uuid REFERENCES person_user (id),
    -- Why this user: the source of the claim, "created" for our own, "verified email".
    link_source        text,
    linked_at          timestamptz,
    -- The number of the last read of Stripe whose result was stored.
    read_seq           bigint NOT NULL DEFAULT 0,
    email              text,
    name               text,
    profile_version    bigint NOT NULL DEFAULT 0,
    stripe_created_at  timestamptz,
    deleted_in_stripe  boolean NOT NULL DEFAULT false,
    first_seen_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX stripe_customers_user ON stripe_customers (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX stripe_customers_unlinked_email ON stripe_customers (lower(email)) WHERE user_id IS NULL AND email IS NOT NULL;

CREATE TABLE customer_claims (
    stripe_customer_id text NOT NULL,
    clerk_user_id      text NOT NULL,
    source             text NOT NULL,
    event_id           text,
    claimed_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stripe_customer_id, source)
);
CREATE INDEX customer_claims_user ON customer_claims (clerk_user_id);

-- The inbox. An event is answered 2xx only after its row is committed, and is done only when
-- it is completed or ignored.
CREATE TABLE webhook_events (
    source       text NOT NULL CHECK (source IN ('clerk', 'stripe')),
    event_id     text NOT NULL,
    type         text NOT NULL,
    entity       text,
    seq          bigint NOT NULL DEFAULT nextval('sync_seq'),
    status       text NOT NULL CHECK (status IN ('pending', 'completed', 'ignored', 'waiting', 'failing')),
    reason       text,
    received_at  timestamptz NOT NULL DEFAULT now(),
    completed_at timestamptz,
    -- When the sweep pokes the entity again if the event is still due.
    retry_at     timestamptz,
    attempts     integer NOT NULL DEFAULT 0,
    payload      text COMPRESSION lz4,
    PRIMARY KEY (source, event_id)
);
CREATE INDEX webhook_events_due ON webhook_events (entity, seq) WHERE status IN ('pending', 'failing', 'waiting');
CREATE INDEX webhook_events_retry ON webhook_events (retry_at) WHERE status IN ('pending', 'failing', 'waiting');
CREATE INDEX webhook_events_waiting ON webhook_events (received_at) WHERE status = 'waiting';
CREATE INDEX webhook_events_entity ON webhook_events (entity, seq DESC);
CREATE INDEX webhook_events_payload_age ON webhook_events (completed_at) WHERE payload IS NOT NULL AND status IN ('completed', 'ignored');

-- Which workflows are to be woken: the outbox of everything that commits a reason to look at
-- an entity. One row an entity, so that a burst is one signal.
CREATE TABLE pokes (
    entity   text PRIMARY KEY,
    job      smallint NOT NULL DEFAULT 1,
    -- When the entity is to be poked; null when nothing is due.
    due_at   timestamptz,
    -- When it was last poked. The next poke keeps a distance from it.
    poked_at timestamptz,
    -- Changed by every request and every claim, so that a dispatcher clears only what it saw.
    token    bigint NOT NULL DEFAULT nextval('sync_seq'),
    attempts integer NOT NULL DEFAULT 0
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
CREATE INDEX pokes_due ON pokes (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX pokes_idle ON pokes (poked_at) WHERE due_at IS NULL;

ALTER TABLE plans
    ADD COLUMN stripe_product_id text UNIQUE,
    ADD COLUMN active            boolean NOT NULL DEFAULT true,
    ADD COLUMN read_seq          bigint NOT NULL DEFAULT 0,
    ADD COLUMN updated_at        timestamptz NOT NULL DEFAULT now();
CREATE INDEX plans_unclaimed_name ON plans (plan_name) WHERE stripe_product_id IS NULL;

CREATE TABLE plan_prices (
    stripe_price_id   text PRIMARY KEY,
    plan_id           integer NOT NULL REFERENCES plans (id),
    active            boolean NOT NULL,
    unit_amount       bigint NOT NULL,
    currency          text NOT NULL,
    billing_interval  text,
    interval_count    bigint NOT NULL DEFAULT 1,
    lookup_key        text,
    updated_at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX plan_prices_plan ON plan_prices (plan_id);

ALTER TABLE subscriptions
    ADD COLUMN stripe_price_id        text,
    ADD COLUMN stripe_product_id      text,
    ADD COLUMN price_known            boolean NOT NULL DEFAULT true,
    ADD COLUMN quantity               bigint NOT NULL DEFAULT 1,
    ADD COLUMN unit_amount            bigint,
    ADD COLUMN currency               text,
    ADD COLUMN billing_interval       text,
    ADD COLUMN interval_count         bigint,
    ADD COLUMN cancel_at              timestamptz,
    ADD COLUMN ended_at               timestamptz,
    ADD COLUMN collection_paused      boolean NOT NULL DEFAULT false,
    ADD COLUMN latest_invoice_created timestamptz,
    ADD COLUMN schedule_id            text,
    ADD COLUMN stripe_created_at      timestamptz,
    -- Set when Stripe answers 404 for it: drift, which changes nothing else.
    ADD COLUMN missing_since          timestamptz;
CREATE INDEX subscriptions_user ON subscriptions (user_id);
CREATE INDEX subscriptions_customer ON subscriptions (stripe_customer_id);
CREATE INDEX subscriptions_plan ON subscriptions (plan_id);
CREATE INDEX subscriptions_unknown_price ON subscriptions (stripe_product_id) WHERE NOT price_known;

-- Every state that a subscription was in, for the history and for analytics.
CREATE TABLE subscription_changes (
    id                     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stripe_subscription_id text NOT NULL,
    user_id                uuid NOT NULL REFERENCES person_user (id),
    changed_at             timestamptz NOT NULL DEFAULT now(),
    status_before          text,
    status                 text NOT NULL,
    plan_id                integer REFERENCES plans (id),
    stripe_price_id        text,
    quantity               bigint NOT NULL,
    unit_amount            bigint,
    currency               text,
    billing_interval       text,
    interval_count         bigint,
    collection_paused      boolean NOT NULL,
    ends_at                timestamptz,
    read_seq               bigint NOT NULL
);
CREATE INDEX subscription_changes_subscription ON subscription_changes (stripe_subscription_id, id);
CREATE INDEX subscription_changes_time ON subscription_changes (changed_at);

CREATE TABLE payments (
    id                     text PRIMARY KEY,
    kind                   text NOT NULL CHECK (kind IN ('invoice', 'payment_intent', 'charge', 'dispute')),
    stripe_customer_id     text,
    stripe_subscription_id text,
    stripe_invoice_id      text,
    payment_intent_id      text,
    charge_id              text,
    status                 text NOT NULL,
    status_rank            smallint NOT NULL,
    reason                 text,
    amount                 bigint NOT NULL,
    amount_paid            bigint NOT NULL DEFAULT 0,
    amount_refunded        bigint NOT NULL DEFAULT 0,
    currency               text NOT NULL,
    attempts               bigint NOT NULL DEFAULT 0,
    occurred_at            timestamptz,
    paid_at                timestamptz,
    -- The event that told how things stand, and when it was made; when it was told which charge.
    event_id               text NOT NULL,
    told_at                timestamptz NOT NULL,
    charge_told_at         timestamptz NOT NULL,
    recorded_at            timestamptz NOT NULL DEFAULT now(),
    updated_at             timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX payments_customer ON payments (stripe_customer_id, occurred_at);
CREATE INDEX payments_charge ON payments (charge_id) WHERE charge_id IS NOT NULL;

-- What was changed, by what, and why. Of personal fields only the name and "changed".
CREATE TABLE audit_log (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at            timestamptz NOT NULL DEFAULT now(),
    action        text NOT NULL,
    user_id       uuid,
    clerk_user_id text,
    entity        text NOT NULL,
    subject       text NOT NULL,
    before        jsonb,
    after         jsonb,
    -- What caused it: the events taken, or who asked.
    event_ids     text[] NOT NULL DEFAULT '{}',
    caller        text,
    workflow_id   text,
    run_id        text
);
CREATE INDEX audit_log_user ON audit_log (user_id, id DESC);
CREATE INDEX audit_log_entity ON audit_log (entity, id DESC);

-- +goose StatementBegin
CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_log is append-only: % refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END
$$;
-- +goose StatementEnd
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION audit_log_is_append_only();
CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only();
-- Triggers of this kind fire for replication roles and table owners too.
ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_append_only;
ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_no_truncate;

-- Where the systems differ and no sync may decide: conflicting claims, unknown prices,
-- what Stripe or Clerk answers 404 for. Open while resolved_at is null.
CREATE TABLE drift (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    class       text NOT NULL,
    entity      text NOT NULL,
    subject     text NOT NULL,
    detail      jsonb NOT NULL DEFAULT '{}',
    seen_at     timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz
);
CREATE UNIQUE INDEX drift_open ON drift (entity, class, subject) WHERE resolved_at IS NULL;

-- +goose Down
DROP TABLE drift;
DROP TABLE audit_log;
DROP FUNCTION audit_log_is_append_only;
DROP TABLE payments;
DROP TABLE subscription_changes;
ALTER TABLE subscriptions
    DROP COLUMN stripe_price_id, DROP COLUMN stripe_product_id, DROP COLUMN price_known, DROP COLUMN quantity,
    DROP COLUMN unit_amount, DROP COLUMN currency, DROP COLUMN billing_interval, DROP COLUMN interval_count,
    DROP COLUMN cancel_at, DROP COLUMN ended_at, DROP COLUMN collection_paused, DROP COLUMN latest_invoice_created,
    DROP COLUMN schedule_id, DROP COLUMN stripe_created_at, DROP COLUMN missing_since;
DROP INDEX subscriptions_user, subscriptions_customer, subscriptions_plan;
DROP TABLE plan_prices;
DROP INDEX plans_unclaimed_name;
ALTER TABLE plans DROP COLUMN stripe_product_id, DROP COLUMN active, DROP COLUMN read_seq, DROP COLUMN updated_at;
DROP TABLE pokes;
DROP TABLE webhook_events;
DROP TABLE customer_claims;
DROP TABLE stripe_customers;
DROP INDEX person_user_email, person_user_publish_due, person_user_deleting;
ALTER TABLE person_user
    DROP COLUMN email_verified, DROP COLUMN deletion_requested_at, DROP COLUMN deletion_seq, DROP COLUMN deleted_at, DROP COLUMN read_seq,
    DROP COLUMN profile_version, DROP COLUMN customer_generation, DROP COLUMN projection, DROP COLUMN projection_version,
    DROP COLUMN published_version, DROP COLUMN publish_due_since, DROP COLUMN publish_retry_at, DROP COLUMN publish_error;
DROP TABLE provider_identity;
DROP SEQUENCE sync_seq;
