package bulk_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/api/workflowservice/v1"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/app"
	"github.com/nepfy/clerk-stripe-sync/internal/operator"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// people is how many there are in a product.
const people = 60

// product is one that people have paid for before we came.
type product struct {
	*system.System
	t       *testing.T
	console *app.Operator
	truth   *system.Truth
	people  []system.Owned
	// twice has two customers that name them; orphan is a customer with a subscription that names
	// nobody.
	twice  system.Owned
	orphan string
}

// newProduct has so many people: a third pays, a third has paid, and a third never did. Nobody told
// us.
func newProduct(t *testing.T, people int) *product {
	t.Helper()
	return newProductOn(t, servers, people)
}

func newProductOn(t *testing.T, servers *system.Servers, people int) *product {
	t.Helper()
	p := &product{System: system.Start(t, servers, system.Options{}), t: t}
	p.deliver(delivery.Faults{Lose: 1})
	var err error
	if p.console, err = app.NewConsole(t.Context(), p.Environ); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.console.Close)
	stripe := p.Sandbox.Stripe
	price := stripe.AddPrice(stripe.AddProduct("Pro"), 2000, "month")
	p.truth = p.NewTruth(account.AccessPolicy{PastDueGrace: 72 * time.Hour}, account.DeleteCancelAtPeriodEnd, map[string]string{price: "Pro"})
	for i := range people {
		who := p.person(i)
		if i%3 < 2 {
			who.Customers = []string{p.customer(i, who.ClerkUserID)}
			p.buys(who.Customers[0], price, i%3 == 1)
		}
		p.people = append(p.people, who)
	}
	p.twice = p.person(people)
	p.twice.Customers = []string{p.customer(people, p.twice.ClerkUserID), p.customer(people, p.twice.ClerkUserID)}
	p.orphan = stripe.AddCustomer(stripesim.CustomerSpec{Email: "nobody@example.com"})
	p.buys(p.orphan, price, false)
	p.must(stripe.Settled(t.Context()))
	return p
}

// deliver has both providers deliver webhooks from now on with such faults.
func (p *product) deliver(faults delivery.Faults) {
	for _, webhooks := range []*delivery.Sender{p.Sandbox.ClerkWebhooks, p.Sandbox.StripeWebhooks} {
		webhooks.SetFaults(faults)
	}
}

func (p *product) person(i int) system.Owned {
	return system.Owned{ClerkUserID: p.Sandbox.Clerk.AddUser(clerksim.UserSpec{CreatedAt: time.Now().Add(-24 * time.Hour), FirstName: fmt.Sprint("Ada", i), LastName: "Example",
		Emails: []clerksim.EmailSpec{{Address: fmt.Sprintf("ada%d@example.com", i), Verified: true}}})}
}

// renamed tells whose customer is called otherwise at Stripe than its user is at Clerk.
func renamed(i int) bool { return i%5 == 1 }

// customer is called as its user is, as a rule, and has the address as it was typed.
func (p *product) customer(i int, user string) string {
	name := fmt.Sprintf("Ada%d Example", i)
	if renamed(i) {
		name = fmt.Sprintf("Ms Example %d", i)
	}
	return p.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Name: name, Email: fmt.Sprintf("Ada%d@Example.com", i), Metadata: map[string]string{"clerk_user_id": user}})
}

func (p *product) buys(customer, price string, leaves bool) {
	p.t.Helper()
	done, err := p.Sandbox.Stripe.CompleteCheckout(p.t.Context(), stripesim.CheckoutSpec{CustomerID: customer, PriceID: price})
	p.must(err)
	if leaves {
		p.must(p.Sandbox.Stripe.CancelNow(done.SubscriptionID))
	}
}

func (p *product) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *product) begin(o operator.BulkOrder) string {
	p.t.Helper()
	o.Caller = "operator"
	run, begun, err := p.console.StartBulk(p.t.Context(), o)
	p.must(err)
	if !begun {
		p.t.Fatalf("%s is under way", run.ID)
	}
	return run.ID
}

func (p *product) ended(id string) *store.BulkRun {
	p.t.Helper()
	var run *store.BulkRun
	p.Until("the bulk sync has ended", func(ctx context.Context) (err error) {
		if run, err = p.console.Bulk(ctx, id); err == nil && run.FinishedAt == nil {
			err = fmt.Errorf("it reads %s after %q", run.Step, run.After)
		}
		return err
	})
	return run
}

// agrees waits until all people are as both providers say, and those who had no customer have one.
func (p *product) agrees() {
	p.t.Helper()
	for i, who := range p.people {
		if len(who.Customers) > 0 {
			continue
		}
		var customer string
		p.must(p.Row(p.t.Context(), `SELECT coalesce(stripe_customer_id, '') FROM person_user WHERE clerk_user_id = $1`, []any{who.ClerkUserID}, &customer))
		p.people[i].Customers = []string{customer}
	}
	p.Until("everybody is in step", func(ctx context.Context) error { return p.truth.Of(ctx, p.people...) })
}

// named holds that each customer is called as its user, and that nothing was written on those that
// were.
func (p *product) named() {
	p.t.Helper()
	var want int
	for i, who := range p.people {
		if i%3 == 2 {
			continue // these were made for their users
		}
		if renamed(i) {
			want++
		}
		body, _ := p.Sandbox.Stripe.Customer(who.Customers[0])
		var shown struct{ Name, Email string }
		p.must(json.Unmarshal(body, &shown))
		if name := fmt.Sprintf("Ada%d Example", i); shown.Name != name || !strings.EqualFold(shown.Email, fmt.Sprintf("ada%d@example.com", i)) {
			p.t.Errorf("a customer is called %q with %q at Stripe, want %q", shown.Name, shown.Email, name)
		}
	}
	if n := p.Sandbox.StripeFaults.Requests()["POST /v1/customers/{id}"]; n != want {
		p.t.Errorf("%d customers were written on, want the %d that were called otherwise", n, want)
	}
}

// A product that was there before us is brought in whole: who pays has access, who has a customer
// gets no other, what is doubtful is told of. A dry run before it changes nothing, and a second
// pass after it finds nothing, writes nothing and wakes nobody.
func TestAnExistingProductIsBroughtIn(t *testing.T) {
	t.Parallel()
	p := newProduct(t, people)
	customers := len(p.Sandbox.Stripe.Customers())

	dry := p.ended(p.begin(operator.BulkOrder{DryRun: true}))
	if dry.Done != 0 || dry.Found["missing_user"] != people+1 || p.Count(`SELECT count(*) FROM person_user`) != 0 || len(p.Sandbox.Stripe.Customers()) != customers {
		t.Errorf("the dry run came to %+v", dry)
	}

	p.Sandbox.StripeFaults.Reset()
	run := p.ended(p.begin(operator.BulkOrder{}))
	if run.Failure != nil || run.Failed != 0 {
		t.Errorf("the pass came to %+v", run)
	}
	p.agrees()
	p.named()
	if made := len(p.Sandbox.Stripe.Customers()) - customers; made != people/3 {
		t.Errorf("%d customers were made, want one for each of the %d who had none", made, people/3)
	}
	var linked string
	p.must(p.Row(t.Context(), `SELECT coalesce(stripe_customer_id, '') FROM person_user WHERE clerk_user_id = $1`, []any{p.twice.ClerkUserID}, &linked))
	if !slices.Contains(p.twice.Customers, linked) {
		t.Errorf("the user with two customers has %q", linked)
	}
	if run.Found["orphan_customer"] == 0 {
		t.Errorf("nobody is told of the customer that names nobody: %v", run.Found)
	}
	// Those customers that were called otherwise the pass has given their users' names itself.
	users, err := p.Temporal.CountWorkflow(t.Context(), &workflowservice.CountWorkflowExecutionsRequest{Query: `WorkflowType IN ('UserOnboarding', 'UserProfileSync', 'UserOffboarding')`})
	p.must(err)
	if n := users.GetCount(); n != 0 {
		t.Errorf("%d workflows of users were started", n)
	}
	// Each who can still change is watched, and nobody else.
	live := p.Count(`SELECT count(DISTINCT stripe_customer_id) FROM subscriptions WHERE status = 'active'`)
	p.Quiet(true)
	if n := p.Count(`SELECT count(*) FROM pokes WHERE entity LIKE 'customer/%' AND urgent`); n != 0 {
		t.Errorf("%d of those who were brought in would go before a checkout", n)
	}

	for _, injector := range []*faults.Injector{p.Sandbox.StripeFaults, p.Sandbox.ClerkFaults} {
		injector.Reset()
	}
	poked := p.Count(`SELECT last_value FROM sync_seq`)
	again := p.ended(p.begin(operator.BulkOrder{}))
	if again.Done != 0 || live == 0 {
		t.Errorf("a second pass brought %d in: %v", again.Done, again.Found)
	}
	for _, injector := range []*faults.Injector{p.Sandbox.StripeFaults, p.Sandbox.ClerkFaults} {
		for request, n := range injector.Requests() {
			if !strings.HasPrefix(request, http.MethodGet) {
				t.Errorf("a second pass made %d requests %s", n, request)
			}
		}
	}
	if n := p.Count(`SELECT count(*) FROM pokes WHERE token > $1`, poked); n != 0 {
		t.Errorf("a second pass woke %d workflows", n)
	}
}

// Webhooks are registered before anything was brought in, and everybody changes something: nobody
// who has a customer is given another, although nothing that is stored says so. What the pass
// writes then costs nobody with one customer a workflow.
func TestAProductIsBroughtInWhileItLives(t *testing.T) {
	t.Parallel()
	p := newProduct(t, people)
	p.deliver(delivery.Faults{})
	customers := len(p.Sandbox.Stripe.Customers())
	early := p.people[:people/2]
	var unknown int
	for i, who := range early {
		name := fmt.Sprint("Renamed", i)
		p.must(p.Sandbox.Clerk.UpdateUser(who.ClerkUserID, clerksim.UserChange{FirstName: &name}))
		if len(who.Customers) == 0 {
			unknown++
		}
	}
	p.Until("each who was renamed has a customer", func(ctx context.Context) error {
		var have int
		for _, who := range early {
			have += p.Count(`SELECT count(*) FROM person_user WHERE clerk_user_id = $1 AND stripe_customer_id IS NOT NULL`, who.ClerkUserID)
		}
		if have < len(early) {
			return fmt.Errorf("%d of %d", have, len(early))
		}
		return nil
	})
	if made := len(p.Sandbox.Stripe.Customers()) - customers; made != unknown {
		t.Errorf("%d customers were made, want one for each of the %d who had none", made, unknown)
	}
	p.Quiet(true)

	before := p.Count(`SELECT last_value FROM sync_seq`)
	run := p.ended(p.begin(operator.BulkOrder{}))
	if run.Failure != nil || run.Failed != 0 {
		t.Errorf("the pass came to %+v", run)
	}
	p.agrees()
	p.Quiet(true)
	if made := len(p.Sandbox.Stripe.Customers()) - customers; made != people/3 {
		t.Errorf("%d customers were made, want one for each of the %d who had none", made, people/3)
	}
	// What Clerk tells of whoever has two customers may come when the first of them is theirs and the
	// second is about to be.
	var woken string
	p.must(p.Row(t.Context(), `SELECT coalesce(string_agg(entity, ' '), '') FROM pokes WHERE entity LIKE 'user/%' AND token > $1 AND entity <> $2`,
		[]any{before, string(account.UserEntity(p.twice.ClerkUserID))}, &woken))
	if woken != "" {
		t.Errorf("the workflows of %s were woken by what the pass has written", woken)
	}
}

// What has changed since a moment is brought in, and nothing else is read: a new user, a name, a
// cancellation and a product that nobody told us of. What cannot be told that way is refused, with
// what to do instead.
func TestWhatHasChangedIsBroughtIn(t *testing.T) {
	t.Parallel()
	p := newProduct(t, people)
	p.ended(p.begin(operator.BulkOrder{}))
	p.agrees()
	p.Quiet(true)
	done := time.Now().Unix()
	p.Until("the second is over", func(context.Context) error {
		if time.Now().Unix() == done {
			return errors.New("not yet") // Stripe's times are whole seconds
		}
		return nil
	})
	since := time.Now().Truncate(time.Second)

	stripe := p.Sandbox.Stripe
	yearly := stripe.AddPrice(stripe.AddProduct("Pro, yearly"), 20000, "year")
	renamed, cancels := p.people[0], p.people[3]
	p.must(p.Sandbox.Clerk.UpdateUser(renamed.ClerkUserID, clerksim.UserChange{LastName: new("Sample")}))
	p.must(stripe.CancelAtPeriodEnd(p.subscription(cancels)))
	newcomer := p.person(people + 1)
	p.people = append(p.people, newcomer)
	p.must(stripe.Settled(t.Context()))
	for _, injector := range []*faults.Injector{p.Sandbox.StripeFaults, p.Sandbox.ClerkFaults} {
		injector.Reset()
	}

	run := p.ended(p.begin(operator.BulkOrder{Since: since}))
	if run.Failure != nil || run.Failed != 0 || run.Seen[activities.BulkChangedUsers] != 2 || run.Done != 4+1 { // the newcomer is stored, and given a customer
		t.Errorf("it came to %+v", run)
	}
	if n := p.Sandbox.StripeFaults.Requests()["GET /v1/subscriptions"]; n > 2 {
		t.Errorf("the subscriptions of %d customers were read, want those of the one who cancels, and of the newcomer", n)
	}
	p.agrees()
	if n := p.Count(`SELECT count(*) FROM plan_prices WHERE stripe_price_id = $1`, yearly); n != 1 {
		t.Error("the new price is not in the catalogue")
	}
	if n := p.Count(`SELECT count(*) FROM subscriptions WHERE cancel_at_period_end`); n != 1 {
		t.Errorf("%d subscriptions are set to end", n)
	}

	for what, o := range map[string]operator.BulkOrder{
		"30 days":    {Since: time.Now().AddDate(0, 0, -40)},
		"yet to":     {Since: time.Now().Add(time.Hour)},
		"either ids": {Since: since, IDs: []string{newcomer.ClerkUserID}},
		"dry run":    {Since: since, DryRun: true},
	} {
		if _, _, err := p.console.StartBulk(t.Context(), o); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%+v is answered %v", o, err)
		}
	}
}

// subscription is the one that a person pays for.
func (p *product) subscription(who system.Owned) (id string) {
	p.t.Helper()
	p.must(p.Row(p.t.Context(), `SELECT stripe_subscription_id FROM subscriptions WHERE stripe_customer_id = $1 AND status = 'active'`, []any{who.Customers[0]}, &id))
	return id
}

// A worker that dies repeats at most the page that was under way.
func TestABulkSyncGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	p := newProduct(t, people)
	requests := func() map[string]int {
		all := p.Sandbox.StripeFaults.Requests()
		maps.Copy(all, p.Sandbox.ClerkFaults.Requests())
		return map[string]int{"users": all["GET /v1/users"], "products": all["GET /v1/products"], "customers": all["GET /v1/customers"]}
	}
	release := p.Sandbox.ClerkFaults.Add(faults.Rule{Method: http.MethodGet, PathPrefix: "/v1/users/user_", Latency: 300 * time.Millisecond})
	id := p.begin(operator.BulkOrder{})
	p.Until("users are brought in", func(context.Context) error {
		if p.Count(`SELECT count(*) FROM person_user`) < people/4 {
			return errors.New("not yet")
		}
		return nil
	})
	p.StopWorker()
	release()
	before, err := p.console.Bulk(t.Context(), id)
	p.must(err)
	p.StartWorker()
	run := p.ended(id)
	if run.Failure != nil || run.Pages <= before.Pages {
		t.Errorf("after the worker was gone it came to %+v, before %+v", run, before)
	}
	for list, n := range requests() {
		if most := map[bool]int{true: 2, false: 1}[list == "users"]; n > most {
			t.Errorf("%s were listed %d times, want at most %d: %v", list, n, most, requests())
		}
	}
	p.agrees()
}

// A pass that is paused rests behind a page and goes on when it is told to; one that is cancelled
// ends, and another may begin; while one goes on there is no second.
func TestABulkSyncIsPausedAndCancelled(t *testing.T) {
	t.Parallel()
	p := newProduct(t, 12)
	release := p.Sandbox.ClerkFaults.Add(faults.Rule{Method: http.MethodGet, PathPrefix: "/v1/users", Latency: time.Second})
	id := p.begin(operator.BulkOrder{})
	other, begun, err := p.console.StartBulk(t.Context(), operator.BulkOrder{Caller: "operator"})
	if err != nil || begun || other.ID != id {
		t.Errorf("beside it another began: %+v, %t, %v", other, begun, err)
	}
	run, err := p.console.PauseBulk(t.Context(), id, true)
	if err != nil || !run.Paused {
		t.Fatalf("paused it is %+v, %v", run, err)
	}
	p.resting(id)
	release()
	seen := p.Count(`SELECT pages FROM bulk_runs WHERE id = $1`, id)
	if _, err := p.console.PauseBulk(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	if run := p.ended(id); run.Failure != nil || run.Pages <= int64(seen) {
		t.Errorf("after the pause it came to %+v", run)
	}
	p.agrees()

	p.Sandbox.ClerkFaults.Add(faults.Rule{Method: http.MethodGet, PathPrefix: "/v1/users", Latency: time.Second})
	next := p.begin(operator.BulkOrder{})
	if _, err := p.console.CancelBulk(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	if run := p.ended(next); run.Failure == nil || *run.Failure != "cancelled" {
		t.Errorf("cancelled it came to %+v", run)
	}
	last := p.begin(operator.BulkOrder{IDs: []string{p.people[0].ClerkUserID, p.people[1].Customers[0]}})
	if run := p.ended(last); run.Done != 2 || !maps.Equal(run.Seen, map[string]int64{"named": 2}) {
		t.Errorf("of two who were named it came to %+v", run)
	}
}

// resting waits until a pass says that it is paused.
func (p *product) resting(id string) {
	p.t.Helper()
	p.Until("it rests", func(ctx context.Context) error {
		run, err := p.Temporal.QueryWorkflow(ctx, "bulk-sync/"+id, "", "state")
		if err != nil {
			return err
		}
		var state struct {
			Paused bool `json:"paused"`
		}
		if err := run.Get(&state); err != nil {
			return err
		}
		if !state.Paused {
			return errors.New("not yet")
		}
		return nil
	})
}
