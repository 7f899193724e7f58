package store_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// A customer is linked once; a second link changes nothing, and drift about claims is over.
func TestLink(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second := w.user(1), w.user(2)
	must(t, w.noteDrift(t.Context(), "customer/cus_1", account.DriftConflictingClaims, "cus_1"))
	w.link(first, "cus_1")
	w.link(second, "cus_1")
	if got := one[string](w, `SELECT concat_ws(' ', clerk_user_id, link_source, linked_at IS NOT NULL) FROM stripe_customers JOIN person_user u ON u.id = user_id`); got != "user_1 created t" {
		t.Errorf("linked to %s", got)
	}
	if open, err := w.OpenDrift(t.Context()); len(open) != 0 || err != nil {
		t.Errorf("open drift %v, %v", open, err)
	}
}

// A link that moves while the rows are being locked starts the transaction again: it never goes on
// with the lock on somebody else.
func TestLockCustomerWhileLinkMoves(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.user(1)
	w.update(func(ctx context.Context, tx *store.Tx) error { _, _, err := tx.LockCustomer(ctx, "cus_1"); return err })
	// Somebody holds the customer's row and links it; the other one has read that nobody owns it.
	blocked := connect(t, w.dsn)
	tx, err := blocked.Begin(t.Context())
	must(t, err)
	if _, err := tx.Exec(t.Context(), `UPDATE stripe_customers SET user_id = (SELECT id FROM person_user)`); err != nil {
		t.Fatal(err)
	}
	var runs int
	done := make(chan error, 1)
	go func() {
		done <- w.Update(t.Context(), "lock", store.Cause{}, func(ctx context.Context, tx *store.Tx) error {
			runs++
			u, c, err := tx.LockCustomer(ctx, "cus_1")
			if err == nil && (u == nil || c.UserID == nil || *c.UserID != u.ID) {
				t.Errorf("locked %+v and %+v", u, c)
			}
			return err
		})
	}()
	w.waits(1)
	must(t, tx.Commit(t.Context()))
	must(t, <-done)
	if runs != 2 {
		t.Errorf("the transaction ran %d times, want it to start again once", runs)
	}
}

// waits waits until n of the store's statements wait for a lock.
func (w *world) waits(n int) {
	w.t.Helper()
	ctx := within(w.t)
	for one[int](w, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) < n {
		select {
		case <-ctx.Done():
			w.t.Fatalf("%d statements do not wait for a lock", n)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Customers that nobody has heard of get a row, once, whoever asks at the same time.
func TestLockCustomerAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var group errgroup.Group
	var mu sync.Mutex
	holders := 0
	for range 6 {
		group.Go(func() error {
			return w.Update(t.Context(), "lock", store.Cause{}, func(ctx context.Context, tx *store.Tx) error {
				user, c, err := tx.LockCustomer(ctx, "cus_1")
				if err != nil {
					return err
				}
				if user != nil || c.UserID != nil {
					t.Error("somebody owns it")
				}
				if !mu.TryLock() {
					t.Error("two transactions hold one customer")
					return nil
				}
				defer mu.Unlock()
				holders++
				return nil
			})
		})
	}
	must(t, group.Wait())
	if holders != 6 {
		t.Errorf("%d of 6 held the row", holders)
	}
}

// What a read shows is stored; a customer that is deleted in Stripe keeps what it had, and stays
// deleted.
func TestSetCustomer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	set := func(seen account.Customer, read int64, personal bool) string {
		w.update(func(ctx context.Context, tx *store.Tx) error {
			_, c, err := tx.LockCustomer(ctx, "cus_1")
			if err != nil {
				return err
			}
			return tx.SetCustomer(ctx, c, seen, read, personal)
		})
		return one[string](w, `SELECT concat_ws(' ', read_seq, email, name, to_char(stripe_created_at, 'DD'), deleted_in_stripe) FROM stripe_customers`)
	}
	if got := set(account.Customer{ID: "cus_1", Email: "a@example.com", Name: "Ada", Created: at(3)}, 5, true); got != "5 a@example.com Ada 03 f" {
		t.Errorf("stored %s", got)
	}
	if got := set(account.Customer{ID: "cus_1", Deleted: true}, 6, true); got != "6 a@example.com Ada 03 t" {
		t.Errorf("deleted: %s", got)
	}
	if got := set(account.Customer{ID: "cus_1", Email: "b@example.com"}, 7, true); got != "7 b@example.com 03 t" {
		t.Errorf("shown without a name, as it was before it was deleted: %s", got)
	}
	if got := set(account.Customer{ID: "cus_1", Email: "b@example.com", Name: "Ada"}, 8, false); got != "8 03 t" {
		t.Errorf("of somebody who is being deleted: %s", got)
	}
}

// The version of the profile that a customer was given only rises, and an empty value never
// overwrites.
func TestSetCustomerProfile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	give := func(email, name string, version int64) string {
		w.update(func(ctx context.Context, tx *store.Tx) error {
			_, c, err := tx.LockCustomer(ctx, "cus_1")
			if err != nil {
				return err
			}
			return tx.SetCustomerProfile(ctx, c, email, name, version)
		})
		return one[string](w, `SELECT concat_ws(' ', email, name, profile_version) FROM stripe_customers`)
	}
	for _, c := range []struct {
		email, name string
		version     int64
		want        string
	}{{"a@example.com", "Ada", 3, "a@example.com Ada 3"}, {"", "", 4, "a@example.com Ada 4"}, {"b@example.com", "", 2, "b@example.com Ada 4"}} {
		if got := give(c.email, c.name, c.version); got != c.want {
			t.Errorf("given %q %q %d: %s, want %s", c.email, c.name, c.version, got, c.want)
		}
	}
}

// Evidence that a read does not show any more is forgotten, but for that of sessions, which are
// not read; what events said stays until it is contradicted at the same place.
func TestClaims(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	event := stripeEvent("evt_1", "cus_1")
	event.Claims = []account.Claim{
		{CustomerID: "cus_1", ClerkUserID: "user_1", Source: "checkout:cs_1"},
		{CustomerID: "cus_1", ClerkUserID: "user_1", Source: "subscription:sub_1"},
		{CustomerID: "cus_1", ClerkUserID: "user_1", Source: "customer:cus_1"},
	}
	w.add(event)
	w.exec(`INSERT INTO customer_claims VALUES ('cus_2', 'user_1', 'customer:cus_2', 'evt_2')`)
	set := func(claims ...account.Claim) {
		w.update(func(ctx context.Context, tx *store.Tx) error { return tx.SetClaims(ctx, "cus_1", claims) })
	}
	claims := func() []string {
		return all[string](w, `SELECT concat_ws(' ', source, clerk_user_id, event_id) FROM customer_claims WHERE stripe_customer_id = 'cus_1' ORDER BY 1`)
	}
	set(account.Claim{CustomerID: "cus_1", ClerkUserID: "user_2", Source: "subscription:sub_1"})
	if got := claims(); !slices.Equal(got, []string{"checkout:cs_1 user_1 evt_1", "subscription:sub_1 user_2"}) {
		t.Errorf("claims %v", got)
	}
	set()
	if got := claims(); !slices.Equal(got, []string{"checkout:cs_1 user_1 evt_1"}) {
		t.Errorf("claims %v", got)
	}
	if n := one[int](w, `SELECT count(*) FROM customer_claims WHERE stripe_customer_id = 'cus_2'`); n != 1 {
		t.Error("another customer's claims went too")
	}
	evidence, err := w.EvidenceOn(t.Context(), "cus_1")
	must(t, err)
	stored := evidence.Claims
	if want := (account.Claim{CustomerID: "cus_1", ClerkUserID: "user_1", Source: "checkout:cs_1"}); len(stored) != 1 || stored[0] != want {
		t.Errorf("claims %+v", stored)
	}
}

// Customers that wait for a user: claimed ones by the claim, others by email, linked ones never.
func TestUnlinked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, other := w.user(1), w.user(2)
	for _, c := range []string{"cus_claimed", "cus_mine", "cus_mail", "cus_deleted", "cus_linked_mail"} {
		w.update(func(ctx context.Context, tx *store.Tx) error { _, _, err := tx.LockCustomer(ctx, c); return err })
	}
	w.exec(`UPDATE stripe_customers SET email = 'ADA@example.com'`)
	w.exec(`UPDATE stripe_customers SET deleted_in_stripe = true WHERE stripe_customer_id = 'cus_deleted'`)
	w.link(id, "cus_mine")
	w.link(other, "cus_linked_mail")
	for _, c := range []string{"cus_claimed", "cus_mine", "cus_unseen"} {
		w.exec(`INSERT INTO customer_claims VALUES ($1, 'user_1', 'checkout:cs_1'), ($1, 'user_1', 'customer:x')`, c)
	}
	claimed, err := w.UnlinkedClaimed(t.Context(), id)
	must(t, err)
	if !slices.Equal(claimed, []string{"cus_claimed", "cus_unseen"}) {
		t.Errorf("claimed %v", claimed)
	}
	byEmail, err := w.UnlinkedByEmail(t.Context(), "ada@EXAMPLE.com")
	must(t, err)
	if !slices.Equal(byEmail, []string{"cus_mail"}) {
		t.Errorf("by email %v", byEmail)
	}
	for _, empty := range []string{"", "  "} {
		if none, err := w.UnlinkedByEmail(t.Context(), empty); len(none) != 0 || err != nil {
			t.Errorf("by no email: %v, %v", none, err)
		}
	}
}

// An email links to the one user whose verified address it is, and to nobody else.
func TestUserByCustomerEmail(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.update(func(ctx context.Context, tx *store.Tx) error { _, _, err := tx.LockCustomer(ctx, "cus_1"); return err })
	w.user(1)
	w.user(2)
	for _, c := range []struct{ name, sql, want string }{
		{"no email at all", `UPDATE person_user SET email = NULL`, ""},
		{"nobody's", `UPDATE stripe_customers SET email = 'ada@example.com'`, ""},
		{"not verified", `UPDATE person_user SET email = 'Ada@Example.com' WHERE clerk_user_id = 'user_1'`, ""},
		{"one user's", `UPDATE person_user SET email_verified = true WHERE clerk_user_id = 'user_1'`, "user_1"},
		{"also another's, not verified", `UPDATE person_user SET email = 'ada@example.com' WHERE clerk_user_id = 'user_2'`, "user_1"},
		{"two users'", `UPDATE person_user SET email_verified = true`, ""},
		{"one of the two is being deleted", `UPDATE person_user SET deletion_requested_at = now() WHERE clerk_user_id = 'user_1'`, "user_2"},
		{"the customer is deleted", `UPDATE stripe_customers SET deleted_in_stripe = true`, ""},
		{"both empty", `UPDATE stripe_customers SET deleted_in_stripe = false, email = ''; UPDATE person_user SET email = ''`, ""},
	} {
		w.exec(c.sql)
		w.update(func(ctx context.Context, tx *store.Tx) error {
			got, err := tx.UserByCustomerEmail(ctx, "cus_1")
			if got.ClerkUserID != c.want {
				t.Errorf("%s: %+v, want %q", c.name, got, c.want)
			}
			return err
		})
		if strings.HasPrefix(c.name, "the customer is deleted") || strings.HasPrefix(c.name, "both empty") {
			continue
		}
		if got, err := w.UsersByAddress(t.Context(), []account.Customer{{ID: "cus_1", Email: "ada@EXAMPLE.com"}, {ID: "cus_2"}}); err != nil || got["cus_1"] != c.want || got["cus_2"] != "" {
			t.Errorf("%s: as shown %v (%v), want %q", c.name, got, err, c.want)
		}
	}
}

// An address is still that of a deleted user who had verified it, of a customer who was made while
// they were there or a day later at most; of several, of the one who was there then. Whoever is
// there goes before.
func TestAddressOfADeletedUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.update(func(ctx context.Context, tx *store.Tx) error { _, _, err := tx.LockCustomer(ctx, "cus_1"); return err })
	w.exec(`UPDATE stripe_customers SET email = ' Ada@Example.com', stripe_created_at = now()`)
	first, second, never, told := w.user(1), w.user(2), w.user(3), w.user(4)
	w.exec(`UPDATE person_user SET email = 'ada@example.com', email_verified = clerk_user_id <> 'user_3' WHERE clerk_user_id <> 'user_4'`)
	by := func(name, wanted string) {
		t.Helper()
		inside := ""
		w.update(func(ctx context.Context, tx *store.Tx) error {
			by, err := tx.UserByCustomerEmail(ctx, "cus_1")
			inside = by.ClerkUserID
			return err
		})
		if outside, err := w.UserByCustomerEmail(t.Context(), "cus_1"); err != nil || outside.ClerkUserID != inside || inside != wanted {
			t.Errorf("%s: %q in a transaction and %+v outside of one (%v), want %q", name, inside, outside, err, wanted)
		}
	}
	had := func(id string, want bool) {
		t.Helper()
		evidence, err := w.EvidenceOn(t.Context(), "cus_1", account.Claim{CustomerID: "cus_1", ClerkUserID: id, Source: "reference:cs_1"})
		must(t, err)
		if got := evidence.Users[id]; got.HadAddress != want || got.VerifiedEmail != "" {
			t.Errorf("of %s is known %+v, want that they had the address: %t", id, got, want)
		}
	}
	erase := func(id string, addresses ...string) {
		w.withUser(id, func(ctx context.Context, tx *store.Tx, u *store.User) error {
			return errors.Join(tx.RequestDeletion(ctx, u, nil), tx.KeepAddresses(ctx, u, addresses), tx.Erase(ctx, u))
		})
	}
	erase(never)
	had(never, false)
	erase(first)
	had(first, false) // somebody has it who is there
	w.exec(`UPDATE person_user SET email_verified = false WHERE clerk_user_id = 'user_2'`)
	had(first, true)
	w.exec(`UPDATE stripe_customers SET email = lower(trim(email))`)
	by("whoever was deleted had it", first)
	w.exec(`UPDATE person_user SET email_verified = true WHERE clerk_user_id = 'user_2'`)
	by("somebody has it who is there", second)
	w.exec(`UPDATE person_user SET deletion_requested_at = now() - interval '23 hours' WHERE clerk_user_id = 'user_1'`)
	erase(second)
	by("two had it", first)
	w.exec(`UPDATE person_user SET deletion_requested_at = now() - interval '25 hours' WHERE clerk_user_id = 'user_1'`)
	by("one of two who had it was there", second)
	w.exec(`UPDATE person_user SET deletion_requested_at = now() - interval '25 hours' WHERE clerk_user_id = 'user_2'`)
	by("nobody was there who had it", "")
	had(first, true) // of whom a checkout has said more
	erase(told, "", " ", "ADA@example.com ")
	by("an event has told that they had it", told)
	w.exec(`UPDATE stripe_customers SET stripe_created_at = NULL`)
	by("nobody knows when the customer was made", "")
	w.exec(`UPDATE stripe_customers SET stripe_created_at = now(), email = ''`)
	by("the customer has no address", "")
	if n := one[int](w, `SELECT count(*) FROM tombstone_addresses`); n != 3 {
		t.Errorf("%d addresses are kept", n)
	}
	claim := account.Claim{CustomerID: "cus_1", ClerkUserID: told, Source: "payment_link_reference:cs_1"}
	must(t, w.KeepClaim(t.Context(), claim))
	for address, want := range map[string]int{"ada@example.COM": 1, "eve@example.com": 0} {
		w.exec(`UPDATE stripe_customers SET email = $1`, address)
		if waiting, err := w.UnlinkedClaimed(t.Context(), told); err != nil || len(waiting) != want {
			t.Errorf("with %s the customers %v (%v) wait for whom they refer to", address, waiting, err)
		}
	}
}

// Drift is loud once, stays open until it is resolved, and is loud again when it comes back.
func TestDrift(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var told []store.NewDrift
	w := worldOn(t, databases.DSN(t), store.Options{OnDrift: func(_ context.Context, d store.NewDrift) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, d)
	}})
	note := func(subject string) {
		must(t, w.noteDrift(t.Context(), "customer/cus_1", account.DriftUnknownPrice, subject))
	}
	resolve := func(subject string) {
		w.update(func(ctx context.Context, tx *store.Tx) error {
			return tx.ResolveDrift(ctx, "customer/cus_1", account.DriftUnknownPrice, subject)
		})
	}
	note("sub_1")
	note("sub_1")
	note("sub_2")
	open, err := w.OpenDrift(t.Context())
	must(t, err)
	if len(told) != 2 || open["unknown_price"] != 2 || len(open) != 1 {
		t.Errorf("told %v, open %v", told, open)
	}
	resolve("sub_2")
	resolve("sub_3")
	if open, _ = w.OpenDrift(t.Context()); open["unknown_price"] != 1 {
		t.Errorf("open after one is resolved: %v", open)
	}
	note("sub_2")
	if len(told) != 3 {
		t.Errorf("drift that came back was not told: %v", told)
	}
	resolve("")
	if open, _ = w.OpenDrift(t.Context()); len(open) != 0 {
		t.Errorf("open after all are resolved: %v", open)
	}
	err = w.Update(t.Context(), "undone", store.Cause{}, func(ctx context.Context, tx *store.Tx) error {
		if err := tx.NoteDrift(ctx, "customer/cus_1", account.DriftOrphanCustomer, "cus_1"); err != nil {
			return err
		}
		return context.Canceled
	})
	if err == nil || len(told) != 3 {
		t.Errorf("drift of an undone transaction was told: %v", told)
	}
}
