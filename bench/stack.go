//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nepfy/clerk-stripe-sync/internal/app"
	"github.com/nepfy/clerk-stripe-sync/internal/localstack"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox"
)

// stack is what the programs stand on: a PostgreSQL that waits for the disk, Temporal's development
// server in memory, and the sandboxed providers.
type stack struct {
	dir      string
	postgres *localstack.Postgres
	temporal *localstack.Temporal
	sandbox  *sandbox.Sandbox
	// databases are those of the part that is being measured.
	databases []string
	// setup prepares an environment.
	setup func(context.Context, map[string]string) error
}

func startStack(ctx context.Context, root string, out io.Writer) (_ *stack, err error) {
	s := &stack{setup: func(ctx context.Context, environ map[string]string) error { return app.Setup(ctx, environ, io.Discard) }}
	if s.dir, err = os.MkdirTemp("", "clerk-stripe-sync-bench-"); err != nil {
		return nil, fmt.Errorf("making room: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop(context.WithoutCancel(ctx)))
		}
	}()
	if s.postgres, err = localstack.StartPostgres(ctx, localstack.PostgresOptions{Dir: filepath.Join(s.dir, "postgres"), Out: out}); err != nil {
		return nil, err
	}
	binary, err := localstack.TemporalBinary(ctx, root, out)
	if err != nil {
		return nil, err
	}
	if s.temporal, err = localstack.StartTemporal(ctx, localstack.TemporalOptions{Binary: binary, Dynamic: map[string]string{"matching.useNewMatcher": "true"}}); err != nil {
		return nil, err
	}
	s.sandbox, err = sandbox.Start(ctx, sandbox.Options{WebhookConcurrency: 16})
	return s, err
}

func (s *stack) stop(ctx context.Context) error {
	var all []error
	if s.sandbox != nil {
		all = append(all, s.sandbox.Stop(ctx))
	}
	if s.temporal != nil {
		all = append(all, s.temporal.Stop(ctx))
	}
	if s.postgres != nil {
		all = append(all, s.postgres.Stop(ctx))
	}
	return errors.Join(append(all, os.RemoveAll(s.dir))...)
}

// database makes an empty one.
func (s *stack) database(ctx context.Context, name string) (dsn string, err error) {
	db, err := pgx.Connect(ctx, s.postgres.DSN())
	if err != nil {
		return "", fmt.Errorf("connecting: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close(ctx)) }()
	if _, err := db.Exec(ctx, `CREATE DATABASE `+pgx.Identifier{name}.Sanitize()); err != nil {
		return "", fmt.Errorf("making a database: %w", err)
	}
	s.databases = append(s.databases, name)
	return strings.Replace(s.postgres.DSN(), "/postgres?", "/"+name+"?", 1), nil
}

// tidy removes the databases that a part has used, and has written what PostgreSQL has to write:
// the next part would share the machine with the vacuuming of a hundred thousand rows that nobody
// needs any more.
func (s *stack) tidy(ctx context.Context) (err error) {
	db, err := pgx.Connect(ctx, s.postgres.DSN())
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close(ctx)) }()
	for _, name := range s.databases {
		if _, err := db.Exec(ctx, `DROP DATABASE `+pgx.Identifier{name}.Sanitize()+` WITH (FORCE)`); err != nil {
			return fmt.Errorf("removing a database: %w", err)
		}
	}
	s.databases = nil
	return s.checkpoint(ctx)
}

// checkpoint has PostgreSQL write what it has to write.
func (s *stack) checkpoint(ctx context.Context) (err error) {
	db, err := pgx.Connect(ctx, s.postgres.DSN())
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close(ctx)) }()
	if _, err := db.Exec(ctx, `CHECKPOINT`); err != nil {
		return fmt.Errorf("writing a checkpoint: %w", err)
	}
	return nil
}

// namespace makes one. The names of task queues are constants, so that the programs of two
// measurements in one namespace would do each other's work.
func (s *stack) namespace(ctx context.Context, name string) error {
	admin, err := client.NewNamespaceClient(client.Options{HostPort: s.temporal.Address(), Logger: silent{}})
	if err != nil {
		return fmt.Errorf("connecting to Temporal: %w", err)
	}
	defer admin.Close()
	err = admin.Register(ctx, &workflowservice.RegisterNamespaceRequest{Namespace: name, WorkflowExecutionRetentionPeriod: durationpb.New(24 * time.Hour)})
	if err != nil {
		return fmt.Errorf("registering a namespace: %w", err)
	}
	c, err := client.DialContext(ctx, client.Options{HostPort: s.temporal.Address(), Namespace: name, Logger: silent{}})
	if err != nil {
		return fmt.Errorf("connecting to Temporal: %w", err)
	}
	defer c.Close()
	for {
		// The server's parts learn of it one after the other.
		_, err := c.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{})
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for a namespace: %w", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// environment is that of both programs, on a database and in a namespace of its own.
func (s *stack) environment(ctx context.Context, name string, overrides map[string]string) (map[string]string, error) {
	dsn, err := s.database(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := s.namespace(ctx, name); err != nil {
		return nil, err
	}
	environ := map[string]string{
		"DATABASE_URL": dsn, "TEMPORAL_ADDRESS": s.temporal.Address(), "TEMPORAL_NAMESPACE": name,
		"CLERK_SECRET_KEY": s.sandbox.ClerkSecretKey, "CLERK_WEBHOOK_SECRET": s.sandbox.ClerkWebhookSecret, "CLERK_API_URL": s.sandbox.ClerkURL(),
		"STRIPE_SECRET_KEY": s.sandbox.StripeSecretKey, "STRIPE_WEBHOOK_SECRET": s.sandbox.StripeWebhookSecret, "STRIPE_API_URL": s.sandbox.StripeURL(),
		"METRICS_ADDR": "off", "RECOVERY_INTERVAL": "off", "RECONCILE_INTERVAL": "off", "SHUTDOWN_DELAY": "0s",
	}
	maps.Copy(environ, overrides)
	if err := s.setup(ctx, environ); err != nil {
		return nil, fmt.Errorf("setting up: %w", err)
	}
	return environ, nil
}

// process is a program that runs.
type process struct {
	cmd  *exec.Cmd
	addr string
}

// start starts a program that serves HTTP, and waits until it answers at all. ADDR stands for its
// address in what it is given.
func (s *stack) start(ctx context.Context, binary string, environ map[string]string, args ...string) (*process, error) {
	port, err := localstack.FreePort(ctx)
	if err != nil {
		return nil, err
	}
	p := &process{addr: fmt.Sprintf("127.0.0.1:%d", port)}
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "ADDR", p.addr)
	}
	p.cmd = exec.Command(binary, args...)
	for name, value := range environ {
		p.cmd.Env = append(p.cmd.Env, name+"="+strings.ReplaceAll(value, "ADDR", p.addr))
	}
	p.cmd.Env = append(p.cmd.Env, "HTTP_ADDR="+p.addr)
	log, err := os.Create(filepath.Join(s.dir, filepath.Base(binary)+fmt.Sprint("-", port, ".log")))
	if err != nil {
		return nil, fmt.Errorf("opening a log: %w", err)
	}
	defer func() { _ = log.Close() }() // the program has its own
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", binary, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+"/healthz", nil)
		if err != nil {
			return nil, fmt.Errorf("asking %s: %w", binary, err)
		}
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			return p, response.Body.Close()
		}
		select {
		case <-ctx.Done():
			said, _ := os.ReadFile(log.Name()) // to show
			return nil, fmt.Errorf("%s does not answer: %w\n%s", binary, err, bytes.TrimSpace(said))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stopping a program: %w", err)
	}
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("a program ended: %w", err)
	}
	return nil
}
