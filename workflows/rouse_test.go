package workflows_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// gone is how a provider that does not answer fails.
func gone() error { return temporal.NewApplicationError("gone", "transient") }

// Clerk was gone for a while and is back, and an earlier publish sleeps until its next attempt: a
// command does not wait for that. Its own publish tries at once, and the command is answered with
// that.
func TestACommandDoesNotWaitForAPublishThatSleeps(t *testing.T) {
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
	l.at(100*time.Second, func() { back = true })
	answer := l.command(101*time.Second, opCancel, 10*time.Second)
	stopAt(l, time.Hour, &over_)
	l.run()
	l.finished()
	answer.is(t, true, 101*time.Second)
	given := l.publish.given()
	if last := given[len(given)-1]; !last.Forced {
		t.Error("the publish that takes the place of one that sleeps may skip, though the other may have written")
	}
}

// Stripe was gone for a while and is back, and a look or another command sleeps until its next
// attempt: a command does not wait for that either, nor does one that is asked for again. What was
// given up is done behind it.
func TestACommandDoesNotWaitForWhatSleepsOnTheCustomer(t *testing.T) {
	t.Parallel()
	for _, sleeps := range []string{"a look", "another command", "itself"} {
		t.Run(sleeps, func(t *testing.T) {
			t.Parallel()
			var over_, back bool
			done := settledAs(store.OperationDone)
			l := newLifecycle(t, script{
				record: func(_ int, _ activities.RecordInput) (activities.RecordResult, error) {
					switch {
					case over_:
						return over(), nil
					case !back && (sleeps == "a look"):
						return activities.RecordResult{}, gone()
					}
					return live(), nil
				},
				apply: func(int, activities.CommandInput) (activities.CommandResult, error) {
					if !back {
						return activities.CommandResult{}, gone()
					}
					return done, nil
				},
			})
			first := opReactivate
			if sleeps == "itself" {
				first = opCancel
			}
			if sleeps != "a look" {
				l.at(time.Second, func() {
					l.UpdateWorkflow(workflows.UpdateCommand, "early", &testsuite.TestUpdateCallback{OnReject: func(err error) { t.Error(err) }, OnAccept: func() {},
						OnComplete: func(any, error) {}}, workflows.CommandRequest{OperationID: first, ExpiresAt: after(day), Wait: time.Second})
				})
			}
			l.at(100*time.Second, func() { back = true })
			answer := l.command(101*time.Second, opCancel, 10*time.Second)
			stopAt(l, time.Hour, &over_)
			l.run()
			l.finished()
			answer.is(t, true, 101*time.Second)
			if sleeps == "another command" {
				given, since := l.apply.given(), l.apply.since()
				n := len(given)
				if given[n-1].OperationID == given[n-2].OperationID || since[n-1] > 102*time.Second {
					t.Errorf("the two were done as %v after %v", given, since)
				}
			}
		})
	}
}

// A provider was gone for a while and is back, and what a run does sleeps until its next attempt:
// who asks for a look and waits for what comes of it does not wait for that. What nobody waits for
// does, so that a provider that is gone is not asked more often for it.
func TestAnUrgentPokeDoesNotWaitForWhatSleeps(t *testing.T) {
	t.Parallel()
	const backAt, askedAt, sleptUntil = 100 * time.Second, 101 * time.Second, 121 * time.Second
	user := func(t *testing.T, of func(back bool) (sync, ensure error)) (*stage, func() []time.Duration, func()) {
		back := false
		u := newUserRun(t, userScript{
			sync: func(int, activities.UserInput) (activities.UserResult, error) {
				err, _ := of(back)
				return unknown(), err
			},
			ensure: func(int, activities.UserInput) (activities.CustomerResult, error) {
				_, err := of(back)
				return activities.CustomerResult{CustomerID: theCustomer}, err
			},
		})
		u.at(backAt, func() { back = true })
		return u.stage, u.ensure.since, func() { u.run(workflows.UserOnboarding) }
	}
	customer := func(t *testing.T, of func(back bool) (record, stop error)) (*stage, func() []time.Duration, func()) {
		back := false
		l := newLifecycle(t, script{
			record: func(int, activities.RecordInput) (activities.RecordResult, error) {
				err, _ := of(back)
				result := over()
				result.StopDue = true
				return result, err
			},
			stop: func(int, activities.RecordInput) (activities.RecordResult, error) {
				_, err := of(back)
				return over(), err
			},
		})
		l.at(backAt, func() { back = true })
		return l.stage, l.stop.since, l.run
	}
	unless := func(back bool) error {
		if back {
			return nil
		}
		return gone()
	}
	first := func(back bool) (error, error) { return unless(back), nil }
	second := func(back bool) (error, error) { return nil, unless(back) }
	for name, prepare := range map[string]func(t *testing.T) (*stage, func() []time.Duration, func()){
		"a look at the user":            func(t *testing.T) (*stage, func() []time.Duration, func()) { t.Helper(); return user(t, first) },
		"what is done for the user":     func(t *testing.T) (*stage, func() []time.Duration, func()) { t.Helper(); return user(t, second) },
		"a look at the customer":        func(t *testing.T) (*stage, func() []time.Duration, func()) { t.Helper(); return customer(t, first) },
		"the end of customer's billing": func(t *testing.T) (*stage, func() []time.Duration, func()) { t.Helper(); return customer(t, second) },
	} {
		for _, urgent := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, urgent %t", name, urgent), func(t *testing.T) {
				t.Parallel()
				s, done, run := prepare(t)
				s.at(askedAt, func() { s.SignalWorkflow(workflows.SignalPoke, workflows.Poke{Urgent: urgent}) })
				run()
				s.finished()
				moments := done()
				if n := slices.IndexFunc(moments, func(at time.Duration) bool { return at >= backAt }); n < 0 || urgent != (moments[n] < sleptUntil) {
					t.Errorf("asked at %v, done at %v", askedAt, moments)
				}
			})
		}
	}
}

// A provider is slow, and somebody asks again and again: what is under way is not taken for
// something that sleeps for ever, and ends.
func TestWhatIsSlowIsNotBegunAnewForEver(t *testing.T) {
	t.Parallel()
	const slow, every, until = 9 * time.Second, 8 * time.Second, 10 * time.Minute
	for _, urgent := range []bool{false, true} {
		name := map[bool]string{true: "urgent", false: "routine"}[urgent]
		pokes := func(s *stage) {
			for at := every; at < until; at += every {
				s.at(at, func() { s.SignalWorkflow(workflows.SignalPoke, workflows.Poke{Urgent: urgent}) })
			}
		}
		t.Run("a look at the customer, "+name, func(t *testing.T) {
			t.Parallel()
			l := newLifecycle(t, script{recordTakes: always(slow), record: looks(over())})
			pokes(l.stage)
			var shown activities.Outcome
			l.at(2*time.Minute, func() { shown = l.state().Outcome })
			l.run()
			l.finished()
			took := l.Now().Sub(opening())
			if shown == "" && took > 2*time.Minute {
				t.Errorf("after two minutes nothing was recorded; looks began %d times", l.record.times())
			}
		})
		t.Run("the end of a deleted user's billing, "+name, func(t *testing.T) {
			t.Parallel()
			due := over()
			due.StopDue = true
			l := newLifecycle(t, script{recordTakes: always(slow), record: looks(due)})
			pokes(l.stage)
			l.run()
			l.finished()
			if at := l.stop.since(); len(at) == 0 || at[0] > 2*time.Minute {
				t.Errorf("the billing was stopped at %v", at)
			}
		})
		t.Run("a customer for a user, "+name, func(t *testing.T) {
			t.Parallel()
			u := newUserRun(t, userScript{sync: users(unknown()), ensureTakes: always(slow)})
			pokes(u.stage)
			var customer string
			u.at(2*time.Minute, func() { customer = u.state().CustomerID })
			u.run(workflows.UserOnboarding)
			if took := u.Now().Sub(opening()); customer == "" && took > 2*time.Minute {
				t.Errorf("after two minutes there is no customer; it was begun %d times", u.ensure.times())
			}
		})
		t.Run("a look at the user, "+name, func(t *testing.T) {
			t.Parallel()
			u := newUserRun(t, userScript{sync: users(settled()), syncTakes: always(slow)})
			pokes(u.stage)
			var shown activities.Outcome
			u.at(2*time.Minute, func() { shown = u.state().Outcome })
			u.run(workflows.UserProfileSync)
			if took := u.Now().Sub(opening()); shown == "" && took > 2*time.Minute {
				t.Errorf("after two minutes nothing was recorded; looks began %d times", u.sync.times())
			}
		})
	}
}

// An earlier command cannot be done, and sleeps: a later one goes before it, and is done at once.
func TestALaterCommandGoesBeforeOneThatSleeps(t *testing.T) {
	t.Parallel()
	var over_ bool
	l := newLifecycle(t, script{
		record: untilOver(&over_),
		apply: func(_ int, in activities.CommandInput) (activities.CommandResult, error) {
			if in.OperationID == opReactivate && !over_ {
				return activities.CommandResult{}, gone()
			}
			return settledAs(store.OperationDone), nil
		},
	})
	l.at(time.Second, func() {
		l.UpdateWorkflow(workflows.UpdateCommand, "early", &testsuite.TestUpdateCallback{OnReject: func(err error) { t.Error(err) }, OnAccept: func() {},
			OnComplete: func(any, error) {}}, workflows.CommandRequest{OperationID: opReactivate, ExpiresAt: after(day), Wait: time.Second})
	})
	answer := l.command(40*time.Second, opCancel, 10*time.Second)
	stopAt(l, 3*time.Minute, &over_)
	l.run()
	l.finished()
	answer.is(t, true, 40*time.Second)
	// The one that gave way says so from then on.
	var said []bool
	for _, in := range l.apply.given() {
		if in.OperationID == opReactivate {
			said = append(said, in.GaveWay)
		}
	}
	if len(said) < 2 || said[0] || !said[len(said)-1] {
		t.Errorf("the tries of the first said that it gave way: %v", said)
	}
}

// What is begun anew knows that it is not the first: an attempt that was given up may have made
// something and told nobody.
func TestWhatIsBegunAnewKnowsThatItIs(t *testing.T) {
	t.Parallel()
	back := false
	u := newUserRun(t, userScript{sync: users(unknown(), unknown(), settled()), ensure: func(int, activities.UserInput) (activities.CustomerResult, error) {
		if !back {
			return activities.CustomerResult{}, gone()
		}
		return activities.CustomerResult{CustomerID: theCustomer}, nil
	}})
	u.at(100*time.Second, func() { back = true; u.SignalWorkflow(workflows.SignalPoke, workflows.Poke{Urgent: true}) })
	u.run(workflows.UserOnboarding)
	u.finished()
	given := u.ensure.given()
	if given[0].Again || !given[len(given)-1].Again {
		t.Errorf("it was asked for with %+v", given)
	}
}
