package activities

import (
	"context"
	"time"

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
		claimed, err := a.claimant(ctx, tx, customerID, in.InBulk)
		if err == nil && len(claimed.again) > 0 && !seen.customerMissing {
			linked = false
			return tx.PokeWithin(ctx, claimed.within, account.JobSync, claimed.again...)
		}
		claimant, source := claimed.clerkUserID, claimed.source
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
		again, err := a.claimant(ctx, tx, customerID, in.InBulk)
		if err != nil || again.clerkUserID != claimant {
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
		if err := a.wakeLosers(ctx, tx, customerID, claimant, again.others); err != nil {
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

// wakeLosers has those users looked at who may wait for a customer that is now somebody else's: those
// whom the evidence names beside its owner, and whoever has verified its address. They are given
// another.
func (a *Subscriptions) wakeLosers(ctx context.Context, tx *store.Tx, customerID, owner string, named []string) error {
	if a.Policy.LinkByEmail {
		by, err := tx.UserByCustomerEmail(ctx, customerID)
		if err != nil {
			return err
		}
		if by.ClerkUserID != "" && !by.Tombstone {
			named = append(named, by.ClerkUserID)
		}
	}
	var losers []account.Entity
	for _, id := range named {
		if id != owner {
			losers = append(losers, account.UserEntity(id))
		}
	}
	if len(losers) == 0 {
		return nil
	}
	return tx.PokeRoutinely(ctx, account.JobSync, losers...)
}

// known is what is stored of whose a customer is: within a transaction, or without one.
type known interface {
	EvidenceOn(ctx context.Context, customerID string, shown ...account.Claim) (account.Evidence, error)
	UserByCustomerEmail(ctx context.Context, customerID string) (store.ByAddress, error)
}

// claimed is whose a customer that nobody owns is by what is stored of it.
type claimed struct {
	clerkUserID, source string
	// again has to be looked at within that time before it is anybody's by its address.
	again  []account.Entity
	within time.Duration
	// others are the users whom the evidence names, the owner too.
	others []string
}

// claimant answers whose a customer is by the evidence, else by its address.
//
// By its address alone it is given away only when what says more would have come by now, since a
// link stays: of the events that Stripe sends in a burst, or of those of both providers, any may be
// the first. In a bulk sync it counts when the customer was made, as its events are long past.
// Whoever something names is known by then, or Clerk was asked for them twice. Before it is a
// deleted user's, who had the address, that holds of those too whom a mere reference names: one who
// signs up anew may have written it.
func (a *Subscriptions) claimant(ctx context.Context, stored known, customerID string, inBulk bool) (claimed, error) {
	evidence, err := stored.EvidenceOn(ctx, customerID)
	if err != nil {
		return claimed{}, err
	}
	owner, others := account.Claimant(evidence), account.NamedUsers(evidence.Claims)
	named := owner.Conflict || owner.ClerkUserID != ""
	if named && !owner.Missing || !a.Policy.LinkByEmail {
		return claimed{clerkUserID: owner.ClerkUserID, source: owner.Source, others: others}, nil
	}
	by, err := stored.UserByCustomerEmail(ctx, customerID)
	if err != nil || by.ClerkUserID == "" {
		return claimed{clerkUserID: owner.ClerkUserID, source: owner.Source, others: others}, err
	}
	after := a.Policy.LinkByEmailAfter
	if unsettled := evidence.Unsettled(after, by.Tombstone); len(unsettled) > 0 {
		wait := claimed{within: after}
		for _, id := range unsettled {
			wait.again = append(wait.again, account.UserEntity(id))
		}
		return wait, nil
	}
	if by.Seen < after && !(inBulk && by.Made >= after) {
		return claimed{again: []account.Entity{account.CustomerEntity(customerID)}, within: after - by.Seen}, nil
	}
	return claimed{clerkUserID: by.ClerkUserID, source: "verified email", others: others}, nil
}
