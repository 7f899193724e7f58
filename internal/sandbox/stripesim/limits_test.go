package stripesim_test

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

// made answers the id of what a request has made.
func (w *world) made(path, form string) string {
	w.t.Helper()
	status, _, body := w.send("POST", path, form, nil)
	var object struct{ ID string }
	if status != 200 || json.Unmarshal([]byte(body), &object) != nil {
		w.t.Fatalf("%s %s: %d %s", path, form, status, body)
	}
	return object.ID
}

// What Stripe refuses of texts, addresses, quantities and currencies is refused; what it just takes
// is taken.
func TestLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	product := w.sim.AddProduct("Pro")
	licensed := w.sim.AddPrice(product, 700, "month")
	metered := w.made("/v1/prices", "product="+product+"&currency=usd&unit_amount=3&recurring[interval]=month&recurring[usage_type]=metered")
	euros := w.made("/v1/prices", "product="+product+"&currency=eur&unit_amount=300&recurring[interval]=month")
	payer := w.payer("ada@example.com")
	w.checkout(stripesim.CheckoutSpec{CustomerID: payer, PriceID: licensed})
	free := w.payer("bo@example.com")
	session := func(price, more string) string {
		return "mode=subscription&success_url=https://example.com/ok&line_items[0][price]=" + price + more
	}
	const one = "&line_items[0][quantity]=1"
	for _, c := range []struct{ path, form, refusal string }{
		{"/v1/customers", "name=" + strings.Repeat("a", 256), ""},
		{"/v1/customers", "name=" + url.QueryEscape(strings.Repeat("ä", 256)), ""},
		{"/v1/customers", "name=" + strings.Repeat("a", 257), "at most 256 characters"},
		{"/v1/customers/" + free, "name=" + strings.Repeat("a", 257), "at most 256 characters"},
		{"/v1/customers", "email=" + strings.Repeat("a", 500) + "@example.com", ""},
		{"/v1/customers", "email=" + strings.Repeat("a", 501) + "@example.com", "at most 512 characters"},
		{"/v1/customers", "email=ada@localhost", "Invalid email address"},
		{"/v1/customers", "email=@example.com", "Invalid email address"},
		{"/v1/customers", "metadata[" + strings.Repeat("k", 41) + "]=v", "at most 40 characters"},
		{"/v1/customers", "metadata[k]=" + strings.Repeat("v", 501), "at most 500 characters"},
		{"/v1/checkout/sessions", session(licensed, one), ""},
		{"/v1/checkout/sessions", session(licensed, ""), "Quantity is required"},
		{"/v1/checkout/sessions", session(licensed, "&line_items[0][quantity]=0"), "greater than or equal to 1"},
		{"/v1/checkout/sessions", session(metered, ""), ""},
		{"/v1/checkout/sessions", session(metered, one), "Quantity should not be specified where usage_type is `metered`"},
		{"/v1/checkout/sessions", session(licensed, one+"&customer="+payer), ""},
		{"/v1/checkout/sessions", session(euros, one+"&customer="+free), ""},
		{"/v1/checkout/sessions", session(euros, one+"&customer="+payer), "You cannot combine currencies on a single customer"},
		{"/v1/checkout/sessions", session(licensed, one+"&client_reference_id="+strings.Repeat("r", 201)), "at most 200 characters"},
		{"/v1/checkout/sessions", session(licensed, one+"&cancel_url=javascript:alert(1)"), "Not a valid URL"},
		{"/v1/checkout/sessions", "mode=subscription&success_url=/ok&line_items[0][price]=" + licensed + one, "Not a valid URL"},
		{"/v1/subscriptions", "customer=" + payer + "&items[0][price]=" + euros, "You cannot combine currencies on a single customer"},
		{"/v1/subscriptions", "customer=" + free + "&items[0][price]=" + metered + "&items[0][quantity]=2", "Quantity should not be specified"},
		{"/v1/subscriptions", "customer=" + free + "&items[0][price]=" + metered, ""},
		{"/v1/billing_portal/sessions", "customer=" + free + "&return_url=nowhere", "Not a valid URL"},
	} {
		status, _, body := w.send("POST", c.path, c.form, nil)
		if (status == 200) != (c.refusal == "") || status != 200 && status != 400 || !strings.Contains(body, c.refusal) {
			t.Errorf("%s %.90s: %d, want %q in %.300s", c.path, c.form, status, c.refusal, body)
		}
	}
}

// Search shows who was deleted for a day more, as they were; nothing else does.
func TestSearchShowsTheDeletedForADay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	gone := w.sim.AddCustomer(stripesim.CustomerSpec{Email: "ada@example.com", Metadata: map[string]string{"clerk_user_id": "user_1"}})
	w.ok(w.sim.DeleteCustomer(gone))
	found := func() bool {
		t.Helper()
		status, _, body := w.send("GET", "/v1/customers/search?query="+url.QueryEscape(`metadata['clerk_user_id']:'user_1'`), "", nil)
		equal(t, "status", status, 200)
		return strings.Contains(body, gone) && strings.Contains(body, "ada@example.com")
	}
	equal(t, "found at once", found(), true)
	w.ok(w.sim.Advance(t.Context(), 25*time.Hour))
	equal(t, "found after a day", found(), false)
}
