package stripeapi_test

import (
	"net/http"
	"reflect"
	"strconv"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

// A page of the list of events holds each event as a delivery would carry it, byte for byte: also
// what the SDK does not know.
func TestEventsPage(t *testing.T) {
	t.Parallel()
	const one = `{"id":"evt_2","object":"event","type":"customer.updated","created":1700000100,"data":{"object":{"id":"cus_1","object":"customer","new_field":{"a":1}}}}`
	const two = `{"id":"evt_1","object":"event","type":"invoice.paid","created":1700000000,"data":{"object":{"id":"in_1","object":"invoice"}}}`
	s, client := serve(t, answer(http.StatusOK, listJSON(true, one, two)))
	events, next, err := client.EventsPage(t.Context(), at(1700000000), "evt_3")
	if err != nil {
		t.Fatal(err)
	}
	if next != "evt_1" || len(events) != 2 {
		t.Fatalf("%d events, the next page is behind %q", len(events), next)
	}
	if e := events[0]; e.ID != "evt_2" || e.Type != "customer.updated" || !e.Created.Equal(at(1700000100)) || string(e.Body) != one {
		t.Errorf("the first event is %+v with body %s", e, e.Body)
	}
	want := map[string]string{"limit": "100", "starting_after": "evt_3", "created[gte]": strconv.Itoa(1700000000)}
	if got := s.seen()[0].form; !reflect.DeepEqual(got, want) {
		t.Errorf("asked %v, want %v", got, want)
	}
}

// The page after which there is none says so; the first is asked for without a place.
func TestPagesEnd(t *testing.T) {
	t.Parallel()
	s, client := serve(t, answer(http.StatusOK, listJSON(false, customerJSON)))
	customers, next, err := client.CustomersPage(t.Context(), "")
	if err != nil || next != "" {
		t.Fatalf("the next page is behind %q, error %v", next, err)
	}
	want := []account.Customer{{ID: adasCus, Email: "ada@example.com", Name: "Ada Lovelace", Created: at(1700000000), Metadata: map[string]string{"clerk_user_id": ada}}}
	if !reflect.DeepEqual(customers, want) {
		t.Errorf("customers are %+v, want %+v", customers, want)
	}
	if got := s.seen()[0].form; !reflect.DeepEqual(got, map[string]string{"limit": "100"}) {
		t.Errorf("asked %v", got)
	}
}

// Subscriptions of all customers come in both shapes, those that have ended too.
func TestSubscriptionsPage(t *testing.T) {
	t.Parallel()
	s, client := serve(t, answer(http.StatusOK, listJSON(true, subscriptionJSON("sub_1", false), subscriptionJSON("sub_2", true))))
	subscriptions, next, err := client.SubscriptionsPage(t.Context(), "")
	if err != nil || next != "sub_2" {
		t.Fatalf("the next page is behind %q, error %v", next, err)
	}
	if want := []account.Subscription{wantSubscription("sub_1"), wantSubscription("sub_2")}; !reflect.DeepEqual(subscriptions, want) {
		t.Errorf("subscriptions are %+v, want %+v", subscriptions, want)
	}
	if got := s.seen()[0].form; got["status"] != "all" || got["expand[0]"] != "data.latest_invoice" {
		t.Errorf("asked %v", got)
	}
}

func TestCataloguePages(t *testing.T) {
	t.Parallel()
	_, client := serve(t, answer(http.StatusOK, listJSON(false, `{"object":"product","id":"prod_1","name":"Pro","active":false}`)))
	products, _, err := client.ProductsPage(t.Context(), "")
	if want := []account.Product{{ID: "prod_1", Name: "Pro"}}; err != nil || !reflect.DeepEqual(products, want) {
		t.Errorf("products are %+v, error %v", products, err)
	}
	_, client = serve(t, answer(http.StatusOK, listJSON(false, `{"object":"price","id":"price_1","product":"prod_1","active":true,"unit_amount":1500,
		"currency":"usd","lookup_key":"pro","recurring":{"interval":"month","interval_count":3,"usage_type":"metered"}}`)))
	prices, _, err := client.PricesPage(t.Context(), "")
	want := []account.Price{{ID: "price_1", ProductID: "prod_1", Active: true, UnitAmount: 1500, Currency: "usd", Interval: "month", IntervalCount: 3, LookupKey: "pro", UsageType: account.UsageMetered}}
	if err != nil || !reflect.DeepEqual(prices, want) {
		t.Errorf("prices are %+v, error %v", prices, err)
	}
}

// What is not a page is refused: a part of a list looks like things that are gone.
func TestBadPages(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"an object without an id":                  listJSON(false, `{"object":"customer"}`),
		"an empty page with more behind it":        listJSON(true),
		"a page that ends where it is to continue": listJSON(true, customerJSON),
		"not a list": `{"object":"customer","id":"cus_1"}`,
		"HTML":       `<html>`,
	} {
		_, client := serve(t, answer(http.StatusOK, body))
		if _, _, err := client.CustomersPage(t.Context(), adasCus); failure.Of(err) != failure.Transient {
			t.Errorf("%s: error %v", name, err)
		}
	}
	_, client := serve(t, answer(http.StatusOK, listJSON(false, `{"object":"price","id":"price_1"}`)))
	if _, _, err := client.PricesPage(t.Context(), ""); failure.Of(err) != failure.Transient {
		t.Errorf("a price without a product: error %v", err)
	}
}
