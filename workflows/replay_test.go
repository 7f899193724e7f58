package workflows_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/protobuf/proto"

	"github.com/nepfy/clerk-stripe-sync/test/histories"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// goldenHistory is a history of a real run, recorded from an earlier version or this one.
type goldenHistory struct {
	file     string
	workflow string // type
	*historypb.History
}

// golden reads the golden histories. There has to be one of each workflow that a worker runs.
func golden(t *testing.T) []goldenHistory {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "histories", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("there are no golden histories")
	}
	var all []goldenHistory
	for _, file := range files {
		content, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		history, err := client.HistoryFromJSON(content, client.HistoryJSONOptions{})
		_ = content.Close() // it was only read
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		name := history.GetEvents()[0].GetWorkflowExecutionStartedEventAttributes().GetWorkflowType().GetName()
		if !strings.HasPrefix(filepath.Base(file), name+"-") {
			t.Errorf("%s is a history of %s", file, name)
		}
		all = append(all, goldenHistory{filepath.Base(file), name, history})
	}
	for _, name := range registered() {
		if !slices.ContainsFunc(all, func(g goldenHistory) bool { return g.workflow == name }) {
			t.Errorf("no golden history of %s", name)
		}
	}
	return all
}

// registered are the types that a worker runs.
func registered() []string {
	var r registry
	workflows.Register(&r)
	return r.names
}

type registry struct {
	worker.WorkflowRegistry // anything else is not used

	names []string
}

// RegisterWorkflow notes the name under which the SDK would register the function: its own.
func (r *registry) RegisterWorkflow(w any) {
	full := runtime.FuncForPC(reflect.ValueOf(w).Pointer()).Name()
	r.names = append(r.names, full[strings.LastIndex(full, ".")+1:])
}

func TestGoldenHistoriesReplay(t *testing.T) {
	t.Parallel()
	for _, g := range golden(t) {
		t.Run(g.file, func(t *testing.T) {
			t.Parallel()
			replayer := worker.NewWorkflowReplayer()
			workflows.Register(replayer)
			if err := replay(replayer, g.History); err != nil {
				t.Error(err)
			}
		})
	}
}

// replay gives the replayer a history of its own: it writes into it.
func replay(replayer worker.WorkflowReplayer, history *historypb.History) error {
	own, _ := proto.Clone(history).(*historypb.History) // a clone has the type of its original
	return replayer.ReplayWorkflowHistory(log.NewStructuredLogger(slog.New(slog.DiscardHandler)), own)
}

// A version that decides otherwise does not replay: at its beginning, at its end, or in what it
// asks for in between. Each golden history finds out each of these.
func TestChangedWorkflowsDoNotReplay(t *testing.T) {
	t.Parallel()
	for _, g := range golden(t) {
		for change, changed := range changes(g.workflow) {
			if change == "end" && !ended(g.History) {
				continue // it has not come to the change yet
			}
			t.Run(g.file+" "+change, func(t *testing.T) {
				t.Parallel()
				replayer := worker.NewWorkflowReplayer()
				replayer.RegisterWorkflowWithOptions(changed, workflow.RegisterOptions{Name: g.workflow})
				err := replay(replayer, g.History)
				if err == nil || !strings.Contains(err.Error(), "TMPRL1100") {
					t.Errorf("it replayed: %v", err)
				}
			})
		}
	}
}

// ended tells whether a run has returned from its workflow function.
func ended(history *historypb.History) bool {
	events := history.GetEvents()
	return events[len(events)-1].GetEventType() == enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED
}

// changes are versions of a workflow that decide otherwise.
func changes(workflowType string) map[string]any {
	switch workflowType {
	case "UserOnboarding":
		return changesOf(workflows.UserOnboarding)
	case "UserProfileSync":
		return changesOf(workflows.UserProfileSync)
	case "UserOffboarding":
		return changesOf(workflows.UserOffboarding)
	case "SubscriptionLifecycle":
		return changesOf(workflows.SubscriptionLifecycle)
	case "CatalogueSync":
		return changesOf(workflows.CatalogueSync)
	case "DisputeRouting":
		return changesOf(workflows.DisputeRouting)
	case "EventRecovery":
		return changesOf(withoutResult(workflows.EventRecovery))
	case "Reconciliation":
		return changesOf(withoutResult(workflows.Reconciliation))
	case "BulkSync":
		return changesOf(workflows.BulkSync)
	default:
		return nil
	}
}

// withoutResult is a workflow of which nobody wants to know the result.
func withoutResult[I, R any](real func(workflow.Context, I) (R, error)) func(workflow.Context, I) error {
	return func(ctx workflow.Context, in I) error {
		_, err := real(ctx, in)
		return err
	}
}

func changesOf[I any](real func(workflow.Context, I) error) map[string]any {
	return map[string]any{
		// It waits before it does anything.
		"beginning": func(ctx workflow.Context, in I) error {
			if err := workflow.Sleep(ctx, time.Second); err != nil {
				return err
			}
			return real(ctx, in)
		},
		// It does everything and then one thing more.
		"end": func(ctx workflow.Context, in I) error {
			if err := real(ctx, in); err != nil {
				return err
			}
			return workflow.Sleep(ctx, time.Second)
		},
		// It asks for another activity.
		"activity": func(ctx workflow.Context, in I) error {
			ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{TaskQueue: workflows.QueueMain, StartToCloseTimeout: time.Minute})
			return workflow.ExecuteActivity(ctx, "DoSomethingElse").Get(ctx, nil)
		},
	}
}

// Golden histories are read by everybody who has the code. They hold ids, statuses and times,
// and not even the name of the machine that they come from.
func TestGoldenHistoriesHoldNothingPersonal(t *testing.T) {
	t.Parallel()
	for _, g := range golden(t) {
		strange, err := histories.Strange(g.History)
		if err != nil {
			t.Errorf("%s: %v", g.file, err)
		}
		for _, each := range strange {
			t.Errorf("%s: %s", g.file, each)
		}
		if !proto.Equal(g.History, histories.Anonymous(g.History)) {
			t.Errorf("%s names a machine", g.file)
		}
	}
}

// Golden histories hold an example of every activity but one, and each was asked for with care.
func TestActivitiesAreAskedForWithCare(t *testing.T) {
	t.Parallel()
	// These were recorded when open checkouts were seen through, however long Stripe took.
	earlier := map[string]string{
		"UserOffboarding-completed.json": "ExpireCheckouts is given up after 0s",
		"UserOffboarding-again.json":     "ExpireCheckouts is given up after 0s",
	}
	seen := map[string]bool{}
	for _, g := range golden(t) {
		for _, each := range histories.Careless(g.History) {
			if each != earlier[g.file] {
				t.Errorf("%s: %s", g.file, each)
			}
		}
		for _, a := range histories.Scheduled(g.History) {
			seen[a.GetActivityType().GetName()] = true
		}
	}
	for name := range activityNames(t) {
		if !seen[name] && name != "UndoStripeCustomer" {
			t.Errorf("no golden history asks for %s", name)
		}
	}
}

// Two activity structs with a method of the same name pass every other unit test and panic a
// real worker.
func TestActivityNamesAreUnique(t *testing.T) {
	t.Parallel()
	if n := len(activityNames(t)); n < 10 {
		t.Errorf("only %d activities were found", n)
	}
}

func activityNames(t *testing.T) map[string]reflect.Type {
	t.Helper()
	seen := map[string]reflect.Type{}
	for field := range reflect.TypeFor[cast]().Fields() {
		for method := range field.Type.Methods() {
			if other, twice := seen[method.Name]; twice {
				t.Errorf("%s and %s both have an activity %s", field.Type, other, method.Name)
			}
			seen[method.Name] = field.Type
		}
	}
	return seen
}
