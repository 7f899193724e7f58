// Package faults makes an HTTP server misbehave on purpose, in the ways in which providers and the
// networks before them do: slow answers, refusals, error pages of a proxy, connections that break
// before or after the effect, and requests that take effect long after their sender gave up.
//
// Rules are added and removed while the server runs. The package also counts the requests that
// arrive, because "how often was the provider asked" is a question that tests put.
package faults

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxBody is the longest request body that a fault can delay, in bytes. It is far above what either
// provider accepts.
const maxBody = 16 << 20

// Rule says which requests misbehave and how. Fields left zero do nothing; several may be set, and
// act in the order in which they stand here.
//
// A request meets every rule that only delays, and the first that decides its answer (Status,
// DropBefore, DropAfter, DropMidway), in the order in which the rules were added. So rules with
// Times make a sequence: twice 429, then once 503, then as usual.
type Rule struct {
	Method        string // of the request; "" is any
	PathPrefix    string // of the request's path; "" is any
	PathContains  string // somewhere in the path; "" is any
	QueryContains string // somewhere in the query; "" is any

	OnHit func() // called when the rule hits a request, before anything else of the rule

	Latency    time.Duration   // waited before the handler runs
	Hold       <-chan struct{} // the handler runs only when this is closed, even if the sender has gone: a late write
	DropBefore bool            // the connection closes and the handler never runs

	Status     int           // answered instead of running the handler
	RetryAfter time.Duration // header on that answer, in whole seconds, rounded up
	HTML       bool          // the body of that answer is a page, as proxies send, not the provider's error

	HoldAfter    <-chan struct{} // the handler has run, its answer waits until this is closed
	LatencyAfter time.Duration   // the handler has run, its answer waits this long
	DropAfter    bool            // the handler has run, the connection closes without an answer
	DropMidway   bool            // the handler has run, the connection closes in the middle of the answer

	Times       int     // how many requests it hits; 0 is all, until it is removed
	Probability float64 // that it hits a request which it matches; 0 is always

	Above *rate.Limiter // it hits only those requests that come faster than this; nil is all
}

// decides reports whether the rule settles what the client gets, and does not merely delay it.
func (r Rule) decides() bool {
	return r.Status != 0 || r.DropBefore || r.DropAfter || r.DropMidway
}

func (r Rule) matches(req *http.Request) bool {
	return (r.Method == "" || r.Method == req.Method) &&
		strings.HasPrefix(req.URL.Path, r.PathPrefix) &&
		strings.Contains(req.URL.Path, r.PathContains) && strings.Contains(req.URL.RawQuery, r.QueryContains)
}

// An Injector holds the rules and the counts of one server. It is safe for concurrent use.
type Injector struct {
	errorBody func(status int) (string, []byte)
	done      chan struct{} // closed by Close: nothing waits any more

	mu     sync.Mutex
	rand   *rand.Rand
	rules  []*activeRule
	counts map[string]int
	closed bool
}

type activeRule struct {
	Rule
	left int // hits left, when Times is set
}

// New returns an injector without rules. The seed decides which requests a Probability hits;
// errorBody renders the error of the provider that a Status stands for, and may be nil for answers
// without a body.
func New(seed uint64, errorBody func(status int) (contentType string, body []byte)) *Injector {
	return &Injector{
		errorBody: errorBody,
		done:      make(chan struct{}),
		rand:      rand.New(rand.NewPCG(seed, 0x6661756c7473)),
		counts:    map[string]int{},
	}
}

// Add puts a rule into force, after those that are. The function it returns takes the rule out
// again, and may be called more than once.
func (i *Injector) Add(r Rule) (remove func()) {
	added := &activeRule{Rule: r, left: r.Times}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.rules = append(i.rules, added)
	return func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.rules = slices.DeleteFunc(i.rules, func(a *activeRule) bool { return a == added })
	}
}

// Clear removes all rules. Requests that a rule is delaying are not released by it.
func (i *Injector) Clear() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.rules = nil
}

// Requests says how many requests arrived, by "METHOD /route", in which ids are written {id}. Those
// that a rule refused or dropped count too.
func (i *Injector) Requests() map[string]int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return maps.Clone(i.counts)
}

// Reset sets all counts to zero. Rules stay.
func (i *Injector) Reset() {
	i.mu.Lock()
	defer i.mu.Unlock()
	clear(i.counts)
}

// Close ends all delays: what is held is dropped, and its handler does not run. It is what lets a
// server stop whose tests forgot to release something. No rule acts afterwards.
func (i *Injector) Close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.closed {
		i.closed = true
		i.rules = nil
		close(i.done)
	}
}

// Wrap returns h with the faults before it. It belongs outside anything that recovers panics,
// because the way to break a connection is to panic with http.ErrAbortHandler.
//
// Go's own HTTP client repeats by itself a request that is idempotent (a GET, or with an
// Idempotency-Key header) when a connection it has used before closes without an answer, so such a
// client may never tell its caller of a single drop; Requests shows both attempts.
func (i *Injector) Wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f := i.admit(r)
		if f.none() {
			h.ServeHTTP(w, r)
			return
		}
		// The server notices a client that goes away by reading the connection, and then the rest of
		// the body is lost. A provider has the request in hand by then: so read it first, and let the
		// handler not know that nobody waits.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		r = r.WithContext(context.WithoutCancel(r.Context()))
		r.Body = io.NopCloser(bytes.NewReader(body))

		i.before(f)
		answer := &answer{header: http.Header{}}
		if f.decided.Status != 0 {
			i.refuse(answer, f.decided)
		} else {
			h.ServeHTTP(answer, r)
		}
		i.after(f)
		answer.send(w, f.decided)
	})
}

// fate is what the rules in force mean for one request.
type fate struct {
	delays  []Rule
	decided Rule // the zero Rule when none decides
}

func (f fate) none() bool { return len(f.delays) == 0 && !f.decided.decides() }

// admit counts the request and uses up the rules that hit it.
func (i *Injector) admit(r *http.Request) fate {
	f, hit := i.draw(r)
	for _, notify := range hit {
		notify() // outside the lock: it may add a rule
	}
	return f
}

func (i *Injector) draw(r *http.Request) (f fate, hit []func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.counts[r.Method+" "+Route(r.URL.Path)]++
	for _, a := range i.rules {
		if !a.matches(r) || (a.decides() && f.decided.decides()) {
			continue
		}
		if a.Above != nil && a.Above.Allow() || a.Probability > 0 && i.rand.Float64() >= a.Probability {
			continue
		}
		a.left--
		f.delays = append(f.delays, a.Rule)
		if a.decides() {
			f.decided = a.Rule
		}
		if a.OnHit != nil {
			hit = append(hit, a.OnHit)
		}
	}
	i.rules = slices.DeleteFunc(i.rules, func(a *activeRule) bool { return a.Times > 0 && a.left <= 0 })
	return f, hit
}

func (i *Injector) before(f fate) {
	for _, r := range f.delays {
		i.wait(r.Latency, r.Hold)
	}
	if f.decided.DropBefore {
		panic(http.ErrAbortHandler)
	}
}

func (i *Injector) after(f fate) {
	for _, r := range f.delays {
		i.wait(r.LatencyAfter, r.HoldAfter)
	}
	if f.decided.DropAfter && !f.decided.DropMidway {
		panic(http.ErrAbortHandler)
	}
}

// wait passes the time and then waits for the gate, if there is one. The client's patience plays no
// part in it. When the injector closes it drops the connection.
func (i *Injector) wait(d time.Duration, gate <-chan struct{}) {
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-i.done:
			panic(http.ErrAbortHandler)
		}
	}
	if gate != nil {
		select {
		case <-gate:
		case <-i.done:
			panic(http.ErrAbortHandler)
		}
	}
}

// refuse writes the answer that stands in for the handler's.
func (i *Injector) refuse(w http.ResponseWriter, r Rule) {
	if r.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((r.RetryAfter+time.Second-1)/time.Second)))
	}
	var contentType string
	var body []byte
	switch {
	case r.HTML:
		contentType, body = "text/html; charset=UTF-8", page(r.Status)
	case i.errorBody != nil:
		contentType, body = i.errorBody(r.Status)
	}
	if contentType != "" {
		w.Header().Set("Content-Type", contentType)
	}
	w.WriteHeader(r.Status)
	_, _ = w.Write(body) // into memory: cannot fail
}

// page is the kind of error that a load balancer sends for a server that it cannot reach.
func page(status int) []byte {
	return fmt.Appendf(nil, "<html>\r\n<head><title>%[1]d %[2]s</title></head>\r\n<body>\r\n<center><h1>%[1]d %[2]s</h1></center>\r\n"+
		"<hr><center>sandbox proxy</center>\r\n</body>\r\n</html>\r\n", status, http.StatusText(status))
}

// answer keeps what a handler says, so that it can be late, cut short, or never sent.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

func (a *answer) send(w http.ResponseWriter, r Rule) {
	maps.Copy(w.Header(), a.header)
	body := a.body.Bytes()
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(max(a.status, http.StatusOK))
	if !r.DropMidway {
		_, _ = w.Write(body) // a client that has gone is part of the exercise
		return
	}
	_, _ = w.Write(body[:len(body)/2])
	_ = http.NewResponseController(w).Flush() // where it cannot flush, the client gets nothing: a break too
	panic(http.ErrAbortHandler)
}
