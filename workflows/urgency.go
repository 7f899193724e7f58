package workflows

import (
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/nepfy/clerk-stripe-sync/activities"
)

// prioritized has an activity done before those of later priorities. Those of the same priority
// take turns by what they are for, where the server knows fairness keys.
func prioritized(ctx workflow.Context, priority int, what string) workflow.Context {
	return workflow.WithPriority(ctx, temporal.Priority{PriorityKey: priority, FairnessKey: what})
}

// UrgentQueue is the task queue beside another that takes what is urgent, for servers without
// priorities.
func UrgentQueue(queue string) string { return queue + "-urgent" }

// NewUrgentQueues has workflows hand activities that are urgent to task queues of their own. It is
// for servers that do not know priorities: there what comes later waits for all that came before
// it.
func NewUrgentQueues() interceptor.WorkerInterceptor { return &urgentQueues{} }

type urgentQueues struct {
	interceptor.WorkerInterceptorBase
}

// InterceptWorkflow is called by the SDK for each run.
func (*urgentQueues) InterceptWorkflow(_ workflow.Context, next interceptor.WorkflowInboundInterceptor) interceptor.WorkflowInboundInterceptor {
	in := &urgentInbound{}
	in.Next = next
	return in
}

type urgentInbound struct {
	interceptor.WorkflowInboundInterceptorBase
}

// Init is called by the SDK before a run begins.
func (u *urgentInbound) Init(next interceptor.WorkflowOutboundInterceptor) error {
	out := &urgentOutbound{}
	out.Next = next
	return u.Next.Init(out) //nolint:wrapcheck // the SDK's own
}

type urgentOutbound struct {
	interceptor.WorkflowOutboundInterceptorBase
}

// ExecuteActivity is called by the SDK for each activity. A run goes on whether or not its worker
// is set so: on which task queue an activity was is no part of what a replay compares.
func (u *urgentOutbound) ExecuteActivity(ctx workflow.Context, name string, args ...any) workflow.Future {
	options := workflow.GetActivityOptions(ctx)
	providers := options.TaskQueue == QueueStripe || options.TaskQueue == QueueClerk
	if key := options.Priority.PriorityKey; providers && key > 0 && key <= activities.PriorityNew {
		ctx = workflow.WithTaskQueue(ctx, UrgentQueue(options.TaskQueue))
	}
	return u.Next.ExecuteActivity(ctx, name, args...)
}
