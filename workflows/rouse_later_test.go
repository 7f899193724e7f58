package workflows_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// done fails the test unless an update was answered as settled, not later than so long after the
// opening.
func (u *told) done(t *testing.T, by time.Duration) {
	t.Helper()
	if u.rejected != nil || u.err != nil || u.answer == nil || !u.answer.Settled || u.at > by {
		t.Errorf("answered %+v after %s, rejected %v, failed %v, want settled after %s at most", u.answer, u.at, u.rejected, u.err, by)
	}
}

// hurry pokes the run so long after the opening as who waits for what comes of it.
func (s *stage) hurry(d time.Duration) {
	s.at(d, func() { s.SignalWorkflow(workflows.SignalPoke, workflows.Poke{Urgent: true}) })
}

// A look cannot be made to its end for long, since one of the customer's subscriptions cannot be
// read; all else is recorded by each attempt. A command about another subscription, which Stripe
// would take at once, is done, however soon after the look began it comes.
func TestACommandIsDoneWheneverItComesBesideALookThatFails(t *testing.T) {
	t.Parallel()
	for _, at := range []time.Duration{8 * time.Second, time.Second, 3 * time.Second, 6 * time.Second, 7 * time.Second} {
		t.Run(at.String(), func(t *testing.T) {
			t.Parallel()
			var over_, healed bool
			l := newLifecycle(t, script{
				record: func(int, activities.RecordInput) (activities.RecordResult, error) {
					switch {
					case over_:
						return over(), nil
					case healed:
						return live(), nil
					}
					return activities.RecordResult{}, gone()
				},
				apply: applies(settledAs(store.OperationDone)),
			})
			answer := l.command(at, opCancel, 10*time.Second)
			// The sweep comes by, as for every operation that has not ended. Nobody waits for what it asks
			// for.
			for d := at + 5*time.Second; d < 5*time.Minute; d += 35 * time.Second {
				l.poke(d)
			}
			l.at(5*time.Minute, func() { healed = true })
			stopAt(l, time.Hour, &over_)
			l.run()
			l.finished()
			answer.done(t, max(at, 7*time.Second))
		})
	}
}

// The same where a user cancels and, soon after, thinks better of it: the look that was begun anew
// behind the first command is young again.
func TestTheSecondOfTwoCommandsIsDoneBesideALookThatFails(t *testing.T) {
	t.Parallel()
	for _, between := range []time.Duration{20 * time.Second, time.Second, 5 * time.Second, 13 * time.Second} {
		t.Run(between.String(), func(t *testing.T) {
			t.Parallel()
			var over_ bool
			l := newLifecycle(t, script{
				record: func(int, activities.RecordInput) (activities.RecordResult, error) {
					if over_ {
						return over(), nil
					}
					return activities.RecordResult{}, gone()
				},
				apply: applies(settledAs(store.OperationDone)),
			})
			first := l.command(time.Minute, opCancel, 10*time.Second)
			second := l.command(time.Minute+between, opReactivate, 10*time.Second)
			stopAt(l, 4*time.Minute, &over_)
			l.run()
			l.finished()
			first.is(t, true, time.Minute)
			second.done(t, time.Minute+between+7*time.Second)
		})
	}
}

// Commands that come together have their turns, though those before them cannot be done, and though
// what is under way when they come is followed by something else.
func TestEachOfTheCommandsThatWaitHasItsTurn(t *testing.T) {
	t.Parallel()
	t.Run("behind others", func(t *testing.T) {
		t.Parallel()
		var over_ bool
		third := fmt.Sprintf("op_%026d", 3)
		l := newLifecycle(t, script{record: untilOver(&over_), apply: func(_ int, in activities.CommandInput) (activities.CommandResult, error) {
			if in.OperationID != third && !over_ {
				return activities.CommandResult{}, gone()
			}
			return settledAs(store.OperationDone), nil
		}})
		l.command(time.Second, opCancel, time.Minute)
		l.command(time.Second, opReactivate, time.Minute)
		answer := l.command(2*time.Second, third, time.Minute)
		stopAt(l, 3*time.Minute, &over_)
		l.run()
		l.finished()
		answer.done(t, 16*time.Second)
	})
	t.Run("behind what follows a look", func(t *testing.T) {
		t.Parallel()
		var over_ bool
		l := newLifecycle(t, script{recordTakes: always(2 * time.Second), record: looks(stopDue(live())), apply: applies(settledAs(store.OperationDone)),
			stop: func(int, activities.RecordInput) (activities.RecordResult, error) {
				if over_ {
					return over(), nil
				}
				return activities.RecordResult{}, gone()
			}})
		answer := l.command(time.Second, opCancel, time.Minute)
		l.at(3*time.Minute, func() { over_ = true })
		l.run()
		l.finished()
		answer.done(t, 10*time.Second)
	})
}

// askAgain asks the run for an operation that it may be seeing to, under another update, as one
// does who comes to the next run of a workflow.
func (l *lifecycle) askAgain(d time.Duration, operation string) {
	l.at(d, func() {
		l.UpdateWorkflow(workflows.UpdateCommand, operation+" again at "+d.String(), &testsuite.TestUpdateCallback{OnReject: func(err error) { l.t.Error(err) }, OnAccept: func() {},
			OnComplete: func(any, error) {}}, workflows.CommandRequest{OperationID: operation, ExpiresAt: after(day), Wait: time.Second})
	})
}

// A command that is asked for again while it is under way is begun anew when it sleeps; and while
// it waits for Clerk, the publish is, and nothing else.
func TestACommandThatIsAskedForAgainHurriesWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	t.Run("its own step", func(t *testing.T) {
		t.Parallel()
		var over_, back bool
		l := newLifecycle(t, script{record: untilOver(&over_), apply: func(int, activities.CommandInput) (activities.CommandResult, error) {
			if !back {
				return activities.CommandResult{}, gone()
			}
			return settledAs(store.OperationDone), nil
		}})
		answer := l.command(time.Second, opCancel, time.Minute)
		l.askAgain(3*time.Second, opCancel)
		l.at(8*time.Second+500*time.Millisecond, func() { back = true })
		stopAt(l, time.Hour, &over_)
		l.run()
		l.finished()
		answer.done(t, 9*time.Second)
	})
	t.Run("the publish", func(t *testing.T) {
		t.Parallel()
		var over_, back bool
		l := newLifecycle(t, script{record: untilOver(&over_), recordTakes: always(9 * time.Second), apply: applies(recorded()), applyTakes: always(3 * time.Second),
			publish: func(int, activities.PublishInput) (activities.PublishResult, error) {
				if !back {
					return activities.PublishResult{}, gone()
				}
				return activities.PublishResult{Version: 2}, nil
			}})
		answer := l.command(10*time.Second, opCancel, 2*time.Minute)
		l.askAgain(11*time.Second, opCancel)
		l.poke(20 * time.Second)
		l.at(75*time.Second, func() { back = true })
		l.askAgain(80*time.Second, opCancel)
		stopAt(l, time.Hour, &over_)
		l.run()
		l.finished()
		answer.done(t, 80*time.Second)
		equal(t, "looks", l.record.since(), []time.Duration{0, 20 * time.Second, time.Hour})
	})
}

// Somebody waits for a look, and a command that cannot be done does not keep it from being made.
func TestALookThatSomebodyWaitsForGoesBeforeACommandThatFails(t *testing.T) {
	t.Parallel()
	for _, at := range []time.Duration{3 * time.Second, 40 * time.Second} {
		t.Run(at.String(), func(t *testing.T) {
			t.Parallel()
			var over_ bool
			l := newLifecycle(t, script{record: untilOver(&over_), apply: func(int, activities.CommandInput) (activities.CommandResult, error) {
				if !over_ {
					return activities.CommandResult{}, gone()
				}
				return settledAs(store.OperationDone), nil
			}})
			l.command(time.Second, opCancel, time.Second)
			l.hurry(at)
			l.at(2*time.Minute, func() { over_ = true })
			stopAt(l, 10*time.Minute, &over_)
			l.run()
			l.finished()
			looked := l.record.since()
			if len(looked) < 2 || looked[1] > max(at, 8*time.Second) {
				t.Errorf("looks after %v, asked for after %v", looked, at)
			}
			if n := l.apply.times(); n > 20 {
				t.Errorf("the command was tried %d times in two minutes", n)
			}
		})
	}
}

// What a run does fails at first, and is about to sleep when the provider is back: who asks before
// that for a look, and waits for what comes of it, does not wait for its end either.
func TestWhoComesBeforeItSleepsDoesNotWaitForItEither(t *testing.T) {
	t.Parallel()
	const backAt, sleptUntil = 7*time.Second + 500*time.Millisecond, 15 * time.Second
	unless := func(back bool) error {
		if back {
			return nil
		}
		return gone()
	}
	type prepared struct {
		*stage
		attempts func() []time.Duration
		run      func()
	}
	user := func(t *testing.T, reads bool) prepared {
		t.Helper()
		back := false
		u := newUserRun(t, userScript{
			sync: func(int, activities.UserInput) (activities.UserResult, error) {
				return unknown(), unless(back || !reads)
			},
			ensure: func(int, activities.UserInput) (activities.CustomerResult, error) {
				return activities.CustomerResult{CustomerID: theCustomer}, unless(back)
			},
		})
		u.at(backAt, func() { back = true })
		attempts := u.ensure.since
		if reads {
			attempts = u.sync.since
		}
		return prepared{u.stage, attempts, func() { u.run(workflows.UserOnboarding) }}
	}
	customer := func(t *testing.T, looks bool) prepared {
		t.Helper()
		back := false
		l := newLifecycle(t, script{
			record: func(int, activities.RecordInput) (activities.RecordResult, error) {
				return stopDue(over()), unless(back || !looks)
			},
			stop: func(int, activities.RecordInput) (activities.RecordResult, error) { return over(), unless(back) },
		})
		l.at(backAt, func() { back = true })
		return prepared{l.stage, l.stop.since, l.run}
	}
	for name, prepare := range map[string]func(t *testing.T) prepared{
		"a look at the user":            func(t *testing.T) prepared { t.Helper(); return user(t, true) },
		"what is done for the user":     func(t *testing.T) prepared { t.Helper(); return user(t, false) },
		"a look at the customer":        func(t *testing.T) prepared { t.Helper(); return customer(t, true) },
		"the end of customer's billing": func(t *testing.T) prepared { t.Helper(); return customer(t, false) },
	} {
		for _, urgent := range []bool{true, false} {
			for _, at := range []time.Duration{time.Second, 4 * time.Second, 6 * time.Second} {
				t.Run(fmt.Sprintf("%s, urgent %t, after %s", name, urgent, at), func(t *testing.T) {
					t.Parallel()
					p := prepare(t)
					p.at(at, func() { p.SignalWorkflow(workflows.SignalPoke, workflows.Poke{Urgent: urgent}) })
					p.run()
					p.finished()
					moments := p.attempts()
					if n := slices.IndexFunc(moments, func(at time.Duration) bool { return at > 7*time.Second }); n < 0 || urgent != (moments[n] < sleptUntil) {
						t.Errorf("it was tried after %v", moments)
					}
				})
			}
		}
	}
}

// The same of who waits for Clerk to be told, behind a publish that has begun a moment before.
func TestWhoComesBeforeAPublishSleepsDoesNotWaitForItEither(t *testing.T) {
	t.Parallel()
	var over_, back bool
	l := newLifecycle(t, script{
		record: func(int, activities.RecordInput) (activities.RecordResult, error) {
			if over_ {
				return over(), nil
			}
			return publishDue(live()), nil
		},
		apply: applies(recorded()),
		publish: func(int, activities.PublishInput) (activities.PublishResult, error) {
			if !back {
				return activities.PublishResult{}, gone()
			}
			return activities.PublishResult{Version: 2}, nil
		},
	})
	answer := l.command(4*time.Second, opCancel, 10*time.Second)
	l.at(7*time.Second+500*time.Millisecond, func() { back = true })
	stopAt(l, time.Hour, &over_)
	l.run()
	l.finished()
	answer.done(t, 8*time.Second)
}

// Clerk was gone for some minutes, in which the user has tried a few times. It is back, and they
// try once more: they do not wait because they have tried before.
func TestWhoHasTriedBeforeDoesNotWaitForAPublishThatSleeps(t *testing.T) {
	t.Parallel()
	for _, tries := range []int{0, 3, 6} {
		t.Run(fmt.Sprint(tries, " tries before"), func(t *testing.T) {
			t.Parallel()
			var over_, back bool
			l := newLifecycle(t, script{
				record: func(_ int, _ activities.RecordInput) (activities.RecordResult, error) {
					if over_ {
						return over(), nil
					}
					return publishDue(live()), nil
				},
				apply: applies(recorded()),
				publish: func(int, activities.PublishInput) (activities.PublishResult, error) {
					if !back {
						return activities.PublishResult{}, gone()
					}
					return activities.PublishResult{Version: 2}, nil
				},
			})
			for i := range tries {
				l.command(10*time.Second+time.Duration(i)*time.Minute, fmt.Sprintf("op_%026d", i), 10*time.Second)
			}
			last := 10*time.Second + time.Duration(max(tries-1, 0))*time.Minute
			l.at(last+34*time.Second, func() { back = true })
			answer := l.command(last+35*time.Second, opCancel, 10*time.Second)
			stopAt(l, time.Hour, &over_)
			l.run()
			l.finished()
			answer.is(t, true, last+35*time.Second)
		})
	}
}

// Who asks all the time while Clerk is gone is not let be for ever longer: once it is back, they
// wait for no more than its longest backoff, and not each time.
func TestWhatSleepsIsNotTakenForSlowForEver(t *testing.T) {
	t.Parallel()
	const until = 20 * time.Minute
	var over_ bool
	l := newLifecycle(t, script{record: func(int, activities.RecordInput) (activities.RecordResult, error) {
		if over_ {
			return over(), nil
		}
		return activities.RecordResult{}, gone()
	}})
	for at := 5 * time.Second; at < until; at += 5 * time.Second {
		l.hurry(at)
	}
	l.at(until, func() { over_ = true })
	l.run()
	l.finished()
	// Begun anew is what is tried again one second later, as nothing else is.
	var anew []time.Duration
	moments := l.record.since()
	for i := range moments[:len(moments)-1] {
		if moments[i+1]-moments[i] == time.Second {
			anew = append(anew, moments[i])
		}
	}
	short := 0
	for i := range anew[:len(anew)-1] {
		switch pause := anew[i+1] - anew[i]; {
		case pause < 7*time.Second || pause > 70*time.Second:
			t.Errorf("begun anew after %v", pause)
		case pause == 7*time.Second:
			short++
		}
	}
	if short < 6 {
		t.Errorf("in %v it was let be for the shortest time %d times; begun anew after %v", until, short, anew)
	}
}

// However slow something is, as long as one attempt may take, and however often somebody asks: it
// ends.
func TestWhatIsSlowEndsHoweverOftenSomebodyAsks(t *testing.T) {
	t.Parallel()
	const enough = 5 * time.Minute
	for _, slow := range []time.Duration{9 * time.Second, 30 * time.Second, 50 * time.Second, 59 * time.Second} {
		for _, every := range []time.Duration{3 * time.Second, 8 * time.Second, 40 * time.Second, 57 * time.Second} {
			t.Run(fmt.Sprintf("%s, asked for every %s", slow, every), func(t *testing.T) {
				t.Parallel()
				l := newLifecycle(t, script{recordTakes: always(slow), record: looks(over())})
				for at := every; at < 10*time.Minute; at += every {
					l.hurry(at)
				}
				var shown activities.Outcome
				l.at(enough, func() { shown = l.state().Outcome })
				l.run()
				l.finished()
				if took := l.Now().Sub(opening()); shown == "" && took > enough {
					t.Errorf("after %v nothing was recorded; looks began after %v", enough, l.record.since())
				}
			})
		}
	}
}

// What follows a look is slow, the look is not, and somebody asks again and again: what is quick
// has what is slow begun anew no more often.
func TestWhatIsSlowBehindWhatIsQuickIsNotBegunAnewForEver(t *testing.T) {
	t.Parallel()
	const enough = 5 * time.Minute
	for _, urgent := range []bool{false, true} {
		for _, slow := range []time.Duration{9 * time.Second, 40 * time.Second} {
			for what, seen := range map[string]activities.RecordResult{
				"the end of a deleted user's billing": stopDue(over()),
				"the removal of what was in vain":     {Outcome: activities.OutcomeWaiting, UndoFor: theUser},
			} {
				t.Run(fmt.Sprintf("%s, %s, urgent %t", what, slow, urgent), func(t *testing.T) {
					t.Parallel()
					var c cast
					l := &lifecycle{stage: newStage(t)}
					var ended time.Duration // that it fails for good shows in the run's state
					l.record = play(l.stage, c.subscriptions.RecordSubscriptions, always(time.Second), func(int, activities.RecordInput) (activities.RecordResult, error) {
						if ended > 0 {
							return over(), nil
						}
						return seen, nil
					})
					l.stop = play(l.stage, c.subscriptions.StopBilling, always(slow), func(int, activities.RecordInput) (activities.RecordResult, error) {
						return activities.RecordResult{}, permanently()
					})
					l.remove = play(l.stage, c.customers.UndoStripeCustomer, always(slow), func(int, activities.UndoInput) (activities.UndoResult, error) {
						return activities.UndoResult{}, permanently()
					})
					for at := time.Second; at < 2*enough; at += time.Second {
						l.at(at, func() {
							if ended == 0 && l.state().LastFailure != "" {
								ended = at
							}
						})
					}
					for at := 9 * time.Second; at < 2*enough; at += 9 * time.Second {
						l.at(at, func() { l.SignalWorkflow(workflows.SignalPoke, workflows.Poke{Urgent: urgent}) })
					}
					l.run()
					l.finished()
					if ended == 0 || ended > enough {
						t.Errorf("it ended after %v", ended)
					}
				})
			}
		}
	}
}

// A command is slow, and others that are quick come again and again: it is done all the same.
func TestACommandThatIsSlowIsDoneBesideOthers(t *testing.T) {
	t.Parallel()
	var over_ bool
	var c cast
	l := &lifecycle{stage: newStage(t)}
	l.record = play(l.stage, c.subscriptions.RecordSubscriptions, nil, untilOver(&over_))
	l.OnActivity(c.commands.ApplyCommand, anything, activities.CommandInput{OperationID: opCancel, CustomerID: theCustomer}).Maybe().After(9 * time.Second).
		Return(func(context.Context, activities.CommandInput) (activities.CommandResult, error) {
			return settledAs(store.OperationDone), nil
		})
	l.OnActivity(c.commands.ApplyCommand, anything, anything).Maybe().Return(settledAs(store.OperationDone), nil)
	answer := l.command(500*time.Millisecond, opCancel, 2*time.Minute)
	const until = 5 * time.Minute
	for at := 8 * time.Second; at < until; at += 8 * time.Second {
		l.command(at, fmt.Sprintf("op_%026d", int(at.Seconds())), 10*time.Second)
	}
	stopAt(l, time.Hour, &over_)
	l.run()
	l.finished()
	answer.done(t, time.Minute)
}

// A run that is cancelled, or continues as new, does not wait until what is under way is old
// enough.
func TestARunDoesNotWaitForWhatIsToBeBegunAnew(t *testing.T) {
	t.Parallel()
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		l := newLifecycle(t, script{recordTakes: always(time.Hour), record: looks(live())})
		l.hurry(time.Second)
		l.at(3*time.Second, l.CancelWorkflow)
		l.run()
		if took := l.Now().Sub(opening()); !l.IsWorkflowCompleted() || took != 3*time.Second {
			t.Errorf("it ended after %v with %v", took, l.GetWorkflowError())
		}
	})
	t.Run("a user's, cancelled", func(t *testing.T) {
		t.Parallel()
		u := newUserRun(t, userScript{sync: users(unknown()), ensureTakes: always(time.Hour)})
		u.hurry(time.Second)
		u.at(2*time.Second, u.CancelWorkflow)
		u.run(workflows.UserOnboarding)
		if took := u.Now().Sub(opening()); !u.IsWorkflowCompleted() || took != 2*time.Second {
			t.Errorf("it ended after %v with %v", took, u.GetWorkflowError())
		}
	})
	t.Run("continued as new", func(t *testing.T) {
		t.Parallel()
		l := newLifecycle(t, script{recordTakes: always(4 * time.Second), record: looks(live())})
		l.hurry(time.Second)
		l.runWith(workflows.SubscriptionLifecycleInput{CustomerID: theCustomer, ContinueAfter: 1})
		_, next := continued[workflows.SubscriptionLifecycleInput](l.stage)
		equal(t, "a look is due", next.Carried.Due, true)
		equal(t, "end", l.Now().Sub(opening()), 4*time.Second)
	})
}

// A run of the version before goes on as it did: who comes too early is forgotten.
func TestARunOfTheVersionBeforeForgetsWhoComesEarly(t *testing.T) {
	t.Parallel()
	var over_, healed bool
	l := newLifecycle(t, script{
		record: func(int, activities.RecordInput) (activities.RecordResult, error) {
			switch {
			case over_:
				return over(), nil
			case healed:
				return live(), nil
			}
			return activities.RecordResult{}, gone()
		},
		apply: applies(settledAs(store.OperationDone)),
	})
	l.OnGetVersion("rouse-later", workflow.DefaultVersion, workflow.Version(1)).Return(workflow.DefaultVersion)
	l.OnGetVersion("rouse", workflow.DefaultVersion, workflow.Version(1)).Return(workflow.Version(1))
	early, hurried := l.command(3*time.Second, opCancel, time.Minute), l.command(40*time.Second, opReactivate, time.Minute)
	l.hurry(5 * time.Second)
	l.at(2*time.Minute, func() { healed = true })
	stopAt(l, time.Hour, &over_)
	l.run()
	l.finished()
	early.is(t, true, 40*time.Second) // with the one that came when the look was old enough
	hurried.is(t, true, 40*time.Second)

	u := newUserRun(t, userScript{sync: users(unknown(), unknown(), settled()), ensure: func(n int, _ activities.UserInput) (activities.CustomerResult, error) {
		if n < 5 {
			return activities.CustomerResult{}, gone()
		}
		return activities.CustomerResult{CustomerID: theCustomer}, nil
	}})
	u.OnGetVersion("rouse-later", workflow.DefaultVersion, workflow.Version(1)).Return(workflow.DefaultVersion)
	u.OnGetVersion("overtaking", workflow.DefaultVersion, workflow.Version(1)).Return(workflow.Version(1))
	u.hurry(4 * time.Second)
	u.run(workflows.UserOnboarding)
	u.finished()
	equal(t, "tries", u.ensure.since(), []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second, 15 * time.Second, 31 * time.Second})
}

// The change needs its version: a run of the version before, to which somebody came early, does not
// replay as one of this version, nor the other way round.
func TestRousingLaterNeedsItsVersion(t *testing.T) {
	t.Parallel()
	needVersions(t, map[string]workflow.Version{
		"SubscriptionLifecycle-early.json":      1,
		"SubscriptionLifecycle-remembered.json": workflow.DefaultVersion,
	})
}
