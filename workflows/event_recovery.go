package workflows

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/nepfy/clerk-stripe-sync/activities"
)

// EventRecoveryID is the id of the schedule that starts [EventRecovery], and begins those of its
// runs.
const EventRecoveryID = "event-recovery"

// EventRecoveryInput carries what a run hands to the next.
type EventRecoveryInput struct {
	// Stripe and Clerk are set by continue-as-new and by nobody else.
	Stripe activities.RecoveryPass `json:"stripe,omitzero"`
	Clerk  activities.RecoveryPass `json:"clerk,omitzero"`
	// ContinueAfter makes a run continue as new after so many activities; zero leaves it to the
	// server. For tests.
	ContinueAfter int `json:"continueAfter,omitempty"`
}

// EventRecoveryResult is what a run has found.
type EventRecoveryResult struct {
	Stripe activities.RecoveryPass `json:"stripe"`
	Clerk  activities.RecoveryPass `json:"clerk"`
}

// recoveryPatience is how long a page that cannot be read is tried. A run that gives up moves no
// cursor, so the next one looks at everything again; one that did not give up would keep the next
// from starting, and an outage of one provider would keep what the other one knows from being
// found.
const recoveryPatience = 10 * time.Minute

// EventRecovery finds what Stripe and Clerk never told us of: it reads Stripe's list of events, and
// the users whom Clerk has changed, back to what is known. The two go on beside each other, and one
// that fails does not stop the other. A schedule starts it.
func EventRecovery(ctx workflow.Context, in EventRecoveryInput) (EventRecoveryResult, error) {
	var set activitySet
	r := &recoveryRun{in: in}
	if err := workflow.SetQueryHandler(ctx, QueryState, func() (EventRecoveryResult, error) { return r.result(), nil }); err != nil {
		return r.result(), fmt.Errorf("setting the state query: %w", err)
	}
	stripe := r.start(ctx, onStripe, set.recovery.RecoverEvents, &r.in.Stripe)
	clerk := r.start(ctx, onClerk, set.recovery.RecoverUsers, &r.in.Clerk)
	var stripeErr, clerkErr error
	if err := workflow.Await(ctx, func() bool { return stripe.IsReady() && clerk.IsReady() }); err != nil {
		return r.result(), err
	}
	stripeErr, clerkErr = stripe.Get(ctx, nil), clerk.Get(ctx, nil)
	r.describe(ctx, stripeErr, clerkErr)
	switch {
	case stripeErr == nil && !r.in.Stripe.Complete || clerkErr == nil && !r.in.Clerk.Complete:
		return r.result(), workflow.NewContinueAsNewError(ctx, EventRecovery, r.next(stripeErr, clerkErr))
	case stripeErr != nil || clerkErr != nil:
		return r.result(), temporal.NewApplicationErrorWithCause("not everything could be read; the next run looks at all of it again",
			failureType(errors.Join(stripeErr, clerkErr)), errors.Join(stripeErr, clerkErr))
	default:
		return r.result(), nil
	}
}

type recoveryRun struct {
	in   EventRecoveryInput
	done int
}

func (r *recoveryRun) result() EventRecoveryResult {
	return EventRecoveryResult{Stripe: r.in.Stripe, Clerk: r.in.Clerk}
}

// next is what the next run goes on with: passes where they stand, and one that failed from its
// start.
func (r *recoveryRun) next(stripeErr, clerkErr error) EventRecoveryInput {
	next := r.in
	if stripeErr != nil {
		next.Stripe = activities.RecoveryPass{}
	}
	if clerkErr != nil {
		next.Clerk = activities.RecoveryPass{}
	}
	return next
}

// start takes a pass on until it is complete, fails, or the run has become long.
func (r *recoveryRun) start(ctx workflow.Context, on func(workflow.Context) workflow.Context, activity any, pass *activities.RecoveryPass) workflow.Future {
	future, settable := workflow.NewFuture(ctx)
	workflow.Go(ctx, func(ctx workflow.Context) {
		ctx = routinely(on(ctx), recoveryPatience)
		for !pass.Complete && !r.full(ctx) {
			if err := workflow.ExecuteActivity(ctx, activity, *pass).Get(ctx, pass); err != nil {
				settable.SetError(err)
				return
			}
			r.done++
		}
		settable.SetValue(nil)
	})
	return future
}

func (r *recoveryRun) full(ctx workflow.Context) bool {
	if r.done == 0 {
		return false // a run that has done nothing yet has nothing to hand on
	}
	return workflow.GetInfo(ctx).GetContinueAsNewSuggested() || r.in.ContinueAfter > 0 && r.done >= r.in.ContinueAfter
}

func (r *recoveryRun) describe(ctx workflow.Context, stripeErr, clerkErr error) {
	tell := func(what, of string, pass activities.RecoveryPass, err error) string {
		switch {
		case err != nil:
			return fmt.Sprintf("%s: not read to the end (%s).", what, failureType(err))
		case !pass.Complete:
			return fmt.Sprintf("%s: %d %s looked at so far, %d missing.", what, pass.Listed, of, pass.Missing)
		default:
			return fmt.Sprintf("%s: %d %s looked at, %d missing.", what, pass.Listed, of, pass.Missing)
		}
	}
	text := tell("Stripe", "events", r.in.Stripe, stripeErr) + " " + tell("Clerk", "users", r.in.Clerk, clerkErr)
	if r.in.Stripe.Gap {
		text += " Stripe's list ends after what is known here: the events between are lost; a reconciliation finds what they changed."
	}
	workflow.SetCurrentDetails(ctx, text)
	if r.in.Stripe.Gap {
		workflow.GetLogger(ctx).Error("Stripe's list of events ends after what is known here: what lies between is not in it. A reconciliation finds what it changed",
			"from", r.in.Stripe.From)
	}
}
