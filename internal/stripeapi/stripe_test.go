package stripeapi_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/nepfy/clerk-stripe-sync/internal/stripeapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// request is what the small server below was asked.
type request struct {
	method, path string
	form         map[string]string
	header       http.Header
}

// server is a Stripe that answers what a test tells it to.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	requests []request
	calls    []stripeapi.Call
}

// serve starts a server and a client of it. The answer is written by handle.
func serve(t *testing.T, handle http.HandlerFunc, change ...func(*stripeapi.Options)) (*server, *stripeapi.Client) {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Errorf("reading the form: %v", err)
		}
		form := map[string]string{}
		for name := range r.Form {
			form[name] = r.Form.Get(name)
		}
		s.mu.Lock()
		s.requests = append(s.requests, request{r.Method, r.URL.Path, form, r.Header.Clone()})
		s.mu.Unlock()
		handle(w, r)
	}))
	options := stripeapi.Options{
		Key:     "sk_test_1",
		BaseURL: s.URL,
		Timeout: 5 * time.Second,
		Observe: func(_ context.Context, c stripeapi.Call) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.calls = append(s.calls, c)
		},
	}
	for _, c := range change {
		c(&options)
	}
	client := stripeapi.New(options)
	t.Cleanup(func() {
		client.Close()
		s.CloseClientConnections()
		s.Close()
	})
	return s, client
}

func (s *server) seen() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]request(nil), s.requests...)
}

func (s *server) observed() []stripeapi.Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]stripeapi.Call(nil), s.calls...)
}

// answer writes a body with a status.
func answer(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Request-Id", "req_1")
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

const (
	ada     = "user_2adaLovelace"
	adasCus = "cus_ada1"
)

func ptr(s string) *string { return &s }
