package fences_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/selfservice"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// awaiting is a user with something to publish that somebody waits for, and what they wait for.
func (l *lab) awaiting(action store.Action) (user, operation string) {
	l.t.Helper()
	ctx := l.t.Context()
	if action == store.ActionCancel {
		s := l.subject(1)
		op := l.asks(s, action)
		_, err := l.work.commands.ApplyCommand(ctx, activities.CommandInput{OperationID: op, CustomerID: s.customer})
		l.must(err)
		l.wants("recorded", `SELECT status FROM operations WHERE id = $1`, op)
		l.unpoked()
		return s.user, op
	}
	user, customer := l.signUp("ada")
	bought := l.buy(stripesim.CheckoutSpec{CustomerID: customer, ClientReferenceID: user, Metadata: byServer(user)})
	l.unpoked()
	op := newSync(user)
	if action == store.ActionReturn {
		op = store.NewOperation{RequestHash: []byte("r"), Caller: user, Action: action, ClerkUserID: user, Entity: account.CustomerEntity(customer),
			SubscriptionID: bought.SubscriptionID, SessionID: bought.SessionID, Lifetime: time.Hour}
	}
	begun, _, err := l.Store.BeginOperation(ctx, op)
	l.must(err)
	l.must(l.work.syncUser(ctx, user)) // Clerk shows them
	l.must(l.work.record(ctx, customer))
	return user, begun.ID
}

// isStill fails the test unless an operation has this status.
func (l *lab) isStill(operation string, want store.OperationStatus, reason string) {
	l.t.Helper()
	seen, err := l.Store.Operation(l.t.Context(), operation)
	l.must(err)
	if seen.Status != want || seen.Reason != reason {
		l.t.Errorf("%s is %s %q, want %s %q", seen.Action, seen.Status, seen.Reason, want, reason)
	}
}

// A publish finds for a moment that Clerk does not have a user, who was shown a moment before and
// is shown a moment later. What is waited for neither fails for that nor counts as done.
func TestOneMomentOfNotFoundAtThePublishEndsNothing(t *testing.T) {
	t.Parallel()
	for action, before := range map[store.Action]store.OperationStatus{
		store.ActionSync: store.OperationAccepted, store.ActionReturn: store.OperationAccepted, store.ActionCancel: store.OperationRecorded,
	} {
		t.Run(string(action), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, op := l.awaiting(action)
			l.must(l.Sandbox.Clerk.ForgetUser(user))
			l.must(l.work.publish(t.Context(), user, false))
			l.must(l.Sandbox.Clerk.RememberUser(user))
			l.isStill(op, before, "")
			l.settle() // nobody but the publish has asked for a look
			l.isStill(op, store.OperationDone, "")
			l.agree(user)
			l.wants("0", `SELECT count(*) FROM drift WHERE resolved_at IS NULL`)
		})
	}
}

// Clerk does not have the user any more, and nobody has told of a deletion: the look that follows
// the publish says so to whoever waits.
func TestWhatIsAwaitedOfAUserWhomClerkDoesNotHaveEnds(t *testing.T) {
	t.Parallel()
	for action, after := range map[store.Action]store.OperationStatus{
		store.ActionSync: store.OperationFailed, store.ActionReturn: store.OperationFailed, store.ActionCancel: store.OperationDone,
	} {
		t.Run(string(action), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, op := l.awaiting(action)
			l.must(l.Sandbox.Clerk.ForgetUser(user))
			l.must(l.work.publish(t.Context(), user, false))
			l.settle()
			l.isStill(op, after, map[bool]string{true: store.NoSuchUser}[after == store.OperationFailed])
			l.wants("user_missing_in_clerk", `SELECT string_agg(class, ' ') FROM drift WHERE resolved_at IS NULL`)
		})
	}
}

// One 404 of Clerk hides nothing from a user who is there, and shows no admin that they are not.
// Two are believed.
func TestOneNotFoundOfClerkHidesNobody(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, _, _ := l.subscribed("ada")
	stranger := l.Sandbox.Clerk.AddUser(person("bob", "bob@example.com", true))
	l.untold()
	desk := l.requests(l.actor(policies{}))
	desk.Wait = time.Millisecond // nobody works here
	for asked, ask := range map[string]func() error{
		user: func() error {
			state, _, err := desk.State(t.Context(), selfservice.Caller{UserID: user}, "")
			if err == nil && (state.Database == nil || state.InSync == nil || !*state.InSync) {
				t.Errorf("they are told %+v", state)
			}
			return err
		},
		stranger: func() error { // whom we do not know
			_, op, err := desk.State(t.Context(), selfservice.Caller{UserID: user, Admin: true}, stranger)
			if err == nil && op == nil {
				t.Error("nothing is under way for them")
			}
			return err
		},
	} {
		for times, want := range map[int]string{1: "", 2: "user_not_found"} {
			remove := l.Sandbox.ClerkFaults.Add(faults.Rule{Method: http.MethodGet, PathPrefix: "/v1/users/" + asked, Status: http.StatusNotFound, Times: times})
			err := ask()
			remove()
			if code := refused(t, err); code != want {
				t.Errorf("%s, not found %d times: told %q, want %q", asked, times, code, want)
			}
		}
	}
}

// Who has just signed up, and is not shown by Clerk's first read, is read again in a moment, and
// not when the sweep comes by.
func TestWhoHasJustSignedUpIsReadAgainInAMoment(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user := l.Sandbox.Clerk.AddUser(person("ada", "ada@example.com", true))
	l.unpoked()
	remove := l.Sandbox.ClerkFaults.Add(faults.Rule{Method: http.MethodGet, PathPrefix: "/v1/users/" + user, Status: http.StatusNotFound})
	l.must(l.work.lookAtUser(t.Context(), user))
	remove()
	l.wants("waiting", `SELECT status FROM webhook_events WHERE entity = $1`, account.UserEntity(user))
	l.wants("true", `SELECT due_at < now() + interval '20 seconds' FROM pokes WHERE entity = $1`, account.UserEntity(user))
	l.exec(`UPDATE pokes SET due_at = now() WHERE due_at IS NOT NULL`)
	l.settle()
	l.agree(user)
	if l.customerOf(user) == "" {
		t.Error("they have no customer")
	}
}
