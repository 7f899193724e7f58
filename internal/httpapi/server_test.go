package httpapi_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/httpapi"
	"github.com/nepfy/clerk-stripe-sync/internal/telemetry"
)

// running is a server whose only handler says that it was entered and then waits to be let go.
type running struct {
	server         *httpapi.Server
	entered, leave chan struct{}
	answered       chan string // the body, or the error
	stop           context.CancelFunc
	stopped        chan error
}

func start(t *testing.T, patience time.Duration) *running {
	t.Helper()
	r := &running{
		entered: make(chan struct{}), leave: make(chan struct{}),
		answered: make(chan string, 1), stopped: make(chan error, 1),
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		close(r.entered)
		select {
		case <-r.leave:
			_, _ = io.WriteString(w, "done")
		case <-req.Context().Done():
		}
	})
	var err error
	r.server, err = httpapi.Listen(t.Context(), "127.0.0.1:0", handler,
		httpapi.ServerOptions{Logger: slog.New(slog.DiscardHandler), ShutdownTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	t.Cleanup(stop)
	go func() { r.stopped <- r.server.Serve(ctx) }()
	go func() {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		response, err := client.Get("http://" + r.server.Addr())
		if err != nil {
			r.answered <- err.Error()
			return
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		r.answered <- string(body)
	}()
	<-r.entered
	return r
}

func TestShutdownLetsRequestsEnd(t *testing.T) {
	t.Parallel()
	r := start(t, time.Minute)
	r.stop()
	// No more are taken, while the one in progress goes on.
	for {
		conn, err := net.Dial("tcp", r.server.Addr())
		if err != nil {
			break
		}
		conn.Close()
	}
	select {
	case err := <-r.stopped:
		t.Fatalf("stopped with a request in progress: %v", err)
	default:
	}
	close(r.leave)
	if got := <-r.answered; got != "done" {
		t.Errorf("the request in progress got %q", got)
	}
	if err := <-r.stopped; err != nil {
		t.Errorf("stopped with %v", err)
	}
}

func TestShutdownDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	r := start(t, 10*time.Millisecond)
	r.stop()
	if err := <-r.stopped; err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("stopped with %v", err)
	}
	if got := <-r.answered; got == "done" {
		t.Error("the request was answered")
	}
}

// In the delay everything is served as before, but that health says no and that connections are not
// kept.
func TestRequestsAreTakenWhileTheEndIsMadeKnown(t *testing.T) {
	t.Parallel()
	logger := slog.New(slog.DiscardHandler)
	health := httpapi.NewHealth(httpapi.HealthOptions{Logger: logger})
	router := httpapi.NewRouter(httpapi.RouterOptions{Logger: logger, Metrics: telemetry.NewMetrics()})
	router.HandleHealth(health)
	router.Handle(http.MethodGet, "/work", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "done") }))
	told := make(chan struct{})
	server, err := httpapi.Listen(t.Context(), "127.0.0.1:0", router, httpapi.ServerOptions{Logger: logger, ShutdownDelay: 2 * time.Second,
		OnStop: func() { health.Stop(); close(told) }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- server.Serve(ctx) }()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	get := func(path string, status int, closes bool) {
		t.Helper()
		response, err := (&http.Client{Transport: transport}).Get("http://" + server.Addr() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			t.Error(err)
		}
		if response.StatusCode != status || response.Close != closes {
			t.Errorf("%s is answered %d, closing %t", path, response.StatusCode, response.Close)
		}
	}
	for path := range map[string]bool{"/work": true, "/healthz": true, "/readyz": true} {
		get(path, http.StatusOK, false)
	}
	began := time.Now()
	stop()
	<-told
	get("/work", http.StatusOK, true)
	get("/healthz", http.StatusServiceUnavailable, true)
	get("/readyz", http.StatusServiceUnavailable, true)
	if err := <-stopped; err != nil {
		t.Errorf("stopped with %v", err)
	}
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("stopped after %s", took)
	}
}

func TestTakenAddress(t *testing.T) {
	t.Parallel()
	options := httpapi.ServerOptions{Logger: slog.New(slog.DiscardHandler)}
	first, err := httpapi.Listen(t.Context(), "127.0.0.1:0", http.NotFoundHandler(), options)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := httpapi.Listen(t.Context(), first.Addr(), http.NotFoundHandler(), options); err == nil || !strings.Contains(err.Error(), first.Addr()) {
		t.Errorf("the address is taken, and the error is %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
	if err := first.Serve(t.Context()); err == nil {
		t.Error("a closed server serves")
	}
	second, err := httpapi.Listen(t.Context(), "127.0.0.1:0", http.NotFoundHandler(), options)
	if err != nil {
		t.Fatal(err)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if err := second.Serve(stopped); err != nil {
		t.Errorf("stopped before it began: %v", err)
	}
}

// Proxies open connections in store. One that nothing has come on yet is not closed before a
// request's headers would have had to be there: the closing might meet a request on its way.
func TestAConnectionMayWaitForItsFirstRequest(t *testing.T) {
	t.Parallel()
	conn := dial(t, serveOK(t))
	waited := time.Now()
	if err := conn.SetReadDeadline(waited.Add(6 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("unused, it gave %d bytes and %v after %s", n, err, time.Since(waited))
	}
	for range 2 { // and is kept for the next one
		if got := ask(t, conn, "GET / HTTP/1.1\r\nHost: here\r\n\r\n"); got != http.StatusOK {
			t.Errorf("answered %d", got)
		}
	}
}

// Whoever has begun a request's headers ends them in time, however long the connection was there
// before and whatever number of request it is.
func TestHeadersAreBounded(t *testing.T) {
	t.Parallel()
	for name, asked := range map[string]int{"the first request": 0, "the second request": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := dial(t, serveOK(t))
			for range asked {
				ask(t, conn, "GET / HTTP/1.1\r\nHost: here\r\n\r\n")
			}
			began := time.Now()
			// A header a second is something coming in all the time.
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				tick := time.NewTicker(time.Second)
				defer tick.Stop()
				for line := "GET / HTTP/1.1\r\n"; time.Since(began) < 20*time.Second; line = "X-More: yes\r\n" {
					if _, err := io.WriteString(conn, line); err != nil {
						return
					}
					select {
					case <-tick.C:
					case <-t.Context().Done():
						return
					}
				}
			}()
			_, _ = io.Copy(io.Discard, conn) // until it is closed
			if took := time.Since(began); took < 4*time.Second || took > 15*time.Second {
				t.Errorf("cut off after %s", took)
			}
			<-ended
		})
	}
}

// serveOK is a server that answers every request.
func serveOK(t *testing.T) string {
	t.Helper()
	server, err := httpapi.Listen(t.Context(), "127.0.0.1:0", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
		httpapi.ServerOptions{Logger: slog.New(slog.DiscardHandler), ShutdownTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() { _ = server.Serve(ctx); close(stopped) }()
	t.Cleanup(func() { stop(); <-stopped })
	return server.Addr()
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// ask sends a request as it is given and tells the status of its answer.
func ask(t *testing.T, conn net.Conn, request string) int {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode
}
