package fences_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
)

// Stripe shows no subscription of a deleted user, neither in the list nor by its id, and takes changes. What is stored ends with its
// period, and the schedule does not begin; nobody is erased before Stripe shows that. Who stays is asked for nothing more.
func TestNobodyIsBilledOnWhileStripeShowsNothing(t *testing.T) {
	t.Parallel()
	for _, deleted := range []bool{true, false} {
		t.Run("deleted "+strconv.FormatBool(deleted), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, customer, subscription := l.subscribed("ada")
			schedule := l.willStart(customer, 10*day)
			l.settle()
			if deleted {
				l.must(l.Sandbox.Clerk.DeleteUser(user))
				l.unpoked()
				l.must(l.work.syncUser(t.Context(), user))
			}
			show := l.Sandbox.StripeFaults.Add(faults.Rule{Method: http.MethodGet, PathPrefix: "/v1/subscriptions", Status: http.StatusServiceUnavailable})
			a := l.actor(policies{})
			if err := a.lookAtCustomer(t.Context(), customer); failure.Of(err) != failure.Transient {
				t.Errorf("the look ended with %v", err)
			}
			if l.endsByPeriod(subscription) != deleted {
				t.Errorf("the subscription ends with its period: %t", !deleted)
			}
			if got, _, _ := strings.Cut(l.schedule(schedule), " "); (got == "canceled") != deleted {
				t.Errorf("the schedule is %s", got)
			}
			if !deleted {
				if len(a.asked) != 1 || a.asked[0] != "GET /v1/subscriptions" {
					t.Errorf("it asked %q", a.asked)
				}
				return
			}
			l.must(l.work.lookAtUser(t.Context(), user))
			l.wants("", `SELECT deleted_at FROM person_user WHERE clerk_user_id = $1`, user)
			show()
			l.must(l.Sandbox.Stripe.Advance(t.Context(), 40*day))
			l.settle()
			l.wants("canceled", `SELECT status FROM subscriptions WHERE stripe_subscription_id = $1`, subscription)
			l.wants("true", `SELECT deleted_at IS NOT NULL FROM person_user WHERE clerk_user_id = $1`, user)
			if paid := l.paid(); paid != "1" {
				t.Errorf("%s invoices were paid, want 1: a deleted user was billed", paid)
			}
		})
	}
}
