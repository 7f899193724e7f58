-- What a user's own requests have opened a moment ago, and Stripe's list of open checkouts may not show yet.

-- +goose Up
CREATE INDEX operations_checkouts ON operations (clerk_user_id, settled_at) WHERE action = 'checkout' AND status = 'done';

-- +goose Down
DROP INDEX operations_checkouts;
