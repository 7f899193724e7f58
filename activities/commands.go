package activities

import (
	"context"
	"slices"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// Commands does to subscriptions what people ask for. Its activities run on Stripe's task queue,
// and only while the customer's workflow lets nobody else act: not a sync, not the deletion policy.
//
// What is known of an operation stands in its row, so that any attempt, in any run, goes on where
// the last one got to:
//
//	accepted    nothing was done: look, decide, and note how the subscription ends before asking
//	acting      Stripe was asked, and whether it did it is not known: look; if it does not show, ask
//	            again under the same key, which does it once
//	recorded    Stripe has confirmed it and our rows show it: only Clerk is left
//
// Nothing is taken back before Stripe has confirmed, since there may be nothing to take back.
type Commands struct {
	Subscriptions *Subscriptions
	// Compensated is told what came of each undo; it may be nil.
	Compensated func(step, outcome string)
}

// CommandInput names an operation and its customer.
type CommandInput struct {
	OperationID string `json:"operationId"`
	CustomerID  string `json:"customerId"`
	// Overdue is [RecordInput.Overdue].
	Overdue int `json:"overdue,omitempty"`
}

// CommandResult says how far the operation is, and, where the customer was read, what a sync says.
type CommandResult struct {
	Status store.OperationStatus `json:"status"`
	// Recorded is set while Stripe and our rows have it and only Clerk is left.
	Recorded bool `json:"recorded,omitempty"`
	// Looked is set where the customer was read and Record holds what came of it.
	Looked bool         `json:"looked,omitempty"`
	Record RecordResult `json:"record,omitzero"`
	// ClerkUserID is whose projection Clerk has to be brought to.
	ClerkUserID string `json:"clerkUserId,omitempty"`
	// Reversible is set where a recorded step can be taken back.
	Reversible bool `json:"reversible,omitempty"`
}

// keyLife is how old a request to Stripe may be to be repeated under its key, which Stripe keeps for
// about a day. After that nobody can tell any more whether it was done.
const keyLife = 20 * time.Hour

// looks bounds how often one attempt reads the customer: a newer read of somebody else's can make
// the first one worthless, and so on.
const looks = 4

// ApplyCommand does what an operation asks for at Stripe and records it, or says why not.
//
// Idempotent: the operation's row says how far it is. Stripe is asked under a key that is the same in
// each attempt, and a subscription that is as the command wants it is left alone.
func (a *Commands) ApplyCommand(ctx context.Context, in CommandInput) (result CommandResult, err error) {
	defer func() { showFailing(ctx, a.Subscriptions.Store, account.CustomerEntity(in.CustomerID), err) }()
	op, err := a.operation(ctx, in)
	if err != nil || op.Status.Settled() || op.Status == store.OperationRecorded {
		return resultOf(op), err
	}
	// What the step before this one left is not known to the first look.
	step := &step{op: op, unsure: op.Status == store.OperationActing}
	for range looks {
		if err := a.look(ctx, in, step); err != nil {
			standing, _ := find(step.seen.subscriptions, op.SubscriptionID)
			err = a.unrecorded(ctx, step, standing, err)
			return step.result(), err
		}
		if step.again {
			continue
		}
		if !step.act {
			return step.result(), nil
		}
		changed, err := a.change(ctx, step)
		if err != nil {
			return CommandResult{}, err
		}
		if changed == nil {
			continue // refused, or nobody knows what it is like by now: look
		}
		if err := a.record(ctx, in, step, *changed); err != nil {
			err = a.unrecorded(ctx, step, *changed, err)
			return step.result(), err
		}
		if !step.again {
			return step.result(), nil
		}
	}
	return CommandResult{}, failure.New(failure.Transient, "postgres", "apply a command", "read_overtaken", nil)
}

// step is one attempt at an operation.
type step struct {
	op   *store.Operation
	user string
	// standing is the subscription as the last look showed it, seen all of the customer, under number.
	standing account.Subscription
	seen     shown
	number   int64
	decision account.Decision
	look     RecordResult
	looked   bool
	// act is set where Stripe has to be asked; again where the customer has to be read again.
	act, again bool
	// unsure is set while an earlier attempt may have asked already; confirmed once Stripe has
	// confirmed to this one; refusedAs names why it refused.
	unsure, confirmed bool
	refusedAs         string
}

func (s *step) result() CommandResult {
	r := resultOf(s.op)
	r.Looked, r.Record, r.ClerkUserID = s.looked, s.look, s.user
	// The workflow knows of the one that it asks about.
	r.Record.Commands = slices.DeleteFunc(r.Record.Commands, func(id string) bool { return id == s.op.ID })
	return r
}

func resultOf(op *store.Operation) CommandResult {
	if op == nil {
		return CommandResult{}
	}
	return CommandResult{Status: op.Status, Recorded: op.Status == store.OperationRecorded, ClerkUserID: op.ClerkUserID, Reversible: op.Reversible}
}

func (a *Commands) operation(ctx context.Context, in CommandInput) (*store.Operation, error) {
	op, err := a.Subscriptions.Store.Operation(ctx, in.OperationID)
	if err == nil && op == nil {
		err = failure.New(failure.Permanent, "postgres", "read an operation", "no_such_operation", nil)
	}
	return op, err
}

// look reads the customer, records what that shows as every sync does, and decides, all in one
// transaction: what is decided is what was recorded.
func (a *Commands) look(ctx context.Context, in CommandInput, s *step) error {
	subs := a.Subscriptions
	var err error
	if s.number, err = subs.Store.NextRead(ctx); err != nil {
		return err
	}
	if s.seen, err = subs.read(ctx, in.CustomerID); err != nil {
		return err
	}
	s.look, _, err = subs.commit(ctx, RecordInput{CustomerID: in.CustomerID, Overdue: in.Overdue}, s.number, s.seen, cause(ctx),
		func(ctx context.Context, c committed) error { return a.decide(ctx, c, s) })
	s.looked = err == nil
	return err
}

// decide is the last step of a look's transaction.
func (a *Commands) decide(ctx context.Context, c committed, s *step) error {
	s.act, s.again = false, false
	op, err := c.tx.LockOperation(ctx, s.op.ID)
	if err != nil || op == nil {
		return err
	}
	s.op = op
	if op.Status.Settled() || op.Status == store.OperationRecorded {
		return nil // another attempt got there
	}
	if !c.fresh {
		s.again = true
		return nil
	}
	c.tx.Because(op)
	standing, known := find(s.seen.subscriptions, op.SubscriptionID)
	if c.user == nil || !known {
		return a.settle(ctx, c, s, nil, store.OperationFailed, "not_in_stripe")
	}
	s.user, s.standing = c.user.ClerkUserID, standing
	s.decision = account.Decide(op.Action.Command(), standing, c.user.Deleting())
	if op.Status == store.OperationAccepted {
		return a.begin(ctx, c, s)
	}
	return a.goOn(ctx, c, s)
}

// begin decides about an operation for which nothing was done yet.
func (a *Commands) begin(ctx context.Context, c committed, s *step) error {
	switch {
	case !c.now.Before(s.op.ExpiresAt):
		return a.settle(ctx, c, s, &s.standing, store.OperationExpired, "not begun in time")
	case s.decision.Refused != "":
		return a.settle(ctx, c, s, &s.standing, store.OperationRefused, string(s.decision.Refused))
	case s.decision.Satisfied:
		return recorded(ctx, c, s.op, s.standing, s.standing)
	}
	s.act = true
	return c.tx.ActOn(ctx, s.op, s.standing, s.decision)
}

// goOn decides about an operation for which Stripe was asked before this look.
func (a *Commands) goOn(ctx context.Context, c committed, s *step) error {
	before, err := s.op.Before()
	if err != nil {
		return err
	}
	// What was asked for was asked for while it stood like that.
	was := s.standing
	was.Status, was.CancelAtPeriodEnd, was.CancelAt = s.op.StatusBefore, before.AtPeriodEnd, before.At
	switch {
	case s.decision.Satisfied:
		return recorded(ctx, c, s.op, was, s.standing)
	case s.refusedAs != "":
		return a.settle(ctx, c, s, &s.standing, store.OperationFailed, s.refusedAs)
	case s.decision.Refused != "":
		// It was allowed when Stripe was asked. Whatever came of that, it is as somebody else wants it.
		return a.settle(ctx, c, s, &s.standing, store.OperationSuperseded, string(s.decision.Refused))
	case s.confirmed && s.standing.Ending().Same(before) && attempt(ctx) < notShown:
		// Stripe does not promise that a read shows at once what it has confirmed.
		late := failure.New(failure.Transient, "stripe", "read what was confirmed", "not_shown_yet", nil)
		late.RetryAfter = a.Subscriptions.Policy.RereadDelay
		return late
	case s.confirmed:
		return a.settle(ctx, c, s, &s.standing, store.OperationSuperseded, changedSince)
	case s.op.ActingSince != nil && c.now.Sub(*s.op.ActingSince) > keyLife:
		return a.settle(ctx, c, s, &s.standing, store.OperationSuperseded, "too_late_to_repeat")
	}
	s.act = true
	return nil
}

// notShown is the attempt from which a change that Stripe confirmed and does not show counts as taken
// back by somebody.
const notShown = 4

// change asks Stripe. It answers the subscription as Stripe confirmed it, or nil where the customer
// has to be read to know how it stands. An outcome that is not known is an error: the next attempt
// asks again under the same key.
func (a *Commands) change(ctx context.Context, s *step) (*account.Subscription, error) {
	stripe := a.Subscriptions.Stripe
	if id := s.decision.ReleaseSchedule; id != "" {
		err := stripe.ReleaseSchedule(ctx, id, s.key("release"))
		if err := a.outcome(s, err); err != nil || s.refusedAs != "" {
			return nil, err
		}
	}
	var changed account.Subscription
	var err error
	switch s.op.Action {
	case store.ActionCancelNow:
		changed, err = stripe.CancelNow(ctx, s.op.SubscriptionID, s.key("cancel"))
	case store.ActionReactivate:
		changed, err = stripe.SetEnding(ctx, s.op.SubscriptionID, s.standing.Ending(), account.Ending{}, s.key("reactivate"))
	default:
		changed, err = stripe.SetEnding(ctx, s.op.SubscriptionID, s.standing.Ending(), account.Ending{AtPeriodEnd: true}, s.key("cancel"))
	}
	if err := a.outcome(s, err); err != nil || s.refusedAs != "" {
		return nil, err
	}
	s.confirmed = true
	if s.unsure {
		// The answer may be one that Stripe stored when it was asked before.
		return nil, nil
	}
	return &changed, nil
}

// outcome judges an answer of Stripe's to a change. A refusal is noted, to be believed if the next
// look confirms it.
func (a *Commands) outcome(s *step, err error) error {
	switch {
	case err == nil:
		return nil
	case failure.Of(err) == failure.Permanent:
		s.refusedAs = failure.CodeOf(err)
		return nil
	default:
		return err
	}
}

// key is the idempotency key of a step: the same in each attempt, another for each operation.
func (s *step) key(name string) string { return s.op.ID + ":" + name }

// record stores what Stripe has confirmed, in the place of what the look before showed, unless a
// newer read has been committed since: then the customer has to be read again.
func (a *Commands) record(ctx context.Context, in CommandInput, s *step, changed account.Subscription) error {
	before := s.standing
	put(s.seen.subscriptions, changed)
	var err error
	s.look, _, err = a.Subscriptions.commit(ctx, RecordInput{CustomerID: in.CustomerID, Overdue: in.Overdue}, s.number, s.seen, because(ctx, s.op),
		func(ctx context.Context, c committed) error {
			op, err := c.tx.LockOperation(ctx, s.op.ID)
			if err != nil || op == nil {
				return err
			}
			s.op = op
			if s.again = !c.fresh; s.again || op.Status != store.OperationActing || c.user == nil {
				return nil
			}
			if !account.Decide(op.Action.Command(), changed, false).Satisfied {
				// Somebody changed it between the look and the step, in a way that the step leaves alone.
				return a.settle(ctx, c, s, &changed, store.OperationSuperseded, changedSince)
			}
			return recorded(ctx, c, op, before, changed)
		})
	return err
}

// recorded notes that the command has reached Stripe and our rows.
func recorded(ctx context.Context, c committed, op *store.Operation, before, after account.Subscription) error {
	if err := c.tx.RecordOperation(ctx, op, after.Ending(), c.user); err != nil {
		return err
	}
	return c.tx.AuditOperation(ctx, op, &before, &after)
}

// settle ends an operation that was not done.
func (a *Commands) settle(ctx context.Context, c committed, s *step, standing *account.Subscription, status store.OperationStatus, reason string) error {
	if err := c.tx.SettleOperation(ctx, s.op, status, reason); err != nil {
		return err
	}
	return c.tx.AuditOperation(ctx, s.op, standing, standing)
}

// UndoCommand takes the step of a recorded operation back, because Clerk refuses for good what came
// of it. It acts only if the subscription still runs, its user stays, and it is exactly as the step
// left it; else somebody has changed it since, and it is theirs.
//
// Idempotent: a subscription that is as it was before is left alone, and the key is the same in each
// attempt.
func (a *Commands) UndoCommand(ctx context.Context, in CommandInput) (result CommandResult, err error) {
	op, err := a.operation(ctx, in)
	if err != nil || op.Status != store.OperationRecorded || !op.Reversible {
		return resultOf(op), err
	}
	subs := a.Subscriptions
	s := &step{op: op}
	for range looks {
		if s.number, err = subs.Store.NextRead(ctx); err != nil {
			return CommandResult{}, err
		}
		if s.seen, err = subs.read(ctx, in.CustomerID); err != nil {
			return CommandResult{}, err
		}
		var before account.Ending
		s.look, _, err = subs.commit(ctx, RecordInput{CustomerID: in.CustomerID, Overdue: in.Overdue}, s.number, s.seen, cause(ctx),
			func(ctx context.Context, c committed) (err error) { before, err = a.decideUndo(ctx, c, s); return err })
		if err != nil {
			return CommandResult{}, err
		}
		s.looked = true
		if s.again {
			continue
		}
		if !s.act {
			break
		}
		changed, err := subs.Stripe.SetEnding(ctx, op.SubscriptionID, s.standing.Ending(), before, s.key("undo"))
		if err := a.outcome(s, err); err != nil {
			return CommandResult{}, err
		}
		if s.refusedAs != "" {
			// Stripe does not take it back: then it can only go forward.
			forward := s.result()
			forward.Reversible = false
			return forward, nil
		}
		if err := a.recordUndo(ctx, in, s, before, changed); err != nil {
			return CommandResult{}, err
		}
		if !s.again {
			break
		}
	}
	if a.Compensated != nil && s.op.Status.Settled() {
		a.Compensated(string(s.op.Action), string(s.op.Status))
	}
	return s.result(), nil
}

// Why an operation was undone, and why it was superseded.
const (
	notPublished = "not_published"
	changedSince = "changed_since"
)

func (a *Commands) decideUndo(ctx context.Context, c committed, s *step) (before account.Ending, err error) {
	s.act, s.again = false, false
	op, err := c.tx.LockOperation(ctx, s.op.ID)
	if err != nil || op == nil {
		return before, err
	}
	if s.op = op; op.Status != store.OperationRecorded {
		return before, nil
	}
	if !c.fresh {
		s.again = true
		return before, nil
	}
	c.tx.Because(op)
	standing, known := find(s.seen.subscriptions, op.SubscriptionID)
	if c.user == nil || !known {
		return before, a.settle(ctx, c, s, nil, store.OperationSuperseded, "not_in_stripe")
	}
	s.standing, s.user = standing, c.user.ClerkUserID
	left, err := op.Left()
	if err != nil {
		return before, err
	}
	if before, err = op.Before(); err != nil {
		return before, err
	}
	switch account.DecideUndo(standing, before, left, c.user.Deleting(), c.now) {
	case account.UndoRestore:
		s.act = true
		return before, nil
	case account.UndoDone:
		return before, a.settle(ctx, c, s, &standing, store.OperationUndone, notPublished)
	default:
		return before, a.settle(ctx, c, s, &standing, store.OperationSuperseded, changedSince)
	}
}

func (a *Commands) recordUndo(ctx context.Context, in CommandInput, s *step, before account.Ending, changed account.Subscription) (err error) {
	left := s.standing
	put(s.seen.subscriptions, changed)
	s.look, _, err = a.Subscriptions.commit(ctx, RecordInput{CustomerID: in.CustomerID, Overdue: in.Overdue}, s.number, s.seen, because(ctx, s.op),
		func(ctx context.Context, c committed) error {
			op, err := c.tx.LockOperation(ctx, s.op.ID)
			if err != nil || op == nil {
				return err
			}
			s.op = op
			if s.again = !c.fresh; s.again || op.Status != store.OperationRecorded {
				return nil
			}
			status, reason := store.OperationUndone, notPublished
			if !changed.Ending().Same(before) {
				// Somebody changed it between the look and the step, in a way that the step leaves alone.
				status, reason = store.OperationSuperseded, changedSince
			}
			if err := c.tx.SettleOperation(ctx, op, status, reason); err != nil {
				return err
			}
			return c.tx.AuditOperation(ctx, op, &left, &changed)
		})
	return err
}

// notRecorded is why an operation came to nothing that our own database refuses to store.
const notRecorded = "not_recorded"

// unrecorded sees to an operation whose customer cannot be read or recorded, for good. Where Stripe was
// not asked to change anything yet, nothing was done. Where it was, and shows what was asked for, and our
// own database refuses to store that, as a constraint of the product's own tables may, it is taken back
// if it can be. Any other failure is just that.
func (a *Commands) unrecorded(ctx context.Context, s *step, standing account.Subscription, err error) error {
	if failure.Of(err) != failure.Permanent {
		return err
	}
	subs := a.Subscriptions
	// What a transaction that failed has left in memory is not how the operation stands.
	op, read := subs.Store.Operation(ctx, s.op.ID)
	if read != nil || op == nil || op.Status.Settled() {
		return err
	}
	s.op = op
	ours := failure.ProviderOf(err) == "postgres"
	reason := notRecorded
	if !ours {
		reason = failure.CodeOf(err)
	}
	settle := func(status store.OperationStatus) error {
		if settled := subs.Store.SettleOperation(ctx, s.op.ID, status, reason); settled != nil {
			return err
		}
		s.op.Status, s.looked = status, false
		return nil
	}
	switch {
	case s.op.Status == store.OperationAccepted:
		return settle(store.OperationFailed)
	case !ours:
		return err
	}
	before, decoded := s.op.Before()
	user, read := subs.Store.UserByClerkID(ctx, s.op.ClerkUserID)
	applied := account.Decide(s.op.Action.Command(), standing, false).Satisfied && !standing.Ending().Same(before)
	if decoded != nil || read != nil || user == nil || user.Deleting() || !s.op.Reversible || !applied || standing.Status.Terminal() {
		return err
	}
	_, undone := subs.Stripe.SetEnding(ctx, s.op.SubscriptionID, standing.Ending(), before, s.key("undo"))
	if undone := a.outcome(s, undone); undone != nil || s.refusedAs != "" {
		return err
	}
	if a.Compensated != nil {
		a.Compensated(string(s.op.Action), string(store.OperationUndone))
	}
	return settle(store.OperationUndone)
}

func find(subscriptions []account.Subscription, id string) (account.Subscription, bool) {
	for _, s := range subscriptions {
		if s.ID == id {
			return s, true
		}
	}
	return account.Subscription{}, false
}

// put replaces a subscription by a newer state of it.
func put(subscriptions []account.Subscription, changed account.Subscription) {
	for i, s := range subscriptions {
		if s.ID == changed.ID {
			subscriptions[i] = changed
		}
	}
}
