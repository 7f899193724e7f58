package workflows_test

import (
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// gone is how a provider that does not answer fails.
func gone() error { return temporal.NewApplicationError("gone", "transient") }

// Clerk was gone for a while and is back, and an earlier publish sleeps until its next attempt: a command does not wait for that. Its own
// publish tries at once, and the command is answered with that.
func TestACommandDoesNotWaitForAPublishThatSleeps(t *testing.T) {
	t.Parallel()
	var over_, back bool
	l := newLifecycle(t, script{
		record: func(_ int, _ activities.RecordInput) (activities.RecordResult, error) {
			if over_ {
				return over(), nil
			}
			return publishDue(live()), nil
		},
		apply: applies(recorded()),
		publish: func(int, activities.PublishInput) (activities.PublishResult, error) {
			if !back {
				return activities.PublishResult{}, gone()
			}
			return activities.PublishResult{Version: 2}, nil
		},
	})
	l.at(100*time.Second, func() { back = true })
	answer := l.command(101*time.Second, opCancel, 10*time.Second)
	stopAt(l, time.Hour, &over_)
	l.run()
	l.finished()
	answer.is(t, true, 101*time.Second)
	given := l.publish.given()
	if last := given[len(given)-1]; !last.Forced {
		t.Error("the publish that takes the place of one that sleeps may skip, though the other may have written")
	}
}

// Stripe was gone for a while and is back, and a look or another command sleeps until its next attempt: a command does not wait for that
// either, nor does one that is asked for again. What was given up is done behind it.
func TestACommandDoesNotWaitForWhatSleepsOnTheCustomer(t *testing.T) {
	t.Parallel()
	for _, sleeps := range []string{"a look", "another command", "itself"} {
		t.Run(sleeps, func(t *testing.T) {
			t.Parallel()
			var over_, back bool
			done := settledAs(store.OperationDone)
			l := newLifecycle(t, script{
				record: func(_ int, _ activities.RecordInput) (activities.RecordResult, error) {
					switch {
					case over_:
						return over(), nil
					case !back && (sleeps == "a look"):
						return activities.RecordResult{}, gone()
					}
					return live(), nil
				},
				apply: func(int, activities.CommandInput) (activities.CommandResult, error) {
					if !back {
						return activities.CommandResult{}, gone()
					}
					return done, nil
				},
			})
			first := opReactivate
			if sleeps == "itself" {
				first = opCancel
			}
			if sleeps != "a look" {
				l.at(time.Second, func() {
					l.UpdateWorkflow(workflows.UpdateCommand, "early", &testsuite.TestUpdateCallback{OnReject: func(err error) { t.Error(err) }, OnAccept: func() {},
						OnComplete: func(any, error) {}}, workflows.CommandRequest{OperationID: first, ExpiresAt: after(day), Wait: time.Second})
				})
			}
			l.at(100*time.Second, func() { back = true })
			answer := l.command(101*time.Second, opCancel, 10*time.Second)
			stopAt(l, time.Hour, &over_)
			l.run()
			l.finished()
			answer.is(t, true, 101*time.Second)
			if sleeps == "another command" {
				given, since := l.apply.given(), l.apply.since()
				n := len(given)
				if given[n-1].OperationID == given[n-2].OperationID || since[n-1] > 102*time.Second {
					t.Errorf("the two were done as %v after %v", given, since)
				}
			}
		})
	}
}
