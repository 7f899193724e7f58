package telemetry

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/opentelemetry"
	"go.temporal.io/sdk/log"
)

// TemporalLogger returns a logger for the Temporal SDK. Its debug lines are many and about the SDK,
// so only the log level turns them on, not the DEBUG variable.
func TemporalLogger(logger *slog.Logger) log.Logger {
	handler := logger.Handler()
	if h, ok := handler.(*scopedHandler); ok {
		handler = h.quiet()
	}
	return log.NewStructuredLogger(slog.New(handler.WithAttrs([]slog.Attr{slog.String("scope", "temporal")})))
}

// TemporalMetrics returns a handler that keeps the Temporal SDK's own metrics beside ours, under
// names that begin with temporal_, and a function that ends the collection. The handler goes into
// client.Options.MetricsHandler; workers inherit it from the client.
func (m *Metrics) TemporalMetrics(logger *slog.Logger) (client.MetricsHandler, func(context.Context) error, error) {
	exporter, err := prometheus.New(
		prometheus.WithRegisterer(m.registry),
		prometheus.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes),
		prometheus.WithoutTargetInfo(),
		prometheus.WithoutScopeInfo(),
	)
	if err != nil {
		return nil, nil, fmt.Errorf("export Temporal's metrics: %w", err)
	}
	provider := sdkmetric.NewMeterProvider(
		sdkmetric.WithReader(exporter),
		// The SDK measures in seconds; the library's own buckets are made for milliseconds.
		sdkmetric.WithView(sdkmetric.NewView(
			sdkmetric.Instrument{Kind: sdkmetric.InstrumentKindHistogram},
			sdkmetric.Stream{Aggregation: sdkmetric.AggregationExplicitBucketHistogram{Boundaries: longBuckets()}},
		)),
	)
	handler := opentelemetry.NewMetricsHandler(opentelemetry.MetricsHandlerOptions{
		Meter: provider.Meter("temporal-sdk-go"),
		// Counters only grow; without this they are exported as gauges.
		UseMonotonicCounters: true,
		// Without this a metric that cannot be made would end the program.
		OnError: func(err error) { logger.Warn("a Temporal metric could not be recorded", "error", err) },
	})
	return handler, provider.Shutdown, nil
}
