package app

import (
	"context"
	"errors"

	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/nepfy/clerk-stripe-sync/internal/config"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/httpapi"
	"github.com/nepfy/clerk-stripe-sync/internal/inbox"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// checks are what /readyz looks at.
func checks(r *runtime, w *identityWatch) []httpapi.Check {
	return []httpapi.Check{
		{Name: "postgres", Probe: func(ctx context.Context) error { return shown(r.store.Ping(ctx)) }},
		{Name: "migrations", Probe: func(ctx context.Context) error { return migrated(ctx, r) }},
		{Name: "numbers", Probe: func(ctx context.Context) error { return numbered(ctx, r) }},
		{Name: "temporal", Probe: func(ctx context.Context) error { return temporalReady(ctx, r.temporal, r.namespace) }},
		{Name: "stripe", Probe: func(ctx context.Context) error { return shown(w.stripeState(ctx)) }},
		{Name: "clerk", Probe: func(ctx context.Context) error { return shown(w.clerkState(ctx)) }},
	}
}

// inboxCheck looks whether deliveries can be stored. It tries only where the last one could not be:
// a database that answers may still have no room.
func inboxCheck(r *runtime, w *inbox.Writer) httpapi.Check {
	return httpapi.Check{Name: "inbox", Probe: func(ctx context.Context) error {
		if w.Failure() == nil {
			return nil
		}
		err := r.store.TryAddEvents(ctx)
		if failure.Of(err) != failure.Operator {
			// Anything else that keeps this from being known is the database's own check's to say.
			return nil
		}
		switch failure.CodeOf(err) {
		case "53100":
			return httpapi.Reason("deliveries cannot be stored: the database's disk is full")
		case "25006":
			return httpapi.Reason("deliveries cannot be stored: the database is read-only")
		default:
			return httpapi.Reason("deliveries cannot be stored (" + failure.CodeOf(err) + ")")
		}
	}}
}

// schedulesCheck looks whether what is to be done regularly is: nothing else would tell that nobody
// looks for what slipped through.
func schedulesCheck(r *runtime, c config.Schedules) httpapi.Check {
	return httpapi.Check{Name: "schedules", Probe: func(ctx context.Context) error {
		for _, s := range schedules(c) {
			if s.every == 0 {
				continue
			}
			_, err := r.temporal.ScheduleClient().GetHandle(ctx, s.id).Describe(ctx)
			if _, missing := errors.AsType[*serviceerror.NotFound](err); missing {
				return httpapi.Reason(s.id + " is missing; run syncctl setup")
			}
			// Anything else that keeps this from being known is Temporal's own check's to say.
		}
		return nil
	}}
}

// shown makes of a classified failure something that may be shown to anyone.
func shown(err error) error {
	if err == nil {
		return nil
	}
	switch failure.Of(err) {
	case failure.Operator:
		return httpapi.Reason("refused (" + failure.CodeOf(err) + "); check the key or the permissions")
	case failure.Transient, failure.Throttled, failure.Permanent:
		if code := failure.CodeOf(err); code != "" {
			return httpapi.Reason("not reachable (" + code + ")")
		}
	}
	if errors.Is(err, errNotAsked) {
		return httpapi.Reason("no answer yet")
	}
	return err
}

func migrated(ctx context.Context, r *runtime) error {
	if err := r.store.Migrated(ctx); failure.Of(err) == failure.Operator {
		return httpapi.Reason("migrations are missing; run syncctl setup")
	}
	// Anything else that keeps this from being known is the database's own check's to say.
	return nil
}

// numbered looks whether the number sequence is past what is stored, and mends nothing.
func numbered(ctx context.Context, r *runtime) error {
	if err := r.store.NumbersBehind(ctx); store.IsBehind(err) {
		return httpapi.Reason("the number sequence is behind the stored numbers; run syncctl setup")
	}
	// Anything else that keeps this from being known is the database's own check's to say.
	return nil
}

const errNoNamespace = httpapi.Reason("the namespace does not exist")

func temporalReady(ctx context.Context, c client.Client, namespace string) error {
	attributes, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	switch {
	case isNamespaceGone(err):
		return errNoNamespace
	case isUnimplementedOrDenied(err):
		// Servers that keep this from clients, as Temporal Cloud does: reachable, and that is
		// all there is to know from here.
		return nil
	case err != nil:
		// The server may say no more than that it could not look.
		if _, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace}); isNamespaceGone(err) {
			return errNoNamespace
		}
		return httpapi.Reason("not reachable")
	}
	for _, name := range []string{workflows.SearchClerkUserID, workflows.SearchStripeCustomerID, workflows.SearchSubscriptionStatus, workflows.SearchLastFailure} {
		if _, ok := attributes.GetCustomAttributes()[name]; !ok {
			return httpapi.Reason("search attributes are missing; run syncctl setup")
		}
	}
	return nil
}

// isNamespaceGone tells whether there is no such namespace, or it is being deleted.
func isNamespaceGone(err error) bool {
	var missing *serviceerror.NamespaceNotFound
	var deleted *serviceerror.NamespaceInvalidState
	return errors.As(err, &missing) || errors.As(err, &deleted)
}

func isUnimplementedOrDenied(err error) bool {
	var unimplemented *serviceerror.Unimplemented
	var denied *serviceerror.PermissionDenied
	return errors.As(err, &unimplemented) || errors.As(err, &denied)
}
