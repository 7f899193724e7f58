package store_test

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// largest is the largest batch that a store of one connection has sent.
type largest struct {
	*recorder

	batch int
}

// TraceBatchStart is called by the driver.
func (l *largest) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	l.batch = max(l.batch, data.Batch.Len())
	return ctx
}

// line is one of the audit log, written by a statement that waits for others.
func line(subject string) store.Entry {
	return store.Entry{Action: "test", Entity: "customer/cus_1", Subject: subject}
}

// A statement that waits for others fails what it is sent with, under its own name. Nothing of its
// transaction is kept, and the connection is as good as before.
func TestAStatementThatWaitsFails(t *testing.T) {
	t.Parallel()
	with := map[string]func(ctx context.Context, tx *store.Tx, u *store.User) error{
		"the commit": func(context.Context, *store.Tx, *store.User) error { return nil },
		"a row":      func(ctx context.Context, tx *store.Tx, _ *store.User) error { _, err := tx.Now(ctx); return err },
		"rows": func(ctx context.Context, tx *store.Tx, _ *store.User) error {
			_, err := tx.SubscriptionsOfCustomer(ctx, "cus_1")
			return err
		},
		"one row of some": func(ctx context.Context, tx *store.Tx, u *store.User) error {
			_, err := tx.LockUser(ctx, u.ClerkUserID)
			return err
		},
		"a statement whose outcome counts": func(ctx context.Context, tx *store.Tx, _ *store.User) error {
			_, _, err := tx.EnsureUser(ctx, "user_other")
			return err
		},
		"a batch": func(ctx context.Context, tx *store.Tx, u *store.User) error { return tx.Erase(ctx, u) },
	}
	for name, then := range with {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := worldOn(t, databases.DSN(t), store.Options{MaxConns: 1})
			id := w.user(1)
			before := one[int](w, `SELECT count(*) FROM audit_log`)
			err := w.Update(t.Context(), "test", store.Cause{}, func(ctx context.Context, tx *store.Tx) error {
				u, err := tx.LockUser(ctx, id)
				must(t, err)
				must(t, tx.NoteDrift(ctx, "customer/cus_1", account.DriftUnknownPrice, "sub_1"))
				must(t, tx.Audit(ctx, line("well")))
				must(t, tx.Audit(ctx, line("PostgreSQL takes no \x00")))
				return then(ctx, tx, u)
			})
			if failure.Of(err) != failure.Permanent || failure.CodeOf(err) != "22021" || !strings.Contains(err.Error(), "write the audit log") {
				t.Errorf("answered %v", err)
			}
			if n := one[int](w, `SELECT (SELECT count(*) FROM audit_log) + (SELECT count(*) FROM drift)`); n != before {
				t.Errorf("%d rows are kept", n-before)
			}
			must(t, w.noteDrift(t.Context(), "customer/cus_1", account.DriftUnknownPrice, "sub_1"))
		})
	}
}

// Statements are executed in the order in which they were given, whether they wait or not and
// however many they are, and each sees what those before it did.
func TestStatementsThatWaitKeepTheirOrder(t *testing.T) {
	t.Parallel()
	sent := &largest{recorder: newRecorder()}
	w := worldOn(t, databases.DSN(t), store.Options{MaxConns: 1, Tracer: sent})
	w.update(func(ctx context.Context, tx *store.Tx) error {
		for n := range 200 {
			must(t, tx.Audit(ctx, line(strconv.Itoa(n))))
		}
		// Each of these waits for the next: the last difference is new, and open.
		must(t, tx.NoteDrift(ctx, "customer/cus_1", account.DriftUnknownPrice, "sub_1"))
		must(t, tx.ResolveDrift(ctx, "customer/cus_1", account.DriftUnknownPrice, ""))
		must(t, tx.NoteDrift(ctx, "customer/cus_1", account.DriftUnknownPrice, "sub_1"))
		return nil
	})
	lines := all[string](w, `SELECT subject FROM audit_log ORDER BY id`)
	if len(lines) != 200 || !slices.IsSortedFunc(lines, func(a, b string) int { x, _ := strconv.Atoi(a); y, _ := strconv.Atoi(b); return x - y }) {
		t.Errorf("written were %q", lines)
	}
	if open := all[bool](w, `SELECT resolved_at IS NULL FROM drift ORDER BY id`); !slices.Equal(open, []bool{false, true}) {
		t.Errorf("open are %v", open)
	}
	// Many are sent together, and never all of very many.
	if sent.batch < 10 || sent.batch > 64 {
		t.Errorf("the most that were sent together are %d", sent.batch)
	}
}
