package fences_test

import (
	"testing"

	"github.com/nepfy/clerk-stripe-sync/activities"
)

// A process dies between making a customer and linking it, and the user is deleted before anybody
// tries again: no customer with their name and email is left.
func TestACustomerThatNobodyHeardOfIsRemovedWithItsUser(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user := l.Sandbox.Clerk.AddUser(person("ada", "ada@example.com", true))
	l.take()
	l.must(l.work.syncUser(t.Context(), user))
	a := l.actor(policies{})
	a.lose("POST /v1/customers")
	if _, err := a.customers.EnsureStripeCustomer(t.Context(), activities.UserInput{ClerkUserID: user}); err == nil {
		t.Fatal("the answer was not lost")
	}
	if n := len(l.Sandbox.Stripe.Customers()); n != 1 {
		t.Fatalf("%d customers were made", n)
	}
	// Its event is late too.
	l.exec(`UPDATE person_user SET deletion_requested_at = now(), deletion_seq = nextval('sync_seq') WHERE clerk_user_id = $1`, user)
	l.must(l.work.customers.ExpireCheckouts(t.Context(), activities.UserInput{ClerkUserID: user}))
	if n := len(l.Sandbox.Stripe.Customers()); n != 0 {
		t.Errorf("%d customers with the name and email of a deleted user are left", n)
	}
	// Again it finds nothing to do.
	l.must(l.work.customers.ExpireCheckouts(t.Context(), activities.UserInput{ClerkUserID: user}))
}

// A deleted user's own customer, which somebody has heard of, is left as it is.
func TestACustomerThatWasHeardOfIsNotRemovedWithItsUser(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, _ := l.signUp("ada")
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	l.settle()
	l.must(l.work.customers.ExpireCheckouts(t.Context(), activities.UserInput{ClerkUserID: user}))
	if n := len(l.Sandbox.Stripe.Customers()); n != 1 {
		t.Errorf("%d customers are left", n)
	}
}
