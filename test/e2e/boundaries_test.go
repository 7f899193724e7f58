package e2e_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// After a boundary nobody tells anything any more: a trial ends and is paid, or not paid; a period
// is renewed, or ends for good; a set end comes. The rows and Clerk follow by themselves.
func TestBoundariesHealWhatNobodyTells(t *testing.T) {
	t.Parallel()
	// What is bought for a day now ends in a few seconds of real time.
	const ahead = 8 * time.Second
	start := time.Now().Add(ahead - 24*time.Hour)
	s := system.Start(t, servers, system.Options{Sandbox: sandbox.Options{StripeNow: func() time.Time { return start }, StripeFrozen: true}})
	product := s.Sandbox.Stripe.AddProduct("Pro")
	daily := s.Sandbox.Stripe.AddPrice(product, 100, "day")
	monthly := s.Sandbox.Stripe.AddPrice(product, 2000, "month")
	truth := s.NewTruth(policy(), account.DeleteCancelAtPeriodEnd, map[string]string{daily: "Pro", monthly: "Pro"})

	stripe := s.Sandbox.Stripe
	lives := map[string]struct {
		spec   stripesim.CheckoutSpec
		change func(customer, subscription string) error
		status string // in the end
	}{
		"renewed":         {stripesim.CheckoutSpec{PriceID: daily}, nil, "active"},
		"trial paid":      {stripesim.CheckoutSpec{PriceID: monthly, TrialDays: 1}, nil, "active"},
		"ends by flag":    {stripesim.CheckoutSpec{PriceID: daily}, func(_, sub string) error { return stripe.CancelAtPeriodEnd(sub) }, "canceled"},
		"ends by date":    {stripesim.CheckoutSpec{PriceID: monthly}, func(_, sub string) error { return stripe.CancelAt(sub, start.Add(24*time.Hour)) }, "canceled"},
		"trial abandoned": {stripesim.CheckoutSpec{PriceID: monthly, TrialDays: 1}, func(_, sub string) error { return stripe.CancelAtPeriodEnd(sub) }, "canceled"},
	}
	owned := map[string]system.Owned{}
	for name := range lives {
		owned[name] = system.Owned{ClerkUserID: s.Sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: name})}
	}
	s.Quiet(false)
	subscriptions := map[string]string{}
	for name, life := range lives {
		who := owned[name]
		who.Customers = []string{customerOf(t, s, who.ClerkUserID)}
		owned[name] = who
		life.spec.CustomerID = who.Customers[0]
		done, err := stripe.CompleteCheckout(t.Context(), life.spec)
		if err == nil && life.change != nil {
			err = life.change(done.CustomerID, done.SubscriptionID)
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		subscriptions[name] = done.SubscriptionID
	}
	s.Quiet(false)

	// From here on every webhook is lost, and time goes on to where all has been decided: an invoice
	// is drafted an hour before it is paid, but that changes no status here.
	s.Sandbox.StripeWebhooks.Hold()
	s.Until("the boundaries have passed", func(ctx context.Context) error {
		if err := stripe.AdvanceTo(ctx, time.Now()); err != nil {
			return err
		}
		if stripe.Now().Before(start.Add(24 * time.Hour)) {
			return errors.New("not yet")
		}
		return nil
	})
	lost := s.Sandbox.StripeWebhooks.TakeHeld()
	if len(lost) < len(lives) {
		t.Fatalf("Stripe told only %d things about %d boundaries", len(lost), len(lives))
	}
	for name, life := range lives {
		s.Until(name+": the boundary is seen", func(ctx context.Context) error { return truth.Of(ctx, owned[name]) })
		var status string
		if err := s.Row(t.Context(), `SELECT status FROM subscriptions WHERE stripe_subscription_id = $1`, []any{subscriptions[name]}, &status); err != nil {
			t.Fatal(err)
		}
		if status != life.status {
			t.Errorf("%s: the row says %s, want %s", name, status, life.status)
		}
	}
	if n := s.Count(`SELECT count(*) FROM webhook_events WHERE event_id = $1`, lost[0].ID); n != 0 {
		t.Error("what was lost has arrived")
	}
}
