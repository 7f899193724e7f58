//go:build unix

package devstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nepfy/clerk-stripe-sync/internal/localstack"
)

// servers are the children of this process; nil where one is given from outside.
type servers struct {
	postgres *localstack.Postgres
	temporal *localstack.Temporal
}

// startServers starts what is not given, both at once. On an error nothing is left running.
func startServers(ctx context.Context, s *settings, out *screen) (_ *servers, err error) {
	v := &servers{}
	defer func() {
		if err != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), serversPatience)
			defer cancel()
			err = errors.Join(err, v.stop(ctx))
		}
	}()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return v.startPostgres(ctx, s, out) })
	group.Go(func() error { return v.startTemporal(ctx, s, out) })
	return v, group.Wait()
}

func (v *servers) startPostgres(ctx context.Context, s *settings, out *screen) (err error) {
	if !s.ownPostgres {
		out.line("PostgreSQL: the one at DATABASE_URL")
		return nil
	}
	started := time.Now()
	database, _ := s.names()
	v.postgres, err = localstack.StartPostgres(ctx, localstack.PostgresOptions{
		Dir: s.path("postgres"), Database: database, Port: s.postgres.number, LogFile: s.path("logs", "postgres.log"), Out: out,
	})
	if err != nil {
		return err
	}
	// The password is the reason why this file is for its owner only.
	if err := os.WriteFile(s.path("database-url"), []byte(v.postgres.DSN()+"\n"), 0o600); err != nil {
		return fmt.Errorf("note PostgreSQL's address: %w", err)
	}
	out.line("PostgreSQL: %s, started in %s; psql \"$(cat %s)\"", v.postgres.Address(), shortly(time.Since(started)), s.path("database-url"))
	return nil
}

func (v *servers) startTemporal(ctx context.Context, s *settings, out *screen) error {
	if !s.ownTemporal {
		out.line("Temporal: the one at TEMPORAL_ADDRESS")
		return nil
	}
	// Outside of the project there is still the PATH to find a server on.
	root, err := localstack.ProjectRoot(".")
	if err != nil {
		root = "."
	}
	binary, err := localstack.TemporalBinary(ctx, root, out)
	if err != nil {
		return err
	}
	started := time.Now()
	_, namespace := s.names()
	file, err := filepath.Abs(s.path("temporal.db"))
	if err != nil {
		return fmt.Errorf("find Temporal's data: %w", err)
	}
	v.temporal, err = localstack.StartTemporal(ctx, localstack.TemporalOptions{
		Binary: binary, DBFile: file, Namespace: namespace, Port: s.temporal.number, UI: true, UIPort: s.temporalUI.number,
		LogFile: s.path("logs", "temporal.log"),
		// Tasks of a person who is waiting go first.
		Dynamic: map[string]string{"matching.useNewMatcher": "true"},
	})
	if err != nil {
		return err
	}
	out.line("Temporal: %s, started in %s", v.temporal.Address(), shortly(time.Since(started)))
	return nil
}

// watch calls fail when a child ends, with its name, until ctx ends.
func (v *servers) watch(ctx context.Context, s *settings, fail func(error)) {
	wait := func(done <-chan struct{}, name, log string) {
		select {
		case <-done:
			fail(fmt.Errorf("%s ended by itself; its log is %s", name, s.path("logs", log)))
		case <-ctx.Done():
		}
	}
	if v.postgres != nil {
		go wait(v.postgres.Done(), "PostgreSQL", "postgres.log")
	}
	if v.temporal != nil {
		go wait(v.temporal.Done(), "Temporal", "temporal.log")
	}
}

// stop ends both at once, firmly when ctx ends first.
func (v *servers) stop(ctx context.Context) error {
	var failures [2]error
	var group errgroup.Group
	if v.postgres != nil {
		group.Go(func() error { failures[0] = v.postgres.Stop(ctx); return nil })
	}
	if v.temporal != nil {
		group.Go(func() error { failures[1] = v.temporal.Stop(ctx); return nil })
	}
	_ = group.Wait() // each failure stands in its own place
	return errors.Join(failures[:]...)
}
