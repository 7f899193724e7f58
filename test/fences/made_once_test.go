package fences_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

// The answer to the creation of a customer is lost. Asked again, Stripe repeats it, and one read of
// the new customer is answered by a copy that does not have it yet. It is the user's only one.
func TestOneNotFoundMakesNoSecondCustomer(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user := l.Sandbox.Clerk.AddUser(person("ada", "ada@example.com", true))
	l.Sandbox.StripeFaults.Add(faults.Rule{Method: http.MethodPost, PathPrefix: "/v1/customers", DropAfter: true, Times: 4})
	l.take()
	l.must(l.work.syncUser(t.Context(), user))
	if _, err := l.work.ensure(t.Context(), user); failure.Of(err) != failure.Transient {
		t.Fatalf("the answer is not lost: %v", err)
	}
	l.Sandbox.StripeFaults.Clear()
	l.Sandbox.StripeFaults.Add(faults.Rule{Method: http.MethodGet, PathPrefix: "/v1/customers/cus_", Status: http.StatusNotFound, Times: 1})
	if _, err := l.work.ensure(t.Context(), user); failure.Of(err) != failure.Transient || failure.CodeOf(err) != "not_shown_yet" {
		t.Errorf("not found once: %v", err)
	}
	l.settle() // as the activity is tried again
	l.wants("1", `SELECT count(*) FROM stripe_customers WHERE user_id IS NOT NULL`)
	if n := len(l.Sandbox.Stripe.Customers()); n != 1 {
		t.Errorf("%d customers at Stripe", n)
	}
	l.agree(user)
}

// hidden has no read, and no write, find a customer, though Stripe has it.
func (l *lab) hidden() (shown func()) {
	remove := []func(){}
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		remove = append(remove, l.Sandbox.StripeFaults.Add(faults.Rule{Method: method, PathPrefix: "/v1/customers/cus_", Status: http.StatusNotFound}))
	}
	remove = append(remove, l.Sandbox.StripeFaults.Add(faults.Rule{Method: http.MethodGet, PathPrefix: "/v1/checkout/sessions", Status: http.StatusNotFound}))
	return func() {
		for _, r := range remove {
			r()
		}
	}
}

// A customer of whom Stripe has told within the last minute is not found. Nobody is given another for
// that, and none that was made in vain is forgotten. Where nothing has told of it for a minute, it
// is gone.
func TestACustomerThatWasToldOfJustNowIsNotGivenUp(t *testing.T) {
	t.Parallel()
	for name, begun := range map[string]func(l *lab) (user string){
		"the product has noted it": func(l *lab) string {
			user := l.newcomer("ada")
			l.notes(user, l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "ada@example.com"}))
			return user
		},
		"it is theirs, and has another name": func(l *lab) string {
			user, _ := l.signUp("ada")
			l.exec(`UPDATE person_user SET profile_version = nextval('sync_seq'), first_name = 'Augusta'`)
			return user
		},
	} {
		for _, gone := range []bool{false, true} {
			if gone && name != "the product has noted it" {
				continue // Stripe's list shows what we have made
			}
			t.Run(fmt.Sprintf("%s, gone %t", name, gone), func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{})
				user := begun(l)
				l.unpoked()
				before := len(l.Sandbox.Stripe.Customers())
				made := func(more int) {
					if n := len(l.Sandbox.Stripe.Customers()); n != before+more {
						t.Errorf("%d customers were made, want %d", n-before, more)
					}
				}
				shown := l.hidden()
				if _, err := l.work.ensure(t.Context(), user); failure.CodeOf(err) != "not_shown_yet" || failure.Of(err) != failure.Transient {
					t.Errorf("not found at first: %v", err)
				}
				made(0)
				if gone {
					l.exec(`UPDATE webhook_events SET received_at = received_at - interval '61 seconds'`)
					l.exec(`UPDATE stripe_customers SET stripe_created_at = stripe_created_at - interval '61 seconds'`)
					for range 2 { // having noted that has it tried again
						_, err := l.work.ensure(t.Context(), user)
						l.must(err)
					}
					made(1)
					return
				}
				shown()
				l.must(l.work.look(t.Context(), account.UserEntity(user)))
				l.settle()
				made(0)
				if n := l.live(user); n != 1 {
					t.Errorf("they have %d customers", n)
				}
			})
		}
	}
}

// A customer that was made for a user who is deleted meanwhile is removed, though a moment later
// Stripe does not find it.
func TestACustomerMadeInVainIsNotForgottenForANotFound(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, made := l.deletedWhileCreating()
	undo := func() error {
		_, err := l.work.customers.UndoStripeCustomer(t.Context(), activities.UndoInput{ClerkUserID: user, CustomerID: made.Undo})
		return err
	}
	shown := l.hidden()
	if err := undo(); failure.CodeOf(err) != "not_shown_yet" {
		t.Errorf("not found: %v", err)
	}
	shown()
	l.must(undo())
	if n := len(l.Sandbox.Stripe.Customers()); n != 0 {
		t.Errorf("%d customers are left", n)
	}
}

// A checkout that was opened just now is not found by its id, and not listed. It is neither taken for
// expired, nor is another opened beside it, nor is it left open for whoever is deleted.
func TestACheckoutThatWasOpenedJustNowIsNotGivenUp(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, _ := l.signUp("ada")
	a := l.actor(policies{})
	desk := l.requests(a)
	opened, _, err := desk.Checkout(t.Context(), l.checkoutOf(user, "k1"))
	l.must(err)
	hide := func(a *actor) (shown func()) {
		a.answer("GET /v1/checkout/sessions?", http.StatusOK, noCheckouts)
		return a.refuse("/v1/checkout/sessions/cs_", http.StatusNotFound, `{"error":{"type":"invalid_request_error","code":"resource_missing","message":"No such checkout session"}}`)
	}
	shown := hide(a)
	for _, key := range []string{"k1", "k2"} {
		if _, _, err := desk.Checkout(t.Context(), l.checkoutOf(user, key)); refused(t, err) == "" || refused(t, err) == "checkout_expired" {
			t.Errorf("under the key %s: %v", key, err)
		}
	}
	if is := l.stateOf(opened.SessionID); is != account.CheckoutOpen {
		t.Errorf("it is %s", is)
	}
	shown()
	again, _, err := desk.Checkout(t.Context(), l.checkoutOf(user, "k1"))
	if err != nil || again.SessionID != opened.SessionID {
		t.Errorf("under its own key: %+v, %v", again, err)
	}
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	l.unpoked()
	l.must(l.work.syncUser(t.Context(), user))
	shown = hide(l.work)
	if err := l.work.customers.ExpireCheckouts(t.Context(), activities.UserInput{ClerkUserID: user}); failure.CodeOf(err) != "not_shown_yet" {
		t.Errorf("not found for whoever is deleted: %v", err)
	}
	shown()
	l.must(l.work.customers.ExpireCheckouts(t.Context(), activities.UserInput{ClerkUserID: user}))
	if is := l.stateOf(opened.SessionID); is != account.CheckoutExpired {
		t.Errorf("of whoever is deleted it is %s", is)
	}
}
