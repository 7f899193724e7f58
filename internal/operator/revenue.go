package operator

import (
	"context"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// Revenue is the monthly recurring revenue, and what is not counted in it.
type Revenue struct {
	Monthly []account.MonthlyRevenue `json:"monthly"`
	// Free counts subscriptions among these that bring in nothing of their own: they are free, or
	// metered.
	Free int64 `json:"free"`
	// Unpriced counts subscriptions that earn and are in no sum, since their amount cannot be known
	// exactly from what is stored: it is a fraction of the smallest unit, or by package or tier, or in
	// another currency than the price's.
	Unpriced int64 `json:"unpriced"`
	// UnpricedIn are the same by the currency that they are billed in; nil where there are none.
	UnpricedIn map[string]int64 `json:"unpricedIn,omitempty"`
	// Uncounted are subscriptions that are not over and bring in nothing now, by status; those whose
	// collection is paused under "collection_paused".
	Uncounted map[string]int64 `json:"uncounted"`
}

// Revenue adds up all subscriptions.
func (c *Console) Revenue(ctx context.Context) (Revenue, error) {
	billed, err := c.Store.Billed(ctx)
	if err != nil {
		return Revenue{}, err
	}
	revenue := Revenue{Uncounted: map[string]int64{}}
	var earning []account.Recurring
	for _, b := range billed {
		switch s := (account.Subscription{Status: b.Status, CollectionPaused: b.CollectionPaused}); {
		case s.EarnsRevenue():
			revenue.Free += b.Free
			if b.Subscriptions > 0 {
				earning = append(earning, b.Recurring)
			}
			if b.Unpriced > 0 {
				if revenue.UnpricedIn == nil {
					revenue.UnpricedIn = map[string]int64{}
				}
				revenue.Unpriced += b.Unpriced
				revenue.UnpricedIn[b.Currency] += b.Unpriced
			}
		case b.CollectionPaused:
			revenue.Uncounted["collection_paused"] += b.Subscriptions + b.Unpriced
		default:
			revenue.Uncounted[string(b.Status)] += b.Subscriptions + b.Unpriced
		}
	}
	revenue.Monthly = account.MonthlyRecurring(earning)
	return revenue, nil
}
