package fences_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// A command sleeps while Stripe refuses it for now, or has not begun, and one that was asked for later is done meanwhile: the earlier one is
// not done after it. What was asked for last stands.
func TestAnEarlierCommandIsNotDoneAfterALaterOne(t *testing.T) {
	t.Parallel()
	for _, begun := range []bool{true, false} {
		for earlier, later := range map[store.Action]store.Action{store.ActionCancel: store.ActionReactivate, store.ActionReactivate: store.ActionCancel, store.ActionCancelNow: store.ActionReactivate} {
			l := newLab(t, policies{})
			s := l.subject(1)
			ends := "false"
			if later == store.ActionCancel {
				ends = "true"
			}
			if earlier == store.ActionReactivate {
				l.post("/v1/subscriptions/"+s.subscription, "cancel_at_period_end", "true")
				l.settle()
			}
			first := l.asks(s, earlier)
			if begun {
				restore := l.work.refuse("/v1/subscriptions/"+s.subscription, http.StatusServiceUnavailable, `{}`)
				if _, err := l.work.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: first, CustomerID: s.customer}); err == nil {
					t.Fatal("it was done at once")
				}
				restore()
				l.wants("acting", `SELECT status FROM operations WHERE id = $1`, first)
			}
			l.exec(`UPDATE operations SET created_at = created_at - interval '10 seconds' WHERE id = $1`, first)
			second := l.asks(s, later)
			l.must(l.work.apply(t.Context(), s, second))
			l.wants("done", `SELECT status FROM operations WHERE id = $1`, second)
			l.must(l.work.apply(t.Context(), s, first))
			l.wants("superseded changed_since", `SELECT status || ' ' || reason FROM operations WHERE id = $1`, first)
			l.settle()
			l.wants("active "+ends, `SELECT status || ' ' || cancel_at_period_end FROM subscriptions WHERE stripe_subscription_id = $1`, s.subscription)
			l.agree(s.user)
		}
	}
}

// A command's request is given up before it has arrived at Stripe, and a later command is done. When the request lands at last, before the
// earlier command is looked at again or after, what was asked for last stands.
func TestALateRequestOfAnEarlierCommandDoesNotHaveTheLastWord(t *testing.T) {
	t.Parallel()
	for i, earlier := range []store.Action{store.ActionReactivate, store.ActionCancel} {
		for _, landsFirst := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, lands first %t", earlier, landsFirst), func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{})
				s := l.subject(1)
				later := store.ActionReactivate
				if earlier == store.ActionReactivate {
					later = store.ActionCancel
					l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(s.subscription))
					l.settle()
				}
				a := l.actor(policies{})
				first := l.asks(s, earlier)
				land := a.delay(t, "POST /v1/subscriptions/"+s.subscription)
				if _, err := a.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: first, CustomerID: s.customer}); err == nil {
					t.Fatal("it was done")
				}
				l.exec(`UPDATE operations SET created_at = created_at - make_interval(secs => $1)`, 10*i) // or at once
				second := l.asks(s, later)
				l.must(l.work.apply(t.Context(), s, second))
				l.wants("done", `SELECT status FROM operations WHERE id = $1`, second)
				if landsFirst {
					if status := land(); status != http.StatusOK {
						t.Fatalf("the late request was answered %d", status)
					}
				}
				l.must(l.work.apply(t.Context(), s, first))
				if !landsFirst {
					if status := land(); status != http.StatusBadRequest {
						t.Errorf("the late request was answered %d", status)
					}
				}
				l.wants("superseded changed_since", `SELECT status || ' ' || reason FROM operations WHERE id = $1`, first)
				l.settle()
				if ends := l.endsByPeriod(s.subscription); ends != (later == store.ActionCancel) {
					t.Errorf("the last that was asked for is %s, and it ends with its period: %t", later, ends)
				}
				l.agree(s.user)
			})
		}
	}
}

// A command is outdone, and then somebody changes the same at Stripe: that is theirs, whether or not the command's request had arrived before
// the later one was done.
func TestACommandThatIsOutdoneLeavesOthersChangesAlone(t *testing.T) {
	t.Parallel()
	for _, arrived := range []bool{false, true} {
		t.Run(fmt.Sprintf("it had arrived %t", arrived), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			a := l.actor(policies{})
			first := l.asks(s, store.ActionCancel)
			if arrived {
				a.lose("POST /v1/subscriptions/")
			} else {
				a.delay(t, "POST /v1/subscriptions/")
			}
			if _, err := a.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: first, CustomerID: s.customer}); err == nil {
				t.Fatal("it was done")
			}
			second := l.asks(s, store.ActionReactivate)
			l.must(l.work.apply(t.Context(), s, second))
			l.wants("done", `SELECT status FROM operations WHERE id = $1`, second)
			l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(s.subscription)) // in Stripe's portal
			_, err := l.work.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: first, CustomerID: s.customer, GaveWay: true})
			l.must(err)
			l.wants("superseded changed_since", `SELECT status || ' ' || reason FROM operations WHERE id = $1`, first)
			l.settle()
			if !l.endsByPeriod(s.subscription) {
				t.Error("what was changed in the portal was taken back")
			}
			l.agree(s.user)
		})
	}
}

// Of commands that are asked for at once, the first could not be done and gave way to the second: that one has the last word.
func TestACommandThatGaveWayIsNotDoneAfterALaterOne(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	first, second := l.asks(s, store.ActionCancel), l.asks(s, store.ActionReactivate)
	l.must(l.work.apply(t.Context(), s, second))
	_, err := l.work.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: first, CustomerID: s.customer, GaveWay: true})
	l.must(err)
	l.wants("superseded changed_since", `SELECT status || ' ' || reason FROM operations WHERE id = $1`, first)
	l.settle()
	l.wants("active false", `SELECT status || ' ' || cancel_at_period_end FROM subscriptions WHERE stripe_subscription_id = $1`, s.subscription)
	l.agree(s.user)
}

// Commands that are asked for at once have no order: each is done, and the one that the workflow receives last stands.
func TestCommandsAskedForAtOnceAreAllDone(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	first, second := l.asks(s, store.ActionCancel), l.asks(s, store.ActionReactivate)
	l.must(l.work.apply(t.Context(), s, second))
	l.must(l.work.apply(t.Context(), s, first))
	l.wants("2", `SELECT count(*) FROM operations WHERE status = 'done' AND id IN ($1, $2)`, first, second)
	l.settle()
	l.wants("active true", `SELECT status || ' ' || cancel_at_period_end FROM subscriptions WHERE stripe_subscription_id = $1`, s.subscription)
	l.agree(s.user)
}
