package stripesim_test

import (
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

func TestCatalogueThroughTheRealClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	product, err := w.api.Products.New(&stripe.ProductParams{Name: stripe.String("Pro"),
		DefaultPriceData: &stripe.ProductDefaultPriceDataParams{Currency: stripe.String("eur"), UnitAmount: stripe.Int64(900),
			Recurring: &stripe.ProductDefaultPriceDataRecurringParams{Interval: stripe.String("month")}}})
	w.ok(err)
	equal(t, "default price", product.DefaultPrice != nil, true)
	yearly, err := w.api.Prices.New(&stripe.PriceParams{Product: &product.ID, Currency: stripe.String("eur"), UnitAmount: stripe.Int64(9000),
		LookupKey: stripe.String("pro_year"), Recurring: &stripe.PriceRecurringParams{Interval: stripe.String("year")}})
	w.ok(err)
	equal(t, "interval", yearly.Recurring.Interval, stripe.PriceRecurringIntervalYear)
	inOrder(t, w.types(), "product.created", "price.created", "product.updated", "price.created")

	w.ok(w.sim.ArchivePrice(yearly.ID))
	w.ok(w.sim.UpdateProduct(product.ID, "Pro Plus"))
	inOrder(t, w.types(), "price.updated", "product.updated")
	count := func(active bool) (n int) {
		it := w.api.Prices.List(&stripe.PriceListParams{Product: &product.ID, Active: &active})
		for it.Next() {
			n++
		}
		w.ok(it.Err())
		return n
	}
	equal(t, "active", count(true), 1)
	equal(t, "archived", count(false), 1)
	it := w.api.Products.List(&stripe.ProductListParams{Active: stripe.Bool(true)})
	equal(t, "product", it.Next() && it.Product().Name == "Pro Plus", true)

	_, err = w.api.Subscriptions.New(&stripe.SubscriptionParams{Customer: stripe.String(w.payer("a@example.com")),
		Items: []*stripe.SubscriptionItemsParams{{Price: &yearly.ID}}})
	equal(t, "an archived price is not sold", stripeError(t, err).HTTPStatusCode, 400)
	if err := w.sim.DeleteProduct(product.ID); err == nil {
		t.Error("a product with prices was deleted")
	}
	w.ok(w.sim.DeleteProduct(w.sim.AddProduct("Nothing")))
	inOrder(t, w.types(), "product.deleted")
}

func TestWebhookEndpoints(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made, err := w.api.WebhookEndpoints.New(&stripe.WebhookEndpointParams{URL: stripe.String("https://example.com/a"),
		APIVersion: stripe.String(stripe.APIVersion), EnabledEvents: []*string{stripe.String("invoice.paid")}})
	w.ok(err)
	equal(t, "secret at creation", made.Secret != "", true)
	read, err := w.api.WebhookEndpoints.Get(made.ID, nil)
	w.ok(err)
	equal(t, "and never again", read.Secret, "")
	changed, err := w.api.WebhookEndpoints.Update(made.ID, &stripe.WebhookEndpointParams{Disabled: stripe.Bool(true)})
	w.ok(err)
	equal(t, "disabled", changed.Status, "disabled")
	equal(t, "events stay", changed.EnabledEvents[0], "invoice.paid")
	gone, err := w.api.WebhookEndpoints.Del(made.ID, nil)
	w.ok(err)
	equal(t, "deleted", gone.Deleted, true)
	equal(t, "none left", w.api.WebhookEndpoints.List(&stripe.WebhookEndpointListParams{}).Next(), false)
}

func TestSubscriptionThroughTheAPI(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus, base, extra := w.payer("a@example.com"), w.price(1000, "month"), w.price(200, "month")
	p := &stripe.SubscriptionParams{Customer: &cus, Items: []*stripe.SubscriptionItemsParams{{Price: &base}, {Price: &extra, Quantity: stripe.Int64(5)}}}
	p.AddMetadata("clerk_user_id", "user_1")
	p.AddExpand("latest_invoice")
	sub, err := w.api.Subscriptions.New(p)
	w.ok(err)
	equal(t, "status", sub.Status, stripe.SubscriptionStatusActive)
	equal(t, "first invoice", sub.LatestInvoice.AmountPaid, int64(2000))
	equal(t, "metadata", sub.Metadata["clerk_user_id"], "user_1")

	sub, err = w.api.Subscriptions.Update(sub.ID, &stripe.SubscriptionParams{ProrationBehavior: stripe.String("none"),
		Items: []*stripe.SubscriptionItemsParams{{ID: &sub.Items.Data[1].ID, Deleted: stripe.Bool(true)}}})
	w.ok(err)
	equal(t, "items", len(sub.Items.Data), 1)
	end := start().Add(20 * day).Unix()
	sub, err = w.api.Subscriptions.Update(sub.ID, &stripe.SubscriptionParams{TrialEnd: &end})
	w.ok(err)
	equal(t, "trial", sub.Status, stripe.SubscriptionStatusTrialing)
	equal(t, "ends with the period", sub.CurrentPeriodEnd, end)
	w.types()
	w.ok(w.sim.EndTrial(sub.ID))
	inOrder(t, w.types(), "customer.subscription.updated", "invoice.created", "invoice.paid")
	equal(t, "active", w.subscription(sub.ID).Status, stripe.SubscriptionStatusActive)

	paused, err := w.api.Subscriptions.Update(sub.ID, &stripe.SubscriptionParams{PauseCollection: &stripe.SubscriptionPauseCollectionParams{Behavior: stripe.String("keep_as_draft")}})
	w.ok(err)
	equal(t, "paused", paused.PauseCollection.Behavior, stripe.SubscriptionPauseCollectionBehaviorKeepAsDraft)
	canceled, err := w.api.Subscriptions.Cancel(sub.ID, &stripe.SubscriptionCancelParams{
		CancellationDetails: &stripe.SubscriptionCancelCancellationDetailsParams{Comment: stripe.String("bye")}})
	w.ok(err)
	equal(t, "canceled", canceled.Status, stripe.SubscriptionStatusCanceled)
	equal(t, "comment", canceled.CancellationDetails.Comment, "bye")
	equal(t, "when", canceled.EndedAt, start().Unix())
}

func TestPaymentBehaviors(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	price := w.price(1000, "month")
	create := func(cus, behavior string) (*stripe.Subscription, error) {
		return w.api.Subscriptions.New(&stripe.SubscriptionParams{Customer: &cus, PaymentBehavior: &behavior,
			Items: []*stripe.SubscriptionItemsParams{{Price: &price}}})
	}
	sub, err := create(w.payer("a@example.com"), "default_incomplete")
	w.ok(err)
	equal(t, "waits for a payment", sub.Status, stripe.SubscriptionStatusIncomplete)
	w.ok(w.sim.PayOpenInvoice(sub.ID))
	equal(t, "paid", w.subscription(sub.ID).Status, stripe.SubscriptionStatusActive)

	poor := w.sim.AddCustomer(stripesim.CustomerSpec{})
	_, err = w.api.PaymentMethods.Attach("pm_card_chargeCustomerFail", &stripe.PaymentMethodAttachParams{Customer: &poor})
	w.ok(err)
	before := w.sim.Counts()["subscription"]
	_, err = create(poor, "error_if_incomplete")
	se := stripeError(t, err)
	equal(t, "declined", se.Code, stripe.ErrorCodeCardDeclined)
	equal(t, "status", se.HTTPStatusCode, 402)
	equal(t, "none was made", w.sim.Counts()["subscription"], before)
	sub, err = create(poor, "allow_incomplete")
	w.ok(err)
	equal(t, "incomplete", sub.Status, stripe.SubscriptionStatusIncomplete)
	_, err = w.api.Invoices.Pay(sub.LatestInvoice.ID, &stripe.InvoicePayParams{})
	equal(t, "a second attempt", stripeError(t, err).Code, stripe.ErrorCodeCardDeclined)
	w.advance(24 * time.Hour)
	equal(t, "given up", w.subscription(sub.ID).Status, stripe.SubscriptionStatusIncompleteExpired)
}
