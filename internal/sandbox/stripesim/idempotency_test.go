package stripesim_test

import (
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

func keyed(key, email string) *stripe.CustomerParams {
	p := &stripe.CustomerParams{Email: stripe.String(email)}
	p.SetIdempotencyKey(key)
	return p
}

func TestAKeyMakesOneCustomer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, err := w.api.Customers.New(keyed("k", "a@example.com"))
	w.ok(err)
	b, err := w.api.Customers.New(keyed("k", "a@example.com"))
	w.ok(err)
	equal(t, "the same customer", b.ID, a.ID)
	equal(t, "first answer says so", a.LastResponse.Header.Get("Idempotent-Replayed"), "")
	equal(t, "second answer says so", b.LastResponse.Header.Get("Idempotent-Replayed"), "true")
	equal(t, "original request", b.LastResponse.Header.Get("Original-Request"), a.LastResponse.RequestID)
	equal(t, "key is echoed", b.LastResponse.Header.Get("Idempotency-Key"), "k")
	equal(t, "customers", w.sim.Counts()["customer"], 1)
	ev := w.last("customer.created")["request"].(map[string]any)
	equal(t, "the event names the key", ev["idempotency_key"].(string), "k")
	equal(t, "the event names the request", ev["id"].(string), a.LastResponse.RequestID)

	_, err = w.api.Customers.New(keyed("k", "b@example.com"))
	se := stripeError(t, err)
	equal(t, "other parameters", se.HTTPStatusCode, 400)
	equal(t, "type", se.Type, stripe.ErrorTypeIdempotency)

	w.advance(25 * time.Hour)
	c, err := w.api.Customers.New(keyed("k", "b@example.com"))
	w.ok(err)
	equal(t, "a key lives a day", c.ID != a.ID, true)
}

func TestAServerErrorIsReplayed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sim.BreakNext(1)
	for range 2 {
		_, err := w.api.Customers.New(keyed("k", "a@example.com"))
		equal(t, "status", stripeError(t, err).HTTPStatusCode, 500)
	}
	_, err := w.api.Customers.New(keyed("k2", "a@example.com"))
	w.ok(err)
	equal(t, "customers", w.sim.Counts()["customer"], 1)
}

func TestARefusedRequestDoesNotUseUpItsKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := keyed("k", "a@example.com")
	p.AddExtra("shoe", "43")
	_, err := w.api.Customers.New(p)
	equal(t, "refused", stripeError(t, err).Code, stripe.ErrorCode("parameter_unknown"))
	_, err = w.api.Customers.New(keyed("k", "a@example.com"))
	w.ok(err)
}

func TestAKeyInUseIsAConflict(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	release := w.sim.Stall()
	first := make(chan error, 1)
	go func() {
		_, err := w.api.Customers.New(keyed("k", "a@example.com"))
		first <- err
	}()
	deadline := time.Now().Add(10 * time.Second)
	for w.sim.InProgress() == 0 {
		if time.Now().After(deadline) {
			t.Fatal("the first request never arrived")
		}
		<-time.After(time.Millisecond)
	}
	_, err := w.api.Customers.New(keyed("k", "a@example.com"))
	se := stripeError(t, err)
	equal(t, "status", se.HTTPStatusCode, 409)
	equal(t, "code", se.Code, stripe.ErrorCode("idempotency_key_in_use"))
	release()
	w.ok(<-first)
	again, err := w.api.Customers.New(keyed("k", "a@example.com"))
	w.ok(err)
	equal(t, "replayed", again.LastResponse.Header.Get("Idempotent-Replayed"), "true")
	equal(t, "customers", w.sim.Counts()["customer"], 1)
}

func TestIDsFollowFromTheSeed(t *testing.T) {
	t.Parallel()
	id := func(seed uint64) string {
		return newWorld(t, func(o *stripesim.Options) { o.Seed = seed }).sim.AddCustomer(stripesim.CustomerSpec{})
	}
	equal(t, "same seed", id(7), id(7))
	equal(t, "other seed", id(7) != id(8), true)
}
