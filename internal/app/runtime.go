package app

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"

	"github.com/nepfy/clerk-stripe-sync/internal/config"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/internal/telemetry"
)

// runtime is what both programs stand on.
type runtime struct {
	logger   *slog.Logger
	metrics  *telemetry.Metrics
	store    *store.Store
	temporal client.Client
	// namespace is the one that the Temporal client works in.
	namespace string
	closers   []func()
}

// newRuntime prepares everything and connects to nothing: a program starts, and stays up, while
// what it needs cannot be reached.
func newRuntime(ctx context.Context, environ map[string]string, logs io.Writer, logging config.Logging, database config.Database, policy config.Policy) (*runtime, error) {
	r := &runtime{metrics: telemetry.NewMetrics()}
	r.logger = telemetry.NewLogger(logs, telemetry.LogOptions{
		Level: logging.LogLevel, Text: logging.LogFormat == config.FormatText, Debug: logging.DebugScopes(),
	})
	db, err := store.Open(ctx, store.Options{
		DSN: database.DatabaseURL.Reveal(), MaxConns: database.DatabaseMaxConns, TrustClientReference: policy.TrustClientReference,
		Tracer: newStatementTracer(ctx, telemetry.Scope(r.logger, telemetry.ScopeStore)),
		OnDrift: func(ctx context.Context, d store.NewDrift) {
			r.metrics.Drift(string(d.Class))
			r.logger.ErrorContext(ctx, "the systems differ: "+d.Class.Means(), "operation", "drift",
				"class", string(d.Class), "entity", string(d.Entity), "subject", d.Subject, "repair", string(d.Class.Repair()))
		},
	})
	if err != nil {
		return nil, err
	}
	r.store = db
	r.closers = append(r.closers, db.Close)
	r.metrics.WatchGauge("database_connections_in_use", "Connections to PostgreSQL that something holds at this moment.",
		func() float64 { return float64(db.InUse()) })
	if r.temporal, err = r.connectTemporal(ctx, environ); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// The pauses between two attempts to raise the number sequence.
const (
	firstRaise = time.Second
	lastRaise  = 30 * time.Second
)

// raiseNumbers sees to it, once in the life of a program, that the number sequence is past all that
// is stored. It tries until it can: the program has started long before, and a read that meets such
// a number sees to it too.
func (r *runtime) raiseNumbers(ctx context.Context) {
	for pause := firstRaise; ctx.Err() == nil; pause = min(2*pause, lastRaise) {
		reached, err := r.store.RaiseNumbers(ctx, 0)
		if err == nil {
			r.logger.DebugContext(ctx, "the number sequence is past all that is stored", "operation", "start", "reached", reached)
			return
		}
		r.logger.WarnContext(ctx, "the number sequence could not be raised, which is tried again", "operation", "start", "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

func (r *runtime) close() {
	for _, closer := range slices.Backward(r.closers) {
		closer()
	}
}

func (r *runtime) connectTemporal(ctx context.Context, environ map[string]string) (client.Client, error) {
	handler, stop, err := r.metrics.TemporalMetrics(r.logger)
	if err != nil {
		return nil, err
	}
	r.closers = append(r.closers, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = stop(ctx) // the last values have nobody left to read them
	})
	options, err := TemporalOptions(environ)
	if err != nil {
		return nil, err
	}
	r.namespace = options.Namespace
	if r.namespace == "" {
		r.namespace = client.DefaultNamespace
	}
	options.Logger = telemetry.TemporalLogger(r.logger)
	options.MetricsHandler = handler
	// Host names and process ids are nobody's business on a shared server.
	options.DisableWorkerEnvironmentInfo = true
	temporal, err := client.NewLazyClient(options)
	if err != nil {
		return nil, errors.New("the TEMPORAL_ variables do not describe a usable connection: " + err.Error())
	}
	r.closers = append(r.closers, temporal.Close)
	return temporal, nil
}

// TemporalOptions reads Temporal's own standard variables from environ.
func TemporalOptions(environ map[string]string) (client.Options, error) {
	options, err := envconfig.LoadClientOptions(envconfig.LoadClientOptionsRequest{EnvLookup: environment(environ)})
	if err != nil {
		return client.Options{}, errors.New("reading the TEMPORAL_ variables: " + err.Error())
	}
	return options, nil
}

// environment makes a map look like the process's environment.
type environment map[string]string

func (e environment) Environ() []string {
	list := make([]string, 0, len(e))
	for name, value := range e {
		list = append(list, name+"="+value)
	}
	return list
}

func (e environment) LookupEnv(name string) (string, bool) {
	value, ok := e[name]
	return value, ok
}
