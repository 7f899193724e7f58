package fences_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

// Many users appear together with customers that name them, through the real programs: webhooks
// late, doubled and out of order, the two sides within moments of each other. All are linked.
func TestManyUsersAppearWithTheirCustomers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	disorder := delivery.Faults{Double: 0.3, Reorder: 0.5, Delay: 200 * time.Millisecond}
	w.Sandbox.ClerkWebhooks.SetFaults(disorder)
	w.Sandbox.StripeWebhooks.SetFaults(disorder)
	customers := map[string]string{}
	for n := range 20 {
		user := w.Sandbox.Clerk.AddUser(person(fmt.Sprintf("ada%d", n), fmt.Sprintf("ada%d@example.com", n), true))
		if dice.IntN(2) == 0 {
			w.must(w.Sandbox.Clerk.Settled(t.Context()))
		}
		bought, err := w.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{Email: "payer@example.org", PriceID: w.price, ClientReferenceID: user, Metadata: byServer(user)})
		w.must(err)
		customers[user] = bought.CustomerID
	}
	w.Until("all are linked", func(context.Context) error {
		if n := w.Count(`SELECT count(*) FROM subscriptions WHERE status = 'active'`); n != len(customers) {
			return fmt.Errorf("%d of %d", n, len(customers))
		}
		return nil
	})
	var users []string
	for user := range customers {
		users = append(users, user)
	}
	w.still(users...)
	for user, customer := range customers {
		w.agree(user)
		if n := w.Count(`SELECT count(*) FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE clerk_user_id = $1 AND c.stripe_customer_id = $2`, user, customer); n != 1 {
			t.Errorf("%s is not linked to %s", customer, user)
		}
	}
	if n := w.Count(`SELECT count(*) FROM webhook_events WHERE status NOT IN ('completed', 'ignored')`); n != 0 {
		t.Errorf("%d events are left", n)
	}
}

// The webhook of a sign-up is lost. The customer that names the user is linked all the same.
func TestLostSignUpIsMadeUpForByTheCustomer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.Sandbox.ClerkWebhooks.SetFaults(delivery.Faults{Lose: 1})
	user := w.Sandbox.Clerk.AddUser(person("ada", "ada@example.com", true))
	w.must(w.Sandbox.Clerk.Settled(t.Context()))
	w.Sandbox.ClerkWebhooks.SetFaults(delivery.Faults{})
	_, err := w.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{Email: "payer@example.org", PriceID: w.price, ClientReferenceID: user, Metadata: byServer(user)})
	w.must(err)
	w.Until("the customer is linked", func(context.Context) error {
		if w.Count(`SELECT count(*) FROM subscriptions s JOIN person_user u ON u.id = s.user_id WHERE clerk_user_id = $1 AND status = 'active'`, user) != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	w.still(user)
	w.agree(user)
	if n := w.Count(`SELECT count(*) FROM webhook_events WHERE type = 'user.created'`); n != 0 {
		t.Error("the sign-up was not lost")
	}
	if n := len(w.Sandbox.Stripe.Customers()); n != 1 {
		t.Errorf("Stripe has %d customers", n)
	}
	if n := w.Count(`SELECT count(*) FROM webhook_events WHERE status NOT IN ('completed', 'ignored')`); n != 0 {
		t.Errorf("%d events are left", n)
	}
}

// A write of ours times out at Clerk and takes effect long after newer ones, through the real
// programs: its echo is answered with one more write, and that with none.
func TestLateWriteIsHealedByThePrograms(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"PROVIDER_TIMEOUT": "2s"})
	user, _, subscription := w.subscribed(person("ada", "ada@example.com", true))
	gate := make(chan struct{})
	w.Sandbox.ClerkFaults.Add(faults.Rule{Method: "PATCH", Hold: gate, Times: 1})
	w.must(w.Sandbox.Stripe.CancelAtPeriodEnd(subscription))
	w.Until("the retry has written", func(ctx context.Context) error { return w.Agreement(ctx, user, access()) })
	w.still()
	w.must(w.Sandbox.Stripe.Reactivate(subscription))
	w.Until("the newer version is written", func(ctx context.Context) error { return w.Agreement(ctx, user, access()) })
	w.still(user)
	before := w.Sandbox.ClerkFaults.Requests()[metadataWrites]
	version := w.Sandbox.Clerk.PublicMetadata(user)["stripe"].(map[string]any)["version"]
	close(gate)
	w.Until("the late write has landed", func(ctx context.Context) error {
		if w.Count(`SELECT count(*) FROM webhook_events WHERE type = 'user.updated' AND payload LIKE '%"cancelAtPeriodEnd":true%'`) < 2 {
			return errors.New("not yet")
		}
		return nil
	})
	w.still(user)
	w.agree(user)
	if now := w.Sandbox.Clerk.PublicMetadata(user)["stripe"].(map[string]any)["version"]; now != version {
		t.Errorf("Clerk holds version %v, held %v", now, version)
	}
	if n := w.Sandbox.ClerkFaults.Requests()[metadataWrites] - before; n != 1 {
		t.Errorf("it took %d writes", n)
	}
}
