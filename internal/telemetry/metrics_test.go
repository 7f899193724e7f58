package telemetry_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/log"

	"github.com/nepfy/clerk-stripe-sync/internal/telemetry"
)

func TestMetrics(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics()
	m.Request("POST", "/api/webhooks/stripe", 200, 3*time.Millisecond)
	m.Delivery("stripe", "stored", 3*time.Millisecond)
	m.SecretMatched("clerk", 1)
	m.Event("stripe", "invoice.paid", "completed")
	m.Completed("stripe", 2*time.Second)
	m.ProviderCall("stripe", "GET /v1/customers/{id}", "ok", time.Second)
	m.Throttled("clerk")
	m.Retried("RecordSubscriptions")
	m.Signalled("UserOnboarding", "ok")
	m.Activity("PublishProjection", "transient", time.Second)
	m.Compensated("create_customer", "undone")
	m.Drift("unknown_price")
	m.WatchGauge("connections", "Open connections.", func() float64 { return 7 })
	expose(t, m,
		`clerk_stripe_sync_http_request_duration_seconds_bucket{method="POST",route="/api/webhooks/stripe",status="200",le="0.005"} 1`,
		`clerk_stripe_sync_webhook_deliveries_total{result="stored",source="stripe"} 1`,
		`clerk_stripe_sync_webhook_duration_seconds_count{source="stripe"} 1`,
		`clerk_stripe_sync_webhook_secret_matches_total{index="1",source="clerk"} 1`,
		`clerk_stripe_sync_events_total{source="stripe",status="completed",type="invoice.paid"} 1`,
		`clerk_stripe_sync_event_completion_seconds_sum{source="stripe"} 2`,
		`clerk_stripe_sync_provider_call_duration_seconds_count{class="ok",provider="stripe",route="GET /v1/customers/{id}"} 1`,
		`clerk_stripe_sync_provider_throttled_total{provider="clerk"} 1`,
		`clerk_stripe_sync_activity_retries_total{activity="RecordSubscriptions"} 1`,
		`clerk_stripe_sync_dispatch_signals_total{result="ok",workflow="UserOnboarding"} 1`,
		`clerk_stripe_sync_activity_duration_seconds_count{activity="PublishProjection",result="transient"} 1`,
		`clerk_stripe_sync_compensations_total{result="undone",step="create_customer"} 1`,
		`clerk_stripe_sync_drift_total{class="unknown_price"} 1`,
		`clerk_stripe_sync_connections 7`,
		`go_goroutines `,
	)
}

func TestInboxGauges(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics()
	var failure error
	m.WatchInbox(func(ctx context.Context) (telemetry.InboxDepth, error) {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("a scrape may wait for ever")
		}
		return telemetry.InboxDepth{
			ByStatus: map[string]int64{"pending": 3, "waiting": 1}, OldestAge: time.Minute,
			Unpublished: 2, UnpublishedAge: time.Second,
		}, failure
	})
	expose(t, m,
		`clerk_stripe_sync_inbox_events{status="pending"} 3`,
		`clerk_stripe_sync_inbox_events{status="waiting"} 1`,
		`clerk_stripe_sync_inbox_oldest_age_seconds 60`,
		`clerk_stripe_sync_unpublished_users 2`,
		`clerk_stripe_sync_unpublished_oldest_age_seconds 1`,
	)
	failure = errors.New("no database")
	if page := expose(t, m); strings.Contains(page, "inbox_events{") {
		t.Error("an inbox that cannot be measured still has a depth")
	}
	expose(t, m, `clerk_stripe_sync_inbox_measure_failures_total 2`)
}

func TestTemporalMetrics(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics()
	handler, stop, err := m.TemporalMetrics(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	tagged := handler.WithTags(map[string]string{"task_queue": "stripe"})
	tagged.Counter("temporal_request").Inc(2)
	tagged.Timer("temporal_request_latency").Record(40 * time.Millisecond)
	tagged.Gauge("temporal_num_pollers").Update(3)
	expose(t, m,
		`# TYPE temporal_request_total counter`,
		`temporal_request_total{task_queue="stripe"} 2`,
		`temporal_request_latency_seconds_bucket{task_queue="stripe",le="0.025"} 0`,
		`temporal_request_latency_seconds_bucket{task_queue="stripe",le="0.05"} 1`,
		`temporal_num_pollers{task_queue="stripe"} 3`,
	)
	if err := stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTemporalLoggerPassesFieldsOn(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	logger := telemetry.TemporalLogger(telemetry.NewLogger(&out, telemetry.LogOptions{}))
	log.With(logger, "WorkflowID", "user/user_1").Info("started", "email", "ann@example.com")
	for _, want := range []string{`"WorkflowID":"user/user_1"`, `"scope":"temporal"`, `"email":"[redacted]"`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s is not in %s", want, out.String())
		}
	}
}

// expose scrapes the metrics, checks that each of the lines is among them, and returns the page.
func expose(t *testing.T, m *telemetry.Metrics, want ...string) string {
	t.Helper()
	answer := httptest.NewRecorder()
	m.Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if answer.Code != http.StatusOK {
		t.Fatalf("status %d", answer.Code)
	}
	page := answer.Body.String()
	for _, line := range want {
		if !strings.Contains(page, "\n"+line) {
			t.Errorf("missing: %s", line)
		}
	}
	return page
}
