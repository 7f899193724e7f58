//go:build faults && linux

package faults_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/localstack"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// copiesOfEach is how many copies of each program run.
const copiesOfEach = 2

// stage is the whole application, with everything around it that can break.
type stage struct {
	*system.System
	t        *testing.T
	ground   *ground
	balancer *balancer
	crowd    *crowd
	replicas map[string][]*replica
	db       *pgxpool.Pool
	truth    *system.Truth
	backup   time.Duration // how old what PostgreSQL is restored from is by then

	broken atomic.Uint64 // the faultSet of now

	mu        sync.Mutex
	forgotten []forgotten
	erased    erasures
}

// replica is one copy of a program. It keeps its addresses when it is started again.
type replica struct {
	program       string
	http, metrics string
	process       *system.Process
	killed        bool
}

func (r *replica) kill() {
	r.killed = true
	r.process.Kill()
}

// newStage starts everything, with a product to sell and nobody there yet.
func newStage(t *testing.T, seed uint64, lasts time.Duration) *stage {
	t.Helper()
	g := lay(t)
	t.Setenv("TEST_DATABASE_URL", g.postgres.DSN())
	t.Setenv("TEST_TEMPORAL_ADDRESS", g.temporal.Address())
	look := max(5*time.Second, lasts/120)
	s := &stage{t: t, ground: g, replicas: map[string][]*replica{}, erased: erasures{}, backup: lasts / 6}
	s.System = system.Start(t, servers, system.Options{
		Stopped: true,
		Sandbox: sandbox.Options{
			Seed: seed, WebhookConcurrency: 16,
			WebhookRetry: []time.Duration{200 * time.Millisecond, time.Second, 3 * time.Second},
		},
		Environ: map[string]string{
			"DATABASE_MAX_CONNS": "10", "PROVIDER_TIMEOUT": providerTimeout.String(),
			"RECOVERY_INTERVAL": look.String(), "RECONCILE_INTERVAL": (3 * look).String(), "RECONCILE_SETTLE": "5s",
			"RECONCILE_REPAIR": repairs(), "LOG_LEVEL": "error",
		},
	})
	// Stripe's clock runs so much faster than the others that a day of it, after which Stripe forgets
	// a key, is a minute and a half of theirs, or less where it jumps. Who looks for what was made
	// instead, as after a day, does so by their clocks.
	s.Sandbox.Stripe.SetKeyLife(365 * 24 * time.Hour)
	var err error
	if s.db, err = pgxpool.New(context.Background(), s.DSN); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.db.Close)
	s.must(s.exec(fmt.Sprintf(`SELECT setval('sync_seq', %d)`, numbersBegin)))
	s.placeInbox()
	s.startPrograms()
	s.sell(seed)
	return s
}

// repairs lists the classes of differences that mend by a look.
func repairs() string {
	var classes []string
	for _, class := range account.DriftClasses() {
		if class.Repair() == account.RepairAlone {
			classes = append(classes, string(class))
		}
	}
	return strings.Join(classes, ",")
}

func (s *stage) exec(sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err := s.db.Exec(ctx, sql)
	return err
}

// placeInbox puts the inbox on a file system of its own. Where none can be mounted, what a full
// disk makes PostgreSQL answer comes from a trigger.
func (s *stage) placeInbox() {
	s.t.Helper()
	if err := s.ground.mountInbox(); err != nil {
		s.t.Log("a full disk is played by a trigger:", err)
		s.must(s.exec(`CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
			BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = 'disk_full'; END $$`))
		return
	}
	s.must(s.exec(`CREATE TABLESPACE inbox LOCATION '` + s.ground.inbox + `'`))
	s.must(s.exec(`ALTER TABLE webhook_events SET TABLESPACE inbox`))
	s.must(s.exec(`DO $$ DECLARE i record; BEGIN
		FOR i IN SELECT indexrelid::regclass AS name FROM pg_index WHERE indrelid = 'webhook_events'::regclass LOOP
			EXECUTE format('ALTER INDEX %s SET TABLESPACE inbox', i.name);
		END LOOP; END $$`))
}

func (s *stage) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) startPrograms() {
	s.t.Helper()
	port := func() string {
		p, err := localstack.FreePort(s.t.Context())
		s.must(err)
		return "127.0.0.1:" + strconv.Itoa(p)
	}
	var apis []string
	for _, program := range []string{system.ProgramAPI, system.ProgramWorker} {
		for range copiesOfEach {
			r := &replica{program: program, http: port(), metrics: port()}
			s.replicas[program] = append(s.replicas[program], r)
			s.spawn(r)
			if program == system.ProgramAPI {
				apis = append(apis, r.http)
			}
		}
	}
	var err error
	s.balancer, err = newBalancer(apis, s.now)
	s.must(err)
	s.t.Cleanup(s.balancer.close)
	s.PointWebhooks(s.balancer.address)
}

// spawn starts a copy of a program.
func (s *stage) spawn(r *replica) {
	s.t.Helper()
	r.killed = false
	r.process = s.SpawnProcess(r.program, map[string]string{
		"HTTP_ADDR": r.http, "METRICS_ADDR": r.metrics, "TEMPORAL_ADDRESS": s.ground.link.address(),
	})
}

// supervise starts again what has ended although nobody killed it, and fails the test for it.
func (s *stage) supervise() {
	s.t.Helper()
	for r := range s.everyReplica() {
		if !r.killed && r.process.Ended() {
			s.t.Errorf("%s ended by itself:\n%s", r.program, last(r.process.Logs(), 4000))
			s.spawn(r)
		}
	}
}

func (s *stage) everyReplica() func(func(*replica) bool) {
	return func(yield func(*replica) bool) {
		for _, program := range []string{system.ProgramAPI, system.ProgramWorker} {
			for _, r := range s.replicas[program] {
				if !yield(r) {
					return
				}
			}
		}
	}
}

func last(text string, most int) string { return text[max(0, len(text)-most):] }

// now is what is broken now.
func (s *stage) now() faultSet { return faultSet(s.broken.Load()) }

func (s *stage) note(f faultID, broken bool) {
	if broken {
		s.broken.Or(1 << f)
	} else {
		s.broken.And(^uint64(1 << f))
	}
}

// sell makes what people buy, and waits until it is in the catalogue.
func (s *stage) sell(seed uint64) {
	s.t.Helper()
	stripe := s.Sandbox.Stripe
	product := stripe.AddProduct("Pro")
	var prices []string
	plans := map[string]string{}
	for _, p := range []struct {
		amount   int64
		interval string
	}{{300, "day"}, {500, "day"}, {2000, "month"}} {
		price := stripe.AddPrice(product, p.amount, p.interval)
		prices = append(prices, price)
		plans[price] = "Pro"
	}
	s.Until("the prices are in the catalogue", func(ctx context.Context) error {
		var n int
		if err := s.Row(ctx, `SELECT count(*) FROM plan_prices`, nil, &n); err != nil || n < len(prices) {
			return fmt.Errorf("%d are (%w)", n, err)
		}
		return nil
	})
	s.truth = s.NewTruth(account.AccessPolicy{PastDueGrace: 72 * time.Hour}, account.DeleteCancelAtPeriodEnd, plans)
	s.crowd = newCrowd(s, seed, prices)
}

// levels is what a run may not leave higher than it found it.
type levels struct {
	goroutines map[string]int // of each copy of a program
	cached     map[string]int // runs of workflows in a worker's cache
	held       int            // connections to PostgreSQL that something in the programs holds
	listening  int            // connections that are in no pool: those that wait for pokes
	inside     int            // connections of theirs that are in a transaction
}

func (l levels) String() string {
	return fmt.Sprintf("goroutines %v, runs in the workers' caches %v, %d connections to PostgreSQL held, %d listening, %d in a transaction", l.goroutines, l.cached, l.held, l.listening, l.inside)
}

func (s *stage) levels(ctx context.Context) (levels, error) {
	l := levels{goroutines: map[string]int{}, cached: map[string]int{}}
	for program, replicas := range s.replicas {
		for i, r := range replicas {
			name := fmt.Sprintf("%s %d", program, i+1)
			n, err := metric(ctx, r.metrics, "go_goroutines", "")
			if err != nil {
				return l, err
			}
			l.goroutines[name] = int(n)
			held, err := metric(ctx, r.metrics, "clerk_stripe_sync_database_connections_in_use", "")
			if err != nil {
				return l, err
			}
			l.held += int(held)
			if program == system.ProgramWorker {
				// The SDK tells the cache's size when a run of the type comes or goes, as these always do.
				runs, err := metric(ctx, r.metrics, "temporal_sticky_cache_size", `workflow_type="EventRecovery"`)
				if err != nil {
					return l, err
				}
				l.cached[name] = int(runs)
			}
		}
	}
	err := s.Row(ctx, `SELECT count(*) FILTER (WHERE query LIKE 'LISTEN %'), count(*) FILTER (WHERE state LIKE '%transaction%') FROM pg_stat_activity
		WHERE datname = current_database() AND application_name = 'clerk-stripe-sync'`, nil, &l.listening, &l.inside)
	return l, err
}

// metric reads one number from a program, of the series whose labels hold a text.
func metric(ctx context.Context, address, name, label string) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", http.NoBody)
	if err != nil {
		return 0, err
	}
	request.Close = true // a connection kept is a goroutine over there
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = answer.Body.Close() }()
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		rest, found := strings.CutPrefix(lines.Text(), name)
		if at := strings.LastIndexByte(rest, ' '); found && at >= 0 && strings.Contains(rest[:at], label) && (at == 0 || rest[0] == '{') {
			return strconv.ParseFloat(rest[at+1:], 64)
		}
	}
	return 0, errors.Join(fmt.Errorf("no metric %s with %s", name, label), lines.Err())
}
