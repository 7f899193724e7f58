package inbox_test

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// outbox is the table of pokes, in memory.
type outbox struct {
	mu      sync.Mutex
	rows    map[string]*row
	token   int64
	away    bool // the database does not answer
	asked   int
	changed chan struct{} // told to who listens
	deaf    int           // how often listening fails yet
	// slow has looks take until they are said to be done; underWay counts those that are not.
	slow     bool
	routine  int // how often routine pokes have been asked for
	underWay int
}

type row struct {
	job   account.Job
	due   time.Time // zero for none
	token int64
	tries int
	// urgent is set where somebody waits for it.
	urgent bool
}

func newOutbox() *outbox {
	return &outbox{rows: map[string]*row{}, changed: make(chan struct{}, 1)}
}

var errAway = failure.New(failure.Transient, "postgres", "claim pokes", "unreachable", nil)

// ask makes an entity due.
func (o *outbox) ask(entity string, job account.Job, in time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.token++
	o.rows[entity] = &row{job: job, due: time.Now().Add(in), token: o.token}
}

// routines is how often routine pokes have been asked for.
func (o *outbox) routines() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.routine
}

// looked says that so many looks are done.
func (o *outbox) looked(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.underWay -= min(n, o.underWay)
}

// looking is how many are under way.
func (o *outbox) looking() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.underWay
}

// askUrgently makes an entity due that somebody waits for.
func (o *outbox) askUrgently(entity string) {
	o.ask(entity, account.JobSync, 0)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rows[entity].urgent = true
}

// ClaimPokes implements inbox.Outbox.
func (o *outbox) ClaimPokes(_ context.Context, limit, window int, lease time.Duration) (claimed []store.Poke, wait time.Duration, held bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked++
	o.routine += min(window, 1)
	if o.away {
		return nil, 0, false, errAway
	}
	entities := make([]string, 0, len(o.rows))
	for entity, r := range o.rows {
		if !r.due.IsZero() && !r.due.After(time.Now()) {
			entities = append(entities, entity)
		}
	}
	slices.SortFunc(entities, func(a, b string) int { return cmp.Or(o.rows[a].due.Compare(o.rows[b].due), cmp.Compare(a, b)) })
	left := map[bool]int{true: limit, false: max(window-o.underWay, 0)}
	for _, entity := range entities {
		r := o.rows[entity]
		if left[r.urgent] == 0 {
			continue
		}
		left[r.urgent]--
		o.token++
		r.token, r.due, r.tries = o.token, time.Now().Add(lease), r.tries+1
		if o.slow {
			o.underWay++
		}
		claimed = append(claimed, store.Poke{Entity: entity, Job: int16(r.job), Token: r.token, Attempts: r.tries, Urgent: r.urgent})
	}
	if left[true] == 0 || window <= 0 {
		return claimed, 0, left[true] > 0, nil
	}
	wait = lease
	for _, r := range o.rows {
		if !r.due.IsZero() {
			wait = min(wait, max(time.Until(r.due), 0))
		}
	}
	return claimed, wait, wait == 0, nil
}

// PokesDone implements inbox.Outbox.
func (o *outbox) PokesDone(_ context.Context, done []store.Poke) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.away {
		return errAway
	}
	for _, p := range done {
		if r := o.rows[p.Entity]; r.token == p.Token {
			r.due, r.tries = time.Time{}, 0
		}
	}
	return nil
}

// PokesFailed implements inbox.Outbox.
func (o *outbox) PokesFailed(_ context.Context, failed []store.Poke, pause time.Duration) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.away {
		return errAway
	}
	for _, p := range failed {
		o.rows[p.Entity].due = time.Now().Add(pause)
	}
	return nil
}

// ListenForPokes implements inbox.Outbox.
func (o *outbox) ListenForPokes(ctx context.Context, wake func()) error {
	o.mu.Lock()
	o.deaf--
	deaf := o.deaf >= 0
	o.mu.Unlock()
	if deaf {
		return errAway
	}
	wake()
	for {
		select {
		case <-o.changed:
			wake()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// looks is how often somebody has looked.
func (o *outbox) looks() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked
}

func (o *outbox) setAway(away bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.away = away
}

func (o *outbox) due() (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range o.rows {
		if !r.due.IsZero() {
			n++
		}
	}
	return n
}

// poker is a Temporal server.
type poker struct {
	mu     sync.Mutex
	poked  map[string]int
	jobs   map[string]account.Job
	urgent map[string]bool
	tries  int
	atOnce int
	most   int
	takes  time.Duration
	fail   func(entity account.Entity) error
}

// Poke implements inbox.Poker.
func (p *poker) Poke(ctx context.Context, entity account.Entity, job account.Job, urgent bool) error {
	p.mu.Lock()
	p.tries++
	p.atOnce++
	p.most = max(p.most, p.atOnce)
	p.mu.Unlock()
	var err error
	select {
	case <-time.After(p.takes):
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.atOnce--
	if err == nil && p.fail != nil {
		err = p.fail(entity)
	}
	if err != nil {
		return err
	}
	if p.poked == nil {
		p.poked, p.jobs, p.urgent = map[string]int{}, map[string]account.Job{}, map[string]bool{}
	}
	p.poked[string(entity)]++
	p.jobs[string(entity)] = job
	p.urgent[string(entity)] = urgent
	return nil
}

// hurried tells whether the last poke of an entity was urgent.
func (p *poker) hurried(entity string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.urgent[entity]
}

func (p *poker) count(entity string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.poked[entity]
}

// sum is how many entities were poked, in how many tries, and how many at once at most.
func (p *poker) sum() (entities, tries, most int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.poked), p.tries, p.most
}

func (p *poker) jobOf(entity string) account.Job {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.jobs[entity]
}

func (p *poker) setFail(fail func(account.Entity) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = fail
}
