-- Passes over what has changed since a moment.

-- +goose Up
ALTER TABLE bulk_runs ADD COLUMN since timestamptz;

-- +goose Down
ALTER TABLE bulk_runs DROP COLUMN since;
