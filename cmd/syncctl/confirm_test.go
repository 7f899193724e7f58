package main

import (
	"context"
	"errors"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

// An operator says whose a customer is that only its payer has said it of; what Stripe says of it
// wins, and then nothing is confirmed.
func TestOperatorConfirmsWhoseACustomerIs(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	bought, err := c.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{PriceID: c.price, Email: "payer@example.org", ClientReferenceID: c.user, PaymentLink: "plink_1"})
	if err != nil {
		t.Fatal(err)
	}
	c.Until("the reference is told of", func(ctx context.Context) error {
		var id string
		return c.Row(ctx, `SELECT id::text FROM drift WHERE entity = $1 AND class = 'unverified_reference' AND resolved_at IS NULL`, []any{"customer/" + bought.CustomerID}, &id)
	})
	for _, args := range [][]string{{"cus_nobody", c.user}, {bought.CustomerID, "user_nobody"}, {"nobody", c.user}, {bought.CustomerID, "nobody"}} {
		if out, err := call(t, c.Environ, append([]string{"confirm"}, args...)...); !errors.Is(err, errUsage) || out != "" {
			t.Errorf("%v printed %q and answered: %v", args, out, err)
		}
	}
	succeed(t, c.Environ, []string{bought.CustomerID + " is confirmed as " + c.user + "'s"}, "confirm", bought.CustomerID, c.user)
	c.Until("the customer is the user's", func(ctx context.Context) error {
		var id string
		return c.Row(ctx, `SELECT c.stripe_customer_id FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE c.stripe_customer_id = $1 AND u.clerk_user_id = $2`,
			[]any{bought.CustomerID, c.user}, &id)
	})
	c.agrees()
	if n := c.Count(`SELECT count(*) FROM audit_log WHERE action = 'customer.confirmed' AND caller = 'operator'`); n != 1 {
		t.Errorf("%d lines of audit", n)
	}
}
