package stripeapi_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeapi"
)

// One subscription whose items Stripe does not answer for holds up no list: the others are whole,
// and it is told of.
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

// Of a subscription whose items cannot be read all else is answered: how it stands, how it ends and
// what manages it, in a list and by itself. Where it is our key or our rate that is refused, that
// stands beside the failure.
func TestWhatIsShownBesideItemsIsAnswered(t *testing.T) {
	t.Parallel()
	want := wantSubscription("sub_1")
	want.Items, want.Unread = nil, true
	many := strings.Replace(subscriptionJSON("sub_1", false), `"has_more":false`, `"has_more":true`, 1)
	for status, held := range map[int]bool{http.StatusInternalServerError: false, http.StatusTooManyRequests: true, http.StatusForbidden: true} {
		asked := 0
		_, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/v1/subscription_items":
				asked++
				answer(status, `{"error":{"type":"api_error"}}`)(w, r)
			case "/v1/subscriptions/sub_1":
				answer(http.StatusOK, many)(w, r)
			default:
				answer(http.StatusOK, listJSON(false, many, strings.Replace(many, "sub_1", "sub_2", 1), subscriptionJSON("sub_3", false)))(w, r)
			}
		})
		list, customer, err := client.CustomerSubscriptions(t.Context(), adasCus)
		if held != (err != nil) || len(list) != 3 || customer == nil || !reflect.DeepEqual(list[0], want) || !list[1].Unread || list[2].Unread != held {
			t.Errorf("%d: listed %+v of %v, error %v", status, list, customer, err)
		}
		if held && asked != 1 {
			t.Errorf("%d: asked %d times for items", status, asked)
		}
		if shown, err := client.Subscription(t.Context(), "sub_1"); err == nil || !reflect.DeepEqual(shown, want) {
			t.Errorf("%d: read %+v, error %v", status, shown, err)
		}
	}
}

// A schedule of a status that nobody knows is answered as a failure, and holds up no other.
func TestAScheduleOfAnUnknownStatusHoldsUpNoList(t *testing.T) {
	t.Parallel()
	schedule := `{"object":"subscription_schedule","id":"sub_sched_%d","customer":"` + adasCus + `","status":%q}`
	_, client := serve(t, answer(http.StatusOK, listJSON(false, fmt.Sprintf(schedule, 1, "dreaming"), fmt.Sprintf(schedule, 2, "not_started"))))
	list, err := client.CustomerSchedules(t.Context(), adasCus)
	if failure.Of(err) != failure.Transient || len(list) != 1 || list[0].ID != "sub_sched_2" {
		t.Errorf("listed %+v, error %v", list, err)
	}
}
