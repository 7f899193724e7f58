package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/client"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

// opens opens a checkout and answers its session.
func (p *person) opens(price string) string {
	p.w.t.Helper()
	r := p.asks(http.MethodPost, "/api/checkout", checkout(price, 2))
	want(p.w.t, r, http.StatusOK, "")
	if !strings.HasPrefix(r.text("id"), "cs_") || !strings.HasPrefix(r.text("url"), "https://") {
		p.w.t.Fatalf("the checkout is %s", r)
	}
	return r.text("id")
}

// session is a checkout session as Stripe has it.
type session struct {
	ID                string            `json:"id"`
	Status            string            `json:"status"`
	Customer          string            `json:"customer"`
	ClientReferenceID string            `json:"client_reference_id"`
	Metadata          map[string]string `json:"metadata"`
	Subscription      string            `json:"subscription"`
}

// sessions are all that Stripe has of a customer.
func (p *person) sessions(status string) (all []session) {
	p.w.t.Helper()
	request, err := http.NewRequestWithContext(p.w.t.Context(), http.MethodGet, p.w.Sandbox.StripeURL()+"/v1/checkout/sessions?limit=100&customer="+p.customer+"&status="+status, http.NoBody)
	if err != nil {
		p.w.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+p.w.Sandbox.StripeSecretKey)
	answer, err := p.w.http.Do(request)
	if err != nil {
		p.w.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	var list struct{ Data []session }
	if err := json.NewDecoder(answer.Body).Decode(&list); err != nil {
		p.w.t.Fatal(err)
	}
	return list.Data
}

// besideProduct makes a product that may be bought beside others.
func (p *person) besideProduct(name string) string {
	p.w.t.Helper()
	product := p.w.Sandbox.Stripe.AddProduct(name)
	request, err := http.NewRequestWithContext(p.w.t.Context(), http.MethodPost, p.w.Sandbox.StripeURL()+"/v1/products/"+product, strings.NewReader("metadata[beside]=allow"))
	if err != nil {
		p.w.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+p.w.Sandbox.StripeSecretKey)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := p.w.http.Do(request)
	if err != nil || answer.StatusCode != http.StatusOK {
		p.w.t.Fatalf("changing a product: %v", err)
	}
	_ = answer.Body.Close()
	return product
}

// Whoever comes back from paying has what they bought, although no webhook has come.
func TestCheckoutAndReturn(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	ada, other := w.somebody("Ada").onboarded(), w.addPrice(w.product, 100)
	w.Sandbox.StripeWebhooks.Hold()
	id := ada.opens(w.price)
	open := ada.sessions("open")
	if len(open) != 1 || open[0].ID != id || open[0].ClientReferenceID != ada.user || open[0].Metadata["clerk_user_id"] != ada.user || open[0].Customer != ada.customer {
		t.Fatalf("Stripe has the sessions %+v", open)
	}
	back := fmt.Sprintf(`{"sessionId":%q}`, id)
	want(t, ada.asks(http.MethodPost, "/api/checkout/return", back), http.StatusConflict, "checkout_open")
	bought, err := w.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{SessionID: id})
	if err != nil {
		t.Fatal(err)
	}
	ada.subscription = bought.SubscriptionID
	want(t, ada.asks(http.MethodPost, "/api/checkout/return", back), http.StatusOK, "")
	ada.is("active")
	if held, _ := w.Sandbox.Clerk.PublicMetadata(ada.user)["stripe"].(map[string]any); held["subscriptionActive"] != true || held["plan"] != "Pro" {
		t.Errorf("back from paying, Clerk holds %v", held)
	}
	if n := w.Count(`SELECT quantity FROM subscriptions`); n != 2 {
		t.Errorf("%d seats were bought, want 2", n)
	}
	// Once more changes nothing; somebody else has no such session.
	want(t, ada.asks(http.MethodPost, "/api/checkout/return", back), http.StatusOK, "")
	eve := w.somebody("Eve")
	want(t, eve.asks(http.MethodPost, "/api/checkout/return", back), http.StatusNotFound, "session_not_found")
	want(t, ada.asks(http.MethodPost, "/api/checkout/return", `{"sessionId":"cs_test_unknown"}`), http.StatusNotFound, "session_not_found")
	// What they have they cannot buy again.
	want(t, ada.asks(http.MethodPost, "/api/checkout", checkout(w.price, 1)), http.StatusConflict, "already_subscribed")
	want(t, ada.asks(http.MethodPost, "/api/checkout", checkout(other, 1)), http.StatusConflict, "already_subscribed")
	w.Sandbox.StripeWebhooks.Release()
	w.Quiet(false)
	ada.agrees()
}

// A checkout that an app opened by itself, on a customer of its own that it named the user on, is
// one to come back from as well.
func TestReturnFromAnAppsOwnCheckout(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	ada := w.somebody("Ada").onboarded()
	w.Sandbox.StripeWebhooks.Hold()
	bought, err := w.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{Email: "payer@example.org", PriceID: w.price, ClientReferenceID: ada.user, Metadata: map[string]string{"clerk_user_id": ada.user}})
	if err != nil {
		t.Fatal(err)
	}
	ada.customer, ada.subscription = bought.CustomerID, bought.SubscriptionID
	want(t, ada.asks(http.MethodPost, "/api/checkout/return", fmt.Sprintf(`{"sessionId":%q}`, bought.SessionID)), http.StatusOK, "")
	ada.is("active")
	w.Sandbox.StripeWebhooks.Release()
	w.Quiet(false)
}

// A checkout that merely refers to a user, as whoever paid may have written, is theirs where it was
// paid from the address that they have verified; else the answer says what is missing, and it is
// nobody's.
func TestReturnFromAPaymentLink(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	ada := w.somebody("Ada").onboarded()
	first := ada.customer
	pay := func(email string) stripesim.CheckoutResult {
		bought, err := w.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{Email: email, PriceID: w.price, ClientReferenceID: ada.user, PaymentLink: "plink_1"})
		if err != nil {
			t.Fatal(err)
		}
		return bought
	}
	foreign := pay("payer@example.org")
	want(t, ada.asks(http.MethodPost, "/api/checkout/return", fmt.Sprintf(`{"sessionId":%q}`, foreign.SessionID)), http.StatusConflict, "reference_unverified")
	if ada.customer != first {
		t.Errorf("the user's customer is %s", ada.customer)
	}
	var verified string
	if err := w.Row(t.Context(), `SELECT email FROM person_user WHERE clerk_user_id = $1 AND email_verified`, []any{ada.user}, &verified); err != nil {
		t.Fatal(err)
	}
	own := pay(verified)
	ada.customer, ada.subscription = own.CustomerID, own.SubscriptionID
	want(t, ada.asks(http.MethodPost, "/api/checkout/return", fmt.Sprintf(`{"sessionId":%q}`, own.SessionID)), http.StatusOK, "")
	ada.is("active")
}

// At most one checkout of a product is open for a user, however many are asked for at once; the
// same key is the same checkout.
func TestOneCheckoutAtATime(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	ada := w.somebody("Ada").onboarded()
	var asking sync.WaitGroup
	for range 6 {
		asking.Go(func() {
			if r := ada.asks(http.MethodPost, "/api/checkout", checkout(w.price, 1)); r.status != http.StatusOK && r.code() != "checkout_in_progress" {
				t.Errorf("answered %s", r)
			}
		})
	}
	asking.Wait()
	if open := ada.sessions("open"); len(open) != 1 {
		t.Errorf("%d checkouts are open, want 1", len(open))
	}
	first := ada.asksWith("buy-1", http.MethodPost, "/api/checkout", checkout(w.price, 1))
	again := ada.asksWith("buy-1", http.MethodPost, "/api/checkout", checkout(w.price, 1))
	if first.status != http.StatusOK || string(first.body) != string(again.body) {
		t.Errorf("the same key is answered %s and %s", first, again)
	}
	want(t, ada.asksWith("buy-1", http.MethodPost, "/api/checkout", checkout(w.price, 2)), http.StatusUnprocessableEntity, "idempotency_key_reused")
	// One that may be held beside others is another matter; of two others only the later can be paid.
	ada.opens(w.addPrice(ada.besideProduct("Seats"), 500))
	if open := ada.sessions("open"); len(open) != 2 {
		t.Errorf("%d checkouts are open, want one a product", len(open))
	}
	ada.opens(w.addPrice(w.Sandbox.Stripe.AddProduct("Extra"), 500))
	if open := ada.sessions("open"); len(open) != 2 || open[0].Metadata["product_id"] == w.product || open[1].Metadata["product_id"] == w.product {
		t.Errorf("open are %+v, want no other plan's", open)
	}
	// What is not sold any more is not to be had.
	if err := w.Sandbox.Stripe.ArchivePrice(w.price); err != nil {
		t.Fatal(err)
	}
	w.Quiet(false)
	want(t, ada.asks(http.MethodPost, "/api/checkout", checkout(w.price, 1)), http.StatusBadRequest, "price_not_sold")
}

// The billing portal is that of the caller's own customer.
func TestPortal(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	ada := w.somebody("Ada").onboarded()
	opened, err := ada.api.OpenPortalWithResponse(t.Context(), nil, client.PortalRequest{ReturnUrl: party + "/account"})
	if err != nil || client.Check(opened) != nil || !strings.HasPrefix(opened.JSON200.Url, "https://") {
		t.Fatalf("the portal is %v, %v", opened, err)
	}
	// A key means the request that it was used for first.
	want(t, ada.asksWith("manage-1", http.MethodPost, "/api/portal", `{"returnUrl":"`+party+`/account"}`), http.StatusOK, "")
	want(t, ada.asksWith("manage-1", http.MethodPost, "/api/portal", `{"returnUrl":"`+party+`/plans"}`), http.StatusUnprocessableEntity, "idempotency_key_reused")
	want(t, ada.asksWith("manage-1", http.MethodPost, "/api/portal", `{"returnUrl":"`+party+`/account"}`), http.StatusOK, "")
	// Stripe says no.
	w.Sandbox.StripeFaults.Add(refusal(http.MethodPost, "/v1/billing_portal"))
	want(t, ada.asks(http.MethodPost, "/api/portal", `{"returnUrl":"`+party+`"}`), http.StatusBadGateway, "provider_refused")
	w.Sandbox.StripeFaults.Clear()
	w.Sandbox.StripeFaults.Add(outage())
	want(t, ada.asks(http.MethodPost, "/api/portal", `{"returnUrl":"`+party+`"}`), http.StatusServiceUnavailable, "provider_unavailable")
	want(t, ada.asks(http.MethodPost, "/api/checkout", checkout(w.price, 1)), http.StatusServiceUnavailable, "provider_unavailable")
	want(t, ada.asks(http.MethodPost, "/api/checkout/return", `{"sessionId":"cs_test_1"}`), http.StatusServiceUnavailable, "provider_unavailable")
}
