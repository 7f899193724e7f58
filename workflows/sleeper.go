package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// asleepAfter is how long an activity may be under way before it is taken for one that sleeps until its next attempt. The pauses before
// that are four seconds at most, which whoever waits has; those after are eight, sixteen and thirty.
const asleepAfter = 7 * time.Second

// changeRouse is the change that lets work that a user waits for begin an activity anew that sleeps. A run that was there before goes
// on without where it has not, until it continues as new.
const changeRouse = "rouse"

// sleeper is an activity that is tried for as long as it takes, and that sleeps between its attempts: up to half a minute, behind which
// nobody is to wait whose own attempt would succeed at once. It can be roused: it is given up then and begun anew, which tries at once. The
// attempt that is given up may go on all the same, beside the new one, as one may that has timed out: our activities are made for that.
type sleeper struct {
	since  time.Time // when it began; zero while nothing is under way
	cancel workflow.CancelFunc
	roused bool
}

// execute does an activity and tells whether it was given up because it was roused.
func (s *sleeper) execute(ctx workflow.Context, result any, activity any, args ...any) (roused bool, err error) {
	attempts, cancel := workflow.WithCancel(ctx)
	defer cancel()
	s.since, s.cancel, s.roused = workflow.Now(ctx), cancel, false
	err = workflow.ExecuteActivity(attempts, activity, args...).Get(attempts, result)
	roused = s.roused && ctx.Err() == nil && temporal.IsCanceledError(err)
	s.since, s.cancel, s.roused = time.Time{}, nil, false
	return roused, err
}

// rouse has an activity that sleeps begun anew.
func (s *sleeper) rouse(ctx workflow.Context) {
	if s.cancel == nil || s.roused || workflow.Now(ctx).Sub(s.since) <= asleepAfter {
		return
	}
	if workflow.GetVersion(ctx, changeRouse, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return // asked for its version only when it matters
	}
	s.roused = true
	s.cancel()
}
