package workflows

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// ReconciliationID is the id of the schedule that starts [Reconciliation], and begins those of its
// runs.
const ReconciliationID = "reconciliation"

// OnDemandReconciliationID is the id of the run that somebody asked for. There is one at a time: a
// second would compare the same once more.
const OnDemandReconciliationID = ReconciliationID + "/on-demand"

// ReconciliationInput says what a run is to do, and carries what a run hands to the next.
type ReconciliationInput struct {
	// Caller is who asked for it; "" for a run by schedule.
	Caller string `json:"caller,omitempty"`
	// Repair are the classes of differences to repair; of a run by schedule the configuration says
	// them.
	Repair []account.Drift `json:"repair,omitempty"`
	// Carried is set by continue-as-new and by nobody else.
	Carried *CarriedReconciliation `json:"carried,omitempty"`
	// ContinueAfter makes a run continue as new after so many activities; zero leaves it to the
	// server. For tests.
	ContinueAfter int `json:"continueAfter,omitempty"`
}

// CarriedReconciliation is how far a run has come.
type CarriedReconciliation struct {
	RunID string                        `json:"runId"`
	Plan  activities.ReconciliationPlan `json:"plan"`
	// Step is the number of the step that is under way, After how far it has come.
	Step  int    `json:"step"`
	After string `json:"after,omitempty"`
	// Round counts the second looks, or those at repairs; Look is what the one under way has come to.
	Round int                   `json:"round,omitempty"`
	Look  activities.LookResult `json:"look,omitzero"`
	// Unread is how many entities could not be read in the round before.
	Unread int `json:"unread,omitempty"`
	// Compared counts what was compared of each kind, Found what differed at the first look.
	Compared map[string]int64 `json:"compared,omitempty"`
	Found    int              `json:"found,omitempty"`
	// Confirmed counts the differences of each class, Asked the entities whose repair was asked for.
	Confirmed map[string]int64 `json:"confirmed,omitempty"`
	Asked     int              `json:"asked,omitempty"`
	// Failure is why the comparison is not complete.
	Failure string `json:"failure,omitempty"`
}

// ReconciliationResult is what a run has found and done.
type ReconciliationResult struct {
	RunID     string           `json:"runId"`
	Compared  map[string]int64 `json:"compared,omitempty"`
	Confirmed map[string]int64 `json:"confirmed,omitempty"`
	// Asked counts the entities whose repair was asked for, Unmended the differences among them that
	// were still there when the run ended.
	Asked    int `json:"asked,omitempty"`
	Unmended int `json:"unmended,omitempty"`
	// Unread counts the entities that could not be read by themselves: nothing is said of them.
	Unread int `json:"unread,omitempty"`
}

// reconciliationPatience is how long a page that cannot be read is tried. A comparison that gives
// up closes and repairs nothing.
const reconciliationPatience = 6 * time.Hour

// Reconciliation compares everything that Clerk, Stripe and PostgreSQL hold, page by page; looks
// once more, a little later and by its id, at whatever differed; and tells of what still does. Then
// it has repaired what it was asked to, and looks whether that is mended.
func Reconciliation(ctx workflow.Context, in ReconciliationInput) (ReconciliationResult, error) {
	r, err := newReconciliation(ctx, in)
	if err != nil {
		return ReconciliationResult{}, err
	}
	steps := r.steps()
	for r.at.Step < len(steps) {
		step := steps[r.at.Step]
		r.describe(ctx, step.name)
		complete, err := step.take(ctx)
		r.done++
		switch {
		case ctx.Err() != nil:
			r.abandon(ctx)
			return r.result(), ctx.Err()
		case err != nil && !step.closing:
			r.at.Failure = step.name + ": " + failureType(err)
			r.goTo(len(steps) - 1)
		case err != nil:
			return r.result(), err
		case complete:
			r.goTo(r.at.Step + 1)
		}
		if r.full(ctx) && r.at.Step < len(steps) {
			next := in
			next.Carried = &r.at
			return r.result(), workflow.NewContinueAsNewError(ctx, Reconciliation, next)
		}
	}
	r.describe(ctx, "done")
	if r.at.Failure != "" {
		return r.result(), temporal.NewApplicationError("the comparison is not complete: "+r.at.Failure, "incomplete")
	}
	return r.result(), nil
}

// reconciliation is a run under way.
type reconciliation struct {
	in   ReconciliationInput
	at   CarriedReconciliation
	done int
	set  activitySet
}

// step is one part of a run. Taking it again goes on where it stands, until it is complete.
type step struct {
	name string
	take func(workflow.Context) (complete bool, err error)
	// closing is set for what is done however the run went.
	closing bool
}

func newReconciliation(ctx workflow.Context, in ReconciliationInput) (*reconciliation, error) {
	r := &reconciliation{in: in}
	if in.Carried != nil {
		r.at = *in.Carried
	} else {
		// The same in all runs of a chain, and known to whoever started it.
		r.at.RunID = workflow.GetInfo(ctx).FirstRunID
	}
	if r.at.Compared == nil {
		r.at.Compared = map[string]int64{}
	}
	if err := workflow.SetQueryHandler(ctx, QueryState, func() (ReconciliationResult, error) { return r.result(), nil }); err != nil {
		return nil, fmt.Errorf("setting the state query: %w", err)
	}
	return r, nil
}

func (r *reconciliation) steps() []step {
	set := r.set.reconciler
	scan := func(kind string, on func(workflow.Context) workflow.Context, activity any, list string) step {
		return step{name: "comparing " + kind, take: func(ctx workflow.Context) (bool, error) { return r.scan(ctx, kind, on, activity, list) }}
	}
	return []step{
		{name: "beginning", take: r.begin},
		scan("users", onClerk, set.CompareUsers, ""),
		scan("products", onStripe, set.CompareStripe, activities.ListProducts),
		scan("prices", onStripe, set.CompareStripe, activities.ListPrices),
		scan("customers", onStripe, set.CompareStripe, activities.ListCustomers),
		scan("subscriptions", onStripe, set.CompareStripe, activities.ListSubscriptions),
		scan("watched", onDatabase, set.CompareWatched, ""),
		scan("stored", onDatabase, set.CompareStored, ""),
		{name: "looking once more", take: r.lookAgain},
		{name: "concluding", take: r.conclude},
		{name: "repairing", take: r.repair},
		{name: "looking at repairs", take: r.lookAtRepairs},
		{name: "finishing", take: r.finish, closing: true},
	}
}

func (r *reconciliation) begin(ctx workflow.Context) (bool, error) {
	start := activities.ReconciliationStart{RunID: r.at.RunID, Caller: r.in.Caller, Repair: r.in.Repair}
	err := workflow.ExecuteActivity(r.on(ctx, onDatabase), r.set.reconciler.BeginReconciliation, start).Get(ctx, &r.at.Plan)
	return true, err
}

func (r *reconciliation) scan(ctx workflow.Context, kind string, on func(workflow.Context) workflow.Context, activity any, list string) (bool, error) {
	var result activities.ScanResult
	in := activities.ScanInput{RunID: r.at.RunID, List: list, After: r.at.After}
	if err := workflow.ExecuteActivity(r.on(ctx, on), activity, in).Get(ctx, &result); err != nil {
		return false, err
	}
	r.at.After = result.After
	r.at.Compared[kind] += int64(result.Compared)
	r.at.Found += result.Found
	return result.Complete, nil
}

// lookRounds is how often what was found is looked at once more, while something is under way for
// it.
const lookRounds = 3

// lookAgain waits for what may be on its way, and then looks at everything that differed by its id.
func (r *reconciliation) lookAgain(ctx workflow.Context) (bool, error) {
	if r.at.Found == 0 {
		return true, nil
	}
	if r.at.After == "" {
		if err := workflow.Sleep(ctx, r.at.Plan.Settle); err != nil {
			return false, err
		}
	}
	complete, err := r.look(ctx, false)
	if !complete || err != nil {
		return false, err
	}
	return r.at.Look.Undecided == 0 || r.at.Round >= lookRounds, nil
}

// lookKinds are the kinds of entities in the order in which they are looked at.
func lookKinds() []account.Kind {
	return []account.Kind{account.KindProduct, account.KindCustomer, account.KindUser}
}

// look takes a round of looks on. It is complete when all kinds have been looked at.
func (r *reconciliation) look(ctx workflow.Context, repairing bool) (complete bool, err error) {
	kinds := lookKinds()
	at, after := 0, account.Entity("")
	if r.at.After == "" {
		r.at.Round++
		r.at.Unread = r.at.Look.Unread
		r.at.Look = activities.LookResult{}
	} else {
		kind, _, _ := strings.Cut(r.at.After, "/")
		at = max(slices.Index(kinds, account.Kind(kind)), 0)
		if _, id, _ := strings.Cut(r.at.After, "/"); id != "" {
			after = account.Entity(r.at.After)
		}
	}
	in := activities.LookInput{RunID: r.at.RunID, Kind: kinds[at], Repairing: repairing, After: after, Unread: r.at.Unread}
	on, activity := onStripe, any(r.set.reconciler.LookAtStripe)
	if in.Kind == account.KindUser {
		on, activity = onClerk, r.set.reconciler.LookAtUsers
	}
	var result activities.LookResult
	if err := workflow.ExecuteActivity(r.on(ctx, on), activity, in).Get(ctx, &result); err != nil {
		return false, err
	}
	r.at.Look.Confirmed += result.Confirmed
	r.at.Look.Gone += result.Gone
	r.at.Look.Undecided += result.Undecided
	r.at.Look.Unread += result.Unread
	switch {
	case !result.Complete:
		r.at.After = string(result.After)
		return false, nil
	case at+1 < len(kinds):
		r.at.After = string(kinds[at+1]) + "/"
		return false, nil
	default:
		r.at.After = ""
		return true, nil
	}
}

func (r *reconciliation) conclude(ctx workflow.Context) (bool, error) {
	in := activities.ConcludeInput{RunID: r.at.RunID, Compared: r.at.Compared}
	err := workflow.ExecuteActivity(r.on(ctx, onDatabase), r.set.reconciler.ConcludeComparison, in).Get(ctx, &r.at.Confirmed)
	return true, err
}

// repair asks for what is to be repaired. Every list was read to its end, or the run would not be
// here.
func (r *reconciliation) repair(ctx workflow.Context) (bool, error) {
	if len(r.at.Plan.Repair) == 0 {
		return true, nil
	}
	in := activities.RepairInput{RunID: r.at.RunID, Caller: r.in.Caller, Classes: r.at.Plan.Repair, MaxChanges: r.at.Plan.MaxChanges}
	var result activities.RepairResult
	err := workflow.ExecuteActivity(r.on(ctx, onDatabase), r.set.reconciler.RepairDrift, in).Get(ctx, &result)
	r.at.Asked = result.Asked
	return result.Complete, err
}

// The pauses before looks at what is under repair, each twice the one before.
const (
	firstRepairPause = 5 * time.Second
	lastRepairPause  = time.Minute
	// repairRounds is how often nothing may have changed since the last look.
	repairRounds = 4
)

// lookAtRepairs looks at what is under repair until all of it is mended, or nothing happens any
// more.
func (r *reconciliation) lookAtRepairs(ctx workflow.Context) (bool, error) {
	if r.at.Asked == 0 {
		return true, nil
	}
	if r.at.After == "" {
		if err := workflow.Sleep(ctx, min(firstRepairPause<<min(r.at.Round, 10), lastRepairPause)); err != nil {
			return false, err
		}
	}
	complete, err := r.look(ctx, true)
	if !complete || err != nil {
		return false, err
	}
	if r.at.Look.Gone > 0 {
		r.at.Round = 1 // it is getting on
	}
	return r.at.Look.Confirmed == 0 && r.at.Look.Undecided == 0 || r.at.Round > repairRounds, nil
}

func (r *reconciliation) finish(ctx workflow.Context) (complete bool, err error) {
	in := activities.FinishInput{RunID: r.at.RunID, Failure: r.at.Failure}
	err = workflow.ExecuteActivity(r.on(ctx, onDatabase), r.set.reconciler.FinishReconciliation, in).Get(ctx, &complete)
	return complete, err
}

// abandon records that a run was cancelled and removes what it has noted, on a context that its end
// does not end.
func (r *reconciliation) abandon(ctx workflow.Context) {
	disconnected, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	r.at.Failure = "cancelled"
	for {
		if complete, err := r.finish(disconnected); complete || err != nil {
			return
		}
	}
}

func (r *reconciliation) on(ctx workflow.Context, on func(workflow.Context) workflow.Context) workflow.Context {
	return routinely(on(ctx), reconciliationPatience)
}

// goTo begins another step.
func (r *reconciliation) goTo(step int) {
	r.at.Step, r.at.After, r.at.Round = step, "", 0
}

func (r *reconciliation) full(ctx workflow.Context) bool {
	return workflow.GetInfo(ctx).GetContinueAsNewSuggested() || r.in.ContinueAfter > 0 && r.done >= r.in.ContinueAfter
}

func (r *reconciliation) result() ReconciliationResult {
	result := ReconciliationResult{RunID: r.at.RunID, Compared: r.at.Compared, Confirmed: r.at.Confirmed, Asked: r.at.Asked, Unread: r.at.Look.Unread}
	if r.at.Asked > 0 {
		result.Unmended = r.at.Look.Confirmed + r.at.Look.Undecided
	}
	return result
}

func (r *reconciliation) describe(ctx workflow.Context, step string) {
	text := "Reconciliation: " + step + "."
	if compared := counts(r.at.Compared, kinds()); compared != "" {
		text += " Compared: " + compared + "."
	}
	if r.at.Confirmed != nil {
		text += " Differences: " + cmp.Or(counts(r.at.Confirmed, classes()), "none") + "."
	}
	if r.at.Asked > 0 {
		text += fmt.Sprintf(" Repairs asked for: %d entities.", r.at.Asked)
	}
	if r.at.Failure != "" {
		text += " Not complete: " + r.at.Failure + "."
	}
	workflow.SetCurrentDetails(ctx, text)
}

// counts is a map of counts as a text, in the order of these names.
func counts(of map[string]int64, names []string) string {
	var parts []string
	for _, name := range names {
		if n, ok := of[name]; ok {
			parts = append(parts, fmt.Sprintf("%d %s", n, name))
		}
	}
	return strings.Join(parts, ", ")
}

// kinds are the kinds of what is compared, in their order.
func kinds() []string {
	return []string{"users", "products", "prices", "customers", "subscriptions", "watched", "stored"}
}

func classes() []string {
	all := account.DriftClasses()
	names := make([]string, len(all))
	for i, class := range all {
		names[i] = string(class)
	}
	return names
}
