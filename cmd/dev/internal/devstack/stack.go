//go:build unix

package devstack

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/app"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox"
)

// How long things may take. Stopping is to be over within ten seconds: first the programs, then
// the sandbox, then the servers, which get what is left of stopPatience.
const (
	readyPatience    = 30 * time.Second
	stopPatience     = 8 * time.Second
	programsPatience = 4 * time.Second
	sandboxPatience  = time.Second
	serversPatience  = 3 * time.Second
)

// Run runs everything until ctx ends, and then stops it. What happens is told to out. The error
// says what is wrong with the environment, which port is taken, what ended by itself, or where the
// story did not come to its end; being stopped is none.
func Run(ctx context.Context, environ map[string]string, out io.Writer) error {
	s, err := loadSettings(environ)
	if err != nil {
		return err
	}
	if err := checkPorts(ctx, s.ports()); err != nil {
		return err
	}
	if err := os.MkdirAll(s.path("logs"), 0o755); err != nil {
		return fmt.Errorf("make a place for data and logs: %w", err)
	}
	running, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	st := &stack{settings: &s, screen: newScreen(out, s.environ), fail: fail}
	err = st.up(running)
	if err == nil {
		<-running.Done()
		err = running.Err()
	}
	if cause := context.Cause(running); running.Err() != nil && errors.Is(err, running.Err()) {
		err = cause // what ended everything says more than that it ended
	}
	if ctx.Err() != nil {
		err = nil // somebody stopped it
		st.screen.line("stopping")
	}
	return errors.Join(err, st.down(context.WithoutCancel(ctx)))
}

// stack is what runs. Its fields are nil until they are started.
type stack struct {
	settings *settings
	screen   *screen
	fail     context.CancelCauseFunc

	servers  *servers
	sandbox  *sandbox.Sandbox
	programs *programs
	places   places
	// sandboxLog is open for as long as the sandbox runs.
	sandboxLog *os.File
}

// up starts everything, plays the story and says that it is ready.
func (s *stack) up(ctx context.Context) (err error) {
	if s.servers, err = startServers(ctx, s.settings, s.screen); err != nil {
		return err
	}
	s.servers.watch(ctx, s.settings, s.fail)
	s.locate()
	if s.settings.sandbox {
		if err := s.startSandbox(ctx); err != nil {
			return err
		}
	}
	variables := s.settings.variables(s.places)
	if err := s.setUp(ctx, variables); err != nil {
		return err
	}
	if err := s.settings.writeEnvironment(variables); err != nil {
		return err
	}
	if s.programs, err = startPrograms(ctx, s.settings, variables, s.fail); err != nil {
		return err
	}
	base := "http://" + s.reachable()
	if err := awaitReady(ctx, base); err != nil {
		if ctx.Err() != nil || s.sandbox != nil {
			return err
		}
		// With real keys the reason may be one that the programs recover from by themselves.
		s.screen.line("%v; going on", err)
	}
	s.screen.line("logs: %s", s.settings.path("logs"))
	if s.sandbox == nil {
		s.tellRealKeys()
	} else {
		s.sandbox.ClerkWebhooks.SetURL(base + "/api/webhooks/clerk")
		s.sandbox.StripeWebhooks.SetURL(base + "/api/webhooks/stripe")
		if err := s.playStory(ctx); err != nil {
			return err
		}
	}
	s.tellReady(base)
	return nil
}

// locate notes where the servers are.
func (s *stack) locate() {
	s.places = places{databaseURL: s.settings.environ["DATABASE_URL"], temporalUI: s.settings.environ["TEMPORAL_UI_URL"]}
	if p := s.servers.postgres; p != nil {
		s.places.databaseURL = p.DSN()
	}
	if t := s.servers.temporal; t != nil {
		s.places.temporalAddress, s.places.temporalUI = t.Address(), t.UIURL()
	}
}

// startSandbox starts Clerk and Stripe with the state of last time. They have no receiver for
// their webhooks yet: those wait until the API is there.
func (s *stack) startSandbox(ctx context.Context) error {
	log, err := os.OpenFile(s.settings.path("logs", "sandbox.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the sandbox's log: %w", err)
	}
	// Another seed each time: a database that outlived the sandbox's state must not meet its ids
	// again.
	var seed [8]byte
	_, _ = crand.Read(seed[:]) // it never fails
	sb, err := sandbox.Start(ctx, sandbox.Options{
		ClerkAddr: s.settings.clerk.addr(), StripeAddr: s.settings.stripe.addr(), StateFile: s.settings.path("sandbox.json"),
		Seed: binary.NativeEndian.Uint64(seed[:]), WebhookConcurrency: 4, InvoiceDelay: time.Second,
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		return errors.Join(err, log.Close())
	}
	s.sandbox, s.sandboxLog = sb, log
	s.places.clerkURL, s.places.clerkKey, s.places.clerkWebhookSecret = sb.ClerkURL(), sb.ClerkSecretKey, sb.ClerkWebhookSecret
	s.places.stripeURL, s.places.stripeKey, s.places.stripeWebhookSecret = sb.StripeURL(), sb.StripeSecretKey, sb.StripeWebhookSecret
	s.screen.line("sandbox: Clerk at %s, Stripe at %s", sb.ClerkURL(), sb.StripeURL())
	return nil
}

// setUp prepares database and namespace, and keeps what it says in a log.
func (s *stack) setUp(ctx context.Context, variables map[string]string) error {
	log, err := os.OpenFile(s.settings.path("logs", "setup.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the setup's log: %w", err)
	}
	return errors.Join(app.Setup(ctx, variables, log), log.Close())
}

// reachable is the API's address as one from this machine writes it, with the port that it has.
func (s *stack) reachable() string {
	at := *s.settings
	at.httpAddr = s.programs.addr
	return at.reachable()
}

func (s *stack) tellRealKeys() {
	s.screen.line("working with your own accounts: no sandbox, no story")
	if s.settings.liveKeys {
		s.screen.line("THESE ARE LIVE KEYS: what happens here happens to real customers")
	}
	at := *s.settings
	at.httpAddr = s.programs.addr
	s.screen.line("%s", at.forwarding())
}

func (s *stack) tellReady(base string) {
	ui := s.places.temporalUI
	if ui == "" {
		ui = "of the server at TEMPORAL_ADDRESS"
	}
	play := "not used"
	if s.sandbox != nil {
		play = s.sandbox.ControlURL()
	}
	s.screen.line("an operator's commands, from another terminal: . %s && go run ./cmd/syncctl --help", s.settings.path(environmentFile))
	s.screen.line("Ctrl-C stops everything; the data in %s are kept for the next start", s.settings.dir)
	s.screen.line("%s API %s, Temporal Web UI %s, sandbox %s", s.screen.styled(green, "ready:"), base, ui, play)
}

// down stops what runs, in the order that loses nothing: whoever works, those they work with, and
// the servers below.
func (s *stack) down(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	var failures []error
	if s.programs != nil {
		failures = append(failures, s.programs.stop())
	}
	if s.sandbox != nil {
		ctx, cancel := context.WithTimeout(ctx, sandboxPatience)
		defer cancel()
		failures = append(failures, s.sandbox.Stop(ctx), s.sandboxLog.Close())
	}
	if s.servers != nil {
		failures = append(failures, s.servers.stop(ctx))
	}
	return errors.Join(failures...)
}

// shortly is a duration as a person says it.
func shortly(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
