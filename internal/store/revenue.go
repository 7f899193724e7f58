package store

import (
	"context"
	"math/big"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// Billed is what the subscriptions of one status bring in, of those that are billed in one currency
// at the same interval.
type Billed struct {
	account.Recurring
	Status           account.Status
	CollectionPaused bool
	// Free counts those among them whose amount is nothing: they are free, or metered.
	Free int64
	// Unpriced counts those beside them whose amount is not known exactly: they are in neither sum nor
	// count.
	Unpriced int64
}

// Billed adds up all subscriptions that are not over. It reads every one of them, so it is for a
// person who asks, never for what runs by itself.
func (s *Store) Billed(ctx context.Context) ([]Billed, error) {
	rows, err := s.pool.Query(ctx, `SELECT status, collection_paused, coalesce(currency, ''), coalesce(billing_interval, ''), coalesce(interval_count, 1),
			coalesce(sum(unit_amount::numeric * quantity), 0)::text, count(unit_amount), count(*) FILTER (WHERE unit_amount::numeric * quantity = 0),
			count(*) FILTER (WHERE unit_amount IS NULL)
		FROM subscriptions WHERE status NOT IN ('canceled', 'incomplete_expired') GROUP BY 1, 2, 3, 4, 5`)
	if err != nil {
		return nil, classify("add up what is billed", err)
	}
	billed, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (b Billed, err error) {
		var amount string
		if err := row.Scan(&b.Status, &b.CollectionPaused, &b.Currency, &b.Interval, &b.IntervalCount, &amount, &b.Subscriptions, &b.Free, &b.Unpriced); err != nil {
			return b, err //nolint:wrapcheck // classified below
		}
		b.Amount, _ = new(big.Int).SetString(amount, 10)
		return b, nil
	})
	return billed, classify("add up what is billed", err)
}
