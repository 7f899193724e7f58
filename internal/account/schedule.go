package account

import (
	"slices"
	"time"
)

// ScheduleStatus is a subscription schedule's status in Stripe's own words.
type ScheduleStatus string

// The statuses that Stripe gives a schedule. The last three are final.
const (
	ScheduleNotStarted ScheduleStatus = "not_started"
	ScheduleActive     ScheduleStatus = "active"
	ScheduleCompleted  ScheduleStatus = "completed"
	ScheduleReleased   ScheduleStatus = "released"
	ScheduleCanceled   ScheduleStatus = "canceled"
)

// Rank orders the statuses by time: a schedule's status only ever moves to one of a higher rank. It
// is zero for what is no status that we know.
func (s ScheduleStatus) Rank() int {
	switch s {
	case ScheduleNotStarted:
		return 1
	case ScheduleActive:
		return 2
	case ScheduleCompleted, ScheduleReleased, ScheduleCanceled:
		return 3
	default:
		return 0
	}
}

// Over tells whether the status is final.
func (s ScheduleStatus) Over() bool { return s.Rank() == 3 }

// Schedule is one Stripe subscription schedule as one read of Stripe, or one event, showed it.
type Schedule struct {
	ID         string
	CustomerID string
	// SubscriptionID is the subscription that the schedule manages, "" while it has not begun and once
	// it has let go.
	SubscriptionID string
	Status         ScheduleStatus
	// EndsSubscription is set where the subscription ends with the last phase (end_behavior "cancel").
	EndsSubscription bool
	Phases           []Phase
	// Later are those of the phases that have not begun.
	Later []Phase
}

// Phase is one phase of a schedule.
type Phase struct {
	Start  time.Time `json:"startsAt"`
	End    time.Time `json:"endsAt"`
	Prices []string  `json:"prices"`
}

// Begins is when the first phase begins, zero where there is none.
func (s Schedule) Begins() time.Time {
	if len(s.Phases) == 0 {
		return time.Time{}
	}
	return s.Phases[0].Start
}

// EndsAt is when the schedule ends its subscription, zero where it does not.
func (s Schedule) EndsAt() time.Time {
	if !s.EndsSubscription || len(s.Phases) == 0 {
		return time.Time{}
	}
	return s.Phases[len(s.Phases)-1].End
}

// NotBegun are the ids of the schedules that would still start a subscription, in order.
func NotBegun(schedules []Schedule) []string {
	var ids []string
	for _, s := range schedules {
		if s.Status == ScheduleNotStarted {
			ids = append(ids, s.ID)
		}
	}
	slices.Sort(ids)
	return ids
}
