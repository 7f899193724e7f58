// Command syncctl is the operator's command line.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/nepfy/clerk-stripe-sync/internal/config"
)

const description = "syncctl prepares and inspects an environment. It reads the same variables as the programs."

// commandLine is all that syncctl understands.
type commandLine struct {
	Setup   setup   `cmd:"" help:"Do all that a new environment needs: migrations, search attributes and schedules. Doing it again changes nothing."`
	Migrate migrate `cmd:"" help:"The database schema alone."`
	Health  health  `cmd:"" help:"Ask a program's /healthz or /readyz; for health checks."`

	User    userCommands `cmd:"" help:"Show a user in Clerk, PostgreSQL and Stripe side by side, and what is in flight; or erase one who is being deleted."`
	Events  events       `cmd:"" help:"The inbox: what came, what became of it, and to have it tried or taken again."`
	Drift   drift        `cmd:"" help:"In what the three systems differ, and to have it repaired."`
	Confirm confirm      `cmd:"" help:"Say that a Stripe customer is a user's, where only its payer may have said so."`
	Bulk    bulk         `cmd:"" help:"Bring in everything that Clerk and Stripe hold, beside all else that goes on."`

	Revenue revenue `cmd:"" help:"What comes in a month, by currency (MRR)."`

	Subscriptions subscriptions `cmd:"" group:"api" help:"List a user's subscriptions."`
	Cancel        cancel        `cmd:"" group:"api" help:"Cancel a subscription."`
	Reactivate    reactivate    `cmd:"" group:"api" help:"Take a cancellation back."`
	Sync          syncUser      `cmd:"" group:"api" help:"Read a user anew."`
	Operation     operation     `cmd:"" group:"api" help:"Tell how far an operation is."`
}

var errUsage = errors.New("not understood; see syncctl --help")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], config.Environ(), os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "syncctl:", err)
	}
	switch {
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		os.Exit(1)
	}
}

// session is what every command works with.
type session struct {
	context.Context
	environ map[string]string
	out     io.Writer
}

func run(ctx context.Context, args []string, environ map[string]string, out io.Writer) error {
	helped := false
	parser, err := kong.New(&commandLine{}, kong.Name("syncctl"), kong.Description(description), kong.Writers(out, out),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}), kong.Exit(func(int) { helped = true }),
		kong.ExplicitGroups([]kong.Group{{Key: "api", Title: "Asking the API, at SYNC_API_URL, as the user of the session token in SYNC_API_TOKEN:"}}))
	if err != nil {
		return fmt.Errorf("preparing the command line: %w", err)
	}
	command, err := parser.Parse(args)
	if helped {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	return command.Run(&session{ctx, environ, out})
}
