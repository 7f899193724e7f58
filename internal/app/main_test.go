package app_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/nepfy/clerk-stripe-sync/internal/app"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// servers are shared by the tests of this package.
var servers = system.NewServers()

func TestMain(m *testing.M) {
	// Three of them wait for what a program does once a minute: four at a time, unless asked for
	// otherwise.
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(servers.Around(m))
}

// gate stands before a server, as a network does: closed, nobody gets through, and who was
// connected is cut off.
type gate struct {
	listener net.Listener
	target   string
	work     sync.WaitGroup

	mu    sync.Mutex
	open  bool
	conns map[net.Conn]bool
}

// newGate stands before a host and port, and is closed.
func newGate(t *testing.T, target string) *gate {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{listener: listener, target: target, conns: map[net.Conn]bool{}}
	g.work.Go(g.serve)
	t.Cleanup(func() {
		_ = listener.Close()
		g.set(false)
		g.work.Wait()
	})
	return g
}

func (g *gate) addr() string { return g.listener.Addr().String() }

// set opens or closes the gate.
func (g *gate) set(open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = open
	if !open {
		for conn := range g.conns {
			_ = conn.Close()
		}
		clear(g.conns)
	}
}

func (g *gate) serve() {
	for {
		conn, err := g.listener.Accept()
		if err != nil {
			return
		}
		g.work.Go(func() { g.pass(conn) })
	}
}

func (g *gate) pass(in net.Conn) {
	defer func() { _ = in.Close() }()
	var dialer net.Dialer
	out, err := dialer.Dial("tcp", g.target)
	if err != nil {
		return
	}
	defer func() { _ = out.Close() }()
	g.mu.Lock()
	open := g.open
	if open {
		g.conns[in], g.conns[out] = true, true
	}
	g.mu.Unlock()
	if !open {
		return
	}
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
		g.work.Go(func() {
			_, _ = io.Copy(pair[0], pair[1]) // it ends when either side does
			done <- struct{}{}
		})
	}
	<-done
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, in)
	delete(g.conns, out)
}

// gated is a system of which nothing runs yet, with a gate before each thing that it needs.
type gated struct {
	*system.System
	t                                 *testing.T
	postgres, temporal, stripe, clerk *gate
}

func newGated(t *testing.T, o system.Options) *gated {
	t.Helper()
	o.Stopped = true
	g := &gated{System: system.Start(t, servers, o), t: t}
	through := func(variable string) *gate {
		u, err := url.Parse(g.Environ[variable])
		if err != nil {
			t.Fatal(err)
		}
		gate := newGate(t, u.Host)
		u.Host = gate.addr()
		g.Environ[variable] = u.String()
		return gate
	}
	g.postgres, g.stripe, g.clerk = through("DATABASE_URL"), through("STRIPE_API_URL"), through("CLERK_API_URL")
	g.temporal = newGate(t, g.Environ["TEMPORAL_ADDRESS"])
	g.Environ["TEMPORAL_ADDRESS"] = g.temporal.addr()
	return g
}

func (g *gated) openAll() {
	for _, gate := range []*gate{g.postgres, g.temporal, g.stripe, g.clerk} {
		gate.set(true)
	}
}

// program is one of the two programs under way.
type program struct {
	name string
	base string // where its /readyz is
	t    *testing.T
	stop context.CancelFunc
	done chan error
	// patience is how long it is waited for.
	patience time.Duration
	logs     *lines
}

// lines collects a log.
type lines struct {
	mu  sync.Mutex
	all strings.Builder
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// start starts a program that has to start, and stops it with the test.
func start(t *testing.T, name string, environ map[string]string) *program {
	t.Helper()
	p := &program{name: name, t: t, done: make(chan error, 1), logs: &lines{}, patience: system.Patience()}
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	var run func(context.Context) error
	if name == "worker" {
		w, err := app.NewWorker(ctx, environ, p.logs)
		if err != nil {
			t.Fatalf("the worker does not start: %v", err)
		}
		p.base, run = "http://"+w.MetricsAddr(), w.Run
	} else {
		a, err := app.NewAPI(ctx, environ, p.logs)
		if err != nil {
			t.Fatalf("starter-api does not start: %v", err)
		}
		p.base, run = "http://"+a.Addr(), a.Run
	}
	go func() { p.done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err, ended := <-p.done; ended && err != nil {
			t.Errorf("%s ended with: %v", name, err)
		}
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, p.logs)
		}
	})
	return p
}

// both starts both programs.
func both(t *testing.T, environ map[string]string) []*program {
	t.Helper()
	return []*program{start(t, "starter-api", environ), start(t, "worker", environ)}
}

// ended answers how a program ended that has to end by itself.
func (p *program) ended() error {
	p.t.Helper()
	select {
	case err := <-p.done:
		close(p.done)
		return err
	case <-time.After(p.patience):
		p.t.Fatalf("%s goes on", p.name)
		return nil
	}
}

// missing asks /readyz: the status, and the reason of each thing that is missing.
func (p *program) missing() (status int, missing map[string]string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+"/readyz", nil)
	if err != nil {
		return 0, nil, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	var body struct {
		Missing []struct{ Name, Reason string } `json:"missing"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&body); err != nil {
		return 0, nil, err
	}
	missing = map[string]string{}
	for _, m := range body.Missing {
		missing[m.Name] = m.Reason
	}
	return answer.StatusCode, missing, nil
}

// lacks waits until a program says that it lacks exactly these, and answers why.
func (p *program) lacks(names ...string) map[string]string {
	p.t.Helper()
	slices.Sort(names)
	var last string
	var reasons map[string]string
	p.eventually(fmt.Sprintf("it lacks %v", names), func() error {
		status, missing, err := p.missing()
		if err != nil {
			return err
		}
		last = fmt.Sprint(status, " ", missing)
		want := http.StatusServiceUnavailable
		if len(names) == 0 {
			want = http.StatusOK
		}
		if status != want || !slices.Equal(slices.Sorted(maps.Keys(missing)), names) {
			return errors.New(last)
		}
		reasons = missing
		return nil
	})
	return reasons
}

// eventually waits for something that has to happen.
func (p *program) eventually(what string, condition func() error) {
	p.t.Helper()
	deadline := time.After(p.patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			p.t.Fatalf("%s: waited in vain until %s: %v", p.name, what, err)
		case <-tick.C:
		}
	}
}
