package fences_test

import (
	"context"
	"errors"
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

// portalThen does something once Stripe has opened a portal.
type portalThen struct {
	selfservice.Stripe
	then func()
}

func (p portalThen) OpenPortal(ctx context.Context, customerID, returnURL, key string) (string, error) {
	address, err := p.Stripe.OpenPortal(ctx, customerID, returnURL, key)
	p.then()
	return address, err
}

// A portal that was accepted, and opened, is not told as refused because the database is gone
// behind it: the operation is the answer, and the same key opens it again.
func TestAPortalThatWasAcceptedIsToldAsAccepted(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	desk, relay := l.teller(time.Second)
	stripe := desk.Stripe
	desk.Stripe = portalThen{stripe, relay.Cut}
	open := func() (string, *store.Operation, error) {
		return desk.Portal(t.Context(), selfservice.Caller{UserID: s.user}, selfservice.Key{Value: "k", Method: "POST", Route: "/api/portal"}, "https://app.example.com/")
	}
	address, pending, err := open()
	if err != nil || pending == nil || address != "" {
		t.Fatalf("told %q, %+v, %v", address, pending, err)
	}
	l.wants(pending.ID, `SELECT id FROM operations WHERE action = 'portal'`)
	relay.Mend()
	desk.Stripe = stripe
	if address, _, err = open(); err != nil || address == "" {
		t.Errorf("asked again: told %q, %v", address, err)
	}
	l.wants("1", `SELECT count(*) FROM operations`)
}

// Whom Clerk has there is, though their sign-up has not come yet: an admin who reads them has them
// onboarded, as whoever asks for a sync does. Whom Clerk does not have there is not.
func TestAnAdminReadsAUserWhoHasJustSignedUp(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	admin := l.subject(1)
	user := l.Sandbox.Clerk.AddUser(person("bob", "bob@example.com", true))
	l.untold()
	desk := l.requests(l.work)
	desk.Wait = time.Second
	state := func(user string) (*store.Operation, error) {
		_, op, err := desk.State(t.Context(), selfservice.Caller{UserID: admin.user, Admin: true}, user)
		return op, err
	}
	if op, err := state(user); err != nil || op == nil || op.Status.Settled() {
		t.Fatalf("told %+v, %v", op, err)
	}
	l.settle()
	if op, err := state(user); err != nil || op != nil {
		t.Errorf("then told %+v, %v", op, err)
	}
	_, err := state("user_nobody0000000000000000000")
	if r, ok := errors.AsType[*selfservice.Refusal](err); !ok || r.Kind != selfservice.NotFound {
		t.Errorf("of nobody: %v", err)
	}
}
