package activities

import (
	"context"

	"go.temporal.io/sdk/activity"
)

// The priorities of activities, where the server knows them. The worker keeps to them too, where
// calls of a provider wait for its rate.
const (
	// PriorityPerson is for what a person is waiting for.
	PriorityPerson = 1
	// PriorityNew is for a customer of whom nobody knows yet that they have access: a checkout, as a
	// rule.
	PriorityNew = 2
	// PriorityKnown is for a customer who has access, or a user who has a customer, and is looked at
	// once more: a renewal, as a rule, and what follows of it. Renewals come in waves, on the first of
	// the month.
	PriorityKnown = 4
	// PriorityRoutine is for what is done again and again by itself, and for bulk syncs.
	PriorityRoutine = 5
)

// PriorityOf is that of the activity that ctx is of; 0 for one that was given none. What no
// activity does somebody is waiting for.
func PriorityOf(ctx context.Context) int {
	if !activity.IsActivity(ctx) {
		return PriorityPerson
	}
	return activity.GetInfo(ctx).Priority.PriorityKey
}
