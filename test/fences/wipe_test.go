package fences_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// world is the running application. Nothing in it is done by the test.
type world struct {
	*system.System
	t     *testing.T
	price string
}

func newWorld(t *testing.T, environ map[string]string) *world {
	t.Helper()
	w := &world{System: system.Start(t, servers, system.Options{Environ: environ}), t: t}
	w.price = w.Sandbox.Stripe.AddPrice(w.Sandbox.Stripe.AddProduct("Pro"), 2000, "month")
	w.Until("the price is known", func(context.Context) error {
		if w.Count(`SELECT count(*) FROM plan_prices WHERE stripe_price_id = $1`, w.price) != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// subscribed is a user with a customer and an active subscription, known everywhere.
func (w *world) subscribed(spec clerksim.UserSpec) (user, customer, subscription string) {
	w.t.Helper()
	user = w.Sandbox.Clerk.AddUser(spec)
	w.Until("the user has a customer", func(ctx context.Context) error {
		return w.Row(ctx, `SELECT stripe_customer_id FROM person_user WHERE clerk_user_id = $1 AND stripe_customer_id IS NOT NULL`, []any{user}, &customer)
	})
	bought, err := w.Sandbox.Stripe.CompleteCheckout(w.t.Context(), stripesim.CheckoutSpec{CustomerID: customer, PriceID: w.price, ClientReferenceID: user})
	w.must(err)
	w.Until("the subscription is known", func(context.Context) error {
		if w.Count(`SELECT count(*) FROM subscriptions WHERE stripe_subscription_id = $1 AND status = 'active'`, bought.SubscriptionID) != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	w.still(user)
	w.agree(user)
	return user, customer, bought.SubscriptionID
}

func (w *world) agree(user string) {
	w.t.Helper()
	if err := w.Agreement(w.t.Context(), user, access()); err != nil {
		w.t.Error(err)
	}
}

// still waits until nothing can happen any more about these users: all is delivered, nothing is
// due, and their workflows have ended; and no number was drawn, so nothing was received and
// nothing read, from before all that was looked at until after it.
func (w *world) still(users ...string) {
	w.t.Helper()
	w.Until("nothing happens any more", func(ctx context.Context) error {
		before := w.Count(`SELECT last_value FROM sync_seq`)
		for range 2 {
			if n := w.Count(`SELECT (SELECT count(*) FROM webhook_events WHERE status IN ('pending', 'failing'))
				+ (SELECT count(*) FROM pokes WHERE due_at IS NOT NULL) + (SELECT count(*) FROM person_user WHERE projection_version <> published_version)`); n > 0 {
				return fmt.Errorf("%d things are due", n)
			}
			for _, user := range users {
				if run, err := w.Temporal.DescribeWorkflowExecution(ctx, "user/"+user, ""); err == nil && run.GetWorkflowExecutionInfo().GetCloseTime() == nil {
					return fmt.Errorf("the workflow of %s runs", user)
				}
			}
			if err := w.Sandbox.Idle(ctx); err != nil {
				return err
			}
		}
		if after := w.Count(`SELECT last_value FROM sync_seq`); after != before {
			return fmt.Errorf("numbers %d to %d were drawn meanwhile", before, after)
		}
		return nil
	})
}

const metadataWrites = "PATCH /v1/users/{id}/metadata"

// Somebody else changes our key in Clerk's metadata. It is restored with one write, the write's
// own echo causes none, and what is not ours stays as it is.
func TestForeignChangesOfOurKeyAreUndone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	user, _, _ := w.subscribed(person("ada", "ada@example.com", true))
	held := func() map[string]any { return w.Sandbox.Clerk.PublicMetadata(user) }
	good, ok := held()["stripe"].(map[string]any)
	if !ok || good["subscriptionActive"] != true {
		t.Fatalf("Clerk holds %v", held())
	}
	with := func(changes map[string]any) map[string]any {
		m := maps.Clone(good)
		maps.Copy(m, changes)
		return m
	}
	for _, c := range []struct {
		name   string
		put    map[string]any
		writes int
	}{
		{"wiped", nil, 1},
		{"wiped but for others' keys", map[string]any{"theme": "dark", "roles": []any{"a"}}, 1},
		{"a key added", map[string]any{"stripe": with(map[string]any{"vip": true, "nested": map[string]any{"a": 1.0}}), "theme": "dark"}, 1},
		{"access forged", map[string]any{"stripe": with(map[string]any{"subscriptionActive": false, "version": 999.0})}, 1},
		{"replaced by a text", map[string]any{"stripe": "gone"}, 1},
		{"replaced by a list", map[string]any{"stripe": []any{1.0, 2.0}}, 1},
		{"others' keys added", map[string]any{"stripe": good, "theme": "light"}, 0},
	} {
		before := w.Sandbox.ClerkFaults.Requests()[metadataWrites]
		w.must(w.Sandbox.Clerk.SetPublicMetadata(user, c.put))
		w.still(user)
		want := maps.Clone(c.put)
		if want == nil {
			want = map[string]any{}
		}
		want["stripe"] = good
		if got := encoded(t, held()); got != encoded(t, want) {
			t.Errorf("%s: Clerk holds %s, want %s", c.name, got, encoded(t, want))
		}
		if n := w.Sandbox.ClerkFaults.Requests()[metadataWrites] - before; n != c.writes {
			t.Errorf("%s: %d writes, want %d", c.name, n, c.writes)
		}
		w.agree(user)
	}
}

func encoded(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
