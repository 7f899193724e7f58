package workflows_test

import (
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

func TestAPublishThatHangsHoldsUpNothing(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{publishTakes: always(30 * day), record: looks(publishDue(live()))})
	l.poke(day, 2*day, 3*day)
	l.at(4*day, func() {
		equal(t, "looks while Clerk hangs", l.record.since(), []time.Duration{0, day, 2 * day, 3 * day})
		equal(t, "publishing", l.state().Publishing, true)
		equal(t, "publishes under way", l.publish.times(), 1)
		l.CancelWorkflow()
	})
	l.run()
}

// However often it is asked for meanwhile, one more publish follows, and it begins after the
// last time of asking.
func TestAPublishAskedForMeanwhileRunsOnceMore(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{publishTakes: always(time.Hour), record: looks(publishDue(live()), publishDue(live()), publishDue(live()), publishDue(over()))})
	l.poke(10*time.Minute, 20*time.Minute, 30*time.Minute)
	l.run()
	l.finished()
	equal(t, "publishes", l.publish.since(), []time.Duration{0, time.Hour})
}

func TestAPublishThatIsBehindGoesOn(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{record: looks(publishDue(over())),
		publish: inTurn[activities.PublishInput](activities.PublishResult{Version: 4, More: true}, activities.PublishResult{Version: 8, More: true}, activities.PublishResult{Version: 9})})
	l.run()
	l.finished()
	equal(t, "publishes", l.publish.given(), []activities.PublishInput{{ClerkUserID: theUser}, {ClerkUserID: theUser}, {ClerkUserID: theUser}})
}

func TestARunWaitsForItsPublish(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{publishTakes: always(time.Hour), record: looks(publishDue(over()))})
	l.run()
	l.finished()
	equal(t, "end", l.Now().Sub(opening()), time.Hour)
}

// A publish that failed for good ends like any other: the run may end, and one that is asked
// for later runs.
func TestAPublishThatFailsForGoodIsNotTheEnd(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{
		record: looks(publishDue(live()), publishDue(over())),
		publish: func(n int, _ activities.PublishInput) (activities.PublishResult, error) {
			if n == 0 {
				return activities.PublishResult{}, permanently()
			}
			return activities.PublishResult{Version: 1}, nil
		},
	})
	l.poke(time.Hour)
	l.run()
	l.finished()
	equal(t, "publishes", l.publish.since(), []time.Duration{0, time.Hour})
}

func TestAPublishIsNotAskedForWhereNoneIsDue(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{record: looks(live(), over())})
	l.poke(day)
	l.run()
	l.finished()
	equal(t, "publishes", l.publish.times(), 0)
}

// A run that hands an outstanding publish on cannot know what its attempts have written. The
// next run's publish is like another attempt: it may not skip.
func TestAPublishIsCarriedAsOneThatMayNotSkip(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{publishTakes: always(day), record: looks(publishDue(live()))})
	l.runWith(workflows.SubscriptionLifecycleInput{CustomerID: theCustomer, ContinueAfter: 1})
	_, next := continued[workflows.SubscriptionLifecycleInput](l.stage)
	equal(t, "publish", next.Carried.Publish, workflows.PublishPending{Due: true, Forced: true})

	l = newLifecycle(t, script{record: looks(live())})
	l.at(time.Hour, l.CancelWorkflow)
	l.runWith(next)
	equal(t, "looks of the next run", l.record.times(), 0)
	equal(t, "publishes of the next run", l.publish.given(), []activities.PublishInput{{ClerkUserID: theUser, Forced: true}})
}

// A publish that ended, well or not, is not carried: what is behind is what the sweep looks for.
func TestAPublishThatEndedIsNotCarried(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]error{"well": nil, "for good": permanently()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLifecycle(t, script{record: looks(publishDue(live()), live()),
				publish: func(int, activities.PublishInput) (activities.PublishResult, error) {
					return activities.PublishResult{}, answer
				}})
			l.poke(day)
			l.runWith(workflows.SubscriptionLifecycleInput{CustomerID: theCustomer, ContinueAfter: 2})
			_, next := continued[workflows.SubscriptionLifecycleInput](l.stage)
			equal(t, "publish", next.Carried.Publish, workflows.PublishPending{})
		})
	}
}
