-- Passes over everything that both providers hold, which bring it in.

-- +goose Up
CREATE TABLE bulk_runs (
    id          text PRIMARY KEY,
    caller      text NOT NULL,
    dry_run     boolean NOT NULL,
    -- The users and customers that are meant; empty for all.
    entities    text[] NOT NULL DEFAULT '{}',
    -- Whether it may go on beside another.
    alongside   boolean NOT NULL DEFAULT false,
    -- How far it has come: the list that is being read, and behind what the next page of it begins. Written with
    -- what a page has come to, so that a page is done once, or once more where that was not written.
    step        text NOT NULL DEFAULT '',
    after       text NOT NULL DEFAULT '',
    paused      boolean NOT NULL DEFAULT false,
    pages       bigint NOT NULL DEFAULT 0,
    -- How much of each list was looked at, what differed by class, and for how many it was brought in.
    seen        jsonb NOT NULL DEFAULT '{}',
    found       jsonb NOT NULL DEFAULT '{}',
    done        bigint NOT NULL DEFAULT 0,
    failed      bigint NOT NULL DEFAULT 0,
    -- How many users Clerk said there are; null where it was not asked.
    users       bigint,
    started_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    -- Why it ended before its end; null where it did not.
    failure     text
);
CREATE INDEX bulk_runs_time ON bulk_runs (started_at DESC);
-- One at a time, but for those that were asked to go on beside it.
CREATE UNIQUE INDEX bulk_runs_one ON bulk_runs ((true)) WHERE finished_at IS NULL AND NOT alongside;

-- What could not be brought in, and why.
CREATE TABLE bulk_failures (
    run_id text NOT NULL REFERENCES bulk_runs (id) ON DELETE CASCADE,
    entity text NOT NULL,
    reason text NOT NULL,
    at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, entity)
);

-- +goose Down
DROP TABLE bulk_failures;
DROP TABLE bulk_runs;
