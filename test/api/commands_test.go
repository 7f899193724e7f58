package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
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

// is fails the test unless all three systems say now how the subscription ends: whoever was told
// that something is done must not have to wait for it.
func (p *person) is(ends string) {
	p.w.t.Helper()
	if got := p.ends(); got != ends {
		p.w.t.Errorf("Stripe says %q, want %q", got, ends)
	}
	if err := p.w.Agreement(p.w.t.Context(), p.user, policy()); err != nil {
		p.w.t.Error("the answer came before they agree:", err)
	}
}

// A trial that ended without a card is paused, which no reactivation ends: the caller is told where
// it is resumed, and nothing is done. It can be cancelled.
func TestReactivateWhatIsPaused(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	ada := w.somebody("Ada").onboarded()
	ada.subscription = w.trial(ada.customer)
	if err := w.Sandbox.Stripe.Advance(t.Context(), 26*time.Hour); err != nil {
		t.Fatal(err)
	}
	w.Until("the trial has ended", func(context.Context) error {
		if w.Count(`SELECT count(*) FROM subscriptions WHERE status = 'paused'`) != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	w.Rest()
	path, before := "/api/subscriptions/"+ada.subscription, ada.ends()
	r := ada.asks(http.MethodPost, path+"/reactivate", "")
	want(t, r, http.StatusConflict, "subscription_paused")
	if !strings.Contains(r.text("detail"), "portal") {
		t.Errorf("the caller is not told of the portal: %s", r)
	}
	if got := ada.ends(); got != before {
		t.Errorf("it was %q and is %q", before, got)
	}
	ada.agrees()
	// The period that it is to end with is over.
	want(t, ada.asks(http.MethodPost, path+"/cancel", ""), http.StatusOK, "")
	if got := ada.ends(); !strings.HasPrefix(got, "canceled") {
		t.Errorf("it was cancelled and is %q", got)
	}
}

// trial makes a subscription whose trial of a day pauses it if there is no card then.
func (w *world) trial(customer string) (subscription string) {
	w.t.Helper()
	form := url.Values{"customer": {customer}, "items[0][price]": {w.price}, "trial_period_days": {"1"}, "trial_settings[end_behavior][missing_payment_method]": {"pause"}}
	request, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.Sandbox.StripeURL()+"/v1/subscriptions", strings.NewReader(form.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+w.Sandbox.StripeSecretKey)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	var made struct{ ID string }
	if err := json.NewDecoder(answer.Body).Decode(&made); err != nil || made.ID == "" {
		w.t.Fatalf("Stripe answered %d: %v", answer.StatusCode, err)
	}
	return made.ID
}
