package deploys_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/test/system"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// town is the running application with many customers, each of whom has a workflow that does not
// end.
type town struct {
	*system.System
	t         *testing.T
	price     string
	people    []string // users; the customers are spread over them
	customers []*customer
	quantity  int64 // of every subscription, as it was ordered last
}

type customer struct {
	id, subscription, user string
}

// workflow is the id of the customer's workflow.
func (c *customer) workflow() string { return workflows.CustomerWorkflowID(c.id) }

// newTown is a town that nobody lives in and no program works for.
func newTown(t *testing.T, environ map[string]string) *town {
	t.Helper()
	s := system.Start(t, servers, system.Options{Stopped: true, Environ: environ, Sandbox: sandbox.Options{
		WebhookConcurrency: 16, WebhookRetry: []time.Duration{100 * time.Millisecond, time.Second},
	}})
	return &town{System: s, t: t, quantity: 1}
}

// settle has so many customers subscribe, of one user for each twenty of them.
func (w *town) settle(n int) {
	w.t.Helper()
	w.price = w.Sandbox.Stripe.AddPrice(w.Sandbox.Stripe.AddProduct("Pro"), 2000, "month")
	for i := range (n + 19) / 20 {
		w.people = append(w.people, w.Sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: "Ada", LastName: strconv.Itoa(i),
			Emails: []clerksim.EmailSpec{{Address: fmt.Sprintf("ada%d@example.com", i), Verified: true}}}))
	}
	w.quiet()
	for i := range n {
		w.join(w.people[i%len(w.people)])
	}
	w.quiet()
}

// join has a new customer of a user subscribe.
func (w *town) join(user string) *customer {
	w.t.Helper()
	bought, err := w.Sandbox.Stripe.CompleteCheckout(w.t.Context(), stripesim.CheckoutSpec{
		PriceID: w.price, Email: "somebody@example.com", SubscriptionMetadata: map[string]string{"clerk_user_id": user}, ClientReferenceID: user,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if w.quantity != 1 {
		w.must(w.Sandbox.Stripe.SetQuantity(bought.SubscriptionID, w.quantity))
	}
	c := &customer{id: bought.CustomerID, subscription: bought.SubscriptionID, user: user}
	w.customers = append(w.customers, c)
	return c
}

// order changes what everybody pays for, so that every workflow has something to do.
func (w *town) order() {
	w.t.Helper()
	w.quantity++
	for _, c := range w.customers {
		w.must(w.Sandbox.Stripe.SetQuantity(c.subscription, w.quantity))
	}
}

func (w *town) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// patience grows with the town.
func (w *town) patience() time.Duration {
	return system.Patience() + time.Duration(len(w.customers))*time.Second
}

// quiet waits until nothing is due.
func (w *town) quiet() {
	w.t.Helper()
	w.UntilWithin(w.patience(), "nothing is due", func(ctx context.Context) error {
		if err := w.Sandbox.Idle(ctx); err != nil {
			return err
		}
		var events, pokes, behind int
		err := w.Row(ctx, `SELECT (SELECT count(*) FROM webhook_events WHERE status IN ('pending', 'failing', 'waiting')),
			(SELECT count(*) FROM pokes WHERE due_at IS NOT NULL), (SELECT count(*) FROM person_user WHERE projection_version <> published_version)`,
			nil, &events, &pokes, &behind)
		if err == nil && events+pokes+behind > 0 {
			err = fmt.Errorf("%d events and %d pokes are due, %d users are behind", events, pokes, behind)
		}
		return err
	})
}

// agrees waits until the three systems agree about everybody.
func (w *town) agrees() {
	w.t.Helper()
	truth := w.NewTruth(account.AccessPolicy{PastDueGrace: 72 * time.Hour}, account.DeleteCancelAtPeriodEnd, map[string]string{w.price: "Pro"})
	var owned []system.Owned
	for _, user := range w.people {
		o := system.Owned{ClerkUserID: user}
		var own string
		w.must(w.Row(w.t.Context(), `SELECT coalesce(string_agg(c.stripe_customer_id, ' '), '') FROM stripe_customers c JOIN person_user u ON u.id = c.user_id
			WHERE clerk_user_id = $1 AND NOT c.stripe_customer_id = ANY($2)`, []any{user, w.ids()}, &own))
		o.Customers = strings.Fields(own) // the one that onboarding made
		for _, c := range w.customers {
			if c.user == user {
				o.Customers = append(o.Customers, c.id)
			}
		}
		owned = append(owned, o)
	}
	w.UntilWithin(w.patience(), "the three systems agree", func(ctx context.Context) error { return truth.Of(ctx, owned...) })
}

func (w *town) ids() []string {
	ids := make([]string, len(w.customers))
	for i, c := range w.customers {
		ids[i] = c.id
	}
	return ids
}

// refuse has Stripe refuse every read of these customers' subscriptions for good, until restore is
// called.
func (w *town) refuse(customers ...*customer) (restore func()) {
	var all []func()
	for _, c := range customers {
		all = append(all, w.Sandbox.StripeFaults.Add(faults.Rule{Method: http.MethodGet, PathPrefix: "/v1/subscriptions", QueryContains: "customer=" + c.id,
			Status: http.StatusBadRequest}))
	}
	return func() {
		for _, remove := range all {
			remove()
		}
	}
}

// orderHeld is order, and keeps Stripe from answering any read of subscriptions until release is
// called. When it returns, looks are under way.
func (w *town) orderHeld() (release func()) {
	w.t.Helper()
	gate := make(chan struct{})
	var asked atomic.Int64
	remove := w.Sandbox.StripeFaults.Add(faults.Rule{Method: http.MethodGet, PathPrefix: "/v1/subscriptions", Hold: gate, OnHit: func() { asked.Add(1) }})
	release = sync.OnceFunc(func() { remove(); close(gate) })
	w.t.Cleanup(release)
	w.order()
	w.Until("looks are under way", func(context.Context) error {
		if n := asked.Load(); n < 8 {
			return fmt.Errorf("Stripe was asked %d times", n)
		}
		return nil
	})
	return release
}

// fails waits until the last look at each of these customers has failed for good.
func (w *town) fails(customers ...*customer) {
	w.t.Helper()
	for _, c := range customers {
		w.UntilWithin(w.patience(), "the look at "+c.id+" has failed", func(ctx context.Context) error {
			answer, err := w.Temporal.QueryWorkflow(ctx, c.workflow(), "", workflows.QueryState)
			if err != nil {
				return err
			}
			var state workflows.LifecycleState
			if err := answer.Get(&state); err != nil {
				return err
			}
			if state.LastFailure == "" {
				return fmt.Errorf("it stands at %+v", state)
			}
			return nil
		})
	}
}

// isFound waits until exactly these customers' workflows are found by a query.
func (w *town) isFound(query string, customers ...*customer) {
	w.t.Helper()
	var want []string
	for _, c := range customers {
		want = append(want, c.workflow())
	}
	slices.Sort(want)
	w.UntilWithin(w.patience(), "those are found by "+query, func(ctx context.Context) error {
		got, err := w.list(ctx, query)
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("found are %v, want %v", got, want)
		}
		return err
	})
}

func (w *town) list(ctx context.Context, query string) (ids []string, err error) {
	request := &workflowservice.ListWorkflowExecutionsRequest{Namespace: w.Namespace, Query: query, PageSize: 1000}
	for {
		answer, err := w.Temporal.ListWorkflow(ctx, request)
		if err != nil {
			return nil, err
		}
		for _, e := range answer.GetExecutions() {
			ids = append(ids, e.GetExecution().GetWorkflowId())
		}
		if request.NextPageToken = answer.GetNextPageToken(); len(request.NextPageToken) == 0 {
			slices.Sort(ids)
			return ids, nil
		}
	}
}

// runsOn fails the test unless every customer's workflow is open, and none of any kind has failed
// but those that the test has ended.
func (w *town) runsOn(ended ...string) {
	w.t.Helper()
	var want []string
	for _, c := range w.customers {
		want = append(want, c.workflow())
	}
	slices.Sort(want)
	w.UntilWithin(w.patience(), "everybody's workflow runs", func(ctx context.Context) error {
		open, err := w.list(ctx, `WorkflowType = 'SubscriptionLifecycle' AND ExecutionStatus = 'Running'`)
		if err != nil {
			return err
		}
		for _, id := range want {
			if _, runs := slices.BinarySearch(open, id); !runs {
				return fmt.Errorf("%s does not run", id)
			}
		}
		return nil
	})
	failed, err := w.list(w.t.Context(), `ExecutionStatus IN ('Failed', 'Terminated', 'TimedOut', 'Canceled')`)
	w.must(err)
	if !slices.Equal(failed, ended) {
		w.t.Errorf("failed have %v, ended by the test %v", failed, ended)
	}
}

// stuck tells whether a customer's open run cannot be executed by the worker that is there: its
// tasks fail, and it does not.
func (w *town) stuck(ctx context.Context, c *customer) error {
	described, err := w.Temporal.DescribeWorkflowExecution(ctx, c.workflow(), "")
	if err != nil {
		return err
	}
	if status := described.GetWorkflowExecutionInfo().GetStatus(); status != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		return fmt.Errorf("%s is %s", c.workflow(), status)
	}
	if attempt := described.GetPendingWorkflowTask().GetAttempt(); attempt < 2 {
		return fmt.Errorf("the task of %s is at attempt %d", c.workflow(), attempt)
	}
	return nil
}

// stop asks a process to end and fails the test unless it ends with 0.
func (w *town) stop(p *system.Process) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), w.patience())
	defer cancel()
	if code, err := p.Stop(ctx); err != nil || code != 0 {
		w.t.Errorf("%s ended with %d, %v", p.Name, code, err)
	}
}

// did counts how many attempts of an activity a worker has made.
func did(p *system.Process, activity string) int { return len(p.Lines(activity)) }

// mismatches are what a worker says of runs that it cannot execute.
func mismatches(p *system.Process) []string { return p.Lines("TMPRL1100") }

// sizeFrom answers the number in an environment variable.
func sizeFrom(t *testing.T, variable string, otherwise int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 20 {
		t.Fatalf("%s must be a number from 20", variable)
	}
	return n
}
