package workflows_test

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"sync"
	"testing"
	"time"

	sdkpb "go.temporal.io/api/sdk/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// opening is when every run on a stage begins.
func opening() time.Time { return time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC) }

// after is a moment so long after the opening.
func after(d time.Duration) time.Time { return opening().Add(d) }

// stage runs one workflow in skipped time. The test plays the activities.
type stage struct {
	*testsuite.TestWorkflowEnvironment
	t *testing.T

	mu       sync.Mutex
	upserted []string // names of the search attributes, in order
	// versionsOf are the changes of whose version the run has asked, in order.
	versionsOf []string
}

func newStage(t *testing.T) *stage {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	s := &stage{TestWorkflowEnvironment: suite.NewTestWorkflowEnvironment(), t: t}
	s.SetStartTime(opening())
	// Skipped time is free; a run that never stops is caught by the real time that it takes.
	s.SetTestTimeout(time.Minute)
	s.SetWorkerOptions(worker.Options{
		Interceptors: []interceptor.WorkerInterceptor{&listener{stage: s}},
		// A busy machine is no deadlock.
		DeadlockDetectionTimeout: time.Minute,
	})
	workflows.Register(s)
	return s
}

// at has something done so long after the opening.
func (s *stage) at(d time.Duration, do func()) { s.RegisterDelayedCallback(do, d) }

// poke pokes the run so long after the opening.
func (s *stage) poke(d ...time.Duration) {
	for _, each := range d {
		s.at(each, func() { s.SignalWorkflow(workflows.SignalPoke, nil) })
	}
}

// finished fails the test unless the run ended by itself and well.
func (s *stage) finished() {
	s.t.Helper()
	if !s.IsWorkflowCompleted() {
		s.t.Fatal("the run did not end")
	}
	if err := s.GetWorkflowError(); err != nil {
		s.t.Fatal("the run ended with:", err)
	}
}

// continued answers the type and input of the run that this one continued as.
func continued[I any](s *stage) (workflowType string, next I) {
	s.t.Helper()
	again, ok := errors.AsType[*workflow.ContinueAsNewError](s.GetWorkflowError())
	if !ok {
		s.t.Fatalf("the run did not continue as new; it ended with %v", s.GetWorkflowError())
	}
	if err := converter.GetDefaultDataConverter().FromPayloads(again.Input, &next); err != nil {
		s.t.Fatal(err)
	}
	return again.WorkflowType.Name, next
}

// ask answers a query of the run.
func ask[A any](s *stage, query string) (answer A) {
	s.t.Helper()
	value, err := s.QueryWorkflow(query)
	if err == nil {
		err = value.Get(&answer)
	}
	if err != nil {
		s.t.Fatal("asking the run:", err)
	}
	return answer
}

// details is the text that an operator reads about the run.
func (s *stage) details() string {
	s.t.Helper()
	metadata := ask[*sdkpb.WorkflowMetadata](s, "__temporal_workflow_metadata")
	return metadata.GetCurrentDetails()
}

// listener notes what a run tells the server beside its activities.
type listener struct {
	interceptor.WorkerInterceptorBase
	stage *stage
}

func (l *listener) InterceptWorkflow(_ workflow.Context, next interceptor.WorkflowInboundInterceptor) interceptor.WorkflowInboundInterceptor {
	in := &inbound{stage: l.stage}
	in.Next = next
	return in
}

type inbound struct {
	interceptor.WorkflowInboundInterceptorBase
	stage *stage
}

func (i *inbound) Init(next interceptor.WorkflowOutboundInterceptor) error {
	out := &outbound{stage: i.stage}
	out.Next = next
	return i.Next.Init(out)
}

type outbound struct {
	interceptor.WorkflowOutboundInterceptorBase
	stage *stage
}

func (o *outbound) UpsertTypedSearchAttributes(ctx workflow.Context, attributes ...temporal.SearchAttributeUpdate) error {
	if err := o.Next.UpsertTypedSearchAttributes(ctx, attributes...); err != nil {
		return err
	}
	o.stage.mu.Lock()
	defer o.stage.mu.Unlock()
	values := temporal.NewSearchAttributes(attributes...)
	for key, value := range values.GetUntypedValues() {
		if text, ok := value.(string); ok {
			o.stage.upserted = append(o.stage.upserted, key.GetName()+"="+text)
		}
	}
	// What is taken back has no value to be seen: it takes away one that is there.
	failure := temporal.NewSearchAttributeKeyKeyword(workflows.SearchLastFailure)
	if _, kept := temporal.NewSearchAttributes(append([]temporal.SearchAttributeUpdate{failure.ValueSet("any")}, attributes...)...).GetKeyword(failure); !kept {
		o.stage.upserted = append(o.stage.upserted, workflows.SearchLastFailure+"=")
	}
	return nil
}

func (o *outbound) GetVersion(ctx workflow.Context, change string, least, most workflow.Version) workflow.Version {
	o.stage.mu.Lock()
	o.stage.versionsOf = append(o.stage.versionsOf, change)
	o.stage.mu.Unlock()
	return o.Next.GetVersion(ctx, change, least, most)
}

// performance is what was asked of one activity: its inputs and when each attempt began.
type performance[I any] struct {
	mu     sync.Mutex
	inputs []I
	began  []time.Time
}

// times is how often the activity was attempted.
func (p *performance[I]) times() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.began)
}

// since are the moments, counted from the opening, at which the attempts began, in whole seconds.
func (p *performance[I]) since() []time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	moments := make([]time.Duration, len(p.began))
	for i, at := range p.began {
		moments[i] = at.Sub(opening()).Truncate(time.Second)
	}
	return moments
}

// given are the inputs of the attempts.
func (p *performance[I]) given() []I {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.inputs
}

// endless is how many attempts a run that goes round in circles is allowed.
const endless = 500

// anything is the mock framework's own word for any argument.
const anything = "mock.Anything"

// play has an activity answered by the test. Attempt n, from zero, takes so long; takes may be
// nil for no time at all. An attempt begins when the run has asked for it, and answers when its
// time is over.
func play[I, R any](s *stage, activity any, takes func(n int) time.Duration, answer func(n int, in I) (R, error)) *performance[I] {
	p := &performance[I]{}
	s.OnActivity(activity, anything, anything).Maybe().
		AfterFn(func() time.Duration {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.began = append(p.began, s.Now())
			if len(p.began) == endless {
				s.t.Errorf("an activity was asked for %d times", endless)
				s.CancelWorkflow()
			}
			if takes == nil {
				return 0
			}
			return takes(len(p.began) - 1)
		}).
		Return(func(_ context.Context, in I) (R, error) {
			p.mu.Lock()
			n := len(p.inputs)
			p.inputs = append(p.inputs, in)
			p.mu.Unlock()
			return answer(n, in)
		})
	return p
}

// always makes every attempt take the same time.
func always(d time.Duration) func(int) time.Duration { return func(int) time.Duration { return d } }

// inTurn answers the results one after the other, and the last for ever.
func inTurn[I, R any](results ...R) func(int, I) (R, error) {
	return func(n int, _ I) (R, error) { return results[min(n, len(results)-1)], nil }
}

// permanently is how an activity says that trying again is of no use.
func permanently() error {
	return temporal.NewNonRetryableApplicationError("stripe: read customer: resource_missing (permanent)", "permanent", nil)
}

// equal fails the test unless what was got is what was wanted.
func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// The activities, named as the workflows name them.
type cast struct {
	users         *activities.Users
	customers     *activities.Customers
	subscriptions *activities.Subscriptions
	commands      *activities.Commands
	projections   *activities.Projections
	catalogue     *activities.Catalogue
	disputes      *activities.Disputes
	recovery      *activities.Recovery
	reconciler    *activities.Reconciler
	bulk          *activities.Bulk
}
