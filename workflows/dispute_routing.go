package workflows

import (
	"fmt"

	"go.temporal.io/sdk/workflow"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// DisputeRoutingInput names the disputed charge.
type DisputeRoutingInput struct {
	ChargeID string `json:"chargeId"`
}

// DisputeRouting gives the events of a dispute, which names a charge and no customer, to the
// workflow of the customer whose charge it is, and ends.
func DisputeRouting(ctx workflow.Context, in DisputeRoutingInput) error {
	var set activitySet
	waiting := receivePokes(ctx)
	for first := true; first || waiting.waiting(); first = false {
		waiting.drain()
		var result activities.RouteResult
		err := workflow.ExecuteActivity(onStripe(ctx), set.disputes.RouteDispute, activities.ChargeInput{ChargeID: in.ChargeID}).Get(ctx, &result)
		if err != nil {
			// The events say why and are poked again by the sweep.
			workflow.GetLogger(ctx).Error("routing a dispute failed for good", "charge", in.ChargeID, "error", err)
		}
		workflow.SetCurrentDetails(ctx, fmt.Sprintf("Charge `%s` belongs to customer `%s`.", in.ChargeID, result.CustomerID))
	}
	return nil
}

// ChargeWorkflowID is the id of the workflow that routes a charge's disputes.
func ChargeWorkflowID(chargeID string) string { return string(account.ChargeEntity(chargeID)) }
