-- Which pokes somebody waits for: they go before those of a wave. The index is built beside the writes that go on.

-- +goose NO TRANSACTION
-- +goose Up
ALTER TABLE pokes ADD COLUMN IF NOT EXISTS urgent boolean NOT NULL DEFAULT false;
-- What an interrupted attempt has left is no use.
DROP INDEX CONCURRENTLY IF EXISTS pokes_urgent;
CREATE INDEX CONCURRENTLY pokes_urgent ON pokes (due_at) WHERE urgent AND due_at IS NOT NULL;

-- +goose Down
DROP INDEX CONCURRENTLY IF EXISTS pokes_urgent;
ALTER TABLE pokes DROP COLUMN urgent;
