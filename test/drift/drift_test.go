package drift_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.temporal.io/sdk/client"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/app"
	"github.com/nepfy/clerk-stripe-sync/internal/operator"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/test/system"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// Of a product in which nothing is wrong a comparison says so. Then one in a hundred of it, or two,
// are made wrong in each way that has a class: a comparison finds all of that and nothing else,
// repairs what mends by a look or is asked for, of so many as one run may and then of the others,
// and leaves what a person has to decide.
//
// DRIFT_USERS says how many people there are.
func TestPlantedDrift(t *testing.T) {
	t.Parallel()
	p := newProduct(t, peopleOf(t))
	worker := p.StartProcess(system.ProgramWorker, nil)
	p.bringIn()
	// What it has needed to bring them in is not the question.
	_, err := worker.Stop(t.Context())
	p.must(err)
	worker = p.StartProcess(system.ProgramWorker, nil)
	p.standsAt("before", p.reconcile(nil), differences{})

	p.plant()
	found := p.reconcile(nil)
	p.standsAt("planted", found, p.planted)
	for _, class := range account.DriftClasses() {
		if found.Confirmed[string(class)] == 0 {
			t.Errorf("nothing of class %s was planted", class)
		}
	}

	first := p.reconcile(repairable())
	if first.Asked != mostChanges(p.share) || first.Unmended != 0 {
		t.Errorf("a run that may change %d entities came to %+v", mostChanges(p.share), first)
	}
	left := differences{}
	for d := range p.planted {
		if d.class.Repair() == account.RepairByPerson {
			left[d] = true
		}
	}
	for range 4 {
		if again := p.reconcile(repairable()); again.Asked == 0 {
			break
		}
	}
	p.standsAt("repaired", p.reconcile(nil), left)
	peak := p.peak(worker)
	t.Logf("%d people, %d differences; the worker's memory was at most %d MiB", len(p.people), len(p.planted), peak>>20)
	if peak > mostMemory {
		t.Errorf("the worker needed %d MiB, which is more than %d", peak>>20, mostMemory>>20)
	}
}

// A customer that was given its user's name is given it again when somebody has overwritten it at
// Stripe: it is not the answer to the first time that counts, nor what we believe the customer to
// be called.
func TestAnOverwrittenProfileIsWrittenAgain(t *testing.T) {
	t.Parallel()
	p := newProduct(t, 20)
	p.StartWorker()
	p.bringIn()
	who := p.take(&p.others)
	p.must(p.Sandbox.Clerk.UpdateUser(who.user, clerksim.UserChange{LastName: new("Sample")}))
	for range 2 {
		p.bringIn(who.user)
		p.called(who, "Sample")
		spec := who.naming(who.user)
		spec.Name = "Somebody Else"
		p.must(p.Sandbox.Stripe.UpdateCustomer(who.customer, spec))
		p.must(p.Sandbox.Stripe.Settled(t.Context()))
		if done := p.reconcile([]account.Drift{account.DriftStaleCustomer}); done.Asked != 1 || done.Unmended != 0 {
			t.Errorf("the repair came to %+v", done)
		}
		p.called(who, "Sample")
	}
}

// called waits until a customer is called at Stripe as its user is.
func (p *product) called(who person, lastName string) {
	p.t.Helper()
	p.Until("the customer is called as its user", func(context.Context) error {
		body, _ := p.Sandbox.Stripe.Customer(who.customer)
		var customer struct {
			Name string `json:"name"`
		}
		if err := json.Unmarshal(body, &customer); err != nil {
			return err
		}
		if first, _, _ := strings.Cut(who.name, " "); customer.Name != first+" "+lastName {
			return fmt.Errorf("it is called %q", customer.Name)
		}
		return nil
	})
}

// repairable are the classes that need no person at the provider.
func repairable() (classes []account.Drift) {
	for _, class := range account.DriftClasses() {
		if class.Repair() != account.RepairByPerson {
			classes = append(classes, class)
		}
	}
	return classes
}

// mostMemory is what a worker may need, however many people there are.
const mostMemory = 256 << 20

// mostChanges is less than what there is to repair: fifteen classes can be.
func mostChanges(share int) int { return 10 * share }

func peopleOf(t *testing.T) int {
	t.Helper()
	text := os.Getenv("DRIFT_USERS")
	if text == "" {
		return 100
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 100 {
		t.Fatal("DRIFT_USERS is not a number of at least 100")
	}
	return n
}

// difference is one that is to be found, differences all of them.
type difference struct {
	entity  account.Entity
	class   account.Drift
	subject string
}

type differences map[difference]bool

// person is somebody with a customer, and perhaps a subscription to a product.
type person struct {
	user, customer, subscription string
	name, email                  string
}

// product is one in which everybody is in step.
type product struct {
	*system.System
	t              *testing.T
	db             *pgx.Conn
	console        *app.Operator
	share          int // of each class
	product, price string
	people         []person
	planted        differences
	// With whom nothing is wrong: those who pay and those who do not.
	payers, others []person
	// extras are products with a price each; a few people have nothing but one of them.
	extras []extra
}

func newProduct(t *testing.T, people int) *product {
	t.Helper()
	share := max(people/100, 2)
	p := &product{t: t, share: share, planted: differences{}, System: system.Start(t, servers, system.Options{Stopped: true, Environ: map[string]string{
		"RECONCILE_MAX_CHANGES": strconv.Itoa(mostChanges(share)),
	}})}
	for _, webhooks := range []*delivery.Sender{p.Sandbox.ClerkWebhooks, p.Sandbox.StripeWebhooks} {
		webhooks.SetFaults(delivery.Faults{Lose: 1})
	}
	p.StartAPI()
	var err error
	p.console, err = app.NewConsole(t.Context(), p.Environ)
	p.must(err)
	t.Cleanup(p.console.Close)
	p.db, err = pgx.Connect(t.Context(), p.DSN)
	p.must(err)
	t.Cleanup(func() { _ = p.db.Close(context.Background()) })
	p.product = p.Sandbox.Stripe.AddProduct("Pro")
	p.price = p.Sandbox.Stripe.AddPrice(p.product, 2000, "month")
	for i := range people {
		p.people = append(p.people, p.person(i))
	}
	for i := range 2 * share {
		p.extras = append(p.extras, p.extra(i))
	}
	// One in fourteen pays, of a few people more.
	for i := range people {
		if i%14 == 0 || len(p.payers) < 5*share {
			p.people[i].subscription = p.checkout(p.people[i].customer, p.price)
			p.payers = append(p.payers, p.people[i])
		} else {
			p.others = append(p.others, p.people[i])
		}
	}
	for i := range share {
		who := p.take(&p.others)
		who.subscription = p.checkout(who.customer, p.extras[i].price)
		p.extras[i].owner = who
	}
	p.must(p.Sandbox.Stripe.Settled(t.Context()))
	return p
}

// extra is a product with a price, and who has bought it.
type extra struct {
	product, price string
	owner          person
}

func (p *product) extra(i int) extra {
	product := p.Sandbox.Stripe.AddProduct(fmt.Sprint("Extra ", i))
	return extra{product: product, price: p.Sandbox.Stripe.AddPrice(product, 500, "month")}
}

func (p *product) person(i int) person {
	who := person{name: fmt.Sprintf("Ada%d Example", i), email: fmt.Sprintf("ada%d@example.com", i)}
	who.user = p.Sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: fmt.Sprint("Ada", i), LastName: "Example", Emails: []clerksim.EmailSpec{{Address: who.email, Verified: true}}})
	who.customer = p.Sandbox.Stripe.AddCustomer(who.naming(who.user))
	return who
}

// naming is the person's customer as it is at Stripe when it names this user.
func (who person) naming(user string) stripesim.CustomerSpec {
	return stripesim.CustomerSpec{Name: who.name, Email: who.email, Metadata: map[string]string{"clerk_user_id": user}}
}

// take answers one of these with whom nothing is wrong, and with whom something will be.
func (p *product) take(of *[]person) person {
	p.t.Helper()
	if len(*of) == 0 {
		p.t.Fatal("there are too few people")
	}
	who := (*of)[0]
	*of = (*of)[1:]
	return who
}

func (p *product) checkout(customer, price string) string {
	p.t.Helper()
	done, err := p.Sandbox.Stripe.CompleteCheckout(p.t.Context(), stripesim.CheckoutSpec{CustomerID: customer, PriceID: price})
	p.must(err)
	return done.SubscriptionID
}

// bringIn has everybody known here as both providers know them.
func (p *product) bringIn(ids ...string) {
	p.t.Helper()
	began := time.Now()
	run, begun, err := p.console.StartBulk(p.t.Context(), operator.BulkOrder{Caller: "operator", IDs: ids})
	p.must(err)
	if !begun {
		p.t.Fatalf("%s is under way", run.ID)
	}
	p.UntilWithin(p.patience(), "everybody is brought in", func(ctx context.Context) error {
		switch run, err = p.console.Bulk(ctx, run.ID); {
		case err != nil:
			return err
		case run.FinishedAt == nil:
			return fmt.Errorf("it reads %s after %q", run.Step, run.After)
		}
		return nil
	})
	if run.Failure != nil || run.Failed != 0 {
		p.t.Fatalf("bringing everybody in came to %+v", run)
	}
	p.Rest() // nothing that was woken reads what is made wrong next
	p.t.Logf("brought in %d in %s", run.Done, time.Since(began).Round(time.Second))
}

// patience is how long everybody may take.
func (p *product) patience() time.Duration {
	return 2*system.Patience() + time.Duration(len(p.people))*50*time.Millisecond
}

func (p *product) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *product) exec(sql string, args ...any) {
	p.t.Helper()
	tag, err := p.db.Exec(p.t.Context(), sql, args...)
	p.must(err)
	if tag.RowsAffected() != 1 {
		p.t.Fatalf("%q changed %d rows", sql, tag.RowsAffected())
	}
}

// reconcile has everything compared, and waits for the end.
func (p *product) reconcile(repair []account.Drift) workflows.ReconciliationResult {
	p.t.Helper()
	_, begun, err := p.console.Reconcile(p.t.Context(), "operator", repair)
	p.must(err)
	if !begun {
		p.t.Fatal("a comparison is under way")
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), p.patience())
	defer cancel()
	began := time.Now()
	var result workflows.ReconciliationResult
	if err := p.Temporal.GetWorkflow(ctx, workflows.OnDemandReconciliationID, "").GetWithOptions(ctx, &result, client.WorkflowRunGetOptions{}); err != nil {
		p.t.Fatalf("the comparison: %v; under repair are %v", err, p.underRepair())
	}
	p.t.Logf("compared in %s: %+v", time.Since(began).Round(time.Second), result)
	return result
}

// underRepair lists what was to be repaired and is not, and what is under way for it.
func (p *product) underRepair() (open []string) {
	p.t.Helper()
	rows, err := p.db.Query(p.t.Context(), `SELECT f.class || ' ' || f.subject || ' of ' || f.entity || coalesce(' with ' || to_jsonb(p)::text, '') || coalesce(', ' || u.publish_due_since, '')
		FROM reconciliation_found f LEFT JOIN pokes p USING (entity) LEFT JOIN person_user u ON 'user/' || u.clerk_user_id = f.entity WHERE repairing`)
	p.must(err)
	open, err = pgx.CollectRows(rows, pgx.RowTo[string])
	p.must(err)
	return open
}

// standsAt looks whether exactly these differences are open, and were met.
func (p *product) standsAt(when string, result workflows.ReconciliationResult, want differences) {
	p.t.Helper()
	rows, err := p.db.Query(p.t.Context(), `SELECT entity, class, subject FROM drift WHERE resolved_at IS NULL`)
	p.must(err)
	has := differences{}
	var d difference
	_, err = pgx.ForEachRow(rows, []any{&d.entity, &d.class, &d.subject}, func() error {
		has[d] = true
		return nil
	})
	p.must(err)
	told := 0
	tell := func(format string, d difference) {
		if told++; told <= 20 {
			p.t.Errorf(format, when, d.class, d.subject, d.entity)
		}
	}
	for d := range want {
		if !has[d] {
			tell("%s: %s %s of %s was not found", d)
		}
	}
	for d := range has {
		if !want[d] {
			tell("%s: %s %s of %s was found", d)
		}
	}
	counts := map[string]int64{}
	for d := range want {
		counts[string(d.class)]++
	}
	if !maps.Equal(counts, result.Confirmed) {
		p.t.Errorf("%s: the run met %v, want %v", when, result.Confirmed, counts)
	}
}

// peak is the most memory that a process has had, zero where that is not known.
func (p *product) peak(of *system.Process) int64 {
	p.t.Helper()
	peak, err := of.PeakMemory()
	if errors.Is(err, errors.ErrUnsupported) {
		return 0
	}
	p.must(err)
	return peak
}
