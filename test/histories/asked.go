package histories

import (
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"

	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// Scheduled lists the activities that a workflow has asked for.
func Scheduled(history *historypb.History) []*historypb.ActivityTaskScheduledEventAttributes {
	var scheduled []*historypb.ActivityTaskScheduledEventAttributes
	for _, event := range history.GetEvents() {
		if event.GetEventType() == enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED {
			scheduled = append(scheduled, event.GetActivityTaskScheduledEventAttributes())
		}
	}
	return scheduled
}

// queues says where each activity runs: on the queue of the provider that it asks, whose rate
// is bounded there.
func queues() map[string]string {
	return map[string]string{
		"SyncUser": workflows.QueueClerk, "PublishProjection": workflows.QueueClerk, "EraseUser": workflows.QueueMain,
		"EnsureStripeCustomer": workflows.QueueStripe, "UndoStripeCustomer": workflows.QueueStripe, "ExpireCheckouts": workflows.QueueStripe,
		"RecordSubscriptions": workflows.QueueStripe, "StopBilling": workflows.QueueStripe,
		"ApplyCommand": workflows.QueueStripe, "UndoCommand": workflows.QueueStripe,
		"RecordProduct": workflows.QueueStripe, "RouteDispute": workflows.QueueStripe,
		"RecoverEvents": workflows.QueueStripe, "CompareStripe": workflows.QueueStripe, "LookAtStripe": workflows.QueueStripe,
		"RecoverUsers": workflows.QueueClerk, "CompareUsers": workflows.QueueClerk, "LookAtUsers": workflows.QueueClerk,
		"BeginReconciliation": workflows.QueueMain, "CompareWatched": workflows.QueueMain, "CompareStored": workflows.QueueMain,
		"ConcludeComparison": workflows.QueueMain, "RepairDrift": workflows.QueueMain, "FinishReconciliation": workflows.QueueMain,
		"BulkStripe": workflows.QueueStripe, "BulkClerk": workflows.QueueClerk, "FinishBulk": workflows.QueueMain,
	}
}

// givenUp says how long an activity is tried that belongs to what is done again by itself. All
// others are seen through, however long it takes.
func givenUp(workflow string) time.Duration {
	switch workflow {
	case "EventRecovery":
		return 10 * time.Minute
	case "Reconciliation":
		return 6 * time.Hour
	case "BulkSync":
		return 24 * time.Hour
	default:
		return 0
	}
}

// longest says how long an attempt may take: one look is over in a minute, a page of many users is
// not.
func longest(activity string) time.Duration {
	if activity == "BulkStripe" || activity == "BulkClerk" {
		return 10 * time.Minute
	}
	return time.Minute
}

// Careless lists the activities that were not asked for as they should be: with a time that bounds
// an attempt, on the queue of their own provider, and for as many attempts as it takes, with pauses
// that grow to half a minute. Nothing bounds the whole, unless it is done again by itself: an
// outage of a night must not need anyone.
func Careless(history *historypb.History) []string {
	var found []string
	patience := givenUp(history.GetEvents()[0].GetWorkflowExecutionStartedEventAttributes().GetWorkflowType().GetName())
	for _, a := range Scheduled(history) {
		name, policy := a.GetActivityType().GetName(), a.GetRetryPolicy()
		report := func(format string, args ...any) { found = append(found, name+" "+fmt.Sprintf(format, args...)) }
		if queue := a.GetTaskQueue().GetName(); queue != queues()[name] {
			report("goes to %q, not to %q", queue, queues()[name])
		}
		if d := a.GetStartToCloseTimeout().AsDuration(); d < 10*time.Second || d > longest(name) {
			report("has attempts of %s", d)
		}
		patience := patience
		if name == "ExpireCheckouts" {
			patience = 2 * time.Minute // it is come back to; what is not settled must not wait for it
		}
		if d := a.GetScheduleToCloseTimeout().AsDuration(); d != patience {
			report("is given up after %s", d)
		}
		if policy.GetInitialInterval().AsDuration() != time.Second || policy.GetBackoffCoefficient() != 2 || policy.GetMaximumInterval().AsDuration() != 30*time.Second {
			report("pauses by %v", policy)
		}
		if policy.GetMaximumAttempts() != 0 || len(policy.GetNonRetryableErrorTypes()) > 0 {
			report("stops by %v", policy)
		}
	}
	return found
}
