package activities_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

// attempted is what came of one attempt of an activity behind the interceptor.
type attempted struct {
	raw    error // what the interceptor hands to the SDK
	result string
	err    error // what a workflow would get
	report activities.Report
	logs   string
}

// tryOnce makes one attempt of an activity that does what is given.
func tryOnce(t *testing.T, do func(context.Context, activities.UserInput) (string, error)) attempted {
	t.Helper()
	var a attempted
	var logs bytes.Buffer
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestActivityEnvironment()
	env.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{
		&catcher{caught: &a.raw}, // the first is the outermost
		activities.NewInterceptor(slog.New(slog.NewJSONHandler(&logs, nil)), func(r activities.Report) { a.report = r }),
	}})
	env.RegisterActivityWithOptions(do, activity.RegisterOptions{Name: "DoSomething"})
	value, err := env.ExecuteActivity("DoSomething", activities.UserInput{ClerkUserID: "user_1"})
	if a.err = err; err == nil {
		if err := value.Get(&a.result); err != nil {
			t.Fatal(err)
		}
	}
	a.logs = logs.String()
	return a
}

// catcher sees an error as the SDK gets it.
type catcher struct {
	interceptor.WorkerInterceptorBase
	caught *error
}

func (c *catcher) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	in := &catching{caught: c.caught}
	in.Next = next
	return in
}

type catching struct {
	interceptor.ActivityInboundInterceptorBase
	caught *error
}

func (c *catching) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	result, err := c.Next.ExecuteActivity(ctx, in)
	*c.caught = err
	return result, err
}

const (
	aSecret  = "ada@example.com"
	safeCode = "clerk: read user: http_503"
)

func failing(class failure.Class) *failure.Error {
	return failure.New(class, "clerk", "read user", "http_503", errors.New(aSecret))
}

func throttled(after time.Duration) *failure.Error {
	e := failing(failure.Throttled)
	e.RetryAfter = after
	return e
}

// The class is the type, only permanent is not tried again, who asks to be left alone for a
// while is, and nothing of what an error is about gets out, however it was wrapped.
func TestFailuresAsTemporalGetsThem(t *testing.T) {
	t.Parallel()
	canceled := failure.New(failure.Transient, "stripe", "read customer", "timeout", fmt.Errorf("%s: %w", aSecret, context.DeadlineExceeded))
	for name, c := range map[string]struct {
		err    error
		class  string
		final  bool
		pause  time.Duration
		text   string
		isOurs bool // a class that somebody has to look at
	}{
		"transient":             {err: failing(failure.Transient), class: "transient", text: safeCode + " (transient)"},
		"throttled":             {err: throttled(7 * time.Second), class: "throttled", pause: 7 * time.Second, text: safeCode + " (throttled)"},
		"throttled, no time":    {err: throttled(0), class: "throttled", text: safeCode + " (throttled)"},
		"operator":              {err: failing(failure.Operator), class: "operator", text: safeCode + " (operator)", isOurs: true},
		"permanent":             {err: failing(failure.Permanent), class: "permanent", final: true, text: safeCode + " (permanent)", isOurs: true},
		"permanent, wrapped":    {err: fmt.Errorf("%s: %w", aSecret, failing(failure.Permanent)), class: "permanent", final: true, text: safeCode + " (permanent)", isOurs: true},
		"permanent, joined":     {err: errors.Join(errors.New(aSecret), failing(failure.Permanent)), class: "permanent", final: true, text: safeCode + " (permanent)", isOurs: true},
		"out of time":           {err: fmt.Errorf("%s: %w", aSecret, context.DeadlineExceeded), class: "transient", text: "the attempt's time ran out"},
		"told to stop":          {err: fmt.Errorf("%s: %w", aSecret, context.Canceled), class: "transient", text: "the attempt's time ran out"},
		"out of time, by class": {err: canceled, class: "transient", text: "stripe: read customer: timeout (transient)"},
		"unknown":               {err: errors.New(aSecret), class: "transient", text: "unexpected failure of type *errors.errorString"},
		"unknown, not retried by the SDK": {
			err: temporal.NewNonRetryableApplicationError(aSecret, aSecret, errors.New(aSecret), aSecret), class: "transient",
			text: "unexpected failure of type *internal.ApplicationError",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := tryOnce(t, func(context.Context, activities.UserInput) (string, error) { return aSecret, c.err })
			// Outermost: Temporal looks at no other.
			app, ok := a.raw.(*temporal.ApplicationError)
			if !ok {
				t.Fatalf("Temporal gets a %T", a.raw)
			}
			if app.Type() != c.class || app.NonRetryable() != c.final || app.NextRetryDelay() != c.pause {
				t.Errorf("type %s, final %t, pause %s", app.Type(), app.NonRetryable(), app.NextRetryDelay())
			}
			if app.Message() != c.text {
				t.Errorf("text %q, want %q", app.Message(), c.text)
			}
			if app.Unwrap() != nil || app.HasDetails() {
				t.Errorf("it carries %v, details %t", app.Unwrap(), app.HasDetails())
			}
			if benign := app.Category() == temporal.ApplicationErrorCategoryBenign; benign == c.isOurs {
				t.Errorf("benign: %t", benign)
			}
			if strings.Contains(fmt.Sprintf("%v %+v", a.err, a.raw), aSecret) || strings.Contains(a.logs, aSecret) {
				t.Errorf("a secret gets out: %v; log: %s", a.err, a.logs)
			}
			if string(a.report.Class) != c.class || a.report.Activity != "DoSomething" || a.report.Attempt != 1 {
				t.Errorf("report: %+v", a.report)
			}
		})
	}
}

func TestASuccessIsLeftAlone(t *testing.T) {
	t.Parallel()
	a := tryOnce(t, func(context.Context, activities.UserInput) (string, error) { return "cus_1", nil })
	if a.raw != nil || a.err != nil || a.result != "cus_1" || a.report.Class != "" || a.report.Activity != "DoSomething" {
		t.Errorf("got %+v", a)
	}
	for _, part := range []string{`"operation":"DoSomething"`, `"result":`, `"clerkUserId":"user_1"`, `"attempt":"1"`, `"workflow_id":`, `"duration_ms":`} {
		if !strings.Contains(a.logs, part) {
			t.Errorf("the log lacks %s: %s", part, a.logs)
		}
	}
	if n := strings.Count(a.logs, "\n"); n != 1 {
		t.Errorf("%d lines: %s", n, a.logs)
	}
}

// An activity that panics is tried again, as after any accident. Where it happened is logged;
// what was thrown may hold anything and is not.
func TestAPanicIsAFailure(t *testing.T) {
	t.Parallel()
	for name, thrown := range map[string]any{
		"text": aSecret, "error": errors.New(aSecret), "failure": failing(failure.Permanent),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := tryOnce(t, func(context.Context, activities.UserInput) (string, error) { panic(thrown) })
			app, ok := a.raw.(*temporal.ApplicationError)
			if !ok || app.Type() != "transient" || app.NonRetryable() || app.Message() != "worker: DoSomething: panic (transient)" {
				t.Errorf("Temporal gets %v", a.raw)
			}
			if strings.Contains(a.err.Error()+a.logs, aSecret) {
				t.Errorf("a secret gets out: %v; log: %s", a.err, a.logs)
			}
			if !strings.Contains(a.logs, `"stack":`) || !strings.Contains(a.logs, "interceptor_test.go") {
				t.Errorf("the log does not say where: %s", a.logs)
			}
			if a.report.Class != failure.Transient {
				t.Errorf("report: %+v", a.report)
			}
		})
	}
}

// An activity that is completed by somebody else has not failed.
func TestAPendingResultIsNoFailure(t *testing.T) {
	t.Parallel()
	a := tryOnce(t, func(context.Context, activities.UserInput) (string, error) { return "", activity.ErrResultPending })
	if !errors.Is(a.raw, activity.ErrResultPending) {
		t.Errorf("Temporal gets %v", a.raw)
	}
}
