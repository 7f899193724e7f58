package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/operator"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// customer is a running system with somebody who pays.
type customer struct {
	*system.System
	user, customer, subscription, price string
}

func newCustomer(t *testing.T) *customer {
	t.Helper()
	c := &customer{System: system.Start(t, servers, system.Options{Environ: map[string]string{"TEMPORAL_UI_URL": "http://temporal.example"}})}
	c.price = c.Sandbox.Stripe.AddPrice(c.Sandbox.Stripe.AddProduct("Pro"), 2000, "month")
	c.user = c.Sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: "Ada", LastName: "Lovelace", Emails: []clerksim.EmailSpec{{Address: "ada@example.com", Verified: true}}})
	c.Until("the user has a customer", func(ctx context.Context) error {
		return c.Row(ctx, `SELECT stripe_customer_id FROM person_user WHERE clerk_user_id = $1 AND stripe_customer_id IS NOT NULL`, []any{c.user}, &c.customer)
	})
	bought, err := c.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{PriceID: c.price, CustomerID: c.customer, ClientReferenceID: c.user})
	if err != nil {
		t.Fatal(err)
	}
	c.subscription = bought.SubscriptionID
	c.agrees()
	return c
}

func (c *customer) agrees() {
	c.Quiet(true)
	c.Agree(c.user, account.AccessPolicy{PastDueGrace: 72 * time.Hour})
}

// What was lost is found, shown and mended from the command line, and nothing else is touched.
func TestOperatorFindsAndRepairs(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	well := []string{"The three systems agree", "Lovelace", "ada@example.com", c.customer, c.subscription, "http://temporal.example/namespaces/", "customer.subscription.created"}
	for _, id := range []string{c.user, c.customer, c.subscription} {
		succeed(t, c.Environ, well, "user", id)
	}
	succeed(t, c.Environ, []string{"no difference is known"}, "drift")
	succeed(t, c.Environ, []string{"usd", "20.00"}, "revenue")
	succeed(t, c.Environ, []string{`"currency":"usd","amount":2000,"subscriptions":1`}, "revenue", "--json")

	c.Sandbox.StripeWebhooks.SetFaults(delivery.Faults{Lose: 1})
	if err := c.Sandbox.Stripe.CancelAtPeriodEnd(c.subscription); err != nil {
		t.Fatal(err)
	}
	succeed(t, c.Environ, []string{"differences: 1 stale_subscription"}, "drift", "--run")
	succeed(t, c.Environ, []string{"stale_subscription", "alone", account.DriftStaleSubscription.Remedy()}, "drift")
	succeed(t, c.Environ, []string{"customer/" + c.customer, c.subscription}, "drift", "--class", "stale_subscription")
	if out := succeed(t, c.Environ, []string{"! ", "stale_subscription"}, "user", c.user); strings.Contains(out, "The three systems agree") {
		t.Errorf("of a user who differs it printed\n%s", out)
	}
	if n := c.Count(`SELECT count(*) FROM subscriptions WHERE cancel_at_period_end`); n != 0 {
		t.Error("something was repaired that nobody asked for")
	}

	succeed(t, c.Environ, []string{"repairs: asked for 1, 0 differences are not mended yet"}, "drift", "--repair", "stale_subscription")
	c.agrees()
	succeed(t, c.Environ, []string{"no difference is known"}, "drift")
	succeed(t, c.Environ, []string{"The three systems agree", "subscription.changed"}, "user", c.user)

	var view operator.Inspection
	if err := json.Unmarshal([]byte(succeed(t, c.Environ, nil, "user", c.user, "--json")), &view); err != nil || view.UserID != c.user {
		t.Errorf("as JSON it is %+v, %v", view, err)
	}
}

// Events are found by what they are and how they stand, tried and taken again, counted first.
func TestOperatorRetriesAndReplays(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	// Somebody whom nobody knows pays: it waits for a user.
	if _, err := c.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{PriceID: c.price, Email: "stranger@example.com"}); err != nil {
		t.Fatal(err)
	}
	c.Quiet(true)
	c.Until("an event waits", func(context.Context) error {
		if c.Count(`SELECT count(*) FROM webhook_events WHERE status = 'waiting' AND type = 'customer.subscription.created'`) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	succeed(t, c.Environ, []string{"waiting", "no user"}, "events", "list", "--status", "waiting")
	attempts := func() int {
		return c.Count(`SELECT max(attempts) FROM webhook_events WHERE status = 'waiting' AND type = 'customer.subscription.created'`)
	}
	before := attempts()
	succeed(t, c.Environ, []string{"1 events would be tried"}, "events", "retry", "--status", "waiting", "--type", "customer.subscription.created", "--dry-run")
	succeed(t, c.Environ, []string{"1 events are tried", "1 customer.subscription.created"}, "events", "retry", "--status", "waiting", "--type", "customer.subscription.created")
	c.Until("it was tried", func(context.Context) error {
		if attempts() == before {
			return errors.New("not yet")
		}
		return nil
	})

	var id string
	if err := c.Row(t.Context(), `SELECT event_id FROM webhook_events WHERE status = 'completed' AND type = 'customer.subscription.created'`, nil, &id); err != nil {
		t.Fatal(err)
	}
	succeed(t, c.Environ, []string{"1 events would be taken again"}, "events", "replay", "--id", id, "--dry-run")
	succeed(t, c.Environ, []string{"1 events are taken again", "1 customer.subscription.created"}, "events", "replay", "--id", id)
	c.Until("it has ended again", func(context.Context) error {
		if c.Count(`SELECT count(*) FROM webhook_events WHERE event_id = $1 AND status = 'completed' AND replays = 1`, id) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	c.agrees()
	shown := succeed(t, c.Environ, []string{"event", id, "completed", "customer/" + c.customer, "kept"}, "events", "show", id)
	if strings.Contains(shown, c.subscription) {
		t.Errorf("the payload was shown unasked:\n%s", shown)
	}
	succeed(t, c.Environ, []string{c.subscription}, "events", "show", id, "--payload")
	if n := c.Count(`SELECT count(*) FROM audit_log WHERE action = 'events.replayed' AND caller = 'operator'`); n != 1 {
		t.Errorf("the audit log has %d replays", n)
	}
	succeed(t, c.Environ, []string{id}, "events", "list", "--user", c.user, "--since", "1h")
	succeed(t, c.Environ, []string{"no events"}, "events", "list", "--until", "1h")
	lines := strings.Split(strings.TrimSpace(succeed(t, c.Environ, nil, "events", "list", "--json", "--limit", "3")), "\n")
	for _, line := range lines {
		if !json.Valid([]byte(line)) || len(lines) != 3 {
			t.Errorf("%d lines of JSON: %s", len(lines), line)
		}
	}
}

// Everything is brought in from the command line: counted first, then done, and shown.
func TestOperatorBringsEverythingIn(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	succeed(t, c.Environ, []string{"there was no bulk sync yet"}, "bulk", "status")
	c.Sandbox.ClerkWebhooks.SetFaults(delivery.Faults{Lose: 1})
	bob := c.Sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: "Bob", Emails: []clerksim.EmailSpec{{Address: "bob@example.com", Verified: true}}})

	succeed(t, c.Environ, []string{"has begun", "1 missing_user", "looked at: ", " 2 users"}, "bulk", "start", "--dry-run")
	if n := c.Count(`SELECT count(*) FROM person_user WHERE clerk_user_id = $1`, bob); n != 0 {
		t.Error("the dry run brought somebody in")
	}
	succeed(t, c.Environ, []string{"brought in: 2, failed: 0"}, "bulk", "start") // the user, and then their customer
	c.Agree(bob, account.AccessPolicy{PastDueGrace: 72 * time.Hour})
	c.agrees()
	succeed(t, c.Environ, []string{"brought in: 2, failed: 0", "looked at: 2 named"}, "bulk", "start", "--id", bob, "--id", c.customer)

	status := strings.Split(strings.TrimSpace(succeed(t, c.Environ, []string{"ended, dry run", "operator"}, "bulk", "status")), "\n")
	if len(status) != 4 {
		t.Errorf("of three bulk syncs it printed %d lines", len(status)-1)
	}
	id, _, _ := strings.Cut(status[1], " ")
	succeed(t, c.Environ, []string{id}, "bulk", "status", id)
	succeed(t, c.Environ, nil, "bulk", "failures", id)
	succeed(t, c.Environ, []string{id + " ended"}, "bulk", "pause", id)
	if out, err := call(t, c.Environ, "bulk", "status", "bulk_none"); err == nil || errors.Is(err, errUsage) {
		t.Errorf("of none it printed %q and answered: %v", out, err)
	}
	for _, args := range [][]string{{"bulk", "start", "--id", "ada"}, {"bulk", "start", "--dry-run", "--id", bob}, {"bulk", "pause"}} {
		if out, err := call(t, c.Environ, args...); !errors.Is(err, errUsage) || out != "" {
			t.Errorf("%v printed %q and answered: %v", args, out, err)
		}
	}
}

// What an operator cannot mean is told without anything being done.
func TestOperatorsMistakes(t *testing.T) {
	t.Parallel()
	c := system.Start(t, servers, system.Options{Stopped: true})
	for _, args := range [][]string{
		{"events", "replay"}, {"events", "replay", "--status", "waiting"}, {"events", "retry", "--status", "completed"}, {"events", "list", "--status", "lost"},
		{"events", "list", "--since", "yesterday"}, {"events", "list", "--source", "paypal"}, {"events", "list", "--user", "ada"}, {"events", "show"},
		{"drift", "--class", "odd"}, {"drift", "--repair", "odd"}, {"drift", "--repair", "double_subscription"}, {"user"},
	} {
		if out, err := call(t, c.Environ, args...); !errors.Is(err, errUsage) || out != "" {
			t.Errorf("%v printed %q and answered: %v", args, out, err)
		}
	}
	for _, args := range [][]string{{"events", "show", "evt_none"}, {"user", "evt_none"}} {
		if out, err := call(t, c.Environ, args...); err == nil || !strings.Contains(err.Error(), "evt_none") {
			t.Errorf("%v printed %q and answered: %v", args, out, err)
		}
	}
}
