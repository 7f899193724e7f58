package inbox

import (
	"context"
	"log/slog"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

// Sweepable is what the sweeper tends.
type Sweepable interface {
	Sweep(ctx context.Context, limit int) (poked int, err error)
	ExpireWaiting(ctx context.Context, ttl time.Duration, limit int) (int64, error)
	DropPayloads(ctx context.Context, retention time.Duration, limit int) (int64, error)
	ForgetIdlePokes(ctx context.Context, idle time.Duration, limit int) (int64, error)
	ForgetOperations(ctx context.Context, limit int) (int64, error)
	ForgetStripeRequests(ctx context.Context, limit int) (int64, error)
}

// Sweeper pokes what stays due, gives up on what waited too long, and deletes payloads that are
// older than they may be and operations that have long ended. Any number of copies may run: each
// takes rows that no other holds.
type Sweeper struct {
	Store            Sweepable
	WaitingTTL       time.Duration
	PayloadRetention time.Duration
	// Every is the pause between two sweeps.
	Every  time.Duration
	Wake   func()
	Logger *slog.Logger
}

const (
	// sweepLimit bounds one step's transaction; a step that reaches it is repeated at once.
	sweepLimit = 500
	// idleAfter is when the outbox forgets an entity that nothing was asked of.
	idleAfter = time.Minute
)

// Run sweeps until the context ends.
func (s *Sweeper) Run(ctx context.Context) {
	ticker := time.NewTicker(s.Every)
	defer ticker.Stop()
	for {
		s.sweep(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Sweeper) sweep(ctx context.Context) {
	poked := s.step(ctx, "sweep", func() (int64, error) {
		n, err := s.Store.Sweep(ctx, sweepLimit)
		return int64(n), err
	})
	if poked > 0 {
		s.Wake()
	}
	s.step(ctx, "expire_waiting", func() (int64, error) { return s.Store.ExpireWaiting(ctx, s.WaitingTTL, sweepLimit) })
	s.step(ctx, "drop_payloads", func() (int64, error) { return s.Store.DropPayloads(ctx, s.PayloadRetention, sweepLimit) })
	s.step(ctx, "forget_idle_pokes", func() (int64, error) { return s.Store.ForgetIdlePokes(ctx, idleAfter, sweepLimit) })
	s.step(ctx, "forget_operations", func() (int64, error) { return s.Store.ForgetOperations(ctx, sweepLimit) })
	s.step(ctx, "forget_stripe_requests", func() (int64, error) { return s.Store.ForgetStripeRequests(ctx, sweepLimit) })
}

func (s *Sweeper) step(ctx context.Context, operation string, do func() (int64, error)) (total int64) {
	for ctx.Err() == nil {
		n, err := do()
		if err != nil {
			if ctx.Err() == nil {
				s.Logger.WarnContext(ctx, "sweeping failed", "operation", operation, "error_class", string(failure.Of(err)), "error", err.Error())
			}
			return total
		}
		total += n
		if n < sweepLimit {
			break
		}
	}
	if total > 0 {
		s.Logger.InfoContext(ctx, "swept", "operation", operation, "result", total)
	}
	return total
}
