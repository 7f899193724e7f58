package activities

import (
	"context"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// outdo supersedes the other commands of the subscription whose requests Stripe may still receive.
// It returns how many, and the oldest of them that was being undone, if one was. Where their keys
// have to be taken first, it sets act and supersedes none. A command that ends the subscription at
// once supersedes nobody: no late request undoes that end.
func (a *Commands) outdo(ctx context.Context, c committed, s *step) (superseded int, undoing *store.Operation, err error) {
	if s.op.Action == store.ActionCancelNow {
		return 0, nil, nil
	}
	rivals, err := c.tx.Rivals(ctx, s.op)
	if err != nil || len(rivals) == 0 {
		return 0, nil, err
	}
	if taken, err := s.haveTaken(ctx, c, rivals...); err != nil || !taken {
		return 0, nil, err
	}
	for _, other := range rivals {
		if undoing == nil && other.TakenBack() {
			undoing = other
		}
		c.tx.Because(other)
		if err := a.settle(ctx, c, &step{op: other}, &s.standing, store.OperationSuperseded, changedSince); err != nil {
			return 0, nil, err
		}
	}
	c.tx.Because(s.op)
	return len(rivals), undoing, nil
}

// haveTaken reports whether this attempt has taken every key under which these commands have asked
// Stripe. The caller has locked their rows, so that they ask for nothing else meanwhile. If a key
// is left, it sets act: the keys are taken next, and the customer is read again.
func (s *step) haveTaken(ctx context.Context, c committed, commands ...*store.Operation) (bool, error) {
	ids := make([]string, len(commands))
	for i, op := range commands {
		ids[i] = op.ID
	}
	requests, err := c.tx.CommandRequests(ctx, ids)
	if err != nil {
		return false, err
	}
	for _, r := range requests {
		if generation, taken := s.taken[r.Key]; !r.Old && (!taken || generation != r.Generation) {
			s.take = append(s.take, r)
		}
	}
	s.act = len(s.take) > 0
	return !s.act, nil
}

// takeKeys uses each key for a request that changes nothing, so that Stripe refuses a late request
// under it. If Stripe refuses even that for good, as it does for a subscription that has ended, it
// refuses the late request too.
func (a *Commands) takeKeys(ctx context.Context, s *step) error {
	if s.taken == nil {
		s.taken = map[string]int{}
	}
	for _, r := range s.take {
		if err := a.Subscriptions.Stripe.TakeKey(ctx, s.op.SubscriptionID, r.IdempotencyKey()); err != nil && failure.Of(err) != failure.Permanent {
			return err
		}
		s.taken[r.Key] = r.Generation
	}
	return nil
}

// over reports whether a refusal that this attempt has received is final. Stripe stores no refusal
// under the key, so it may still accept a late request of an earlier attempt: then the keys are
// taken first.
func (s *step) over(ctx context.Context, c committed) (bool, error) {
	if !s.resumed {
		return true, nil
	}
	return s.haveTaken(ctx, c, s.op)
}

// overtaken ends an operation as superseded, after its keys are taken.
func (a *Commands) overtaken(ctx context.Context, c committed, s *step, standing *account.Subscription, reason string) error {
	if taken, err := s.haveTaken(ctx, c, s.op); err != nil || !taken {
		return err
	}
	return a.settle(ctx, c, s, standing, store.OperationSuperseded, reason)
}
