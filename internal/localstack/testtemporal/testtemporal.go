//go:build unix

// Package testtemporal gives tests a real Temporal server.
//
// The tests of one package share a development server, in memory, started when
// the first of them asks for it, and a namespace that is theirs alone:
//
//	var temporal = testtemporal.New(nil)
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(temporal.Around(m)) }
//
// With TEST_TEMPORAL_ADDRESS set to a server's host and port, that server is used:
// the tests get a fresh namespace there, which is deleted at the end.
package testtemporal

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nepfy/clerk-stripe-sync/internal/localstack"
)

// patience bounds the start, which builds the command line where it is missing.
const patience = 15 * time.Minute

// Server is one Temporal server for the tests of one process. It is ready for use
// by parallel tests.
type Server struct {
	dynamic   map[string]string
	namespace string

	once    sync.Once
	err     error                // why there is no server
	server  *localstack.Temporal // nil until started, and where the server is given
	address string
}

// New answers a server that is not started yet. The dynamic configuration (name to
// JSON value) applies to a server of our own only.
func New(dynamic map[string]string) *Server {
	return &Server{dynamic: dynamic, namespace: "test-" + strings.ToLower(rand.Text()[:12])}
}

// Address answers the server's host and port. The first call starts it.
func (s *Server) Address(t testing.TB) string {
	t.Helper()
	s.once.Do(func() { s.err = s.start() })
	if s.err != nil {
		t.Fatalf("prepare a Temporal server: %v", s.err)
	}
	return s.address
}

// Namespace is the namespace of this process's tests. All of them share it, so
// their workflow ids and task queues must differ.
func (s *Server) Namespace() string { return s.namespace }

// Client answers a silent client for the namespace, closed when the test ends.
func (s *Server) Client(t testing.TB) client.Client {
	t.Helper()
	c, err := client.DialContext(t.Context(), client.Options{
		HostPort:  s.Address(t),
		Namespace: s.namespace,
		Logger:    silent(),
	})
	if err != nil {
		t.Fatalf("connect to the Temporal server: %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

// Stop ends the server, or deletes the namespace on a given one. It does nothing
// if no test asked for it.
func (s *Server) Stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	switch {
	case s.server != nil:
		return s.server.Stop(ctx)
	case s.address != "":
		return s.onGivenServer(ctx, func(c client.Client) error {
			_, err := c.OperatorService().DeleteNamespace(ctx, &operatorservice.DeleteNamespaceRequest{Namespace: s.namespace})
			return err
		})
	default:
		return nil
	}
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
		fmt.Fprintln(os.Stderr, "stop the Temporal server:", err)
		return max(code, 1)
	}
	return code
}

func (s *Server) start() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if given := os.Getenv("TEST_TEMPORAL_ADDRESS"); given != "" {
		s.address = given
		return s.onGivenServer(ctx, func(c client.Client) error { return s.register(ctx, c) })
	}
	root, err := localstack.ProjectRoot(".")
	if err != nil {
		return err
	}
	binary, err := localstack.TemporalBinary(ctx, root, os.Stderr)
	if err != nil {
		return err
	}
	s.server, err = localstack.StartTemporal(ctx, localstack.TemporalOptions{
		Binary:    binary,
		Namespace: s.namespace,
		Dynamic:   s.dynamic,
	})
	if err != nil {
		return err
	}
	s.address = s.server.Address()
	return nil
}

func (s *Server) onGivenServer(ctx context.Context, do func(client.Client) error) error {
	c, err := client.DialContext(ctx, client.Options{HostPort: s.address, Logger: silent()})
	if err != nil {
		return fmt.Errorf("connect to TEST_TEMPORAL_ADDRESS: %w", err)
	}
	defer c.Close()
	return do(c)
}

// register makes the namespace and waits until the server's services know it,
// which takes them a few seconds.
func (s *Server) register(ctx context.Context, c client.Client) error {
	_, err := c.WorkflowService().RegisterNamespace(ctx, &workflowservice.RegisterNamespaceRequest{
		Namespace:                        s.namespace,
		WorkflowExecutionRetentionPeriod: durationpb.New(24 * time.Hour),
	})
	if err != nil {
		return fmt.Errorf("register namespace %s: %w", s.namespace, err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		_, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Namespace: s.namespace, PageSize: 1})
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for namespace %s: %w", s.namespace, errors.Join(ctx.Err(), err))
		}
	}
}

func silent() log.Logger { return log.NewStructuredLogger(slog.New(slog.DiscardHandler)) }
