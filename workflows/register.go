package workflows

import "go.temporal.io/sdk/worker"

// Register makes a worker, or a replayer, run all workflows.
func Register(w worker.WorkflowRegistry) {
	w.RegisterWorkflow(UserOnboarding)
	w.RegisterWorkflow(UserProfileSync)
	w.RegisterWorkflow(UserOffboarding)
	w.RegisterWorkflow(SubscriptionLifecycle)
	w.RegisterWorkflow(CatalogueSync)
	w.RegisterWorkflow(DisputeRouting)
	w.RegisterWorkflow(EventRecovery)
	w.RegisterWorkflow(Reconciliation)
	w.RegisterWorkflow(BulkSync)
}
