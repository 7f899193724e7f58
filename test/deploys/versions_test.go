package deploys_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// The workflow code changes while many customers' workflows run: an old worker, then an old and a
// new one side by side, then a new one, with some runs in the middle of something at each step. All
// go on; the new behaviour is that of runs which the old version has not decided otherwise.
// DEPLOY_WORKFLOWS says how many customers there are.
func TestOldAndNewWorkersShareTheirWorkflows(t *testing.T) {
	t.Parallel()
	w := newTown(t, map[string]string{"PROVIDER_TIMEOUT": "2s", "POKE_INTERVAL": "1s"})
	w.StartProcess(system.ProgramAPI, nil)
	old := w.StartProgram(before, system.ProgramWorker, nil)
	w.settle(sizeFrom(t, "DEPLOY_WORKFLOWS", 40))
	early, late, steady := w.customers[0:3], w.customers[3:6], w.customers[6:9]

	// Under the old worker some fail. Nobody is found by that.
	restore := w.refuse(early...)
	w.order()
	w.fails(early...)
	restore()
	w.order()
	w.quiet()

	// Everybody is in the middle of a look when the new worker comes, and when the old one goes.
	release := w.orderHeld()
	recent := w.StartProgram(servers.Programs, system.ProgramWorker, nil)
	release()
	w.quiet()
	w.order() // by both
	w.quiet()
	for name, p := range map[string]*system.Process{"old": old, "new": recent} {
		if did(p, "RecordSubscriptions") == 0 {
			t.Errorf("the %s worker has done nothing", name)
		}
	}
	release = w.orderHeld()
	w.stop(old)
	release()
	w.quiet()
	w.agrees()
	w.runsOn()

	// Those that fail now are found by it, but for those that had failed under the old worker.
	restore = w.refuse(slices.Concat(early, late)...)
	w.order()
	w.fails(slices.Concat(early, late)...)
	w.isFound(`LastFailure = 'permanent'`, late...)
	w.isFound(`TemporalChangeVersion = 'show-failure-1'`, late...)

	// Back to the old worker: it cannot execute the runs in which the new version has decided
	// something. They wait, and all others go on.
	w.stop(recent)
	restore()
	metrics := freeAddress(t)
	again := w.StartProgram(before, system.ProgramWorker, map[string]string{"METRICS_ADDR": metrics})
	w.order()
	for _, c := range late {
		w.UntilWithin(w.patience(), c.id+" is stuck", func(ctx context.Context) error { return w.stuck(ctx, c) })
	}
	for _, c := range steady {
		w.UntilWithin(w.patience(), c.id+" goes on", func(ctx context.Context) error { return w.knows(ctx, c) })
	}
	for _, c := range late {
		if w.knows(t.Context(), c) == nil {
			t.Errorf("%s has gone on", c.id)
		}
	}
	if len(mismatches(again)) == 0 {
		t.Error("the old worker does not say that it cannot execute a run")
	}
	w.Until("a metric counts the runs that cannot be executed", func(ctx context.Context) error { return measures(ctx, metrics) })
	// One that cannot wait is ended. What its customer's events were for is due still, and a new run
	// does it.
	w.must(w.Temporal.TerminateWorkflow(t.Context(), late[0].workflow(), "", "it cannot wait"))
	w.UntilWithin(w.patience(), late[0].id+" goes on", func(ctx context.Context) error { return w.knows(ctx, late[0]) })
	w.stop(again)

	// And forward again: nothing was lost.
	last := w.StartProgram(servers.Programs, system.ProgramWorker, nil)
	w.quiet()
	w.agrees()
	w.runsOn(late[0].workflow())
	w.isFound(`LastFailure IS NOT NULL AND ExecutionStatus = 'Running'`)
	for _, p := range []*system.Process{old, recent, last} {
		for _, line := range mismatches(p) {
			t.Error(line)
		}
	}
}

// knows tells whether what a customer has ordered last is stored.
func (w *town) knows(ctx context.Context, c *customer) error {
	var quantity int64
	err := w.Row(ctx, `SELECT quantity FROM subscriptions WHERE stripe_subscription_id = $1`, []any{c.subscription}, &quantity)
	if err == nil && quantity != w.quantity {
		err = errors.New("it is not stored")
	}
	return err
}

// measures tells whether a worker's metrics count workflow tasks that failed because the code
// decides otherwise.
func measures(ctx context.Context, addr string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", http.NoBody)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	page, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(page)) {
		if strings.HasPrefix(line, "temporal_workflow_task_execution_failed_total{") && strings.Contains(line, `failure_reason="NonDeterminismError"`) {
			return nil
		}
	}
	return errors.New("it does not")
}

// freeAddress is one where nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
