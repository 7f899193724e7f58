package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	stripewebhook "github.com/stripe/stripe-go/v76/webhook"
	svix "github.com/svix/svix-webhooks/go"
	"go.uber.org/goleak"

	"github.com/nepfy/clerk-stripe-sync/internal/config"
	"github.com/nepfy/clerk-stripe-sync/internal/httpapi"
	"github.com/nepfy/clerk-stripe-sync/internal/inbox"
	"github.com/nepfy/clerk-stripe-sync/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	clerkSecret    = "whsec_Y2xlcmsncyBmaXJzdCBzZWNyZXQ="
	clerkSecret2   = "whsec_Y2xlcmsncyBzZWNvbmQgc2VjcmV0"
	clerkStranger  = "whsec_c29tZWJvZHkgZWxzZSdzIHNlY3JldA=="
	stripeSecret   = "whsec_stripe0first0secret"
	stripeSecret2  = "whsec_stripe0second0secret"
	stripeStranger = "whsec_somebody0elses0secret"
)

// intake is an inbox that remembers what it was given.
type intake struct {
	accept func(context.Context, inbox.Delivery) (inbox.Outcome, error)

	mu         sync.Mutex
	deliveries []inbox.Delivery
}

func (i *intake) Accept(ctx context.Context, d inbox.Delivery) (inbox.Outcome, error) {
	i.mu.Lock()
	i.deliveries = append(i.deliveries, d)
	i.mu.Unlock()
	if i.accept != nil {
		return i.accept(ctx, d)
	}
	return inbox.Stored, nil
}

func (i *intake) taken() []inbox.Delivery {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.deliveries
}

// counts is what was counted.
type counts struct {
	mu  sync.Mutex
	all map[string]int
}

func (c *counts) add(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = map[string]int{}
	}
	c.all[key]++
}

func (c *counts) of(key string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all[key]
}

func (c *counts) Request(method, route string, status int, _ time.Duration) {
	c.add(fmt.Sprintf("request %s %s %d", method, route, status))
}

func (c *counts) Delivery(source, result string, _ time.Duration) {
	c.add("delivery " + source + " " + result)
}

func (c *counts) SecretMatched(source string, index int) {
	c.add("secret " + source + " " + strconv.Itoa(index))
}

// logs is a log that several goroutines write.
type logs struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.String()
}

// edge is a router with both webhook endpoints, served or not.
type edge struct {
	router *httpapi.Router
	intake *intake
	counts *counts
	logs   *logs
	logger *slog.Logger
}

type edgeOptions struct {
	bodyTimeout, acceptTimeout time.Duration
	maxInHand                  int
}

func newEdge(t testing.TB, o edgeOptions) *edge {
	t.Helper()
	e := &edge{intake: &intake{}, counts: &counts{}, logs: &logs{}}
	e.logger = telemetry.NewLogger(e.logs, telemetry.LogOptions{Level: slog.LevelDebug})
	e.router = httpapi.NewRouter(httpapi.RouterOptions{Logger: e.logger, Metrics: e.counts, BodyTimeout: o.bodyTimeout})
	options := func(secrets ...config.Secret) httpapi.WebhookOptions {
		return httpapi.WebhookOptions{
			Secrets: secrets, Intake: e.intake, Metrics: e.counts, Logger: e.logger, AcceptTimeout: o.acceptTimeout, MaxInHand: o.maxInHand,
		}
	}
	clerk, err := httpapi.NewClerkWebhook(options(clerkSecret, clerkSecret2))
	if err != nil {
		t.Fatal(err)
	}
	stripe, err := httpapi.NewStripeWebhook(options(stripeSecret, stripeSecret2))
	if err != nil {
		t.Fatal(err)
	}
	e.router.HandleWebhooks(clerk, stripe)
	return e
}

// serve starts the edge on loopback for the length of the test.
func (e *edge) serve(t *testing.T) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(e.router)
	t.Cleanup(server.Close)
	return server
}

// signer signs deliveries as one of the providers does.
type signer struct {
	source string
	sign   func(secret, id string, at time.Time, body []byte) http.Header
	// good, second and stranger are the endpoint's secrets and one that is not.
	good, second, stranger string
}

func (s signer) path() string { return "/api/webhooks/" + s.source }

func signers() []signer {
	return []signer{
		{source: "clerk", sign: signClerk, good: clerkSecret, second: clerkSecret2, stranger: clerkStranger},
		{source: "stripe", sign: signStripe, good: stripeSecret, second: stripeSecret2, stranger: stripeStranger},
	}
}

// signStripe has no use for the id, which is in the body.
func signStripe(secret, _ string, at time.Time, body []byte) http.Header {
	signed := stripewebhook.GenerateTestSignedPayload(&stripewebhook.UnsignedPayload{Payload: body, Secret: secret, Timestamp: at})
	return http.Header{"Stripe-Signature": {signed.Header}}
}

func signClerk(secret, id string, at time.Time, body []byte) http.Header {
	webhook, err := svix.NewWebhook(secret)
	if err != nil {
		panic(err)
	}
	signature, err := webhook.Sign(id, at, body)
	if err != nil {
		panic(err)
	}
	return http.Header{
		"Svix-Id": {id}, "Svix-Timestamp": {strconv.FormatInt(at.Unix(), 10)}, "Svix-Signature": {signature},
	}
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   map[string]any
	raw    string
}

func (a answer) code() string { code, _ := a.body["code"].(string); return code }

// send makes a request; each uses a connection of its own, so that none outlives the server.
func send(t *testing.T, server *httptest.Server, method, path string, header http.Header, body io.Reader) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(r.Header, header)
	response, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{status: response.StatusCode, header: response.Header, raw: string(raw)}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &a.body); err != nil {
			t.Fatalf("the answer %q is not JSON: %v", raw, err)
		}
	}
	return a
}
