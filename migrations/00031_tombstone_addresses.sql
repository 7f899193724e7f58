-- The address that a deleted user had verified as their primary one, as a keyed hash: it still says that a customer with that address
-- was theirs, where what they bought becomes known after they were erased.

-- +goose Up
-- The key of these hashes, made here and known to nobody else. Whoever replaces it forgets all of them.
ALTER TABLE provider_identity
    ADD COLUMN address_key bytea NOT NULL DEFAULT decode(replace(concat(gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid()), '-', ''), 'hex');

CREATE TABLE tombstone_addresses (
    mark    bytea NOT NULL,
    user_id uuid  NOT NULL REFERENCES person_user (id) ON DELETE CASCADE,
    PRIMARY KEY (mark, user_id)
);
CREATE INDEX tombstone_addresses_user ON tombstone_addresses (user_id);

-- Of those who are erased already nothing is left that tells.
INSERT INTO tombstone_addresses (mark, user_id)
SELECT sha256(substr(i.address_key, 33) || sha256(substr(i.address_key, 1, 32) || convert_to(lower(trim(u.email)), 'UTF8'))), u.id
FROM person_user u, provider_identity i
WHERE u.deletion_requested_at IS NOT NULL AND u.email_verified AND trim(u.email) <> '';

-- +goose Down
DROP TABLE tombstone_addresses;
ALTER TABLE provider_identity DROP COLUMN address_key;
