package operator

import (
	"cmp"
	"context"
	"slices"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// MayStillBill lists for what a user who is being deleted may still be billed. A user whose
// deletion nobody has asked for is a mistake, and so is one who is erased.
func (c *Console) MayStillBill(ctx context.Context, clerkUserID string) ([]account.Unsettled, error) {
	user, err := c.Store.UserByClerkID(ctx, clerkUserID)
	if err != nil {
		return nil, err
	}
	if err := erasable(user, clerkUserID); err != nil {
		return nil, err
	}
	return c.Store.UnsettledOfUser(ctx, user, account.DeleteCancelAtPeriodEnd)
}

// EraseAnyway erases a user whose deletion was asked for although they may still be billed for what
// was shown. Where more has come to that since, nothing is done. The list goes into the audit log,
// and the deletion policy is applied to what is on it, as to all else, whenever that is seen.
func (c *Console) EraseAnyway(ctx context.Context, clerkUserID, caller string, shown []account.Unsettled) error {
	return c.Store.Update(ctx, "erase a user anyway", store.Cause{Caller: caller}, func(ctx context.Context, tx *store.Tx) error {
		user, err := tx.LockUser(ctx, clerkUserID)
		if err != nil {
			return err
		}
		if err := erasable(user, clerkUserID); err != nil {
			return err
		}
		open, err := tx.Unsettled(ctx, user, account.DeleteCancelAtPeriodEnd, "")
		if err != nil {
			return err
		}
		for _, u := range open {
			if !slices.Contains(shown, u) {
				return mistaken("%s of %s has come to it since; look again", u.Subject, cmp.Or(u.CustomerID, "an unknown customer"))
			}
		}
		return tx.EraseAnyway(ctx, user, open)
	})
}

func erasable(user *store.User, clerkUserID string) error {
	switch {
	case user == nil:
		return mistaken("%s is not known here", clerkUserID)
	case !user.Deleting():
		return mistaken("nobody has asked for the deletion of %s; delete them in Clerk", clerkUserID)
	case user.ErasedAt != nil:
		return mistaken("%s is erased already", clerkUserID)
	default:
		return nil
	}
}
