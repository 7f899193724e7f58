// Package store keeps the product's own copy of users, customers and subscriptions, the inbox
// and the audit trail in PostgreSQL.
//
// [Store.Update] runs one transaction; [Tx] has the row-level steps. A transaction that touches
// a user's subscriptions locks the user's row first, then the customer's ([Tx.LockUser],
// [Tx.LockCustomer]), so that no two of them can wait for each other, and so that what is
// computed from several rows is computed by one transaction at a time.
package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

// Store is the database. It is safe for concurrent use.
type Store struct {
	pool    *pgxpool.Pool
	onDrift func(context.Context, NewDrift)
	// trustReferences is [Options.TrustClientReference].
	trustReferences bool
	numbers         numbers
}

// Options are how to reach the database.
type Options struct {
	DSN      string
	MaxConns int32
	// Tracer observes statements; nil for none.
	Tracer pgx.QueryTracer
	// OnDrift is told of each difference that was not open before; it may be nil.
	OnDrift func(context.Context, NewDrift)
	// TrustClientReference is [account.Evidence.TrustReferences] of all evidence.
	TrustClientReference bool
}

// The longest that a statement may run and may wait for a lock. Both are far above what any
// statement here needs and below the timeout of the activities that run them.
const (
	statementTimeout = "10000" // milliseconds
	lockTimeout      = "5000"
)

// Open prepares a pool. It does not connect: a database that cannot be reached shows in
// [Store.Ping] and in every call, and is used again as soon as it is back.
func Open(ctx context.Context, o Options) (*Store, error) {
	config, err := pgxpool.ParseConfig(o.DSN)
	if err != nil {
		// The library's error repeats the address, password included.
		return nil, errors.New("DATABASE_URL is not a PostgreSQL address such as postgres://user:password@host:5432/name")
	}
	if o.MaxConns > 0 {
		config.MaxConns = o.MaxConns
	}
	config.MaxConnIdleTime = 5 * time.Minute
	config.ConnConfig.ConnectTimeout = 5 * time.Second
	config.ConnConfig.Tracer = o.Tracer
	parameters := config.ConnConfig.RuntimeParams
	parameters["application_name"] = "clerk-stripe-sync"
	parameters["timezone"] = "UTC"
	parameters["statement_timeout"] = statementTimeout
	parameters["lock_timeout"] = lockTimeout
	parameters["idle_in_transaction_session_timeout"] = "30000"
	config.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		makeRoomForTexts(conn.TypeMap())
		return nil
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("preparing the database pool: %w", err)
	}
	if o.OnDrift == nil {
		o.OnDrift = func(context.Context, NewDrift) {}
	}
	return &Store{pool: pool, onDrift: o.OnDrift, trustReferences: o.TrustClientReference}, nil
}

// InUse is how many of the pool's connections something holds at this moment.
func (s *Store) InUse() int { return int(s.pool.Stat().AcquiredConns()) }

// Close closes all connections.
func (s *Store) Close() { s.pool.Close() }

// Ping tells whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	return classify("ping", s.pool.Ping(ctx))
}

// Tx is one transaction.
type Tx struct {
	tx      *pipeline
	store   *Store
	why     Cause
	drifted []NewDrift
	// now is the transaction's time, zero while nobody has asked.
	now time.Time
	// met is the number that the sequence has not reached, where that has ended the transaction.
	met int64
}

// Cause is why a transaction changes something; it goes into the audit log with every change.
type Cause struct {
	// Caller is who asked, where a person did; the Clerk user id or "operator".
	Caller string
	// OperationID is what they asked for.
	OperationID string
	WorkflowID  string
	RunID       string
}

// Update runs fn in one transaction (READ COMMITTED: each statement sees what was committed before
// it, so a statement after a lock sees what the lock waited for) and commits it. What fn did is
// undone when it or the commit fails. The error is a [failure.Error]. Where fn has met a number
// that the sequence has not reached, the sequence has been raised when this returns.
//
// fn may run more than once: a deadlock, or a link that moved while its rows were being
// locked, starts it again.
func (s *Store) Update(ctx context.Context, operation string, why Cause, fn func(ctx context.Context, tx *Tx) error) error {
	var met int64
	err := tryAgain(ctx, func() error {
		var drifted []NewDrift
		err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{}, func(tx pgx.Tx) error {
			t := &Tx{tx: &pipeline{tx: tx}, store: s, why: why}
			if err := fn(ctx, t); err != nil {
				met = t.met
				return err
			}
			drifted = t.drifted
			return t.tx.flush(ctx)
		})
		if err != nil {
			return err
		}
		for _, d := range drifted {
			s.onDrift(ctx, d)
		}
		return nil
	})
	return s.raised(ctx, classify(operation, err), met)
}

// tryAgain does what may lose a race to another transaction, a few times if it does.
func tryAgain(ctx context.Context, try func() error) error {
	const attempts = 5
	for attempt := 1; ; attempt++ {
		err := try()
		switch {
		case err == nil || attempt == attempts:
			return err
		case errors.Is(err, errLinkMoved):
		case isDeadlock(err):
			giveWay(ctx, attempt)
		default:
			return err
		}
	}
}

// giveWay lets the transaction go first that ours was in a deadlock with: started again at once,
// ours may have its first lock back before the other one wakes, and the two meet again.
func giveWay(ctx context.Context, attempt int) {
	pause := time.NewTimer(time.Duration(attempt) * (20*time.Millisecond + rand.N(30*time.Millisecond)))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
	}
}

// isDeadlock knows the error as the driver gives it, which is how a commit fails, and as the
// steps of a transaction have classified it.
func isDeadlock(err error) bool {
	code := failure.CodeOf(err)
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		code = pg.Code
	}
	return code == "40P01" || code == "40001"
}

// classifyRun is classify for a statement on the row of a run that has begun. That there is no such
// row is permanent: a PostgreSQL that was restored as it was before a run began knows nothing of
// it, and no attempt brings it back. The workflow ends, and the next run begins anew.
func classifyRun(operation string, err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return failure.New(failure.Permanent, "postgres", operation, "no_such_run", nil)
	}
	return classify(operation, err)
}

// classify turns a database error into the common vocabulary. What PostgreSQL says may hold
// values of the row, so only the SQLSTATE and the constraint's name are kept.
func classify(operation string, err error) error {
	if err == nil {
		return nil
	}
	if known, ok := failure.Leading(err); ok {
		return known
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return failure.New(failure.Transient, "postgres", operation, "unreachable", err)
	}
	code := pg.Code
	if pg.ConstraintName != "" {
		code += "_" + pg.ConstraintName
	}
	class := failure.Permanent
	switch pg.Code[:2] {
	case "08", "25", "40", "53", "55", "57", "58": // connection, transaction ended, rollback, resources, lock timeout, shutdown, system
		class = failure.Transient
	case "0A", "XX": // a plan from before a migration, a row that changed under a statement: gone the next time
		class = failure.Transient
	case "28", "3D", "42": // authorization, no such database, missing table or column
		class = failure.Operator
	}
	if pg.Code == "53100" || pg.Code == "25006" { // disk full, read-only
		class = failure.Operator
	}
	return failure.New(class, "postgres", operation, code, nil)
}
