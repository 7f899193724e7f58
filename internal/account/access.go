package account

import (
	"slices"
	"time"
)

// AccessPolicy is what an operator may choose about access.
type AccessPolicy struct {
	// PastDueGrace is how long a past_due subscription keeps granting, counted from when the earliest
	// invoice that it has left unpaid was due.
	PastDueGrace time.Duration
	// WhilePaused makes a subscription grant although collection is paused.
	WhilePaused bool
}

// Grants tells whether a subscription grants access at the given time.
//
// Active and trialing grant, past_due within its grace, the rest do not: incomplete was never
// paid, unpaid and paused were given up by Stripe, canceled and incomplete_expired are over.
func (p AccessPolicy) Grants(s Subscription, now time.Time) bool {
	if s.CollectionPaused && !p.WhilePaused {
		return false
	}
	switch s.Status {
	case StatusActive, StatusTrialing:
		return true
	case StatusPastDue:
		return now.Before(p.GraceEnd(s))
	case StatusIncomplete, StatusIncompleteExpired, StatusUnpaid, StatusPaused, StatusCanceled:
		return false
	default:
		return false
	}
}

// GraceEnd is when a past_due subscription stops granting. It counts from when the delinquency
// began, and no invoice that Stripe goes on making meanwhile moves it. The zero time plus the
// grace, which is long over, where that is not known: no row is stored so.
func (p AccessPolicy) GraceEnd(s Subscription) time.Time { return s.PastDueSince.Add(p.PastDueGrace) }

// Boundaries are the moments at which the subscription can change by itself, the earliest first:
// the ends of its trial, of its period, of its grace, and its set end. There are none where it
// cannot. One in the past, which Stripe has not acted on yet, is among them.
func (p AccessPolicy) Boundaries(s Subscription, now time.Time) []time.Time {
	if s.Status.Terminal() {
		return nil
	}
	known := []time.Time{s.CurrentPeriodEnd, s.CancelAt, s.ScheduleEndsAt}
	if s.Status == StatusTrialing {
		known = append(known, s.TrialEnd)
	}
	if s.Status == StatusPastDue && p.Grants(s, now) {
		known = append(known, p.GraceEnd(s))
	}
	if s.Status == StatusIncomplete && !s.Created.IsZero() {
		// Stripe gives the first payment 23 hours.
		known = append(known, s.Created.Add(23*time.Hour))
	}
	known = slices.DeleteFunc(known, time.Time.IsZero)
	slices.SortFunc(known, time.Time.Compare)
	return known
}
