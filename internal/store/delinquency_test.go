package store_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// tell records what an event told of an invoice of a subscription.
func (w *world) tell(event string, told time.Time, invoice account.Payment) {
	w.t.Helper()
	invoice.Kind, invoice.SubscriptionID, invoice.InvoiceID, invoice.Currency = account.PaymentInvoice, "sub_1", invoice.ID, "usd"
	w.update(func(ctx context.Context, tx *store.Tx) error { return tx.RecordPayment(ctx, invoice, event, told) })
}

// owing is the subscription as a read shows it.
func owing(status account.Status, latest time.Time) account.Subscription {
	return account.Subscription{ID: "sub_1", CustomerID: "cus_1", Status: status, LatestInvoiceCreated: latest, CurrentPeriodStart: latest, Created: at(1),
		Items: []account.Item{{ID: "si_1", PriceID: "price_1", ProductID: "prod_1", Quantity: 1, UnitAmount: 2000, Currency: "usd", Interval: "month", IntervalCount: 1}}}
}

func (w *world) owedSince() string {
	w.t.Helper()
	return one[string](w, `SELECT coalesce(to_char(past_due_since AT TIME ZONE 'utc', 'MM-DD') || ' ' || coalesce(past_due_invoice, '-'), 'nothing') FROM subscriptions WHERE stripe_subscription_id = 'sub_1'`)
}

// Since when a subscription owes is stored while it does, and is nothing afterwards; the next time
// is another.
func TestPastDueSinceIsStoredWhileItLasts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.user(1)
	w.link(id, "cus_1")
	w.plan("prod_1", "Pro", "price_1")
	expect := func(what, want string) {
		t.Helper()
		if got := w.owedSince(); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	w.set(id, owing(account.StatusActive, at(1)))
	expect("paid", "nothing")
	w.tell("evt_1", at(2), account.Payment{ID: "in_1", Status: "open", Created: at(2), FinalizedAt: at(2)})
	w.set(id, owing(account.StatusPastDue, at(2)))
	expect("told before its first failure", "01-02 in_1")
	w.tell("evt_2", at(9), account.Payment{ID: "in_1", Status: "open", Created: at(2), FinalizedAt: at(2), FailedAt: at(9), Attempts: 1})
	if !w.set(id, owing(account.StatusPastDue, at(2))) {
		t.Error("the first failure changed nothing")
	}
	expect("the bank took a week", "01-09 in_1")
	w.tell("evt_3", at(10), account.Payment{ID: "in_2", Status: "open", Created: at(10), FinalizedAt: at(10), FailedAt: at(10), Attempts: 1})
	w.set(id, owing(account.StatusPastDue, at(10)))
	expect("invoiced again", "01-09 in_1")
	w.tell("evt_4", at(11), account.Payment{ID: "in_1", Status: "void", Created: at(2)})
	w.set(id, owing(account.StatusPastDue, at(10)))
	expect("the first was voided", "01-09 in_1")
	if w.set(id, owing(account.StatusPastDue, at(10))) {
		t.Error("the same was written again")
	}
	w.tell("evt_5", at(12), account.Payment{ID: "in_2", Status: "paid", Created: at(10), PaidAt: at(12)})
	w.set(id, owing(account.StatusActive, at(10)))
	expect("paid again", "nothing")
	w.tell("evt_6", at(20), account.Payment{ID: "in_3", Status: "open", Created: at(20), FinalizedAt: at(20), FailedAt: at(20), Attempts: 1})
	w.set(id, owing(account.StatusPastDue, at(20)))
	expect("the next time", "01-20 in_3")
	held, err := w.SubscriptionsOfCustomer(t.Context(), "cus_1")
	must(t, err)
	if got := held[0].Held().PastDueSince; !got.Equal(at(20)) {
		t.Errorf("the decisions are given %s", got)
	}
}

// What a program of before stores beside this one is past_due, without since when: nobody loses
// their grace by that.
func TestPastDueSinceOfWhatAProgramOfBeforeStores(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.user(1)
	w.link(id, "cus_1")
	w.plan("prod_1", "Pro", "price_1")
	w.set(id, owing(account.StatusActive, at(1)))
	w.exec(`UPDATE subscriptions SET status = 'past_due', latest_invoice_created = $1`, at(2))
	held, err := w.SubscriptionsOfCustomer(t.Context(), "cus_1")
	must(t, err)
	if got := held[0].Held().PastDueSince; !got.Equal(at(2)) {
		t.Errorf("the decisions are given %s", got)
	}
	if unknown, err := w.OwedUnknown(t.Context(), account.CustomerEntity("cus_1"), 1<<62, []string{"sub_1"}); err != nil || len(unknown) != 1 {
		t.Errorf("its invoices are not asked for: %v, %v", unknown, err)
	}
}

// Whose open invoices have to be asked for: where neither the row nor an invoice of this
// delinquency says since when.
func TestOwedUnknown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.user(1)
	w.link(id, "cus_1")
	expect := func(what string, want ...string) {
		t.Helper()
		got, err := w.OwedUnknown(t.Context(), account.CustomerEntity("cus_1"), 1<<62, []string{"sub_1"})
		must(t, err)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	expect("nothing is stored", "sub_1")
	w.tell("evt_1", at(1), account.Payment{ID: "in_1", Status: "open", Created: at(1)})
	expect("an open invoice is")
	w.tell("evt_2", at(2), account.Payment{ID: "in_2", Status: "paid", Created: at(2)})
	expect("a later one was paid", "sub_1")
	w.set(id, owing(account.StatusPastDue, at(3)))
	expect("it is stored without an invoice")
	w.exec(`UPDATE subscriptions SET items = NULL`)
	expect("it was stored before any of this was kept", "sub_1")
	if w.set(id, owing(account.StatusPastDue, at(3))) {
		t.Error("what is kept now is told as a change")
	}
	expect("it was read since")
	w.set(id, owing(account.StatusActive, at(3)))
	expect("it was paid meanwhile", "sub_1")
	w.tell("evt_3", at(4), account.Payment{ID: "in_3", Status: "open", Created: at(3), FinalizedAt: at(3)})
	w.set(id, owing(account.StatusPastDue, at(3)))
	expect("an open invoice says so")
	w.tell("evt_4", at(5), account.Payment{ID: "in_3", Status: "paid", Created: at(3), PaidAt: at(5)})
	expect("that one was paid, and it still owes", "sub_1")
}

// The first of January's days on which everything was stored by the version before, with what it
// knew.
func TestStoredDelinquenciesAndPlansAreMigrated(t *testing.T) {
	t.Parallel()
	dsn := databases.DSN(t)
	w := worldOn(t, dsn, store.Options{})
	m := migrator(t, dsn)
	for name := ""; name != "00016_invoices_items_refunds.sql"; {
		var err error
		name, err = m.Down(t.Context())
		must(t, err)
	}
	user := one[string](w, `INSERT INTO person_user (clerk_user_id) VALUES ('user_1') RETURNING id::text`)
	w.exec(`INSERT INTO stripe_customers (stripe_customer_id, user_id) SELECT 'cus_' || n, $1 FROM generate_series(1, 5) n`, user)
	w.exec(`INSERT INTO plans (plan_name, stripe_product_id) VALUES ('API calls', 'prod_calls')`)
	for n, s := range []string{"past_due", "past_due", "active", "canceled", "canceled"} {
		w.exec(`INSERT INTO subscriptions (user_id, stripe_subscription_id, stripe_customer_id, status, quantity, latest_invoice_created)
			VALUES ($1, 'sub_' || $2::int, 'cus_' || $2::int, $3, $4, '2026-01-20 12:00Z')`, user, n+1, s, map[bool]int{true: 0, false: 1}[n == 4])
	}
	invoice := func(id, status string, rank, day int) {
		w.exec(`INSERT INTO payments (id, kind, stripe_subscription_id, status, status_rank, amount, currency, event_id, occurred_at, told_at, charge_told_at, recorded_at)
			VALUES ($1, 'invoice', 'sub_1', $2, $3, 1, 'usd', 'evt', $4::timestamptz, $4::timestamptz + interval '5 days', $4::timestamptz, $4::timestamptz + interval '1 hour')`, id, status, rank, at(day))
	}
	invoice("in_old", "open", 2, 1)
	invoice("in_paid", "paid", 5, 2)
	invoice("in_now", "open", 2, 10)
	invoice("in_next", "open", 2, 15)
	for id, status := range map[string]string{"dp_1": "won", "dp_2": "lost", "dp_3": "under_review"} {
		w.exec(`INSERT INTO payments (id, kind, status, status_rank, amount, currency, event_id, told_at, charge_told_at)
			VALUES ($1, 'dispute', $2, CASE $2 WHEN 'won' THEN 7 WHEN 'lost' THEN 6 ELSE 5 END, 1, 'usd', 'evt', now(), now())`, id, status)
	}
	w.exec(`INSERT INTO payments (id, kind, status, status_rank, amount, amount_refunded, currency, charge_id, event_id, told_at, charge_told_at)
		VALUES ('ch_1', 'charge', 'partially_refunded', 4, 100, 40, 'usd', 'ch_1', 'evt', $1, $1)`, at(3))
	must(t, migrate(t.Context(), dsn))

	if got, want := all[string](w, `SELECT stripe_subscription_id || ' ' || coalesce(to_char(past_due_since AT TIME ZONE 'utc', 'DD HH24:MI'), 'nothing') FROM subscriptions ORDER BY 1`),
		[]string{"sub_1 10 13:00", "sub_2 20 12:00", "sub_3 nothing", "sub_4 nothing", "sub_5 nothing"}; !slices.Equal(got, want) {
		t.Errorf("past due since %v, want %v", got, want)
	}
	if got, want := all[string](w, `SELECT entity FROM pokes WHERE due_at IS NOT NULL ORDER BY 1`),
		[]string{"customer/cus_1", "customer/cus_2", "customer/cus_3", "customer/cus_5", "product/prod_calls"}; !slices.Equal(got, want) {
		t.Errorf("read once are %v, want %v", got, want)
	}
	for _, p := range []account.Payment{{Kind: account.PaymentDispute, Status: "won"}, {Kind: account.PaymentDispute, Status: "lost"}, {Kind: account.PaymentDispute, Status: "under_review"}} {
		if got := one[int](w, `SELECT status_rank FROM payments WHERE kind = 'dispute' AND status = $1`, p.Status); got != p.Rank() {
			t.Errorf("a dispute that is %s ranks %d, want %d", p.Status, got, p.Rank())
		}
	}
	// A refund that fails now takes back what was stored then.
	w.update(func(ctx context.Context, tx *store.Tx) error {
		return tx.RecordPayment(ctx, account.Payment{ID: "re_1", Kind: account.PaymentRefund, ChargeID: "ch_1", Status: "failed", Amount: 40, Currency: "usd", Created: at(3), FailedAt: at(9)}, "evt_9", at(9))
	})
	if got := one[string](w, `SELECT status || ' ' || amount_refunded FROM payments WHERE id = 'ch_1'`); got != "succeeded 0" {
		t.Errorf("the charge is %s", got)
	}
}

// The plan does not follow the order in which Stripe lists items, and a row of before is put right.
func TestThePlanIsOneItemsWhateverTheirOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.user(1)
	w.link(id, "cus_1")
	calls, pro := w.plan("prod_calls", "API calls", "price_calls"), w.plan("prod_pro", "Pro", "price_pro")
	support := w.plan("prod_support", "Support", "price_support")
	w.exec(`UPDATE plans SET add_on = true WHERE id = $1`, support)
	item := func(name string, amount, quantity int64) account.Item {
		return account.Item{ID: "si_" + name, PriceID: "price_" + name, ProductID: "prod_" + name, UnitAmount: amount, Quantity: quantity, Metered: quantity == 0, Currency: "usd", Interval: "month", IntervalCount: 1}
	}
	subscription := func(items ...account.Item) account.Subscription {
		return account.Subscription{ID: "sub_1", CustomerID: "cus_1", Status: account.StatusActive, Created: at(1), Items: items}
	}
	row := func() string {
		return one[string](w, `SELECT concat_ws(' ', plan_id, stripe_price_id, stripe_item_id, quantity, unit_amount, currency, jsonb_array_length(items)) FROM subscriptions`)
	}
	metered, base, addOn := item("calls", 1, 0), item("pro", 2000, 3), item("support", 99900, 1)
	w.set(id, subscription(metered))
	if got, want := row(), fmt.Sprint(calls, " price_calls si_calls 0 1 usd 1"); got != want {
		t.Errorf("metered alone: %s, want %s", got, want)
	}
	// As it was stored when the first item was the plan.
	w.exec(`UPDATE subscriptions SET items = NULL, stripe_item_id = NULL`)
	want := fmt.Sprint(pro, " price_pro si_pro 3 2000 usd 3")
	for _, items := range [][]account.Item{{metered, addOn, base}, {base, metered, addOn}, {addOn, base, metered}} {
		w.set(id, subscription(items...))
		if got := row(); got != want {
			t.Errorf("%v: %s, want %s", items, got, want)
		}
	}
	if w.set(id, subscription(metered, base, addOn)) {
		t.Error("another order was written as a change")
	}
	// What it costs cannot be known exactly: then it has no amount, and is not nothing.
	base.UnitAmount, base.Unpriced, base.Currency = 0, true, "eur"
	w.set(id, subscription(metered, base, addOn))
	if got, want := row(), fmt.Sprint(pro, " price_pro si_pro 3 eur 3"); got != want {
		t.Errorf("unpriced: %s, want %s", got, want)
	}
	// None is in the catalogue: the last known plan stays.
	other := item("other", 500, 1)
	w.set(id, subscription(item("unknown", 1, 0), other))
	if got, want := row(), fmt.Sprint(pro, " price_other si_other 1 500 usd 2"); got != want {
		t.Errorf("unknown: %s, want %s", got, want)
	}
}

// A product that becomes known, or an add-on, or none, has everybody looked at who holds an item of
// it, whichever item makes the plan.
func TestWhoHoldsAnItemIsAffectedByItsProduct(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.user(1)
	w.plan("prod_calls", "API calls", "price_calls")
	item := func(name string) account.Item {
		return account.Item{ID: "si_" + name, PriceID: "price_" + name, ProductID: "prod_" + name, Quantity: 1, Metered: name == "calls"}
	}
	for customer, items := range map[string][]account.Item{
		"cus_1": {item("calls"), item("pro")}, "cus_2": {item("calls")}, "cus_3": {item("other"), item("pro")},
	} {
		w.link(id, customer)
		w.set(id, account.Subscription{ID: "sub_" + customer, CustomerID: customer, Status: account.StatusActive, Items: items})
	}
	for _, product := range []string{"prod_pro", "prod_other"} {
		got, err := w.PricesWanted(t.Context(), product, []string{})
		if want := []string{"price_" + product[len("prod_"):]}; err != nil || !slices.Equal(got, want) {
			t.Errorf("of %s are wanted %v (%v), want %v", product, got, err, want)
		}
	}
	affected := func(product string, changed bool) (got []string) {
		w.update(func(ctx context.Context, tx *store.Tx) (err error) {
			got, err = tx.CustomersAffectedByPlan(ctx, product, changed)
			return err
		})
		return got
	}
	// One whose price is not known still is told of nothing: its customers would have it read again,
	// and it them.
	if got := affected("prod_pro", false); len(got) != 0 {
		t.Errorf("affected before the price is known: %v", got)
	}
	w.plan("prod_pro", "Pro", "price_pro")
	w.plan("prod_other", "Other", "price_other")
	for _, c := range []struct {
		product string
		changed bool
		want    []string
	}{
		{"prod_pro", false, []string{"cus_1", "cus_3"}}, {"prod_other", false, []string{"cus_3"}}, {"prod_calls", false, nil},
		{"prod_calls", true, []string{"cus_1", "cus_2"}}, {"prod_none", true, nil},
	} {
		if got := affected(c.product, c.changed); !slices.Equal(got, c.want) {
			t.Errorf("%s, changed %t: %v, want %v", c.product, c.changed, got, c.want)
		}
	}
}
