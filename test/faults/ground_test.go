//go:build faults && linux

package faults_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/localstack"
)

// ground is the two servers that everything stands on. Their data live in files, and their ports
// stay, so that they come back as what they were. They do not wait for the disk: processes are
// killed here, and not the machine.
type ground struct {
	t        *testing.T
	dir      string
	postgres *localstack.Postgres
	temporal *localstack.Temporal
	link     *link // between the programs and Temporal
	binary   string
	pgPort   int
	tempPort int
	inbox    string // where the file system of the inbox is mounted; "" where it cannot be
}

// lay starts both servers. They end with the test.
func lay(t *testing.T) *ground {
	t.Helper()
	g := &ground{t: t}
	var err error
	if g.dir, err = os.MkdirTemp("", "clerk-stripe-sync-faults-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(g.dir) })
	if err := os.Chmod(g.dir, 0o711); err != nil { // PostgreSQL runs as another user, where this one is root
		t.Fatal(err)
	}
	if g.pgPort, err = localstack.FreePort(t.Context()); err != nil {
		t.Fatal(err)
	}
	if g.tempPort, err = localstack.FreePort(t.Context()); err != nil {
		t.Fatal(err)
	}
	root, err := localstack.ProjectRoot(".")
	if err != nil {
		t.Fatal(err)
	}
	if g.binary, err = localstack.TemporalBinary(t.Context(), root, os.Stderr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.clear)
	if err := errors.Join(g.startPostgres(), g.startTemporal()); err != nil {
		t.Fatal(err)
	}
	if g.link, err = newLink(g.temporal.Address()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.link.close)
	return g
}

func (g *ground) clear() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if g.temporal != nil {
		_ = g.temporal.Stop(ctx)
	}
	if g.postgres != nil {
		_ = g.postgres.Stop(ctx)
	}
	if g.inbox != "" {
		_ = syscall.Unmount(g.inbox, 0)
	}
}

// away is how long a server is tried to be brought back: what held it may need a moment to go.
const away = time.Minute

func insist(start func() error) error {
	deadline := time.Now().Add(away)
	for {
		err := start()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(200 * time.Millisecond) // a program's port, or its children, are on their way out
	}
}

func (g *ground) startPostgres() error {
	return insist(func() (err error) {
		ctx, cancel := context.WithTimeout(context.Background(), away)
		defer cancel()
		g.postgres, err = localstack.StartPostgres(ctx, localstack.PostgresOptions{
			Dir: filepath.Join(g.dir, "postgres"), Port: g.pgPort, Out: os.Stderr,
			Settings: map[string]string{"max_connections": "150", "fsync": "off"},
		})
		return err
	})
}

func (g *ground) startTemporal() error {
	return insist(func() (err error) {
		ctx, cancel := context.WithTimeout(context.Background(), away)
		defer cancel()
		g.temporal, err = localstack.StartTemporal(ctx, localstack.TemporalOptions{
			Binary: g.binary, DBFile: filepath.Join(g.dir, "temporal.db"), Port: g.tempPort, LogFile: filepath.Join(g.dir, "temporal.log"),
			Unsynced: true,
		})
		return err
	})
}

// killPostgres ends the server with SIGKILL; its children notice.
func (g *ground) killPostgres() error {
	if err := syscall.Kill(g.postgres.PID(), syscall.SIGKILL); err != nil {
		return fmt.Errorf("killing PostgreSQL: %w", err)
	}
	<-g.postgres.Done()
	return g.postgres.Stop(context.Background())
}

func (g *ground) stopPostgres() error { return g.postgres.Stop(context.Background()) }

func (g *ground) killTemporal() error {
	if err := syscall.Kill(g.temporal.PID(), syscall.SIGKILL); err != nil {
		return fmt.Errorf("killing Temporal: %w", err)
	}
	<-g.temporal.Done()
	return g.temporal.Stop(context.Background())
}
