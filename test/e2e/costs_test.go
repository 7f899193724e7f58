package e2e_test

import (
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/test/system"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// The most that a renewal may cost whose deliveries come together, and an event that changes
// nothing.
const (
	renewalReads  = 1
	renewalWrites = 1
	renewalEvents = 15
	nothingReads  = 1
)

// cost is what some deliveries about one customer came to.
type cost struct{ deliveries, signals, reads, writes, events, clerkReads int }

// costInterval is the pause between two pokes of one entity: longer than deliveries and the look at
// them take even on a busy machine, so that what is counted is what they cost and not how busy it
// is.
const costInterval = 5 * time.Second

// payer is somebody whose subscription is known everywhere.
type payer struct {
	*system.System
	t                            *testing.T
	worker                       *system.Process
	user, customer, subscription string
}

func newPayer(t *testing.T) *payer {
	t.Helper()
	p := &payer{System: system.Start(t, servers, system.Options{Stopped: true}), t: t}
	environ := map[string]string{"POKE_INTERVAL": costInterval.String(), "BOUNDARY_DELAY": "1h"}
	p.StartProcess(system.ProgramAPI, environ)
	p.worker = p.StartProcess(system.ProgramWorker, environ)
	price := p.Sandbox.Stripe.AddPrice(p.Sandbox.Stripe.AddProduct("Pro"), 2000, "month")
	p.user = p.Sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: "Ada", Emails: []clerksim.EmailSpec{{Address: "ada@example.com", Verified: true}}})
	p.Quiet(false)
	p.customer = customerOf(t, p.System, p.user)
	done, err := p.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{CustomerID: p.customer, PriceID: price, ClientReferenceID: p.user})
	if err != nil {
		t.Fatal(err)
	}
	p.subscription = done.SubscriptionID
	p.Rest()
	p.Agree(p.user, policy())
	return p
}

// costs delivers messages all at once, and counts until everything rests. The worker stands still
// meanwhile, since a delivery that comes behind the look is rightly looked at once more.
func (p *payer) costs(messages []delivery.Message, dice *rand.Rand) (c cost) {
	p.t.Helper()
	before := countsOf(p.t, p.System, workflows.CustomerWorkflowID(p.customer))
	p.Sandbox.StripeFaults.Reset()
	p.Sandbox.ClerkFaults.Reset()
	p.worker.Pause()
	defer p.worker.Resume() // if the deliveries fail
	deliverShuffled(p.t, p.System, messages, len(messages), dice)
	p.worker.Resume()
	p.Rest()
	p.Agree(p.user, policy())
	c.deliveries = len(messages)
	c.signals, c.events = countsOf(p.t, p.System, workflows.CustomerWorkflowID(p.customer)).since(before)
	c.reads, c.writes = calls(p.t, p.System)
	for _, n := range p.Sandbox.ClerkFaults.Requests() {
		c.clerkReads += n
	}
	c.clerkReads -= c.writes
	return c
}

// A renewal is one look at Stripe, one write to Clerk, and a short piece of history. What Clerk
// tells of that write is known already: nobody asks Clerk for it.
//
// RENEWALS sets how many are measured.
func TestWhatARenewalCosts(t *testing.T) {
	t.Parallel()
	p := newPayer(t)
	dice := rand.New(rand.NewPCG(1, 2))
	var all []cost
	for range numberFrom(t, "RENEWALS", 5) {
		p.Sandbox.StripeWebhooks.Hold()
		// An hour after the end of the longest month it is paid.
		if err := p.Sandbox.Stripe.Advance(t.Context(), 31*24*time.Hour+2*time.Hour); err != nil {
			t.Fatal(err)
		}
		if err := p.Sandbox.Stripe.Settled(t.Context()); err != nil {
			t.Fatal(err)
		}
		renewal := p.Sandbox.StripeWebhooks.TakeHeld()
		p.Sandbox.StripeWebhooks.Release()
		if len(renewal) < 4 {
			t.Fatalf("a renewal sends %d events: %s", len(renewal), typesOf(t, renewal))
		}
		all = append(all, p.costs(renewal, dice))
	}
	t.Logf("renewals cost %+v", all)
	for _, c := range all {
		if c.reads > renewalReads || c.writes > renewalWrites || c.events > renewalEvents || c.writes == 0 || c.clerkReads > 0 {
			t.Errorf("a renewal cost %+v, want at most %d reads of Stripe, %d writes to Clerk, no read of it, and %d events of history", c, renewalReads, renewalWrites, renewalEvents)
		}
	}
}

// An event behind which nothing has changed is one look at Stripe, and no write.
func TestWhatNoChangeCosts(t *testing.T) {
	t.Parallel()
	p := newPayer(t)
	body, err := json.Marshal(map[string]any{"id": "evt_NothingHasChanged", "object": "event", "type": "customer.updated", "created": time.Now().Unix(), "livemode": false,
		"api_version": "2023-10-16", "data": map[string]any{"object": map[string]any{"id": p.customer, "object": "customer"}}})
	if err != nil {
		t.Fatal(err)
	}
	c := p.costs([]delivery.Message{{ID: "evt_NothingHasChanged", Body: body}}, rand.New(rand.NewPCG(1, 2)))
	if c.reads != nothingReads || c.writes != 0 || c.signals != 1 {
		t.Errorf("it cost %+v", c)
	}
}
