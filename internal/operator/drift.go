package operator

import (
	"context"
	"slices"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// ClassOfDrift is a class of differences, and how it stands.
type ClassOfDrift struct {
	store.DriftCount
	Means string `json:"means"`
	// Repair is how it can be mended, Remedy what that does, or what a person has to do.
	Repair account.Repair `json:"repair"`
	Remedy string         `json:"remedy"`
}

// Drift counts the open differences by class.
func (c *Console) Drift(ctx context.Context) ([]ClassOfDrift, error) {
	counts, err := c.Store.DriftCounts(ctx)
	if err != nil {
		return nil, err
	}
	classes := make([]ClassOfDrift, len(counts))
	for i, count := range counts {
		classes[i] = ClassOfDrift{count, count.Class.Means(), count.Class.Repair(), count.Class.Remedy()}
	}
	return classes, nil
}

// OpenDifferences lists open differences of a class, or of all, behind the one named.
func (c *Console) OpenDifferences(ctx context.Context, class account.Drift, after int64, limit int) ([]store.OpenDifference, error) {
	if class != "" && class.Means() == "" {
		return nil, mistaken("there is no class %q; there are %v", string(class), account.DriftClasses())
	}
	return c.Store.OpenDifferences(ctx, store.DriftFilter{Class: class}, after, limit)
}

// Comparisons lists the latest comparisons, the newest first.
func (c *Console) Comparisons(ctx context.Context, limit int) ([]store.Reconciliation, error) {
	return c.Store.Reconciliations(ctx, limit)
}

// Reconcile has everything compared, and differences of these classes repaired. It answers the id
// of the comparison, and whether it was begun: one that is under way already is not begun again,
// and repairs what it was begun for.
func (c *Console) Reconcile(ctx context.Context, caller string, repair []account.Drift) (runID string, begun bool, err error) {
	for _, class := range repair {
		switch class.Repair() {
		case account.RepairAlone, account.RepairOnRequest:
		case account.RepairByPerson:
			return "", false, mistaken("%s cannot be repaired from here: %s", class, class.Remedy())
		default:
			return "", false, mistaken("there is no class %q; there are %v", string(class), account.DriftClasses())
		}
	}
	slices.Sort(repair)
	return c.Runs.Reconcile(ctx, workflows.ReconciliationInput{Caller: caller, Repair: slices.Compact(repair)})
}
