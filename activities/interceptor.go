package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"

	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/telemetry"
)

// Report is what one attempt of an activity came to.
type Report struct {
	Activity string
	Class    failure.Class // "" for success
	Attempt  int32
	Took     time.Duration
}

// NewInterceptor makes the one place where a failure becomes what Temporal understands, and
// where every attempt writes its one line. report may be nil.
func NewInterceptor(logger *slog.Logger, report func(Report)) interceptor.WorkerInterceptor {
	if report == nil {
		report = func(Report) {}
	}
	return &workerInterceptor{logger: logger, report: report}
}

type workerInterceptor struct {
	interceptor.WorkerInterceptorBase
	logger *slog.Logger
	report func(Report)
}

// InterceptActivity is called by the SDK for each attempt.
func (w *workerInterceptor) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	in := &activityInterceptor{worker: w}
	in.Next = next
	return in
}

type activityInterceptor struct {
	interceptor.ActivityInboundInterceptorBase
	worker *workerInterceptor
}

// ExecuteActivity runs one attempt.
func (a *activityInterceptor) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (result any, err error) {
	info := activity.GetInfo(ctx)
	running := telemetry.Begin(a.worker.logger, telemetry.Operation{
		Name: info.ActivityType.Name, Parameters: parameters(in.Args, info.Attempt),
		WorkflowID: info.WorkflowExecution.ID, RunID: info.WorkflowExecution.RunID,
	})
	var stack []byte
	stop := keepAlive(ctx, info.HeartbeatTimeout)
	defer func() {
		stop()
		if recover() != nil {
			// What was passed to panic may hold anything; where it happened is what helps.
			stack = debug.Stack()
			err = failure.New(failure.Transient, "worker", info.ActivityType.Name, "panic", nil)
		}
		class := failure.Of(err)
		outcome := telemetry.Outcome{Stack: stack}
		if err != nil {
			outcome.ErrorClass, outcome.Err = string(class), errors.New(safeText(err))
		} else {
			outcome.Result = compact(result)
		}
		took := running.End(ctx, outcome)
		a.worker.report(Report{Activity: info.ActivityType.Name, Class: class, Attempt: info.Attempt, Took: took})
		err = outward(err, info.Attempt)
	}()
	return a.Next.ExecuteActivity(ctx, in)
}

// keepAlive tells the server at intervals that this attempt is alive, where its workflow asked for
// that: the next attempt then need not wait for the end of this one's time, if this worker dies.
func keepAlive(ctx context.Context, timeout time.Duration) (stop func()) {
	if timeout <= 0 {
		return func() {}
	}
	done := make(chan struct{})
	var beating sync.WaitGroup
	beating.Go(func() {
		beat := time.NewTicker(timeout / 3)
		defer beat.Stop()
		for {
			select {
			case <-beat.C:
				activity.RecordHeartbeat(ctx)
			case <-done:
				return // also one that was cancelled lives until it has returned
			}
		}
	})
	return func() { close(done); beating.Wait() }
}

// parameters are an activity's input as log fields. Inputs hold ids and counters only: they
// stand in histories too.
func parameters(args []any, attempt int32) map[string]string {
	fields := map[string]string{"attempt": strconv.Itoa(int(attempt))}
	for _, arg := range args {
		raw, err := json.Marshal(arg)
		if err != nil {
			continue
		}
		var values map[string]any
		if json.Unmarshal(raw, &values) != nil {
			continue
		}
		for name, value := range values {
			fields[name] = fmt.Sprint(value)
		}
	}
	return fields
}

func compact(result any) string {
	raw, err := json.Marshal(result)
	if err != nil || string(raw) == "null" {
		return ""
	}
	return string(raw)
}

const (
	// mendedWithin is the longest pause before what a person had to mend is tried again, from the
	// attempt on at which the ordinary pauses would become longer.
	mendedWithin  = 10 * time.Second
	mendedAttempt = 4
)

// outward makes a failure an ApplicationError, the outermost error, as Temporal wants it: the
// type is the class, only permanent is not retried, and a provider that asks us to wait is
// waited for. What a person has to mend is tried often enough that it goes on soon after that.
func outward(err error, attempt int32) error {
	if err == nil || errors.Is(err, activity.ErrResultPending) {
		return err
	}
	class := failure.Of(err)
	options := temporal.ApplicationErrorOptions{
		NonRetryable:   class == failure.Permanent,
		NextRetryDelay: failure.RetryAfterOf(err),
	}
	if class == failure.Operator && options.NextRetryDelay == 0 && attempt >= mendedAttempt {
		options.NextRetryDelay = mendedWithin
	}
	if class == failure.Transient || class == failure.Throttled {
		options.Category = temporal.ApplicationErrorCategoryBenign
	}
	return temporal.NewApplicationErrorWithOptions(safeText(err), string(class), options)
}

// safeText is the text of a classified failure, of several the one that decides. Any other error
// may carry what it was about.
func safeText(err error) string {
	if known, ok := failure.Leading(err); ok {
		return known.Error()
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return "the attempt's time ran out"
	}
	return fmt.Sprintf("unexpected failure of type %T", err)
}
