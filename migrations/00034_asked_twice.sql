-- When Clerk has first said that it does not have a user whom a claim names: against an address alone
-- only two answers count that are some time apart.

-- +goose Up
ALTER TABLE users_not_in_clerk ADD COLUMN first_seen_at timestamptz NOT NULL DEFAULT now();
UPDATE users_not_in_clerk SET first_seen_at = seen_at;

-- +goose Down
ALTER TABLE users_not_in_clerk DROP COLUMN first_seen_at;
