package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

func (w *world) claim(limit int, lease time.Duration) ([]store.Poke, time.Duration) {
	w.t.Helper()
	claimed, wait, _, err := w.ClaimPokes(w.t.Context(), limit, limit, lease)
	if err != nil {
		w.t.Fatalf("claim pokes: %v", err)
	}
	return claimed, wait
}

// addSpaced stores one delivery with a spacing between pokes.
func (w *world) addSpaced(id string, spacing time.Duration) {
	w.t.Helper()
	if _, err := w.AddEvents(w.t.Context(), []store.NewEvent{stripeEvent(id, "cus_1")}, spacing); err != nil {
		w.t.Fatalf("add events: %v", err)
	}
}

// What deliveries have told of a customer and a sync has taken is not poked for. Whatever else was
// asked for is, and so is an event that is still due, a user, and a claim whose dispatcher has
// died.
func TestPokesForEventsThatAreTaken(t *testing.T) {
	t.Parallel()
	taken := func(w *world) { w.exec(`UPDATE webhook_events SET status = 'completed'`) }
	for name, c := range map[string]struct {
		ask  func(*world)
		want int
	}{
		"taken":              {func(w *world) { w.addSpaced("evt_1", 0); taken(w) }, 0},
		"due":                {func(w *world) { w.addSpaced("evt_1", 0) }, 1},
		"waiting":            {func(w *world) { w.addSpaced("evt_1", 0); w.exec(`UPDATE webhook_events SET status = 'waiting'`) }, 1},
		"one taken, one due": {func(w *world) { w.addSpaced("evt_1", 0); taken(w); w.addSpaced("evt_2", 0) }, 1},
		"asked for":          {func(w *world) { must(t, w.Poke(t.Context(), account.JobSync, "customer/cus_1")) }, 1},
		"asked for, later": {func(w *world) {
			w.addSpaced("evt_1", 0)
			taken(w)
			must(t, w.Poke(t.Context(), account.JobSync, "customer/cus_1"))
		}, 1},
		"asked for before, and not poked yet, taken": {func(w *world) {
			must(t, w.Poke(t.Context(), account.JobSync, "customer/cus_1"))
			w.addSpaced("evt_1", 0)
			taken(w)
		}, 1},
		"while a poke for events is under way, taken": {func(w *world) {
			w.addSpaced("evt_1", 0)
			claimed, _ := w.claim(10, time.Minute)
			w.addSpaced("evt_2", 0)
			must(t, w.PokesDone(t.Context(), claimed))
			taken(w)
			w.exec(`UPDATE pokes SET due_at = now()`)
		}, 0},
		"while what was asked for is under way, taken": {func(w *world) {
			must(t, w.Poke(t.Context(), account.JobSync, "customer/cus_1"))
			claimed, _ := w.claim(10, time.Minute)
			w.addSpaced("evt_1", 0)
			must(t, w.PokesDone(t.Context(), claimed))
			taken(w)
			w.exec(`UPDATE pokes SET due_at = now()`)
		}, 1},
		"another job before": {func(w *world) {
			must(t, w.Poke(t.Context(), account.JobOffboard, "customer/cus_1"))
			w.addSpaced("evt_1", 0)
			taken(w)
		}, 1},
		"a dispatcher died": {func(w *world) {
			w.addSpaced("evt_1", 0)
			w.claim(10, 0)
			taken(w)
		}, 1},
		"of a user": {func(w *world) {
			_, err := w.AddEvents(t.Context(), []store.NewEvent{{Source: "clerk", EventID: "msg_1", Type: "user.updated", Entity: "user/user_1", Payload: "{}", ReceivedAt: time.Now()}}, 0)
			must(t, err)
			taken(w)
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c.ask(w)
			claimed, _ := w.claim(10, time.Minute)
			if len(claimed) != c.want {
				t.Fatalf("%d pokes were claimed, want %d", len(claimed), c.want)
			}
			if due := one[int](w, `SELECT count(*) FROM pokes WHERE due_at IS NOT NULL`); due != c.want {
				t.Errorf("%d pokes are due behind the claim, want %d", due, c.want)
			}
		})
	}
}

// The first delivery of a burst pokes at once, all the others together once more, a spacing later.
func TestPokeSpacing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const spacing = time.Hour
	w.addSpaced("evt_1", spacing)
	claimed, wait := w.claim(10, time.Minute)
	if len(claimed) != 1 || claimed[0].Entity != "customer/cus_1" || claimed[0].Job != int16(account.JobSync) || claimed[0].Attempts != 1 {
		t.Fatalf("the first delivery left %+v", claimed)
	}
	if wait <= 0 || wait > time.Minute {
		t.Errorf("nothing else is due; look again in %s, want the lease", wait)
	}
	must(t, w.PokesDone(t.Context(), claimed))
	poked := one[time.Time](w, `SELECT poked_at FROM pokes`)
	for i := range 5 {
		w.addSpaced(fmt.Sprintf("evt_burst_%d", i), spacing)
	}
	if again, _ := w.claim(10, time.Minute); len(again) != 0 {
		t.Fatalf("a burst poked before the spacing was over: %+v", again)
	}
	if due := one[time.Time](w, `SELECT due_at FROM pokes`); !due.Equal(poked.Add(spacing)) {
		t.Errorf("the burst is due at %s, want %s after the last poke at %s", due, spacing, poked)
	}
	// When the spacing is over there is one poke for all of them.
	w.exec(`UPDATE pokes SET due_at = due_at - $1::interval, poked_at = poked_at - $1::interval`, spacing)
	if claimed, _ = w.claim(10, time.Minute); len(claimed) != 1 {
		t.Fatalf("after the spacing: %+v", claimed)
	}
	must(t, w.PokesDone(t.Context(), claimed))
	// Whoever asks without a spacing is served at once, also when somebody has asked with one.
	w.addSpaced("evt_last", spacing)
	must(t, w.Poke(t.Context(), account.JobSync, "customer/cus_1"))
	if claimed, _ = w.claim(10, time.Minute); len(claimed) != 1 {
		t.Errorf("an urgent poke waits for a spacing")
	}
}

// How long to wait follows from what is due next, and is never longer than a lease.
func TestClaimWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, wait := w.claim(10, time.Minute); wait != time.Minute {
		t.Errorf("with nothing due: %s, want the lease", wait)
	}
	must(t, w.Poke(t.Context(), account.JobSync, "customer/cus_1", "customer/cus_2"))
	if claimed, wait := w.claim(1, time.Minute); len(claimed) != 1 || wait != 0 {
		t.Errorf("with more due now: %d claimed, wait %s, want none", len(claimed), wait)
	}
	w.exec(`UPDATE pokes SET due_at = now() + interval '30 seconds'`)
	if claimed, wait := w.claim(10, time.Minute); len(claimed) != 0 || wait <= 0 || wait > 30*time.Second {
		t.Errorf("with one due in 30 s: %d claimed, wait %s", len(claimed), wait)
	}
}

// A claim is a lease: while it lasts nobody else has the poke, and after it anybody.
func TestClaimLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	must(t, w.Poke(t.Context(), account.JobOnboard, "user/user_1"))
	first, _ := w.claim(10, time.Hour)
	if second, _ := w.claim(10, time.Hour); len(first) != 1 || len(second) != 0 {
		t.Fatalf("claimed %v and %v", first, second)
	}
	w.exec(`UPDATE pokes SET due_at = now()`)
	after, _ := w.claim(10, time.Hour)
	if len(after) != 1 || after[0].Job != int16(account.JobOnboard) || after[0].Attempts != 2 {
		t.Fatalf("after the lease: %+v", after)
	}
	// The first one comes back late; the claim is not its own any more.
	must(t, w.PokesDone(t.Context(), first))
	if due := one[bool](w, `SELECT due_at IS NOT NULL FROM pokes`); !due {
		t.Error("a late dispatcher cleared somebody else's claim")
	}
	must(t, w.PokesDone(t.Context(), after))
	if got := one[string](w, `SELECT concat_ws(' ', due_at IS NULL, attempts) FROM pokes`); got != "t 0" {
		t.Errorf("after its poke: %s", got)
	}
	must(t, w.PokesDone(t.Context(), nil))
}

// What was asked for again while it was being poked is not cleared: the poke may have been read
// before the new event was there.
func TestPokeAskedForMeanwhile(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(w *world){
		"by a delivery": func(w *world) { w.addSpaced("evt_2", time.Hour) },
		"by a worker": func(w *world) {
			must(w.t, w.Poke(w.t.Context(), account.JobSync, "customer/cus_1"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.addSpaced("evt_1", time.Hour)
			claimed, _ := w.claim(10, 2*time.Hour)
			ask(w)
			must(t, w.PokesDone(t.Context(), claimed))
			if due := one[bool](w, `SELECT due_at IS NOT NULL AND due_at <= now() + interval '1 hour' FROM pokes`); !due {
				t.Error("the second request was cleared with the first")
			}
		})
	}
}

// The highest job that is due wins, and a job that is done is not done again.
func TestPokeJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ask := func(job account.Job) { must(t, w.Poke(t.Context(), job, "user/user_1")) }
	ask(account.JobOffboard)
	ask(account.JobSync)
	claimed, _ := w.claim(1, time.Hour)
	if claimed[0].Job != int16(account.JobOffboard) {
		t.Errorf("job %d, want the highest", claimed[0].Job)
	}
	ask(account.JobOnboard)
	if job := one[int](w, `SELECT job FROM pokes`); job != int(account.JobOffboard) {
		t.Errorf("while an offboarding is under way the job became %d", job)
	}
	claimed, _ = w.claim(1, time.Hour)
	must(t, w.PokesDone(t.Context(), claimed))
	ask(account.JobSync)
	if job := one[int](w, `SELECT job FROM pokes`); job != int(account.JobSync) {
		t.Errorf("an old job came back: %d", job)
	}
}

// Claimers at once share what is due: nothing twice, nothing lost, and none takes more than asked.
func TestClaimAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n, limit = 200, 9
	entities := make([]account.Entity, n)
	for i := range entities {
		entities[i] = account.CustomerEntity(fmt.Sprintf("cus_%d", i))
	}
	must(t, w.Poke(t.Context(), account.JobSync, entities...))
	var mu sync.Mutex
	seen := map[string]int{}
	var group errgroup.Group
	for range 6 {
		group.Go(func() error {
			for {
				claimed, _, _, err := w.ClaimPokes(t.Context(), limit, limit, time.Hour)
				if err != nil || len(claimed) == 0 {
					return err
				}
				if len(claimed) > limit {
					return fmt.Errorf("%d claimed, want at most %d", len(claimed), limit)
				}
				mu.Lock()
				for _, p := range claimed {
					seen[p.Entity]++
				}
				mu.Unlock()
				if err := w.PokesDone(t.Context(), claimed); err != nil {
					return err
				}
			}
		})
	}
	must(t, group.Wait())
	// Somebody may have seen nothing while the others held the last; what is left was never taken.
	rest, _ := w.claim(n, time.Hour)
	for _, p := range rest {
		seen[p.Entity]++
	}
	for _, e := range entities {
		if seen[string(e)] != 1 {
			t.Errorf("%s was claimed %d times", e, seen[string(e)])
		}
	}
}

// What somebody waits for is taken before what is routine, however long that has been due. Of what
// is routine no more is taken than may be under way: what was poked and has not been looked at
// counts, with an event or without, but not for ever. Once asked for so, a poke stays urgent until
// it is poked.
func TestClaimUrgentFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	urgent := stripeEvent("evt_new", "cus_new")
	urgent.Urgent = true
	w.add(stripeEvent("evt_1", "cus_1"), stripeEvent("evt_2", "cus_2"), stripeEvent("evt_3", "cus_3"), urgent)
	w.add(stripeEvent("evt_later", "cus_new"))
	must(t, w.PokeRoutinely(t.Context(), account.JobSync, "customer/cus_4"))
	must(t, w.Poke(t.Context(), account.JobSync, "customer/cus_asked"))
	claim := func(window int, due bool, want ...string) {
		t.Helper()
		claimed, wait, held, err := w.ClaimPokes(t.Context(), 10, window, time.Hour)
		must(t, err)
		var names []string
		for _, p := range claimed {
			names = append(names, fmt.Sprint(p.Entity, " ", p.Urgent))
		}
		must(t, w.PokesDone(t.Context(), claimed))
		slices.Sort(names)
		if !slices.Equal(names, want) || (wait == 0) != due || held != due {
			t.Errorf("claimed %v, and then after %s, held %t; want %v", names, wait, held, want)
		}
	}
	claim(0, true, "customer/cus_asked true", "customer/cus_new true")
	claim(1, true) // the new one has not been looked at
	claim(3, true, "customer/cus_1 false", "customer/cus_2 false")
	claim(3, true)
	w.exec(`UPDATE webhook_events SET status = 'completed' WHERE entity = 'customer/cus_new'`)
	claim(3, true, "customer/cus_3 false")
	w.exec(`UPDATE webhook_events SET status = 'waiting' WHERE entity = 'customer/cus_1'`)
	claim(3, false, "customer/cus_4 false")
	w.exec(`UPDATE pokes SET poked_at = now() - interval '11 seconds'`)
	w.add(stripeEvent("evt_after", "cus_new"))
	claim(1, false, "customer/cus_new false")

	// While Clerk does not answer, customers are looked at as ever, and the other way round.
	w.exec(`UPDATE pokes SET poked_at = now() - interval '11 seconds'`)
	w.add(clerkEvent("msg_1", "user.updated", "user_1"), clerkEvent("msg_2", "user.updated", "user_2"))
	claim(1, true, "user/user_1 false")
	w.add(stripeEvent("evt_meanwhile", "cus_other"), stripeEvent("evt_then", "cus_then"))
	claim(1, true, "customer/cus_other false")
	claim(1, true)
	w.exec(`UPDATE webhook_events SET status = 'completed' WHERE entity = 'user/user_1'`)
	claim(1, true, "user/user_2 false")
	// A customer who is poked without an event, as when a plan is renamed, counts until a look that
	// began since has read them.
	w.exec(`UPDATE webhook_events SET status = 'completed'`)
	claim(5, false) // its event has been taken
	w.link(w.user(1), "cus_linked")
	w.exec(`UPDATE stripe_customers SET read_seq = 1`)
	must(t, w.PokeRoutinely(t.Context(), account.JobSync, "customer/cus_linked", "customer/cus_next"))
	claim(1, true, "customer/cus_linked false")
	claim(1, true)
	w.exec(`UPDATE stripe_customers SET read_seq = nextval('sync_seq')`)
	claim(1, false, "customer/cus_next false")
	// More that is urgent than one claim takes is no reason to pause.
	must(t, w.Poke(t.Context(), account.JobSync, "user/user_8", "user/user_9"))
	if claimed, wait, held, err := w.ClaimPokes(t.Context(), 1, 1, time.Hour); len(claimed) != 1 || !claimed[0].Urgent || wait != 0 || held || err != nil {
		t.Errorf("claimed %v, and then after %s, held %t: %v", claimed, wait, held, err)
	}
}

// A bound is a bound, whatever plan the database chooses.
func TestLimitsHoldUnderAnyPlan(t *testing.T) {
	t.Parallel()
	dsn := databases.DSN(t)
	for _, plan := range []string{"enable_hashjoin", "enable_hashagg", "enable_material", "enable_mergejoin", "enable_sort", "enable_memoize"} {
		dsn += map[bool]string{true: "&", false: "?"}[slices.Contains([]byte(dsn), '?')] + plan + "=off"
	}
	w := worldOn(t, dsn, store.Options{})
	for i := range 40 {
		w.add(stripeEvent(fmt.Sprintf("evt_%d", i), fmt.Sprintf("cus_%d", i)), stripeEvent(fmt.Sprintf("evt_w%d", i), "cus_w"), stripeEvent(fmt.Sprintf("evt_d%d", i), "cus_d"))
		w.user(i)
	}
	const limit = 3
	if claimed, _ := w.claim(limit, time.Hour); len(claimed) != limit {
		t.Errorf("claimed %d pokes, want %d", len(claimed), limit)
	}
	w.exec(`UPDATE webhook_events SET retry_at = now() - interval '1 hour'`)
	w.exec(`UPDATE webhook_events SET status = 'waiting', reason = 'x', received_at = now() - interval '2 days', retry_at = NULL WHERE event_id LIKE 'evt_w%'`)
	w.exec(`UPDATE webhook_events SET status = 'completed', completed_at = now() - interval '2 days' WHERE event_id LIKE 'evt_d%'`)
	w.exec(`UPDATE person_user SET projection_version = 5, publish_retry_at = now() - interval '1 hour'`)
	w.exec(`UPDATE pokes SET due_at = NULL, poked_at = now() - interval '1 hour'`)
	forgotten, err := w.ForgetIdlePokes(t.Context(), time.Minute, limit)
	must(t, err)
	swept, err := w.Sweep(t.Context(), limit)
	must(t, err)
	expired, err := w.ExpireWaiting(t.Context(), time.Hour, limit)
	must(t, err)
	dropped, err := w.DropPayloads(t.Context(), time.Hour, limit)
	must(t, err)
	if forgotten != limit || swept != 2*limit || expired != limit || dropped != limit {
		t.Errorf("forgot %d, swept %d (events and users), expired %d, dropped %d, want %d of each", forgotten, swept, expired, dropped, limit)
	}
}

// What could not be poked is due again after a pause, with its job.
func TestPokesFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	must(t, w.Poke(t.Context(), account.JobOffboard, "user/user_1", "user/user_2"))
	claimed, _ := w.claim(10, time.Hour)
	must(t, w.PokesFailed(t.Context(), claimed[:1], 10*time.Minute))
	if _, wait := w.claim(10, time.Hour); wait <= 9*time.Minute || wait > 10*time.Minute {
		t.Errorf("given back, to be tried in %s, want 10 m", wait)
	}
	must(t, w.PokesFailed(t.Context(), claimed[:1], 0))
	again, _ := w.claim(10, time.Hour)
	if len(again) != 1 || again[0].Entity != claimed[0].Entity || again[0].Job != int16(account.JobOffboard) || again[0].Attempts != 2 {
		t.Errorf("claimed again: %+v", again)
	}
}

// The outbox does not grow with all the entities there ever were, and forgets nothing that is due.
func TestForgetIdlePokes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	must(t, w.Poke(t.Context(), account.JobSync, "customer/cus_due", "customer/cus_idle", "customer/cus_fresh"))
	w.exec(`UPDATE pokes SET poked_at = now() - interval '1 hour'`)
	w.exec(`UPDATE pokes SET due_at = NULL WHERE entity <> 'customer/cus_due'`)
	w.exec(`UPDATE pokes SET poked_at = now() WHERE entity = 'customer/cus_fresh'`)
	n, err := w.ForgetIdlePokes(t.Context(), time.Minute, 100)
	must(t, err)
	if left := all[string](w, `SELECT entity FROM pokes ORDER BY 1`); n != 1 || !slices.Equal(left, []string{"customer/cus_due", "customer/cus_fresh"}) {
		t.Errorf("forgot %d, left %v", n, left)
	}
}

// A transaction elsewhere wakes who listens, once it has committed; a connection that is lost is
// an answer, and listening again begins with a wake.
func TestListenForPokes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithCancel(within(t))
	woken := make(chan struct{}, 64)
	ended := make(chan error, 1)
	listen := func() { ended <- w.ListenForPokes(ctx, func() { woken <- struct{}{} }) }
	await := func(what string) {
		t.Helper()
		select {
		case <-woken:
		case err := <-ended:
			t.Fatalf("waiting for %s: listening ended: %v", what, err)
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
	go listen()
	await("the first wake")
	must(t, w.Poke(ctx, account.JobSync, "customer/cus_1"))
	await("a poke")

	undone := errors.New("undone")
	err := w.Update(ctx, "poke", store.Cause{}, func(ctx context.Context, tx *store.Tx) error {
		if err := tx.Poke(ctx, account.JobSync, "customer/cus_2"); err != nil {
			return err
		}
		return undone
	})
	if err == nil {
		t.Fatal("an undone transaction succeeded")
	}
	select {
	case <-woken:
		t.Error("an undone transaction woke somebody")
	default:
	}

	w.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'`)
	if err := <-ended; failure.Of(err) != failure.Transient || err == nil {
		t.Fatalf("a lost connection was answered: %v", err)
	}
	go listen()
	await("the wake of listening again")
	must(t, w.Poke(ctx, account.JobSync, "customer/cus_3"))
	await("a poke after listening again")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the end of the context was answered: %v", err)
	}
}

// Entities are poked in transactions that overlap in any order, without any of them failing.
func TestPokeAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var group errgroup.Group
	for i := range 6 {
		group.Go(func() error {
			for range 20 {
				entities := []account.Entity{"customer/cus_1", "customer/cus_2", "user/user_1"}
				if i%2 == 1 {
					slices.Reverse(entities)
				}
				if err := w.Poke(t.Context(), account.JobSync, entities...); err != nil {
					return err
				}
			}
			return nil
		})
	}
	must(t, group.Wait())
	if deadlocks := one[int](w, `SELECT count(*) FROM pg_stat_database WHERE datname = current_database() AND deadlocks > 0`); deadlocks != 0 {
		t.Error("pokes waited for each other")
	}
}
