-- What was asked for a subscription later than something else.

-- +goose Up
CREATE INDEX operations_subscription ON operations (stripe_subscription_id, seq) WHERE status IN ('recorded', 'done') AND action IN ('cancel', 'cancel_now', 'reactivate');

-- +goose Down
DROP INDEX operations_subscription;
