package fences_test

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/selfservice"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// Stripe fails inside while it is asked for something, once before and once after it has done it,
// and repeats that for a day. Whatever it was asked for, the next attempt goes on, and nothing is
// made twice.
func TestAStoredFailureHoldsNothingUp(t *testing.T) {
	t.Parallel()
	for _, done := range []bool{true, false} {
		each := func(name string, policy policies, broken stripesim.Breakage, scene func(t *testing.T, l *lab) (attempt func() error, check func())) {
			t.Run(fmt.Sprintf("%s, done %t", name, done), func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policy)
				attempt, check := scene(t, l)
				broken.Done, broken.Times = done, 1
				l.Sandbox.Stripe.Break(broken)
				if err := attempt(); failure.Of(err) != failure.Transient {
					t.Errorf("the failure is answered %v", err)
				}
				if err := attempt(); err != nil {
					t.Errorf("the next attempt is answered %v", err)
				}
				check()
			})
		}
		each("a sign-up", policies{}, stripesim.Breakage{PathPrefix: "/v1/customers"}, func(t *testing.T, l *lab) (func() error, func()) {
			user := l.newcomer("ada")
			l.Sandbox.Stripe.SetSearchLag(time.Hour)
			return func() error { _, err := l.work.ensure(t.Context(), user); return err }, func() {
				l.settle()
				l.agree(user)
				if n := len(l.Sandbox.Stripe.Customers()); n != 1 {
					t.Errorf("Stripe has %d customers", n)
				}
			}
		})
		each("a new name", policies{}, stripesim.Breakage{PathPrefix: "/v1/customers/"}, func(t *testing.T, l *lab) (func() error, func()) {
			user, customer := l.signUp("ada")
			name := "Augusta"
			l.must(l.Sandbox.Clerk.UpdateUser(user, clerksim.UserChange{FirstName: &name}))
			l.unpoked()
			l.must(l.work.syncUser(t.Context(), user))
			return func() error { _, err := l.work.ensure(t.Context(), user); return err }, func() {
				if got := l.nameAtStripe(customer); got != "Augusta Lovelace" {
					t.Errorf("the customer is called %q", got)
				}
			}
		})
		each("the end of a deleted user's billing", policies{}, stripesim.Breakage{PathPrefix: "/v1/subscriptions/"}, func(t *testing.T, l *lab) (func() error, func()) {
			user, customer, subscription := l.subscribed("ada")
			l.must(l.Sandbox.Clerk.DeleteUser(user))
			l.unpoked()
			l.must(l.work.syncUser(t.Context(), user))
			return func() error { return l.work.lookAtCustomer(t.Context(), customer) }, func() {
				if !l.endsByPeriod(subscription) {
					t.Error("the deleted user is renewed and billed")
				}
				l.must(l.work.lookAtUser(t.Context(), user))
				l.wants("true", `SELECT deleted_at IS NOT NULL FROM person_user`)
			}
		})
		each("a deleted user's checkout", policies{}, stripesim.Breakage{PathSuffix: "/expire"}, func(t *testing.T, l *lab) (func() error, func()) {
			user, customer := l.signUp("ada")
			l.openOwnCheckout(user, customer)
			l.must(l.Sandbox.Clerk.DeleteUser(user))
			l.unpoked()
			l.must(l.work.syncUser(t.Context(), user))
			return func() error {
					return l.work.customers.ExpireCheckouts(t.Context(), activities.UserInput{ClerkUserID: user})
				}, func() {
					if n := l.openCheckouts(customer); n != 0 {
						t.Errorf("%d checkouts are open", n)
					}
				}
		})
		for action, want := range map[store.Action]string{store.ActionCancel: "done with its period", store.ActionReactivate: "done never"} {
			each("a "+string(action), policies{}, stripesim.Breakage{PathPrefix: "/v1/subscriptions/"}, func(t *testing.T, l *lab) (func() error, func()) {
				s := l.subject(1)
				if action == store.ActionReactivate {
					l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(s.subscription))
				}
				op := l.asks(s, action)
				return func() error {
						_, err := l.work.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: op, CustomerID: s.customer})
						return err
					}, func() {
						l.must(l.work.apply(t.Context(), s, op))
						l.settle()
						if status, ends := l.became(s, op); status+" "+ends != want {
							t.Errorf("it is %s and ends %s, want %s", status, ends, want)
						}
						l.agree(s.user)
					}
			})
		}
		each("a checkout", policies{}, stripesim.Breakage{PathPrefix: "/v1/checkout/sessions", PathSuffix: "sessions"}, func(t *testing.T, l *lab) (func() error, func()) {
			user, customer := l.signUp("ada")
			attempt, check := l.checksOut(user, selfservice.Key{Method: "POST", Route: "/checkouts", Value: "k"})
			return attempt, func() {
				check()
				if open, made := l.openCheckouts(customer), l.Sandbox.Stripe.Counts()["checkout.session"]; open != 1 || made != 1 {
					t.Errorf("%d checkouts were made, and %d are open", made, open)
				}
			}
		})
		each("a checkout in the place of an earlier one", policies{}, stripesim.Breakage{PathSuffix: "/expire"}, func(t *testing.T, l *lab) (func() error, func()) {
			user, customer := l.signUp("ada")
			attempt, check := l.checksOut(user, selfservice.Key{})
			l.must(attempt())
			check()
			return attempt, func() {
				check()
				if n := l.openCheckouts(customer); n != 1 {
					t.Errorf("%d checkouts are open", n)
				}
			}
		})
		each("the portal", policies{}, stripesim.Breakage{PathPrefix: "/v1/billing_portal"}, func(t *testing.T, l *lab) (func() error, func()) {
			user, _ := l.signUp("ada")
			var address string
			return func() (err error) {
					address, _, err = l.desk().Portal(t.Context(), selfservice.Caller{UserID: user}, selfservice.Key{Value: "k"}, "https://app.example.com/")
					return err
				}, func() {
					if address == "" {
						t.Error("there is no address")
					}
				}
		})
	}
}

// desk takes requests from people, without the programs.
func (l *lab) desk() *selfservice.Desk {
	return &selfservice.Desk{Store: l.work.users.Store, Stripe: l.work.stripe, Clerk: l.work.users.Clerk, Wake: func() {}, Wait: 5 * time.Second,
		Access: access(), Logger: slog.New(slog.DiscardHandler)}
}

// checksOut asks for a checkout of the lab's price; check fails the test unless what was answered
// last is open.
func (l *lab) checksOut(user string, key selfservice.Key) (attempt func() error, check func()) {
	desk := l.desk()
	var opened selfservice.Checkout
	return func() (err error) {
			opened, _, err = desk.Checkout(l.t.Context(), selfservice.CheckoutRequest{Caller: selfservice.Caller{UserID: user}, Key: key, PriceID: l.price, Quantity: 1,
				SuccessURL: "https://app.example.com/ok", CancelURL: "https://app.example.com/no"})
			return err
		}, func() {
			l.t.Helper()
			session, err := l.work.stripe.CheckoutSession(l.t.Context(), opened.SessionID)
			if err != nil || session.Status != account.CheckoutOpen {
				l.t.Errorf("the checkout is %q, %v", session.Status, err)
			}
		}
}
