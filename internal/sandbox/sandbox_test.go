package sandbox_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/user"
	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/client"
	"github.com/stripe/stripe-go/v76/webhook"
	svix "github.com/svix/svix-webhooks/go"
	"go.uber.org/goleak"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// app is an application that takes webhooks, if their signatures are good.
type app struct {
	*httptest.Server
	mu   sync.Mutex
	got  []string // types
	down bool
}

func newApp(t *testing.T) *app {
	t.Helper()
	hook, err := svix.NewWebhook(sandbox.DefaultClerkWebhookSecret)
	if err != nil {
		t.Fatal(err)
	}
	a := &app{}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if r.URL.Path == "/clerk" {
			err = errors.Join(err, hook.Verify(body, r.Header))
		} else {
			err = errors.Join(err, webhook.ValidatePayload(body, r.Header.Get("Stripe-Signature"), sandbox.DefaultStripeWebhookSecret))
		}
		var event struct{ Type string }
		if err = errors.Join(err, json.Unmarshal(body, &event)); err != nil {
			t.Errorf("webhook at %s: %v", r.URL.Path, err)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.down {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		a.got = append(a.got, event.Type)
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *app) types() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.got)
}

func (a *app) setDown(to bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.down = to
}

func (a *app) options() sandbox.Options {
	return sandbox.Options{ClerkWebhookURL: a.URL + "/clerk", StripeWebhookURL: a.URL + "/stripe", Seed: 1, WebhookRetry: []time.Duration{5 * time.Millisecond}}
}

func start(t *testing.T, o sandbox.Options) *sandbox.Sandbox {
	t.Helper()
	s, err := sandbox.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *sandbox.Sandbox) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func idle(t *testing.T, s *sandbox.Sandbox) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Idle(ctx); err != nil {
		t.Fatal(err)
	}
}

func clerkUsers(s *sandbox.Sandbox) *user.Client {
	return user.NewClient(&clerk.ClientConfig{BackendConfig: clerk.BackendConfig{URL: clerk.String(s.ClerkURL()), Key: clerk.String(s.ClerkSecretKey),
		HTTPClient: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}})
}

func stripeClient(s *sandbox.Sandbox) *client.API {
	b := stripe.GetBackendWithConfig(stripe.APIBackend, &stripe.BackendConfig{URL: stripe.String(s.StripeURL()),
		HTTPClient:        &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
		MaxNetworkRetries: stripe.Int64(0), EnableTelemetry: stripe.Bool(false), LeveledLogger: &stripe.LeveledLogger{Level: stripe.LevelNull}})
	return client.New(s.StripeSecretKey, &stripe.Backends{API: b, Connect: b, Uploads: b})
}

func newCustomer(ctx context.Context, email string) *stripe.CustomerParams {
	p := &stripe.CustomerParams{Email: stripe.String(email)}
	p.Context = ctx
	return p
}

func TestSDKsAndSignedWebhooks(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	s := start(t, a.options())
	id := s.Clerk.AddUser(clerksim.UserSpec{FirstName: "Ana"})
	if u, err := clerkUsers(s).Get(t.Context(), id); err != nil || *u.FirstName != "Ana" {
		t.Fatalf("clerk: %+v, %v", u, err)
	}
	if c, err := stripeClient(s).Customers.New(newCustomer(t.Context(), "ana@example.com")); err != nil || !strings.HasPrefix(c.ID, "cus_") {
		t.Fatalf("stripe: %+v, %v", c, err)
	}
	idle(t, s)
	got := a.types()
	slices.Sort(got)
	if want := []string{"customer.created", "user.created"}; !slices.Equal(got, want) {
		t.Errorf("webhooks %v, want %v", got, want)
	}
}

func TestFaultsAnswerAsTheirProviders(t *testing.T) {
	t.Parallel()
	s := start(t, sandbox.Options{})
	s.ClerkFaults.Add(faults.Rule{Status: 429, RetryAfter: 2 * time.Second, Times: 1})
	_, err := clerkUsers(s).Get(t.Context(), "user_x")
	if e := (*clerk.APIErrorResponse)(nil); !errors.As(err, &e) || e.Response.StatusCode != 429 || e.Response.Header.Get("Retry-After") != "2" {
		t.Errorf("clerk: %v", err)
	}
	s.StripeFaults.Add(faults.Rule{Status: 429, Times: 1})
	_, err = stripeClient(s).Customers.New(newCustomer(t.Context(), "ana@example.com"))
	if e := (*stripe.Error)(nil); !errors.As(err, &e) || e.HTTPStatusCode != 429 || e.Code != stripe.ErrorCodeRateLimit {
		t.Errorf("stripe: %v", err)
	}
	for _, status := range []int{400, 401, 403, 404, 409, 500, 503} {
		s.StripeFaults.Add(faults.Rule{Status: status, Times: 1})
		_, err := stripeClient(s).Customers.New(newCustomer(t.Context(), "ana@example.com"))
		if e := (*stripe.Error)(nil); !errors.As(err, &e) || e.HTTPStatusCode != status || e.Msg == "" {
			t.Errorf("stripe %d: %v", status, err)
		}
	}
	if got, want := s.StripeFaults.Requests()["POST /v1/customers"], 8; got != want {
		t.Errorf("%d requests counted, want %d", got, want)
	}
}

func TestATakenAddressIsNamed(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr := l.Addr().String()
	for _, o := range []sandbox.Options{{ClerkAddr: addr}, {StripeAddr: addr}} {
		if _, err := sandbox.Start(t.Context(), o); err == nil || !strings.Contains(err.Error(), addr) {
			t.Errorf("got %v", err)
		}
	}
}

func TestUnusableOptionsAreRefused(t *testing.T) {
	t.Parallel()
	broken := filepath.Join(t.TempDir(), "broken.json")
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]sandbox.Options{"secret": {ClerkWebhookSecret: "whsec_?"}, "state": {StateFile: broken}} {
		if _, err := sandbox.Start(t.Context(), o); err == nil {
			t.Errorf("%s: started", name)
		}
	}
}

func TestStateAndPendingWebhooksSurviveARestart(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	o := a.options()
	o.StateFile = filepath.Join(t.TempDir(), "new", "sandbox.json")

	first := start(t, o)
	id := first.Clerk.AddUser(clerksim.UserSpec{FirstName: "Ana"})
	idle(t, first)
	a.setDown(true)
	c, err := stripeClient(first).Customers.New(newCustomer(t.Context(), "ana@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	stop(t, first)
	if got := a.types(); !slices.Equal(got, []string{"user.created"}) {
		t.Fatalf("before the restart %v", got)
	}

	a.setDown(false)
	second := start(t, o)
	idle(t, second)
	if got := a.types(); !slices.Equal(got, []string{"user.created", "customer.created"}) {
		t.Errorf("after the restart %v", got)
	}
	if _, err := clerkUsers(second).Get(t.Context(), id); err != nil {
		t.Errorf("the user: %v", err)
	}
	get := &stripe.CustomerParams{}
	get.Context = t.Context()
	if _, err := stripeClient(second).Customers.Get(c.ID, get); err != nil {
		t.Errorf("the customer: %v", err)
	}
	if next := second.Clerk.AddUser(clerksim.UserSpec{}); next == id {
		t.Errorf("id %s is given twice", id)
	}
	idle(t, second)
}

// A process that is killed has written what changed a moment before.
func TestStateIsWrittenWhileRunning(t *testing.T) {
	t.Parallel()
	o := sandbox.Options{StateFile: filepath.Join(t.TempDir(), "sandbox.json")}
	s := start(t, o)
	id := s.Clerk.AddUser(clerksim.UserSpec{})
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for {
		b, err := os.ReadFile(o.StateFile)
		if err == nil && bytes.Contains(b, []byte(id)) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never written: %v", err)
		}
	}
}

func TestStopDropsWhatFaultsHold(t *testing.T) {
	t.Parallel()
	s := start(t, sandbox.Options{})
	reached, failed := make(chan struct{}), make(chan error, 1)
	s.ClerkFaults.Add(faults.Rule{Hold: make(chan struct{}), OnHit: func() { close(reached) }})
	go func() {
		_, err := clerkUsers(s).Get(context.Background(), "user_x")
		failed <- err
	}()
	<-reached
	stop(t, s)
	if err := <-failed; err == nil {
		t.Error("the held request was answered")
	}
	stop(t, s)
}
