package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// defaultHealthTTL is how long a result is reused: probes come from several places at once, and
	// must not become a load themselves.
	defaultHealthTTL = time.Second
	// defaultHealthTimeout bounds one measurement, all checks together.
	defaultHealthTimeout = 2 * time.Second
)

// Check asks whether something that the program needs is there.
type Check struct {
	// Name is what an operator calls it, such as postgres.
	Name string
	// Probe returns nil if it is there. Of its error only a Reason is shown to callers; the whole goes
	// to the log.
	Probe func(context.Context) error
}

// Reason is an error with a short text that may be shown to anyone, such as "migrations are
// missing".
type Reason string

// Error implements error.
func (r Reason) Error() string { return string(r) }

// Missing is something that is not there.
type Missing struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// HealthOptions is what health stands on.
type HealthOptions struct {
	Checks []Check
	Logger *slog.Logger
	// TTL is how long a result is reused; 0 stands for 1 s.
	TTL time.Duration
	// Timeout bounds one measurement; 0 stands for 2 s.
	Timeout time.Duration
}

// Health answers whether the program is alive and whether anything is missing.
type Health struct {
	o HealthOptions
	// running tells of each check whether its probe is still out: one that ignores its context must
	// not be started again and again.
	running []atomic.Bool
	// stopping is set when the program is about to go.
	stopping atomic.Bool

	mu       sync.Mutex
	measured time.Time
	missing  []Missing
}

// NewHealth returns health that has not been measured yet.
func NewHealth(o HealthOptions) *Health {
	if o.TTL <= 0 {
		o.TTL = defaultHealthTTL
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultHealthTimeout
	}
	return &Health{o: o, running: make([]atomic.Bool, len(o.Checks))}
}

// HandleHealth adds GET and HEAD of /healthz and /readyz to a router.
func (r *Router) HandleHealth(h *Health) {
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		r.Handle(method, "/healthz", http.HandlerFunc(h.live))
		r.Handle(method, "/readyz", http.HandlerFunc(h.ready))
	}
}

// Stop has both answers be 503 from now on, so that nobody is sent here any more. What is sent all
// the same is served.
func (h *Health) Stop() { h.stopping.Store(true) }

// live answers that the program can answer and means to go on, and looks at nothing else: being
// restarted would not bring a database back.
func (h *Health) live(w http.ResponseWriter, r *http.Request) {
	if h.stopping.Load() {
		h.leaving(w, r)
		return
	}
	WriteJSON(w, http.StatusOK, map[string]string{"status": "alive"})
}

// ready answers 200 if nothing is missing, else 503 and what is.
func (h *Health) ready(w http.ResponseWriter, r *http.Request) {
	if h.stopping.Load() {
		h.leaving(w, r)
		return
	}
	missing := h.Missing(r.Context())
	if len(missing) == 0 {
		WriteJSON(w, http.StatusOK, map[string]string{"status": "ready"})
		return
	}
	WriteProblem(w, r, Problem{
		Status: http.StatusServiceUnavailable, Code: "not_ready",
		Detail: "Something that is needed is missing.", RetryAfter: h.o.TTL,
		Extra: map[string]any{"missing": missing},
	})
}

func (h *Health) leaving(w http.ResponseWriter, r *http.Request) {
	WriteProblem(w, r, Problem{
		Status: http.StatusServiceUnavailable, Code: "stopping", Detail: "The program is about to stop.",
		Extra: map[string]any{"missing": []Missing{}},
	})
}

// Missing returns what is not there, in the order of the checks; the result may be as old as the
// TTL.
func (h *Health) Missing(ctx context.Context) []Missing {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.measured.IsZero() && time.Since(h.measured) < h.o.TTL {
		return h.missing
	}
	found := h.measure(ctx)
	var missing []Missing
	for i, err := range found {
		if err == nil {
			continue
		}
		missing = append(missing, Missing{Name: h.o.Checks[i].Name, Reason: reasonOf(err)})
	}
	h.tell(ctx, missing, errors.Join(found...))
	h.missing, h.measured = missing, time.Now()
	return missing
}

// measure runs all checks at once and returns an error or nil for each.
func (h *Health) measure(ctx context.Context) []error {
	// The result is for the next callers too, so it does not end with the one who happened to ask.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.o.Timeout)
	defer cancel()
	type answer struct {
		check int
		err   error
	}
	// As wide as there are checks, so that a late answer finds room and its goroutine ends.
	answers := make(chan answer, len(h.o.Checks))
	found := make([]error, len(h.o.Checks))
	awaited := 0
	for i, check := range h.o.Checks {
		found[i] = Reason("does not answer")
		if !h.running[i].CompareAndSwap(false, true) {
			continue
		}
		awaited++
		go func() {
			err := probe(ctx, check)
			h.running[i].Store(false)
			answers <- answer{i, err}
		}()
	}
	for range awaited {
		select {
		case a := <-answers:
			found[a.check] = a.err
		case <-ctx.Done():
			return found
		}
	}
	return found
}

// probe runs a check; a panic in it is a failure of the check and not the end of the program.
func probe(ctx context.Context, check Check) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("check %s: panic: %v", check.Name, cause)
		}
	}()
	if err := check.Probe(ctx); err != nil {
		return fmt.Errorf("check %s: %w", check.Name, err)
	}
	return nil
}

// tell logs that something went missing or came back, once each.
func (h *Health) tell(ctx context.Context, missing []Missing, cause error) {
	names := func(all []Missing) []string {
		list := make([]string, len(all))
		for i, m := range all {
			list[i] = m.Name
		}
		return list
	}
	before, after := names(h.missing), names(missing)
	switch {
	case slices.Equal(before, after):
	case len(after) == 0:
		h.o.Logger.InfoContext(ctx, "nothing is missing any more", "operation", "check_readiness", "result", "ready")
	default:
		h.o.Logger.WarnContext(ctx, "something is missing", "operation", "check_readiness", "result", "not_ready",
			"missing", after, "error", cause)
	}
}

// reasonOf is what may be shown of an error.
func reasonOf(err error) string {
	if reason, ok := errors.AsType[Reason](err); ok {
		return reason.Error()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "does not answer"
	}
	return "is not available"
}
