package stripeevent_test

import (
	"reflect"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// An event tells how a subscription stood, in both shapes, and of its schedule no more than the id.
func TestSubscription(t *testing.T) {
	t.Parallel()
	want := account.Subscription{
		ID: "sub_1", CustomerID: "cus_ada1", Status: account.StatusActive, CancelAtPeriodEnd: true, CancelAt: at(1702592000), CanceledAt: at(1700000050),
		CurrentPeriodEnd: at(1702592000), Created: at(1699000000), Unread: true,
	}
	for _, version := range versions() {
		if got, ok := parse(t, payload(t, version, "subscription")).Subscription(); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %t, want %+v", version, got, ok, want)
		}
		if got, ok := parse(t, payload(t, version, "invoice")).Subscription(); ok {
			t.Errorf("%s: an invoice tells of %+v", version, got)
		}
	}
	managed, ok := event(t, "customer.subscription.updated", `{"id":"sub_1","object":"subscription","customer":"cus_1","status":"trialing","trial_end":5,
		"schedule":{"id":"sub_sched_1"},"pause_collection":{"behavior":"void"}}`).Subscription()
	if !ok || managed.ScheduleID != "sub_sched_1" || managed.Status != account.StatusTrialing || !managed.TrialEnd.Equal(at(5)) || !managed.CollectionPaused {
		t.Errorf("%+v, %t", managed, ok)
	}
	for name, object := range map[string]string{
		"no status":   `{"id":"sub_1","object":"subscription","customer":"cus_1"}`,
		"no code":     `{"id":"sub_1","object":"subscription","customer":"cus_1","status":"Let it be"}`,
		"no customer": `{"id":"sub_1","object":"subscription","status":"active"}`,
		"no id":       `{"id":"pi_1","object":"subscription","customer":"cus_1","status":"active"}`,
	} {
		if got, ok := event(t, "customer.subscription.updated", object).Subscription(); ok {
			t.Errorf("%s: it tells of %+v", name, got)
		}
	}
}

// What a checkout session has begun.
func TestBought(t *testing.T) {
	t.Parallel()
	for _, version := range versions() {
		if got := parse(t, payload(t, version, "session")).Bought(); got != "sub_1" {
			t.Errorf("%s: %q", version, got)
		}
		if got := parse(t, payload(t, version, "invoice")).Bought(); got != "" {
			t.Errorf("%s: an invoice has begun %q", version, got)
		}
	}
	if got := event(t, "checkout.session.completed", `{"id":"cs_1","object":"checkout.session","customer":"cus_1","subscription":"x"}`).Bought(); got != "" {
		t.Errorf("%q", got)
	}
}
