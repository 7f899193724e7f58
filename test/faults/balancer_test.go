//go:build faults && linux

package faults_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/stripeevent"
)

// delivered is a webhook by whom it is from and its id.
type delivered struct{ source, id string }

// answered is when a delivery was answered, and whether Stripe's list of events will show what it
// told.
type answered struct {
	when   time.Time
	listed bool
}

// balancer is the load balancer before the copies of starter-api. Like real ones it goes on to the
// next copy where a connection is refused, and answers for itself where one breaks. It notes which
// deliveries were answered 2xx: from then on the application answers for them.
type balancer struct {
	copies  []string
	client  *http.Client
	server  *http.Server
	address string
	serving sync.WaitGroup
	active  func() faultSet // what is broken now
	next    atomic.Uint64

	mu       sync.Mutex
	seen     map[delivered]bool     // that came at all
	taken    map[delivered]faultSet // that were answered 2xx, and what was broken then
	at       map[delivered]answered // the same: when that was last
	answered int                    // attempts that were answered 2xx
	during   map[faultID]int        // the same, by what was broken
}

func newBalancer(copies []string, active func() faultSet) (*balancer, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &balancer{
		copies: copies, active: active, address: listener.Addr().String(),
		client: &http.Client{
			Transport:     &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 5 * time.Second},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Timeout:       2 * time.Minute,
		},
		seen: map[delivered]bool{}, taken: map[delivered]faultSet{}, at: map[delivered]answered{}, during: map[faultID]int{},
	}
	b.server = &http.Server{Handler: b, ReadHeaderTimeout: 10 * time.Second}
	b.serving.Go(func() { _ = b.server.Serve(listener) })
	return b, nil
}

func (b *balancer) close() {
	_ = b.server.Close()
	b.serving.Wait()
	b.client.CloseIdleConnections()
}

// counts answers how many webhooks have come at all, and how many attempts were answered 2xx.
func (b *balancer) counts() (seen, answered int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.seen), b.answered
}

// all answers the deliveries that were answered 2xx, and how many attempts were by what was broken.
func (b *balancer) all() (map[delivered]faultSet, map[faultID]int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.taken), maps.Clone(b.during)
}

// ServeHTTP implements http.Handler.
func (b *balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	webhook, listed, isWebhook := webhookOf(r, body)
	if isWebhook {
		b.mu.Lock()
		b.seen[webhook] = true
		b.mu.Unlock()
	}
	answer, content, err := b.forward(r, body)
	if err != nil {
		http.Error(w, "the balancer has no answer", http.StatusBadGateway)
		return
	}
	if isWebhook && answer.StatusCode >= 200 && answer.StatusCode < 300 {
		active := b.active()
		b.mu.Lock()
		b.answered++
		b.taken[webhook] |= active
		b.at[webhook] = answered{time.Now(), listed}
		for f := range active.each() {
			b.during[f]++
		}
		b.mu.Unlock()
	}
	maps.Copy(w.Header(), answer.Header)
	w.WriteHeader(answer.StatusCode)
	_, _ = w.Write(content)
}

// forward asks one copy after the other, in turn, until one has taken the connection.
func (b *balancer) forward(r *http.Request, body []byte) (*http.Response, []byte, error) {
	first := b.next.Add(1)
	var last error
	for i := range len(b.copies) {
		chosen := b.copies[(first+uint64(i))%uint64(len(b.copies))]
		request, err := http.NewRequestWithContext(r.Context(), r.Method, "http://"+chosen+r.URL.RequestURI(), bytes.NewReader(body))
		if err != nil {
			return nil, nil, err
		}
		request.Header = r.Header.Clone()
		answer, err := b.client.Do(request)
		if err != nil {
			last = err
			if refused := (*net.OpError)(nil); errors.As(err, &refused) && refused.Op == "dial" {
				continue
			}
			return nil, nil, err
		}
		content, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		return answer, content, err
	}
	return nil, nil, last
}

// answeredAt is when a delivery was answered 2xx last, and whether Stripe's list of events shows it
// among those that are looked for.
func (b *balancer) answeredAt(d delivered) (when time.Time, listed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.at[d].when, b.at[d].listed
}

// webhookOf tells which webhook a request is, and whether it tells of an event of a type that is
// looked for in Stripe's list.
func webhookOf(r *http.Request, body []byte) (of delivered, listed, isOne bool) {
	switch source, found := strings.CutPrefix(r.URL.Path, "/api/webhooks/"); {
	case !found:
		return delivered{}, false, false
	case source == "clerk":
		return delivered{source, r.Header.Get("Svix-Id")}, false, true
	default:
		var event struct {
			ID   string `json:"id"`
			Type string `json:"type"`
		}
		_ = json.Unmarshal(body, &event) // what is no event has no id, and is answered for as that
		return delivered{source, event.ID}, stripeevent.Handled(event.Type), true
	}
}
