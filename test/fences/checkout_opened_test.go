package fences_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/selfservice"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeapi"
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

// A deletion that goes through at whatever moment after Stripe has opened a checkout leaves nothing
// open, though Stripe's list of open checkouts does not show it yet.
func TestADeletionAtWhateverMomentLeavesNoCheckoutOpen(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	stripe := stripeapi.New(stripeapi.Options{Key: l.Sandbox.StripeSecretKey, BaseURL: l.Sandbox.StripeURL()})
	defer stripe.Close()
	ended := false
	for moment := 0; !ended; moment++ {
		user, customer := l.signUp(fmt.Sprintf("ada%d", moment))
		a := l.actor(policies{})
		opened := a.arm(t, "answered POST /v1/checkout/sessions", 0)
		done := begin(func() error {
			_, _, err := l.requests(a).Checkout(t.Context(), l.checkoutOf(user, "k1"))
			if _, ours := errors.AsType[*selfservice.Refusal](err); ours {
				return nil // who is deleted is told so
			}
			return err
		})
		reach(t, opened, done)
		at := a.arm(t, "", moment)
		opened.release()
		select {
		case <-at.reached:
		case err := <-done:
			l.must(err)
			a.disarm(at)
			ended = true
		}
		l.must(l.Sandbox.Clerk.DeleteUser(user))
		restore := l.work.answer("GET /v1/checkout/sessions?", http.StatusOK, noCheckouts)
		l.settle()
		restore()
		l.erased(user)
		if !ended {
			at.release()
			wait(t, done)
		}
		open, err := stripe.OpenCheckoutSessions(t.Context(), customer)
		l.must(err)
		if len(open) != 0 {
			t.Errorf("a checkout of an erased user is open: the deletion went through at moment %d, %q", moment, at.at)
		}
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

// A request that opens a checkout is left by its process, or by the database. Whoever asks what became
// of it is told that it failed, in the end, and the same key opens it all the same.
func TestWhatAProcessHasLeftUnopenedEndsAndIsOpenedUnderItsKey(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"ask POST /v1/checkout/sessions", "answered POST /v1/checkout/sessions"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, _ := l.signUp("ada")
			a := l.actor(policies{})
			ctx, dies := context.WithCancel(t.Context())
			at := a.arm(t, point, 0)
			done := begin(func() error {
				_, _, _ = l.requests(a).Checkout(ctx, l.checkoutOf(user, "k1"))
				return nil
			})
			reach(t, at, done)
			op := l.text(`SELECT id FROM operations WHERE action = 'checkout'`)
			l.exec(`UPDATE operations SET created_at = created_at - interval '3 minutes', retry_at = now()`)
			l.exec(`DELETE FROM checkout_leases`) // it is over
			_, err := l.Store.Sweep(t.Context(), 100)
			l.must(err)
			if is := l.stands(op); is != store.OperationFailed {
				t.Errorf("whoever asks is told that it is %s", is)
			}
			opened, _, err := l.requests(l.work).Checkout(t.Context(), l.checkoutOf(user, "k1"))
			l.must(err)
			if is := l.stateOf(opened.SessionID); is != account.CheckoutOpen || opened.OperationID != op || l.stands(op) != store.OperationDone {
				t.Errorf("it is %s, of operation %s, which is %s", is, opened.OperationID, l.stands(op))
			}
			dies()
			at.release()
			wait(t, done)
		})
	}
}
