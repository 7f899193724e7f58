package selfservice

import (
	"context"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// TemporalCommander sends operations as updates.
type TemporalCommander struct {
	Client client.Client
}

// Command implements [Commander]. An update needs a worker that is alive: without one this waits
// until ctx ends, though the workflow was started.
func (t TemporalCommander) Command(ctx context.Context, op *store.Operation, wait time.Duration) error {
	_, customerID := op.Entity.Split()
	start := t.Client.NewWithStartWorkflowOperation(client.StartWorkflowOptions{
		ID:        string(op.Entity),
		TaskQueue: workflows.QueueMain,
		// An open run is the one to ask.
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		// A run that has ended is no obstacle: the customer is looked at again.
		WorkflowIDReusePolicy: enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		TypedSearchAttributes: temporal.NewSearchAttributes(temporal.NewSearchAttributeKeyKeyword(workflows.SearchStripeCustomerID).ValueSet(customerID)),
	}, workflows.SubscriptionLifecycle, workflows.SubscriptionLifecycleInput{CustomerID: customerID})
	handle, err := t.Client.UpdateWithStartWorkflow(ctx, client.UpdateWithStartWorkflowOptions{
		StartWorkflowOperation: start,
		UpdateOptions: client.UpdateWorkflowOptions{
			UpdateID: op.ID, UpdateName: workflows.UpdateCommand,
			Args:         []any{workflows.CommandRequest{OperationID: op.ID, ExpiresAt: op.ExpiresAt, Wait: wait}},
			WaitForStage: client.WorkflowUpdateStageCompleted,
		},
	})
	if err != nil {
		return fmt.Errorf("sending a command: %w", plain(err))
	}
	var answer workflows.CommandAnswer
	if err := handle.Get(ctx, &answer); err != nil {
		return fmt.Errorf("waiting for a command: %w", plain(err))
	}
	return nil
}

// plain keeps of Temporal's errors what is not about anybody.
func plain(err error) error {
	if application, ok := errors.AsType[*temporal.ApplicationError](err); ok {
		return errors.New(application.Message())
	}
	return fmt.Errorf("%T", err)
}
