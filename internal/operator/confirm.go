package operator

import (
	"context"
	"errors"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// Confirm says that a customer is a user's, where nothing but a reference that its payer may have
// written does.
func (c *Console) Confirm(ctx context.Context, customerID, clerkUserID, caller string) error {
	switch {
	case !account.ValidCustomerID(customerID):
		return mistaken("%q is not the id of a Stripe customer", customerID)
	case !account.ValidUserID(clerkUserID):
		return mistaken("%q is not a Clerk user id", clerkUserID)
	}
	err := c.Store.ConfirmOwner(ctx, customerID, clerkUserID, store.Cause{Caller: caller})
	if refused, ok := errors.AsType[store.ErrNotConfirmed](err); ok {
		return mistaken("not confirmed: %s", string(refused))
	}
	if err == nil {
		c.wake()
	}
	return err
}
