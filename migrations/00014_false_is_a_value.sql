-- Where there is a subscription, its projection says whether it ends with its period: false too, which was left out.

-- +goose Up
-- What says true, or is of no subscription, is complete. All else gets a new version, which Clerk has to be brought to: ten users a second
-- fall due, so that the sweep leaves most of Clerk's rate to what people wait for. Whoever is looked at meanwhile is published at once, and
-- a program of before, which writes the new version in the old form, has Clerk tell of that, upon which it is mended.
WITH incomplete AS MATERIALIZED (
    SELECT id, now() + (row_number() OVER (ORDER BY id) / 10) * interval '1 second' AS at FROM person_user
    WHERE projection ? 'subscriptionId' AND NOT projection ? 'cancelAtPeriodEnd'
), completed AS (
    UPDATE person_user u SET projection = u.projection || '{"cancelAtPeriodEnd": false}',
        projection_version = u.projection_version + 1,
        published_version = CASE WHEN u.deleted_at IS NULL THEN u.published_version ELSE u.projection_version + 1 END,
        publish_due_since = CASE WHEN u.deleted_at IS NULL THEN coalesce(u.publish_due_since, i.at) END,
        publish_retry_at = CASE WHEN u.deleted_at IS NULL THEN least(u.publish_retry_at, i.at) END
    FROM incomplete i WHERE u.id = i.id
    RETURNING u.id, u.clerk_user_id
)
INSERT INTO audit_log (action, user_id, clerk_user_id, entity, subject, before, after)
SELECT 'projection.changed', id, clerk_user_id, 'user/' || clerk_user_id, clerk_user_id, '{}', '{"cancelAtPeriodEnd": false}' FROM completed;

-- +goose Down
UPDATE person_user SET projection = projection - 'cancelAtPeriodEnd' WHERE projection -> 'cancelAtPeriodEnd' = 'false';
