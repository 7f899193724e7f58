-- A request for the billing portal is an operation like the others, so that its Idempotency-Key means it and no other.

-- +goose Up
ALTER TABLE operations DROP CONSTRAINT operations_action_check;
ALTER TABLE operations ADD CONSTRAINT operations_action_check
    CHECK (action IN ('sync', 'cancel', 'cancel_now', 'reactivate', 'checkout', 'return', 'portal'));

-- +goose Down
DELETE FROM operations WHERE action = 'portal';
ALTER TABLE operations DROP CONSTRAINT operations_action_check;
ALTER TABLE operations ADD CONSTRAINT operations_action_check
    CHECK (action IN ('sync', 'cancel', 'cancel_now', 'reactivate', 'checkout', 'return'));
