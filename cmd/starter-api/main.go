// Command starter-api takes webhooks and pokes workflows.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/nepfy/clerk-stripe-sync/internal/app"
	"github.com/nepfy/clerk-stripe-sync/internal/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "starter-api:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	api, err := app.NewAPI(ctx, config.Environ(), os.Stdout)
	if err != nil {
		return err
	}
	return api.Run(ctx)
}
