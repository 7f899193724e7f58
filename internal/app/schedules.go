package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/nepfy/clerk-stripe-sync/internal/config"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// schedule is something that is done regularly.
type schedule struct {
	id       string
	every    config.Interval
	workflow any
	input    any
	// catchUp is how late a run may begin that could not begin in time.
	catchUp time.Duration
}

func schedules(c config.Schedules) []schedule {
	return []schedule{
		// The next look for lost events is soon enough for one that was missed.
		{workflows.EventRecoveryID, c.RecoveryInterval, workflows.EventRecovery, workflows.EventRecoveryInput{}, time.Minute},
		// A comparison that was missed is made up for: the next one may be a day away.
		{workflows.ReconciliationID, c.ReconcileInterval, workflows.Reconciliation, workflows.ReconciliationInput{}, 12 * time.Hour},
	}
}

// ensure makes the schedule as it is configured, and says what it did.
func (s schedule) ensure(ctx context.Context, schedules client.ScheduleClient) (done string, err error) {
	handle := schedules.GetHandle(ctx, s.id)
	if s.every == 0 {
		err := handle.Delete(ctx)
		if missing := (*serviceerror.NotFound)(nil); err != nil && !errors.As(err, &missing) {
			return "", fmt.Errorf("removing schedule %s: %w", s.id, err)
		}
		return fmt.Sprintf("schedule %s is off", s.id), nil
	}
	_, err = schedules.Create(ctx, s.options())
	if errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
		err = handle.Update(ctx, client.ScheduleUpdateOptions{DoUpdate: s.update})
	}
	if err != nil {
		return "", fmt.Errorf("making schedule %s: %w", s.id, err)
	}
	return fmt.Sprintf("schedule %s runs every %s", s.id, time.Duration(s.every)), nil
}

func (s schedule) options() client.ScheduleOptions {
	return client.ScheduleOptions{
		ID: s.id, Spec: s.spec(), Action: s.action(), CatchupWindow: s.catchUp,
		// Two at once would do the same twice.
		Overlap: enumspb.SCHEDULE_OVERLAP_POLICY_SKIP,
	}
}

func (s schedule) spec() client.ScheduleSpec {
	every := time.Duration(s.every)
	return client.ScheduleSpec{
		Intervals: []client.ScheduleIntervalSpec{{Every: every}},
		// Not all on the hour, together with everybody else's.
		Jitter: min(every/10, time.Minute),
	}
}

func (s schedule) action() *client.ScheduleWorkflowAction {
	return &client.ScheduleWorkflowAction{ID: s.id, Workflow: s.workflow, Args: []any{s.input}, TaskQueue: workflows.QueueMain}
}

// update brings a schedule that is there to what is configured now. Whether somebody has paused it
// is theirs.
func (s schedule) update(in client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
	now := in.Description.Schedule
	now.Spec = new(s.spec())
	now.Action = s.action()
	if now.Policy == nil {
		now.Policy = &client.SchedulePolicies{}
	}
	now.Policy.Overlap, now.Policy.CatchupWindow = enumspb.SCHEDULE_OVERLAP_POLICY_SKIP, s.catchUp
	return &client.ScheduleUpdate{Schedule: &now}, nil
}
