// Command worker runs workflows and activities.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	sdk "go.temporal.io/sdk/worker"

	"github.com/nepfy/clerk-stripe-sync/internal/app"
	"github.com/nepfy/clerk-stripe-sync/internal/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
}

// cachedWorkflows is how many runs are kept in memory between two of their tasks, about fifty
// kilobytes each. A customer's run sleeps for weeks: what a burst needs is to be remembered for a
// minute, and who is forgotten costs one read of a short history. With the SDK's ten thousand the
// memory grows with the number of customers.
const cachedWorkflows = 1000

func run(ctx context.Context) error {
	sdk.SetStickyWorkflowCacheSize(cachedWorkflows)
	worker, err := app.NewWorker(ctx, config.Environ(), os.Stdout)
	if err != nil {
		return err
	}
	return worker.Run(ctx)
}
