package activities

import (
	"context"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// named asks Stripe for customers that name the user, or whose subscriptions do, and has those that
// nobody owns looked at, which links them. A product that was there before us has them, and until a
// bulk sync has read them all, an event of their user, were it only of their name, would make
// another. A search that fails is no answer. It is behind what was made just now, which our own table
// and the idempotency key see to.
func (a *Customers) named(ctx context.Context, clerkUserID string) (found bool, err error) {
	theirs, err := a.namedThemselves(ctx, clerkUserID)
	if err == nil && len(theirs) == 0 {
		theirs, err = a.namedBySubscriptions(ctx, clerkUserID)
	}
	if err != nil || len(theirs) == 0 {
		return false, err
	}
	return true, a.Store.Poke(ctx, account.JobSync, theirs...)
}

func (a *Customers) namedThemselves(ctx context.Context, clerkUserID string) (theirs []account.Entity, err error) {
	customers, err := a.Stripe.CustomersNaming(ctx, clerkUserID)
	if err != nil {
		return nil, err
	}
	for _, c := range customers {
		if free, err := a.free(ctx, clerkUserID, c, nil); err != nil {
			return nil, err
		} else if !free {
			continue
		}
		// The index shows who was deleted for about a day more, as they were: waiting for one would leave
		// the user without a customer.
		shown, err := a.Stripe.Customer(ctx, c.ID)
		if err != nil && !failure.IsNotFound(err) {
			return nil, err
		}
		if !shown.Deleted {
			theirs = append(theirs, account.CustomerEntity(c.ID))
		}
	}
	return theirs, nil
}

func (a *Customers) namedBySubscriptions(ctx context.Context, clerkUserID string) (theirs []account.Entity, err error) {
	ids, err := a.Stripe.CustomersSubscribedFor(ctx, clerkUserID)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		subscriptions, customer, err := a.Stripe.CustomerSubscriptions(ctx, id)
		if failure.IsNotFound(err) || err == nil && customer == nil {
			continue // which the index only remembers
		}
		if err != nil {
			return nil, err
		}
		if free, err := a.free(ctx, clerkUserID, *customer, subscriptions); err != nil {
			return nil, err
		} else if free {
			theirs = append(theirs, account.CustomerEntity(id))
		}
	}
	return theirs, nil
}

// free tells whether a customer is nobody's yet, and the user's by all that is known: what Stripe has
// just shown and what is known beside. One that names others too is linked to nobody, and waited for
// by nobody.
func (a *Customers) free(ctx context.Context, clerkUserID string, c account.Customer, subscriptions []account.Subscription) (bool, error) {
	owner, err := a.Store.OwnerOfCustomer(ctx, c.ID)
	if err != nil || owner != "" || c.Deleted {
		return false, err
	}
	known, err := a.Store.EvidenceOn(ctx, c.ID, account.ReadClaims(c, subscriptions)...)
	return err == nil && account.Claimant(known).ClerkUserID == clerkUserID, err
}

// gone judges Stripe's answer about a customer: whether Stripe does not have it. Where Stripe has told
// of it within [account.ReadsBehind], a 404 is a transient failure: the copy that answered may be
// behind, and nobody is given another customer for that.
func (a *Customers) gone(ctx context.Context, customerID string, shown account.Customer, read error) (bool, error) {
	switch {
	case read == nil:
		return shown.Deleted, nil
	case !failure.IsNotFound(read):
		return false, read
	}
	told, err := a.Store.ToldLately(ctx, customerID, account.ReadsBehind)
	if err == nil && told {
		err = failure.NotShownYet("stripe", "read customer")
	}
	return err == nil, err
}

// foundAgain looks once more for a user's customers that were missing from Stripe, before another
// is made, and has those that are there read.
func (a *Customers) foundAgain(ctx context.Context, customers []store.Customer) (found bool, err error) {
	for _, c := range customers {
		if c.DeletedInStripe {
			continue
		}
		shown, err := a.Stripe.Customer(ctx, c.ID)
		if failure.IsNotFound(err) || err == nil && shown.Deleted {
			continue
		}
		if err != nil {
			return false, err
		}
		found = true
		if err := a.Store.Poke(ctx, account.JobSync, account.CustomerEntity(c.ID)); err != nil {
			return false, err
		}
	}
	return found, nil
}

// claimed tells whether a customer that nobody owns is about to be linked to the user by its own
// workflow: making another would give the user two.
func (a *Customers) claimed(ctx context.Context, user *store.User) (bool, error) {
	if toLink, err := a.Store.ToLink(ctx, user.ClerkUserID); err != nil || len(toLink) > 0 {
		return len(toLink) > 0, err
	}
	if !a.LinkByEmail || !user.EmailVerified {
		return false, nil
	}
	byEmail, err := a.Store.UnlinkedByEmail(ctx, user.Profile().Email)
	if err != nil || len(byEmail) == 0 {
		return false, err
	}
	var found bool
	err = a.Store.Update(ctx, "look for customers by email", cause(ctx), func(ctx context.Context, tx *store.Tx) error {
		found = false
		for _, id := range byEmail {
			owner, err := tx.UserByCustomerEmail(ctx, id)
			if err != nil {
				return err
			}
			found = found || owner.ClerkUserID == user.ClerkUserID
		}
		return nil
	})
	return found, err
}

// adopted looks at the customer that the product's own table names for a user and that is not
// linked to them, "" where there is none, or where it is gone from Stripe, which is recorded: then
// another may be made. Unless it is undecided the customer's own look links it.
func (a *Customers) adopted(ctx context.Context, user *store.User, customers []store.Customer, inBulk bool) (customerID string, undecided bool, err error) {
	named, err := a.Store.Undecided(ctx, user, customers)
	if err != nil || named.CustomerID == "" || named.Taken {
		return named.CustomerID, named.Taken, err
	}
	customer, err := a.Stripe.Customer(ctx, named.CustomerID)
	if failure.IsNotFound(err) || err == nil && customer.Deleted {
		return "", false, a.noteGone(ctx, user, named.CustomerID)
	}
	if err != nil {
		return "", false, err
	}
	known, err := a.Store.EvidenceOn(ctx, named.CustomerID, account.ReadClaims(customer, nil)...)
	if err != nil {
		return "", false, err
	}
	if !inBulk {
		err = a.Store.Poke(ctx, account.JobSync, account.CustomerEntity(named.CustomerID))
	}
	return named.CustomerID, account.Claimant(known).ClerkUserID != user.ClerkUserID, err
}

// hinted looks at the customer that the user's own notes point at, "" where there is none that they
// could be right about. Where it is theirs, that is kept as evidence, and the customer's own look
// links it.
func (a *Customers) hinted(ctx context.Context, user *store.User, inBulk bool) (customerID string, theirs bool, err error) {
	customerID, err = a.Store.Hint(ctx, user)
	if err != nil || customerID == "" {
		return "", false, err
	}
	customer, read := a.Stripe.Customer(ctx, customerID)
	if gone, err := a.gone(ctx, customerID, customer, read); err != nil || gone {
		return "", false, err
	}
	owner, err := a.Store.OwnerOfCustomer(ctx, customerID)
	if err != nil || owner != "" {
		return customerID, false, err
	}
	known, err := a.Store.EvidenceOn(ctx, customerID, account.ReadClaims(customer, nil)...)
	if err != nil {
		return "", false, err
	}
	verified := ""
	if user.EmailVerified {
		verified = user.Profile().Email
	}
	if !account.Adopts(user.ClerkUserID, verified, customer, known) {
		return customerID, false, nil
	}
	claim := account.Claim{CustomerID: customerID, ClerkUserID: user.ClerkUserID, Source: account.PlaceNotes + ":" + user.ClerkUserID}
	if inBulk {
		return customerID, true, a.Store.KeepClaim(ctx, claim)
	}
	return customerID, true, a.Store.AddClaim(ctx, claim)
}

// noteGone records that a customer which Stripe has said not to have is deleted, or is missing. It
// is a transient failure where it is there: then it is asked again.
func (a *Customers) noteGone(ctx context.Context, user *store.User, customerID string) error {
	number, err := a.Store.NextRead(ctx)
	if err != nil {
		return err
	}
	shown, read := a.Stripe.Customer(ctx, customerID)
	gone, err := a.gone(ctx, customerID, shown, read)
	switch {
	case err != nil:
		return err
	case !gone:
		return failure.New(failure.Transient, "stripe", "read customer", "there_after_all", nil)
	default:
		return a.Store.NoteGone(ctx, user.ClerkUserID, customerID, number, read == nil, a.Access)
	}
}
