//go:build unix

// Provision prepares a machine for the tests: PostgreSQL's programs and the
// Temporal command line, as [localstack] finds or makes them. One process does it
// before the tests start, so that they do not each begin an installation.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/nepfy/clerk-stripe-sync/internal/localstack"
)

func main() {
	if err := run(os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "provision:", err)
		os.Exit(1)
	}
}

func run(out io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root, err := localstack.ProjectRoot(".")
	if err != nil {
		return err
	}
	if os.Getenv("TEST_DATABASE_URL") == "" {
		if _, err := localstack.PostgresBinaries(ctx, out); err != nil {
			return err
		}
	}
	if os.Getenv("TEST_TEMPORAL_ADDRESS") == "" {
		if _, err := localstack.TemporalBinary(ctx, root, out); err != nil {
			return err
		}
	}
	return nil
}
