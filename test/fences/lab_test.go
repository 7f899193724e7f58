package fences_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/clerkevent"
	"github.com/nepfy/clerk-stripe-sync/internal/intake"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeevent"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// lab is a database and both providers without the programs: whatever happens, a test does.
// Webhooks are held; take puts them into the inbox.
type lab struct {
	*system.System
	t              *testing.T
	db             *pgxpool.Pool
	product, price string
	// work does what no interleaving is made of.
	work *actor
}

func newLab(t *testing.T, o policies) *lab {
	t.Helper()
	l := &lab{System: system.Start(t, servers, system.Options{WithoutTemporal: true}), t: t}
	db, err := pgxpool.New(t.Context(), l.DSN)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	l.db = db
	l.Sandbox.ClerkWebhooks.Hold()
	l.Sandbox.StripeWebhooks.Hold()
	l.work = l.actor(o)
	l.product = l.Sandbox.Stripe.AddProduct("Pro")
	l.price = l.addPrice(2000)
	return l
}

// addPrice makes a price that the catalogue knows.
func (l *lab) addPrice(amount int64) string {
	l.t.Helper()
	price := l.Sandbox.Stripe.AddPrice(l.product, amount, "month")
	l.take()
	l.settle()
	return price
}

// take stores what both providers have told so far, as the inbox does.
func (l *lab) take() {
	l.t.Helper()
	ctx := l.t.Context()
	l.must(errors.Join(l.Sandbox.Clerk.Settled(ctx), l.Sandbox.Stripe.Settled(ctx)))
	var events []store.NewEvent
	for _, m := range l.Sandbox.ClerkWebhooks.TakeHeld() {
		e, err := clerkevent.Parse(string(m.Body))
		l.must(err)
		if e.Entity() != "" {
			events = append(events, store.NewEvent{Source: intake.SourceClerk, EventID: m.ID, Type: e.Type, Entity: e.Entity(), Job: e.Job(), Payload: string(m.Body), ReceivedAt: time.Now()})
		}
	}
	for _, m := range l.Sandbox.StripeWebhooks.TakeHeld() {
		e, err := stripeevent.Parse(string(m.Body))
		l.must(err)
		if e.Entity() != "" && stripeevent.Handled(e.Type) {
			events = append(events, store.NewEvent{Source: intake.SourceStripe, EventID: m.ID, Type: e.Type, Entity: e.Entity(), Job: account.JobSync,
				Payload: string(m.Body), ReceivedAt: time.Now(), Claims: e.Claims()})
		}
	}
	if len(events) > 0 {
		_, err := l.Store.AddEvents(ctx, events, 0)
		l.must(err)
	}
}

// unpoked takes what both providers have told so far, and forgets the pokes that came of it: what
// is looked at from here on is looked at by the test, or because of what an activity saw to.
func (l *lab) unpoked() {
	l.t.Helper()
	l.take()
	l.exec(`UPDATE pokes SET due_at = NULL`)
}

// settle looks after whatever is poked, and after what that pokes, until nothing is. Timers and
// the sweep are left out: all has to come out right without them.
func (l *lab) settle() {
	l.t.Helper()
	for range 50 {
		l.take()
		pokes, _, _, err := l.Store.ClaimPokes(l.t.Context(), 64, 64, time.Minute)
		l.must(err)
		if len(pokes) == 0 {
			return
		}
		for _, p := range pokes {
			l.must(l.work.look(l.t.Context(), account.Entity(p.Entity)))
		}
		l.must(l.Store.PokesDone(l.t.Context(), pokes))
	}
	l.t.Fatal("it does not come to rest")
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) exec(sql string, args ...any) {
	l.t.Helper()
	_, err := l.db.Exec(l.t.Context(), sql, args...)
	l.must(err)
}

// text answers one value as text.
func (l *lab) text(sql string, args ...any) (text string) {
	l.t.Helper()
	err := l.db.QueryRow(l.t.Context(), `SELECT coalesce((`+sql+`)::text, '')`, args...).Scan(&text)
	l.must(err)
	return text
}

// wants fails the test unless a query answers this.
func (l *lab) wants(want, sql string, args ...any) {
	l.t.Helper()
	if got := l.text(sql, args...); got != want {
		l.t.Errorf("%s %v: got %q, want %q", sql, args, got, want)
	}
}

func person(name, email string, verified bool) clerksim.UserSpec {
	return clerksim.UserSpec{FirstName: name, LastName: "Lovelace", Emails: []clerksim.EmailSpec{{Address: email, Verified: verified}}}
}

// signUp adds a user who is known everywhere and has a customer.
func (l *lab) signUp(name string) (user, customer string) {
	l.t.Helper()
	user = l.Sandbox.Clerk.AddUser(person(name, name+"@example.com", true))
	l.settle()
	customer = l.customerOf(user)
	if customer == "" {
		l.t.Fatal("the user has no customer")
	}
	return user, customer
}

func (l *lab) customerOf(user string) string {
	l.t.Helper()
	return l.text(`SELECT stripe_customer_id FROM person_user WHERE clerk_user_id = $1`, user)
}

// buy subscribes a customer and says so to nobody.
func (l *lab) buy(spec stripesim.CheckoutSpec) stripesim.CheckoutResult {
	l.t.Helper()
	if spec.PriceID == "" {
		spec.PriceID = l.price
	}
	bought, err := l.Sandbox.Stripe.CompleteCheckout(l.t.Context(), spec)
	l.must(err)
	return bought
}

// byServer are the metadata of a session that the app's own server has opened for a user.
func byServer(user string) map[string]string { return map[string]string{"clerk_user_id": user} }

// subscribed is a user with a customer and an active subscription, known everywhere.
func (l *lab) subscribed(name string) (user, customer, subscription string) {
	l.t.Helper()
	user, customer = l.signUp(name)
	subscription = l.buy(stripesim.CheckoutSpec{CustomerID: customer, ClientReferenceID: user}).SubscriptionID
	l.settle()
	l.agree(user)
	l.wants("active", `SELECT status FROM subscriptions WHERE stripe_subscription_id = $1`, subscription)
	return user, customer, subscription
}

// agree fails the test unless the three systems agree about a user now.
func (l *lab) agree(user string) {
	l.t.Helper()
	if err := l.Agreement(l.t.Context(), user, access()); err != nil {
		l.t.Error(err)
	}
	l.projected(user)
}

// projected fails the test unless the stored projection is what all of the user's rows give, with
// a version that has risen by one with each change.
func (l *lab) projected(user string) {
	l.t.Helper()
	l.must(l.Store.Update(l.t.Context(), "compare a projection", store.Cause{}, func(ctx context.Context, tx *store.Tx) error {
		row, err := tx.LockUser(ctx, user)
		if err != nil || row == nil {
			return errors.Join(err, fmt.Errorf("user %s: %v", user, row))
		}
		before, version := string(row.ProjectionJSON), row.ProjectionVersion
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		if changed, err := tx.Reproject(ctx, row, access(), now, nil); err != nil || changed {
			l.t.Errorf("the projection of %s is not that of its rows (%v): %s, not %s", user, err, before, row.ProjectionJSON)
			return err
		}
		l.wants(fmt.Sprint(version), `SELECT count(*) FROM audit_log WHERE action = 'projection.changed' AND clerk_user_id = $1`, user)
		return nil
	}))
}

// locked tells whether somebody waits for a lock.
func (l *lab) locked() bool {
	l.t.Helper()
	var n int
	err := l.db.QueryRow(l.t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&n)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		l.t.Fatal(err)
	}
	return n > 0
}

func access() account.AccessPolicy { return account.AccessPolicy{PastDueGrace: 72 * time.Hour} }

// reach waits until somebody stands at a stop.
func reach(t *testing.T, s *stop, done <-chan error) {
	t.Helper()
	select {
	case <-s.reached:
	case err := <-done:
		t.Fatalf("ended before it came to %q: %v", s.match, err)
	case <-time.After(system.Patience()):
		t.Fatalf("nobody came to %q", s.match)
	}
}

// wait waits until somebody has ended.
func wait(t *testing.T, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(system.Patience()):
		t.Fatal("it does not end")
	}
}

// begin runs something beside the test.
func begin(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

func stringField(t *testing.T, raw json.RawMessage, name string) string {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal(raw, &fields); err != nil {
		t.Fatal(err)
	}
	text, _ := fields[name].(string)
	return text
}

// patient runs workflows in skipped time, and takes a busy machine for no deadlock.
func patient() *testsuite.TestWorkflowEnvironment {
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestWorkflowEnvironment()
	env.SetTestTimeout(time.Minute)
	env.SetWorkerOptions(worker.Options{DeadlockDetectionTimeout: time.Minute})
	return env
}
