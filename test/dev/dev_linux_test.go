package dev_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox"
)

// program is the built bin/dev.
var program string

// built runs the tests when there is a program for them.
type built struct{ m *testing.M }

func (b built) Run() int {
	dir, err := os.MkdirTemp("", "clerk-stripe-sync-dev-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	program = filepath.Join(dir, "dev")
	if said, err := exec.Command("go", "build", "-o", program, "../../cmd/dev").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build cmd/dev: %v\n%s", err, said)
		return 1
	}
	return b.m.Run()
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(built{m}) }

// stopsWithin is what a person is promised.
const stopsWithin = 10 * time.Second

var (
	ready = regexp.MustCompile(`^ready: API (http://\S+), Temporal Web UI (http://\S+), sandbox (http://\S+)$`)
	agree = regexp.MustCompile(`(?m)^   agree, .* after; ([0-9]+) webhooks$`)
	steps = regexp.MustCompile(`(?m)^([1-9])\. (.*)$`)
)

func addresses(t *testing.T, p *process) (api, ui, control string) {
	t.Helper()
	found := ready.FindStringSubmatch(p.line("ready"))
	if found == nil {
		t.Fatalf("the line is not as promised: %q", p.line("ready"))
	}
	return found[1], found[2], found[3]
}

func get(t *testing.T, url string, into any) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("%s answers %d", url, answer.StatusCode)
	}
	if into == nil {
		return
	}
	if err := json.NewDecoder(answer.Body).Decode(into); err != nil {
		t.Fatal(err)
	}
}

func TestTheStoryIsPlayedAndTheDataAreKept(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	people := map[int]string{1: "Ada", 2: "Grace"}
	for round := 1; round <= 2; round++ {
		p := start(t, dir)
		api, ui, control := addresses(t, p)
		said := p.said()
		titles := steps.FindAllStringSubmatch(said, -1)
		agreements := agree.FindAllStringSubmatch(said, -1)
		if agreed := len(agreements); agreed != 7 || len(titles) != 7 || strings.Contains(said, "do not agree") {
			t.Fatalf("start %d: %d of %d steps ended in agreement", round, agreed, len(titles))
		}
		for i, a := range agreements {
			// On a machine that is very slow the renewal may come early, and then the story says so.
			if a[1] == "0" && !(i == 3 && strings.Contains(said, "it came already")) {
				t.Errorf("start %d: step %d sent no webhook", round, i+1)
			}
		}
		for i, title := range titles {
			if title[1] != fmt.Sprint(i+1) {
				t.Errorf("start %d: step %d is called %q", round, i+1, title[0])
			}
		}
		if !strings.HasPrefix(titles[0][2], people[round]+" ") {
			t.Errorf("start %d: the story is about %q", round, titles[0][2])
		}
		if strings.Contains(said, "\x1b") {
			t.Error("there are colours where no terminal is")
		}
		get(t, api+"/readyz", nil)
		get(t, ui, nil)
		var customers []any
		get(t, control+"customers", &customers)
		if len(customers) != round {
			t.Errorf("start %d: Stripe has %d customers", round, len(customers))
		}
		if erased := count(t, dir, `SELECT count(*) FROM person_user WHERE deleted_at IS NOT NULL`); erased != round {
			t.Errorf("start %d: PostgreSQL has erased %d users", round, erased)
		}
		if due := count(t, dir, `SELECT count(*) FROM webhook_events WHERE status NOT IN ('completed', 'ignored')`); due != 0 {
			t.Errorf("start %d: %d events are due", round, due)
		}
		if open := count(t, dir, `SELECT count(*) FROM drift WHERE resolved_at IS NULL`); open != 0 {
			t.Errorf("start %d: %d differences are open", round, open)
		}
		descendants := p.descendants()
		p.signal(syscall.SIGTERM)
		if code := p.end(stopsWithin); code != 0 {
			t.Errorf("start %d: exit code %d", round, code)
		}
		p.leavesNothing(descendants)
	}
	for _, name := range []string{"starter-api.log", "worker.log", "sandbox.log", "postgres.log", "temporal.log"} {
		if _, err := os.Stat(filepath.Join(dir, "logs", name)); err != nil {
			t.Error(err)
		}
	}
}

// count asks the private PostgreSQL by the address that it left for its owner.
func count(t *testing.T, dir, sql string) (n int) {
	t.Helper()
	address, err := os.ReadFile(filepath.Join(dir, "database-url"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), strings.TrimSpace(string(address)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if err := conn.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWithoutTheStory(t *testing.T) {
	t.Parallel()
	p := start(t, dataDir(t), "DEV_STORY=off")
	_, _, control := addresses(t, p)
	if said := p.said(); len(steps.FindString(said)) > 0 || !strings.Contains(said, "DEV_STORY is off") {
		t.Error("the story was played")
	}
	var users []any
	if get(t, control+"users", &users); len(users) != 0 {
		t.Errorf("%d users signed up", len(users))
	}
	descendants := p.descendants()
	p.signal(syscall.SIGINT)
	if code := p.end(stopsWithin); code != 0 {
		t.Errorf("exit code %d", code)
	}
	p.leavesNothing(descendants)
}

func TestASecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	p := start(t, dataDir(t), "DEV_STORY=off")
	p.line("ready")
	descendants := p.descendants()
	postgres := p.child("postgres")
	// A server that does not answer keeps the orderly end from coming.
	if err := syscall.Kill(postgres, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(postgres, syscall.SIGCONT) }() // whatever happens
	p.signal(syscall.SIGINT)
	p.line("stopping")
	p.signal(syscall.SIGINT)
	if code := p.end(stopsWithin); code != -1 {
		t.Errorf("exit code %d, though a signal was to end it", code)
	}
	if err := syscall.Kill(postgres, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for _, pid := range descendants {
		deadline := time.Now().Add(patience)
		for alive(pid) {
			if time.Now().After(deadline) {
				t.Fatalf("process %d outlived its parent", pid)
			}
			<-time.After(20 * time.Millisecond) // as in leavesNothing
		}
	}
}

func TestAServerThatDiesIsNamed(t *testing.T) {
	t.Parallel()
	for child, name := range map[string]string{"postgres": "PostgreSQL", "temporal": "Temporal"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, dataDir(t), "DEV_STORY=off")
			p.line("ready")
			descendants := p.descendants()
			if err := syscall.Kill(p.child(child), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if code := p.end(stopsWithin); code != 1 {
				t.Errorf("exit code %d", code)
			}
			if want := "dev: " + name + " ended by itself"; !strings.Contains(p.said(), want) {
				t.Errorf("it does not say %q", want)
			}
			for _, pid := range descendants {
				for deadline := time.Now().Add(patience); alive(pid); {
					if time.Now().After(deadline) {
						t.Fatalf("process %d is left", pid)
					}
					<-time.After(20 * time.Millisecond) // as in leavesNothing
				}
			}
		})
	}
}

func TestTakenPortsAreNamedBeforeAnythingStarts(t *testing.T) {
	t.Parallel()
	var taken []string
	for range 2 {
		listener, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = listener.Close() }()
		_, number, _ := net.SplitHostPort(listener.Addr().String())
		taken = append(taken, number)
	}
	dir := dataDir(t)
	p := start(t, dir, "HTTP_ADDR=127.0.0.1:"+taken[0], "DEV_TEMPORAL_UI_PORT="+taken[1], "DEV_CLERK_PORT="+taken[1])
	if code := p.end(patience); code != 1 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{"port " + taken[0], "HTTP_ADDR", "port " + taken[1], "DEV_TEMPORAL_UI_PORT or DEV_CLERK_PORT"} {
		if !strings.Contains(p.said(), want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if !empty(t, dir) {
		t.Error("something was started all the same")
	}
}

func TestWhatIsWrongWithTheEnvironmentIsSaidAtOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ variables, want []string }{
		"Clerk's key only":  {[]string{"CLERK_SECRET_KEY=sk_test_x"}, []string{"STRIPE_SECRET_KEY is not"}},
		"Stripe's key only": {[]string{"STRIPE_SECRET_KEY=sk_test_x"}, []string{"CLERK_SECRET_KEY is not"}},
		"no webhook secrets": {[]string{"CLERK_SECRET_KEY=sk_test_x", "STRIPE_SECRET_KEY=sk_test_x"},
			[]string{"CLERK_WEBHOOK_SECRET", "STRIPE_WEBHOOK_SECRET", "stripe listen --forward-to http://127.0.0.1:", "tunnel"}},
		"a word for a port": {[]string{"DEV_STRIPE_PORT=high", "DEV_STORY=maybe", "HTTP_ADDR=here", "METRICS_ADDR=:1"},
			[]string{"DEV_STRIPE_PORT", "DEV_STORY", "HTTP_ADDR", "METRICS_ADDR"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := dataDir(t)
			p := start(t, dir, c.variables...)
			if code := p.end(patience); code != 1 {
				t.Errorf("exit code %d", code)
			}
			for _, want := range c.want {
				if !strings.Contains(p.said(), want) {
					t.Errorf("it does not say %q", want)
				}
			}
			if strings.Contains(p.said(), "sk_test") || !empty(t, dir) {
				t.Error("a key was shown, or something was started")
			}
		})
	}
}

// With keys there is no sandbox; here another process's sandbox stands in for the providers.
func TestRealKeys(t *testing.T) {
	t.Parallel()
	providers, err := sandbox.Start(t.Context(), sandbox.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = providers.Stop(context.Background()) }()
	p := start(t, dataDir(t),
		"CLERK_SECRET_KEY="+providers.ClerkSecretKey, "CLERK_WEBHOOK_SECRET="+providers.ClerkWebhookSecret, "CLERK_API_URL="+providers.ClerkURL(),
		"STRIPE_SECRET_KEY="+providers.StripeSecretKey, "STRIPE_WEBHOOK_SECRET="+providers.StripeWebhookSecret, "STRIPE_API_URL="+providers.StripeURL())
	line := p.line("ready")
	if !strings.HasSuffix(line, "sandbox not used") {
		t.Errorf("it says %q", line)
	}
	said := p.said()
	api := strings.TrimSuffix(strings.Fields(line)[2], ",")
	for _, want := range []string{"stripe listen --forward-to " + api + "/api/webhooks/stripe", "a tunnel to " + api} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if steps.MatchString(said) || len(providers.Clerk.Users()) > 0 || strings.Contains(said, "LIVE KEYS") {
		t.Error("something was played with real keys, or they were taken for live ones")
	}
	get(t, api+"/readyz", nil)
	descendants := p.descendants()
	p.signal(syscall.SIGTERM)
	if code := p.end(stopsWithin); code != 0 {
		t.Errorf("exit code %d", code)
	}
	p.leavesNothing(descendants)
}
