package activities

import (
	"context"
	"maps"
	"slices"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// place asks Stripe which customers' those subscriptions are that the product has noted of a user
// without them, and has the customers looked at: who reads a subscription, whose it is, and what
// stops it, all goes by its customer. Each is asked for whatever becomes of the others.
//
// What Stripe does not have stays as it is, as a customer's subscription does that is missing, and
// is drift of the user's. Where the user is being deleted it is confirmed to be missing once Stripe
// has said so twice, far enough apart, and the account has vouched for it.
//
// Idempotent: a row that names its customer is not asked for again.
func (a *Customers) place(ctx context.Context, user *store.User) error {
	ids, err := a.Store.UnplacedSubscriptions(ctx, user)
	if err != nil || len(ids) == 0 {
		return err
	}
	read, err := a.Store.NextReadOf(ctx, "")
	if err != nil {
		return err
	}
	var failed []error
	var missing, gone []string
	found, there := map[string][]string{}, []string{}
	for _, id := range ids {
		subscription, err := a.Stripe.Subscription(ctx, id)
		switch {
		case failure.IsNotFound(err):
			missing = append(missing, id)
			if failure.IsMissing(err, id) {
				gone = append(gone, id)
			}
		case err != nil && !subscription.Unread:
			failed = append(failed, err)
		default:
			there = append(there, id)
			found[subscription.CustomerID] = append(found[subscription.CustomerID], id)
		}
	}
	vouched := false
	if user.Deleting() && len(gone) > 0 {
		vouched, err = vouch(ctx, a.Stripe, a.Store, a.Livemode)
		failed = append(failed, err)
	}
	err = a.Store.Update(ctx, "note subscriptions' customers", cause(ctx), func(ctx context.Context, tx *store.Tx) error {
		row, err := tx.LockUser(ctx, user.ClerkUserID)
		if err != nil || row == nil || row.ErasedAt != nil {
			return err
		}
		if err := placeAll(ctx, tx, found); err != nil {
			return err
		}
		for _, id := range missing {
			if err := tx.NoteMissing(ctx, id); err != nil {
				return err
			}
			if err := tx.NoteDrift(ctx, account.UserEntity(row.ClerkUserID), account.DriftSubscriptionMissing, id); err != nil {
				return err
			}
		}
		if !row.Deleting() {
			return nil
		}
		sighting := store.Sighting{Began: read.Began, ConfirmedAfter: a.MissingConfirmedAfter, Found: there}
		if vouched {
			sighting.Missing = gone
		}
		return tx.RecordSighting(ctx, row, sighting)
	})
	return failure.Join(append(failed, err)...)
}

// place notes which customer's those stored subscriptions are whose rows do not say it, or say
// otherwise. Of a customer that a user owns all that is shown is stored behind it anyway.
func place(ctx context.Context, c committed, customerID string, seen shown) error {
	if len(seen.subscriptions) > 0 && (c.user == nil || c.user.Unplaced) {
		ids := make([]string, len(seen.subscriptions))
		for i, s := range seen.subscriptions {
			ids[i] = s.ID
		}
		if err := c.tx.Place(ctx, customerID, ids...); err != nil {
			return err
		}
	}
	return placeAll(ctx, c.tx, seen.elsewhere)
}

// placeAll notes which customers' subscriptions are, and has the customers looked at.
func placeAll(ctx context.Context, tx *store.Tx, found map[string][]string) error {
	for _, customerID := range slices.Sorted(maps.Keys(found)) {
		if err := tx.Place(ctx, customerID, found[customerID]...); err != nil {
			return err
		}
		if err := tx.Poke(ctx, account.JobSync, account.CustomerEntity(customerID)); err != nil {
			return err
		}
	}
	return nil
}
