package activities

import (
	"context"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

// StopBilling applies the deletion policy to what a customer has whose user is being deleted: it cancels the schedules
// that have not begun, stops the subscriptions, and records the customer afterwards: one activity, so that what Stripe
// confirmed is in our rows before anyone concludes from them that billing has stopped.
//
// Each of them is stopped whatever becomes of the others. Those that could not be are tried again with the next attempt, or, where
// Stripe refuses them for good, when the customer's workflow looks again.
//
// Idempotent: each object is read first, and one that complies already is left alone.
// The keys are the same in each attempt.
func (a *Subscriptions) StopBilling(ctx context.Context, in RecordInput) (RecordResult, error) {
	if a.Policy.Deletion == account.DeleteKeep {
		return a.RecordSubscriptions(ctx, in)
	}
	failed := a.cancelSchedules(ctx, in.CustomerID)
	stored, err := a.Store.SubscriptionsOfCustomer(ctx, in.CustomerID)
	if err != nil {
		return RecordResult{}, err
	}
	for _, s := range stored {
		if a.Policy.Deletion.Stop(s.Held().Subscription) != account.StopNothing {
			failed = append(failed, a.stop(ctx, s.StripeID))
		}
	}
	if err := failure.Join(failed...); err != nil {
		showFailing(ctx, a.Store, account.CustomerEntity(in.CustomerID), err)
		return RecordResult{}, err
	}
	return a.RecordSubscriptions(ctx, in)
}

// cancelSchedules cancels the schedules of a customer that would start a subscription by themselves. Those that have begun
// are stopped with their subscriptions. It answers a failure for each that could not be.
func (a *Subscriptions) cancelSchedules(ctx context.Context, customerID string) (failed []error) {
	schedules, err := a.Stripe.CustomerSchedules(ctx, customerID)
	if failure.IsNotFound(err) {
		return nil // recording says so
	}
	if err != nil {
		return []error{err}
	}
	for _, id := range account.NotBegun(schedules) {
		err := a.Stripe.CancelSchedule(ctx, id, operationKey(ctx, "cancel-schedule", id))
		if failure.Of(err) == failure.Permanent {
			// Refused: it may have begun or ended since. If so, there is nothing to cancel any more, and recording
			// shows what it has left.
			now, readErr := a.Stripe.Schedule(ctx, id)
			if failure.IsNotFound(readErr) || readErr == nil && now.Status != account.ScheduleNotStarted {
				continue
			}
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	return failed
}

func (a *Subscriptions) stop(ctx context.Context, subscriptionID string) error {
	current, err := a.Stripe.Subscription(ctx, subscriptionID)
	if failure.IsNotFound(err) {
		return nil // recording makes it loud
	}
	if err != nil {
		return err
	}
	if current.ScheduleID != "" {
		stopped, err := a.stopThroughSchedule(ctx, current)
		if err != nil || stopped {
			return err
		}
		// Refused: what stands by now decides.
		if current, err = a.Stripe.Subscription(ctx, subscriptionID); failure.IsNotFound(err) {
			return nil
		} else if err != nil {
			return err
		}
	}
	stop := a.Policy.Deletion.Stop(current)
	if stop == account.StopNothing {
		return nil
	}
	if current.ScheduleID != "" {
		// While a schedule manages the subscription Stripe refuses to end it otherwise, and the
		// schedule could renew it.
		err := a.Stripe.ReleaseSchedule(ctx, current.ScheduleID, operationKey(ctx, "release", current.ScheduleID))
		if err != nil && failure.Of(err) != failure.Permanent {
			return err
		}
		// One that could not be released may have let go by itself; else Stripe refuses what follows.
	}
	key := operationKey(ctx, "stop", subscriptionID)
	if stop == account.StopNow {
		_, err = a.Stripe.CancelNow(ctx, subscriptionID, key)
	} else {
		_, err = a.Stripe.SetEnding(ctx, subscriptionID, current.Ending(), account.Ending{AtPeriodEnd: true}, key)
	}
	if failure.Of(err) != failure.Permanent {
		return err
	}
	// Refused: it may have changed since it was read. If it complies by now, all is well.
	current, readErr := a.Stripe.Subscription(ctx, subscriptionID)
	if failure.IsNotFound(readErr) || readErr == nil && a.Policy.Deletion.Stop(current) == account.StopNothing {
		return nil
	}
	return err
}

// stopThroughSchedule stops a subscription by the schedule that manages it, in one call, and answers whether that was done;
// false where Stripe refuses it.
func (a *Subscriptions) stopThroughSchedule(ctx context.Context, current account.Subscription) (stopped bool, err error) {
	switch a.Policy.Deletion.Stop(current) {
	case account.StopNothing:
		return true, nil
	case account.StopNow:
		err = a.Stripe.CancelSchedule(ctx, current.ScheduleID, operationKey(ctx, "stop-schedule", current.ScheduleID))
	case account.StopAtPeriodEnd:
		err = a.Stripe.EndThroughSchedule(ctx, current.ScheduleID, current.PaidUntil(), operationKey(ctx, "stop-schedule", current.ScheduleID))
	}
	if failure.Of(err) == failure.Permanent {
		return false, nil
	}
	return err == nil, err
}
