package app

import (
	"context"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/internal/telemetry"
)

// resultOf is how a metric tells an outcome: ok, or the class of the failure.
func resultOf(err error) string {
	if err == nil {
		return telemetry.ResultOK
	}
	return string(failure.Of(err))
}

func inboxDepth(ctx context.Context, s *store.Store) (telemetry.InboxDepth, error) {
	depth := telemetry.InboxDepth{ByStatus: map[string]int64{}}
	rows, err := s.InboxDepth(ctx)
	if err != nil {
		return depth, err
	}
	for _, row := range rows {
		depth.ByStatus[row.Status] = row.Count
		depth.OldestAge = max(depth.OldestAge, seconds(row.OldestAge))
	}
	users, oldest, err := s.PublishLag(ctx)
	depth.Unpublished, depth.UnpublishedAge = users, seconds(oldest)
	if err != nil {
		return depth, err
	}
	if depth.OpenDrift, err = s.OpenDrift(ctx); err != nil {
		return depth, err
	}
	recovery, reconciliation, err := s.LookAges(ctx)
	depth.RecoveryAge = make(map[string]time.Duration, len(recovery))
	for source, age := range recovery {
		depth.RecoveryAge[source] = seconds(age)
	}
	if reconciliation != nil {
		depth.ReconciliationAge = new(seconds(*reconciliation))
	}
	return depth, err
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
