package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// An activity that has been under way for longer than asleepAfter is taken for one that sleeps
// until its next attempt. The pauses before that are four seconds at most, which whoever waits has;
// those after are eight, sixteen and thirty. One that was begun anew is let be for twice as long
// each time, up to the longest that an attempt takes: what is slow, and does not sleep, comes to
// its end however often somebody asks for it.
const (
	asleepAfter  = 7 * time.Second
	asleepForAll = oneAttempt + 10*time.Second
)

// letBe is how long what was begun anew so often is not taken for asleep.
func letBe(anew int) time.Duration { return min(asleepAfter<<min(anew, 8), asleepForAll) }

// changeRouse is the change that lets work that a user waits for begin an activity anew that
// sleeps. A run that was there before goes on without where it has not, until it continues as new.
const changeRouse = "rouse"

// changeHurry is the change that lets an urgent poke do the same.
const changeHurry = "hurry"

// changeRouseLater is the change that remembers who came while what is under way was too young to
// be taken for asleep, that counts for each activity by itself how often it was begun anew, and
// that begins that count again where it was let be for long enough.
const changeRouseLater = "rouse-later"

// repeats is how one activity was begun anew, until it has ended by itself.
type repeats struct {
	// inARow is how often. An attempt that was given up may have done something and told nobody.
	inARow int
	// slow is how often since it was last let be for as long as an attempt can take. What has not
	// ended by then is not slow.
	slow int
}

// sleeper is an activity that is tried for as long as it takes, and that sleeps between its
// attempts: up to half a minute, behind which nobody is to wait whose own attempt would succeed at
// once. It can be roused: it is given up then and begun anew, which tries at once. The attempt that
// is given up may go on all the same, beside the new one, as one may that has timed out: our
// activities are made for that.
type sleeper struct {
	since  time.Time // when it began; zero while nothing is under way
	cancel workflow.CancelFunc
	roused bool
	// of is how what is under way was begun anew.
	of *repeats
	// again is how often in a row anything was, of what takes turns here. It counts in runs that do
	// not know of changeRouseLater.
	again int
	// hurry tells, once for each time, whether somebody has begun to wait for it by a poke; nil where
	// no poke asks for it.
	hurry func() bool
	// wanted tells whether somebody waits for what comes after what is under way, and forget has it
	// told no more of who waits now.
	wanted func() bool
	forget func()
}

// execute does an activity and tells whether it was given up because it was roused. of is of this
// activity and no other.
func (s *sleeper) execute(ctx workflow.Context, of *repeats, result any, activity any, args ...any) (roused bool, err error) {
	attempts, cancel := workflow.WithCancel(ctx)
	defer cancel()
	s.begin(ctx, cancel, of)
	underWay := workflow.ExecuteActivity(attempts, activity, args...)
	s.attend(attempts, underWay)
	err = underWay.Get(attempts, result)
	return s.end(ctx, err), err
}

// begin notes what is under way from now on, and how it is given up.
func (s *sleeper) begin(ctx workflow.Context, cancel workflow.CancelFunc, of *repeats) {
	s.since, s.cancel, s.roused, s.of = workflow.Now(ctx), cancel, false, of
}

// attend waits until what is under way has ended, or was given up. Whoever begins to wait for it
// has it given up as soon as it may be taken for asleep: at once, or when it is old enough. ctx
// ends when it is given up.
func (s *sleeper) attend(ctx workflow.Context, underWay workflow.Future) {
	for !underWay.IsReady() {
		poked := false
		err := workflow.Await(ctx, func() bool {
			if underWay.IsReady() {
				return true
			}
			poked = s.hurry != nil && s.hurry()
			return poked || s.wanted()
		})
		// What is given up may go on until it is told so.
		if err != nil || ctx.Err() != nil || underWay.IsReady() || poked && s.rouse(ctx, changeHurry) {
			return
		}
		if workflow.GetVersion(ctx, changeRouseLater, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
			s.forget() // asked for its version only when it matters
			continue
		}
		if s.wait(ctx, underWay) {
			s.giveUp(ctx)
		}
	}
}

// wait waits until what is under way is old enough to be taken for asleep, and tells whether it is:
// it may have ended, or been given up.
func (s *sleeper) wait(ctx workflow.Context, underWay workflow.Future) bool {
	rest := letBe(s.of.slow) - s.age(ctx)
	if rest <= 0 {
		return true
	}
	waiting, cancel := workflow.WithCancel(ctx)
	defer cancel()
	timer := workflow.NewTimerWithOptions(waiting, rest, workflow.TimerOptions{
		Summary: "What has not ended by then is begun anew, since somebody waits for it.",
	})
	err := workflow.Await(ctx, func() bool { return timer.IsReady() || underWay.IsReady() })
	return err == nil && ctx.Err() == nil && !underWay.IsReady()
}

// end notes how it has ended, and tells whether that was because it was roused.
func (s *sleeper) end(ctx workflow.Context, err error) (roused bool) {
	roused = s.roused && ctx.Err() == nil && temporal.IsCanceledError(err)
	s.since, s.cancel, s.roused = time.Time{}, nil, false
	if roused {
		s.again++
		s.of.inARow++
	} else {
		s.again, *s.of = 0, repeats{}
	}
	return roused
}

// rouse has an activity that sleeps begun anew, in runs that know of the change, and tells whether
// it has.
func (s *sleeper) rouse(ctx workflow.Context, change string) bool {
	if s.cancel == nil || s.roused || !s.asleep(ctx) {
		return false
	}
	if workflow.GetVersion(ctx, change, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return false // asked for its version only when it matters
	}
	s.giveUp(ctx)
	return true
}

// asleep tells whether what is under way is old enough to be taken for asleep.
func (s *sleeper) asleep(ctx workflow.Context) bool {
	before, now := s.age(ctx) > letBe(s.again), s.age(ctx) > letBe(s.of.slow)
	if before != now && workflow.GetVersion(ctx, changeRouseLater, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return before
	}
	return now
}

// age is how long it has been under way.
func (s *sleeper) age(ctx workflow.Context) time.Duration { return workflow.Now(ctx).Sub(s.since) }

// giveUp ends what is under way, which is begun anew.
func (s *sleeper) giveUp(ctx workflow.Context) {
	s.of.slow++
	if s.age(ctx) >= oneAttempt {
		s.of.slow = 0
	}
	s.roused = true
	s.cancel()
}
