package httpapi_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/httpapi"
)

func TestHealthEndpoints(t *testing.T) {
	t.Parallel()
	e := newEdge(t, edgeOptions{})
	var broken atomic.Bool
	broken.Store(true)
	e.router.HandleHealth(httpapi.NewHealth(httpapi.HealthOptions{
		Logger: e.logger, TTL: time.Nanosecond,
		Checks: []httpapi.Check{
			{Name: "postgres", Probe: func(context.Context) error {
				if broken.Load() {
					return errors.New("dial 10.0.0.1: connection refused")
				}
				return nil
			}},
			{Name: "migrations", Probe: func(context.Context) error {
				if broken.Load() {
					return fmt.Errorf("version 3: %w", httpapi.Reason("some are missing"))
				}
				return nil
			}},
			{Name: "temporal", Probe: func(context.Context) error { return nil }},
		},
	}))
	server := e.serve(t)

	if a := send(t, server, http.MethodGet, "/healthz", nil, nil); a.status != http.StatusOK || a.body["status"] != "alive" {
		t.Errorf("healthz: %d %s", a.status, a.raw)
	}
	a := send(t, server, http.MethodGet, "/readyz", nil, nil)
	const want = `"missing":[{"name":"postgres","reason":"is not available"},{"name":"migrations","reason":"some are missing"}]`
	if a.status != http.StatusServiceUnavailable || a.code() != "not_ready" || !strings.Contains(a.raw, want) {
		t.Errorf("readyz: %d %s", a.status, a.raw)
	}
	if strings.Contains(a.raw, "10.0.0.1") || !strings.Contains(e.logs.String(), "10.0.0.1") {
		t.Error("the cause belongs in the log and nowhere else")
	}
	if a := send(t, server, http.MethodHead, "/readyz", nil, nil); a.status != http.StatusServiceUnavailable {
		t.Errorf("HEAD readyz: %d", a.status)
	}

	broken.Store(false)
	if a := send(t, server, http.MethodGet, "/readyz", nil, nil); a.status != http.StatusOK || a.body["status"] != "ready" {
		t.Errorf("readyz after mending: %d %s", a.status, a.raw)
	}
	for text, times := range map[string]int{"something is missing": 1, "nothing is missing any more": 1} {
		if got := strings.Count(e.logs.String(), text); got != times {
			t.Errorf("%q was logged %d times", text, got)
		}
	}
}

func TestHealthIsMeasuredOnceASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var probes atomic.Int32
		h := httpapi.NewHealth(httpapi.HealthOptions{Checks: []httpapi.Check{{Name: "a", Probe: func(context.Context) error {
			probes.Add(1)
			return nil
		}}}})
		var callers sync.WaitGroup
		for range 20 {
			callers.Go(func() { h.Missing(t.Context()) })
		}
		callers.Wait()
		if n := probes.Load(); n != 1 {
			t.Errorf("twenty callers at once caused %d probes", n)
		}
		time.Sleep(999 * time.Millisecond) // of the bubble's own time
		h.Missing(t.Context())
		if n := probes.Load(); n != 1 {
			t.Errorf("within a second there were %d probes", n)
		}
		time.Sleep(time.Millisecond)
		h.Missing(t.Context())
		if n := probes.Load(); n != 2 {
			t.Errorf("after a second there were %d probes", n)
		}
	})
}

func TestHealthIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, edgeOptions{})
		release := make(chan struct{})
		var stuck atomic.Int32
		slow := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		h := httpapi.NewHealth(httpapi.HealthOptions{Logger: e.logger, Checks: []httpapi.Check{
			{Name: "slow", Probe: slow},
			{Name: "slow too", Probe: slow},
			{Name: "stuck", Probe: func(context.Context) error { stuck.Add(1); <-release; return nil }},
			{Name: "panics", Probe: func(context.Context) error { panic("out of order") }},
			{Name: "fine", Probe: func(context.Context) error { return nil }},
		}})
		// The one who asks first goes away at once; the result is for the others as well.
		gone, leave := context.WithCancel(t.Context())
		leave()
		want := []httpapi.Missing{
			{Name: "slow", Reason: "does not answer"},
			{Name: "slow too", Reason: "does not answer"},
			{Name: "stuck", Reason: "does not answer"},
			{Name: "panics", Reason: "is not available"},
		}
		for round := range 2 {
			started := time.Now()
			if got := h.Missing(gone); !slices.Equal(got, want) {
				t.Errorf("round %d: got %v", round, got)
			}
			if took := time.Since(started); took != 2*time.Second {
				t.Errorf("round %d took %s", round, took)
			}
			time.Sleep(time.Second)
		}
		if n := stuck.Load(); n != 1 {
			t.Errorf("a probe that is stuck was started %d times", n)
		}
		close(release)
	})
}
