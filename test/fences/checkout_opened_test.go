package fences_test

import (
	"net/http"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/selfservice"
)

// noCheckouts is Stripe's list of open checkouts, of a copy that does not show the last one yet.
const noCheckouts = `{"object":"list","data":[],"has_more":false,"url":"/v1/checkout/sessions"}`

// Of two checkouts of one product that are asked for within a moment one stays open, though
// Stripe's list of what is open does not show the first yet. What may be held beside what is bought
// stays open, and what was paid for meanwhile is not sold again.
func TestOneCheckoutIsOpenThoughTheListOfCheckoutsIsBehind(t *testing.T) {
	t.Parallel()
	for _, behind := range []bool{true, false} {
		t.Run(map[bool]string{true: "behind", false: "not behind"}[behind], func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, customer := l.signUp("ada")
			none := l.listOf(customer)
			_, seats := l.other("Seats", map[string]string{"beside": "allow"})
			a := l.actor(policies{})
			if behind {
				a.answer("GET /v1/checkout/sessions?", http.StatusOK, noCheckouts)
				a.answer("GET /v1/subscriptions?", http.StatusOK, none)
			}
			desk := l.requests(a)
			added := l.checkoutOf(user, "seats")
			added.PriceID = seats
			beside, _, err := desk.Checkout(t.Context(), added)
			l.must(err)
			first, _, err := desk.Checkout(t.Context(), l.checkoutOf(user, "k1"))
			l.must(err)
			second, _, err := desk.Checkout(t.Context(), l.checkoutOf(user, "k2"))
			l.must(err)
			for id, want := range map[string]account.CheckoutStatus{
				beside.SessionID: account.CheckoutOpen, first.SessionID: account.CheckoutExpired, second.SessionID: account.CheckoutOpen,
			} {
				if is := l.stateOf(id); is != want {
					t.Errorf("the checkout %s is %s, want %s", id, is, want)
				}
			}
			l.buy(stripesim.CheckoutSpec{SessionID: second.SessionID})
			_, _, err = desk.Checkout(t.Context(), l.checkoutOf(user, "k3"))
			if code := refused(t, err); code != "already_subscribed" {
				t.Errorf("who has just paid is answered %q", code)
			}
		})
	}
}

// What a user has opened a moment before they are deleted is closed, though Stripe's list of open
// checkouts does not show it yet.
func TestACheckoutOfADeletedUserIsClosedThoughTheListIsBehind(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, _ := l.signUp("ada")
	opened, _, err := l.requests(l.actor(policies{})).Checkout(t.Context(), l.checkoutOf(user, "k1"))
	l.must(err)
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	restore := l.work.answer("GET /v1/checkout/sessions?", http.StatusOK, noCheckouts)
	l.settle()
	restore()
	l.erased(user)
	if is := l.stateOf(opened.SessionID); is != account.CheckoutExpired {
		t.Errorf("the checkout of an erased user is %s", is)
	}
}

// Who comes back from paying is not told that they have not paid by a read of the session that is a
// moment behind, whoever opened it. Who has not paid is told so.
func TestWhoComesBackFromPayingIsNotToldThatTheyHaveNotPaid(t *testing.T) {
	t.Parallel()
	for name, paid := range map[string]bool{"they have paid": true, "they have not": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, _ := l.signUp("ada")
			a := l.actor(policies{})
			desk := l.requests(a)
			opened, _, err := desk.Checkout(t.Context(), l.checkoutOf(user, "k1"))
			l.must(err)
			read := "GET /v1/checkout/sessions/" + opened.SessionID
			open := l.byServer(http.MethodGet, "/v1/checkout/sessions/"+opened.SessionID, nil)
			want := "checkout_open"
			if paid {
				l.buy(stripesim.CheckoutSpec{SessionID: opened.SessionID})
				want = ""
			}
			restore := a.answer(read, http.StatusOK, open)
			first := a.arm(t, "answered "+read, 0)
			ended := begin(func() error {
				_, err := desk.Return(t.Context(), selfservice.Caller{UserID: user}, selfservice.Key{}, opened.SessionID)
				return err
			})
			reach(t, first, ended)
			restore() // Stripe's copies agree from here on
			first.release()
			if code := refused(t, <-ended); code != want {
				t.Errorf("they are told %q, want %q", code, want)
			}
		})
	}
}
