package stripeapi_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/stripeapi"
)

// One subscription whose items Stripe does not answer for holds up no list: the others are whole, and it is told of.
func TestASubscriptionThatCannotBeReadHoldsUpNoList(t *testing.T) {
	t.Parallel()
	for status, held := range map[int]bool{http.StatusInternalServerError: false, http.StatusTooManyRequests: true, http.StatusUnauthorized: true} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			if strings.HasPrefix(r.URL.Path, "/v1/subscription_items") {
				w.WriteHeader(status)
				fmt.Fprint(w, `{"error":{"type":"api_error"}}`)
				return
			}
			many := `{"id":"sub_many","object":"subscription","customer":"cus_1","status":"active","created":1700000000,"metadata":{"clerk_user_id":"user_1"},
				"items":{"object":"list","url":"/v1/subscription_items","has_more":true,"data":[{"id":"si_1","object":"subscription_item","price":{"id":"price_1","object":"price","product":"prod_1"}}]}}`
			fmt.Fprint(w, listJSON(false, many, subscriptionJSON("sub_2", false)))
		}))
		t.Cleanup(server.Close)
		client := stripeapi.New(stripeapi.Options{Key: "sk_test_1", BaseURL: server.URL})
		t.Cleanup(client.Close)
		list, _, err := client.SubscriptionsPage(t.Context(), "")
		if held != (err != nil) {
			t.Errorf("%d: %v", status, err)
		}
		if !held && (len(list) != 2 || !list[0].Unread || list[0].CustomerID != "cus_1" || list[0].Metadata["clerk_user_id"] != "user_1" || list[1].Unread) {
			t.Errorf("%d: subscriptions are %+v", status, list)
		}
	}
}
