package workflows

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// UserWorkflowInput names the user and carries what a run hands to the next.
type UserWorkflowInput struct {
	ClerkUserID string `json:"clerkUserId"`
	// Publish is set by continue-as-new and by nobody else, as is Undo: customers that were made in
	// vain and are still there.
	Publish PublishPending `json:"publish,omitzero"`
	Undo    []string       `json:"undo,omitempty"`
	// ExpiringSince is handed on in the same way: when open checkouts of a deleted user could not be
	// expired first, which somebody has to come back to though the user is erased by now.
	ExpiringSince time.Time `json:"expiringSince,omitzero"`
	// ContinueAfter makes a run continue as new after so many looks; zero leaves it to the
	// server. For tests.
	ContinueAfter int `json:"continueAfter,omitempty"`
}

// UserState is what the state query answers.
type UserState struct {
	ClerkUserID string             `json:"clerkUserId"`
	Doing       string             `json:"doing"`
	Outcome     activities.Outcome `json:"outcome,omitempty"`
	CustomerID  string             `json:"customerId,omitempty"`
	Deleting    bool               `json:"deleting"`
	Unsettled   int                `json:"unsettled,omitempty"`
	// Open says what may still bill a user who is being deleted.
	Open        []activities.OpenCustomer `json:"open,omitempty"`
	Publishing  bool                      `json:"publishing"`
	Looks       int                       `json:"looks"`
	LastFailure string                    `json:"lastFailure,omitempty"`
}

// UserOnboarding brings a new user to a customer at Stripe and the projection at Clerk. What it
// made and could not link it undoes.
func UserOnboarding(ctx workflow.Context, in UserWorkflowInput) error {
	return runUser(ctx, account.JobOnboard, in)
}

// UserProfileSync brings our copy, the customers at Stripe and the metadata at Clerk to what
// Clerk says of a user.
func UserProfileSync(ctx workflow.Context, in UserWorkflowInput) error {
	return runUser(ctx, account.JobSync, in)
}

// UserOffboarding stops the billing of a deleted user as configured and then erases their
// personal data.
func UserOffboarding(ctx workflow.Context, in UserWorkflowInput) error {
	return runUser(ctx, account.JobOffboard, in)
}

// UserWorkflowID is the id of a user's workflow, whatever it is doing.
func UserWorkflowID(clerkUserID string) string { return string(account.UserEntity(clerkUserID)) }

// runUser is the one entity behind the three workflow types. A poke does not look at the type
// of the run that it finds, so a run that meets a higher job drains and continues as new as
// that: deleted wins over created wins over updated.
func runUser(ctx workflow.Context, job account.Job, in UserWorkflowInput) error {
	u, err := newUserRun(ctx, job, in)
	if err != nil {
		return err
	}
	for {
		switch {
		case ctx.Err() != nil:
			return u.cancelled(ctx)
		case u.settled():
			return nil
		case u.full(ctx):
			// Before what is due: the next run begins by looking anyway.
			return u.continueAs(ctx, u.job)
		case u.due || u.pokes.waiting() || u.alarm.fired:
			if next := u.look(ctx); next > u.job {
				return u.continueAs(ctx, next)
			}
		default:
			// Until something happens: a poke, a publish that ends, the next try to erase.
			if err := workflow.Await(ctx, func() bool {
				return u.pokes.waiting() || u.alarm.fired || u.settled() || u.full(ctx)
			}); err != nil {
				return u.cancelled(ctx)
			}
		}
	}
}

type userRun struct {
	in        UserWorkflowInput
	job       account.Job
	state     UserState
	pokes     pokes
	alarm     alarm
	publisher publisher
	set       activitySet
	due       bool
	// offboarding is set while customers of a deleted user have to be settled.
	offboarding bool
	expired     bool
	// expiringSince is when open checkouts could not be expired first.
	expiringSince time.Time
	tries         int
	// reading is the look at the user that is under way, and reads is how it was begun anew.
	reading sleeper
	reads   repeats
	// ensuring is what is done at Stripe, and ensures is how it was begun anew.
	ensuring sleeper
	ensures  repeats
	// ensured is how many urgent pokes there were when it began.
	ensured int
	// undoing are customers that were made in vain, while they are being removed.
	undoing []string
}

func newUserRun(ctx workflow.Context, job account.Job, in UserWorkflowInput) (*userRun, error) {
	u := &userRun{in: in, job: job, pokes: receivePokes(ctx), due: true, state: UserState{ClerkUserID: in.ClerkUserID}}
	u.reading.hurry, u.reading.wanted, u.reading.forget = u.pokes.hurry, u.pokes.press, u.pokes.forget
	u.ensuring.wanted = func() bool { return u.pokes.urgentSoFar() > u.ensured }
	u.ensuring.forget = func() { u.ensured = u.pokes.urgentSoFar() }
	if err := workflow.SetQueryHandler(ctx, QueryState, func() (UserState, error) {
		u.state.Publishing = u.publisher.running
		return u.state, nil
	}); err != nil {
		return nil, fmt.Errorf("setting the state query: %w", err)
	}
	if in.Publish.Due {
		u.publisher.ask(ctx, in.ClerkUserID, in.Publish.Forced)
	}
	for _, id := range in.Undo {
		u.undo(ctx, id)
	}
	u.expiringSince, u.offboarding = in.ExpiringSince, !in.ExpiringSince.IsZero()
	return u, nil
}

// look reads the user once and does what follows from it. It answers the job that the user's
// state calls for.
func (u *userRun) look(ctx workflow.Context) account.Job {
	u.alarm.set(ctx, time.Time{})
	result, err := u.read(ctx)
	if err != nil {
		if u.offboarding {
			u.eraseLater(ctx)
		}
		return u.job
	}
	job := u.jobOf(result)
	switch {
	case job > u.job:
		return job
	case result.Outcome == activities.OutcomeDeleted && (u.offboarding && !u.expired || result.CheckoutsDue):
		u.expired = u.expired && !result.CheckoutsDue
		u.offboard(ctx)
		return u.job
	case result.Outcome == activities.OutcomeDeleted, result.Outcome == activities.OutcomeMissing:
		u.offboarding = false
		u.doing(ctx, "done")
		return u.job
	case result.Deleting:
		u.expired = u.expired && !result.CheckoutsDue
		u.offboard(ctx)
		return u.job
	case result.CheckoutsDue && expiresNoted(ctx):
		// Only the product has asked for the deletion: nothing is sold, and nothing erased. What could
		// not be expired the sweep comes back to.
		_ = u.expireCheckouts(ctx)
	case result.CustomerDue:
		published := u.publishBeside(ctx, result)
		due, job := u.ensureCustomer(ctx, result.Existing)
		if job > u.job {
			return job
		}
		if published {
			due, result.PublishDue, result.PublishForced = false, false, false
		}
		result.PublishDue = due || result.PublishDue
	}
	if result.PublishDue || result.PublishForced {
		publishing := u.prioritized(ctx)
		if result.Awaited {
			publishing = awaited(publishing)
		}
		u.publisher.ask(publishing, u.in.ClerkUserID, result.PublishForced)
	}
	u.doing(ctx, "done")
	return u.job
}

// read has the user read and what that shows stored. A failure is one that no attempt can mend.
func (u *userRun) read(ctx workflow.Context) (result activities.UserResult, err error) {
	u.state.Looks++
	u.doing(ctx, "reading the user")
	in := activities.UserInput{ClerkUserID: u.in.ClerkUserID}
	for roused := true; roused; {
		u.pokes.drain()
		u.due = false
		roused, err = u.reading.execute(u.prioritized(onClerk(ctx)), &u.reads, &result, u.set.users.SyncUser, in)
	}
	if err != nil {
		u.fail(ctx, "reading the user", err)
		return result, err
	}
	u.state.Outcome, u.state.Deleting, u.state.LastFailure = result.Outcome, result.Deleting, ""
	return result, nil
}

// publishBeside has Clerk repaired, or told of what the user's customers hold, beside what is done
// at Stripe: it must not wait for that. Only who has no customer yet is not told of anything before
// there is one. It answers whether it has asked for it.
func (u *userRun) publishBeside(ctx workflow.Context, result activities.UserResult) bool {
	if !result.PublishForced && (!result.PublishDue || !result.Onboarded) || !overtakes(ctx) {
		return false
	}
	u.publisher.ask(u.prioritized(ctx), u.in.ClerkUserID, result.PublishForced)
	return true
}

// changeOvertaking is the change that lets what is more important overtake what is under way at
// Stripe. A run that was there before goes on without, until it continues as new. It is asked for
// its version only when it matters.
const changeOvertaking = "overtaking"

func overtakes(ctx workflow.Context) bool {
	return workflow.GetVersion(ctx, changeOvertaking, workflow.DefaultVersion, 1) != workflow.DefaultVersion
}

// prioritized has what is done for a user who is new done before what follows of a wave of
// renewals: each of them changes the user's metadata, of which Clerk tells again.
func (u *userRun) prioritized(ctx workflow.Context) workflow.Context {
	switch u.job {
	case account.JobOnboard:
		return prioritized(ctx, activities.PriorityNew, "new")
	case account.JobSync:
		return prioritized(ctx, activities.PriorityKnown, "known")
	default:
		return ctx
	}
}

func (u *userRun) jobOf(result activities.UserResult) account.Job {
	switch {
	case result.Deleting && result.Outcome != activities.OutcomeDeleted:
		return account.JobOffboard
	case result.Outcome == activities.OutcomeSynced && !result.Deleting && !result.Onboarded:
		return account.JobOnboard
	default:
		return account.JobSync
	}
}

// ensureCustomer gives the user a customer, or their customers the user's name and email. A
// customer that was made in vain is undone. It answers the job that the user's state calls for by
// then: one that is more important ends what is under way.
func (u *userRun) ensureCustomer(ctx workflow.Context, existing bool) (publishDue bool, job account.Job) {
	const what = "bringing the Stripe customer up to date"
	u.doing(ctx, what)
	var result activities.CustomerResult
	in := activities.UserInput{ClerkUserID: u.in.ClerkUserID, Existing: existing, Again: u.ensures.inARow > 0}
	// Whoever ends it waits for the attempt that is under way, which is told so within seconds: it may
	// have made what is to be undone.
	waiting, end := workflow.WithCancel(u.prioritized(workflow.WithWaitForCancellation(onStripe(ctx), true)))
	defer end()
	u.ensuring.begin(ctx, end, &u.ensures)
	u.ensuring.forget() // whoever waits by now has it tried at once
	ensuring := workflow.ExecuteActivity(waiting, u.set.customers.EnsureStripeCustomer, in)
	workflow.Go(waiting, func(ctx workflow.Context) { u.ensuring.attend(ctx, ensuring) })
	job, overtaken := u.untilOvertaken(ctx, ensuring)
	if overtaken {
		end()
	} else {
		u.doing(ctx, what)
	}
	err := ensuring.Get(ctx, &result)
	roused := u.ensuring.end(ctx, err)
	u.due = u.due || roused
	switch {
	case roused, err != nil && overtaken && temporal.IsCanceledError(err):
		return false, job
	case err != nil:
		u.fail(ctx, "ensuring the customer", err)
		return false, job
	}
	if result.Undo != "" {
		u.undo(ctx, result.Undo)
	}
	if result.Deleting {
		u.due = true // the mark came meanwhile: look again, as another job
	}
	u.state.CustomerID = result.CustomerID
	return result.PublishDue, job
}

// overtakenAfter is how long what is under way at Stripe may last on, once somebody pokes, before
// the user is looked at beside it. As a rule it is over by then, and the look comes behind it.
const overtakenAfter = 3 * time.Second

// untilOvertaken waits for what is under way at Stripe, which can be tried for as long as Stripe is
// gone, and looks at the user meanwhile when somebody pokes. overtaken is set where that shows that
// there is nothing to be done at Stripe any more, since the user is being deleted, and where it
// sleeps until its next attempt while somebody waits: it is begun anew then, behind another look.
// Anything else that a look shows is seen to when Stripe is done, but for a repair of Clerk.
func (u *userRun) untilOvertaken(ctx workflow.Context, underWay workflow.Future) (job account.Job, overtaken bool) {
	for {
		err := workflow.Await(ctx, func() bool { return underWay.IsReady() || u.pokes.waiting() })
		if err != nil || underWay.IsReady() || !overtakes(ctx) {
			return u.job, false
		}
		if u.pokes.hurry() && u.ensuring.rouse(ctx, changeHurry) {
			u.due = true
			return u.job, true
		}
		if over, err := workflow.AwaitWithTimeout(ctx, overtakenAfter, underWay.IsReady); err != nil || over {
			return u.job, false
		}
		if u.full(ctx) {
			u.due = true
			return u.job, true // the next run begins it anew
		}
		result, err := u.read(ctx)
		if err != nil {
			u.due = true
			continue
		}
		if result.Deleting || result.Outcome == activities.OutcomeDeleted {
			u.due = true // where the run is the one that deletes already
			return max(u.job, u.jobOf(result)), true
		}
		u.due = u.due || result.CustomerDue || result.PublishDue
		if result.PublishForced {
			u.publisher.ask(u.prioritized(ctx), u.in.ClerkUserID, true)
		}
	}
}

// undo removes a customer that was made in vain, beside everything else: Stripe may be gone for as
// long as it likes. A cancelled run sees to it all the same, and one that continues as new hands it
// on.
func (u *userRun) undo(ctx workflow.Context, customerID string) {
	u.undoing = append(u.undoing, customerID)
	remove := func(ctx workflow.Context) {
		disconnected, cancel := workflow.NewDisconnectedContext(ctx)
		defer cancel()
		in := activities.UndoInput{ClerkUserID: u.in.ClerkUserID, CustomerID: customerID}
		if err := workflow.ExecuteActivity(onStripe(disconnected), u.set.customers.UndoStripeCustomer, in).Get(disconnected, nil); err != nil {
			u.fail(disconnected, "undoing the customer", err)
		}
		u.undoing = slices.DeleteFunc(u.undoing, func(id string) bool { return id == customerID })
	}
	if !overtakes(ctx) {
		remove(ctx)
		return
	}
	workflow.Go(ctx, remove)
}

// cancelled ends a cancelled run, which says so, whatever it was doing.
func (u *userRun) cancelled(ctx workflow.Context) error {
	disconnected, done := workflow.NewDisconnectedContext(ctx)
	defer done()
	if err := workflow.Await(disconnected, func() bool { return len(u.undoing) == 0 }); err != nil {
		return err
	}
	return ctx.Err()
}

// The pauses between two tries to erase, while customers are not settled. Each customer that
// is settled pokes; the pauses only cover a poke that got lost.
const (
	firstEraseRetry = time.Minute
	lastEraseRetry  = time.Hour
)

// changeExpireAgain is the change that made a run come back to checkouts that could not be expired.
const changeExpireAgain = "expire-again"

// expiringPatience is how long one try to expire open checkouts lasts, in which Stripe is asked
// some eight times.
const expiringPatience = 2 * time.Minute

// checkoutsLast is how long a checkout is open at most: after that it needs nobody to expire it.
const checkoutsLast = 24 * time.Hour

// expiredByNow tells whether checkouts that could not be expired have ended by themselves. Until
// then the run comes back to them.
func (u *userRun) expiredByNow(ctx workflow.Context) bool {
	if workflow.GetVersion(ctx, changeExpireAgain, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return true
	}
	if u.expiringSince.IsZero() {
		u.expiringSince = workflow.Now(ctx)
	}
	return workflow.Now(ctx).Sub(u.expiringSince) > checkoutsLast
}

// offboard stops what can still be bought and erases the user once every customer is settled.
// The customers' own workflows apply the policy; the mark that they go by is committed.
func (u *userRun) offboard(ctx workflow.Context) {
	in := activities.UserInput{ClerkUserID: u.in.ClerkUserID}
	u.offboarding = true
	if !u.expired {
		err := u.expireCheckouts(ctx)
		if u.expired = err == nil || u.expiredByNow(ctx); u.expired {
			u.expiringSince = time.Time{}
		}
	}
	u.doing(ctx, "waiting for every customer's billing to be stopped")
	var result activities.EraseResult
	if err := workflow.ExecuteActivity(onDatabase(ctx), u.set.users.EraseUser, in).Get(ctx, &result); err != nil {
		u.fail(ctx, "erasing the user", err)
	}
	u.state.Unsettled, u.state.Open = result.Unsettled, result.Open
	if result.Erased && u.expired {
		u.offboarding = false
		u.alarm.set(ctx, time.Time{})
		u.doing(ctx, "done")
		return
	}
	u.eraseLater(ctx)
	u.describe(ctx)
}

// expireCheckouts closes what the user could still buy. A checkout that completes all the same is
// covered by the policy in every sync. What is not settled must not wait for Stripe to list
// checkouts: after a while it is given up, and come back to.
func (u *userRun) expireCheckouts(ctx workflow.Context) error {
	u.doing(ctx, "expiring open checkouts")
	in := activities.UserInput{ClerkUserID: u.in.ClerkUserID}
	expiring := workflow.WithScheduleToCloseTimeout(onStripe(ctx), expiringPatience)
	err := workflow.ExecuteActivity(expiring, u.set.customers.ExpireCheckouts, in).Get(ctx, nil)
	if err != nil {
		u.fail(ctx, "expiring checkouts", err)
	}
	return err
}

// changeExpireNoted is the change that closes the checkouts of users whose deletion only the
// product has asked for. It is asked for its version only when it matters.
const changeExpireNoted = "expire-noted"

func expiresNoted(ctx workflow.Context) bool {
	return workflow.GetVersion(ctx, changeExpireNoted, workflow.DefaultVersion, 1) != workflow.DefaultVersion
}

// eraseLater sets the next try.
func (u *userRun) eraseLater(ctx workflow.Context) {
	pause := min(firstEraseRetry<<min(u.tries, 6), lastEraseRetry)
	u.tries++
	u.alarm.set(ctx, workflow.Now(ctx).Add(pause))
}

func (u *userRun) fail(ctx workflow.Context, what string, err error) {
	if ctx.Err() != nil && temporal.IsCanceledError(err) {
		return // cancelled, which is no failure
	}
	u.state.LastFailure = what + ": " + failureType(err)
	workflow.GetLogger(ctx).Error("a step failed for good", "user", u.in.ClerkUserID, "step", what, "error", err)
	u.describe(ctx)
}

func (u *userRun) settled() bool {
	return !u.due && !u.pokes.waiting() && !u.offboarding && !u.alarm.fired && !u.publisher.running && len(u.undoing) == 0
}

func (u *userRun) full(ctx workflow.Context) bool {
	if u.state.Looks == 0 {
		return false // a run that has done nothing yet has nothing to hand on
	}
	return workflow.GetInfo(ctx).GetContinueAsNewSuggested() || u.in.ContinueAfter > 0 && u.state.Looks >= u.in.ContinueAfter
}

// continueAs starts the next run as the type of its job. Nothing but an outstanding publish, and
// what is to be undone, is carried: the next run begins by looking.
func (u *userRun) continueAs(ctx workflow.Context, job account.Job) error {
	next := u.in
	next.Publish, next.Undo = u.publisher.pending(), u.undoing
	next.ExpiringSince = time.Time{}
	if u.offboarding && !u.expired {
		next.ExpiringSince = u.expiringSince
	}
	switch job {
	case account.JobOffboard:
		return workflow.NewContinueAsNewError(ctx, UserOffboarding, next)
	case account.JobOnboard:
		return workflow.NewContinueAsNewError(ctx, UserOnboarding, next)
	case account.JobSync:
		return workflow.NewContinueAsNewError(ctx, UserProfileSync, next)
	default:
		return workflow.NewContinueAsNewError(ctx, UserProfileSync, next)
	}
}

func (u *userRun) doing(ctx workflow.Context, what string) {
	u.state.Doing = what
	u.describe(ctx)
}

func (u *userRun) describe(ctx workflow.Context) {
	text := []string{fmt.Sprintf("User `%s`: %s.", u.in.ClerkUserID, u.state.Doing)}
	if u.state.CustomerID != "" {
		text = append(text, fmt.Sprintf("Customer `%s`.", u.state.CustomerID))
	}
	if u.state.Unsettled > 0 {
		text = append(text, fmt.Sprintf("Customers not settled yet: %d.", u.state.Unsettled))
	}
	for _, c := range u.state.Open {
		text = append(text, unsettledText(c))
	}
	if u.state.LastFailure != "" {
		text = append(text, "Failed: "+u.state.LastFailure+".")
	}
	workflow.SetCurrentDetails(ctx, strings.Join(text, " "))
}

// unsettledText says why a customer of a deleted user is not settled.
func unsettledText(c activities.OpenCustomer) string {
	var why []string
	if c.Unread {
		why = append(why, "not read since the deletion was asked for")
	}
	if len(c.Running) > 0 {
		why = append(why, "to be stopped: "+strings.Join(c.Running, ", "))
	}
	if c.Charges > 0 {
		why = append(why, fmt.Sprintf("invoices and invoice items that Stripe would collect: %d", c.Charges))
	}
	if len(c.Missing) > 0 {
		why = append(why, "missing at Stripe, not confirmed yet: "+strings.Join(c.Missing, ", "))
	}
	return fmt.Sprintf("`%s`: %s.", c.CustomerID, strings.Join(why, "; "))
}
