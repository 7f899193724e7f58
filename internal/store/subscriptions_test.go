package store_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// plan puts a product with prices into the catalogue and answers the plan's id.
func (w *world) plan(productID, name string, prices ...string) (planID int32) {
	w.t.Helper()
	product := account.Product{ID: productID, Name: name, Active: true}
	for _, id := range prices {
		product.Prices = append(product.Prices, account.Price{ID: id, ProductID: productID, Active: true, UnitAmount: 2000, Currency: "usd", Interval: "month", IntervalCount: 1})
	}
	w.update(func(ctx context.Context, tx *store.Tx) (err error) {
		if planID, _, err = tx.LockPlan(ctx, productID, name); err != nil {
			return err
		}
		return tx.SetPlan(ctx, planID, product, 1)
	})
	return planID
}

// set stores what a read showed of a subscription, as a sync does.
func (w *world) set(userID string, seen account.Subscription) (changed bool) {
	w.t.Helper()
	read, err := w.NextRead(w.t.Context())
	must(w.t, err)
	w.withUser(userID, func(ctx context.Context, tx *store.Tx, u *store.User) error {
		stored, err := tx.SubscriptionsOfCustomer(ctx, seen.CustomerID)
		if err != nil {
			return err
		}
		var prices []string
		for _, i := range seen.Items {
			prices = append(prices, i.PriceID)
		}
		plans, err := tx.PlansOf(ctx, prices)
		if err != nil {
			return err
		}
		if changed, err = tx.SetSubscription(ctx, u, stored, seen, plans, read, []string{"evt_1"}); err != nil {
			return err
		}
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		_, err = tx.Reproject(ctx, u, policy(), now, []string{"evt_1"})
		return err
	})
	return changed
}

func at(day int) time.Time { return time.Date(2026, 1, day, 12, 0, 0, 0, time.UTC) }

// full is a subscription with a value in every field.
func full() account.Subscription {
	return account.Subscription{
		ID: "sub_1", CustomerID: "cus_1", Status: account.StatusTrialing,
		Items:              []account.Item{{PriceID: "price_1", ProductID: "prod_1", Quantity: 3, UnitAmount: 2000, Currency: "usd", Interval: "month", IntervalCount: 1}},
		CurrentPeriodStart: at(1), CurrentPeriodEnd: at(2), TrialStart: at(3), TrialEnd: at(4), CancelAtPeriodEnd: true, CancelAt: at(5),
		CanceledAt: at(6), EndedAt: at(7), CollectionPaused: true, LatestInvoiceCreated: at(8), ScheduleID: "sub_sched_1", Created: at(9),
		Metadata: map[string]string{"a": "b"},
	}
}

// counts are the rows of history and audit, and when the row was last written.
func (w *world) written(id string) string {
	w.t.Helper()
	return one[string](w, `SELECT concat_ws(' ', (SELECT count(*) FROM subscription_changes WHERE stripe_subscription_id = $1),
		(SELECT count(*) FROM audit_log WHERE action = 'subscription.changed' AND subject = $1), (SELECT xmin FROM subscriptions WHERE stripe_subscription_id = $1))`, id)
}

// What is read back is what was seen, and writing it again writes nothing at all.
func TestSetSubscriptionWritesWhatDiffers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.user(1)
	w.link(id, "cus_1")
	planID := w.plan("prod_1", "Pro", "price_1", "price_2")
	seen := full()
	if !w.set(id, seen) {
		t.Fatal("a new subscription changed nothing")
	}
	stored, err := w.SubscriptionsOfCustomer(t.Context(), "cus_1")
	must(t, err)
	if len(stored) != 1 {
		t.Fatalf("%d subscriptions stored", len(stored))
	}
	got, want := stored[0].Held(), account.Held{Subscription: full(), Plan: "Pro", PriceID: "price_1", Type: "monthly"}
	want.Items, want.Metadata = nil, nil
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("stored %+v\nwant   %+v", got, want)
	}
	if *stored[0].PlanID != planID || stored[0].Quantity != 3 || !stored[0].PriceKnown || *stored[0].Metadata != `{"a":"b"}` {
		t.Errorf("stored %+v", stored[0])
	}
	before := w.written("sub_1")
	if w.set(id, full()) || w.written("sub_1") != before {
		t.Error("the same subscription was written again")
	}

	// Each field by itself is seen to differ.
	changes := map[string]func(s *account.Subscription){
		"status":         func(s *account.Subscription) { s.Status = account.StatusActive },
		"period start":   func(s *account.Subscription) { s.CurrentPeriodStart = at(11) },
		"period end":     func(s *account.Subscription) { s.CurrentPeriodEnd = time.Time{} },
		"trial start":    func(s *account.Subscription) { s.TrialStart = at(11) },
		"trial end":      func(s *account.Subscription) { s.TrialEnd = at(11) },
		"flag":           func(s *account.Subscription) { s.CancelAtPeriodEnd = false },
		"cancel at":      func(s *account.Subscription) { s.CancelAt = time.Time{} },
		"canceled at":    func(s *account.Subscription) { s.CanceledAt = at(11) },
		"ended at":       func(s *account.Subscription) { s.EndedAt = at(11) },
		"paused":         func(s *account.Subscription) { s.CollectionPaused = false },
		"latest invoice": func(s *account.Subscription) { s.LatestInvoiceCreated = at(11) },
		"schedule":       func(s *account.Subscription) { s.ScheduleID = "" },
		"created":        func(s *account.Subscription) { s.Created = at(11) },
		"metadata":       func(s *account.Subscription) { s.Metadata = map[string]string{"a": "c"} },
		"price":          func(s *account.Subscription) { s.Items[0].PriceID = "price_2" },
		"product":        func(s *account.Subscription) { s.Items[0].ProductID = "prod_2" },
		"quantity":       func(s *account.Subscription) { s.Items[0].Quantity = 4 },
		"amount":         func(s *account.Subscription) { s.Items[0].UnitAmount = 1 },
		"currency":       func(s *account.Subscription) { s.Items[0].Currency = "eur" },
		"interval":       func(s *account.Subscription) { s.Items[0].Interval = "year" },
		"interval count": func(s *account.Subscription) { s.Items[0].IntervalCount = 3 },
	}
	for name, change := range changes {
		seen := full()
		change(&seen)
		if !w.set(id, seen) {
			t.Errorf("%s: nothing was written", name)
		}
		if w.set(id, seen) {
			t.Errorf("%s: it was written twice", name)
		}
		if !w.set(id, full()) {
			t.Errorf("%s: it was not written back", name)
		}
	}
	if n := one[int](w, `SELECT count(*) FROM subscription_changes`); n != 1+2*len(changes) {
		t.Errorf("%d lines of history, want %d", n, 1+2*len(changes))
	}
	if n := one[int](w, `SELECT count(*) FROM audit_log WHERE action = 'subscription.changed'`); n != 1+2*len(changes) {
		t.Errorf("%d lines of audit, want %d", n, 1+2*len(changes))
	}
}

// The history says what was, what is, when it ends and which read showed it; the audit says the
// same with its cause, and of metadata only that it changed.
func TestSubscriptionHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.user(1)
	w.link(id, "cus_1")
	planID := w.plan("prod_1", "Pro", "price_1")
	seen := full()
	seen.ScheduleEndsAt = seen.CancelAt // the schedule that manages it ends it there
	w.set(id, seen)
	seen.Status, seen.Items[0].Quantity, seen.Metadata = account.StatusActive, 5, map[string]string{"secret": "hunter2"}
	w.set(id, seen)
	seen.Status = account.StatusCanceled
	w.set(id, seen)
	got := all[string](w, `SELECT concat_ws(' ', status_before, status, plan_id, stripe_price_id, quantity, unit_amount, currency, billing_interval, interval_count,
		collection_paused, to_char(ends_at, 'YYYY-MM-DD'), read_seq > 0) FROM subscription_changes ORDER BY id`)
	want := []string{
		fmt.Sprintf("trialing %d price_1 3 2000 usd month 1 t 2026-01-05 t", planID),
		fmt.Sprintf("trialing active %d price_1 5 2000 usd month 1 t 2026-01-05 t", planID),
		fmt.Sprintf("active canceled %d price_1 5 2000 usd month 1 t t", planID),
	}
	if !slices.Equal(got, want) {
		t.Errorf("history\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	audit := all[string](w, `SELECT concat_ws(' ', entity, subject, before, after, event_ids, workflow_id) FROM audit_log WHERE action = 'subscription.changed' ORDER BY id`)
	if !strings.Contains(audit[1], `"status": "trialing"`) || !strings.Contains(audit[1], `"metadata": "changed"`) || strings.Contains(audit[1], "hunter2") ||
		!strings.HasPrefix(audit[1], "customer/cus_1 sub_1 ") || !strings.HasSuffix(audit[1], " {evt_1} test/1") {
		t.Errorf("audited %s", audit[1])
	}
	if !strings.Contains(audit[2], `{"status": "active"} {"status": "canceled"}`) {
		t.Errorf("audited more than what changed: %s", audit[2])
	}
}

// The document's columns hold UTC, whatever zone a time comes in.
func TestTimesAreStoredInUTC(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.user(1)
	w.link(id, "cus_1")
	seen := full()
	seen.CurrentPeriodEnd = at(2).In(time.FixedZone("east", 5*3600))
	w.set(id, seen)
	if got := one[string](w, `SELECT current_period_end::text FROM subscriptions`); got != "2026-01-02 12:00:00" {
		t.Errorf("stored %s", got)
	}
	if w.set(id, full()) {
		t.Error("the same moment in another zone was a change")
	}
}

// The plan is that of the item whose price is in the catalogue; a price that is in no catalogue
// changes no plan.
func TestSubscriptionPlan(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.user(1)
	w.link(id, "cus_1")
	planID := w.plan("prod_1", "Pro", "price_1")
	row := func() string {
		return one[string](w, `SELECT concat_ws(' ', plan_id = $1, subscription_type, stripe_price_id, stripe_product_id, quantity, price_known) FROM subscriptions`, planID)
	}
	metered := account.Item{PriceID: "price_metered", ProductID: "prod_m", Quantity: 0, Currency: "usd", Interval: "month", IntervalCount: 1}
	licensed := account.Item{PriceID: "price_1", ProductID: "prod_1", Quantity: 2, UnitAmount: 5, Currency: "usd", Interval: "year", IntervalCount: 1}
	seen := account.Subscription{ID: "sub_1", CustomerID: "cus_1", Status: account.StatusActive}
	for _, c := range []struct {
		name  string
		items []account.Item
		want  string
	}{
		{"none yet", nil, "1 f"},
		{"unknown at first", []account.Item{metered}, "monthly price_metered prod_m 0 f"},
		{"metered item first", []account.Item{metered, licensed}, "t yearly price_1 prod_1 2 t"},
		{"unknown price", []account.Item{metered}, "t yearly price_metered prod_m 0 f"},
		{"known again", []account.Item{licensed}, "t yearly price_1 prod_1 2 t"},
		{"no items", nil, "t yearly price_1 prod_1 1 t"},
	} {
		seen.Items = c.items
		w.set(id, seen)
		if got := row(); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	seen.Items = []account.Item{metered}
	w.set(id, seen)
	if p := string(mustUser(t, w, id).ProjectionJSON); !strings.Contains(p, `"plan": "Pro"`) || !strings.Contains(p, `"subscriptionActive": true`) {
		t.Errorf("an unknown price took the plan away: %s", p)
	}
}

// Drift that Stripe does not know a subscription marks its row and takes nothing; once it is
// shown again the mark is gone, also when nothing else differs.
func TestMissingSubscription(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.user(1)
	w.link(id, "cus_1")
	w.set(id, full())
	version := mustUser(t, w, id).ProjectionVersion
	w.update(func(ctx context.Context, tx *store.Tx) error { return tx.NoteMissing(ctx, "sub_1") })
	since := one[time.Time](w, `SELECT missing_since FROM subscriptions`)
	w.update(func(ctx context.Context, tx *store.Tx) error { return tx.NoteMissing(ctx, "sub_1") })
	if again := one[time.Time](w, `SELECT missing_since FROM subscriptions`); !again.Equal(since) {
		t.Error("it is missing since a later time when it is still missing")
	}
	if s := one[string](w, `SELECT status FROM subscriptions`); s != string(account.StatusTrialing) || mustUser(t, w, id).ProjectionVersion != version {
		t.Error("a subscription that is not found changed something")
	}
	w.set(id, full())
	if missing := one[bool](w, `SELECT missing_since IS NOT NULL FROM subscriptions`); missing {
		t.Error("a subscription that is shown again is still said to be missing")
	}
}

// A product takes over the app's own plan of its name, once; every other one gets its own.
func TestPlans(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.exec(`INSERT INTO plans (plan_name) VALUES ('Basic'), ('Pro'), ('Pro')`)
	first, second, third := w.plan("prod_1", "Pro", "price_1"), w.plan("prod_2", "Pro"), w.plan("prod_3", "Pro")
	if first != 2 || second != 3 || third <= 3 {
		t.Errorf("plans %d, %d, %d, want the app's 2 and 3 and a new one", first, second, third)
	}
	if again := w.plan("prod_1", "Basic", "price_1"); again != first {
		t.Errorf("a renamed product moved from plan %d to %d", first, again)
	}
	if got := all[string](w, `SELECT concat_ws(' ', id, plan_name, stripe_product_id, active) FROM plans WHERE id <= 3 ORDER BY id`); !slices.Equal(got, []string{"1 Basic t", "2 Basic prod_1 t", "3 Pro prod_2 t"}) {
		t.Errorf("plans %v", got)
	}
	// A product that is gone is not active any more; its plan keeps its name and its prices.
	w.update(func(ctx context.Context, tx *store.Tx) error {
		planID, readSeq, err := tx.LockPlan(ctx, "prod_1", "")
		if err != nil {
			return err
		}
		if planID != first || readSeq != 1 {
			t.Errorf("plan %d, read %d", planID, readSeq)
		}
		return tx.SetPlan(ctx, planID, account.Product{ID: "prod_1", Active: true, Deleted: true}, 7)
	})
	if got := one[string](w, `SELECT concat_ws(' ', plan_name, active, read_seq, (SELECT count(*) FROM plan_prices WHERE plan_id = id)) FROM plans WHERE id = $1`, first); got != "Basic f 7 1" {
		t.Errorf("a deleted product: %s", got)
	}
	w.update(func(ctx context.Context, tx *store.Tx) error {
		plans, err := tx.PlansOf(ctx, []string{"price_1", "price_none"})
		if want := (store.Plan{PriceID: "price_1", PlanID: first, Name: "Basic"}); len(plans) != 1 || plans["price_1"] != want {
			t.Errorf("prices %v", plans)
		}
		return err
	})
}

// Prices are written where they differ.
func TestPrices(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	planID := w.plan("prod_1", "Pro", "price_1")
	set := func(p account.Price) {
		w.update(func(ctx context.Context, tx *store.Tx) error {
			return tx.SetPlan(ctx, planID, account.Product{ID: "prod_1", Name: "Pro", Active: true, Prices: []account.Price{p}}, 2)
		})
	}
	row := func() string {
		return one[string](w, `SELECT concat_ws(' ', active, unit_amount, currency, billing_interval, interval_count, lookup_key, usage_type, xmin) FROM plan_prices`)
	}
	price := account.Price{ID: "price_1", ProductID: "prod_1", Active: true, UnitAmount: 2000, Currency: "usd", Interval: "month", IntervalCount: 1}
	before := row()
	if set(price); row() != before {
		t.Error("an unchanged price was written")
	}
	price.Active, price.Interval, price.IntervalCount, price.LookupKey = false, "", 0, "pro"
	if set(price); !strings.HasPrefix(row(), "f 2000 usd 1 pro ") {
		t.Errorf("price %s", row())
	}
	price.Interval, price.UsageType = "month", account.UsageMetered
	if set(price); !strings.HasPrefix(row(), "f 2000 usd month 1 pro metered ") {
		t.Errorf("price %s", row())
	}
}

// Who has to be looked at again when a product becomes known or is renamed.
func TestCustomersAffectedByPlan(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.user(1)
	item := func(price, product string) []account.Item {
		return []account.Item{{PriceID: price, ProductID: product, Quantity: 1}}
	}
	w.plan("prod_1", "Pro", "price_1")
	for _, s := range []account.Subscription{
		{ID: "sub_1", CustomerID: "cus_known", Status: account.StatusActive, Items: item("price_1", "prod_1")},
		{ID: "sub_2", CustomerID: "cus_unknown", Status: account.StatusActive, Items: item("price_new", "prod_1")},
		{ID: "sub_3", CustomerID: "cus_over", Status: account.StatusCanceled, Items: item("price_1", "prod_1")},
		{ID: "sub_4", CustomerID: "cus_other", Status: account.StatusActive, Items: item("price_other", "prod_2")},
	} {
		w.link(id, s.CustomerID)
		w.set(id, s)
	}
	w.update(func(ctx context.Context, tx *store.Tx) error {
		got, err := tx.CustomersAffectedByPlan(ctx, "prod_1", false)
		if len(got) != 0 {
			t.Errorf("before the price is known: %v", got)
		}
		return err
	})
	w.plan("prod_1", "Pro", "price_1", "price_new")
	for renamed, want := range map[bool][]string{false: {"cus_unknown"}, true: {"cus_known", "cus_over", "cus_unknown"}} {
		w.update(func(ctx context.Context, tx *store.Tx) error {
			got, err := tx.CustomersAffectedByPlan(ctx, "prod_1", renamed)
			if !slices.Equal(got, want) {
				t.Errorf("renamed %t: %v, want %v", renamed, got, want)
			}
			return err
		})
	}
}
