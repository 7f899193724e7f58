package fences_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/clerkapi"
	"github.com/nepfy/clerk-stripe-sync/internal/selfservice"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeapi"
	"github.com/nepfy/clerk-stripe-sync/internal/stripechanges"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// commanded does for an operation what a test says.
type commanded func(*store.Operation) error

func (c commanded) Command(_ context.Context, op *store.Operation, _ time.Duration) error {
	return c(op)
}

// teller is a desk whose database can be cut off, and what it asks PostgreSQL.
func (l *lab) teller(wait time.Duration) (*selfservice.Desk, *system.DatabaseRelay) {
	l.t.Helper()
	relay := system.RelayDatabase(l.t, l.DSN)
	db, err := store.Open(l.t.Context(), store.Options{DSN: relay.DSN(), MaxConns: 4})
	l.must(err)
	l.t.Cleanup(db.Close)
	stripe := stripeapi.New(stripeapi.Options{Key: l.Sandbox.StripeSecretKey, BaseURL: l.Sandbox.StripeURL()})
	clerk := clerkapi.New(clerkapi.Options{Key: l.Sandbox.ClerkSecretKey, BaseURL: l.Sandbox.ClerkURL()})
	l.t.Cleanup(stripe.Close)
	return &selfservice.Desk{Store: db, Stripe: stripechanges.New(stripe, db), Clerk: clerk, Wake: func() {}, Wait: wait, Access: access(), Logger: slog.New(slog.DiscardHandler),
		Commander: commanded(func(*store.Operation) error { return nil })}, relay
}

// What is done, or under way, is not told as refused because the database is gone while its caller
// waits.
func TestWhatIsAcceptedIsToldAsAccepted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		back bool
		want store.OperationStatus
	}{"the database stays away": {false, store.OperationAccepted}, "the database comes back": {true, store.OperationDone}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			desk, relay := l.teller(3 * time.Second)
			desk.Commander = commanded(func(op *store.Operation) error {
				err := l.work.apply(t.Context(), s, op.ID)
				relay.Cut()
				if c.back {
					time.AfterFunc(200*time.Millisecond, relay.Mend)
				}
				return err
			})
			op, err := desk.Command(t.Context(), selfservice.CommandRequest{Caller: selfservice.Caller{UserID: s.user}, Command: account.CommandCancelNow, SubscriptionID: s.subscription})
			if err != nil || op.Status != c.want {
				t.Errorf("told %+v, %v, want %s", op, err, c.want)
			}
			l.wants("done", `SELECT status FROM operations`)
		})
	}
}

// A request whose commit was not answered is one that may have been accepted: it is found again, or
// told as pending, and done once.
func TestACommitWithoutAnAnswerIsNotARefusal(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		committed, back bool
	}{
		"committed":                         {true, true},
		"not committed":                     {false, true},
		"committed, and nobody says so":     {true, false},
		"not committed, and nobody says so": {false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			desk, relay := l.teller(2 * time.Second)
			desk.Commander = commanded(func(op *store.Operation) error { return l.work.apply(t.Context(), s, op.ID) })
			begun, cut := false, func() {
				relay.OnAnswer(nil)
				relay.OnStatement(nil)
				relay.Cut()
				if c.back {
					relay.Mend()
				}
			}
			watch := func(sql string) {
				begun = begun || strings.Contains(sql, "INSERT INTO operations")
				if begun && sql == "commit" {
					cut()
				}
			}
			if c.committed {
				relay.OnStatement(func(sql string) { begun = begun || strings.Contains(sql, "INSERT INTO operations") })
				relay.OnAnswer(func(sql string) {
					if begun && sql == "commit" {
						cut()
					}
				})
			} else {
				relay.OnStatement(watch)
			}
			op, err := desk.Command(t.Context(), selfservice.CommandRequest{Caller: selfservice.Caller{UserID: s.user}, Command: account.CommandCancelNow, SubscriptionID: s.subscription})
			if err != nil {
				t.Fatalf("told %v of what may have been accepted", err)
			}
			want, rows := store.OperationDone, "1"
			if !c.back {
				want = store.OperationAccepted
				if !c.committed {
					rows = "0"
				}
			}
			if op.Status != want {
				t.Errorf("told %+v, want %s", op, want)
			}
			l.wants(rows, `SELECT count(*)::text FROM operations`)
			if rows == "1" {
				l.wants(op.ID, `SELECT id FROM operations`)
			}
		})
	}
}

// Once a sync is committed, that its customers cannot be poked is no refusal: the sweep pokes them.
func TestASyncThatCannotPokeIsAccepted(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	desk, relay := l.teller(time.Second)
	relay.OnAnswer(func(sql string) {
		if strings.Contains(sql, "INSERT INTO operations") {
			relay.OnAnswer(func(sql string) {
				if sql == "commit" {
					return
				}
				if strings.Contains(sql, "FROM stripe_customers") {
					relay.OnAnswer(nil)
					relay.Cut()
				}
			})
		}
	})
	op, err := desk.Sync(t.Context(), selfservice.Caller{UserID: s.user}, selfservice.Key{}, "")
	if err != nil || op.Status != store.OperationAccepted {
		t.Fatalf("told %+v, %v", op, err)
	}
	l.exec(`UPDATE operations SET retry_at = now()`)
	l.exec(`DELETE FROM pokes`)
	_, err = l.Store.Sweep(t.Context(), 10)
	l.must(err)
	l.wants("customer/"+s.customer+" user/"+s.user, `SELECT string_agg(entity, ' ' ORDER BY entity) FROM pokes WHERE due_at IS NOT NULL`)
	l.settle()
	op, err = l.Store.Operation(t.Context(), op.ID)
	if err != nil || op.Status != store.OperationDone {
		t.Errorf("it ended %+v, %v", op, err)
	}
}
