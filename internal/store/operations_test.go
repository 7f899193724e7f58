package store_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// asked is a request of a user to cancel.
func asked(key string) store.NewOperation {
	n := store.NewOperation{RequestHash: []byte("request"), Caller: "user_1", Action: store.ActionCancel, ClerkUserID: "user_1",
		Entity: "customer/cus_1", SubscriptionID: "sub_1", Lifetime: time.Hour}
	if key != "" {
		n.KeyHash = []byte(key)
	}
	return n
}

func (w *world) begin(n store.NewOperation) (*store.Operation, bool) {
	w.t.Helper()
	op, isNew, err := w.BeginOperation(w.t.Context(), n)
	must(w.t, err)
	return op, isNew
}

func (w *world) statusOf(id string) string {
	w.t.Helper()
	op, err := w.Operation(w.t.Context(), id)
	must(w.t, err)
	if op == nil {
		return "none"
	}
	return string(op.Status)
}

// A key means one operation for as long as it lives, and another one after that, with another id. A
// request without one is always another.
func TestOneOperationAKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, isNew := w.begin(asked("k"))
	if !isNew || first.Status != store.OperationAccepted {
		t.Fatalf("a first request is %+v, new %t", first, isNew)
	}
	again, isNew := w.begin(asked("k"))
	if isNew || again.ID != first.ID {
		t.Errorf("the same key is operation %s, new %t, want %s", again.ID, isNew, first.ID)
	}
	a, _ := w.begin(asked(""))
	b, isNew := w.begin(asked(""))
	if !isNew || a.ID == b.ID {
		t.Error("two requests without a key are one operation")
	}
	w.exec(`UPDATE operations SET expires_at = now() - interval '1 second' WHERE id = $1`, first.ID)
	later, isNew := w.begin(asked("k"))
	if !isNew || later.ID == first.ID {
		t.Errorf("a day later the key is operation %s, new %t", later.ID, isNew)
	}
}

// A command is recorded with the user's projection of that moment, and done when Clerk has that or
// a newer one: not before.
func TestCommandIsDoneWhenClerkHasIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	user := w.user(1)
	w.link(user, "cus_1")
	op, _ := w.begin(asked(""))
	record := func() {
		w.withUser(user, func(ctx context.Context, tx *store.Tx, u *store.User) error {
			o, err := tx.LockOperation(ctx, op.ID)
			if err != nil {
				return err
			}
			if _, err := tx.Reproject(ctx, u, policy(), time.Now(), nil); err != nil {
				return err
			}
			return tx.RecordOperation(ctx, o, account.Ending{AtPeriodEnd: true}, u)
		})
	}
	record()
	if got := w.statusOf(op.ID); got != "recorded" {
		t.Errorf("before Clerk was told it is %q", got)
	}
	if _, err := w.Published(t.Context(), user, 0, 0, store.Cause{}); err != nil {
		t.Fatal(err)
	}
	if got := w.statusOf(op.ID); got != "recorded" {
		t.Errorf("with an older projection at Clerk it is %q", got)
	}
	if _, err := w.Published(t.Context(), user, 1, 0, store.Cause{}); err != nil {
		t.Fatal(err)
	}
	if got := w.statusOf(op.ID); got != "done" {
		t.Errorf("when Clerk has it it is %q", got)
	}
	// What changes nothing that Clerk is told is done at once.
	op, _ = w.begin(asked(""))
	record()
	if got := w.statusOf(op.ID); got != "done" {
		t.Errorf("with nothing to publish it is %q", got)
	}
}

// A sync is over when the user and all of their customers were read after it was asked for, and
// Clerk has what came of it.
func TestSyncIsOverWhenItCanBeSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	user := w.user(1)
	w.link(user, "cus_1")
	w.withUser(user, func(ctx context.Context, tx *store.Tx, u *store.User) error {
		_, err := tx.Reproject(ctx, u, policy(), time.Now(), nil)
		return err
	})
	n := asked("")
	n.Action, n.Entity, n.SubscriptionID = store.ActionSync, account.UserEntity(user), ""
	op, _ := w.begin(n)
	steps := []struct{ name, sql string }{
		{"asked for", `SELECT 1`},
		{"the user was read before", `UPDATE person_user SET read_seq = (SELECT seq FROM operations)`},
		{"the user was read", `UPDATE person_user SET read_seq = (SELECT seq + 1 FROM operations)`},
		{"the customer was read", `UPDATE stripe_customers SET read_seq = (SELECT seq + 1 FROM operations)`},
		{"the customer has an old name", `UPDATE stripe_customers SET profile_version = 0`},
		{"and a new one", `UPDATE stripe_customers SET profile_version = 1`},
	}
	for _, step := range steps {
		w.exec(step.sql)
		if got := w.statusOf(op.ID); got != "accepted" {
			t.Errorf("%s: it is %q", step.name, got)
		}
	}
	w.exec(`UPDATE person_user SET published_version = projection_version`)
	if got := w.statusOf(op.ID); got != "done" {
		t.Errorf("in the end it is %q", got)
	}
}

// A return from a checkout that names a subscription is over when a read that was asked for later
// has shown that one, whatever else it could not show; one that names none, when a read has shown
// all.
func TestReturnIsOverWhenItsSubscriptionWasShown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	user := w.user(1)
	w.link(user, "cus_1")
	// read stores a read of all subscriptions but those that it could not be shown.
	read := func(number int64, kept ...string) {
		w.withUser(user, func(ctx context.Context, tx *store.Tx, u *store.User) error {
			_, c, err := tx.LockCustomer(ctx, "cus_1")
			if err != nil {
				return err
			}
			last, whole := c.ReadSeq, c.WholeSeq
			if err := tx.SetCustomer(ctx, c, account.Customer{ID: "cus_1"}, number, true); err != nil {
				return err
			}
			if len(kept) > 0 {
				if err := tx.ReadInPart(ctx, c, whole); err != nil {
					return err
				}
			}
			stored, err := tx.SubscriptionsOfCustomer(ctx, "cus_1")
			if err != nil {
				return err
			}
			for _, id := range []string{"sub_1", "sub_2"} {
				if slices.Contains(kept, id) {
					continue
				}
				sub := account.Subscription{ID: id, CustomerID: "cus_1", Status: account.StatusActive}
				if _, err := tx.SetSubscription(ctx, u, stored, sub, nil, number, nil); err != nil {
					return err
				}
			}
			return tx.Keep(ctx, stored, kept, last)
		})
		w.exec(`UPDATE person_user SET projection_version = 1, published_version = 1`)
	}
	asks := func(at int64, subscription string) string {
		n := asked("")
		n.Action, n.SubscriptionID = store.ActionReturn, subscription
		op, _ := w.begin(n)
		w.exec(`UPDATE operations SET seq = $2 WHERE id = $1`, op.ID, at)
		return op.ID
	}
	is := func(when string, want ...string) {
		t.Helper()
		if got := all[string](w, `SELECT seq || ' ' || coalesce(stripe_subscription_id, '-') || ' ' || status FROM operations ORDER BY seq, stripe_subscription_id`); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	look := func(ids ...string) {
		for _, id := range ids {
			w.statusOf(id)
		}
	}
	one, none := asks(100, "sub_1"), asks(100, "")
	read(90)
	look(one, none)
	is("read before it was asked for", "100 sub_1 accepted", "100 - accepted")
	read(110, "sub_1")
	look(one, none)
	is("not shown since", "100 sub_1 accepted", "100 - accepted")
	read(120, "sub_1")
	look(one, none)
	is("not shown twice since", "100 sub_1 accepted", "100 - accepted")
	read(130, "sub_2")
	late, two, other := asks(125, "sub_1"), asks(115, "sub_2"), asks(121, "sub_2")
	read(140, "sub_1", "sub_2")
	look(one, none, late, two, other)
	// The one was shown by the read of 130, the other by that of 120, and by none since.
	is("shown, and not by the last", "100 sub_1 done", "100 - accepted", "115 sub_2 done", "121 sub_2 accepted", "125 sub_1 done")
	read(150)
	look(none, other)
	is("all shown", "100 sub_1 done", "100 - done", "115 sub_2 done", "121 sub_2 done", "125 sub_1 done")
}

// A sync of which nobody has asked again is ended by the sweep, which wakes nobody for it.
func TestSyncThatNobodyAsksAboutEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	user := w.user(1)
	w.link(user, "cus_1")
	w.withUser(user, func(ctx context.Context, tx *store.Tx, u *store.User) error {
		_, err := tx.Reproject(ctx, u, policy(), time.Now(), nil)
		return err
	})
	n := asked("")
	n.Action, n.Entity, n.SubscriptionID = store.ActionSync, account.UserEntity(user), ""
	op, _ := w.begin(n)
	status := func() string {
		return all[string](w, `SELECT status || ' ' || (retry_at IS NULL) FROM operations WHERE id = '`+op.ID+`'`)[0]
	}
	for _, step := range []struct {
		sql, want string
		pokes     int
	}{
		{`UPDATE person_user SET published_version = projection_version, read_seq = (SELECT seq + 1 FROM operations)`, "accepted false", 2},
		{`UPDATE stripe_customers SET read_seq = (SELECT seq + 1 FROM operations), profile_version = 1`, "done true", 0},
	} {
		w.exec(step.sql)
		w.exec(`UPDATE operations SET retry_at = now()`)
		if n, err := w.Sweep(t.Context(), 10); err != nil || n != step.pokes {
			t.Errorf("the sweep poked %d entities, want %d: %v", n, step.pokes, err)
		}
		if got := status(); got != step.want {
			t.Errorf("it is %s, want %s", got, step.want)
		}
	}
}

// What has not ended is poked again by the sweep, what was not begun in time has expired, and what
// has ended is forgotten with its key.
func TestSweepOfOperations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.user(1)
	due, _ := w.begin(asked(""))
	late, _ := w.begin(asked(""))
	young, _ := w.begin(asked(""))
	acting, _ := w.begin(asked(""))
	w.exec(`UPDATE operations SET retry_at = now() WHERE id = ANY($1)`, []string{due.ID, late.ID, acting.ID})
	w.exec(`UPDATE operations SET expires_at = now() WHERE id = ANY($1)`, []string{late.ID, acting.ID})
	w.exec(`UPDATE operations SET status = 'acting', entity = 'customer/cus_2' WHERE id = $1`, acting.ID)
	if n, err := w.Sweep(t.Context(), 10); err != nil || n != 2 {
		t.Errorf("the sweep poked %d entities, %v", n, err)
	}
	for id, want := range map[string]string{due.ID: "accepted", late.ID: "expired", young.ID: "accepted", acting.ID: "acting"} {
		if got := w.statusOf(id); got != want {
			t.Errorf("operation is %q, want %q", got, want)
		}
	}
	if n, err := w.ForgetOperations(t.Context(), 10); err != nil || n != 1 {
		t.Errorf("%d operations were forgotten, %v: want the one that has ended and expired", n, err)
	}
}

// What a request was to open, and has left, ends: whoever asks what became of it is told. A request
// that has the user's lease may still open it.
func TestSweepEndsWhatARequestHasLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	user := mustUser(t, w, w.user(1))
	opening := func(action store.Action) string {
		t.Helper()
		n := asked("")
		n.Action, n.ClerkUserID, n.Entity = action, user.ClerkUserID, "customer/cus_1"
		op, _ := w.begin(n)
		w.exec(`UPDATE operations SET retry_at = now() WHERE id = $1`, op.ID)
		return op.ID
	}
	checkout, portal, young := opening(store.ActionCheckout), opening(store.ActionPortal), opening(store.ActionCheckout)
	w.exec(`UPDATE operations SET created_at = created_at - interval '3 minutes' WHERE id <> $1`, young)
	if taken, err := w.LeaseCheckout(t.Context(), user.ID, checkout, time.Minute); err != nil || !taken {
		t.Fatal(taken, err)
	}
	is := func(want map[string]string) {
		t.Helper()
		w.exec(`UPDATE operations SET retry_at = now() WHERE status = 'accepted'`)
		if _, err := w.Sweep(t.Context(), 10); err != nil {
			t.Fatal(err)
		}
		for id, status := range want {
			if got := w.statusOf(id); got != status {
				t.Errorf("operation is %q, want %q", got, status)
			}
		}
	}
	is(map[string]string{checkout: "accepted", portal: "accepted", young: "accepted"})
	must(t, w.ReleaseCheckout(t.Context(), user.ID, checkout))
	is(map[string]string{checkout: "failed", portal: "failed", young: "accepted"})
}

// Two checkouts of one user are not opened at once; a lease ends by itself.
func TestCheckoutLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	user := mustUser(t, w, w.user(1))
	lease := func(operation string, d time.Duration) bool {
		t.Helper()
		taken, err := w.LeaseCheckout(t.Context(), user.ID, operation, d)
		must(t, err)
		return taken
	}
	if !lease("op_a", time.Minute) || lease("op_b", time.Minute) || !lease("op_a", -time.Second) || !lease("op_b", time.Minute) {
		t.Error("the lease is not one operation's at a time")
	}
	must(t, w.ReleaseCheckout(t.Context(), user.ID, "op_a")) // not its own any more
	if lease("op_c", time.Minute) {
		t.Error("an operation gave away the lease of another")
	}
	must(t, w.ReleaseCheckout(t.Context(), user.ID, "op_b"))
	if !lease("op_c", time.Minute) {
		t.Error("a lease that was given back is not free")
	}
}
