package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// known is a user who pays, whom Clerk holds the projection of.
func (w *world) known(n int) string {
	w.t.Helper()
	id, customer := w.user(n), fmt.Sprintf("cus_%d", n)
	w.withUser(id, func(ctx context.Context, tx *store.Tx, u *store.User) error {
		_, err := tx.SetProfile(ctx, u, ada(id), 1, nil)
		return err
	})
	w.link(id, customer)
	w.set(id, account.Subscription{ID: fmt.Sprintf("sub_%d", n), CustomerID: customer, Status: account.StatusActive})
	w.exec(`UPDATE stripe_customers SET profile_version = 99 WHERE stripe_customer_id = $1`, customer)
	w.exec(`UPDATE pokes SET due_at = NULL`)
	return id
}

// shown is a user.updated that shows a user as they are stored.
func (w *world) shown(event, id string) store.NewEvent {
	w.t.Helper()
	u, err := w.UserByClerkID(w.t.Context(), id)
	must(w.t, err)
	p, err := u.Projection()
	must(w.t, err)
	held, err := json.Marshal(p)
	must(w.t, err)
	e := clerkEvent(event, "user.updated", id)
	e.Shows = &account.ListedUser{User: u.Profile(), Held: held}
	return e
}

// A delivery that shows what is stored is completed at the door, and nobody is poked. One that
// shows anything else, or a user of whom anything is open, is looked at.
func TestDeliveriesThatShowWhatIsStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for n, c := range []struct {
		name   string
		change func(id string, e *store.NewEvent)
		want   store.Added
	}{
		{"as it is stored", func(string, *store.NewEvent) {}, store.AddedDone},
		{"before the publish is recorded", func(id string, _ *store.NewEvent) {
			w.exec(`UPDATE person_user SET published_version = 0 WHERE clerk_user_id = $1`, id)
		}, store.AddedDone},
		{"with a hint, which matters to who has no customer", func(_ string, e *store.NewEvent) { e.Shows.CustomerHint = "cus_9" }, store.AddedDone},
		{"another name", func(_ string, e *store.NewEvent) { e.Shows.FirstName = "Augusta" }, store.AddedDue},
		{"another email", func(_ string, e *store.NewEvent) { e.Shows.Email = "augusta@example.com" }, store.AddedDue},
		{"an email that is not verified any more", func(_ string, e *store.NewEvent) { e.Shows.EmailVerified = false }, store.AddedDue},
		{"no metadata", func(_ string, e *store.NewEvent) { e.Shows.Held = nil }, store.AddedDue},
		{"an older version", func(id string, _ *store.NewEvent) {
			w.exec(`UPDATE person_user SET projection_version = projection_version + 1 WHERE clerk_user_id = $1`, id)
		}, store.AddedDue},
		{"somebody else's addition", func(_ string, e *store.NewEvent) {
			e.Shows.Held = append(e.Shows.Held[:len(e.Shows.Held)-1], `,"x":1}`...)
		}, store.AddedDue},
		{"nothing shown", func(_ string, e *store.NewEvent) { e.Shows = nil }, store.AddedDue},
		{"a customer without the latest name", func(id string, _ *store.NewEvent) {
			w.exec(`UPDATE stripe_customers SET profile_version = 0 WHERE user_id = (SELECT id FROM person_user WHERE clerk_user_id = $1)`, id)
		}, store.AddedDue},
		{"no customer", func(id string, _ *store.NewEvent) {
			w.exec(`UPDATE stripe_customers SET deleted_in_stripe = true WHERE user_id = (SELECT id FROM person_user WHERE clerk_user_id = $1)`, id)
		}, store.AddedDue},
		{"being deleted", func(id string, _ *store.NewEvent) {
			w.exec(`UPDATE person_user SET deletion_requested_at = now() WHERE clerk_user_id = $1`, id)
		}, store.AddedDue},
		{"missed at Clerk until now", func(id string, _ *store.NewEvent) {
			must(t, w.noteDrift(t.Context(), account.UserEntity(id), account.DriftUserMissing, id))
		}, store.AddedDue},
		{"never projected", func(id string, e *store.NewEvent) {
			w.exec(`UPDATE person_user SET projection = '{}', projection_version = 0 WHERE clerk_user_id = $1`, id)
			e.Shows.Held = json.RawMessage(`{"subscriptionActive":false,"version":0}`)
		}, store.AddedDue},
		{"nobody known", func(id string, e *store.NewEvent) { e.Entity, e.Shows.ID = "user/user_other", "user_other" }, store.AddedDue},
	} {
		id := w.known(100 + n)
		e := w.shown(fmt.Sprint("msg_", n), id)
		c.change(id, &e)
		w.exec(`UPDATE pokes SET due_at = NULL`)
		// Whoever comes in the same group has nothing to do with it.
		added := w.add(stripeEvent(fmt.Sprint("evt_", n), "cus_beside"), e, e)
		if want := []store.Added{store.AddedDue, c.want, store.AddedBefore}; !slices.Equal(added, want) {
			t.Errorf("%s: added as %v, want %v", c.name, added, want)
		}
		status := one[string](w, `SELECT concat_ws(' ', status, completed_at IS NOT NULL, retry_at IS NOT NULL, payload IS NOT NULL) FROM webhook_events WHERE event_id = $1`, e.EventID)
		pokes := one[int](w, `SELECT count(*) FROM pokes WHERE entity = $1 AND due_at IS NOT NULL`, string(e.Entity))
		if want := map[bool]string{true: "completed t f t", false: "pending f t t"}[c.want == store.AddedDone]; status != want || (pokes == 0) != (c.want == store.AddedDone) {
			t.Errorf("%s: stored as %q and poked %d times, want %q", c.name, status, pokes, want)
		}
	}
}

// A look that stores something older than what a delivery has shown meanwhile is followed by
// another; and while a profile is being changed no delivery is completed for what it shows.
func TestAProfileThatChangesUnderADelivery(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.known(1)
	poked := func() bool {
		due := one[bool](w, `SELECT due_at IS NOT NULL FROM pokes WHERE entity = $1`, "user/"+id)
		w.exec(`UPDATE pokes SET due_at = NULL`)
		return due
	}
	must(t, w.Poke(t.Context(), account.JobSync, account.UserEntity(id)))
	set := func(name string, read int64) {
		w.withUser(id, func(ctx context.Context, tx *store.Tx, u *store.User) error {
			p := ada(id)
			p.FirstName = name
			_, err := tx.SetProfile(ctx, u, p, read, nil)
			return err
		})
	}
	poked()
	read, err := w.NextRead(t.Context())
	must(t, err)
	if added := w.add(w.shown("msg_back", id)); added[0] != store.AddedDone {
		t.Fatalf("the delivery was added as %v", added)
	}
	set("Augusta", read)
	if !poked() {
		t.Error("what the delivery has shown since is lost")
	}
	later, err := w.NextRead(t.Context())
	must(t, err)
	set("Ada", later)
	w.exec(`UPDATE stripe_customers SET profile_version = 99`)
	if poked() {
		t.Error("a look that came after it is followed by another")
	}

	// Somebody is between a look that changes the profile and its commit.
	shown := w.shown("msg_meanwhile", id)
	again, err := w.NextRead(t.Context())
	must(t, err)
	w.withUser(id, func(ctx context.Context, tx *store.Tx, u *store.User) error {
		p := ada(id)
		p.FirstName = "Augusta"
		if _, err := tx.SetProfile(ctx, u, p, again, nil); err != nil {
			return err
		}
		// The delivery does not wait for that either.
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		added, err := w.AddEvents(ctx, []store.NewEvent{shown}, 0)
		if err == nil && added[0] != store.AddedDue {
			t.Errorf("while the profile is being changed the delivery was added as %v", added)
		}
		return err
	})
}

// A delivery that saw its user before the deletion was asked for completes what it brings at the
// door, and commits only now. Who erases the user waits for it.
func TestErasingWaitsForADeliveryAtTheDoor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.known(1)
	door, err := connect(t, w.dsn).Begin(t.Context()) // as a delivery does
	must(t, err)
	defer func() { _ = door.Rollback(context.WithoutCancel(t.Context())) }()
	_, err = door.Exec(t.Context(), `SELECT FROM person_user WHERE clerk_user_id = $1 AND deletion_requested_at IS NULL FOR KEY SHARE SKIP LOCKED`, id)
	must(t, err)
	_, err = door.Exec(t.Context(), `INSERT INTO webhook_events (source, event_id, type, entity, status, completed_at, payload)
		VALUES ('clerk', 'msg_1', 'user.updated', 'user/' || $1::text, 'completed', now(), '{"first_name":"Ada"}')`, id)
	must(t, err)
	erased := make(chan error, 1)
	go func() {
		erased <- w.Update(t.Context(), "erase", store.Cause{}, func(ctx context.Context, tx *store.Tx) error {
			u, err := tx.LockUser(ctx, id)
			if err != nil {
				return err
			}
			if err := tx.RequestDeletion(ctx, u, nil); err != nil {
				return err
			}
			return tx.Erase(ctx, u)
		})
	}()
	w.waits(1)
	must(t, door.Commit(t.Context()))
	must(t, <-erased)
	if left := all[string](w, `SELECT event_id FROM webhook_events WHERE payload IS NOT NULL`); len(left) > 0 {
		t.Errorf("payloads left: %v", left)
	}
}
