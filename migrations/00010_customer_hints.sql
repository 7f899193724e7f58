-- Where an earlier application has noted a user's customer.

-- +goose Up
-- The user could have written it: it says where to look, and proves nothing. Asked for only while the user has no customer.
CREATE TABLE customer_hints (
    user_id            uuid PRIMARY KEY REFERENCES person_user (id) ON DELETE CASCADE,
    stripe_customer_id text NOT NULL
);

-- +goose Down
DROP TABLE customer_hints;
