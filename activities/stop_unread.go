package activities

import (
	"context"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

// stopUnread applies the deletion policy to what is stored of a customer that Stripe does not show, for as long as it does not: a read
// that fails must not have a deleted user billed on. It answers why the customer could not be read, and what could not be
// stopped besides. Nothing is concluded from it: the customer is settled only once it was read.
//
// Idempotent as [Subscriptions.StopBilling] is, whose keys it uses.
func (a *Subscriptions) stopUnread(ctx context.Context, customerID string, unread error) error {
	if unread == nil || ctx.Err() != nil || failure.ProviderOf(unread) != "stripe" || a.Policy.Deletion == account.DeleteKeep {
		return unread
	}
	owner, err := a.Store.OwnerOfCustomer(ctx, customerID)
	if err != nil || owner == "" {
		return unread
	}
	user, err := a.Store.UserByClerkID(ctx, owner)
	if err != nil || user == nil || !user.Deleting() {
		return unread
	}
	stored, err := a.Store.SubscriptionsOfCustomer(ctx, customerID)
	if err != nil {
		return unread
	}
	failed := []error{unread}
	for _, s := range stored {
		if a.Policy.Deletion.Stop(s.Held().Subscription) != account.StopNothing {
			failed = append(failed, a.stop(ctx, s.StripeID))
		}
	}
	return failure.Join(failed...)
}
