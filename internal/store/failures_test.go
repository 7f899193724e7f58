package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// raise makes the next insert of a user fail with an error state and a text that holds what must
// not be seen.
func (w *world) raise(state string) {
	w.t.Helper()
	w.exec(fmt.Sprintf(`CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		RAISE EXCEPTION 'Key (email)=(ada@example.com)' USING ERRCODE = '%s', DETAIL = 'hunter2', HINT = 'hunter2'; END $$`, state))
	w.exec(`DROP TRIGGER IF EXISTS refuse ON person_user`)
	w.exec(`CREATE TRIGGER refuse BEFORE INSERT ON person_user FOR EACH ROW EXECUTE FUNCTION refuse()`)
}

// Every kind of error that a database gives says what is to be done about it, and nothing of
// what is in a row.
func TestClasses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for state, want := range map[string]failure.Class{
		"40P01": failure.Transient, // deadlock
		"40001": failure.Transient, // serialization
		"55P03": failure.Transient, // lock timeout
		"57014": failure.Transient, // statement timeout
		"57P01": failure.Transient, // shutdown
		"57P03": failure.Transient, // starting up
		"53300": failure.Transient, // too many connections
		"08006": failure.Transient, // connection lost
		"58030": failure.Transient, // disk trouble
		"25P03": failure.Transient, // idle in a transaction for too long
		"0A000": failure.Transient, // a plan from before a migration
		"XX000": failure.Transient, // "tuple concurrently updated" and the like
		"53100": failure.Operator,  // disk full
		"25006": failure.Operator,  // read-only
		"42P01": failure.Operator,  // no such table
		"42703": failure.Operator,  // no such column
		"42501": failure.Operator,  // not allowed
		"28P01": failure.Operator,  // wrong password
		"3D000": failure.Operator,  // no such database
		"23505": failure.Permanent, // unique
		"23503": failure.Permanent, // foreign key
		"23514": failure.Permanent, // check
		"22001": failure.Permanent, // too long
		"22021": failure.Permanent, // not a character
	} {
		w.raise(state)
		err := w.Update(t.Context(), "create a user", store.Cause{}, func(ctx context.Context, tx *store.Tx) error {
			_, _, err := tx.EnsureUser(ctx, "user_1")
			return err
		})
		if failure.Of(err) != want || failure.CodeOf(err) != state {
			t.Errorf("%s: %v, want %s", state, err, want)
		}
		if text := fmt.Sprintf("%v %+v", err, err); strings.Contains(text, "ada") || strings.Contains(text, "hunter2") {
			t.Errorf("%s: the error says %s", state, text)
		}
	}
}

// A constraint is named; the value that broke it is not.
func TestConstraintIsNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	event := stripeEvent("evt_1", "cus_1")
	event.Source = "ada@example.com"
	_, err := w.AddEvents(t.Context(), []store.NewEvent{event}, 0)
	if failure.Of(err) != failure.Permanent || failure.CodeOf(err) != "23514_webhook_events_source_check" || strings.Contains(err.Error(), "ada") {
		t.Errorf("a broken constraint was answered: %v", err)
	}
	if n := one[int](w, `SELECT count(*) FROM pokes`); n != 0 {
		t.Error("half of the transaction was kept")
	}
}

// A missing table is a missing migration: an operator mends it, and work goes on.
func TestMissingTable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.exec(`ALTER TABLE pokes RENAME TO pokes_away`)
	if err := w.Poke(t.Context(), account.JobSync, "user/user_1"); failure.Of(err) != failure.Operator || err == nil {
		t.Errorf("a missing table was answered: %v", err)
	}
	w.exec(`ALTER TABLE pokes_away RENAME TO pokes`)
	must(t, w.Poke(t.Context(), account.JobSync, "user/user_1"))
}

// Two transactions that wait for each other: one of them is started again, and both succeed.
func TestDeadlockStartsAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.user(1)
	w.user(2)
	// Each waits for the other to hold its first lock, in the first round only.
	held := [2]chan struct{}{make(chan struct{}), make(chan struct{})}
	done := make(chan error, 2)
	runs := make(chan struct{}, 16)
	for i, order := range [2][2]string{{"user_1", "user_2"}, {"user_2", "user_1"}} {
		go func() {
			first := true
			done <- w.Update(t.Context(), "lock two users", store.Cause{}, func(ctx context.Context, tx *store.Tx) error {
				runs <- struct{}{}
				if _, err := tx.LockUser(ctx, order[0]); err != nil {
					return err
				}
				if first {
					first = false
					close(held[i])
					select {
					case <-held[1-i]:
					case <-time.After(patience):
						return errors.New("the other one did not come")
					}
				}
				_, err := tx.LockUser(ctx, order[1])
				return err
			})
		}()
	}
	for range 2 {
		must(t, <-done)
	}
	// The one that is started again may be as quick as to meet the other once more.
	if n := len(runs); n < 3 {
		t.Errorf("the transactions ran %d times together, want one of them again", n)
	}
}

// Waiting for a lock ends, and is worth another attempt.
func TestLockTimeout(t *testing.T) {
	t.Parallel()
	dsn := databases.DSN(t)
	w := worldOn(t, dsn, store.Options{})
	id := w.user(1)
	holder := connect(t, dsn)
	tx, err := holder.Begin(t.Context())
	must(t, err)
	defer func() { must(t, tx.Rollback(context.WithoutCancel(t.Context()))) }()
	if _, err := tx.Exec(t.Context(), `SELECT FROM person_user FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	err = w.Update(t.Context(), "lock", store.Cause{}, func(ctx context.Context, tx *store.Tx) error { _, err := tx.LockUser(ctx, id); return err })
	if failure.Of(err) != failure.Transient || failure.CodeOf(err) != "55P03" {
		t.Errorf("a lock that nobody gives was answered: %v", err)
	}
}

// What ends a caller's context is known as that.
func TestCanceledContext(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := w.NextRead(ctx)
	if !errors.Is(err, context.Canceled) || failure.Of(err) != failure.Transient {
		t.Errorf("an ended context was answered: %v", err)
	}
}

// A connection that was lost costs at most one failure, which is worth another attempt.
func TestConnectionLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	must(t, w.Ping(t.Context()))
	err := w.Update(t.Context(), "lose", store.Cause{}, func(ctx context.Context, tx *store.Tx) error {
		if _, err := tx.Now(ctx); err != nil {
			return err
		}
		w.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
		_, err := tx.Now(ctx)
		return err
	})
	if failure.Of(err) != failure.Transient || err == nil {
		t.Errorf("a lost connection was answered: %v", err)
	}
	must(t, w.Ping(t.Context()))
}
