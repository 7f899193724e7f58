package account_test

import (
	"math/big"
	"slices"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// The vectors of docs/revenue.md.
func TestMonthlyRecurring(t *testing.T) {
	t.Parallel()
	billed := func(currency string, amount int64, interval string, count int64) account.Recurring {
		return account.Recurring{Currency: currency, Interval: interval, IntervalCount: count, Amount: big.NewInt(amount), Subscriptions: 1}
	}
	for name, c := range map[string]struct {
		billed []account.Recurring
		want   []string
	}{
		"nothing":             {nil, []string{}},
		"monthly":             {[]account.Recurring{billed("usd", 2000, "month", 1)}, []string{"usd 2000 of 1"}},
		"quarterly":           {[]account.Recurring{billed("usd", 3000, "month", 3)}, []string{"usd 1000 of 1"}},
		"yearly":              {[]account.Recurring{billed("usd", 12000, "year", 1)}, []string{"usd 1000 of 1"}},
		"every other year":    {[]account.Recurring{billed("usd", 24000, "year", 2)}, []string{"usd 1000 of 1"}},
		"weekly":              {[]account.Recurring{billed("usd", 700, "week", 1)}, []string{"usd 3042 of 1"}}, // 3041.67
		"daily":               {[]account.Recurring{billed("usd", 100, "day", 1)}, []string{"usd 3042 of 1"}},  // 3041.67
		"no count is one":     {[]account.Recurring{billed("usd", 2000, "month", 0)}, []string{"usd 2000 of 1"}},
		"once is not monthly": {[]account.Recurring{billed("usd", 2000, "", 0)}, []string{"usd 0 of 1"}},
		"rounded in the end":  {[]account.Recurring{billed("usd", 100, "year", 1), billed("usd", 100, "year", 1), billed("usd", 100, "year", 1)}, []string{"usd 25 of 3"}}, // 3 times 8.33
		"half up":             {[]account.Recurring{billed("usd", 6, "year", 1)}, []string{"usd 1 of 1"}},
		"less than half down": {[]account.Recurring{billed("usd", 5, "year", 1)}, []string{"usd 0 of 1"}},
		"by currency":         {[]account.Recurring{billed("usd", 2000, "month", 1), billed("eur", 1200, "year", 1), billed("usd", 500, "month", 1)}, []string{"eur 100 of 1", "usd 2500 of 2"}},
		"more than a machine word": {[]account.Recurring{{Currency: "idr", Interval: "month", IntervalCount: 1, Subscriptions: 2,
			Amount: new(big.Int).Mul(big.NewInt(1<<62), big.NewInt(4))}}, []string{"idr 18446744073709551616 of 2"}},
	} {
		got := []string{}
		for _, r := range account.MonthlyRecurring(c.billed) {
			got = append(got, r.Currency+" "+r.Amount.String()+" of "+big.NewInt(r.Subscriptions).String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestEarnsRevenue(t *testing.T) {
	t.Parallel()
	for status, want := range map[account.Status]bool{
		account.StatusActive: true, account.StatusPastDue: true, account.StatusTrialing: false, account.StatusUnpaid: false, account.StatusPaused: false,
		account.StatusIncomplete: false, account.StatusIncompleteExpired: false, account.StatusCanceled: false,
	} {
		if got := (account.Subscription{Status: status}).EarnsRevenue(); got != want {
			t.Errorf("%s: got %t", status, got)
		}
		if (account.Subscription{Status: status, CollectionPaused: true}).EarnsRevenue() {
			t.Errorf("%s earns while nothing is collected", status)
		}
	}
}
