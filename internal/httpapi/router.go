// Package httpapi is the edge: it turns HTTP requests into calls of the program and errors into
// problem documents. Routes, webhooks and health are here; what they lead to is behind interfaces.
package httpapi

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"runtime/debug"
	"slices"
	"time"

	"github.com/julienschmidt/httprouter"
	"github.com/rs/cors"

	"github.com/nepfy/clerk-stripe-sync/internal/telemetry"
)

const (
	// defaultBodyTimeout bounds the reading of a body. Both providers send theirs at once.
	defaultBodyTimeout = 10 * time.Second
	// unmatched is the route label of requests that no route is for.
	unmatched = "unmatched"
	// requestIDHeader carries the request's id, in both directions.
	requestIDHeader = "X-Request-Id"
)

// requestIDForm is what a caller's own request id must look like to be taken over into our logs.
var requestIDForm = regexp.MustCompile(`^[A-Za-z0-9_-]{8,64}$`)

// RequestMetrics counts answered requests.
type RequestMetrics interface {
	// Request is told the method, the route's pattern, the status and the time to answer.
	Request(method, route string, status int, took time.Duration)
}

// RouterOptions is what a Router stands on.
type RouterOptions struct {
	Logger  *slog.Logger
	Metrics RequestMetrics
	// BodyTimeout bounds the reading of each request's body; 0 stands for 10 s.
	BodyTimeout time.Duration
	// Origins are where pages may call from that are served elsewhere; none for nowhere.
	Origins []string
}

// Router finds the handler of a request and gives every request an id, a measurement and, should
// its handler panic, an answer. Unknown paths and methods are answered with problem documents;
// nothing is redirected, because senders of webhooks count a redirect as a failure.
type Router struct {
	mux         *httprouter.Router
	handler     http.Handler // the mux, behind what browsers ask for
	logger      *slog.Logger
	metrics     RequestMetrics
	bodyTimeout time.Duration
}

// NewRouter returns a router without routes.
func NewRouter(o RouterOptions) *Router {
	r := &Router{mux: httprouter.New(), logger: o.Logger, metrics: o.Metrics, bodyTimeout: o.BodyTimeout}
	if r.bodyTimeout <= 0 {
		r.bodyTimeout = defaultBodyTimeout
	}
	r.mux.RedirectTrailingSlash = false
	r.mux.RedirectFixedPath = false
	r.mux.PanicHandler = r.panicked
	r.mux.NotFound = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		WriteProblem(w, req, Problem{Status: http.StatusNotFound, Code: "route_not_found", Detail: "There is nothing at this address."})
	})
	r.handler = allowOrigins(r.mux, o.Origins)
	// The Allow header has been set by the time this is called.
	r.mux.MethodNotAllowed = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		WriteProblem(w, req, Problem{
			Status: http.StatusMethodNotAllowed, Code: "method_not_allowed",
			Detail: "This address does not take the method; see the Allow header.",
		})
	})
	return r
}

// allowOrigins lets pages of other origins call, with a bearer token: cookies stay with their own.
func allowOrigins(next http.Handler, origins []string) http.Handler {
	if len(origins) == 0 {
		return next
	}
	return cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: []string{http.MethodGet, http.MethodPost},
		AllowedHeaders: []string{"Authorization", "Content-Type", idempotencyHeader, requestIDHeader},
		ExposedHeaders: []string{"Location", "Retry-After", requestIDHeader},
		MaxAge:         int((10 * time.Minute).Seconds()),
	}).Handler(next)
}

// Handle adds a route. The pattern may hold :name parameters, which the handler finds with
// httprouter.ParamsFromContext; it is also the route's label in metrics. Like the router beneath,
// it panics on a pattern that conflicts with another.
func (r *Router) Handle(method, pattern string, handler http.Handler) {
	r.mux.Handler(method, pattern, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		// The router beneath does not tell which pattern matched, so each handler says it itself.
		if about := requestFrom(req.Context()); about != nil {
			about.route = pattern
		}
		// An address with nothing in the place of a name is another address, and there is nothing at it.
		if slices.ContainsFunc(httprouter.ParamsFromContext(req.Context()), func(p httprouter.Param) bool { return p.Value == "" }) {
			r.mux.NotFound.ServeHTTP(w, req)
			return
		}
		handler.ServeHTTP(w, req)
	}))
}

// ServeHTTP implements http.Handler.
func (r *Router) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	started := time.Now()
	about := &request{id: req.Header.Get(requestIDHeader), route: unmatched}
	if !requestIDForm.MatchString(about.id) {
		about.id = rand.Text()
	}
	answer := &response{ResponseWriter: w}
	answer.Header().Set(requestIDHeader, about.id)
	answer.Header().Set("X-Content-Type-Options", "nosniff")
	if req.Body != nil && req.Body != http.NoBody {
		// Lifted again by readBody; a recorder in a test has no deadlines.
		_ = http.NewResponseController(w).SetReadDeadline(started.Add(r.bodyTimeout))
	}
	defer func() {
		r.metrics.Request(methodLabel(req.Method), about.route, answer.sent(), time.Since(started))
	}()
	r.handler.ServeHTTP(answer, req.WithContext(context.WithValue(req.Context(), requestKey{}, about)))
}

// panicked answers a request whose handler panicked, and logs where. It runs on the panicking
// goroutine, so the stack is the one that matters.
func (r *Router) panicked(w http.ResponseWriter, req *http.Request, cause any) {
	if cause == http.ErrAbortHandler { //nolint:errorlint // a panic value, compared as net/http does
		panic(cause)
	}
	about := requestFrom(req.Context())
	telemetry.Begin(r.logger, telemetry.Operation{
		Name:       "handle_request",
		Parameters: map[string]string{"method": methodLabel(req.Method), "route": about.route, "request_id": about.id},
	}).End(req.Context(), telemetry.Outcome{Result: "panic", Err: fmt.Errorf("panic: %v", cause), Stack: debug.Stack()})
	if answer, ok := w.(*response); ok && answer.status != 0 {
		// Half an answer is out; all that is left is to cut it off, so that it is not taken for whole.
		panic(http.ErrAbortHandler)
	}
	WriteProblem(w, req, Problem{Status: http.StatusInternalServerError, Code: "internal_error", Detail: "The request could not be answered."})
}

// RequestID returns the id of the request that ctx belongs to, or nothing.
func RequestID(ctx context.Context) string {
	if about := requestFrom(ctx); about != nil {
		return about.id
	}
	return ""
}

// request is what the router knows about a request.
type request struct{ id, route string }

type requestKey struct{}

func requestFrom(ctx context.Context) *request {
	about, _ := ctx.Value(requestKey{}).(*request)
	return about
}

// methodLabel keeps made-up methods from becoming labels.
func methodLabel(method string) string {
	known := []string{
		http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions,
	}
	if slices.Contains(known, method) {
		return method
	}
	return "other"
}

// response remembers the status of an answer.
type response struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (r *response) WriteHeader(status int) {
	// Informational answers (1xx) come before the real one.
	if r.status == 0 && status >= http.StatusOK {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *response) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach what the server's own writer can do: flushing,
// hijacking and deadlines.
func (r *response) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// sent is the status that the caller sees.
func (r *response) sent() int {
	if r.status == 0 {
		return http.StatusOK
	}
	return r.status
}
