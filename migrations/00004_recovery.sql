-- Finding what slipped through: events that never came, and differences that no event tells of.

-- +goose Up
ALTER TABLE webhook_events
    -- Since when the event waits or fails for its present reason; null for all others.
    ADD COLUMN held_since timestamptz,
    -- Set when the event was not delivered but found in the provider's own list.
    ADD COLUMN recovered  boolean NOT NULL DEFAULT false,
    -- How often somebody had it taken again after its end.
    ADD COLUMN replays    integer NOT NULL DEFAULT 0;

-- How far a provider's own list has been read. It moves when a pass over the list is complete.
CREATE TABLE recovery_cursors (
    source      text PRIMARY KEY CHECK (source IN ('clerk', 'stripe')),
    -- At the provider's clock: everything that happened there before is known here.
    safe_until  timestamptz NOT NULL,
    advanced_at timestamptz NOT NULL DEFAULT now(),
    -- How many were missing, in the last pass and in all of them.
    missing     bigint NOT NULL DEFAULT 0,
    missing_all bigint NOT NULL DEFAULT 0
);

-- Comparisons of the three systems.
CREATE TABLE reconciliation_runs (
    id          text PRIMARY KEY,
    workflow_id text NOT NULL,
    -- Who asked for it; null where the schedule did.
    caller      text,
    -- The classes whose differences it has repaired.
    repair      text[] NOT NULL DEFAULT '{}',
    started_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    -- Whether every list was read to its end. Only then are differences closed that were not met again,
    -- and only then is anything repaired.
    complete    boolean NOT NULL DEFAULT false,
    failure     text,
    -- For how many entities a repair was asked for.
    asked       integer NOT NULL DEFAULT 0,
    -- How many of each kind were compared, and how many differences of each class were confirmed and repaired.
    compared    jsonb NOT NULL DEFAULT '{}',
    confirmed   jsonb NOT NULL DEFAULT '{}',
    repaired    jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX reconciliation_runs_time ON reconciliation_runs (started_at DESC);

-- What a run met in the providers' lists: what we hold and is not among it has to be asked for.
CREATE TABLE reconciliation_seen (
    run_id text NOT NULL,
    kind   text NOT NULL,
    id     text NOT NULL,
    PRIMARY KEY (run_id, kind, id)
);

-- What a run found at its first look, and what became of it.
CREATE TABLE reconciliation_found (
    run_id    text NOT NULL,
    entity    text NOT NULL,
    class     text NOT NULL,
    subject   text NOT NULL,
    detail    jsonb NOT NULL DEFAULT '{}',
    confirmed boolean NOT NULL DEFAULT false,
    -- Set when its repair was asked for.
    repairing boolean NOT NULL DEFAULT false,
    PRIMARY KEY (run_id, entity, class, subject)
);

ALTER TABLE drift
    -- The run that met it last; null where a sync did.
    ADD COLUMN run_id           text,
    ADD COLUMN repair_asked_at  timestamptz;
CREATE INDEX drift_class ON drift (class, id) WHERE resolved_at IS NULL;

-- +goose Down
DROP INDEX drift_class;
ALTER TABLE drift DROP COLUMN run_id, DROP COLUMN repair_asked_at;
DROP TABLE reconciliation_found;
DROP TABLE reconciliation_seen;
DROP TABLE reconciliation_runs;
DROP TABLE recovery_cursors;
ALTER TABLE webhook_events DROP COLUMN held_since, DROP COLUMN recovered, DROP COLUMN replays;
