package bulk_test

import (
	"context"
	"fmt"
	"maps"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/operator"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// Who buys for the first time does not wait for the looks at those who have access already, however
// many are due: not where the server knows priorities, and not where it does not and what is urgent
// has task queues of its own.
func TestACheckoutDoesNotWaitForAWave(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		servers *system.Servers
		environ map[string]string
	}{
		"priorities":    {prioritizing, nil},
		"urgent queues": {servers, map[string]string{"URGENT_QUEUES": "true"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const many = 120
			p := newProductOn(t, c.servers, many)
			p.ended(p.begin(operator.BulkOrder{}))
			p.agrees()
			p.Quiet(true)
			var live []string
			for _, who := range p.people {
				if p.Count(`SELECT count(*) FROM subscriptions WHERE stripe_customer_id = $1 AND status = 'active'`, who.Customers[0]) > 0 {
					live = append(live, p.subscription(who))
				}
			}
			p.Until("each of them is watched, and known to have access", func(ctx context.Context) error {
				if n := p.Count(`SELECT count(*) FROM pokes WHERE entity LIKE 'customer/%' AND poked_at IS NOT NULL AND due_at IS NULL`); n < len(live) {
					return fmt.Errorf("%d of %d", n, len(live))
				}
				return nil
			})
			p.Quiet(true)

			// From here on Stripe takes few calls, so that a wave lasts: much longer than a busy machine
			// needs for a checkout.
			p.StopWorker()
			maps.Copy(p.Environ, map[string]string{"STRIPE_RATE": "1", "CLERK_RATE": "6"})
			maps.Copy(p.Environ, c.environ)
			p.deliver(delivery.Faults{})
			for _, id := range live {
				p.must(p.Sandbox.Stripe.SetQuantity(id, 3))
			}
			const waiting = `SELECT count(*) FROM webhook_events WHERE status = 'pending' AND type = 'customer.subscription.updated'`
			p.Until("all of the wave is stored and poked", func(ctx context.Context) error {
				if n, due := p.Count(waiting), p.Count(`SELECT count(*) FROM pokes WHERE due_at IS NOT NULL`); n < len(live) || due > 0 {
					return fmt.Errorf("%d of %d events are stored, %d pokes are due", n, len(live), due)
				}
				return nil
			})
			p.StartWorker()
			p.Until("the wave is under way", func(ctx context.Context) error {
				if n := p.Count(waiting); n == len(live) {
					return fmt.Errorf("%d looks are due still", n)
				}
				return nil
			})
			user := p.Sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: "New", Emails: []clerksim.EmailSpec{{Address: "new@example.com", Verified: true}}})
			price := p.Sandbox.Stripe.AddPrice(p.Sandbox.Stripe.AddProduct("Another"), 1000, "month")
			_, err := p.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{PriceID: price, Email: "new@example.com", ClientReferenceID: user, Metadata: map[string]string{"clerk_user_id": user}})
			p.must(err)
			p.Until("the checkout gives access", func(ctx context.Context) error {
				held, _ := p.Sandbox.Clerk.PublicMetadata(user)["stripe"].(map[string]any)
				if held["subscriptionActive"] != true {
					return fmt.Errorf("Clerk holds %v", held)
				}
				return nil
			})
			if left := p.Count(waiting); left < len(live)/2 {
				t.Errorf("only %d of the wave's %d looks were left when the checkout had its turn", left, len(live))
			}
		})
	}
}
