package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/localstack/testdb"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

var (
	// databases have the schema, empty ones have nothing yet.
	databases = testdb.New(migrate)
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(databases.Around(m)) }

func migrate(ctx context.Context, dsn string) error {
	m, err := store.NewMigrator(dsn)
	if err != nil {
		return err
	}
	_, err = m.Up(ctx)
	return errors.Join(err, m.Close())
}

// patience bounds what has to happen; nothing is expected to take a noticeable part of it.
const patience = time.Minute

// policy is the access policy of tests that are not about access.
func policy() account.AccessPolicy { return account.AccessPolicy{PastDueGrace: 72 * time.Hour} }

// world is a store on a database of its own, and a connection past it for assertions.
type world struct {
	*store.Store
	t    testing.TB
	dsn  string
	conn *pgx.Conn
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return worldOn(t, databases.DSN(t), store.Options{MaxConns: 8})
}

func worldOn(t testing.TB, dsn string, o store.Options) *world {
	t.Helper()
	o.DSN = dsn
	s, err := store.Open(t.Context(), o)
	if err != nil {
		t.Fatalf("open the store: %v", err)
	}
	t.Cleanup(s.Close)
	return &world{Store: s, t: t, dsn: dsn, conn: connect(t, dsn)}
}

func connect(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatalf("parse the address: %v", err)
	}
	config.RuntimeParams["timezone"] = "UTC"
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

// exec runs a statement past the store.
func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.conn.Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

// one reads one value past the store.
func one[T any](w *world, sql string, args ...any) T {
	w.t.Helper()
	var value T
	if err := w.conn.QueryRow(w.t.Context(), sql, args...).Scan(&value); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return value
}

// all reads a column past the store.
func all[T any](w *world, sql string, args ...any) []T {
	w.t.Helper()
	rows, _ := w.conn.Query(w.t.Context(), sql, args...)
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return values
}

// update runs a transaction that has to succeed.
func (w *world) update(fn func(ctx context.Context, tx *store.Tx) error) {
	w.t.Helper()
	if err := w.Update(w.t.Context(), "test", store.Cause{WorkflowID: "test/1", RunID: "run-1"}, fn); err != nil {
		w.t.Fatalf("update: %v", err)
	}
}

// add stores deliveries that have to be stored.
func (w *world) add(events ...store.NewEvent) []store.Added {
	w.t.Helper()
	added, err := w.AddEvents(w.t.Context(), events, 0)
	if err != nil {
		w.t.Fatalf("add events: %v", err)
	}
	return added
}

// take answers the ids of the due events of an entity that a read begun now would take.
func (w *world) take(entity account.Entity) []string {
	w.t.Helper()
	read, err := w.NextRead(w.t.Context())
	if err != nil {
		w.t.Fatalf("next read: %v", err)
	}
	var ids []string
	w.update(func(ctx context.Context, tx *store.Tx) error {
		due, err := tx.TakeEvents(ctx, entity, read)
		ids = nil
		for _, d := range due {
			ids = append(ids, d.EventID)
		}
		return err
	})
	return ids
}

// user makes a user and answers their Clerk id.
func (w *world) user(n int) string {
	w.t.Helper()
	id := fmt.Sprintf("user_%d", n)
	w.update(func(ctx context.Context, tx *store.Tx) error {
		_, _, err := tx.EnsureUser(ctx, id)
		return err
	})
	return id
}

// withUser runs a transaction that holds the user's row.
func (w *world) withUser(id string, fn func(ctx context.Context, tx *store.Tx, u *store.User) error) {
	w.t.Helper()
	w.update(func(ctx context.Context, tx *store.Tx) error {
		u, err := tx.LockUser(ctx, id)
		if err != nil {
			return err
		}
		if u == nil {
			return fmt.Errorf("no user %s", id)
		}
		return fn(ctx, tx, u)
	})
}

// link makes a customer a user's.
func (w *world) link(userID, customerID string) {
	w.t.Helper()
	w.update(func(ctx context.Context, tx *store.Tx) error {
		u, c, err := tx.LockCustomerFor(ctx, userID, customerID)
		if err != nil {
			return err
		}
		return tx.Link(ctx, u, c, "created", 1, nil)
	})
}

// stripeEvent is a delivery about a customer.
func stripeEvent(id, customerID string) store.NewEvent {
	return store.NewEvent{Source: "stripe", EventID: id, Type: "customer.subscription.updated", Entity: account.CustomerEntity(customerID),
		Job: account.JobSync, Payload: `{"id":"` + id + `"}`, ReceivedAt: time.Now()}
}

// clerkEvent is a delivery about a user.
func clerkEvent(id, eventType, userID string) store.NewEvent {
	return store.NewEvent{Source: "clerk", EventID: id, Type: eventType, Entity: account.UserEntity(userID),
		Job: store.JobOf(eventType), Payload: `{"type":"` + eventType + `"}`, ReceivedAt: time.Now()}
}

// must fails the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// within answers a context that ends when patience does.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// noteDrift notes a difference in a transaction of its own.
func (w *world) noteDrift(ctx context.Context, entity account.Entity, class account.Drift, subject string) error {
	return w.Update(ctx, "note drift", store.Cause{}, func(ctx context.Context, tx *store.Tx) error { return tx.NoteDrift(ctx, entity, class, subject) })
}
