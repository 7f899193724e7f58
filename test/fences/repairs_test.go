package fences_test

import (
	"testing"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// Somebody's server replaces the metadata at Clerk, and the user asks for a sync. It is not done
// before Clerk holds the projection again, though nothing of that has changed.
func TestASyncIsNotDoneBeforeClerkIsRepaired(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	l.must(l.Sandbox.Clerk.WipeMetadata(s.user))
	l.untold()
	op := l.asksSync(s.user)
	restore := l.work.refuse("PATCH /v1/users/"+s.user+"/metadata", 503, `{"errors":[]}`)
	l.must(l.work.record(t.Context(), s.customer))
	is := func(want store.OperationStatus) {
		t.Helper()
		o, err := l.Store.Operation(t.Context(), op)
		l.must(err)
		if o.Status != want {
			t.Errorf("the sync is %s, want %s", o.Status, want)
		}
	}
	for range 2 {
		result, err := l.work.users.SyncUser(t.Context(), activities.UserInput{ClerkUserID: s.user})
		l.must(err)
		if !result.PublishForced {
			t.Fatalf("no repair is asked for: %+v", result)
		}
		is(store.OperationAccepted)
		if err := l.work.publish(t.Context(), s.user, result.PublishForced); err == nil {
			t.Fatal("Clerk took it")
		}
		is(store.OperationAccepted)
	}
	if users, _, err := l.Store.PublishLag(t.Context()); users != 1 || err != nil {
		t.Errorf("%d users wait for Clerk (%v)", users, err)
	}
	restore()
	// Whoever publishes repairs, whether or not they know that there is something to be repaired.
	l.must(l.work.publish(t.Context(), s.user, false))
	l.agree(s.user)
	is(store.OperationDone)
	l.wants("", `SELECT concat(repair_seq, publish_due_since, publish_retry_at, publish_error) FROM person_user`)
}

// What a read has shown while a publish was under way, that publish does not count for: it may have
// written before.
func TestAPublishDoesNotCountAsARepairOfWhatIsSeenMeanwhile(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, _ := l.behind("ada")
	slow := l.actor(policies{})
	written := slow.arm(t, "answered PATCH /v1/users/", 0)
	done := begin(func() error { return slow.publish(t.Context(), user, false) })
	reach(t, written, done)
	l.must(l.work.publish(t.Context(), user, false))
	l.must(l.Sandbox.Clerk.WipeMetadata(user))
	l.must(l.work.syncUser(t.Context(), user))
	l.wants("true", `SELECT repair_seq IS NOT NULL FROM person_user`)
	written.release()
	wait(t, done)
	l.agree(user)
	l.wants("", `SELECT repair_seq FROM person_user`)
}

// A repair that Clerk refuses for good shows, and is come back to.
func TestARepairThatClerkRefusesIsComeBackTo(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	l.must(l.Sandbox.Clerk.WipeMetadata(s.user))
	l.unpoked()
	restore := l.work.refuse("PATCH /v1/users/"+s.user+"/metadata", 422, `{"errors":[{"code":"form_param_exceeds_allowed_size","message":"too large"}]}`)
	if err := l.work.lookAtUser(t.Context(), s.user); failure.Of(err) != failure.Permanent {
		t.Fatalf("the publish ended with %v", err)
	}
	l.wants("true", `SELECT publish_error LIKE 'permanent: %' AND publish_due_since IS NOT NULL FROM person_user`)
	restore()
	l.exec(`UPDATE person_user SET publish_retry_at = now() WHERE publish_retry_at IS NOT NULL`)
	l.sweep()
	l.agree(s.user)
	l.wants("", `SELECT concat(repair_seq, publish_due_since, publish_retry_at, publish_error) FROM person_user`)
}
