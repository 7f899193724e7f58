package workflows_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

func TestContinueAsNewCarriesWhatIsKnown(t *testing.T) {
	t.Parallel()
	unseen := liveUntil(after(30 * day))
	unseen.RereadAfter, unseen.Overdue = 5*time.Second, 2
	l := newLifecycle(t, script{record: looks(unseen)})
	l.runWith(workflows.SubscriptionLifecycleInput{CustomerID: theCustomer, ContinueAfter: 1})
	name, next := continued[workflows.SubscriptionLifecycleInput](l.stage)
	equal(t, "type", name, "SubscriptionLifecycle")
	equal(t, "input", next, workflows.SubscriptionLifecycleInput{CustomerID: theCustomer, ContinueAfter: 1, Carried: &workflows.CarriedLifecycle{
		ClerkUserID: theUser, Status: account.StatusActive, Live: true, WakeAt: after(5 * time.Second), Overdue: 2, Reread: 1,
	}})

	// The next run does not look at once, knows what an operator asks, and goes on counting.
	l = newLifecycle(t, script{record: looks(over())})
	l.at(2*time.Second, func() {
		equal(t, "state", l.state(), workflows.LifecycleState{
			CustomerID: theCustomer, ClerkUserID: theUser, Status: account.StatusActive, Live: true, WakeAt: after(5 * time.Second),
		})
		if text := l.details(); !strings.Contains(text, "`cus_1` of user `user_1`: `active`") {
			t.Errorf("details: %q", text)
		}
	})
	next.ContinueAfter = 0
	l.runWith(next)
	l.finished()
	equal(t, "looks", l.record.since(), []time.Duration{5 * time.Second})
	equal(t, "input of the look", l.record.given(), []activities.RecordInput{{CustomerID: theCustomer, Reread: 1, Overdue: 2}})
	equal(t, "search attributes", l.upserted, []string{"SubscriptionStatus=canceled"})
}

func TestContinueAsNewCarriesAFailure(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{record: func(n int, _ activities.RecordInput) (activities.RecordResult, error) {
		if n == 0 {
			return live(), nil
		}
		return activities.RecordResult{}, permanently()
	}})
	l.poke(day)
	l.runWith(workflows.SubscriptionLifecycleInput{CustomerID: theCustomer, ContinueAfter: 2})
	_, next := continued[workflows.SubscriptionLifecycleInput](l.stage)
	equal(t, "failure", next.Carried.LastFailure, "permanent")
	equal(t, "next look", next.Carried.WakeAt.Truncate(time.Second), after(day+time.Hour))
}

func TestARunContinuesWhenTheServerSuggestsIt(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{record: looks(live())})
	l.poke(day)
	l.at(day-time.Hour, func() { l.SetContinueAsNewSuggested(true) })
	l.run()
	_, next := continued[workflows.SubscriptionLifecycleInput](l.stage)
	equal(t, "live", next.Carried.Live, true)
}

// A run with nothing left to do ends, however full it is.
func TestAFullRunThatIsDoneEnds(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{record: looks(over())})
	l.SetContinueAsNewSuggested(true)
	l.runWith(workflows.SubscriptionLifecycleInput{CustomerID: theCustomer, ContinueAfter: 1})
	l.finished()
}

// A customer who is poked during every sync must not keep a full run from ending: its history
// would grow until the server breaks it off. What the poke was for is carried.
func TestAStreamOfPokesDoesNotKeepARunFromContinuing(t *testing.T) {
	t.Parallel()
	l := newLifecycle(t, script{recordTakes: always(10 * time.Second), record: looks(live())})
	for at := 5 * time.Second; at < 10*time.Minute; at += 5 * time.Second {
		l.poke(at)
	}
	l.runWith(workflows.SubscriptionLifecycleInput{CustomerID: theCustomer, ContinueAfter: 3})
	_, next := continued[workflows.SubscriptionLifecycleInput](l.stage)
	equal(t, "looks", l.record.times(), 3)
	equal(t, "owed", next.Carried.Due, true)
}

// Each poke, at whatever moment of a chain of runs it comes, is followed by a look that begins
// after it.
func TestNoPokeIsLostOverManyRuns(t *testing.T) {
	t.Parallel()
	const takes = 4 * time.Second
	for offset := range 8 {
		in := workflows.SubscriptionLifecycleInput{CustomerID: theCustomer, ContinueAfter: 2}
		unanswered, runs := false, 0
		for runs < 6 {
			runs++
			l := newLifecycle(t, script{
				recordTakes: func(int) time.Duration { unanswered = false; return takes },
				record:      looks(live()),
			})
			for i := range 4 {
				l.at(time.Duration(offset)*time.Second/2+time.Duration(i)*3*time.Second, func() {
					if l.IsWorkflowCompleted() {
						return
					}
					unanswered = true
					l.SignalWorkflow(workflows.SignalPoke, nil)
				})
			}
			l.runWith(in)
			_, in = continued[workflows.SubscriptionLifecycleInput](l.stage)
			if unanswered && !in.Carried.Due {
				t.Fatalf("offset %d, run %d: a poke is unanswered and no look is owed", offset, runs)
			}
		}
	}
}
