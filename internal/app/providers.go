package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/clerkapi"
	"github.com/nepfy/clerk-stripe-sync/internal/config"
	"github.com/nepfy/clerk-stripe-sync/internal/exchange"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeapi"
	"github.com/nepfy/clerk-stripe-sync/internal/stripechanges"
	"github.com/nepfy/clerk-stripe-sync/internal/telemetry"
)

// providers are the two vendors' clients.
type providers struct {
	stripe *stripechanges.Client
	clerk  *clerkapi.Client
}

// newProviders makes the clients. Each call waits for its provider's limiter: the task queues
// bound how many activities start, and an activity may make more than one call. It also waits until
// the watch has seen that the key is of the right account; only the watch's own clients, which find
// that out, have none to wait for.
func newProviders(r *runtime, c config.Providers, watch *identityWatch) providers {
	var stripeSeen, clerkSeen <-chan struct{}
	if watch != nil {
		stripeSeen, clerkSeen = watch.stripeSeen, watch.clerkSeen
	}
	p := providers{
		stripe: stripechanges.New(stripeapi.New(stripeapi.Options{
			Key: c.StripeSecretKey.Reveal(), BaseURL: c.StripeAPIURL, Timeout: c.ProviderTimeout,
			Observe:   observeCalls(r, telemetry.ScopeStripe),
			Transport: newLimited(c.StripeRate, stripeSeen),
		}), r.store),
		clerk: clerkapi.New(clerkapi.Options{
			Key: c.ClerkSecretKey.Reveal(), BaseURL: c.ClerkAPIURL, Timeout: c.ProviderTimeout,
			Observe:   observeCalls(r, telemetry.ScopeClerk),
			Transport: newLimited(c.ClerkRate, clerkSeen),
		}),
	}
	r.closers = append(r.closers, p.stripe.Close, p.clerk.Close)
	return p
}

// burst lets a quarter of a second's calls go at once.
func burst(perSecond float64) int { return max(1, int(perSecond/4)) }

// limited sends requests no faster than a limiter allows, and none before the account is known.
type limited struct {
	limiter *rate.Limiter
	// known and routine let one of the calls at a time to the limiter that nobody is waiting for: it
	// gives out its moments in the order in which it is asked, and what is urgent has to wait for at
	// most one of them so. A routine call needs both.
	known, routine *semaphore.Weighted
	priority       func(context.Context) int
	// seen is closed once the key was seen to be of the right account; nil if nobody has to wait.
	seen <-chan struct{}
	base http.RoundTripper
}

func newLimited(perSecond float64, seen <-chan struct{}) limited {
	return limited{rate.NewLimiter(rate.Limit(perSecond), burst(perSecond)), semaphore.NewWeighted(1), semaphore.NewWeighted(1), activities.PriorityOf, seen, exchange.NewBase()}
}

// wait waits for the moment of a call.
func (l limited) wait(ctx context.Context) error {
	var turns []*semaphore.Weighted
	switch key := l.priority(ctx); {
	case key >= activities.PriorityRoutine:
		turns = []*semaphore.Weighted{l.routine, l.known}
	case key >= activities.PriorityKnown:
		turns = []*semaphore.Weighted{l.known}
	}
	for _, turn := range turns {
		if err := turn.Acquire(ctx, 1); err != nil {
			return err //nolint:wrapcheck // wrapped by who calls
		}
		defer turn.Release(1)
	}
	return l.limiter.Wait(ctx) //nolint:wrapcheck // wrapped by who calls
}

// RoundTrip implements http.RoundTripper.
func (l limited) RoundTrip(request *http.Request) (*http.Response, error) {
	if l.seen != nil {
		select {
		case <-l.seen:
		case <-request.Context().Done():
			return nil, fmt.Errorf("waiting to see whose key it is: %w", request.Context().Err())
		}
	}
	if err := l.wait(request.Context()); err != nil {
		return nil, fmt.Errorf("waiting for the provider's rate: %w", err)
	}
	return l.base.RoundTrip(request)
}

// CloseIdleConnections lets the clients close what they keep open.
func (l limited) CloseIdleConnections() {
	if closer, ok := l.base.(interface{ CloseIdleConnections() }); ok {
		closer.CloseIdleConnections()
	}
}

func observeCalls(r *runtime, scope string) func(context.Context, exchange.Call) {
	logger := telemetry.Scope(r.logger, scope)
	return func(ctx context.Context, call exchange.Call) {
		result := "ok"
		switch {
		case call.Status == 0:
			result = "no_answer"
		case call.Status == http.StatusTooManyRequests:
			result = string(failure.Throttled)
			r.metrics.Throttled(call.Provider)
		case call.Status >= http.StatusBadRequest:
			result = fmt.Sprintf("http_%d", call.Status)
		}
		r.metrics.ProviderCall(call.Provider, call.Method+" "+call.Route, result, call.Duration)
		logger.DebugContext(ctx, "provider call", "operation", call.Method+" "+call.Route, "provider", call.Provider,
			"status", call.Status, "duration_ms", call.Duration.Milliseconds(), "result", result)
	}
}

// identityWatch sees to it that both keys belong to the accounts that the database belongs to,
// and knows whether the providers answer. A program starts while one of them does not; until it
// has, nothing else is asked of it, since the key may be of another account.
type identityWatch struct {
	store     *store.Store
	providers providers
	livemode  bool
	logger    *slog.Logger
	// Closed when the key was first seen to be of the right account.
	stripeSeen, clerkSeen chan struct{}

	mu     sync.Mutex
	stripe error
	clerk  error
	// unbound is set while the database could not be asked whether the keys are its own.
	unbound bool
}

// errNotAsked is the state before the first answer.
var errNotAsked = errors.New("not asked yet")

func newIdentityWatch(r *runtime, c config.Providers) *identityWatch {
	return &identityWatch{store: r.store, providers: newProviders(r, c, nil), livemode: c.StripeLivemode(), logger: r.logger,
		stripeSeen: make(chan struct{}), clerkSeen: make(chan struct{}), stripe: errNotAsked, clerk: errNotAsked}
}

const (
	// identityRetry is the pause while a provider or the database does not answer, identityCheck
	// the pause between two looks at keys that work: a revoked key shows within that time even
	// while nothing happens.
	identityRetry = 5 * time.Second
	identityCheck = time.Minute
	firstLook     = 5 * time.Second
)

// start looks once, not for long. It fails only when a key is of another account.
func (w *identityWatch) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, firstLook)
	defer cancel()
	return w.look(ctx)
}

// run keeps looking. It returns only when the context ends or a key is of another account.
func (w *identityWatch) run(ctx context.Context) error {
	for {
		pause := identityRetry
		if w.settled() {
			pause = identityCheck
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		if err := w.look(ctx); err != nil {
			return err
		}
	}
}

func (w *identityWatch) look(ctx context.Context) error {
	var both sync.WaitGroup
	var stripe, clerk, stripeBound, clerkBound error
	both.Go(func() { stripe, stripeBound = w.bindStripe(ctx) })
	both.Go(func() { clerk, clerkBound = w.bindClerk(ctx) })
	both.Wait()
	w.mu.Lock()
	w.stripe, w.clerk, w.unbound = stripe, clerk, stripeBound != nil || clerkBound != nil
	w.mu.Unlock()
	// Only a key that works and is the database's own may be used for anything else.
	if stripe == nil && stripeBound == nil {
		see(w.stripeSeen)
	}
	if clerk == nil && clerkBound == nil {
		see(w.clerkSeen)
	}
	for _, err := range []error{stripeBound, clerkBound} {
		if errors.Is(err, store.ErrOtherAccount) {
			return err
		}
	}
	for _, err := range []error{stripe, clerk} {
		if failure.Of(err) == failure.Operator {
			w.logger.ErrorContext(ctx, "a provider refuses our key", "operation", "check_identity", "error_class", string(failure.Operator), "error", err.Error())
		}
	}
	return nil
}

// see closes a channel, once. Only one goroutine looks at a time.
func see(seen chan struct{}) {
	select {
	case <-seen:
	default:
		close(seen)
	}
}

// bindStripe answers what Stripe says to our key, and what the database says to its account.
func (w *identityWatch) bindStripe(ctx context.Context) (refused, unbound error) {
	account, err := w.providers.stripe.Account(ctx)
	if err != nil {
		return err, nil
	}
	return nil, w.store.BindStripe(ctx, account, w.livemode)
}

// bindClerk answers what Clerk says to our key, and what the database says to its instance.
func (w *identityWatch) bindClerk(ctx context.Context) (refused, unbound error) {
	instance, err := w.providers.clerk.Instance(ctx)
	if err != nil {
		return err, nil
	}
	return nil, w.store.BindClerk(ctx, instance)
}

// settled tells whether both keys work and are known to be the database's own.
func (w *identityWatch) settled() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stripe == nil && w.clerk == nil && !w.unbound
}

func (w *identityWatch) stripeState(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stripe
}

func (w *identityWatch) clerkState(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clerk
}
