package main

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/nepfy/clerk-stripe-sync/internal/localstack/testdb"
	"github.com/nepfy/clerk-stripe-sync/internal/localstack/testtemporal"
	"github.com/nepfy/clerk-stripe-sync/migrations"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

var (
	databases = testdb.New(nil) // empty ones: filling them is what is tested
	temporal  = testtemporal.New(nil)
	servers   = system.NewServers()
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(databases.Around(temporal.Around(servers.Around(m))), system.Leftover())
}

// call runs the command line.
func call(t *testing.T, environ map[string]string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), args, environ, &out)
	return out.String(), err
}

// succeed runs the command line, which has to print each of these.
func succeed(t *testing.T, environ map[string]string, want []string, args ...string) string {
	t.Helper()
	out, err := call(t, environ, args...)
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	for _, w := range want {
		if !strings.Contains(out, w) {
			t.Errorf("%v printed\n%swithout %q", args, out, w)
		}
	}
	return out
}

// Setup makes an empty environment ready; again it changes nothing and says so.
func TestSetup(t *testing.T) {
	t.Parallel()
	environ := map[string]string{"DATABASE_URL": databases.DSN(t), "TEMPORAL_ADDRESS": temporal.Address(t), "TEMPORAL_NAMESPACE": temporal.Namespace()}
	succeed(t, environ, []string{"applied 00001", "applied 00011", "schema is current", "search attributes are registered in namespace " + temporal.Namespace()}, "setup")
	if again := succeed(t, environ, []string{"schema is current", "search attributes are registered"}, "setup"); strings.Contains(again, "applied") {
		t.Errorf("done again it printed\n%s", again)
	}
}

// Setup says which variable leads to a Temporal that is not there; the schema is in place by then.
func TestSetupWithoutTemporal(t *testing.T) {
	t.Parallel()
	environ := map[string]string{"DATABASE_URL": databases.DSN(t), "TEMPORAL_ADDRESS": "127.0.0.1:1"}
	out, err := call(t, environ, "setup")
	if err == nil || !strings.Contains(err.Error(), "TEMPORAL_ADDRESS") || !strings.Contains(out, "schema is current") {
		t.Errorf("printed %q and failed with: %v", out, err)
	}
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	latest := latestMigration(t)
	environ := map[string]string{"DATABASE_URL": databases.DSN(t)}
	succeed(t, environ, []string{"pending  00001", "pending  " + latest}, "migrate", "status")
	succeed(t, environ, []string{"no migration is applied"}, "migrate", "down")
	succeed(t, environ, []string{"applied 00001", "applied " + latest, "schema is current"}, "migrate", "up")
	if out := succeed(t, environ, []string{"applied  00001", "applied  " + latest}, "migrate", "status"); strings.Contains(out, "pending  0") {
		t.Errorf("pending after all was applied:\n%s", out)
	}
	succeed(t, environ, []string{"took back " + latest}, "migrate", "down")
	succeed(t, environ, []string{"applied  00001", "applied  00004", "pending  " + latest}, "migrate", "status")
	if out := succeed(t, environ, []string{"applied " + latest}, "migrate", "up"); strings.Contains(out, "applied 00001") {
		t.Errorf("applied twice:\n%s", out)
	}
}

// A database that is not there, or is not named, is an error that says what to look at and shows
// no password.
func TestWithoutDatabase(t *testing.T) {
	t.Parallel()
	for _, command := range [][]string{{"setup"}, {"migrate", "up"}, {"migrate", "down"}, {"migrate", "status"}} {
		if _, err := call(t, nil, command...); err == nil || !strings.Contains(err.Error(), "DATABASE_URL") {
			t.Errorf("%v without an address: %v", command, err)
		}
		_, err := call(t, map[string]string{"DATABASE_URL": "postgres://ada:hunter2@127.0.0.1:1/app"}, command...)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v without a database: %v", command, err)
		}
	}
}

// What is no command is refused, and does nothing.
func TestUsage(t *testing.T) {
	t.Parallel()
	dsn := databases.DSN(t)
	for _, args := range [][]string{nil, {"migrate"}, {"migrate", "sideways"}, {"migrate", "up", "now"}, {"setup", "--force"}, {"health"}, {"health", "a", "b"}, {"help"}, {"UP"}, {"cancel"}, {"cancel", "sub_1", "--soon"}} {
		if out, err := call(t, map[string]string{"DATABASE_URL": dsn}, args...); !errors.Is(err, errUsage) || out != "" {
			t.Errorf("%v printed %q and answered: %v", args, out, err)
		}
	}
	for _, help := range []string{"-h", "--help"} {
		succeed(t, nil, []string{"setup", "migrate status", "migrate up", "migrate down", "health", "cancel", "SYNC_API_TOKEN"}, help)
	}
	succeed(t, nil, []string{"--now", "--user"}, "cancel", "--help")
	if out := succeed(t, map[string]string{"DATABASE_URL": dsn}, nil, "migrate", "status"); strings.Contains(out, "applied") {
		t.Errorf("a refused command did something:\n%s", out)
	}
}

// A health check succeeds on 200 alone, and prints what it was answered.
func TestHealth(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write([]byte("body of " + r.URL.Path))
	}))
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	succeed(t, nil, []string{"body of /healthz"}, "health", server.URL+"/healthz")
	if out, err := call(t, nil, "health", server.URL+"/readyz"); err == nil || !strings.Contains(err.Error(), "503") || out != "body of /readyz" {
		t.Errorf("of what is not ready it printed %q and answered: %v", out, err)
	}
	for _, url := range []string{"http://127.0.0.1:1/healthz", "://", "localhost"} {
		if _, err := call(t, nil, "health", url); err == nil {
			t.Errorf("%s is well", url)
		}
	}
}

// latestMigration is the number of the last migration, as its file's name has it.
func latestMigration(t *testing.T) string {
	t.Helper()
	files, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("no migrations: %v", err)
	}
	number, _, _ := strings.Cut(files[len(files)-1], "_")
	return number
}
