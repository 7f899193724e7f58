package inbox

import (
	"context"
	"errors"
	"fmt"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// TemporalPoker pokes workflows at a Temporal server.
type TemporalPoker struct {
	Client client.Client
}

// Poke signals the entity's workflow, starting it if it does not run: one request, durable
// when it returns, whether or not a worker is alive. urgent is for what somebody waits for.
func (p TemporalPoker) Poke(ctx context.Context, entity account.Entity, job account.Job, urgent bool) error {
	kind, id := entity.Split()
	workflow, input, attribute := target(kind, id, job)
	if workflow == nil {
		return failure.New(failure.Permanent, "temporal", "poke", "no_such_entity", nil)
	}
	options := client.StartWorkflowOptions{
		ID:        string(entity),
		TaskQueue: workflows.QueueMain,
		// A run that has ended is no obstacle: the entity is looked at again.
		WorkflowIDReusePolicy: enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
	}
	if attribute != nil {
		options.TypedSearchAttributes = temporal.NewSearchAttributes(attribute)
	}
	var poke any // nothing, as a rule
	if urgent {
		poke = workflows.Poke{Urgent: true}
	}
	_, err := p.Client.SignalWithStartWorkflow(ctx, string(entity), workflows.SignalPoke, poke, options, workflow, input)
	return classify(err)
}

// target is the workflow of an entity. Which type a user's run has does not matter while one is
// open: it finds out by itself what it has to do.
func target(kind account.Kind, id string, job account.Job) (workflow, input any, attribute temporal.SearchAttributeUpdate) {
	switch kind {
	case account.KindUser:
		attribute = temporal.NewSearchAttributeKeyKeyword(workflows.SearchClerkUserID).ValueSet(id)
		input = workflows.UserWorkflowInput{ClerkUserID: id}
		switch job {
		case account.JobOffboard:
			return workflows.UserOffboarding, input, attribute
		case account.JobOnboard:
			return workflows.UserOnboarding, input, attribute
		case account.JobSync:
			return workflows.UserProfileSync, input, attribute
		default:
			return workflows.UserProfileSync, input, attribute
		}
	case account.KindCustomer:
		attribute = temporal.NewSearchAttributeKeyKeyword(workflows.SearchStripeCustomerID).ValueSet(id)
		return workflows.SubscriptionLifecycle, workflows.SubscriptionLifecycleInput{CustomerID: id}, attribute
	case account.KindProduct:
		return workflows.CatalogueSync, workflows.CatalogueSyncInput{ProductID: id}, nil
	case account.KindCharge:
		return workflows.DisputeRouting, workflows.DisputeRoutingInput{ChargeID: id}, nil
	default:
		return nil, nil, nil
	}
}

// classify keeps of Temporal's errors what an operator has to know.
func classify(err error) error {
	if err == nil {
		return nil
	}
	class, code := failure.Transient, "unavailable"
	var (
		namespace *serviceerror.NamespaceNotFound
		denied    *serviceerror.PermissionDenied
		invalid   *serviceerror.InvalidArgument
		exhausted *serviceerror.ResourceExhausted
	)
	switch {
	case errors.As(err, &namespace):
		class, code = failure.Operator, "namespace_missing"
	case errors.As(err, &denied):
		class, code = failure.Operator, "permission_denied"
	case errors.As(err, &invalid):
		// As a rule the search attributes are not registered: syncctl setup does that.
		class, code = failure.Operator, "invalid_argument"
	case errors.As(err, &exhausted):
		class, code = failure.Throttled, "resource_exhausted"
	}
	return fmt.Errorf("poking a workflow: %w", failure.New(class, "temporal", "signal with start", code, err))
}
