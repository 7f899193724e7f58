package load_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76/webhook"

	"github.com/nepfy/clerk-stripe-sync/bench/internal/load"
)

const secret = "whsec_bench_only_not_a_secret"

// Each event is signed, new, and about one of so many customers.
func TestEventsAreStripes(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	ids, customers, types := map[string]bool{}, map[any]bool{}, map[string]bool{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		event, err := webhook.ConstructEvent(body, r.Header.Get("Stripe-Signature"), secret)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		ids[event.ID], types[string(event.Type)] = true, true
		customers[event.Data.Object["customer"]] = true
	}))
	defer server.Close()
	report, err := load.Deliver(t.Context(), load.Options{URL: server.URL, Secret: secret, Connections: 4, During: time.Minute, Events: 100, Customers: 7, Prefix: "test", Timeout: time.Minute})
	if err != nil || report.Due != 100 || report.Answers["200"] != 100 || report.Failed+report.Unsent != 0 || report.P99 < report.P50 || report.P50 <= 0 {
		t.Errorf("it reports %+v, %v", report, err)
	}
	if len(ids) != 100 || len(customers) != 7 || len(types) != 1 || !types["customer.subscription.updated"] {
		t.Errorf("%d events of %d customers arrived, of the types %v", len(ids), len(customers), types)
	}
	report, err = load.Deliver(t.Context(), load.Options{URL: server.URL, Secret: secret, Connections: 1, During: time.Minute, Events: 1, Customers: 1, Prefix: "typed", Type: "invoice.paid", Timeout: time.Minute})
	if err != nil || report.Answers["200"] != 1 || !types["invoice.paid"] {
		t.Errorf("it reports %+v, %v; the types are %v", report, err, types)
	}
}

// A rate is kept whatever the answers take: what no connection is free for is told of, and a wait
// counts from the moment at which an event was due.
func TestARateIsKept(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-release
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer server.Close()
	time.AfterFunc(300*time.Millisecond, func() { close(release) })
	report, err := load.Deliver(t.Context(), load.Options{URL: server.URL, Secret: secret, Connections: 3, During: time.Minute, Rate: 1000, Events: 200, Customers: 1, Prefix: "test", Timeout: time.Minute})
	if err != nil || report.Due != 200 || report.Unsent < 150 || report.Answers["503"]+report.Unsent != 200 || report.Max < 250 || report.Slowest["503"] != report.Max || len(report.Slowest) != 1 {
		t.Errorf("it reports %+v, %v", report, err)
	}
}
