//go:build unix

package testtemporal_test

import (
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"go.uber.org/goleak"

	"github.com/nepfy/clerk-stripe-sync/internal/localstack/testtemporal"
)

var temporal = testtemporal.New(map[string]string{"matching.useNewMatcher": "true"})

func TestMain(m *testing.M) { goleak.VerifyTestMain(temporal.Around(m)) }

func greet(workflow.Context) (string, error) { return "hello", nil }

func runGreeting(t *testing.T, c client.Client) {
	t.Helper()
	queue := t.Name()
	w := worker.New(c, queue, worker.Options{})
	w.RegisterWorkflow(greet)
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	run, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		ID: queue, TaskQueue: queue, WorkflowExecutionTimeout: time.Minute,
	}, greet)
	if err != nil {
		t.Fatal(err)
	}
	var said string
	if err := run.Get(t.Context(), &said); err != nil || said != "hello" {
		t.Errorf("got %q, %v", said, err)
	}
}

func TestAWorkflowRuns(t *testing.T) {
	t.Parallel()
	runGreeting(t, temporal.Client(t))
}

// Not parallel: the environment belongs to the whole process.
func TestAGivenServerIsUsedWithANamespaceOfItsOwn(t *testing.T) {
	t.Setenv("TEST_TEMPORAL_ADDRESS", temporal.Address(t))
	given := testtemporal.New(nil)
	if given.Namespace() == temporal.Namespace() {
		t.Fatalf("both use %s", given.Namespace())
	}
	t.Run("uses", func(t *testing.T) { runGreeting(t, given.Client(t)) })
	if err := given.Stop(); err != nil {
		t.Error(err)
	}
}
