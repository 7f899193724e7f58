package store_test

import (
	"strconv"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// No row is left out, however many there are, nor does a sum that no integer column could hold come
// out wrong.
func TestBilledAddsUpEveryRow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	user := one[string](w, `INSERT INTO person_user (clerk_user_id) VALUES ('user_1') RETURNING id::text`)
	w.exec(`INSERT INTO subscriptions (user_id, stripe_subscription_id, status, currency, billing_interval, interval_count, unit_amount, quantity)
		SELECT $1, 'sub_' || n, CASE WHEN n % 10 = 0 THEN 'canceled' WHEN n % 10 = 1 THEN 'trialing' ELSE 'active' END, 'usd',
		       CASE WHEN n % 2 = 0 THEN 'month' ELSE 'year' END, NULL, CASE WHEN n % 10 = 2 THEN 0 ELSE 100 END, 2 FROM generate_series(1, 10000) n`, user)
	w.exec(`INSERT INTO subscriptions (user_id, stripe_subscription_id, status, currency, billing_interval, unit_amount, quantity)
		SELECT $1, 'sub_large_' || n, 'active', 'idr', 'month', 9223372036854775807, 9223372036854775807 FROM generate_series(1, 2) n`, user)
	w.exec(`INSERT INTO subscriptions (user_id, stripe_subscription_id, status, currency, billing_interval, unit_amount, quantity)
		SELECT $1, 'sub_unpriced_' || n, 'active', 'idr', 'month', NULL, 5 FROM generate_series(1, 3) n`, user)
	billed, err := w.Billed(t.Context())
	must(t, err)
	type group struct {
		status             account.Status
		currency, interval string
	}
	got := map[group][4]string{}
	for _, b := range billed {
		got[group{b.Status, b.Currency, b.Interval}] = [4]string{b.Amount.String(), strconv.FormatInt(b.Subscriptions, 10), strconv.FormatInt(b.Free, 10), strconv.FormatInt(b.Unpriced, 10)}
	}
	for g, want := range map[group][4]string{
		{account.StatusActive, "usd", "month"}:  {"600000", "4000", "1000", "0"},
		{account.StatusActive, "usd", "year"}:   {"800000", "4000", "0", "0"},
		{account.StatusTrialing, "usd", "year"}: {"200000", "1000", "0", "0"},
		{account.StatusActive, "idr", "month"}:  {"170141183460469231694793815568465002498", "2", "0", "3"},
	} {
		if got[g] != want {
			t.Errorf("%v: got %v, want %v", g, got[g], want)
		}
	}
	if len(got) != 4 {
		t.Errorf("got %v", got)
	}
}
