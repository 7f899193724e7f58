package workflows_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/testsuite"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

const (
	opCancel     = "op_aaaaaaaaaaaaaaaaaaaaaaaaaa"
	opReactivate = "op_bbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// told is what became of an update.
type told struct {
	rejected, err error
	answer        *workflows.CommandAnswer
	at            time.Duration
}

// command asks the run for an operation so long after the opening.
func (l *lifecycle) command(d time.Duration, operation string, wait time.Duration) *told {
	t := &told{}
	l.at(d, func() {
		l.UpdateWorkflow(workflows.UpdateCommand, operation, &testsuite.TestUpdateCallback{
			OnReject: func(err error) { t.rejected = err },
			OnAccept: func() {},
			OnComplete: func(result any, err error) {
				t.err, t.at = err, l.Now().Sub(opening()).Truncate(time.Second)
				if answer, ok := result.(workflows.CommandAnswer); ok {
					t.answer = &answer
				}
			},
		}, workflows.CommandRequest{OperationID: operation, ExpiresAt: after(day), Wait: wait})
	})
	return t
}

// is fails the test unless an update was answered so, so long after the opening.
func (u *told) is(t *testing.T, settled bool, at time.Duration) {
	t.Helper()
	if u.rejected != nil || u.err != nil || u.answer == nil || u.answer.Settled != settled || u.at != at {
		t.Errorf("answered %+v after %s, rejected %v, failed %v, want settled %t after %s", u.answer, u.at, u.rejected, u.err, settled, at)
	}
}

// recorded is a step that Stripe has confirmed and that changed the projection; done is one that
// changed nothing.
func recorded() activities.CommandResult {
	return activities.CommandResult{Status: store.OperationRecorded, Recorded: true, Looked: true, Record: publishDue(live()), ClerkUserID: theUser, Reversible: true}
}

func settledAs(status store.OperationStatus) activities.CommandResult {
	return activities.CommandResult{Status: status, Looked: true, Record: live(), ClerkUserID: theUser}
}

func applies(results ...activities.CommandResult) func(int, activities.CommandInput) (activities.CommandResult, error) {
	return inTurn[activities.CommandInput](results...)
}

// stopAt ends a customer's life, so that the run ends by itself.
func stopAt(l *lifecycle, d time.Duration, over_ *bool) {
	l.at(d, func() { *over_ = true; l.SignalWorkflow(workflows.SignalPoke, nil) })
}

func untilOver(over_ *bool) func(int, activities.RecordInput) (activities.RecordResult, error) {
	return func(int, activities.RecordInput) (activities.RecordResult, error) {
		if *over_ {
			return over(), nil
		}
		return live(), nil
	}
}

// A command is answered when Clerk has it, or at once where there is nothing to tell Clerk.
func TestACommandIsAnsweredWhenItHasEnded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		applied activities.CommandResult
		at      time.Duration
		publish int
	}{
		"published":        {recorded(), 5 * time.Second, 1},
		"nothing to tell":  {settledAs(store.OperationDone), 2 * time.Second, 0},
		"refused":          {settledAs(store.OperationRefused), 2 * time.Second, 0},
		"undone at Stripe": {settledAs(store.OperationUndone), 2 * time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var over_ bool
			l := newLifecycle(t, script{record: untilOver(&over_), apply: applies(c.applied), applyTakes: always(time.Second), publishTakes: always(3 * time.Second)})
			answer := l.command(time.Second, opCancel, time.Minute)
			stopAt(l, time.Hour, &over_)
			l.run()
			l.finished()
			answer.is(t, true, c.at)
			equal(t, "what was applied", l.apply.given(), []activities.CommandInput{{OperationID: opCancel, CustomerID: theCustomer}})
			equal(t, "publishes", l.publish.times(), c.publish)
			equal(t, "undos", l.undo.times(), 0)
		})
	}
}

// Past the caller's patience the command goes on without them, and the run does not end before it.
func TestACommandOutlivesTheCallersPatience(t *testing.T) {
	t.Parallel()
	var over_ bool
	l := newLifecycle(t, script{record: untilOver(&over_), apply: applies(recorded()), publishTakes: always(time.Hour)})
	answer := l.command(time.Second, opCancel, 10*time.Second)
	l.at(30*time.Minute, func() { equal(t, "commands", l.state().Commands, []string{opCancel}) })
	stopAt(l, 40*time.Minute, &over_)
	l.run()
	l.finished()
	answer.is(t, false, 11*time.Second)
	if took := l.Now().Sub(opening()); took < time.Hour {
		t.Errorf("the run ended after %s, before the publish", took)
	}
}

// The same operation asked for again joins the first, and is done once.
func TestACommandAskedForTwiceIsDoneOnce(t *testing.T) {
	t.Parallel()
	var over_ bool
	l := newLifecycle(t, script{record: untilOver(&over_), apply: applies(recorded()), applyTakes: always(4 * time.Second)})
	first := l.command(time.Second, opCancel, time.Minute)
	l.at(2*time.Second, func() {
		// Another update id, as of a caller who lost the first; the operation is the same.
		l.UpdateWorkflow(workflows.UpdateCommand, "again", &testsuite.TestUpdateCallback{OnReject: func(err error) { t.Error(err) }, OnAccept: func() {},
			OnComplete: func(result any, err error) {
				if answer, ok := result.(workflows.CommandAnswer); !ok || !answer.Settled || err != nil {
					t.Errorf("the second caller is answered %v, %v", result, err)
				}
			}}, workflows.CommandRequest{OperationID: opCancel, ExpiresAt: after(day), Wait: time.Minute})
	})
	stopAt(l, time.Hour, &over_)
	l.run()
	l.finished()
	first.is(t, true, 5*time.Second)
	equal(t, "applied", l.apply.times(), 1)
}

// What is not an operation, or has expired, leaves no trace.
func TestACommandThatIsNoneIsRejected(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		request workflows.CommandRequest
		why     string
	}{
		"no id":        {workflows.CommandRequest{ExpiresAt: after(day), Wait: time.Second}, "not the id"},
		"another's id": {workflows.CommandRequest{OperationID: "sub_aaaaaaaaaaaaaaaaaaaaaaaa", ExpiresAt: after(day), Wait: time.Second}, "not the id"},
		"expired":      {workflows.CommandRequest{OperationID: opCancel, ExpiresAt: after(0), Wait: time.Second}, "expired"},
		"no patience":  {workflows.CommandRequest{OperationID: opCancel, ExpiresAt: after(day)}, "time to wait"},
		"too patient":  {workflows.CommandRequest{OperationID: opCancel, ExpiresAt: after(day), Wait: time.Hour}, "time to wait"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var over_ bool
			var rejected error
			l := newLifecycle(t, script{record: untilOver(&over_), apply: applies(recorded())})
			l.at(time.Second, func() {
				l.UpdateWorkflow(workflows.UpdateCommand, "update", &testsuite.TestUpdateCallback{
					OnReject: func(err error) { rejected = err }, OnAccept: func() { t.Error("it was accepted") }, OnComplete: func(any, error) {},
				}, c.request)
			})
			stopAt(l, time.Minute, &over_)
			l.run()
			l.finished()
			if rejected == nil || !strings.Contains(rejected.Error(), c.why) {
				t.Errorf("rejected with %v, want %q", rejected, c.why)
			}
			equal(t, "applied", l.apply.times(), 0)
		})
	}
}

// One at a time acts on the customer: a command waits for a look, a look for a command, and two
// commands go one after the other. Clerk is waited for by nobody else.
func TestOneAtATimeActsOnTheCustomer(t *testing.T) {
	t.Parallel()
	var over_ bool
	l := newLifecycle(t, script{record: untilOver(&over_), recordTakes: always(6 * time.Second),
		apply: applies(recorded()), applyTakes: always(5 * time.Second), publishTakes: always(6 * time.Second)})
	first, second := l.command(time.Second, opCancel, 90*time.Second), l.command(2*time.Second, opReactivate, 10*time.Second)
	l.poke(8 * time.Second)
	stopAt(l, time.Hour, &over_)
	l.run()
	l.finished()
	equal(t, "commands", l.apply.since(), []time.Duration{6 * time.Second, 11 * time.Second})
	// The poke came while the first command was under way.
	equal(t, "looks", l.record.since()[:2], []time.Duration{0, 16 * time.Second})
	// The first command's publish began before the second command was recorded, so there is one more.
	equal(t, "publishes", l.publish.since(), []time.Duration{11 * time.Second, 17 * time.Second})
	first.is(t, true, 17*time.Second)
	second.is(t, false, 12*time.Second)
}

// Clerk refuses for good: what can be taken back is, the last one first.
func TestWhatClerkRefusesIsUndoneBackwards(t *testing.T) {
	t.Parallel()
	var over_ bool
	refuse := func(n int, _ activities.PublishInput) (activities.PublishResult, error) {
		if n < 2 {
			return activities.PublishResult{}, permanently()
		}
		return activities.PublishResult{Version: 9}, nil
	}
	l := newLifecycle(t, script{record: untilOver(&over_), apply: applies(recorded()), publish: refuse, publishTakes: always(3 * time.Second),
		undo: func(_ int, _ activities.CommandInput) (activities.CommandResult, error) {
			undone := settledAs(store.OperationUndone)
			undone.Record.PublishDue = true
			return undone, nil
		}})
	first, second := l.command(time.Second, opCancel, time.Minute), l.command(2*time.Second, opReactivate, time.Minute)
	stopAt(l, time.Hour, &over_)
	l.run()
	l.finished()
	given := l.undo.given()
	if len(given) != 2 || given[0].OperationID != opReactivate || given[1].OperationID != opCancel {
		t.Errorf("undone were %v, want the second and then the first", given)
	}
	if first.answer == nil || !first.answer.Settled || second.answer == nil || !second.answer.Settled {
		t.Errorf("answered %+v and %+v", first.answer, second.answer)
	}
}

// What cannot be taken back is not: it goes on when somebody looks again.
func TestWhatIsIrreversibleGoesForward(t *testing.T) {
	t.Parallel()
	for name, undo := range map[string]bool{"it cannot be undone": false, "Stripe does not undo it": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var over_ bool
			applied := recorded()
			applied.Reversible = undo
			due := live()
			due.Commands = []string{opCancel}
			forward := recorded()
			forward.Reversible = false
			l := newLifecycle(t, script{
				record: func(n int, in activities.RecordInput) (activities.RecordResult, error) {
					if over_ {
						return over(), nil
					}
					if n == 1 {
						return due, nil
					}
					return live(), nil
				},
				apply: applies(applied), undo: applies(forward),
				publish: func(n int, _ activities.PublishInput) (activities.PublishResult, error) {
					if n == 0 {
						return activities.PublishResult{}, permanently()
					}
					return activities.PublishResult{Version: 2}, nil
				},
			})
			answer := l.command(time.Second, opCancel, time.Minute)
			l.poke(10 * time.Minute) // the sweep's
			stopAt(l, time.Hour, &over_)
			l.run()
			l.finished()
			answer.is(t, true, time.Second) // what it is settled as stands in its row
			equal(t, "applied", l.apply.times(), 2)
			equal(t, "undos", l.undo.times(), map[bool]int{false: 0, true: 1}[undo])
			equal(t, "publishes", l.publish.times() >= 2, true)
		})
	}
}

// A command whose request got lost is found by a look.
func TestALostCommandIsFoundByALook(t *testing.T) {
	t.Parallel()
	var over_ bool
	due := live()
	due.Commands = []string{opCancel, opReactivate}
	l := newLifecycle(t, script{record: func(int, activities.RecordInput) (activities.RecordResult, error) {
		if over_ {
			return over(), nil
		}
		return due, nil
	}, apply: applies(settledAs(store.OperationDone))})
	stopAt(l, time.Hour, &over_)
	l.run()
	l.finished()
	equal(t, "applied", l.apply.given(), []activities.CommandInput{{OperationID: opCancel, CustomerID: theCustomer}, {OperationID: opReactivate, CustomerID: theCustomer}})
}

// A run that continues as new answers whoever waits first, and hands on what Clerk does not have
// yet.
func TestContinueAsNewHandsOnCommands(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{record: looks(live()), recordTakes: always(5 * time.Second), apply: applies(recorded()), publishTakes: always(time.Hour)})
	answer := l.command(time.Second, opCancel, 30*time.Second)
	l.runWith(workflows.SubscriptionLifecycleInput{CustomerID: theCustomer, ContinueAfter: 1})
	_, next := continued[workflows.SubscriptionLifecycleInput](l.stage)
	answer.is(t, false, 31*time.Second)
	equal(t, "commands", next.Carried.Commands, []string{opCancel})
	equal(t, "publish", next.Carried.Publish, workflows.PublishPending{Due: true, Forced: true})

	var over_ bool
	next.ContinueAfter = 0
	l = newLifecycle(t, script{record: untilOver(&over_), apply: applies(activities.CommandResult{Status: store.OperationRecorded, Recorded: true, ClerkUserID: theUser})})
	stopAt(l, time.Hour, &over_)
	l.runWith(next)
	l.finished()
	equal(t, "applied", l.apply.times(), 1)
}

// A step that fails for good ends the command in this run; the operation's row says what became of
// it.
func TestACommandThatFails(t *testing.T) {
	t.Parallel()
	var over_ bool
	l := newLifecycle(t, script{record: untilOver(&over_), apply: func(int, activities.CommandInput) (activities.CommandResult, error) {
		return activities.CommandResult{}, permanently()
	}})
	answer := l.command(time.Second, opCancel, time.Minute)
	stopAt(l, time.Hour, &over_)
	l.run()
	l.finished()
	answer.is(t, true, time.Second)
}

// A cancelled run answers whoever waits, and says that it was cancelled.
func TestACancelledRunLetsGoOfCommands(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{record: looks(live()), apply: applies(recorded()), publishTakes: always(time.Hour)})
	answer := l.command(time.Second, opCancel, time.Minute)
	l.at(10*time.Second, l.CancelWorkflow)
	l.run()
	if !l.IsWorkflowCompleted() || l.GetWorkflowError() == nil {
		t.Fatal("the run did not end as cancelled")
	}
	if answer.answer == nil && answer.err == nil && !errors.Is(answer.err, answer.rejected) {
		t.Error("the caller was left waiting")
	}
}
