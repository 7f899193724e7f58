package fences_test

import (
	"strings"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

// Stripe does not let us stop one of a deleted user's subscriptions, for good or for a while: the
// other one is stopped all the same, and once Stripe lets us, the first one too.
func TestOneRefusalKeepsNoOtherSubscriptionRunning(t *testing.T) {
	t.Parallel()
	for status, class := range map[int]failure.Class{400: failure.Permanent, 503: failure.Transient} {
		for _, which := range []string{"min", "max"} { // whichever is stopped first, it is refused in one of the two
			t.Run(string(class)+" "+which, func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{})
				user, customer, _ := l.subscribed("ada")
				other := l.Sandbox.Stripe.AddPrice(l.Sandbox.Stripe.AddProduct("Extra"), 500, "month")
				l.buy(stripesim.CheckoutSpec{CustomerID: customer, ClientReferenceID: user, PriceID: other})
				l.settle()
				refused := l.text(`SELECT ` + which + `(stripe_subscription_id) FROM subscriptions`)
				free := l.text(`SELECT stripe_subscription_id FROM subscriptions WHERE stripe_subscription_id <> $1`, refused)
				allow := l.Sandbox.StripeFaults.Add(faults.Rule{Method: "POST", PathPrefix: "/v1/subscriptions/" + refused, Status: status})
				l.must(l.Sandbox.Clerk.DeleteUser(user))
				l.unpoked()
				l.must(l.work.syncUser(t.Context(), user))
				if _, err := l.work.subscriptions.StopBilling(t.Context(), activities.RecordInput{CustomerID: customer}); failure.Of(err) != class {
					t.Errorf("the refusal is answered %v", err)
				}
				if l.endsByPeriod(refused) || !l.endsByPeriod(free) {
					t.Error("the one that nothing is wrong with bills the deleted user on, or the other one does not")
				}
				allow()
				l.must(l.work.lookAtCustomer(t.Context(), customer))
				if !l.endsByPeriod(refused) {
					t.Error("the one that was refused bills the deleted user on")
				}
				l.settle()
				l.must(l.work.lookAtUser(t.Context(), user))
				l.wants("true", `SELECT deleted_at IS NOT NULL FROM person_user`)
			})
		}
	}
}

func (l *lab) endsByPeriod(subscription string) bool {
	l.t.Helper()
	raw, ok := l.Sandbox.Stripe.Subscription(subscription)
	if !ok {
		l.t.Fatal("no such subscription")
	}
	return strings.Contains(strings.ReplaceAll(string(raw), " ", ""), `"cancel_at_period_end":true`)
}

// One of a deleted user's checkouts cannot be expired, or those of one customer not be listed: the
// others are expired all the same.
func TestOneRefusalKeepsNoOtherCheckoutOpen(t *testing.T) {
	t.Parallel()
	for _, rule := range []faults.Rule{{Method: "POST", PathContains: "/expire", Status: 400, Times: 1}, {Method: "GET", PathPrefix: "/v1/checkout/sessions", QueryContains: "status=open", Status: 400, Times: 1}} {
		t.Run(rule.Method, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, one, two := l.withTwoCustomers()
			for _, customer := range []string{one, two} {
				l.openOwnCheckout(user, customer)
			}
			l.must(l.Sandbox.Clerk.DeleteUser(user))
			l.unpoked()
			l.must(l.work.syncUser(t.Context(), user))
			l.Sandbox.StripeFaults.Add(rule)
			if err := l.work.customers.ExpireCheckouts(t.Context(), activities.UserInput{ClerkUserID: user}); failure.Of(err) != failure.Permanent {
				t.Errorf("the refusal is answered %v", err)
			}
			if n := l.openCheckouts(one) + l.openCheckouts(two); n != 1 {
				t.Errorf("%d checkouts are open, want the one that was refused", n)
			}
			l.must(l.work.customers.ExpireCheckouts(t.Context(), activities.UserInput{ClerkUserID: user}))
			if n := l.openCheckouts(one) + l.openCheckouts(two); n != 0 {
				t.Errorf("%d checkouts are open in the end", n)
			}
		})
	}
}

// One of a user's customers cannot be given their new name for a while: the other one is given it
// all the same.
func TestOneFailureKeepsNoOtherCustomerFromItsName(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, one, two := l.withTwoCustomers()
	name := "Augusta"
	l.must(l.Sandbox.Clerk.UpdateUser(user, clerksim.UserChange{FirstName: &name}))
	l.unpoked()
	l.must(l.work.syncUser(t.Context(), user))
	for _, failing := range []string{one, two} {
		allow := l.Sandbox.StripeFaults.Add(faults.Rule{Method: "POST", PathPrefix: "/v1/customers/" + failing, Status: 503})
		if _, err := l.work.ensure(t.Context(), user); failure.Of(err) != failure.Transient {
			t.Errorf("the failure of %s is answered %v", failing, err)
		}
		for _, each := range []string{one, two} {
			if named := l.nameAtStripe(each) == name+" Lovelace"; named != (each != failing) {
				t.Errorf("while %s fails, %s has the new name: %t", failing, each, named)
			}
		}
		allow()
		_, err := l.work.ensure(t.Context(), user)
		l.must(err)
		if got := l.nameAtStripe(failing); got != name+" Lovelace" {
			t.Errorf("%s is called %q in the end", failing, got)
		}
		name += "a" // another change, of which the other one fails
		l.must(l.Sandbox.Clerk.UpdateUser(user, clerksim.UserChange{FirstName: &name}))
		l.unpoked()
		l.must(l.work.syncUser(t.Context(), user))
	}
}

func (l *lab) nameAtStripe(customer string) string {
	l.t.Helper()
	for _, raw := range l.Sandbox.Stripe.Customers() {
		if stringField(l.t, raw, "id") == customer {
			return stringField(l.t, raw, "name")
		}
	}
	return ""
}

// withTwoCustomers is a user who has two.
func (l *lab) withTwoCustomers() (user, one, two string) {
	l.t.Helper()
	user, one = l.signUp("ada")
	two = l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Metadata: map[string]string{"clerk_user_id": user}})
	l.settle()
	l.wants("2", `SELECT count(*) FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE u.clerk_user_id = $1`, user)
	return user, one, two
}

// openOwnCheckout opens a checkout of the lab's price past the API.
func (l *lab) openOwnCheckout(user, customer string) account.CheckoutSession {
	l.t.Helper()
	session, err := l.work.stripe.OpenCheckout(l.t.Context(), account.NewCheckout{ClerkUserID: user, CustomerID: customer, PriceID: l.price, ProductID: l.product,
		Quantity: 1, SuccessURL: "https://app.example.com/ok", CancelURL: "https://app.example.com/no", IdempotencyKey: "checkout:" + customer})
	l.must(err)
	return session
}

func (l *lab) openCheckouts(customer string) int {
	l.t.Helper()
	open, err := l.work.stripe.OpenCheckoutSessions(l.t.Context(), customer)
	l.must(err)
	return len(open)
}
