package store_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// What a product allows beside it and how a price's quantity comes about are compared with Stripe like the rest: one that
// was stored before either was known is found, and reading it mends it.
func TestCatalogueRulesAreCompared(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	planID := w.plan("prod_1", "Pro", "price_1")
	product := account.Product{ID: "prod_1", Name: "Pro", Active: true, Beside: true, Prices: []account.Price{
		{ID: "price_1", ProductID: "prod_1", Active: true, UnitAmount: 2000, Currency: "usd", Interval: "month", IntervalCount: 1, UsageType: account.UsageMetered},
	}}
	classes := func() (found []account.Drift) {
		compare := w.Compare("run_1", account.DeletionPolicy(""))
		products, err := compare.Products(t.Context(), []account.Product{product})
		must(t, err)
		prices, err := compare.Prices(t.Context(), product.Prices)
		must(t, err)
		for _, d := range slices.Concat(products, prices) {
			found = append(found, d.Class)
		}
		return found
	}
	if got := classes(); !slices.Equal(got, []account.Drift{account.DriftStalePlan, account.DriftStalePlan}) {
		t.Errorf("before the read: %v", got)
	}
	w.update(func(ctx context.Context, tx *store.Tx) error { return tx.SetPlan(ctx, planID, product, 2) })
	if got := classes(); len(got) != 0 {
		t.Errorf("after the read: %v", got)
	}
}

// takeBack takes migrations back until the one of this name is.
func takeBack(t *testing.T, m *store.Migrator, name string) {
	t.Helper()
	for {
		taken, err := m.Down(t.Context())
		must(t, err)
		if taken == "" {
			t.Fatalf("no migration %q was applied", name)
		}
		if strings.Contains(taken, name) {
			return
		}
	}
}

// A database from before has its products read for what it does not say, and its users given another customer where their
// primary one is gone from Stripe.
func TestCatalogueRulesOfAStoredDatabase(t *testing.T) {
	t.Parallel()
	dsn := databases.DSN(t)
	w := worldOn(t, dsn, store.Options{})
	m := migrator(t, dsn)
	takeBack(t, m, "00015")
	w.exec(`INSERT INTO plans (plan_name, stripe_product_id) VALUES ('Pro', 'prod_1')`)
	w.exec(`INSERT INTO plans (plan_name) VALUES ('of the app alone')`)
	for n, customer := range []string{"cus_there", "cus_deleted", "cus_missing", "cus_erased"} {
		w.exec(`INSERT INTO person_user (clerk_user_id, stripe_customer_id, deletion_requested_at) VALUES ('user_' || $1::int, $2::text, CASE WHEN $2::text = 'cus_erased' THEN now() END)`, n, customer)
		w.exec(`INSERT INTO stripe_customers (stripe_customer_id, user_id, deleted_in_stripe)
			SELECT $1, id, $1 IN ('cus_deleted', 'cus_erased') FROM person_user WHERE stripe_customer_id = $1`, customer)
	}
	w.exec(`INSERT INTO drift (class, entity, subject) VALUES ('customer_missing_in_stripe', 'customer/cus_missing', 'cus_missing')`)
	w.exec(`INSERT INTO drift (class, entity, subject, resolved_at) VALUES ('customer_missing_in_stripe', 'customer/cus_there', 'cus_there', now())`)
	must(t, migrate(t.Context(), dsn))
	want := []string{"product/prod_1", "user/user_1", "user/user_2"}
	if got := all[string](w, `SELECT entity FROM pokes WHERE due_at <= now() ORDER BY 1`); !slices.Equal(got, want) {
		t.Errorf("woken: %v, want %v", got, want)
	}
	if got := all[string](w, `SELECT stripe_customer_id FROM stripe_customers WHERE missing_since IS NOT NULL`); !slices.Equal(got, []string{"cus_missing"}) {
		t.Errorf("missing: %v", got)
	}
}
