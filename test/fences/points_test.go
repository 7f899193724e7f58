package fences_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
)

// points are the places at which an actor can be stopped: before each SQL statement ("sql ..."),
// before each request to a provider ("ask GET /v1/..."), and after each answer ("answered GET
// /v1/..."). Stopping an actor there is what makes an interleaving.
type points struct {
	base http.RoundTripper

	mu      sync.Mutex
	armed   []*stop
	late    []*lateRequest
	lost    []string
	answers []*rewrite
	// replaced are the matches of all answers that were replaced so far, and given is set once somebody
	// has got one of them.
	replaced []string
	given    bool
	asked    []string
	// tracing is set while it is noted what follows each moment: changes counts the moments that
	// change what others may see, and acts tells of each whether it does, or draws a number, which
	// others may draw before or after.
	tracing bool
	acts    []bool
	changes int
}

// stop is one place at which an actor stops once.
type stop struct {
	match   string
	skip    int
	at      string        // where it stopped; to be read once reached is closed
	reached chan struct{} // closed when the actor stands there
	release func()        // lets the actor go on; more than once changes nothing
	gate    chan struct{}
}

// arm makes the actor stop at the next point that contains match, after skip others that do.
// A test that ends lets go of whoever stands there.
func (p *points) arm(t testing.TB, match string, skip int) *stop {
	t.Helper()
	s := &stop{match: match, skip: skip, reached: make(chan struct{}), gate: make(chan struct{})}
	s.release = sync.OnceFunc(func() { close(s.gate) })
	t.Cleanup(s.release)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = append(p.armed, s)
	return s
}

// disarm takes a stop back that nobody came to.
func (p *points) disarm(s *stop) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, armed := range p.armed {
		if armed == s {
			p.armed = append(p.armed[:i:i], p.armed[i+1:]...)
			return
		}
	}
}

// trace begins to note what follows each moment that is passed.
func (p *points) trace() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tracing, p.acts, p.changes = true, nil, 0
}

// traced answers what was noted so far.
func (p *points) traced() (acts []bool, changes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.acts), p.changes
}

// passSQL is pass for the statements that are sent at one moment. They are spelled out only while
// somebody waits for a point: most are passed by nobody's wish.
func (p *points) passSQL(conn *pgx.Conn, statements ...string) {
	p.mu.Lock()
	armed, tracing := len(p.armed) > 0, p.tracing
	p.mu.Unlock()
	if tracing {
		p.note(slices.ContainsFunc(statements, func(sql string) bool { return changes(conn, sql) }),
			slices.ContainsFunc(statements, func(sql string) bool { return strings.Contains(sql, "nextval") }))
	}
	if !armed {
		return
	}
	points := make([]string, len(statements))
	for i, sql := range statements {
		points[i] = "sql " + strings.Join(strings.Fields(sql), " ")
	}
	p.pass(points...)
}

// changes tells whether a statement changes at once what others may see: by committing, where it is
// in no transaction, and by what no transaction holds back.
func changes(conn *pgx.Conn, sql string) bool {
	sql = strings.ToLower(strings.TrimSpace(sql))
	alone := conn.PgConn().TxStatus() == 'I' && !strings.HasPrefix(sql, "select") && !strings.HasPrefix(sql, "begin")
	return alone || strings.HasPrefix(sql, "commit") || strings.Contains(sql, "advisory")
}

func (p *points) note(changes, draws bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acts = append(p.acts, changes || draws)
	if changes {
		p.changes++
	}
}

// pass stops at a moment that somebody waits for. What is sent together is one moment, and has
// several points.
func (p *points) pass(moment ...string) {
	p.mu.Lock()
	for i := 0; i < len(p.armed); {
		s := p.armed[i]
		at := slices.IndexFunc(moment, func(point string) bool { return strings.Contains(point, s.match) })
		switch {
		case at < 0:
			i++
			continue
		case s.skip > 0:
			s.skip--
			p.mu.Unlock()
			return
		}
		p.armed = append(p.armed[:i:i], p.armed[i+1:]...)
		p.mu.Unlock()
		s.at = moment[at]
		close(s.reached)
		<-s.gate
		return
	}
	p.mu.Unlock()
}

// TraceQueryStart implements pgx.QueryTracer.
func (p *points) TraceQueryStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	p.passSQL(conn, data.SQL)
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (p *points) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TraceBatchStart implements pgx.BatchTracer: who stops before one statement of a batch stops
// before all of it.
func (p *points) TraceBatchStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	statements := make([]string, len(data.Batch.QueuedQueries))
	for i, q := range data.Batch.QueuedQueries {
		statements[i] = q.SQL
	}
	p.passSQL(conn, statements...)
	return ctx
}

// TraceBatchQuery implements pgx.BatchTracer.
func (p *points) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

// TraceBatchEnd implements pgx.BatchTracer.
func (p *points) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// lateRequest is a request whose sender gives up before it arrives.
type lateRequest struct {
	match string
	sent  chan *http.Request
}

// delay makes the next matching request time out for its sender without having arrived. What it
// answers brings the request to the provider, whenever that is called.
func (p *points) delay(t testing.TB, match string) (land func() (status int)) {
	t.Helper()
	late := &lateRequest{match: match, sent: make(chan *http.Request, 1)}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.late = append(p.late, late)
	return func() (status int) {
		t.Helper()
		select {
		case request := <-late.sent:
			response, err := p.base.RoundTrip(request)
			if err != nil {
				t.Fatal("landing a late request:", err)
			}
			_, _ = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
			return response.StatusCode
		default:
			t.Fatalf("no request %q was sent", match)
			return 0
		}
	}
}

// lose makes the answer to the next matching request not come back; the provider has done what was
// asked.
func (p *points) lose(match string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lost = append(p.lost, match)
}

func (p *points) takeLost(point string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, match := range p.lost {
		if strings.Contains(point, match) {
			p.lost = append(p.lost[:i:i], p.lost[i+1:]...)
			return true
		}
	}
	return false
}

// rewrite replaces an answer.
type rewrite struct {
	match  string
	status int
	body   string
	// unsent is set where the request is not let through either.
	unsent bool
}

// answer replaces the answers to all requests that contain match, until the function that it
// answers is called.
func (p *points) answer(match string, status int, body string) (restore func()) {
	return p.replace(&rewrite{match: match, status: status, body: body})
}

// refuse is [points.answer] for requests that are not let through.
func (p *points) refuse(match string, status int, body string) (restore func()) {
	return p.replace(&rewrite{match: match, status: status, body: body, unsent: true})
}

func (p *points) replace(r *rewrite) (restore func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers, p.replaced = append(p.answers, r), append(p.replaced, r.match)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.answers = nil
	}
}

// sawReplaced fails a test in which answers were replaced and nobody asked for any of them: it has not
// tested what it says.
func (p *points) sawReplaced(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.replaced) > 0 && !p.given {
		t.Errorf("nobody asked for what was replaced: %q", p.replaced)
	}
}

// errGaveUp is what a client gets whose request does not come back in time.
type errGaveUp struct{}

func (errGaveUp) Error() string   { return "timed out" }
func (errGaveUp) Timeout() bool   { return true }
func (errGaveUp) Temporary() bool { return true }

// RoundTrip implements http.RoundTripper.
func (p *points) RoundTrip(request *http.Request) (*http.Response, error) {
	point := request.Method + " " + request.URL.Path
	p.mu.Lock()
	p.asked = append(p.asked, point)
	tracing := p.tracing
	p.mu.Unlock()
	if tracing {
		p.note(request.Method != http.MethodGet, false)
	}
	p.pass("ask " + point)
	if late := p.takeLate(point); late != nil {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			return nil, err
		}
		detached := request.Clone(context.WithoutCancel(request.Context()))
		detached.Body = io.NopCloser(bytes.NewReader(body))
		late.sent <- detached
		return nil, errGaveUp{}
	}
	if r, ok := p.replacing(point + "?" + request.URL.RawQuery); ok && r.unsent {
		return &http.Response{StatusCode: r.status, Status: strconv.Itoa(r.status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: request,
			Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(r.body)), ContentLength: int64(len(r.body))}, nil
	}
	response, err := p.base.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if p.takeLost(point) {
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		return nil, errGaveUp{}
	}
	if r, ok := p.replacing(point + "?" + request.URL.RawQuery); ok {
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		response.StatusCode, response.Status = r.status, strconv.Itoa(r.status)
		response.Body, response.ContentLength = io.NopCloser(strings.NewReader(r.body)), int64(len(r.body))
		response.Header.Del("Content-Length")
	}
	if tracing {
		p.note(false, false)
	}
	p.pass("answered " + point)
	return response, nil
}

func (p *points) takeLate(point string) *lateRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, late := range p.late {
		if strings.Contains(point, late.match) {
			p.late = append(p.late[:i:i], p.late[i+1:]...)
			return late
		}
	}
	return nil
}

func (p *points) replacing(point string) (rewrite, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.answers {
		if strings.Contains(point, r.match) {
			p.given = true
			return *r, true
		}
	}
	return rewrite{}, false
}
