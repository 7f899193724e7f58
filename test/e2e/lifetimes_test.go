package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

const (
	lifetimes = 100
	// lifeSpan is how far in the past the first of them begin. At the end Stripe's clock shows the
	// present, so that whatever our rows know as a boundary on the way is due by the real clock.
	lifeSpan = 70 * 24 * time.Hour
	// waves is in how many steps Stripe's clock goes there. Between two of them things happen to
	// people, and webhooks arrive or do not.
	waves = 7
)

// Whatever happens to people, and whatever becomes of the webhooks about it, PostgreSQL and Clerk
// end up as Stripe is: after the last delivery, or, where that was lost, after the boundary that it
// told of.
//
// LIFETIMES_SEED plays the lifetimes of a run again that failed. What happens to whom follows from
// it; in which order the programs get to it does not. LIFETIMES sets how many there are.
func TestLifetimes(t *testing.T) {
	t.Parallel()
	seed := lifetimesSeed(t)
	t.Logf("LIFETIMES_SEED=%d go test -run TestLifetimes ./test/e2e", seed)
	start := time.Now().Add(-lifeSpan)
	began := time.Now()
	s := system.Start(t, servers, system.Options{
		Sandbox: sandbox.Options{Seed: seed, StripeNow: func() time.Time { return start }, StripeFrozen: true, WebhookConcurrency: 4},
		Environ: map[string]string{"BOUNDARY_DELAY": "2s", "POKE_INTERVAL": "1s"},
	})
	w := newWorld(t, s, seed, numberFrom(t, "LIFETIMES", lifetimes))
	w.signUp()
	for wave := range waves {
		for _, p := range w.people {
			p.live(wave)
		}
		w.post.deliver(wave)
		if wave == waves-lateWaves {
			// The programs catch up once, so that there is something that they know before it changes.
			s.Quiet(true)
		}
		w.pass(lifeSpan / (waves + 1))
	}
	if err := s.Sandbox.Stripe.AdvanceTo(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	w.observe()
	w.settle()

	truth := s.NewTruth(policy(), account.DeleteCancelAtPeriodEnd, w.plans)
	// What was lost shows at the next look at the boundary, and a boundary that is overdue is looked
	// at ever more slowly: the next look comes at the latest when it has been overdue for as long
	// again.
	var disagreement error
	s.UntilWithin(time.Since(began)+system.Patience(), "PostgreSQL and Clerk are as Stripe is", func(ctx context.Context) error {
		if err := truth.Of(ctx, w.owned(ctx)...); err == nil || ctx.Err() == nil {
			disagreement = err // and not that time ran out
		}
		return disagreement
	})
	s.Quiet(false)
	if err := truth.Of(t.Context(), w.owned(t.Context())...); err != nil {
		t.Error("they agreed, and do not any more:", err)
	}
	w.check()
}

// world is everything that happens in one run.
type world struct {
	t      *testing.T
	s      *system.System
	plans  map[string]string // by price
	prices []string
	people []*person
	post   *post
}

func newWorld(t *testing.T, s *system.System, seed uint64, n int) *world {
	t.Helper()
	w := &world{t: t, s: s, plans: map[string]string{}}
	for _, plan := range []struct {
		name      string
		intervals []string
	}{{"Starter", []string{"month", "month", "year"}}, {"Pro", []string{"week", "month", "year"}}} {
		product := s.Sandbox.Stripe.AddProduct(plan.name)
		for i, interval := range plan.intervals {
			price := s.Sandbox.Stripe.AddPrice(product, int64(1000*(i+1)), interval)
			w.plans[price] = plan.name
			w.prices = append(w.prices, price)
		}
	}
	s.Quiet(false)
	w.post = newPost(t, s, rand.New(rand.NewPCG(seed, 0)))
	// Clerk's webhooks come late, twice and in any order, but they come: nothing would heal a sign-up
	// or a deletion that nobody tells.
	s.Sandbox.ClerkWebhooks.SetFaults(delivery.Faults{Double: 0.2, Unheard: 0.1, Reorder: 0.3})
	for i := range n {
		w.people = append(w.people, &person{w: w, dice: rand.New(rand.NewPCG(seed, uint64(i)+1)), number: i})
	}
	return w
}

// signUp has everybody sign up. Two of three have a customer before they buy; the others buy in the
// same moment, on a customer that only the checkout knows to be theirs.
func (w *world) signUp() {
	w.t.Helper()
	w.s.Sandbox.StripeWebhooks.Hold()
	for _, p := range w.people {
		p.early = p.dice.IntN(3) > 0
		if p.early {
			p.signUp()
		}
	}
	w.s.Until("everybody who signed up has a customer", func(ctx context.Context) error {
		customers, err := w.customersByUser()
		if err != nil {
			return err
		}
		for _, p := range w.people {
			if !p.early {
				continue
			}
			if len(customers[p.user]) != 1 {
				return fmt.Errorf("user %s has the customers %v", p.user, customers[p.user])
			}
			p.customers = slices.Clone(customers[p.user])
		}
		return ctx.Err()
	})
	for _, p := range w.people {
		p.observe()
	}
}

// pass lets Stripe's time pass. Nobody sees what Stripe does on the way but in its webhooks.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	if err := w.s.Sandbox.Stripe.Advance(w.t.Context(), d); err != nil {
		w.t.Fatal(err)
	}
	w.observe()
}

func (w *world) observe() {
	for _, p := range w.people {
		p.observe()
	}
}

// settle delivers what was put off, and of what was lost only what nothing else would make up for.
func (w *world) settle() {
	w.t.Helper()
	w.post.deliver(waves)
	w.post.deliverLate()
	for _, p := range w.people {
		for _, c := range p.customers {
			w.post.makeUp(c, p.gone)
		}
	}
	w.s.Sandbox.StripeWebhooks.Release() // what the programs still cause arrives as it comes
	w.t.Log(w.post.figures)
}

// check looks at what has to hold beside agreement.
func (w *world) check() {
	w.t.Helper()
	var open string
	if err := w.s.Row(w.t.Context(), `SELECT coalesce(string_agg(class || ' ' || entity, ', '), '') FROM drift WHERE resolved_at IS NULL`, nil, &open); err != nil {
		w.t.Fatal(err)
	}
	if open != "" {
		w.t.Errorf("differences are open that nobody may decide, want none: %s", open)
	}
	if n := w.s.Count(`SELECT count(*) FROM webhook_events WHERE status NOT IN ('completed', 'ignored')`); n != 0 {
		w.t.Errorf("%d events are not done", n)
	}
	if n := w.s.Count(`SELECT count(*) FROM person_user`); n != len(w.people) {
		w.t.Errorf("%d users, want %d", n, len(w.people))
	}
	if len(w.people) >= lifetimes && (w.post.figures.lost == 0 || w.post.figures.healed == 0 || w.post.figures.doubled == 0 || w.post.figures.late == 0) {
		w.t.Errorf("the run proves less than it is for: %s", w.post.figures)
	}
}

// owned is who owns which customers: those that the test made or met, and those that carry a user's
// id.
func (w *world) owned(context.Context) []system.Owned {
	marked, err := w.customersByUser()
	if err != nil {
		w.t.Fatal(err)
	}
	owned := make([]system.Owned, len(w.people))
	for i, p := range w.people {
		all := append(slices.Clone(p.customers), marked[p.user]...)
		slices.Sort(all)
		owned[i] = system.Owned{ClerkUserID: p.user, Customers: slices.Compact(all)}
	}
	return owned
}

// customersByUser are the customers at Stripe that are not deleted, by the user whom their metadata
// names.
func (w *world) customersByUser() (map[string][]string, error) {
	byUser := map[string][]string{}
	for _, raw := range w.s.Sandbox.Stripe.Customers() {
		var customer struct {
			ID       string            `json:"id"`
			Metadata map[string]string `json:"metadata"`
		}
		if err := json.Unmarshal(raw, &customer); err != nil {
			return nil, fmt.Errorf("decoding a customer: %w", err)
		}
		if user := customer.Metadata["clerk_user_id"]; user != "" {
			byUser[user] = append(byUser[user], customer.ID)
		}
	}
	return byUser, nil
}

func lifetimesSeed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("LIFETIMES_SEED")
	if text == "" {
		return rand.Uint64()
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal("LIFETIMES_SEED must be a number")
	}
	return seed
}

// errNothing says that there was nothing to do what was drawn to.
var errNothing = errors.New("nothing to do it to")

func (p *person) signUp() {
	p.user = p.w.s.Sandbox.Clerk.AddUser(clerksim.UserSpec{
		FirstName: fmt.Sprintf("Person%d", p.number), Emails: []clerksim.EmailSpec{{Address: fmt.Sprintf("person%d@example.com", p.number), Verified: true}},
	})
}
