package stripeapi_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeapi"
)

const cursorGone = `{"error":{"type":"invalid_request_error","code":"resource_missing","param":"starting_after","message":"No such customer: 'cus_gone'"}}`

// Stripe does not go on behind an object that was deleted. Then a list goes on from when that was
// made; what does not say when begins anew.
func TestAListGoesOnBehindWhatIsGone(t *testing.T) {
	t.Parallel()
	for after, created := range map[string]string{"cus_gone@1700000000": "1700000000", "cus_gone": ""} {
		var asked []string
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			asked = append(asked, q.Get("starting_after")+" "+q.Get("created[lte]"))
			w.Header().Set("Content-Type", "application/json")
			if q.Get("starting_after") == "cus_gone" {
				w.WriteHeader(http.StatusBadRequest)
				fmt.Fprint(w, cursorGone)
				return
			}
			fmt.Fprint(w, listJSON(true, customerJSON))
		}))
		t.Cleanup(server.Close)
		client := stripeapi.New(stripeapi.Options{Key: "sk_test_1", BaseURL: server.URL})
		t.Cleanup(client.Close)
		customers, next, err := client.CustomersPage(t.Context(), after)
		if err != nil || len(customers) != 1 || next != adasCus {
			t.Errorf("%s: %d customers, the next behind %q: %v", after, len(customers), next, err)
		}
		if got := strings.Join(asked, ", "); got != "cus_gone ,  "+created {
			t.Errorf("%s: asked %q", after, got)
		}
	}
}

// A list of one customer's own things that cannot go on begins anew, and says nothing of the
// customer.
func TestAListWithinBeginsAnew(t *testing.T) {
	t.Parallel()
	for _, times := range []int{1, 100} {
		refused := 0
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			switch {
			case r.URL.Query().Get("starting_after") == "":
				fmt.Fprint(w, listJSON(true, subscriptionJSON("sub_1", false)))
			case refused < times:
				refused++
				w.WriteHeader(http.StatusBadRequest)
				fmt.Fprint(w, cursorGone)
			default:
				fmt.Fprint(w, listJSON(false, subscriptionJSON("sub_2", false)))
			}
		}))
		t.Cleanup(server.Close)
		client := stripeapi.New(stripeapi.Options{Key: "sk_test_1", BaseURL: server.URL})
		t.Cleanup(client.Close)
		list, _, err := client.CustomerSubscriptions(t.Context(), adasCus)
		if times == 1 && (err != nil || len(list) != 2) || times > 1 && (failure.Of(err) != failure.Transient || failure.IsNotFound(err)) {
			t.Errorf("refused %d times: %d subscriptions, %v", refused, len(list), err)
		}
	}
}

// Of a product with very many prices those that are sold are read, and it says that there are
// others.
func TestAProductWithVeryManyPrices(t *testing.T) {
	t.Parallel()
	const sold, archived = 150, 10100
	calls := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		w.Header().Set("Content-Type", "application/json")
		if strings.HasPrefix(r.URL.Path, "/v1/products/") {
			fmt.Fprint(w, `{"id":"prod_1","object":"product","name":"Pro","active":true}`)
			return
		}
		q := r.URL.Query()
		total := sold + archived
		if q.Get("active") == "true" {
			total = sold
		}
		from := 0
		if after := q.Get("starting_after"); after != "" {
			n, _ := strconv.Atoi(strings.TrimPrefix(after, "price_"))
			from = n + 1
		}
		var data []string
		for n := from; n < min(from+100, total); n++ {
			data = append(data, fmt.Sprintf(`{"id":"price_%d","object":"price","product":"prod_1","currency":"usd","unit_amount":1,"active":%t}`, n, n < sold))
		}
		fmt.Fprint(w, listJSON(from+100 < total, data...))
	}))
	t.Cleanup(server.Close)
	client := stripeapi.New(stripeapi.Options{Key: "sk_test_1", BaseURL: server.URL})
	t.Cleanup(client.Close)
	product, err := client.Product(t.Context(), "prod_1")
	if err != nil || len(product.Prices) != sold || !product.PricesPartial || !product.Prices[0].Active {
		t.Errorf("%d prices, partial %t: %v", len(product.Prices), product.PricesPartial, err)
	}
	if calls > 20 {
		t.Errorf("that took %d calls", calls)
	}
}
