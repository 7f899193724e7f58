package fences_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// subject is somebody who commands.
type subject struct{ user, customer, subscription string }

func (l *lab) subject(n int) subject {
	l.t.Helper()
	user, customer, subscription := l.subscribed(fmt.Sprintf("ada%d", n))
	return subject{user, customer, subscription}
}

// asks commits what a subject asks for.
func (l *lab) asks(s subject, action store.Action) string {
	l.t.Helper()
	op, _, err := l.Store.BeginOperation(l.t.Context(), store.NewOperation{
		RequestHash: []byte("r"), Caller: s.user, Action: action, ClerkUserID: s.user, Entity: account.CustomerEntity(s.customer),
		SubscriptionID: s.subscription, Lifetime: time.Hour,
	})
	l.must(err)
	return op.ID
}

// tries makes one attempt at an operation, which has to fail for now.
func (a *actor) tries(t *testing.T, s subject, operation string) {
	t.Helper()
	_, err := a.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: operation, CustomerID: s.customer})
	if failure.Of(err) != failure.Transient {
		t.Fatalf("the attempt ended with %v", err)
	}
}

// ended wants an operation to stand like this: its status and, where there is one, its reason.
func (l *lab) ended(operation, want string) {
	l.t.Helper()
	l.wants(want, `SELECT concat_ws(' ', status, reason) FROM operations WHERE id = $1`, operation)
}

// apply does what a workflow does for an operation: the step, again where that may help, and the
// publish.
func (a *actor) apply(ctx context.Context, s subject, operation string) error {
	for {
		result, err := a.commands.ApplyCommand(ctx, activities.CommandInput{OperationID: operation, CustomerID: s.customer})
		if failure.Of(err) == failure.Transient {
			continue
		}
		if err == nil && result.Recorded {
			err = a.publish(ctx, s.user, false)
		}
		return err
	}
}

func (a *actor) undo(ctx context.Context, s subject, operation string) error {
	for {
		_, err := a.commands.UndoCommand(ctx, activities.CommandInput{OperationID: operation, CustomerID: s.customer})
		if failure.Of(err) != failure.Transient {
			return err
		}
	}
}

// became answers how an operation stands, and how Stripe says that the subscription ends.
func (l *lab) became(s subject, operation string) (status, ends string) {
	l.t.Helper()
	status = l.text(`SELECT status FROM operations WHERE id = $1`, operation)
	for _, raw := range l.Sandbox.Stripe.Subscriptions(s.customer) {
		switch text := strings.ReplaceAll(string(raw), " ", ""); {
		case stringField(l.t, raw, "status") != "active":
			ends = stringField(l.t, raw, "status")
		case strings.Contains(text, `"cancel_at_period_end":true`):
			ends = "with its period"
		case !strings.Contains(text, `"cancel_at":null`):
			ends = "by date"
		default:
			ends = "never"
		}
	}
	return status, ends
}

// told is how often the audit log tells that an operation has reached our rows.
func (l *lab) told(operation string) string {
	l.t.Helper()
	return l.text(`SELECT string_agg(after ->> 'outcome', ' ' ORDER BY id) FROM audit_log WHERE operation_id = $1 AND action LIKE 'operation.%'`, operation)
}

// An attempt that timed out goes on while its successor works: the command is done once, and told
// once.
func TestTwoAttemptsOfACommand(t *testing.T) {
	t.Parallel()
	for _, action := range []store.Action{store.ActionCancel, store.ActionCancelNow} {
		t.Run(string(action), func(t *testing.T) {
			t.Parallel()
			l, n := newLab(t, policies{}), 0
			l.exploreEvery(2, policies{}, func() scene {
				n++
				s := l.subject(n)
				op := l.asks(s, action)
				apply := func(ctx context.Context, a *actor) error { return a.apply(ctx, s, op) }
				return scene{first: apply, second: apply, check: func() {
					l.settle()
					want := map[store.Action]string{store.ActionCancel: "done with its period", store.ActionCancelNow: "done canceled"}[action]
					if status, ends := l.became(s, op); status+" "+ends != want {
						t.Errorf("it is %s and ends %s, want %s", status, ends, want)
					}
					if told := l.told(op); told != "recorded" {
						t.Errorf("the audit log tells %q", told)
					}
					l.agree(s.user)
				}}
			})
		})
	}
}

// A sync of the same customer, of somebody beside the workflow, meets a command at every step:
// neither is lost.
func TestCommandMeetsASync(t *testing.T) {
	t.Parallel()
	for _, commandFirst := range []bool{true, false} {
		t.Run(map[bool]string{true: "the command is interrupted", false: "the sync is interrupted"}[commandFirst], func(t *testing.T) {
			t.Parallel()
			l, n := newLab(t, policies{}), 0
			l.exploreEvery(2, policies{}, func() scene {
				n++
				s := l.subject(n)
				op := l.asks(s, store.ActionCancel)
				apply := func(ctx context.Context, a *actor) error { return a.apply(ctx, s, op) }
				look := func(ctx context.Context, a *actor) error { return a.lookAtCustomer(ctx, s.customer) }
				sc := scene{first: apply, second: look, check: func() {
					l.settle()
					if status, ends := l.became(s, op); status != "done" || ends != "with its period" {
						t.Errorf("it is %s and ends %s", status, ends)
					}
					l.agree(s.user)
				}}
				if !commandFirst {
					sc.first, sc.second = look, apply
				}
				return sc
			})
		})
	}
}

// Somebody changes the same thing in Stripe's portal at every step of a command, and of its undo:
// what Stripe says in the end is theirs or ours, whoever came last, and the operation says which.
func TestCommandMeetsThePortal(t *testing.T) {
	t.Parallel()
	for _, undoing := range []bool{false, true} {
		t.Run(map[bool]string{false: "the command", true: "its undo"}[undoing], func(t *testing.T) {
			t.Parallel()
			l, n := newLab(t, policies{}), 0
			l.exploreEvery(2, policies{}, func() scene {
				n++
				s := l.subject(n)
				l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(s.subscription))
				l.settle()
				op := l.asks(s, store.ActionReactivate)
				act := func(ctx context.Context, a *actor) error { return a.apply(ctx, s, op) }
				if undoing {
					_, err := l.work.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: op, CustomerID: s.customer})
					l.must(err)
					act = func(ctx context.Context, a *actor) error { return a.undo(ctx, s, op) }
				}
				portal := func(context.Context, *actor) error {
					return l.Sandbox.Stripe.CancelAt(s.subscription, time.Now().AddDate(0, 3, 0))
				}
				return scene{first: act, second: portal, check: func() {
					l.settle()
					status, ends := l.became(s, op)
					may := map[string]string{"done": "never, by date", "superseded": "by date", "undone": "with its period, by date"}[status]
					if !strings.Contains(may, ends) || (status == "undone") != undoing && status != "superseded" {
						t.Errorf("it is %s and ends %s", status, ends)
					}
					l.agree(s.user)
				}}
			})
		})
	}
}

// The user is deleted at every step of a command: whatever came of it, the deletion policy has the
// last word.
func TestCommandMeetsTheDeletion(t *testing.T) {
	t.Parallel()
	l, n := newLab(t, policies{}), 0
	l.exploreEvery(2, policies{}, func() scene {
		n++
		s := l.subject(n)
		l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(s.subscription))
		l.settle()
		op := l.asks(s, store.ActionReactivate)
		l.must(l.Sandbox.Clerk.DeleteUser(s.user))
		l.unpoked()
		return scene{
			first:  func(ctx context.Context, a *actor) error { return a.apply(ctx, s, op) },
			second: func(ctx context.Context, a *actor) error { return a.lookAtUser(ctx, s.user) },
			check: func() {
				l.settle()
				l.must(l.work.lookAtUser(t.Context(), s.user))
				status, ends := l.became(s, op)
				if ends != "with its period" || status == "accepted" || status == "acting" || status == "recorded" {
					t.Errorf("it is %s and ends %s", status, ends)
				}
				l.gone(s.user, account.DeleteCancelAtPeriodEnd)
			},
		}
	})
}

// A request to Stripe is given up and lands long after: its key has been used by then, and it does
// nothing, though the user has changed their mind since.
func TestLateCommandLandsOnAUsedKey(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	cancel := l.asks(s, store.ActionCancel)
	land := l.work.delay(t, "POST /v1/subscriptions/")
	if _, err := l.work.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: cancel, CustomerID: s.customer}); failure.Of(err) != failure.Transient {
		t.Fatalf("the request did not time out: %v", err)
	}
	if status, ends := l.became(s, cancel); status != "acting" || ends != "never" {
		t.Fatalf("it is %s and ends %s", status, ends)
	}
	l.must(l.work.apply(t.Context(), s, cancel))
	reactivate := l.asks(s, store.ActionReactivate)
	l.must(l.work.apply(t.Context(), s, reactivate))
	if status := land(); status >= http.StatusMultipleChoices {
		t.Fatalf("a late request was answered %d", status)
	}
	l.settle()
	for _, op := range []string{cancel, reactivate} {
		if status, ends := l.became(s, op); status != "done" || ends != "never" {
			t.Errorf("it is %s and ends %s", status, ends)
		}
	}
	l.agree(s.user)
}

// The answer to a step is lost, and before the next attempt somebody takes back what it did: it is
// not done again.
func TestLostAnswerAndAnotherMind(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	op := l.asks(s, store.ActionCancel)
	l.work.lose("POST /v1/subscriptions/")
	if _, err := l.work.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: op, CustomerID: s.customer}); err == nil {
		t.Fatal("the answer was not lost")
	}
	l.must(l.Sandbox.Stripe.CancelAt(s.subscription, time.Now().AddDate(0, 3, 0)))
	l.must(l.work.apply(t.Context(), s, op))
	l.settle()
	if status, ends := l.became(s, op); status != "superseded" || ends != "by date" {
		t.Errorf("it is %s and ends %s", status, ends)
	}
	if told := l.told(op); told != "superseded" {
		t.Errorf("the audit log tells %q", told)
	}
	l.agree(s.user)
}

// Stripe broke while it was asked and would answer that under this key for a day: the next attempt
// asks under another.
func TestStoredFailureOfACommandIsLeftBehind(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	op := l.asks(s, store.ActionCancel)
	l.Sandbox.Stripe.BreakNext(1)
	l.must(l.work.apply(t.Context(), s, op))
	l.settle()
	if status, ends := l.became(s, op); status != "done" || ends != "with its period" {
		t.Errorf("it is %s and ends %s", status, ends)
	}
	l.wants("2", `SELECT generation FROM stripe_requests WHERE key = $1`, op+":cancel")
}

// A step is not repeated when nobody can tell any more whether it was done.
func TestOldCommandIsNotRepeated(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	op := l.asks(s, store.ActionCancel)
	l.work.delay(t, "POST /v1/subscriptions/")
	if _, err := l.work.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: op, CustomerID: s.customer}); err == nil {
		t.Fatal("the request did not time out")
	}
	l.exec(`UPDATE operations SET acting_since = now() - interval '21 hours' WHERE id = $1`, op)
	l.must(l.work.apply(t.Context(), s, op))
	if status, ends := l.became(s, op); status != "superseded" || ends != "never" {
		t.Errorf("it is %s and ends %s", status, ends)
	}
	for request, n := range l.Sandbox.StripeFaults.Requests() {
		if request == http.MethodPost+" /v1/subscriptions/{id}" && n > 0 {
			t.Errorf("Stripe was asked %d times", n)
		}
	}
	// What was never begun in time is not begun.
	late := l.asks(s, store.ActionCancel)
	l.exec(`UPDATE operations SET expires_at = now() WHERE id = $1`, late)
	l.must(l.work.apply(t.Context(), s, late))
	if status, ends := l.became(s, late); status != "expired" || ends != "never" {
		t.Errorf("it is %s and ends %s", status, ends)
	}
}

// A read of somebody beside the workflow that began after a command's look and before its change
// shows what was. It is dropped when it comes to be stored, however late: the command has stored a
// read that began after Stripe had confirmed.
func TestReadThatBeganBeforeACommandsChangeIsDropped(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		action store.Action
		step   string
		undo   bool
		want   string
	}{
		"cancel":                 {store.ActionCancel, "ask POST /v1/subscriptions/", false, "done with its period active true"},
		"cancel now":             {store.ActionCancelNow, "ask DELETE /v1/subscriptions/", false, "done canceled canceled false"},
		"a cancel is taken back": {store.ActionCancel, "ask POST /v1/subscriptions/", true, "undone never active false"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			op := l.asks(s, c.action)
			a, b := l.actor(policies{}), l.actor(policies{})
			act := func() error { return a.apply(t.Context(), s, op) }
			if c.undo {
				_, err := a.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: op, CustomerID: s.customer})
				l.must(err)
				act = func() error { return a.undo(t.Context(), s, op) }
			}
			step := a.arm(t, c.step, 0)
			commanded := begin(act)
			reach(t, step, commanded)
			read := b.arm(t, "answered GET /v1/subscriptions", 0)
			bulk := begin(func() error {
				result, err := b.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: s.customer, InBulk: true})
				if err == nil && result.PublishDue {
					err = b.publish(t.Context(), s.user, false)
				}
				return err
			})
			reach(t, read, bulk)
			step.release()
			wait(t, commanded)
			read.release()
			wait(t, bulk)
			status, ends := l.became(s, op)
			row := l.text(`SELECT status || ' ' || cancel_at_period_end FROM subscriptions WHERE stripe_subscription_id = $1`, s.subscription)
			if got := status + " " + ends + " " + row; got != c.want {
				t.Errorf("before any event it is %q, want %q", got, c.want)
			}
			if held, _ := l.Sandbox.Clerk.PublicMetadata(s.user)["stripe"].(map[string]any); held["subscriptionActive"] != (c.action != store.ActionCancelNow) {
				t.Errorf("Clerk holds %v", held)
			}
			l.settle()
			l.agree(s.user)
		})
	}
}

// Our own database refuses for good what Stripe has done, and the attempt that takes it back dies
// when Stripe has: the next one knows that it was being taken back, and what it stores is a read
// that began after that.
func TestWhatCannotBeStoredIsTakenBackByAnyAttempt(t *testing.T) {
	t.Parallel()
	for _, refused := range []string{"the subscription's row", "the operation's row"} {
		for _, dies := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, dies %t", refused, dies), func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{})
				s := l.subject(1)
				op := l.asks(s, store.ActionCancel)
				if refused == "the subscription's row" {
					l.exec(`ALTER TABLE subscriptions ADD CONSTRAINT never CHECK (NOT cancel_at_period_end)`)
				} else {
					l.exec(`ALTER TABLE operations ADD CONSTRAINT never CHECK (status <> 'recorded')`)
				}
				back := l.work.arm(t, "ask POST /v1/subscriptions/", 1)
				commanded := begin(func() error { return l.work.apply(t.Context(), s, op) })
				reach(t, back, commanded)
				if dies {
					l.work.lose("POST /v1/subscriptions/")
				}
				back.release()
				wait(t, commanded)
				if status, ends := l.became(s, op); status != "undone" || ends != "never" {
					t.Errorf("it is %s and ends %s", status, ends)
				}
				l.wants("not_recorded", `SELECT reason FROM operations WHERE id = $1`, op)
				l.wants("false", `SELECT cancel_at_period_end::text FROM subscriptions WHERE stripe_subscription_id = $1`, s.subscription)
				l.settle()
				l.agree(s.user)
			})
		}
	}
}

// opposed makes a subscription stand as it has to before a command asks for something else, and
// says how it ends then.
func (l *lab) opposed(s subject, action store.Action) (ends string) {
	l.t.Helper()
	if action != store.ActionReactivate {
		return "never"
	}
	l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(s.subscription))
	l.settle()
	return "with its period"
}
