-- What people ask for, from the request to the end that they are told.

-- +goose Up
CREATE TABLE operations (
    -- Also the id of the workflow's update, where the operation is a command.
    id                     text PRIMARY KEY,
    -- SHA-256 of caller, method, route and Idempotency-Key, until the operation expires; null where
    -- no key was given.
    key_hash               bytea UNIQUE,
    -- SHA-256 of what was asked, to tell the same key with another request.
    request_hash           bytea NOT NULL,
    -- Who asked: a Clerk user id.
    caller                 text NOT NULL,
    action                 text NOT NULL CHECK (action IN ('sync', 'cancel', 'cancel_now', 'reactivate', 'checkout', 'return')),
    -- For whom; another than the caller where an admin asked.
    clerk_user_id          text NOT NULL,
    -- Whose workflow does it, or is poked for it.
    entity                 text NOT NULL,
    stripe_subscription_id text,
    stripe_session_id      text,
    -- Orders the request among the reads: one that began later shows what was asked to be seen.
    seq                    bigint NOT NULL DEFAULT nextval('sync_seq'),
    -- accepted: nothing was done yet. acting: Stripe is being asked, the outcome is not known.
    -- recorded: done at Stripe and here, not yet known at Clerk. The others are ends.
    status                 text NOT NULL DEFAULT 'accepted' CHECK (status IN
                               ('accepted', 'acting', 'recorded', 'done', 'refused', 'failed', 'undone', 'superseded', 'expired')),
    -- Why it ended so; a stable word.
    reason                 text,
    -- How the subscription stood and was set to end before our step, and after it.
    status_before          text,
    ending_before          jsonb,
    ending_left            jsonb,
    -- The schedule that our step takes off first.
    release_schedule       text,
    reversible             boolean NOT NULL DEFAULT false,
    acting_since           timestamptz,
    -- Part of the idempotency key at Stripe; raised when what the key answers is of no use.
    generation             integer NOT NULL DEFAULT 1,
    -- The projection that has to reach Clerk.
    projection_version     bigint,
    created_at             timestamptz NOT NULL DEFAULT now(),
    expires_at             timestamptz NOT NULL,
    settled_at             timestamptz,
    -- When the sweep pokes the entity again if the operation has not ended.
    retry_at               timestamptz
);
CREATE INDEX operations_unsettled ON operations (entity) WHERE status IN ('accepted', 'acting', 'recorded');
CREATE INDEX operations_retry ON operations (retry_at) WHERE status IN ('accepted', 'acting', 'recorded');
CREATE INDEX operations_publishing ON operations (clerk_user_id) WHERE status = 'recorded';
CREATE INDEX operations_settled ON operations (expires_at) WHERE status NOT IN ('accepted', 'acting', 'recorded');

-- Who is opening a checkout for a user, and until when nobody else may: two at once could both be paid.
CREATE TABLE checkout_leases (
    user_id   uuid PRIMARY KEY REFERENCES person_user (id),
    operation text NOT NULL,
    until     timestamptz NOT NULL
);

ALTER TABLE audit_log ADD COLUMN operation_id text;
CREATE INDEX audit_log_operation ON audit_log (operation_id, id) WHERE operation_id IS NOT NULL;

-- +goose Down
DROP INDEX audit_log_operation;
ALTER TABLE audit_log DROP COLUMN operation_id;
DROP TABLE checkout_leases;
DROP TABLE operations;
