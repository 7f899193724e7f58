package stripeevent_test

import (
	"reflect"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeevent"
)

// TestStale shows reads of the subscription in testdata: before the change, after it, and in
// between.
func TestStale(t *testing.T) {
	t.Parallel()
	before := account.Subscription{
		ID: "sub_1", Status: account.StatusPastDue, CollectionPaused: true, CurrentPeriodEnd: at(1700000000),
		Items: []account.Item{{PriceID: "price_old", Quantity: 2}},
	}
	after := account.Subscription{
		ID: "sub_1", Status: account.StatusActive, CancelAtPeriodEnd: true, CancelAt: at(1702592000), CanceledAt: at(1700000050),
		CurrentPeriodEnd: at(1702592000), Items: []account.Item{{PriceID: "price_new", Quantity: 3}},
	}
	later := after
	later.Status, later.CancelAt, later.Items = account.StatusCanceled, at(1), []account.Item{{PriceID: "price_newer", Quantity: 9}}
	other := before
	other.ID = "sub_2"

	for _, version := range versions() {
		changes := parse(t, payload(t, version, "subscription")).Changed()
		if len(changes) != 8 {
			t.Fatalf("%s: %d changes, want 8", version, len(changes))
		}
		for _, c := range changes {
			if !c.Stale(before) {
				t.Errorf("%s: %+v does not see that the read is from before it", version, c)
			}
			for name, s := range map[string]account.Subscription{"after it": after, "of another subscription": other} {
				if c.Stale(s) {
					t.Errorf("%s: %+v calls a read %s stale", version, c, name)
				}
			}
			if c.Stale(later) {
				t.Errorf("%s: %+v calls a read of something newer stale", version, c)
			}
		}
	}
}

func TestChangesOfOddPayloads(t *testing.T) {
	t.Parallel()
	const object = `{"id":"sub_1","object":"subscription","status":"active","trial_end":null,"items":{"has_more":false,"data":[
		{"id":"si_2","price":{"id":"price_b"},"quantity":1,"current_period_end":300},
		{"id":"si_1","price":{"id":"price_a"},"quantity":null,"current_period_end":200}]}}`
	change := func(field, before, after string) stripeevent.Change {
		return stripeevent.Change{SubscriptionID: "sub_1", Field: field, Before: before, After: after}
	}
	tests := []struct {
		name, previous string
		want           []stripeevent.Change
	}{
		{"nothing that matters", `{"default_payment_method":"pm_1","metadata":{"a":"b"}}`, nil},
		{"null", `null`, nil},
		{"a field named with its present value", `{"status":"active"}`, nil},
		{"a trial that ended", `{"trial_end":100}`, []stripeevent.Change{change("trial_end", "100", "")}},
		{
			"several items, the period that ends first counts",
			`{"items":{"data":[{"price":{"id":"price_b"},"quantity":1,"current_period_end":100},{"price":{"id":"price_a"},"current_period_end":90}]}}`,
			[]stripeevent.Change{change("current_period_end", "90", "200")},
		},
		{
			"a price less", `{"items":{"data":[{"price":{"id":"price_c"},"quantity":1},{"price":{"id":"price_a"}},{"price":{"id":"price_b"},"quantity":1}]}}`,
			[]stripeevent.Change{change("price", "price_a,price_b,price_c", "price_a,price_b"), change("quantity", "2", "1")},
		},
		{"a list cut short", `{"items":{"has_more":true,"data":[{"price":{"id":"price_c"},"quantity":5}]}}`, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := event(t, "customer.subscription.updated", object, test.previous).Changed(); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
	if got := event(t, "customer.updated", `{"id":"cus_1","object":"customer"}`, `{"status":"x"}`).Changed(); got != nil {
		t.Errorf("a customer's change: %v", got)
	}
}

func TestShownKnowsItsFieldsOnly(t *testing.T) {
	t.Parallel()
	if value, known := stripeevent.Shown(account.Subscription{}, "metadata"); known {
		t.Errorf("metadata is shown as %q", value)
	}
	if value, known := stripeevent.Shown(account.Subscription{TrialEnd: at(5)}, "trial_end"); !known || value != "5" {
		t.Errorf("trial_end is shown as %q, %v", value, known)
	}
}
