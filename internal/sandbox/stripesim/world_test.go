package stripesim_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/client"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

const testKey = "sk_test_sandbox_0123456789"

// start is when the tests' clocks begin: a day that every month has.
func start() time.Time { return time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC) }

// world is a simulated Stripe on loopback, the real client of it, and everything it emitted.
type world struct {
	t   *testing.T
	sim *stripesim.Server
	api *client.API
	url string

	mu     sync.Mutex
	events []emitted
}

type emitted struct {
	id, typ string
	body    []byte
}

func newWorld(t *testing.T, change ...func(*stripesim.Options)) *world {
	t.Helper()
	w := &world{t: t}
	o := stripesim.Options{APIKey: testKey, Now: start, Frozen: true, Seed: 1, Emit: func(id, typ string, body []byte) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, emitted{id, typ, body})
	}}
	for _, c := range change {
		c(&o)
	}
	w.sim = stripesim.New(o)
	srv := httptest.NewServer(w.sim)
	t.Cleanup(srv.Close)
	w.url = srv.URL
	w.api = apiClient(srv.URL, testKey)
	return w
}

func apiClient(url, key string) *client.API {
	b := stripe.GetBackendWithConfig(stripe.APIBackend, &stripe.BackendConfig{URL: stripe.String(url), HTTPClient: http.DefaultClient,
		MaxNetworkRetries: stripe.Int64(0), EnableTelemetry: stripe.Bool(false),
		LeveledLogger: &stripe.LeveledLogger{Level: stripe.LevelNull}})
	return client.New(key, &stripe.Backends{API: b, Connect: b, Uploads: b})
}

func (w *world) price(amount int64, interval string) string {
	return w.sim.AddPrice(w.sim.AddProduct("Pro"), amount, interval)
}

// payer is a customer with a card.
func (w *world) payer(email string) string {
	w.t.Helper()
	id := w.sim.AddCustomer(stripesim.CustomerSpec{Email: email})
	w.ok(w.sim.AddCard(id))
	return id
}

func (w *world) checkout(spec stripesim.CheckoutSpec) stripesim.CheckoutResult {
	w.t.Helper()
	r, err := w.sim.CompleteCheckout(w.t.Context(), spec)
	w.ok(err)
	return r
}

func (w *world) subscription(id string) *stripe.Subscription {
	w.t.Helper()
	sub, err := w.api.Subscriptions.Get(id, nil)
	w.ok(err)
	return sub
}

func (w *world) advance(d time.Duration) {
	w.t.Helper()
	w.ok(w.sim.Advance(w.t.Context(), d))
}

// types gives the types emitted since the last call, in order.
func (w *world) types() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, e := range w.events {
		out = append(out, e.typ)
	}
	w.events = nil
	return out
}

// last gives the newest event of a type, decoded.
func (w *world) last(typ string) map[string]any {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range slices.Backward(w.events) {
		if e.typ == typ {
			out := map[string]any{}
			w.ok(json.Unmarshal(e.body, &out))
			return out
		}
	}
	w.t.Fatalf("no event %s", typ)
	return nil
}

func (w *world) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// inOrder checks that want is a subsequence of got.
func inOrder(t *testing.T, got []string, want ...string) {
	t.Helper()
	rest := got
	for _, typ := range want {
		i := slices.Index(rest, typ)
		if i < 0 {
			t.Fatalf("no %s after the ones before it, in %q", typ, got)
		}
		rest = rest[i+1:]
	}
}
