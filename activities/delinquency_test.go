package activities_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// invoiceEvent is an event that tells of an invoice of sub_1.
func invoiceEvent(id, eventType, invoice, status string, created, now time.Time) store.NewEvent {
	paid := "null"
	if status == "paid" {
		paid = fmt.Sprint(created.Add(2 * time.Hour).Unix())
	}
	return store.NewEvent{Source: "stripe", EventID: id, Type: eventType, Entity: "customer/cus_1", Job: account.JobSync, ReceivedAt: now,
		Payload: fmt.Sprintf(`{"id":%q,"type":%q,"created":%d,"livemode":false,"data":{"object":{"id":%q,"object":"invoice","customer":"cus_1","subscription":"sub_1","status":%q,
			"currency":"usd","total":2000,"amount_paid":0,"attempt_count":1,"created":%d,"status_transitions":{"finalized_at":%d,"paid_at":%s}}}}`,
			id, eventType, created.Add(time.Hour).Unix(), invoice, status, created.Unix(), created.Unix(), paid)}
}

// What is told of an earlier invoice, that it failed and that it was paid, says nothing of what is
// owed now: open invoices are asked for, and grace counts from when the one that is owed is due.
func TestAnInvoiceThatIsPaidSaysNothingOfWhatIsOwed(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Second)
	for name, events := range map[string][]store.NewEvent{
		"nothing pending": nil,
		"an earlier one failed and was paid": {
			invoiceEvent("evt_1", "invoice.payment_failed", "in_A", "open", now.Add(-62*24*time.Hour), now),
			invoiceEvent("evt_2", "invoice.paid", "in_A", "paid", now.Add(-62*24*time.Hour), now),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, account.DeleteKeep)
			b.subscriptions.Policy.Access = account.AccessPolicy{PastDueGrace: 72 * time.Hour}
			b.person("cus_1")
			sub := subscription("sub_1", "cus_1", account.StatusActive)
			b.stripe.put(sub)
			b.record("cus_1")
			created, due := now.Add(-31*24*time.Hour), now.Add(-time.Hour)
			sub.Status, sub.LatestInvoiceCreated = account.StatusPastDue, created
			b.stripe.put(sub)
			b.stripe.invoices = map[string][]account.Payment{"sub_1": {{ID: "in_B", Kind: account.PaymentInvoice, CustomerID: "cus_1", SubscriptionID: "sub_1", InvoiceID: "in_B",
				Status: "open", Amount: 2000, Currency: "usd", Created: created, DueAt: due, FinalizedAt: created}}}
			if len(events) > 0 {
				if _, err := b.store.AddEvents(t.Context(), events, 0); err != nil {
					t.Fatal(err)
				}
			}
			for range 3 {
				b.record("cus_1")
			}
			b.is([]string{fmt.Sprint(due.Unix())}, `SELECT extract(epoch FROM past_due_since)::bigint::text FROM subscriptions`)
			b.is([]string{"true"}, `SELECT projection ->> 'subscriptionActive' FROM person_user`)
		})
	}
}

// A delinquency that a payment has ended, while nobody looked, says nothing of the next: what is
// owed now is asked for in the very read that learns of the payment.
func TestADelinquencyThatIsOverSaysNothingOfTheNext(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Second)
	b := newBench(t, account.DeleteKeep)
	b.subscriptions.Policy.Access = account.AccessPolicy{PastDueGrace: 72 * time.Hour}
	b.person("cus_1")
	first := now.Add(-50 * 24 * time.Hour)
	sub := subscription("sub_1", "cus_1", account.StatusPastDue)
	sub.LatestInvoiceCreated = first
	b.stripe.put(sub)
	if _, err := b.store.AddEvents(t.Context(), []store.NewEvent{invoiceEvent("evt_1", "invoice.payment_failed", "in_A", "open", first, now)}, 0); err != nil {
		t.Fatal(err)
	}
	b.record("cus_1")
	b.is([]string{"false"}, `SELECT projection ->> 'subscriptionActive' FROM person_user`)
	// It is paid, and nobody looks while it is. What comes next is due since an hour.
	created, due := now.Add(-31*24*time.Hour), now.Add(-time.Hour)
	sub.LatestInvoiceCreated = created
	b.stripe.put(sub)
	b.stripe.invoices = map[string][]account.Payment{"sub_1": {{ID: "in_B", Kind: account.PaymentInvoice, CustomerID: "cus_1", SubscriptionID: "sub_1", InvoiceID: "in_B",
		Status: "open", Amount: 2000, Currency: "usd", Created: created, DueAt: due, FinalizedAt: created}}}
	if _, err := b.store.AddEvents(t.Context(), []store.NewEvent{invoiceEvent("evt_2", "invoice.paid", "in_A", "paid", first, now)}, 0); err != nil {
		t.Fatal(err)
	}
	b.record("cus_1")
	b.is([]string{fmt.Sprint(due.Unix())}, `SELECT extract(epoch FROM past_due_since)::bigint::text FROM subscriptions`)
	b.is([]string{"true"}, `SELECT projection ->> 'subscriptionActive' FROM person_user`)
}

// Grace counts from the first failure that was told, also where a later one is told in the same
// moment.
func TestTheFirstFailureCountsThoughASecondIsToldWithIt(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Second)
	for name, second := range map[string]bool{"the first alone": false, "both at once": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, account.DeleteKeep)
			b.subscriptions.Policy.Access = account.AccessPolicy{PastDueGrace: 72 * time.Hour}
			b.person("cus_1")
			created, failed := now.Add(-8*24*time.Hour), now.Add(-24*time.Hour)
			sub := subscription("sub_1", "cus_1", account.StatusPastDue)
			sub.LatestInvoiceCreated = created
			b.stripe.put(sub)
			b.stripe.invoices = map[string][]account.Payment{"sub_1": {{ID: "in_A", Kind: account.PaymentInvoice, CustomerID: "cus_1", SubscriptionID: "sub_1", InvoiceID: "in_A",
				Status: "open", Amount: 2000, Currency: "usd", Created: created, FinalizedAt: created, Attempts: 1}}}
			b.record("cus_1")
			told := func(id string, at time.Time, attempts int) store.NewEvent {
				return store.NewEvent{Source: "stripe", EventID: id, Type: "invoice.payment_failed", Entity: "customer/cus_1", Job: account.JobSync, ReceivedAt: now,
					Payload: fmt.Sprintf(`{"id":%q,"type":"invoice.payment_failed","created":%d,"livemode":false,"data":{"object":{"id":"in_A","object":"invoice","customer":"cus_1","subscription":"sub_1",
						"status":"open","currency":"usd","total":2000,"amount_paid":0,"attempt_count":%d,"created":%d,"status_transitions":{"finalized_at":%d}}}}`,
						id, at.Unix(), attempts, created.Unix(), created.Unix())}
			}
			events := []store.NewEvent{told("evt_1", failed, 1)}
			if second {
				events = append(events, told("evt_2", now.Add(-time.Hour), 2))
			}
			if _, err := b.store.AddEvents(t.Context(), events, 0); err != nil {
				t.Fatal(err)
			}
			b.record("cus_1")
			b.is([]string{fmt.Sprint(failed.Unix())}, `SELECT extract(epoch FROM past_due_since)::bigint::text FROM subscriptions`)
			b.is([]string{"true"}, `SELECT projection ->> 'subscriptionActive' FROM person_user`)
		})
	}
}
