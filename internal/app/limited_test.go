package app

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/activities"
)

type priorityKey struct{}

// Of calls that wait for a provider's rate those go first that somebody is waiting for, however
// many others came before; and nobody waits for ever.
func TestUrgentCallsGoFirst(t *testing.T) {
	t.Parallel()
	const waiting, atOnce = 60, 10
	l := newLimited(100, nil)
	l.priority = func(ctx context.Context) int { key, _ := ctx.Value(priorityKey{}).(int); return key }
	for l.limiter.Allow() { // what may go at once has gone
	}
	var over atomic.Int64
	var calls sync.WaitGroup
	some := make(chan struct{})
	for i := range waiting {
		ctx := context.WithValue(t.Context(), priorityKey{}, []int{activities.PriorityKnown, activities.PriorityRoutine}[i%2])
		calls.Go(func() {
			if err := l.wait(ctx); err != nil {
				t.Error(err)
			}
			if over.Add(1) == atOnce {
				close(some)
			}
		})
	}
	<-some
	if err := l.wait(context.WithValue(t.Context(), priorityKey{}, activities.PriorityPerson)); err != nil {
		t.Error(err)
	}
	// One of them had its moment by then, and one more may have got its own on the way.
	if n := over.Load(); n > atOnce+5 {
		t.Errorf("%d of %d calls went before the urgent one, %d of them while it waited", n, waiting, n-atOnce)
	}
	calls.Wait()
}

// What may go at once goes at once, also where nobody is waiting for it.
func TestNoCallWaitsForNothing(t *testing.T) {
	t.Parallel()
	l := newLimited(0.001, nil)
	l.priority = func(context.Context) int { return activities.PriorityRoutine }
	if err := l.wait(t.Context()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.wait(ctx); err == nil {
		t.Error("a call that nobody wants any more has had its moment")
	}
}
