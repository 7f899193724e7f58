package stripesim_test

import (
	"strings"
	"testing"

	"github.com/stripe/stripe-go/v76"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

func TestMoneyIsListed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	price := w.price(1500, "month")
	r, other := w.checkout(stripesim.CheckoutSpec{PriceID: price}), w.checkout(stripesim.CheckoutSpec{PriceID: price})
	w.ok(w.sim.Refund(r.ChargeID, 100))
	dispute, err := w.sim.Dispute(r.ChargeID)
	w.ok(err)
	for path, want := range map[string]string{
		"/v1/invoices?customer=" + r.CustomerID:                                     r.InvoiceID,
		"/v1/invoices?status=paid&subscription=" + other.SubscriptionID:             other.InvoiceID,
		"/v1/payment_intents?customer=" + r.CustomerID:                              r.PaymentIntentID,
		"/v1/charges?customer=" + other.CustomerID:                                  other.ChargeID,
		"/v1/charges?payment_intent=" + r.PaymentIntentID:                           r.ChargeID,
		"/v1/disputes?charge=" + r.ChargeID:                                         dispute,
		"/v1/checkout/sessions?subscription=" + r.SubscriptionID:                    r.SessionID,
		"/v1/customers/" + other.CustomerID + "/payment_methods?type=card":          "",
		"/v1/refunds?payment_intent=" + r.PaymentIntentID + "&expand[]=data.charge": "",
	} {
		data := w.read("2023-10-16", "GET", path, "")["data"].([]any)
		if len(data) != 1 {
			t.Errorf("%s: %d objects, want one", path, len(data))
		} else if id := data[0].(jsonObject)["id"].(string); want != "" && id != want {
			t.Errorf("%s: got %s, want %s", path, id, want)
		}
	}
	equal(t, "no open invoice", len(w.read("2023-10-16", "GET", "/v1/invoices?status=open", "")["data"].([]any)), 0)
	re := w.read("2023-10-16", "GET", "/v1/refunds?charge="+r.ChargeID, "")["data"].([]any)[0].(jsonObject)["id"].(string)
	equal(t, "refund by id", w.read("2023-10-16", "GET", "/v1/refunds/"+re, "")["amount"].(float64), 100)
}

func TestAnOpenInvoiceIsVoided(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus := w.payer("a@example.com")
	w.ok(w.sim.SetPayments(cus, false))
	sub, err := w.api.Subscriptions.New(&stripe.SubscriptionParams{Customer: &cus,
		Items: []*stripe.SubscriptionItemsParams{{Price: stripe.String(w.price(700, "month"))}}})
	w.ok(err)
	inv, err := w.api.Invoices.VoidInvoice(sub.LatestInvoice.ID, &stripe.InvoiceVoidInvoiceParams{})
	w.ok(err)
	equal(t, "status", inv.Status, stripe.InvoiceStatusVoid)
	_, err = w.api.Invoices.VoidInvoice(inv.ID, &stripe.InvoiceVoidInvoiceParams{})
	equal(t, "twice", stripeError(t, err).HTTPStatusCode, 400)
	_, err = w.api.Invoices.Pay(inv.ID, &stripe.InvoicePayParams{})
	equal(t, "paid afterwards", stripeError(t, err).HTTPStatusCode, 400)
}

func TestCheckoutRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	monthly, once := w.price(700, "month"), w.price(700, "")
	archived := w.price(1, "month")
	w.ok(w.sim.ArchivePrice(archived))
	gone := w.sim.AddCustomer(stripesim.CustomerSpec{})
	w.ok(w.sim.DeleteCustomer(gone))
	const ok = "&success_url=https://example.com/ok"
	for form, want := range map[string]string{
		"line_items[0][price]=" + monthly + ok:                                            "mode",
		"mode=subscription&line_items[0][price]=" + monthly:                               "success_url",
		"mode=subscription" + ok:                                                          "line_items",
		"mode=subscription&line_items[0][price]=" + once + ok:                             "recurring price",
		"mode=payment&line_items[0][price]=" + monthly + ok:                               "recurring price",
		"mode=subscription&line_items[0][price]=" + archived + ok:                         "inactive",
		"mode=subscription&line_items[0][price]=price_none" + ok:                          "No such price",
		"mode=subscription&line_items[0][price]=" + monthly + "&customer=" + gone + ok:    "No such customer",
		"mode=payment&subscription_data[metadata][a]=b&line_items[0][price]=" + once + ok: "subscription_data",
		"mode=subscription&line_items[0][price]=" + monthly + "&expires_at=1" + ok:        "expires_at",
		"mode=subscription&line_items[0][prize]=" + monthly + ok:                          "line_items[0][prize]",
		"mode=payment&customer=c&customer_email=e@x.y&line_items[0][price]=" + once + ok:  "only specify one",
	} {
		status, _, body := w.send("POST", "/v1/checkout/sessions", form, nil)
		if status != 400 || !strings.Contains(body, want) {
			t.Errorf("%s: %d, no %q in %s", form, status, want, body)
		}
	}
	equal(t, "none was made", w.sim.Counts()["checkout.session"], 0)
	if _, err := w.sim.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{PriceID: monthly, NoCard: true}); err == nil {
		t.Error("something was bought without a card")
	}
	free := w.checkout(stripesim.CheckoutSpec{PriceID: monthly, NoCard: true, TrialDays: 7})
	equal(t, "a trial needs none", w.subscription(free.SubscriptionID).Status, stripe.SubscriptionStatusTrialing)
}

func TestSetupCheckout(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus := w.sim.AddCustomer(stripesim.CustomerSpec{Email: "a@example.com"})
	sess, err := w.api.CheckoutSessions.New(&stripe.CheckoutSessionParams{Mode: stripe.String("setup"), Customer: &cus,
		SuccessURL: stripe.String("https://example.com/ok")})
	w.ok(err)
	w.types()
	w.checkout(stripesim.CheckoutSpec{SessionID: sess.ID})
	inOrder(t, w.types(), "payment_method.attached", "checkout.session.completed")
	equal(t, "no subscription", w.sim.Counts()["subscription"], 0)
}

func TestScheduleIsUpdated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	small, large := w.price(1000, "month"), w.price(3000, "month")
	sched, err := w.api.SubscriptionSchedules.New(&stripe.SubscriptionScheduleParams{Customer: stripe.String(w.payer("a@example.com")),
		StartDateNow: stripe.Bool(true), Phases: phases(small)})
	w.ok(err)
	p := &stripe.SubscriptionScheduleParams{EndBehavior: stripe.String("cancel"), Phases: phases(small, large)}
	p.AddMetadata("a", "b")
	sched, err = w.api.SubscriptionSchedules.Update(sched.ID, p)
	w.ok(err)
	equal(t, "phases", len(sched.Phases), 2)
	equal(t, "metadata", sched.Metadata["a"], "b")
	inOrder(t, w.types(), "subscription_schedule.updated")
	w.advance(32 * day)
	equal(t, "second phase", w.subscription(sched.Subscription.ID).Items.Data[0].Price.ID, large)
}

func TestAPriceCanBringItsProduct(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, err := w.api.Prices.New(&stripe.PriceParams{Currency: stripe.String("usd"), UnitAmount: stripe.Int64(100),
		ProductData: &stripe.PriceProductDataParams{Name: stripe.String("Seat")}, Recurring: &stripe.PriceRecurringParams{Interval: stripe.String("month"), IntervalCount: stripe.Int64(6)}})
	w.ok(err)
	product, err := w.api.Products.Get(p.Product.ID, nil)
	w.ok(err)
	equal(t, "product", product.Name, "Seat")
	_, err = w.api.Prices.New(&stripe.PriceParams{Currency: stripe.String("usd"), UnitAmount: stripe.Int64(100), Product: stripe.String("prod_none")})
	equal(t, "of no product", stripeError(t, err).Code, stripe.ErrorCodeResourceMissing)
	_, err = w.api.Prices.New(&stripe.PriceParams{Product: &product.ID, UnitAmount: stripe.Int64(100)})
	equal(t, "without a currency", stripeError(t, err).Param, "currency")
}
