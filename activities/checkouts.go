package activities

import (
	"cmp"
	"context"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// ExpireCheckouts expires the open checkout sessions of every customer of a user who is being
// deleted, or is, so that nobody buys for them any more. A session that completes all the same is
// covered by the deletion policy in each later sync.
//
// Each session is expired whatever becomes of the others, and those first that the user's own
// requests have opened within the last minute: Stripe's list may not show them yet. A 404 for a
// customer, or for a session that was listed, does not prove that nothing is open: it is noted that
// the customer's sessions have to be listed again. So it is where only the product has asked for the
// deletion and a session could not be expired.
//
// It also removes a customer that was made for the user and not heard of, and finds the customers of
// subscriptions that the product has noted without one, so that what they bill is stopped.
//
// Idempotent: a session that is not open any more is left alone.
func (a *Customers) ExpireCheckouts(ctx context.Context, in UserInput) error {
	user, err := a.Store.UserByClerkID(ctx, in.ClerkUserID)
	if err != nil || user == nil || !user.Deleting() {
		return err
	}
	// A request whose lease has run out opens nothing any more; what it has opened is listed below.
	left, due, err := a.Store.LeftCheckouts(ctx, user.ID)
	if err != nil {
		return err
	}
	customers, err := a.Store.CustomersOf(ctx, user)
	if err != nil {
		return err
	}
	opened, err := a.Store.OpenedCheckouts(ctx, in.ClerkUserID, account.ReadsBehind)
	if err != nil {
		return err
	}
	var failed []error
	var closed, again []string
	// What their own requests have opened just now the lists may not show yet.
	for _, id := range opened {
		err := a.Stripe.ExpireCheckoutSession(ctx, id, "expire:"+id)
		if failure.IsNotFound(err) {
			err = failure.NotShownYet("stripe", "expire checkout session")
		}
		failed = append(failed, err)
	}
	for _, c := range customers {
		switch err := a.expireCheckouts(ctx, c); {
		case err == nil:
			closed = append(closed, c.ID)
		case failure.IsNotFound(err):
			again = append(again, c.ID)
		default:
			failed = append(failed, err)
			if user.Noted { // the run of nobody who is deleted comes back to it
				again = append(again, c.ID)
			}
		}
	}
	if due {
		failed = append(failed, a.Store.CheckoutsListed(ctx, closed))
	}
	if len(again) > 0 {
		failed = append(failed, a.Store.CheckoutsNotListed(ctx, again))
	}
	if err := a.undoUnheard(ctx, in.ClerkUserID); !failure.IsNotFound(err) {
		failed = append(failed, err)
	}
	if user.Unplaced {
		failed = append(failed, a.place(ctx, user))
	}
	if err := failure.Join(failed...); err != nil || left == "" {
		return err
	}
	return a.Store.ReleaseCheckout(ctx, user.ID, left)
}

// expireCheckouts expires the open checkout sessions of one customer. It is a failure for which
// failure.IsNotFound holds only where nothing else has failed.
func (a *Customers) expireCheckouts(ctx context.Context, c store.Customer) error {
	if c.DeletedInStripe {
		return nil // with whom Stripe has closed them
	}
	sessions, unknown := a.Stripe.OpenCheckoutSessions(ctx, c.ID)
	if unknown != nil {
		return unknown
	}
	var failed []error
	for _, s := range sessions {
		if err := a.Stripe.ExpireCheckoutSession(ctx, s.ID, "expire:"+s.ID); failure.IsNotFound(err) {
			unknown = err
		} else {
			failed = append(failed, err)
		}
	}
	return cmp.Or(failure.Join(failed...), unknown)
}
