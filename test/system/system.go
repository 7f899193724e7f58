// Package system runs the whole application for a test: the real programs' values, a real
// PostgreSQL, a real Temporal server, and the sandbox in the places of Clerk and Stripe, with
// real HTTP between all of them.
package system

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nepfy/clerk-stripe-sync/internal/app"
	"github.com/nepfy/clerk-stripe-sync/internal/localstack/testdb"
	"github.com/nepfy/clerk-stripe-sync/internal/localstack/testtemporal"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// Servers are the servers that the tests of one package share.
type Servers struct {
	Databases *testdb.Server
	Temporal  *testtemporal.Server
	Programs  *Programs
}

// NewServers answers servers that start when the first test asks for them.
func NewServers() *Servers { return NewServersWith(nil) }

// NewServersWith is NewServers with dynamic configuration of Temporal's server: values in JSON by
// name.
func NewServersWith(dynamic map[string]string) *Servers {
	return &Servers{Databases: testdb.New(migrate), Temporal: testtemporal.New(dynamic), Programs: &Programs{}}
}

func migrate(ctx context.Context, dsn string) error {
	return app.Migrate(ctx, map[string]string{"DATABASE_URL": dsn}, io.Discard)
}

// Runner is what runs a package's tests.
type Runner interface{ Run() int }

// Around answers a runner that stops the servers after the tests, for TestMain.
func (s *Servers) Around(m Runner) Runner {
	return s.Programs.Around(s.Databases.Around(s.Temporal.Around(m)))
}

// Options change a System from its defaults. All may be left zero.
type Options struct {
	Sandbox sandbox.Options
	// Environ overrides variables of both programs.
	Environ map[string]string
	// Stopped leaves the programs to the test: nothing but the sandbox and the servers runs.
	Stopped bool
	// WithoutTemporal is for a test that does by itself what workflows do: there is no namespace then,
	// and no program can be started.
	WithoutTemporal bool
}

// System is the running application.
type System struct {
	Sandbox   *sandbox.Sandbox
	Store     *store.Store
	Temporal  client.Client
	Namespace string
	DSN       string
	Environ   map[string]string

	t         testing.TB
	servers   *Servers
	asserting *pgxpool.Pool // for what the test itself asks of the database

	mu   sync.Mutex
	api  *running
	work *running
	addr string
	logs *logBuffer
}

// Start runs everything and stops it when the test ends. The log of a test that fails is shown.
func Start(t testing.TB, servers *Servers, o Options) *System {
	t.Helper()
	s := &System{t: t, servers: servers, DSN: servers.Databases.DSN(t), logs: &logBuffer{}}
	address := "127.0.0.1:1"
	if !o.WithoutTemporal {
		address = servers.Temporal.Address(t)
		s.startTemporal(address)
	}
	s.startSandbox(o.Sandbox)
	s.Environ = map[string]string{
		"DATABASE_URL":          s.DSN,
		"DATABASE_MAX_CONNS":    "8",
		"TEMPORAL_ADDRESS":      address,
		"TEMPORAL_NAMESPACE":    s.Namespace,
		"CLERK_SECRET_KEY":      s.Sandbox.ClerkSecretKey,
		"CLERK_WEBHOOK_SECRET":  s.Sandbox.ClerkWebhookSecret,
		"CLERK_API_URL":         s.Sandbox.ClerkURL(),
		"STRIPE_SECRET_KEY":     s.Sandbox.StripeSecretKey,
		"STRIPE_WEBHOOK_SECRET": s.Sandbox.StripeWebhookSecret,
		"STRIPE_API_URL":        s.Sandbox.StripeURL(),
		"STRIPE_RATE":           "2000",
		"CLERK_RATE":            "2000",
		"HTTP_ADDR":             "127.0.0.1:0",
		"METRICS_ADDR":          "127.0.0.1:0",
		"BOUNDARY_DELAY":        "200ms",
		"REREAD_DELAY":          "200ms",
		"POKE_INTERVAL":         "500ms",
		"SHUTDOWN_TIMEOUT":      "10s", // net/http waits five for a connection that was opened, and not used yet
		"SHUTDOWN_DELAY":        "0s",
		"RECOVERY_INTERVAL":     "off",
		"RECONCILE_INTERVAL":    "off",
		"RECONCILE_SETTLE":      "200ms",
		"LOG_LEVEL":             "info",
		"LOG_FORMAT":            "text",
	}
	maps.Copy(s.Environ, o.Environ)
	db, err := store.Open(context.Background(), store.Options{DSN: s.DSN, MaxConns: 4})
	s.must(err, "opening the database")
	s.Store = db
	t.Cleanup(db.Close)
	s.asserting, err = pgxpool.New(context.Background(), s.DSN)
	s.must(err, "opening the database")
	t.Cleanup(s.asserting.Close)
	if !o.WithoutTemporal {
		s.must(app.Setup(t.Context(), s.Environ, io.Discard), "setting up")
	}
	t.Cleanup(s.stop)
	if !o.Stopped && !o.WithoutTemporal {
		s.StartAPI()
		s.StartWorker()
	}
	return s
}

func (s *System) startSandbox(o sandbox.Options) {
	if o.Seed == 0 {
		// Ids differ between tests, so that what a test leaves in a shared server is its own.
		h := fnv.New64a()
		_, _ = io.WriteString(h, s.t.Name()) // a hash takes everything
		o.Seed = h.Sum64()
	}
	sb, err := sandbox.Start(s.t.Context(), o)
	s.must(err, "starting the sandbox")
	s.Sandbox = sb
	s.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := sb.Stop(ctx); err != nil {
			s.t.Log("stopping the sandbox:", err)
		}
	})
}

// startTemporal gives the test a namespace of its own: the names of task queues are constants,
// so two systems in one namespace would do each other's work.
func (s *System) startTemporal(address string) {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, s.t.Name())
	s.Namespace = fmt.Sprintf("%.60s-%x", name, time.Now().UnixNano())
	options := client.Options{HostPort: address, Logger: silent{}}
	admin, err := client.NewNamespaceClient(options)
	s.must(err, "connecting to Temporal")
	defer admin.Close()
	s.must(admin.Register(s.t.Context(), &workflowservice.RegisterNamespaceRequest{
		Namespace: s.Namespace, WorkflowExecutionRetentionPeriod: durationpb.New(24 * time.Hour),
	}), "registering a namespace")
	options.Namespace = s.Namespace
	s.Temporal, err = client.Dial(options)
	s.must(err, "connecting to Temporal")
	s.t.Cleanup(s.Temporal.Close)
	s.Until("the namespace is known everywhere", func(ctx context.Context) error {
		_, err := s.Temporal.DescribeWorkflowExecution(ctx, "none", "")
		if err != nil && !strings.Contains(err.Error(), "not found for") && !strings.Contains(err.Error(), "workflow not found") && !strings.Contains(err.Error(), "no rows") {
			return err
		}
		return nil
	})
}

// StartAPI starts starter-api and points the sandbox's webhooks at it.
func (s *System) StartAPI() {
	s.t.Helper()
	api, err := app.NewAPI(context.Background(), s.Environ, s.logs)
	s.must(err, "starting starter-api")
	s.PointWebhooks(api.Addr())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.api = run(api.Run)
}

// StopAPI stops starter-api as SIGTERM does.
func (s *System) StopAPI() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.must(s.api.end(), "stopping starter-api")
	s.api = nil
}

// StartWorker starts a worker.
func (s *System) StartWorker() {
	s.t.Helper()
	w, err := app.NewWorker(context.Background(), s.Environ, s.logs)
	s.must(err, "starting the worker")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.work = run(w.Run)
}

// StopWorker stops the worker as SIGTERM does.
func (s *System) StopWorker() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.must(s.work.end(), "stopping the worker")
	s.work = nil
}

// URL is the address of starter-api.
func (s *System) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return "http://" + s.addr
}

// Logs is what both programs have written so far.
func (s *System) Logs() string { return s.logs.String() }

func (s *System) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, each := range []*running{s.api, s.work} {
		if each == nil {
			continue
		}
		if err := each.end(); err != nil {
			s.t.Error("a program ended with:", err)
		}
	}
	if s.t.Failed() {
		s.t.Log("log of the programs:\n" + s.logs.String())
	}
}

func (s *System) must(err error, what string) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
}

// Patience is how long a test waits for something that has to happen. TEST_PATIENCE overrides
// it on machines that are slower than most.
func Patience() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("TEST_PATIENCE")); err == nil {
		return d
	}
	return 90 * time.Second
}

// Until waits for a condition and fails the test with its last answer if it does not come.
func (s *System) Until(what string, condition func(context.Context) error) {
	s.t.Helper()
	s.UntilWithin(Patience(), what, condition)
}

// UntilWithin is Until with a patience of its own, for what may have to wait for something slow.
func (s *System) UntilWithin(patience time.Duration, what string, condition func(context.Context) error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := condition(ctx)
		if err == nil {
			return
		}
		if ctx.Err() == nil || last == nil {
			last = err // what is asked when the time is over fails for that reason
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("waited in vain until %s: %v", what, last)
		case <-tick.C:
		}
	}
}

// running is a program's Run under way.
type running struct {
	cancel context.CancelFunc
	done   chan error
}

func run(program func(context.Context) error) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- program(ctx) }()
	return r
}

func (r *running) end() error {
	r.cancel()
	return <-r.done
}

// logBuffer collects the log of both programs.
type logBuffer struct {
	mu  sync.Mutex
	all strings.Builder
}

// Write implements io.Writer.
func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

// String is everything written so far.
func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}

type silent struct{}

func (silent) Debug(string, ...any) {}
func (silent) Info(string, ...any)  {}
func (silent) Warn(string, ...any)  {}
func (silent) Error(string, ...any) {}
