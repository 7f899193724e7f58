-- Under which idempotency keys Stripe was asked to change something, so that what Stripe has stored under one is left behind once
-- for all attempts, processes and copies.

-- +goose Up
CREATE TABLE stripe_requests (
    -- The idempotency key without its generation.
    key           text PRIMARY KEY,
    -- Raised when what Stripe answers under the key is of no use. A generation is never used again.
    generation    integer NOT NULL DEFAULT 1,
    -- Before the first request of this generation: what it may have made is not older.
    generation_at timestamptz NOT NULL DEFAULT now(),
    asked_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX stripe_requests_asked ON stripe_requests (asked_at);

-- What users and operations have counted until now. When the present generation was first used is not known, which is as long as
-- Stripe may remember it.
INSERT INTO stripe_requests (key, generation, generation_at)
SELECT 'customer:create:' || clerk_user_id, customer_generation, now() - interval '1 day' FROM person_user WHERE customer_generation > 1;
INSERT INTO stripe_requests (key, generation, generation_at)
SELECT id || ':' || step, generation, now() - interval '1 day' FROM operations, unnest(ARRAY['release', 'cancel', 'reactivate', 'undo']) step
WHERE generation > 1 AND status IN ('accepted', 'acting', 'recorded');
-- The programs of before count on in person_user.customer_generation and operations.generation for as long as they run.

-- +goose Down
DROP TABLE stripe_requests;
