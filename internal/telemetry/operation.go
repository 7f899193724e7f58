package telemetry

import (
	"context"
	"log/slog"
	"runtime/debug"
	"time"
)

// Results of an operation. A caller may use a more telling word of its own.
const (
	ResultOK     = "ok"
	ResultFailed = "failed"
)

// ClassRefused is the error class of a request that we did not take, through the caller's fault.
const ClassRefused = "refused"

// Operation is a piece of work that is told in one log line, when it is over.
type Operation struct {
	// Name says what was attempted, such as record_subscriptions.
	Name string
	// Parameters are opaque ids and settings; never personal data.
	Parameters map[string]string
	// WorkflowID and RunID name the workflow on whose behalf it was done, if any.
	WorkflowID, RunID string
	// EventID names the delivery that caused it, if one did.
	EventID string
}

// Outcome is how an operation ended.
type Outcome struct {
	// Result is a short word; empty stands for ok, or failed if there is an error.
	Result string
	// ErrorClass is the class of the error in the program's vocabulary (transient, throttled,
	// operator, permanent). An error without a class is an unexpected one and is logged with a stack.
	ErrorClass string
	// Err is why the operation failed.
	Err error
	// Stack is that of a panic; if it is empty, an unexpected error gets that of the caller.
	Stack []byte
	// Routine operations are logged at debug level while they succeed: they happen without anybody
	// asking, and a line each would bury the others.
	Routine bool
}

// Running is an operation that has begun.
type Running struct {
	logger  *slog.Logger
	op      Operation
	started time.Time
}

// Begin starts the clock of an operation.
func Begin(logger *slog.Logger, op Operation) Running {
	return BeginAt(logger, op, time.Now())
}

// BeginAt is Begin for an operation of which only now is known what to tell.
func BeginAt(logger *slog.Logger, op Operation, started time.Time) Running {
	return Running{logger: logger, op: op, started: started}
}

// mostAttrs is how many attributes a line has at most.
const mostAttrs = 10

// End writes the operation's line and returns how long it took. Success is logged at info (or
// debug, if routine), an error that will be retried or is the caller's at warn, any other at error.
func (r Running) End(ctx context.Context, out Outcome) time.Duration {
	took := time.Since(r.started)
	level := out.level()
	if !r.logger.Enabled(ctx, level) {
		return took
	}
	attrs := append(make([]slog.Attr, 0, mostAttrs),
		slog.String("operation", r.op.Name),
		slog.String("result", out.result()),
		slog.Float64("duration_ms", float64(took.Microseconds())/1000),
	)
	attrs = appendSet(attrs, "error_class", out.ErrorClass)
	attrs = appendSet(attrs, "workflow_id", r.op.WorkflowID)
	attrs = appendSet(attrs, "run_id", r.op.RunID)
	attrs = appendSet(attrs, "event_id", r.op.EventID)
	if len(r.op.Parameters) > 0 {
		attrs = append(attrs, slog.GroupAttrs("parameters", sortedAttrs(r.op.Parameters)...))
	}
	if out.Err != nil {
		attrs = append(attrs, slog.String("error", out.Err.Error()))
		if out.ErrorClass == "" || len(out.Stack) > 0 {
			stack := out.Stack
			if len(stack) == 0 {
				stack = debug.Stack()
			}
			attrs = append(attrs, slog.String("stack", string(stack)))
		}
	}
	r.logger.LogAttrs(ctx, level, r.op.Name, attrs...)
	return took
}

// result is the word for the outcome.
func (o Outcome) result() string {
	switch {
	case o.Result != "":
		return o.Result
	case o.Err != nil:
		return ResultFailed
	default:
		return ResultOK
	}
}

// level is how loud the outcome is told.
func (o Outcome) level() slog.Level {
	switch {
	case o.Err == nil && o.Routine:
		return slog.LevelDebug
	case o.Err == nil:
		return slog.LevelInfo
	case o.ErrorClass == "transient" || o.ErrorClass == "throttled" || o.ErrorClass == ClassRefused:
		return slog.LevelWarn
	default:
		return slog.LevelError
	}
}

// appendSet adds a field that has a value.
func appendSet(attrs []slog.Attr, key, value string) []slog.Attr {
	if value == "" {
		return attrs
	}
	return append(attrs, slog.String(key, value))
}
