package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/config"
	"github.com/nepfy/clerk-stripe-sync/internal/httpapi"
	"github.com/nepfy/clerk-stripe-sync/internal/inbox"
	"github.com/nepfy/clerk-stripe-sync/internal/operator"
	"github.com/nepfy/clerk-stripe-sync/internal/runs"
	"github.com/nepfy/clerk-stripe-sync/internal/selfservice"
	"github.com/nepfy/clerk-stripe-sync/internal/telemetry"
)

// API is starter-api: the front door, the inbox and the dispatcher.
type API struct {
	config     config.API
	runtime    *runtime
	identity   *identityWatch
	writer     *inbox.Writer
	dispatcher *inbox.Dispatcher
	sweeper    *inbox.Sweeper
	server     *httpapi.Server
	metrics    *httpapi.Server // nil if switched off
}

// sweepEvery is the pause between two looks at what stayed due. It is far below the half minute
// after which something counts as having stayed.
const sweepEvery = 10 * time.Second

// NewAPI reads the configuration from environ, takes the addresses and looks once whether the
// keys belong to the database. Logs go to the writer. The error says all that is wrong.
func NewAPI(ctx context.Context, environ map[string]string, logs io.Writer) (*API, error) {
	c, err := config.LoadAPI(environ)
	if err != nil {
		return nil, err
	}
	r, err := newRuntime(ctx, environ, logs, c.Logging, c.Database, c.Policy)
	if err != nil {
		return nil, err
	}
	a := &API{config: c, runtime: r}
	if err := a.build(ctx); err != nil {
		a.Close()
		return nil, err
	}
	for _, warning := range c.Warnings() {
		r.logger.WarnContext(ctx, warning, "operation", "start")
	}
	return a, nil
}

func (a *API) build(ctx context.Context) error {
	r, c := a.runtime, a.config
	a.identity = newIdentityWatch(r, c.Providers)
	if err := a.identity.start(ctx); err != nil {
		return err
	}
	dispatch := telemetry.Scope(r.logger, telemetry.ScopeDispatch)
	a.dispatcher = inbox.NewDispatcher(inbox.DispatcherOptions{
		Outbox: r.store, Poker: inbox.TemporalPoker{Client: r.temporal}, Logger: dispatch, Window: c.RoutineLooks,
		Observe: func(kind account.Kind, err error) { r.metrics.Signalled(string(kind), resultOf(err)) },
	})
	a.writer = inbox.NewWriter(inbox.WriterOptions{Adder: r.store, Spacing: c.PokeInterval, Wake: a.dispatcher.Wake})
	a.sweeper = &inbox.Sweeper{Store: r.store, WaitingTTL: c.WaitingTTL, PayloadRetention: c.PayloadRetention,
		Every: sweepEvery, Wake: a.dispatcher.Wake, Logger: dispatch}
	r.metrics.WatchInbox(func(ctx context.Context) (telemetry.InboxDepth, error) { return inboxDepth(ctx, r.store) })
	return a.listen(ctx)
}

func (a *API) listen(ctx context.Context) error {
	r, c := a.runtime, a.config
	webhook := telemetry.Scope(r.logger, telemetry.ScopeWebhook)
	intake := &inbox.Intake{
		Writer: a.writer, Livemode: c.StripeLivemode(), Identity: inbox.NewIdentity(r.store.Identity), Logger: webhook,
		Observe: func(source, eventType string, outcome inbox.Outcome) {
			r.metrics.Event(source, eventType, string(outcome))
		},
	}
	options := httpapi.WebhookOptions{Intake: intake, Metrics: r.metrics, Logger: r.logger}
	options.Secrets = c.ClerkWebhookSecrets
	clerk, err := httpapi.NewClerkWebhook(options)
	if err != nil {
		return err
	}
	options.Secrets = c.StripeWebhookSecrets
	stripe, err := httpapi.NewStripeWebhook(options)
	if err != nil {
		return err
	}
	api, err := a.people()
	if err != nil {
		return err
	}
	router := httpapi.NewRouter(httpapi.RouterOptions{Logger: r.logger, Metrics: r.metrics, Origins: c.ClerkAuthorizedParties})
	router.HandleWebhooks(clerk, stripe)
	router.HandleAPI(api)
	health := httpapi.NewHealth(httpapi.HealthOptions{Checks: append(checks(r, a.identity), inboxCheck(r, a.writer)), Logger: r.logger})
	router.HandleHealth(health)
	server := httpapi.ServerOptions{Logger: r.logger, ShutdownTimeout: c.ShutdownTimeout, ShutdownDelay: c.ShutdownDelay, OnStop: health.Stop}
	if a.server, err = httpapi.Listen(ctx, c.HTTPAddr, router, server); err != nil {
		return fmt.Errorf("HTTP_ADDR: %w", err)
	}
	if a.metrics, err = listenMetrics(ctx, r, c.MetricsAddr, nil, server); err != nil {
		return err
	}
	return nil
}

// people makes what people may ask.
func (a *API) people() (*httpapi.API, error) {
	r, c := a.runtime, a.config
	providers := newProviders(r, c.Providers, a.identity)
	callers, err := newCallers(r, c, providers.clerk)
	if err != nil {
		return nil, err
	}
	desk := &selfservice.Desk{
		Store: r.store, Stripe: providers.stripe, Clerk: providers.clerk, Commander: selfservice.TemporalCommander{Client: r.temporal},
		Wake: a.dispatcher.Wake, Wait: c.CommandWait, Access: accessOf(c.Policy), Beside: c.CheckoutBeside,
		Origins: c.ClerkAuthorizedParties, TrustClientReference: c.TrustClientReference, LinkByEmail: c.LinkByEmail, Logger: r.logger,
	}
	inspector := &operator.Inspector{
		Console: operator.Console{Store: r.store, Runs: runs.Server{Client: r.temporal}, Wake: a.dispatcher.Wake},
		Stripe:  providers.stripe, Clerk: providers.clerk, Namespace: r.namespace, UIURL: c.TemporalUIURL,
	}
	return httpapi.NewAPI(httpapi.APIOptions{Desk: desk, Operator: inspector, Callers: callers, Parties: c.ClerkAuthorizedParties, Logger: r.logger})
}

// accessOf is the access policy that an operator has chosen.
func accessOf(c config.Policy) account.AccessPolicy {
	return account.AccessPolicy{PastDueGrace: c.PastDueGrace, WhilePaused: c.AccessWhilePaused}
}

// Addr is the address of the public API.
func (a *API) Addr() string { return a.server.Addr() }

// Close gives back what NewAPI took. It is for a program that is not run.
func (a *API) Close() {
	for _, server := range []*httpapi.Server{a.server, a.metrics} {
		if server != nil {
			_ = server.Close() // nothing was served
		}
	}
	a.runtime.close()
}

// Run serves until the context ends, and then stops in this order: health says so, and for the
// shutdown delay all goes on; no more requests, those in progress are answered, what they left is
// committed, and then the dispatcher stops; what it did not get to is found by the next copy.
func (a *API) Run(ctx context.Context) error {
	defer a.runtime.close()
	a.runtime.logger.InfoContext(ctx, "starter-api listens", "operation", "start", "address", a.Addr())
	behind, stopBehind := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBehind()
	front, frontCtx := errgroup.WithContext(ctx)
	front.Go(func() error { return a.server.Serve(frontCtx) })
	if a.metrics != nil {
		front.Go(func() error { return a.metrics.Serve(frontCtx) })
	}
	front.Go(func() error { return a.identity.run(frontCtx) })
	front.Go(func() error { a.runtime.raiseNumbers(frontCtx); return nil })
	var back errgroup.Group
	back.Go(func() error { a.writer.Run(behind); return nil })
	back.Go(func() error { a.dispatcher.Run(behind); return nil })
	back.Go(func() error { a.sweeper.Run(behind); return nil })
	err := front.Wait()
	stopBehind()
	err = errors.Join(err, back.Wait())
	a.runtime.logger.InfoContext(ctx, "starter-api stopped", "operation", "stop")
	return err
}

// listenMetrics takes the address of a program's own /metrics, and of its health where it is
// not served elsewhere.
func listenMetrics(ctx context.Context, r *runtime, addr string, health *httpapi.Health, o httpapi.ServerOptions) (*httpapi.Server, error) {
	if addr == "" {
		return nil, nil
	}
	router := httpapi.NewRouter(httpapi.RouterOptions{Logger: r.logger, Metrics: r.metrics})
	router.Handle(http.MethodGet, "/metrics", r.metrics.Handler())
	if health != nil {
		router.HandleHealth(health)
	}
	server, err := httpapi.Listen(ctx, addr, router, o)
	if err != nil {
		return nil, fmt.Errorf("METRICS_ADDR: %w", err)
	}
	return server, nil
}
