//go:build faults && linux

package faults_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

// The load while nothing is said otherwise.
const (
	deliveriesPerSecond = 16
	commandsPerSecond   = 0.8
	people              = 90
	clockStep           = 15 * time.Minute // of Stripe's clock, in each second
)

// crowd is the people who use the product, in Clerk, at Stripe and by the API.
type crowd struct {
	s      *stage
	prices []string
	api    *frontEnd

	mu      sync.Mutex
	dice    *rand.Rand
	members []*member
	born    int

	acting sync.WaitGroup
}

// member is one person. What they do themselves, one thing after the other, is under their lock.
type member struct {
	user string

	mu       sync.Mutex
	customer string // as soon as we know it
	// The last subscription that was met.
	subscription string
	unpaying     bool
	left         bool
	leftAt       time.Time
	former       []string // customers of theirs that were deleted in the dashboard
	touched      faultSet // what was broken when they did something
}

func newCrowd(s *stage, seed uint64, prices []string) *crowd {
	c := &crowd{s: s, prices: prices, dice: rand.New(rand.NewPCG(seed, 0x63726f7764))}
	c.api = newFrontEnd(s)
	return c
}

// chance answers a number below n.
func (c *crowd) chance(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dice.IntN(n)
}

func (c *crowd) all() []*member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*member(nil), c.members...)
}

// someone picks a person who is there and not busy, and answers them locked; nil where nobody was
// met.
func (c *crowd) someone() *member {
	members := c.all()
	for range 20 {
		if len(members) == 0 {
			return nil
		}
		// The newest: those who left are among the oldest.
		recent := members[max(0, len(members)-3*people):]
		m := recent[c.chance(len(recent))]
		if !m.mu.TryLock() {
			continue
		}
		if m.left {
			m.mu.Unlock()
			continue
		}
		m.touched |= c.s.now()
		return m
	}
	return nil
}

// live runs the crowd until ctx ends, and returns when nobody does anything any more.
func (c *crowd) live(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { c.keepClock(ctx) })
	running.Go(func() { c.keepBusy(ctx) })
	running.Go(func() { c.keepAsking(ctx) })
	running.Go(func() { c.s.keepNoticing(ctx) })
	running.Wait()
	c.acting.Wait()
}

// keepClock moves Stripe's clock, so that periods end and payments are due.
func (c *crowd) keepClock(ctx context.Context) {
	every(ctx, time.Second, func() {
		if err := c.s.Sandbox.Stripe.Advance(ctx, clockStep); err != nil && ctx.Err() == nil {
			c.s.t.Errorf("moving Stripe's clock: %v", err)
		}
	})
}

// keepBusy has people act in the browser, as often as it takes for the providers to have enough to
// tell. What they told beside, of a rush or a jump of the clock, is soon forgotten; what could not
// be told is made up for.
func (c *crowd) keepBusy(ctx context.Context) {
	last := time.Now()
	told, _ := c.s.balancer.counts()
	var owed float64
	every(ctx, 40*time.Millisecond, func() {
		now := time.Now()
		seen, _ := c.s.balancer.counts()
		owed += deliveriesPerSecond*now.Sub(last).Seconds() - float64(seen-told)
		owed = min(max(owed, -deliveriesPerSecond), 10*deliveriesPerSecond)
		told, last = seen, now
		if owed > 0 {
			c.browse(ctx)
		}
	})
}

// keepAsking has people ask the API.
func (c *crowd) keepAsking(ctx context.Context) {
	every(ctx, time.Duration(float64(time.Second)/commandsPerSecond), func() {
		c.acting.Go(func() { c.ask(context.WithoutCancel(ctx)) })
	})
}

func every(ctx context.Context, pause time.Duration, do func()) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			do()
		case <-ctx.Done():
			return
		}
	}
}

// present is how many people are there.
func (c *crowd) present() (n int) {
	for _, m := range c.all() {
		if m.mu.TryLock() {
			if !m.left {
				n++
			}
			m.mu.Unlock()
		} else {
			n++ // busy
		}
	}
	return n
}

// signUp makes a person.
func (c *crowd) signUp() *member {
	c.mu.Lock()
	c.born++
	n := c.born
	c.mu.Unlock()
	m := &member{touched: c.s.now(), user: c.s.Sandbox.Clerk.AddUser(clerksim.UserSpec{
		FirstName: fmt.Sprintf("Name%d", n), LastName: "Example",
		Emails: []clerksim.EmailSpec{{Address: fmt.Sprintf("person%d@example.com", n), Verified: true}},
	})}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members = append(c.members, m)
	return m
}

// browse has somebody do something in Clerk's or in Stripe's pages.
func (c *crowd) browse(ctx context.Context) {
	roll := c.chance(100)
	here := c.present()
	if here < people && (roll < 20 || here < people/3) {
		c.signUp()
		return
	}
	m := c.someone()
	if m == nil {
		return
	}
	defer m.mu.Unlock()
	clerk, stripe := c.s.Sandbox.Clerk, c.s.Sandbox.Stripe
	var err error
	switch sub := c.subscription(ctx, m); {
	case roll < 4 && here > people*2/3:
		err = c.s.leave(m)
	case roll < 25:
		c.mu.Lock()
		c.born++
		name := fmt.Sprintf("Name%d", c.born)
		c.mu.Unlock()
		err = clerk.UpdateUser(m.user, clerksim.UserChange{FirstName: &name})
	case m.customer == "":
	case sub == nil:
		// The product's own page sells by a checkout that names the user.
		if m.unpaying {
			err = stripe.SetPayments(m.customer, true)
			m.unpaying = false
		}
		if err == nil {
			_, err = stripe.CompleteCheckout(ctx, stripesim.CheckoutSpec{CustomerID: m.customer, PriceID: c.prices[c.chance(len(c.prices))], ClientReferenceID: m.user})
		}
	case m.unpaying && roll < 60:
		m.unpaying = false
		if err = stripe.SetPayments(m.customer, true); err == nil && sub.Status == "past_due" {
			err = stripe.PayOpenInvoice(sub.ID)
		}
	case roll < 40:
		err = stripe.ChangePrice(sub.ID, c.prices[c.chance(len(c.prices))])
	case roll < 55:
		err = stripe.SetQuantity(sub.ID, int64(1+c.chance(9)))
	case roll < 65:
		m.unpaying = true
		err = stripe.SetPayments(m.customer, false)
	case roll < 75:
		err = stripe.CancelAtPeriodEnd(sub.ID)
	case roll < 85:
		err = stripe.Reactivate(sub.ID)
	case roll < 88:
		err = stripe.CancelNow(sub.ID)
	case roll < 94:
		err = stripe.PauseCollection(sub.ID)
	default:
		err = stripe.ResumeCollection(sub.ID)
	}
	// Between looking and acting Stripe's clock may end a subscription, or a card be declined: people
	// are refused things.
	_ = err
}

// rush has people, or somebody's script, change what both providers tell of, a hundred times as
// fast as usual. It answers what waits for its end.
func (c *crowd) rush(length time.Duration) (wait func() error) {
	const pause = 20 * time.Millisecond
	burst := int(100 * deliveriesPerSecond * pause.Seconds())
	ctx, cancel := context.WithTimeout(context.Background(), length)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		n := 0
		every(ctx, pause, func() {
			members := c.all()
			for range burst {
				n++
				if m := members[c.chance(len(members))]; m.mu.TryLock() {
					c.nudge(m, n)
					m.mu.Unlock()
				}
			}
		})
	}()
	return func() error { <-done; return nil }
}

// nudge changes something about a person. Who has left, or whose subscription has ended, is not
// there.
func (c *crowd) nudge(m *member, n int) {
	m.touched |= c.s.now()
	if m.subscription == "" || n%4 == 0 {
		name := fmt.Sprintf("Rush%d", n)
		_ = c.s.Sandbox.Clerk.UpdateUser(m.user, clerksim.UserChange{FirstName: &name})
		return
	}
	_ = c.s.Sandbox.Stripe.SetQuantity(m.subscription, int64(n))
}

// subscription is what Stripe says of a person's subscription that has not ended; nil if there is
// none.
func (c *crowd) subscription(ctx context.Context, m *member) *stripeSub {
	if m.customer == "" {
		if known := c.customerOf(ctx, m.user); !slices.Contains(m.former, known) {
			m.customer = known
		}
	}
	if m.customer == "" {
		return nil
	}
	for _, raw := range c.s.Sandbox.Stripe.Subscriptions(m.customer) {
		var sub stripeSub
		if err := json.Unmarshal(raw, &sub); err != nil {
			panic(err) // the sandbox rendered it
		}
		if !sub.over() {
			m.subscription = sub.ID
			return &sub
		}
	}
	return nil
}

// customerOf answers a person's customer as the product's app knows it, from PostgreSQL; "" while
// it does not.
func (c *crowd) customerOf(ctx context.Context, user string) (customer string) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = c.s.db.QueryRow(ctx, `SELECT coalesce(max(stripe_customer_id), '') FROM person_user WHERE clerk_user_id = $1`, user).Scan(&customer)
	return customer
}

// stripeSub is what is looked at of a subscription.
type stripeSub struct {
	ID                string `json:"id"`
	Status            string `json:"status"`
	CancelAtPeriodEnd bool   `json:"cancel_at_period_end"`
	CancelAt          *int64 `json:"cancel_at"`
}

func (s stripeSub) over() bool { return s.Status == "canceled" || s.Status == "incomplete_expired" }

// ends tells whether it is set to end.
func (s stripeSub) ends() bool { return s.CancelAtPeriodEnd || s.CancelAt != nil }
