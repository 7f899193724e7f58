package histories_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/test/histories"
	"github.com/nepfy/clerk-stripe-sync/test/system"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// The most events that a scenario may cost, over all runs that take part in it. Each activity
// costs three, and a workflow task, which follows each of them and each group of signals, three
// more. A change that makes a scenario dearer has to say so here.
const (
	// The user is read, given a customer and published; the write's own echo is one look; so is
	// the customer's own event.
	onboardingBudget = 62
	// The user is read and the customer given the name; the echo of that is a look at the customer.
	profileBudget = 36
	// Twelve events: as a rule two looks, one publish, a timer, the search attributes.
	checkoutBudget = 30
	// The same, had one look seen them all; and each further look.
	firstLookBudget, nextLookBudget = 20, 10
	// The echo of what a checkout publishes is known at the door.
	echoBudget = 0
	// A look at the user, at the customer, the closing of open checkouts, the stop, the look that
	// its echo causes, and two tries to erase.
	deletionBudget = 86
)

// person is a user of these scenarios.
type person struct{ user, customer string }

func signUp(t *testing.T, s *system.System) person {
	t.Helper()
	p := person{user: s.Sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: firstName, LastName: lastName,
		Emails: []clerksim.EmailSpec{{Address: email, Verified: true}}})}
	s.Quiet(false)
	p.customer = customerOf(t, s, p.user)
	return p
}

func customerOf(t *testing.T, s *system.System, user string) (customer string) {
	t.Helper()
	if err := s.Row(t.Context(), `SELECT stripe_customer_id FROM person_user WHERE clerk_user_id = $1`, []any{user}, &customer); err != nil {
		t.Fatal(err)
	}
	return customer
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventsOf counts the events of all runs of the entities.
func eventsOf(t *testing.T, s *system.System, entities ...string) int {
	t.Helper()
	total := 0
	for _, r := range allRuns(t, s) {
		if slices.Contains(entities, r.id) {
			total += len(fetch(t, s, r).GetEvents())
		}
	}
	return total
}

// rest waits until no user's run is open, nothing is due, and nothing happens any more.
func rest(t *testing.T, s *system.System) {
	t.Helper()
	look := func() (events int, open string) {
		for _, r := range allRuns(t, s) {
			history := fetch(t, s, r)
			events += len(history.GetEvents())
			if strings.HasPrefix(r.workflow, "User") && status(history) == "open" {
				open = r.id
			}
		}
		return events, open
	}
	s.Until("nothing happens any more", func(context.Context) error {
		before, open := look()
		if open != "" {
			return errors.New(open + " is open")
		}
		s.Quiet(false)
		if events, open := look(); open != "" || events != before {
			return fmt.Errorf("%d events, and %d after them", before, events-before)
		}
		return nil
	})
}

// looksAt counts how often a customer was read.
func looksAt(t *testing.T, s *system.System, customer string) (looks int) {
	t.Helper()
	for _, r := range allRuns(t, s) {
		if r.id != customer {
			continue
		}
		for _, a := range histories.Scheduled(fetch(t, s, r)) {
			if a.GetActivityType().GetName() == "RecordSubscriptions" {
				looks++
			}
		}
	}
	return looks
}

// Each scenario is played by several people, and the cheapest counts: what a slow machine does to
// the order of things only ever adds.
func TestHistoriesOfALifeAreSmall(t *testing.T) {
	t.Parallel()
	s := system.Start(t, servers, system.Options{})
	price := s.Sandbox.Stripe.AddPrice(s.Sandbox.Stripe.AddProduct(planName), 2000, "month")
	s.Quiet(false)
	budgets := map[string]int{"onboarding": onboardingBudget, "profile": profileBudget, "checkout": checkoutBudget,
		"checkout in one look": firstLookBudget, "echo of a checkout": echoBudget, "deletion": deletionBudget}
	least := map[string]int{}
	// Where there is a budget something has to be spent: else nothing was measured.
	kept := func(what string) bool {
		n, measured := least[what]
		return measured && n <= budgets[what] && (n > 0 || budgets[what] == 0)
	}
	for round := range 6 {
		if round >= 2 && !slices.ContainsFunc(slices.Collect(maps.Keys(budgets)), func(what string) bool { return !kept(what) }) {
			break
		}
		spend := func(what string, n int) {
			if old, ok := least[what]; !ok || n < old {
				least[what] = n
			}
		}
		p := signUp(t, s)
		rest(t, s)
		user, customer := workflows.UserWorkflowID(p.user), workflows.CustomerWorkflowID(p.customer)
		spent := eventsOf(t, s, user, customer)
		spend("onboarding", spent)
		since := func() int {
			before := spent
			spent = eventsOf(t, s, user, customer)
			return spent - before
		}

		name := newName
		must(t, s.Sandbox.Clerk.UpdateUser(p.user, clerksim.UserChange{FirstName: &name}))
		rest(t, s)
		spend("profile", since())

		byUser, looked := eventsOf(t, s, user), looksAt(t, s, customer)
		_, err := s.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{CustomerID: p.customer, PriceID: price, ClientReferenceID: p.user})
		must(t, err)
		rest(t, s)
		s.Agree(p.user, account.AccessPolicy{})
		echo := eventsOf(t, s, user) - byUser
		spend("echo of a checkout", echo)
		burst, looks := since()-echo, looksAt(t, s, customer)-looked
		spend("checkout", burst)
		spend("checkout in one look", burst-(looks-1)*nextLookBudget)

		must(t, s.Sandbox.Clerk.DeleteUser(p.user))
		s.Quiet(false)
		s.Until("the user is erased", func(ctx context.Context) error {
			var id string
			return s.Row(ctx, `SELECT id FROM person_user WHERE deleted_at IS NOT NULL AND clerk_user_id = $1`, []any{p.user}, &id)
		})
		rest(t, s)
		spend("deletion", since())
		stopped := theRun(t, s, customer, "SubscriptionLifecycle", "open", func(history *historypb.History) error {
			if !asksFor(history, "StopBilling") || !resting(history) {
				return errors.New("it has not stopped the billing")
			}
			return nil
		})
		keep(t, "SubscriptionLifecycle-stopped", stopped)
	}
	for what, budget := range budgets {
		t.Logf("%-20s %3d of %3d events", what, least[what], budget)
		if !kept(what) {
			t.Errorf("%s costs %d events, its budget is %d", what, least[what], budget)
		}
	}
	for _, r := range allRuns(t, s) {
		inspect(t, r, fetch(t, s, r))
	}
}

// A burst of events rolls a customer's run over again and again, and a user who is first heard
// of by a change becomes one who signs up: nothing is lost on the way.
func TestHistoriesOfALifeInManyRuns(t *testing.T) {
	t.Parallel()
	s := system.Start(t, servers, system.Options{})
	price := s.Sandbox.Stripe.AddPrice(s.Sandbox.Stripe.AddProduct(planName), 2000, "month")

	// The sign-up itself is lost; a change of the same user arrives.
	s.Sandbox.ClerkWebhooks.Hold()
	user := s.Sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: firstName, Emails: []clerksim.EmailSpec{{Address: email, Verified: true}}})
	name := newName
	must(t, s.Sandbox.Clerk.UpdateUser(user, clerksim.UserChange{FirstName: &name}))
	must(t, s.Sandbox.Clerk.Settled(t.Context()))
	held := s.Sandbox.ClerkWebhooks.TakeHeld()
	s.Sandbox.ClerkWebhooks.Release()
	for _, message := range held {
		if strings.Contains(string(message.Body), `"user.updated"`) {
			s.Sandbox.ClerkWebhooks.Send(message)
		}
	}
	rest(t, s) // the customer's next run has to be a new one
	customer := customerOf(t, s, user)
	switched := theRun(t, s, workflows.UserWorkflowID(user), "UserProfileSync", "continued", nil)
	keep(t, "UserProfileSync-continued", switched)

	s.Sandbox.StripeWebhooks.Hold()
	_, err := s.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{CustomerID: customer, PriceID: price, ClientReferenceID: user})
	must(t, err)
	id := workflows.CustomerWorkflowID(customer)
	_, err = s.Temporal.SignalWithStartWorkflow(t.Context(), id, workflows.SignalPoke, nil,
		client.StartWorkflowOptions{ID: id, TaskQueue: workflows.QueueMain}, workflows.SubscriptionLifecycle,
		workflows.SubscriptionLifecycleInput{CustomerID: customer, ContinueAfter: 1})
	must(t, err)
	s.Sandbox.StripeWebhooks.Release()
	s.Quiet(false)
	s.Agree(user, account.AccessPolicy{})
	rolled := theRun(t, s, id, "SubscriptionLifecycle", "continued", func(history *historypb.History) error {
		if !has(history, enumspb.EVENT_TYPE_TIMER_STARTED) {
			return errors.New("it has no boundary")
		}
		return nil
	})
	keep(t, "SubscriptionLifecycle-continued", rolled)
	for _, r := range allRuns(t, s) {
		inspect(t, r, fetch(t, s, r))
	}
}

// What goes wrong stands in histories too: attempts that failed, a look that was given up, and a
// renewal whose webhooks never came and which the boundary's timer has found.
func TestHistoriesOfALifeWithTroubles(t *testing.T) {
	t.Parallel()
	s := system.Start(t, servers, system.Options{})
	price := s.Sandbox.Stripe.AddPrice(s.Sandbox.Stripe.AddProduct(planName), 2000, "month")
	s.Quiet(false)
	p := signUp(t, s)
	bought, err := s.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{CustomerID: p.customer, PriceID: price, ClientReferenceID: p.user,
		BillingAnchor: s.Sandbox.Stripe.Now().Add(10 * time.Second)})
	must(t, err)
	s.Quiet(false)
	s.Sandbox.StripeWebhooks.Hold() // from now on they are lost
	renewed := theRun(t, s, workflows.CustomerWorkflowID(p.customer), "SubscriptionLifecycle", "open", func(history *historypb.History) error {
		if !has(history, enumspb.EVENT_TYPE_TIMER_FIRED) || !resting(history) {
			return errors.New("no timer has fired and been answered")
		}
		return nil
	})
	s.Until("the renewal is known", func(ctx context.Context) error {
		if s.Sandbox.Stripe.Now().Before(time.Now()) {
			must(t, s.Sandbox.Stripe.Advance(ctx, 0))
		}
		return s.Agreement(ctx, p.user, account.AccessPolicy{})
	})
	keep(t, "SubscriptionLifecycle-boundary", renewed)

	// An outage, and then an answer that no attempt will change.
	s.Sandbox.StripeWebhooks.TakeHeld()
	s.Sandbox.StripeFaults.Add(faults.Rule{Method: http.MethodGet, PathPrefix: "/v1/subscriptions", Status: http.StatusBadGateway, HTML: true, Times: 2})
	s.Sandbox.StripeFaults.Add(faults.Rule{Method: http.MethodGet, PathPrefix: "/v1/subscriptions", Status: http.StatusBadRequest, Times: 1})
	s.Sandbox.StripeWebhooks.Release()
	must(t, s.Sandbox.Stripe.SetQuantity(bought.SubscriptionID, 3))
	failed := theRun(t, s, workflows.CustomerWorkflowID(p.customer), "SubscriptionLifecycle", "open", func(history *historypb.History) error {
		if !has(history, enumspb.EVENT_TYPE_ACTIVITY_TASK_FAILED) || !resting(history) {
			return errors.New("no activity has failed and been got over")
		}
		return nil
	})
	keep(t, "SubscriptionLifecycle-failed", failed)
	if encoded, err := s.Temporal.QueryWorkflow(t.Context(), workflows.CustomerWorkflowID(p.customer), "", workflows.QueryState); err != nil {
		t.Error(err)
	} else if state := (workflows.LifecycleState{}); encoded.Get(&state) != nil || !state.Live || state.WakeAt.IsZero() {
		t.Errorf("after the failure the run stands at %+v", state)
	}
	must(t, s.Sandbox.Stripe.SetQuantity(bought.SubscriptionID, 4)) // sooner than the sweep
	s.Quiet(false)
	s.Agree(p.user, account.AccessPolicy{})
	// It was found by its failure, and is not found by it any more.
	shown := theRun(t, s, workflows.CustomerWorkflowID(p.customer), "SubscriptionLifecycle", "open", func(history *historypb.History) error {
		if upserts(history, workflows.SearchLastFailure) != 2 || !resting(history) {
			return errors.New("no failure was shown and taken back")
		}
		return nil
	})
	keep(t, "SubscriptionLifecycle-shown", shown)
	for _, r := range allRuns(t, s) {
		inspect(t, r, fetch(t, s, r))
	}
}

// A provider is gone, somebody waits, and what is more important overtakes: a run asks for the
// versions of the changes that let it do so only then, so that no other scenario shows them.
func TestHistoriesOfAnOutage(t *testing.T) {
	t.Parallel()
	s := system.Start(t, servers, system.Options{})
	price := s.Sandbox.Stripe.AddPrice(s.Sandbox.Stripe.AddProduct(planName), 2000, "month")
	s.Quiet(false)
	gone := func(method, prefix string) (back func()) {
		return s.Sandbox.StripeFaults.Add(faults.Rule{Method: method, PathPrefix: prefix, Status: http.StatusBadGateway, HTML: true})
	}
	// asleep waits until an activity of a run is tried for so often that it sleeps for longer than
	// somebody may wait.
	asleep := func(id, activity string) {
		s.Until(activity+" sleeps", func(ctx context.Context) error {
			run, err := s.Temporal.DescribeWorkflowExecution(ctx, id, "")
			if err != nil {
				return err
			}
			for _, a := range run.GetPendingActivities() {
				if a.GetActivityType().GetName() == activity && a.GetAttempt() > 4 {
					return nil
				}
			}
			return errors.New("it does not")
		})
	}
	marked := func(changes ...string) func(*historypb.History) error {
		return func(history *historypb.History) error {
			for _, change := range changes {
				if !asksForVersion(history, change) {
					return fmt.Errorf("it has not asked for the version of %q", change)
				}
			}
			return nil
		}
	}

	back := gone(http.MethodPost, "/v1/customers")
	user := s.Sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: firstName, LastName: lastName, Emails: []clerksim.EmailSpec{{Address: email, Verified: true}}})
	asleep(workflows.UserWorkflowID(user), "EnsureStripeCustomer")
	back()
	must(t, s.Store.Poke(t.Context(), account.JobSync, account.UserEntity(user)))
	rest(t, s)
	keep(t, "UserOnboarding-hurried", theRun(t, s, workflows.UserWorkflowID(user), "UserOnboarding", "completed", marked("overtaking", "hurry")))
	customer := customerOf(t, s, user)

	bought, err := s.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{CustomerID: customer, PriceID: price, ClientReferenceID: user})
	must(t, err)
	s.Quiet(false)
	// Who comes before a look sleeps is remembered, and has it begun anew when it does. An attempt
	// that is under way just then fails, and is not cancelled.
	back = gone(http.MethodGet, "/v1/subscriptions")
	must(t, s.Sandbox.Stripe.SetQuantity(bought.SubscriptionID, 2))
	remembered := func(history *historypb.History) error {
		if err := marked("rouse-later")(history); err != nil {
			return err
		}
		if !has(history, enumspb.EVENT_TYPE_TIMER_FIRED) || !has(history, enumspb.EVENT_TYPE_ACTIVITY_TASK_CANCEL_REQUESTED) {
			return errors.New("it has begun nothing anew")
		}
		return nil
	}
	s.Until("a look is under way", func(ctx context.Context) error {
		run, err := s.Temporal.DescribeWorkflowExecution(ctx, workflows.CustomerWorkflowID(customer), "")
		if err == nil && len(run.GetPendingActivities()) == 0 {
			err = errors.New("there is none")
		}
		return err
	})
	must(t, s.Store.Poke(t.Context(), account.JobSync, account.CustomerEntity(customer)))
	late := false
	theRun(t, s, workflows.CustomerWorkflowID(customer), "SubscriptionLifecycle", "open", func(history *historypb.History) error {
		if !late && asksForVersion(history, "hurry") {
			late = true // on a slow machine it slept already; what is begun anew is young
			must(t, s.Store.Poke(t.Context(), account.JobSync, account.CustomerEntity(customer)))
		}
		return remembered(history)
	})
	back()
	s.Quiet(false)
	s.Agree(user, account.AccessPolicy{})
	keep(t, "SubscriptionLifecycle-remembered", theRun(t, s, workflows.CustomerWorkflowID(customer), "SubscriptionLifecycle", "open", remembered))

	back = gone(http.MethodGet, "/v1/subscriptions")
	must(t, s.Sandbox.Stripe.SetQuantity(bought.SubscriptionID, 3))
	asleep(workflows.CustomerWorkflowID(customer), "RecordSubscriptions")
	back()
	must(t, s.Store.Poke(t.Context(), account.JobSync, account.CustomerEntity(customer)))
	s.Quiet(false)
	s.Agree(user, account.AccessPolicy{})
	keep(t, "SubscriptionLifecycle-hurried", theRun(t, s, workflows.CustomerWorkflowID(customer), "SubscriptionLifecycle", "open", marked("hurry")))

	// A profile cannot be written, and then the user wants to be forgotten; their open checkouts
	// cannot be closed at first.
	gone(http.MethodPost, "/v1/customers/"+customer)
	name := newName
	must(t, s.Sandbox.Clerk.UpdateUser(user, clerksim.UserChange{FirstName: &name}))
	asleep(workflows.UserWorkflowID(user), "EnsureStripeCustomer")
	s.Sandbox.StripeFaults.Add(faults.Rule{Method: http.MethodGet, PathPrefix: "/v1/checkout/sessions", Status: http.StatusBadRequest, Times: 1})
	must(t, s.Sandbox.Clerk.DeleteUser(user))
	keep(t, "UserProfileSync-overtaken", theRun(t, s, workflows.UserWorkflowID(user), "UserProfileSync", "continued", marked("overtaking")))
	keep(t, "UserOffboarding-again", theRun(t, s, workflows.UserWorkflowID(user), "UserOffboarding", "open", marked("expire-again")))
	for _, r := range allRuns(t, s) {
		inspect(t, r, fetch(t, s, r))
	}
}

// asksForVersion tells whether a run has asked for the version of a change.
func asksForVersion(history *historypb.History, change string) bool {
	return slices.ContainsFunc(history.GetEvents(), func(e *historypb.HistoryEvent) bool {
		var name string
		details := e.GetMarkerRecordedEventAttributes().GetDetails()["change-id"]
		return converter.GetDefaultDataConverter().FromPayloads(details, &name) == nil && name == change
	})
}

// upserts counts how often a search attribute was set or taken back.
func upserts(history *historypb.History, attribute string) (times int) {
	for _, e := range history.GetEvents() {
		if _, ok := e.GetUpsertWorkflowSearchAttributesEventAttributes().GetSearchAttributes().GetIndexedFields()[attribute]; ok {
			times++
		}
	}
	return times
}

// theRun waits for a run that stands as it should and answers its history.
func theRun(t *testing.T, s *system.System, id, workflow, stands string, and func(*historypb.History) error) (found *historypb.History) {
	t.Helper()
	s.Until("a "+workflow+" is "+stands, func(context.Context) error {
		err := fmt.Errorf("there is no %s of %s that is %s", workflow, id, stands)
		for _, r := range allRuns(t, s) {
			if r.id != id || r.workflow != workflow {
				continue
			}
			history := fetch(t, s, r)
			if status(history) != stands {
				continue
			}
			if and != nil {
				if err = and(history); err != nil {
					continue
				}
			}
			found = history
			return nil
		}
		return err
	})
	return found
}

func has(history *historypb.History, kind enumspb.EventType) bool {
	return slices.ContainsFunc(history.GetEvents(), func(e *historypb.HistoryEvent) bool { return e.GetEventType() == kind })
}

func asksFor(history *historypb.History, activity string) bool {
	return slices.ContainsFunc(histories.Scheduled(history), func(a *historypb.ActivityTaskScheduledEventAttributes) bool {
		return a.GetActivityType().GetName() == activity
	})
}

// resting tells whether a run waits, with nothing under way.
func resting(history *historypb.History) bool {
	events := history.GetEvents()
	switch events[len(events)-1].GetEventType() {
	case enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED, enumspb.EVENT_TYPE_TIMER_STARTED, enumspb.EVENT_TYPE_TIMER_CANCELED,
		enumspb.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES:
		return true
	default:
		return false
	}
}
