package account

import "time"

// DeletionPolicy says what happens to the subscriptions of a user who is deleted.
type DeletionPolicy string

// The deletion policies.
const (
	// DeleteCancelAtPeriodEnd lets what is paid for run out.
	DeleteCancelAtPeriodEnd DeletionPolicy = "cancel_at_period_end"
	// DeleteCancelNow ends everything at once.
	DeleteCancelNow DeletionPolicy = "cancel_now"
	// DeleteKeep leaves billing alone; somebody else takes care of it.
	DeleteKeep DeletionPolicy = "keep"
)

// Stop is what has to be done to one subscription of a deleted user.
type Stop string

// The ways to stop a subscription.
const (
	StopNothing     Stop = ""
	StopAtPeriodEnd Stop = "at_period_end"
	StopNow         Stop = "now"
)

// Stop decides what has to be done to a subscription of a deleted user so that nobody is
// billed any more. It answers StopNothing when the subscription already complies, so that
// applying the policy again changes nothing.
//
// A subscription that Stripe could still collect on (past_due, unpaid, incomplete, paused) is
// ended at once: a period end would only come after more attempts to collect.
func (p DeletionPolicy) Stop(s Subscription) Stop {
	if p == DeleteKeep || s.Status.Terminal() {
		return StopNothing
	}
	if p == DeleteCancelNow || (s.Status != StatusActive && s.Status != StatusTrialing) {
		return StopNow
	}
	if endsWithPeriod(s) {
		return StopNothing
	}
	return StopAtPeriodEnd
}

// endsWithPeriod tells whether the subscription ends before it could be billed again. A set
// date after the period's end does not count: there would be a renewal before it.
func endsWithPeriod(s Subscription) bool {
	if s.CancelAtPeriodEnd {
		return true
	}
	at, scheduled := s.ScheduledToEnd()
	return scheduled && !at.After(latest(s.CurrentPeriodEnd, s.TrialEnd))
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
