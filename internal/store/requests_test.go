package store_test

import (
	"sync"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// A generation that is left behind is left behind for everybody, once, and is never used again.
func TestGenerationsOfARequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, err := w.StripeRequest(t.Context(), "op_1:cancel")
	must(t, err)
	if first.IdempotencyKey() != "op_1:cancel:1" || first.Old {
		t.Fatalf("begins with %+v", first)
	}
	again, err := w.StripeRequest(t.Context(), "op_1:cancel")
	must(t, err)
	if again != first {
		t.Errorf("another attempt asks as %+v, not %+v", again, first)
	}
	// All who have met what is of no use go on under the same one.
	var all sync.WaitGroup
	next := make([]store.StripeRequest, 6)
	for i := range next {
		all.Go(func() {
			var err error
			if next[i], err = w.NextStripeRequest(t.Context(), first); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, r := range next {
		if r != next[0] || r.Generation != 2 || !r.Since.After(first.Since) {
			t.Errorf("they go on as %+v", next)
			break
		}
	}
	third, err := w.NextStripeRequest(t.Context(), next[0])
	must(t, err)
	late, err := w.NextStripeRequest(t.Context(), first)
	must(t, err)
	if third.Generation != 3 || late != third {
		t.Errorf("who is late goes on as %+v, the others as %+v", late, third)
	}

	// What Stripe may have forgotten is told, and what it must have is forgotten here.
	w.exec(`UPDATE stripe_requests SET generation_at = now() - interval '23 hours 1 minute'`)
	old, err := w.StripeRequest(t.Context(), "op_1:cancel")
	must(t, err)
	if !old.Old || old.Generation != 3 {
		t.Errorf("after a day it is %+v", old)
	}
	for _, c := range []struct {
		interval string
		want     int64
	}{{"2 days", 0}, {"4 days", 1}} {
		w.exec(`UPDATE stripe_requests SET asked_at = now() - $1::interval`, c.interval)
		if n, err := w.ForgetStripeRequests(t.Context(), 10); err != nil || n != c.want {
			t.Errorf("%s after it was asked: forgets %d, %v", c.interval, n, err)
		}
	}
}
