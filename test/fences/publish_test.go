package fences_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// behind is a user whose newest projection Clerk does not hold yet.
func (l *lab) behind(name string) (user, subscription string) {
	l.t.Helper()
	user, customer, subscription := l.subscribed(name)
	l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(subscription))
	l.unpoked()
	l.must(l.work.record(l.t.Context(), customer))
	l.wants("1", `SELECT projection_version - published_version FROM person_user WHERE clerk_user_id = $1`, user)
	return user, subscription
}

// newer changes the subscription once more and records it, without publishing.
func (l *lab) newer(user, subscription string) {
	l.t.Helper()
	l.must(l.Sandbox.Stripe.Reactivate(subscription))
	l.unpoked()
	l.must(l.work.record(l.t.Context(), l.customerOf(user)))
}

// A publisher stalls between its write and its record, and meanwhile another writes a newer
// projection. The first then records the lower version, which it wrote before the newer one or,
// for all it knows, after it: and Clerk ends with the newest.
func TestPublisherStalledBetweenWriteAndRecord(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]string{
		"its write came first": "answered PATCH /v1/users/",
		"its write came last":  "ask PATCH /v1/users/",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, subscription := l.behind("ada")
			slow := l.actor(policies{})
			stalled := slow.arm(t, at, 0)
			done := begin(func() error { return slow.publish(t.Context(), user, false) })
			reach(t, stalled, done)
			l.newer(user, subscription)
			l.must(l.work.publish(t.Context(), user, false))
			l.agree(user)
			stalled.release()
			wait(t, done)
			l.agree(user)
			l.wants("0", `SELECT projection_version - published_version FROM person_user WHERE clerk_user_id = $1`, user)
		})
	}
}

// The stalled publisher overwrites the newer projection, records the lower version, and dies. The
// record says what Clerk holds, and so whoever comes next writes.
func TestPublisherDiesAfterRecordingAnOlderVersion(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, subscription := l.behind("ada")
	slow := l.actor(policies{})
	stalled := slow.arm(t, "ask PATCH /v1/users/", 0)
	ctx, die := context.WithCancel(t.Context())
	defer die()
	done := begin(func() error { return slow.publish(ctx, user, false) })
	reach(t, stalled, done)
	l.newer(user, subscription)
	l.must(l.work.publish(t.Context(), user, false))
	again := slow.arm(t, "ask PATCH /v1/users/", 0)
	stalled.release()
	reach(t, again, done)
	die()
	again.release()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("the dying publisher ended with %v", err)
	}
	l.wants("-1", `SELECT published_version - projection_version FROM person_user WHERE clerk_user_id = $1`, user)
	// The sweep comes back to it.
	l.exec(`UPDATE person_user SET publish_retry_at = now()`)
	if _, err := l.Store.Sweep(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	l.settle()
	l.agree(user)
}

// An attempt times out; its request is still on its way. Somebody else publishes a newer version
// and records it, and then the late request lands. The next attempt finds nothing due, and writes
// all the same: only that mends what its predecessor's request did.
func TestRetryOfAPublishNeverSkips(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, subscription := l.behind("ada")
	slow := l.actor(policies{})
	land := slow.delay(t, "PATCH /v1/users/")
	second := slow.arm(t, "FROM person_user WHERE clerk_user_id", 1)

	env := patient()
	env.RegisterActivity(slow.projections)
	done := begin(func() error {
		env.ExecuteWorkflow(publishOnce, activities.PublishInput{ClerkUserID: user})
		return env.GetWorkflowError()
	})
	reach(t, second, done)
	l.newer(user, subscription)
	l.must(l.work.publish(t.Context(), user, false))
	l.agree(user)
	if status := land(); status >= http.StatusMultipleChoices {
		t.Fatalf("a late request was answered %d", status)
	}
	if l.Agreement(t.Context(), user, access()) == nil {
		t.Fatal("the late request changed nothing")
	}
	second.release()
	wait(t, done)
	l.agree(user)
}

// publishOnce publishes as the workflows do.
func publishOnce(ctx workflow.Context, in activities.PublishInput) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: time.Minute, RetryPolicy: &temporal.RetryPolicy{InitialInterval: time.Second, MaximumAttempts: 3},
	})
	var projections *activities.Projections
	return workflow.ExecuteActivity(ctx, projections.PublishProjection, in).Get(ctx, nil)
}

// A request that timed out lands when everything is long done. Nothing here knows of it but the
// user.updated that it causes; that is enough.
func TestLateWriteAtClerkIsHealedByItsOwnEcho(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, subscription := l.behind("ada")
	slow := l.actor(policies{})
	land := slow.delay(t, "PATCH /v1/users/")
	if err := slow.publish(t.Context(), user, false); err == nil {
		t.Fatal("the publisher did not notice that its request was lost")
	}
	l.must(l.work.publish(t.Context(), user, false))
	l.newer(user, subscription)
	l.must(l.work.publish(t.Context(), user, false))
	l.settle()
	l.agree(user)
	if status := land(); status >= http.StatusMultipleChoices {
		t.Fatalf("a late request was answered %d", status)
	}
	if l.Agreement(t.Context(), user, access()) == nil {
		t.Fatal("the late request changed nothing")
	}
	l.wants("0", `SELECT projection_version - published_version FROM person_user WHERE clerk_user_id = $1`, user)
	l.settle()
	l.agree(user)
}

// Two publishers of a changing projection meet in every way; Clerk ends with the newest.
func TestTwoPublishersMeet(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, customer, subscription := l.subscribed("ada")
	paused := false
	l.explore(policies{}, func() scene {
		toggle := func() error {
			if paused = !paused; paused {
				return l.Sandbox.Stripe.PauseCollection(subscription)
			}
			return l.Sandbox.Stripe.ResumeCollection(subscription)
		}
		l.must(toggle())
		l.unpoked()
		l.must(l.work.record(t.Context(), customer))
		return scene{
			first: func(ctx context.Context, a *actor) error { return a.publish(ctx, user, false) },
			second: func(ctx context.Context, b *actor) error {
				return errors.Join(toggle(), b.lookAtCustomer(ctx, customer))
			},
			check: func() {
				l.agree(user)
				l.wants("0", `SELECT projection_version - published_version FROM person_user WHERE clerk_user_id = $1`, user)
			},
		}
	})
}

// A publisher that has failed rests, but not for what somebody waits for: that tries at once.
func TestWhatIsAwaitedIsPublishedThoughPublishersRest(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	a := l.actor(policies{})
	a.subscriptions.Prompt = &activities.PromptPublisher{Projections: a.projections, Rest: time.Hour}
	record := func() activities.RecordResult {
		t.Helper()
		result, err := a.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: s.customer})
		l.must(err)
		return result
	}
	l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(s.subscription))
	restore := a.answer("PATCH /v1/users/", 503, `{}`)
	if result := record(); !result.PublishDue || result.Awaited {
		t.Fatalf("Clerk did not fail: %+v", result)
	}
	restore()
	if result := record(); !result.PublishDue {
		t.Fatalf("the publisher did not rest: %+v", result)
	}
	_, _, err := l.Store.BeginOperation(t.Context(), store.NewOperation{RequestHash: []byte("r"), Caller: s.user, Action: store.ActionSync, ClerkUserID: s.user,
		Entity: account.UserEntity(s.user), Lifetime: time.Hour})
	l.must(err)
	if result := record(); result.PublishDue || result.Published == 0 || !result.Awaited {
		t.Errorf("somebody waits, and the publisher rested: %+v", result)
	}
	l.exec(`UPDATE person_user SET published_version = 0`)
	if result, err := a.users.SyncUser(t.Context(), activities.UserInput{ClerkUserID: s.user}); err != nil || !result.Awaited || !result.PublishDue {
		t.Errorf("the user's own look does not know that somebody waits: %+v, %v", result, err)
	}
}

// What waits for a customer whom Stripe does not have ends: a return from a checkout fails, and a
// sync is done without that one.
func TestNobodyWaitsForACustomerWhomStripeDoesNotHave(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	ask := func(n store.NewOperation) string {
		n.RequestHash, n.Caller, n.ClerkUserID, n.Lifetime = []byte("r"), s.user, s.user, time.Hour
		op, _, err := l.Store.BeginOperation(t.Context(), n)
		l.must(err)
		return op.ID
	}
	returned := ask(store.NewOperation{Action: store.ActionReturn, Entity: account.CustomerEntity(s.customer), SubscriptionID: "sub_other"})
	synced := ask(store.NewOperation{Action: store.ActionSync, Entity: account.UserEntity(s.user)})
	restore := l.work.answer(s.customer, 404, `{"error":{"type":"invalid_request_error","code":"resource_missing","message":"No such customer"}}`)
	defer restore()
	if result, err := l.work.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: s.customer}); err != nil || result.RereadAfter == 0 {
		t.Errorf("who has just come back is not waited for: %+v, %v", result, err)
	}
	l.exec(`UPDATE operations SET created_at = created_at - interval '31 seconds'`)
	l.must(l.work.lookAtCustomer(t.Context(), s.customer))
	l.must(l.work.lookAtUser(t.Context(), s.user))
	for id, want := range map[string]string{returned: "failed customer_not_found", synced: "done "} {
		op, err := l.Store.Operation(t.Context(), id)
		l.must(err)
		if got := string(op.Status) + " " + op.Reason; got != want {
			t.Errorf("the %s is %q, want %q", op.Action, got, want)
		}
	}
}

// Somebody has paid, and comes back. Clerk answers the write of their metadata, or a read of them,
// with 404 once: they are not told that there is no such user.
func TestOneNotFoundOfClerkFailsNothing(t *testing.T) {
	t.Parallel()
	for _, asked := range []string{"GET", "PATCH"} {
		t.Run(asked, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, customer := l.signUp("ada")
			bought := l.buy(stripesim.CheckoutSpec{CustomerID: customer, ClientReferenceID: user})
			begin := func(n store.NewOperation) string {
				n.RequestHash, n.Caller, n.ClerkUserID, n.Lifetime = []byte("r"), user, user, time.Hour
				op, _, err := l.Store.BeginOperation(t.Context(), n)
				l.must(err)
				return op.ID
			}
			returned := begin(store.NewOperation{Action: store.ActionReturn, Entity: account.CustomerEntity(customer), SubscriptionID: bought.SubscriptionID})
			synced := begin(store.NewOperation{Action: store.ActionSync, Entity: account.UserEntity(user)})
			l.unpoked()
			l.must(l.work.record(t.Context(), customer))
			remove := l.Sandbox.ClerkFaults.Add(faults.Rule{Method: asked, PathPrefix: "/v1/users/" + user, Status: http.StatusNotFound, Times: 1})
			err := l.work.lookAtUser(t.Context(), user)
			if err == nil {
				err = l.work.publish(t.Context(), user, false)
			}
			if asked == "GET" {
				l.must(err)
			} else if failure.Of(err) != failure.Transient {
				t.Errorf("it is not tried again: %v", err)
			}
			remove()
			l.must(l.work.lookAtUser(t.Context(), user))
			l.must(l.work.publish(t.Context(), user, false))
			for _, id := range []string{returned, synced} {
				op, err := l.Store.Operation(t.Context(), id)
				l.must(err)
				if op.Status != store.OperationDone {
					t.Errorf("the %s is %s %s", op.Action, op.Status, op.Reason)
				}
			}
		})
	}
}
