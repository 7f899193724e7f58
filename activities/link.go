package activities

import (
	"context"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// link gives a customer that nobody owns to the user whom the committed evidence names: the claims,
// else, or where they name only users whom nobody has, and where it is switched on, the one user
// whose verified primary email it has, or who had it before they were deleted. It answers whether
// the customer has an owner afterwards.
//
// A user who is being deleted is linked too: the policy has to reach a checkout that completes
// late, also on a customer that we had never seen. A customer that was made for a user who got
// another meanwhile is not, since it is about to be undone, or was since it was read, unless
// something was bought on it. One that Stripe does not know is linked only to whom the product's
// own table names: that is kept of it, and they may be given another.
func (a *Subscriptions) link(ctx context.Context, in RecordInput, seen shown) (linked bool, err error) {
	customerID := in.CustomerID
	err = a.Store.Update(ctx, "link a customer", cause(ctx), func(ctx context.Context, tx *store.Tx) error {
		claimant, source, err := a.claimant(ctx, tx, customerID)
		if err != nil || claimant == "" || seen.customerMissing && !account.OfProduct(source) {
			linked = false
			return err
		}
		user, customer, err := tx.LockCustomerFor(ctx, claimant, customerID)
		if err != nil || user == nil {
			linked = false
			return err
		}
		if customer.UserID != nil {
			linked = true
			return nil
		}
		// Under the locks: did the evidence change before they were had?
		again, _, err := a.claimant(ctx, tx, customerID)
		if err != nil || again != claimant {
			linked = false
			return err
		}
		if customer.MadeInVainFor != nil && *customer.MadeInVainFor == claimant && !user.Deleting() {
			if len(seen.subscriptions) == 0 {
				linked = false
				return nil
			}
			if err := tx.MadeInVain(ctx, customerID, ""); err != nil {
				return err
			}
		}
		linked = true
		profile := user.Profile()
		given := int64(0)
		if !differsEmail(customer.Email, profile.Email) && !differs(customer.Name, profile.FullName()) {
			given = user.ProfileVersion // as Stripe has just shown it
		}
		if err := tx.Link(ctx, user, customer, source, given, nil); err != nil {
			return err
		}
		if user.Deleting() {
			if err := tx.CheckoutsDue(ctx, user, customerID); err != nil {
				return err
			}
		}
		if user.ErasedAt != nil {
			// It comes too late to be erased with its user.
			return tx.EraseCustomer(ctx, customer)
		}
		switch gone := !customer.Exists() || seen.customerMissing; {
		case user.Deleting():
			return nil
		case gone:
			// Whoever waits for it is to be given another.
			return tx.Poke(ctx, account.JobSync, account.UserEntity(user.ClerkUserID))
		case given > 0 || in.InBulk:
			return nil
		}
		// The user's own workflow gives the customer their name and email. Nobody waits for those.
		return tx.PokeRoutinely(ctx, account.JobSync, account.UserEntity(user.ClerkUserID))
	})
	return linked, err
}

// known is what is stored of whose a customer is: within a transaction, or without one.
type known interface {
	EvidenceOn(ctx context.Context, customerID string, shown ...account.Claim) (account.Evidence, error)
	UserByCustomerEmail(ctx context.Context, customerID string) (clerkUserID string, err error)
}

func (a *Subscriptions) claimant(ctx context.Context, stored known, customerID string) (clerkUserID, source string, err error) {
	evidence, err := stored.EvidenceOn(ctx, customerID)
	if err != nil {
		return "", "", err
	}
	owner := account.Claimant(evidence)
	named := owner.Conflict || owner.ClerkUserID != ""
	if named && !owner.Missing || !a.Policy.LinkByEmail {
		return owner.ClerkUserID, owner.Source, nil
	}
	clerkUserID, err = stored.UserByCustomerEmail(ctx, customerID)
	if named && clerkUserID == "" {
		return owner.ClerkUserID, owner.Source, err
	}
	return clerkUserID, "verified email", err
}
