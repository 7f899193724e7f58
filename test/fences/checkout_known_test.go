package fences_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

// missingAtStripe is Stripe's answer that it does not have a subscription.
func missingAtStripe(subscription string) string {
	return `{"error":{"type":"invalid_request_error","code":"resource_missing","param":"id","message":"No such subscription: '` + subscription + `'"}}`
}

// What is bought is decided by the newest that is known, where Stripe's reads are a moment behind:
// what a list shows as it cannot be any more is as our row says, and what no read shows though our
// row of the same minute has it is there.
func TestACheckoutGoesByTheNewestThatIsKnown(t *testing.T) {
	t.Parallel()
	incomplete := func(list string) string {
		return strings.Replace(list, `"status":"active"`, `"status":"incomplete"`, 1)
	}
	for name, scene := range map[string]struct {
		// happens answers what the reads show instead, by what the request contains.
		happens func(l *lab) (user string, shown map[string]string)
		want    string
	}{
		"a first payment that our row shows as paid": {func(l *lab) (string, map[string]string) {
			user, customer, _ := l.subscribed("ada")
			return user, map[string]string{"GET /v1/subscriptions?": incomplete(l.listOf(customer))}
		}, "already_subscribed"},
		"a first payment that our row shows as paid, in each read": {func(l *lab) (string, map[string]string) {
			user, customer, subscription := l.subscribed("ada")
			one := incomplete(l.byServer(http.MethodGet, "/v1/subscriptions/"+subscription, nil))
			return user, map[string]string{"GET /v1/subscriptions?": incomplete(l.listOf(customer)), "GET /v1/subscriptions/" + subscription: one}
		}, "already_subscribed"},
		"a first payment that an event tells of": {func(l *lab) (string, map[string]string) {
			user, customer := l.signUp("ada")
			l.buy(stripesim.CheckoutSpec{CustomerID: customer, ClientReferenceID: user})
			l.unpoked()
			return user, map[string]string{"GET /v1/subscriptions?": incomplete(l.listOf(customer))}
		}, "already_subscribed"},
		"what our row of this minute has and no read shows": {func(l *lab) (string, map[string]string) {
			user, customer := l.signUp("ada")
			empty := l.listOf(customer)
			bought := l.buy(stripesim.CheckoutSpec{CustomerID: customer, ClientReferenceID: user})
			l.settle()
			return user, map[string]string{"GET /v1/subscriptions?": empty, "GET /v1/subscriptions/" + bought.SubscriptionID: missingAtStripe(bought.SubscriptionID)}
		}, "already_subscribed"},
		"what has ended": {func(l *lab) (string, map[string]string) {
			user, customer, subscription := l.subscribed("ada")
			before := l.listOf(customer)
			l.must(l.Sandbox.Stripe.CancelNow(subscription))
			l.settle()
			return user, map[string]string{"GET /v1/subscriptions?": before}
		}, ""},
		"what our row had an hour ago and Stripe does not have": {func(l *lab) (string, map[string]string) {
			user, customer := l.signUp("ada")
			empty := l.listOf(customer)
			bought := l.buy(stripesim.CheckoutSpec{CustomerID: customer, ClientReferenceID: user})
			l.settle()
			l.exec(`UPDATE subscriptions SET updated_at = updated_at - interval '1 hour'`)
			return user, map[string]string{"GET /v1/subscriptions?": empty, "GET /v1/subscriptions/" + bought.SubscriptionID: missingAtStripe(bought.SubscriptionID)}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, shown := scene.happens(l)
			a := l.actor(policies{})
			for request, body := range shown {
				status := http.StatusOK
				if strings.Contains(body, "resource_missing") {
					status = http.StatusNotFound
				}
				a.answer(request, status, body)
			}
			opened, _, err := l.requests(a).Checkout(t.Context(), l.checkoutOf(user, "k"))
			if code := refused(t, err); code != scene.want {
				t.Errorf("it is answered %q, not %q", code, scene.want)
			}
			if scene.want == "" && l.stateOf(opened.SessionID) != account.CheckoutOpen {
				t.Errorf("the checkout is %s", l.stateOf(opened.SessionID))
			}
		})
	}
}
