package httpapi_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/julienschmidt/httprouter"

	"github.com/nepfy/clerk-stripe-sync/internal/httpapi"
)

func TestUnknownRoute(t *testing.T) {
	t.Parallel()
	e := newEdge(t, edgeOptions{})
	server := e.serve(t)
	// The last two would be redirected by the router beneath, left to itself.
	for _, path := range []string{"/", "/nothing", "/api/webhooks/clerk/", "/API/webhooks/stripe"} {
		a := send(t, server, http.MethodPost, path, nil, nil)
		if a.status != http.StatusNotFound || a.code() != "route_not_found" {
			t.Errorf("%s: %d %s", path, a.status, a.raw)
		}
	}
	if n := e.counts.of("request POST unmatched 404"); n != 4 {
		t.Errorf("counted %d unmatched requests", n)
	}
}

func TestMadeUpMethodsAreNoLabels(t *testing.T) {
	t.Parallel()
	e := newEdge(t, edgeOptions{})
	send(t, e.serve(t), "BREW", "/api/webhooks/clerk", nil, nil)
	if e.counts.of("request other unmatched 405") != 1 {
		t.Errorf("counted %v", e.counts.all)
	}
}

func TestRoutesAreLabelledByPattern(t *testing.T) {
	t.Parallel()
	e := newEdge(t, edgeOptions{})
	e.router.Handle(http.MethodGet, "/users/:id", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		httpapi.WriteJSON(w, http.StatusOK, map[string]string{"id": httprouter.ParamsFromContext(r.Context()).ByName("id")})
	}))
	if a := send(t, e.serve(t), http.MethodGet, "/users/user_1", nil, nil); a.body["id"] != "user_1" {
		t.Errorf("got %s", a.raw)
	}
	if e.counts.of("request GET /users/:id 200") != 1 {
		t.Errorf("counted %v", e.counts.all)
	}
}

func TestRequestIDs(t *testing.T) {
	t.Parallel()
	e := newEdge(t, edgeOptions{})
	server := e.serve(t)
	for given, kept := range map[string]bool{
		"": false, "short": false, "with space and\ttab": false, strings.Repeat("a", 65): false, "req-1234_ABCD": true,
	} {
		a := send(t, server, http.MethodGet, "/nothing", http.Header{"X-Request-Id": {given}}, nil)
		got := a.header.Get("X-Request-Id")
		if (got == given) != kept || got == "" || a.body["requestId"] != got {
			t.Errorf("given %q: header %q, document %v", given, got, a.body["requestId"])
		}
	}
}

func TestProblemDocument(t *testing.T) {
	t.Parallel()
	e := newEdge(t, edgeOptions{})
	e.router.Handle(http.MethodGet, "/problem", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		httpapi.WriteProblem(w, r, httpapi.Problem{
			Status: http.StatusConflict, Code: "state_conflict", Detail: "No.", RetryAfter: 1500 * time.Millisecond,
			Extra: map[string]any{"operation": "/operations/1"},
		})
	}))
	a := send(t, e.serve(t), http.MethodGet, "/problem", nil, nil)
	want := map[string]any{
		"title": "Conflict", "status": 409.0, "code": "state_conflict", "detail": "No.", "operation": "/operations/1",
		"requestId": a.header.Get("X-Request-Id"),
	}
	for key, value := range want {
		if a.body[key] != value {
			t.Errorf("%s is %v, want %v", key, a.body[key], value)
		}
	}
	if len(a.body) != len(want) {
		t.Errorf("the document has other members: %s", a.raw)
	}
	for name, value := range map[string]string{
		"Content-Type": "application/problem+json", "Retry-After": "2", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
	} {
		if got := a.header.Get(name); got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
}

func TestPanicAfterHalfAnAnswer(t *testing.T) {
	t.Parallel()
	e := newEdge(t, edgeOptions{})
	e.router.Handle(http.MethodGet, "/half", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic("the rest is lost")
	}))
	e.router.Handle(http.MethodGet, "/abort", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic(http.ErrAbortHandler)
	}))
	server := e.serve(t)
	for path, wantErr := range map[string]error{"/half": io.ErrUnexpectedEOF, "/abort": io.EOF} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := server.Client().Do(r)
		if err == nil {
			_, err = io.ReadAll(response.Body)
			response.Body.Close()
		}
		if !errors.Is(err, wantErr) {
			t.Errorf("%s: got %v, want %v", path, err, wantErr)
		}
	}
	if log := e.logs.String(); !strings.Contains(log, "the rest is lost") || strings.Contains(log, "abort Handler") {
		t.Errorf("the log is %s", log)
	}
}
