package stripesim_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

// paid is what a customer has paid so far.
func (w *world) paid(customer string) (sum int64) {
	w.t.Helper()
	_, _, body := w.send("GET", "/v1/charges?limit=100&customer="+customer, "", nil)
	var charges struct {
		Data []struct {
			Status string
			Amount int64
		}
	}
	w.ok(json.Unmarshal([]byte(body), &charges))
	for _, c := range charges.Data {
		if c.Status == "succeeded" {
			sum += c.Amount
		}
	}
	return sum
}

// pending are the ids of a customer's pending invoice items.
func (w *world) pending(customer string) (ids []string) {
	w.t.Helper()
	status, _, body := w.send("GET", "/v1/invoiceitems?pending=true&limit=100&customer="+customer, "", nil)
	equal(w.t, "status", status, 200)
	var items struct{ Data []struct{ ID string } }
	w.ok(json.Unmarshal([]byte(body), &items))
	for _, it := range items.Data {
		ids = append(ids, it.ID)
	}
	return ids
}

// upgraded is a customer who has been moved to a dearer price within a period; the difference waits
// for the next invoice.
func (w *world) upgraded() (payer, sub string) {
	w.t.Helper()
	product := w.sim.AddProduct("Pro")
	basic, pro := w.sim.AddPrice(product, 1000, "month"), w.sim.AddPrice(product, 100000, "month")
	payer = w.payer("ada@example.com")
	sub = w.checkout(stripesim.CheckoutSpec{CustomerID: payer, PriceID: basic}).SubscriptionID
	w.advance(24 * time.Hour)
	w.ok(w.sim.ChangePrice(sub, pro))
	equal(w.t, "pending items", len(w.pending(payer)), 2)
	equal(w.t, "paid before", w.paid(payer), 1000)
	return payer, sub
}

// Stripe (API reference, "Cancel a subscription"): "If you've set the subscription to cancel at the
// end of the period, any pending prorations are also left in place and collected at the end of the
// period."
func TestPendingProrationsAreCollectedAtThePeriodsEnd(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(w *world, sub string){
		"by the flag": func(w *world, sub string) { w.ok(w.sim.CancelAtPeriodEnd(sub)) },
		"by a schedule": func(w *world, sub string) {
			schedule := w.made("/v1/subscription_schedules", "from_subscription="+sub)
			status, _, body := w.send("POST", "/v1/subscription_schedules/"+schedule, "end_behavior=cancel", nil)
			if status != 200 {
				w.t.Fatal(body)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			payer, sub := w.upgraded()
			end(w, sub)
			w.advance(40 * 24 * time.Hour)
			equal(t, "status", string(w.subscription(sub).Status), "canceled")
			equal(t, "left pending", len(w.pending(payer)), 0)
			if got := w.paid(payer); got < 50000 {
				t.Errorf("paid %d in all: the prorations were not collected", got)
			}
		})
	}
}

// At once, without a final invoice, pending prorations are removed, and what was added by hand
// stays.
func TestEndingAtOnceRemovesPendingProrations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	payer, sub := w.upgraded()
	byHand := w.made("/v1/invoiceitems", "customer="+payer+"&amount=500&currency=usd")
	w.ok(w.sim.CancelNow(sub))
	left := w.pending(payer)
	if len(left) != 1 || left[0] != byHand {
		t.Errorf("pending are %v, want %s", left, byHand)
	}
	w.advance(40 * 24 * time.Hour)
	equal(t, "paid", w.paid(payer), 1000)
}

// A pending item can be deleted, and is not billed then.
func TestDeletedInvoiceItemsAreNotBilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	payer, sub := w.upgraded()
	w.ok(w.sim.CancelAtPeriodEnd(sub))
	for _, id := range w.pending(payer) {
		for _, want := range []int{200, 404} {
			status, _, _ := w.send("DELETE", "/v1/invoiceitems/"+id, "", nil)
			equal(t, "status", status, want)
		}
	}
	w.advance(40 * 24 * time.Hour)
	equal(t, "paid", w.paid(payer), 1000)
}

// What is used of a metered price is billed when the period ends, also where the subscription ends
// with it.
func TestUsageIsBilledWhenThePeriodEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end  func(w *world, sub string)
		want int64
	}{
		"renewed":       {func(*world, string) {}, 3000},
		"period's end":  {func(w *world, sub string) { w.ok(w.sim.CancelAtPeriodEnd(sub)) }, 3000},
		"ended at once": {func(w *world, sub string) { w.ok(w.sim.CancelNow(sub)) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			product := w.sim.AddProduct("Calls")
			metered := w.made("/v1/prices", "product="+product+"&currency=usd&unit_amount=3&recurring[interval]=month&recurring[usage_type]=metered")
			payer := w.payer("ada@example.com")
			sub := w.checkout(stripesim.CheckoutSpec{CustomerID: payer, PriceID: metered}).SubscriptionID
			w.ok(w.sim.Use(sub, 1000))
			c.end(w, sub)
			w.advance(32 * 24 * time.Hour)
			equal(t, "paid", w.paid(payer), c.want)
		})
	}
}

// A draft that does not advance by itself is not collected.
func TestDraftThatDoesNotAdvanceIsNotCollected(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	payer := w.payer("ada@example.com")
	bought := w.checkout(stripesim.CheckoutSpec{CustomerID: payer, PriceID: w.price(1000, "month")})
	w.ok(w.sim.AdvanceTo(t.Context(), time.Unix(w.subscription(bought.SubscriptionID).CurrentPeriodEnd, 0).Add(time.Minute)))
	draft := w.subscription(bought.SubscriptionID).LatestInvoice.ID
	status, _, _ := w.send("POST", "/v1/invoices/"+draft, "auto_advance=false", nil)
	equal(t, "status", status, 200)
	w.advance(24 * time.Hour)
	equal(t, "paid", w.paid(payer), 1000)
	status, _, _ = w.send("POST", "/v1/invoices/"+draft, "auto_advance=true", nil)
	equal(t, "status", status, 200)
	w.advance(24 * time.Hour)
	equal(t, "paid", w.paid(payer), 2000)
	status, _, _ = w.send("POST", "/v1/invoices/"+draft, "auto_advance=false", nil)
	equal(t, "of a paid one", status, 400)
}
