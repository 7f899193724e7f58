package workflows_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/nepfy/clerk-stripe-sync/internal/localstack/testtemporal"
)

// server is the real Temporal server of the tests that need one.
var server = testtemporal.New(nil)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(server.Around(m),
		// A run that ends leaves what it does not wait for any more; in skipped time that waits for ever.
		goleak.IgnoreAnyFunction("go.temporal.io/sdk/internal.(*testWorkflowEnvironmentImpl).runBeforeMockCallReturns"),
		goleak.IgnoreAnyFunction("go.temporal.io/sdk/internal.(*testWorkflowEnvironmentImpl).executeActivityWithRetryForTest"),
		goleak.IgnoreAnyFunction("go.temporal.io/sdk/internal.(*testWorkflowEnvironmentImpl).ExecuteActivity.func2"))
}
