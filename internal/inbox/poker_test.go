package inbox_test

import (
	"context"
	"errors"
	"reflect"
	"runtime"
	"strings"
	"testing"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/inbox"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// server is a Temporal client that takes note of what it is asked for.
type server struct {
	client.Client // of which nothing else is called

	calls    int
	id       string
	signal   string
	argument any
	options  client.StartWorkflowOptions
	workflow any
	inputs   []any
	err      error
}

// SignalWithStartWorkflow implements client.Client.
func (s *server) SignalWithStartWorkflow(_ context.Context, id, signal string, argument any, options client.StartWorkflowOptions, workflow any, inputs ...any) (client.WorkflowRun, error) {
	s.calls++
	s.id, s.signal, s.argument, s.options, s.workflow, s.inputs = id, signal, argument, options, workflow, inputs
	return nil, s.err
}

func nameOf(function any) string {
	name := runtime.FuncForPC(reflect.ValueOf(function).Pointer()).Name()
	return name[strings.LastIndex(name, ".")+1:]
}

// Every entity is poked at its own workflow, with an empty signal, and found by its id.
func TestPokerTargets(t *testing.T) {
	t.Parallel()
	clerk := temporal.NewSearchAttributes(temporal.NewSearchAttributeKeyKeyword("ClerkUserId").ValueSet("user_1"))
	stripe := temporal.NewSearchAttributes(temporal.NewSearchAttributeKeyKeyword("StripeCustomerId").ValueSet("cus_1"))
	for _, c := range []struct {
		entity     account.Entity
		job        account.Job
		workflow   string
		input      any
		attributes temporal.SearchAttributes
	}{
		{"user/user_1", account.JobSync, "UserProfileSync", workflows.UserWorkflowInput{ClerkUserID: "user_1"}, clerk},
		{"user/user_1", account.JobOnboard, "UserOnboarding", workflows.UserWorkflowInput{ClerkUserID: "user_1"}, clerk},
		{"user/user_1", account.JobOffboard, "UserOffboarding", workflows.UserWorkflowInput{ClerkUserID: "user_1"}, clerk},
		{"user/user_1", 0, "UserProfileSync", workflows.UserWorkflowInput{ClerkUserID: "user_1"}, clerk},
		{"customer/cus_1", account.JobSync, "SubscriptionLifecycle", workflows.SubscriptionLifecycleInput{CustomerID: "cus_1"}, stripe},
		{"product/prod_1", account.JobSync, "CatalogueSync", workflows.CatalogueSyncInput{ProductID: "prod_1"}, temporal.SearchAttributes{}},
		{"charge/ch_1", account.JobSync, "DisputeRouting", workflows.DisputeRoutingInput{ChargeID: "ch_1"}, temporal.SearchAttributes{}},
	} {
		s := &server{}
		if err := (inbox.TemporalPoker{Client: s}).Poke(t.Context(), c.entity, c.job, c.job == account.JobOnboard); err != nil {
			t.Fatal(err)
		}
		if s.id != string(c.entity) || s.options.ID != string(c.entity) || nameOf(s.workflow) != c.workflow || !reflect.DeepEqual(s.inputs, []any{c.input}) {
			t.Errorf("%s, job %d: %s at %q (%q) with %+v", c.entity, c.job, nameOf(s.workflow), s.id, s.options.ID, s.inputs)
		}
		var want any
		if c.job == account.JobOnboard {
			want = workflows.Poke{Urgent: true}
		}
		if s.signal != workflows.SignalPoke || s.argument != want {
			t.Errorf("%s: signal %q with %v, want a poke with %v", c.entity, s.signal, s.argument, want)
		}
		if s.options.TaskQueue != workflows.QueueMain || s.options.WorkflowIDReusePolicy != enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE {
			t.Errorf("%s: options %+v", c.entity, s.options)
		}
		if !reflect.DeepEqual(s.options.TypedSearchAttributes.GetUntypedValues(), c.attributes.GetUntypedValues()) {
			t.Errorf("%s: search attributes %v", c.entity, s.options.TypedSearchAttributes.GetUntypedValues())
		}
	}
}

// What is no entity can never be poked, and Temporal is not asked.
func TestPokerNoEntity(t *testing.T) {
	t.Parallel()
	for _, entity := range []account.Entity{"", "user/", "/user_1", "order/or_1", "user_1"} {
		s := &server{}
		if err := (inbox.TemporalPoker{Client: s}).Poke(t.Context(), entity, account.JobSync, false); failure.Of(err) != failure.Permanent || s.calls != 0 {
			t.Errorf("%q: %v after %d calls", entity, err, s.calls)
		}
	}
}

// What Temporal says goes wrong is told by what is to be done about it.
func TestPokerFailures(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err   error
		class failure.Class
		code  string
	}{
		{serviceerror.NewUnavailable("connection refused"), failure.Transient, "unavailable"},
		{errors.New("anything else"), failure.Transient, "unavailable"},
		{context.DeadlineExceeded, failure.Transient, "unavailable"},
		{serviceerror.NewNamespaceNotFound("secret-namespace"), failure.Operator, "namespace_missing"},
		{serviceerror.NewPermissionDenied("secret", ""), failure.Operator, "permission_denied"},
		{serviceerror.NewInvalidArgument("secret search attribute"), failure.Operator, "invalid_argument"},
		{serviceerror.NewResourceExhausted(enumspb.RESOURCE_EXHAUSTED_CAUSE_RPS_LIMIT, "too fast"), failure.Throttled, "resource_exhausted"},
	} {
		err := (inbox.TemporalPoker{Client: &server{err: c.err}}).Poke(t.Context(), "user/user_1", account.JobSync, false)
		if failure.Of(err) != c.class || failure.CodeOf(err) != c.code || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v: %v, want %s %s", c.err, err, c.class, c.code)
		}
	}
}
