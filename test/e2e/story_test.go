package e2e_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

func policy() account.AccessPolicy { return account.AccessPolicy{PastDueGrace: 72 * time.Hour} }

// A person signs up, buys, changes their name, pays again and is deleted; after each step the
// three systems agree.
func TestStory(t *testing.T) {
	t.Parallel()
	s := system.Start(t, servers, system.Options{})
	product := s.Sandbox.Stripe.AddProduct("Pro")
	price := s.Sandbox.Stripe.AddPrice(product, 2000, "month")

	user := s.Sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: "Ada", LastName: "Lovelace",
		Emails: []clerksim.EmailSpec{{Address: "ada@example.com", Verified: true}}})
	s.Quiet(false)
	s.Agree(user, policy())
	customers := s.Sandbox.Stripe.Customers()
	if len(customers) != 1 {
		t.Fatalf("Stripe has %d customers after the sign-up, want 1", len(customers))
	}
	var customer string
	if err := s.Row(t.Context(), `SELECT stripe_customer_id FROM person_user WHERE clerk_user_id = $1`, []any{user}, &customer); err != nil {
		t.Fatal(err)
	}

	if _, err := s.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{CustomerID: customer, PriceID: price, ClientReferenceID: user}); err != nil {
		t.Fatal(err)
	}
	s.Quiet(false)
	s.Agree(user, policy())
	if n := s.Count(`SELECT count(*) FROM subscriptions WHERE status = 'active' AND plan_id IS NOT NULL`); n != 1 {
		t.Fatalf("%d active subscriptions with a plan, want 1", n)
	}

	name := "Augusta"
	if err := s.Sandbox.Clerk.UpdateUser(user, clerksim.UserChange{FirstName: &name}); err != nil {
		t.Fatal(err)
	}
	s.Quiet(false)
	s.Agree(user, policy())

	if err := s.Sandbox.Clerk.DeleteUser(user); err != nil {
		t.Fatal(err)
	}
	s.Quiet(false)
	s.Until("the user is erased", func(ctx context.Context) error {
		var erased bool
		if err := s.Row(ctx, `SELECT deleted_at IS NOT NULL AND email IS NULL AND first_name IS NULL FROM person_user WHERE clerk_user_id = $1`, []any{user}, &erased); err != nil {
			return err
		}
		if !erased {
			return errors.New("not yet")
		}
		return nil
	})
	if n := s.Count(`SELECT count(*) FROM subscriptions WHERE cancel_at_period_end`); n != 1 {
		t.Fatalf("%d subscriptions are set to end, want 1", n)
	}
	if n := s.Count(`SELECT count(*) FROM webhook_events WHERE payload IS NOT NULL AND entity LIKE 'user/%'`); n != 0 {
		t.Fatalf("%d payloads of the deleted user are left", n)
	}
}
