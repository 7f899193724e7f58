package workflows

import (
	"fmt"

	"go.temporal.io/sdk/workflow"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// CatalogueSyncInput names the product.
type CatalogueSyncInput struct {
	ProductID string `json:"productId"`
}

// CatalogueState is what the state query answers.
type CatalogueState struct {
	ProductID   string             `json:"productId"`
	Outcome     activities.Outcome `json:"outcome,omitempty"`
	Prices      int                `json:"prices"`
	LastFailure string             `json:"lastFailure,omitempty"`
}

// CatalogueSync brings a product's plan and prices to what Stripe says and ends.
func CatalogueSync(ctx workflow.Context, in CatalogueSyncInput) error {
	var set activitySet
	waiting := receivePokes(ctx)
	state := CatalogueState{ProductID: in.ProductID}
	if err := workflow.SetQueryHandler(ctx, QueryState, func() (CatalogueState, error) { return state, nil }); err != nil {
		return fmt.Errorf("setting the state query: %w", err)
	}
	for first := true; first || waiting.waiting(); first = false {
		if workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
			return workflow.NewContinueAsNewError(ctx, CatalogueSync, in)
		}
		waiting.drain()
		var result activities.ProductResult
		err := workflow.ExecuteActivity(onStripe(ctx), set.catalogue.RecordProduct, activities.ProductInput{ProductID: in.ProductID}).Get(ctx, &result)
		state.Outcome, state.Prices, state.LastFailure = result.Outcome, result.Prices, ""
		if err != nil {
			// The product's events say why and are poked again by the sweep.
			state.LastFailure = failureType(err)
			workflow.GetLogger(ctx).Error("catalogue sync failed for good", "product", in.ProductID, "error", err)
		}
		workflow.SetCurrentDetails(ctx, fmt.Sprintf("Product `%s`: %s, %d prices. %s", in.ProductID, state.Outcome, state.Prices, state.LastFailure))
	}
	return nil
}

// ProductWorkflowID is the id of a product's workflow.
func ProductWorkflowID(productID string) string { return string(account.ProductEntity(productID)) }
