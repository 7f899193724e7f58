-- Which pokes are asked for by deliveries alone: once their events are taken, nobody need be woken for them.

-- +goose Up
-- The token, where nobody but deliveries has asked since the last poke; -1 while such a poke is under way.
ALTER TABLE pokes ADD COLUMN event_token bigint NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE pokes DROP COLUMN event_token;
