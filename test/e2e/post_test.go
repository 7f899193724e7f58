package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeevent"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// post carries Stripe's webhooks, badly: it loses, doubles, delays and shuffles them.
//
// It knows when a loss is one that has to be made up for, because the test claims no more than is
// promised: a customer is read after the first delivery of each event (another one tells nothing),
// and by itself after each boundary that the last read knew. A change that comes after the last of
// those, and that no boundary is passed for either, stays unseen; nobody has told of it. Such a
// customer is delivered one of the lost webhooks in the end.
type post struct {
	t       *testing.T
	s       *system.System
	dice    *rand.Rand
	later   map[int][]delivery.Message // by wave
	known   map[string]*knowledge      // by customer
	taken   map[string]bool            // messages that were delivered before
	figures figures
}

// figures is what became of the webhooks.
type figures struct {
	sent, delivered, lost, doubled, late, healed, madeUp int
}

// String implements fmt.Stringer.
func (f figures) String() string {
	return fmt.Sprintf("%d webhooks: %d deliveries, %d lost, %d doubled, %d delivered in a later wave; customers whose last change was lost: %d left to their boundaries, %d told after all",
		f.sent, f.delivered, f.lost, f.doubled, f.late, f.healed, f.madeUp)
}

// knowledge is what can be known of a customer.
type knowledge struct {
	states []state
	// told is the state that a read after the last delivery shows at least; -1 before the first.
	told int
	lost *delivery.Message // the last one that was lost
}

// state is how a customer stood at Stripe, and when that can change by itself: zero if it cannot.
type state struct {
	said     string
	boundary time.Time
}

const (
	loseOne = 0.35
	// loseLate is how many are lost towards the end, when little comes after them that tells the same.
	loseLate  = 0.8
	lateWaves = 3
	doubleOne = 0.2
	delayOne  = 0.2
	// carriers is how many deliveries are under way at a time.
	carriers = 8
)

func newPost(t *testing.T, s *system.System, dice *rand.Rand) *post {
	t.Helper()
	return &post{t: t, s: s, dice: dice, later: map[int][]delivery.Message{}, known: map[string]*knowledge{}, taken: map[string]bool{}}
}

func (p *post) of(customer string) *knowledge {
	if p.known[customer] == nil {
		p.known[customer] = &knowledge{told: -1}
	}
	return p.known[customer]
}

// observe notes how a customer stands at Stripe, if that is news.
func (p *post) observe(customer string) {
	said, _ := p.s.Sandbox.Stripe.Customer(customer)
	var whole struct {
		Deleted bool `json:"deleted"`
	}
	if err := json.Unmarshal(said, &whole); err != nil {
		p.t.Fatal("decoding a customer:", err)
	}
	now := state{said: fmt.Sprint(whole.Deleted)}
	for _, raw := range p.s.Sandbox.Stripe.Subscriptions(customer) {
		now.said += "\n" + string(raw)
		var s struct {
			Status           account.Status `json:"status"`
			CurrentPeriodEnd int64          `json:"current_period_end"`
			CancelAt         int64          `json:"cancel_at"`
		}
		if err := json.Unmarshal(raw, &s); err != nil {
			p.t.Fatal("decoding a subscription:", err)
		}
		if s.Status.Terminal() {
			continue
		}
		for _, at := range []int64{s.CurrentPeriodEnd, s.CancelAt} {
			if at := time.Unix(at, 0); at.Unix() != 0 && (now.boundary.IsZero() || at.Before(now.boundary)) {
				now.boundary = at
			}
		}
	}
	k := p.of(customer)
	if len(k.states) == 0 || k.states[len(k.states)-1].said != now.said {
		k.states = append(k.states, now)
	}
}

// deliver takes what Stripe has to send, decides what becomes of it, and delivers the rest together
// with what is due from earlier waves.
func (p *post) deliver(wave int) {
	p.t.Helper()
	if err := p.s.Sandbox.Stripe.Settled(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
	due := p.later[wave]
	delete(p.later, wave)
	lossy := loseOne
	if wave > waves-lateWaves {
		lossy = loseLate
	}
	for _, m := range p.s.Sandbox.StripeWebhooks.TakeHeld() {
		if !stripeevent.Handled(p.parse(m).Type) {
			continue // Stripe sends an endpoint what it asks for
		}
		p.figures.sent++
		if p.dice.Float64() < lossy && p.lose(m) {
			continue
		}
		if p.dice.Float64() < doubleOne {
			p.figures.doubled++
			due = append(due, m)
		}
		if p.dice.Float64() < delayOne {
			p.figures.late++
			at := wave + 1 + p.dice.IntN(3)
			p.later[at] = append(p.later[at], m)
			continue
		}
		due = append(due, m)
	}
	p.carry(due)
}

// deliverLate delivers everything that is still put off.
func (p *post) deliverLate() {
	for _, wave := range slices.Sorted(maps.Keys(p.later)) {
		p.carry(p.later[wave])
		delete(p.later, wave)
	}
}

// lose loses a message, unless it may not be: nothing heals the loss of what alone says whose a
// customer is, or what a price is.
func (p *post) lose(m delivery.Message) bool {
	event := p.parse(m)
	switch {
	case strings.HasPrefix(event.Type, "price."), strings.HasPrefix(event.Type, "product."), event.Type == "customer.created":
		return false
	case event.Type == "checkout.session.completed" && len(event.Claims()) > 0:
		return false
	}
	p.figures.lost++
	if customer, about := subject(event); about {
		p.of(customer).lost = &m
	}
	return true
}

// subject is the customer who is read because of an event.
func subject(event stripeevent.Event) (customer string, about bool) {
	kind, id := event.Entity().Split()
	return id, kind == account.KindCustomer
}

func (p *post) parse(m delivery.Message) stripeevent.Event {
	p.t.Helper()
	event, err := stripeevent.Parse(string(m.Body))
	if err != nil {
		p.t.Fatal(err)
	}
	return event
}

// makeUp delivers one lost webhook of a customer, if nothing else would show what it told.
func (p *post) makeUp(customer string, always bool) {
	k := p.of(customer)
	last := len(k.states) - 1
	if k.lost == nil || k.told == last && !always {
		return
	}
	covered := k.told >= 0 && !always
	for i := max(k.told, 0); i < last && covered; i++ {
		covered = !k.states[i].boundary.IsZero() && k.states[i].boundary.Before(p.s.Sandbox.Stripe.Now())
	}
	if covered {
		p.figures.healed++
		return
	}
	p.figures.madeUp++
	p.carry([]delivery.Message{*k.lost})
}

// carry delivers messages in random order, several at a time, over HTTP.
func (p *post) carry(messages []delivery.Message) {
	p.t.Helper()
	p.dice.Shuffle(len(messages), func(i, j int) { messages[i], messages[j] = messages[j], messages[i] })
	ctx, cancel := context.WithTimeout(p.t.Context(), system.Patience())
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(carriers)
	for _, m := range messages {
		group.Go(func() error {
			status, err := p.s.Sandbox.StripeWebhooks.Deliver(ctx, m)
			if err == nil && status != http.StatusOK {
				err = fmt.Errorf("a delivery was answered %d", status)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		p.t.Fatal(err)
	}
	p.figures.delivered += len(messages)
	for _, m := range messages {
		if p.taken[m.ID] {
			continue
		}
		p.taken[m.ID] = true
		if customer, about := subject(p.parse(m)); about {
			// The read that it causes comes after the delivery, so it shows this state or a later one.
			k := p.of(customer)
			k.told = len(k.states) - 1
		}
	}
}
