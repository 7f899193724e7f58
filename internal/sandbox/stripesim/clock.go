package stripesim

import (
	"container/heap"
	"context"
	"fmt"
	"time"
)

// clock is simulated time: a start, what has really passed since, and what was skipped.
type clock struct {
	start   time.Time
	born    time.Time // real
	skipped time.Duration
	frozen  bool
}

func newClock(o Options) clock {
	start := time.Now()
	if o.Now != nil {
		start = o.Now()
	}
	return clock{start: start.UTC().Round(0), born: time.Now(), frozen: o.Frozen}
}

func (c *clock) now() time.Time {
	t := c.start.Add(c.skipped)
	if !c.frozen {
		t = t.Add(time.Since(c.born))
	}
	return t
}

// Now is the simulated time.
func (s *Server) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clock.now()
}

// Advance moves the clock forward by d and performs what becomes due on the way, each at its own
// time. Zero performs what the flow of real time has made due. When ctx ends first, the rest is
// performed by the next call or request.
func (s *Server) Advance(ctx context.Context, d time.Duration) error {
	if d < 0 {
		return fmt.Errorf("advance the simulated clock by %s: time does not run backwards", d)
	}
	s.mu.Lock()
	err := s.advance(ctx, d)
	s.mu.Unlock()
	s.flush()
	return err
}

// AdvanceTo is Advance to a point in time; one that has passed is an error.
func (s *Server) AdvanceTo(ctx context.Context, t time.Time) error {
	s.mu.Lock()
	d := t.Sub(s.clock.now())
	if d < 0 {
		s.mu.Unlock()
		return fmt.Errorf("advance the simulated clock to %s: time does not run backwards", t.UTC().Format(time.RFC3339))
	}
	err := s.advance(ctx, d)
	s.mu.Unlock()
	s.flush()
	return err
}

func (s *Server) advance(ctx context.Context, d time.Duration) error {
	s.clock.skipped += d
	if !s.catchUp(func() bool { return ctx.Err() != nil }) {
		return fmt.Errorf("perform what is due: %w", ctx.Err())
	}
	return nil
}

// timed is an object to which something happens by itself.
type timed interface {
	ident() string
	// due is when the next thing happens to it, in Unix seconds; 0 is never.
	due() int64
}

// catchUp performs everything that is due and makes now the moment of the step that follows; false
// when it was stopped before.
func (s *Server) catchUp(stopped func() bool) (done bool) {
	s.cause = cause{}
	now := s.clock.now()
	for len(s.agenda.entries) > 0 && s.agenda.entries[0].at <= now.Unix() {
		if stopped() {
			return false
		}
		e := s.agenda.pop()
		x := s.db.timed(e.id)
		if x == nil || x.due() != e.at {
			continue // it was changed since; a newer entry stands for it
		}
		// An object changed in the past of an earlier step's moment must not set the clock back.
		if at := time.Unix(e.at, 0).UTC(); at.After(s.moment) {
			s.moment = at
		}
		s.perform(x)
		if x.due() > e.at {
			s.plan(x)
		}
	}
	if now.After(s.moment) {
		s.moment = now
	}
	return true
}

// tick is catchUp to the end.
func (s *Server) tick() { s.catchUp(func() bool { return false }) }

func (s *Server) perform(x timed) {
	switch x := x.(type) {
	case *subscription:
		s.subscriptionDue(x)
	case *invoice:
		s.invoiceDue(x)
	case *session:
		s.expireSession(x)
	case *schedule:
		s.scheduleDue(x)
	}
}

// unix is the moment of the present step, as Stripe writes time.
func (s *Server) unix() int64 { return s.moment.Unix() }

// agenda holds when something is due, earliest first. Entries are not removed when an object
// changes: catchUp asks the object.
type agenda struct {
	entries entries
	known   map[entry]bool
	seq     int
}

type entry struct {
	at int64
	id string
}

func newAgenda() agenda { return agenda{known: map[entry]bool{}} }

func (s *Server) plan(x timed) {
	at := x.due()
	e := entry{at: at, id: x.ident()}
	if at == 0 || s.agenda.known[e] {
		return
	}
	s.agenda.known[e] = true
	s.agenda.seq++
	heap.Push(&s.agenda.entries, queued{entry: e, seq: s.agenda.seq})
}

func (a *agenda) pop() entry {
	e := heap.Pop(&a.entries).(queued).entry
	delete(a.known, e)
	return e
}

type queued struct {
	entry
	seq int
}

type entries []queued

func (q entries) Len() int { return len(q) }
func (q entries) Less(i, j int) bool {
	if q[i].at != q[j].at {
		return q[i].at < q[j].at
	}
	return q[i].seq < q[j].seq
}
func (q entries) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *entries) Push(x any)   { *q = append(*q, x.(queued)) }
func (q *entries) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}
