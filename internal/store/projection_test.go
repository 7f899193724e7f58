package store_test

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

func (w *world) reproject(id string) (changed bool) {
	w.t.Helper()
	w.withUser(id, func(ctx context.Context, tx *store.Tx, u *store.User) (err error) {
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		changed, err = tx.Reproject(ctx, u, policy(), now, []string{"evt_1"})
		return err
	})
	return changed
}

// A projection gets a new version with each new content and with nothing else.
func TestReproject(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.user(1)
	if u := mustUser(t, w, id); u.PublishDue() || u.ProjectionVersion != 0 {
		t.Fatalf("a new user has %+v", u)
	}
	if !w.reproject(id) {
		t.Error("the first projection, of nothing, is a change")
	}
	if u := mustUser(t, w, id); u.ProjectionVersion != 1 || !u.PublishDue() || string(u.ProjectionJSON) == "{}" {
		t.Errorf("the first projection is %+v", u)
	}
	if w.reproject(id) {
		t.Error("computed again it changed")
	}
	w.link(id, "cus_2")
	w.link(id, "cus_1")
	w.exec(`UPDATE stripe_customers SET stripe_created_at = CASE stripe_customer_id WHEN 'cus_2' THEN now() - interval '1 day' ELSE now() END`)
	if !w.reproject(id) {
		t.Error("a customer is a change")
	}
	if u := mustUser(t, w, id); *u.StripeCustomerID != "cus_2" || u.ProjectionVersion != 2 {
		t.Errorf("the primary customer is %s in version %d, want the oldest in 2", *u.StripeCustomerID, u.ProjectionVersion)
	}
	w.exec(`UPDATE stripe_customers SET deleted_in_stripe = true WHERE stripe_customer_id = 'cus_2'`)
	w.reproject(id)
	if u := mustUser(t, w, id); *u.StripeCustomerID != "cus_1" {
		t.Errorf("the primary customer is %s, which is deleted", *u.StripeCustomerID)
	}
	w.set(id, account.Subscription{ID: "sub_1", CustomerID: "cus_1", Status: account.StatusActive, Created: at(1)})
	u := mustUser(t, w, id)
	p, err := u.Projection()
	must(t, err)
	if !p.SubscriptionActive || p.SubscriptionID != "sub_1" || p.Version != 4 {
		t.Errorf("projection %+v", p)
	}
	if since := one[bool](w, `SELECT publish_due_since IS NOT NULL AND publish_retry_at > now() FROM person_user`); !since {
		t.Error("a projection that is due has no age or no retry")
	}
	if n := one[int](w, `SELECT count(*) FROM audit_log WHERE action = 'projection.changed'`); n != 4 {
		t.Errorf("%d lines of audit, want one a version", n)
	}
}

// Customers of one user that change at once: whoever commits last, the projection counts both.
func TestReprojectAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.user(1)
	customers := []string{"cus_1", "cus_2", "cus_3", "cus_4"}
	for _, c := range customers {
		w.link(id, c)
	}
	for round := range 5 {
		day := at(round + 1)
		var group errgroup.Group
		for i, c := range customers {
			group.Go(func() error {
				return w.Update(t.Context(), "record", store.Cause{}, func(ctx context.Context, tx *store.Tx) error {
					u, _, err := tx.LockCustomer(ctx, c)
					if err != nil {
						return err
					}
					stored, err := tx.SubscriptionsOfCustomer(ctx, c)
					if err != nil {
						return err
					}
					// The newest leads.
					seen := account.Subscription{ID: "sub_" + c, CustomerID: c, Status: account.StatusActive, Created: day.Add(time.Duration((i+round)%4) * time.Hour)}
					if _, err := tx.SetSubscription(ctx, u, stored, seen, nil, 1, nil); err != nil {
						return err
					}
					_, err = tx.Reproject(ctx, u, policy(), day, nil)
					return err
				})
			})
		}
		must(t, group.Wait())
		newest := one[string](w, `SELECT stripe_customer_id FROM subscriptions ORDER BY stripe_created_at DESC LIMIT 1`)
		if u := mustUser(t, w, id); *u.StripeCustomerID != newest {
			t.Fatalf("round %d: the projection is of %s, the newest subscription of %s", round, *u.StripeCustomerID, newest)
		}
	}
}

// What was published is recorded as it is, also when it is older than what was recorded before:
// then it is due again.
func TestPublished(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.user(1)
	w.reproject(id)
	w.link(id, "cus_1")
	w.reproject(id)
	state := func() string {
		return one[string](w, `SELECT concat_ws(' ', projection_version, published_version, publish_due_since IS NOT NULL, publish_retry_at IS NOT NULL, publish_error) FROM person_user`)
	}
	publish := func(version int64, wantMore bool, want string) {
		t.Helper()
		more, err := w.Published(t.Context(), id, version, 0, store.Cause{})
		must(t, err)
		if more != wantMore || state() != want {
			t.Errorf("published %d: more %t, %q, want %t, %q", version, more, state(), wantMore, want)
		}
	}
	must(t, w.PublishFailed(t.Context(), id, "transient: http_502"))
	if got := state(); got != "2 0 t t transient: http_502" {
		t.Errorf("failed: %q", got)
	}
	publish(1, true, "2 1 t t")
	publish(2, false, "2 2 f f")
	must(t, w.PublishFailed(t.Context(), id, "too late"))
	if got := state(); got != "2 2 f f" {
		t.Errorf("a failure after the success: %q", got)
	}
	publish(1, true, "2 1 t t")
	if n, err := w.Sweep(t.Context(), 10); n != 0 || err != nil {
		t.Errorf("swept at once: %d, %v", n, err)
	}
	w.exec(`UPDATE person_user SET publish_retry_at = now()`)
	if n, err := w.Sweep(t.Context(), 10); n != 1 || err != nil {
		t.Errorf("a projection put back by a late writer is not swept: %d, %v", n, err)
	}
	publish(2, false, "2 2 f f")
	if more, err := w.Published(t.Context(), "user_none", 1, 0, store.Cause{}); more || err != nil {
		t.Errorf("published for nobody: %t, %v", more, err)
	}
}

// A failed publish is retried ever more slowly, at most an hour apart.
func TestPublishFailedBacksOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.user(1)
	w.reproject(id)
	for age, want := range map[string]float64{"1 second": 30, "20 minutes": 600, "3 days": 3600} {
		w.exec(`UPDATE person_user SET publish_due_since = now() - $1::text::interval`, age)
		must(t, w.PublishFailed(t.Context(), id, "x"))
		if got := one[float64](w, `SELECT extract(epoch FROM publish_retry_at - now())::float8 FROM person_user`); got < want-20 || got > want+20 {
			t.Errorf("behind since %s: retried in %v s, want %v", age, got, want)
		}
	}
}
