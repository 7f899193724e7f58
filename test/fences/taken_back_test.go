package fences_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// A command is being taken back, since Clerk refuses it for good, and the request for that is on
// its way when another one is asked for: it is not done behind that one.
func TestWhatIsTakenBackIsNotTakenBackBehindALaterCommand(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	a := l.actor(policies{})
	first := l.asks(s, store.ActionCancel)
	in := activities.CommandInput{OperationID: first, CustomerID: s.customer}
	_, err := l.work.commands.ApplyCommand(t.Context(), in)
	l.must(err)
	land := a.delay(t, "POST /v1/subscriptions/"+s.subscription)
	if _, err := a.commands.UndoCommand(t.Context(), in); err == nil {
		t.Fatal("it was undone")
	}
	second := l.asks(s, store.ActionCancel)
	l.must(l.work.apply(t.Context(), s, second))
	if status := land(); status != http.StatusBadRequest {
		t.Errorf("the late request was answered %d", status)
	}
	_, err = l.work.commands.UndoCommand(t.Context(), in)
	l.must(err)
	l.settle()
	l.ended(first, "superseded changed_since")
	l.ended(second, "done")
	if !l.endsByPeriod(s.subscription) {
		t.Error("the cancel was asked for last and is done, and the subscription renews")
	}
	l.agree(s.user)
}

// The same is asked for twice. The second finds it done by the first, which Clerk's refusal takes
// back: the second is undone with it, and not told as done when Clerk takes something again.
func TestWhatIsTakenBackIsNotDoneForAnother(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	first, second := l.asks(s, store.ActionCancel), l.asks(s, store.ActionCancel)
	for _, op := range []string{first, second} {
		_, err := l.work.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: op, CustomerID: s.customer})
		l.must(err)
		l.ended(op, "recorded")
	}
	l.must(l.work.undo(t.Context(), s, first))
	l.settle()
	l.must(l.work.publish(t.Context(), s.user, false))
	for _, op := range []string{first, second} {
		if status, ends := l.became(s, op); status != "undone" || ends != "never" {
			t.Errorf("it is %s, and the subscription ends %s", status, ends)
		}
		if l.told(op) != "recorded undone" {
			t.Errorf("the audit log tells %s", l.told(op))
		}
	}
	l.agree(s.user)
}

// Clerk refuses what a cancel has made, for good, so that it is taken back. Stripe does so, and the
// answer is lost. Before the next attempt a look shows the customer as before, which Clerk takes.
// The command is undone then, and not done.
func TestWhatIsTakenBackIsNotToldAsDone(t *testing.T) {
	t.Parallel()
	for _, looked := range []bool{false, true} {
		t.Run(map[bool]string{false: "control", true: "looked at meanwhile"}[looked], func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			op := l.asks(s, store.ActionCancel)
			in := activities.CommandInput{OperationID: op, CustomerID: s.customer}
			_, err := l.work.commands.ApplyCommand(t.Context(), in)
			l.must(err)
			l.ended(op, "recorded")
			// Clerk refuses it (nothing is published), so that it is taken back.
			l.work.lose("POST /v1/subscriptions/" + s.subscription)
			if _, err := l.work.commands.UndoCommand(t.Context(), in); err == nil {
				t.Fatal("the answer was not lost")
			}
			if l.ends(s) {
				t.Fatal("it was not taken back")
			}
			if looked {
				l.settle() // the look that Stripe's event brings about, and the publish of what it shows, which Clerk has taken before
			}
			l.must(l.work.undo(t.Context(), s, op))
			l.settle()
			l.must(l.work.publish(t.Context(), s.user, false))
			status, ends := l.became(s, op)
			if status != "undone" || ends != "never" {
				t.Errorf("it is told as %s, and the subscription ends %s", status, ends)
			}
			l.agree(s.user)
		})
	}
}

// Clerk refuses a cancel's projection for good, and then takes it after all, while the request that
// takes the cancel back is on its way.
func TestWhatClerkTakesAfterAllIsNotTakenBackBehindIt(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	op := l.asks(s, store.ActionCancel)
	in := activities.CommandInput{OperationID: op, CustomerID: s.customer}
	_, err := l.work.commands.ApplyCommand(t.Context(), in)
	l.must(err)
	a := l.actor(policies{})
	land := a.delay(t, "POST /v1/subscriptions/"+s.subscription)
	if _, err := a.commands.UndoCommand(t.Context(), in); err == nil {
		t.Fatal("it was undone")
	}
	l.must(l.work.publish(t.Context(), s.user, false)) // by the user's own workflow
	l.must(l.work.undo(t.Context(), s, op))
	t.Log("landed", land())
	l.settle()
	if status, ends := l.became(s, op); !(status == "done" && ends == "with its period" || status == "undone" && ends == "never") {
		t.Errorf("it is told as %s, and the subscription ends %s", status, ends)
	}
}

// Clerk refuses a command for good; what takes it back is on its way (and comes to nothing) when
// the user, who was not told anything yet, asks for the same again, or for the opposite. Clerk
// refuses that too. What is told as undone is undone: all is as it was before the first.
func TestWhatIsAskedForWhileAnotherIsTakenBackIsUndoneToo(t *testing.T) {
	t.Parallel()
	for _, earlier := range []store.Action{store.ActionCancel, store.ActionReactivate} {
		for _, later := range []store.Action{store.ActionCancel, store.ActionReactivate} {
			for _, how := range []string{"control: nothing was asked of Stripe", "not answered", "late", "landed"} {
				t.Run(string(earlier)+" and "+string(later)+", "+how, func(t *testing.T) {
					t.Parallel()
					l := newLab(t, policies{})
					s := l.subject(1)
					want := l.opposed(s, earlier)
					a := l.actor(policies{})
					first := l.asks(s, earlier)
					in := activities.CommandInput{OperationID: first, CustomerID: s.customer}
					_, err := l.work.commands.ApplyCommand(t.Context(), in)
					l.must(err)
					restore := func() {}
					switch how {
					case "late":
						a.delay(t, "POST /v1/subscriptions/"+s.subscription)
					case "not answered":
						restore = a.refuse("POST /v1/subscriptions/"+s.subscription, http.StatusServiceUnavailable, `{"error":{"type":"api_error","message":"?"}}`)
					case "landed":
						a.lose("POST /v1/subscriptions/" + s.subscription)
					default:
						restore = a.refuse("GET /v1/subscriptions", http.StatusServiceUnavailable, `{"error":{"type":"api_error","message":"?"}}`)
					}
					if _, err := a.commands.UndoCommand(t.Context(), in); err == nil {
						t.Fatal("it was undone")
					}
					restore()
					second := l.asks(s, later)
					_, err = l.work.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: second, CustomerID: s.customer})
					l.must(err)
					// Clerk refuses that, too: the last goes first.
					l.must(l.work.undo(t.Context(), s, second))
					l.must(l.work.undo(t.Context(), s, first))
					l.settle()
					l.must(l.work.publish(t.Context(), s.user, false))
					one, ends := l.became(s, first)
					two, _ := l.became(s, second)
					if two == "undone" && ends != want || two == "done" && later == earlier && ends == want {
						t.Errorf("the first is told as %s, the second as %s, and the subscription ends %s", one, two, ends)
					}
				})
			}
		}
	}
}

// Clicks that are opposites wait for Clerk, which refuses for good. They are undone from the last
// to the first, and all is as it was before.
func TestSeveralThatAreUndoneLeaveAllAsBefore(t *testing.T) {
	t.Parallel()
	for _, earlier := range []store.Action{store.ActionCancel, store.ActionReactivate} {
		for n := range 4 {
			t.Run(fmt.Sprintf("%s, %d", earlier, n+1), func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{})
				s := l.subject(1)
				actions, want := []store.Action{store.ActionCancel, store.ActionReactivate}, l.opposed(s, earlier)
				if earlier == store.ActionReactivate {
					slices.Reverse(actions)
				}
				var ops []string
				for i := range n + 1 {
					op := l.asks(s, actions[i%2])
					_, err := l.work.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: op, CustomerID: s.customer})
					l.must(err)
					l.ended(op, "recorded")
					ops = append(ops, op)
				}
				for _, op := range slices.Backward(ops) {
					l.must(l.work.undo(t.Context(), s, op))
				}
				l.settle()
				l.must(l.work.publish(t.Context(), s.user, false))
				for i, op := range ops {
					if status, ends := l.became(s, op); status != "undone" || ends != want {
						t.Errorf("the %s is told as %s, and the subscription ends %s, want undone and %s", actions[i%2], status, ends, want)
					}
				}
			})
		}
	}
}

// The same is asked for twice while Stripe does not answer for a moment, so that both ask Stripe
// for it. Clerk refuses it for good, and the last is taken back first. What that leaves is
// published, which is no word about the first.
func TestWhatAnotherHasTakenBackIsNotToldAsDone(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	first := l.asks(s, store.ActionCancel)
	restore := l.work.refuse("POST /v1/subscriptions/"+s.subscription, http.StatusServiceUnavailable, `{"error":{"type":"api_error","message":"?"}}`)
	second := l.asks(s, store.ActionCancel)
	for _, op := range []string{first, second} {
		l.work.tries(t, s, op)
	}
	restore()
	for _, op := range []string{first, second} {
		_, err := l.work.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: op, CustomerID: s.customer})
		l.must(err)
		l.ended(op, "recorded")
	}
	l.must(l.work.undo(t.Context(), s, second))
	l.must(l.work.publish(t.Context(), s.user, false)) // which the workflow asks for beside the undo of the first
	l.must(l.work.undo(t.Context(), s, first))
	l.settle()
	for _, op := range []string{first, second} {
		if status, ends := l.became(s, op); status != "undone" || ends != "never" {
			t.Errorf("it is told as %s, and the subscription ends %s", status, ends)
		}
	}
}

// A reactivation is being taken back, and the request for that is on its way when somebody changes
// the end in the portal: it is theirs, and the command ends as superseded. What is asked for after
// that stands.
func TestWhatIsSomebodyElsesIsNotTakenBackBehindTheLast(t *testing.T) {
	t.Parallel()
	for _, portal := range []bool{false, true} {
		t.Run(map[bool]string{false: "control", true: "changed in the portal"}[portal], func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(s.subscription))
			l.settle()
			one := l.asks(s, store.ActionReactivate)
			in := activities.CommandInput{OperationID: one, CustomerID: s.customer}
			_, err := l.work.commands.ApplyCommand(t.Context(), in)
			l.must(err)
			a := l.actor(policies{})
			land := a.delay(t, "POST /v1/subscriptions/"+s.subscription)
			if _, err := a.commands.UndoCommand(t.Context(), in); err == nil {
				t.Fatal("it was undone")
			}
			if portal {
				l.must(l.Sandbox.Stripe.CancelAt(s.subscription, l.Sandbox.Stripe.Now().Add(200*day)))
				_, err := l.work.commands.UndoCommand(t.Context(), in)
				l.must(err)
				l.ended(one, "superseded changed_since")
			}
			two := l.asks(s, store.ActionReactivate)
			l.must(l.work.apply(t.Context(), s, two))
			t.Log("landed", land())
			l.must(l.work.undo(t.Context(), s, one))
			l.settle()
			if status, ends := l.became(s, two); status != "done" || ends != "never" {
				t.Errorf("the last reactivation is told as %s, and the subscription ends %s", status, ends)
			}
		})
	}
}

// The run that was taking a command back has ended before it was done. The next one begins with the
// command, and goes on taking it back.
func TestWhatIsTakenBackGoesOnBeingTakenBack(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	op := l.asks(s, store.ActionCancel)
	in := activities.CommandInput{OperationID: op, CustomerID: s.customer}
	_, err := l.work.commands.ApplyCommand(t.Context(), in)
	l.must(err)
	restore := l.work.refuse("POST /v1/subscriptions/"+s.subscription, http.StatusServiceUnavailable, `{"error":{"type":"api_error","message":"?"}}`)
	if _, err := l.work.commands.UndoCommand(t.Context(), in); err == nil {
		t.Fatal("it was undone")
	}
	restore()
	l.must(l.work.apply(t.Context(), s, op))
	l.must(l.work.publish(t.Context(), s.user, false))
	if status, ends := l.became(s, op); status != "undone" || ends != "never" {
		t.Errorf("it is %s, and the subscription ends %s", status, ends)
	}
	l.agree(s.user)
}
