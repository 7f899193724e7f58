-- Which attempt to collect an invoice its first failure was of that we were told of; null where that is not known.

-- +goose Up
ALTER TABLE payments ADD COLUMN first_failed_attempt bigint;

-- +goose Down
ALTER TABLE payments DROP COLUMN first_failed_attempt;
