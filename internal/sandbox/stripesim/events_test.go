package stripesim_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

func TestEventsAreListed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.checkout(stripesim.CheckoutSpec{PriceID: w.price(1500, "month")})
	emitted := w.events
	list := func(p *stripe.EventListParams) (ids []string) {
		p.Limit = stripe.Int64(5)
		it := w.api.Events.List(p)
		for it.Next() {
			ids = append(ids, it.Event().ID)
		}
		w.ok(it.Err())
		return ids
	}
	all := list(&stripe.EventListParams{})
	equal(t, "how many", len(all), len(emitted))
	for i, e := range emitted {
		equal(t, "order", all[len(all)-1-i], e.id)
	}
	one, err := w.api.Events.Get(emitted[0].id, nil)
	w.ok(err)
	equal(t, "type", string(one.Type), emitted[0].typ)
	equal(t, "by type", len(list(&stripe.EventListParams{Types: []*string{stripe.String("invoice.paid"), stripe.String("product.created")}})), 2)

	for _, e := range emitted[1:] {
		w.sim.MarkDelivered(e.id)
	}
	undelivered := list(&stripe.EventListParams{DeliverySuccess: stripe.Bool(false)})
	equal(t, "not delivered", fmt.Sprint(undelivered), fmt.Sprint([]string{emitted[0].id}))
	equal(t, "delivered", len(list(&stripe.EventListParams{DeliverySuccess: stripe.Bool(true)})), len(emitted)-1)

	w.advance(31 * day) // the renewal makes new ones
	for _, id := range list(&stripe.EventListParams{}) {
		if id == emitted[0].id {
			t.Error("an event was listed for more than 30 days")
		}
	}
}

func TestEmitMayCallBack(t *testing.T) {
	t.Parallel()
	var sim *stripesim.Server
	var order []string
	sim = stripesim.New(stripesim.Options{Emit: func(_, typ string, body []byte) {
		order = append(order, typ)
		if typ == "customer.created" {
			var ev struct {
				Data struct{ Object struct{ ID string } }
			}
			if err := json.Unmarshal(body, &ev); err != nil {
				t.Error(err)
			}
			if _, visible := sim.Customer(ev.Data.Object.ID); !visible {
				t.Error("the change is not visible to its event")
			}
			sim.AddProduct("made by an event")
		}
	}})
	sim.AddCustomer(stripesim.CustomerSpec{})
	if err := sim.Settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	equal(t, "order", fmt.Sprint(order), "[customer.created product.created]")
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	price := w.price(1500, "month")
	w.types()
	const people = 20
	var group sync.WaitGroup
	for i := range people {
		group.Go(func() {
			r, err := w.sim.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{PriceID: price, Email: fmt.Sprintf("p%d@example.com", i)})
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := w.api.Subscriptions.Update(r.SubscriptionID, &stripe.SubscriptionParams{CancelAtPeriodEnd: stripe.Bool(true)}); err != nil {
				t.Error(err)
			}
			if err := w.sim.Advance(t.Context(), time.Second); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	w.ok(w.sim.Settled(t.Context()))
	types := w.types()
	equal(t, "checkouts", count(types, "checkout.session.completed"), people)
	log := w.sim.Events()
	equal(t, "emitted as many as were logged", len(types), len(log)-2) // the product and the price came before
	for i, typ := range types {
		equal(t, "in the order of the log", typ, log[i+2].Type)
	}
}

func TestSaveAndLoad(t *testing.T) {
	t.Parallel()
	a := newWorld(t)
	price := a.price(1500, "month")
	r := a.checkout(stripesim.CheckoutSpec{PriceID: price, Email: "a@example.com", TrialDays: 2})
	kept, err := a.api.Customers.New(keyed("k", "b@example.com"))
	a.ok(err)
	a.advance(day)
	var file bytes.Buffer
	a.ok(a.sim.Save(&file))

	b := newWorld(t)
	b.ok(b.sim.Load(&file))
	equal(t, "the clock did not go back", b.sim.Now().Before(a.sim.Now()), false)
	before, _ := a.sim.Subscription(r.SubscriptionID)
	after, _ := b.sim.Subscription(r.SubscriptionID)
	equal(t, "subscription", string(after), string(before))
	equal(t, "events", len(b.sim.Events()), len(a.sim.Events()))
	again, err := b.api.Customers.New(keyed("k", "b@example.com"))
	b.ok(err)
	equal(t, "keys are remembered", again.ID, kept.ID)
	fresh := b.sim.AddCustomer(stripesim.CustomerSpec{})
	equal(t, "ids go on", fresh != kept.ID && fresh != r.CustomerID, true)
	b.types()
	b.advance(day + time.Hour)
	equal(t, "what was planned happens", b.subscription(r.SubscriptionID).Status, stripe.SubscriptionStatusActive)
	equal(t, "and is paid", count(b.types(), "charge.succeeded"), 1)

	if err := b.sim.Load(bytes.NewReader([]byte("not JSON"))); err == nil {
		t.Error("loaded nonsense")
	}
	equal(t, "and kept what was there", len(b.sim.Subscriptions(r.CustomerID)), 1)
}

func TestTimeFlowsByItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *stripesim.Options) { o.Frozen = false })
	before := w.sim.Now()
	equal(t, "starts where it was told", before.Sub(start()) < time.Minute, true)
	deadline := time.Now().Add(10 * time.Second)
	for !w.sim.Now().After(before) && time.Now().Before(deadline) {
		<-time.After(time.Millisecond)
	}
	equal(t, "moves", w.sim.Now().After(before), true)
}
