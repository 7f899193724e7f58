package activities

import (
	"context"
	"crypto/rand"

	"go.temporal.io/sdk/activity"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// cause says in the audit log which workflow made a change.
func cause(ctx context.Context) store.Cause {
	if !activity.IsActivity(ctx) {
		return store.Cause{}
	}
	info := activity.GetInfo(ctx)
	return store.Cause{WorkflowID: info.WorkflowExecution.ID, RunID: info.WorkflowExecution.RunID}
}

// because is [cause] for what somebody has asked for.
func because(ctx context.Context, o *store.Operation) store.Cause {
	why := cause(ctx)
	why.Caller, why.OperationID = o.Caller, o.ID
	return why
}

// attempt is which attempt of the activity this is, from one. Outside an activity it is the first.
func attempt(ctx context.Context) int32 {
	if !activity.IsActivity(ctx) {
		return 1
	}
	return activity.GetInfo(ctx).Attempt
}

// operationKey is an idempotency key that is the same in each attempt of this activity and
// another in each other activity.
func operationKey(ctx context.Context, step, subject string) string {
	if !activity.IsActivity(ctx) {
		return step + ":" + subject
	}
	info := activity.GetInfo(ctx)
	return step + ":" + info.WorkflowExecution.RunID + ":" + info.ActivityID + ":" + subject
}

// freshKey returns an idempotency key that is new each time. It is for what has to be done again
// whenever a look shows that it is due: under the same key Stripe would repeat its first answer and
// do nothing, though somebody has changed it back since.
func freshKey(step, subject string) string { return step + ":" + subject + ":" + rand.Text() }

// loudFrom is the attempt from which a failure that ought to go away by itself is shown on the
// events that it holds up.
const loudFrom = 3

// showFailing makes a failure visible on the entity's due events, so that an operator sees what
// is stuck and why. What is likely to be gone in a second is not shown at once.
func showFailing(ctx context.Context, s *store.Store, entity account.Entity, err error) {
	class := failure.Of(err)
	if err == nil || ctx.Err() != nil || (class != failure.Operator && class != failure.Permanent && attempt(ctx) < loudFrom) {
		return
	}
	noteFailing(ctx, s, entity, err)
}

// noteFailing shows a failure, however seldom it has occurred.
func noteFailing(ctx context.Context, s *store.Store, entity account.Entity, err error) {
	class, reason := failure.Of(err), "unexpected"
	if code := failure.CodeOf(err); code != "" {
		reason = string(class) + ": " + code
	}
	// The failure itself is what the caller has to hear about; that it could not be shown is
	// a failure of the database, which shows by itself.
	_ = s.MarkFailing(ctx, entity, reason)
}
