package fences_test

import (
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// The tests' truth counts grace from the first failure that was told: rows that count from a later
// one are not taken for it.
func TestTruthTellsTheFirstFailureFromALaterOne(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, customer, subscription := l.subscribed("ada")
	l.must(l.Sandbox.Stripe.SetPayments(customer, false))
	l.must(l.Sandbox.Stripe.Advance(t.Context(), 32*day))
	l.settle()
	l.wants("past_due", `SELECT status FROM subscriptions`)
	l.must(l.Sandbox.Stripe.Advance(t.Context(), 5*day))
	l.settle()
	l.wants("past_due", `SELECT status FROM subscriptions`)
	l.must(l.work.lookAtCustomer(t.Context(), customer))
	truth := l.NewTruth(access(), account.DeleteCancelAtPeriodEnd, map[string]string{l.price: "Pro"})
	owned := system.Owned{ClerkUserID: user, Customers: []string{customer}}
	l.must(truth.Of(t.Context(), owned))
	l.exec(`UPDATE payments SET first_failed_at = to_timestamp((SELECT max((payload::jsonb ->> 'created')::bigint) FROM webhook_events WHERE type = 'invoice.payment_failed'))
		WHERE kind = 'invoice' AND id = (SELECT past_due_invoice FROM subscriptions)`)
	l.exec(`UPDATE subscriptions SET past_due_since = (SELECT first_failed_at FROM payments WHERE id = past_due_invoice) WHERE stripe_subscription_id = $1`, subscription)
	// So long a grace that it is over if it counts from the first failure, and goes on if it counts
	// from the last.
	var first, last time.Time
	l.must(l.db.QueryRow(t.Context(), `SELECT to_timestamp(min((payload::jsonb ->> 'created')::bigint)), to_timestamp(max((payload::jsonb ->> 'created')::bigint))
		FROM webhook_events WHERE type = 'invoice.payment_failed'`).Scan(&first, &last))
	between := account.AccessPolicy{PastDueGrace: time.Until(first.Add(last.Sub(first)/2)) * -1}
	if err := l.NewTruth(between, account.DeleteCancelAtPeriodEnd, map[string]string{l.price: "Pro"}).Of(t.Context(), owned); err == nil {
		t.Errorf("rows that count grace from %s are taken for the truth, which is %s", last, first)
	}
}
