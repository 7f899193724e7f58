package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/nepfy/clerk-stripe-sync/activities"
)

// SignalPoke asks a workflow to look at its entity. It carries a [Poke], or nothing.
const SignalPoke = "poke"

// Poke says how urgent it is. One that carries nothing is not.
type Poke struct {
	// Urgent is set where somebody waits for what comes of it: what sleeps until its next attempt is
	// tried at once.
	Urgent bool `json:"urgent,omitempty"`
}

// QueryState answers what a run knows and waits for.
const QueryState = "state"

// The task queues. Each provider has its own, so that a server-side rate on the queue keeps
// all workers together below the provider's limit. Workflows and activities that need the
// database only share one.
const (
	QueueMain   = "clerk-stripe-sync"
	QueueStripe = "clerk-stripe-sync-stripe"
	QueueClerk  = "clerk-stripe-sync-clerk"
)

// SearchClerkUserID, SearchStripeCustomerID, SearchSubscriptionStatus and SearchLastFailure find a
// run in the Temporal Web UI by what an operator knows. They hold ids, statuses and classes of
// failures only: search attributes are never encrypted.
const (
	SearchClerkUserID        = "ClerkUserId"
	SearchStripeCustomerID   = "StripeCustomerId"
	SearchSubscriptionStatus = "SubscriptionStatus"
	SearchLastFailure        = "LastFailure"
)

func clerkUserIDKey() temporal.SearchAttributeKeyKeyword {
	return temporal.NewSearchAttributeKeyKeyword(SearchClerkUserID)
}

func subscriptionStatusKey() temporal.SearchAttributeKeyKeyword {
	return temporal.NewSearchAttributeKeyKeyword(SearchSubscriptionStatus)
}

func lastFailureKey() temporal.SearchAttributeKeyKeyword {
	return temporal.NewSearchAttributeKeyKeyword(SearchLastFailure)
}

// oneAttempt is how long one attempt at a provider may take.
const oneAttempt = time.Minute

// onStripe runs an activity on Stripe's queue. One attempt makes a handful of calls of at most
// ten seconds each and one short transaction.
func onStripe(ctx workflow.Context) workflow.Context {
	return activityOptions(ctx, QueueStripe, oneAttempt)
}

// onClerk runs an activity on Clerk's queue.
func onClerk(ctx workflow.Context) workflow.Context {
	return activityOptions(ctx, QueueClerk, oneAttempt)
}

// onDatabase runs an activity that needs the database only. Its statements time out by
// themselves after ten seconds each.
func onDatabase(ctx workflow.Context) workflow.Context {
	return activityOptions(ctx, QueueMain, 30*time.Second)
}

// sign is how long the server waits for a sign of life from an attempt, which every worker gives by
// itself. A task that got lost on its way to a worker that just stopped, and one whose worker died,
// are then given to another soon.
const sign = 15 * time.Second

// activityOptions gives an activity as many attempts as it takes: what can be gone in a minute
// (a provider's outage) or in a night (a revoked key) must not need anyone to start it again.
// Only a permanent failure ends it, and the activity has said so on the events by then. Without
// a bound on the whole, the pause between attempts is what protects the provider.
func activityOptions(ctx workflow.Context, queue string, attempt time.Duration) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:           queue,
		StartToCloseTimeout: attempt,
		HeartbeatTimeout:    sign,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval:    time.Second,
			BackoffCoefficient: 2,
			MaximumInterval:    30 * time.Second,
		},
	})
}

// routinely has an activity done after all that a person or somebody's access waits for, and given
// up after a while: what is done again and again by itself need not be seen through each time.
func routinely(ctx workflow.Context, patience time.Duration) workflow.Context {
	ctx = prioritized(ctx, activities.PriorityRoutine, workflow.GetInfo(ctx).WorkflowType.Name)
	return workflow.WithScheduleToCloseTimeout(ctx, patience)
}

// Activities are named through nil pointers: type-checked, and nothing is linked but names.
type activitySet struct {
	users         *activities.Users
	customers     *activities.Customers
	subscriptions *activities.Subscriptions
	commands      *activities.Commands
	projections   *activities.Projections
	catalogue     *activities.Catalogue
	disputes      *activities.Disputes
	recovery      *activities.Recovery
	reconciler    *activities.Reconciler
	bulk          *activities.Bulk
}

// pokes are the pokes that a run has not answered yet.
type pokes struct {
	channel workflow.ReceiveChannel
	// came is set from the first poke until a look answers it, and urgent from the first urgent one
	// until somebody has hurried.
	came, urgent bool
	// urgents counts the urgent ones, and answered is how many of them there were when a look last
	// began.
	urgents, answered int
}

func receivePokes(ctx workflow.Context) pokes {
	return pokes{channel: workflow.GetSignalChannel(ctx, SignalPoke)}
}

// receive takes what has come. A poke that carries what cannot be read is one all the same.
func (p *pokes) receive() {
	p.came = p.came || p.channel.Len() > 0
	for {
		var poke Poke
		if !p.channel.ReceiveAsync(&poke) {
			return
		}
		if poke.Urgent {
			p.urgent = true
			p.urgents++
		}
	}
}

// waiting tells whether there is a poke to answer.
func (p *pokes) waiting() bool {
	p.receive()
	return p.came
}

// hurry tells, once for each time, whether somebody waits for what a poke asks for.
func (p *pokes) hurry() bool {
	p.receive()
	urgent := p.urgent
	p.urgent = false
	return urgent
}

// urgentSoFar is how many urgent pokes have come.
func (p *pokes) urgentSoFar() int {
	p.receive()
	return p.urgents
}

// press tells whether somebody waits for what a poke asks for, for which no look has begun since.
func (p *pokes) press() bool { return p.urgentSoFar() > p.answered }

// drain forgets the pokes that have come: one look answers them all.
func (p *pokes) drain() {
	p.receive()
	p.came, p.urgent = false, false
	p.forget()
}

// forget has who waits by now wait for whatever comes.
func (p *pokes) forget() { p.answered = p.urgents }

// pastPause is how long an alarm waits that is set to a moment in the past. Such a moment comes
// from a clock that is behind: asked again at once, it would give the same moment again, as fast
// as the machine can.
const pastPause = time.Second

// alarm is one timer that can be moved. Moving it to where it is costs nothing.
type alarm struct {
	at     time.Time
	fired  bool
	cancel workflow.CancelFunc
}

// set moves the alarm; the zero time turns it off.
func (a *alarm) set(ctx workflow.Context, at time.Time) {
	if at.Equal(a.at) && !a.fired {
		return
	}
	if a.cancel != nil {
		a.cancel()
		a.cancel = nil
	}
	a.at, a.fired = at, false
	if at.IsZero() {
		return
	}
	pause := at.Sub(workflow.Now(ctx))
	if pause <= 0 {
		pause = pastPause
	}
	timerCtx, cancel := workflow.WithCancel(ctx)
	a.cancel = cancel
	timer := workflow.NewTimer(timerCtx, pause)
	workflow.Go(ctx, func(ctx workflow.Context) {
		// A timer that was cancelled because the alarm was moved says nothing about the new one.
		if timer.Get(ctx, nil) == nil && a.at.Equal(at) {
			a.fired = true
		}
	})
}
