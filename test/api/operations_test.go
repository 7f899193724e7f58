package api_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/test/system"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// settles waits until an operation has ended and answers how.
func (p *person) settles(r reply) (status string) {
	p.w.t.Helper()
	address := r.text("operation")
	p.w.Until("the operation has ended", func(context.Context) error {
		o := p.asks(http.MethodGet, address, "")
		if status = o.text("status"); o.status != http.StatusOK || !strings.Contains(string(o.body), `"settled":true`) {
			return fmt.Errorf("it is %s", o)
		}
		return nil
	})
	return status
}

// pending fails the test unless an answer says that it is still being settled, and where that will
// show.
func pending(t *testing.T, r reply) {
	t.Helper()
	if r.status != http.StatusAccepted || r.header.Get("Location") == "" || r.header.Get("Location") != r.text("operation") {
		t.Errorf("answered %s with Location %q, want 202 and the operation's address", r, r.header.Get("Location"))
	}
}

// No worker is alive: the caller is told so in time, and what they asked for is done when one is.
func TestCommandWithoutAWorker(t *testing.T) {
	t.Parallel()
	w := start(t, map[string]string{"COMMAND_WAIT": "500ms"})
	ada := w.subscriber("Ada")
	w.StopWorker()
	started := time.Now()
	r := ada.asks(http.MethodPost, "/api/subscriptions/"+ada.subscription+"/cancel", "")
	pending(t, r)
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("the caller waited %s", took)
	}
	sync := ada.asks(http.MethodPost, "/api/users/me/sync", "")
	pending(t, sync)
	eve := w.somebody("Eve")
	want(t, eve.asks(http.MethodGet, r.text("operation"), ""), http.StatusNotFound, "operation_not_found")
	w.StartWorker()
	if got := ada.settles(r); got != "done" {
		t.Errorf("the cancellation ended %q", got)
	}
	ada.is("active, ends with its period")
	if got := ada.settles(sync); got != "done" {
		t.Errorf("the sync ended %q", got)
	}
}

// Clerk is gone: the command is done in Stripe and PostgreSQL, other commands go on, and all are
// done when Clerk is back.
func TestCommandsWhileClerkIsGone(t *testing.T) {
	t.Parallel()
	w := start(t, map[string]string{"COMMAND_WAIT": "700ms"})
	ada := w.subscriber("Ada")
	w.Sandbox.ClerkFaults.Add(faults.Rule{Method: http.MethodPatch, Status: http.StatusServiceUnavailable, HTML: true})
	first := ada.asks(http.MethodPost, "/api/subscriptions/"+ada.subscription+"/cancel", "")
	pending(t, first)
	done := func(ends string, n int) {
		t.Helper()
		w.Until("it is done in Stripe and PostgreSQL", func(context.Context) error {
			if got := ada.ends(); got != ends {
				return fmt.Errorf("Stripe says %q", got)
			}
			if got := w.Count(`SELECT count(*) FROM subscriptions WHERE cancel_at_period_end`); got != n {
				return fmt.Errorf("PostgreSQL has %d that end", got)
			}
			return nil
		})
	}
	done("active, ends with its period", 1)
	second := ada.asks(http.MethodPost, "/api/subscriptions/"+ada.subscription+"/reactivate", "")
	pending(t, second)
	done("active", 0)
	w.Sandbox.ClerkFaults.Clear()
	for _, r := range []reply{first, second} {
		if got := ada.settles(r); got != "done" {
			t.Errorf("it ended %q", got)
		}
	}
	ada.is("active")
}

// The same key gives the same answer: at once, while the first is under way, after the run has
// continued as new, and after the programs were started again. Another request under it is refused.
func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	ada := w.subscriber("Ada")
	cancel := "/api/subscriptions/" + ada.subscription + "/cancel"
	w.Sandbox.StripeFaults.Add(faults.Rule{Method: http.MethodPost, PathPrefix: "/v1/subscriptions", Latency: 300 * time.Millisecond})
	w.Sandbox.StripeFaults.Reset()
	answers := make([]reply, 5)
	var asking sync.WaitGroup
	for i := range answers {
		asking.Go(func() { answers[i] = ada.asksWith("cancel-1", http.MethodPost, cancel, "") })
	}
	asking.Wait()
	for _, r := range answers {
		want(t, r, http.StatusOK, "")
		if string(r.body) != string(answers[0].body) {
			t.Errorf("answered %s and %s", r, answers[0])
		}
	}
	asked := func() int { return w.Sandbox.StripeFaults.Requests()["POST /v1/subscriptions/{id}"] }
	if asked() != 1 {
		t.Errorf("Stripe was asked %d times to cancel", asked())
	}
	// It is what happened then, not a wish for now.
	want(t, ada.asks(http.MethodPost, "/api/subscriptions/"+ada.subscription+"/reactivate", ""), http.StatusOK, "")
	same := func(when string) {
		t.Helper()
		if r := ada.asksWith("cancel-1", http.MethodPost, cancel, ""); string(r.body) != string(answers[0].body) {
			t.Errorf("%s it is answered %s, before %s", when, r, answers[0])
		}
		ada.is("active")
	}
	same("again")
	id := workflows.CustomerWorkflowID(ada.customer)
	if err := w.Temporal.TerminateWorkflow(t.Context(), id, "", "a test"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: id, TaskQueue: workflows.QueueMain}, workflows.SubscriptionLifecycle,
		workflows.SubscriptionLifecycleInput{CustomerID: ada.customer, ContinueAfter: 1}); err != nil {
		t.Fatal(err)
	}
	same("in another run")
	w.StopAPI()
	w.StopWorker()
	w.StartAPI()
	w.StartWorker()
	same("after a restart")
	if asked() != 2 {
		t.Errorf("Stripe was asked %d times in all, want 2", asked())
	}
	want(t, ada.asksWith("cancel-1", http.MethodPost, cancel, `{"at":"now"}`), http.StatusUnprocessableEntity, "idempotency_key_reused")
	// The same key of somebody else, or for another route, is another key.
	eve := w.subscriber("Eve")
	want(t, eve.asksWith("cancel-1", http.MethodPost, "/api/subscriptions/"+eve.subscription+"/cancel", ""), http.StatusOK, "")
	want(t, ada.asksWith("cancel-1", http.MethodPost, "/api/users/me/sync", ""), http.StatusOK, "")
	// A day later it is a new wish.
	if _, err := w.Store.ForgetOperations(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	same("before a day has passed")
	w.Expire(answers[0].text("operation")[len("/api/operations/"):])
	if r := ada.asksWith("cancel-1", http.MethodPost, cancel, ""); r.status != http.StatusOK || string(r.body) == string(answers[0].body) {
		t.Errorf("a day later it is answered %s", r)
	}
	ada.is("active, ends with its period")
}

// Fifty at once, more than a workflow takes: every caller is told the truth, and the three systems
// end equal, as the one says that came last.
func TestFiftyCommandsAtOnce(t *testing.T) {
	t.Parallel()
	const commands = 50
	w := start(t, map[string]string{"STRIPE_RATE": "80", "CLERK_RATE": "80"})
	ada := w.subscriber("Ada")
	answers := make([]reply, commands)
	var asking sync.WaitGroup
	for i := range answers {
		asking.Go(func() {
			answers[i] = ada.asks(http.MethodPost, "/api/subscriptions/"+ada.subscription+map[bool]string{true: "/cancel", false: "/reactivate"}[i%2 == 0], "")
		})
	}
	asking.Wait()
	counts := map[string]int{}
	for _, r := range answers {
		counts[fmt.Sprint(r.status)]++
		switch r.status {
		case http.StatusOK:
		case http.StatusAccepted:
			if got := ada.settles(r); got != "done" {
				t.Errorf("%s ended %q", r.text("operation"), got)
			}
		default:
			t.Errorf("answered %s", r)
		}
	}
	t.Log("answers by status:", counts)
	if n := w.Count(`SELECT count(*) FROM operations WHERE action <> 'sync' AND status <> 'done'`); n != 0 {
		t.Errorf("%d operations are not done", n)
	}
	var last string
	if err := w.Row(t.Context(), `SELECT action FROM audit_log WHERE action LIKE 'operation.%' ORDER BY id DESC LIMIT 1`, nil, &last); err != nil {
		t.Fatal(err)
	}
	w.Quiet(false)
	ada.is(map[string]string{"operation.cancel": "active, ends with its period", "operation.reactivate": "active"}[last])
}

// The workflow has just ended, or was ended by somebody, when a command comes: it is started again.
func TestCommandAfterTheWorkflowHasEnded(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	ada := w.subscriber("Ada")
	for range 3 {
		if err := w.Temporal.TerminateWorkflow(t.Context(), workflows.CustomerWorkflowID(ada.customer), "", "a test"); err != nil {
			t.Fatal(err)
		}
		want(t, ada.asks(http.MethodPost, "/api/subscriptions/"+ada.subscription+"/cancel", ""), http.StatusOK, "")
		ada.is("active, ends with its period")
		want(t, ada.asks(http.MethodPost, "/api/subscriptions/"+ada.subscription+"/reactivate", ""), http.StatusOK, "")
	}
	// It has ended by itself: nothing can change any more.
	want(t, ada.asks(http.MethodPost, "/api/subscriptions/"+ada.subscription+"/cancel", `{"at":"now"}`), http.StatusOK, "")
	w.Quiet(false)
	want(t, ada.asks(http.MethodPost, "/api/subscriptions/"+ada.subscription+"/cancel", `{"at":"now"}`), http.StatusOK, "")
	want(t, ada.asks(http.MethodPost, "/api/subscriptions/"+ada.subscription+"/cancel", ""), http.StatusConflict, "subscription_ended")
	ada.is("canceled")
}

// Temporal cannot be reached: what was asked for is kept, and done when it is back.
func TestCommandWhileTemporalIsGone(t *testing.T) {
	t.Parallel()
	s := system.Start(t, servers, system.Options{Stopped: true, Environ: map[string]string{"COMMAND_WAIT": "500ms", "CLERK_AUTHORIZED_PARTIES": party}})
	s.StartAPI()
	s.StartWorker()
	w := furnish(t, s)
	ada := w.subscriber("Ada")
	w.StopAPI()
	address := w.Environ["TEMPORAL_ADDRESS"]
	w.Environ["TEMPORAL_ADDRESS"] = "127.0.0.1:1"
	w.StartAPI()
	r := ada.fresh().asks(http.MethodPost, "/api/subscriptions/"+ada.subscription+"/cancel", "")
	pending(t, r)
	w.StopAPI()
	w.Environ["TEMPORAL_ADDRESS"] = address
	w.StartAPI()
	if got := ada.fresh().settles(r); got != "done" {
		t.Errorf("it ended %q", got)
	}
	ada.is("active, ends with its period")
}
