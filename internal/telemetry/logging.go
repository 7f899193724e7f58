// Package telemetry is what an operator sees of a running program: log lines and metrics.
//
// Both are made to be safe to ship anywhere. Personal data and secrets are kept out by those who
// write the lines; the log handler here is a second net for what they overlook, and metrics carry
// only labels with few values.
package telemetry

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"strings"
)

// The scopes whose debug lines the DEBUG variable can turn on.
const (
	ScopeWebhook  = "webhook"
	ScopeDispatch = "dispatch"
	ScopeStripe   = "stripe"
	ScopeClerk    = "clerk"
	ScopeStore    = "store"
)

// allScopes in LogOptions.Debug stands for every scope.
const allScopes = "*"

// LogOptions says what is logged and how.
type LogOptions struct {
	// Level is the least level that is logged.
	Level slog.Level
	// Text asks for lines that people read, instead of JSON.
	Text bool
	// Debug lists the scopes whose debug lines are logged whatever the level; `*` stands for all.
	Debug []string
}

// NewLogger returns a logger that writes to w, one line a record, and redacts what looks like
// personal data or a secret.
func NewLogger(w io.Writer, o LogOptions) *slog.Logger {
	options := &slog.HandlerOptions{
		// The level is decided in Enabled, where the scope is known.
		Level:       min(slog.LevelDebug, o.Level),
		ReplaceAttr: new(redaction).attr,
	}
	var inner slog.Handler = slog.NewJSONHandler(w, options)
	if o.Text {
		inner = slog.NewTextHandler(w, options)
	}
	return slog.New(&scopedHandler{inner: inner, level: o.Level, debug: slices.Clone(o.Debug)})
}

// Scope returns a logger for one part of the program: its lines carry the scope, and its debug
// lines appear when the level or the DEBUG variable asks for them.
func Scope(logger *slog.Logger, scope string) *slog.Logger {
	attrs := []slog.Attr{slog.String("scope", scope)}
	if h, ok := logger.Handler().(*scopedHandler); ok {
		scoped := *h
		scoped.verbose = slices.Contains(h.debug, allScopes) || slices.Contains(h.debug, scope)
		return slog.New(scoped.WithAttrs(attrs))
	}
	return slog.New(logger.Handler().WithAttrs(attrs))
}

// scopedHandler decides by level and scope which records are written.
type scopedHandler struct {
	inner   slog.Handler
	level   slog.Level
	debug   []string
	verbose bool // debug lines are wanted although the level is higher
}

// Enabled implements slog.Handler.
func (h *scopedHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level || (h.verbose && level >= slog.LevelDebug)
}

// Handle implements slog.Handler.
func (h *scopedHandler) Handle(ctx context.Context, record slog.Record) error {
	return h.inner.Handle(ctx, record)
}

// WithAttrs implements slog.Handler.
func (h *scopedHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.inner = h.inner.WithAttrs(attrs)
	return &next
}

// WithGroup implements slog.Handler.
func (h *scopedHandler) WithGroup(name string) slog.Handler {
	next := *h
	next.inner = h.inner.WithGroup(name)
	return &next
}

// sortedAttrs returns the pairs of m as string attributes, in the order of their keys.
func sortedAttrs(m map[string]string) []slog.Attr {
	attrs := make([]slog.Attr, 0, len(m))
	for key, value := range m {
		attrs = append(attrs, slog.String(key, value))
	}
	slices.SortFunc(attrs, func(a, b slog.Attr) int { return strings.Compare(a.Key, b.Key) })
	return attrs
}

// quiet returns the handler with no debug lines but those that the level asks for.
func (h *scopedHandler) quiet() *scopedHandler {
	next := *h
	next.verbose = false
	return &next
}
