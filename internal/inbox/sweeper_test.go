package inbox_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/inbox"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// sweepable has a number of rows for each step, and takes note of what it is asked for.
type sweepable struct {
	fail string

	mu    sync.Mutex
	left  map[string]int
	calls []string
}

// did answers what was asked for since the last time.
func (s *sweepable) did() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = nil
	return calls
}

func (s *sweepable) take(step string, limit int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, step)
	if step == s.fail {
		return 0, errors.New("unavailable")
	}
	n := min(limit, s.left[step])
	s.left[step] -= n
	return n, nil
}

// Sweep implements inbox.Sweepable.
func (s *sweepable) Sweep(_ context.Context, limit int) (int, error) { return s.take("sweep", limit) }

// ExpireWaiting implements inbox.Sweepable.
func (s *sweepable) ExpireWaiting(_ context.Context, ttl time.Duration, limit int) (int64, error) {
	n, err := s.take("expire after "+ttl.String(), limit)
	return int64(n), err
}

// DropPayloads implements inbox.Sweepable.
func (s *sweepable) DropPayloads(_ context.Context, retention time.Duration, limit int) (int64, error) {
	n, err := s.take("drop after "+retention.String(), limit)
	return int64(n), err
}

// ForgetIdlePokes implements inbox.Sweepable.
func (s *sweepable) ForgetIdlePokes(_ context.Context, idle time.Duration, limit int) (int64, error) {
	n, err := s.take("forget after "+idle.String(), limit)
	return int64(n), err
}

// ForgetOperations implements inbox.Sweepable.
func (s *sweepable) ForgetOperations(_ context.Context, limit int) (int64, error) {
	n, err := s.take("forget operations", limit)
	return int64(n), err
}

// ForgetStripeRequests implements inbox.Sweepable.
func (s *sweepable) ForgetStripeRequests(_ context.Context, limit int) (int64, error) {
	n, err := s.take("forget requests", limit)
	return int64(n), err
}

// Every step is done at each sweep, again at once while it finds as much as it may take, and a step
// that fails keeps the others from nothing.
func TestSweeper(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		s := &sweepable{left: map[string]int{"sweep": 1100, "drop after 2h0m0s": 500}, fail: "expire after 1h0m0s"}
		var woken atomic.Int32
		sweeper := &inbox.Sweeper{Store: s, WaitingTTL: time.Hour, PayloadRetention: 2 * time.Hour, Every: 10 * time.Second,
			Wake: func() { woken.Add(1) }, Logger: silent()}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { sweeper.Run(ctx) })
		synctest.Wait()
		first := []string{"sweep", "sweep", "sweep", "expire after 1h0m0s", "drop after 2h0m0s", "drop after 2h0m0s", "forget after 1m0s", "forget operations", "forget requests"}
		if did := s.did(); !slices.Equal(did, first) {
			t.Errorf("a first sweep did %v, want %v", did, first)
		}
		if n := woken.Load(); n != 1 {
			t.Errorf("woken %d times, want once for all", n)
		}
		pass(10 * time.Second)
		if did, want := s.did(), []string{"sweep", "expire after 1h0m0s", "drop after 2h0m0s", "forget after 1m0s", "forget operations", "forget requests"}; !slices.Equal(did, want) {
			t.Errorf("the next sweep did %v, want %v", did, want)
		}
		if woken.Load() != 1 {
			t.Error("a sweep that poked nobody woke the dispatcher")
		}
		cancel()
		running.Wait()
		pass(time.Minute)
		if did := s.did(); len(did) != 0 {
			t.Errorf("it sweeps on: %v", did)
		}
	})
}

// What is known is never asked again; what is not is asked now and then, whatever the answer was.
func TestIdentity(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		asked := 0
		var answer store.Identity
		var err error
		identity := inbox.NewIdentity(func(context.Context) (store.Identity, error) { asked++; return answer, err })
		get := func(want store.Identity, wantAsked int) {
			t.Helper()
			if got := identity.Get(t.Context()); got != want || asked != wantAsked {
				t.Errorf("%+v after %d questions, want %+v after %d", got, asked, want, wantAsked)
			}
		}
		half, whole := store.Identity{ClerkInstanceID: "ins_1"}, store.Identity{ClerkInstanceID: "ins_1", StripeAccountID: "acct_1"}
		err = errors.New("unavailable")
		get(store.Identity{}, 1)
		get(store.Identity{}, 1)
		pass(6 * time.Second)
		answer, err = half, nil
		get(half, 2)
		pass(6 * time.Second)
		err = errors.New("unavailable")
		get(half, 3)
		pass(6 * time.Second)
		answer, err = whole, nil
		get(whole, 4)
		pass(time.Hour)
		answer = store.Identity{ClerkInstanceID: "ins_2"}
		get(whole, 4)
	})
}
