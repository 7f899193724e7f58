package e2e_test

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/test/system"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// The most that a renewal may cost whose deliveries come together, and an event that changes nothing.
const (
	renewalReads  = 1
	renewalWrites = 1
	renewalEvents = 15
	nothingReads  = 1
)

// cost is what some deliveries about one customer came to.
type cost struct{ deliveries, signals, reads, writes, events int }

// payer is somebody whose subscription is known everywhere.
type payer struct {
	*system.System
	t                            *testing.T
	user, customer, subscription string
}

func newPayer(t *testing.T) *payer {
	t.Helper()
	p := &payer{System: system.Start(t, servers, system.Options{Stopped: true}), t: t}
	for _, program := range []string{system.ProgramAPI, system.ProgramWorker} {
		p.StartProcess(program, map[string]string{"POKE_INTERVAL": burstInterval.String(), "BOUNDARY_DELAY": "1h"})
	}
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

// costs delivers messages all at once, and counts until everything rests.
func (p *payer) costs(messages []delivery.Message, dice *rand.Rand) (c cost) {
	p.t.Helper()
	before := countsOf(p.t, p.System, workflows.CustomerWorkflowID(p.customer))
	p.Sandbox.StripeFaults.Reset()
	p.Sandbox.ClerkFaults.Reset()
	deliverShuffled(p.t, p.System, messages, len(messages), dice)
	p.Rest()
	p.Agree(p.user, policy())
	c.deliveries = len(messages)
	c.signals, c.events = countsOf(p.t, p.System, workflows.CustomerWorkflowID(p.customer)).since(before)
	c.reads, c.writes = calls(p.t, p.System)
	return c
}

// within says whether it is in the budget of a renewal.
func (c cost) within() bool {
	return c.reads <= renewalReads && c.writes == renewalWrites && c.events <= renewalEvents
}

// A renewal is one look at Stripe, one write to Clerk, and a short piece of history.
//
// A delivery that comes behind the look which the others asked for has to be looked at once more. On a busy machine
// that is most of the time, so that renewals are sent until one was looked at whole; no other may have cost a look
// that no signal asked for, or a second write.
//
// RENEWALS sets how many are measured; at most four times as many are.
func TestWhatARenewalCosts(t *testing.T) {
	t.Parallel()
	p := newPayer(t)
	dice := rand.New(rand.NewPCG(1, 2))
	var all []cost
	renewals := numberFrom(t, "RENEWALS", 5)
	for len(all) < renewals || len(all) < 4*renewals && !slices.ContainsFunc(all, cost.within) {
		p.Sandbox.StripeWebhooks.Hold()
		if err := p.Sandbox.Stripe.Advance(t.Context(), 31*24*time.Hour); err != nil {
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
	if !slices.ContainsFunc(all, cost.within) {
		t.Errorf("no renewal cost at most %d reads of Stripe, %d writes to Clerk and %d events of history", renewalReads, renewalWrites, renewalEvents)
	}
	for _, c := range all {
		if c.reads > c.signals || c.signals > c.deliveries || c.writes != renewalWrites {
			t.Errorf("a renewal cost %+v, want no look without a signal, and one write", c)
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
