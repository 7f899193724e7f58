package exchange_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/exchange"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answering(status int, body string) roundTrip {
	return func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, Header: http.Header{"X-Seen": r.Header["X-Secret"]}, Body: io.NopCloser(strings.NewReader(body))}, nil
	}
}

func request(t *testing.T, ctx context.Context, path string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Secret", "hostname")
	return r
}

func send(t *testing.T, transport *exchange.Transport, r *http.Request) *http.Response {
	t.Helper()
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func anything([]byte) bool { return true }

func TestRoutesHoldNoIDs(t *testing.T) {
	t.Parallel()
	var routes []string
	transport := &exchange.Transport{
		Base: answering(200, "{}"), Words: []string{"v1", "users", "metadata"}, MaxBody: 10, Sound: anything,
		Observe: func(_ context.Context, c exchange.Call) { routes = append(routes, c.Route) },
	}
	for _, path := range []string{"/v1/users/user_1/metadata?email=a@example.com", "/v1/users", "/secret/ada@example.com"} {
		send(t, transport, request(t, t.Context(), path))
	}
	if got, want := strings.Join(routes, " "), "/v1/users/{id}/metadata /v1/users /{id}/{id}"; got != want {
		t.Errorf("routes are %s, want %s", got, want)
	}
}

func TestTheCallersRequestIsNotChanged(t *testing.T) {
	t.Parallel()
	transport := &exchange.Transport{Base: answering(200, "{}"), Drop: []string{"X-Secret"}, MaxBody: 10, Sound: anything}
	r := request(t, t.Context(), "/")
	resp := send(t, transport, r)
	if seen := resp.Header.Get("X-Seen"); seen != "" {
		t.Errorf("the dropped header was sent: %q", seen)
	}
	if r.Header.Get("X-Secret") == "" {
		t.Error("the caller's request lost its header")
	}
}

func TestRecordHoldsTheLatestAnswer(t *testing.T) {
	t.Parallel()
	ctx, rec := exchange.Start(t.Context())
	sound := func(body []byte) bool { return string(body) == "good" }
	send(t, &exchange.Transport{Base: answering(200, "bad"), MaxBody: 10, Sound: sound}, request(t, ctx, "/"))
	if rec.Status != 200 || string(rec.Body) != "bad" || !rec.Unsound {
		t.Errorf("record is %+v", rec)
	}
	resp := send(t, &exchange.Transport{Base: answering(200, "good"), MaxBody: 10, Sound: sound}, request(t, ctx, "/"))
	if string(rec.Body) != "good" || !rec.Unsound {
		t.Errorf("record is %+v; one bad answer of several has to stay known", rec)
	}
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "good" {
		t.Errorf("the SDK reads %q, %v", body, err)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	ctx, rec := exchange.Start(t.Context())
	transport := &exchange.Transport{Base: answering(200, "12345678901"), MaxBody: 10, Sound: anything}
	resp, err := transport.RoundTrip(request(t, ctx, "/"))
	if err == nil {
		resp.Body.Close()
	}
	if !errors.Is(err, exchange.ErrTooLarge) {
		t.Errorf("error is %v, want ErrTooLarge", err)
	}
	if e := rec.Failure(ctx, "stripe", "read", exchange.Statement{}); e.Class != failure.Transient || e.Code != "too_large" || e.Status != 200 {
		t.Errorf("failure is %v", e)
	}
}

func TestWhatWasNeverSentIsPermanent(t *testing.T) {
	t.Parallel()
	ctx, rec := exchange.Start(t.Context())
	if e := rec.Failure(ctx, "stripe", "read", exchange.Statement{}); e.Class != failure.Permanent || e.Code != "not_sent" {
		t.Errorf("failure is %v", e)
	}
}
