package workflows_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// --- CatalogueSync ----------------------------------------------------------------------------------

func productStage(t *testing.T, takes time.Duration, answer func(int, activities.ProductInput) (activities.ProductResult, error)) (*stage, *performance[activities.ProductInput]) {
	t.Helper()
	var c cast
	s := newStage(t)
	return s, play(s, c.catalogue.RecordProduct, always(takes), answer)
}

func priced() activities.ProductResult {
	return activities.ProductResult{Outcome: activities.OutcomeSynced, Prices: 2}
}

func TestACatalogueSyncLooksOnceAndEnds(t *testing.T) {
	t.Parallel()
	s, record := productStage(t, 0, inTurn[activities.ProductInput](priced()))
	s.ExecuteWorkflow(workflows.CatalogueSync, workflows.CatalogueSyncInput{ProductID: "prod_1"})
	s.finished()
	equal(t, "looks", record.given(), []activities.ProductInput{{ProductID: "prod_1"}})
	equal(t, "state", ask[workflows.CatalogueState](s, workflows.QueryState), workflows.CatalogueState{ProductID: "prod_1", Outcome: activities.OutcomeSynced, Prices: 2})
	if text := s.details(); !strings.Contains(text, "Product `prod_1`: synced, 2 prices.") {
		t.Errorf("details: %q", text)
	}
}

func TestPokesDuringACatalogueSyncCostOneMore(t *testing.T) {
	t.Parallel()
	s, record := productStage(t, 10*time.Second, inTurn[activities.ProductInput](priced()))
	s.poke(2*time.Second, 4*time.Second, 6*time.Second)
	s.ExecuteWorkflow(workflows.CatalogueSync, workflows.CatalogueSyncInput{ProductID: "prod_1"})
	s.finished()
	equal(t, "looks", record.since(), []time.Duration{0, 10 * time.Second})
}

func TestACatalogueSyncThatFailsForGoodEnds(t *testing.T) {
	t.Parallel()
	s, record := productStage(t, 0, func(int, activities.ProductInput) (activities.ProductResult, error) {
		return activities.ProductResult{}, permanently()
	})
	s.ExecuteWorkflow(workflows.CatalogueSync, workflows.CatalogueSyncInput{ProductID: "prod_1"})
	s.finished()
	equal(t, "looks", record.times(), 1)
	equal(t, "failure", ask[workflows.CatalogueState](s, workflows.QueryState).LastFailure, "permanent")
}

// A run that is full hands on what it was poked for: the next run begins with a look.
func TestAFullCatalogueSyncContinues(t *testing.T) {
	t.Parallel()
	s, record := productStage(t, 10*time.Second, inTurn[activities.ProductInput](priced()))
	s.poke(5 * time.Second)
	s.at(6*time.Second, func() { s.SetContinueAsNewSuggested(true) })
	s.ExecuteWorkflow(workflows.CatalogueSync, workflows.CatalogueSyncInput{ProductID: "prod_1"})
	name, next := continued[workflows.CatalogueSyncInput](s)
	equal(t, "looks", record.times(), 1)
	equal(t, "type", name, "CatalogueSync")
	equal(t, "input", next, workflows.CatalogueSyncInput{ProductID: "prod_1"})
}

// --- DisputeRouting ---------------------------------------------------------------------------------

func TestADisputeIsRouted(t *testing.T) {
	t.Parallel()
	var c cast
	s := newStage(t)
	route := play(s, c.disputes.RouteDispute, always(10*time.Second), inTurn[activities.ChargeInput](activities.RouteResult{CustomerID: theCustomer}))
	s.poke(2*time.Second, 4*time.Second)
	s.ExecuteWorkflow(workflows.DisputeRouting, workflows.DisputeRoutingInput{ChargeID: "ch_1"})
	s.finished()
	equal(t, "looks", route.since(), []time.Duration{0, 10 * time.Second})
	equal(t, "charge", route.given()[0], activities.ChargeInput{ChargeID: "ch_1"})
	if text := s.details(); !strings.Contains(text, "Charge `ch_1` belongs to customer `cus_1`.") {
		t.Errorf("details: %q", text)
	}
}

func TestADisputeThatCannotBeRoutedEndsTheRun(t *testing.T) {
	t.Parallel()
	var c cast
	s := newStage(t)
	route := play(s, c.disputes.RouteDispute, nil, func(int, activities.ChargeInput) (activities.RouteResult, error) {
		return activities.RouteResult{}, permanently()
	})
	s.ExecuteWorkflow(workflows.DisputeRouting, workflows.DisputeRoutingInput{ChargeID: "ch_1"})
	s.finished()
	equal(t, "looks", route.times(), 1)
}

// --- Ids --------------------------------------------------------------------------------------------

func TestWorkflowIDs(t *testing.T) {
	t.Parallel()
	equal(t, "ids", []string{
		workflows.UserWorkflowID("user_1"), workflows.CustomerWorkflowID("cus_1"), workflows.ProductWorkflowID("prod_1"), workflows.ChargeWorkflowID("ch_1"),
	}, []string{"user/user_1", "customer/cus_1", "product/prod_1", "charge/ch_1"})
}
