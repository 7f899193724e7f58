package activities

import (
	"cmp"
	"context"
	"slices"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

// StopBilling applies the deletion policy to what a customer has whose user is being deleted: it
// cancels the schedules that have not begun, stops the subscriptions, takes away invoice items that
// wait for the next invoice, keeps invoices from being collected, and records the customer
// afterwards: one activity, so that what Stripe confirmed is in our rows before anyone concludes
// from them that billing has stopped.
//
// Each of them is stopped whatever becomes of the others. Those that could not be are tried again
// with the next attempt, or, where Stripe refuses them for good, when the customer's workflow looks
// again.
//
// Idempotent: each object is read first, and one that complies already is left alone.
// The keys are the same in each attempt.
func (a *Subscriptions) StopBilling(ctx context.Context, in RecordInput) (RecordResult, error) {
	if a.Policy.Deletion == account.DeleteKeep {
		return a.RecordSubscriptions(ctx, in)
	}
	return holding(ctx, a, in.CustomerID, func(s *stopping) (RecordResult, error) {
		if err := failure.Join(s.schedules(ctx), s.stored(ctx, false), s.charges(ctx, false)); err != nil {
			return RecordResult{}, err
		}
		result, unread, err := a.recordAndPublish(ctx, in)
		return result, cmp.Or(err, unread)
	})
}

// end stops a subscription that stands as it does by now, or as it is known to; one that complies
// is left alone.
func (a *Subscriptions) end(ctx context.Context, current account.Subscription) error {
	if current.ScheduleID != "" {
		stopped, err := a.stopThroughSchedule(ctx, current)
		if err != nil || stopped {
			return err
		}
		// Refused: what stands by now decides.
		if current, err = a.standing(ctx, current.ID); failure.IsNotFound(err) {
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
		err := a.Stripe.ReleaseSchedule(ctx, current.ScheduleID, freshKey("release", current.ScheduleID))
		if err != nil && failure.Of(err) != failure.Permanent {
			return err
		}
		// One that could not be released may have let go by itself; else Stripe refuses what follows.
	}
	id, key := current.ID, freshKey("stop", current.ID)
	var err error
	if stop == account.StopNow {
		_, err = a.Stripe.CancelNow(ctx, id, key)
	} else {
		_, err = a.Stripe.SetEnding(ctx, id, current.Ending(), account.Ending{AtPeriodEnd: true}, key)
	}
	if failure.Of(err) != failure.Permanent {
		return err
	}
	// Refused: it may have changed since it was read. If it complies by now, all is well.
	current, readErr := a.standing(ctx, id)
	if failure.IsNotFound(readErr) || readErr == nil && a.Policy.Deletion.Stop(current) == account.StopNothing {
		return nil
	}
	return err
}

// standing reads how a subscription stands. Its items say nothing of that: one whose items cannot
// be read is answered without a failure.
func (a *Subscriptions) standing(ctx context.Context, id string) (account.Subscription, error) {
	current, err := a.Stripe.Subscription(ctx, id)
	if current.Unread {
		return current, nil
	}
	return current, err
}

// stopThroughSchedule stops a subscription by the schedule that manages it, in one call, and
// answers whether that was done; false where Stripe refuses it.
func (a *Subscriptions) stopThroughSchedule(ctx context.Context, current account.Subscription) (stopped bool, err error) {
	switch a.Policy.Deletion.Stop(current) {
	case account.StopNothing:
		return true, nil
	case account.StopNow:
		err = a.Stripe.CancelSchedule(ctx, current.ScheduleID, freshKey("stop-schedule", current.ScheduleID))
	case account.StopAtPeriodEnd:
		err = a.Stripe.EndWithPresentPhase(ctx, current.ScheduleID, current.PaidUntil(), freshKey("stop-schedule", current.ScheduleID))
	}
	if failure.Of(err) == failure.Permanent {
		return false, nil
	}
	return err == nil, err
}

// charges stops what Stripe would collect of the customer by itself: what is stored of that, and,
// where nothing may have been stored, what Stripe lists.
func (s *stopping) charges(ctx context.Context, list bool) error {
	pending, err := s.Store.ChargesOf(ctx, s.customerID)
	failed := []error{err}
	if list {
		listed, err := s.Stripe.PendingCharges(ctx, s.customerID)
		if !failure.IsNotFound(err) { // recording says so
			failed = append(failed, err)
		}
		for _, p := range listed {
			if !pends(pending, p.ID) {
				pending = append(pending, p)
			}
		}
		slices.SortStableFunc(pending, func(a, b account.PendingCharge) int { return cmp.Compare(b.Amount, a.Amount) })
	}
	for _, p := range pending {
		failed = append(failed, guarded(func() error { return s.stopCharge(ctx, p) }))
	}
	return failure.Join(failed...)
}

// stopCharge takes an invoice item away, or keeps an invoice from being collected. One that is
// gone, or has been paid meanwhile, needs that no more.
func (s *stopping) stopCharge(ctx context.Context, p account.PendingCharge) error {
	var err error
	switch p.Kind {
	case account.ChargeItem:
		err = s.Stripe.DeleteInvoiceItem(ctx, p.ID)
	case account.ChargeInvoice:
		err = s.Stripe.StopCollecting(ctx, p.ID, freshKey("stop-collecting", p.ID))
	}
	if failure.IsNotFound(err) {
		err = nil
	}
	if failure.Of(err) == failure.Permanent {
		// Refused: an invoice may have taken the item in, or have been paid.
		now, readErr := s.Stripe.PendingCharges(ctx, s.customerID)
		if readErr == nil && !pends(now, p.ID) {
			return nil
		}
	}
	if err != nil {
		return err
	}
	return s.Store.ChargeStopped(ctx, s.customerID, p, cause(ctx))
}

func pends(pending []account.PendingCharge, id string) bool {
	return slices.ContainsFunc(pending, func(p account.PendingCharge) bool { return p.ID == id })
}
