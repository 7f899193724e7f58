package main

import (
	"context"
	"errors"
	"io"
	"testing"
)

// A user whose deletion waits for what Stripe does not have any more is shown with that, and erased
// when an operator says so; a user who stays is not.
func TestOperatorErasesWhoIsBeingDeleted(t *testing.T) {
	t.Parallel()
	c := newCustomer(t)
	erase := func(args ...string) error {
		return run(t.Context(), append([]string{"user", "erase", c.user}, args...), c.Environ, io.Discard)
	}
	if err := erase("--yes"); !errors.Is(err, errUsage) {
		t.Errorf("a user who stays: %v", err)
	}
	c.Sandbox.Stripe.Lose(c.customer, c.subscription)
	if err := c.Sandbox.Clerk.DeleteUser(c.user); err != nil {
		t.Fatal(err)
	}
	c.Until("it is known that the customer is missing", func(ctx context.Context) error {
		var id string
		return c.Row(ctx, `SELECT stripe_id FROM missing_objects WHERE stripe_id = $1`, []any{c.customer}, &id)
	})
	succeed(t, c.Environ, []string{"! " + c.customer + " of " + c.customer + " may still bill this deleted user"}, "user", c.user)
	// Nobody is there to answer the question.
	if err := erase(); !errors.Is(err, errNotErased) {
		t.Errorf("without an answer: %v", err)
	}
	succeed(t, c.Environ, []string{"MAY STILL BILL", c.subscription, c.user + " is erased"}, "user", "erase", c.user, "--yes")
	if n := c.Count(`SELECT count(*) FROM audit_log WHERE action = 'user.erased_by_operator' AND caller = 'operator' AND jsonb_array_length(after -> 'may_still_bill') = 2`); n != 1 {
		t.Errorf("%d lines of audit", n)
	}
}
