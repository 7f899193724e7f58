-- What the product, or somebody's server, writes over what we have noted or published.
--
-- That Clerk was seen to hold something else than what was published to it last: the number of the read that showed it, null once what was
-- written since is there.

-- +goose Up
ALTER TABLE person_user ADD COLUMN repair_seq bigint;
DROP INDEX person_user_publish_due;
CREATE INDEX person_user_publish_due ON person_user (publish_retry_at) WHERE projection_version <> published_version OR repair_seq IS NOT NULL;

-- A deletion that carries a number of ours stays asked for, whatever the product writes into its own column.
UPDATE person_user SET deletion_requested_at = coalesce(erased_at, now()) WHERE deletion_seq IS NOT NULL AND deletion_requested_at IS NULL;
-- +goose StatementBegin
CREATE FUNCTION deletion_stays_requested() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.deletion_requested_at := coalesce(OLD.deletion_requested_at, now());
    RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER deletion_stays_requested BEFORE UPDATE ON person_user FOR EACH ROW
    WHEN (NEW.deletion_seq IS NOT NULL AND NEW.deletion_requested_at IS NULL) EXECUTE FUNCTION deletion_stays_requested();

-- +goose Down
DROP TRIGGER deletion_stays_requested ON person_user;
DROP FUNCTION deletion_stays_requested();
DROP INDEX person_user_publish_due;
CREATE INDEX person_user_publish_due ON person_user (publish_retry_at) WHERE projection_version <> published_version;
ALTER TABLE person_user DROP COLUMN repair_seq;
