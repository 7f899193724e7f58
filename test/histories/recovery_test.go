package histories_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/runs"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/test/system"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// What finds and mends what slipped through leaves ids, classes and counts in its histories,
// whatever it has read.
func TestHistoriesOfRecovery(t *testing.T) {
	t.Parallel()
	s := system.Start(t, servers, system.Options{})
	product := s.Sandbox.Stripe.AddProduct(planName)
	price := s.Sandbox.Stripe.AddPrice(product, 2000, "month")
	s.Quiet(false)
	p := signUp(t, s)
	_, err := s.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{CustomerID: p.customer, PriceID: price, ClientReferenceID: p.user})
	must(t, err)
	s.Agree(p.user, account.AccessPolicy{})
	rest(t, s)

	slips := 0
	slip := func() {
		slips++
		for _, sender := range []*delivery.Sender{s.Sandbox.ClerkWebhooks, s.Sandbox.StripeWebhooks} {
			sender.SetFaults(delivery.Faults{Lose: 1})
			defer sender.SetFaults(delivery.Faults{})
		}
		name := fmt.Sprint(newName, " ", slips) // another each time, however soon they follow each other
		must(t, s.Sandbox.Clerk.UpdateUser(p.user, clerksim.UserChange{FirstName: &name}))
		must(t, s.Sandbox.Stripe.UpdateProduct(product, planName+" "+name))
		must(t, s.Sandbox.Stripe.Settled(t.Context()))
	}
	slip()
	_, err = s.Temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: workflows.EventRecoveryID, TaskQueue: workflows.QueueMain},
		workflows.EventRecovery, workflows.EventRecoveryInput{})
	must(t, err)
	ended(t, s, workflows.EventRecoveryID)
	keep(t, "EventRecovery-completed", theRun(t, s, workflows.EventRecoveryID, "EventRecovery", "completed", nil))
	rest(t, s)
	s.Agree(p.user, account.AccessPolicy{})

	slip()
	server := runs.Server{Client: s.Temporal}
	alone := []account.Drift{account.DriftStaleUser, account.DriftStalePlan, account.DriftStaleCustomer, account.DriftStaleMetadata}
	_, started, err := server.Reconcile(t.Context(), workflows.ReconciliationInput{Caller: "operator", Repair: alone, ContinueAfter: 8})
	must(t, err)
	if !started {
		t.Fatal("no comparison was started")
	}
	ended(t, s, workflows.OnDemandReconciliationID)
	rest(t, s)
	s.Agree(p.user, account.AccessPolicy{})
	asking := func(activity string) func(*historypb.History) error {
		return func(history *historypb.History) error {
			if !asksFor(history, activity) {
				return errors.New("it does not ask for " + activity)
			}
			return nil
		}
	}
	keep(t, "Reconciliation-continued", theRun(t, s, workflows.OnDemandReconciliationID, "Reconciliation", "continued", asking("CompareStored")))
	keep(t, "Reconciliation-repairing", theRun(t, s, workflows.OnDemandReconciliationID, "Reconciliation", "continued", asking("RepairDrift")))
	keep(t, "Reconciliation-completed", theRun(t, s, workflows.OnDemandReconciliationID, "Reconciliation", "completed", nil))

	slip()
	bulk := store.BulkRun{ID: "bulk_histories", Caller: "operator"}
	must(t, s.Store.BeginBulk(t.Context(), bulk))
	must(t, server.StartBulk(t.Context(), workflows.BulkSyncInput{ID: bulk.ID, ContinueAfter: 2}))
	ended(t, s, workflows.BulkSyncID(bulk.ID))
	rest(t, s)
	s.Agree(p.user, account.AccessPolicy{})
	keep(t, "BulkSync-continued", theRun(t, s, workflows.BulkSyncID(bulk.ID), "BulkSync", "continued", asking("BulkClerk")))
	keep(t, "BulkSync-completed", theRun(t, s, workflows.BulkSyncID(bulk.ID), "BulkSync", "completed", nil))
	for _, r := range allRuns(t, s) {
		inspect(t, r, fetch(t, s, r))
	}
}

// ended waits for the end of a workflow, over all of its runs.
func ended(t *testing.T, s *system.System, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), system.Patience())
	defer cancel()
	must(t, s.Temporal.GetWorkflow(ctx, id, "").Get(ctx, nil))
}
