package stripesim_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

const day = 24 * time.Hour

func count(types []string, typ string) (n int) {
	for _, x := range types {
		if x == typ {
			n++
		}
	}
	return n
}

func TestAYearOfRenewals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.checkout(stripesim.CheckoutSpec{PriceID: w.price(1500, "month"), Email: "a@example.com"})
	w.types()
	w.ok(w.sim.AdvanceTo(t.Context(), start().AddDate(1, 0, 0).Add(2*time.Hour)))
	types := w.types()
	for _, typ := range []string{"invoice.created", "invoice.finalized", "invoice.paid", "charge.succeeded", "payment_intent.succeeded"} {
		equal(t, typ, count(types, typ), 12)
	}
	equal(t, "no failure", count(types, "invoice.payment_failed"), 0)
	sub := w.subscription(r.SubscriptionID)
	equal(t, "status", sub.Status, stripe.SubscriptionStatusActive)
	equal(t, "period starts on the anniversary", sub.CurrentPeriodStart, start().AddDate(1, 0, 0).Unix())
	equal(t, "period ends a month later", sub.CurrentPeriodEnd, start().AddDate(1, 1, 0).Unix())
}

func TestPeriodsKeepTheDayOfTheMonth(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *stripesim.Options) {
		o.Now = func() time.Time { return time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC) }
	})
	r := w.checkout(stripesim.CheckoutSpec{PriceID: w.price(1500, "month")})
	for _, want := range []string{"2026-02-28", "2026-03-31", "2026-04-30"} {
		end := time.Unix(w.subscription(r.SubscriptionID).CurrentPeriodEnd, 0).UTC()
		equal(t, "period end", end.Format(time.DateOnly), want)
		w.ok(w.sim.AdvanceTo(t.Context(), end))
	}
}

func TestIntervals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	product := w.sim.AddProduct("Pro")
	for _, c := range []struct {
		interval string
		n        int64
		end      time.Time
	}{
		{"day", 1, start().AddDate(0, 0, 1)}, {"week", 2, start().AddDate(0, 0, 14)},
		{"month", 3, start().AddDate(0, 3, 0)}, {"year", 1, start().AddDate(1, 0, 0)},
	} {
		r := w.checkout(stripesim.CheckoutSpec{PriceID: w.sim.AddPrice(product, 100, c.interval, stripesim.Every(c.n))})
		equal(t, c.interval, w.subscription(r.SubscriptionID).CurrentPeriodEnd, c.end.Unix())
	}
}

func TestTrialIsAnnouncedAndEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.checkout(stripesim.CheckoutSpec{PriceID: w.price(1500, "month"), TrialDays: 14})
	sub := w.subscription(r.SubscriptionID)
	equal(t, "status", sub.Status, stripe.SubscriptionStatusTrialing)
	equal(t, "trial end", sub.TrialEnd, start().Add(14*day).Unix())
	equal(t, "period is the trial", sub.CurrentPeriodEnd, sub.TrialEnd)
	w.types()
	w.advance(11*day - time.Second)
	equal(t, "nothing yet", len(w.types()), 0)
	w.advance(time.Second)
	equal(t, "announced", strings.Join(w.types(), " "), "customer.subscription.trial_will_end")
	w.advance(3 * day)
	equal(t, "active", w.subscription(r.SubscriptionID).Status, stripe.SubscriptionStatusActive)
	inOrder(t, w.types(), "customer.subscription.updated", "invoice.created")
	w.advance(time.Hour)
	inOrder(t, w.types(), "invoice.finalized", "charge.succeeded", "invoice.paid")
}

func TestTrialWithoutACard(t *testing.T) {
	t.Parallel()
	for behavior, want := range map[string]stripe.SubscriptionStatus{"cancel": "canceled", "pause": "paused", "create_invoice": "past_due"} {
		t.Run(behavior, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			sub, err := w.api.Subscriptions.New(&stripe.SubscriptionParams{Customer: stripe.String(w.sim.AddCustomer(stripesim.CustomerSpec{})),
				Items:           []*stripe.SubscriptionItemsParams{{Price: stripe.String(w.price(700, "month"))}},
				TrialPeriodDays: stripe.Int64(1),
				TrialSettings: &stripe.SubscriptionTrialSettingsParams{EndBehavior: &stripe.SubscriptionTrialSettingsEndBehaviorParams{
					MissingPaymentMethod: stripe.String(behavior)}}})
			w.ok(err)
			equal(t, "at first", sub.Status, stripe.SubscriptionStatusTrialing)
			w.advance(day + 2*time.Hour)
			equal(t, "after the trial", w.subscription(sub.ID).Status, want)
		})
	}
}

func TestAPausedTrialResumes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus := w.sim.AddCustomer(stripesim.CustomerSpec{})
	sub, err := w.api.Subscriptions.New(&stripe.SubscriptionParams{Customer: &cus,
		Items:           []*stripe.SubscriptionItemsParams{{Price: stripe.String(w.price(700, "month"))}},
		TrialPeriodDays: stripe.Int64(1),
		TrialSettings: &stripe.SubscriptionTrialSettingsParams{EndBehavior: &stripe.SubscriptionTrialSettingsEndBehaviorParams{
			MissingPaymentMethod: stripe.String("pause")}}})
	w.ok(err)
	w.advance(2 * day)
	inOrder(t, w.types(), "customer.subscription.paused")
	w.ok(w.sim.AddCard(cus))
	resumed, err := w.api.Subscriptions.Resume(sub.ID, &stripe.SubscriptionResumeParams{})
	w.ok(err)
	equal(t, "status", resumed.Status, stripe.SubscriptionStatusActive)
	inOrder(t, w.types(), "customer.subscription.resumed", "invoice.paid")
}

func TestDunningUntilTheEnd(t *testing.T) {
	t.Parallel()
	for then, want := range map[string]stripe.SubscriptionStatus{"canceled": "canceled", "unpaid": "unpaid", "past_due": "past_due"} {
		t.Run(then, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(o *stripesim.Options) { o.Dunning = stripesim.Dunning{Then: then} })
			r := w.checkout(stripesim.CheckoutSpec{PriceID: w.price(1500, "month")})
			w.ok(w.sim.SetPayments(r.CustomerID, false))
			w.types()
			w.ok(w.sim.AdvanceTo(t.Context(), start().AddDate(0, 1, 0).Add(time.Hour)))
			types := w.types()
			inOrder(t, types, "invoice.created", "invoice.finalized", "charge.failed", "payment_intent.payment_failed", "invoice.payment_failed",
				"customer.subscription.updated")
			equal(t, "past due", w.subscription(r.SubscriptionID).Status, stripe.SubscriptionStatusPastDue)
			cus, err := w.api.Customers.Get(r.CustomerID, nil)
			w.ok(err)
			equal(t, "delinquent", cus.Delinquent, true)
			w.advance(15 * day)
			equal(t, "three more attempts", count(w.types(), "invoice.payment_failed"), 3)
			equal(t, "in the end", w.subscription(r.SubscriptionID).Status, want)
		})
	}
}

func TestALatePaymentHeals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.checkout(stripesim.CheckoutSpec{PriceID: w.price(1500, "month")})
	w.ok(w.sim.SetPaymentOutcome(r.CustomerID, stripesim.PaymentsChallenged))
	w.ok(w.sim.AdvanceTo(t.Context(), start().AddDate(0, 1, 0).Add(time.Hour)))
	inOrder(t, w.types(), "payment_intent.requires_action", "invoice.payment_action_required", "invoice.payment_failed")
	equal(t, "before", w.subscription(r.SubscriptionID).Status, stripe.SubscriptionStatusPastDue)
	if err := w.sim.PayOpenInvoice(r.SubscriptionID); err == nil {
		t.Error("a payment that is challenged went through")
	}
	w.ok(w.sim.SetPayments(r.CustomerID, true))
	w.ok(w.sim.PayOpenInvoice(r.SubscriptionID))
	equal(t, "after", w.subscription(r.SubscriptionID).Status, stripe.SubscriptionStatusActive)
	w.types()
	w.advance(10 * day)
	equal(t, "no more attempts", len(w.types()), 0)
}

func TestOutOfBandPaymentIsPaidButNotSucceeded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.checkout(stripesim.CheckoutSpec{PriceID: w.price(1500, "month")})
	w.ok(w.sim.SetPayments(r.CustomerID, false))
	w.ok(w.sim.AdvanceTo(t.Context(), start().AddDate(0, 1, 0).Add(time.Hour)))
	inv := w.subscription(r.SubscriptionID).LatestInvoice.ID
	w.types()
	paid, err := w.api.Invoices.Pay(inv, &stripe.InvoicePayParams{PaidOutOfBand: stripe.Bool(true)})
	w.ok(err)
	equal(t, "paid", paid.Paid, true)
	types := w.types()
	equal(t, "invoice.paid", count(types, "invoice.paid"), 1)
	equal(t, "invoice.payment_succeeded", count(types, "invoice.payment_succeeded"), 0)
	equal(t, "status", w.subscription(r.SubscriptionID).Status, stripe.SubscriptionStatusActive)
}

func TestAnUnpaidFirstInvoiceExpires(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cus := w.payer("a@example.com")
	w.ok(w.sim.SetPayments(cus, false))
	sub, err := w.api.Subscriptions.New(&stripe.SubscriptionParams{Customer: &cus,
		Items: []*stripe.SubscriptionItemsParams{{Price: stripe.String(w.price(700, "month"))}}})
	w.ok(err)
	equal(t, "at first", sub.Status, stripe.SubscriptionStatusIncomplete)
	w.advance(22 * time.Hour)
	equal(t, "still", w.subscription(sub.ID).Status, stripe.SubscriptionStatusIncomplete)
	w.types()
	w.advance(time.Hour)
	equal(t, "expired", w.subscription(sub.ID).Status, stripe.SubscriptionStatusIncompleteExpired)
	inOrder(t, w.types(), "customer.subscription.updated", "invoice.voided", "payment_intent.canceled")
}

func TestScheduledEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	price := w.price(1500, "month")
	flag, date := w.checkout(stripesim.CheckoutSpec{PriceID: price}).SubscriptionID, w.checkout(stripesim.CheckoutSpec{PriceID: price}).SubscriptionID
	w.ok(w.sim.CancelAtPeriodEnd(flag))
	sub := w.subscription(flag)
	equal(t, "flag", sub.CancelAtPeriodEnd, true)
	equal(t, "cancel_at is the period's end", sub.CancelAt, sub.CurrentPeriodEnd)
	equal(t, "canceled_at", sub.CanceledAt, start().Unix())
	equal(t, "reason", sub.CancellationDetails.Reason, stripe.SubscriptionCancellationDetailsReason("cancellation_requested"))

	w.ok(w.sim.CancelAt(date, start().Add(10*day)))
	sub = w.subscription(date)
	equal(t, "no flag", sub.CancelAtPeriodEnd, false)
	equal(t, "date", sub.CancelAt, start().Add(10*day).Unix())
	kept, err := w.api.Subscriptions.Update(date, &stripe.SubscriptionParams{CancelAtPeriodEnd: stripe.Bool(false)})
	w.ok(err)
	equal(t, "the flag does not clear a date", kept.CancelAt, sub.CancelAt)

	w.ok(w.sim.Reactivate(flag))
	w.ok(w.sim.Reactivate(date))
	for _, id := range []string{flag, date} {
		sub = w.subscription(id)
		equal(t, "reactivated", sub.CancelAt == 0 && !sub.CancelAtPeriodEnd && sub.CanceledAt == 0, true)
	}
	w.ok(w.sim.CancelAtPeriodEnd(flag))
	w.ok(w.sim.CancelAt(date, start().Add(10*day)))
	w.types()
	w.advance(10 * day)
	equal(t, "by date", w.subscription(date).Status, stripe.SubscriptionStatusCanceled)
	equal(t, "one deletion", count(w.types(), "customer.subscription.deleted"), 1)
	w.ok(w.sim.AdvanceTo(t.Context(), start().AddDate(0, 1, 0)))
	sub = w.subscription(flag)
	equal(t, "by flag", sub.Status, stripe.SubscriptionStatusCanceled)
	equal(t, "ended", sub.EndedAt, start().AddDate(0, 1, 0).Unix())
	equal(t, "asked for earlier", sub.CanceledAt, start().Unix())
}

func TestPausedCollection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.checkout(stripesim.CheckoutSpec{PriceID: w.price(1500, "month")}).SubscriptionID
	w.ok(w.sim.PauseCollectionUntil(id, start().Add(40*day)))
	equal(t, "status stays", w.subscription(id).Status, stripe.SubscriptionStatusActive)
	w.types()
	w.advance(32 * day)
	types := w.types()
	equal(t, "nothing is paid", count(types, "invoice.paid"), 0)
	equal(t, "voided", count(types, "invoice.voided"), 1)
	w.advance(8 * day)
	equal(t, "resumed by itself", w.subscription(id).PauseCollection == nil, true)
	w.ok(w.sim.PauseCollection(id))
	equal(t, "paused", w.subscription(id).PauseCollection.Behavior, stripe.SubscriptionPauseCollectionBehavior("void"))
	w.ok(w.sim.ResumeCollection(id))
	equal(t, "resumed", w.subscription(id).PauseCollection == nil, true)
}

func TestThingsDueAtTheSameSecondAllHappen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.checkout(stripesim.CheckoutSpec{PriceID: w.price(1500, "month")}).SubscriptionID
	end := w.subscription(id).CurrentPeriodEnd
	w.ok(w.sim.PauseCollectionUntil(id, time.Unix(end, 0)))
	w.ok(w.sim.AdvanceTo(t.Context(), time.Unix(end, 0).Add(time.Hour)))
	sub := w.subscription(id)
	equal(t, "resumed", sub.PauseCollection == nil, true)
	equal(t, "renewed", sub.CurrentPeriodStart, end)
	equal(t, "both paid", count(w.types(), "invoice.paid"), 2)
}

func TestChangesOfPriceAndQuantity(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	product := w.sim.AddProduct("Pro")
	small, large := w.sim.AddPrice(product, 1000, "month"), w.sim.AddPrice(product, 3000, "month")
	yearly := w.sim.AddPrice(product, 10000, "year")
	r := w.checkout(stripesim.CheckoutSpec{PriceID: small})
	w.ok(w.sim.AdvanceTo(t.Context(), start().Add(31*day/2)))
	w.types()
	w.ok(w.sim.ChangePrice(r.SubscriptionID, large))
	equal(t, "one event", strings.Join(w.types(), " "), "customer.subscription.updated")
	w.ok(w.sim.SetQuantity(r.SubscriptionID, 2))
	sub := w.subscription(r.SubscriptionID)
	equal(t, "price", sub.Items.Data[0].Price.ID, large)
	equal(t, "quantity", sub.Items.Data[0].Quantity, int64(2))
	w.ok(w.sim.AdvanceTo(t.Context(), start().AddDate(0, 1, 0).Add(time.Hour)))
	inv, err := w.api.Invoices.Get(w.subscription(r.SubscriptionID).LatestInvoice.ID, nil)
	w.ok(err)
	// Two months of the large one, plus half of what was added twice: (3000-1000)/2 and (6000-3000)/2.
	equal(t, "invoice with prorations", inv.Total, int64(6000+1000+1500))

	w.types()
	w.ok(w.sim.ChangePrice(r.SubscriptionID, yearly))
	inOrder(t, w.types(), "customer.subscription.updated", "invoice.created", "invoice.paid")
	sub = w.subscription(r.SubscriptionID)
	equal(t, "a new period", sub.CurrentPeriodStart, w.sim.Now().Unix())
	equal(t, "of a year", sub.CurrentPeriodEnd, w.sim.Now().AddDate(1, 0, 0).Unix())
}

func TestAdvanceStopsWithItsContextAndGoesOnLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.checkout(stripesim.CheckoutSpec{PriceID: w.price(1500, "month"), TrialDays: 2})
	ctx, cancel := contextCanceled(t)
	defer cancel()
	if err := w.sim.Advance(ctx, 3*day); err == nil {
		t.Error("a canceled context was ignored")
	}
	equal(t, "the next request performs it", w.subscription(r.SubscriptionID).Status, stripe.SubscriptionStatusActive)
	if err := w.sim.AdvanceTo(t.Context(), start()); err == nil {
		t.Error("time ran backwards")
	}
}

func TestSubscriptionListFilters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	price, other := w.price(1500, "month"), w.price(300, "month")
	cus := w.payer("a@example.com")
	gone := w.checkout(stripesim.CheckoutSpec{PriceID: price, CustomerID: cus}).SubscriptionID
	w.ok(w.sim.CancelNow(gone))
	live := w.checkout(stripesim.CheckoutSpec{PriceID: other, CustomerID: cus, Quantity: 3}).SubscriptionID
	w.checkout(stripesim.CheckoutSpec{PriceID: price})
	list := func(p *stripe.SubscriptionListParams) (ids []string) {
		p.Customer = &cus
		it := w.api.Subscriptions.List(p)
		for it.Next() {
			ids = append(ids, it.Subscription().ID)
		}
		w.ok(it.Err())
		return ids
	}
	for name, c := range map[string]struct {
		p    stripe.SubscriptionListParams
		want []string
	}{
		"default":  {stripe.SubscriptionListParams{}, []string{live}},
		"all":      {stripe.SubscriptionListParams{Status: stripe.String("all")}, []string{live, gone}},
		"ended":    {stripe.SubscriptionListParams{Status: stripe.String("ended")}, []string{gone}},
		"canceled": {stripe.SubscriptionListParams{Status: stripe.String("canceled")}, []string{gone}},
		"price":    {stripe.SubscriptionListParams{Status: stripe.String("all"), Price: &price}, []string{gone}},
	} {
		if got := list(&c.p); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}
