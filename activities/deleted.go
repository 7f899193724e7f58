package activities

import (
	"context"
	"slices"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// ofDeleted is what a read shows in addition where the customer's user is being deleted: what could
// still bill them although no subscription shows it, and what Stripe says it does not have.
type ofDeleted struct {
	// deleting is set where it was known before the read that the owner is being deleted.
	deleting bool
	// listed is set where schedules and charges are all of the customer's.
	listed    bool
	schedules []account.Schedule
	// charges is what Stripe would collect by itself.
	charges []account.PendingCharge
	// gone are the objects for whose id Stripe itself has answered that it does not have it.
	gone []string
	// vouched is set where the account answered with the id and in the mode that the database belongs
	// to. Without that, what is gone may be gone only for a key of another account.
	vouched bool
}

// note keeps that Stripe does not have an object, if the answer is Stripe's own and about that
// object.
func (d *ofDeleted) note(err error, id string) {
	if failure.IsMissing(err, id) {
		d.gone = append(d.gone, id)
	}
}

// readAs reads a customer, and more of one whose user is being deleted: the schedules, of which one
// that has not begun would start a subscription after everybody has looked; what is to be collected
// although no subscription shows it; and, where something is missing, the account.
//
// The schedules are listed first. One that begins in between has its subscription in the list that
// follows, and a renewal in between its draft.
func (a *Subscriptions) readAs(ctx context.Context, customerID string, read store.ReadOf) (seen shown, err error) {
	if !read.Deleting {
		seen, err = a.read(ctx, customerID, read.Number)
		seen.began = read.Began
		return seen, err
	}
	var schedules []account.Schedule
	var charges []account.PendingCharge
	var unlisted error
	wanted, unknown := a.Policy.Deletion != account.DeleteKeep, false
	if wanted {
		schedules, unlisted = a.Stripe.CustomerSchedules(ctx, customerID)
		if unknown = failure.IsNotFound(unlisted); unknown {
			unlisted = nil
		} else {
			var uncharged error
			if charges, uncharged = a.Stripe.PendingCharges(ctx, customerID); !failure.IsNotFound(uncharged) {
				unlisted = failure.Join(unlisted, uncharged)
			}
		}
	}
	if seen, err = a.read(ctx, customerID, read.Number); err != nil {
		return seen, failure.Join(err, unlisted)
	}
	seen.began, seen.deleting = read.Began, true
	seen.schedules, seen.charges, seen.unread = schedules, charges, failure.Join(seen.unread, unlisted)
	if seen.customerMissing {
		// A customer of whom a subscription can be read is not gone.
		if err := readLeftOut(ctx, a.Store, a.Stripe, customerID, &seen); err != nil {
			return seen, err
		}
		if len(seen.subscriptions) > 0 {
			seen.gone = slices.DeleteFunc(seen.gone, func(id string) bool { return id == customerID })
		}
	}
	if wanted && unlisted == nil && !seen.customer.Deleted {
		if err := a.readLeftOutSchedules(ctx, customerID, &seen); err != nil {
			return seen, err
		}
	}
	// A list that does not know the customer is none, unless the customer was deleted: then it has
	// nothing left. Nothing is concluded from a read that did not show all: neither that all was
	// listed, nor that something is gone.
	seen.listed = wanted && (!unknown || seen.customer.Deleted) && seen.unread == nil
	if len(seen.gone) > 0 && seen.unread == nil {
		seen.vouched, err = vouch(ctx, a.Stripe, a.Store, a.Policy.Livemode)
	}
	return seen, err
}

// readLeftOutSchedules reads each schedule that is stored as not begun and that the list left out,
// whatever becomes of the others.
func (a *Subscriptions) readLeftOutSchedules(ctx context.Context, customerID string, seen *shown) error {
	stored, err := a.Store.NotBegunSchedules(ctx, customerID)
	if err != nil {
		return err
	}
	for _, id := range stored {
		if slices.ContainsFunc(seen.schedules, func(s account.Schedule) bool { return s.ID == id }) {
			continue
		}
		schedule, err := a.Stripe.Schedule(ctx, id)
		switch {
		case failure.IsNotFound(err):
			seen.note(err, id)
		case err != nil:
			seen.unread = failure.Join(seen.unread, err)
		case schedule.CustomerID == customerID:
			seen.schedules = append(seen.schedules, schedule)
		}
	}
	return nil
}

// vouch asks the account who it is. An account that may not be read vouches for nothing.
func vouch(ctx context.Context, stripe Stripe, st *store.Store, livemode bool) (bool, error) {
	id, err := stripe.Account(ctx)
	switch failure.Of(err) {
	case "":
	case failure.Operator, failure.Permanent:
		return false, nil
	case failure.Transient, failure.Throttled:
		return false, err
	}
	stored, err := st.Identity(ctx)
	if err != nil {
		return false, err
	}
	return stored.StripeAccountID == id && stored.StripeLivemode != nil && *stored.StripeLivemode == livemode, nil
}

// commitDeleting stores what a read showed of a customer whose user is being deleted, or is, and
// says what is left to do. The policy is applied in every sync, before the user is erased and
// after: a schedule can be made, and something that was missing can appear, at any time.
func (a *Subscriptions) commitDeleting(ctx context.Context, c committed, customer *store.Customer, seen shown, number int64, result *RecordResult) error {
	tx, user := c.tx, c.user
	if c.fresh && seen.deleting {
		if err := a.recordSighting(ctx, c, customer, seen, number); err != nil {
			return err
		}
	}
	open, err := tx.Unsettled(ctx, user, a.Policy.Deletion, customer.ID)
	if err != nil {
		return err
	}
	// A read that began before the deletion was asked for has not listed the schedules.
	result.StopDue = c.fresh && a.Policy.Deletion != account.DeleteKeep && !seen.listed && !seen.customerMissing
	for _, u := range open {
		result.StopDue = result.StopDue || u.Stoppable()
		if u.Reason == account.UnsettledMissing {
			again := c.now.Add(a.Policy.MissingConfirmedAfter + a.Policy.RereadDelay)
			if result.WakeAt.IsZero() || again.Before(result.WakeAt) {
				result.WakeAt = again.UTC()
			}
		}
	}
	// As long as something may bill the user, somebody has to look after the customer.
	result.Live = result.Live || result.StopDue || len(open) > 0
	if user.ErasedAt == nil && len(open) == 0 && !result.StopDue {
		// The user's own workflow waits for every customer to be settled. One that is not must not wake
		// it: it would have this customer looked at again.
		return tx.Poke(ctx, account.JobOffboard, account.UserEntity(user.ClerkUserID))
	}
	return nil
}

func (a *Subscriptions) recordSighting(ctx context.Context, c committed, customer *store.Customer, seen shown, number int64) error {
	if err := c.tx.RecordSchedules(ctx, seen.schedules...); err != nil {
		return err
	}
	if seen.listed {
		if err := c.tx.RecordCharges(ctx, c.user, customer.ID, seen.charges); err != nil {
			return err
		}
		if err := c.tx.SchedulesListed(ctx, customer, number); err != nil {
			return err
		}
	}
	sighting := store.Sighting{CustomerID: customer.ID, Began: seen.began, ConfirmedAfter: a.Policy.MissingConfirmedAfter, Found: []string{}}
	if !seen.customerMissing || len(seen.subscriptions) > 0 {
		sighting.Found = append(sighting.Found, customer.ID)
	}
	for _, s := range seen.subscriptions {
		sighting.Found = append(sighting.Found, s.ID)
	}
	for _, s := range seen.schedules {
		sighting.Found = append(sighting.Found, s.ID)
	}
	if seen.vouched {
		sighting.Missing = seen.gone
	}
	return c.tx.RecordSighting(ctx, c.user, sighting)
}
