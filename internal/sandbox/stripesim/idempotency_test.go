package stripesim_test

import (
	"fmt"
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

// A failure inside is kept under its key and repeated, whether or not what was asked for has
// happened. Another key is another request.
func TestAServerErrorIsReplayed(t *testing.T) {
	t.Parallel()
	for _, done := range []bool{true, false} {
		t.Run(fmt.Sprintf("done %t", done), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.sim.Break(stripesim.Breakage{PathPrefix: "/v1/customers", Done: done, Times: 1})
			for _, replayed := range []string{"", "true", "true"} {
				_, err := w.api.Customers.New(keyed("k", "a@example.com"))
				equal(t, "status", stripeError(t, err).HTTPStatusCode, 500)
				equal(t, "replayed", stripeError(t, err).LastResponse.Header.Get("Idempotent-Replayed"), replayed)
			}
			_, err := w.api.Customers.New(keyed("k", "b@example.com"))
			equal(t, "other parameters", stripeError(t, err).Type, stripe.ErrorTypeIdempotency)
			made := map[bool]int{true: 1}[done]
			equal(t, "customers", w.sim.Counts()["customer"], made)
			equal(t, "they are told of", len(w.sim.Events()), made)
			_, err = w.api.Customers.New(keyed("k2", "a@example.com"))
			w.ok(err)
			equal(t, "customers", w.sim.Counts()["customer"], made+1)
			w.advance(25 * time.Hour)
			_, err = w.api.Customers.New(keyed("k", "a@example.com"))
			w.ok(err)
		})
	}
}

// What is broken is broken for its path only, as often as was said, or until it is mended.
func TestWhatIsBroken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mend := w.sim.Break(stripesim.Breakage{PathSuffix: "/expire"})
	customer := w.payer("a@example.com")
	open, err := w.api.CheckoutSessions.New(&stripe.CheckoutSessionParams{Mode: stripe.String("subscription"), Customer: &customer, SuccessURL: stripe.String("https://example.com"),
		LineItems: []*stripe.CheckoutSessionLineItemParams{{Price: stripe.String(w.price(1000, "month")), Quantity: stripe.Int64(1)}}})
	w.ok(err)
	for range 3 {
		_, err := w.api.CheckoutSessions.Expire(open.ID, &stripe.CheckoutSessionExpireParams{})
		equal(t, "status", stripeError(t, err).HTTPStatusCode, 500)
	}
	mend()
	_, err = w.api.CheckoutSessions.Expire(open.ID, &stripe.CheckoutSessionExpireParams{})
	w.ok(err)
}

// Stripe takes no notice of a key that comes with a DELETE.
func TestAKeyOfADeletionIsIgnored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	customer := w.payer("a@example.com")
	remove := &stripe.CustomerParams{}
	remove.SetIdempotencyKey("k")
	_, err := w.api.Customers.Del(customer, remove)
	w.ok(err)
	_, err = w.api.Customers.Del(customer, remove)
	equal(t, "the second time", stripeError(t, err).HTTPStatusCode, 404)
	_, err = w.api.Customers.New(keyed("k", "a@example.com"))
	w.ok(err)
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
