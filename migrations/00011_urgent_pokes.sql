-- Which pokes somebody waits for: they go before those of a wave. The indexes are built beside the writes that go on.

-- +goose NO TRANSACTION
-- +goose Up
ALTER TABLE pokes ADD COLUMN IF NOT EXISTS urgent boolean NOT NULL DEFAULT false;
-- What an interrupted attempt has left is no use.
DROP INDEX CONCURRENTLY IF EXISTS pokes_urgent;
CREATE INDEX CONCURRENTLY pokes_urgent ON pokes (due_at) WHERE urgent AND due_at IS NOT NULL;
-- A wave is of customers. What else is due is found beside it without reading it.
DROP INDEX CONCURRENTLY IF EXISTS pokes_beside;
CREATE INDEX CONCURRENTLY pokes_beside ON pokes (due_at) WHERE NOT urgent AND entity NOT LIKE 'customer/%' AND due_at IS NOT NULL;

-- +goose Down
DROP INDEX CONCURRENTLY IF EXISTS pokes_beside;
DROP INDEX CONCURRENTLY IF EXISTS pokes_urgent;
ALTER TABLE pokes DROP COLUMN urgent;
