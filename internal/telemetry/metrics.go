package telemetry

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// namespace begins the name of each of our metrics.
const namespace = "clerk_stripe_sync"

// Metrics are the program's own, on a registry of their own. Labels take few values: sources,
// results, classes, event types, routes; never an id.
type Metrics struct {
	registry *prometheus.Registry

	requests      *prometheus.HistogramVec
	deliveries    *prometheus.CounterVec
	webhook       *prometheus.HistogramVec
	secretMatches *prometheus.CounterVec
	events        *prometheus.CounterVec
	agreement     *prometheus.HistogramVec
	providerCalls *prometheus.HistogramVec
	throttled     *prometheus.CounterVec
	retries       *prometheus.CounterVec
	signals       *prometheus.CounterVec
	activities    *prometheus.HistogramVec
	compensations *prometheus.CounterVec
	drift         *prometheus.CounterVec
	recovered     *prometheus.CounterVec
	reconciled    *prometheus.CounterVec
}

// NewMetrics returns metrics that nothing has been counted in yet, together with those of the
// process and the Go runtime.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: histogram("http_request_duration_seconds", "Time to answer an HTTP request.",
			shortBuckets(), "method", "route", "status"),
		deliveries: counter("webhook_deliveries_total", "Webhook deliveries by what became of them.", "source", "result"),
		webhook: histogram("webhook_duration_seconds", "Time to answer a webhook delivery.",
			shortBuckets(), "source"),
		secretMatches: counter("webhook_secret_matches_total",
			"Verified deliveries by the place, from 0, of the secret that matched.", "source", "index"),
		events: counter("events_total", "Events by type and the status they reached.", "source", "type", "status"),
		agreement: histogram("event_completion_seconds", "Time from the receipt of an event to its completion.",
			longBuckets(), "source"),
		providerCalls: histogram("provider_call_duration_seconds", "Calls to a provider by route and class of result.",
			shortBuckets(), "provider", "route", "class"),
		throttled: counter("provider_throttled_total", "Calls that a provider refused because there were too many.", "provider"),
		retries:   counter("activity_retries_total", "Attempts of activities after the first.", "activity"),
		signals:   counter("dispatch_signals_total", "Pokes sent to workflows, by result.", "workflow", "result"),
		activities: histogram("activity_duration_seconds", "Attempts of activities by result.",
			shortBuckets(), "activity", "result"),
		compensations: counter("compensations_total", "Steps that were undone, by result.", "step", "result"),
		drift:         counter("drift_total", "Differences found between the three systems.", "class"),
		recovered:     counter("recovered_total", "Events, and changes of users, that were never delivered and were found.", "source"),
		reconciled:    counter("reconciliations_total", "Comparisons of the three systems, by whether they came to their end.", "result"),
	}
	m.registry.MustRegister(
		m.requests, m.deliveries, m.webhook, m.secretMatches, m.events, m.agreement, m.providerCalls,
		m.throttled, m.retries, m.signals, m.activities, m.compensations, m.drift, m.recovered, m.reconciled,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// Handler serves the metrics in Prometheus' text format. What cannot be collected is left out; the
// rest is served.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		Registry:      m.registry,
		ErrorHandling: promhttp.ContinueOnError,
		// A scrape is cheap; many at once are a mistake.
		MaxRequestsInFlight: 4,
	})
}

// Registry is where further collectors can be registered.
func (m *Metrics) Registry() prometheus.Registerer { return m.registry }

// Request counts an answered HTTP request; route is the pattern, not the path.
func (m *Metrics) Request(method, route string, status int, took time.Duration) {
	m.requests.WithLabelValues(method, route, strconv.Itoa(status)).Observe(took.Seconds())
}

// Delivery counts an answered webhook delivery.
func (m *Metrics) Delivery(source, result string, took time.Duration) {
	m.deliveries.WithLabelValues(source, result).Inc()
	m.webhook.WithLabelValues(source).Observe(took.Seconds())
}

// SecretMatched counts a verified delivery by the place of the secret that matched: an old secret
// can go when it has stopped matching.
func (m *Metrics) SecretMatched(source string, index int) {
	m.secretMatches.WithLabelValues(source, strconv.Itoa(index)).Inc()
}

// Event counts an event that reached a status: pending, completed, ignored, waiting or failing.
func (m *Metrics) Event(source, kind, status string) {
	m.events.WithLabelValues(source, kind, status).Inc()
}

// Completed measures the time from the receipt of an event to its completion.
func (m *Metrics) Completed(source string, since time.Duration) {
	m.agreement.WithLabelValues(source).Observe(since.Seconds())
}

// ProviderCall measures a call to a provider; route is the method and the path without ids, class
// is ok or the class of the error.
func (m *Metrics) ProviderCall(provider, route, class string, took time.Duration) {
	m.providerCalls.WithLabelValues(provider, route, class).Observe(took.Seconds())
}

// Throttled counts a call that a provider refused because there were too many.
func (m *Metrics) Throttled(provider string) { m.throttled.WithLabelValues(provider).Inc() }

// Retried counts an attempt of an activity after the first.
func (m *Metrics) Retried(activity string) { m.retries.WithLabelValues(activity).Inc() }

// Signalled counts a poke of a workflow type by result.
func (m *Metrics) Signalled(workflow, result string) {
	m.signals.WithLabelValues(workflow, result).Inc()
}

// Activity measures an attempt of an activity; result is ok or the class of the error.
func (m *Metrics) Activity(activity, result string, took time.Duration) {
	m.activities.WithLabelValues(activity, result).Observe(took.Seconds())
}

// Compensated counts a step that was undone, or was to be, by result.
func (m *Metrics) Compensated(step, result string) {
	m.compensations.WithLabelValues(step, result).Inc()
}

// Drift counts a difference found between the systems.
func (m *Metrics) Drift(class string) { m.drift.WithLabelValues(class).Inc() }

// Recovered counts what a provider never told us of and what was found in its own list.
func (m *Metrics) Recovered(source string, missing int) {
	m.recovered.WithLabelValues(source).Add(float64(missing))
}

// Reconciled counts a comparison of the three systems that has ended.
func (m *Metrics) Reconciled(complete bool) {
	result := ResultOK
	if !complete {
		result = "incomplete"
	}
	m.reconciled.WithLabelValues(result).Inc()
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

func histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(
		prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}, labels)
}

// shortBuckets, in seconds, suit what somebody waits for.
func shortBuckets() []float64 {
	return []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
}

// longBuckets, in seconds, suit what goes on by itself, up to an hour.
func longBuckets() []float64 {
	return []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600}
}
