package workflows_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// userRun is a user's run on a stage.
type userRun struct {
	*stage
	sync    *performance[activities.UserInput]
	ensure  *performance[activities.UserInput]
	undo    *performance[activities.UndoInput]
	erase   *performance[activities.UserInput]
	publish *performance[activities.PublishInput]
	expired []time.Duration
}

// userScript says how the activities of a user answer. What is left out answers at once: a
// customer that is there, a user who is erased.
type userScript struct {
	syncTakes, ensureTakes, publishTakes func(n int) time.Duration
	sync                                 func(n int, in activities.UserInput) (activities.UserResult, error)
	ensure                               func(n int, in activities.UserInput) (activities.CustomerResult, error)
	undo                                 func(n int, in activities.UndoInput) (activities.UndoResult, error)
	erase                                func(n int, in activities.UserInput) (activities.EraseResult, error)
	publish                              func(n int, in activities.PublishInput) (activities.PublishResult, error)
	expire                               func(n int) error
}

func newUserRun(t *testing.T, p userScript) *userRun {
	t.Helper()
	if p.ensure == nil {
		p.ensure = inTurn[activities.UserInput](activities.CustomerResult{CustomerID: theCustomer})
	}
	if p.undo == nil {
		p.undo = inTurn[activities.UndoInput](activities.UndoResult{Outcome: "deleted"})
	}
	if p.erase == nil {
		p.erase = inTurn[activities.UserInput](activities.EraseResult{Erased: true})
	}
	if p.publish == nil {
		p.publish = inTurn[activities.PublishInput](activities.PublishResult{Version: 1})
	}
	var c cast
	u := &userRun{stage: newStage(t)}
	u.sync = play(u.stage, c.users.SyncUser, p.syncTakes, p.sync)
	u.ensure = play(u.stage, c.customers.EnsureStripeCustomer, p.ensureTakes, p.ensure)
	u.undo = play(u.stage, c.customers.UndoStripeCustomer, nil, p.undo)
	u.erase = play(u.stage, c.users.EraseUser, nil, p.erase)
	u.publish = play(u.stage, c.projections.PublishProjection, p.publishTakes, p.publish)
	u.OnActivity(c.customers.ExpireCheckouts, anything, anything).Maybe().Return(func(context.Context, activities.UserInput) error {
		u.expired = append(u.expired, u.Now().Sub(opening()).Truncate(time.Second))
		if p.expire == nil {
			return nil
		}
		return p.expire(len(u.expired) - 1)
	})
	return u
}

func (u *userRun) run(workflow any) {
	u.ExecuteWorkflow(workflow, workflows.UserWorkflowInput{ClerkUserID: theUser})
}

func (u *userRun) state() workflows.UserState {
	u.t.Helper()
	return ask[workflows.UserState](u.stage, workflows.QueryState)
}

// What a look at a user finds.
func settled() activities.UserResult {
	return activities.UserResult{Outcome: activities.OutcomeSynced, Onboarded: true}
}

func unknown() activities.UserResult {
	return activities.UserResult{Outcome: activities.OutcomeSynced, CustomerDue: true}
}

func deleting() activities.UserResult {
	return activities.UserResult{Outcome: activities.OutcomeSynced, Deleting: true}
}

func deleted() activities.UserResult {
	return activities.UserResult{Outcome: activities.OutcomeDeleted, Deleting: true}
}

func missing() activities.UserResult {
	return activities.UserResult{Outcome: activities.OutcomeMissing}
}

func users(results ...activities.UserResult) func(int, activities.UserInput) (activities.UserResult, error) {
	return inTurn[activities.UserInput](results...)
}

func TestOnboardingEndsWithACustomerAndTheProjection(t *testing.T) {
	t.Parallel()
	u := newUserRun(t, userScript{sync: users(unknown()),
		ensure: inTurn[activities.UserInput](activities.CustomerResult{CustomerID: theCustomer, PublishDue: true})})
	u.run(workflows.UserOnboarding)
	u.finished()
	equal(t, "customers", u.ensure.times(), 1)
	equal(t, "undone", u.undo.times(), 0)
	equal(t, "publishes", u.publish.given(), []activities.PublishInput{{ClerkUserID: theUser}})
	state := u.state()
	equal(t, "state", state, workflows.UserState{ClerkUserID: theUser, Doing: "done", Outcome: activities.OutcomeSynced, CustomerID: theCustomer, Looks: 1})
	if text := u.details(); !strings.Contains(text, "`user_1`: done. Customer `cus_1`.") {
		t.Errorf("details: %q", text)
	}
}

func TestAProfileSyncDoesOnlyWhatIsDue(t *testing.T) {
	t.Parallel()
	profile, metadata, wiped := settled(), settled(), settled()
	profile.CustomerDue, metadata.PublishDue, wiped.PublishForced = true, true, true
	for name, c := range map[string]struct {
		found     activities.UserResult
		customers int
		publishes []activities.PublishInput
	}{
		"nothing":         {found: settled()},
		"profile":         {found: profile, customers: 1},
		"metadata":        {found: metadata, publishes: []activities.PublishInput{{ClerkUserID: theUser}}},
		"metadata forced": {found: wiped, publishes: []activities.PublishInput{{ClerkUserID: theUser, Forced: true}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUserRun(t, userScript{sync: users(c.found)})
			u.run(workflows.UserProfileSync)
			u.finished()
			equal(t, "looks", u.sync.times(), 1)
			equal(t, "customers", u.ensure.times(), c.customers)
			equal(t, "publishes", u.publish.given(), c.publishes)
		})
	}
}

// The type of a run is what the user's state calls for: deleted over created over updated.
// Whatever type a run has, it goes up and never down.
func TestARunContinuesAsTheTypeOfItsJob(t *testing.T) {
	t.Parallel()
	types := []any{workflows.UserProfileSync, workflows.UserOnboarding, workflows.UserOffboarding}
	names := []string{"UserProfileSync", "UserOnboarding", "UserOffboarding"}
	for found, c := range map[string]struct {
		result activities.UserResult
		job    int // index of the type that it calls for
	}{
		"settled": {settled(), 0}, "unknown": {unknown(), 1}, "deleting": {deleting(), 2}, "deleted": {deleted(), 0}, "missing": {missing(), 0},
	} {
		for job, started := range types {
			t.Run(names[job]+" finds "+found, func(t *testing.T) {
				t.Parallel()
				u := newUserRun(t, userScript{sync: users(c.result)})
				u.run(started)
				if c.job <= job {
					u.finished()
					return
				}
				name, next := continued[workflows.UserWorkflowInput](u.stage)
				equal(t, "type", name, names[c.job])
				equal(t, "input", next, workflows.UserWorkflowInput{ClerkUserID: theUser})
				equal(t, "customers made before that", u.ensure.times(), 0)
				equal(t, "erased before that", u.erase.times(), 0)
			})
		}
	}
}

// A run that becomes another begins with a look, so what poked the first is answered by it.
func TestAPokeBeforeAJobSwitchIsAnsweredAfterIt(t *testing.T) {
	t.Parallel()
	u := newUserRun(t, userScript{syncTakes: always(10 * time.Second), sync: users(unknown())})
	u.poke(5 * time.Second)
	u.run(workflows.UserProfileSync)
	_, next := continued[workflows.UserWorkflowInput](u.stage)
	u = newUserRun(t, userScript{sync: users(settled())})
	u.ExecuteWorkflow(workflows.UserOnboarding, next)
	u.finished()
	equal(t, "looks of the next run", u.sync.times(), 1)
}

// The outstanding publish goes along, and as one that may not skip.
func TestAJobSwitchCarriesThePublish(t *testing.T) {
	t.Parallel()
	wiped := settled()
	wiped.PublishForced = true
	u := newUserRun(t, userScript{publishTakes: always(time.Hour), sync: users(wiped, deleting())})
	u.poke(time.Minute)
	u.run(workflows.UserProfileSync)
	name, next := continued[workflows.UserWorkflowInput](u.stage)
	equal(t, "type", name, "UserOffboarding")
	equal(t, "input", next, workflows.UserWorkflowInput{ClerkUserID: theUser, Publish: workflows.PublishPending{Due: true, Forced: true}})

	u = newUserRun(t, userScript{sync: users(deleting())})
	u.ExecuteWorkflow(workflows.UserOffboarding, next)
	u.finished()
	equal(t, "publishes of the next run", u.publish.given(), []activities.PublishInput{{ClerkUserID: theUser, Forced: true}})
}

func TestPokesDuringALookCostOneMore(t *testing.T) {
	t.Parallel()
	u := newUserRun(t, userScript{syncTakes: always(10 * time.Second), sync: users(settled())})
	u.poke(2*time.Second, 4*time.Second, 6*time.Second)
	u.run(workflows.UserProfileSync)
	u.finished()
	equal(t, "looks", u.sync.since(), []time.Duration{0, 10 * time.Second})
}

// A poke that comes while a customer is made, or while Clerk is written, is answered too.
func TestAUsersPokeIsAnsweredWhateverIsUnderWay(t *testing.T) {
	t.Parallel()
	for moment := range 20 {
		u := newUserRun(t, userScript{
			syncTakes: always(3 * time.Second), ensureTakes: always(3 * time.Second), publishTakes: always(3 * time.Second), sync: users(unknown()),
			ensure: inTurn[activities.UserInput](activities.CustomerResult{CustomerID: theCustomer, PublishDue: true}),
		})
		at := time.Duration(moment) * time.Second / 2
		u.poke(at)
		u.run(workflows.UserOnboarding)
		u.finished()
		began := u.sync.since()
		if last := began[len(began)-1]; at < 9*time.Second && last < at.Truncate(time.Second) {
			t.Errorf("poked at %s, last look at %s", at, last)
		}
	}
}

func TestAStreamOfPokesDoesNotKeepAUsersRunFromContinuing(t *testing.T) {
	t.Parallel()
	u := newUserRun(t, userScript{syncTakes: always(10 * time.Second), sync: users(settled())})
	for at := 5 * time.Second; at < 10*time.Minute; at += 5 * time.Second {
		u.poke(at)
	}
	u.ExecuteWorkflow(workflows.UserProfileSync, workflows.UserWorkflowInput{ClerkUserID: theUser, ContinueAfter: 3})
	name, _ := continued[workflows.UserWorkflowInput](u.stage)
	equal(t, "type", name, "UserProfileSync")
	equal(t, "looks", u.sync.times(), 3)
}

// A customer who names this user is about to be linked by its own workflow, which pokes.
func TestAClaimedUserGetsNoSecondCustomer(t *testing.T) {
	t.Parallel()
	claimed := unknown()
	claimed.Claimed = true
	linked := settled()
	linked.PublishDue = true
	u := newUserRun(t, userScript{
		syncTakes: always(10 * time.Second), sync: users(claimed, linked),
		ensure: inTurn[activities.UserInput](activities.CustomerResult{Claimed: true}),
	})
	u.poke(5 * time.Second)
	u.run(workflows.UserOnboarding)
	u.finished()
	equal(t, "undone", u.undo.times(), 0)
	equal(t, "looks", u.sync.times(), 2)
	equal(t, "publishes", u.publish.times(), 1)
}

// A user whom Clerk does not know is nothing to wait for: the run ends, and nothing is made,
// erased or written.
func TestAMissingUserEndsTheRun(t *testing.T) {
	t.Parallel()
	u := newUserRun(t, userScript{sync: users(missing())})
	u.run(workflows.UserOnboarding)
	u.finished()
	equal(t, "all that was done", []int{u.sync.times(), u.ensure.times(), u.erase.times(), u.publish.times()}, []int{1, 0, 0, 0})
}

// --- Undo -------------------------------------------------------------------------------------------

// The mark came while the customer was made: it is undone, by this run or, where that has not come
// to its end, by the next one, and the run looks again and becomes the one that deletes.
func TestADeletionDuringOnboardingIsSeen(t *testing.T) {
	t.Parallel()
	u := newUserRun(t, userScript{sync: users(unknown(), deleting()),
		ensure: inTurn[activities.UserInput](activities.CustomerResult{Undo: theCustomer, Deleting: true})})
	u.run(workflows.UserOnboarding)
	name, next := continued[workflows.UserWorkflowInput](u.stage)
	equal(t, "type", name, "UserOffboarding")
	if len(next.Undo) == 0 {
		equal(t, "undone", u.undo.given(), []activities.UndoInput{{ClerkUserID: theUser, CustomerID: theCustomer}})
	} else {
		equal(t, "left to the next run", next.Undo, []string{theCustomer})
	}
	equal(t, "looks", u.sync.times(), 2)
}

// Another customer came first: ours is undone, theirs is the user's.
func TestASuperfluousCustomerIsUndone(t *testing.T) {
	t.Parallel()
	u := newUserRun(t, userScript{sync: users(unknown()),
		ensure: inTurn[activities.UserInput](activities.CustomerResult{CustomerID: "cus_theirs", Undo: theCustomer, PublishDue: true})})
	u.run(workflows.UserOnboarding)
	u.finished()
	equal(t, "undone", u.undo.given(), []activities.UndoInput{{ClerkUserID: theUser, CustomerID: theCustomer}})
	equal(t, "customer", u.state().CustomerID, "cus_theirs")
	equal(t, "publishes", u.publish.times(), 1)
}

func TestAnUndoThatFailsForGoodIsSaid(t *testing.T) {
	t.Parallel()
	u := newUserRun(t, userScript{sync: users(unknown()),
		ensure: inTurn[activities.UserInput](activities.CustomerResult{CustomerID: "cus_theirs", Undo: theCustomer}),
		undo: func(int, activities.UndoInput) (activities.UndoResult, error) {
			return activities.UndoResult{}, permanently()
		}})
	u.run(workflows.UserOnboarding)
	u.finished()
	equal(t, "failure", u.state().LastFailure, "undoing the customer: permanent")
}

// An undo that has begun is not ended by cancelling the run.
func TestACancelledRunStillUndoes(t *testing.T) {
	t.Parallel()
	u := newUserRun(t, userScript{sync: users(unknown()),
		ensure: inTurn[activities.UserInput](activities.CustomerResult{Undo: theCustomer, CustomerID: "cus_theirs"}),
		undo: func(n int, _ activities.UndoInput) (activities.UndoResult, error) {
			if n < 3 {
				return activities.UndoResult{}, temporal.NewApplicationError("stripe: delete customer: http_503 (transient, HTTP 503)", "transient")
			}
			return activities.UndoResult{Outcome: "deleted"}, nil
		}})
	u.at(2*time.Second, u.CancelWorkflow)
	u.run(workflows.UserOnboarding)
	if !temporal.IsCanceledError(u.GetWorkflowError()) {
		t.Errorf("the run ended with %v", u.GetWorkflowError())
	}
	equal(t, "attempts to undo", u.undo.times(), 4)
}

// --- Failures ---------------------------------------------------------------------------------------

func TestAUserWhoCannotBeReadEndsTheRun(t *testing.T) {
	t.Parallel()
	u := newUserRun(t, userScript{sync: func(int, activities.UserInput) (activities.UserResult, error) {
		return activities.UserResult{}, permanently()
	}})
	u.run(workflows.UserOnboarding)
	u.finished()
	equal(t, "failure", u.state().LastFailure, "reading the user: permanent")
	if text := u.details(); !strings.Contains(text, "Failed: reading the user: permanent.") {
		t.Errorf("details: %q", text)
	}
}

// What can still be done for a user whose customer cannot be made is done.
func TestACustomerWhoCannotBeMadeDoesNotHoldUpThePublish(t *testing.T) {
	t.Parallel()
	due := unknown()
	due.PublishDue = true
	u := newUserRun(t, userScript{sync: users(due), ensure: func(int, activities.UserInput) (activities.CustomerResult, error) {
		return activities.CustomerResult{}, permanently()
	}})
	u.run(workflows.UserOnboarding)
	u.finished()
	equal(t, "publishes", u.publish.times(), 1)
	equal(t, "failure", u.state().LastFailure, "ensuring the customer: permanent")
}

func TestACancelledUsersRunSaysSo(t *testing.T) {
	t.Parallel()
	u := newUserRun(t, userScript{syncTakes: always(10 * time.Second), sync: users(settled())})
	u.at(5*time.Second, u.CancelWorkflow)
	u.run(workflows.UserProfileSync)
	if !temporal.IsCanceledError(u.GetWorkflowError()) {
		t.Errorf("the run ended with %v", u.GetWorkflowError())
	}
}
