package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// An activity that has been under way for longer than asleepAfter is taken for one that sleeps until its next attempt. The pauses before
// that are four seconds at most, which whoever waits has; those after are eight, sixteen and thirty. One that was begun anew is let be for
// twice as long each time, up to the longest that an attempt takes: what is slow, and does not sleep, comes to its end however often
// somebody asks for it.
const (
	asleepAfter  = 7 * time.Second
	asleepForAll = oneAttempt + 10*time.Second
)

// changeRouse is the change that lets work that a user waits for begin an activity anew that sleeps. A run that was there before goes
// on without where it has not, until it continues as new.
const changeRouse = "rouse"

// changeHurry is the change that lets an urgent poke do the same.
const changeHurry = "hurry"

// sleeper is an activity that is tried for as long as it takes, and that sleeps between its attempts: up to half a minute, behind which
// nobody is to wait whose own attempt would succeed at once. It can be roused: it is given up then and begun anew, which tries at once. The
// attempt that is given up may go on all the same, beside the new one, as one may that has timed out: our activities are made for that.
type sleeper struct {
	since  time.Time // when it began; zero while nothing is under way
	cancel workflow.CancelFunc
	roused bool
	// again is how often in a row it was begun anew.
	again int
	// hurry tells whether somebody has begun to wait for it by a poke; nil where no poke asks for it.
	hurry func() bool
}

// execute does an activity and tells whether it was given up because it was roused.
func (s *sleeper) execute(ctx workflow.Context, result any, activity any, args ...any) (roused bool, err error) {
	attempts, cancel := workflow.WithCancel(ctx)
	defer cancel()
	s.begin(ctx, cancel)
	underWay := workflow.ExecuteActivity(attempts, activity, args...)
	for s.hurry != nil && !underWay.IsReady() {
		if workflow.Await(attempts, func() bool { return underWay.IsReady() || s.hurry() }) != nil {
			break // given up
		}
		if !underWay.IsReady() {
			s.rouse(ctx, changeHurry)
		}
	}
	err = underWay.Get(attempts, result)
	return s.end(ctx, err), err
}

// begin notes what is under way from now on, and how it is given up.
func (s *sleeper) begin(ctx workflow.Context, cancel workflow.CancelFunc) {
	s.since, s.cancel, s.roused = workflow.Now(ctx), cancel, false
}

// end notes how it has ended, and tells whether that was because it was roused.
func (s *sleeper) end(ctx workflow.Context, err error) (roused bool) {
	roused = s.roused && ctx.Err() == nil && temporal.IsCanceledError(err)
	s.since, s.cancel, s.roused = time.Time{}, nil, false
	s.again++
	if !roused {
		s.again = 0
	}
	return roused
}

// rouse has an activity that sleeps begun anew, in runs that know of the change, and tells whether it has.
func (s *sleeper) rouse(ctx workflow.Context, change string) bool {
	letBe := min(asleepAfter<<min(s.again, 8), asleepForAll)
	if s.cancel == nil || s.roused || workflow.Now(ctx).Sub(s.since) <= letBe {
		return false
	}
	if workflow.GetVersion(ctx, change, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return false // asked for its version only when it matters
	}
	s.roused = true
	s.cancel()
	return true
}
