package stripeapi_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeapi"
)

const html = "<html><body><h1>502 Bad Gateway</h1></body></html>"

func stripeError(kind, code, message string) string {
	return fmt.Sprintf(`{"error":{"type":%q,"code":%q,"message":%q,"param":"id",
		"payment_intent":{"id":"pi_1","client_secret":"pi_1_secret_2"}}}`, kind, code, message)
}

func TestFailures(t *testing.T) {
	t.Parallel()
	missing := stripeError("invalid_request_error", "resource_missing", "No such customer: ada@example.com")
	tests := []struct {
		name    string
		handle  http.HandlerFunc
		class   failure.Class
		code    string
		status  int
		missing bool
	}{
		{"HTML 502", answer(502, html), failure.Transient, "http_502", 502, false},
		{"empty 503", answer(503, ""), failure.Transient, "http_503", 503, false},
		{"500 with an error document", answer(500, stripeError("api_error", "", "oops")), failure.Transient, "http_500", 500, false},
		{"a replayed 500", answer(500, stripeError("api_error", "", "oops"), "Idempotent-Replayed", "true"), failure.Transient, stripeapi.CodeReplayed, 500, false},
		{"a replayed refusal", answer(400, stripeError("invalid_request_error", "email_invalid", "no"), "Idempotent-Replayed", "true"), failure.Permanent, "email_invalid", 400, false},
		{"a 500 that says not to try again", answer(500, "{}", "Stripe-Should-Retry", "false"), failure.Transient, "http_500", 500, false},
		{"wrong key", answer(401, stripeError("invalid_request_error", "", "Invalid API Key provided: sk_test_****1")), failure.Operator, "http_401", 401, false},
		{"a key without the permission", answer(403, stripeError("invalid_request_error", "", "no"), "Stripe-Should-Retry", "false"), failure.Operator, "http_403", 403, false},
		{"card declined", answer(402, stripeError("card_error", "card_declined", "declined")), failure.Permanent, "card_declined", 402, false},
		{"bad parameter", answer(400, stripeError("invalid_request_error", "email_invalid", "ada@example")), failure.Permanent, "email_invalid", 400, false},
		{"same key, at the same time", answer(409, stripeError("idempotency_error", "", "There is currently another in-progress request")), failure.Transient, "idempotency_key_in_use", 409, false},
		{"same key, at the same time, with a code", answer(409, stripeError("idempotency_error", "idempotency_key_in_use", "another")), failure.Transient, "idempotency_key_in_use", 409, false},
		{"same key, other parameters", answer(400, stripeError("idempotency_error", "", "Keys for idempotent requests")), failure.Permanent, "idempotency_error", 400, false},
		{"a 400 that may be tried again", answer(400, stripeError("invalid_request_error", "", "busy"), "Stripe-Should-Retry", "true"), failure.Transient, "http_400", 400, false},
		{"missing", answer(404, missing), failure.Permanent, "resource_missing", 404, true},
		{"missing, said with 400", answer(400, missing), failure.Permanent, "resource_missing", 400, true},
		{"a route that Stripe does not know", answer(404, stripeError("invalid_request_error", "", "Unrecognized request URL")), failure.Operator, "http_404", 404, false},
		{"a 404 of something in between", answer(404, html), failure.Operator, "http_404", 404, false},
		{"a 400 of something in between", answer(400, html), failure.Operator, "http_400", 400, false},
		{"a redirect", answer(301, "", "Location", "http://127.0.0.1:1/elsewhere"), failure.Transient, "http_301", 301, false},
		{"lock timeout, 429", answer(429, stripeError("invalid_request_error", "lock_timeout", "locked")), failure.Transient, "lock_timeout", 429, false},
		{"lock timeout, 409", answer(409, stripeError("invalid_request_error", "lock_timeout", "locked"), "Stripe-Should-Retry", "false"), failure.Transient, "lock_timeout", 409, false},
		{"conflict", answer(409, stripeError("idempotency_error", "idempotency_key_in_use", "busy")), failure.Transient, "idempotency_key_in_use", 409, false},
		{"conflict that stays", answer(409, stripeError("invalid_request_error", "", "no"), "Stripe-Should-Retry", "false"), failure.Permanent, "http_409", 409, false},
		{"rate limit, said not to try at once", answer(429, stripeError("rate_limit_error", "rate_limit", "slow"), "Stripe-Should-Retry", "false"), failure.Throttled, "rate_limit", 429, false},
		{"200 with {}", answer(200, "{}"), failure.Transient, "bad_body", 200, false},
		{"200 with an error document", answer(200, missing), failure.Transient, "bad_body", 200, false},
		{"200 with HTML", answer(200, html), failure.Transient, "bad_body", 200, false},
		{"200 with nothing", answer(200, ""), failure.Transient, "bad_body", 200, false},
		{"200 with another object", answer(200, `{"object":"customer","id":"cus_other"}`), failure.Transient, "bad_body", 0, false},
		{"a code that is a text", answer(400, stripeError("invalid_request_error", "No such customer: ada@example.com", "x")), failure.Permanent, "unknown", 400, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, client := serve(t, test.handle)
			_, err := client.Customer(t.Context(), adasCus)
			e, ok := errors.AsType[*failure.Error](err)
			if !ok {
				t.Fatalf("error is %v, want a failure", err)
			}
			if e.Class != test.class || e.Code != test.code || e.Status != test.status {
				t.Errorf("class, code, status = %s, %s, %d; want %s, %s, %d", e.Class, e.Code, e.Status, test.class, test.code, test.status)
			}
			if spent := strings.HasPrefix(test.name, "a replayed") || test.name == "same key, other parameters"; stripeapi.KeySpent(err) != spent {
				t.Errorf("the key is spent: %t, want %t", !spent, spent)
			}
			if got := failure.IsNotFound(err); got != test.missing {
				t.Errorf("IsNotFound = %v, want %v", got, test.missing)
			}
			for _, leak := range []string{"secret", "@", "html", "127.0.0.1", "sk_test", "Invalid"} {
				if text := fmt.Sprintf("%v %#v", err, err); strings.Contains(text, leak) {
					t.Errorf("the failure shows %q: %s", leak, text)
				}
			}
			if e.Status >= 400 && e.RequestID != "req_1" {
				t.Errorf("RequestID = %q", e.RequestID)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	body := stripeError("rate_limit_error", "rate_limit", "slow")
	tests := []struct {
		name, value string
		least, most time.Duration
	}{
		{"seconds", "7", 7 * time.Second, 7 * time.Second},
		{"a part of a second", "0.5", 500 * time.Millisecond, 500 * time.Millisecond},
		{"date", time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat), 30 * time.Second, 90 * time.Second},
		{"a date long past", "Mon, 02 Jan 2006 15:04:05 GMT", 0, 0},
		{"absurdly long", "99999999999999999999", time.Hour, time.Hour},
		{"negative", "-3", 0, 0},
		{"nonsense", "soon", 0, 0},
		{"not a number", "NaN", 0, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, client := serve(t, answer(429, body, "Retry-After", test.value))
			_, err := client.Customer(t.Context(), adasCus)
			if failure.Of(err) != failure.Throttled {
				t.Fatalf("error is %v, want throttled", err)
			}
			if got := failure.RetryAfterOf(err); got < test.least || got > test.most {
				t.Errorf("RetryAfter = %v, want %v to %v", got, test.least, test.most)
			}
		})
	}
}

func TestNoAnswer(t *testing.T) {
	t.Parallel()
	drop := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte(`{"object":"customer","id":"cus_ada1",`))
		panic(http.ErrAbortHandler)
	}
	stall := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

	t.Run("connection dropped in the middle of a body", func(t *testing.T) {
		t.Parallel()
		_, client := serve(t, drop)
		_, err := client.Customer(t.Context(), adasCus)
		check(t, err, "connection_lost")
	})
	t.Run("timeout of ours", func(t *testing.T) {
		t.Parallel()
		_, client := serve(t, stall, func(o *stripeapi.Options) { o.Timeout = 50 * time.Millisecond })
		_, err := client.Customer(t.Context(), adasCus)
		check(t, err, "timeout")
		if errors.Is(err, context.DeadlineExceeded) {
			t.Error("a timeout of one request looks like the end of the caller's own time")
		}
	})
	t.Run("the caller's own deadline", func(t *testing.T) {
		t.Parallel()
		_, client := serve(t, stall)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := client.Customer(ctx, adasCus)
		check(t, err, "context_ended")
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v hides the caller's deadline", err)
		}
	})
	t.Run("cancelled by the caller", func(t *testing.T) {
		t.Parallel()
		_, client := serve(t, stall)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := client.Customer(ctx, adasCus)
		check(t, err, "context_ended")
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v hides the cancellation", err)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		t.Parallel()
		s, client := serve(t, stall)
		s.Close()
		_, err := client.Customer(t.Context(), adasCus)
		check(t, err, "connection_refused")
	})
	t.Run("more than anyone would send", func(t *testing.T) {
		t.Parallel()
		_, client := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			chunk := []byte(strings.Repeat(" ", 1<<20))
			for range 17 {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		})
		_, err := client.Customer(t.Context(), adasCus)
		check(t, err, "too_large")
	})
}

func check(t *testing.T, err error, code string) {
	t.Helper()
	if failure.Of(err) != failure.Transient || failure.CodeOf(err) != code {
		t.Errorf("error is %v, want transient %s", err, code)
	}
}

func TestEachRequestIsMadeOnceAndObserved(t *testing.T) {
	t.Parallel()
	s, client := serve(t, answer(503, ""), func(o *stripeapi.Options) { o.UserAgent = "our-agent" })
	if _, err := client.CancelNow(t.Context(), "sub_1", "key-1"); err == nil {
		t.Fatal("no error")
	}
	requests := s.seen()
	if len(requests) != 1 {
		t.Fatalf("%d requests, want 1: retrying is the caller's business", len(requests))
	}
	r := requests[0]
	if got := r.header.Get("Idempotency-Key"); got != "key-1" {
		t.Errorf("Idempotency-Key = %q", got)
	}
	if got := r.header.Get("X-Stripe-Client-User-Agent"); got != "" {
		t.Errorf("the machine's description is sent: %q", got)
	}
	if got := r.header.Get("User-Agent"); got != "our-agent" {
		t.Errorf("User-Agent = %q", got)
	}
	if got := r.header.Get("Stripe-Version"); got != "2023-10-16" {
		t.Errorf("Stripe-Version = %q", got)
	}
	calls := s.observed()
	if len(calls) != 1 {
		t.Fatalf("%d calls observed, want 1", len(calls))
	}
	c := calls[0]
	if c.Provider != "stripe" || c.Method != "DELETE" || c.Route != "/v1/subscriptions/{id}" || c.Status != 503 || c.Duration <= 0 {
		t.Errorf("observed %+v", c)
	}
}

// TestNothingIsAskedForABadID calls every method that takes an id with ids that would reach
// another address, and every change with keys that cannot be used.
func TestNothingIsAskedForABadID(t *testing.T) {
	t.Parallel()
	s, client := serve(t, answer(200, "{}"))
	ctx := t.Context()
	for _, id := range []string{"", "cus_", "sub_", "cs_", "cus_1/../x", "x?y=1", "user_1"} {
		attempts := map[string]error{}
		_, _, attempts["CustomerSubscriptions"] = client.CustomerSubscriptions(ctx, id)
		_, attempts["Subscription"] = client.Subscription(ctx, id)
		_, attempts["Customer"] = client.Customer(ctx, id)
		_, _, attempts["CreateCustomer"] = client.CreateCustomer(ctx, account.NewCustomer{ClerkUserID: strings.TrimPrefix(id, "user_"), IdempotencyKey: "k"})
		_, attempts["UpdateCustomer"] = client.UpdateCustomer(ctx, id, ptr("a@example.com"), nil, "k")
		attempts["DeleteCustomer"] = client.DeleteCustomer(ctx, id, "k")
		_, attempts["CustomerIsUnused"] = client.CustomerIsUnused(ctx, id)
		_, attempts["SetEnding"] = client.SetEnding(ctx, id, account.Ending{}, account.Ending{AtPeriodEnd: true}, "k")
		attempts["TakeKey"] = client.TakeKey(ctx, id, "k")
		_, attempts["CancelNow"] = client.CancelNow(ctx, id, "k")
		attempts["ReleaseSchedule"] = client.ReleaseSchedule(ctx, id, "k")
		_, attempts["CustomerSchedules"] = client.CustomerSchedules(ctx, id)
		_, attempts["Schedule"] = client.Schedule(ctx, id)
		attempts["EndThroughSchedule"] = client.EndThroughSchedule(ctx, id, time.Now(), "k")
		attempts["ContinueThroughSchedule"] = client.ContinueThroughSchedule(ctx, id, "k")
		attempts["CancelSchedule"] = client.CancelSchedule(ctx, id, "k")
		_, attempts["OpenCheckoutSessions"] = client.OpenCheckoutSessions(ctx, id)
		attempts["ExpireCheckoutSession"] = client.ExpireCheckoutSession(ctx, id, "k")
		_, attempts["CheckoutSessionsSince"] = client.CheckoutSessionsSince(ctx, id, time.Now())
		_, attempts["CheckoutSession"] = client.CheckoutSession(ctx, id)
		_, _, attempts["OpenPortal"] = client.OpenPortal(ctx, id, "https://app.example.com", "k")
		_, _, attempts["OpenCheckout"] = client.OpenCheckout(ctx, account.NewCheckout{ClerkUserID: ada, CustomerID: id, PriceID: "price_1", IdempotencyKey: "k"})
		_, attempts["OpenInvoices"] = client.OpenInvoices(ctx, id)
		_, attempts["PendingCharges"] = client.PendingCharges(ctx, id)
		attempts["StopCollecting"] = client.StopCollecting(ctx, id, "k")
		_, attempts["Collecting"] = client.Collecting(ctx, id)
		attempts["DeleteInvoiceItem"] = client.DeleteInvoiceItem(ctx, id)
		attempts["EndWithPresentPhase"] = client.EndWithPresentPhase(ctx, id, time.Now(), "k")
		_, attempts["ChargeCustomer"] = client.ChargeCustomer(ctx, id)
		if id == "" || strings.ContainsAny(id, "/?") {
			_, attempts["Product"] = client.Product(ctx, id)
			_, attempts["ProductPrices"] = client.ProductPrices(ctx, id)
			_, attempts["Price"] = client.Price(ctx, id)
		}
		if !failure.IsNotFound(attempts["Subscription"]) {
			t.Errorf("a subscription %q is answered %v: Stripe does not have it", id, attempts["Subscription"])
		}
		delete(attempts, "Subscription")
		for method, err := range attempts {
			if failure.Of(err) != failure.Permanent || failure.CodeOf(err) != "bad_id" {
				t.Errorf("%s(%q): error is %v, want permanent bad_id", method, id, err)
			}
		}
	}
	for _, key := range []string{"", strings.Repeat("k", 256)} {
		attempts := map[string]error{}
		_, _, attempts["CreateCustomer"] = client.CreateCustomer(ctx, account.NewCustomer{ClerkUserID: ada, IdempotencyKey: key})
		_, attempts["UpdateCustomer"] = client.UpdateCustomer(ctx, adasCus, ptr("a@example.com"), nil, key)
		attempts["DeleteCustomer"] = client.DeleteCustomer(ctx, adasCus, key)
		_, attempts["SetEnding"] = client.SetEnding(ctx, "sub_1", account.Ending{AtPeriodEnd: true}, account.Ending{}, key)
		_, attempts["CancelNow"] = client.CancelNow(ctx, "sub_1", key)
		attempts["TakeKey"] = client.TakeKey(ctx, "sub_1", key)
		attempts["ReleaseSchedule"] = client.ReleaseSchedule(ctx, "sub_sched_1", key)
		attempts["EndThroughSchedule"] = client.EndThroughSchedule(ctx, "sub_sched_1", time.Now(), key)
		attempts["EndWithPresentPhase"] = client.EndWithPresentPhase(ctx, "sub_sched_1", time.Now(), key)
		attempts["StopCollecting"] = client.StopCollecting(ctx, "in_1", key)
		attempts["ContinueThroughSchedule"] = client.ContinueThroughSchedule(ctx, "sub_sched_1", key)
		attempts["CancelSchedule"] = client.CancelSchedule(ctx, "sub_sched_1", key)
		attempts["ExpireCheckoutSession"] = client.ExpireCheckoutSession(ctx, "cs_test_1", key)
		_, _, attempts["OpenPortal"] = client.OpenPortal(ctx, adasCus, "https://app.example.com", key)
		_, _, attempts["OpenCheckout"] = client.OpenCheckout(ctx, account.NewCheckout{ClerkUserID: ada, CustomerID: adasCus, PriceID: "price_1", IdempotencyKey: key})
		for method, err := range attempts {
			if failure.CodeOf(err) != "bad_idempotency_key" {
				t.Errorf("%s with key of %d bytes: error is %v, want bad_idempotency_key", method, len(key), err)
			}
		}
	}
	if asked := s.seen(); len(asked) != 0 {
		t.Errorf("Stripe was asked %d times, first %s %s", len(asked), asked[0].method, asked[0].path)
	}
}
