//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
)

const (
	// many is of how many customers one change each is delivered as fast as it is taken.
	many = 1000
	// senders is how many deliveries, or bare workflows, are under way at a time. All signalled at
	// once, bare workflows would wait in their queue for longer than a task may, and what follows the
	// last activity would be left to be done when the last one ends.
	senders = 32
	// few customers get burst events, all at once.
	few   = 50
	burst = 2000
)

// saturation measures how many customers a second can be brought to agreement, beside a bare
// workflow of the same shape with empty activities, and what a burst over few of them costs.
func (b *bench) saturation(ctx context.Context) error {
	// The providers' limits would bound it long before the machine does.
	p, err := b.startPrograms(ctx, "saturation", map[string]string{"STRIPE_RATE": "100000", "CLERK_RATE": "100000"})
	if err != nil {
		return err
	}
	defer p.stop()
	all, err := b.payers(ctx, many)
	if err != nil {
		return err
	}
	bare, err := b.bareWorkflows(ctx, many, 0)
	if err != nil {
		return err
	}
	defer bare.stop()
	if err := p.rest(ctx); err != nil {
		return err
	}
	var ours, theirs []float64
	for run := range b.runs {
		took, err := bare.all(ctx, many)
		if err != nil {
			return err
		}
		theirs = append(theirs, many/took.Seconds())
		held, err := b.changes(ctx, all, run%2 == 0)
		if err != nil {
			return err
		}
		if took, err = b.drain(ctx, p, held); err != nil {
			return err
		}
		ours = append(ours, many/took.Seconds())
		if err := p.rest(ctx); err != nil {
			return err
		}
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	rate := ours[len(ours)/2]
	b.report.line("\n### As much as the machine can do\n")
	b.report.line("One change of each of %d customers, delivered %d at a time, until the last of them is recorded and Clerk has it. Beside it, in turn with it, the bare workflow with activities that do nothing, as many under way at a time, each until it waits for its next signal. The providers are the sandbox, on the same machine, without limits.", many, senders)
	b.report.table("", "customers a second")
	b.report.line("| a bare workflow | %.0f |", theirs[len(theirs)/2])
	b.report.line("| ours | %.0f |", rate)
	b.report.line("\nThat is %.2f of the bare workflow's rate.", rate/theirs[len(theirs)/2])
	return b.burst(ctx, p, all[:few], rate)
}

// drain delivers messages and answers how long it took until nothing is due any more.
func (b *bench) drain(ctx context.Context, p *programs, messages []delivery.Message) (time.Duration, error) {
	began := time.Now()
	group, sending := errgroup.WithContext(ctx)
	group.SetLimit(senders)
	for _, m := range messages {
		group.Go(func() error { return deliverOne(sending, b.stack.sandbox.StripeWebhooks, m) })
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	err := whenNothingIs(ctx, p.environ["DATABASE_URL"], dueOfStripe, 50*time.Millisecond, func() bool { return true })
	return time.Since(began), err
}

// rest waits until nothing is due any more and the providers have nothing to tell.
func (p *programs) rest(ctx context.Context) error {
	return whenNothingIs(ctx, p.environ["DATABASE_URL"], dueOfAll, 100*time.Millisecond, func() bool { return p.b.stack.sandbox.Idle(ctx) == nil })
}

// dueOfAll counts what has not ended of what was delivered, and the users for whom Clerk is behind.
const dueOfAll = `SELECT (SELECT count(*) FROM webhook_events WHERE status IN ('pending', 'failing', 'waiting'))
	+ (SELECT count(*) FROM person_user WHERE projection_version <> published_version)`

// dueOfStripe counts what has not ended of what Stripe told, and the users for whom Clerk is
// behind.
const dueOfStripe = `SELECT (SELECT count(*) FROM webhook_events WHERE status IN ('pending', 'failing', 'waiting') AND source = 'stripe')
	+ (SELECT count(*) FROM person_user WHERE projection_version <> published_version)`

// whenNothingIs returns when what a statement counts is nothing and also holds. It asks over one
// connection: to open one for each question costs the machine more than all that a change does.
func whenNothingIs(ctx context.Context, dsn, sql string, every time.Duration, also func() bool) error {
	db, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	defer func() { _ = db.Close(ctx) }() // it has answered
	for {
		var n int
		if err := db.QueryRow(ctx, sql).Scan(&n); err != nil {
			return fmt.Errorf("counting: %w", err)
		}
		if n == 0 && also() {
			return nil
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// burst delivers many events about few customers.
func (b *bench) burst(ctx context.Context, p *programs, of []payer, rate float64) error {
	var messages []delivery.Message
	ends := false
	for len(messages) < burst {
		ends = !ends
		held, err := b.changes(ctx, of, ends)
		if err != nil {
			return err
		}
		messages = append(messages, held...)
	}
	before := b.reads()
	took, err := b.drain(ctx, p, messages)
	if err != nil {
		return err
	}
	reads := b.reads() - before
	for _, each := range of {
		if err := b.until(ctx, "Clerk holds it", func() bool { return (b.told(each.user, "cancelAtPeriodEnd") == true) == ends }); err != nil {
			return err
		}
	}
	b.report.line("\n%d events about %d customers at once: %.1f looks at Stripe a customer, all right after %.1f s, which is %.2f times what %d changes take at that rate.",
		len(messages), len(of), float64(reads)/float64(len(of)), took.Seconds(), took.Seconds()*rate/200, 200)
	return nil
}

// reads is how often Stripe was asked for a customer's subscriptions.
func (b *bench) reads() int { return b.stack.sandbox.StripeFaults.Requests()["GET /v1/subscriptions"] }
