package app

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// statementTracer writes a debug line for each statement: its text, which holds no values, and
// how long it took, with those that were sent before it in one go.
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

// TraceBatchStart is called by the driver.
func (t statementTracer) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return context.WithValue(ctx, statementKey{}, statement{started: time.Now()})
}

// TraceBatchQuery is called by the driver for each statement of a batch.
func (t statementTracer) TraceBatchQuery(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchQueryData) {
	if s, ok := ctx.Value(statementKey{}).(statement); ok {
		t.line(ctx, data.SQL, s.started, data.CommandTag)
	}
}

// TraceBatchEnd is called by the driver.
func (t statementTracer) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// TraceQueryStart is called by the driver.
func (t statementTracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	return context.WithValue(ctx, statementKey{}, statement{sql: data.SQL, started: time.Now()})
}

// TraceQueryEnd is called by the driver.
func (t statementTracer) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	if s, ok := ctx.Value(statementKey{}).(statement); ok {
		t.line(ctx, s.sql, s.started, data.CommandTag)
	}
}

func (t statementTracer) line(ctx context.Context, sql string, started time.Time, tag pgconn.CommandTag) {
	t.logger.DebugContext(ctx, "statement", "operation", "sql", "statement", strings.Join(strings.Fields(sql), " "),
		"duration_ms", time.Since(started).Milliseconds(), "result", tag.String())
}
