package operator

import (
	"context"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// Revenue is the monthly recurring revenue, and what is not counted in it.
type Revenue struct {
	Monthly []account.MonthlyRevenue `json:"monthly"`
	// Unpriced counts subscriptions among these that have no fixed amount, such as metered ones, or are free.
	Unpriced int64 `json:"unpriced"`
	// Uncounted are subscriptions that are not over and bring in nothing now, by status; those whose collection
	// is paused under "collection_paused".
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
			earning = append(earning, b.Recurring)
			revenue.Unpriced += b.Unpriced
		case b.CollectionPaused:
			revenue.Uncounted["collection_paused"] += b.Subscriptions
		default:
			revenue.Uncounted[string(b.Status)] += b.Subscriptions
		}
	}
	revenue.Monthly = account.MonthlyRecurring(earning)
	return revenue, nil
}
