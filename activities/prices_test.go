package activities_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// shop is a Stripe with a product of more prices than a list shows.
type shop struct {
	*stripeWorld
	product account.Product
	prices  map[string]account.Price
	asked   []string
	// failing are prices that Stripe always answers 500 for.
	failing map[string]bool
}

func (s *shop) Product(context.Context, string) (account.Product, error) { return s.product, nil }

func (s *shop) Price(_ context.Context, id string) (account.Price, error) {
	s.asked = append(s.asked, id)
	if s.failing[id] {
		return account.Price{}, failure.New(failure.Transient, "stripe", "read price", "http_500", nil)
	}
	if p, ok := s.prices[id]; ok {
		return p, nil
	}
	return account.Price{}, failure.NotFound("stripe", "read price")
}

// Of a product with very many prices those are read by their ids that our rows have and the list
// did not show; what is in neither stays as it is.
func TestPricesThatAListLeavesOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	price := func(id string, active bool) account.Price {
		return account.Price{ID: id, ProductID: "prod_1", Active: active, UnitAmount: 100, Currency: "usd", Interval: "month", IntervalCount: 1}
	}
	stripe := &shop{stripeWorld: w.stripe, prices: map[string]account.Price{}}
	catalogue := &activities.Catalogue{Store: w.store, Stripe: stripe}
	record := func(partial bool, prices ...account.Price) {
		t.Helper()
		stripe.asked = nil
		stripe.product = account.Product{ID: "prod_1", Name: "Pro", Active: true, Prices: prices, PricesPartial: partial}
		if _, err := catalogue.RecordProduct(t.Context(), activities.ProductInput{ProductID: "prod_1"}); err != nil {
			t.Fatal(err)
		}
	}
	active := func(id string) string {
		t.Helper()
		p, err := w.store.CataloguePrice(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if p == nil {
			return "unknown"
		}
		return fmt.Sprint(p.Sold)
	}
	record(false, price("price_sold", true), price("price_ended", true), price("price_gone", true), price("price_old", false))
	stripe.prices["price_ended"] = price("price_ended", false)
	// Somebody has one that nobody has read yet.
	w.stripe.customers["cus_1"] = account.Customer{ID: "cus_1", Metadata: map[string]string{"clerk_user_id": ada}}
	w.stripe.put(account.Subscription{ID: "sub_1", CustomerID: "cus_1", Status: account.StatusActive, Items: []account.Item{{PriceID: "price_mine", ProductID: "prod_1"}}})
	w.syncUser(t)
	w.record(t, "cus_1")
	stripe.prices["price_mine"] = price("price_mine", false)
	record(true, price("price_sold", true), price("price_new", true))
	if got := fmt.Sprint(stripe.asked); got != "[price_mine price_ended price_gone]" {
		t.Errorf("asked for %s", got)
	}
	for id, want := range map[string]string{"price_sold": "true", "price_new": "true", "price_mine": "false", "price_ended": "false", "price_gone": "true", "price_old": "false"} {
		if got := active(id); got != want {
			t.Errorf("%s is sold: %s, want %s", id, got, want)
		}
	}
}

// A price that cannot be read for ever keeps no other of its product from being known, is told of,
// and has nobody looked at in vain.
func TestAPriceThatFailsHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	price := func(id string) account.Price {
		return account.Price{ID: id, ProductID: "prod_1", UnitAmount: 100, Currency: "usd", Interval: "month", IntervalCount: 1}
	}
	stripe := &shop{stripeWorld: w.stripe, prices: map[string]account.Price{"price_b": price("price_b")}, failing: map[string]bool{"price_a": true},
		product: account.Product{ID: "prod_1", Name: "Pro", Active: true, Prices: []account.Price{price("price_c")}, PricesPartial: true}}
	catalogue := &activities.Catalogue{Store: w.store, Stripe: stripe}
	w.syncUser(t)
	for _, of := range []string{"a", "b"} {
		customer := "cus_" + of
		w.stripe.customers[customer] = account.Customer{ID: customer, Metadata: map[string]string{"clerk_user_id": ada}}
		w.stripe.put(account.Subscription{ID: "sub_" + of, CustomerID: customer, Status: account.StatusActive, Items: []account.Item{{ID: "si_" + of, PriceID: "price_" + of, ProductID: "prod_1"}}})
		w.record(t, customer)
	}
	result, err := catalogue.RecordProduct(t.Context(), activities.ProductInput{ProductID: "prod_1"})
	if failure.CodeOf(err) != "http_500" || failure.Of(err) != failure.Transient {
		t.Errorf("ended with %v", err)
	}
	if result.Affected != 1 {
		t.Errorf("%d customers are looked at, want the one whose price is known now", result.Affected)
	}
	for id, want := range map[string]bool{"price_a": false, "price_b": true, "price_c": true} {
		p, err := w.store.CataloguePrice(t.Context(), id)
		if err != nil || (p != nil) != want {
			t.Errorf("%s: %+v (%v), want it known: %t", id, p, err, want)
		}
	}
}

// lists are the lists of a shop.
type lists struct {
	*shop
	activities.StripeLists
	all []account.Price
}

func (l *lists) PricesPage(context.Context, string) ([]account.Price, string, error) {
	return l.all, "", nil
}

// That a price is archived which is believed to be sold is told although its product has so many
// that a read of it shows only those that are sold.
func TestAnArchivedPriceOfManyIsFoundToBeArchived(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	price := func(id string, active bool) account.Price {
		return account.Price{ID: id, ProductID: "prod_1", Active: active, UnitAmount: 100, Currency: "usd", Interval: "month", IntervalCount: 1}
	}
	sold, archived := price("price_sold", true), price("price_archived", false)
	stripe := &lists{shop: &shop{stripeWorld: w.stripe, prices: map[string]account.Price{archived.ID: archived}}, all: []account.Price{sold, archived}}
	stripe.product = account.Product{ID: "prod_1", Name: "Pro", Active: true, Prices: []account.Price{sold, price(archived.ID, true)}}
	if _, err := (&activities.Catalogue{Store: w.store, Stripe: stripe}).RecordProduct(t.Context(), activities.ProductInput{ProductID: "prod_1"}); err != nil {
		t.Fatal(err)
	}
	stripe.product.Prices, stripe.product.PricesPartial = []account.Price{sold}, true
	r := &activities.Reconciler{Store: w.store, Stripe: stripe, Deletion: account.DeleteKeep}
	if err := w.store.BeginReconciliation(t.Context(), store.Reconciliation{ID: "run_1"}); err != nil {
		t.Fatal(err)
	}
	if scan, err := r.CompareStripe(t.Context(), activities.ScanInput{RunID: "run_1", List: activities.ListPrices}); err != nil || scan.Found != 1 {
		t.Fatalf("the list shows %+v: %v", scan, err)
	}
	got, err := r.LookAtStripe(t.Context(), activities.LookInput{RunID: "run_1", Kind: account.KindProduct})
	if err != nil || got.Confirmed != 1 || got.Gone != 0 || got.Undecided != 0 {
		t.Errorf("came to %+v: %v", got, err)
	}
}

// A product that has very many prices, none of them active any more, is renamed for those who have
// it all the same.
func TestAProductWhosePricesAreAllArchivedIsRenamedForThoseWhoHaveIt(t *testing.T) {
	t.Parallel()
	for name, partial := range map[string]bool{"few prices": false, "very many, none of them active": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, account.DeleteKeep)
			b.person("cus_1")
			archived := pro("price_1")
			archived.Prices[0].Active = false
			record := func() {
				t.Helper()
				if _, err := b.catalogue.RecordProduct(t.Context(), activities.ProductInput{ProductID: "prod_1"}); err != nil {
					t.Fatal(err)
				}
			}
			b.stripe.products["prod_1"] = archived
			record()
			b.stripe.put(subscription("sub_1", "cus_1", account.StatusActive))
			b.record("cus_1")
			b.is([]string{"Pro"}, `SELECT projection ->> 'plan' FROM person_user`)
			b.rows(`UPDATE pokes SET due_at = NULL RETURNING ''`)
			renamed := archived
			renamed.Name = "Premium"
			if partial {
				renamed.Prices, renamed.PricesPartial = nil, true
			}
			b.stripe.products["prod_1"] = renamed
			record()
			b.is([]string{"customer/cus_1"}, `SELECT entity FROM pokes WHERE due_at IS NOT NULL AND entity LIKE 'customer/%'`)
		})
	}
}
