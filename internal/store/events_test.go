package store_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// One group of deliveries: each event once, the ignored ones without their payload, the evidence,
// and one poke an entity with the highest job that was asked for.
func TestAddEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	claimed := stripeEvent("evt_3", "cus_2")
	claimed.Claims = []account.Claim{{CustomerID: "cus_2", ClerkUserID: "user_9", Source: "checkout:cs_1"}}
	ignored := store.NewEvent{Source: "stripe", EventID: "evt_4", Type: "balance.available", Ignore: "type not handled", Payload: `{"secret":1}`,
		ReceivedAt: time.Now(), Claims: []account.Claim{{CustomerID: "cus_3", ClerkUserID: "user_9", Source: "checkout:cs_2"}}}
	added := w.add(
		stripeEvent("evt_1", "cus_1"), stripeEvent("evt_2", "cus_1"), stripeEvent("evt_1", "cus_1"), claimed, ignored,
		clerkEvent("evt_1", "user.deleted", "user_1"), clerkEvent("msg_2", "user.created", "user_1"),
	)
	if want := []store.Added{store.AddedDue, store.AddedDue, store.AddedBefore, store.AddedDue, store.AddedDone, store.AddedDue, store.AddedDue}; !slices.Equal(added, want) {
		t.Errorf("added %v, want %v", added, want)
	}
	events := all[string](w, `SELECT concat_ws(' ', source, event_id, status, entity, reason, payload IS NOT NULL, completed_at IS NOT NULL, retry_at IS NOT NULL) FROM webhook_events ORDER BY seq`)
	want := []string{
		"stripe evt_1 pending customer/cus_1 t f t",
		"stripe evt_2 pending customer/cus_1 t f t",
		"stripe evt_3 pending customer/cus_2 t f t",
		"stripe evt_4 ignored type not handled f t f",
		"clerk evt_1 pending user/user_1 t f t",
		"clerk msg_2 pending user/user_1 t f t",
	}
	if !slices.Equal(events, want) {
		t.Errorf("stored\n%s\nwant\n%s", strings.Join(events, "\n"), strings.Join(want, "\n"))
	}
	pokes := all[string](w, `SELECT entity || ' ' || job FROM pokes WHERE due_at <= now() ORDER BY 1`)
	if want := []string{"customer/cus_1 1", "customer/cus_2 1", "user/user_1 3"}; !slices.Equal(pokes, want) {
		t.Errorf("pokes %v, want %v", pokes, want)
	}
	if claims := all[string](w, `SELECT concat_ws(' ', stripe_customer_id, clerk_user_id, source, event_id) FROM customer_claims`); !slices.Equal(claims, []string{"cus_2 user_9 checkout:cs_1 evt_3"}) {
		t.Errorf("claims %v", claims)
	}

	// The same again, whatever became of them: nothing changes and nobody is poked.
	w.exec(`UPDATE webhook_events SET status = 'completed', payload = NULL WHERE event_id = 'evt_2'`)
	w.exec(`UPDATE pokes SET due_at = NULL`)
	if added := w.add(stripeEvent("evt_2", "cus_1"), stripeEvent("evt_1", "cus_1"), claimed); !slices.Equal(added, make([]store.Added, 3)) {
		t.Errorf("known events are new: %v", added)
	}
	if n := one[int](w, `SELECT count(*) FROM pokes WHERE due_at IS NOT NULL`); n != 0 {
		t.Errorf("known events poked %d entities", n)
	}
	if got := one[string](w, `SELECT status FROM webhook_events WHERE event_id = 'evt_2'`); got != "completed" {
		t.Errorf("a redelivery made a completed event %s", got)
	}
	if added := w.add(); len(added) != 0 {
		t.Errorf("nothing was added as %v", added)
	}
}

// What is only tried leaves nothing behind.
func TestTryAddEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if err := w.TryAddEvents(t.Context()); err != nil {
		t.Error("where there is room, trying says", err)
	}
	if rows := all[int](w, `SELECT (SELECT count(*) FROM webhook_events)::int + (SELECT count(*) FROM pokes)::int`); rows[0] != 0 {
		t.Errorf("%d rows are left", rows[0])
	}
	all[string](w, `CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'disk_full'; END $$`)
	all[string](w, `CREATE TRIGGER no_room BEFORE INSERT ON webhook_events FOR EACH ROW EXECUTE FUNCTION no_room()`)
	if err := w.TryAddEvents(t.Context()); failure.Of(err) != failure.Operator || failure.CodeOf(err) != "53100" {
		t.Errorf("on a full disk, trying says %v", err)
	}
}

// Copies of the program that are given the same events at once, in opposite orders, store each
// once, and exactly one of them is told so.
func TestAddEventsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n, writers = 40, 6
	events := make([]store.NewEvent, n)
	for i := range events {
		events[i] = stripeEvent(fmt.Sprintf("evt_%d", i), fmt.Sprintf("cus_%d", i%7))
	}
	newly := make([][]store.Added, writers)
	var group errgroup.Group
	for i := range writers {
		group.Go(func() (err error) {
			mine := slices.Clone(events)
			if i%2 == 1 {
				slices.Reverse(mine)
			}
			added, err := w.AddEvents(t.Context(), mine, 0)
			if i%2 == 1 {
				slices.Reverse(added)
			}
			newly[i] = added
			return err
		})
	}
	must(t, group.Wait())
	for e := range n {
		told := 0
		for i := range writers {
			if newly[i][e] != store.AddedBefore {
				told++
			}
		}
		if told != 1 {
			t.Errorf("event %d was new to %d writers", e, told)
		}
	}
	if deadlocks := one[int](w, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`); deadlocks != 0 {
		t.Errorf("the writers waited for each other %d times", deadlocks)
	}
	if stored := one[int](w, `SELECT count(*) FROM webhook_events`); stored != n {
		t.Errorf("%d events stored, want %d", stored, n)
	}
}

// A read takes what was received before it began, of its entity, in the order of arrival, and
// whatever its state is but done.
func TestTakeEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.add(stripeEvent("evt_1", "cus_1"), stripeEvent("evt_2", "cus_1"), stripeEvent("evt_3", "cus_1"), stripeEvent("evt_4", "cus_1"),
		stripeEvent("evt_5", "cus_1"), stripeEvent("evt_other", "cus_2"))
	w.exec(`UPDATE webhook_events SET status = 'failing' WHERE event_id = 'evt_1'`)
	w.exec(`UPDATE webhook_events SET status = 'waiting' WHERE event_id = 'evt_2'`)
	w.exec(`UPDATE webhook_events SET status = 'completed' WHERE event_id = 'evt_4'`)
	w.exec(`UPDATE webhook_events SET status = 'ignored' WHERE event_id = 'evt_5'`)
	read, err := w.NextRead(t.Context())
	must(t, err)
	w.add(stripeEvent("evt_late", "cus_1"))
	var taken []string
	w.update(func(ctx context.Context, tx *store.Tx) error {
		due, err := tx.TakeEvents(ctx, "customer/cus_1", read)
		for _, d := range due {
			taken = append(taken, fmt.Sprint(d.EventID, " ", d.Status, " ", d.Payload, " ", !d.ReceivedAt.IsZero()))
		}
		return err
	})
	want := []string{`evt_1 failing {"id":"evt_1"} true`, `evt_2 waiting {"id":"evt_2"} true`, `evt_3 pending {"id":"evt_3"} true`}
	if !slices.Equal(taken, want) {
		t.Errorf("taken %v, want %v", taken, want)
	}
	for eventType, want := range map[string]bool{"customer.subscription.updated": true, "customer.subscription.deleted": false} {
		if due, err := w.HasDue(t.Context(), "customer/cus_1", eventType, read); due != want || err != nil {
			t.Errorf("%s is due: %t, %v, want %t", eventType, due, err, want)
		}
	}
	w.exec(`UPDATE webhook_events SET status = 'completed' WHERE event_id <> 'evt_late'`)
	if due, err := w.HasDue(t.Context(), "customer/cus_1", "customer.subscription.updated", read); due || err != nil {
		t.Errorf("an event after the read is due for it: %v", err)
	}
}

// What becomes of taken events.
func TestEndsOfEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	settle := func(id string, do func(ctx context.Context, tx *store.Tx, due []store.Due) error) {
		w.update(func(ctx context.Context, tx *store.Tx) error {
			return do(ctx, tx, []store.Due{{Source: "stripe", EventID: id}})
		})
	}
	state := func(id string) string {
		return one[string](w, `SELECT concat_ws(' ', status, reason, attempts, payload IS NOT NULL, completed_at IS NOT NULL,
			round(extract(epoch FROM retry_at - now()) / 10) * 10) FROM webhook_events WHERE event_id = $1`, id)
	}
	for _, c := range []struct {
		name string
		do   func(ctx context.Context, tx *store.Tx, due []store.Due) error
		want string
	}{
		{"completed", func(ctx context.Context, tx *store.Tx, due []store.Due) error {
			return tx.CompleteEvents(ctx, due, false)
		}, "completed 0 t t"},
		{"erased", func(ctx context.Context, tx *store.Tx, due []store.Due) error {
			return tx.CompleteEvents(ctx, due, true)
		}, "completed 0 f t"},
		{"ignored", func(ctx context.Context, tx *store.Tx, due []store.Due) error {
			return tx.IgnoreEvents(ctx, due, "no customer")
		}, "ignored no customer 0 f t"},
		{"waiting", func(ctx context.Context, tx *store.Tx, due []store.Due) error {
			return tx.HoldEvents(ctx, due, store.EventWaiting, "no user: yet", false)
		}, "waiting no user: yet 1 t f 30"},
		{"waiting of whoever is deleted", func(ctx context.Context, tx *store.Tx, due []store.Due) error {
			return tx.HoldEvents(ctx, due, store.EventWaiting, "no customer", true)
		}, "waiting no customer 1 f f 30"},
		{"no event", func(ctx context.Context, tx *store.Tx, _ []store.Due) error {
			if err := tx.CompleteEvents(ctx, nil, true); err != nil {
				return err
			}
			if err := tx.IgnoreEvents(ctx, nil, "x"); err != nil {
				return err
			}
			return tx.HoldEvents(ctx, nil, store.EventFailing, "x", false)
		}, "pending 0 t f 30"},
	} {
		id := "evt_" + strings.ReplaceAll(c.name, " ", "_")
		w.add(stripeEvent(id, "cus_1"), stripeEvent("evt_beside_"+id, "cus_1"))
		settle(id, c.do)
		if got := state(id); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if got := state("evt_beside_" + id); got != "pending 0 t f 30" {
			t.Errorf("%s: the event beside it became %q", c.name, got)
		}
	}

	// Held ever longer, at most an hour.
	for age, want := range map[string]string{"10 seconds": "30", "20 minutes": "600", "20 hours": "3600"} {
		w.exec(`UPDATE webhook_events SET received_at = now() - $1::text::interval, reason = 'old', status = 'pending' WHERE event_id = 'evt_waiting'`, age)
		settle("evt_waiting", func(ctx context.Context, tx *store.Tx, due []store.Due) error {
			return tx.HoldEvents(ctx, due, store.EventFailing, "operator: http_401", false)
		})
		if got := state("evt_waiting"); !strings.HasPrefix(got, "failing operator: http_401 ") || !strings.HasSuffix(got, " t f "+want) {
			t.Errorf("held after %s: %q, want a retry in %s s", age, got, want)
		}
	}
}

// A failure shows on what is due, and leaves what waits and what is done as it is.
func TestMarkFailing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, status := range []string{"pending", "failing", "waiting", "completed", "ignored"} {
		w.add(stripeEvent("evt_"+status, "cus_1"), stripeEvent("evt_"+status+"_other", "cus_2"))
		w.exec(`UPDATE webhook_events SET status = $1, reason = 'was' WHERE event_id LIKE 'evt_' || $1 || '%'`, status)
	}
	must(t, w.MarkFailing(t.Context(), "customer/cus_1", "permanent: resource_missing"))
	got := all[string](w, `SELECT event_id || ' ' || status || ' ' || attempts FROM webhook_events WHERE reason <> 'was' ORDER BY seq`)
	if want := []string{"evt_pending failing 1", "evt_failing failing 1"}; !slices.Equal(got, want) {
		t.Errorf("failing: %v, want %v", got, want)
	}
}

// Events of a dispute go to its customer, and wake them.
func TestMoveEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i, status := range []string{"waiting", "failing", "pending", "completed"} {
		e := stripeEvent(fmt.Sprintf("evt_%d", i), "")
		e.Entity = "charge/ch_1"
		w.add(e)
		w.exec(`UPDATE webhook_events SET status = $1 WHERE event_id = $2`, status, e.EventID)
	}
	w.exec(`DELETE FROM pokes`)
	w.update(func(ctx context.Context, tx *store.Tx) error {
		return tx.MoveEvents(ctx, "charge/ch_1", "customer/cus_1")
	})
	if got := w.take("customer/cus_1"); !slices.Equal(got, []string{"evt_0", "evt_1", "evt_2"}) {
		t.Errorf("the customer has %v", got)
	}
	if got := w.take("charge/ch_1"); len(got) != 0 {
		t.Errorf("the charge still has %v", got)
	}
	if got := all[string](w, `SELECT entity FROM pokes WHERE due_at IS NOT NULL`); !slices.Equal(got, []string{"customer/cus_1"}) {
		t.Errorf("poked %v", got)
	}
}

// What is still due long after its poke is poked again, each ever more slowly: events and users
// whose projection is not published alike.
func TestSweep(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	behind, settled, erased := w.user(1), w.user(2), w.user(3)
	for _, id := range []string{behind, settled, erased} {
		w.withUser(id, func(ctx context.Context, tx *store.Tx, u *store.User) error {
			_, err := tx.Reproject(ctx, u, policy(), time.Now(), nil)
			return err
		})
	}
	_, err := w.Published(t.Context(), settled, 1, 0, store.Cause{})
	must(t, err)
	w.withUser(erased, func(ctx context.Context, tx *store.Tx, u *store.User) error { return tx.Erase(ctx, u) })
	w.add(clerkEvent("msg_1", "user.updated", "user_8"), clerkEvent("msg_2", "user.deleted", "user_8"), clerkEvent("msg_3", "user.created", "user_8"),
		clerkEvent("msg_4", "user.created", "user_9"), stripeEvent("evt_1", "cus_1"), stripeEvent("evt_young", "cus_2"), stripeEvent("evt_done", "cus_3"))
	w.exec(`UPDATE webhook_events SET retry_at = now() - interval '1 second', received_at = now() - interval '10 minutes' WHERE event_id <> 'evt_young'`)
	w.exec(`UPDATE webhook_events SET status = 'completed' WHERE event_id = 'evt_done'`)
	w.exec(`UPDATE webhook_events SET status = 'waiting' WHERE event_id = 'evt_1'`)
	w.exec(`UPDATE person_user SET publish_retry_at = now() - interval '1 second', publish_due_since = now() - interval '10 minutes' WHERE clerk_user_id <> $1`, settled)
	w.exec(`UPDATE pokes SET due_at = NULL, poked_at = now()`)

	poked, err := w.Sweep(t.Context(), 100)
	must(t, err)
	got := all[string](w, `SELECT entity || ' ' || job FROM pokes WHERE due_at <= clock_timestamp() ORDER BY 1`)
	if want := []string{"customer/cus_1 1", "user/user_1 1", "user/user_8 3", "user/user_9 2"}; !slices.Equal(got, want) || poked != len(want) {
		t.Errorf("poked %d: %v, want %v", poked, got, want)
	}
	if soon := one[int](w, `SELECT count(*) FROM webhook_events WHERE status <> 'completed' AND event_id <> 'evt_young' AND abs(extract(epoch FROM retry_at - now()) - 300) > 30`); soon != 0 {
		t.Errorf("%d events are not retried half their age later", soon)
	}
	if next := one[float64](w, `SELECT extract(epoch FROM publish_retry_at - now())::float8 FROM person_user WHERE clerk_user_id = $1`, behind); next < 270 || next > 330 {
		t.Errorf("the user who is behind is looked at in %v s, want 300", next)
	}
	w.exec(`UPDATE pokes SET due_at = NULL`)
	if poked, err = w.Sweep(t.Context(), 100); poked != 0 || err != nil {
		t.Errorf("swept again at once: %d, %v", poked, err)
	}
}

// A sweep takes no more than it may, the most overdue first, and sweeps at the same time share.
func TestSweepShares(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n, limit = 60, 7
	for i := range n {
		w.add(stripeEvent(fmt.Sprintf("evt_%d", i), fmt.Sprintf("cus_%d", i)))
	}
	w.exec(`UPDATE webhook_events SET retry_at = now() - substr(event_id, 5)::int * interval '1 second'`)
	w.exec(`UPDATE pokes SET due_at = NULL`)
	poked, err := w.Sweep(t.Context(), limit)
	must(t, err)
	if got := one[int](w, `SELECT count(*) FROM pokes WHERE due_at IS NOT NULL AND substr(entity, 14)::int >= $1`, n-limit); got != limit || poked != limit {
		t.Errorf("a sweep of %d took %d and poked %d of the most overdue", limit, poked, got)
	}
	var group errgroup.Group
	counts := make([]int, 4)
	for i := range counts {
		group.Go(func() error {
			for {
				n, err := w.Sweep(t.Context(), limit)
				counts[i] += n
				if n == 0 || err != nil {
					return err
				}
			}
		})
	}
	must(t, group.Wait())
	total := limit
	for _, c := range counts {
		total += c
	}
	if total != n {
		t.Errorf("%d events were swept, want each of %d once", total, n)
	}
}

// What waited too long is given up, and says why; what the events told stays.
func TestExpireWaiting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.add(stripeEvent("evt_user", "cus_1"), stripeEvent("evt_stripe", "cus_1"), stripeEvent("evt_young", "cus_1"), stripeEvent("evt_failing", "cus_1"))
	w.exec(`UPDATE webhook_events SET status = 'waiting', received_at = now() - interval '31 days', reason = 'Stripe does not know this customer'`)
	w.exec(`UPDATE webhook_events SET reason = $1 WHERE event_id = 'evt_user'`, store.WaitingNoUser+"nobody owns this customer yet")
	w.exec(`UPDATE webhook_events SET received_at = now() - interval '29 days' WHERE event_id = 'evt_young'`)
	w.exec(`UPDATE webhook_events SET status = 'failing' WHERE event_id = 'evt_failing'`)
	n, err := w.ExpireWaiting(t.Context(), 30*24*time.Hour, 1)
	must(t, err)
	if n != 1 {
		t.Errorf("gave up on %d, want no more than asked for", n)
	}
	_, err = w.ExpireWaiting(t.Context(), 30*24*time.Hour, 100)
	must(t, err)
	got := all[string](w, `SELECT event_id || ': ' || status || ', ' || reason || (CASE WHEN status = 'ignored' THEN ', ' || (completed_at IS NOT NULL AND retry_at IS NULL) ELSE '' END) FROM webhook_events ORDER BY seq`)
	want := []string{
		"evt_user: ignored, no user, true",
		"evt_stripe: ignored, gave up: Stripe does not know this customer, true",
		"evt_young: waiting, Stripe does not know this customer",
		"evt_failing: failing, Stripe does not know this customer",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// What waited too long loses its payload where it is of a user who is being deleted, and only
// there.
func TestExpireWaitingOfWhoIsDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for n, deleting := range []bool{true, false} {
		id, customer := w.user(n), fmt.Sprint("cus_", n)
		w.link(id, customer)
		w.add(clerkEvent(fmt.Sprint("msg_", n), "user.updated", id), stripeEvent(fmt.Sprint("evt_", n), customer))
		if deleting {
			w.withUser(id, func(ctx context.Context, tx *store.Tx, u *store.User) error { return tx.RequestDeletion(ctx, u, nil) })
		}
	}
	w.add(stripeEvent("evt_nobody", "cus_nobody"))
	w.exec(`UPDATE webhook_events SET status = 'waiting', received_at = now() - interval '31 days', reason = 'Stripe does not know this customer'`)
	_, err := w.ExpireWaiting(t.Context(), 30*24*time.Hour, 100)
	must(t, err)
	got := all[string](w, `SELECT concat_ws(' ', event_id, status, payload IS NOT NULL) FROM webhook_events ORDER BY seq`)
	if want := []string{"msg_0 ignored f", "evt_0 ignored f", "msg_1 ignored t", "evt_1 ignored t", "evt_nobody ignored t"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Payloads go when their time is over; those of what is still due stay, however old.
func TestDropPayloads(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, status := range []string{"completed", "ignored", "pending", "waiting", "failing"} {
		for _, days := range []int{29, 31, 32} {
			id := fmt.Sprintf("evt_%s_%d", status, days)
			w.add(stripeEvent(id, "cus_1"))
			w.exec(`UPDATE webhook_events SET status = $1, completed_at = now() - $2 * interval '1 day', received_at = now() - $2 * interval '1 day' WHERE event_id = $3`, status, days, id)
		}
	}
	n, err := w.DropPayloads(t.Context(), 30*24*time.Hour, 3)
	must(t, err)
	if n != 3 {
		t.Errorf("dropped %d, want no more than asked for", n)
	}
	_, err = w.DropPayloads(t.Context(), 30*24*time.Hour, 100)
	must(t, err)
	got := all[string](w, `SELECT event_id FROM webhook_events WHERE payload IS NULL ORDER BY 1`)
	if want := []string{"evt_completed_31", "evt_completed_32", "evt_ignored_31", "evt_ignored_32"}; !slices.Equal(got, want) {
		t.Errorf("dropped %v, want %v", got, want)
	}
}

// What an operator sees of the inbox.
func TestInboxMeasures(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.add(stripeEvent("evt_1", "cus_1"), stripeEvent("evt_2", "cus_1"), stripeEvent("evt_3", "cus_1"), stripeEvent("evt_4", "cus_1"))
	w.exec(`UPDATE webhook_events SET received_at = now() - interval '100 seconds' WHERE event_id = 'evt_2'`)
	w.exec(`UPDATE webhook_events SET status = 'waiting' WHERE event_id = 'evt_3'`)
	w.exec(`UPDATE webhook_events SET status = 'completed' WHERE event_id = 'evt_4'`)
	depth, err := w.InboxDepth(t.Context())
	must(t, err)
	counts := map[string]int64{}
	for _, d := range depth {
		counts[d.Status] = d.Count
		if d.Status == "pending" && (d.OldestAge < 100 || d.OldestAge > 100+patience.Seconds()) {
			t.Errorf("the oldest is %v s old", d.OldestAge)
		}
	}
	if fmt.Sprint(counts) != "map[pending:2 waiting:1]" {
		t.Errorf("depth %v", counts)
	}
	if users, oldest, err := w.PublishLag(t.Context()); users != 0 || oldest != 0 || err != nil {
		t.Errorf("lag of nobody: %d, %v, %v", users, oldest, err)
	}
	id := w.user(1)
	w.withUser(id, func(ctx context.Context, tx *store.Tx, u *store.User) error {
		_, err := tx.Reproject(ctx, u, policy(), time.Now(), nil)
		return err
	})
	w.exec(`UPDATE person_user SET publish_due_since = now() - interval '50 seconds'`)
	if users, oldest, err := w.PublishLag(t.Context()); users != 1 || oldest < 50 || err != nil {
		t.Errorf("lag of one: %d, %v, %v", users, oldest, err)
	}
}
