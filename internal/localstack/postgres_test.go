//go:build unix

package localstack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func startPostgres(t *testing.T, opts PostgresOptions) *Postgres {
	t.Helper()
	p, err := StartPostgres(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return p
}

// keptDir is a directory for data that outlive a server. When root runs the tests
// it is closed to PostgreSQL's user, as a project below /root would be.
func keptDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "postgres")
	t.Cleanup(func() {
		if target, err := os.Readlink(dir); err == nil {
			_ = os.RemoveAll(filepath.Dir(target))
		}
	})
	return dir
}

func execute(t *testing.T, dsn, statement string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}

func stop(t *testing.T, server interface{ Stop(context.Context) error }) {
	t.Helper()
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestThrowawayPostgresServesAndLeavesNothing(t *testing.T) {
	t.Parallel()
	p := startPostgres(t, PostgresOptions{Database: "app", Settings: map[string]string{"work_mem": "7MB"}})
	dir := p.remove

	conn, err := pgx.Connect(t.Context(), p.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var database, memory, fsync string
	err = conn.QueryRow(t.Context(), "SELECT current_database(), current_setting('work_mem'), current_setting('fsync')").
		Scan(&database, &memory, &fsync)
	if err != nil {
		t.Fatal(err)
	}
	if database != "app" || memory != "7MB" || fsync != "off" {
		t.Errorf("database %q, work_mem %q, fsync %q", database, memory, fsync)
	}

	stop(t, p)
	<-p.Done()
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", dir, err)
	}
	stop(t, p) // a second time does nothing
}

// What a killed program left in memory is removed by the next one; what is in use stays, and what
// is so new that its program may be about to lock it.
func TestWhatAKilledProgramLeftIsSweptAway(t *testing.T) {
	t.Parallel()
	in := t.TempDir()
	long := time.Now().Add(-time.Hour)
	for _, name := range []string{"ours-left", "ours-held", "ours-new", "theirs"} {
		if err := os.MkdirAll(throwawayData(filepath.Join(in, name)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	held, err := tryLock(throwawayData(filepath.Join(in, "ours-held")) + ".lock")
	if err != nil {
		t.Fatal(err)
	}
	defer held.release()
	for _, name := range []string{"ours-left", "ours-held", "theirs"} {
		if err := os.Chtimes(filepath.Join(in, name), long, long); err != nil {
			t.Fatal(err)
		}
	}
	sweepThrowaway(t.Context(), in, "ours-")
	entries, err := os.ReadDir(in)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, entry := range entries {
		left = append(left, entry.Name())
	}
	if want := []string{"ours-held", "ours-new", "theirs"}; !slices.Equal(left, want) {
		t.Errorf("left are %v, want %v", left, want)
	}
}

// The secret of a throwaway server is made for the tests' own connections: it is hashed once.
func TestAThrowawayPasswordIsHashedOnce(t *testing.T) {
	t.Parallel()
	p := startPostgres(t, PostgresOptions{})
	conn, err := pgx.Connect(t.Context(), p.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var secret string
	if err := conn.QueryRow(t.Context(), "SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'").Scan(&secret); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(secret, "SCRAM-SHA-256$1:") {
		t.Errorf("PostgreSQL keeps %q", secret)
	}
}

func TestPostgresWantsItsPassword(t *testing.T) {
	t.Parallel()
	p := startPostgres(t, PostgresOptions{})
	for _, password := range []string{"", "postgres"} {
		dsn := fmt.Sprintf("postgres://postgres:%s@%s/postgres?sslmode=disable", password, p.Address())
		conn, err := pgx.Connect(t.Context(), dsn)
		if err == nil {
			_ = conn.Close(context.Background())
			t.Errorf("let in with password %q", password)
		}
	}
}

func TestPostgresKeepsItsData(t *testing.T) {
	t.Parallel()
	dir := keptDir(t)
	first := startPostgres(t, PostgresOptions{Dir: dir, Database: "app"})
	execute(t, first.DSN(), "CREATE TABLE kept ()")

	_, err := StartPostgres(t.Context(), PostgresOptions{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "in use by another running copy") {
		t.Fatalf("a second server on the same data: %v", err)
	}
	execute(t, first.DSN(), "SELECT FROM kept") // and the first was left alone

	stop(t, first)
	if left, err := filepath.Glob(dir + ".*"); err != nil || len(left) != 1 || left[0] != dir+".log" {
		t.Errorf("beside the data lie %v, %v", left, err)
	}
	second := startPostgres(t, PostgresOptions{Dir: dir, Database: "app"})
	execute(t, second.DSN(), "SELECT FROM kept")
}

func TestPostgresRecoversFromAKill(t *testing.T) {
	t.Parallel()
	dir := keptDir(t)
	first := startPostgres(t, PostgresOptions{Dir: dir})
	execute(t, first.DSN(), "CREATE TABLE kept ()")
	if err := syscall.Kill(first.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-first.Done()
	stop(t, first)

	second := startPostgres(t, PostgresOptions{Dir: dir})
	execute(t, second.DSN(), "SELECT FROM kept")
}

func TestPostgresIgnoresAPIDFileOfAnotherProgram(t *testing.T) {
	t.Parallel()
	dir := keptDir(t)
	stop(t, startPostgres(t, PostgresOptions{Dir: dir}))
	pidFile := filepath.Join(dir, "postmaster.pid")
	if err := os.WriteFile(pidFile, fmt.Appendln(nil, os.Getpid()), 0o644); err != nil {
		t.Fatal(err)
	}
	startPostgres(t, PostgresOptions{Dir: dir})
}

func TestPostgresEndsALeftoverServer(t *testing.T) {
	t.Parallel()
	dir := keptDir(t)
	orphan := startPostgres(t, PostgresOptions{Dir: dir})
	execute(t, orphan.DSN(), "CREATE TABLE kept ()")
	orphan.lock.release() // as if its owner had died
	orphan.lock = nil

	heir := startPostgres(t, PostgresOptions{Dir: dir})
	select {
	case <-orphan.Done():
	default:
		t.Error("the leftover server still runs")
	}
	execute(t, heir.DSN(), "SELECT FROM kept")
}

func TestPostgresNamesATakenPort(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	port := listener.Addr().(*net.TCPAddr).Port

	_, err = StartPostgres(t.Context(), PostgresOptions{Port: port})
	var taken *PortTakenError
	if !errors.As(err, &taken) || taken.Port != port {
		t.Fatalf("got %v", err)
	}
	if want := fmt.Sprintf("(process %d)", os.Getpid()); !strings.Contains(err.Error(), want) {
		t.Errorf("%q does not say %q", err, want)
	}
}

func TestPostgresSaysWhyItDoesNotStart(t *testing.T) {
	t.Parallel()
	_, err := StartPostgres(t.Context(), PostgresOptions{Settings: map[string]string{"no_such_setting": "1"}})
	if err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("got %v", err)
	}
}

func TestStopIsFirmWhenTimeIsUp(t *testing.T) {
	t.Parallel()
	dir := keptDir(t)
	p, err := StartPostgres(t.Context(), PostgresOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	execute(t, p.DSN(), "CREATE TABLE kept ()")
	expired, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	err = p.Stop(expired)
	select {
	case <-p.Done():
	default:
		t.Fatalf("it still runs after %v", err)
	}
	again := startPostgres(t, PostgresOptions{Dir: dir})
	execute(t, again.DSN(), "SELECT FROM kept")
}

func TestPlaceAvoidsDirectoriesClosedToTheServer(t *testing.T) {
	t.Parallel()
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	stranger := &syscall.Credential{Uid: 54321, Gid: 54321}
	dir := filepath.Join(closed, "postgres")
	got, err := place(dir, stranger)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(got)) })
	if !reachable(filepath.Dir(got), stranger) {
		t.Errorf("%s is closed to the server too", got)
	}
	if target, err := os.Readlink(dir); err != nil || target != got {
		t.Errorf("%s leads to %q, %v", dir, target, err)
	}
	// The place is cleared, as /var/tmp may be: the same one is made again.
	if err := os.RemoveAll(filepath.Dir(got)); err != nil {
		t.Fatal(err)
	}
	again, err := place(dir, stranger)
	if err != nil || again != got {
		t.Errorf("then %q, %v", again, err)
	}
	// Without another user there is nothing to avoid.
	own := filepath.Join(closed, "own")
	if got, err := place(own, nil); err != nil || got != own {
		t.Errorf("for ourselves %q, %v", got, err)
	}
}

func TestSharedPlaceOfAnotherHandIsRefused(t *testing.T) {
	t.Parallel()
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{open, link} {
		if err := makeShared(path); err == nil {
			t.Errorf("%s was accepted", filepath.Base(path))
		}
	}
}
