package stripesim_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

func contextCanceled(t *testing.T) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx, cancel
}

func TestTheBurstOfOneCheckout(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	price := w.price(1500, "month")
	w.types()
	r := w.checkout(stripesim.CheckoutSpec{PriceID: price, Email: "ada@example.com", ClientReferenceID: "user_1",
		Metadata: map[string]string{"a": "1"}, SubscriptionMetadata: map[string]string{"clerk_user_id": "user_1"}})
	created := w.last("customer.subscription.created")["data"].(map[string]any)["object"].(map[string]any)
	equal(t, "at first", created["status"].(string), "incomplete")
	done := w.last("checkout.session.completed")["data"].(map[string]any)["object"].(map[string]any)
	equal(t, "reference", done["client_reference_id"].(string), "user_1")
	equal(t, "subscription", done["subscription"].(string), r.SubscriptionID)
	types := w.types()
	inOrder(t, types, "customer.created", "payment_method.attached", "customer.updated", "customer.subscription.created", "invoice.created",
		"invoice.finalized", "payment_intent.created", "charge.succeeded", "payment_intent.succeeded", "invoice.updated", "invoice.paid",
		"invoice.payment_succeeded", "customer.subscription.updated", "checkout.session.completed")
	if len(types) < 12 {
		t.Errorf("only %d events: %q", len(types), types)
	}

	sub := w.subscription(r.SubscriptionID)
	equal(t, "status", sub.Status, stripe.SubscriptionStatusActive)
	equal(t, "metadata", sub.Metadata["clerk_user_id"], "user_1")
	sess, err := w.api.CheckoutSessions.Get(r.SessionID, nil)
	w.ok(err)
	equal(t, "session", sess.Status, stripe.CheckoutSessionStatusComplete)
	equal(t, "paid", sess.PaymentStatus, stripe.CheckoutSessionPaymentStatusPaid)
	equal(t, "charge", r.ChargeID != "", true)
}

func TestACheckoutThatIsBilledOnAGivenDay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	price := w.price(1500, "month")
	anchor := start().Add(time.Minute)
	r := w.checkout(stripesim.CheckoutSpec{PriceID: price, Email: "ada@example.com", BillingAnchor: anchor})
	equal(t, "first period", w.subscription(r.SubscriptionID).CurrentPeriodEnd, anchor.Unix())
	w.types()
	w.ok(w.sim.Advance(t.Context(), time.Minute))
	sub := w.subscription(r.SubscriptionID)
	equal(t, "second period", sub.CurrentPeriodStart, anchor.Unix())
	equal(t, "a month", sub.CurrentPeriodEnd, anchor.AddDate(0, 1, 0).Unix())
	w.ok(w.sim.Advance(t.Context(), time.Hour))
	inOrder(t, w.types(), "customer.subscription.updated", "invoice.created", "invoice.finalized", "invoice.paid")

	past := start().Unix()
	if _, err := w.api.CheckoutSessions.New(&stripe.CheckoutSessionParams{Mode: stripe.String("subscription"), SuccessURL: stripe.String("https://example.com/ok"),
		LineItems:        []*stripe.CheckoutSessionLineItemParams{{Price: &price, Quantity: stripe.Int64(1)}},
		SubscriptionData: &stripe.CheckoutSessionSubscriptionDataParams{BillingCycleAnchor: &past}}); err == nil {
		t.Error("a day in the past was taken")
	}
}

func TestCheckoutThroughTheAPI(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus := w.sim.AddCustomer(stripesim.CustomerSpec{Email: "a@example.com"})
	price := w.price(1500, "month")
	params := func() *stripe.CheckoutSessionParams {
		return &stripe.CheckoutSessionParams{Mode: stripe.String("subscription"), Customer: &cus, ClientReferenceID: stripe.String("user_1"),
			SuccessURL: stripe.String("https://example.com/ok"), LineItems: []*stripe.CheckoutSessionLineItemParams{{Price: &price, Quantity: stripe.Int64(2)}},
			SubscriptionData: &stripe.CheckoutSessionSubscriptionDataParams{Metadata: map[string]string{"clerk_user_id": "user_1"}, TrialPeriodDays: stripe.Int64(7)}}
	}
	sess, err := w.api.CheckoutSessions.New(params())
	w.ok(err)
	equal(t, "open", sess.Status, stripe.CheckoutSessionStatusOpen)
	equal(t, "has an address", sess.URL != "", true)
	r := w.checkout(stripesim.CheckoutSpec{SessionID: sess.ID})
	sub := w.subscription(r.SubscriptionID)
	equal(t, "customer", sub.Customer.ID, cus)
	equal(t, "status", sub.Status, stripe.SubscriptionStatusTrialing)
	equal(t, "quantity", sub.Items.Data[0].Quantity, int64(2))
	if _, err := w.sim.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{SessionID: sess.ID}); err == nil {
		t.Error("a session was completed twice")
	}

	second, err := w.api.CheckoutSessions.New(params())
	w.ok(err)
	open := w.api.CheckoutSessions.List(&stripe.CheckoutSessionListParams{Customer: &cus, Status: stripe.String("open")})
	equal(t, "one is open", open.Next(), true)
	equal(t, "which", open.CheckoutSession().ID, second.ID)
	equal(t, "no other", open.Next(), false)
	expired, err := w.api.CheckoutSessions.Expire(second.ID, &stripe.CheckoutSessionExpireParams{})
	w.ok(err)
	equal(t, "expired", expired.Status, stripe.CheckoutSessionStatusExpired)
	_, err = w.api.CheckoutSessions.Expire(second.ID, &stripe.CheckoutSessionExpireParams{})
	equal(t, "expire twice", stripeError(t, err).HTTPStatusCode, 400)

	third, err := w.api.CheckoutSessions.New(params())
	w.ok(err)
	w.types()
	w.advance(24 * time.Hour)
	equal(t, "expires by itself", count(w.types(), "checkout.session.expired"), 1)
	if _, err := w.sim.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{SessionID: third.ID}); err == nil {
		t.Error("an expired session was completed")
	}
}

func TestADeclinedCheckoutChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, price := w.payer("a@example.com"), w.price(1500, "month")
	w.ok(w.sim.SetPayments(cus, false))
	w.types()
	before := w.sim.Counts()
	if _, err := w.sim.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{CustomerID: cus, PriceID: price}); err == nil {
		t.Fatal("a declined card paid")
	}
	equal(t, "events", len(w.types()), 0)
	equal(t, "sessions", w.sim.Counts()["checkout.session"], before["checkout.session"])
}

func TestDelayedPayments(t *testing.T) {
	t.Parallel()
	for _, ok := range []bool{true, false} {
		w := newWorld(t)
		r := w.checkout(stripesim.CheckoutSpec{PriceID: w.price(1500, "month"), Delayed: true})
		sess, err := w.api.CheckoutSessions.Get(r.SessionID, nil)
		w.ok(err)
		equal(t, "unpaid", sess.PaymentStatus, stripe.CheckoutSessionPaymentStatusUnpaid)
		equal(t, "runs meanwhile", w.subscription(r.SubscriptionID).Status, stripe.SubscriptionStatusActive)
		w.types()
		w.ok(w.sim.SettleCheckout(r.SessionID, ok))
		if ok {
			inOrder(t, w.types(), "payment_intent.succeeded", "invoice.paid", "checkout.session.async_payment_succeeded")
			equal(t, "then", w.subscription(r.SubscriptionID).Status, stripe.SubscriptionStatusActive)
			continue
		}
		inOrder(t, w.types(), "payment_intent.payment_failed", "invoice.payment_failed", "checkout.session.async_payment_failed")
		equal(t, "then", w.subscription(r.SubscriptionID).Status, stripe.SubscriptionStatusPastDue)
	}
}

// A bank sends a refund back: the refund has failed, and the charge is refunded that much less.
func TestARefundFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.checkout(stripesim.CheckoutSpec{PriceID: w.price(5000, ""), Email: "a@example.com"})
	w.ok(w.sim.Refund(r.ChargeID, 2000))
	w.ok(w.sim.FailRefund(r.ChargeID))
	for _, typ := range []string{"charge.refund.updated", "refund.updated", "refund.failed"} {
		refund := w.last(typ)["data"].(map[string]any)["object"].(map[string]any)
		equal(t, typ, refund["status"].(string)+" "+refund["failure_reason"].(string), "failed expired_or_canceled_card")
	}
	ch, err := w.api.Charges.Get(r.ChargeID, nil)
	w.ok(err)
	equal(t, "refunded", ch.AmountRefunded, int64(0))
	if w.sim.FailRefund(r.ChargeID) == nil {
		t.Error("a refund failed twice")
	}
}

func TestOneTimePaymentAndItsRefundsAndDispute(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.checkout(stripesim.CheckoutSpec{PriceID: w.price(5000, ""), Email: "a@example.com"})
	equal(t, "no subscription", r.SubscriptionID, "")
	w.types()
	w.ok(w.sim.Refund(r.ChargeID, 2000))
	prev := w.last("charge.refunded")["data"].(map[string]any)["previous_attributes"].(map[string]any)
	equal(t, "previous amount", prev["amount_refunded"].(float64), 0)
	_, err := w.api.Refunds.New(&stripe.RefundParams{PaymentIntent: &r.PaymentIntentID})
	w.ok(err)
	ch, err := w.api.Charges.Get(r.ChargeID, nil)
	w.ok(err)
	equal(t, "refunded", ch.Refunded && ch.AmountRefunded == 5000, true)
	_, err = w.api.Refunds.New(&stripe.RefundParams{Charge: &r.ChargeID})
	equal(t, "nothing left", stripeError(t, err).Code, stripe.ErrorCodeChargeAlreadyRefunded)

	other := w.checkout(stripesim.CheckoutSpec{PriceID: w.price(5000, "")})
	id, err := w.sim.Dispute(other.ChargeID)
	w.ok(err)
	d, err := w.api.Disputes.Get(id, nil)
	w.ok(err)
	equal(t, "dispute", d.Status, stripe.DisputeStatusNeedsResponse)
	w.ok(w.sim.CloseDispute(id, true))
	inOrder(t, w.types(), "charge.dispute.created", "charge.dispute.updated", "charge.dispute.funds_reinstated", "charge.dispute.closed")
	if err := w.sim.CloseDispute(id, false); err == nil {
		t.Error("a dispute was closed twice")
	}
}

func TestPortalSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s, err := w.api.BillingPortalSessions.New(&stripe.BillingPortalSessionParams{Customer: stripe.String(w.sim.AddCustomer(stripesim.CustomerSpec{})),
		ReturnURL: stripe.String("https://example.com/account")})
	w.ok(err)
	equal(t, "has an address", s.URL != "", true)
}

func TestExpansion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.checkout(stripesim.CheckoutSpec{PriceID: w.price(1500, "month"), Email: "a@example.com"})
	p := &stripe.SubscriptionParams{}
	for _, e := range []string{"customer", "latest_invoice.payment_intent.latest_charge", "items.data.price.product", "schedule"} {
		p.AddExpand(e)
	}
	sub, err := w.api.Subscriptions.Get(r.SubscriptionID, p)
	w.ok(err)
	equal(t, "customer", sub.Customer.Email, "a@example.com")
	equal(t, "charge of the intent of the invoice", sub.LatestInvoice.PaymentIntent.LatestCharge.Amount, int64(1500))
	equal(t, "product of the price of the item", sub.Items.Data[0].Price.Product.Name, "Pro")

	lp := &stripe.SubscriptionListParams{Customer: &r.CustomerID}
	lp.AddExpand("data.latest_invoice")
	it := w.api.Subscriptions.List(lp)
	equal(t, "one", it.Next(), true)
	equal(t, "created of the latest invoice", it.Subscription().LatestInvoice.Created, start().Unix())

	cp := &stripe.CustomerParams{}
	cp.AddExpand("subscriptions")
	cus, err := w.api.Customers.Get(r.CustomerID, cp)
	w.ok(err)
	equal(t, "subscriptions of a customer", len(cus.Subscriptions.Data), 1)
	sp := &stripe.CheckoutSessionParams{}
	sp.AddExpand("line_items")
	sess, err := w.api.CheckoutSessions.Get(r.SessionID, sp)
	w.ok(err)
	equal(t, "line items", sess.LineItems.Data[0].AmountTotal, int64(1500))
}

func TestSnapshotsReadAsTheOlderVersionWhateverEventsUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *stripesim.Options) { o.EventVersion = "2026-03-25.dahlia" })
	r := w.checkout(stripesim.CheckoutSpec{PriceID: w.price(1500, "month"), Email: "a@example.com"})
	body, ok := w.sim.Subscription(r.SubscriptionID)
	equal(t, "there", ok, true)
	var sub stripe.Subscription
	w.ok(json.Unmarshal(body, &sub))
	equal(t, "period", sub.CurrentPeriodEnd, start().AddDate(0, 1, 0).Unix())
	equal(t, "of the customer", len(w.sim.Subscriptions(r.CustomerID)), 1)
	equal(t, "customers", len(w.sim.Customers()), 1)
	_, ok = w.sim.Customer("cus_none")
	equal(t, "not there", ok, false)
}
