package workflows_test

import (
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// longOutage is longer than Stripe keeps a stored failure.
const longOutage = 30 * time.Hour

// A deletion that is told of while Stripe is asked for something, and does not answer, is seen to
// at once, whatever the run is about: the run looks, ends what is under way and goes on as the one
// that deletes.
func TestADeletionOvertakesWhatStripeHoldsUp(t *testing.T) {
	t.Parallel()
	pushing := settled()
	pushing.CustomerDue = true
	for name, c := range map[string]struct {
		job   any
		found activities.UserResult
		// sees is what the look finds, then whatever there is.
		sees activities.UserResult
		next string
	}{
		"a profile push":              {workflows.UserProfileSync, pushing, deleting(), "UserOffboarding"},
		"an onboarding":               {workflows.UserOnboarding, unknown(), deleting(), "UserOffboarding"},
		"one whom others have erased": {workflows.UserProfileSync, pushing, deleted(), ""},
	} {
		for moment, at := range map[string]time.Duration{"at its start": 0, "a minute later": time.Minute, "hours later": 5 * time.Hour} {
			t.Run(name+", "+moment, func(t *testing.T) {
				t.Parallel()
				u := newUserRun(t, userScript{sync: users(c.found, c.sees), ensureTakes: always(longOutage)})
				u.poke(at + time.Second)
				u.run(c.job)
				if c.next == "" {
					u.finished()
				} else if name, next := continued[workflows.UserWorkflowInput](u.stage); name != c.next || len(next.Undo) > 0 {
					t.Errorf("continued as %s with %+v", name, next)
				}
				if looks := u.sync.since(); len(looks) < 2 || looks[1] > at+10*time.Second {
					t.Errorf("told of after %s, looks at %v", at, looks)
				}
				if took := u.Now().Sub(opening()); took > at+time.Minute {
					t.Errorf("the run took %v", took)
				}
			})
		}
	}
}

// What is told of otherwise while Stripe does not answer ends nothing: it is seen to when Stripe is
// done, by one look for all.
func TestNothingElseOvertakes(t *testing.T) {
	t.Parallel()
	pushing := settled()
	pushing.CustomerDue = true
	u := newUserRun(t, userScript{sync: users(pushing, pushing, settled()), ensureTakes: func(n int) time.Duration {
		return []time.Duration{time.Hour, 0}[min(n, 1)]
	}})
	u.poke(time.Minute, time.Minute+time.Second)
	u.run(workflows.UserProfileSync)
	u.finished()
	equal(t, "looks", u.sync.since(), []time.Duration{0, time.Minute + 3*time.Second, time.Hour})
	equal(t, "customers", u.ensure.times(), 1)
}

// What Stripe does in a moment is waited for: a poke meanwhile costs one look, behind it, and no
// marker in the history.
func TestAPokeDuringAShortCallCostsOneLook(t *testing.T) {
	t.Parallel()
	pushing := settled()
	pushing.CustomerDue = true
	u := newUserRun(t, userScript{sync: users(pushing, settled()), ensureTakes: always(2 * time.Second)})
	u.poke(time.Second)
	u.run(workflows.UserProfileSync)
	u.finished()
	equal(t, "looks", u.sync.since(), []time.Duration{0, 2 * time.Second})
}

// A repair of Clerk, and what Clerk is to be told of somebody's customers, do not wait for Stripe.
func TestClerkIsRepairedWhileStripeDoesNotAnswer(t *testing.T) {
	t.Parallel()
	repair, publish, onboarding := settled(), settled(), unknown()
	repair.CustomerDue, repair.PublishForced = true, true
	publish.CustomerDue, publish.PublishDue = true, true
	onboarding.PublishDue = true
	again := settled()
	again.PublishForced = true
	for name, c := range map[string]struct {
		sees  []activities.UserResult
		poked bool
		want  []activities.PublishInput
		at    []time.Duration
	}{
		"what somebody overwrote": {sees: []activities.UserResult{repair}, want: []activities.PublishInput{{ClerkUserID: theUser, Forced: true}}, at: []time.Duration{0}},
		"what is due":             {sees: []activities.UserResult{publish}, want: []activities.PublishInput{{ClerkUserID: theUser}}, at: []time.Duration{0}},
		"what was overwritten meanwhile": {sees: []activities.UserResult{unknown(), again}, poked: true,
			want: []activities.PublishInput{{ClerkUserID: theUser, Forced: true}}, at: []time.Duration{time.Minute + 3*time.Second}},
		// Who has no customer has nothing to be told of yet, and one write does for both.
		"who has no customer": {sees: []activities.UserResult{onboarding}, want: []activities.PublishInput{{ClerkUserID: theUser}}, at: []time.Duration{longOutage}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUserRun(t, userScript{sync: users(c.sees...), ensureTakes: always(longOutage)})
			if c.poked {
				u.poke(time.Minute)
			}
			u.run(workflows.UserOnboarding)
			u.finished()
			equal(t, "publishes", u.publish.given(), c.want)
			equal(t, "published", u.publish.since(), c.at)
		})
	}
}

// An attempt that was ended tells what it has made in vain, which is undone beside the deletion,
// also where Stripe does not do that for a while.
func TestWhatAnOvertakenAttemptHasMadeIsUndone(t *testing.T) {
	t.Parallel()
	u := newUserRun(t, userScript{sync: users(unknown(), deleting()),
		ensure: inTurn[activities.UserInput](activities.CustomerResult{Undo: theCustomer, Deleting: true}),
		undo: func(n int, _ activities.UndoInput) (activities.UndoResult, error) {
			return activities.UndoResult{}, temporal.NewApplicationError("stripe: delete customer: http_503 (transient, HTTP 503)", "transient")
		}})
	u.run(workflows.UserOnboarding)
	name, next := continued[workflows.UserWorkflowInput](u.stage)
	equal(t, "type", name, "UserOffboarding")
	equal(t, "to be undone", next.Undo, []string{theCustomer})

	u = newUserRun(t, userScript{sync: users(deleting(), deleted()), undo: func(n int, _ activities.UndoInput) (activities.UndoResult, error) {
		if n < 5 {
			return activities.UndoResult{}, temporal.NewApplicationError("stripe: delete customer: http_503 (transient, HTTP 503)", "transient")
		}
		return activities.UndoResult{Outcome: "deleted"}, nil
	}})
	u.ExecuteWorkflow(workflows.UserOffboarding, next)
	u.finished()
	equal(t, "attempts to undo", len(u.undo.given()), 6)
	equal(t, "erased", u.erase.since(), []time.Duration{0})
}

// However often it is poked while Stripe does not answer, a run that is full continues.
func TestARunThatStripeHoldsUpContinuesWhenItIsFull(t *testing.T) {
	t.Parallel()
	pushing := settled()
	pushing.CustomerDue = true
	u := newUserRun(t, userScript{sync: users(pushing), ensureTakes: always(longOutage)})
	for at := time.Minute; at < time.Hour; at += time.Minute {
		u.poke(at)
	}
	u.ExecuteWorkflow(workflows.UserProfileSync, workflows.UserWorkflowInput{ClerkUserID: theUser, ContinueAfter: 5})
	name, _ := continued[workflows.UserWorkflowInput](u.stage)
	equal(t, "type", name, "UserProfileSync")
	equal(t, "looks", u.sync.times(), 5)
}

// A run of the version before goes on as it did.
func TestARunOfTheVersionBeforeIsNotOvertaken(t *testing.T) {
	t.Parallel()
	pushing := settled()
	pushing.CustomerDue, pushing.PublishForced = true, true
	u := newUserRun(t, userScript{sync: users(pushing, settled()), ensureTakes: always(time.Hour)})
	u.OnGetVersion("overtaking", workflow.DefaultVersion, workflow.Version(1)).Return(workflow.DefaultVersion)
	u.poke(time.Minute)
	u.run(workflows.UserProfileSync)
	u.finished()
	equal(t, "looks", u.sync.since(), []time.Duration{0, time.Hour})
	equal(t, "published", u.publish.since(), []time.Duration{time.Hour})
}
