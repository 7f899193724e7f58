package fences_test

import (
	"context"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// scene is two who act at once, and what has to hold afterwards.
type scene struct {
	first, second func(ctx context.Context, a *actor) error
	check         func()
}

// explore plays a scene once for every moment at which the first can be stopped: there the second
// acts, until it ends or waits for a lock that the first holds, and then the first goes on. So
// every interleaving with one change of turns is seen, whatever the machine's timing.
//
// Where the second has changed nothing by then that others may see, it makes no difference whether
// it was there a moment earlier or later, as long as the first does not do so either, and draws no
// number: of such moments one is played.
func (l *lab) explore(o policies, prepare func() scene) {
	l.t.Helper()
	l.exploreEvery(1, o, prepare)
}

// exploreEvery plays every so manieth of these rounds only.
func (l *lab) exploreEvery(stride int, o policies, prepare func() scene) {
	l.t.Helper()
	a, b := l.actor(o), l.actor(o)
	for round, played := 0, 1; ; played++ {
		s := prepare()
		a.trace()
		at := a.arm(l.t, "", round)
		first := begin(func() error { return s.first(l.t.Context(), a) })
		select {
		case <-at.reached:
		case err := <-first:
			// It has no more points: this is the scene with one after the other.
			l.must(err)
			a.disarm(at)
			l.must(s.second(l.t.Context(), b))
			s.check()
			if round < 5 {
				l.t.Fatalf("there were only %d points", round)
			}
			l.t.Logf("%d interleavings played", played)
			return
		}
		b.trace()
		second := begin(func() error { return s.second(l.t.Context(), b) })
		l.untilDoneOrLocked(second)
		_, changes := b.traced()
		at.release()
		wait(l.t, first)
		wait(l.t, second)
		s.check()
		if l.t.Failed() {
			l.t.Fatalf("the second acted when the first stood at moment %d, %q", round, at.at)
		}
		next := round + stride
		if acts, _ := a.traced(); changes == 0 {
			same := round
			for same < len(acts) && !acts[same] {
				same++
			}
			next = max(next, same+1)
		}
		round = next
	}
}

// untilDoneOrLocked waits until somebody has ended, which stays to be received, or waits for a
// lock.
func (l *lab) untilDoneOrLocked(done <-chan error) {
	l.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	late := time.After(system.Patience())
	for len(done) == 0 && !l.locked() {
		select {
		case <-tick.C:
		case <-late:
			l.t.Fatal("it neither ends nor waits for a lock")
		}
	}
}

// beside runs all of them at once and waits for all.
func beside(t *testing.T, fs ...func() error) {
	t.Helper()
	barrier := make(chan struct{})
	var all []<-chan error
	for _, f := range fs {
		all = append(all, begin(func() error { <-barrier; return f() }))
	}
	close(barrier)
	for _, done := range all {
		wait(t, done)
	}
}
