package workflows_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// comparison plays the activities of a run and notes what was asked of them.
type comparison struct {
	*stage
	plan activities.ReconciliationPlan
	// How each of these is answered.
	scan    func(activities.ScanInput) (activities.ScanResult, error)
	look    func(activities.LookInput) (activities.LookResult, error)
	repair  func(activities.RepairInput) (activities.RepairResult, error)
	asked   []string
	finish  []activities.FinishInput
	started activities.ReconciliationStart
}

func newComparison(t *testing.T) *comparison {
	t.Helper()
	c := &comparison{
		stage: newStage(t),
		plan:  activities.ReconciliationPlan{MaxChanges: 100, Settle: time.Minute},
		scan: func(activities.ScanInput) (activities.ScanResult, error) {
			return activities.ScanResult{Complete: true, Compared: 7, Found: 1}, nil
		},
		look: func(activities.LookInput) (activities.LookResult, error) {
			return activities.LookResult{Complete: true}, nil
		},
		repair: func(activities.RepairInput) (activities.RepairResult, error) {
			return activities.RepairResult{Asked: 3, Complete: true}, nil
		},
	}
	set := cast{}.reconciler
	play(c.stage, set.BeginReconciliation, nil, func(_ int, in activities.ReconciliationStart) (activities.ReconciliationPlan, error) {
		c.asked, c.started = append(c.asked, "begin"), in
		c.plan.Repair = in.Repair
		return c.plan, nil
	})
	for list, activity := range map[string]any{"users": set.CompareUsers, "": set.CompareStripe, "watched": set.CompareWatched, "stored": set.CompareStored} {
		play(c.stage, activity, nil, func(_ int, in activities.ScanInput) (activities.ScanResult, error) {
			c.asked = append(c.asked, list+in.List+in.After)
			return c.scan(in)
		})
	}
	for _, activity := range []any{set.LookAtUsers, set.LookAtStripe} {
		play(c.stage, activity, nil, func(_ int, in activities.LookInput) (activities.LookResult, error) {
			what := "look at "
			if in.Repairing {
				what = "repaired "
			}
			c.asked = append(c.asked, what+string(in.Kind))
			return c.look(in)
		})
	}
	play(c.stage, set.ConcludeComparison, nil, func(int, activities.ConcludeInput) (map[string]int64, error) {
		c.asked = append(c.asked, "conclude")
		return map[string]int64{"stale_user": 3}, nil
	})
	play(c.stage, set.RepairDrift, nil, func(_ int, in activities.RepairInput) (activities.RepairResult, error) {
		c.asked = append(c.asked, "repair")
		return c.repair(in)
	})
	play(c.stage, set.FinishReconciliation, nil, func(_ int, in activities.FinishInput) (bool, error) {
		c.asked, c.finish = append(c.asked, "finish"), append(c.finish, in)
		return true, nil
	})
	return c
}

func (c *comparison) run(in workflows.ReconciliationInput) (result workflows.ReconciliationResult, err error) {
	c.t.Helper()
	c.ExecuteWorkflow(workflows.Reconciliation, in)
	if !c.IsWorkflowCompleted() {
		c.t.Fatal("the run did not end")
	}
	if err = c.GetWorkflowError(); err == nil {
		err = c.GetWorkflowResult(&result)
	}
	return result, err
}

// compared are the steps of a comparison up to its second look.
func compared() []string {
	return []string{"begin", "users", "products", "prices", "customers", "subscriptions", "watched", "stored"}
}

func lookedAt() []string { return []string{"look at product", "look at customer", "look at user"} }

// Everything is compared in the order in which one list refers to another, looked at once more
// after a while, and told; nothing is repaired that nobody asked to.
func TestReconciliationOnlyTells(t *testing.T) {
	t.Parallel()
	c := newComparison(t)
	result, err := c.run(workflows.ReconciliationInput{})
	if err != nil {
		t.Fatal(err)
	}
	if want := slices.Concat(compared(), lookedAt(), []string{"conclude", "finish"}); !slices.Equal(c.asked, want) {
		t.Errorf("it did %q, want %q", c.asked, want)
	}
	want := map[string]int64{"users": 7, "products": 7, "prices": 7, "customers": 7, "subscriptions": 7, "watched": 7, "stored": 7}
	if !maps.Equal(result.Compared, want) || result.Confirmed["stale_user"] != 3 || result.Asked != 0 {
		t.Errorf("it came to %+v", result)
	}
	if took := c.Now().Sub(opening()); took < time.Minute || took > 2*time.Minute {
		t.Errorf("the second look came after %s", took)
	}
	if c.finish[0].Failure != "" || c.started.Caller != "" {
		t.Errorf("it began as %+v and ended as %+v", c.started, c.finish)
	}
}

// Where nothing differs nothing is waited for.
func TestReconciliationWithoutDifferences(t *testing.T) {
	t.Parallel()
	c := newComparison(t)
	c.scan = func(activities.ScanInput) (activities.ScanResult, error) {
		return activities.ScanResult{Complete: true, Compared: 7}, nil
	}
	if _, err := c.run(workflows.ReconciliationInput{}); err != nil {
		t.Fatal(err)
	}
	if want := slices.Concat(compared(), []string{"conclude", "finish"}); !slices.Equal(c.asked, want) {
		t.Errorf("it did %q, want %q", c.asked, want)
	}
	if took := c.Now().Sub(opening()); took > time.Second {
		t.Errorf("it took %s", took)
	}
}

// A list that is not read to its end closes nothing and repairs nothing.
func TestReconciliationOfAnIncompleteRead(t *testing.T) {
	t.Parallel()
	c := newComparison(t)
	c.scan = func(in activities.ScanInput) (activities.ScanResult, error) {
		switch {
		case in.List != activities.ListCustomers:
			return activities.ScanResult{Complete: true, Found: 5}, nil
		case in.After == "":
			return activities.ScanResult{After: "cus_1", Compared: 100, Found: 5}, nil
		default:
			return activities.ScanResult{}, permanently()
		}
	}
	_, err := c.run(workflows.ReconciliationInput{Caller: "operator", Repair: []account.Drift{account.DriftStaleUser}})
	if failed, ok := errors.AsType[*temporal.ApplicationError](err); !ok || failed.Type() != "incomplete" {
		t.Errorf("it ended with %v", err)
	}
	want := slices.Concat(compared()[:5], []string{"customerscus_1", "finish"})
	if !slices.Equal(c.asked, want) {
		t.Errorf("it did %q, want %q", c.asked, want)
	}
	if f := c.finish[0].Failure; !strings.Contains(f, "comparing customers") {
		t.Errorf("it says of the failure %q", f)
	}
}

// What something is under way for is looked at again, a few times.
func TestReconciliationLooksAgainAtWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	for undecided, rounds := range map[int]int{1: 2, 9: 3} {
		c := newComparison(t)
		c.look = func(in activities.LookInput) (activities.LookResult, error) {
			result := activities.LookResult{Complete: true}
			if in.Kind == account.KindUser && undecided > 0 {
				undecided--
				result.Undecided = 1
			}
			return result, nil
		}
		if _, err := c.run(workflows.ReconciliationInput{}); err != nil {
			t.Fatal(err)
		}
		looks := 0
		for _, asked := range c.asked {
			if asked == "look at user" {
				looks++
			}
		}
		if looks != rounds {
			t.Errorf("it looked %d times, want %d", looks, rounds)
		}
	}
}

// A repair is asked for once everything was compared, and looked at until all is mended or nothing
// happens any more.
func TestReconciliationRepairs(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		left     []int // after each round of looks
		unmended int
		rounds   int
	}{
		"mended at once":   {[]int{0}, 0, 1},
		"mended by and by": {[]int{3, 3, 2, 2, 1, 0}, 0, 6},
		"never mended":     {[]int{3}, 3, 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newComparison(t)
			round, before := 0, 3
			w.look = func(in activities.LookInput) (activities.LookResult, error) {
				result := activities.LookResult{Complete: true}
				if in.Repairing && in.Kind == account.KindUser {
					left := c.left[min(round, len(c.left)-1)]
					result.Confirmed, result.Gone = left, before-left
					round, before = round+1, left
				}
				return result, nil
			}
			result, err := w.run(workflows.ReconciliationInput{Caller: "operator", Repair: []account.Drift{account.DriftStaleUser}})
			if err != nil {
				t.Fatal(err)
			}
			if result.Asked != 3 || result.Unmended != c.unmended || round != c.rounds {
				t.Errorf("after %d rounds it came to %+v, want %d rounds and %d not mended", round, result, c.rounds, c.unmended)
			}
			if i, j := slices.Index(w.asked, "conclude"), slices.Index(w.asked, "repair"); i < 0 || j < i {
				t.Errorf("it did %q", w.asked)
			}
			if w.started.Caller != "operator" {
				t.Errorf("it began as %+v", w.started)
			}
		})
	}
}

// A chain of short runs does what one long run does, in the same order and under the same id.
func TestReconciliationGoesOnInTheNextRun(t *testing.T) {
	t.Parallel()
	whole := newComparison(t)
	pages := func(in activities.ScanInput) (activities.ScanResult, error) {
		if in.After == "" {
			return activities.ScanResult{After: "next", Compared: 5, Found: 1}, nil
		}
		return activities.ScanResult{Complete: true, Compared: 2}, nil
	}
	whole.scan = pages
	in := workflows.ReconciliationInput{Caller: "operator", Repair: []account.Drift{account.DriftStaleUser}}
	want, err := whole.run(in)
	if err != nil {
		t.Fatal(err)
	}

	var asked []string
	in.ContinueAfter = 1
	for run := 1; ; run++ {
		if run > 100 {
			t.Fatal("it does not end")
		}
		c := newComparison(t)
		c.scan = pages
		got, err := c.run(in)
		asked = append(asked, c.asked...)
		if err == nil {
			if !maps.Equal(got.Compared, want.Compared) || !maps.Equal(got.Confirmed, want.Confirmed) || got.Asked != want.Asked || got.RunID != want.RunID {
				t.Errorf("the chain came to %+v, one run to %+v", got, want)
			}
			break
		}
		_, in = continued[workflows.ReconciliationInput](c.stage)
	}
	if !slices.Equal(asked, whole.asked) {
		t.Errorf("the chain did %q, one run %q", asked, whole.asked)
	}
}

// A run that somebody cancels leaves nothing behind.
func TestReconciliationCancelled(t *testing.T) {
	t.Parallel()
	c := newComparison(t)
	c.at(30*time.Second, c.CancelWorkflow) // while it waits for what may be on its way
	if _, err := c.run(workflows.ReconciliationInput{}); !temporal.IsCanceledError(err) {
		t.Errorf("it ended with %v", err)
	}
	if want := append(compared(), "finish"); !slices.Equal(c.asked, want) || c.finish[0].Failure != "cancelled" {
		t.Errorf("it did %q and ended as %+v", c.asked, c.finish)
	}
}
