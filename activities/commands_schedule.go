package activities

import (
	"context"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// scheduleReleased is why an operation failed whose subscription Stripe does not let end, after the
// schedule that managed it was taken off: something was done, and cannot be put back.
const scheduleReleased = "schedule_released"

// changeThroughSchedule makes a command's change to a subscription that a schedule manages. It
// answers true where the customer has to be read to go on, and false where the subscription itself
// is to be changed now, since the schedule has let go of it.
//
// The change is first asked for through the schedule, in one call that is done or not. Only where
// Stripe refuses that, and the schedule still manages the subscription, is the schedule released,
// which loses its later phases for good. One that has taken its place is asked first too. The
// release is noted before it is asked for: whatever becomes of the attempt, the operation does not
// end as one that did nothing.
//
// Where the schedule has ended, let go or been cancelled since it was read, Stripe refuses too; the
// read that follows decides again.
func (a *Commands) changeThroughSchedule(ctx context.Context, s *step) (read bool, err error) {
	id := s.decision.ReleaseSchedule
	if s.refusedSchedule != id && !s.releasing(id) {
		err := a.askSchedule(ctx, s, id)
		if err := a.outcome(s, err); err != nil {
			return false, err
		}
		s.confirmed = s.refusedAs == ""
		if !s.confirmed {
			s.refusedSchedule, s.refusedAs = id, ""
		}
		return true, nil
	}
	if err := a.Subscriptions.Store.NoteRelease(ctx, s.op, id, s.standing.LaterPhases); err != nil {
		return false, err
	}
	err = a.Subscriptions.Stripe.ReleaseSchedule(ctx, id, s.key("release:"+id))
	if err := a.outcome(s, err); err != nil {
		return false, err
	}
	if s.refusedAs == "" {
		s.released = id
		return false, nil
	}
	if s.releaseRefused {
		return true, nil // it stands as it is, and Stripe refuses for good
	}
	// It may have let go by itself: then there is nothing to release.
	s.releaseRefused, s.refusedAs = true, ""
	return true, nil
}

func (a *Commands) askSchedule(ctx context.Context, s *step, id string) error {
	stripe := a.Subscriptions.Stripe
	switch s.op.Action {
	case store.ActionCancelNow:
		return stripe.CancelSchedule(ctx, id, s.key("cancel-schedule:"+id))
	case store.ActionReactivate:
		return stripe.ContinueThroughSchedule(ctx, id, s.key("continue-schedule:"+id))
	default:
		return stripe.EndThroughSchedule(ctx, id, s.standing.PaidUntil(), s.key("end-schedule:"+id))
	}
}

// releasing tells whether Stripe was, or was about to be, asked to release this schedule for the
// operation.
func (s *step) releasing(schedule string) bool {
	return s.op.DroppedJSON != nil && s.op.ReleaseSchedule == schedule
}

// holds tells whether the schedule that Stripe was to be asked to release manages the subscription
// still: it never was released. What Stripe has confirmed counts whatever a look behind it shows,
// which may be late.
func (s *step) holds(standing *account.Subscription) bool {
	return standing != nil && s.releasing(standing.ScheduleID) && s.released != standing.ScheduleID
}

// failedAs is the reason of an operation that Stripe has refused for good.
func (s *step) failedAs() string {
	if s.op.DroppedJSON != nil && !s.holds(&s.standing) {
		return scheduleReleased
	}
	return s.refusedAs
}
