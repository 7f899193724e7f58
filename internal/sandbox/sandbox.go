// Package sandbox runs a Clerk and a Stripe on loopback, for tests and for development without
// keys. Both keep state, speak the providers' wire formats, sign and redeliver webhooks as the
// providers do, and misbehave on demand.
//
// The parts: clerksim and stripesim are the providers, faults breaks their APIs, delivery sends
// (and breaks) their webhooks. This package puts them behind two addresses, keeps their state over
// a restart, and lets a person with curl play: GET /_sandbox/ on either address lists how.
package sandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

// The keys and secrets that apply when Options name none. They open nothing but a sandbox.
const (
	DefaultClerkSecretKey      = "sk_test_sandbox_clerk"
	DefaultClerkWebhookSecret  = "whsec_c2FuZGJveC1vbmx5LW5vdC1hLXNlY3JldA=="
	DefaultStripeSecretKey     = "sk_test_sandbox_stripe"
	DefaultStripeWebhookSecret = "whsec_sandbox_only_not_a_secret"
)

// Options configure a Sandbox. All may be left zero.
type Options struct {
	ClerkAddr, StripeAddr             string // host:port to listen on; default 127.0.0.1:0
	ClerkWebhookURL, StripeWebhookURL string // receivers; while empty, webhooks queue

	ClerkSecretKey, ClerkWebhookSecret   string // defaults: the constants above
	StripeSecretKey, StripeWebhookSecret string
	ClerkInstanceID, ClerkIssuer         string // defaults: those of clerksim
	StripeAccountID, StripeEventVersion  string // defaults: those of stripesim
	StripeLivemode                       bool

	Seed         uint64           // of ids and of everything random
	StripeNow    func() time.Time // start of Stripe's simulated clock; default time.Now
	StripeFrozen bool             // that clock moves only when it is told to
	InvoiceDelay time.Duration    // how long a renewal's invoice stays a draft; default: Stripe's hour

	WebhookRetry       []time.Duration // pauses before redelivery; default: that of delivery
	WebhookConcurrency int             // deliveries of one provider at a time; default 1, which keeps the order

	// StateFile keeps both providers and the webhooks that were not taken yet: read at the start if it
	// exists, written within a second of a change and by Stop. A process that is killed can lose that
	// second.
	StateFile string
	Logger    *slog.Logger // default: none
}

// Sandbox is the two running providers.
type Sandbox struct {
	Clerk  *clerksim.Server
	Stripe *stripesim.Server

	ClerkFaults, StripeFaults     *faults.Injector
	ClerkWebhooks, StripeWebhooks *delivery.Sender

	// What an application needs to know to use them, beside the addresses.
	ClerkSecretKey, ClerkWebhookSecret   string
	StripeSecretKey, StripeWebhookSecret string

	log                   *slog.Logger
	clerkHTTP, stripeHTTP *http.Server
	clerkBase, stripeBase string
	serving               sync.WaitGroup
	keeper                *keeper
	stop                  sync.Once
}

// Start listens on both addresses and serves until Stop; ctx bounds the start only. An address that
// is taken is an error that names it.
func Start(ctx context.Context, o Options) (*Sandbox, error) {
	o = o.withDefaults()
	s := &Sandbox{
		ClerkSecretKey: o.ClerkSecretKey, ClerkWebhookSecret: o.ClerkWebhookSecret,
		StripeSecretKey: o.StripeSecretKey, StripeWebhookSecret: o.StripeWebhookSecret,
		log: o.Logger,
	}
	clerk, err := listen(ctx, "clerk", o.ClerkAddr)
	if err != nil {
		return nil, err
	}
	stripe, err := listen(ctx, "stripe", o.StripeAddr)
	if err != nil {
		return nil, errors.Join(err, clerk.Close())
	}
	if err := s.assemble(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("start sandbox: %w", err), clerk.Close(), stripe.Close())
	}
	control := s.control()
	s.clerkBase, s.clerkHTTP = s.serve(clerk, s.ClerkFaults.Wrap(s.Clerk), control)
	s.stripeBase, s.stripeHTTP = s.serve(stripe, s.StripeFaults.Wrap(s.Stripe), control)
	s.log.Info("sandbox started", "clerk", s.clerkBase, "stripe", s.stripeBase)
	return s, nil
}

// assemble makes the providers and what stands around them, and gives them the state of last time.
func (s *Sandbox) assemble(ctx context.Context, o Options) error {
	signClerk, err := delivery.SignAsClerk(o.ClerkWebhookSecret)
	if err != nil {
		return err
	}
	signStripe, err := delivery.SignAsStripe(o.StripeWebhookSecret)
	if err != nil {
		return err
	}
	s.keeper = newKeeper(o.StateFile, s)
	s.ClerkFaults = faults.New(o.Seed, clerksim.ErrorBody)
	s.StripeFaults = faults.New(o.Seed+1, stripeErrorBody)
	s.Clerk = clerksim.New(clerksim.Options{
		SecretKey: o.ClerkSecretKey, InstanceID: o.ClerkInstanceID, Issuer: o.ClerkIssuer, Seed: o.Seed,
		Emit: func(id, _ string, body []byte) {
			s.ClerkWebhooks.Send(delivery.Message{ID: id, Body: body})
			s.keeper.touch()
		},
	})
	s.Stripe = stripesim.New(stripesim.Options{
		APIKey: o.StripeSecretKey, AccountID: o.StripeAccountID, EventVersion: o.StripeEventVersion, Livemode: o.StripeLivemode,
		Seed: o.Seed, Now: o.StripeNow, Frozen: o.StripeFrozen, InvoiceDelay: o.InvoiceDelay,
		Emit: func(id, _ string, body []byte) {
			s.StripeWebhooks.Send(delivery.Message{ID: id, Body: body})
			s.keeper.touch()
		},
	})
	// Until the state is read there is no receiver: what was pending last time goes first.
	sender := delivery.Options{Retry: o.WebhookRetry, Concurrency: o.WebhookConcurrency}
	sender.Sign, sender.Seed, sender.Logger = signClerk, o.Seed+2, o.Logger.With("provider", "clerk")
	sender.Taken = func(string) { s.keeper.touch() }
	s.ClerkWebhooks = delivery.New(sender) //nolint:contextcheck // it works until Stop; ctx bounds the start only
	sender.Sign, sender.Seed, sender.Logger = signStripe, o.Seed+3, o.Logger.With("provider", "stripe")
	sender.Taken = func(id string) { s.Stripe.MarkDelivered(id); s.keeper.touch() }
	s.StripeWebhooks = delivery.New(sender) //nolint:contextcheck // as above
	if err := s.keeper.load(); err != nil {
		s.ClerkWebhooks.Close()
		s.StripeWebhooks.Close()
		return err
	}
	s.keeper.start(ctx)
	s.ClerkWebhooks.SetURL(o.ClerkWebhookURL)
	s.StripeWebhooks.SetURL(o.StripeWebhookURL)
	return nil
}

// serve answers the provider's API through its faults, and the control paths past them.
func (s *Sandbox) serve(l net.Listener, api, control http.Handler) (base string, _ *http.Server) {
	mux := http.NewServeMux()
	mux.Handle("/", s.keeper.noticing(api))
	mux.Handle("/_sandbox/", s.keeper.noticing(control))
	// A connection that a client opened in store has this long for its first request: longer than Go's
	// client keeps it.
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 2 * time.Minute, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)}
	s.serving.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("sandbox stopped serving", "address", l.Addr().String(), "error", err)
		}
	})
	return "http://" + l.Addr().String(), server
}

// ClerkURL is the address of Clerk's Backend API, with /v1, as its SDK wants it.
func (s *Sandbox) ClerkURL() string { return s.clerkBase + "/v1" }

// StripeURL is the address of Stripe's API, without /v1, as its SDK wants it.
func (s *Sandbox) StripeURL() string { return s.stripeBase }

// ControlURL is where a person finds what they can do: both addresses have it, this is Clerk's.
func (s *Sandbox) ControlURL() string { return s.clerkBase + "/_sandbox/" }

// Idle returns when every change made so far has been told to the application and taken by it.
func (s *Sandbox) Idle(ctx context.Context) error {
	for _, wait := range []func(context.Context) error{s.Clerk.Settled, s.ClerkWebhooks.Idle, s.Stripe.Settled, s.StripeWebhooks.Idle} {
		if err := wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Stop ends both servers and all deliveries, drops what faults hold, and writes the state. It waits
// for requests in hand as long as ctx allows, and then breaks them off. A second call does nothing.
func (s *Sandbox) Stop(ctx context.Context) (err error) {
	s.stop.Do(func() { err = s.shutdown(ctx) })
	return err
}

func (s *Sandbox) shutdown(ctx context.Context) error {
	s.ClerkFaults.Close()
	s.StripeFaults.Close()
	for _, server := range []*http.Server{s.clerkHTTP, s.stripeHTTP} {
		if server.Shutdown(ctx) != nil {
			_ = server.Close() // breaking off is what the caller asked for by the end of ctx
		}
	}
	s.serving.Wait()
	// Every event has to be with its sender before the senders say what is pending.
	settled := errors.Join(s.Clerk.Settled(ctx), s.Stripe.Settled(ctx))
	s.ClerkWebhooks.Close()
	s.StripeWebhooks.Close()
	return errors.Join(settled, s.keeper.stop(ctx))
}

func (o Options) withDefaults() Options {
	o.ClerkAddr = cmp.Or(o.ClerkAddr, "127.0.0.1:0")
	o.StripeAddr = cmp.Or(o.StripeAddr, "127.0.0.1:0")
	o.ClerkSecretKey = cmp.Or(o.ClerkSecretKey, DefaultClerkSecretKey)
	o.ClerkWebhookSecret = cmp.Or(o.ClerkWebhookSecret, DefaultClerkWebhookSecret)
	o.StripeSecretKey = cmp.Or(o.StripeSecretKey, DefaultStripeSecretKey)
	o.StripeWebhookSecret = cmp.Or(o.StripeWebhookSecret, DefaultStripeWebhookSecret)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	return o
}

func listen(ctx context.Context, provider, addr string) (net.Listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("start %s sandbox on %s: %w", provider, addr, err)
	}
	return l, nil
}
