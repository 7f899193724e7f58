-- When we erased a user. The product may write deleted_at at any time, also beside a deletion that is not done yet.

-- +goose Up
ALTER TABLE person_user ADD COLUMN erased_at timestamptz;

UPDATE person_user u SET erased_at = a.at FROM (SELECT user_id, min(at) AS at FROM audit_log WHERE action = 'user.erased' GROUP BY user_id) a
    WHERE a.user_id = u.id AND u.deletion_seq IS NOT NULL;
-- Whoever seemed to be erased by the product's note alone is looked at.
UPDATE person_user SET erase_retry_at = now() WHERE deletion_seq IS NOT NULL AND deleted_at IS NOT NULL AND erased_at IS NULL;

-- +goose Down
ALTER TABLE person_user DROP COLUMN erased_at;
