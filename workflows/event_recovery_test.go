package workflows_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// recovered is a pass that came to its end.
func recovered(missing int) activities.RecoveryPass {
	return activities.RecoveryPass{From: opening(), Newest: opening(), Complete: true, Listed: 10, Missing: missing}
}

// A pass that one attempt does not bring to its end is taken on from where it stands.
func TestEventRecoveryTakesPassesOn(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	begun := activities.RecoveryPass{From: opening(), After: "evt_1", Listed: 5, Missing: 2}
	s.OnActivity(cast{}.recovery.RecoverEvents, anything, activities.RecoveryPass{}).Return(begun, nil).Once()
	s.OnActivity(cast{}.recovery.RecoverEvents, anything, begun).Return(recovered(3), nil).Once()
	s.OnActivity(cast{}.recovery.RecoverUsers, anything, activities.RecoveryPass{}).Return(recovered(1), nil).Once()
	s.ExecuteWorkflow(workflows.EventRecovery, workflows.EventRecoveryInput{})
	s.finished()
	var result workflows.EventRecoveryResult
	if err := s.GetWorkflowResult(&result); err != nil || result.Stripe.Missing != 3 || result.Clerk.Missing != 1 {
		t.Errorf("it found %+v, %v", result, err)
	}
	if details := s.details(); !strings.Contains(details, "10 events looked at, 3 missing") || !strings.Contains(details, "10 users looked at, 1 missing") {
		t.Error("it says:", details)
	}
	s.AssertExpectations(t)
}

// While Clerk cannot be read Stripe's list is; and the run ends, so that the next one can begin.
func TestEventRecoveryGivesUpOneSide(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.OnActivity(cast{}.recovery.RecoverEvents, anything, anything).Return(recovered(3), nil).Once()
	s.OnActivity(cast{}.recovery.RecoverUsers, anything, anything).Return(activities.RecoveryPass{}, transient())
	s.ExecuteWorkflow(workflows.EventRecovery, workflows.EventRecoveryInput{})
	failed, ok := errors.AsType[*temporal.ApplicationError](s.GetWorkflowError())
	if !ok || !strings.Contains(failed.Message(), "not everything could be read") {
		t.Error("it ended with:", s.GetWorkflowError())
	}
	if took := s.Now().Sub(opening()); took < time.Minute || took > 15*time.Minute {
		t.Errorf("it gave up after %s", took)
	}
	if state := ask[workflows.EventRecoveryResult](s, workflows.QueryState); !state.Stripe.Complete || state.Clerk.Complete {
		t.Errorf("it came to %+v", state)
	}
	s.AssertExpectations(t)
}

// A long catch-up goes on in the next run where it stands; a side that failed meanwhile begins
// anew.
func TestEventRecoveryGoesOnInTheNextRun(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		clerk    activities.RecoveryPass
		clerkErr error
		want     activities.RecoveryPass
	}{
		"clerk complete": {recovered(1), nil, recovered(1)},
		"clerk failed":   {activities.RecoveryPass{}, permanently(), activities.RecoveryPass{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			begun := activities.RecoveryPass{From: opening(), After: "evt_1", Listed: 5}
			s.OnActivity(cast{}.recovery.RecoverEvents, anything, anything).Return(begun, nil)
			s.OnActivity(cast{}.recovery.RecoverUsers, anything, anything).Return(c.clerk, c.clerkErr)
			s.ExecuteWorkflow(workflows.EventRecovery, workflows.EventRecoveryInput{ContinueAfter: 2})
			workflowType, next := continued[workflows.EventRecoveryInput](s)
			if workflowType != "EventRecovery" || next.Stripe != begun || next.Clerk != c.want {
				t.Errorf("it goes on as %s with %+v", workflowType, next)
			}
		})
	}
}

// A list that ends after what is known is loud.
func TestEventRecoveryTellsOfAGap(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	pass := recovered(0)
	pass.Gap = true
	s.OnActivity(cast{}.recovery.RecoverEvents, anything, anything).Return(pass, nil)
	s.OnActivity(cast{}.recovery.RecoverUsers, anything, anything).Return(recovered(0), nil)
	s.ExecuteWorkflow(workflows.EventRecovery, workflows.EventRecoveryInput{})
	s.finished()
	var result workflows.EventRecoveryResult
	if err := s.GetWorkflowResult(&result); err != nil || !result.Stripe.Gap {
		t.Errorf("it found %+v, %v", result, err)
	}
	if details := s.details(); !strings.Contains(details, "lost") {
		t.Error("it says:", details)
	}
}

func transient() error {
	return temporal.NewApplicationError("clerk: list changed users: http_503 (transient, HTTP 503)", string(failure.Transient))
}
