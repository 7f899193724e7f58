//go:build unix

// Command dev runs everything on this machine: PostgreSQL, Temporal, both programs and, without
// keys, a Clerk and a Stripe that play a short story.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/nepfy/clerk-stripe-sync/cmd/dev/internal/devstack"
	"github.com/nepfy/clerk-stripe-sync/internal/config"
)

func main() {
	signaled, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, end := context.WithCancel(context.Background())
	defer end()
	// Before the first signal is heeded, the second has its usual effect again: the end, at once.
	context.AfterFunc(signaled, func() { stop(); end() })
	if err := devstack.Run(ctx, config.Environ(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "dev:", err)
		os.Exit(1)
	}
}
