package telemetry

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// gaugeTimeout bounds what a scrape waits for a measurement.
const gaugeTimeout = 2 * time.Second

// InboxDepth is how much is due in the inbox.
type InboxDepth struct {
	// ByStatus counts the events of each status that is not final.
	ByStatus map[string]int64
	// OldestAge is the age of the oldest of them, 0 if there is none.
	OldestAge time.Duration
	// Unpublished counts the users whose projection Clerk does not have yet.
	Unpublished int64
	// UnpublishedAge is how long the longest of them has been waiting, 0 if there is none.
	UnpublishedAge time.Duration
	// OpenDrift counts the differences that nobody has resolved, by class.
	OpenDrift map[string]int64
	// RecoveryAge says of each source how long ago its own list was last read to the end.
	RecoveryAge map[string]time.Duration
	// ReconciliationAge is how long ago the last comparison that came to its end began; nil if there
	// is none.
	ReconciliationAge *time.Duration
}

// WatchInbox has measure asked at each scrape. While it fails the gauges are absent, which says
// more than a number that was true once, and the failures are counted. It is called once.
func (m *Metrics) WatchInbox(measure func(context.Context) (InboxDepth, error)) {
	failures := prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: namespace, Name: "inbox_measure_failures_total", Help: "Scrapes at which the inbox could not be measured.",
	})
	m.registry.MustRegister(&inboxCollector{
		measure:  measure,
		failures: failures,
		depth: prometheus.NewDesc(namespace+"_inbox_events",
			"Events in the inbox that have not ended, by status.", []string{"status"}, nil),
		age: prometheus.NewDesc(namespace+"_inbox_oldest_age_seconds",
			"Age of the oldest event that has not ended.", nil, nil),
		unpublished: prometheus.NewDesc(namespace+"_unpublished_users",
			"Users whose projection Clerk does not have yet.", nil, nil),
		unpublishedAge: prometheus.NewDesc(namespace+"_unpublished_oldest_age_seconds",
			"How long the longest unpublished projection has been waiting.", nil, nil),
		drift: prometheus.NewDesc(namespace+"_drift_open",
			"Differences between the systems that are not resolved, by class.", []string{"class"}, nil),
		recovery: prometheus.NewDesc(namespace+"_recovery_age_seconds",
			"How long ago a provider's own list was last read to its end.", []string{"source"}, nil),
		reconciliation: prometheus.NewDesc(namespace+"_reconciliation_age_seconds",
			"How long ago the last comparison of the systems that came to its end began.", nil, nil),
	})
}

// WatchGauge registers a gauge whose value is asked for at each scrape; read must be quick.
func (m *Metrics) WatchGauge(name, help string, read func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, read))
}

// inboxCollector asks for all of the inbox's gauges in one measurement, so that they agree.
type inboxCollector struct {
	measure  func(context.Context) (InboxDepth, error)
	failures prometheus.Counter

	depth, age, unpublished, unpublishedAge, drift, recovery, reconciliation *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *inboxCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{c.depth, c.age, c.unpublished, c.unpublishedAge, c.drift, c.recovery, c.reconciliation} {
		descs <- desc
	}
	c.failures.Describe(descs)
}

// Collect implements prometheus.Collector.
func (c *inboxCollector) Collect(metrics chan<- prometheus.Metric) {
	// The interface passes no context, so the bound is all there is.
	ctx, cancel := context.WithTimeout(context.Background(), gaugeTimeout)
	defer cancel()
	defer c.failures.Collect(metrics)
	inbox, err := c.measure(ctx)
	if err != nil {
		c.failures.Inc()
		return
	}
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	for status, count := range inbox.ByStatus {
		gauge(c.depth, float64(count), status)
	}
	gauge(c.age, inbox.OldestAge.Seconds())
	gauge(c.unpublished, float64(inbox.Unpublished))
	gauge(c.unpublishedAge, inbox.UnpublishedAge.Seconds())
	for class, count := range inbox.OpenDrift {
		gauge(c.drift, float64(count), class)
	}
	for source, age := range inbox.RecoveryAge {
		gauge(c.recovery, age.Seconds(), source)
	}
	if inbox.ReconciliationAge != nil {
		gauge(c.reconciliation, inbox.ReconciliationAge.Seconds())
	}
}
