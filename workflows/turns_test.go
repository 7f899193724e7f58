package workflows_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// opThird is one more operation.
const opThird = "op_cccccccccccccccccccccccccc"

// unless has commands done, but for those that fail until the customer's life is over.
func unless(over_ *bool, fails func(operation string) bool) func(int, activities.CommandInput) (activities.CommandResult, error) {
	return func(_ int, in activities.CommandInput) (activities.CommandResult, error) {
		done := settledAs(store.OperationDone)
		switch {
		case *over_:
			done.Record = over()
		case fails(in.OperationID):
			return activities.CommandResult{}, gone()
		}
		return done, nil
	}
}

// whichever command it is.
func whichever(string) bool { return true }

// tried are the moments at which an operation was tried.
func (l *lifecycle) tried(operation string) (moments []time.Duration) {
	since := l.apply.since()
	for i, in := range l.apply.given() {
		if in.OperationID == operation {
			moments = append(moments, since[i])
		}
	}
	return moments
}

// A command that gave way for later ones is done soon after Stripe takes it, though those cannot be
// done, and whoever asks for what meanwhile.
func TestACommandThatGaveWayIsDoneThoughLaterOnesAreNot(t *testing.T) {
	t.Parallel()
	for _, later := range [][]string{nil, {opReactivate}, {opReactivate, opThird}} {
		for _, asks := range []string{"nobody", "the sweep", "an urgent poke", "the caller"} {
			t.Run(fmt.Sprintf("%d later ones, %s asks", len(later), asks), func(t *testing.T) {
				t.Parallel()
				var over_, back bool
				l := newLifecycle(t, script{record: untilOver(&over_), apply: unless(&over_, func(operation string) bool {
					return !back || operation != opCancel
				})})
				answer := l.command(time.Second, opCancel, 2*time.Minute)
				for i, operation := range later {
					l.command(time.Duration(1+i)*10*time.Second, operation, 2*time.Minute)
				}
				l.at(30*time.Second, func() { back = true })
				for d := 45 * time.Second; d < 100*time.Second; d += 20 * time.Second {
					switch asks {
					case "the sweep":
						l.poke(d)
					case "an urgent poke":
						l.hurry(d)
					case "the caller":
						l.askAgain(d, opCancel)
					}
				}
				stopAt(l, 20*time.Minute, &over_)
				l.run()
				l.finished()
				answer.done(t, 90*time.Second)
			})
		}
	}
}

// The same the other way round: nobody waits any more for the later of two commands, such as of
// those that the run before handed on or that a look has found, and it is done though the earlier
// one is not.
func TestACommandThatNobodyWaitsForIsDoneThoughAnEarlierOneIsNot(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"handed on", "found by a look"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			var over_ bool
			var done time.Duration
			var l *lifecycle
			found := live()
			found.Commands = []string{opCancel, opReactivate}
			l = newLifecycle(t, script{record: func(int, activities.RecordInput) (activities.RecordResult, error) {
				switch {
				case over_:
					return over(), nil
				case done == 0:
					return found, nil
				}
				return live(), nil
			}, apply: func(n int, in activities.CommandInput) (activities.CommandResult, error) {
				if in.OperationID == opCancel && !over_ {
					return activities.CommandResult{}, gone()
				}
				if in.OperationID == opReactivate {
					done = l.apply.since()[n] + time.Second
				}
				return settledAs(store.OperationDone), nil
			}})
			stopAt(l, 10*time.Minute, &over_)
			in := workflows.SubscriptionLifecycleInput{CustomerID: theCustomer}
			if how == "handed on" {
				in.Carried = &workflows.CarriedLifecycle{ClerkUserID: theUser, Live: true, Commands: []string{opCancel, opReactivate}}
			}
			l.runWith(in)
			l.finished()
			if done == 0 || done > 15*time.Second {
				t.Errorf("it was done after %v", done)
			}
		})
	}
}

// Somebody waits for a look, which fails for a moment and gives way to a command that cannot be
// done: it is made again, however the command fares.
func TestALookThatGaveWayIsMadeThoughTheCommandIsNotDone(t *testing.T) {
	t.Parallel()
	for _, commands := range [][]string{{opCancel}, {opCancel, opReactivate}} {
		t.Run(fmt.Sprint(len(commands), " commands"), func(t *testing.T) {
			t.Parallel()
			var over_, down bool
			var made time.Duration
			var l *lifecycle
			l = newLifecycle(t, script{record: func(n int, _ activities.RecordInput) (activities.RecordResult, error) {
				switch {
				case over_:
					return over(), nil
				case down:
					return activities.RecordResult{}, gone()
				}
				if at := l.record.since()[n]; made == 0 && at > 10*time.Second {
					made = at
				}
				return live(), nil
			}, apply: unless(&over_, whichever)})
			l.at(9*time.Second, func() { down = true })
			l.hurry(10 * time.Second)
			for i, operation := range commands {
				l.command(20*time.Second+time.Duration(i)*time.Second, operation, time.Second)
			}
			l.at(30*time.Second, func() { down = false })
			stopAt(l, 10*time.Minute, &over_)
			l.run()
			l.finished()
			if made == 0 || made > 90*time.Second {
				t.Errorf("the look was made after %v; looks after %v", made, l.record.since())
			}
		})
	}
}

// A look that is owed is made though a command cannot be done: one that the run before owed, and
// one that is to stop what bills a deleted user.
func TestALookThatIsOwedIsMadeThoughCommandsAreNotDone(t *testing.T) {
	t.Parallel()
	t.Run("by the run before", func(t *testing.T) {
		t.Parallel()
		var over_ bool
		l := newLifecycle(t, script{record: untilOver(&over_), apply: unless(&over_, whichever)})
		stopAt(l, 10*time.Minute, &over_)
		l.runWith(workflows.SubscriptionLifecycleInput{CustomerID: theCustomer, Carried: &workflows.CarriedLifecycle{
			ClerkUserID: theUser, Live: true, Due: true, Commands: []string{opCancel},
		}})
		l.finished()
		if looks := l.record.since(); looks[0] > 8*time.Second {
			t.Errorf("looks after %v", looks)
		}
	})
	t.Run("by a command", func(t *testing.T) {
		t.Parallel()
		var over_ bool
		l := newLifecycle(t, script{record: untilOver(&over_), apply: func(_ int, in activities.CommandInput) (activities.CommandResult, error) {
			if in.OperationID == opCancel && !over_ {
				return activities.CommandResult{}, gone()
			}
			done := settledAs(store.OperationDone)
			done.Record.StopDue = !over_
			return done, nil
		}})
		l.command(time.Second, opCancel, time.Second)
		l.command(10*time.Second, opReactivate, time.Second)
		stopAt(l, 10*time.Minute, &over_)
		l.run()
		l.finished()
		if looks := l.record.since(); looks[1] > 30*time.Second {
			t.Errorf("looks after %v", looks)
		}
	})
}

// A command that gave way for a look that somebody waits for is done though the look cannot be
// made, also where they go on asking for it.
func TestACommandThatGaveWayForALookIsDoneThoughTheLookFails(t *testing.T) {
	t.Parallel()
	for _, every := range []time.Duration{time.Hour, 20 * time.Second, 5 * time.Second} {
		t.Run("asked for every "+every.String(), func(t *testing.T) {
			t.Parallel()
			var over_, back, down bool
			l := newLifecycle(t, script{record: func(int, activities.RecordInput) (activities.RecordResult, error) {
				switch {
				case over_:
					return over(), nil
				case down:
					return activities.RecordResult{}, gone()
				}
				return live(), nil
			}, apply: unless(&over_, func(string) bool { return !back })})
			l.at(5*time.Second, func() { down = true })
			answer := l.command(10*time.Second, opCancel, 2*time.Minute)
			for d := 20 * time.Second; d < 10*time.Minute; d += every {
				l.hurry(d)
			}
			l.at(30*time.Second, func() { back = true })
			stopAt(l, 10*time.Minute, &over_)
			l.run()
			l.finished()
			answer.done(t, 100*time.Second)
		})
	}
}

// While none of those who wait can be done, the turns go round: none waits for longer than the
// others take.
func TestTurnsGoRoundAmongAllThatWait(t *testing.T) {
	t.Parallel()
	var over_, down bool
	l := newLifecycle(t, script{record: func(int, activities.RecordInput) (activities.RecordResult, error) {
		switch {
		case over_:
			return over(), nil
		case down:
			return activities.RecordResult{}, gone()
		}
		return live(), nil
	}, apply: unless(&over_, whichever)})
	const from, until = 10 * time.Second, 20 * time.Minute
	l.at(5*time.Second, func() { down = true })
	l.hurry(from)
	for i, operation := range []string{opCancel, opReactivate, opThird} {
		l.command(from+time.Duration(i)*15*time.Second, operation, time.Second)
	}
	stopAt(l, until, &over_)
	l.run()
	l.finished()
	for who, moments := range map[string][]time.Duration{
		"a look": l.record.since()[1:], "the first": l.tried(opCancel), "the second": l.tried(opReactivate), "the third": l.tried(opThird),
	} {
		moments = append(moments, until)
		for i := range moments[:len(moments)-1] {
			// Each of the three others is let be for 70 seconds at most.
			if pause := moments[i+1] - moments[i]; pause > 4*time.Minute {
				t.Errorf("%s was tried after %v and not again before %v", who, moments[i], moments[i+1])
			}
		}
		if len(moments) > 150 {
			t.Errorf("%s was tried %d times in %v", who, len(moments), until)
		}
	}
}

// Whoever comes goes before those that gave way, and each of these lets one go before it: a command
// that can be done is, beside two that cannot.
func TestWhoComesGoesBeforeThoseThatGaveWayOnce(t *testing.T) {
	t.Parallel()
	var over_ bool
	l := newLifecycle(t, script{record: untilOver(&over_), apply: unless(&over_, func(operation string) bool {
		return operation == opCancel || operation == opReactivate
	})})
	l.command(time.Second, opCancel, time.Second)
	l.command(time.Second, opReactivate, time.Second)
	// The first was given up after 8 seconds, and the second is under way until 15.
	answer := l.command(10*time.Second, opThird, time.Minute)
	stopAt(l, 3*time.Minute, &over_)
	l.run()
	l.finished()
	answer.done(t, 15*time.Second)

	// They come all the time, and cannot be done either: the first has its turn.
	over_ = false
	l = newLifecycle(t, script{record: untilOver(&over_), apply: unless(&over_, whichever)})
	l.command(time.Second, opCancel, time.Second)
	for i := range 10 {
		l.command(time.Duration(8+7*i)*time.Second, fmt.Sprintf("op_%026d", i), time.Second)
	}
	stopAt(l, 10*time.Minute, &over_)
	l.run()
	l.finished()
	if moments := l.tried(opCancel); !slices.ContainsFunc(moments, func(at time.Duration) bool { return at > 8*time.Second && at < 25*time.Second }) {
		t.Errorf("the first was tried after %v", moments)
	}
}

// A run that is full has its turn, too: it continues as new though the commands that go round in it
// cannot be done, or an urgent poke comes.
func TestAFullRunContinuesThoughCommandsCannotBeDone(t *testing.T) {
	t.Parallel()
	for _, commands := range [][]string{{opCancel}, {opCancel, opReactivate}} {
		t.Run(fmt.Sprint(len(commands), " commands"), func(t *testing.T) {
			t.Parallel()
			l := newLifecycle(t, script{record: looks(live()), apply: unless(new(bool), whichever)})
			for _, operation := range commands {
				l.command(time.Second, operation, time.Second)
			}
			l.at(30*time.Second, func() { l.SetContinueAsNewSuggested(true) })
			if len(commands) == 1 {
				l.hurry(40 * time.Second)
			}
			l.at(10*time.Minute, l.CancelWorkflow) // where it does not
			l.run()
			_, next := continued[workflows.SubscriptionLifecycleInput](l.stage)
			equal(t, "commands", next.Carried.Commands, commands)
			if took := l.Now().Sub(opening()); took > 2*time.Minute {
				t.Errorf("it continued after %v", took)
			}
		})
	}
}

// That a command was begun and gave way is known to the next run, which says so to whoever does it:
// what was asked for later may be done.
func TestThatACommandGaveWayIsHandedOn(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{record: looks(live()), apply: unless(new(bool), func(operation string) bool { return operation == opCancel })})
	l.command(time.Second, opCancel, time.Second)
	second := l.command(3*time.Second, opReactivate, 20*time.Second)
	l.at(20*time.Second, func() { l.SetContinueAsNewSuggested(true) })
	l.hurry(30 * time.Second)
	l.at(10*time.Minute, l.CancelWorkflow) // where it does not
	l.run()
	second.done(t, 10*time.Second)
	_, next := continued[workflows.SubscriptionLifecycleInput](l.stage)
	equal(t, "commands", next.Carried.Commands, []string{opCancel})

	next.Carried.Commands = append(next.Carried.Commands, opThird) // which was not begun
	var over_ bool
	l = newLifecycle(t, script{record: untilOver(&over_), apply: applies(settledAs(store.OperationDone))})
	stopAt(l, time.Minute, &over_)
	l.runWith(next)
	l.finished()
	equal(t, "commands", l.apply.given(), []activities.CommandInput{
		{OperationID: opCancel, CustomerID: theCustomer, GaveWay: true}, {OperationID: opThird, CustomerID: theCustomer},
	})
}

// A run of the version before goes on as it did: who gave way is behind later ones for as long as
// those wait, or are under way.
func TestARunOfTheVersionBeforeKeepsItsOrder(t *testing.T) {
	t.Parallel()
	for version, first := range map[workflow.Version]time.Duration{workflow.DefaultVersion: time.Minute, 1: 17 * time.Second} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			t.Parallel()
			var over_, back bool
			l := newLifecycle(t, script{record: untilOver(&over_), apply: unless(&over_, func(operation string) bool {
				return operation != opCancel || !back
			})})
			l.OnGetVersion("turns", workflow.DefaultVersion, workflow.Version(1)).Return(version)
			first_ := l.command(time.Second, opCancel, time.Minute+50*time.Second)
			l.command(10*time.Second, opReactivate, time.Second)
			l.at(16*time.Second, func() { back = true })
			stopAt(l, time.Minute, &over_)
			l.run()
			l.finished()
			if first_.answer == nil || first_.at < first || first_.at > first+30*time.Second {
				t.Errorf("the first was answered %+v after %v", first_.answer, first_.at)
			}
		})
	}
}

// A run that was of the version before when somebody came early, and in which nobody had to wait
// for their turn yet, goes on too.
func TestARunThatForgetsWhoComesEarlyTakesTurns(t *testing.T) {
	t.Parallel()
	var over_ bool
	l := newLifecycle(t, script{record: untilOver(&over_), apply: unless(&over_, func(operation string) bool { return operation == opCancel })})
	l.OnGetVersion("rouse-later", workflow.DefaultVersion, workflow.Version(1)).Return(workflow.DefaultVersion)
	l.command(time.Second, opCancel, time.Second)
	early, late := l.command(3*time.Second, opReactivate, 2*time.Minute), l.command(40*time.Second, opThird, 2*time.Minute)
	stopAt(l, 80*time.Second, &over_)
	l.run()
	l.finished()
	early.is(t, true, 40*time.Second)
	late.is(t, true, 40*time.Second)
}

// A command cannot be done for hours, and the request for another one was lost. A look that the
// sweep or a boundary asks for finds it, and it is done: nobody waits for that look, and it is made
// all the same.
func TestALookThatNobodyWaitsForIsMadeThoughACommandIsNotDone(t *testing.T) {
	t.Parallel()
	for _, why := range []string{"the sweep", "a boundary"} {
		t.Run(why, func(t *testing.T) {
			t.Parallel()
			var over_, lost bool
			l := newLifecycle(t, script{record: func(int, activities.RecordInput) (activities.RecordResult, error) {
				found := live()
				switch {
				case over_:
					found = over()
				case lost:
					found.Commands = []string{opCancel, opReactivate}
				}
				if why == "a boundary" {
					found.WakeAt = opening().Add(40 * time.Second)
				}
				return found, nil
			}, apply: unless(&over_, func(operation string) bool { return operation == opCancel })})
			l.command(10*time.Second, opCancel, 5*time.Second)
			l.at(30*time.Second, func() { lost = true })
			if why == "the sweep" {
				l.poke(40 * time.Second)
			}
			stopAt(l, 10*time.Minute, &over_)
			l.run()
			l.finished()
			if done := l.tried(opReactivate); len(done) == 0 || done[0] > 2*time.Minute {
				t.Errorf("the other one was begun after %v", done)
			}
		})
	}
}

// A run is full while one command cannot be done. It continues as new, where the command goes on.
func TestAFullRunContinuesThoughOneCommandCannotBeDone(t *testing.T) {
	t.Parallel()
	var over_ bool
	l := newLifecycle(t, script{record: untilOver(&over_), apply: unless(&over_, whichever)})
	l.command(time.Second, opCancel, 5*time.Second)
	l.at(30*time.Second, func() { l.SetContinueAsNewSuggested(true) })
	stopAt(l, 20*time.Minute, &over_)
	l.run()
	if took := l.Now().Sub(opening()); took > 2*time.Minute || !workflow.IsContinueAsNewError(l.GetWorkflowError()) {
		t.Errorf("it ended after %v: %v", took, l.GetWorkflowError())
	}
}
