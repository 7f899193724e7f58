package workflows_test

import (
	"testing"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// inPart is a look that shows a part of a customer who has a subscription that runs.
func inPart() activities.RecordResult {
	r := live()
	r.InPart = "transient"
	return r
}

// soon is a result after which the customer is to be read again.
func soon(r activities.RecordResult) activities.RecordResult {
	r.RereadAfter = 5 * time.Second
	return r
}

// What cannot be read for long is come back to ever less often, also where a worker of the version
// before says that it is to be read again soon.
func TestAPartialLookIsComeBackToEverLessOften(t *testing.T) {
	t.Parallel()
	for name, part := range map[string]activities.RecordResult{"as it is answered": inPart(), "as it was answered before": soon(inPart())} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var over_ bool
			l := newLifecycle(t, script{record: func(int, activities.RecordInput) (activities.RecordResult, error) {
				if over_ {
					return over(), nil
				}
				return part, nil
			}})
			l.at(50*time.Minute, func() { over_ = true })
			l.run()
			l.finished()
			var moments []time.Duration
			for at, pause := time.Duration(0), 30*time.Second; at < 50*time.Minute+pause; pause = min(2*pause, 15*time.Minute) {
				moments = append(moments, at)
				at += pause
			}
			if looks := l.record.since(); len(looks) > len(moments) {
				t.Errorf("looks after %v, want %v", looks, moments)
			} else {
				equal(t, "looks", looks, moments[:len(looks)])
			}
		})
	}
}

// A boundary has passed, and for a day what would say so cannot be read: what is kept shows it as
// it was. It is looked at ever more slowly for the boundary, and for the rest.
func TestAPartialLookAtABoundaryThatHasPassedIsComeBackToEverLessOften(t *testing.T) {
	t.Parallel()
	var over_ bool
	var l *lifecycle
	l = newLifecycle(t, script{record: func(_ int, in activities.RecordInput) (activities.RecordResult, error) {
		if over_ {
			return over(), nil
		}
		result := inPart()
		result.Overdue = in.Overdue
		pause := time.Minute
		for range in.Overdue {
			pause = min(2*pause, 6*time.Hour)
		}
		result.WakeAt = l.Now().Add(pause)
		if in.ForBoundary {
			result.Overdue++
		}
		return result, nil
	}})
	l.at(24*time.Hour, func() { over_ = true })
	l.run()
	l.finished()
	if looks := len(l.record.since()); looks > 110 {
		t.Errorf("it was looked at %d times in a day", looks)
	}
}

// What an event told and Stripe did not show is read again when it is due, though a look before
// that shows a part only; and only then.
func TestARereadIsMadeInTimeBesidePartialLooks(t *testing.T) {
	t.Parallel()
	t.Run("that was due before", func(t *testing.T) {
		t.Parallel()
		l := newLifecycle(t, script{record: looks(soon(live()), inPart(), inPart(), over())})
		l.poke(2 * time.Second)
		l.run()
		l.finished()
		equal(t, "looks", l.record.since(), []time.Duration{0, 2 * time.Second, 5 * time.Second, 32 * time.Second})
		equal(t, "the reread", l.record.given()[2].Reread, 1)
	})
	t.Run("that the next run makes", func(t *testing.T) {
		t.Parallel()
		l := newLifecycle(t, script{record: looks(soon(live()), inPart())})
		l.poke(2 * time.Second)
		l.runWith(workflows.SubscriptionLifecycleInput{CustomerID: theCustomer, ContinueAfter: 2})
		_, next := continued[workflows.SubscriptionLifecycleInput](l.stage)
		if c := next.Carried; c.InPart != 1 || c.Reread != 1 || !c.WakeAt.Equal(after(5*time.Second)) {
			t.Errorf("handed on is %+v", c)
		}
	})
	t.Run("that a command asks for", func(t *testing.T) {
		t.Parallel()
		done := settledAs("done")
		done.Record = soon(live())
		l := newLifecycle(t, script{record: looks(inPart(), inPart(), inPart(), over()), apply: applies(done)})
		l.command(40*time.Second, opCancel, time.Second)
		l.run()
		l.finished()
		equal(t, "looks", l.record.since(), []time.Duration{0, 30 * time.Second, 45 * time.Second, 90 * time.Second})
	})
}

// Who waits for a look, and asks for it urgently, has one made at once, however long it is until
// the rest is come back to.
func TestAnUrgentPokeHasALookMadeBesidePartialLooks(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{record: looks(inPart(), inPart(), inPart(), inPart(), over())})
	l.hurry(100 * time.Second)
	l.run()
	l.finished()
	equal(t, "looks", l.record.since(), []time.Duration{0, 30 * time.Second, 90 * time.Second, 100 * time.Second, 210 * time.Second})
}

// A run of the version before goes on as it did.
func TestARunOfTheVersionBeforeReadsAgainSoon(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{record: looks(soon(inPart()), soon(inPart()), over())})
	l.OnGetVersion("come-back", workflow.DefaultVersion, workflow.Version(1)).Return(workflow.DefaultVersion)
	l.run()
	l.finished()
	equal(t, "looks", l.record.since(), []time.Duration{0, 5 * time.Second, 10 * time.Second})
}

// What an event told does not show yet. Other events of the same burst poke the customer, each of
// which has a look made. It is read again three times, five seconds apart, whatever looks are made
// between.
func TestRereadsAreApartThoughOthersPoke(t *testing.T) {
	t.Parallel()
	for name, pokes := range map[string][]time.Duration{"nobody pokes": nil, "a burst": {time.Second, 2 * time.Second, 3 * time.Second}, "now and then": {4 * time.Second, 9 * time.Second, 13 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLifecycle(t, script{record: func(_ int, in activities.RecordInput) (activities.RecordResult, error) {
				if in.Reread < 3 {
					return soon(live()), nil
				}
				return over(), nil
			}})
			l.poke(pokes...)
			l.run()
			l.finished()
			looks := l.record.since()
			var due []time.Duration
			for _, at := range looks {
				if at%(5*time.Second) == 0 {
					due = append(due, at)
				}
			}
			equal(t, "rereads", due, []time.Duration{0, 5 * time.Second, 10 * time.Second, 15 * time.Second})
			equal(t, "looks", len(looks), 4+len(pokes))
		})
	}
}

// A run of the version before has each look put off the next.
func TestARunOfTheVersionBeforePutsRereadsOff(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{record: looks(soon(live()), soon(live()), over())})
	l.OnGetVersion("looks-apart", workflow.DefaultVersion, workflow.Version(1)).Return(workflow.DefaultVersion)
	l.poke(2 * time.Second)
	l.run()
	l.finished()
	equal(t, "looks", l.record.since(), []time.Duration{0, 2 * time.Second, 7 * time.Second})
}

// A look for another reason shows what the event told. The reread that was to come counts for
// nothing from then on.
func TestARereadThatIsNotNeededAnyMoreIsForgotten(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{record: looks(soon(live()), live(), over())})
	l.poke(time.Second, 2*time.Second)
	l.run()
	l.finished()
	var rereads []int
	for _, in := range l.record.given() {
		rereads = append(rereads, in.Reread)
	}
	equal(t, "rereads", rereads, []int{0, 0, 0})
}
