-- Keeps the one sequence ahead of every number that is stored. A backup that was put back, a move that left sequences out
-- or a replica that was behind can leave it below them: then every read would lose to what is stored.

-- +goose NO TRANSACTION
-- +goose Up

-- Which numbers each raise has left out. A read that has one of them drew it before the database was put back.
CREATE TABLE IF NOT EXISTS number_raises (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    after     bigint NOT NULL,
    up_to     bigint NOT NULL,
    raised_at timestamptz NOT NULL DEFAULT now()
);

-- The two tables that only grow: of them no more is read than what came with the last million numbers. What an interrupted
-- attempt has left is no use.
DROP INDEX CONCURRENTLY IF EXISTS webhook_events_numbers;
CREATE INDEX CONCURRENTLY webhook_events_numbers ON webhook_events USING brin (seq) WITH (autosummarize = on);
DROP INDEX CONCURRENTLY IF EXISTS subscription_changes_numbers;
CREATE INDEX CONCURRENTLY subscription_changes_numbers ON subscription_changes USING brin (read_seq) WITH (autosummarize = on);

-- raise_sync_seq sets the sequence to a million above the highest number that is stored, never lower than it is, and answers
-- where it stands. Where it has reached the number that was met already, nothing is left to do.
--
-- It runs as the one who owns these tables, since programs may draw numbers and not set them. Whoever may connect may call
-- it: it takes nothing from its caller, and can be called as often as one likes. Each column that holds numbers has its line.
-- +goose StatementBegin
DO $do$
BEGIN
    EXECUTE format($create$
CREATE OR REPLACE FUNCTION %1$I.raise_sync_seq(met bigint DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $raise$
DECLARE
    numbers CONSTANT regclass := '%1$I.sync_seq';
    margin  CONSTANT bigint := 1000000;
    reached bigint;
    target  bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('clerk_stripe_sync.sync_seq', 0));
    reached := coalesce(pg_sequence_last_value(numbers), 0);
    IF reached >= met THEN
        RETURN reached;
    END IF;
    SELECT max(number) + margin INTO target FROM (
        SELECT max(read_seq) FROM %1$I.person_user
        UNION ALL SELECT max(deletion_seq) FROM %1$I.person_user
        UNION ALL SELECT max(read_seq) FROM %1$I.stripe_customers
        UNION ALL SELECT max(schedules_read_seq) FROM %1$I.stripe_customers
        UNION ALL SELECT max(-profile_version) FROM %1$I.stripe_customers
        UNION ALL SELECT max(read_seq) FROM %1$I.plans
        UNION ALL SELECT max(read_seq) FROM %1$I.subscription_changes WHERE read_seq > reached - margin
        UNION ALL SELECT max(seq) FROM %1$I.webhook_events WHERE seq > reached - margin
        UNION ALL SELECT max(token) FROM %1$I.pokes
        UNION ALL SELECT max(event_token) FROM %1$I.pokes
        UNION ALL SELECT max(seq) FROM %1$I.operations
    ) AS stored (number);
    reached := coalesce(pg_sequence_last_value(numbers), 0);
    IF target - reached > margin / 10 THEN
        -- Nobody draws so many between this look and the next line.
        PERFORM setval(numbers, target);
        INSERT INTO %1$I.number_raises (after, up_to) VALUES (reached, target);
        DELETE FROM %1$I.number_raises WHERE raised_at < now() - interval '1 day';
    ELSIF target > reached THEN
        -- Others draw meanwhile: what is drawn here is not set back.
        PERFORM nextval(numbers) FROM generate_series(1, target - reached);
    END IF;
    RETURN coalesce(pg_sequence_last_value(numbers), 0);
END
$raise$
    $create$, current_schema());
END
$do$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION raise_sync_seq(bigint);
DROP INDEX CONCURRENTLY IF EXISTS subscription_changes_numbers;
DROP INDEX CONCURRENTLY IF EXISTS webhook_events_numbers;
DROP TABLE number_raises;
