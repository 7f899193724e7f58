package fences_test

import (
	"net/http"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// A command on what was bought just now waits until Stripe's reads show it, as our row of the same
// minute does; once that is over it is told that Stripe does not have it.
func TestACommandWaitsForWhatWasJustBoughtToShow(t *testing.T) {
	t.Parallel()
	for _, action := range []store.Action{store.ActionCancel, store.ActionCancelNow} {
		for _, shows := range []bool{true, false} {
			t.Run(string(action)+map[bool]string{true: ", it shows", false: ", it never shows"}[shows], func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{})
				user, customer := l.signUp("ada")
				empty := l.listOf(customer)
				s := subject{user, customer, l.buy(stripesim.CheckoutSpec{CustomerID: customer, ClientReferenceID: user}).SubscriptionID}
				l.settle()
				op := l.asks(s, action)
				l.work.answer("GET /v1/subscriptions?", http.StatusOK, empty)
				restore := l.work.answer("GET /v1/subscriptions/"+s.subscription, http.StatusNotFound, missingAtStripe(s.subscription))
				l.work.tries(t, s, op)
				if shows {
					restore()
					l.must(l.work.apply(t.Context(), s, op))
					if l.runsOn(s.subscription) {
						t.Error("the subscription runs on")
					}
					l.ended(op, "done")
					l.agree(user)
					return
				}
				l.exec(`UPDATE subscriptions SET updated_at = updated_at - interval '1 minute'`)
				l.must(l.work.apply(t.Context(), s, op))
				l.ended(op, "failed not_in_stripe")
			})
		}
	}
}

// One answer that there is no such customer, or no such subscription, ends no command, however long
// ago it was bought.
func TestOneNotFoundEndsNoCommand(t *testing.T) {
	t.Parallel()
	for name, missing := range map[string]func(l *lab, s subject) (restore func()){
		"the customer": func(l *lab, s subject) func() {
			l.work.answer("GET /v1/subscriptions?", http.StatusNotFound, noSuchCustomer)
			return l.work.answer("GET /v1/customers/"+s.customer, http.StatusNotFound, noSuchCustomer)
		},
		"the subscription": func(l *lab, s subject) func() {
			l.work.answer("GET /v1/subscriptions?", http.StatusOK, `{"object":"list","data":[],"has_more":false,"url":"/v1/subscriptions"}`)
			return l.work.answer("GET /v1/subscriptions/"+s.subscription, http.StatusNotFound, missingAtStripe(s.subscription))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			l.longAgo()
			op := l.asks(s, store.ActionCancel)
			restore := missing(l, s)
			committed := l.work.arm(t, "sql commit", 0)
			done := begin(func() error { return l.work.apply(t.Context(), s, op) })
			reach(t, committed, done)
			restore()
			committed.release()
			wait(t, done)
			l.ended(op, "done")
			if !l.ends(s) {
				t.Error("the subscription runs on")
			}
		})
	}
}
