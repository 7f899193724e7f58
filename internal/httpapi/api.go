package httpapi

import (
	"bytes"
	"context"
	_ "embed" // the description
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/julienschmidt/httprouter"

	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/selfservice"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/internal/telemetry"
)

//go:embed openapi.yaml
var description []byte

// Description is the API's description, an OpenAPI document in YAML.
func Description() []byte { return slices.Clone(description) }

// Desk does what people ask for. Its errors are refusals.
type Desk interface {
	Command(ctx context.Context, r selfservice.CommandRequest) (*store.Operation, error)
	Sync(ctx context.Context, caller selfservice.Caller, key selfservice.Key, named string) (*store.Operation, error)
	State(ctx context.Context, caller selfservice.Caller, named string) (selfservice.State, *store.Operation, error)
	Subscriptions(ctx context.Context, caller selfservice.Caller, named string) ([]selfservice.Subscription, *store.Operation, error)
	Checkout(ctx context.Context, r selfservice.CheckoutRequest) (selfservice.Checkout, *store.Operation, error)
	Portal(ctx context.Context, caller selfservice.Caller, key selfservice.Key, returnURL string) (address string, pending *store.Operation, err error)
	Return(ctx context.Context, caller selfservice.Caller, key selfservice.Key, sessionID string) (*store.Operation, error)
	Operation(ctx context.Context, caller selfservice.Caller, id string) (*store.Operation, error)
	Audit(ctx context.Context, caller selfservice.Caller, named string, all bool, before int64, limit int) ([]store.AuditLine, error)
}

// APIOptions is what the API stands on.
type APIOptions struct {
	Desk     Desk
	Operator Operator
	Callers  Callers
	// Parties are the origins of the product's own pages.
	Parties []string
	Logger  *slog.Logger
}

// API is what people ask: two forms of the same requests, resources and the older single address.
type API struct {
	o       APIOptions
	origins *http.CrossOriginProtection
}

// NewAPI makes the API. A party that is not an origin is an error.
func NewAPI(o APIOptions) (*API, error) {
	origins, err := newOrigins(o.Parties)
	if err != nil {
		return nil, fmt.Errorf("CLERK_AUTHORIZED_PARTIES: %w", err)
	}
	return &API{o: o, origins: origins}, nil
}

// HandleAPI adds the API's routes to a router.
func (r *Router) HandleAPI(a *API) {
	for _, route := range []struct {
		method, pattern string
		do              func(*asked) error
	}{
		{http.MethodGet, "/api/sync/clerk-stripe", a.readSync},
		{http.MethodPost, "/api/sync/clerk-stripe", a.postSync},
		{http.MethodGet, "/api/subscriptions", a.listSubscriptions},
		{http.MethodPost, "/api/subscriptions/:id/cancel", a.cancel},
		{http.MethodPost, "/api/subscriptions/:id/reactivate", a.reactivate},
		{http.MethodPost, "/api/users/me/sync", a.sync},
		{http.MethodPost, "/api/checkout", a.checkout},
		{http.MethodPost, "/api/checkout/return", a.returned},
		{http.MethodPost, "/api/portal", a.portal},
		{http.MethodGet, "/api/operations/:id", a.operation},
		{http.MethodGet, "/api/audit", a.audit},
		{http.MethodGet, "/api/users/:id", a.admin(a.inspect)},
		{http.MethodGet, "/api/events", a.admin(a.listEvents)},
		{http.MethodGet, "/api/events/:source/:id", a.admin(a.showEvent)},
		{http.MethodPost, "/api/events/retry", a.admin(a.retryEvents)},
		{http.MethodPost, "/api/events/replay", a.admin(a.replayEvents)},
		{http.MethodGet, "/api/drift", a.admin(a.countDrift)},
		{http.MethodGet, "/api/drift/differences", a.admin(a.listDifferences)},
		{http.MethodGet, "/api/drift/runs", a.admin(a.listComparisons)},
		{http.MethodPost, "/api/drift/runs", a.admin(a.compare)},
		{http.MethodGet, "/api/sync/bulk", a.admin(a.listBulks)},
		{http.MethodPost, "/api/sync/bulk", a.admin(a.startBulk)},
		{http.MethodGet, "/api/sync/bulk/:id", a.admin(a.showBulk)},
		{http.MethodGet, "/api/sync/bulk/:id/failures", a.admin(a.listBulkFailures)},
		{http.MethodPost, "/api/sync/bulk/:id/pause", a.admin(a.pauseBulk)},
		{http.MethodPost, "/api/sync/bulk/:id/resume", a.admin(a.resumeBulk)},
		{http.MethodPost, "/api/sync/bulk/:id/cancel", a.admin(a.cancelBulk)},
	} {
		r.Handle(route.method, route.pattern, a.handler(route.method, route.pattern, route.do))
	}
	r.Handle(http.MethodGet, "/openapi.yaml", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(description) // a client that has gone
	}))
}

// asked is one request of somebody who is known.
type asked struct {
	*http.Request
	w http.ResponseWriter
	// parameters are what stands in the path in place of the pattern's names.
	parameters httprouter.Params
	caller     selfservice.Caller
	key        selfservice.Key
	body       []byte
	// result is how the request is told in the log.
	result string
	// operation is the id of the operation that was begun.
	operation string
}

// handler authenticates, reads the body, hands over and tells the log.
func (a *API) handler(method, pattern string, do func(*asked) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		in := &asked{Request: r, w: w, parameters: httprouter.ParamsFromContext(r.Context())}
		err := a.prepare(in, pattern)
		if err == nil {
			err = do(in)
		}
		if err != nil {
			a.refuse(in, err)
		}
		parameters := map[string]string{"method": method, "route": pattern, "request_id": RequestID(r.Context()), "caller": in.caller.UserID}
		if in.operation != "" {
			parameters["operation_id"] = in.operation
		}
		telemetry.BeginAt(a.o.Logger, telemetry.Operation{Name: "answer_request", Parameters: parameters}, started).
			End(r.Context(), telemetry.Outcome{Result: in.result, ErrorClass: classOf(err), Err: err})
	})
}

// prepare finds out who asks, and reads the request.
func (a *API) prepare(in *asked, pattern string) (err error) {
	if in.caller, err = a.authenticate(in.Request); err != nil {
		return err
	}
	if in.Method == http.MethodGet {
		return nil
	}
	if in.key, err = keyOf(in.Request, pattern); err != nil {
		return err
	}
	var body bytes.Buffer
	if code := readBody(in.w, in.Request, &body); code != "" {
		return &bodyProblem{code}
	}
	in.body = body.Bytes()
	return nil
}

// id is the path's own id.
func (in *asked) id() string { return in.parameters.ByName("id") }

// named is the user whom an admin names.
func (in *asked) named() string { return in.URL.Query().Get("userId") }

// bodyProblem is a body that could not be read.
type bodyProblem struct{ code string }

// Error implements error.
func (b *bodyProblem) Error() string { return b.code }

// classOf is the class of an error for the log.
func classOf(err error) string {
	switch refusal, ok := errors.AsType[*selfservice.Refusal](err); {
	case err == nil:
		return ""
	case ok && (refusal.Kind == selfservice.Unavailable || refusal.Kind == selfservice.Upstream):
		if class := failure.Of(errors.Unwrap(err)); class != "" {
			return string(class)
		}
		return string(failure.Transient)
	case ok:
		return telemetry.ClassRefused
	}
	if _, ok := errors.AsType[*bodyProblem](err); ok {
		return telemetry.ClassRefused
	}
	return "" // unexpected, and told with a stack
}

// retryLater is when a caller may try again what was not accepted.
const retryLater = 2 * time.Second

// refuse answers with a problem document.
func (a *API) refuse(in *asked, err error) {
	problem := Problem{Status: http.StatusInternalServerError, Code: "internal_error", Detail: "The request could not be answered."}
	if body, ok := errors.AsType[*bodyProblem](err); ok {
		problem = webhookProblem(body.code)
	}
	if refusal, ok := errors.AsType[*selfservice.Refusal](err); ok {
		problem = Problem{Status: statusOf(refusal.Kind), Code: refusal.Code, Detail: refusal.Detail, Extra: about(refusal)}
	}
	switch problem.Status {
	case http.StatusUnauthorized:
		in.w.Header().Set("WWW-Authenticate", `Bearer realm="clerk-stripe-sync"`)
	case http.StatusServiceUnavailable:
		problem.RetryAfter = retryLater
	}
	in.result = problem.Code
	WriteProblem(in.w, in.Request, problem)
}

// about are the members of a problem document that name what a refusal is about.
func about(refusal *selfservice.Refusal) map[string]any {
	if refusal.SubscriptionID == "" {
		return nil
	}
	members := map[string]any{"subscriptionId": refusal.SubscriptionID}
	if at := moment(refusal.EndsAt); at != nil {
		members["endsAt"] = at
	}
	return members
}

func statusOf(k selfservice.Kind) int {
	switch k {
	case selfservice.Invalid:
		return http.StatusBadRequest
	case selfservice.Unauthenticated:
		return http.StatusUnauthorized
	case selfservice.Forbidden:
		return http.StatusForbidden
	case selfservice.NotFound:
		return http.StatusNotFound
	case selfservice.Conflict:
		return http.StatusConflict
	case selfservice.KeyReused:
		return http.StatusUnprocessableEntity
	case selfservice.Upstream:
		return http.StatusBadGateway
	case selfservice.Unavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

func sortedKeys(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }
