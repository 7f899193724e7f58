package refusals_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// Stripe renders events at the version of the endpoint or of the account, not at ours. A checkout,
// a renewal, refunds and disputes leave the same rows, whichever version tells of them.
func TestPayloadsOfAllVersions(t *testing.T) {
	t.Parallel()
	versions := []string{"2023-10-16", "2025-03-31.basil", "2025-09-30.clover", "2026-03-25.dahlia"}
	start := time.Now().Add(-35 * 24 * time.Hour).Truncate(time.Hour)
	rows := map[string]string{}
	var mu sync.Mutex
	t.Run("each", func(t *testing.T) {
		for _, version := range versions {
			t.Run(version, func(t *testing.T) {
				t.Parallel()
				got := billed(t, version, start)
				mu.Lock()
				defer mu.Unlock()
				rows[version] = got
			})
		}
	})
	for _, version := range versions[1:] {
		if rows[version] != rows[versions[0]] {
			t.Errorf("rows of %s:\n%s\n\nrows of %s:\n%s", versions[0], rows[versions[0]], version, rows[version])
		}
	}
}

// billed plays a customer's life with events of one version and answers the rows that it left.
func billed(t *testing.T, version string, start time.Time) string {
	t.Helper()
	w := &world{t: t, System: system.Start(t, servers, system.Options{Sandbox: sandbox.Options{
		StripeEventVersion: version, StripeNow: func() time.Time { return start }, StripeFrozen: true,
	}})}
	w.addPrice()
	w.user = w.signUp(clerksim.UserSpec{FirstName: "Ada", LastName: "Lovelace", Emails: []clerksim.EmailSpec{{Address: "ada@example.com", Verified: true}}})
	w.customer = w.customerOf(w.user)
	stripe := w.Sandbox.Stripe
	bought, err := stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{CustomerID: w.customer, PriceID: w.price, ClientReferenceID: w.user})
	if err != nil {
		t.Fatal(err)
	}
	w.hasAccess(w.user)
	w.Rest()
	if err := stripe.Refund(bought.ChargeID, 500); err != nil {
		t.Fatal(err)
	}
	dispute, err := stripe.Dispute(bought.ChargeID)
	if err != nil {
		t.Fatal(err)
	}
	w.Rest()
	if err := stripe.Advance(t.Context(), 35*24*time.Hour); err != nil {
		t.Fatal(err)
	}
	w.Until("the renewal is recorded", func(context.Context) error {
		if w.Count(`SELECT count(*) FROM payments WHERE kind = 'invoice' AND status = 'paid'`) != 2 {
			return errors.New("not yet")
		}
		return nil
	})
	w.Rest()
	if err := stripe.CloseDispute(dispute, true); err != nil {
		t.Fatal(err)
	}
	if err := stripe.Refund(bought.ChargeID, 0); err != nil {
		t.Fatal(err)
	}
	w.Rest()
	w.Agree(w.user, policy())

	var refused []string
	for _, attempt := range w.Sandbox.StripeWebhooks.Log() {
		if attempt.Status != 200 {
			refused = append(refused, fmt.Sprint(attempt))
		}
	}
	if len(refused) > 0 {
		t.Errorf("deliveries were not taken: %v", refused)
	}
	if n := w.Count(`SELECT count(*) FROM webhook_events WHERE status NOT IN ('completed', 'ignored') OR status = 'ignored' AND reason <> 'type not handled'`); n != 0 {
		t.Errorf("%d events were not handled", n)
	}
	if n := w.Count(`SELECT count(*) FROM drift`); n != 0 {
		t.Errorf("%d differences were noted", n)
	}
	return w.bill()
}

// bill is what the tables say of our customer, without what differs by chance: ids, and the times
// at which things were noted. Which charge paid an invoice newer versions do not say.
func (w *world) bill() string {
	parts := []string{
		`SELECT 'user ' || concat_ws(' ', first_name, last_name, email, projection - 'customerId' - 'subscriptionId' - 'priceId') FROM person_user`,
		`SELECT 'subscription ' || concat_ws(' ', status, subscription_type, current_period_start, current_period_end, cancel_at_period_end, quantity, unit_amount, currency,
			billing_interval, collection_paused, latest_invoice_created, price_known, stripe_created_at) FROM subscriptions`,
		`SELECT 'change ' || concat_ws(' ', status_before, status, quantity, unit_amount, ends_at) FROM subscription_changes ORDER BY id`,
		`SELECT concat_ws(' ', kind, status, reason, amount, amount_paid, amount_refunded, currency, attempts, occurred_at, paid_at,
			stripe_customer_id, stripe_subscription_id = (SELECT s.stripe_subscription_id FROM subscriptions s)) FROM payments ORDER BY kind, occurred_at`,
		`SELECT concat_ws(' ', 'audit', action, count(*)) FROM audit_log GROUP BY action ORDER BY action`,
	}
	var bill []string
	for _, sql := range parts {
		bill = append(bill, strings.ReplaceAll(w.text1(`SELECT coalesce(string_agg(line, E'\n'), '') FROM (`+sql+`) AS lines (line)`), w.customer, "cus_*"))
	}
	return strings.Join(bill, "\n")
}
