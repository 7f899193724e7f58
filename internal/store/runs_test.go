package store_test

import (
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// A run that a restored database knows nothing of ends, and is not tried for hours while no other
// can begin.
func TestARunThatIsForgottenEndsForGood(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	for what, do := range map[string]func() error{
		"concluding a comparison": func() error {
			_, err := w.ConcludeComparison(ctx, "run_none", map[string]int64{"users": 1})
			return err
		},
		"repairing": func() error {
			_, _, err := w.RepairPage(ctx, "run_none", account.DriftClasses(), 10, 10, store.Cause{Caller: "operator"})
			return err
		},
		"noting a page of a bulk sync": func() error { return w.NoteBulkPage(ctx, "bulk_none", store.BulkPage{Step: "users", Seen: 1}) },
	} {
		if err := do(); err == nil || failure.Of(err) != failure.Permanent {
			t.Errorf("%s: %v, of class %s", what, err, failure.Of(err))
		}
	}
}
