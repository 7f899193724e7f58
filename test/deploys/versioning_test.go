package deploys_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/nepfy/clerk-stripe-sync/internal/localstack"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// With TEMPORAL_DEPLOYMENT_NAME and TEMPORAL_BUILD_ID a version of the worker works from the moment
// that it is made current, and so do the workflows that another version has begun.
func TestWorkerVersions(t *testing.T) {
	t.Parallel()
	w := newTown(t, nil)
	w.StartProcess(system.ProgramAPI, nil)
	version := func(id string) *system.Process {
		return w.StartProgram(servers.Programs, system.ProgramWorker, map[string]string{"TEMPORAL_DEPLOYMENT_NAME": deployment, "TEMPORAL_BUILD_ID": id})
	}
	first := version("1.4.0")
	product := w.Sandbox.Stripe.AddProduct("Basic")
	w.Until("the product is waited for", func(ctx context.Context) error {
		_, err := w.Temporal.DescribeWorkflowExecution(ctx, "product/"+product, "")
		if _, missing := errors.AsType[*serviceerror.NotFound](err); missing {
			return errors.New("nobody has poked it")
		}
		return err
	})
	w.knownVersion("1.4.0")
	if n := did(first, "RecordProduct"); n != 0 {
		t.Errorf("a version that is not current has made %d attempts", n)
	}
	w.makeCurrent("1.4.0")
	w.settle(20)

	second := version("1.5.0")
	w.knownVersion("1.5.0")
	w.order()
	w.quiet()
	if n := did(second, "operation="); n > 1 { // its start
		t.Errorf("a version that is not current has done something: %v", second.Lines("operation="))
	}
	w.operate("worker", "deployment", "set-ramping-version", "--deployment-name", deployment, "--build-id", "1.5.0", "--percentage", "50", "--yes")
	if said := w.operate("worker", "deployment", "describe", "--name", deployment); !strings.Contains(said, "1.5.0") {
		t.Errorf("the deployment is described as %s", said)
	}
	w.makeCurrent("1.5.0")
	w.order()
	w.quiet()
	if did(second, "RecordSubscriptions") == 0 {
		t.Error("the current version has done nothing")
	}
	w.stop(first)
	w.order()
	w.quiet()
	w.agrees()
	w.runsOn()

	// And back to workers that say no version.
	w.StartProcess(system.ProgramWorker, nil)
	w.operate("worker", "deployment", "set-current-version", "--deployment-name", deployment, "--unversioned", "--yes")
	w.stop(second)
	w.order()
	w.quiet()
	w.runsOn()
}

const deployment = "sync"

// knownVersion waits until Temporal has heard of a version on all task queues.
func (w *town) knownVersion(id string) {
	w.t.Helper()
	w.Until("the version is known", func(ctx context.Context) error {
		described, err := w.Temporal.WorkerDeploymentClient().GetHandle(deployment).DescribeVersion(ctx, client.WorkerDeploymentDescribeVersionOptions{BuildID: id})
		if err != nil {
			return err
		}
		queues := map[string]bool{}
		for _, q := range described.Info.TaskQueuesInfos {
			queues[q.Name] = true
		}
		if len(queues) != 5 {
			return fmt.Errorf("it polls %v", queues)
		}
		return nil
	})
}

// makeCurrent has Temporal give all work to a version.
func (w *town) makeCurrent(id string) {
	w.t.Helper()
	w.operate("worker", "deployment", "set-current-version", "--deployment-name", deployment, "--build-id", id, "--yes")
}

// operate gives one of Temporal's commands as an operator does.
func (w *town) operate(command ...string) (said string) {
	w.t.Helper()
	root, err := localstack.ProjectRoot(".")
	w.must(err)
	temporal, err := localstack.TemporalBinary(w.t.Context(), root, io.Discard)
	w.must(err)
	command = append(command, "--address", w.Environ["TEMPORAL_ADDRESS"], "--namespace", w.Namespace)
	w.Until("the command is taken", func(ctx context.Context) error {
		out, err := exec.CommandContext(ctx, temporal, command...).CombinedOutput()
		said = string(out)
		// The server keeps a deployment in a workflow of its own, which begins anew after a change: asked
		// between two runs, it does not find the deployment. Whoever gives the command gives it again.
		if err != nil && !strings.Contains(said, "Worker Deployment not found") {
			w.t.Fatalf("temporal %v: %v: %s", command, err, said)
		}
		if err != nil {
			return fmt.Errorf("temporal %v: %w: %s", command, err, said)
		}
		return nil
	})
	return said
}
