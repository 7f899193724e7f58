package activities

import (
	"context"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// notePrimaryMissing keeps a customer that Stripe does not know from being its user's primary one,
// where nothing could be bought. What the user's subscriptions give stays.
func (a *Subscriptions) notePrimaryMissing(ctx context.Context, c committed, customer *store.Customer, began time.Time, taken takenEvents) error {
	if len(taken.early) > 0 || !c.fresh {
		return nil
	}
	if err := c.tx.SetMissing(ctx, customer, began); err != nil || c.user == nil {
		return err
	}
	_, err := c.tx.Reproject(ctx, c.user, a.Policy.Access, c.now, taken.ids())
	return err
}

// commitMissing handles a customer that Stripe does not know: drift. Nothing is changed, least
// of all anyone's access.
func (a *Subscriptions) commitMissing(ctx context.Context, in RecordInput, c committed, customer *store.Customer, seen shown, number int64, taken takenEvents,
	result *RecordResult,
) error {
	tx := c.tx
	if !c.fresh {
		// A later read has shown the customer, or that it is gone. This one may not say more than that.
		return failure.New(failure.Transient, "postgres", "record a missing customer", "overtaken", nil)
	}
	result.Outcome = OutcomeMissing
	if c.user != nil {
		result.ClerkUserID, result.PublishDue = c.user.ClerkUserID, c.user.PublishDue()
	}
	if len(taken.early) > 0 {
		result.RereadAfter = a.Policy.RereadDelay
		return nil
	}
	if err := tx.NoteDrift(ctx, account.CustomerEntity(in.CustomerID), account.DriftCustomerMissing, in.CustomerID); err != nil {
		return err
	}
	// Nobody waits for a customer whom Stripe does not have. What was asked for a moment ago may be
	// about one that does not show yet.
	waits, err := tx.EndCustomerWaits(ctx, in.CustomerID, number)
	if err != nil {
		return err
	}
	if waits {
		result.RereadAfter = a.Policy.RereadDelay
	}
	// What they tell is stored, and their user's data is to be forgotten: they may never be completed.
	if err := tx.HoldEvents(ctx, taken.done, store.EventWaiting, "Stripe does not know this customer", c.user != nil && c.user.Deleting()); err != nil {
		return err
	}
	switch {
	case c.user == nil:
		return nil
	case !c.user.Deleting():
		return a.lookAgain(ctx, c, in, result)
	}
	seen.customer.ID = in.CustomerID
	if _, _, err := a.commitRows(ctx, c, seen, reads{number, customer.ReadSeq}, takenEvents{}, trust{}); err != nil {
		return err
	}
	return a.commitDeleting(ctx, c, &store.Customer{ID: in.CustomerID}, seen, number, result)
}

// lookAgain has a customer read again of whom Stripe has answered that it does not exist, while one
// of its stored subscriptions can still change. The answer may be wrong for a while, so the reads
// go on, ever more slowly, as they do for a boundary that Stripe does not act on.
func (a *Subscriptions) lookAgain(ctx context.Context, c committed, in RecordInput, result *RecordResult) error {
	stored, err := c.tx.SubscriptionsOfCustomer(ctx, in.CustomerID)
	if err != nil {
		return err
	}
	var held []account.Held
	for _, s := range stored {
		held = append(held, s.Held())
		result.Live = result.Live || !account.Status(s.Status).Terminal()
	}
	if !result.Live {
		return nil
	}
	result.WakeAt, _ = a.Policy.wake(held, c.now, in)
	if again := c.now.Add(slower(a.Policy.MissingConfirmedAfter, in.Overdue)).UTC(); result.WakeAt.IsZero() || again.Before(result.WakeAt) {
		result.WakeAt = again
	}
	if result.Overdue = in.Overdue; in.ForBoundary {
		result.Overdue++
	}
	return nil
}
