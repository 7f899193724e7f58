package stripeevent_test

import (
	"reflect"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeevent"
)

func TestEnded(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ eventType, object, want string }{
		{"customer.subscription.deleted", `{"object":"subscription","id":"sub_1","customer":"cus_1","status":"canceled"}`, "sub_1"},
		{"customer.subscription.updated", `{"object":"subscription","id":"sub_1","customer":"cus_1","status":"incomplete_expired"}`, "sub_1"},
		{"customer.subscription.updated", `{"object":"subscription","id":"sub_1","customer":"cus_1","status":"active"}`, ""},
		{"subscription_schedule.released", `{"object":"subscription_schedule","id":"sub_sched_1","customer":"cus_1","status":"released"}`, "sub_sched_1"},
		{"subscription_schedule.aborted", `{"object":"subscription_schedule","id":"sub_sched_1","customer":"cus_1","status":"canceled"}`, "sub_sched_1"},
		{"subscription_schedule.updated", `{"object":"subscription_schedule","id":"sub_sched_1","customer":"cus_1","status":"active"}`, ""},
		{"customer.deleted", `{"object":"customer","id":"cus_1"}`, "cus_1"},
		{"customer.updated", `{"object":"customer","id":"cus_1"}`, ""},
		{"price.deleted", `{"object":"price","id":"price_1","product":"prod_1"}`, "price_1"},
		{"product.deleted", `{"object":"product","id":"prod_1"}`, "prod_1"},
		{"product.created", `{"object":"product","id":"prod_1"}`, ""},
	} {
		if got := event(t, test.eventType, test.object, `null`).Ended(); got != test.want {
			t.Errorf("%s %s: %q has ended, not %q", test.eventType, test.object, got, test.want)
		}
	}
}

func TestChangedCustomer(t *testing.T) {
	t.Parallel()
	const object = `{"object":"customer","id":"cus_1","email":"new@example.com","name":"Ada","metadata":{"clerk_user_id":"user_1","same":"x"}}`
	got := event(t, "customer.updated", object, `{"email":"old@example.com","name":"Ada","phone":null,"metadata":{"clerk_user_id":null,"gone":"y"}}`).ChangedCustomer()
	want := []stripeevent.CustomerChange{{"email", "old@example.com", "new@example.com"}, {"metadata.clerk_user_id", "", "user_1"}, {"metadata.gone", "y", ""}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	customer := account.Customer{Email: "a", Name: "b", Metadata: map[string]string{"k": "c"}}
	for field, want := range map[string]string{"email": "a", "name": "b", "metadata.k": "c", "metadata.l": ""} {
		if shown := (stripeevent.CustomerChange{Field: field}).Shown(customer); shown != want {
			t.Errorf("%s is shown as %q", field, shown)
		}
	}
	for _, eventType := range []string{"customer.created", "customer.deleted"} {
		if got := event(t, eventType, object, `{"email":"old@example.com"}`).ChangedCustomer(); got != nil {
			t.Errorf("%s: %v", eventType, got)
		}
	}
}

func TestChangedProduct(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		eventType, object, previous string
		want                        []stripeevent.CatalogueChange
	}{
		{"product.updated", `{"object":"product","id":"prod_1","name":"Pro","active":false,"metadata":{"add_on":"true"}}`, `{"name":"Old","active":true,"metadata":{"add_on":null,"beside":"allow"},"updated":1}`,
			[]stripeevent.CatalogueChange{{"active", "true", "false"}, {"name", "Old", "Pro"}, {"beside", "true", "false"}, {"add_on", "false", "true"}}},
		{"product.updated", `{"object":"product","id":"prod_1","name":"Pro","metadata":{"color":"red"}}`, `{"metadata":{"color":null},"description":"x"}`, nil},
		{"price.updated", `{"object":"price","id":"price_1","product":"prod_1","active":true,"lookup_key":"pro"}`, `{"active":false,"lookup_key":null,"nickname":"x"}`,
			[]stripeevent.CatalogueChange{{"active", "false", "true"}, {"lookup_key", "", "pro"}}},
		{"price.created", `{"object":"price","id":"price_1","product":"prod_1","active":true}`, `null`, nil},
	} {
		if got := event(t, test.eventType, test.object, test.previous).ChangedProduct(); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s %s: got %v, want %v", test.eventType, test.previous, got, test.want)
		}
	}
}
