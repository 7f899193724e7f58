package refusals_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// Clerk answers 404 for a user whom nobody deleted. That is drift, and no reason to take anything
// from anyone: row, subscription and access stay, the event waits, the projection waits to be
// published. When Clerk knows the user again everything is made up for.
func TestClerkDoesNotKnowALiveUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t, system.Options{})
	access := w.text1(`SELECT projection::text FROM person_user WHERE clerk_user_id = $1`, w.user)
	profile := `SELECT concat_ws('|', first_name, last_name, email, email_verified, stripe_customer_id, deletion_requested_at, deleted_at, profile_version) FROM person_user WHERE clerk_user_id = $1`
	row := w.text1(profile, w.user)
	held := w.Sandbox.Clerk.PublicMetadata(w.user)
	audited := w.Count(`SELECT count(*) FROM audit_log`)

	if err := w.Sandbox.Clerk.ForgetUser(w.user); err != nil {
		t.Fatal(err)
	}
	name := "Augusta"
	if err := w.Sandbox.Clerk.UpdateUser(w.user, clerksim.UserChange{FirstName: &name}); err != nil {
		t.Fatal(err)
	}
	w.Until("the event waits, and the difference is noted", func(context.Context) error {
		if w.Count(`SELECT count(*) FROM webhook_events WHERE type = 'user.updated' AND status = 'waiting' AND reason = 'Clerk does not know this user' AND payload IS NOT NULL`) != 1 ||
			w.openDrift("user_missing_in_clerk") != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	w.Rest()
	if got := w.text1(profile, w.user); got != row {
		t.Errorf("the row is %s, was %s", got, row)
	}
	if got := w.text1(`SELECT projection::text FROM person_user WHERE clerk_user_id = $1`, w.user); got != access {
		t.Errorf("the projection is %s, was %s", got, access)
	}
	if n := w.Count(`SELECT count(*) FROM subscriptions WHERE status = 'active'`); n != 1 {
		t.Errorf("%d active subscriptions", n)
	}
	if n := w.Count(`SELECT count(*) FROM audit_log`); n != audited {
		t.Errorf("%d changes were made", n-audited)
	}

	// What Stripe tells meanwhile is recorded; only Clerk has to wait for it.
	if err := w.Sandbox.Stripe.CancelAtPeriodEnd(w.subscriptionID); err != nil {
		t.Fatal(err)
	}
	w.Until("the cancellation is recorded and waits to be published", func(context.Context) error {
		if w.Count(`SELECT count(*) FROM subscriptions s JOIN person_user u ON u.id = s.user_id
			WHERE s.cancel_at_period_end AND s.status = 'active' AND u.projection_version > u.published_version AND u.publish_error = 'Clerk does not know this user'`) != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	if n := w.openDrift("user_missing_in_clerk"); n != 1 {
		t.Errorf("the difference is noted %d times", n)
	}
	if n := w.Count(`SELECT count(*) FROM person_user WHERE deletion_requested_at IS NOT NULL`); n != 0 {
		t.Error("the user was marked as deleted")
	}

	if err := w.Sandbox.Clerk.RememberUser(w.user); err != nil {
		t.Fatal(err)
	}
	if got := w.Sandbox.Clerk.PublicMetadata(w.user); !same(got, held) {
		t.Errorf("Clerk holds %v, held %v", got, held)
	}
	// Time is what it takes: the sweep comes back to both, half a minute later at the earliest.
	w.exec(`UPDATE webhook_events SET retry_at = now() WHERE status = 'waiting'`)
	w.exec(`UPDATE person_user SET publish_retry_at = now() WHERE projection_version <> published_version`)
	w.Until("everything is made up for", func(context.Context) error {
		if n := w.openDrift("user_missing_in_clerk"); n != 0 {
			return errors.New("the difference is open")
		}
		if w.Count(`SELECT count(*) FROM person_user WHERE first_name = 'Augusta' AND projection_version = published_version`) != 1 {
			return errors.New("the row is not up to date")
		}
		return w.completed("clerk", "user.updated")
	})
	w.Rest()
	w.Agree(w.user, policy())
	w.hasAccess(w.user)
}

func (w *world) openDrift(class string) int {
	return w.Count(`SELECT count(*) FROM drift WHERE class = $1 AND resolved_at IS NULL`, class)
}

func (w *world) text1(sql string, args ...any) (text string) {
	w.t.Helper()
	if err := w.Row(w.t.Context(), sql, args, &text); err != nil {
		w.t.Fatal(err)
	}
	return text
}

func (w *world) exec(sql string) {
	w.t.Helper()
	conn, err := pgx.Connect(w.t.Context(), w.DSN)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(w.t.Context(), sql); err != nil {
		w.t.Fatal(err)
	}
}
