package api_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
)

// patienceFactor is how many times the two bare calls a cancellation may take.
const patienceFactor = 6

// A cancellation needs Stripe twice and Clerk once, and little more than their time. The machine
// may be busy with other tests, so the providers are slow enough for their time to outweigh the
// machine's, and it is the fastest that has to be quick enough; the table in the log has the
// median. CANCELLATIONS says how many are measured, PROVIDER_LATENCY_MS what is added to every call
// of either provider.
func TestCancellationIsQuick(t *testing.T) { //nolint:paralleltest // it measures
	w := start(t, nil)
	ada := w.subscriber("Ada")
	w.Rest()
	latency := time.Duration(numberFrom(t, "PROVIDER_LATENCY_MS", 250)) * time.Millisecond
	for _, injector := range []*faults.Injector{w.Sandbox.StripeFaults, w.Sandbox.ClerkFaults} {
		injector.Add(faults.Rule{Latency: latency})
	}
	var bare, commands []time.Duration
	for range numberFrom(t, "CANCELLATIONS", 6) {
		bare = append(bare, w.timed(w.Sandbox.StripeURL()+"/v1/subscriptions/"+ada.subscription, w.Sandbox.StripeSecretKey)+
			w.timed(w.Sandbox.ClerkURL()+"/users/"+ada.user, w.Sandbox.ClerkSecretKey))
		started := time.Now()
		want(t, ada.asks(http.MethodPost, "/api/subscriptions/"+ada.subscription+"/cancel", ""), http.StatusOK, "")
		commands = append(commands, time.Since(started))
		ada.is("active, ends with its period")
		want(t, ada.asks(http.MethodPost, "/api/subscriptions/"+ada.subscription+"/reactivate", ""), http.StatusOK, "")
		w.Rest()
	}
	slices.Sort(bare)
	slices.Sort(commands)
	table := "| | fastest | median | slowest |\n| --- | --- | --- | --- |\n"
	for _, row := range []struct {
		name  string
		times []time.Duration
	}{{"a bare call of Stripe and one of Clerk", bare}, {"a cancellation", commands}} {
		ms := func(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }
		table += fmt.Sprintf("| %s | %s | %s | %s |\n", row.name, ms(row.times[0]), ms(row.times[len(row.times)/2]), ms(row.times[len(row.times)-1]))
	}
	t.Logf("\n%s", table)
	if commands[0] >= patienceFactor*bare[0] {
		t.Errorf("the fastest cancellation took %s, the two bare calls %s", commands[0], bare[0])
	}
}

// timed is how long a bare call of a provider takes.
func (w *world) timed(url, key string) time.Duration {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		w.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+key)
	started := time.Now()
	answer, err := w.http.Do(request)
	if err != nil {
		w.t.Fatal(err)
	}
	_ = answer.Body.Close()
	return time.Since(started)
}
