package workflows_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

const (
	theCustomer = "cus_1"
	theUser     = "user_1"
	day         = 24 * time.Hour
)

// lifecycle is a customer's run on a stage.
type lifecycle struct {
	*stage
	record  *performance[activities.RecordInput]
	publish *performance[activities.PublishInput]
	stop    *performance[activities.RecordInput]
	apply   *performance[activities.CommandInput]
	undo    *performance[activities.CommandInput]
	remove  *performance[activities.UndoInput]
}

// script says how the activities of a customer answer. What is left out answers at once: a
// publish that went well, a billing that is stopped.
type script struct {
	recordTakes, publishTakes func(n int) time.Duration
	record, stop              func(n int, in activities.RecordInput) (activities.RecordResult, error)
	publish                   func(n int, in activities.PublishInput) (activities.PublishResult, error)
	applyTakes                func(n int) time.Duration
	apply, undo               func(n int, in activities.CommandInput) (activities.CommandResult, error)
}

func newLifecycle(t *testing.T, play_ script) *lifecycle {
	t.Helper()
	var c cast
	l := &lifecycle{stage: newStage(t)}
	if play_.stop == nil {
		play_.stop = inTurn[activities.RecordInput](over())
	}
	if play_.publish == nil {
		play_.publish = inTurn[activities.PublishInput](activities.PublishResult{Version: 1})
	}
	l.record = play(l.stage, c.subscriptions.RecordSubscriptions, play_.recordTakes, play_.record)
	l.stop = play(l.stage, c.subscriptions.StopBilling, nil, play_.stop)
	l.publish = play(l.stage, c.projections.PublishProjection, play_.publishTakes, play_.publish)
	l.apply = play(l.stage, c.commands.ApplyCommand, play_.applyTakes, play_.apply)
	l.undo = play(l.stage, c.commands.UndoCommand, nil, play_.undo)
	l.remove = play(l.stage, c.customers.UndoStripeCustomer, nil, inTurn[activities.UndoInput](activities.UndoResult{Outcome: "deleted"}))
	return l
}

func (l *lifecycle) run() { l.runWith(workflows.SubscriptionLifecycleInput{CustomerID: theCustomer}) }

func (l *lifecycle) runWith(in workflows.SubscriptionLifecycleInput) {
	l.ExecuteWorkflow(workflows.SubscriptionLifecycle, in)
}

func (l *lifecycle) state() workflows.LifecycleState {
	l.t.Helper()
	return ask[workflows.LifecycleState](l.stage, workflows.QueryState)
}

// live is a look that shows an active subscription, and over one that shows none that can change.
func live() activities.RecordResult {
	return activities.RecordResult{Outcome: activities.OutcomeSynced, ClerkUserID: theUser, Status: account.StatusActive, Live: true}
}

func liveUntil(at time.Time) activities.RecordResult {
	r := live()
	r.WakeAt = at
	return r
}

func over() activities.RecordResult {
	return activities.RecordResult{Outcome: activities.OutcomeSynced, ClerkUserID: theUser, Status: account.StatusCanceled}
}

func publishDue(r activities.RecordResult) activities.RecordResult {
	r.PublishDue = true
	return r
}

func looks(results ...activities.RecordResult) func(int, activities.RecordInput) (activities.RecordResult, error) {
	return inTurn[activities.RecordInput](results...)
}

func TestPokesDuringASyncCostOneMore(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]activities.RecordResult{"while live": live(), "at the end": over()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLifecycle(t, script{recordTakes: always(10 * time.Second), record: looks(first, over())})
			l.poke(2*time.Second, 4*time.Second, 9*time.Second)
			l.run()
			l.finished()
			equal(t, "looks", l.record.since(), []time.Duration{0, 10 * time.Second})
		})
	}
}

// A look that shows a part of the customer is acted on, and come back to: what it found is done,
// what it knows of times is kept, and the run does not end before all was seen.
func TestAPartialLookIsActedOnAndComeBackTo(t *testing.T) {
	t.Parallel()
	part := activities.RecordResult{Outcome: activities.OutcomeSynced, ClerkUserID: theUser, Status: account.StatusCanceled, InPart: "transient"}
	found := part
	found.Commands = []string{opCancel}
	l := newLifecycle(t, script{record: looks(found, part, part, over()), apply: func(int, activities.CommandInput) (activities.CommandResult, error) {
		return settledAs(store.OperationDone), nil
	}})
	l.run()
	l.finished()
	equal(t, "looks", l.record.since(), []time.Duration{0, 30 * time.Second, 90 * time.Second, 210 * time.Second})
	equal(t, "commands", l.apply.since(), []time.Duration{0})
	for i, in := range l.record.given() {
		if in.InPart != (i > 0) || in.ForBoundary {
			t.Errorf("look %d is for %+v", i, in)
		}
	}
}

// What could not be read is come back to by the next run too, and a boundary that comes before is
// kept.
func TestAPartialLookIsHandedOn(t *testing.T) {
	t.Parallel()
	part := liveUntil(after(10 * time.Second))
	part.InPart = "transient"
	l := newLifecycle(t, script{record: looks(part)})
	l.runWith(workflows.SubscriptionLifecycleInput{CustomerID: theCustomer, ContinueAfter: 1})
	_, next := continued[workflows.SubscriptionLifecycleInput](l.stage)
	if c := next.Carried; c.InPart != 1 || !c.WakeAt.Equal(after(10*time.Second)) || c.LastFailure != "transient" {
		t.Errorf("handed on is %+v", c)
	}
}

// Whoever finds out that a customer was made in vain may be gone: who looks at it has it undone.
func TestWhatWasMadeInVainIsUndoneByWhoLooks(t *testing.T) {
	t.Parallel()
	vain := activities.RecordResult{Outcome: activities.OutcomeWaiting, UndoFor: theUser}
	l := newLifecycle(t, script{record: looks(vain)})
	l.run()
	l.finished()
	equal(t, "undone", l.remove.given(), []activities.UndoInput{{ClerkUserID: theUser, CustomerID: theCustomer}})
}

// Whoever does something for a run has to show that it lives: else a task that got lost waits for
// the end of its time.
func TestActivitiesShowThatTheyLive(t *testing.T) {
	t.Parallel()
	published := live()
	published.PublishDue = true
	l := newLifecycle(t, script{record: looks(published, over())})
	seen := map[string]time.Duration{}
	l.SetOnActivityStartedListener(func(info *activity.Info, _ context.Context, _ converter.EncodedValues) {
		seen[info.ActivityType.Name] = info.HeartbeatTimeout
	})
	l.at(time.Hour, func() { l.SignalWorkflow(workflows.SignalPoke, nil) })
	l.run()
	l.finished()
	equal(t, "signs of life", seen, map[string]time.Duration{"RecordSubscriptions": 15 * time.Second, "PublishProjection": 15 * time.Second})
}

func TestAThousandPokesCostOneSync(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{record: looks(live(), over())})
	l.at(time.Hour, func() {
		for range 999 {
			l.SignalWorkflowSkippingWorkflowTask(workflows.SignalPoke, nil)
		}
		l.SignalWorkflow(workflows.SignalPoke, nil)
	})
	l.run()
	l.finished()
	equal(t, "looks", l.record.since(), []time.Duration{0, time.Hour})
}

// A poke that comes while a sync's second activity or its publish is under way is answered too.
func TestAPokeIsAnsweredWhateverIsUnderWay(t *testing.T) {
	t.Parallel()
	for moment := range 12 {
		l := newLifecycle(t, script{
			recordTakes: always(3 * time.Second), publishTakes: always(5 * time.Second),
			record: looks(publishDue(over())),
		})
		at := time.Duration(moment) * time.Second / 2
		l.poke(at)
		l.run()
		l.finished()
		began := l.record.since()
		if last := began[len(began)-1]; last < at.Truncate(time.Second) {
			t.Errorf("poked at %s, last look at %s", at, last)
		}
	}
}

func TestABoundaryWakesTheRun(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{record: looks(liveUntil(after(30*day)), over())})
	l.run()
	l.finished()
	equal(t, "looks", l.record.since(), []time.Duration{0, 30 * day})
}

func TestABoundaryCanMove(t *testing.T) {
	t.Parallel()
	for name, to := range map[string]time.Duration{"nearer": 10 * day, "farther": 60 * day} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLifecycle(t, script{record: looks(liveUntil(after(30*day)), liveUntil(after(to)), liveUntil(after(90*day)), over())})
			stopped := 0
			l.SetOnTimerCanceledListener(func(string) { stopped++ })
			l.poke(day)
			l.run()
			l.finished()
			equal(t, "looks", l.record.since(), []time.Duration{0, day, to, 90 * day})
			equal(t, "timers stopped", stopped, 1)
		})
	}
}

// The same boundary, seen again, neither starts a second timer nor stops the first.
func TestABoundaryThatStaysKeepsItsTimer(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{record: looks(liveUntil(after(30*day)), liveUntil(after(30*day)), over())})
	started, stopped := 0, 0
	l.SetOnTimerScheduledListener(func(string, time.Duration) { started++ })
	l.SetOnTimerCanceledListener(func(string) { stopped++ })
	l.poke(day)
	l.run()
	l.finished()
	equal(t, "looks", l.record.since(), []time.Duration{0, day, 30 * day})
	equal(t, "timers", []int{started, stopped}, []int{1, 0})
}

// A boundary that passes while a look is under way is answered once, not missed and not twice.
func TestABoundaryThatPassesDuringASync(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{
		recordTakes: func(n int) time.Duration {
			if n == 1 {
				return 10 * time.Minute
			}
			return 0
		},
		// The look that begins before the boundary still answers it: its clock said so.
		record: looks(liveUntil(after(day)), liveUntil(after(day)), liveUntil(after(30*day)), over()),
	})
	l.poke(day - time.Minute)
	l.run()
	l.finished()
	began := l.record.since()
	if len(began) != 4 || began[1] != day-time.Minute || began[2] < day || began[2] > day+15*time.Minute || began[3] != 30*day {
		t.Errorf("looks at %v", began)
	}
}

func TestABoundaryThatIsGoneWakesNobody(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{record: looks(liveUntil(after(30*day)), live(), over())})
	l.poke(day, 100*day)
	l.run()
	l.finished()
	equal(t, "looks", l.record.since(), []time.Duration{0, day, 100 * day})
}

// The database's clock may be behind the one that timers go by. What it calls the future may
// be past then, and must not be looked at as fast as the machine can.
func TestABoundaryInThePastIsNotABusyLoop(t *testing.T) {
	t.Parallel()
	past := slices.Repeat([]activities.RecordResult{liveUntil(after(-time.Minute))}, 200)
	l := newLifecycle(t, script{record: looks(append(past, over())...)})
	l.at(10*time.Second, l.CancelWorkflow)
	l.run()
	if n := l.record.times(); n < 2 || n > 12 {
		t.Errorf("%d looks in ten seconds", n)
	}
}

func TestOverdueIsCountedByTheActivity(t *testing.T) {
	t.Parallel()
	overdue := func(at time.Duration, n int) activities.RecordResult {
		r := liveUntil(after(at))
		r.Overdue = n
		return r
	}
	l := newLifecycle(t, script{record: looks(overdue(time.Hour, 1), overdue(3*time.Hour, 2), overdue(day, 0), over())})
	l.run()
	l.finished()
	var passed []int
	for _, in := range l.record.given() {
		passed = append(passed, in.Overdue)
	}
	equal(t, "overdue", passed, []int{0, 1, 2, 0})
	equal(t, "looks", l.record.since(), []time.Duration{0, time.Hour, 3 * time.Hour, day})
}

// A look is for a boundary when nothing else is its reason: no poke, no reread, no start.
func TestWhatALookIsFor(t *testing.T) {
	t.Parallel()
	unseen := liveUntil(after(2 * time.Hour))
	unseen.RereadAfter = 5 * time.Second
	l := newLifecycle(t, script{record: looks(unseen, liveUntil(after(2*time.Hour)), liveUntil(after(4*time.Hour)), liveUntil(after(4*time.Hour)), over())})
	l.poke(3 * time.Hour)
	l.run()
	l.finished()
	var forBoundary []bool
	for _, in := range l.record.given() {
		forBoundary = append(forBoundary, in.ForBoundary)
	}
	equal(t, "looks", l.record.since(), []time.Duration{0, 5 * time.Second, 2 * time.Hour, 3 * time.Hour, 4 * time.Hour})
	equal(t, "for a boundary", forBoundary, []bool{false, false, true, false, true})
}

// What Stripe does not show yet is read again, before any boundary, and counted so that the
// activity can end it.
func TestRereads(t *testing.T) {
	t.Parallel()
	unseen := liveUntil(after(30 * day))
	unseen.RereadAfter = 5 * time.Second
	seen := liveUntil(after(30 * day))
	l := newLifecycle(t, script{record: looks(unseen, unseen, unseen, seen, over())})
	l.run()
	l.finished()
	var passed []int
	for _, in := range l.record.given() {
		passed = append(passed, in.Reread)
	}
	equal(t, "rereads", passed, []int{0, 1, 2, 3, 0})
	equal(t, "looks", l.record.since(), []time.Duration{0, 5 * time.Second, 10 * time.Second, 15 * time.Second, 30 * day})
}

// Nothing is live yet, but what an event told is still to come: the run must not end.
func TestARunStaysForAReread(t *testing.T) {
	t.Parallel()
	unseen := activities.RecordResult{Outcome: activities.OutcomeMissing, RereadAfter: 5 * time.Second}
	l := newLifecycle(t, script{record: looks(unseen, over())})
	l.run()
	l.finished()
	equal(t, "looks", l.record.since(), []time.Duration{0, 5 * time.Second})
}

func TestARunThatRereadsAndFailsEnds(t *testing.T) {
	t.Parallel()
	unseen := activities.RecordResult{Outcome: activities.OutcomeMissing, RereadAfter: 5 * time.Second}
	l := newLifecycle(t, script{record: func(n int, _ activities.RecordInput) (activities.RecordResult, error) {
		if n == 0 {
			return unseen, nil
		}
		return activities.RecordResult{}, permanently()
	}})
	l.at(day, l.CancelWorkflow) // where it hangs
	l.run()
	l.finished()
	equal(t, "looks", l.record.since(), []time.Duration{0, 5 * time.Second})
}

func TestARunStaysOpenWhileASubscriptionIsLive(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{record: looks(live(), live(), over())})
	l.poke(40*day, 400*day)
	l.run()
	l.finished()
	equal(t, "looks", l.record.since(), []time.Duration{0, 40 * day, 400 * day})
}

func TestARunOfNobodysCustomerEnds(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{record: looks(activities.RecordResult{Outcome: activities.OutcomeWaiting, PublishDue: true})})
	l.run()
	l.finished()
	equal(t, "looks", l.record.times(), 1)
	equal(t, "publishes", l.publish.times(), 0)
	if text := l.details(); !strings.Contains(text, "nobody owns it yet") {
		t.Errorf("details: %q", text)
	}
}

// --- Failures ---------------------------------------------------------------------------------------

func TestATransientFailureIsTriedAgain(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{record: func(n int, _ activities.RecordInput) (activities.RecordResult, error) {
		if n < 8 { // skipped time stops at ten attempts; that there is no bound is seen in the histories
			return activities.RecordResult{}, temporal.NewApplicationError("stripe: read customer: http_503 (transient, HTTP 503)", "transient")
		}
		return over(), nil
	}})
	l.run()
	l.finished()
	equal(t, "syncs", l.state().Syncs, 1)
	equal(t, "attempts", l.record.since(), []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second, 15 * time.Second,
		31 * time.Second, 61 * time.Second, 91 * time.Second, 121 * time.Second})
}

func TestAPermanentFailureEndsARunWithNothingLive(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{record: func(int, activities.RecordInput) (activities.RecordResult, error) {
		return activities.RecordResult{}, permanently()
	}})
	l.run()
	l.finished()
	equal(t, "looks", l.record.times(), 1)
	equal(t, "failure", l.state().LastFailure, "permanent")
	if text := l.details(); !strings.Contains(text, "failed (permanent)") {
		t.Errorf("details: %q", text)
	}
}

// A customer with a live subscription is looked at again by itself after a failure, although
// the boundary that was known is far away or past.
func TestAPermanentFailureDoesNotStopALiveRun(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{record: func(n int, _ activities.RecordInput) (activities.RecordResult, error) {
		switch n {
		case 0:
			return liveUntil(after(30 * day)), nil
		case 1, 2:
			return activities.RecordResult{}, permanently()
		default:
			return over(), nil
		}
	}})
	l.poke(day)
	l.at(day+time.Minute, func() {
		state := l.state()
		equal(t, "failure", state.LastFailure, "permanent")
		equal(t, "live", state.Live, true)
	})
	l.run()
	l.finished()
	equal(t, "looks", l.record.since(), []time.Duration{0, day, day + time.Hour, day + 2*time.Hour})
	equal(t, "failure in the end", l.state().LastFailure, "")
}

func TestACancelledRunSaysSo(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]time.Duration{"during a sync": 5 * time.Second, "between syncs": time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLifecycle(t, script{recordTakes: always(10 * time.Second), record: looks(liveUntil(after(30 * day)))})
			l.at(at, l.CancelWorkflow)
			l.run()
			if err := l.GetWorkflowError(); !l.IsWorkflowCompleted() || !temporal.IsCanceledError(err) {
				t.Errorf("the run ended with %v", err)
			}
			equal(t, "looks", l.record.times(), 1)
		})
	}
}

// --- The deletion policy ----------------------------------------------------------------------------

func stopDue(r activities.RecordResult) activities.RecordResult {
	r.StopDue = true
	return r
}

func TestBillingIsStoppedOnlyWhereItIsDue(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{record: looks(live(), stopDue(live())), stop: looks(over())})
	l.poke(day)
	l.run()
	l.finished()
	equal(t, "looks", l.record.since(), []time.Duration{0, day})
	equal(t, "stops", l.stop.since(), []time.Duration{day})
}

// What is known after the stop is what the stop has read, and nothing of the look before it: no
// boundary, no live subscription.
func TestWhatTheStopReadIsWhatCounts(t *testing.T) {
	t.Parallel()
	before := stopDue(publishDue(liveUntil(after(30 * day))))
	before.Overdue, before.RereadAfter = 3, 5*time.Second
	l := newLifecycle(t, script{record: looks(before), stop: looks(over())})
	l.run()
	l.finished()
	equal(t, "looks", l.record.times(), 1)
	equal(t, "stops", l.stop.times(), 1)
	equal(t, "end", l.Now().Sub(opening()).Truncate(time.Second), 0)
	state := l.state()
	equal(t, "live", state.Live, false)
	equal(t, "wake", state.WakeAt.IsZero(), true)
}

// A billing that could not be stopped is what nobody may forget: the look before it counts, and
// the next one comes by itself.
func TestABillingThatCannotBeStoppedIsTriedAgain(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{
		record: looks(stopDue(publishDue(liveUntil(after(30 * day))))),
		stop: func(n int, _ activities.RecordInput) (activities.RecordResult, error) {
			if n < 2 {
				return activities.RecordResult{}, permanently()
			}
			return over(), nil
		},
	})
	l.at(30*time.Minute, func() { equal(t, "failure", l.state().LastFailure, "permanent") })
	l.run()
	l.finished()
	equal(t, "stops", l.stop.since(), []time.Duration{0, time.Hour, 2 * time.Hour})
	if l.publish.times() == 0 {
		t.Error("what was recorded before the stop was not published")
	}
}

// A stop that Stripe confirmed and that does not show yet, or that did nothing, is not taken for
// done until the next boundary, which may be a year away.
func TestABillingThatStillRunsAfterTheStopIsLookedAtAgain(t *testing.T) {
	t.Parallel()
	still := stopDue(liveUntil(after(300 * day)))
	l := newLifecycle(t, script{record: looks(still, still, over()), stop: looks(still)})
	l.run()
	l.finished()
	began := l.record.since()
	if len(began) != 3 || began[1] > day || began[2] > 2*day || began[1] < time.Minute {
		t.Errorf("looks at %v", began)
	}
}

// --- What an operator sees --------------------------------------------------------------------------

func TestSearchAttributesAreWrittenWhenTheyChange(t *testing.T) {
	t.Parallel()
	pastDue := live()
	pastDue.Status = account.StatusPastDue
	l := newLifecycle(t, script{record: looks(live(), live(), pastDue, pastDue, over())})
	l.poke(1*day, 2*day, 3*day, 4*day)
	l.run()
	l.finished()
	slices.Sort(l.upserted[:2]) // the first two come in one
	equal(t, "search attributes", l.upserted, []string{
		"ClerkUserId=user_1", "SubscriptionStatus=active", "SubscriptionStatus=past_due", "SubscriptionStatus=canceled",
	})
}

func TestTheStateOfARun(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{
		recordTakes: always(time.Minute), publishTakes: always(time.Hour),
		record: looks(publishDue(liveUntil(after(30*day))), over()),
	})
	l.at(30*time.Second, func() {
		equal(t, "state during the sync", l.state(), workflows.LifecycleState{CustomerID: theCustomer, Syncing: true, Syncs: 1})
	})
	l.at(2*time.Minute, func() {
		equal(t, "state after the sync", l.state(), workflows.LifecycleState{
			CustomerID: theCustomer, ClerkUserID: theUser, Outcome: activities.OutcomeSynced, Status: account.StatusActive,
			Live: true, WakeAt: after(30 * day), Publishing: true, Syncs: 1,
		})
		text := l.details()
		for _, part := range []string{"`cus_1`", "`user_1`", "`active`", "2026-03-31T12:00:00Z"} {
			if !strings.Contains(text, part) {
				t.Errorf("details lack %s: %q", part, text)
			}
		}
	})
	l.run()
	l.finished()
	state := l.state()
	equal(t, "publishing in the end", state.Publishing, false)
	equal(t, "syncs", state.Syncs, 2)
}
