package e2e_test

import (
	"math/rand/v2"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

// person is somebody to whom things happen.
type person struct {
	w      *world
	number int
	dice   *rand.Rand
	early  bool // has a customer before the first purchase

	user          string
	gone          bool     // deleted at Clerk
	customers     []string // that this person is known to have or have had
	subscriptions []string
	charges       []string
	disputed      map[string]bool
}

// The most that one person has.
const (
	mostCustomers     = 3
	mostSubscriptions = 4
)

// live has things happen to a person in one wave. What Stripe or the person's state refuses does
// not happen; that is part of life.
func (p *person) live(wave int) {
	if p.user == "" {
		if wave < p.number%3 {
			return
		}
		p.signUp()
		p.must(p.buy())
		return
	}
	if wave == 0 {
		p.must(p.buy())
		return
	}
	for range p.dice.IntN(3) {
		p.oneThing()
		p.observe()
	}
}

func (p *person) oneThing() {
	stripe := p.w.s.Sandbox.Stripe
	now := stripe.Now()
	if p.gone {
		// A checkout that was open completes after all.
		if p.dice.IntN(4) == 0 {
			_ = p.buy()
		}
		return
	}
	sub := p.draw(p.subscriptions)
	switch p.dice.IntN(20) {
	case 0, 1, 2:
		_ = p.buy()
	case 3:
		_ = stripe.CancelAtPeriodEnd(sub)
	case 4, 5:
		_ = stripe.CancelAt(sub, now.Add(time.Duration(1+p.dice.IntN(40*24))*time.Hour))
	case 6, 7:
		_ = stripe.Reactivate(sub)
	case 8:
		_ = stripe.CancelNow(sub)
	case 9:
		_ = stripe.ChangePrice(sub, p.draw(p.w.prices))
	case 10:
		_ = stripe.SetQuantity(sub, int64(1+p.dice.IntN(5)))
	case 11:
		if p.dice.IntN(2) == 0 {
			_ = stripe.PauseCollection(sub)
		} else {
			_ = stripe.PauseCollectionUntil(sub, now.Add(time.Duration(1+p.dice.IntN(20*24))*time.Hour))
		}
	case 12:
		_ = stripe.ResumeCollection(sub)
	case 13:
		_ = stripe.EndTrial(sub)
	case 14:
		_ = stripe.SetPayments(p.draw(p.customers), false)
	case 15:
		_ = stripe.SetPayments(p.draw(p.customers), true)
		_ = stripe.PayOpenInvoice(sub)
	case 16:
		_ = stripe.Refund(p.draw(p.charges), int64(p.dice.IntN(2)*300))
	case 17:
		p.dispute()
	case 18:
		if p.dice.IntN(3) == 0 {
			customer := p.draw(p.customers)
			_ = stripe.DeleteCustomer(customer)
		}
	case 19:
		if p.dice.IntN(3) == 0 {
			p.must(p.w.s.Sandbox.Clerk.DeleteUser(p.user))
			p.gone = true
		}
	}
}

// buy completes a checkout, on a customer that is there or on a new one.
func (p *person) buy() error {
	spec := stripesim.CheckoutSpec{PriceID: p.draw(p.w.prices), Quantity: int64(1 + p.dice.IntN(3))}
	fresh := len(p.customers) == 0 || p.dice.IntN(5) == 0 && len(p.customers) < mostCustomers
	spec.TrialDays = []int64{0, 0, 7, 14, 30}[p.dice.IntN(5)]
	spec.NoCard = p.dice.IntN(4) == 0
	// Whose it is stands in the session alone, as the app's server wrote it, or on the subscription.
	bySession := p.dice.IntN(2) == 0
	if len(p.subscriptions) >= mostSubscriptions || fresh && p.gone {
		return errNothing
	}
	if fresh {
		spec.Email = "somebody@example.com"
	} else {
		spec.CustomerID = p.draw(p.customers)
	}
	if bySession {
		spec.ClientReferenceID, spec.Metadata = p.user, map[string]string{"clerk_user_id": p.user}
	} else {
		spec.SubscriptionMetadata = map[string]string{"clerk_user_id": p.user}
	}
	done, err := p.w.s.Sandbox.Stripe.CompleteCheckout(p.w.t.Context(), spec)
	if err != nil {
		// Without a card there is nothing but a trial.
		spec.NoCard = false
		if done, err = p.w.s.Sandbox.Stripe.CompleteCheckout(p.w.t.Context(), spec); err != nil {
			return err
		}
	}
	if fresh {
		p.customers = append(p.customers, done.CustomerID)
	}
	p.subscriptions = append(p.subscriptions, done.SubscriptionID)
	if done.ChargeID != "" {
		p.charges = append(p.charges, done.ChargeID)
	}
	return nil
}

func (p *person) dispute() {
	charge := p.draw(p.charges)
	if charge == "" || p.disputed[charge] {
		return
	}
	if p.disputed == nil {
		p.disputed = map[string]bool{}
	}
	p.disputed[charge] = true
	id, err := p.w.s.Sandbox.Stripe.Dispute(charge)
	if err == nil && p.dice.IntN(2) == 0 {
		_ = p.w.s.Sandbox.Stripe.CloseDispute(id, p.dice.IntN(2) == 0)
	}
}

// observe notes how this person's customers stand at Stripe.
func (p *person) observe() {
	for _, c := range p.customers {
		p.w.post.observe(c)
	}
}

func (p *person) draw(from []string) string {
	if len(from) == 0 {
		return ""
	}
	return from[p.dice.IntN(len(from))]
}

func (p *person) must(err error) {
	p.w.t.Helper()
	if err != nil {
		p.w.t.Fatalf("person %d: %v", p.number, err)
	}
}
