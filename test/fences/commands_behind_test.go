package fences_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// listOf is Stripe's list of a customer's subscriptions, as the programs ask for it.
func (l *lab) listOf(customer string) string {
	l.t.Helper()
	return l.byServer(http.MethodGet, "/v1/subscriptions?customer="+customer+
		"&expand[0]=data.latest_invoice&expand[1]=data.customer&expand[2]=data.schedule&limit=100&status=all", nil)
}

// Stripe's list is a moment behind what has just been done, in the portal, of which the event has
// come, or by a command that is done. A command that asks for the opposite is not told as done by
// that; and where it is undone, all is as it was before it.
func TestACommandIsNotDoneByAReadThatIsBehind(t *testing.T) {
	t.Parallel()
	for _, later := range []store.Action{store.ActionReactivate, store.ActionCancel} {
		for _, by := range []string{"portal", "command", "command, event came"} {
			for _, behind := range []bool{false, true} {
				for _, refused := range []bool{false, true} {
					if refused && by == "portal" {
						continue // Clerk has the earlier projection still, so that it has nothing to refuse
					}
					t.Run(fmt.Sprintf("%s after one by %s, behind %t, refused %t", later, by, behind, refused), func(t *testing.T) {
						t.Parallel()
						l := newLab(t, policies{})
						s := l.subject(1)
						earlier, before := store.ActionCancel, "with its period"
						if later == store.ActionCancel {
							earlier, before = store.ActionReactivate, "never"
						}
						want := l.opposed(s, earlier)
						stale := l.listOf(s.customer)
						if by == "portal" {
							if earlier == store.ActionCancel {
								l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(s.subscription))
							} else {
								l.post("/v1/subscriptions/"+s.subscription, "cancel_at_period_end", "false")
							}
							l.take()
						} else {
							first := l.asks(s, earlier)
							l.must(l.work.apply(t.Context(), s, first))
							l.ended(first, "done")
							if by != "command" {
								l.take()
							}
						}
						second := l.asks(s, later)
						restore := func() {}
						if behind {
							restore = l.work.answer("GET /v1/subscriptions?", http.StatusOK, stale)
						}
						_, err := l.work.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: second, CustomerID: s.customer})
						restore()
						l.must(err)
						if _, ends := l.became(s, second); ends != want {
							t.Errorf("the %s is recorded, and the subscription ends %s", later, ends)
						}
						if refused {
							l.must(l.work.undo(t.Context(), s, second))
							l.settle()
							if status, ends := l.became(s, second); status != "undone" || ends != before {
								t.Errorf("the %s is told as %s, and the subscription ends %s", later, status, ends)
							}
							return
						}
						l.must(l.work.publish(t.Context(), s.user, false))
						l.settle()
						if status, ends := l.became(s, second); status != "done" || ends != want {
							t.Errorf("the %s is told as %s, and the subscription ends %s", later, status, ends)
						}
					})
				}
			}
		}
	}
}

// Clerk refuses a command for good, and the look before it is undone is behind what the command
// did: it is undone all the same.
func TestAnUndoIsNotDoneByAReadThatIsBehind(t *testing.T) {
	t.Parallel()
	for _, action := range []store.Action{store.ActionCancel, store.ActionReactivate} {
		for _, behind := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, behind %t", action, behind), func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{})
				s := l.subject(1)
				want := l.opposed(s, action)
				stale := l.listOf(s.customer)
				op := l.asks(s, action)
				_, err := l.work.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: op, CustomerID: s.customer})
				l.must(err)
				l.ended(op, "recorded")
				restore := func() {}
				if behind {
					restore = l.work.answer("GET /v1/subscriptions?", http.StatusOK, stale)
				}
				err = l.work.undo(t.Context(), s, op)
				restore()
				l.must(err)
				l.settle()
				if status, ends := l.became(s, op); status != "undone" || ends != want {
					t.Errorf("the %s is told as %s, and the subscription ends %s", action, status, ends)
				}
			})
		}
	}
}
