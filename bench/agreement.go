//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"golang.org/x/sync/errgroup"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

const (
	// latency is what every call of a provider is given.
	latency = 50 * time.Millisecond
	// samples is how many changes are timed.
	samples = 100
	// payers is over how many customers they go round, so that none is poked twice within
	// POKE_INTERVAL.
	payers = 20
	// payersAtOnce is how many buy at a time before anything is measured.
	payersAtOnce = 50
)

// agreement measures how long it takes from a delivery until Clerk holds what Stripe says, on a
// quiet system, beside a bare workflow that a signal has run two activities, each as long as a call
// of a provider.
func (b *bench) agreement(ctx context.Context) error {
	p, err := b.startPrograms(ctx, "agreement", nil)
	if err != nil {
		return err
	}
	defer p.stop()
	all, err := b.payers(ctx, payers)
	if err != nil {
		return err
	}
	bare, err := b.bareWorkflows(ctx, payers, latency)
	if err != nil {
		return err
	}
	defer bare.stop()
	defer b.slowProviders()()
	var ours, theirs []time.Duration
	for i := range samples {
		took, err := b.change(ctx, all[i%len(all)], i/len(all)%2 == 0)
		if err != nil {
			return err
		}
		ours = append(ours, took)
		if took, err = bare.run(ctx, i%len(all)); err != nil {
			return err
		}
		theirs = append(theirs, took)
	}
	b.report.line("\n### From a delivery until all agree\n")
	b.report.line("%d changes of %d customers, one after the other; every call of a provider takes %s more. From the moment at which Stripe sends until Clerk holds it. Beside it, in turn with it, a bare workflow on the same server that is open, gets a signal, and runs two activities that only wait %s each.",
		samples, payers, latency, latency)
	b.report.table("", "p50", "p99", "slowest")
	for i, list := range [][]time.Duration{theirs, ours} {
		slices.Sort(list)
		name := []string{"a bare workflow", "ours"}[i]
		b.report.line("| %s | %d ms | %d ms | %d ms |", name, list[len(list)/2].Milliseconds(), list[len(list)*99/100].Milliseconds(), list[len(list)-1].Milliseconds())
	}
	b.report.line("\nThe median is %.2f of the bare workflow's, the slowest %.2f of its slowest.", float64(ours[len(ours)/2])/float64(theirs[len(theirs)/2]),
		float64(ours[len(ours)-1])/float64(theirs[len(theirs)-1]))
	return nil
}

// slowProviders gives every call of a provider its latency, until what it returns is called.
func (b *bench) slowProviders() func() {
	var removing []func()
	for _, injector := range []*faults.Injector{b.stack.sandbox.ClerkFaults, b.stack.sandbox.StripeFaults} {
		removing = append(removing, injector.Add(faults.Rule{Latency: latency}))
	}
	return func() {
		for _, remove := range removing {
			remove()
		}
	}
}

// programs are both programs, which the sandbox delivers to.
type programs struct {
	b           *bench
	environ     map[string]string
	api, worker *process
}

func (b *bench) startPrograms(ctx context.Context, name string, overrides map[string]string) (*programs, error) {
	environ, err := b.stack.environment(ctx, name, overrides)
	if err != nil {
		return nil, err
	}
	return b.startProgramsOn(ctx, environ)
}

func (b *bench) startProgramsOn(ctx context.Context, environ map[string]string) (_ *programs, err error) {
	p := &programs{b: b, environ: environ}
	if p.api, err = b.stack.start(ctx, b.binary("starter-api"), environ); err != nil {
		return nil, err
	}
	environ["METRICS_ADDR"] = "ADDR"
	if p.worker, err = b.stack.start(ctx, b.binary("worker"), environ); err != nil {
		return nil, errors.Join(err, p.api.stop())
	}
	b.stack.sandbox.ClerkWebhooks.SetURL("http://" + p.api.addr + "/api/webhooks/clerk")
	b.stack.sandbox.StripeWebhooks.SetURL("http://" + p.api.addr + "/api/webhooks/stripe")
	return p, nil
}

func (p *programs) stop() {
	p.b.stack.sandbox.ClerkWebhooks.SetURL("")
	p.b.stack.sandbox.StripeWebhooks.SetURL("")
	p.b.note(p.api.stop())
	p.b.note(p.worker.stop())
}

// payer is somebody with a subscription that is known everywhere.
type payer struct{ user, subscription string }

func (b *bench) payers(ctx context.Context, n int) ([]payer, error) {
	box := b.stack.sandbox
	price := box.Stripe.AddPrice(box.Stripe.AddProduct("Pro"), 2000, "month")
	all := make([]payer, n)
	for i := range all {
		// All at once they would share the machine until the last of them has access.
		if i%payersAtOnce == 0 {
			if err := b.haveAccess(ctx, all[max(i-payersAtOnce, 0):i]); err != nil {
				return nil, err
			}
		}
		name := fmt.Sprint("Ada", i, "of", n)
		all[i].user = box.Clerk.AddUser(clerksim.UserSpec{FirstName: name, Emails: []clerksim.EmailSpec{{Address: name + "@example.com", Verified: true}}})
		customer := box.Stripe.AddCustomer(stripesim.CustomerSpec{Name: name, Email: name + "@example.com", Metadata: map[string]string{"clerk_user_id": all[i].user}})
		bought, err := box.Stripe.CompleteCheckout(ctx, stripesim.CheckoutSpec{CustomerID: customer, PriceID: price, ClientReferenceID: all[i].user})
		if err != nil {
			return nil, fmt.Errorf("buying: %w", err)
		}
		all[i].subscription = bought.SubscriptionID
	}
	if err := b.haveAccess(ctx, all); err != nil {
		return nil, err
	}
	return all, b.until(ctx, "the webhooks are delivered", func() bool { return box.Idle(ctx) == nil })
}

func (b *bench) haveAccess(ctx context.Context, payers []payer) error {
	for _, p := range payers {
		if err := b.until(ctx, "everybody has access", func() bool { return b.told(p.user, "subscriptionActive") == true }); err != nil {
			return err
		}
	}
	return nil
}

// told is a field of what Clerk holds of a user.
func (b *bench) told(user, field string) any {
	held, _ := b.stack.sandbox.Clerk.PublicMetadata(user)["stripe"].(map[string]any)
	return held[field]
}

func (b *bench) until(ctx context.Context, what string, condition func() bool) error {
	return b.within(ctx, time.Minute, what, condition)
}

func (b *bench) within(ctx context.Context, patience time.Duration, what string, condition func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !condition() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain until %s", what)
		case <-time.After(500 * time.Microsecond):
		}
	}
	return nil
}

// change has a subscription set to end, or not, and answers how long it took until Clerk holds
// that.
func (b *bench) change(ctx context.Context, p payer, ends bool) (time.Duration, error) {
	held, err := b.changes(ctx, []payer{p}, ends)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	for _, m := range held {
		if err := deliverOne(ctx, b.stack.sandbox.StripeWebhooks, m); err != nil {
			return 0, err
		}
	}
	err = b.until(ctx, "Clerk holds it", func() bool { return (b.told(p.user, "cancelAtPeriodEnd") == true) == ends })
	return time.Since(began), err
}

// changes has subscriptions set to end, or not, and answers what Stripe would send for that.
func (b *bench) changes(ctx context.Context, of []payer, ends bool) ([]delivery.Message, error) {
	box := b.stack.sandbox
	box.StripeWebhooks.Hold()
	defer box.StripeWebhooks.Release()
	change := box.Stripe.Reactivate
	if ends {
		change = box.Stripe.CancelAtPeriodEnd
	}
	for _, p := range of {
		if err := change(p.subscription); err != nil {
			return nil, fmt.Errorf("changing a subscription: %w", err)
		}
	}
	if err := box.Stripe.Settled(ctx); err != nil {
		return nil, fmt.Errorf("waiting for Stripe: %w", err)
	}
	return box.StripeWebhooks.TakeHeld(), nil
}

func deliverOne(ctx context.Context, sender *delivery.Sender, m delivery.Message) error {
	status, err := sender.Deliver(ctx, m)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("a delivery was answered %d", status)
	}
	return err
}

// bareWorkflows run on a task queue of their own.
type bareWorkflows struct {
	client client.Client
	worker worker.Worker
	// acted and rested tell, by workflow, that its second activity is at its end, and that it waits
	// for the next signal.
	acted, rested map[string]chan struct{}
}

const (
	bareQueue    = "bench-bare"
	bareWorkflow = "bare"
	bareSignal   = "go"
)

func bareID(i int) string { return fmt.Sprint("bare/", i) }

// workflow waits for a signal and runs two activities, for ever.
func (w *bareWorkflows) workflow(ctx workflow.Context) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute})
	signals := workflow.GetSignalChannel(ctx, bareSignal)
	for !workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
		signals.Receive(ctx, nil)
		for _, name := range []string{"first", "second"} {
			if err := workflow.ExecuteActivity(ctx, name).Get(ctx, nil); err != nil {
				return fmt.Errorf("a bare activity: %w", err)
			}
		}
		if !workflow.IsReplaying(ctx) {
			tell(w.rested[workflow.GetInfo(ctx).WorkflowExecution.ID]) //workflowcheck:ignore (it is told of, and decides on nothing)
		}
	}
	return workflow.NewContinueAsNewError(ctx, bareWorkflow)
}

// tell tells once, however often it is called before somebody listens.
func tell(whom chan struct{}) {
	select {
	case whom <- struct{}{}:
	default:
	}
}

// bareWorkflows opens n of them, whose activities take so long each.
func (b *bench) bareWorkflows(ctx context.Context, n int, each time.Duration) (*bareWorkflows, error) {
	c, err := client.DialContext(ctx, client.Options{HostPort: b.stack.temporal.Address(), Logger: silent{}})
	if err != nil {
		return nil, fmt.Errorf("connecting to Temporal: %w", err)
	}
	bare := &bareWorkflows{client: c, worker: worker.New(c, bareQueue, worker.Options{}), acted: map[string]chan struct{}{}, rested: map[string]chan struct{}{}}
	for i := range n {
		bare.acted[bareID(i)], bare.rested[bareID(i)] = make(chan struct{}, 1), make(chan struct{}, 1)
	}
	bare.worker.RegisterWorkflowWithOptions(bare.workflow, workflow.RegisterOptions{Name: bareWorkflow})
	for _, name := range []string{"first", "second"} {
		bare.worker.RegisterActivityWithOptions(func(ctx context.Context) error {
			time.Sleep(each) // stands for the call of a provider
			if name == "second" {
				tell(bare.acted[activity.GetInfo(ctx).WorkflowExecution.ID])
			}
			return nil
		}, activity.RegisterOptions{Name: name})
	}
	if err := bare.worker.Start(); err != nil {
		c.Close()
		return nil, fmt.Errorf("starting a worker: %w", err)
	}
	// They are open, as the customers' are.
	if _, err := bare.all(ctx, n); err != nil {
		bare.stop()
		return nil, err
	}
	return bare, nil
}

func (w *bareWorkflows) stop() {
	w.worker.Stop()
	w.client.Close()
}

// run answers how long it took from the signal to the end of the second activity, and returns when
// the workflow waits again.
func (w *bareWorkflows) run(ctx context.Context, i int) (took time.Duration, err error) {
	id := bareID(i)
	began := time.Now()
	if _, err := w.client.SignalWithStartWorkflow(ctx, id, bareSignal, nil, client.StartWorkflowOptions{TaskQueue: bareQueue}, bareWorkflow); err != nil {
		return 0, fmt.Errorf("signalling a bare workflow: %w", err)
	}
	for n, ended := range []chan struct{}{w.acted[id], w.rested[id]} {
		select {
		case <-ended:
			if n == 0 {
				took = time.Since(began)
			}
		case <-ctx.Done():
			return 0, fmt.Errorf("waiting for a bare workflow: %w", ctx.Err())
		}
	}
	return took, nil
}

// all answers how long it takes to run n of them once, as many at a time as customers are looked
// at.
func (w *bareWorkflows) all(ctx context.Context, n int) (time.Duration, error) {
	began := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(senders)
	for i := range n {
		group.Go(func() error { _, err := w.run(ctx, i); return err })
	}
	err := group.Wait()
	return time.Since(began), err
}

// silent is a logger for a client whose errors are returned.
type silent struct{}

// Debug implements log.Logger.
func (silent) Debug(string, ...any) {}

// Info implements log.Logger.
func (silent) Info(string, ...any) {}

// Warn implements log.Logger.
func (silent) Warn(string, ...any) {}

// Error implements log.Logger.
func (silent) Error(string, ...any) {}
