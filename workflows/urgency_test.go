package workflows_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// call is an activity that was asked for, with its priority.
type call struct {
	name     string
	priority int
}

type askedIn struct {
	interceptor.WorkflowInboundInterceptorBase
	got *[]call
}

type askedOut struct {
	interceptor.WorkflowOutboundInterceptorBase
	got *[]call
}

// watcher notes the activities that a workflow asks for.
type watcher struct {
	interceptor.WorkerInterceptorBase
	got *[]call
}

func (w *watcher) InterceptWorkflow(_ workflow.Context, next interceptor.WorkflowInboundInterceptor) interceptor.WorkflowInboundInterceptor {
	in := &askedIn{got: w.got}
	in.Next = next
	return in
}

func (a *askedIn) Init(next interceptor.WorkflowOutboundInterceptor) error {
	out := &askedOut{got: a.got}
	out.Next = next
	return a.Next.Init(out)
}

func (a *askedOut) ExecuteActivity(ctx workflow.Context, name string, args ...any) workflow.Future {
	*a.got = append(*a.got, call{name, workflow.GetActivityOptions(ctx).Priority.PriorityKey})
	return a.Next.ExecuteActivity(ctx, name, args...)
}

// A customer who is new goes first, and so does the publish that follows; the next look, when they
// are known to have access, waits for others, and so does its publish.
func TestAPublishIsAsUrgentAsItsLook(t *testing.T) {
	t.Parallel()
	var got []call
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	env.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{&watcher{got: &got}}})
	env.RegisterWorkflow(workflows.SubscriptionLifecycle)
	looks := 0
	env.RegisterActivityWithOptions(func(context.Context, activities.RecordInput) (activities.RecordResult, error) {
		looks++
		return activities.RecordResult{Outcome: activities.OutcomeSynced, ClerkUserID: "user_1", Live: looks < 2, PublishDue: true}, nil
	}, activity.RegisterOptions{Name: "RecordSubscriptions"})
	env.RegisterActivityWithOptions(func(context.Context, activities.PublishInput) (activities.PublishResult, error) {
		return activities.PublishResult{}, nil
	}, activity.RegisterOptions{Name: "PublishProjection"})
	env.RegisterDelayedCallback(func() { env.SignalWorkflow(workflows.SignalPoke, nil) }, time.Minute)
	env.ExecuteWorkflow(workflows.SubscriptionLifecycle, workflows.SubscriptionLifecycleInput{CustomerID: "cus_1"})
	if err := env.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	want := []call{
		{"RecordSubscriptions", activities.PriorityNew}, {"PublishProjection", activities.PriorityNew},
		{"RecordSubscriptions", activities.PriorityKnown}, {"PublishProjection", activities.PriorityKnown},
	}
	if !slices.Equal(got, want) {
		t.Errorf("asked for %v, want %v", got, want)
	}
}
