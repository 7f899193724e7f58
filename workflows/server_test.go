package workflows_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// patience is how long these tests wait for what has to happen.
const patience = 90 * time.Second

// What only a real server does: it refuses to let a run go while a signal waits for it, and it
// keeps apart an activity that nobody has begun from one that is under way.
func TestOnARealServer(t *testing.T) {
	t.Parallel()
	c := server.Client(t)
	double := &doubles{entered: make(chan struct{}), release: make(chan struct{})}
	for _, queue := range []string{workflows.QueueMain, workflows.QueueStripe, workflows.QueueClerk} {
		w := worker.New(c, queue, worker.Options{DisableRegistrationAliasing: true})
		workflows.Register(w)
		for name, do := range map[string]any{
			"RecordSubscriptions": double.record, "SyncUser": double.syncUser, "EnsureStripeCustomer": double.ensure, "UndoStripeCustomer": double.undo,
		} {
			w.RegisterActivityWithOptions(do, activity.RegisterOptions{Name: name})
		}
		if err := w.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.Stop)
	}
	t.Run("no poke is lost where runs continue", func(t *testing.T) { noPokeIsLost(t, c, double) })
	t.Run("a cancelled run undoes what was under way", func(t *testing.T) { cancelledRunUndoes(t, c, double) })
}

// doubles are activities that do nothing but say so.
type doubles struct {
	due     atomic.Int64 // pokes that no look has taken yet
	ending  atomic.Bool  // the customer's subscription is over
	runs    sync.Map     // run ids of the customer
	entered chan struct{}
	release chan struct{}
	undone  atomic.Value // customer id
}

func (d *doubles) record(ctx context.Context, _ activities.RecordInput) (activities.RecordResult, error) {
	d.due.Store(0)
	d.runs.Store(activity.GetInfo(ctx).WorkflowExecution.RunID, true)
	return activities.RecordResult{Outcome: activities.OutcomeSynced, Live: !d.ending.Load()}, nil
}

func (d *doubles) syncUser(context.Context, activities.UserInput) (activities.UserResult, error) {
	return unknown(), nil
}

func (d *doubles) ensure(ctx context.Context, _ activities.UserInput) (activities.CustomerResult, error) {
	close(d.entered)
	select {
	case <-d.release:
	case <-ctx.Done():
		return activities.CustomerResult{}, ctx.Err()
	}
	return activities.CustomerResult{CustomerID: "cus_theirs", Undo: theCustomer}, nil
}

func (d *doubles) undo(_ context.Context, in activities.UndoInput) (activities.UndoResult, error) {
	d.undone.Store(in.CustomerID)
	return activities.UndoResult{Outcome: "deleted"}, nil
}

func noPokeIsLost(t *testing.T, c client.Client, double *doubles) {
	id := workflows.CustomerWorkflowID(theCustomer)
	poke := func() error {
		double.due.Add(1)
		_, err := c.SignalWithStartWorkflow(t.Context(), id, workflows.SignalPoke, nil,
			client.StartWorkflowOptions{ID: id, TaskQueue: workflows.QueueMain}, workflows.SubscriptionLifecycle,
			workflows.SubscriptionLifecycleInput{CustomerID: theCustomer, ContinueAfter: 1})
		return err
	}
	answered := func() error {
		if n := double.due.Load(); n > 0 {
			return fmt.Errorf("%d pokes are unanswered", n)
		}
		return nil
	}
	var pokers sync.WaitGroup
	for range 4 {
		pokers.Go(func() {
			for range 15 {
				if err := poke(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	pokers.Wait()
	until(t, answered)
	// One at a time: each comes while the run before it is about to continue.
	for range 10 {
		if err := poke(); err != nil {
			t.Fatal(err)
		}
		until(t, answered)
	}
	double.ending.Store(true)
	if err := poke(); err != nil {
		t.Fatal(err)
	}
	if err := c.GetWorkflow(t.Context(), id, "").Get(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := answered(); err != nil {
		t.Error(err)
	}
	runs := 0
	double.runs.Range(func(any, any) bool { runs++; return true })
	if runs < 11 {
		t.Errorf("%d runs: they did not continue as new", runs)
	}
}

func cancelledRunUndoes(t *testing.T, c client.Client, double *doubles) {
	run, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: workflows.UserWorkflowID(theUser), TaskQueue: workflows.QueueMain},
		workflows.UserOnboarding, workflows.UserWorkflowInput{ClerkUserID: theUser})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-double.entered:
	case <-time.After(patience):
		t.Fatal("no customer was made")
	}
	if err := c.CancelWorkflow(t.Context(), run.GetID(), run.GetRunID()); err != nil {
		t.Fatal(err)
	}
	// The run has heard of it and goes on, while the customer is still being made.
	until(t, func() error {
		events := c.GetWorkflowHistory(t.Context(), run.GetID(), run.GetRunID(), false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			event, err := events.Next()
			if err != nil {
				return err
			}
			if event.GetEventType() == enumspb.EVENT_TYPE_ACTIVITY_TASK_CANCEL_REQUESTED {
				return nil
			}
		}
		return errors.New("the run has not asked its activity to stop")
	})
	close(double.release)
	if err := run.Get(t.Context(), nil); !temporal.IsCanceledError(err) {
		t.Errorf("the run ended with %v", err)
	}
	if double.undone.Load() != theCustomer {
		t.Errorf("undone: %v", double.undone.Load())
	}
}

// until waits for a condition.
func until(t *testing.T, condition func() error) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("waited in vain: ", err)
		}
		<-tick.C
	}
}
