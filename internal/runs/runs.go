// Package runs tells what the Temporal server knows of our workflows' runs: which are open, and
// what an open one is doing.
package runs

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	sdkpb "go.temporal.io/api/sdk/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// Server is where the runs are.
type Server struct {
	Client client.Client
}

// pageSize is how many runs are listed at once.
const pageSize = 500

// WatchedPage lists the customers for whom a workflow is open. The server's lists are some seconds
// behind.
func (s Server) WatchedPage(ctx context.Context, after string) (customerIDs []string, next string, err error) {
	token, err := base64.StdEncoding.DecodeString(after)
	if err != nil {
		return nil, "", failure.New(failure.Permanent, "temporal", "list open runs", "bad_token", nil)
	}
	page, err := s.Client.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
		PageSize: pageSize, NextPageToken: token, Query: `WorkflowType = "SubscriptionLifecycle" AND ExecutionStatus = "Running"`,
	})
	if err != nil {
		return nil, "", classify("list open runs", err)
	}
	for _, run := range page.GetExecutions() {
		if kind, id := account.Entity(run.GetExecution().GetWorkflowId()).Split(); kind == account.KindCustomer {
			customerIDs = append(customerIDs, id)
		}
	}
	return customerIDs, base64.StdEncoding.EncodeToString(page.GetNextPageToken()), nil
}

// Watched tells whether a workflow is open for a customer now.
func (s Server) Watched(ctx context.Context, customerID string) (bool, error) {
	return s.isOpen(ctx, string(account.CustomerEntity(customerID)))
}

func (s Server) isOpen(ctx context.Context, workflowID string) (bool, error) {
	described, err := s.Client.DescribeWorkflowExecution(ctx, workflowID, "")
	if missing := (*serviceerror.NotFound)(nil); errors.As(err, &missing) {
		return false, nil
	}
	if err != nil {
		return false, classify("describe a run", err)
	}
	return described.GetWorkflowExecutionInfo().GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, nil
}

// Run is what an entity's run is doing.
type Run struct {
	WorkflowID string `json:"workflowId"`
	RunID      string `json:"runId"`
	Type       string `json:"type"`
	// Open is set while the run goes on.
	Open bool `json:"open"`
	// Status is the server's word for how it stands.
	Status string `json:"status"`
	// Details say in a sentence what the run knows and waits for; "" where that is not known.
	Details string `json:"details,omitempty"`
	// Pending are the activities that are under way, or wait for their next attempt.
	Pending []Pending `json:"pending,omitempty"`
}

// Pending is an activity that has not ended.
type Pending struct {
	Activity string `json:"activity"`
	Attempt  int32  `json:"attempt"`
	// LastFailure is why the attempt before failed; "" where there was none.
	LastFailure string `json:"lastFailure,omitempty"`
}

// Of answers the latest run of an entity, nil where there never was one, or it is forgotten.
func (s Server) Of(ctx context.Context, entity account.Entity) (*Run, error) {
	described, err := s.Client.DescribeWorkflowExecution(ctx, string(entity), "")
	if missing := (*serviceerror.NotFound)(nil); errors.As(err, &missing) {
		return nil, nil
	}
	if err != nil {
		return nil, classify("describe a run", err)
	}
	info := described.GetWorkflowExecutionInfo()
	run := &Run{
		WorkflowID: info.GetExecution().GetWorkflowId(), RunID: info.GetExecution().GetRunId(), Type: info.GetType().GetName(),
		Open: info.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, Status: info.GetStatus().String(),
	}
	if !run.Open {
		return run, nil // what it gave up before it ended, and what the server still lists, is nobody's work
	}
	for _, a := range described.GetPendingActivities() {
		run.Pending = append(run.Pending, Pending{Activity: a.GetActivityType().GetName(), Attempt: a.GetAttempt(), LastFailure: a.GetLastFailure().GetMessage()})
	}
	run.Details = s.details(ctx, run)
	return run, nil
}

const (
	// metadataQuery is the SDK's own query for what a run says of itself.
	metadataQuery = "__temporal_workflow_metadata"
	// detailsPatience is how long a worker is waited for.
	detailsPatience = 2 * time.Second
)

// details asks the run itself; without a worker nobody answers, and it is left out.
func (s Server) details(ctx context.Context, run *Run) string {
	ctx, cancel := context.WithTimeout(ctx, detailsPatience)
	defer cancel()
	answer, err := s.Client.QueryWorkflow(ctx, run.WorkflowID, run.RunID, metadataQuery)
	if err != nil {
		return ""
	}
	var metadata sdkpb.WorkflowMetadata
	if answer.Get(&metadata) != nil {
		return ""
	}
	return metadata.GetCurrentDetails()
}

// Reconcile starts a comparison that somebody asked for, or finds the one that is under way, and
// answers its run's id. A second one at the same time would compare the same once more.
func (s Server) Reconcile(ctx context.Context, in workflows.ReconciliationInput) (runID string, started bool, err error) {
	run, err := s.Client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: workflows.OnDemandReconciliationID, TaskQueue: workflows.QueueMain,
		// One that has ended is no obstacle; one that goes on is the answer.
		WorkflowIDReusePolicy:                    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowIDConflictPolicy:                 enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
	}, workflows.Reconciliation, in)
	if already := (*serviceerror.WorkflowExecutionAlreadyStarted)(nil); errors.As(err, &already) {
		described, err := s.Client.DescribeWorkflowExecution(ctx, workflows.OnDemandReconciliationID, already.RunId)
		if err != nil {
			return "", false, classify("describe a run", err)
		}
		return described.GetWorkflowExecutionInfo().GetFirstRunId(), false, nil
	}
	if err != nil {
		return "", false, classify("start a reconciliation", err)
	}
	return run.GetRunID(), true, nil
}

// StartBulk starts a bulk sync; one that is under way under this id is left alone.
func (s Server) StartBulk(ctx context.Context, in workflows.BulkSyncInput) error {
	_, err := s.Client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: workflows.BulkSyncID(in.ID), TaskQueue: workflows.QueueMain,
		WorkflowIDReusePolicy:    enumspb.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
	}, workflows.BulkSync, in)
	if err != nil {
		return classify("start a bulk sync", err)
	}
	return nil
}

// BulkIsOpen tells whether a bulk sync's run is open.
func (s Server) BulkIsOpen(ctx context.Context, id string) (bool, error) {
	return s.isOpen(ctx, workflows.BulkSyncID(id))
}

// PokeBulk has a bulk sync that rests look whether it may go on.
func (s Server) PokeBulk(ctx context.Context, id string) error {
	return s.ofOpen("signal a bulk sync", s.Client.SignalWorkflow(ctx, workflows.BulkSyncID(id), "", workflows.SignalPoke, nil))
}

// CancelBulk has a bulk sync end behind the page that is under way.
func (s Server) CancelBulk(ctx context.Context, id string) error {
	return s.ofOpen("cancel a bulk sync", s.Client.CancelWorkflow(ctx, workflows.BulkSyncID(id), ""))
}

// ofOpen is an error of what was asked of a run, which may have ended by then.
func (s Server) ofOpen(op string, err error) error {
	if missing := (*serviceerror.NotFound)(nil); err == nil || errors.As(err, &missing) {
		return nil
	}
	return classify(op, err)
}

func classify(op string, err error) error {
	return fmt.Errorf("asking Temporal: %w", failure.New(failure.Transient, "temporal", op, "unavailable", err))
}
