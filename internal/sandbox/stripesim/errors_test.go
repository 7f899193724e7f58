package stripesim_test

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stripe/stripe-go/v76"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

func stripeError(t *testing.T, err error) *stripe.Error {
	t.Helper()
	var se *stripe.Error
	if !errors.As(err, &se) {
		t.Fatalf("not an error in Stripe's form: %v", err)
	}
	return se
}

// send makes one raw request, for what the client does not let through.
func (w *world) send(method, path, form string, header map[string]string) (int, http.Header, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, strings.NewReader(form))
	w.ok(err)
	req.Header.Set("Authorization", "Bearer "+testKey)
	req.Header.Set("Stripe-Version", "2023-10-16")
	for k, v := range header {
		req.Header.Set(k, v)
	}
	res, err := http.DefaultClient.Do(req)
	w.ok(err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	w.ok(err)
	return res.StatusCode, res.Header, string(body)
}

func TestErrorsInStripesForm(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus := w.sim.AddCustomer(stripesim.CustomerSpec{})
	price := w.price(500, "month")
	r := w.checkout(stripesim.CheckoutSpec{PriceID: price})
	w.ok(w.sim.CancelNow(r.SubscriptionID))
	form := func(pairs ...string) string {
		v := url.Values{}
		for i := 0; i < len(pairs); i += 2 {
			v.Add(pairs[i], pairs[i+1])
		}
		return v.Encode()
	}
	for name, c := range map[string]struct {
		method, path, form string
		status             int
		has                []string
	}{
		"unknown route":          {"GET", "/v1/nothing", "", 404, []string{"Unrecognized request URL", "invalid_request_error"}},
		"wrong method":           {"PUT", "/v1/customers", "", 404, []string{"Unrecognized request URL"}},
		"unknown id":             {"GET", "/v1/customers/cus_none", "", 404, []string{"resource_missing", "No such customer: 'cus_none'"}},
		"unknown parameter":      {"POST", "/v1/customers", "shoe=43", 400, []string{"parameter_unknown", "Received unknown parameter: shoe", "request_log_url", "doc_url"}},
		"unknown nested":         {"POST", "/v1/subscriptions", form("customer", cus, "items[0][shoe]", "1"), 400, []string{"items[0][shoe]"}},
		"missing parameter":      {"POST", "/v1/subscriptions", "customer=" + cus, 400, []string{"parameter_missing", `"param":"items"`}},
		"bad integer":            {"GET", "/v1/customers?limit=many", "", 400, []string{"parameter_invalid_integer"}},
		"limit over 100":         {"GET", "/v1/customers?limit=101", "", 400, []string{"less than or equal to 100"}},
		"limit under 1":          {"GET", "/v1/customers?limit=0", "", 400, []string{"greater than or equal to 1"}},
		"bad boolean":            {"POST", "/v1/subscriptions/" + w.checkout(stripesim.CheckoutSpec{PriceID: price}).SubscriptionID, "cancel_at_period_end=maybe", 400, []string{"parameter_invalid_boolean"}},
		"both cursors":           {"GET", "/v1/customers?starting_after=" + cus + "&ending_before=" + cus, "", 400, []string{"only specify one"}},
		"bad email":              {"POST", "/v1/customers", "email=nobody", 400, []string{"email_invalid"}},
		"reference to nothing":   {"POST", "/v1/subscriptions", form("customer", "cus_none", "items[0][price]", price), 400, []string{"resource_missing", `"param":"customer"`}},
		"no card":                {"POST", "/v1/subscriptions", form("customer", cus, "items[0][price]", price), 400, []string{"no attached payment source"}},
		"update of a canceled":   {"POST", "/v1/subscriptions/" + r.SubscriptionID, "cancel_at_period_end=true", 400, []string{"A canceled subscription can only update"}},
		"cancel of a canceled":   {"DELETE", "/v1/subscriptions/" + r.SubscriptionID, "", 404, []string{"resource_missing"}},
		"paid twice":             {"POST", "/v1/invoices/" + r.InvoiceID + "/pay", "", 400, []string{"already paid"}},
		"expand of nothing":      {"GET", "/v1/customers/" + cus + "?expand[]=shoe", "", 400, []string{"This property cannot be expanded (shoe)"}},
		"expand too deep":        {"GET", "/v1/customers/" + cus + "?expand[]=a.b.c.d.e", "", 400, []string{"more than 4 levels"}},
		"unknown version header": {"GET", "/v1/customers/" + cus, "", 400, []string{"Invalid Stripe API version"}},
		"unknown status filter":  {"GET", "/v1/subscriptions?status=sleeping", "", 400, []string{"Invalid status"}},
		"metadata key too long":  {"POST", "/v1/customers", form("metadata["+strings.Repeat("k", 41)+"]", "v"), 400, []string{"at most 40"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			header := map[string]string{}
			if name == "unknown version header" {
				header["Stripe-Version"] = "1999-01-01"
			}
			status, h, body := w.send(c.method, c.path, c.form, header)
			equal(t, "status", status, c.status)
			equal(t, "request id", strings.HasPrefix(h.Get("Request-Id"), "req_"), true)
			for _, part := range c.has {
				if !strings.Contains(body, part) {
					t.Errorf("no %q in %s", part, body)
				}
			}
		})
	}
}

func TestKeysAreChecked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := apiClient(w.url, "sk_test_other_0123456789").Customers.Get("cus_1", nil)
	se := stripeError(t, err)
	equal(t, "wrong key", se.HTTPStatusCode, 401)
	equal(t, "the key is not repeated", strings.Contains(se.Msg, "other_01234"), false)
	status, _, _ := w.send("GET", "/v1/account", "", map[string]string{"Authorization": ""})
	equal(t, "no key", status, 401)
	acct, err := w.api.Accounts.Get()
	w.ok(err)
	equal(t, "account", acct.ID, w.sim.AccountID())

	w.sim.SetKey("sk_test_rolled_0123456789")
	_, err = w.api.Accounts.Get()
	equal(t, "old key after rolling", stripeError(t, err).HTTPStatusCode, 401)
	_, err = apiClient(w.url, "sk_test_rolled_0123456789").Accounts.Get()
	w.ok(err)
}

func TestAnEmptyIDListsAsWithStripe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	status, _, body := w.send("GET", "/v1/customers/", "", nil)
	equal(t, "status", status, 200)
	equal(t, "a list", strings.Contains(body, `"object":"list"`), true)
}

func TestScheduleManagedSubscriptionRefusesToBeCanceled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.checkout(stripesim.CheckoutSpec{PriceID: w.price(500, "month")})
	_, err := w.api.SubscriptionSchedules.New(&stripe.SubscriptionScheduleParams{FromSubscription: &r.SubscriptionID})
	w.ok(err)
	for _, p := range []*stripe.SubscriptionParams{{CancelAtPeriodEnd: stripe.Bool(true)}, {CancelAt: stripe.Int64(start().Unix() + 9999)}} {
		_, err = w.api.Subscriptions.Update(r.SubscriptionID, p)
		se := stripeError(t, err)
		equal(t, "status", se.HTTPStatusCode, 400)
		equal(t, "message", strings.Contains(se.Msg, "managed by the subscription schedule"), true)
	}
}
