package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/inbox"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// adder is a database that commits when it is told to.
type adder struct {
	mu     sync.Mutex
	groups [][]string
	stored map[string]bool
	// gate, if set, holds each commit until something comes out of it.
	gate chan struct{}
	// fail answers why a group cannot be stored.
	fail func(ids []string) error
}

// AddEvents implements inbox.Adder.
func (a *adder) AddEvents(ctx context.Context, events []store.NewEvent, spacing time.Duration) ([]store.Added, error) {
	if spacing != time.Second {
		return nil, fmt.Errorf("spacing %s", spacing)
	}
	ids := make([]string, len(events))
	for i, e := range events {
		ids[i] = e.EventID
	}
	a.mu.Lock()
	a.groups = append(a.groups, ids)
	a.mu.Unlock()
	if a.gate != nil {
		select {
		case <-a.gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fail != nil {
		if err := a.fail(ids); err != nil {
			return nil, err
		}
	}
	added := make([]store.Added, len(ids))
	for i, id := range ids {
		switch {
		case a.stored[id]:
		case events[i].Ignore != "":
			added[i] = store.AddedDone
		default:
			added[i] = store.AddedDue
		}
		if a.stored == nil {
			a.stored = map[string]bool{}
		}
		a.stored[id] = true
	}
	return added, nil
}

func (a *adder) sizes() (sizes []int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, g := range a.groups {
		sizes = append(sizes, len(g))
	}
	return sizes
}

// writing is a writer at work.
type writing struct {
	*inbox.Writer
	woken atomic.Int32
	stop  context.CancelFunc
	done  chan struct{}
}

func startWriter(t *testing.T, o inbox.WriterOptions) *writing {
	t.Helper()
	w := &writing{done: make(chan struct{})}
	o.Spacing = time.Second
	o.Wake = func() { w.woken.Add(1) }
	w.Writer = inbox.NewWriter(o)
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	go func() { defer close(w.done); w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-w.done })
	return w
}

type added struct {
	id    string
	isNew bool
	err   error
}

// add hands events in one after the other, without waiting for their answers.
func (w *writing) add(ctx context.Context, ids ...string) <-chan added {
	answers := make(chan added, len(ids))
	for _, id := range ids {
		go func() {
			what, err := w.Add(ctx, store.NewEvent{Source: "stripe", EventID: id})
			answers <- added{id, what == store.AddedDue, err}
		}()
		synctest.Wait()
	}
	return answers
}

func ids(prefix string, n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("%s_%03d", prefix, i))
	}
	return list
}

// While one commit is under way the others gather: a hundred deliveries cost two commits, in the
// order of their arrival, and one alone waits for nobody.
func TestWriterGroups(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		for limit, want := range map[int][]int{0: {1, 100}, 30: {1, 30, 30, 30, 10}} {
			db := &adder{gate: make(chan struct{})}
			w := startWriter(t, inbox.WriterOptions{Adder: db, MaxGroup: limit})
			first := w.add(t.Context(), "first")
			events := ids("evt", 100)
			rest := w.add(t.Context(), events...)
			if sizes := db.sizes(); !slices.Equal(sizes, []int{1}) {
				t.Fatalf("groups of %v while the first commit is under way", sizes)
			}
			close(db.gate)
			synctest.Wait()
			if sizes := db.sizes(); !slices.Equal(sizes, want) {
				t.Errorf("groups of %v, want %v", sizes, want)
			}
			if got := slices.Concat(db.groups...); !slices.Equal(got[1:], events) {
				t.Errorf("not in the order of arrival: %v", got)
			}
			if a := <-first; !a.isNew || a.err != nil {
				t.Errorf("the first was answered %+v", a)
			}
			for range events {
				if a := <-rest; !a.isNew || a.err != nil {
					t.Errorf("answered %+v", a)
				}
			}
		}
	})
}

// The dispatcher is woken by commits that left something to poke, and by no others.
func TestWriterWakes(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		w := startWriter(t, inbox.WriterOptions{Adder: &adder{}})
		add := func(e store.NewEvent) {
			if _, err := w.Add(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		for _, c := range []struct {
			name  string
			event store.NewEvent
			want  int
		}{
			{"new", store.NewEvent{EventID: "evt_1"}, 1},
			{"known", store.NewEvent{EventID: "evt_1"}, 1},
			{"ignored", store.NewEvent{EventID: "evt_2", Ignore: "type not handled"}, 1},
			{"new again", store.NewEvent{EventID: "evt_3"}, 2},
		} {
			add(c.event)
			if n := int(w.woken.Load()); n != c.want {
				t.Errorf("%s: woken %d times by now, want %d", c.name, n, c.want)
			}
		}
	})
}

// More than may wait is refused at once, and nobody else suffers from it.
func TestWriterOverload(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		db := &adder{gate: make(chan struct{})}
		w := startWriter(t, inbox.WriterOptions{Adder: db, MaxQueued: 5})
		taken := w.add(t.Context(), ids("evt", 6)...) // one is being committed, five wait
		started := time.Now()
		if _, err := w.Add(t.Context(), store.NewEvent{EventID: "evt_too_much"}); !errors.Is(err, inbox.ErrOverloaded) {
			t.Errorf("the seventh was answered: %v", err)
		}
		if waited := time.Since(started); waited != 0 {
			t.Errorf("it was answered after %s", waited)
		}
		close(db.gate)
		for range 6 {
			if a := <-taken; a.err != nil || !a.isNew {
				t.Errorf("answered %+v", a)
			}
		}
		if db.stored["evt_too_much"] {
			t.Error("what was refused was stored")
		}
		if _, err := w.Add(t.Context(), store.NewEvent{EventID: "evt_after"}); err != nil {
			t.Errorf("after the overload: %v", err)
		}
	})
}

// A delivery that cannot be stored holds up nobody else's.
func TestWriterPoison(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		db := &adder{gate: make(chan struct{}), fail: func(ids []string) error {
			if slices.Contains(ids, "evt_poison") {
				return failure.New(failure.Permanent, "postgres", "store deliveries", "22021", nil)
			}
			return nil
		}}
		w := startWriter(t, inbox.WriterOptions{Adder: db})
		w.add(t.Context(), "first")
		answers := w.add(t.Context(), "evt_1", "evt_poison", "evt_2")
		close(db.gate)
		for range 3 {
			a := <-answers
			if poison := a.id == "evt_poison"; (a.err != nil) != poison || a.isNew == poison {
				t.Errorf("answered %+v", a)
			}
		}
		if db.stored["evt_poison"] || !db.stored["evt_1"] || !db.stored["evt_2"] {
			t.Errorf("stored %v", db.stored)
		}
	})
}

// When the database is away nobody is told that they were stored, and it is not asked again for
// each of them.
func TestWriterDatabaseAway(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var back atomic.Bool
		db := &adder{gate: make(chan struct{}), fail: func([]string) error {
			if !back.Load() {
				return failure.New(failure.Transient, "postgres", "store deliveries", "unreachable", nil)
			}
			return nil
		}}
		w := startWriter(t, inbox.WriterOptions{Adder: db})
		first := w.add(t.Context(), "first")
		answers := w.add(t.Context(), ids("evt", 20)...)
		close(db.gate)
		if a := <-first; a.err == nil {
			t.Error("the first was said to be stored")
		}
		for range 20 {
			if a := <-answers; failure.Of(a.err) != failure.Transient || a.isNew || a.err == nil {
				t.Errorf("answered %+v", a)
			}
		}
		if sizes := db.sizes(); !slices.Equal(sizes, []int{1, 20}) {
			t.Errorf("the database was asked for groups of %v", sizes)
		}
		if w.woken.Load() != 0 {
			t.Error("the dispatcher was woken for nothing")
		}
		back.Store(true)
		if added, err := w.Add(t.Context(), store.NewEvent{EventID: "evt_000"}); added != store.AddedDue || err != nil {
			t.Errorf("sent again: %d, %v", added, err)
		}
	})
}

// A database that hangs is given up in time for the provider to be answered.
func TestWriterDatabaseHangs(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		w := startWriter(t, inbox.WriterOptions{Adder: &adder{gate: make(chan struct{})}})
		started := time.Now()
		_, err := w.Add(t.Context(), store.NewEvent{EventID: "evt_1"})
		if waited := time.Since(started); err == nil || waited <= 0 || waited >= 10*time.Second {
			t.Errorf("answered %v after %s, want a failure below 10 s", err, waited)
		}
	})
}

// A caller that goes away gets its own answer; its delivery is stored all the same.
func TestWriterCallerGone(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		db := &adder{gate: make(chan struct{})}
		w := startWriter(t, inbox.WriterOptions{Adder: db})
		ctx, leave := context.WithCancel(t.Context())
		answers := w.add(ctx, "evt_1", "evt_2")
		leave()
		for range 2 {
			if a := <-answers; !errors.Is(a.err, context.Canceled) {
				t.Errorf("a caller that left was answered %+v", a)
			}
		}
		close(db.gate)
		synctest.Wait()
		if !db.stored["evt_1"] || !db.stored["evt_2"] {
			t.Errorf("stored %v", db.stored)
		}
	})
}

// A writer that is stopped commits what waits, and then says that it takes no more.
func TestWriterStops(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		db := &adder{gate: make(chan struct{})}
		w := startWriter(t, inbox.WriterOptions{Adder: db, MaxGroup: 10})
		answers := w.add(t.Context(), ids("evt", 25)...)
		w.stop()
		synctest.Wait()
		select {
		case <-w.done:
			t.Fatal("the writer ended with deliveries waiting")
		default:
		}
		close(db.gate)
		for range 25 {
			if a := <-answers; a.err != nil || !a.isNew {
				t.Errorf("answered %+v", a)
			}
		}
		<-w.done
		if len(db.stored) != 25 {
			t.Errorf("%d stored, want 25", len(db.stored))
		}
		if _, err := w.Add(t.Context(), store.NewEvent{EventID: "evt_late"}); !errors.Is(err, inbox.ErrStopping) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// A writer remembers why the last commit failed, until one does not.
func TestWriterFailure(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		full := failure.New(failure.Operator, "postgres", "store deliveries", "53100", nil)
		db := &adder{fail: func(ids []string) error {
			if ids[0] == "evt_1" {
				return full
			}
			return nil
		}}
		w := startWriter(t, inbox.WriterOptions{Adder: db})
		if err := w.Failure(); err != nil {
			t.Errorf("before the first there is %v", err)
		}
		if a := <-w.add(t.Context(), "evt_1"); !errors.Is(a.err, full) || !errors.Is(w.Failure(), full) {
			t.Errorf("the delivery was answered %v, remembered is %v", a.err, w.Failure())
		}
		if a := <-w.add(t.Context(), "evt_2"); a.err != nil || w.Failure() != nil {
			t.Errorf("the next was answered %v, remembered is %v", a.err, w.Failure())
		}
	})
}
