package fences_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// Stripe shows no subscription of a deleted user, neither in the list nor by its id, and takes
// changes. What is stored ends with its period, and the schedule does not begin; nobody is erased
// before Stripe shows that. Who stays is asked for nothing more.
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

// Somebody changes to the cheaper plan and back to the dearer one. Both events are here, and the
// read shows the first change only, which the first event says rightly: the second is read again
// all the same.
func TestTheLastOfTwoChangesIsReadAgain(t *testing.T) {
	t.Parallel()
	for _, behind := range []bool{false, true} {
		t.Run(fmt.Sprintf("behind %t", behind), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			_, basic := l.other("Basic", nil)
			s := l.subject(1) // Pro
			l.must(l.Sandbox.Stripe.ChangePrice(s.subscription, basic))
			stale := l.listOf(s.customer)
			l.must(l.Sandbox.Stripe.ChangePrice(s.subscription, l.price))
			l.unpoked()
			restore := func() {}
			if behind {
				restore = l.work.answer("GET /v1/subscriptions?", http.StatusOK, stale)
			}
			result, err := l.work.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: s.customer})
			restore()
			l.must(err)
			if result.RereadAfter > 0 != behind {
				t.Errorf("it is read again after %s", result.RereadAfter)
			}
			_, err = l.work.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: s.customer, Reread: 1})
			l.must(err)
			l.wants("0", `SELECT count(*) FROM webhook_events WHERE status <> 'completed' AND entity = $1`, "customer/"+s.customer)
			l.wants("Pro", `SELECT plan_name FROM plans JOIN subscriptions s ON s.plan_id = plans.id`)
		})
	}
}

// An event that comes while the customer has been read again three times for another one is read
// again as long as that one was.
func TestRereadsOfAnotherEventAreNotThoseOfThisOne(t *testing.T) {
	t.Parallel()
	for _, old := range []bool{false, true} {
		t.Run(fmt.Sprintf("old %t", old), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			l.settle()
			stale := l.listOf(s.customer)
			l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(s.subscription))
			l.unpoked()
			if old {
				l.exec(`UPDATE webhook_events SET received_at = received_at - interval '16 seconds'`)
			}
			a := l.actor(policies{})
			a.subscriptions.Policy.RereadDelay = 5 * time.Second
			restore := a.answer("GET /v1/subscriptions?", http.StatusOK, stale)
			result, err := a.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: s.customer, Reread: 3})
			restore()
			l.must(err)
			if result.RereadAfter > 0 == old {
				t.Errorf("it is read again after %s", result.RereadAfter)
			}
		})
	}
}

// Somebody changes something in the portal, of which the event has come, and asks for a sync. A
// read that is behind that event concludes nothing: they are not told that they are in step.
func TestASyncIsNotDoneByAReadThatIsKnownToBeBehind(t *testing.T) {
	t.Parallel()
	for _, behind := range []bool{false, true} {
		t.Run(fmt.Sprintf("behind %t", behind), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			stale := l.listOf(s.customer)
			l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(s.subscription))
			l.unpoked()
			begun, _, err := l.Store.BeginOperation(t.Context(), store.NewOperation{RequestHash: []byte("r"), Caller: s.user, Action: store.ActionSync,
				ClerkUserID: s.user, Entity: account.UserEntity(s.user), Lifetime: time.Hour})
			l.must(err)
			stands := func(want store.OperationStatus) {
				t.Helper()
				l.must(l.work.publish(t.Context(), s.user, false))
				op, err := l.Store.Operation(t.Context(), begun.ID)
				l.must(err)
				if op.Status != want {
					t.Errorf("the sync is %s, want %s", op.Status, want)
				}
			}
			l.must(l.work.lookAtUser(t.Context(), s.user))
			if behind {
				restore := l.work.answer("GET /v1/subscriptions?", http.StatusOK, stale)
				_, err := l.work.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: s.customer})
				restore()
				l.must(err)
				stands(store.OperationAccepted)
			}
			_, err = l.work.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: s.customer, Reread: 1})
			l.must(err)
			stands(store.OperationDone)
		})
	}
}

// Somebody has their subscription go on in the portal and deletes their account. The first read is
// behind the portal's event and shows that nothing is left to stop: nobody is erased by that.
func TestNobodyIsErasedByAReadThatIsKnownToBeBehind(t *testing.T) {
	t.Parallel()
	for _, behind := range []bool{false, true} {
		t.Run(fmt.Sprintf("behind %t", behind), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, customer, subscription := l.subscribed("ada")
			l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(subscription))
			l.settle()
			stale := l.listOf(customer)
			l.post("/v1/subscriptions/"+subscription, "cancel_at_period_end", "false")
			l.must(l.Sandbox.Clerk.DeleteUser(user))
			l.unpoked()
			l.must(l.work.syncUser(t.Context(), user))
			restore := func() {}
			if behind {
				restore = l.work.answer("GET /v1/subscriptions?", http.StatusOK, stale)
			}
			l.must(l.work.record(t.Context(), customer))
			restore()
			l.must(l.work.lookAtUser(t.Context(), user))
			l.wants("false", erased, user)
			l.settle()
			l.must(l.work.lookAtCustomer(t.Context(), customer))
			l.must(l.work.lookAtUser(t.Context(), user))
			l.wants("true", erased, user)
			if !l.endsByPeriod(subscription) {
				t.Error("it bills on")
			}
		})
	}
}
