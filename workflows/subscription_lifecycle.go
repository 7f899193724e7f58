package workflows

import (
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// SubscriptionLifecycleInput names the customer and carries what a run hands to the next.
type SubscriptionLifecycleInput struct {
	CustomerID string `json:"customerId"`
	// Carried is set by continue-as-new and by nobody else.
	Carried *CarriedLifecycle `json:"carried,omitempty"`
	// ContinueAfter makes a run continue as new after so many syncs; zero leaves it to the
	// server. For tests.
	ContinueAfter int `json:"continueAfter,omitempty"`
}

// CarriedLifecycle is what a run knows that the next must not forget. Events are not in it:
// those stand in the database.
type CarriedLifecycle struct {
	ClerkUserID string         `json:"clerkUserId,omitempty"`
	Status      account.Status `json:"status,omitempty"`
	Live        bool           `json:"live,omitempty"`
	WakeAt      time.Time      `json:"wakeAt,omitzero"`
	Overdue     int            `json:"overdue,omitempty"`
	Reread      int            `json:"reread,omitempty"`
	// InPart counts the looks in a row that showed a part of the customer only.
	InPart      int    `json:"inPart,omitempty"`
	Due         bool   `json:"due,omitempty"`
	LastFailure string `json:"lastFailure,omitempty"`
	// ShownFailure is the failure by which the run is found.
	ShownFailure string         `json:"shownFailure,omitempty"`
	Publish      PublishPending `json:"publish,omitzero"`
	// Commands are operations that have not ended, and GaveWay are those of them that were begun and
	// gave way.
	Commands []string `json:"commands,omitempty"`
	GaveWay  []string `json:"gaveWay,omitempty"`
}

// LifecycleState is what the state query answers.
type LifecycleState struct {
	CustomerID  string             `json:"customerId"`
	ClerkUserID string             `json:"clerkUserId,omitempty"`
	Outcome     activities.Outcome `json:"outcome,omitempty"`
	Status      account.Status     `json:"status,omitempty"`
	Live        bool               `json:"live"`
	WakeAt      time.Time          `json:"wakeAt,omitzero"`
	Syncing     bool               `json:"syncing"`
	Publishing  bool               `json:"publishing"`
	Syncs       int                `json:"syncs"`
	Commands    []string           `json:"commands,omitempty"`
	LastFailure string             `json:"lastFailure,omitempty"`
}

// SubscriptionLifecycle keeps a Stripe customer's subscriptions in step for as long as one of
// them can still change. It looks when it is poked, and by itself a little after each boundary
// that it knows, so that a webhook that never comes heals without anyone. It does what people ask
// for ([UpdateCommand]), one thing at a time.
func SubscriptionLifecycle(ctx workflow.Context, in SubscriptionLifecycleInput) error {
	l, err := newLifecycle(ctx, in)
	if err != nil {
		return err
	}
	for {
		switch {
		case ctx.Err() != nil:
			return ctx.Err() // a cancelled run says so, whatever it was doing
		case l.settled(ctx):
			return nil
		case l.full(ctx):
			// Before what is due: a customer who is poked all the time must not keep a run that
			// is full from ending.
			if err := l.rest(ctx); err != nil {
				return err
			}
			return l.continueAsNew(ctx)
		case l.due || l.pokes.waiting() || l.alarm.fired:
			l.sync(ctx)
		default:
			// Until something happens: a poke, a boundary, a publish that ends.
			if err := workflow.Await(ctx, func() bool {
				return l.due || l.pokes.waiting() || l.alarm.fired || l.settled(ctx) || l.full(ctx)
			}); err != nil {
				return err
			}
		}
	}
}

// CustomerWorkflowID is the id of a customer's workflow.
func CustomerWorkflowID(customerID string) string { return string(account.CustomerEntity(customerID)) }

type lifecycle struct {
	in        SubscriptionLifecycleInput
	state     LifecycleState
	pokes     pokes
	alarm     alarm
	publisher publisher
	set       activitySet
	// underWay is what acts on the customer, whose turn it is. The others are how each of what a look
	// does was begun anew.
	underWay               sleeper
	looks, stops, removals repeats
	// gaveWay is set where a look was given up so that others could act on the customer.
	gaveWay bool
	// turns lets one at a time act on the customer.
	turns turns
	// commands are the operations under way, in the order in which they came.
	commands []*command
	// spawn starts a coroutine that lives as long as the run, whoever asks for it.
	spawn func(func(workflow.Context))
	// due is set when a look is owed although nobody poked: at the start, and where the run
	// before this one owed it.
	due     bool
	overdue int
	// reread counts the looks in a row that did not show yet what an event told, and rereadAt is when
	// the next is due.
	reread   int
	rereadAt time.Time
	// inPart counts the looks in a row that showed a part of the customer only, and backAt is when to
	// come back to the rest.
	inPart int
	backAt time.Time
	// shown is the failure by which the run is found.
	shown string
}

func newLifecycle(ctx workflow.Context, in SubscriptionLifecycleInput) (*lifecycle, error) {
	l := &lifecycle{in: in, pokes: receivePokes(ctx), due: true, state: LifecycleState{CustomerID: in.CustomerID}}
	l.underWay.hurry, l.underWay.wanted, l.underWay.forget = l.pokes.hurry, l.wanted, l.forget
	l.spawn = func(do func(workflow.Context)) { workflow.Go(ctx, do) }
	if err := workflow.SetQueryHandler(ctx, QueryState, func() (LifecycleState, error) {
		l.state.Publishing, l.state.Commands = l.publisher.running, l.outstanding()
		return l.state, nil
	}); err != nil {
		return nil, fmt.Errorf("setting the state query: %w", err)
	}
	if err := workflow.SetUpdateHandlerWithOptions(ctx, UpdateCommand, l.onCommand, workflow.UpdateHandlerOptions{
		Validator: validateCommand, Description: "does what an operation asks for",
	}); err != nil {
		return nil, fmt.Errorf("setting the command update: %w", err)
	}
	if c := in.Carried; c != nil {
		l.state.ClerkUserID, l.state.Status, l.state.Live = c.ClerkUserID, c.Status, c.Live
		l.due, l.overdue, l.reread, l.inPart = c.Due, c.Overdue, c.Reread, c.InPart
		l.wake(ctx, c.WakeAt)
		if c.InPart > 0 {
			l.backAt = c.WakeAt
		}
		if c.Reread > 0 {
			l.rereadAt = c.WakeAt
		}
		l.state.LastFailure, l.shown = c.LastFailure, c.ShownFailure
		if c.Publish.Due {
			l.publisher.ask(ctx, c.ClerkUserID, c.Publish.Forced)
		}
		for _, id := range c.Commands {
			l.command(id).gaveWay = slices.Contains(c.GaveWay, id)
		}
		l.describe(ctx)
	}
	return l, nil
}

// sync looks at the customer once and does what follows from it.
func (l *lifecycle) sync(ctx workflow.Context) {
	var p *place
	if l.pokes.press() && !l.gaveWay {
		p = l.turns.first() // somebody waits for it
	} else {
		p = l.turns.last(l.gaveWay)
	}
	// What is owed has its turn though commands cannot be done. What a poke asks for that nobody waits
	// for presses after a while.
	if l.turns.take(ctx, p, l.due, func() bool { return l.gaveWay && l.laterWaits(nil) }) != nil {
		return // cancelled
	}
	defer l.turns.end()
	l.gaveWay = false
	in := activities.RecordInput{CustomerID: l.in.CustomerID, Reread: l.reread, Overdue: l.overdue, InPart: l.inPart > 0}
	if l.reread > 0 && l.rereadAt.After(workflow.Now(ctx)) {
		in.Reread-- // the last of them is still to come
	}
	rest := l.inPart > 0 && !l.backAt.After(workflow.Now(ctx)) // what could not be read is come back to
	in.ForBoundary = l.alarm.fired && l.reread == 0 && !rest && !l.due && !l.pokes.waiting()
	l.pokes.drain()
	l.due = false
	l.state.Syncing = true
	defer func() { l.state.Syncing = false }()
	l.state.Syncs++
	var result activities.RecordResult
	looking := l.prioritized(onStripe(ctx))
	roused, err := l.underWay.execute(looking, &l.looks, &result, l.set.subscriptions.RecordSubscriptions, in)
	if roused {
		l.due, l.gaveWay = true, true // behind who waits for it
		return
	}
	if err != nil {
		l.fail(ctx, err)
		l.showFailure(ctx)
		return
	}
	if result.StopDue {
		// The owner is being deleted. The policy is applied in every sync, so that a checkout
		// that completes late is covered too. Its result is another value: what it leaves out
		// must not be filled with what was read before it.
		var stopped activities.RecordResult
		roused, err = l.underWay.execute(looking, &l.stops, &stopped, l.set.subscriptions.StopBilling, in)
		if roused {
			l.due, l.gaveWay = true, true
			return
		}
		if err == nil {
			result = stopped
		}
	}
	l.comeBack(ctx, result)
	l.adopt(ctx, result)
	if result.PublishDue {
		if result.Awaited {
			looking = awaited(looking)
		}
		l.publisher.ask(looking, result.ClerkUserID, false)
	}
	if err == nil && result.UndoFor != "" {
		undo := activities.UndoInput{ClerkUserID: result.UndoFor, CustomerID: l.in.CustomerID}
		if roused, err = l.underWay.execute(looking, &l.removals, nil, l.set.customers.UndoStripeCustomer, undo); roused {
			l.due, l.gaveWay = true, true
			return
		}
	}
	if err != nil {
		l.fail(ctx, err)
	}
	l.showFailure(ctx)
}

// prioritized has a look at a customer who has no access yet, as far as this run knows, done before
// looks at those who have: a first checkout must not wait for a month's renewals.
func (l *lifecycle) prioritized(ctx workflow.Context) workflow.Context {
	if l.state.Live {
		return prioritized(ctx, activities.PriorityKnown, "known")
	}
	return prioritized(ctx, activities.PriorityNew, "new")
}

// retryFailed is when a look that failed for good, or a billing that runs on after it was
// stopped, is looked at again by itself. The events that a look was for say that it failed and
// are poked by the sweep; a billing has nobody else.
const retryFailed = time.Hour

func (l *lifecycle) fail(ctx workflow.Context, err error) {
	if ctx.Err() != nil {
		return // cancelled, which is no failure
	}
	l.state.LastFailure = failureType(err)
	l.reread, l.inPart, l.backAt = 0, 0, time.Time{}
	workflow.GetLogger(ctx).Error("sync failed for good", "customer", l.in.CustomerID, "error", err)
	if l.state.Live {
		l.wake(ctx, workflow.Now(ctx).Add(retryFailed))
	} else {
		l.wake(ctx, time.Time{})
	}
	l.describe(ctx)
}

// What could not be read of a customer is come back to after firstBack, and after twice as long
// each time, up to lastBack. Its events and whoever pokes have it tried before.
const (
	firstBack = 30 * time.Second
	lastBack  = 15 * time.Minute
)

// comeBack says when to look again where a look has shown a part of the customer only.
func (l *lifecycle) comeBack(ctx workflow.Context, result activities.RecordResult) {
	if result.InPart == "" {
		l.inPart, l.backAt = 0, time.Time{}
		return
	}
	if l.inPart > 0 && l.comes(ctx, l.backAt) {
		return
	}
	l.backAt = workflow.Now(ctx).Add(min(firstBack<<min(l.inPart, 8), lastBack))
	l.inPart++
}

func (l *lifecycle) adopt(ctx workflow.Context, result activities.RecordResult) {
	l.upsertSearch(ctx, result)
	l.state.ClerkUserID, l.state.Status, l.state.Live = result.ClerkUserID, result.Status, result.Live
	l.state.Outcome, l.overdue = result.Outcome, result.Overdue
	at := result.WakeAt
	switch {
	case l.inPart == 0:
		l.state.LastFailure = ""
	case result.InPart != "":
		l.state.LastFailure = result.InPart
		fallthrough
	default:
		at = earlier(at, l.backAt)
	}
	if l.rereads(ctx, result) {
		at = earlier(at, l.rereadAt)
	}
	if result.StopDue {
		// What was stopped does not show it, or could not be stopped.
		at = earlier(at, workflow.Now(ctx).Add(retryFailed))
	}
	l.wake(ctx, at)
	l.describe(ctx)
	for _, id := range result.Commands {
		l.command(id) // as a rule it is under way
	}
}

// changeComeBack is the change that keeps a look that shows a part only from being made again soon
// for that, and from taking the place of one that is due for what an event told. A run that made
// such looks before goes on without, until it continues as new.
const changeComeBack = "come-back"

// changeApart is the change by which a look that was made for another reason leaves the one that is
// to come as it is. A run that made such looks before goes on without, until it continues as new.
const changeApart = "looks-apart"

// comes tells whether a look that was set for a moment is still to come. However many others a
// burst of pokes has made meanwhile, it is made when it was to be, and only it counts.
func (l *lifecycle) comes(ctx workflow.Context, at time.Time) bool {
	return at.After(workflow.Now(ctx)) && workflow.GetVersion(ctx, changeApart, workflow.DefaultVersion, 1) != workflow.DefaultVersion
}

// rereads tells whether to look again for what an event told, and notes when. What could not be
// read is no reason: comeBack sees to it.
func (l *lifecycle) rereads(ctx workflow.Context, result activities.RecordResult) bool {
	due := l.reread > 0 && l.rereadAt.After(workflow.Now(ctx))
	if result.InPart != "" && (due || result.RereadAfter > 0) &&
		workflow.GetVersion(ctx, changeComeBack, workflow.DefaultVersion, 1) != workflow.DefaultVersion {
		if !due {
			l.reread = 0
		}
		return due
	}
	if result.RereadAfter == 0 {
		l.reread = 0
		return false
	}
	if due && l.comes(ctx, l.rereadAt) {
		return true
	}
	l.reread++
	l.rereadAt = workflow.Now(ctx).Add(result.RereadAfter)
	return true
}

// earlier is the earlier of two times, of which the first may be zero for never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

func (l *lifecycle) wake(ctx workflow.Context, at time.Time) {
	l.alarm.set(ctx, at)
	l.state.WakeAt = at
}

func (l *lifecycle) upsertSearch(ctx workflow.Context, result activities.RecordResult) {
	var updates []temporal.SearchAttributeUpdate
	if result.ClerkUserID != l.state.ClerkUserID && result.ClerkUserID != "" {
		updates = append(updates, clerkUserIDKey().ValueSet(result.ClerkUserID))
	}
	if result.Status != l.state.Status && result.Status != "" {
		updates = append(updates, subscriptionStatusKey().ValueSet(string(result.Status)))
	}
	if len(updates) == 0 {
		return
	}
	if err := workflow.UpsertTypedSearchAttributes(ctx, updates...); err != nil {
		workflow.GetLogger(ctx).Warn("search attributes were not updated", "error", err)
	}
}

// changeShowFailure is the change that made runs be found by their last failure. A run that had
// failed before goes on without, until it continues as new.
const changeShowFailure = "show-failure"

// showFailure has the run found by how its last look failed, and not found any more when one went
// well. A failure at a boundary has no event that would tell of it.
func (l *lifecycle) showFailure(ctx workflow.Context) {
	failure := l.state.LastFailure
	if failure == l.shown || workflow.GetVersion(ctx, changeShowFailure, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return // asked for its version only when it matters, so that runs that go well hold no marker
	}
	l.shown = failure
	update := lastFailureKey().ValueUnset()
	if failure != "" {
		update = lastFailureKey().ValueSet(failure)
	}
	if err := workflow.UpsertTypedSearchAttributes(ctx, update); err != nil {
		workflow.GetLogger(ctx).Warn("search attributes were not updated", "error", err)
	}
}

// settled tells whether nothing can change any more and nothing is owed.
func (l *lifecycle) settled(ctx workflow.Context) bool {
	return !l.due && !l.pokes.waiting() && !l.state.Live && l.reread == 0 && l.inPart == 0 && !l.alarm.fired && !l.publisher.running &&
		len(l.commands) == 0 && workflow.AllHandlersFinished(ctx)
}

// rest waits until no step of a command is under way and everybody who waits for one has been
// answered: updates do not outlive their run. What a command is still waiting for is carried.
func (l *lifecycle) rest(ctx workflow.Context) error {
	answered := func() bool { return workflow.AllHandlersFinished(ctx) }
	for {
		if err := workflow.Await(ctx, answered); err != nil {
			return err
		}
		if err := l.turns.take(ctx, l.turns.last(false), false, func() bool { return false }); err != nil || answered() {
			return err
		}
		l.turns.end() // somebody has come, whose turn is first
	}
}

// outstanding are the ids of the operations that have not ended.
func (l *lifecycle) outstanding() []string {
	ids := make([]string, len(l.commands))
	for i, c := range l.commands {
		ids[i] = c.id
	}
	return ids
}

// gaveWayBefore are the ids of those that were begun and gave way.
func (l *lifecycle) gaveWayBefore() (ids []string) {
	for _, c := range l.commands {
		if c.gaveWay {
			ids = append(ids, c.id)
		}
	}
	return ids
}

func (l *lifecycle) full(ctx workflow.Context) bool {
	if l.state.Syncs == 0 {
		return false // a run that has done nothing yet has nothing to hand on
	}
	return workflow.GetInfo(ctx).GetContinueAsNewSuggested() || l.in.ContinueAfter > 0 && l.state.Syncs >= l.in.ContinueAfter
}

// continueAsNew starts the next run, which begins with a look if one is owed. A poke that
// arrives in this very moment makes the server refuse, and the run comes by here again with it.
func (l *lifecycle) continueAsNew(ctx workflow.Context) error {
	owed := l.due || l.pokes.waiting() || l.alarm.fired
	l.pokes.drain()
	next := l.in
	next.Carried = &CarriedLifecycle{
		ClerkUserID: l.state.ClerkUserID, Status: l.state.Status, Live: l.state.Live, WakeAt: l.alarm.at,
		Overdue: l.overdue, Reread: l.reread, InPart: l.inPart, Due: owed, LastFailure: l.state.LastFailure, ShownFailure: l.shown,
		Publish: l.publisher.pending(), Commands: l.outstanding(), GaveWay: l.gaveWayBefore(),
	}
	return workflow.NewContinueAsNewError(ctx, SubscriptionLifecycle, next)
}

func (l *lifecycle) describe(ctx workflow.Context) {
	text := fmt.Sprintf("Customer `%s`", l.in.CustomerID)
	if l.state.ClerkUserID != "" {
		text += fmt.Sprintf(" of user `%s`", l.state.ClerkUserID)
	}
	switch {
	case l.state.LastFailure != "":
		text += fmt.Sprintf(": the last look failed (%s). Its events say so, and are tried again by themselves.", l.state.LastFailure)
	case l.state.Outcome == activities.OutcomeWaiting:
		text += ": nobody owns it yet. It is linked when its user appears."
	case l.state.Outcome == activities.OutcomeMissing:
		text += ": Stripe does not know it. Nothing was changed."
	case l.state.Status != "":
		text += fmt.Sprintf(": `%s`.", l.state.Status)
	default:
		text += ": no subscription."
	}
	if !l.state.WakeAt.IsZero() {
		text += fmt.Sprintf(" Looks again by itself at %s.", l.state.WakeAt.UTC().Format(time.RFC3339))
	}
	workflow.SetCurrentDetails(ctx, text)
}
