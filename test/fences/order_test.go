package fences_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
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
				late := func() {
					if status := land(); status != http.StatusBadRequest {
						t.Errorf("the late request was answered %d", status)
					}
				}
				if landsFirst {
					late()
				}
				l.must(l.work.apply(t.Context(), s, first))
				if !landsFirst {
					late()
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

// An attempt of the earlier command was given up and goes on without knowing it, from wherever it stands, while a later command is done. The
// later one has the last word, and who asked first is not told that theirs is done.
func TestAnAttemptThatGoesOnDoesNotHaveTheLastWord(t *testing.T) {
	t.Parallel()
	for earlier, later := range map[store.Action]store.Action{store.ActionReactivate: store.ActionCancel, store.ActionCancel: store.ActionReactivate} {
		for _, managed := range []bool{false, true} {
			if managed && earlier == store.ActionReactivate {
				continue // there is nothing to take back through a schedule that ends nothing
			}
			t.Run(fmt.Sprintf("%s, by a schedule %t", earlier, managed), func(t *testing.T) {
				t.Parallel()
				l, n := newLab(t, policies{}), 0
				l.exploreEvery(2, policies{}, func() scene {
					n++
					s := l.subject(n)
					if managed {
						l.managed(s.subscription, l.addPrice(2000))
					}
					if earlier == store.ActionReactivate {
						l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(s.subscription))
					}
					l.settle()
					first := l.asks(s, earlier)
					l.exec(`UPDATE operations SET created_at = created_at - interval '10 seconds' WHERE id = $1`, first)
					second := l.asks(s, later)
					return scene{
						first: func(ctx context.Context, a *actor) error {
							// One attempt, as of a worker that has lost its lease: what it answers goes nowhere.
							_, err := a.commands.ApplyCommand(ctx, activities.CommandInput{OperationID: first, CustomerID: s.customer})
							if failure.Of(err) == failure.Transient {
								err = nil
							}
							return err
						},
						second: func(ctx context.Context, a *actor) error { return a.apply(ctx, s, second) },
						check: func() {
							l.must(l.work.apply(t.Context(), s, first))
							l.settle()
							l.wants("done", `SELECT status FROM operations WHERE id = $1`, second)
							if got := l.text(`SELECT status FROM operations WHERE id = $1`, first); got != "done" && got != "superseded" {
								t.Errorf("the first is %s", got)
							}
							if ends := l.ends(s); ends != (later == store.ActionCancel) {
								t.Errorf("the last that was asked for is %s, told as done, and it ends: %t", later, ends)
							}
							l.agree(s.user)
						},
					}
				})
			})
		}
	}
}

// ends tells whether a subject's subscription is set to end, by itself or by its schedule.
func (l *lab) ends(s subject) bool {
	l.t.Helper()
	_, ends := l.became(s, "")
	return ends != "never"
}

// What an earlier command has asked for has landed, and its attempt was not told so. The later one reads Stripe, which does not show it yet: so it
// seems that there is nothing to do.
func TestALaterCommandIsDoneThoughWhatAnEarlierOneDidDoesNotShowYet(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(s.subscription))
	l.settle()
	first := l.asks(s, store.ActionReactivate)
	before := l.byServer(http.MethodGet, "/v1/subscriptions?customer="+s.customer+
		"&expand[0]=data.latest_invoice&expand[1]=data.customer&expand[2]=data.schedule&limit=100&status=all", nil)
	a := l.actor(policies{})
	a.lose("POST /v1/subscriptions/" + s.subscription)
	if _, err := a.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: first, CustomerID: s.customer}); err == nil {
		t.Fatal("it was done")
	}
	if l.endsByPeriod(s.subscription) {
		t.Fatal("the request has not landed")
	}
	second := l.asks(s, store.ActionCancel)
	restore := l.work.answer("GET /v1/subscriptions?", http.StatusOK, before)
	l.must(l.work.apply(t.Context(), s, second))
	restore()
	l.must(l.work.apply(t.Context(), s, first))
	l.settle()
	l.wants("superseded changed_since", `SELECT status || ' ' || reason FROM operations WHERE id = $1`, first)
	l.wants("done", `SELECT status FROM operations WHERE id = $1`, second)
	if !l.endsByPeriod(s.subscription) {
		t.Error("the cancel was asked for last and is done, and the subscription renews")
	}
	l.agree(s.user)
}

// A command is found done by what another one of the same kind did, whose own request is on its way: it is known to come to nothing before the
// command is told as done, so that it cannot undo what is asked for after that.
func TestARequestThatIsUnderWayIsNotDoneBehindItsOwnCommand(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	a := l.actor(policies{})
	first, same := l.asks(s, store.ActionCancel), l.asks(s, store.ActionCancel)
	land := a.delay(t, "POST /v1/subscriptions/"+s.subscription)
	if _, err := a.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: first, CustomerID: s.customer}); err == nil {
		t.Fatal("it was done")
	}
	l.must(l.work.apply(t.Context(), s, same))
	l.must(l.work.apply(t.Context(), s, first))
	l.wants("2", `SELECT count(*) FROM operations WHERE status = 'done' AND id IN ($1, $2)`, first, same)
	last := l.asks(s, store.ActionReactivate)
	l.must(l.work.apply(t.Context(), s, last))
	land()
	l.settle()
	if l.endsByPeriod(s.subscription) {
		t.Error("it was set to end behind the reactivation")
	}
	l.agree(s.user)
}

// A command is being taken back, since Clerk refuses it for good, and the request for that is on its way when another one is asked for: it is
// not done behind that one.
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
	l.wants("superseded changed_since", `SELECT status || ' ' || reason FROM operations WHERE id = $1`, first)
	l.wants("done", `SELECT status FROM operations WHERE id = $1`, second)
	if !l.endsByPeriod(s.subscription) {
		t.Error("the cancel was asked for last and is done, and the subscription renews")
	}
	l.agree(s.user)
}

// The same is asked for twice. The second finds it done by the first, which Clerk's refusal takes back: the second is undone with it, and not told
// as done when Clerk takes something again.
func TestWhatIsTakenBackIsNotDoneForAnother(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	first, second := l.asks(s, store.ActionCancel), l.asks(s, store.ActionCancel)
	for _, op := range []string{first, second} {
		_, err := l.work.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: op, CustomerID: s.customer})
		l.must(err)
		l.wants("recorded", `SELECT status FROM operations WHERE id = $1`, op)
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
