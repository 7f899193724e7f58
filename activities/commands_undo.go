package activities

import (
	"context"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// UndoCommand takes the step of a recorded operation back, because Clerk refuses for good what came
// of it. It acts only if the subscription still runs, its user stays, and it is exactly as the step
// left it; else somebody has changed it since, and it is theirs.
//
// Idempotent: a subscription that is as it was before is left alone, and the key is the same in
// each attempt.
func (a *Commands) UndoCommand(ctx context.Context, in CommandInput) (CommandResult, error) {
	return holding(ctx, a.Subscriptions, in.CustomerID, func(s *stopping) (CommandResult, error) {
		op, err := a.operation(ctx, in)
		if err != nil || op.Status != store.OperationRecorded || !op.Reversible {
			return resultOf(op), err
		}
		return a.run(ctx, in, &step{op: op, held: s, back: true})
	})
}

// goBack decides about an operation that is being taken back.
func (a *Commands) goBack(ctx context.Context, c committed, s *step) error {
	left, err := s.op.Left()
	if err != nil {
		return err
	}
	if s.before, err = s.op.Before(); err != nil {
		return err
	}
	switch account.DecideUndo(s.standing, s.before, left, c.user.Deleting(), c.now) {
	case account.UndoRestore:
		switch {
		case s.confirmed && s.unshown < notShown:
			return a.late()
		case s.confirmed:
			return a.settle(ctx, c, s, &s.standing, store.OperationSuperseded, changedSince)
		case s.refusedAs != "" && s.op.Status == store.OperationActing:
			return recorded(ctx, c, s, s.standing, s.standing)
		}
		if s.refusedAs != "" {
			return c.tx.Stays(ctx, s.op)
		}
		s.act = true
		if s.op.Status == store.OperationRecorded {
			return c.tx.Undoing(ctx, s.op)
		}
		return nil
	case account.UndoDone:
		if !s.confirmed {
			if !s.op.TakenBack() && s.refusedAs == "" {
				// Nobody has asked for it yet, so the look may be behind what the command did.
				s.act = true
				return c.tx.Undoing(ctx, s.op)
			}
			if taken, err := s.haveTaken(ctx, c, s.op); err != nil || !taken {
				return err
			}
			s.found()
			return nil
		}
		reason := store.NotPublished
		if s.op.Status == store.OperationActing {
			reason = store.NotRecorded
		}
		return a.undone(ctx, c, s, reason)
	default:
		if !s.op.TakenBack() || s.confirmed {
			return a.settle(ctx, c, s, &s.standing, store.OperationSuperseded, changedSince)
		}
		return a.overtaken(ctx, c, s, &s.standing, changedSince)
	}
}

// restore asks Stripe to take back what was done.
func (a *Commands) restore(ctx context.Context, s *step) error {
	_, err := a.Subscriptions.Stripe.SetEnding(ctx, s.op.SubscriptionID, s.standing.Ending(), s.before, s.key("undo"))
	err = a.outcome(s, err)
	s.confirmed = err == nil && s.refusedAs == ""
	return err
}

// undone ends an operation that was undone. With it end the recorded operations that asked for the
// same and still wait for Clerk, unless the subscription is as they want it all the same.
func (a *Commands) undone(ctx context.Context, c committed, s *step, reason string) error {
	var reliant []*store.Operation
	if !account.Decide(s.op.Action.Command(), s.standing, false).Satisfied {
		var err error
		if reliant, err = c.tx.Reliant(ctx, s.op); err != nil {
			return err
		}
	}
	for _, other := range reliant {
		c.tx.Because(other)
		if err := a.settle(ctx, c, &step{op: other}, &s.standing, store.OperationUndone, reason); err != nil {
			return err
		}
	}
	c.tx.Because(s.op)
	return a.settle(ctx, c, s, &s.standing, store.OperationUndone, reason)
}

// compensated tells of an operation whose step was taken back, or is somebody else's by now.
func (a *Commands) compensated(s *step) {
	if a.Compensated != nil {
		a.Compensated(string(s.op.Action), string(s.op.Status))
	}
}

// unrecorded sees to an operation whose customer cannot be read or recorded, for good. Where Stripe
// was not asked to change anything yet, nothing was done. Where it was, and shows what was asked
// for, and our own database refuses to store that, as a constraint of the product's own tables may,
// it is taken back if it can be: that is noted first, so that any attempt goes on with it, and the
// customer is read again after it. Any other failure is just that.
func (a *Commands) unrecorded(ctx context.Context, s *step, err error) error {
	if s.again = false; failure.Of(err) != failure.Permanent {
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
	reason := store.NotRecorded
	if !ours {
		reason = failure.CodeOf(err)
	}
	settle := func(status store.OperationStatus) error {
		if settled := subs.Store.SettleOperation(ctx, s.op.ID, status, reason); settled != nil {
			return err
		}
		s.op.Status, s.looked = status, false
		s.held.gaveUp = err
		return nil
	}
	switch {
	case s.op.Status == store.OperationAccepted:
		return settle(store.OperationFailed)
	case !ours || s.op.Status != store.OperationActing:
		return err
	}
	standing, _ := find(s.seen.subscriptions, s.op.SubscriptionID)
	before, decoded := s.op.Before()
	user, read := subs.Store.UserByClerkID(ctx, s.op.ClerkUserID)
	if decoded != nil || read != nil || user == nil || user.Deleting() || !s.op.Reversible || standing.Status.Terminal() || s.refusedAs != "" {
		return err
	}
	if s.op.TakenBack() && standing.Ending().Same(before) {
		// It is taken back, and not even that can be stored.
		if err := settle(store.OperationUndone); err != nil {
			return err
		}
		a.compensated(s)
		return nil
	}
	if !account.Decide(s.op.Action.Command(), standing, false).Satisfied || standing.Ending().Same(before) {
		return err
	}
	if noted := subs.Store.TakeBack(ctx, s.op, standing.Ending()); noted != nil {
		return err
	}
	s.back, s.confirmed, s.again = true, false, true
	s.standing, s.before = standing, before
	return a.restore(ctx, s)
}
