// Package load delivers signed Stripe events to a webhook endpoint and measures the answers.
package load

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/stripe/stripe-go/v76/webhook"
)

// Options are what a run is to do.
type Options struct {
	// URL is the endpoint's address, Secret what its deliveries are signed with.
	URL, Secret string
	// Connections is how many requests are under way at most.
	Connections int
	// Rate is how many events are due in a second, whether or not those before have been answered.
	// Zero sends the next on each connection when the last is answered.
	Rate float64
	// During is how long it goes on, Events after how many it stops; zero for no such end.
	During time.Duration
	Events int
	// Customers is how many the events are about, in turn.
	Customers int
	// Type is the type of the events, "" for that of a subscription that has changed.
	Type string
	// Prefix begins the ids of the events; letters and digits.
	Prefix string
	// Timeout is how long an answer is waited for.
	Timeout time.Duration
}

// Report says how a run went. Times are in milliseconds.
type Report struct {
	// Due are the events of the run, Unsent those among them that no connection was free for.
	Due    int `json:"due"`
	Unsent int `json:"unsent"`
	// Answers counts the answers by status, Failed requests without one.
	Answers map[string]int `json:"answers"`
	Failed  int            `json:"failed"`
	// FirstFailure says why the first of them has none.
	FirstFailure string `json:"firstFailure,omitempty"`
	// PerSecond is how many were answered in a second.
	PerSecond float64 `json:"perSecond"`
	Seconds   float64 `json:"seconds"`
	P50       float64 `json:"p50"`
	P99       float64 `json:"p99"`
	Max       float64 `json:"max"`
	// Slowest is the longest that an answer of a status took.
	Slowest map[string]float64 `json:"slowest"`
}

// event is one as Stripe sends it. Its ids are replaced, so that each delivery is new.
//
//go:embed event.json
var event []byte

const (
	eventID    = "evt_15a22p4nfNAzDX3TS32KLD42"
	customerID = "cus_aWJPu3VMF55LII"
	eventType  = "customer.subscription.updated"
)

// delivery is one that is due.
type delivery struct {
	number int
	at     time.Time
}

// answered is what became of one.
type answered struct {
	status int
	took   time.Duration
	err    error
}

// Deliver delivers until the end of the run. What was begun by then is seen to its end.
func Deliver(ctx context.Context, o Options) (Report, error) {
	for _, id := range []string{eventID, customerID} {
		if !bytes.Contains(event, []byte(id)) {
			return Report{}, fmt.Errorf("the event is not about %s", id)
		}
	}
	transport := &http.Transport{MaxIdleConns: o.Connections, MaxIdleConnsPerHost: o.Connections, MaxConnsPerHost: o.Connections, DisableCompression: true}
	defer transport.CloseIdleConnections()
	s := &sender{o: o, client: &http.Client{Transport: transport, Timeout: o.Timeout}}
	began := time.Now()
	ctx, cancel := context.WithDeadline(ctx, began.Add(o.During))
	defer cancel()
	due := make(chan delivery)
	results := make([][]answered, o.Connections)
	var senders sync.WaitGroup
	// Not bound to the run: what was begun is seen to its end.
	unbound := context.WithoutCancel(ctx)
	for i := range results {
		senders.Go(func() {
			for d := range due {
				results[i] = append(results[i], s.send(unbound, d))
			}
		})
	}
	report := Report{Answers: map[string]int{}, Slowest: map[string]float64{}}
	if o.Rate > 0 {
		report.Due, report.Unsent = pace(ctx, o, due)
	} else {
		report.Due = turn(ctx, o, due)
	}
	close(due)
	senders.Wait()
	report.sum(slices.Concat(results...), time.Since(began))
	return report, nil
}

// turn hands out the next delivery whenever a connection is free.
func turn(ctx context.Context, o Options, due chan<- delivery) (n int) {
	for ; o.Events == 0 || n < o.Events; n++ {
		select {
		case due <- delivery{number: n}:
		case <-ctx.Done():
			return n
		}
	}
	return n
}

// pace hands out each delivery at its moment.
func pace(ctx context.Context, o Options, due chan<- delivery) (n, unsent int) {
	began := time.Now()
	for ; o.Events == 0 || n < o.Events; n++ {
		at := began.Add(time.Duration(float64(n) / o.Rate * float64(time.Second)))
		if wait := time.Until(at); wait > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return n, unsent
			}
		}
		if ctx.Err() != nil {
			return n, unsent
		}
		select {
		case due <- delivery{number: n, at: at}:
		default:
			unsent++
		}
	}
	return n, unsent
}

// sender delivers events.
type sender struct {
	o      Options
	client *http.Client
}

func (s *sender) send(ctx context.Context, d delivery) answered {
	began := d.at
	if began.IsZero() {
		began = time.Now()
	}
	body := bytes.Replace(event, []byte(eventID), []byte("evt_"+s.o.Prefix+strconv.Itoa(d.number)), 1)
	body = bytes.ReplaceAll(body, []byte(customerID), []byte("cus_"+"load"+strconv.Itoa(d.number%s.o.Customers)))
	if s.o.Type != "" {
		body = bytes.Replace(body, []byte(`"`+eventType+`"`), []byte(strconv.Quote(s.o.Type)), 1)
	}
	signed := webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: body, Secret: s.o.Secret})
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.o.URL, bytes.NewReader(body))
	if err != nil {
		return answered{err: err}
	}
	request.Header.Set("Content-Type", "application/json; charset=utf-8")
	request.Header.Set("Stripe-Signature", signed.Header)
	response, err := s.client.Do(request)
	if err != nil {
		return answered{err: err}
	}
	_, err = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close() // it has been read
	return answered{status: response.StatusCode, took: time.Since(began), err: err}
}

func (r *Report) sum(all []answered, took time.Duration) {
	var times []time.Duration
	for _, a := range all {
		if a.err != nil {
			if r.Failed++; r.FirstFailure == "" {
				r.FirstFailure = a.err.Error()
			}
			continue
		}
		status := strconv.Itoa(a.status)
		r.Answers[status]++
		r.Slowest[status] = max(r.Slowest[status], milliseconds(a.took))
		times = append(times, a.took)
	}
	r.Seconds = took.Seconds()
	r.PerSecond = float64(len(times)) / took.Seconds()
	if len(times) == 0 {
		return
	}
	slices.Sort(times)
	at := func(share float64) float64 {
		return milliseconds(times[int(share*float64(len(times)-1))])
	}
	r.P50, r.P99, r.Max = at(0.5), at(0.99), at(1)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
