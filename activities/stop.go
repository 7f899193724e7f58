package activities

import (
	"context"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

// StopBilling applies the deletion policy to the subscriptions of a customer whose user is
// being deleted, and records the customer afterwards: one activity, so that what Stripe
// confirmed is in our rows before anyone concludes from them that billing has stopped.
//
// Each subscription is stopped whatever becomes of the others. Those that could not be are tried again with the next attempt, or, where
// Stripe refuses them for good, when the customer's workflow looks again.
//
// Idempotent: each subscription is read first, and one that complies already is left alone.
// The keys are the same in each attempt.
func (a *Subscriptions) StopBilling(ctx context.Context, in RecordInput) (RecordResult, error) {
	stored, err := a.Store.SubscriptionsOfCustomer(ctx, in.CustomerID)
	if err != nil {
		return RecordResult{}, err
	}
	var failed []error
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

func (a *Subscriptions) stop(ctx context.Context, subscriptionID string) error {
	current, err := a.Stripe.Subscription(ctx, subscriptionID)
	if failure.IsNotFound(err) {
		return nil // recording makes it loud
	}
	if err != nil {
		return err
	}
	stop := a.Policy.Deletion.Stop(current)
	if stop == account.StopNothing {
		return nil
	}
	if current.ScheduleID != "" {
		// While a schedule manages the subscription Stripe refuses to end it otherwise, and the
		// schedule could renew it.
		err := a.Stripe.ReleaseSchedule(ctx, current.ScheduleID, operationKey(ctx, "release", current.ScheduleID))
		if err != nil && !failure.IsNotFound(err) {
			return err
		}
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
