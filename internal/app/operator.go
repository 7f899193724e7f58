package app

import (
	"context"
	"io"

	"github.com/nepfy/clerk-stripe-sync/internal/config"
	"github.com/nepfy/clerk-stripe-sync/internal/operator"
	"github.com/nepfy/clerk-stripe-sync/internal/runs"
)

// Operator is what an operator's command line stands on.
type Operator struct {
	operator.Inspector
	runtime *runtime
}

// Close gives back what it took.
func (o *Operator) Close() { o.runtime.close() }

// NewConsole reads from environ where the database and Temporal are. Nothing is asked yet. What
// would be logged is dropped: whoever asks sees the answer.
func NewConsole(ctx context.Context, environ map[string]string) (*Operator, error) {
	c, err := config.LoadConsole(environ)
	if err != nil {
		return nil, err
	}
	r, err := newRuntime(ctx, environ, io.Discard, c.Logging, c.Database, config.Policy{})
	if err != nil {
		return nil, err
	}
	o := &Operator{runtime: r}
	o.Store, o.Runs, o.Namespace = r.store, runs.Server{Client: r.temporal}, r.namespace
	return o, nil
}

// NewInspector is [NewConsole] with both providers.
func NewInspector(ctx context.Context, environ map[string]string) (*Operator, error) {
	c, err := config.LoadInspector(environ)
	if err != nil {
		return nil, err
	}
	o, err := NewConsole(ctx, environ)
	if err != nil {
		return nil, err
	}
	providers := newProviders(o.runtime, c.Providers, nil)
	o.Stripe, o.Clerk, o.UIURL = providers.stripe, providers.clerk, c.TemporalUIURL
	return o, nil
}
