package account

import (
	"cmp"
	"math/big"
	"slices"
)

// Recurring is what subscriptions of one currency that are billed at the same interval bring in
// together.
type Recurring struct {
	Currency string // as Stripe writes it, "usd"
	// Interval and IntervalCount say how often Amount is billed; see [Item].
	Interval      string
	IntervalCount int64
	// Amount is in the currency's smallest unit.
	Amount        *big.Int
	Subscriptions int64
}

// MonthlyRevenue is the monthly recurring revenue (MRR) in one currency. Currencies are never added
// up.
type MonthlyRevenue struct {
	Currency string `json:"currency"`
	// Amount is in the currency's smallest unit.
	Amount        *big.Int `json:"amount"`
	Subscriptions int64    `json:"subscriptions"`
}

// EarnsRevenue tells whether a subscription counts as monthly recurring revenue: somebody is billed
// for it. A trial is not billed yet, what is paused is not collected, and what is unpaid,
// incomplete or over brings in nothing. One that is scheduled to end counts until it has ended, one
// past_due until Stripe gives it up.
func (s Subscription) EarnsRevenue() bool {
	return (s.Status == StatusActive || s.Status == StatusPastDue) && !s.CollectionPaused
}

// MonthlyRecurring spreads what is billed at any interval over months, and adds it up by currency.
// A year has twelve months and 365 days, a week seven days. Each currency is rounded once, in the
// end, half up.
func MonthlyRecurring(all []Recurring) []MonthlyRevenue {
	sums, counts := map[string]*big.Rat{}, map[string]int64{}
	for _, r := range all {
		if sums[r.Currency] == nil {
			sums[r.Currency] = new(big.Rat)
		}
		monthly := new(big.Rat).SetInt(r.Amount)
		sums[r.Currency].Add(sums[r.Currency], monthly.Mul(monthly, perMonth(r.Interval, r.IntervalCount)))
		counts[r.Currency] += r.Subscriptions
	}
	revenue := make([]MonthlyRevenue, 0, len(sums))
	for currency, sum := range sums {
		revenue = append(revenue, MonthlyRevenue{Currency: currency, Amount: rounded(sum), Subscriptions: counts[currency]})
	}
	slices.SortFunc(revenue, func(a, b MonthlyRevenue) int { return cmp.Compare(a.Currency, b.Currency) })
	return revenue
}

// perMonth is how often an interval is billed in a month. What does not recur never is.
func perMonth(interval string, count int64) *big.Rat {
	monthly := map[string]*big.Rat{
		"day": big.NewRat(365, 12), "week": big.NewRat(365, 7*12), "month": big.NewRat(1, 1), "year": big.NewRat(1, 12),
	}[interval]
	if monthly == nil {
		return new(big.Rat)
	}
	return monthly.Mul(monthly, big.NewRat(1, max(count, 1)))
}

// rounded is the nearest whole number, the upper one of two.
func rounded(r *big.Rat) *big.Int {
	half := new(big.Rat).Add(r, big.NewRat(1, 2))
	return new(big.Int).Div(half.Num(), half.Denom())
}
