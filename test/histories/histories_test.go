// Package histories_test looks at what real runs leave in their histories: that they hold no
// personal data and no payload, that they stay small, and, on request, what they are, as the
// golden histories that every later version has to replay.
package histories_test

import (
	"context"
	"encoding/base64"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/test/histories"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// What the people of this test are called. None of it may stand in a history.
const (
	firstName = "Wilhelmina"
	lastName  = "Featherstonehaugh"
	newName   = "Marmaduke"
	email     = "wilhelmina@example.com"
	planName  = "Platinum Unicorn"
)

// The most events that one run may have after its first scenario: a bound for runs that go round
// in circles, with room for what a slow machine adds. What a scenario may cost is bounded beside
// the scenarios, and closely.
func budgets() map[string]int {
	return map[string]int{
		"UserOnboarding":        45, // three activities, an echo of the publish, its look
		"UserProfileSync":       40,
		"UserOffboarding":       60,  // expire, look, erase, and a try for each customer that settles
		"SubscriptionLifecycle": 160, // checkout burst, renewal, cancellation: some ten events a look
		"CatalogueSync":         40,
		"DisputeRouting":        25,
	}
}

// A person's whole life leaves short histories with ids, statuses and times in them and nothing
// else. With GOLDEN=1 the histories are kept as golden ones where there is none of that name yet.
func TestHistoriesOfALife(t *testing.T) {
	t.Parallel()
	s := system.Start(t, servers, system.Options{Sandbox: sandbox.Options{
		StripeNow: func() time.Time { return time.Now().AddDate(0, 0, -40) },
	}})
	live(t, s)

	runs := allRuns(t, s)
	types := map[string]bool{}
	for _, run := range runs {
		history := fetch(t, s, run)
		types[run.workflow] = true
		inspect(t, run, history)
		if budget := budgets()[run.workflow]; len(history.GetEvents()) > budget {
			t.Errorf("%s of %s has %d events, its budget is %d", run.workflow, run.id, len(history.GetEvents()), budget)
		}
		t.Logf("%-22s %-40s %3d events", run.workflow, run.id, len(history.GetEvents()))
		keep(t, run.workflow+"-"+status(history), history)
	}
	for workflow := range budgets() {
		if !types[workflow] {
			t.Errorf("no %s ran: the life is not whole", workflow)
		}
	}
}

// live plays a person's life: product, sign-up, checkout, change of name, renewal, dispute,
// cancellation in the portal, deletion.
func live(t *testing.T, s *system.System) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	price := s.Sandbox.Stripe.AddPrice(s.Sandbox.Stripe.AddProduct(planName), 2000, "month")
	s.Quiet(false)
	user := s.Sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: firstName, LastName: lastName,
		Emails: []clerksim.EmailSpec{{Address: email, Verified: true}}})
	s.Quiet(false)
	var customer string
	must(s.Row(t.Context(), `SELECT stripe_customer_id FROM person_user WHERE clerk_user_id = $1`, []any{user}, &customer))
	bought, err := s.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{CustomerID: customer, PriceID: price, ClientReferenceID: user, TrialDays: 7})
	must(err)
	s.Quiet(false)
	name := newName
	must(s.Sandbox.Clerk.UpdateUser(user, clerksim.UserChange{FirstName: &name}))
	s.Quiet(false)
	must(s.Sandbox.Stripe.Advance(t.Context(), time.Until(s.Sandbox.Stripe.Now())*-1))
	s.Quiet(false)
	var charge string
	s.Until("a payment is recorded", func(ctx context.Context) error {
		return s.Row(ctx, `SELECT charge_id FROM payments WHERE charge_id IS NOT NULL ORDER BY occurred_at DESC LIMIT 1`, nil, &charge)
	})
	_, err = s.Sandbox.Stripe.Dispute(charge)
	must(err)
	must(s.Sandbox.Stripe.CancelAtPeriodEnd(bought.SubscriptionID))
	s.Quiet(false)
	s.Agree(user, account.AccessPolicy{})
	must(s.Sandbox.Clerk.DeleteUser(user))
	s.Quiet(false)
	s.Until("the user is erased", func(ctx context.Context) error {
		var id string
		return s.Row(ctx, `SELECT id FROM person_user WHERE deleted_at IS NOT NULL`, nil, &id)
	})
}

// run is one run of a workflow.
type run struct{ id, runID, workflow string }

// allRuns lists every run of the test's namespace once each has been seen by the index.
func allRuns(t *testing.T, s *system.System) []run {
	t.Helper()
	var runs []run
	list := func(ctx context.Context) error {
		answer, err := s.Temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Namespace: s.Namespace})
		if err != nil {
			return err
		}
		runs = runs[:0]
		for _, e := range answer.GetExecutions() {
			runs = append(runs, run{e.GetExecution().GetWorkflowId(), e.GetExecution().GetRunId(), e.GetType().GetName()})
		}
		return nil
	}
	s.Until("the runs are listed", list)
	slices.SortFunc(runs, func(a, b run) int { return strings.Compare(a.workflow+a.runID, b.workflow+b.runID) })
	return runs
}

func fetch(t *testing.T, s *system.System, r run) *historypb.History {
	t.Helper()
	history := &historypb.History{}
	iterator := s.Temporal.GetWorkflowHistory(t.Context(), r.id, r.runID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for iterator.HasNext() {
		event, err := iterator.Next()
		if err != nil {
			t.Fatal(err)
		}
		history.Events = append(history.Events, event)
	}
	return history
}

var identity = regexp.MustCompile(`"identity":\s*"[^"]*"`)

var payload = regexp.MustCompile(`"data":\s*"([A-Za-z0-9+/=]+)"`)

// inspect reads a history as it is stored and with every payload in it decoded, and looks at how
// each activity was asked for.
func inspect(t *testing.T, r run, history *historypb.History) {
	t.Helper()
	raw, err := temporalproto.CustomJSONMarshalOptions{}.Marshal(history)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	decoded := 0
	for _, match := range payload.FindAllStringSubmatch(text, -1) {
		plain, err := base64.StdEncoding.DecodeString(match[1])
		if err != nil {
			t.Fatal(err)
		}
		text += "\n" + string(plain)
		decoded++
	}
	_, id, _ := strings.Cut(r.id, "/")
	if r.workflow == "Reconciliation" || r.workflow == "EventRecovery" {
		id = map[string]string{"Reconciliation": "runId", "EventRecovery": "complete"}[r.workflow] // they are about nobody in particular
	}
	if decoded == 0 || !strings.Contains(text[len(raw):], id) {
		t.Errorf("%s of %s: its input was not found in its decoded history, so nothing was looked at", r.workflow, r.id)
	}
	strange, err := histories.Strange(history)
	if err != nil {
		t.Fatal(err)
	}
	for _, each := range slices.Concat(strange, histories.Careless(history)) {
		t.Errorf("%s of %s: %s", r.workflow, r.id, each)
	}
	// The identity is "process@host": the machine's, which says nothing of people.
	text = identity.ReplaceAllString(text, "")
	for _, secret := range []string{"@", firstName, lastName, newName, email, planName, `"object"`, `"livemode"`, "public_metadata"} {
		if i := strings.Index(text, secret); i >= 0 {
			t.Errorf("%s of %s holds %q: …%s…", r.workflow, r.id, secret, text[max(0, i-80):min(len(text), i+80)])
		}
	}
}

// status says how a run stands.
func status(history *historypb.History) string {
	switch events := history.GetEvents(); events[len(events)-1].GetEventType() {
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
		return "completed"
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW:
		return "continued"
	default:
		return "open"
	}
}

// keep writes a golden history, if GOLDEN is set and there is none of that name: golden histories
// are added and never rewritten. GOLDEN=force rewrites them all the same, for a history that was
// never released.
func keep(t *testing.T, name string, history *historypb.History) {
	t.Helper()
	asked := os.Getenv("GOLDEN")
	folder := filepath.Join("..", "..", "workflows", "testdata", "histories")
	path := filepath.Join(folder, name+".json")
	if _, err := os.Stat(path); asked == "" || err == nil && asked != "force" {
		return
	}
	raw, err := temporalproto.CustomJSONMarshalOptions{Indent: " "}.Marshal(histories.Anonymous(history))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(raw, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Log("kept", path)
}
