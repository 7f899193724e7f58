package fences_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/selfservice"
)

// Nobody is sold what they have, though Stripe's list of what they have is a moment behind: neither
// what our rows hold, nor what an event or their own return from the checkout has just told of.
// What has ended by now is sold again. Where the list shows all, nothing more is asked for.
func TestACheckoutIsNotSoldTwiceByAReadThatIsBehind(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"a row", "an event", "a return", "a row of what has ended", "an event long ago"} {
		for _, behind := range []bool{false, true} {
			t.Run(fmt.Sprintf("known by %s, behind %t", by, behind), func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{})
				user, customer := l.signUp("ada")
				stale := l.listOf(customer)
				desk := l.requests(l.actor(policies{}))
				opened, _, err := desk.Checkout(t.Context(), l.checkoutOf(user, "first"))
				l.must(err)
				bought := l.buy(stripesim.CheckoutSpec{SessionID: opened.SessionID})
				want := "already_subscribed"
				switch by {
				case "a row":
					l.settle()
				case "an event":
					l.take()
				case "an event long ago":
					l.take()
					l.exec(`UPDATE webhook_events SET received_at = received_at - interval '1 minute'`)
					l.exec(`UPDATE operations SET settled_at = settled_at - interval '1 minute'`)
					if behind {
						want = "" // nothing tells of it
					}
				case "a return":
					desk.Wait = 50 * time.Millisecond
					_, err := desk.Return(t.Context(), selfservice.Caller{UserID: user}, selfservice.Key{Method: http.MethodPost, Route: "/api/checkout/return", Value: "k"}, opened.SessionID)
					l.must(err)
				default:
					l.settle()
					l.cancel(bought.SubscriptionID)
					want = ""
				}
				a := l.actor(policies{})
				if behind {
					a.answer("GET /v1/subscriptions?", http.StatusOK, stale)
				}
				again, _, err := l.requests(a).Checkout(t.Context(), l.checkoutOf(user, "second"))
				if code := refused(t, err); code != want || (again.URL == "") != (want != "") {
					t.Errorf("it is answered %q with %q, not %q", code, again.URL, want)
				}
				if asked := slices.Contains(a.asked, "GET /v1/subscriptions/"+bought.SubscriptionID); asked != (behind && by != "an event long ago") {
					t.Errorf("it is asked for by its id: %t", asked)
				}
			})
		}
	}
}
