package stripesim_test

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stripe/stripe-go/v76"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

type jsonObject = map[string]any

// read gets one object as an API version shows it.
func (w *world) read(version, method, path, form string) jsonObject {
	w.t.Helper()
	status, _, body := w.send(method, path, form, map[string]string{"Stripe-Version": version})
	if status != 200 {
		w.t.Fatalf("%s %s: %d %s", method, path, status, body)
	}
	out := jsonObject{}
	w.ok(json.Unmarshal([]byte(body), &out))
	return out
}

// first digs out the first element of a list that is part of an object.
func first(o jsonObject, list string) jsonObject {
	return o[list].(jsonObject)["data"].([]any)[0].(jsonObject)
}

func TestObjectsHaveTheKeysOfTheirVersion(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/keys.json")
	if err != nil {
		t.Fatal(err)
	}
	var known map[string]map[string]string
	if err := json.Unmarshal(raw, &known); err != nil {
		t.Fatal(err)
	}
	for version, kinds := range known {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(o *stripesim.Options) { o.EventVersion = version })
			product := w.sim.AddProduct("Pro")
			price := w.sim.AddPrice(product, 1500, "month")
			r := w.checkout(stripesim.CheckoutSpec{PriceID: price, Email: "a@example.com"})
			w.ok(w.sim.Refund(r.ChargeID, 100))
			dispute, err := w.sim.Dispute(r.ChargeID)
			w.ok(err)
			sub := w.read(version, "GET", "/v1/subscriptions/"+r.SubscriptionID, "")
			invoice := w.read(version, "GET", "/v1/invoices/"+r.InvoiceID, "")
			events := w.sim.Events()
			endpoint := w.read(version, "POST", "/v1/webhook_endpoints", "url=https://example.com/hook&enabled_events[]=*")
			delete(endpoint, "secret") // shown at creation alone
			got := map[string]jsonObject{
				"account": w.read(version, "GET", "/v1/account", ""), "charge": w.read(version, "GET", "/v1/charges/"+r.ChargeID, ""),
				"billing_portal.session": w.read(version, "POST", "/v1/billing_portal/sessions", "customer="+r.CustomerID),
				"checkout.session":       w.read(version, "GET", "/v1/checkout/sessions/"+r.SessionID, ""),
				"customer":               w.read(version, "GET", "/v1/customers/"+r.CustomerID, ""),
				"dispute":                w.read(version, "GET", "/v1/disputes/"+dispute, ""),
				"event":                  w.read(version, "GET", "/v1/events/"+events[0].ID, ""),
				"invoice":                invoice, "invoice line": first(invoice, "lines"),
				"payment_intent": w.read(version, "GET", "/v1/payment_intents/"+r.PaymentIntentID, ""),
				"price":          w.read(version, "GET", "/v1/prices/"+price, ""), "product": w.read(version, "GET", "/v1/products/"+product, ""),
				"refund":       w.read(version, "GET", "/v1/refunds?charge="+r.ChargeID, "")["data"].([]any)[0].(jsonObject),
				"subscription": sub, "subscription_item": first(sub, "items"), "webhook_endpoint": endpoint,
				"subscription_schedule": w.read(version, "POST", "/v1/subscription_schedules", "from_subscription="+r.SubscriptionID),
			}
			for kind, want := range kinds {
				have := slices.Sorted(maps.Keys(got[kind]))
				for k := range strings.FieldsSeq(want) {
					if !slices.Contains(have, k) {
						t.Errorf("%s has no %s", kind, k)
					}
				}
				for _, k := range have {
					// An older line says with subscription_item what the newer one says in parent.
					if !slices.Contains(strings.Fields(want), k) && (kind != "invoice line" || k != "subscription_item") {
						t.Errorf("%s has %s, which this version does not", kind, k)
					}
				}
			}
		})
	}
}

// object digs the object out of an event.
func (w *world) object(typ string) jsonObject {
	w.t.Helper()
	return w.last(typ)["data"].(jsonObject)["object"].(jsonObject)
}

func TestEventsHaveTheShapeOfTheirVersion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	price := w.price(1500, "month")
	spec := stripesim.CheckoutSpec{PriceID: price, Email: "a@example.com", SubscriptionMetadata: map[string]string{"clerk_user_id": "user_1"}}
	r := w.checkout(spec)
	equal(t, "version", w.last("invoice.paid")["api_version"].(string), "2023-10-16")
	equal(t, "period on the subscription", w.object("customer.subscription.updated")["current_period_end"].(float64), float64(start().AddDate(0, 1, 0).Unix()))
	equal(t, "invoice names its subscription", w.object("invoice.paid")["subscription"].(string), r.SubscriptionID)
	equal(t, "paid", w.object("invoice.paid")["paid"].(bool), true)
	equal(t, "intent names its invoice", w.object("payment_intent.succeeded")["invoice"].(string), r.InvoiceID)

	for _, version := range []string{"2025-03-31.basil", "2025-09-30.clover", "2026-03-25.dahlia"} {
		w.sim.SetEventVersion(version)
		r = w.checkout(spec)
		equal(t, "version", w.last("invoice.paid")["api_version"].(string), version)
		sub := w.object("customer.subscription.updated")
		if _, there := sub["current_period_end"]; there {
			t.Errorf("%s: the period is still on the subscription", version)
		}
		equal(t, "period on the item", first(sub, "items")["current_period_end"].(float64), float64(start().AddDate(0, 1, 0).Unix()))
		inv := w.object("invoice.paid")
		for _, gone := range []string{"subscription", "paid", "payment_intent", "charge"} {
			if _, there := inv[gone]; there {
				t.Errorf("%s: the invoice still has %s", version, gone)
			}
		}
		details := inv["parent"].(jsonObject)["subscription_details"].(jsonObject)
		equal(t, "subscription of the parent", details["subscription"].(string), r.SubscriptionID)
		equal(t, "its metadata", details["metadata"].(jsonObject)["clerk_user_id"].(string), "user_1")
		if _, there := w.object("payment_intent.succeeded")["invoice"]; there {
			t.Errorf("%s: the intent still names its invoice", version)
		}
		link := w.object("invoice_payment.paid")
		equal(t, "the link between them", link["payment"].(jsonObject)["payment_intent"].(string), r.PaymentIntentID)

		// A request that names the older version is answered in it all the same.
		equal(t, "answers follow the request", w.subscription(r.SubscriptionID).CurrentPeriodEnd, start().AddDate(0, 1, 0).Unix())
	}
}

func TestUpdatesSayWhatChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.checkout(stripesim.CheckoutSpec{PriceID: w.price(1500, "month")})
	_, err := w.api.Subscriptions.Update(r.SubscriptionID, &stripe.SubscriptionParams{CancelAtPeriodEnd: stripe.Bool(true)})
	w.ok(err)
	prev := w.last("customer.subscription.updated")["data"].(jsonObject)["previous_attributes"].(jsonObject)
	equal(t, "which", strings.Join(slices.Sorted(maps.Keys(prev)), " "), "cancel_at cancel_at_period_end canceled_at cancellation_details")
	equal(t, "flag", prev["cancel_at_period_end"].(bool), false)

	w.types()
	_, err = w.api.Subscriptions.Update(r.SubscriptionID, &stripe.SubscriptionParams{CancelAtPeriodEnd: stripe.Bool(true)})
	w.ok(err)
	equal(t, "no change, no event", len(w.types()), 0)

	w.ok(w.sim.SetQuantity(r.SubscriptionID, 4))
	ev := w.last("customer.subscription.updated")
	prev = ev["data"].(jsonObject)["previous_attributes"].(jsonObject)
	equal(t, "items are given whole", first(prev, "items")["quantity"].(float64), 1)
	equal(t, "no request behind it", ev["request"].(jsonObject)["id"] == nil, true)
	equal(t, "mode", ev["livemode"].(bool), false)
	equal(t, "pending", ev["pending_webhooks"].(float64), 1)
}
