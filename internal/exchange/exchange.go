// Package exchange is the HTTP under both providers' SDKs.
//
// The SDKs turn every answer that is not the JSON they expect (a proxy's HTML page, an empty
// 503, a body cut short) into an error without status and headers, and take "{}" for an object.
// So each call is made with a [Record] in its context, in which the [Transport] notes what really
// came back, and the failure is read from there and not from the SDK's error.
package exchange

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Call is what may be told of one request: nothing in it names a person or an object.
type Call struct {
	// Provider is "stripe" or "clerk".
	Provider string
	Method   string
	// Route is the path with every id replaced: "/v1/customers/{id}".
	Route string
	// Status is the answer's HTTP status, zero where none came.
	Status   int
	Duration time.Duration
}

// Record is what came back from the latest request of one call to an SDK.
type Record struct {
	Status int
	Header http.Header
	// Body is the whole body of the answer.
	Body []byte
	// Unsound is set once any successful answer was not the JSON that the provider gives.
	Unsound bool
	// Err is why there is no answer, or only a part of one.
	Err error
}

type recordKey struct{}

// Start gives a context whose requests are noted in the record. One record serves one call of
// an SDK at a time.
func Start(ctx context.Context) (context.Context, *Record) {
	r := &Record{}
	return context.WithValue(ctx, recordKey{}, r), r
}

// ErrTooLarge is the error of an answer with more bytes than we are willing to hold.
var ErrTooLarge = errors.New("the answer is too large")

// Transport sends requests, notes the answers in the [Record] of the request's context and
// reports each request to Observe. It reads each body whole, so that a body that breaks off is
// noted as well and the duration includes it.
type Transport struct {
	Provider string
	Base     http.RoundTripper
	// Words are the path segments that are not ids; all others are reported as "{id}".
	Words []string
	// Drop names request headers that are not sent.
	Drop []string
	// UserAgent replaces the SDK's, unless it is empty.
	UserAgent string
	// Timeout bounds a request with its answer; zero for no bound. It is kept here and not by
	// [http.Client], whose timeout cannot be told from a cancellation under a foreign transport.
	Timeout time.Duration
	// MaxBody is the most bytes of an answer that are read.
	MaxBody int64
	// Sound tells whether the body of a successful answer is what the provider gives.
	Sound func(body []byte) bool
	// Observe is told of each request, if it is not nil. It must not block.
	Observe func(context.Context, Call)
}

// RoundTrip implements [http.RoundTripper].
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	rec, ok := ctx.Value(recordKey{}).(*Record)
	if !ok {
		rec = &Record{}
	}
	rec.Status, rec.Header, rec.Body, rec.Err = 0, nil, nil, nil

	started := time.Now()
	if t.Timeout > 0 {
		// The body is read before this returns, so nothing outlives the context.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.Timeout)
		defer cancel()
	}
	resp, err := t.Base.RoundTrip(t.prepare(ctx, req))
	if err != nil {
		rec.Err = err
		t.observe(req, rec, started)
		return nil, err
	}
	body, err := readBody(resp.Body, t.MaxBody)
	rec.Status, rec.Header, rec.Body, rec.Err = resp.StatusCode, resp.Header, body, err
	t.observe(req, rec, started)
	if err != nil {
		// The SDKs would drop the status with this error; the record has both.
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	if resp.StatusCode < 300 && !t.Sound(body) {
		rec.Unsound = true
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	resp.ContentLength = int64(len(body))
	return resp, nil
}

// prepare answers a copy of the request with its headers cleaned, since a RoundTripper must not
// change the request that it is given.
func (t *Transport) prepare(ctx context.Context, req *http.Request) *http.Request {
	out := req.Clone(ctx)
	for _, name := range t.Drop {
		out.Header.Del(name)
	}
	if t.UserAgent != "" {
		out.Header.Set("User-Agent", t.UserAgent)
	}
	return out
}

func (t *Transport) observe(req *http.Request, rec *Record, started time.Time) {
	if t.Observe == nil {
		return
	}
	t.Observe(req.Context(), Call{
		Provider: t.Provider,
		Method:   req.Method,
		Route:    t.route(req.URL.Path),
		Status:   rec.Status,
		Duration: time.Since(started),
	})
}

func (t *Transport) route(path string) string {
	segments := strings.Split(strings.Trim(path, "/"), "/")
	for i, s := range segments {
		if !slices.Contains(t.Words, s) {
			segments[i] = "{id}"
		}
	}
	return "/" + strings.Join(segments, "/")
}

func readBody(body io.ReadCloser, limit int64) ([]byte, error) {
	defer body.Close()
	read, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err != nil {
		return read, err
	}
	if int64(len(read)) > limit {
		return nil, ErrTooLarge
	}
	return read, nil
}

// NewClient makes the HTTP client that a provider's SDK is given. It follows no redirects:
// neither API makes any, and a redirect must not carry a secret key elsewhere.
func NewClient(t *Transport) *http.Client {
	return &http.Client{
		Transport: t,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
}

// NewBase makes the connection pool under a [Transport]: Go's own defaults, but as many idle
// connections as there may be activities asking one host at once.
func NewBase() *http.Transport {
	base, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		// Somebody replaced the default; start from an empty one.
		return &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 64}
	}
	base = base.Clone()
	base.MaxIdleConnsPerHost = 64
	return base
}
