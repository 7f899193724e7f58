-- That Clerk was seen to hold something else than what was published to it last: the number of the read that showed it, null once what was
-- written since is there.

-- +goose Up
ALTER TABLE person_user ADD COLUMN repair_seq bigint;
DROP INDEX person_user_publish_due;
CREATE INDEX person_user_publish_due ON person_user (publish_retry_at) WHERE projection_version <> published_version OR repair_seq IS NOT NULL;

-- +goose Down
DROP INDEX person_user_publish_due;
CREATE INDEX person_user_publish_due ON person_user (publish_retry_at) WHERE projection_version <> published_version;
ALTER TABLE person_user DROP COLUMN repair_seq;
