package workflows_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// bulk plays the activities of a bulk sync.
type bulk struct {
	*stage
	read  []string
	ended []activities.FinishInput
	// answer says what reading a list comes to.
	answer func(step string, n int) (activities.BulkResult, error)
}

func newBulk(t *testing.T) *bulk {
	t.Helper()
	b := &bulk{stage: newStage(t), answer: func(string, int) (activities.BulkResult, error) { return activities.BulkResult{Complete: true}, nil }}
	read := func(_ context.Context, in activities.BulkInput) (activities.BulkResult, error) {
		b.read = append(b.read, in.Step)
		return b.answer(in.Step, len(b.read))
	}
	b.OnActivity(cast{}.bulk.BulkStripe, anything, anything).Return(read)
	b.OnActivity(cast{}.bulk.BulkClerk, anything, anything).Return(read)
	b.OnActivity(cast{}.bulk.FinishBulk, anything, anything).Return(func(_ context.Context, in activities.FinishInput) error {
		b.ended = append(b.ended, in)
		return nil
	})
	return b
}

// Users are stored before anything is linked to them, and given customers when all that there are
// have been read; a list that one attempt does not bring to its end is taken on.
func TestBulkSyncReadsListsInOrder(t *testing.T) {
	t.Parallel()
	b := newBulk(t)
	b.answer = func(step string, n int) (activities.BulkResult, error) {
		return activities.BulkResult{Complete: step != "users" || n > 4}, nil
	}
	b.ExecuteWorkflow(workflows.BulkSync, workflows.BulkSyncInput{ID: "bulk_1"})
	b.finished()
	equal(t, "lists", b.read, []string{"products", "prices", "users", "users", "users", "customers", "subscriptions", "onboarding"})
	equal(t, "end", b.ended, []activities.FinishInput{{RunID: "bulk_1"}})
}

// What was named is all that is read.
func TestBulkSyncOfWhatIsNamed(t *testing.T) {
	t.Parallel()
	b := newBulk(t)
	b.ExecuteWorkflow(workflows.BulkSync, workflows.BulkSyncInput{ID: "bulk_1", Named: true})
	b.finished()
	equal(t, "lists", b.read, []string{"named"})
}

// Of what has changed the users come first, and those who have no customer by then are given one.
func TestBulkSyncOfWhatHasChanged(t *testing.T) {
	t.Parallel()
	b := newBulk(t)
	b.ExecuteWorkflow(workflows.BulkSync, workflows.BulkSyncInput{ID: "bulk_1", Changed: true})
	b.finished()
	equal(t, "lists", b.read, []string{"changed users", "changes", "onboarding"})
}

// A long pass goes on in the next run with the list that it has come to.
func TestBulkSyncGoesOnInTheNextRun(t *testing.T) {
	t.Parallel()
	b := newBulk(t)
	b.ExecuteWorkflow(workflows.BulkSync, workflows.BulkSyncInput{ID: "bulk_1", ContinueAfter: 2})
	workflowType, next := continued[workflows.BulkSyncInput](b.stage)
	if workflowType != "BulkSync" || next.Carried != 2 || next.ID != "bulk_1" || len(b.ended) != 0 {
		t.Errorf("it goes on as %s with %+v", workflowType, next)
	}
}

// A pass that is paused rests, says so, and looks again when it is poked, or by itself after a
// while.
func TestBulkSyncRests(t *testing.T) {
	t.Parallel()
	for name, poked := range map[string]bool{"poked": true, "by itself": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBulk(t)
			b.answer = func(_ string, n int) (activities.BulkResult, error) {
				return activities.BulkResult{Complete: n != 2, Paused: n == 2}, nil
			}
			wait := 10 * time.Minute
			if poked {
				wait = time.Minute
				b.poke(wait)
			}
			b.at(30*time.Second, func() {
				if state := ask[workflows.BulkSyncState](b.stage, workflows.QueryState); !state.Paused || state.Step != "prices" || !strings.Contains(b.details(), "Paused") {
					t.Errorf("it says %+v, %s", state, b.details())
				}
			})
			b.ExecuteWorkflow(workflows.BulkSync, workflows.BulkSyncInput{ID: "bulk_1"})
			b.finished()
			if took := b.Now().Sub(opening()); took < wait || took > wait+time.Minute {
				t.Errorf("it rested for %s", took)
			}
			if !slices.Equal(b.read[:3], []string{"products", "prices", "prices"}) {
				t.Errorf("it read %v", b.read)
			}
		})
	}
}

// Whatever ends a pass early is recorded as its end.
func TestBulkSyncEndsEarly(t *testing.T) {
	t.Parallel()
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		b := newBulk(t)
		b.answer = func(step string, _ int) (activities.BulkResult, error) {
			if step == "users" {
				return activities.BulkResult{}, permanently()
			}
			return activities.BulkResult{Complete: true}, nil
		}
		b.ExecuteWorkflow(workflows.BulkSync, workflows.BulkSyncInput{ID: "bulk_1"})
		if err := b.GetWorkflowError(); err == nil || !strings.Contains(err.Error(), "not everything was brought in") {
			t.Error("it ended with:", err)
		}
		equal(t, "end", b.ended, []activities.FinishInput{{RunID: "bulk_1", Failure: "users: permanent"}})
	})
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		b := newBulk(t)
		b.answer = func(string, int) (activities.BulkResult, error) { return activities.BulkResult{Paused: true}, nil }
		b.at(time.Minute, b.CancelWorkflow)
		b.ExecuteWorkflow(workflows.BulkSync, workflows.BulkSyncInput{ID: "bulk_1"})
		if err := b.GetWorkflowError(); !temporal.IsCanceledError(err) {
			t.Error("it ended with:", err)
		}
		equal(t, "end", b.ended, []activities.FinishInput{{RunID: "bulk_1", Failure: "cancelled"}})
	})
}
