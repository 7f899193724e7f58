package sandbox_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
)

// curl does what a person at a terminal would, and returns the answer as JSON.
func curl(t *testing.T, method, url, body string) (status int, answer map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(string(b), "[") {
		b = fmt.Appendf(nil, `{"list":%s}`, b)
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		t.Fatalf("%s %s answers %s", method, url, b)
	}
	return res.StatusCode, answer
}

// must is curl for what has to work; base is either address.
func must(t *testing.T, base, method, path, body string) map[string]any {
	t.Helper()
	status, answer := curl(t, method, base+"/_sandbox/"+path, body)
	if status != http.StatusOK {
		t.Fatalf("%s %s: %d %v", method, path, status, answer)
	}
	return answer
}

// Everything a person can do with curl in the life of one customer: sign up, buy, renew, fail,
// cancel, leave.
func TestALifeByHand(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	s := start(t, a.options())
	base := s.StripeURL()
	userID := must(t, base, "POST", "users", `{"first_name":"Ana","emails":[{"address":"ana@example.com","verified":false}]}`)["id"].(string)
	must(t, base, "POST", "users/"+userID+"/verify", `{"address":"ana@example.com"}`)
	must(t, base, "POST", "users/"+userID+"/emails", `{"address":"ana@work.example","verified":true}`)
	must(t, base, "POST", "users/"+userID+"/primary", `{"address":"ana@work.example"}`)
	must(t, base, "PATCH", "users/"+userID, `{"last_name":"Silva"}`)
	must(t, base, "POST", "users/"+userID+"/wipe-metadata", "")
	if token := must(t, base, "POST", "users/"+userID+"/token", `{"ttl":"1h","azp":"http://localhost"}`)["token"].(string); strings.Count(token, ".") != 2 {
		t.Errorf("token %s", token)
	}

	price := must(t, base, "POST", "plans", `{"name":"Pro","unit_amount":1900,"interval":"month"}`)["price"].(string)
	bought := must(t, base, "POST", "checkouts", fmt.Sprintf(`{"email":"ana@example.com","price":%q,"client_reference_id":%q}`, price, userID))
	customer, sub := bought["customer"].(string), bought["subscription"].(string)
	status := func() string {
		raw, ok := s.Stripe.Subscription(sub)
		if !ok {
			t.Fatalf("subscription %s is gone", sub)
		}
		var read struct{ Status string }
		if err := json.Unmarshal(raw, &read); err != nil {
			t.Fatal(err)
		}
		return read.Status
	}
	steps := []struct{ method, path, body, status string }{
		{"POST", "subscriptions/" + sub + "/cancel", `{"when":"period_end"}`, "active"},
		{"POST", "subscriptions/" + sub + "/reactivate", "", "active"},
		{"POST", "subscriptions/" + sub + "/pause", "", "active"},
		{"POST", "subscriptions/" + sub + "/resume", "", "active"},
		{"PATCH", "subscriptions/" + sub, `{"quantity":2}`, "active"},
		{"POST", "clock", `{"by":"768h"}`, "active"},
		{"PUT", "customers/" + customer + "/payments", `{"outcome":"declined"}`, "active"},
		{"POST", "clock", `{"by":"768h"}`, "past_due"},
		{"PUT", "customers/" + customer + "/payments", `{"outcome":"succeed"}`, "past_due"},
		{"POST", "subscriptions/" + sub + "/pay", "", "active"},
		{"POST", "subscriptions/" + sub + "/cancel", `{"when":"now"}`, "canceled"},
	}
	for _, step := range steps {
		must(t, base, step.method, step.path, step.body)
		if got := status(); got != step.status {
			t.Fatalf("after %s %s the subscription is %s, want %s", step.method, step.path, got, step.status)
		}
	}
	if list := must(t, base, "GET", "customers", "")["list"].([]any); len(list) != 1 {
		t.Errorf("customers %v", list)
	}
	must(t, base, "DELETE", "customers/"+customer, "")
	must(t, base, "DELETE", "users/"+userID, "")
	if list := must(t, base, "GET", "users", "")["list"].([]any); len(list) != 0 {
		t.Errorf("users %v", list)
	}
	idle(t, s)
	for _, want := range []string{"user.created", "user.updated", "user.deleted", "checkout.session.completed", "invoice.payment_failed",
		"customer.subscription.updated", "customer.subscription.deleted", "customer.deleted"} {
		if !slices.Contains(a.types(), want) {
			t.Errorf("no %s among %v", want, a.types())
		}
	}
}

func TestFaultsByHand(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	s := start(t, sandbox.Options{})
	base := strings.TrimSuffix(s.ClerkURL(), "/v1")
	must(t, base, "PUT", "receivers/clerk", `{"url":"`+a.URL+`/clerk"}`)
	must(t, base, "POST", "faults/clerk", `{"path_prefix":"/v1/users","status":503,"html":true,"times":1}`)
	if _, err := clerkUsers(s).Get(t.Context(), "user_x"); err == nil || !strings.Contains(err.Error(), "503 Service Unavailable") {
		t.Errorf("got %v, want a page", err)
	}
	if got := must(t, base, "GET", "requests/clerk", "")["GET /v1/users/{id}"]; got != 1.0 {
		t.Errorf("%v requests", got)
	}
	must(t, base, "POST", "faults/stripe", `{"drop":"after","latency":"1ms"}`)
	must(t, base, "DELETE", "faults/stripe", "")
	if _, err := stripeClient(s).Customers.New(newCustomer(t.Context(), "ana@example.com")); err != nil {
		t.Errorf("after the faults were cleared: %v", err)
	}

	must(t, base, "PUT", "deliveries/clerk", `{"lose":1}`)
	must(t, base, "POST", "users", "")
	must(t, base, "PUT", "deliveries/clerk", `{"double":1,"delay":"1ms"}`)
	must(t, base, "POST", "users", "")
	ctx := t.Context()
	if err := s.ClerkWebhooks.Idle(ctx); err != nil {
		t.Fatal(err)
	}
	var errs []any
	for _, d := range must(t, base, "GET", "deliveries/clerk", "")["list"].([]any) {
		errs = append(errs, d.(map[string]any)["error"])
	}
	if want := []any{delivery.ErrLost.Error(), nil, nil}; !slices.Equal(errs, want) {
		t.Errorf("deliveries ended with %v, want %v", errs, want)
	}
}

func TestControlExplainsItself(t *testing.T) {
	t.Parallel()
	s := start(t, sandbox.Options{StripeFrozen: true})
	for _, base := range []string{strings.TrimSuffix(s.ClerkURL(), "/v1"), s.StripeURL()} {
		help := must(t, base, "GET", "", "")
		if len(help["actions"].([]any)) < 20 || help["clerk"] != s.ClerkURL() {
			t.Errorf("help %v", help)
		}
		for _, a := range help["actions"].([]any) {
			if a.(map[string]any)["about"] == "" {
				t.Errorf("%v explains nothing", a)
			}
		}
	}
	before := s.Stripe.Now()
	must(t, s.StripeURL(), "POST", "clock", `{"by":"48h"}`)
	if moved := s.Stripe.Now().Sub(before); moved != 48*time.Hour {
		t.Errorf("the clock moved by %v", moved)
	}
}

func TestControlRefusesNonsense(t *testing.T) {
	t.Parallel()
	s := start(t, sandbox.Options{})
	for _, tc := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "users", `{"nickname":"x"}`, 400},
		{"POST", "users", `{`, 400},
		{"DELETE", "users/user_none", "", 404},
		{"POST", "users/user_none/token", "", 404},
		{"POST", "faults/paypal", `{"status":500}`, 404},
		{"POST", "faults/clerk", `{"drop":"sideways"}`, 400},
		{"POST", "faults/clerk", `{"status":99}`, 400},
		{"POST", "faults/clerk", `{"latency":"soon"}`, 400},
		{"POST", "plans", `{"name":"Pro","unit_amount":100,"interval":"eon"}`, 400},
		{"POST", "checkouts", `{"price":"price_none","email":"a@example.com"}`, 400},
		{"POST", "subscriptions/sub_none/cancel", "", 400},
		{"POST", "subscriptions/sub_none/cancel", `{"when":"someday"}`, 400},
		{"PUT", "customers/cus_none/payments", `{"outcome":"maybe"}`, 400},
		{"POST", "clock", `{"by":"-1h"}`, 400},
	} {
		if status, answer := curl(t, tc.method, s.StripeURL()+"/_sandbox/"+tc.path, tc.body); status != tc.status || answer["error"] == "" {
			t.Errorf("%s %s %s: %d %v, want %d", tc.method, tc.path, tc.body, status, answer, tc.status)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.StripeURL()+"/_sandbox/users", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusUnsupportedMediaType || len(s.Clerk.Users()) != 0 {
		t.Errorf("a form is taken: %d", res.StatusCode)
	}
}
