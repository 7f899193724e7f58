package api_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/client"
)

// Cancel and reactivate, in both forms: done in all three systems when they answer.
func TestCancelAndReactivate(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	ada := w.subscriber("Ada")

	path := "/api/subscriptions/" + ada.subscription
	started := time.Now()
	want(t, ada.asks(http.MethodPost, path+"/cancel", ""), http.StatusOK, "")
	t.Log("cancelled after", time.Since(started))
	ada.is("active, ends with its period")
	want(t, ada.asks(http.MethodPost, path+"/reactivate", ""), http.StatusOK, "")
	ada.is("active")
	want(t, ada.asks(http.MethodPost, "/api/sync/clerk-stripe", fmt.Sprintf(`{"action":"cancel-subscription","subscriptionId":%q}`, ada.subscription)), http.StatusOK, "")
	ada.is("active, ends with its period")
	want(t, ada.asks(http.MethodPost, "/api/sync/clerk-stripe", fmt.Sprintf(`{"action":"reactivate-subscription","reactivateSubscriptionId":%q}`, ada.subscription)), http.StatusOK, "")
	ada.is("active")

	now := client.CancelRequestAtNow
	answer, err := ada.api.CancelSubscriptionWithResponse(t.Context(), ada.subscription, nil, client.CancelRequest{At: &now})
	if err != nil || client.Check(answer) != nil || answer.JSON200 == nil {
		t.Fatalf("cancelling at once: %v %v", err, answer)
	}
	ada.is("canceled")
	want(t, ada.asks(http.MethodPost, path+"/reactivate", ""), http.StatusConflict, "subscription_ended")
}

// is fails the test unless all three systems say now how the subscription ends: whoever was told that
// something is done must not have to wait for it.
func (p *person) is(ends string) {
	p.w.t.Helper()
	if got := p.ends(); got != ends {
		p.w.t.Errorf("Stripe says %q, want %q", got, ends)
	}
	if err := p.w.Agreement(p.w.t.Context(), p.user, policy()); err != nil {
		p.w.t.Error("the answer came before they agree:", err)
	}
}
