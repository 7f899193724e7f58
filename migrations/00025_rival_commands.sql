-- Commands for one subscription: which are under way beside each other, and what each has asked Stripe for.

-- +goose Up
DROP INDEX operations_subscription;
CREATE INDEX operations_subscription ON operations (stripe_subscription_id, seq)
    WHERE status IN ('acting', 'recorded', 'done') AND action IN ('cancel', 'cancel_now', 'reactivate');
CREATE INDEX stripe_requests_operation ON stripe_requests (split_part(key, ':', 1)) WHERE key LIKE 'op\_%';

-- +goose Down
DROP INDEX stripe_requests_operation;
DROP INDEX operations_subscription;
CREATE INDEX operations_subscription ON operations (stripe_subscription_id, seq)
    WHERE status IN ('recorded', 'done') AND action IN ('cancel', 'cancel_now', 'reactivate');
