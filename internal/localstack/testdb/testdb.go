//go:build unix

// Package testdb gives each test a database of its own on a real PostgreSQL.
//
// The tests of one package share a server, started when the first of them asks
// for a database. The schema is migrated once, into a template, and each test
// gets a copy of it:
//
//	var databases = testdb.New(migrations.Up)
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(databases.Around(m)) }
//
//	func TestX(t *testing.T) {
//		t.Parallel()
//		dsn := databases.DSN(t)
//		...
//
// With TEST_DATABASE_URL set to the URL of a server and of a role that may create
// databases there, that server is used and none is started.
package testdb

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/localstack"
)

// patience bounds each step; a machine that builds at the same time is slow.
const patience = 2 * time.Minute

// Server makes databases for the tests of one process. It is ready for use by
// parallel tests.
type Server struct {
	migrate   func(ctx context.Context, dsn string) error
	prefix    string
	databases atomic.Int64

	once     sync.Once
	err      error                // why there is no server
	postgres *localstack.Postgres // nil until started, and where the server is given
	admin    *url.URL             // of the server's own database; nil until started
	template string
	strategy string // how a template is copied; "" where the server knows one way only
}

// A server of our own on a disk keeps databases until it ends, at most kept of them and while that
// leaves the disk room: a file system may take minutes until it uses the places of removed files
// again, and looks through all of them for each new file. A database has hundreds of files.
const (
	kept = 400
	room = 8 << 30 // bytes
)

// New answers a server that is not started yet. The migrate function brings an
// empty database to the schema that the tests need, and must close what it opens;
// nil leaves the databases empty.
func New(migrate func(ctx context.Context, dsn string) error) *Server {
	return &Server{
		migrate: migrate,
		prefix:  "test_" + strings.ToLower(rand.Text()[:12]) + "_",
	}
}

// DSN answers the connection URL of a new database. It goes away when the test ends,
// whoever is still connected, or with a server of our own. The first call starts the server.
func (s *Server) DSN(t testing.TB) string {
	t.Helper()
	s.once.Do(func() { s.err = s.start() })
	if s.err != nil {
		t.Fatalf("prepare a test server: %v", s.err)
	}
	n := s.databases.Add(1)
	name := fmt.Sprintf("%s%d", s.prefix, n)
	if err := s.exec("CREATE DATABASE " + name + " TEMPLATE " + s.template + s.strategy); err != nil {
		t.Fatalf("create a test database: %v", err)
	}
	if s.postgres != nil && !s.postgres.InMemory() && n <= kept && free(os.TempDir()) > room {
		return s.dsn(name)
	}
	t.Cleanup(func() {
		if err := s.exec("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			t.Errorf("drop a test database: %v", err)
		}
	})
	return s.dsn(name)
}

// Stop ends the server, or removes from a given one what is left of ours. It does
// nothing if no test asked for a database.
func (s *Server) Stop() error {
	var errs []error
	if s.postgres != nil {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		errs = append(errs, s.postgres.Stop(ctx))
	} else if s.admin != nil && s.migrate != nil {
		errs = append(errs, s.exec("DROP DATABASE IF EXISTS "+s.template+" WITH (FORCE)"))
	}
	return errors.Join(errs...)
}

// Runner is what [testing.M] and goleak's own view of it have in common.
type Runner interface{ Run() int }

// Around answers a runner that runs m and then stops the server, for TestMain.
func (s *Server) Around(m Runner) Runner { return around{m, s} }

type around struct {
	tests  Runner
	server *Server
}

func (a around) Run() int {
	code := a.tests.Run()
	if err := a.server.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop the test server:", err)
		return max(code, 1)
	}
	return code
}

func (s *Server) start() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	given := os.Getenv("TEST_DATABASE_URL")
	if given == "" {
		postgres, err := localstack.StartPostgres(ctx, localstack.PostgresOptions{Out: os.Stderr})
		if err != nil {
			return err
		}
		s.postgres = postgres
		given = postgres.DSN()
	}
	admin, err := url.Parse(given)
	if err != nil || !strings.HasPrefix(admin.Scheme, "postgres") {
		return errors.New("TEST_DATABASE_URL is not a postgres:// URL")
	}
	s.admin = admin
	if s.postgres != nil {
		if s.strategy, err = s.quickest(ctx); err != nil {
			return err
		}
	}
	if s.migrate == nil {
		s.template = "template1"
		return nil
	}
	s.template = s.prefix + "template"
	if err := s.exec("CREATE DATABASE " + s.template); err != nil {
		return fmt.Errorf("create the template: %w", err)
	}
	if err := s.migrate(ctx, s.dsn(s.template)); err != nil {
		return fmt.Errorf("migrate the template: %w", err)
	}
	return nil
}

// quickest is the way to copy a template that is quickest where nothing waits for the disk: servers
// from 15 on can copy its files, instead of writing each page to the log.
func (s *Server) quickest(ctx context.Context) (string, error) {
	conn, err := pgx.Connect(ctx, s.admin.String())
	if err != nil {
		return "", fmt.Errorf("connect: %w", err)
	}
	var version int
	err = conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version)
	if err = errors.Join(err, conn.Close(ctx)); err != nil || version < 150000 {
		return "", err
	}
	return " STRATEGY file_copy", nil
}

// free is how many bytes are left where a server of our own keeps its files, 0 where that cannot be
// told.
func free(path string) uint64 {
	var fs syscall.Statfs_t
	if syscall.Statfs(path, &fs) != nil {
		return 0
	}
	return uint64(fs.Bavail) * uint64(fs.Bsize) //nolint:unconvert // neither is negative; they have other types elsewhere
}

func (s *Server) dsn(database string) string {
	u := *s.admin
	u.Path = "/" + database
	return u.String()
}

// exec runs one statement on a connection of its own: databases come and go
// rarely, and a pool would be one more thing to close.
func (s *Server) exec(statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.admin.String())
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	_, err = conn.Exec(ctx, statement)
	return errors.Join(err, conn.Close(ctx))
}
