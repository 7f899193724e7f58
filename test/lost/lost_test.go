package lost_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"testing"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/app"
	"github.com/nepfy/clerk-stripe-sync/internal/runs"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/test/system"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// Everything that Stripe and Clerk tell for ten minutes is lost. The events that Stripe lists, and
// the users whom Clerk has changed, are found, and applied as if they had been delivered.
func TestEventRecoveryFindsWhatWasLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.tenMinutes()
	w.disagrees()

	environ := maps.Clone(w.s.Environ)
	environ["RECOVERY_INTERVAL"] = "1s"
	if err := app.Setup(t.Context(), environ, io.Discard); err != nil {
		t.Fatal(err)
	}
	w.agrees()
	// What a provider's list of objects does not show: a payment that was given back.
	w.s.Until("the refund is known", func(ctx context.Context) error {
		var refunded int64
		err := w.s.Row(ctx, `SELECT coalesce(max(amount_refunded), 0) FROM payments WHERE charge_id = $1 OR id = $1`, []any{w.refunded}, &refunded)
		if err == nil && refunded == 0 {
			err = errors.New("nothing was refunded")
		}
		return err
	})
	if n := w.s.Count(`SELECT count(*) FROM webhook_events WHERE recovered AND status = 'completed'`); n == 0 {
		t.Error("no event was recovered")
	}

	// Nothing is missing any more, and the next passes say so.
	w.s.Quiet(true)
	w.s.Until("a pass finds nothing", func(ctx context.Context) error {
		states, err := w.s.Store.RecoveryStates(ctx)
		if err != nil {
			return err
		}
		for _, s := range states {
			if s.Missing != 0 || s.MissingAll == 0 {
				return fmt.Errorf("%s: %d of %d were missing in the last pass", s.Source, s.Missing, s.MissingAll)
			}
		}
		if len(states) != 2 {
			return fmt.Errorf("%d lists were read", len(states))
		}
		return nil
	})
}

// The same ten minutes, and nobody looks for events: a comparison of everything finds what they
// have changed and repairs it.
func TestReconciliationFindsWhatWasLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	leaver := w.person("leaver")
	w.s.Quiet(false)
	w.buys(leaver, w.pro)
	w.s.Quiet(false)
	w.lose(true)
	if err := w.s.Sandbox.Clerk.DeleteUser(leaver.ClerkUserID); err != nil {
		t.Fatal(err)
	}
	w.tenMinutes()
	w.disagrees()

	var alone []account.Drift
	for _, class := range account.DriftClasses() {
		if class.Repair() == account.RepairAlone {
			alone = append(alone, class)
		}
	}
	told := w.reconcile(workflows.ReconciliationInput{Caller: "operator"})
	if told.Asked != 0 || len(told.Confirmed) == 0 {
		t.Fatalf("a run that was not asked to repair anything came to %+v", told)
	}
	w.disagrees()

	done := w.reconcile(workflows.ReconciliationInput{Caller: "operator", Repair: alone})
	if done.Unmended != 0 || !maps.Equal(done.Confirmed, told.Confirmed) {
		t.Errorf("the repair came to %+v, before it was %+v", done, told)
	}
	w.agrees()
	if n := w.open(account.DriftUserMissing); n != 1 {
		t.Errorf("%d users are missing in Clerk, want the one who left", n)
	}
	after := w.reconcile(workflows.ReconciliationInput{Caller: "operator"})
	if len(after.Confirmed) != 1 || after.Confirmed[string(account.DriftUserMissing)] != 1 {
		t.Errorf("after the repair there is %v", after.Confirmed)
	}
	if n := w.s.Count(`SELECT count(*) FROM person_user WHERE deletion_requested_at IS NOT NULL`); n != 0 {
		t.Error("somebody was deleted because a list did not show them")
	}

	// That somebody has left only a person can say.
	w.reconcile(workflows.ReconciliationInput{Caller: "operator", Repair: []account.Drift{account.DriftUserMissing}})
	naming, err := w.naming()
	w.must(err)
	leaver.Customers = naming[leaver.ClerkUserID]
	w.s.Until("the user who left is a tombstone", func(ctx context.Context) error { return w.truth.Of(ctx, leaver) })
	if n := w.open(account.DriftUserMissing); n != 0 {
		t.Errorf("%d users are missing in Clerk still", n)
	}
	if n := w.s.Count(`SELECT count(*) FROM audit_log WHERE action = 'user.deletion_requested' AND caller = 'operator'`); n != 1 {
		t.Errorf("the audit log has %d deletions that the operator asked for", n)
	}
	if n := w.s.Count(`SELECT count(*) FROM reconciliation_seen`) + w.s.Count(`SELECT count(*) FROM reconciliation_found`); n != 0 {
		t.Errorf("the runs have left %d rows", n)
	}
}

// world is a product with a few people.
type world struct {
	t     *testing.T
	s     *system.System
	truth *system.Truth

	product                string
	pro, team              string // prices
	people                 []system.Owned
	subscriptions, charges map[string]string // by user
	refunded               string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, s: system.Start(t, servers, system.Options{}), subscriptions: map[string]string{}, charges: map[string]string{}}
	w.product = w.s.Sandbox.Stripe.AddProduct("Pro")
	w.pro = w.s.Sandbox.Stripe.AddPrice(w.product, 2000, "month")
	w.truth = w.s.NewTruth(account.AccessPolicy{PastDueGrace: 72 * time.Hour}, account.DeleteCancelAtPeriodEnd, map[string]string{w.pro: "Pro"})
	for _, name := range []string{"Ada", "Bob", "Cleo", "Dan", "Eve", "Fay", "Gus"} {
		w.people = append(w.people, w.person(name))
	}
	w.s.Quiet(false)
	for _, p := range w.people[:4] {
		w.buys(p, w.pro)
	}
	w.agrees()
	w.s.Rest() // a look that is still to come would find what is lost from here on
	return w
}

func (w *world) person(name string) system.Owned {
	return system.Owned{ClerkUserID: w.s.Sandbox.Clerk.AddUser(clerksim.UserSpec{
		FirstName: name, LastName: "Example", Emails: []clerksim.EmailSpec{{Address: name + "@example.com", Verified: true}},
	})}
}

// buys has somebody complete a checkout, on the customer that they have, or on a new one.
func (w *world) buys(p system.Owned, price string) {
	w.t.Helper()
	spec := stripesim.CheckoutSpec{PriceID: price, SubscriptionMetadata: map[string]string{"clerk_user_id": p.ClerkUserID}, Email: "somebody@example.com"}
	if err := w.s.Row(w.t.Context(), `SELECT coalesce((SELECT stripe_customer_id FROM person_user WHERE clerk_user_id = $1), '')`, []any{p.ClerkUserID}, &spec.CustomerID); err != nil {
		w.t.Fatal(err)
	}
	done, err := w.s.Sandbox.Stripe.CompleteCheckout(w.t.Context(), spec)
	if err != nil {
		w.t.Fatal(err)
	}
	w.subscriptions[p.ClerkUserID], w.charges[p.ClerkUserID] = done.SubscriptionID, done.ChargeID
}

func (w *world) lose(everything bool) {
	var faults delivery.Faults
	if everything {
		faults.Lose = 1
	}
	w.s.Sandbox.ClerkWebhooks.SetFaults(faults)
	w.s.Sandbox.StripeWebhooks.SetFaults(faults)
}

// tenMinutes is what happens while nothing that is sent arrives.
func (w *world) tenMinutes() {
	w.t.Helper()
	stripe, clerk := w.s.Sandbox.Stripe, w.s.Sandbox.Clerk
	ada, bob, cleo, dan, eve, fay, gus := w.people[0], w.people[1], w.people[2], w.people[3], w.people[4], w.people[5], w.people[6]
	w.lose(true)
	hal, ida := w.person("Hal"), w.person("Ida")
	w.people = append(w.people, hal, ida)
	w.buys(hal, w.pro)
	w.buys(eve, w.pro)
	w.must(stripe.Advance(w.t.Context(), 5*time.Minute))
	w.team = stripe.AddPrice(w.product, 5000, "month")
	w.truth.Plans = map[string]string{w.pro: "Professional", w.team: "Professional"}
	w.must(stripe.UpdateProduct(w.product, "Professional"))
	w.must(stripe.CancelAtPeriodEnd(w.subscriptions[ada.ClerkUserID]))
	w.must(stripe.CancelNow(w.subscriptions[bob.ClerkUserID]))
	w.must(stripe.ChangePrice(w.subscriptions[cleo.ClerkUserID], w.team))
	w.must(stripe.PauseCollection(w.subscriptions[dan.ClerkUserID]))
	w.must(clerk.UpdateUser(fay.ClerkUserID, clerksim.UserChange{LastName: new("Sample")}))
	w.must(clerk.AddEmail(gus.ClerkUserID, clerksim.EmailSpec{Address: "gus@example.org", Verified: true}))
	w.must(clerk.SetPrimaryEmail(gus.ClerkUserID, "gus@example.org"))
	w.refunded = w.charges[ada.ClerkUserID]
	w.must(stripe.Refund(w.refunded, 500))
	w.must(stripe.Advance(w.t.Context(), 5*time.Minute))
	w.must(stripe.Settled(w.t.Context()))
	w.lose(false)
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// owned tells of each person which customers they have at Stripe: those that name them.
func (w *world) owned() ([]system.Owned, error) {
	naming, err := w.naming()
	if err != nil {
		return nil, err
	}
	people := slices.Clone(w.people)
	for i := range people {
		people[i].Customers = naming[people[i].ClerkUserID]
	}
	return people, nil
}

// naming lists the customers that name each user, themselves or on a subscription.
func (w *world) naming() (map[string][]string, error) {
	naming := map[string][]string{}
	type object struct {
		ID       string            `json:"id"`
		Metadata map[string]string `json:"metadata"`
	}
	for _, body := range w.s.Sandbox.Stripe.Customers() {
		var customer object
		if err := json.Unmarshal(body, &customer); err != nil {
			return nil, fmt.Errorf("decoding a customer: %w", err)
		}
		user := customer.Metadata["clerk_user_id"]
		for _, body := range w.s.Sandbox.Stripe.Subscriptions(customer.ID) {
			var subscription object
			if err := json.Unmarshal(body, &subscription); err != nil {
				return nil, fmt.Errorf("decoding a subscription: %w", err)
			}
			user = cmp.Or(user, subscription.Metadata["clerk_user_id"])
		}
		naming[user] = append(naming[user], customer.ID)
	}
	return naming, nil
}

func (w *world) agrees() {
	w.t.Helper()
	w.s.Until("the three systems agree", func(ctx context.Context) error {
		people, err := w.owned()
		if err != nil {
			return err
		}
		return w.truth.Of(ctx, people...)
	})
}

// disagrees makes sure that something was lost, of each that can be.
func (w *world) disagrees() {
	w.t.Helper()
	w.s.Rest()
	people, err := w.owned()
	w.must(err)
	for _, p := range people {
		if w.truth.Of(w.t.Context(), p) == nil && p.ClerkUserID != w.people[5].ClerkUserID && p.ClerkUserID != w.people[6].ClerkUserID {
			w.t.Errorf("nothing was lost of %s", p.ClerkUserID)
		}
	}
}

// reconcile has everything compared, and waits for the end.
func (w *world) reconcile(in workflows.ReconciliationInput) workflows.ReconciliationResult {
	w.t.Helper()
	server := runs.Server{Client: w.s.Temporal}
	runID, started, err := server.Reconcile(w.t.Context(), in)
	if err != nil || !started {
		w.t.Fatalf("starting a comparison: started %t, %v", started, err)
	}
	var result workflows.ReconciliationResult
	ctx, cancel := context.WithTimeout(w.t.Context(), system.Patience())
	defer cancel()
	if err := w.s.Temporal.GetWorkflow(ctx, workflows.OnDemandReconciliationID, "").GetWithOptions(ctx, &result, client.WorkflowRunGetOptions{}); err != nil {
		w.t.Fatal("the comparison ended with:", err)
	}
	if result.RunID != runID {
		w.t.Errorf("the run is %q, it was started as %q", result.RunID, runID)
	}
	return result
}

func (w *world) open(class account.Drift) int {
	w.t.Helper()
	return w.s.Count(`SELECT count(*) FROM drift WHERE class = $1 AND resolved_at IS NULL`, string(class))
}
