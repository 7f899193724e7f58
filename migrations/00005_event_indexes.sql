-- Finding events by their time and type. Built beside the deliveries that go on coming.

-- +goose NO TRANSACTION
-- +goose Up
-- What an interrupted attempt has left is no use.
DROP INDEX CONCURRENTLY IF EXISTS webhook_events_received;
CREATE INDEX CONCURRENTLY webhook_events_received ON webhook_events (received_at DESC, event_id);
DROP INDEX CONCURRENTLY IF EXISTS webhook_events_type;
CREATE INDEX CONCURRENTLY webhook_events_type ON webhook_events (type, received_at DESC, event_id);

-- +goose Down
DROP INDEX CONCURRENTLY IF EXISTS webhook_events_type;
DROP INDEX CONCURRENTLY IF EXISTS webhook_events_received;
