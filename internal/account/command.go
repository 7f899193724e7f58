package account

import "time"

// Command is what a person asks to be done to a subscription.
type Command string

// The commands.
const (
	// CommandCancel ends a subscription with its current period.
	CommandCancel Command = "cancel"
	// CommandCancelNow ends a subscription at once and for good.
	CommandCancelNow Command = "cancel_now"
	// CommandReactivate takes a scheduled end back, however it was set.
	CommandReactivate Command = "reactivate"
)

// Ending is how a subscription is set to end: by the flag, by a date, or not at all. With the flag
// Stripe gives the date too.
type Ending struct {
	AtPeriodEnd bool      `json:"atPeriodEnd,omitempty"`
	At          time.Time `json:"at,omitzero"`
}

// Set tells whether there is an end.
func (e Ending) Set() bool { return e.AtPeriodEnd || !e.At.IsZero() }

// Same tells whether two endings are exactly the same.
func (e Ending) Same(other Ending) bool {
	return e.AtPeriodEnd == other.AtPeriodEnd && e.At.Equal(other.At)
}

// Ending is how the subscription is set to end: by the schedule that manages it, or, where none
// does, by what stands on itself. While one does, a date on the subscription may be the end of a
// phase.
func (s Subscription) Ending() Ending {
	if s.ScheduleID != "" {
		return Ending{At: s.ScheduleEndsAt}
	}
	return Ending{AtPeriodEnd: s.CancelAtPeriodEnd, At: s.CancelAt}
}

// Refusal is why a command is not allowed, as a stable word.
type Refusal string

// The refusals.
const (
	// RefusedUserDeleted: the user is being deleted, and the deletion policy has the last word.
	RefusedUserDeleted Refusal = "user_being_deleted"
	// RefusedEnded: the subscription is over. It can be bought again, not changed.
	RefusedEnded Refusal = "subscription_ended"
	// RefusedUnpaid: the first payment has not been made, so that there is no period to end with.
	// It can be cancelled at once.
	RefusedUnpaid Refusal = "first_payment_open"
	// RefusedPaused: the trial has ended without a way to pay, and Stripe has paused the subscription.
	// Taking back an end would not make it run again, and resuming it bills, which is for its payer to
	// do.
	RefusedPaused Refusal = "subscription_paused"
)

// RefusedContested is why a command about a subscription that the product has stored is refused
// where its customer is nobody's: something names it for another user, and a person has to decide.
const RefusedContested Refusal = "customer_contested"

// Decision is what has to be done at Stripe for a command.
type Decision struct {
	// Refused is set where the state does not allow the command; nothing is done.
	Refused Refusal
	// Satisfied is set where the subscription is as the command wants it; nothing has to be done.
	Satisfied bool
	// ReleaseSchedule names the schedule that manages the subscription. While one does, Stripe refuses
	// to set or clear the subscription's end: that has to be done through the schedule, or, where it
	// cannot, the schedule has to let go of the subscription first.
	ReleaseSchedule string
}

// Acts tells whether Stripe has to be asked to change anything.
func (d Decision) Acts() bool { return d.Refused == "" && !d.Satisfied }

// Reversible tells whether what is done can be taken back: the end of a subscription is final, and
// so is that of a schedule, whose later phases nobody keeps.
func (d Decision) Reversible(c Command) bool {
	return c != CommandCancelNow && d.ReleaseSchedule == ""
}

// Decide says what a command has to do to a subscription that stands like this. It is asked again
// in each attempt: a subscription that is as the command wants it satisfies it, whoever made it so.
//
// A past_due, unpaid or trialing subscription, and one whose collection is paused, may be cancelled
// and reactivated like an active one: both change nothing about what is owed, nor does a
// reactivation say more than that no end is set. A paused one may be cancelled only.
func Decide(c Command, s Subscription, deleting bool) Decision {
	if deleting {
		return Decision{Refused: RefusedUserDeleted}
	}
	if s.Status.Terminal() {
		if c == CommandCancelNow {
			return Decision{Satisfied: true}
		}
		return Decision{Refused: RefusedEnded}
	}
	switch c {
	case CommandCancelNow:
		return Decision{ReleaseSchedule: s.ScheduleID}
	case CommandCancel:
		if s.Status == StatusIncomplete {
			return Decision{Refused: RefusedUnpaid}
		}
		if endsWithPeriod(s) {
			return Decision{Satisfied: true}
		}
		return Decision{ReleaseSchedule: s.ScheduleID}
	case CommandReactivate:
		if s.Status == StatusPaused {
			return Decision{Refused: RefusedPaused}
		}
		if !s.Ending().Set() {
			return Decision{Satisfied: true}
		}
		return Decision{ReleaseSchedule: s.ScheduleID}
	default:
		return Decision{Refused: RefusedEnded}
	}
}

// Undoing says what an undo has to do.
type Undoing string

// The ways of an undo.
const (
	// UndoRestore: the end is set back to what it was before.
	UndoRestore Undoing = "restore"
	// UndoDone: it is what it was before; nothing has to be done.
	UndoDone Undoing = "done"
	// UndoSuperseded: somebody has changed it since. It is theirs now, and is left alone.
	UndoSuperseded Undoing = "superseded"
)

// DecideUndo says whether a step that changed a subscription's end from before to left may be taken
// back, now that the subscription stands like this: only if nobody has changed it since, if it
// still runs, and if its user stays. A date before now cannot be set again.
func DecideUndo(s Subscription, before, left Ending, deleting bool, now time.Time) Undoing {
	switch {
	case deleting, s.Status.Terminal():
		return UndoSuperseded
	case s.Ending().Same(before):
		return UndoDone
	case !s.Ending().Same(left):
		return UndoSuperseded
	case !before.AtPeriodEnd && !before.At.IsZero() && !before.At.After(now):
		return UndoSuperseded
	default:
		return UndoRestore
	}
}
