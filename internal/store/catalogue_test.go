package store_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// What a product allows beside it and how a price's quantity comes about are compared with Stripe
// like the rest: one that was stored before either was known is found, and reading it mends it.
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

// A database from before has its products read for what it does not say, and its users given
// another customer where their primary one is gone from Stripe.
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

// What a checkout said before it was told apart who had written it: where the event is kept, it
// tells.
func TestStoredClaimsAreToldApart(t *testing.T) {
	t.Parallel()
	dsn := databases.DSN(t)
	w := worldOn(t, dsn, store.Options{})
	m := migrator(t, dsn)
	takeBack(t, m, "00017")
	told := func(session string, payload any) {
		w.exec(`INSERT INTO webhook_events (source, event_id, type, status, payload) VALUES ('stripe', 'evt_' || $1::text, 'checkout.session.completed', 'completed', $2)`, session, payload)
		w.exec(`INSERT INTO customer_claims (stripe_customer_id, clerk_user_id, source, event_id) VALUES ('cus_1', 'user_1', 'checkout:' || $1::text, 'evt_' || $1::text)`, session)
	}
	object := func(rest string) string { return `{"data":{"object":{"client_reference_id":"user_1",` + rest + `}}}` }
	told("cs_server", object(`"metadata":{"clerk_user_id":"user_1"},"customer_details":{"name":"Zo\u00eb"}`))
	told("cs_other_key", object(`"metadata":{"userId":"user_1"}`))
	told("cs_payer", object(`"metadata":{}`))
	told("cs_another", object(`"metadata":{"clerk_user_id":"user_2"}`))
	told("cs_link", object(`"metadata":{},"payment_link":"plink_1"`))
	told("cs_links_own", object(`"metadata":{"clerk_user_id":"user_1"},"payment_link":"plink_1"`))
	told("cs_purged", nil)
	told("cs_no_json", object(`"metadata":{"clerk_user_id":"user_1","x":"\u0000"}`))
	w.exec(`INSERT INTO customer_claims (stripe_customer_id, clerk_user_id, source) VALUES ('cus_1', 'user_1', 'customer:cus_1'), ('cus_1', 'user_1', 'checkout:cs_bulk')`)
	must(t, migrate(t.Context(), dsn))
	want := []string{
		"checkout:cs_another", "checkout:cs_bulk", "checkout:cs_no_json", "checkout:cs_payer", "checkout:cs_purged",
		"checkout_metadata:cs_links_own", "checkout_metadata:cs_other_key", "checkout_metadata:cs_server", "customer:cus_1", "payment_link_reference:cs_link",
	}
	if got := all[string](w, `SELECT source FROM customer_claims ORDER BY source COLLATE "C"`); !slices.Equal(got, want) {
		t.Errorf("they are %v, want %v", got, want)
	}
}

// A pass that ended comes back to nothing: what it has put aside has failed.
func TestWhatAnEndedPassHasPutAsideHasFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	must(t, w.BeginBulk(t.Context(), store.BulkRun{ID: "bulk_1", Caller: "operator"}))
	must(t, w.NoteBulkPage(t.Context(), "bulk_1", store.BulkPage{Step: "customers", Next: "cus_2", Seen: 2, Found: map[string]int64{},
		Failures: map[account.Entity]string{"customer/cus_1": "bad"}, Quarantined: map[account.Entity]string{"customer/cus_2": "http_500"}}))
	for range 2 {
		must(t, w.FinishBulk(t.Context(), "bulk_1", "canceled"))
		run, err := w.Bulk(t.Context(), "bulk_1")
		if err != nil || run.Failed != 2 || run.Quarantined != 0 || run.FinishedAt == nil {
			t.Errorf("it ended as %+v: %v", run, err)
		}
	}
	if due, wait, err := w.BulkRetries(t.Context(), "bulk_1", 5); err != nil || len(due) != 0 || wait != 0 {
		t.Errorf("to be tried again are %v, in %s: %v", due, wait, err)
	}
}

// That Clerk does not have whom a claim names is asked again while the customer is nobody's, and
// stands once it is somebody's: nobody asks any more, and the claim would come to be against them.
func TestWhomClerkDoesNotHaveStaysSoBesideAnOwner(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.user(1)
	w.exec(`INSERT INTO stripe_customers (stripe_customer_id) VALUES ('cus_1')`)
	w.exec(`INSERT INTO customer_claims (stripe_customer_id, clerk_user_id, source) VALUES ('cus_1', 'user_1', 'subscription:sub_1'), ('cus_1', 'user_old', 'subscription:sub_2')`)
	w.exec(`INSERT INTO users_not_in_clerk (clerk_user_id, seen_at) VALUES ('user_old', now() - interval '2 hours')`)
	against := func() bool {
		evidence, err := w.EvidenceOn(t.Context(), "cus_1")
		must(t, err)
		return evidence.Against("user_1")
	}
	if !against() {
		t.Error("what Clerk said long ago counts still")
	}
	w.link(id, "cus_1")
	if against() {
		t.Error("whom Clerk does not have is against the owner")
	}
	w.exec(`INSERT INTO person_user (clerk_user_id) VALUES ('user_old')`)
	if !against() {
		t.Error("one who signed up since is not")
	}
}
