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
//
// A request may reach Stripe long after its attempt was given up. So a command does not end before
// each of its requests was answered, or its key was taken: used for a request that changes nothing,
// upon which Stripe refuses the late one. A command that begins beside another of the same
// subscription takes the other's keys and supersedes it. The command that began last has the last
// word.
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
	// GaveWay is set where others may have acted on the customer since the workflow received the
	// operation: what was asked for later, and is done, has the last word then, however soon behind it
	// was asked for.
	GaveWay bool `json:"gaveWay,omitempty"`
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

// keyLife is how old a request to Stripe may be to be repeated under its key, which Stripe keeps
// for about a day. After that nobody can tell any more whether it was done.
const keyLife = 20 * time.Hour

// looks bounds how often one attempt reads the customer: before its step and after it, and again
// where a newer read of somebody else's makes one worthless.
const looks = 8

// ApplyCommand does what an operation asks for at Stripe and records it, or says why not.
//
// What it records is always a read that began after Stripe had confirmed, under a number of its
// own: a read of somebody else's that began before the change has a lower one, and cannot take its
// place.
//
// Idempotent: the operation's row says how far it is. Stripe is asked under a key that is the same
// in each attempt, and a subscription that is as the command wants it is left alone.
func (a *Commands) ApplyCommand(ctx context.Context, in CommandInput) (CommandResult, error) {
	return holding(ctx, a.Subscriptions, in.CustomerID, func(s *stopping) (CommandResult, error) {
		op, err := a.operation(ctx, in)
		if err != nil || op.Status.Settled() || op.Status == store.OperationRecorded && !op.TakenBack() {
			return resultOf(op), err
		}
		return a.run(ctx, in, &step{op: op, held: s, gaveWay: in.GaveWay, back: op.TakenBack(), resumed: op.Status != store.OperationAccepted})
	})
}

// run looks and acts in turn until a look shows that there is nothing left to do.
func (a *Commands) run(ctx context.Context, in CommandInput, s *step) (CommandResult, error) {
	for range looks {
		err := a.look(ctx, in, s)
		switch {
		case failure.CodeOf(err) == notShownYet && attempt(ctx) >= notShown && s.unshown < notShown:
			// So many attempts may have failed for other reasons.
			s.unshown++
			if err := pause(ctx, min(a.Subscriptions.Policy.RereadDelay, longestPause)); err != nil {
				return CommandResult{}, err
			}
			continue
		case err != nil:
			if err = a.unrecorded(ctx, s, err); err != nil || !s.again {
				return s.result(), err
			}
			continue
		case s.again:
			if s.missed > 0 {
				if err := pause(ctx, min(a.Subscriptions.Policy.RereadDelay, awaitedPause)); err != nil {
					return CommandResult{}, err
				}
			}
			continue
		case !s.act:
			if s.back && s.op.Status.Settled() {
				a.compensated(s)
			}
			return s.result(), nil
		}
		if err := a.change(ctx, s); err != nil {
			return CommandResult{}, err
		}
	}
	return CommandResult{}, failure.New(failure.Transient, "postgres", "apply a command", "read_overtaken", nil)
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// step is one attempt at an operation.
type step struct {
	op *store.Operation
	// held is the customer, which nobody else may act on meanwhile.
	held *stopping
	user string
	// standing is the subscription as the last look showed it, seen all of the customer.
	standing account.Subscription
	seen     shown
	decision account.Decision
	look     RecordResult
	looked   bool
	// act is set where Stripe has to be asked; again where the customer has to be read again.
	act, again bool
	// back is set where what was done is taken back, to before.
	back   bool
	before account.Ending
	// confirmed is set once Stripe has confirmed to this attempt; refusedAs names why it refused.
	// unshown counts the looks that did not show what it confirmed.
	confirmed bool
	refusedAs string
	unshown   int
	// missed counts the looks in a row that did not show the subscription at all.
	missed int
	// refusedSchedule is the schedule through which Stripe has refused to make the change;
	// releaseRefused is set once it has refused to release it.
	refusedSchedule string
	releaseRefused  bool
	// released is the schedule whose release Stripe has confirmed to this attempt, whatever a look
	// shows behind it.
	released string
	// resumed is set where an attempt before this one may have asked Stripe, whose request may be
	// under way still.
	resumed bool
	// unlinked is set where the customer belonged to nobody, linking once it was tried to link it.
	unlinked, linking bool
	// gaveWay is set where others may have acted on the customer since the operation was received,
	// before it could.
	gaveWay bool
	// take are the requests whose keys have to be taken before the operation goes on. taken has the
	// generation of each key that was.
	take  []store.StripeRequest
	taken map[string]int
}

func (s *step) result() CommandResult {
	r := resultOf(s.op)
	r.Looked, r.Record, r.ClerkUserID = s.looked, s.look, s.user
	if s.back && s.refusedAs != "" {
		r.Reversible = false // Stripe does not take it back: then it can only go forward
	}
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

// look reads the customer under a new number, records what that shows as every sync does, and
// decides, all in one transaction: what is decided is what was recorded. What a look shows after
// the step is put down to whoever asked for it.
func (a *Commands) look(ctx context.Context, in CommandInput, s *step) error {
	subs := a.Subscriptions
	number, err := subs.Store.NextRead(ctx)
	if err != nil {
		return err
	}
	if s.seen, err = subs.read(ctx, in.CustomerID, number); err != nil {
		return err
	}
	why := cause(ctx)
	if s.confirmed {
		why = because(ctx, s.op)
	}
	decide := func(ctx context.Context, c committed) error { return a.decide(ctx, c, s) }
	unread := slices.Contains(s.seen.kept, s.op.SubscriptionID)
	if unread {
		decide = nil // the rest is recorded, and somebody may be waiting for it
	}
	behind := s.look.RereadAfter
	s.look, _, err = subs.commit(ctx, RecordInput{CustomerID: in.CustomerID, Overdue: in.Overdue}, number, s.seen, why, decide)
	if s.look.RereadAfter == 0 {
		s.look.RereadAfter = behind // what a look before was behind may not show in this one either
	}
	if err == nil && unread {
		err = s.seen.unread
	}
	s.looked = err == nil
	if err == nil && s.unlinked && !s.linking {
		// A product that was there before us has stored the subscription: what says whose the customer is
		// is committed by now.
		s.linking = true
		_, err = subs.link(ctx, RecordInput{CustomerID: in.CustomerID}, s.seen)
	}
	return err
}

// decide is the last step of a look's transaction.
func (a *Commands) decide(ctx context.Context, c committed, s *step) error {
	s.act, s.again, s.take = false, false, nil
	op, err := c.tx.LockOperation(ctx, s.op.ID)
	if err != nil || op == nil {
		return err
	}
	s.op = op
	if s.gaveWay && op.OutdoneBy == "" {
		op.OutdoneBy = op.LaterDone
	}
	if op.Status.Settled() || op.Status == store.OperationRecorded && !s.back {
		return nil // another attempt got there
	}
	if !c.fresh {
		s.again = true
		return nil
	}
	c.tx.Because(op)
	standing, known := find(s.seen.subscriptions, op.SubscriptionID)
	for _, row := range c.rows {
		if row.StripeID != op.SubscriptionID || !known {
			continue
		}
		if over, err := c.tx.Outlived(ctx, row, standing.Status); err != nil {
			return err
		} else if over {
			standing.Status, standing.EndedAt = account.Status(row.Status), row.Held().EndedAt
		}
	}
	switch s.unlinked = c.user == nil && known; {
	case s.unlinked && !s.linking:
		s.again = true
		return nil
	case known && s.op.Status == store.OperationAccepted && (s.unlinked || c.user != nil && c.user.ClerkUserID != s.op.ClerkUserID):
		// Nobody's, or somebody else's, by what weighs more than the row that the product has stored.
		return a.settle(ctx, c, s, nil, store.OperationRefused, string(account.RefusedContested))
	case c.user == nil || !known:
		return a.lost(ctx, c, s)
	}
	s.user, s.standing, s.missed = c.user.ClerkUserID, standing, 0
	if s.back = s.back || op.TakenBack(); s.back {
		return a.goBack(ctx, c, s)
	}
	s.decision = account.Decide(op.Action.Command(), standing, c.user.Deleting())
	if op.Status == store.OperationAccepted {
		return a.begin(ctx, c, s)
	}
	return a.goOn(ctx, c, s)
}

// lost ends an operation whose subscription Stripe does not show any more. One look is not enough
// for that: not each of Stripe's reads shows what was bought just now, or knows the customer. Where
// a second one does not show it either, and our row of the last minute says that it runs, it is
// looked for until that minute is over.
func (a *Commands) lost(ctx context.Context, c committed, s *step) error {
	if s.missed++; s.missed == 1 {
		s.again = true
		return nil
	}
	if c.user != nil && !c.user.Deleting() {
		_, customerID := s.op.Entity.Split()
		rows, err := c.tx.SubscriptionsOfCustomer(ctx, customerID)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(rows, func(row store.Subscription) bool {
			return row.StripeID == s.op.SubscriptionID && !account.Status(row.Status).Terminal() && row.UpdatedAt != nil && c.now.Sub(*row.UpdatedAt) < account.ReadsBehind
		}) {
			return a.late()
		}
	}
	if s.op.Status == store.OperationAccepted { // nothing was done
		return a.settle(ctx, c, s, nil, store.OperationFailed, notInStripe)
	}
	return a.overtaken(ctx, c, s, nil, notInStripe)
}

// begin decides about an operation for which nothing was done yet.
func (a *Commands) begin(ctx context.Context, c committed, s *step) error {
	switch {
	case !c.now.Before(s.op.ExpiresAt):
		return a.settle(ctx, c, s, &s.standing, store.OperationExpired, "not begun in time")
	case s.decision.Refused != "":
		return a.settle(ctx, c, s, &s.standing, store.OperationRefused, string(s.decision.Refused))
	case s.op.OutdoneBy != "" && !s.decision.Satisfied:
		return a.settle(ctx, c, s, &s.standing, store.OperationSuperseded, changedSince)
	case s.op.OutdoneBy != "":
		return recorded(ctx, c, s, s.standing, s.standing)
	}
	rivals, undoing, err := a.outdo(ctx, c, s)
	if err != nil || s.act {
		return err
	}
	before := s.standing
	if s.decision.Satisfied && rivals == 0 {
		var behind bool
		if before, behind = s.outdated(c); !behind {
			return recorded(ctx, c, s, s.standing, s.standing)
		}
	}
	// What a rival has done, or what the look is behind, may not show yet, so Stripe is asked even if
	// there seems to be nothing to do.
	s.act, s.decision.ReleaseSchedule = true, s.standing.ScheduleID
	if undoing != nil {
		// How it stood before the other: undoing this command has to undo both.
		ends, err := undoing.Before()
		if err != nil {
			return err
		}
		before.Status, before.CancelAtPeriodEnd, before.CancelAt = undoing.StatusBefore, ends.AtPeriodEnd, ends.At
	}
	return c.tx.ActOn(ctx, s.op, before, s.decision)
}

// goOn decides about an operation for which Stripe was asked before this look.
func (a *Commands) goOn(ctx context.Context, c committed, s *step) error {
	before, err := s.op.Before()
	if err != nil {
		return err
	}
	// What was asked for was asked for while it stood like that.
	was := s.standing
	was.Status, was.CancelAtPeriodEnd, was.CancelAt, was.ScheduleID = s.op.StatusBefore, before.AtPeriodEnd, before.At, ""
	// A command acts on a subscription that is as it wants only if it has superseded a rival. The
	// rival's change may show before its own.
	wanted := account.Decide(s.op.Action.Command(), was, false).Satisfied
	tooOld := s.op.ActingSince != nil && c.now.Sub(*s.op.ActingSince) > keyLife
	switch {
	case account.Decide(s.op.Action.Command(), s.standing, false).Satisfied, s.confirmed && s.op.Action == store.ActionCancel && s.standing.Status.Terminal():
		// So it is also where its user is being deleted since: what was asked for is done. And what was
		// set to end with a period that was over has ended.
		switch {
		case s.confirmed:
			return recorded(ctx, c, s, was, s.standing)
		case s.refusedAs != "", s.refusedSchedule != "" && s.refusedSchedule == s.standing.ScheduleID:
			if over, err := s.over(ctx, c); err != nil || !over {
				return err
			}
			return recorded(ctx, c, s, was, s.standing)
		case s.standing.Status.Terminal() || tooOld:
			s.found()
			return nil
		case c.user.Deleting() || s.releasing(s.standing.ScheduleID):
			// It must not be asked for again, or that would release the schedule. A late request must come
			// to nothing all the same.
			if taken, err := s.haveTaken(ctx, c, s.op); err != nil || !taken {
				return err
			}
			s.found()
			return nil
		}
		// Somebody else may have done it. Asking again under the same key keeps a late request from doing
		// it once more.
		s.act, s.decision.ReleaseSchedule = true, s.standing.ScheduleID
		return nil
	case s.refusedAs != "":
		if over, err := s.over(ctx, c); err != nil || !over {
			return err
		}
		return a.settle(ctx, c, s, &s.standing, store.OperationFailed, s.failedAs())
	case s.decision.Refused != "":
		// It was allowed when Stripe was asked. Whatever came of that, it is as somebody else wants it.
		return a.overtaken(ctx, c, s, &s.standing, string(s.decision.Refused))
	case s.confirmed && (s.standing.Ending().Same(before) || wanted) && (s.unshown < notShown || s.op.Action == store.ActionCancelNow):
		return a.late() // nobody can take back what has ended
	case s.confirmed:
		return a.settle(ctx, c, s, &s.standing, store.OperationSuperseded, changedSince)
	case s.op.OutdoneBy != "":
		// A later command is done, and the subscription has changed again since: that is somebody else's.
		return a.overtaken(ctx, c, s, &s.standing, changedSince)
	case tooOld:
		return a.settle(ctx, c, s, &s.standing, store.OperationSuperseded, "too_late_to_repeat")
	}
	s.act = true
	return nil
}

// found takes what a look shows for confirmed, though Stripe has not confirmed it to this attempt:
// another attempt has asked for it. That change may be younger than the number of this look, so the
// customer is read again under a younger number.
func (s *step) found() { s.confirmed, s.again = true, true }

// notShown is how often what Stripe confirmed may not show, before it counts as taken back by
// somebody: as many attempts, and as many looks of one attempt.
const (
	notShown    = 4
	notShownYet = "not_shown_yet"
	// longestPause bounds the pause between two looks of one attempt.
	longestPause = 5 * time.Second
)

// late is the failure of a look that does not show what Stripe has confirmed, or shown a moment
// ago: Stripe does not promise that each read shows it at once. What the look did show is not
// stored.
func (a *Commands) late() error {
	late := failure.New(failure.Transient, "stripe", "read what was confirmed", notShownYet, nil)
	late.RetryAfter = a.Subscriptions.Policy.RereadDelay
	return late
}

// change asks Stripe. How the subscription stands then is for the next look to say: Stripe's
// response may be one that it stored when it was asked before, and somebody may have changed the
// same since. An outcome that is not known is an error: the next attempt asks again under the same
// key.
func (a *Commands) change(ctx context.Context, s *step) error {
	stripe := a.Subscriptions.Stripe
	switch {
	case len(s.take) > 0:
		return a.takeKeys(ctx, s)
	case s.back:
		return a.restore(ctx, s)
	}
	if s.decision.ReleaseSchedule != "" {
		if done, err := a.changeThroughSchedule(ctx, s); err != nil || done {
			return err
		}
	}
	var err error
	switch s.op.Action {
	case store.ActionCancelNow:
		_, err = stripe.CancelNow(ctx, s.op.SubscriptionID, s.key("cancel"))
	case store.ActionReactivate:
		_, err = stripe.SetEnding(ctx, s.op.SubscriptionID, s.standing.Ending(), account.Ending{}, s.endingKey())
	default:
		_, err = stripe.SetEnding(ctx, s.op.SubscriptionID, s.standing.Ending(), account.Ending{AtPeriodEnd: true}, s.endingKey())
	}
	err = a.outcome(s, err)
	s.confirmed = err == nil && s.refusedAs == ""
	return err
}

// endingKey is the key under which a command sets how its subscription ends.
func (s *step) endingKey() string {
	if s.op.Action == store.ActionReactivate {
		return s.key("reactivate")
	}
	return s.key("cancel")
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

// recorded notes that the command has reached Stripe and our rows.
func recorded(ctx context.Context, c committed, s *step, before, after account.Subscription) error {
	if err := c.tx.RecordOperation(ctx, s.op, after.Ending(), c.user); err != nil {
		return err
	}
	if s.holds(&after) {
		if err := c.tx.ForgetRelease(ctx, s.op); err != nil {
			return err
		}
	}
	return c.tx.AuditOperation(ctx, s.op, &before, &after)
}

// settle ends an operation that was not done.
func (a *Commands) settle(ctx context.Context, c committed, s *step, standing *account.Subscription, status store.OperationStatus, reason string) error {
	if err := c.tx.SettleOperation(ctx, s.op, status, reason); err != nil {
		return err
	}
	if s.holds(standing) {
		if err := c.tx.ForgetRelease(ctx, s.op); err != nil {
			return err
		}
	}
	return c.tx.AuditOperation(ctx, s.op, standing, standing)
}

// Why an operation was superseded; of one that had not begun the second is why it failed.
const (
	changedSince = "changed_since"
	notInStripe  = "not_in_stripe"
)

func find(subscriptions []account.Subscription, id string) (account.Subscription, bool) {
	for _, s := range subscriptions {
		if s.ID == id {
			return s, true
		}
	}
	return account.Subscription{}, false
}
