-- Schedules that would start a subscription by themselves, and what Stripe does not have any more.

-- +goose Up
-- When the schedule that manages a subscription ends it; null where it lets it go on.
ALTER TABLE subscriptions ADD COLUMN schedule_ends_at timestamptz;

-- The number of the last read that listed the customer's schedules too; null where none did, which is so of nearly all.
ALTER TABLE stripe_customers ADD COLUMN schedules_read_seq bigint;

-- Stripe's subscription schedules, as events tell of them and as lists show them. A status only moves
-- forward, so it does not matter which of the two comes first.
CREATE TABLE subscription_schedules (
    stripe_schedule_id     text PRIMARY KEY,
    stripe_customer_id     text NOT NULL,
    stripe_subscription_id text,
    status                 text NOT NULL CHECK (status IN ('not_started', 'active', 'completed', 'released', 'canceled')),
    begins_at              timestamptz,
    updated_at             timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX subscription_schedules_open ON subscription_schedules (stripe_customer_id) WHERE status IN ('not_started', 'active');

-- What the events that are still stored tell of them.
INSERT INTO subscription_schedules (stripe_schedule_id, stripe_customer_id, stripe_subscription_id, status, begins_at)
SELECT DISTINCT ON (object ->> 'id') object ->> 'id', object ->> 'customer', object ->> 'subscription', object ->> 'status',
    to_timestamp((object #>> '{phases,0,start_date}')::bigint)
FROM (SELECT CASE WHEN type LIKE 'subscription\_schedule.%' AND payload !~ '\\u(0000|[dD][89a-fA-F])' THEN payload::jsonb #> '{data,object}' END AS object FROM webhook_events
    WHERE type LIKE 'subscription\_schedule.%' AND payload IS NOT NULL AND status <> 'ignored') AS told
WHERE object ->> 'id' LIKE 'sub\_sched\_%' AND jsonb_typeof(object -> 'customer') = 'string' AND coalesce(jsonb_typeof(object -> 'subscription'), 'null') IN ('string', 'null')
    AND object ->> 'status' IN ('not_started', 'active', 'completed', 'released', 'canceled')
ORDER BY object ->> 'id', CASE object ->> 'status' WHEN 'not_started' THEN 1 WHEN 'active' THEN 2 ELSE 3 END DESC;

-- What Stripe says it does not have of a user who is being deleted: customers, subscriptions, schedules.
CREATE TABLE missing_objects (
    stripe_id          text PRIMARY KEY,
    stripe_customer_id text NOT NULL,
    -- When the first answer that said so was recorded.
    missing_since      timestamptz NOT NULL DEFAULT now(),
    -- When another answer confirmed it, long enough after the first.
    confirmed_at       timestamptz
);
CREATE INDEX missing_objects_customer ON missing_objects (stripe_customer_id);

-- When the sweep has a user looked at whose erasure is not done.
ALTER TABLE person_user ADD COLUMN erase_retry_at timestamptz;
CREATE INDEX person_user_erase_retry ON person_user (erase_retry_at) WHERE deletion_requested_at IS NOT NULL AND deleted_at IS NULL;
UPDATE person_user SET erase_retry_at = now() WHERE deletion_requested_at IS NOT NULL AND deleted_at IS NULL;

-- The phases that were dropped with a schedule that our step has taken off; null where none was.
ALTER TABLE operations ADD COLUMN dropped_phases jsonb;

-- +goose Down
ALTER TABLE operations DROP COLUMN dropped_phases;
DROP INDEX person_user_erase_retry;
ALTER TABLE person_user DROP COLUMN erase_retry_at;
DROP TABLE missing_objects;
DROP TABLE subscription_schedules;
ALTER TABLE stripe_customers DROP COLUMN schedules_read_seq;
ALTER TABLE subscriptions DROP COLUMN schedule_ends_at;
