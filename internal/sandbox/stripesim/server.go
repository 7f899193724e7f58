package stripesim

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options configure a Server; the zero value is a test-mode account that nobody listens to.
type Options struct {
	// Emit is called for each event, in the order of creation, after the change is visible; body is
	// the event's JSON as EventVersion renders it. It may call the server back. Nil drops events (they
	// can still be listed).
	Emit func(id, typ string, body []byte)
	// Now gives the simulated time at construction; nil is time.Now. From there the clock flows with
	// real time.
	Now func() time.Time
	// Frozen makes the clock stand still but for Advance and AdvanceTo.
	Frozen bool
	// Livemode is what every object says of itself.
	Livemode bool
	// APIKey is the secret key that requests must carry; "" takes any that is not empty.
	APIKey string
	// AccountID is the account's own id; "" is a fixed test value.
	AccountID string
	// EventVersion is the API version of events, and of answers to requests that name none; "" is
	// 2023-10-16.
	EventVersion string
	// Seed makes ids: the same seed and the same calls give the same ids.
	Seed uint64
	// InvoiceDelay is how long an automatic renewal's invoice stays a draft; 0 is Stripe's hour.
	InvoiceDelay time.Duration
	// Dunning says what happens to a renewal that cannot be paid; the zero value retries after 3, 5
	// and 7 days and then cancels.
	Dunning Dunning
}

// Dunning is the account's rule for failed renewals.
type Dunning struct {
	// Retry holds the wait before each further attempt; nil is 3, 5 and 7 days. Empty but not nil: no
	// further attempt.
	Retry []time.Duration
	// Then is the status of the subscription after the last attempt: "canceled" (default), "unpaid" or
	// "past_due".
	Then string
}

const day = 24 * time.Hour

func (d Dunning) withDefaults() Dunning {
	if d.Retry == nil {
		d.Retry = []time.Duration{3 * day, 5 * day, 7 * day}
	}
	if d.Then == "" {
		d.Then = statusCanceled
	}
	return d
}

// Server is the simulated Stripe, an http.Handler for /v1/... and a set of methods that do what a
// person would do in Stripe's dashboard, checkout or customer portal. All methods are safe for
// concurrent use.
type Server struct {
	mux  *http.ServeMux
	emit func(id, typ string, body []byte)

	mu       sync.Mutex
	opts     Options
	db       *state
	clock    clock
	moment   time.Time // of the step that is being made, under mu
	cause    cause     // of the step that is being made, under mu
	agenda   agenda
	keys     map[string]*keptAnswer
	keyLife  int64         // how long a key is remembered, in seconds
	stall    chan struct{} // not nil: requests with an idempotency key wait for it
	broken   []*breakage
	outbox   []emission
	emitting bool
	settled  []chan struct{}
}

// cause is what an event says about the request that made it; zero for automatic changes.
type cause struct{ request, key string }

type emission struct {
	id, typ string
	body    []byte
}

// New returns a server with an empty account.
func New(o Options) *Server {
	if o.AccountID == "" {
		o.AccountID = "acct_1SandboxAccount0"
	}
	if o.EventVersion == "" {
		o.EventVersion = string(v20231016)
	}
	if o.InvoiceDelay == 0 {
		o.InvoiceDelay = time.Hour
	}
	if o.Emit == nil {
		o.Emit = func(string, string, []byte) {}
	}
	o.Dunning = o.Dunning.withDefaults()
	s := &Server{emit: o.Emit, opts: o, db: newState(), clock: newClock(o), keys: map[string]*keptAnswer{}}
	s.moment = s.clock.now()
	s.agenda = newAgenda()
	s.keyLife = keyLife
	s.mux = s.routes()
	return s
}

// do makes one step: what is due first, then fn, then the events of both.
func (s *Server) do(fn func() error) error {
	s.mu.Lock()
	s.tick()
	s.cause = cause{}
	err := fn()
	s.mu.Unlock()
	s.flush()
	return err
}

// view is do for a step that only reads.
func (s *Server) view(fn func()) {
	_ = s.do(func() error { fn(); return nil })
}

// SetEventVersion changes the API version of events from here on; events that exist keep theirs.
func (s *Server) SetEventVersion(v string) {
	s.view(func() { s.opts.EventVersion = v })
}

// SetKey replaces the API key that requests must carry, as rolling a key does; "" takes any.
func (s *Server) SetKey(key string) {
	s.view(func() { s.opts.APIKey = key })
}

// SetSearchLag makes customers appear, and changes to them show, in search only after d, as
// Stripe's search index does.
func (s *Server) SetSearchLag(d time.Duration) {
	s.view(func() { s.db.SearchLag = d })
}

// SetDunning changes what happens to renewals that cannot be paid, from the next failure on.
func (s *Server) SetDunning(d Dunning) {
	s.view(func() { s.opts.Dunning = d.withDefaults() })
}

// AccountID is the id that GET /v1/account answers.
func (s *Server) AccountID() string { return s.opts.AccountID }

// BreakNext makes the next n POST requests fail inside with 500, after they were accepted: nothing
// happens, and the answer is kept under their idempotency key and replayed, which is what Stripe
// does.
func (s *Server) BreakNext(n int) { s.Break(Breakage{Times: n}) }

// Breakage says which POST requests fail inside with 500, after they were accepted. The answer is
// kept under their idempotency key, and replayed.
type Breakage struct {
	PathPrefix, PathSuffix string // of the request's path; "" is any
	// Done makes what was asked for happen all the same.
	Done bool
	// Times is how many requests fail; 0 is all, until the breakage is taken back.
	Times int
}

// Break makes requests fail inside. What it answers takes that back.
func (s *Server) Break(b Breakage) (restore func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	broken := &breakage{Breakage: b, left: b.Times}
	s.broken = append(s.broken, broken)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.broken = slices.DeleteFunc(s.broken, func(each *breakage) bool { return each == broken })
	}
}

type breakage struct {
	Breakage
	left int
}

// breaks answers what is broken for a request, and counts it.
func (s *Server) breaks(r *http.Request) *Breakage {
	if r.Method != http.MethodPost {
		return nil
	}
	for i, b := range s.broken {
		if !strings.HasPrefix(r.URL.Path, b.PathPrefix) || !strings.HasSuffix(r.URL.Path, b.PathSuffix) {
			continue
		}
		if b.left--; b.Times > 0 && b.left <= 0 {
			s.broken = slices.Delete(s.broken, i, i+1)
		}
		return &b.Breakage
	}
	return nil
}

// Stall makes POST requests that carry an idempotency key wait before they are executed, until
// release is called. Meanwhile a second request with the same key is answered 409.
func (s *Server) Stall() (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gate := make(chan struct{})
	s.stall = gate
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.stall == gate {
			s.stall = nil
		}
		close(gate)
	})
}

// InProgress is how many requests with an idempotency key have arrived and are not yet answered.
func (s *Server) InProgress() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.keys {
		if !k.Done {
			n++
		}
	}
	return n
}
