package app

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// statementTracer writes a debug line for each statement: its text, which holds no values, and
// how long it took.
type statementTracer struct{ logger *slog.Logger }

type statementKey struct{}

type statement struct {
	sql     string
	started time.Time
}

// newStatementTracer answers nil, which costs nothing, unless debug lines are wanted.
func newStatementTracer(ctx context.Context, logger *slog.Logger) pgx.QueryTracer {
	if !logger.Enabled(ctx, slog.LevelDebug) {
		return nil
	}
	return statementTracer{logger}
}

// TraceQueryStart is called by the driver.
func (t statementTracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	return context.WithValue(ctx, statementKey{}, statement{sql: data.SQL, started: time.Now()})
}

// TraceQueryEnd is called by the driver.
func (t statementTracer) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	s, ok := ctx.Value(statementKey{}).(statement)
	if !ok {
		return
	}
	t.logger.DebugContext(ctx, "statement", "operation", "sql", "statement", strings.Join(strings.Fields(s.sql), " "),
		"duration_ms", time.Since(s.started).Milliseconds(), "result", data.CommandTag.String())
}
