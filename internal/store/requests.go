package store

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

// StripeRequest is a change that Stripe is asked for under one idempotency key, in as many
// generations as it takes.
type StripeRequest struct {
	// Key is the key without its generation.
	Key        string    `db:"key"`
	Generation int       `db:"generation"`
	Since      time.Time `db:"generation_at"` // before the generation was first used
	// Old is set where Stripe may have forgotten the generation by now, so that asking under it again
	// may do the same twice.
	Old bool `db:"old"`
}

// IdempotencyKey is the key that Stripe is told.
func (r StripeRequest) IdempotencyKey() string { return r.Key + ":" + strconv.Itoa(r.Generation) }

// stripeRequestColumns reckon with less than the day for which Stripe remembers a key at least.
const stripeRequestColumns = `key, generation, generation_at, generation_at < now() - interval '23 hours' AS old`

// goesOn holds while the command whose id begins the key $1 goes on, if that is a command's key,
// and keeps it from being settled until the generation is committed: whoever settles it then sees
// every generation under which it may have asked.
const goesOn = `NOT EXISTS (SELECT FROM command WHERE status NOT IN ('accepted', 'acting', 'recorded'))`

const withCommand = `WITH command AS MATERIALIZED (SELECT status FROM operations
	WHERE id = split_part($1, ':', 1) AND action IN ('cancel', 'cancel_now', 'reactivate') FOR SHARE) `

// OperationSettled is the code of the failure of a request that is not to be made any more, since
// its command has ended.
const OperationSettled = "operation_settled"

// StripeRequest notes that Stripe is about to be asked under a key, and answers the generation to
// ask under. It is called before the first byte is sent. A command that has ended, of which an
// attempt goes on that does not know it, asks for nothing any more.
func (s *Store) StripeRequest(ctx context.Context, key string) (StripeRequest, error) {
	rows, _ := s.pool.Query(ctx, withCommand+`INSERT INTO stripe_requests (key) SELECT $1 WHERE `+goesOn+`
		ON CONFLICT (key) DO UPDATE SET asked_at = now() RETURNING `+stripeRequestColumns, key)
	r, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[StripeRequest])
	if errors.Is(err, pgx.ErrNoRows) {
		return r, failure.New(failure.Transient, "postgres", "note a request to Stripe", OperationSettled, nil)
	}
	return r, classify("note a request to Stripe", err)
}

// CommandRequests lists what Stripe was asked for commands, as far as it may remember it.
func (t *Tx) CommandRequests(ctx context.Context, operations []string) ([]StripeRequest, error) {
	rows, _ := t.tx.Query(ctx, `SELECT `+stripeRequestColumns+` FROM stripe_requests WHERE key LIKE 'op\_%' AND split_part(key, ':', 1) = ANY($1)
		ORDER BY key`, operations)
	requests, err := pgx.CollectRows(rows, pgx.RowToStructByName[StripeRequest])
	return requests, classify("list the requests of commands", err)
}

// StripeAskedSince answers since when Stripe may have made what is asked for under a key, if
// anybody has asked for it lately.
func (s *Store) StripeAskedSince(ctx context.Context, key string) (since time.Time, asked bool, err error) {
	err = s.pool.QueryRow(ctx, `SELECT generation_at FROM stripe_requests WHERE key = $1`, key).Scan(&since)
	if errors.Is(err, pgx.ErrNoRows) {
		return since, false, nil
	}
	return since, err == nil, classify("look for a request to Stripe", err)
}

// NextStripeRequest leaves a generation behind whose answer is of no use, and answers the one to
// ask under instead. Where somebody else has left it behind already, that is the one that they go
// on under.
func (s *Store) NextStripeRequest(ctx context.Context, r StripeRequest) (StripeRequest, error) {
	rows, _ := s.pool.Query(ctx, withCommand+`UPDATE stripe_requests SET generation = generation + 1, generation_at = now(), asked_at = now()
		WHERE key = $1 AND generation = $2 AND `+goesOn+` RETURNING `+stripeRequestColumns, r.Key, r.Generation)
	next, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[StripeRequest])
	if errors.Is(err, pgx.ErrNoRows) {
		return s.StripeRequest(ctx, r.Key)
	}
	return next, classify("leave a request to Stripe behind", err)
}

// ForgetStripeRequests removes what was not asked for days: Stripe has forgotten every generation
// of it long since.
func (s *Store) ForgetStripeRequests(ctx context.Context, limit int) (int64, error) {
	tag, err := s.pool.Exec(ctx, `DELETE FROM stripe_requests WHERE key = ANY(ARRAY(SELECT key FROM stripe_requests
		WHERE asked_at < now() - interval '3 days' ORDER BY asked_at LIMIT $1 FOR UPDATE SKIP LOCKED))`, limit)
	return tag.RowsAffected(), classify("forget requests to Stripe", err)
}
