package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/nepfy/clerk-stripe-sync/activities"
)

// BulkSyncID is the id of the run of a bulk sync.
func BulkSyncID(id string) string { return "bulk-sync/" + id }

// BulkSyncInput says which pass is to be made; what else there is to know of it is recorded under
// its id.
type BulkSyncInput struct {
	ID string `json:"id"`
	// Named is set where the pass is about entities that were named, and not about all lists.
	Named bool `json:"named,omitempty"`
	// Changed is set where the pass is about what has changed since a moment.
	Changed bool `json:"changed,omitempty"`
	// Carried is how many lists have been read; set by continue-as-new and by nobody else.
	Carried int `json:"carried,omitempty"`
	// Quarantined is set once something could not be brought in for now; carried as well.
	Quarantined bool `json:"quarantined,omitempty"`
	// ContinueAfter makes a run continue as new after so many activities; zero leaves it to the
	// server. For tests.
	ContinueAfter int `json:"continueAfter,omitempty"`
}

// BulkSyncState is what a run answers when it is asked.
type BulkSyncState struct {
	Step   string `json:"step"`
	Paused bool   `json:"paused,omitempty"`
}

// bulkPatience is how long a page that cannot be brought in is tried.
const bulkPatience = 24 * time.Hour

// BulkSync brings in everything that both providers hold, list by list, beside the workflows of the
// entities. How far it is stands in the database with what came of it: whatever ends an attempt,
// the next one goes on behind the last page that was noted. A poke has a pass that was paused look
// whether it may go on.
func BulkSync(ctx workflow.Context, in BulkSyncInput) error {
	b := &bulkSync{in: in, poked: receivePokes(ctx)}
	if err := workflow.SetQueryHandler(ctx, QueryState, func() (BulkSyncState, error) { return b.state, nil }); err != nil {
		return fmt.Errorf("setting the state query: %w", err)
	}
	for steps := bulkSteps(b.in); b.in.Carried < len(steps); steps = bulkSteps(b.in) {
		b.state.Step = steps[b.in.Carried]
		complete, err := b.read(ctx)
		switch {
		case ctx.Err() != nil:
			return b.finish(ctx, "cancelled", ctx.Err())
		case err != nil:
			return b.finish(ctx, b.state.Step+": "+failureType(err), temporal.NewApplicationError("not everything was brought in", failureType(err)))
		case complete:
			b.in.Carried++
		}
		if b.full(ctx) && b.in.Carried < len(bulkSteps(b.in)) {
			b.poked.drain() // whether it is paused stands in the database
			return workflow.NewContinueAsNewError(ctx, BulkSync, b.in)
		}
	}
	return b.finish(ctx, "", nil)
}

func bulkSteps(in BulkSyncInput) (steps []string) {
	switch {
	case in.Named:
		steps = []string{activities.BulkNamed}
	case in.Changed:
		steps = []string{activities.BulkChangedUsers, activities.BulkChanges, activities.BulkOnboarding}
	default:
		steps = []string{activities.BulkProducts, activities.BulkPrices, activities.BulkUsers, activities.BulkCustomers,
			activities.BulkSubscriptions, activities.BulkOnboarding}
	}
	if in.Quarantined {
		steps = append(steps, activities.BulkQuarantine)
	}
	return steps
}

type bulkSync struct {
	in    BulkSyncInput
	state BulkSyncState
	poked pokes
	done  int
	set   activitySet
}

// read takes the list that is under way on, and tells whether it has come to its end.
func (b *bulkSync) read(ctx workflow.Context) (complete bool, err error) {
	activity, on := any(b.set.bulk.BulkStripe), onStripe
	if b.state.Step == activities.BulkUsers || b.state.Step == activities.BulkChangedUsers {
		activity, on = b.set.bulk.BulkClerk, onClerk
	}
	workflow.SetCurrentDetails(ctx, fmt.Sprintf("Bringing in %s.", b.state.Step))
	b.poked.drain()
	var result activities.BulkResult
	err = workflow.ExecuteActivity(inBulk(on(ctx)), activity, activities.BulkInput{ID: b.in.ID, Step: b.state.Step}).Get(ctx, &result)
	b.done++
	b.in.Quarantined = b.in.Quarantined || result.Quarantined
	switch {
	case err == nil && result.Paused:
		err = b.rest(ctx)
	case err == nil && result.Wait > 0:
		err = workflow.Sleep(ctx, result.Wait)
	}
	return result.Complete, err
}

// restFor is how long a paused pass rests before it looks by itself whether it may go on: a poke
// can get lost.
const restFor = 10 * time.Minute

func (b *bulkSync) rest(ctx workflow.Context) error {
	b.state.Paused = true
	defer func() { b.state.Paused = false }()
	workflow.SetCurrentDetails(ctx, fmt.Sprintf("Paused while bringing in %s.", b.state.Step))
	_, err := workflow.AwaitWithTimeout(ctx, restFor, b.poked.waiting)
	return err
}

func (b *bulkSync) full(ctx workflow.Context) bool {
	return workflow.GetInfo(ctx).GetContinueAsNewSuggested() || b.in.ContinueAfter > 0 && b.done >= b.in.ContinueAfter
}

// finish records the end, of a pass that was cancelled too.
func (b *bulkSync) finish(ctx workflow.Context, failure string, end error) error {
	workflow.SetCurrentDetails(ctx, "Ended.")
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	err := workflow.ExecuteActivity(routinely(onDatabase(ctx), bulkPatience), b.set.bulk.FinishBulk, activities.FinishInput{RunID: b.in.ID, Failure: failure}).Get(ctx, nil)
	if err != nil {
		return err
	}
	return end
}

// inBulk has an activity done after all that a person waits for. A page of many users takes longer
// than one look.
func inBulk(ctx workflow.Context) workflow.Context {
	return workflow.WithStartToCloseTimeout(routinely(ctx, bulkPatience), 10*time.Minute)
}
