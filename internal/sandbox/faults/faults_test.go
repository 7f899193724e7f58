package faults_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
)

// server is a provider whose only effect is that it counts what it did.
type server struct {
	*httptest.Server
	inj    *faults.Injector
	effect atomic.Int64
	bodies chan string
}

const answerBody = `{"object":"thing","padding":"0123456789"}`

func start(t *testing.T) *server {
	t.Helper()
	s := &server{bodies: make(chan string, 100)}
	s.inj = faults.New(1, func(status int) (string, []byte) {
		return "application/json", fmt.Appendf(nil, `{"status":%d}`, status)
	})
	s.Server = httptest.NewServer(s.inj.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("handler cannot read the body: %v", err)
		}
		if err := r.Context().Err(); err != nil {
			t.Errorf("handler runs with a dead context: %v", err)
		}
		s.effect.Add(1)
		s.bodies <- string(body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, answerBody)
	})))
	t.Cleanup(func() {
		s.inj.Close()
		s.Server.Close()
	})
	return s
}

// post sends one request on a connection of its own, so that nothing repeats it.
func (s *server) post(ctx context.Context, path string) (*http.Response, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+path, strings.NewReader("hello"))
	if err != nil {
		return nil, "", err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res, string(body), err
}

func TestWithoutRulesNothingHappens(t *testing.T) {
	t.Parallel()
	s := start(t)
	res, body, err := s.post(t.Context(), "/v1/things")
	if err != nil || res.StatusCode != 200 || body != answerBody {
		t.Fatalf("got %v, %q, %v", res, body, err)
	}
}

func TestStatusAnswersInsteadOfTheHandler(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.inj.Add(faults.Rule{Status: 429, RetryAfter: 1500 * time.Millisecond, Times: 2})
	s.inj.Add(faults.Rule{Status: 502, HTML: true, Times: 1})
	for range 2 {
		res, body, err := s.post(t.Context(), "/v1/things")
		if err != nil || res.StatusCode != 429 || res.Header.Get("Retry-After") != "2" || body != `{"status":429}` ||
			res.Header.Get("Content-Type") != "application/json" {
			t.Fatalf("got %v, %q, %v", res, body, err)
		}
	}
	res, body, err := s.post(t.Context(), "/v1/things")
	if err != nil || res.StatusCode != 502 || !strings.Contains(body, "<title>502 Bad Gateway</title>") ||
		!strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") {
		t.Fatalf("got %v, %q, %v", res, body, err)
	}
	if n := s.effect.Load(); n != 0 {
		t.Fatalf("the handler ran %d times", n)
	}
	if res, _, err := s.post(t.Context(), "/v1/things"); err != nil || res.StatusCode != 200 {
		t.Fatalf("used-up rules still act: %v, %v", res, err)
	}
}

func TestDrops(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		rule   faults.Rule
		effect int64
		want   error
	}{
		"before": {faults.Rule{DropBefore: true}, 0, io.EOF},
		"after":  {faults.Rule{DropAfter: true}, 1, io.EOF},
		"midway": {faults.Rule{DropMidway: true}, 1, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			s.inj.Add(tc.rule)
			res, body, err := s.post(t.Context(), "/v1/things")
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, %q, %v; want %v", res, body, err, tc.want)
			}
			if n := s.effect.Load(); n != tc.effect {
				t.Fatalf("the handler ran %d times, want %d", n, tc.effect)
			}
		})
	}
}

func TestLatencyAddsUp(t *testing.T) {
	t.Parallel()
	s := start(t)
	const each = 30 * time.Millisecond
	s.inj.Add(faults.Rule{Latency: each})
	s.inj.Add(faults.Rule{Latency: each, LatencyAfter: each})
	began := time.Now()
	if _, _, err := s.post(t.Context(), "/v1/things"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 3*each {
		t.Fatalf("answered after %v, want at least %v", took, 3*each)
	}
}

// A request whose sender has long given up still takes effect when it is let go.
func TestHoldIsALateWrite(t *testing.T) {
	t.Parallel()
	s := start(t)
	gate, reached := make(chan struct{}), make(chan struct{})
	s.inj.Add(faults.Rule{Hold: gate, Times: 1, OnHit: func() { close(reached) }})

	ctx, giveUp := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, _, err := s.post(ctx, "/v1/things")
		failed <- err
	}()
	<-reached
	giveUp()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Fatalf("client got %v", err)
	}
	if _, _, err := s.post(t.Context(), "/v1/things"); err != nil { // a later request overtakes it
		t.Fatal(err)
	}
	<-s.bodies
	if n := s.effect.Load(); n != 1 {
		t.Fatalf("%d effects before the release, want 1", n)
	}
	close(gate)
	if body := <-s.bodies; body != "hello" {
		t.Fatalf("the late write carried %q", body)
	}
}

func TestHoldAfterHasTheEffectAtOnce(t *testing.T) {
	t.Parallel()
	s := start(t)
	gate := make(chan struct{})
	s.inj.Add(faults.Rule{HoldAfter: gate})
	done := make(chan error, 1)
	go func() {
		_, _, err := s.post(t.Context(), "/v1/things")
		done <- err
	}()
	<-s.bodies // the effect
	select {
	case err := <-done:
		t.Fatalf("answered while held: %v", err)
	default:
	}
	close(gate)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestCloseDropsWhatIsHeld(t *testing.T) {
	t.Parallel()
	s := start(t)
	reached := make(chan struct{})
	s.inj.Add(faults.Rule{Hold: make(chan struct{}), OnHit: func() { close(reached) }})
	done := make(chan error, 1)
	go func() {
		_, _, err := s.post(t.Context(), "/v1/things")
		done <- err
	}()
	<-reached
	s.inj.Close()
	if err := <-done; !errors.Is(err, io.EOF) {
		t.Fatalf("got %v, want EOF", err)
	}
	if n := s.effect.Load(); n != 0 {
		t.Fatalf("the handler ran %d times", n)
	}
}

func TestRulesMatchWhatTheyName(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.inj.Add(faults.Rule{Method: http.MethodGet, Status: 500})
	s.inj.Add(faults.Rule{PathPrefix: "/v1/other", Status: 500})
	s.inj.Add(faults.Rule{PathContains: "/metadata", Status: 503})
	remove := s.inj.Add(faults.Rule{PathPrefix: "/v1/things", Status: 504})
	for path, want := range map[string]int{"/v1/users/user_1": 200, "/v1/users/user_1/metadata": 503, "/v1/things": 504} {
		res, _, err := s.post(t.Context(), path)
		if err != nil || res.StatusCode != want {
			t.Fatalf("%s: got %v, %v; want %d", path, res, err, want)
		}
	}
	remove()
	remove()
	if res, _, err := s.post(t.Context(), "/v1/things"); err != nil || res.StatusCode != 200 {
		t.Fatalf("after its removal the rule still acts: %v, %v", res, err)
	}
	s.inj.Clear()
	if res, _, err := s.post(t.Context(), "/v1/users/user_1/metadata"); err != nil || res.StatusCode != 200 {
		t.Fatalf("after Clear: %v, %v", res, err)
	}
}

func TestProbabilityFollowsTheSeed(t *testing.T) {
	t.Parallel()
	hits := func() (n int) {
		inj := faults.New(7, nil)
		inj.Add(faults.Rule{Probability: 0.3, Status: 500})
		h := inj.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		for range 1000 {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
			if w.Code == 500 {
				n++
			}
		}
		return n
	}
	first, second := hits(), hits()
	if first != second {
		t.Fatalf("one seed hit %d and %d requests", first, second)
	}
	if first < 230 || first > 370 {
		t.Fatalf("hit %d of 1000, want about 300", first)
	}
}

func TestRequestsAreCountedByRoute(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.inj.Add(faults.Rule{PathPrefix: "/v1/users", DropBefore: true})
	for _, path := range []string{"/v1/users/user_2abc", "/v1/users/user_nobody", "/v1/payment_intents", "/v1/payment_intents/pi_3NX"} {
		_, _, _ = s.post(t.Context(), path) // dropped ones fail, and count
	}
	got := s.inj.Requests()
	want := map[string]int{"POST /v1/users/{id}": 2, "POST /v1/payment_intents": 1, "POST /v1/payment_intents/{id}": 1}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	s.inj.Reset()
	if got := s.inj.Requests(); len(got) != 0 {
		t.Fatalf("after Reset: %v", got)
	}
}

func TestRoute(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/v1/users/user_2g7np7Hrk0SN/metadata":         "/v1/users/{id}/metadata",
		"/v1/subscription_schedules/sub_sched_1AbC":    "/v1/subscription_schedules/{id}",
		"/v1/checkout/sessions/cs_test_a1B2":           "/v1/checkout/sessions/{id}",
		"/v1/test_helpers/test_clocks/clock_1AbC":      "/v1/test_helpers/test_clocks/{id}",
		"/v1/billing_portal/sessions":                  "/v1/billing_portal/sessions",
		"/v1/customers/cus_gone/payment_methods":       "/v1/customers/{id}/payment_methods",
		"/v1/webhook_endpoints/we_1AbCdE/../customers": "/v1/webhook_endpoints/{id}/../customers",
		"/v1/invoices/in_1AbC/pay":                     "/v1/invoices/{id}/pay",
		"/v1/customers/search":                         "/v1/customers/search",
		"/v1/subscriptions/search":                     "/v1/subscriptions/search",
		"/.well-known/jwks.json":                       "/.well-known/jwks.json",
		"/v1/subscription_items":                       "/v1/subscription_items",
	} {
		if got := faults.Route(path); got != want {
			t.Errorf("Route(%q) = %q, want %q", path, got, want)
		}
	}
}
