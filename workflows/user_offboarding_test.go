package workflows_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

func erases(results ...activities.EraseResult) func(int, activities.UserInput) (activities.EraseResult, error) {
	return inTurn[activities.UserInput](results...)
}

func unsettled(n int) activities.EraseResult { return activities.EraseResult{Unsettled: n} }

func TestOffboardingErasesAtOnceWhereNothingIsLeft(t *testing.T) {
	t.Parallel()
	u := newUserRun(t, userScript{sync: users(deleting())})
	u.run(workflows.UserOffboarding)
	u.finished()
	equal(t, "expired, erased", []int{len(u.expired), u.erase.times()}, []int{1, 1})
	equal(t, "customers, publishes", []int{u.ensure.times(), u.publish.times()}, []int{0, 0})
	equal(t, "state", u.state(), workflows.UserState{ClerkUserID: theUser, Doing: "done", Outcome: activities.OutcomeSynced, Deleting: true, Looks: 1})
}

// Each settled customer pokes. The last one ends the run.
func TestOffboardingWaitsForEveryCustomer(t *testing.T) {
	t.Parallel()
	u := newUserRun(t, userScript{sync: users(deleting()), erase: erases(unsettled(2), unsettled(1), activities.EraseResult{Erased: true})})
	u.poke(10*time.Second, 20*time.Second)
	u.at(15*time.Second, func() {
		equal(t, "unsettled", u.state().Unsettled, 1)
		if text := u.details(); !strings.Contains(text, "Customers not settled yet: 1.") {
			t.Errorf("details: %q", text)
		}
	})
	u.run(workflows.UserOffboarding)
	u.finished()
	equal(t, "tries", u.erase.since(), []time.Duration{0, 10 * time.Second, 20 * time.Second})
	equal(t, "expired", u.expired, []time.Duration{0})
	equal(t, "unsettled in the end", u.state().Unsettled, 0)
}

// Without any poke it tries by itself, ever more slowly, for as long as it takes.
func TestOffboardingTriesByItself(t *testing.T) {
	t.Parallel()
	results := make([]activities.EraseResult, 10)
	for i := range results {
		results[i] = unsettled(1)
	}
	u := newUserRun(t, userScript{sync: users(deleting()), erase: erases(append(results, activities.EraseResult{Erased: true})...)})
	u.run(workflows.UserOffboarding)
	u.finished()
	tries := u.erase.since()
	if len(tries) != 11 {
		t.Fatalf("%d tries", len(tries))
	}
	var pauses []time.Duration
	for i := range tries[1:] {
		pauses = append(pauses, tries[i+1]-tries[i])
	}
	equal(t, "pauses", pauses, []time.Duration{
		1 * time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 16 * time.Minute, 32 * time.Minute, time.Hour, time.Hour, time.Hour, time.Hour,
	})
}

// Nothing that fails for good on the way may end the wait: a deleted user would be billed on.
func TestOffboardingSurvivesEveryFailure(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]userScript{
		"expiring": {sync: users(deleting()), expire: func(int) error { return permanently() }, erase: erases(unsettled(1), activities.EraseResult{Erased: true})},
		"erasing": {sync: users(deleting()), erase: func(n int, _ activities.UserInput) (activities.EraseResult, error) {
			if n == 0 {
				return activities.EraseResult{}, permanently()
			}
			return activities.EraseResult{Erased: true}, nil
		}},
		"reading": {erase: erases(unsettled(1), activities.EraseResult{Erased: true}), sync: func(n int, _ activities.UserInput) (activities.UserResult, error) {
			if n == 1 {
				return activities.UserResult{}, permanently()
			}
			return deleting(), nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUserRun(t, p)
			u.at(10*day, u.CancelWorkflow) // where it hangs
			u.run(workflows.UserOffboarding)
			u.finished()
			equal(t, "doing", u.state().Doing, "done")
		})
	}
}

// A checkout that could not be expired is come back to, after its user was erased too, until it is,
// or has ended by itself.
func TestOffboardingComesBackToWhatItCouldNotExpire(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		expire func(n int) error
		want   int
		least  time.Duration
	}{
		"refused twice": {expire: func(n int) error {
			if n < 2 {
				return permanently()
			}
			return nil
		}, want: 3},
		"refused for good": {expire: func(int) error { return permanently() }, want: 30, least: 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUserRun(t, userScript{sync: users(deleting(), deleted()), expire: c.expire})
			u.at(10*day, u.CancelWorkflow) // where it does not end
			u.run(workflows.UserOffboarding)
			u.finished()
			if n := len(u.expired); n != c.want || u.expired[n-1] < c.least || u.expired[n-1] > c.least+2*time.Hour {
				t.Errorf("tried at %v, want %d times", u.expired, c.want)
			}
			equal(t, "doing", u.state().Doing, "done")
		})
	}
}

// A run that continues as new meanwhile hands that on.
func TestContinueAsNewCarriesWhatCouldNotBeExpired(t *testing.T) {
	t.Parallel()
	u := newUserRun(t, userScript{sync: users(deleting()), expire: func(int) error { return permanently() }})
	u.ExecuteWorkflow(workflows.UserOffboarding, workflows.UserWorkflowInput{ClerkUserID: theUser, ContinueAfter: 1})
	name, next := continued[workflows.UserWorkflowInput](u.stage)
	equal(t, "type", name, "UserOffboarding")
	equal(t, "since", next.ExpiringSince, after(0))

	// The user is erased by now, and is still come back to.
	u = newUserRun(t, userScript{sync: users(deleted()), expire: func(n int) error {
		if n == 0 {
			return permanently()
		}
		return nil
	}})
	u.ExecuteWorkflow(workflows.UserOffboarding, workflows.UserWorkflowInput{ClerkUserID: theUser, ExpiringSince: next.ExpiringSince})
	u.finished()
	equal(t, "tries", len(u.expired), 2)
}

// A tombstone is not touched again: late events end at once.
func TestAnErasedUserIsLeftAlone(t *testing.T) {
	t.Parallel()
	u := newUserRun(t, userScript{sync: users(deleted())})
	u.run(workflows.UserProfileSync)
	u.finished()
	equal(t, "all that was done", []int{u.sync.times(), u.ensure.times(), u.erase.times(), u.publish.times(), len(u.expired)}, []int{1, 0, 0, 0, 0})
}

// The user was erased by another run, while this one waited.
func TestOffboardingEndsWhenSomebodyElseErased(t *testing.T) {
	t.Parallel()
	u := newUserRun(t, userScript{sync: users(deleting(), deleted()), erase: erases(unsettled(1))})
	u.run(workflows.UserOffboarding)
	u.finished()
	equal(t, "looks", u.sync.since(), []time.Duration{0, time.Minute})
	equal(t, "tries", u.erase.times(), 1)
}

// Open checkouts cannot be listed for hours, which is tried again and again. What is not settled is
// woken and shown meanwhile, and the user is erased once all is; checkouts are come back to for as
// long as one may be open.
func TestWhatIsUnsettledIsWokenThoughCheckoutsCannotBeListed(t *testing.T) {
	t.Parallel()
	u := newUserRun(t, userScript{sync: users(deleting()), expire: func(int) error { return gone() }, erase: erases(unsettled(1), unsettled(1), activities.EraseResult{Erased: true})})
	shown := 0
	u.at(3*time.Minute, func() { shown = u.state().Unsettled })
	u.run(workflows.UserOffboarding)
	u.finished()
	if at := u.erase.since(); at[0] > 3*time.Minute || shown == 0 {
		t.Errorf("what is not settled was woken at %v; shown after three minutes: %d", at, shown)
	}
	if took := u.Now().Sub(opening()); took < day {
		t.Errorf("checkouts were given up after %v", took)
	}
}

// A user whose deletion only the product has asked for, and whom Clerk has, keeps what they are;
// what they could still buy is closed.
func TestCheckoutsOfANotedUserAreClosed(t *testing.T) {
	t.Parallel()
	for name, expire := range map[string]func(int) error{"closed": nil, "not to be closed": func(int) error { return permanently() }} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			noted := activities.UserResult{Outcome: activities.OutcomeSynced, CheckoutsDue: true, Onboarded: true}
			u := newUserRun(t, userScript{sync: users(noted), expire: expire})
			u.run(workflows.UserOffboarding)
			u.finished()
			equal(t, "expired, erased, customers", []int{len(u.expired), u.erase.times(), u.ensure.times()}, []int{1, 0, 0})
		})
	}
}
