package deploys_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// How the balancer looks after the copies, and how long a request waits for one that is ready.
const (
	probeEvery   = 100 * time.Millisecond
	probeTimeout = 5 * time.Second
	queueFor     = 30 * time.Second
)

// balancer hands requests to copies of starter-api in turn, to those only that say that they are
// ready. It tries nothing twice: what a copy refuses is refused.
type balancer struct {
	*httptest.Server

	mu      sync.Mutex
	copies  []*backend
	turn    int
	served  int
	refused []string
}

type backend struct {
	addr  string
	proxy *httputil.ReverseProxy
	ready bool
	taken int // requests
	stop  context.CancelFunc
	done  chan struct{}
}

func newBalancer(t *testing.T) *balancer {
	t.Helper()
	b := &balancer{}
	b.Server = httptest.NewServer(b)
	t.Cleanup(func() {
		b.Server.Close()
		for _, c := range b.copies {
			c.stop()
			<-c.done
		}
	})
	return b
}

// add takes a copy in. It gets requests once it is ready.
func (b *balancer) add(addr string) *backend {
	ctx, stop := context.WithCancel(context.Background())
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	c := &backend{addr: addr, stop: stop, done: make(chan struct{}), proxy: httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: addr})}
	c.proxy.Transport = transport
	c.proxy.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
		b.refuse("%s %s at %s: %v", r.Method, r.URL.Path, addr, err)
		w.WriteHeader(http.StatusBadGateway)
	}
	c.proxy.ModifyResponse = func(answer *http.Response) error {
		if answer.StatusCode >= http.StatusInternalServerError {
			b.refuse("%s %s at %s was answered %d", answer.Request.Method, answer.Request.URL.Path, addr, answer.StatusCode)
		}
		return nil
	}
	b.mu.Lock()
	b.copies = append(b.copies, c)
	b.mu.Unlock()
	go func() {
		defer close(c.done)
		defer transport.CloseIdleConnections()
		probe(ctx, addr, func(ready bool) {
			b.mu.Lock()
			defer b.mu.Unlock()
			c.ready = ready
		})
	}()
	return c
}

// probe asks a copy at intervals whether it is ready, each time over a connection of its own.
func probe(ctx context.Context, addr string, tell func(ready bool)) {
	client := &http.Client{Timeout: probeTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		ready := false
		if request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", http.NoBody); err == nil {
			if answer, err := client.Do(request); err == nil {
				ready = answer.StatusCode == http.StatusOK
				_ = answer.Body.Close()
			}
		}
		tell(ready)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// ServeHTTP implements http.Handler.
func (b *balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := b.next(r.Context())
	if c == nil {
		b.refuse("%s %s: no copy was ready", r.Method, r.URL.Path)
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	c.proxy.ServeHTTP(w, r)
}

// next answers the copy whose turn it is. If none is ready the request waits, as it does in the
// queue of a real one.
func (b *balancer) next(ctx context.Context) *backend {
	deadline := time.Now().Add(queueFor)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		if c := b.take(); c != nil {
			return c
		}
		time.Sleep(probeEvery / 10)
	}
	return nil
}

func (b *balancer) take() *backend {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range b.copies {
		b.turn++
		if c := b.copies[b.turn%len(b.copies)]; c.ready {
			c.taken++
			b.served++
			return c
		}
	}
	return nil
}

func (b *balancer) refuse(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refused = append(b.refused, fmt.Sprintf(format, args...))
}

// takes tells whether a copy has been given requests.
func (b *balancer) takes(c *backend) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !c.ready || c.taken == 0 {
		return errors.New("it is ready: " + fmt.Sprint(c.ready) + ", requests: " + fmt.Sprint(c.taken))
	}
	return nil
}

// count answers how many requests came, and those of them that were refused.
func (b *balancer) count() (served int, refused []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.served, b.refused
}

// host is the balancer's address.
func (b *balancer) host() string { return strings.TrimPrefix(b.URL, "http://") }
