package store

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

// Everything is ordered by the numbers of one sequence: deliveries, reads, requests. A database
// that was put back can hold numbers that its sequence has not reached. Whatever was drawn then
// would be taken for older than what is stored, for as long as it takes the sequence to get there.
//
// So nothing is concluded from such a number. Whoever meets one has the sequence raised, stores
// nothing, completes nothing and fails; the next attempt draws a number that is higher than all
// that is stored.

// codeBehind is the code of the failure of what has met a number that the sequence has not reached.
const codeBehind = "sequence_behind"

// numbers is what a program knows of the sequence.
type numbers struct {
	// highest is the highest number that this program has drawn, or has raised the sequence to.
	highest atomic.Int64

	// compared is when the stored numbers were last looked through, took how long that lasted, and
	// ahead what came of it.
	mu       sync.Mutex
	compared time.Time
	took     time.Duration
	ahead    bool
}

// drew takes note of a number.
func (n *numbers) drew(number int64) {
	for {
		known := n.highest.Load()
		if number <= known || n.highest.CompareAndSwap(known, number) {
			return
		}
	}
}

// NextRead draws the number of a read that is about to begin: higher than that of every event
// received so far. It must be drawn before the first byte is asked of the provider.
func (s *Store) NextRead(ctx context.Context) (int64, error) {
	return s.inOrder(ctx, func() (number int64, err error) {
		err = s.pool.QueryRow(ctx, `SELECT nextval('sync_seq')`).Scan(&number)
		return number, classify("draw a read number", err)
	})
}

// inOrder draws a number, and has the sequence raised and another drawn where it was set back since
// this program drew its last.
func (s *Store) inOrder(ctx context.Context, draw func() (int64, error)) (int64, error) {
	// Whoever draws beside this may be the later one to know: what was known before is what counts.
	known := s.numbers.highest.Load()
	number, err := draw()
	if err == nil && number <= known {
		if _, err = s.RaiseNumbers(ctx, known); err == nil {
			number, err = draw()
		}
	}
	if err != nil {
		return 0, err
	}
	s.numbers.drew(number)
	return number, nil
}

// raiseTimeout bounds a raise, which looks through whole tables.
const raiseTimeout = "300000" // milliseconds

// RaiseNumbers sees to it that the sequence is past every number that is stored, and answers where
// it stands. met is a number that it ought to have reached, so that of many who have met one only
// the first looks for more; zero looks in any case.
func (s *Store) RaiseNumbers(ctx context.Context, met int64) (reached int64, err error) {
	err = pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = `+raiseTimeout+`; SET LOCAL lock_timeout = `+raiseTimeout); err != nil {
			return err
		}
		return tx.QueryRow(ctx, raiseNumbers, met).Scan(&reached)
	})
	if err != nil {
		return 0, classify("raise the number sequence", err)
	}
	// Also where it is lower than what this program has drawn: those numbers are gone with the
	// database that they were drawn from.
	s.numbers.highest.Store(reached)
	return reached, nil
}

const raiseNumbers = `SELECT raise_sync_seq(nullif($1::bigint, 0))`

// RaiseNumbers is [Store.RaiseNumbers], for a program that sets the database up.
func (m *Migrator) RaiseNumbers(ctx context.Context) (reached int64, err error) {
	if err := m.db.QueryRowContext(ctx, raiseNumbers, 0).Scan(&reached); err != nil {
		return 0, fmt.Errorf("raising the number sequence: %w", err)
	}
	return reached, nil
}

// Reading fails unless what the read with this number showed can be ordered among what is stored:
// where the sequence has handed out neither its number nor one of these, which stand in rows that
// the transaction has locked, and where it would lose to one that no read of this sequence had.
// Every transaction that stores a read asks this first, behind its locks.
//
// The clock that it takes along is [Tx.Now]'s.
func (t *Tx) Reading(ctx context.Context, read int64, stored ...int64) error {
	var highest int64
	for _, number := range stored {
		highest = max(highest, number)
	}
	now, err := ordered(ctx, t.tx, read, highest)
	if err != nil {
		t.met = max(read, highest)
		return err
	}
	t.now = now
	return nil
}

type rowQuerier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func ordered(ctx context.Context, q rowQuerier, read, stored int64) (now time.Time, err error) {
	const operation = "order a read"
	var known bool
	// The sequence is looked at after the rows were: what they hold it has handed out before, if it
	// has at all.
	err = q.QueryRow(ctx, `SELECT now(), greatest($1::bigint, $2::bigint) <= coalesce(pg_sequence_last_value('sync_seq'), 0)
		AND NOT EXISTS (SELECT FROM number_raises WHERE $1 > after AND $1 <= up_to OR $1 > 0 AND $2 > $1 AND $2 > after AND $2 <= up_to)`, read, stored).Scan(&now, &known)
	if err != nil {
		return now, classify(operation, err)
	}
	if !known {
		return now, errBehind(operation)
	}
	return now, nil
}

func errBehind(operation string) error {
	return failure.New(failure.Operator, "postgres", operation, codeBehind, nil)
}

// IsBehind tells whether a failure is that the sequence has not reached a number that was met.
func IsBehind(err error) bool { return failure.CodeOf(err) == codeBehind }

// raised has the sequence raised where err says that it is behind the number that was met.
func (s *Store) raised(ctx context.Context, err error, met int64) error {
	if !IsBehind(err) {
		return err
	}
	if _, raising := s.RaiseNumbers(ctx, met); raising != nil {
		return raising
	}
	return err
}

// Overtaken tells whether a read of an entity whose number is higher than this one has been stored.
func (s *Store) Overtaken(ctx context.Context, entity account.Entity, read int64) (bool, error) {
	stored, err := s.readSeqOf(ctx, entity)
	if err != nil {
		return false, err
	}
	if _, err := ordered(ctx, s.pool, read, stored); err != nil {
		return false, s.raised(ctx, err, max(read, stored))
	}
	return stored > read, nil
}

// comparedAtMost is which part of its time the database may be busy with looking through stored
// numbers.
const comparedAtMost = 1000

// NumbersBehind is an operator failure while the sequence is behind numbers that are stored, or
// that this program has drawn. It raises nothing. All that is stored is looked through only so
// often that it costs next to nothing.
func (s *Store) NumbersBehind(ctx context.Context) error {
	const operation = "compare the number sequence"
	known := s.numbers.highest.Load()
	var reached int64
	if err := s.pool.QueryRow(ctx, `SELECT coalesce(pg_sequence_last_value('sync_seq'), 0)`).Scan(&reached); err != nil {
		return classify(operation, err)
	}
	if reached < known {
		return errBehind(operation)
	}
	n := &s.numbers
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ahead || time.Since(n.compared) >= comparedAtMost*n.took {
		began := time.Now()
		err := s.pool.QueryRow(ctx, storedAhead).Scan(&n.ahead)
		n.compared, n.took = time.Now(), time.Since(began)
		if err != nil {
			n.ahead = false
			return classify(operation, err)
		}
	}
	if n.ahead {
		return errBehind(operation)
	}
	return nil
}

// storedAhead tells whether a number is stored that the sequence has not reached.
const storedAhead = `SELECT EXISTS (SELECT FROM webhook_events WHERE seq > s.reached)
	OR EXISTS (SELECT FROM stripe_customers WHERE read_seq > s.reached OR schedules_read_seq > s.reached OR -profile_version > s.reached)
	OR EXISTS (SELECT FROM person_user WHERE read_seq > s.reached OR deletion_seq > s.reached)
	OR EXISTS (SELECT FROM plans WHERE read_seq > s.reached)
	OR EXISTS (SELECT FROM subscription_changes WHERE read_seq > s.reached)
	OR EXISTS (SELECT FROM operations WHERE seq > s.reached)
	OR EXISTS (SELECT FROM pokes WHERE token > s.reached OR event_token > s.reached)
	FROM (SELECT coalesce(pg_sequence_last_value('sync_seq'), 0) AS reached) AS s`
