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
// A subscription that Stripe could still collect on is ended at once: a period end would only come
// after more attempts to collect. It is one that is past_due, unpaid, incomplete or paused; one
// whose latest invoice is not paid yet, as that of a renewal, or of a trial's end, is for about an
// hour; and one with a metered item, since Stripe bills what was used when the period ends.
func (p DeletionPolicy) Stop(s Subscription) Stop {
	if p == DeleteKeep || s.Status.Terminal() {
		return StopNothing
	}
	if p == DeleteCancelNow || (s.Status != StatusActive && s.Status != StatusTrialing) || s.Outstanding || s.Metered {
		return StopNow
	}
	if endsWithPeriod(s) {
		return StopNothing
	}
	return StopAtPeriodEnd
}

// endsWithPeriod tells whether the subscription ends before it could be billed again. A set
// date after the period's end does not count: there would be a renewal before it.
//
// Where a schedule manages the subscription, only the schedule says so, by ending it with its last
// phase: a date on the subscription itself may be the end of a phase that another one follows.
//
// A phase that has not begun yet would still bill, however soon the last one ends.
func endsWithPeriod(s Subscription) bool {
	paidUntil := s.PaidUntil()
	if s.ScheduleID != "" {
		return !s.PhasesAhead && len(s.LaterPhases) == 0 && !s.ScheduleEndsAt.IsZero() && !s.ScheduleEndsAt.After(paidUntil)
	}
	if s.CancelAtPeriodEnd {
		return true
	}
	at, scheduled := s.ScheduledToEnd()
	return scheduled && !at.After(paidUntil)
}

// PaidUntil is when the subscription would be billed again: the end of its period, or of its trial.
func (s Subscription) PaidUntil() time.Time { return latest(s.CurrentPeriodEnd, s.TrialEnd) }

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Unsettled is one reason why a user who is being deleted may still be billed.
type Unsettled struct {
	// CustomerID is "" for a subscription that the product has noted without its customer.
	CustomerID string `json:"customerId"`
	// Subject is the object that it is about: the customer, a subscription or a schedule.
	Subject string          `json:"subject"`
	Reason  UnsettledReason `json:"reason"`
}

// UnsettledReason says in a stable word why something is not settled.
type UnsettledReason string

// The reasons.
const (
	// UnsettledNotRead: the customer was not read since the deletion was asked for.
	UnsettledNotRead UnsettledReason = "not_read"
	// UnsettledSchedulesNotListed: its schedules and pending charges were not.
	UnsettledSchedulesNotListed UnsettledReason = "schedules_not_listed"
	// UnsettledScheduleNotBegun: a schedule would start a subscription.
	UnsettledScheduleNotBegun UnsettledReason = "schedule_not_begun"
	// UnsettledSubscription: a subscription does not comply with the deletion policy.
	UnsettledSubscription UnsettledReason = "subscription_runs"
	// UnsettledCharge: Stripe will bill an invoice item, or collect an invoice, by itself.
	UnsettledCharge UnsettledReason = "charge_pending"
	// UnsettledMissing: Stripe says that it does not have it, which is not confirmed yet.
	UnsettledMissing UnsettledReason = "missing_not_confirmed"
)

// Means says the reason in words.
func (r UnsettledReason) Means() string {
	switch r {
	case UnsettledNotRead:
		return "not read since the deletion was asked for"
	case UnsettledSchedulesNotListed:
		return "its schedules were not listed since the deletion was asked for"
	case UnsettledScheduleNotBegun:
		return "a schedule that will start a subscription"
	case UnsettledSubscription:
		return "a subscription that runs on"
	case UnsettledCharge:
		return "an invoice, or an item of the next one, that Stripe will collect"
	case UnsettledMissing:
		return "Stripe does not have it, which is not confirmed yet"
	default:
		return string(r)
	}
}

// Stoppable tells whether applying the deletion policy can settle it.
func (u Unsettled) Stoppable() bool {
	switch u.Reason {
	case UnsettledScheduleNotBegun, UnsettledSubscription, UnsettledSchedulesNotListed, UnsettledCharge:
		return true
	case UnsettledNotRead, UnsettledMissing:
		return false
	default:
		return false
	}
}
