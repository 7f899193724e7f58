//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/nepfy/clerk-stripe-sync/internal/app"
	"github.com/nepfy/clerk-stripe-sync/internal/operator"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

const (
	// allowed is what Clerk and Stripe both take of calls in a second, with live keys.
	allowed = 100
	// used is what the programs are told to keep to.
	used = 95
	// checkouts is how many first checkouts are timed.
	checkouts = 30
	// month is until everybody's period has ended.
	month = 31*24*time.Hour + time.Hour
)

// crowd is a product with many people, at providers that take no more than they do.
type crowd struct {
	*bench
	p       *programs
	console *app.Operator
	// box is a sandbox of its own: those that other measurements have left are not in it.
	box     *sandbox.Sandbox
	price   string
	people  int
	refused atomic.Int64
	// next are users who have bought nothing yet.
	next []string
}

// crowd measures a bulk sync of many people, a wave of renewals, and both at once with first
// checkouts beside them.
func (b *bench) crowd(ctx context.Context) (err error) {
	c := &crowd{bench: b}
	before := b.stack.sandbox
	// An invoice is a draft for an hour, as a rule; here a renewal's events come all at once.
	if b.stack.sandbox, err = sandbox.Start(ctx, sandbox.Options{WebhookConcurrency: 16, InvoiceDelay: time.Second}); err != nil {
		return fmt.Errorf("starting a sandbox: %w", err)
	}
	c.box = b.stack.sandbox
	defer func() {
		err = errors.Join(err, c.box.Stop(context.WithoutCancel(ctx)))
		b.stack.sandbox = before
	}()
	c.box.Clerk.SetRateLimit(10*allowed, 10)
	c.box.StripeFaults.Add(faults.Rule{Status: 429, RetryAfter: time.Second, Above: rate.NewLimiter(allowed, allowed), OnHit: func() { c.refused.Add(1) }})
	for _, injector := range []*faults.Injector{c.box.ClerkFaults, c.box.StripeFaults} {
		injector.Add(faults.Rule{Latency: latency})
	}
	if c.p, err = b.startPrograms(ctx, "crowd", map[string]string{"STRIPE_RATE": fmt.Sprint(used), "CLERK_RATE": fmt.Sprint(used)}); err != nil {
		return err
	}
	defer c.p.stop()
	if c.console, err = app.NewConsole(ctx, c.p.environ); err != nil {
		return fmt.Errorf("opening a console: %w", err)
	}
	defer c.console.Close()
	c.price = c.box.Stripe.AddPrice(c.box.Stripe.AddProduct("Pro"), 2000, "month")
	b.report.line("\n### Many people at once\n")
	b.report.line("Both providers take %d calls a second, as with live keys, and %s for each; more is refused. `STRIPE_RATE` and `CLERK_RATE` are %d.", allowed, latency, used)
	if err := c.newcomers(ctx, 2*checkouts); err != nil {
		return err
	}
	quiet, err := c.buy(ctx)
	if err != nil {
		return err
	}
	if err := c.settle(ctx, b.people); err != nil {
		return err
	}
	c.deliver(delivery.Faults{Lose: 1}) // what a write causes at a provider is told of by a webhook, which is no part of the bulk sync
	err = c.bulk(ctx)
	c.deliver(delivery.Faults{})
	if err != nil {
		return err
	}
	if err := c.wave(ctx); err != nil {
		return err
	}
	return c.together(ctx, quiet)
}

// newcomers sign up: they are known everywhere, and have bought nothing.
func (c *crowd) newcomers(ctx context.Context, n int) error {
	for i := range n {
		name := fmt.Sprint("New", i)
		c.next = append(c.next, c.box.Clerk.AddUser(clerksim.UserSpec{FirstName: name, Emails: []clerksim.EmailSpec{{Address: name + "@example.com", Verified: true}}}))
	}
	for _, user := range c.next {
		if err := c.until(ctx, "a user has a customer", func() bool { return c.told(user, "customerId") != nil }); err != nil {
			return err
		}
	}
	return nil
}

// buy times first checkouts, one after the other, each from the first delivery until Clerk holds
// that it gives access.
func (c *crowd) buy(ctx context.Context) ([]time.Duration, error) {
	var all []time.Duration
	for range checkouts {
		user := c.next[0]
		c.next = c.next[1:]
		customer, _ := c.told(user, "customerId").(string)
		c.box.StripeWebhooks.Hold()
		_, err := c.box.Stripe.CompleteCheckout(ctx, stripesim.CheckoutSpec{CustomerID: customer, PriceID: c.price, ClientReferenceID: user})
		if err == nil {
			err = c.box.Stripe.Settled(ctx)
		}
		messages := c.box.StripeWebhooks.TakeHeld()
		c.box.StripeWebhooks.Release()
		if err != nil {
			return nil, fmt.Errorf("buying: %w", err)
		}
		began := time.Now()
		group, sending := errgroup.WithContext(ctx)
		for _, m := range messages {
			group.Go(func() error { return deliverOne(sending, c.box.StripeWebhooks, m) })
		}
		if err := group.Wait(); err != nil {
			return nil, err
		}
		if err := c.until(ctx, "a checkout gives access", func() bool { return c.told(user, "subscriptionActive") == true }); err != nil {
			return nil, err
		}
		all = append(all, time.Since(began))
	}
	slices.Sort(all)
	return all, nil
}

// settle has so many people be there whom nobody has told us of: of each five one pays, two have
// paid once, and two never did.
func (c *crowd) settle(ctx context.Context, n int) error {
	c.deliver(delivery.Faults{Lose: 1})
	defer c.deliver(delivery.Faults{})
	for range n {
		i := c.people
		c.people++
		name := fmt.Sprint("Ada", i)
		user := c.box.Clerk.AddUser(clerksim.UserSpec{FirstName: name, Emails: []clerksim.EmailSpec{{Address: name + "@example.com", Verified: true}}})
		if i%5 > 2 {
			continue
		}
		customer := c.box.Stripe.AddCustomer(stripesim.CustomerSpec{Name: name, Email: name + "@example.com", Metadata: map[string]string{"clerk_user_id": user}})
		if i%5 != 0 {
			continue
		}
		if _, err := c.box.Stripe.CompleteCheckout(ctx, stripesim.CheckoutSpec{CustomerID: customer, PriceID: c.price, ClientReferenceID: user}); err != nil {
			return fmt.Errorf("buying: %w", err)
		}
	}
	if err := c.box.Stripe.Settled(ctx); err != nil {
		return fmt.Errorf("waiting for Stripe: %w", err)
	}
	return c.box.Idle(ctx) //nolint:wrapcheck // says what is not
}

// deliver has both providers deliver webhooks from now on with such faults.
func (c *crowd) deliver(f delivery.Faults) {
	c.box.ClerkWebhooks.SetFaults(f)
	c.box.StripeWebhooks.SetFaults(f)
}

// stretch is the time that a list took, with the calls in it.
type stretch struct {
	step          string
	took          time.Duration
	clerk, stripe int
}

// share is how much of what the busier of the two providers takes was used.
func (s stretch) share() float64 { return float64(max(s.clerk, s.stripe)) / s.took.Seconds() / allowed }

func (c *crowd) calls() (clerk, stripe int) {
	for _, n := range c.box.ClerkFaults.Requests() {
		clerk += n
	}
	for _, n := range c.box.StripeFaults.Requests() {
		stripe += n
	}
	return clerk, stripe
}

func (c *crowd) begin(ctx context.Context) (string, error) {
	run, begun, err := c.console.StartBulk(ctx, operator.BulkOrder{Caller: "bench"})
	if err == nil && !begun {
		err = errors.New("another is under way")
	}
	if err != nil {
		return "", fmt.Errorf("beginning a bulk sync: %w", err)
	}
	return run.ID, nil
}

// bulk measures a bulk sync from its start to its end. At a random moment while it reads the
// customers its worker is killed.
func (c *crowd) bulk(ctx context.Context) error {
	c.box.StripeFaults.Reset()
	c.box.ClerkFaults.Reset()
	id, err := c.begin(ctx)
	if err != nil {
		return err
	}
	dies := int64(float64(c.people) * 0.6 * (0.1 + 0.8*rand.Float64()))
	var stretches []stretch
	var memory []float64
	killed := false
	began, last := time.Now(), time.Now()
	clerk, stripe := 0, 0
	var run *store.BulkRun
	for {
		if run, err = c.console.Bulk(ctx, id); err != nil {
			return fmt.Errorf("asking for a bulk sync: %w", err)
		}
		now := time.Now()
		clerkNow, stripeNow := c.calls()
		if len(stretches) == 0 || stretches[len(stretches)-1].step != run.Step {
			stretches = append(stretches, stretch{step: run.Step})
		}
		s := &stretches[len(stretches)-1]
		s.took, s.clerk, s.stripe = s.took+now.Sub(last), s.clerk+clerkNow-clerk, s.stripe+stripeNow-stripe
		last, clerk, stripe = now, clerkNow, stripeNow
		resident, err := memoryOf(c.p.worker.cmd.Process.Pid, "VmRSS:")
		if err != nil {
			return err
		}
		memory = append(memory, resident)
		if run.FinishedAt != nil {
			break
		}
		if !killed && run.Step == "customers" && run.Seen["customers"] >= dies {
			killed = true
			if err := c.killWorker(ctx); err != nil {
				return err
			}
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if run.Failure != nil || run.Failed > 0 {
		return fmt.Errorf("the bulk sync came to %+v", run)
	}
	return c.tellBulk(ctx, run, stretches, memory, time.Since(began))
}

func (c *crowd) tellBulk(ctx context.Context, run *store.BulkRun, stretches []stretch, memory []float64, took time.Duration) error {
	c.report.line("\nA bulk sync of %d users, of whom each fifth pays and two of five have a customer without anything, before webhooks are registered. While it read the customers its worker was killed, and another began.", c.people)
	c.report.table("list", "looked at", "seconds", "calls a second: Clerk", "Stripe", "of what the busier takes")
	total := 0.0
	for _, s := range stretches {
		if s.took < time.Second {
			continue
		}
		total += s.share() * s.took.Seconds()
		c.report.line("| %s | %d | %.0f | %.0f | %.0f | %.0f%% |", s.step, run.Seen[s.step], s.took.Seconds(), float64(s.clerk)/s.took.Seconds(), float64(s.stripe)/s.took.Seconds(), 100*s.share())
	}
	pages := c.box.StripeFaults.Requests()["GET /v1/customers"]
	noted := (run.Seen["customers"] + 99) / 100
	watched, err := c.workflows(ctx, "SubscriptionLifecycle")
	if err != nil {
		return err
	}
	users, err := c.workflows(ctx, "UserOnboarding")
	if err != nil {
		return err
	}
	var tenths []string
	for tenth := 1; tenth <= 10; tenth++ {
		tenths = append(tenths, fmt.Sprintf("%.0f", memory[(len(memory)-1)*tenth/10]))
	}
	c.report.line("\nFrom start to end %.0f s, %.0f%% of what the busier provider takes in that time; %d calls were refused. %d pages of customers were read, and %d were noted. %d workflows of customers were begun, for %d who pay; %d of users, for the %d who came by themselves. After each tenth of the time the worker had, in MiB: %s.",
		took.Seconds(), 100*total/took.Seconds(), c.refused.Load(), pages, noted, watched, c.people/5+checkouts, users, 2*checkouts, strings.Join(tenths, ", "))
	return nil
}

// killWorker has the worker die, and another begin.
func (c *crowd) killWorker(ctx context.Context) error {
	if err := c.p.worker.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("killing the worker: %w", err)
	}
	_ = c.p.worker.cmd.Wait() // it was killed
	var err error
	c.p.worker, err = c.stack.start(ctx, c.binary("worker"), c.p.environ)
	return err
}

func (c *crowd) workflows(ctx context.Context, kind string) (int64, error) {
	t, err := client.DialContext(ctx, client.Options{HostPort: c.stack.temporal.Address(), Namespace: "crowd", Logger: silent{}})
	if err != nil {
		return 0, fmt.Errorf("connecting to Temporal: %w", err)
	}
	defer t.Close()
	n, err := t.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Query: "WorkflowType = '" + kind + "'"})
	if err != nil {
		return 0, fmt.Errorf("counting workflows: %w", err)
	}
	return n.GetCount(), nil
}

// outstanding is how much of what was delivered has not ended, and how many users Clerk is behind
// for.
func (c *crowd) outstanding(ctx context.Context) (int, error) {
	return count(ctx, c.p.environ["DATABASE_URL"], dueOfAll)
}

// wave has everybody's subscription renew at once.
func (c *crowd) wave(ctx context.Context) error {
	if err := c.p.rest(ctx); err != nil {
		return err
	}
	pids := []int{c.p.api.cmd.Process.Pid, c.p.worker.cmd.Process.Pid}
	atRest, err := memories(pids, "VmRSS:")
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := forgetPeak(pid); err != nil {
			return err
		}
	}
	before, err := count(ctx, c.p.environ["DATABASE_URL"], `SELECT count(*) FROM webhook_events`)
	if err != nil {
		return err
	}
	clerk, stripe := c.calls()
	began := time.Now()
	if err := c.box.Stripe.Advance(ctx, month); err != nil {
		return fmt.Errorf("renewing: %w", err)
	}
	if err := c.p.rest(ctx); err != nil {
		return err
	}
	took := time.Since(began)
	clerkAfter, stripeAfter := c.calls()
	after, err := count(ctx, c.p.environ["DATABASE_URL"], `SELECT count(*) FROM webhook_events`)
	if err != nil {
		return err
	}
	most, err := memories(pids, "VmHWM:")
	if err != nil {
		return err
	}
	renewed := c.people/5 + checkouts
	c.report.line("\nA wave of renewals: %d customers at once, %d events. All agreed after %.0f s, with %.2f calls of Stripe and %.2f of Clerk a customer: %.0f%% of what the busier of them takes in that time.",
		renewed, after-before, took.Seconds(), float64(stripeAfter-stripe)/float64(renewed), float64(clerkAfter-clerk)/float64(renewed),
		100*stretch{took: took, clerk: clerkAfter - clerk, stripe: stripeAfter - stripe}.share())
	select {
	case <-time.After(time.Minute): // what they keep is the question
	case <-ctx.Done():
		return ctx.Err()
	}
	kept, err := memories(pids, "VmRSS:")
	if err != nil {
		return err
	}
	c.report.table("memory", "before the wave", "at most", "a minute after it")
	for i, name := range []string{"starter-api", "worker"} {
		c.report.line("| %s | %.0f MiB | %.0f MiB | %.0f MiB |", name, atRest[i], most[i], kept[i])
	}
	return nil
}

func memories(pids []int, which string) (all []float64, err error) {
	for _, pid := range pids {
		m, err := memoryOf(pid, which)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

// together times first checkouts while a bulk sync and a wave of renewals are under way.
func (c *crowd) together(ctx context.Context, quiet []time.Duration) error {
	if err := c.settle(ctx, c.people/5); err != nil {
		return err
	}
	id, err := c.begin(ctx)
	if err != nil {
		return err
	}
	err = c.within(ctx, 10*time.Minute, "the bulk sync has come to whom it does not know", func() bool {
		run, err := c.console.Bulk(ctx, id)
		return err == nil && run.Done > 100
	})
	if err != nil {
		return err
	}
	if err := c.box.Stripe.Advance(ctx, month); err != nil {
		return fmt.Errorf("renewing: %w", err)
	}
	busy, err := c.buy(ctx)
	if err != nil {
		return err
	}
	due, err := c.outstanding(ctx)
	if err != nil {
		return err
	}
	run, err := c.console.Bulk(ctx, id)
	if err != nil {
		return fmt.Errorf("asking for a bulk sync: %w", err)
	}
	state := "was under way still"
	if run.FinishedAt != nil {
		state = "had ended"
	}
	c.report.line("\n%d first checkouts, one after the other, each from its first delivery until Clerk holds that it gives access; on a quiet system, and while a bulk sync of %d more users and another wave are under way. After the last of them %d events and users were due still, and the bulk sync %s.",
		checkouts, c.people/6, due, state)
	c.report.table("", "p50", "slowest")
	for i, all := range [][]time.Duration{quiet, busy} {
		c.report.line("| %s | %d ms | %d ms |", []string{"quiet", "beside both"}[i], all[len(all)/2].Milliseconds(), all[len(all)-1].Milliseconds())
	}
	c.report.line("\nThe median is %.2f times that of the quiet system.", float64(busy[len(busy)/2])/float64(quiet[len(quiet)/2]))
	return nil
}
