package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
)

// action is one thing that a person can do to the sandbox over HTTP. About and Body document it.
type action struct {
	Pattern string `json:"do"`
	About   string `json:"about"`
	Body    any    `json:"body,omitempty"` // an example
	run     run
}

// run does an action and returns the answer's body, nil for none.
type run func(r *http.Request) (any, error)

// errUnknown is answered 404.
var errUnknown = errors.New("there is no such thing in the sandbox")

// control serves all actions, and their list at /_sandbox/. They go past keys and faults.
func (s *Sandbox) control() http.Handler {
	actions := slices.Concat(s.clerkActions(), s.stripeActions(), s.faultActions())
	mux := http.NewServeMux()
	for _, a := range actions {
		mux.Handle(a.Pattern, answering(a.run))
	}
	mux.Handle("GET /_sandbox/{$}", answering(func(*http.Request) (any, error) {
		return map[string]any{"clerk": s.ClerkURL(), "stripe": s.StripeURL(), "actions": actions}, nil
	}))
	return mux
}

// answering turns an action into a handler. A browser's page on another site cannot use it: what is
// not a GET has to be JSON, which such a page may not send unasked.
func answering(do run) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var out any
		err := errors.New(`send "Content-Type: application/json"`)
		status := http.StatusUnsupportedMediaType
		if r.Method == http.MethodGet || r.Method == http.MethodDelete || strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
			status = http.StatusOK
			if out, err = do(r); err != nil {
				status = http.StatusBadRequest
			}
			if errors.Is(err, errUnknown) || errors.Is(err, clerksim.ErrNoUser) {
				status = http.StatusNotFound
			}
		}
		switch {
		case err != nil:
			out = map[string]string{"error": err.Error()}
		case out == nil:
			out = map[string]bool{"ok": true}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		_ = e.Encode(out) // a client that has gone
	})
}

// with reads the JSON body of a request for an action. No body is the zero T.
func with[T any](do func(r *http.Request, in T) (any, error)) run {
	return func(r *http.Request) (any, error) {
		var in T
		d := json.NewDecoder(io.LimitReader(r.Body, 1<<20))
		d.DisallowUnknownFields()
		if err := d.Decode(&in); err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read the body: %w", err)
		}
		return do(r, in)
	}
}

// byID is an action on the {id} of the path that has no body and no answer.
func byID(do func(id string) error) run {
	return func(r *http.Request) (any, error) { return nil, do(r.PathValue("id")) }
}

// duration is a time.Duration that JSON writes as "90s" or "720h".
type duration time.Duration

func (d *duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = duration(parsed)
	return err
}

func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }
