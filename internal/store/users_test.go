package store_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

func ada(id string) account.User {
	return account.User{ID: id, FirstName: "Ada", LastName: "Lovelace", Username: "ada", Email: "ada@example.com", EmailVerified: true}
}

// exerciseUsers writes all that the application writes about a user with nothing but an id, on
// whatever tables there are.
func exerciseUsers(t *testing.T, w *world) {
	t.Helper()
	id := w.user(77)
	w.withUser(id, func(ctx context.Context, tx *store.Tx, u *store.User) error {
		if _, err := tx.SetProfile(ctx, u, ada(id), 1, nil); err != nil {
			return err
		}
		_, err := tx.SetProfile(ctx, u, account.User{ID: id}, 2, nil)
		return err
	})
	w.link(id, "cus_77")
	price := "price_1"
	w.plan("prod_1", "Pro", price)
	w.set(id, account.Subscription{ID: "sub_77", CustomerID: "cus_77", Status: account.StatusActive, Items: []account.Item{{PriceID: price, Quantity: 1}}})
	u, err := w.UserByClerkID(t.Context(), id)
	must(t, err)
	if !strings.Contains(string(u.ProjectionJSON), `"plan": "Pro"`) {
		t.Fatalf("the projection is %s, want the plan Pro in it", u.ProjectionJSON)
	}
	if _, err := w.Published(t.Context(), id, u.ProjectionVersion, 0, store.Cause{}); err != nil {
		t.Fatal(err)
	}
	w.withUser(id, func(ctx context.Context, tx *store.Tx, u *store.User) error {
		if err := tx.RequestDeletion(ctx, u, nil); err != nil {
			return err
		}
		return tx.Erase(ctx, u)
	})
}

// A profile is written where it differs, and only then; what people are called is audited by name
// and never by value.
func TestSetProfile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.user(1)
	set := func(p account.User, read int64) (changed bool) {
		w.withUser(id, func(ctx context.Context, tx *store.Tx, u *store.User) (err error) {
			changed, err = tx.SetProfile(ctx, u, p, read, []string{"msg_1"})
			return err
		})
		return changed
	}
	if !set(ada(id), 5) {
		t.Error("a first profile is said to change nothing")
	}
	if set(ada(id), 6) {
		t.Error("the same profile is said to change something")
	}
	renamed := ada(id)
	renamed.Username, renamed.EmailVerified = "countess", false
	if set(renamed, 7) {
		t.Error("a user name is said to be what customers carry")
	}
	nameless := renamed
	nameless.FirstName, nameless.Email = "", ""
	if !set(nameless, 8) {
		t.Error("a removed email is said to change nothing")
	}
	u, err := w.UserByClerkID(t.Context(), id)
	must(t, err)
	if u.Profile() != nameless {
		t.Errorf("stored %+v, want %+v", u.Profile(), nameless)
	}
	if u.Email != nil || u.FirstName != nil {
		t.Error("what is not there is stored as an empty text")
	}
	if u.ReadSeq != 8 || u.ProfileVersion != 3 {
		t.Errorf("read %d, profile version %d, want 8 and 3", u.ReadSeq, u.ProfileVersion)
	}
	if n := one[int](w, `SELECT count(*) FROM audit_log WHERE action = 'user.profile'`); n != 3 {
		t.Errorf("%d lines of audit, want 3", n)
	}
	if personal := one[int](w, `SELECT count(*) FROM audit_log a WHERE a::text ~* '(lovelace|ada|countess|example)'`); personal != 0 {
		t.Errorf("%d lines of audit hold personal values", personal)
	}
	if got := one[string](w, `SELECT concat_ws(' ', event_ids, workflow_id, run_id, clerk_user_id, after) FROM audit_log WHERE action = 'user.profile' ORDER BY id LIMIT 1`); !strings.HasPrefix(got, "{msg_1} test/1 run-1 user_1 ") {
		t.Errorf("the audit line says %q", got)
	}
}

// What is too long for its column, or holds what no column can hold, is stored as far as it goes:
// it keeps nobody from being stored, and is not a change at every read.
func TestTextsThatDoNotFit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.user(1)
	long := account.User{ID: id, FirstName: strings.Repeat("é", 300), LastName: "Love\x00lace", Username: strings.Repeat("x", 256), Email: "a\xff@example.com"}
	for read, want := range []bool{true, false} {
		w.withUser(id, func(ctx context.Context, tx *store.Tx, u *store.User) error {
			changed, err := tx.SetProfile(ctx, u, long, int64(read), nil)
			if changed != want {
				t.Errorf("read %d changed something: %t", read, changed)
			}
			return err
		})
	}
	if got := mustUser(t, w, id).Profile(); got.FirstName != strings.Repeat("é", 255) || got.LastName != "Lovelace" || len(got.Username) != 255 || got.Email != "a\ufffd@example.com" {
		t.Errorf("stored %+v", got)
	}
	w.update(func(ctx context.Context, tx *store.Tx) error {
		_, c, err := tx.LockCustomer(ctx, "cus_1")
		if err != nil {
			return err
		}
		return tx.SetCustomer(ctx, c, account.Customer{ID: "cus_1", Name: "Love\x00lace"}, 1, true)
	})
	planID := w.plan("prod_1", strings.Repeat("界\x00", 300), "price_1")
	if got := one[string](w, `SELECT plan_name FROM plans WHERE id = $1`, planID); got != strings.Repeat("界", 255) {
		t.Errorf("the plan is called %s", got)
	}
}

// A user is made once, whoever asks at the same time.
func TestEnsureUserAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	created := make([]bool, 6)
	var group errgroup.Group
	for i := range created {
		group.Go(func() error {
			return w.Update(t.Context(), "ensure", store.Cause{}, func(ctx context.Context, tx *store.Tx) error {
				u, isNew, err := tx.EnsureUser(ctx, "user_1")
				created[i] = isNew
				if err == nil && u == nil {
					return errors.New("no user was answered")
				}
				return err
			})
		})
	}
	must(t, group.Wait())
	n := 0
	for _, c := range created {
		if c {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d of the callers made the user, want 1", n)
	}
	if u, err := w.UserByClerkID(t.Context(), "user_2"); u != nil || err != nil {
		t.Errorf("a user that nobody made: %v, %v", u, err)
	}
}

// What is erased is gone from every table; row, mark and links stay, and nothing that is asked
// for again changes it.
func TestErase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, other := w.user(1), w.user(2)
	for user, customer := range map[string]string{id: "cus_1", other: "cus_2"} {
		w.withUser(user, func(ctx context.Context, tx *store.Tx, u *store.User) error {
			_, err := tx.SetProfile(ctx, u, ada(user), 1, nil)
			return err
		})
		w.withUser(user, func(ctx context.Context, tx *store.Tx, u *store.User) error { return tx.SetHint(ctx, u, customer) })
		w.link(user, customer)
		w.update(func(ctx context.Context, tx *store.Tx) error {
			_, c, err := tx.LockCustomer(ctx, customer)
			if err != nil {
				return err
			}
			return tx.SetCustomer(ctx, c, account.Customer{ID: customer, Email: "ada@example.com", Name: "Ada Lovelace"}, 2, true)
		})
		w.set(user, account.Subscription{ID: "sub_" + customer, CustomerID: customer, Status: account.StatusActive, Metadata: map[string]string{"name": "Ada Lovelace"}})
		w.add(clerkEvent("msg_done_"+user, "user.updated", user), clerkEvent("msg_due_"+user, "user.updated", user), stripeEvent("evt_"+customer, customer),
			stripeEvent("evt_waiting_"+customer, customer), stripeEvent("evt_failing_"+customer, customer))
		w.exec(`UPDATE webhook_events SET payload = 'Ada Lovelace', status = CASE WHEN event_id LIKE 'msg_due%' THEN 'pending' WHEN event_id LIKE 'evt_waiting%' THEN 'waiting'
			WHEN event_id LIKE 'evt_failing%' THEN 'failing' ELSE 'completed' END`)
	}
	erase := func() {
		w.withUser(id, func(ctx context.Context, tx *store.Tx, u *store.User) error {
			if err := tx.RequestDeletion(ctx, u, []string{"msg_deleted"}); err != nil {
				return err
			}
			return tx.Erase(ctx, u)
		})
	}
	erase()
	u, err := w.UserByClerkID(t.Context(), id)
	must(t, err)
	if !u.Deleting() || u.ErasedAt == nil || u.DeletionSeq == nil || u.PublishDue() {
		t.Errorf("the tombstone is %+v", u)
	}
	if p := u.Profile(); p != (account.User{ID: id}) {
		t.Errorf("left of the profile: %+v", p)
	}
	for customer, left := range map[string]int{"cus_1": 0, "cus_2": 1} {
		var hints int
		must(t, w.conn.QueryRow(t.Context(), `SELECT count(*) FROM customer_hints WHERE stripe_customer_id = $1`, customer).Scan(&hints))
		if hints != left {
			t.Errorf("%d hints at %s are left, want %d", hints, customer, left)
		}
	}
	for _, table := range []string{"person_user", "stripe_customers", "subscriptions", "audit_log", "subscription_changes", "drift", "payments", "customer_claims"} {
		key := map[string]string{"person_user": "id", "stripe_customers": "user_id", "subscriptions": "user_id", "subscription_changes": "user_id", "audit_log": "user_id"}[table]
		where := "true"
		if key != "" {
			where = key + " = '" + u.ID + "'"
		}
		if left := describe(w, table, where); strings.Contains(strings.ToLower(left), "lovelace") || strings.Contains(left, "example.com") {
			t.Errorf("%s still holds %s", table, left)
		}
	}
	if left := all[string](w, `SELECT event_id FROM webhook_events WHERE payload IS NOT NULL ORDER BY 1`); strings.Join(left, " ") != "evt_cus_2 evt_failing_cus_1 evt_failing_cus_2 evt_waiting_cus_2 msg_done_user_2 msg_due_user_1 msg_due_user_2" {
		t.Errorf("payloads left: %v", left)
	}
	if owner := one[string](w, `SELECT user_id::text FROM stripe_customers WHERE stripe_customer_id = 'cus_1'`); owner != u.ID {
		t.Error("the link is gone")
	}
	if p := one[string](w, `SELECT email FROM stripe_customers WHERE stripe_customer_id = 'cus_2'`); p != "ada@example.com" {
		t.Error("another user's data was erased too")
	}
	marked := describe(w, "person_user", "clerk_user_id = $1", id)
	erase()
	if again := describe(w, "person_user", "clerk_user_id = $1", id); strings.Contains(again, "Lovelace") || *mustUser(t, w, id).DeletionSeq != *u.DeletionSeq || !mustUser(t, w, id).ErasedAt.Equal(*u.ErasedAt) {
		t.Errorf("erasing again changed %s to %s", marked, again)
	}

	// Metadata and profile of whoever is being deleted are not stored again.
	w.set(id, account.Subscription{ID: "sub_cus_1", CustomerID: "cus_1", Status: account.StatusCanceled, Metadata: map[string]string{"name": "Ada Lovelace"}})
	w.update(func(ctx context.Context, tx *store.Tx) error {
		_, c, err := tx.LockCustomer(ctx, "cus_1")
		if err != nil {
			return err
		}
		return tx.SetCustomer(ctx, c, account.Customer{ID: "cus_1", Email: "ada@example.com", Name: "Ada Lovelace"}, 9, false)
	})
	if left := describe(w, "subscriptions", "stripe_customer_id = 'cus_1'") + describe(w, "stripe_customers", "stripe_customer_id = 'cus_1'"); strings.Contains(left, "Lovelace") || strings.Contains(left, "example") {
		t.Errorf("personal data came back: %s", left)
	}
	// A tombstone has nowhere to publish to, whatever changes.
	if u := mustUser(t, w, id); u.PublishDue() || u.PublishedVersion < 2 {
		t.Errorf("a tombstone waits to be published: %d <> %d", u.ProjectionVersion, u.PublishedVersion)
	}
	w.exec(`UPDATE person_user SET publish_retry_at = now() - interval '1 hour' WHERE clerk_user_id = $1`, id)
	if more, err := w.Published(t.Context(), id, 1, 0, store.Cause{}); more || err != nil || mustUser(t, w, id).PublishDue() {
		t.Errorf("a late publisher woke a tombstone: %t, %v", more, err)
	}
}

func mustUser(t *testing.T, w *world, id string) *store.User {
	t.Helper()
	u, err := w.UserByClerkID(t.Context(), id)
	if err != nil || u == nil {
		t.Fatalf("user %s: %v, %v", id, u, err)
	}
	return u
}

// The mark's number orders it among the reads.
func TestRequestDeletionIsNumbered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.user(1)
	before, err := w.NextRead(t.Context())
	must(t, err)
	w.withUser(id, func(ctx context.Context, tx *store.Tx, u *store.User) error { return tx.RequestDeletion(ctx, u, nil) })
	after, err := w.NextRead(t.Context())
	must(t, err)
	if seq := *mustUser(t, w, id).DeletionSeq; before >= seq || seq >= after {
		t.Errorf("the mark has number %d between the reads %d and %d", seq, before, after)
	}
	if got := all[string](w, `SELECT action FROM audit_log`); len(got) != 1 || got[0] != "user.deletion_requested" {
		t.Errorf("audited %v", got)
	}
}

// The first key that is seen decides whose database it is; another one is refused, at any time.
func TestIdentity(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if id, err := w.Identity(t.Context()); err != nil || id != (store.Identity{}) {
		t.Fatalf("a new database belongs to %+v, %v", id, err)
	}
	must(t, w.BindStripe(t.Context(), "acct_1", false))
	must(t, w.BindClerk(t.Context(), "ins_1"))
	must(t, w.BindStripe(t.Context(), "acct_1", false))
	must(t, w.BindClerk(t.Context(), "ins_1"))
	for what, err := range map[string]error{
		"another account":  w.BindStripe(t.Context(), "acct_2", false),
		"the other mode":   w.BindStripe(t.Context(), "acct_1", true),
		"another instance": w.BindClerk(t.Context(), "ins_2"),
	} {
		if !errors.Is(err, store.ErrOtherAccount) {
			t.Errorf("%s was answered: %v", what, err)
		}
	}
	id, err := w.Identity(t.Context())
	must(t, err)
	if id.StripeAccountID != "acct_1" || id.ClerkInstanceID != "ins_1" || id.StripeLivemode == nil || *id.StripeLivemode {
		t.Errorf("the database belongs to %+v", id)
	}
	if _, err := w.conn.Exec(t.Context(), `INSERT INTO provider_identity (singleton) VALUES (false)`); err == nil {
		t.Error("the database may belong to two accounts")
	}
}

// Of programs with different keys that start at once, one wins.
func TestIdentityAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	refused := make([]bool, 6)
	var group errgroup.Group
	for i := range refused {
		group.Go(func() error {
			err := w.BindStripe(t.Context(), []string{"acct_1", "acct_2"}[i%2], false)
			refused[i] = errors.Is(err, store.ErrOtherAccount)
			if refused[i] {
				return nil
			}
			return err
		})
	}
	must(t, group.Wait())
	for i := range refused {
		if refused[i] != refused[i%2] {
			t.Fatalf("programs with the same key got different answers: %v", refused)
		}
	}
	if refused[0] == refused[1] {
		t.Fatalf("both accounts, or none, own the database: %v", refused)
	}
}

// The address of a database that is not there is an answer, not a hang, and it becomes reachable
// without anything being opened again.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	s, err := store.Open(t.Context(), store.Options{DSN: "postgres://postgres@127.0.0.1:1/none"})
	must(t, err)
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, err := range []error{s.Ping(ctx), s.Migrated(ctx), s.MarkFailing(ctx, "user/user_1", "x"), s.ListenForPokes(ctx, func() { t.Error("woken by nobody") })} {
		if failure.Of(err) != failure.Transient || err == nil {
			t.Errorf("an unreachable database was answered: %v", err)
		}
	}
}

// A hint is that of the user's latest notes, and gone with them.
func TestHints(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.user(1)
	u, err := w.UserByClerkID(t.Context(), id)
	must(t, err)
	for _, noted := range []string{"", "cus_1", "cus_2", "cus_2", "", ""} {
		w.withUser(id, func(ctx context.Context, tx *store.Tx, u *store.User) error { return tx.SetHint(ctx, u, noted) })
		if got, err := w.Hint(t.Context(), u); err != nil || got != noted {
			t.Errorf("the hint is %q, %v, want %q", got, err, noted)
		}
	}
}
