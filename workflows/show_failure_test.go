package workflows_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// faltering fails its second and third look for good and sees the end in its fourth.
func faltering(t *testing.T) *lifecycle {
	t.Helper()
	l := newLifecycle(t, script{record: func(n int, _ activities.RecordInput) (activities.RecordResult, error) {
		switch n {
		case 0:
			return live(), nil
		case 1, 2:
			return activities.RecordResult{}, permanently()
		default:
			return over(), nil
		}
	}})
	l.poke(day)
	return l
}

// what of the search attributes is about failures, in order.
func (s *stage) shownFailures() []string {
	var shown []string
	for _, each := range s.upserted {
		if name, value, _ := strings.Cut(each, "="); name == workflows.SearchLastFailure {
			shown = append(shown, value)
		}
	}
	return shown
}

func TestARunIsFoundByItsLastFailure(t *testing.T) {
	t.Parallel()
	l := faltering(t)
	l.run()
	l.finished()
	equal(t, "shown", l.shownFailures(), []string{"permanent", ""})
}

// The version before shows none, and does all else the same.
func TestARunOfTheVersionBeforeShowsNoFailure(t *testing.T) {
	t.Parallel()
	l := faltering(t)
	l.OnGetVersion("show-failure", workflow.DefaultVersion, workflow.Version(1)).Return(workflow.DefaultVersion)
	l.run()
	l.finished()
	equal(t, "shown", l.shownFailures(), nil)
	equal(t, "looks", l.record.since(), []time.Duration{0, day, day + time.Hour, day + 2*time.Hour})
}

// A run that goes well asks for no version, and its history holds no marker.
func TestARunThatGoesWellAsksForNoVersion(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{record: looks(live(), over())})
	l.poke(day)
	l.run()
	l.finished()
	equal(t, "versions asked for", l.versionsOf, nil)
}

// What is shown is known to the next run, which takes it back; a run that carries a failure of the
// version before shows it when it comes again.
func TestAShownFailureOutlivesItsRun(t *testing.T) {
	t.Parallel()
	l := faltering(t)
	l.runWith(workflows.SubscriptionLifecycleInput{CustomerID: theCustomer, ContinueAfter: 2})
	_, next := continued[workflows.SubscriptionLifecycleInput](l.stage)
	equal(t, "carried", next.Carried.ShownFailure, "permanent")

	next.ContinueAfter = 0
	well := newLifecycle(t, script{record: looks(over())})
	well.runWith(next)
	well.finished()
	equal(t, "shown by the next run", well.shownFailures(), []string{""})

	next.Carried.ShownFailure = ""
	again := newLifecycle(t, script{record: func(n int, _ activities.RecordInput) (activities.RecordResult, error) {
		if n == 0 {
			return activities.RecordResult{}, permanently()
		}
		return over(), nil
	}})
	again.runWith(next)
	again.finished()
	equal(t, "shown after the version before", again.shownFailures(), []string{"permanent", ""})
}

// A billing that cannot be stopped is one failure, although each look itself goes well.
func TestABillingThatCannotBeStoppedIsShownOnce(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{
		record: looks(stopDue(live())),
		stop: func(n int, _ activities.RecordInput) (activities.RecordResult, error) {
			if n < 2 {
				return activities.RecordResult{}, permanently()
			}
			return over(), nil
		},
	})
	l.run()
	l.finished()
	equal(t, "shown", l.shownFailures(), []string{"permanent", ""})
}

// The change needs its version: a run that has failed under the version before does not replay as
// one of this version, nor the other way round.
func TestShowingFailuresNeedsItsVersion(t *testing.T) {
	t.Parallel()
	needVersions(t, map[string]workflow.Version{
		"SubscriptionLifecycle-failed.json": 1,
		"SubscriptionLifecycle-shown.json":  workflow.DefaultVersion,
	})
}

// needVersions fails the test unless each golden history is refused by code that takes its run for
// one of that version without asking.
func needVersions(t *testing.T, histories map[string]workflow.Version) {
	t.Helper()
	for file, version := range histories {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			all := golden(t)
			i := slices.IndexFunc(all, func(g goldenHistory) bool { return g.file == file })
			if i < 0 {
				t.Fatal("there is no such golden history")
			}
			replayer, err := worker.NewWorkflowReplayerWithOptions(worker.WorkflowReplayerOptions{
				Interceptors: []interceptor.WorkerInterceptor{&versionless{version: version}},
			})
			if err != nil {
				t.Fatal(err)
			}
			workflows.Register(replayer)
			if err := replay(replayer, all[i].History); err == nil || !strings.Contains(err.Error(), "TMPRL1100") {
				t.Errorf("it replayed: %v", err)
			}
		})
	}
}

// versionless is a worker whose code does not ask which version a run has.
type versionless struct {
	interceptor.WorkerInterceptorBase
	version workflow.Version
}

func (v *versionless) InterceptWorkflow(_ workflow.Context, next interceptor.WorkflowInboundInterceptor) interceptor.WorkflowInboundInterceptor {
	in := &versionlessRun{version: v.version}
	in.Next = next
	return in
}

type versionlessRun struct {
	interceptor.WorkflowInboundInterceptorBase
	version workflow.Version
}

func (r *versionlessRun) Init(next interceptor.WorkflowOutboundInterceptor) error {
	out := &versionlessCalls{version: r.version}
	out.Next = next
	return r.Next.Init(out)
}

type versionlessCalls struct {
	interceptor.WorkflowOutboundInterceptorBase
	version workflow.Version
}

func (c *versionlessCalls) GetVersion(workflow.Context, string, workflow.Version, workflow.Version) workflow.Version {
	return c.version
}
