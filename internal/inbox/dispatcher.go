package inbox

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// Poker wakes an entity's workflow, starting it if it does not run.
type Poker interface {
	Poke(ctx context.Context, entity account.Entity, job account.Job, urgent bool) error
}

// Outbox is where the dispatcher finds what is to be poked.
type Outbox interface {
	ClaimPokes(ctx context.Context, limit, window int, lease time.Duration) (claimed []store.Poke, wait time.Duration, held bool, err error)
	PokesDone(ctx context.Context, done []store.Poke) error
	PokesFailed(ctx context.Context, failed []store.Poke, pause time.Duration) error
	ListenForPokes(ctx context.Context, wake func()) error
}

// Dispatcher pokes the workflows of entities that are due. Any number of copies may run: each
// claims what no other has claimed.
//
// Of what nobody waits for it has only so much under way at a time. A wave of renewals then waits
// here, where what is urgent goes past it, and not in Temporal's queue of workflow tasks, where
// nothing can. While somebody waits it has less under way, so that what they wait for has the
// machines nearly to itself.
type Dispatcher struct {
	outbox  Outbox
	poker   Poker
	logger  *slog.Logger
	observe func(kind account.Kind, err error)
	window  int
	// urgentAt is when something urgent was claimed last.
	urgentAt time.Time
	// routineAt is when routine pokes are asked for again, while there are more of them than may be
	// under way.
	routineAt time.Time
	woken     chan struct{}
}

// DispatcherOptions are what a dispatcher works with.
type DispatcherOptions struct {
	Outbox Outbox
	Poker  Poker
	Logger *slog.Logger
	// Window is how many customers are looked at at a time for what is routine, and how many others:
	// enough to keep the workers and the providers busy, and few enough that what is urgent waits for
	// few of them. 0 stands for 32.
	Window int
	// Observe is told of each poke; it may be nil.
	Observe func(kind account.Kind, err error)
}

const (
	// claimLimit bounds what one claim takes: few enough that a lease outlives their pokes.
	claimLimit = 64
	// lease is how long a claim holds. Entities claimed by a copy that died are poked by
	// another after this long.
	lease = 10 * time.Second
	// defaultWindow is [DispatcherOptions.Window] where it says nothing.
	defaultWindow = 32
	// While something urgent was claimed within waited, only one in besideUrgent of the window is
	// used. What is urgent takes less than that, as a rule, and who buys is seldom alone.
	besideUrgent = 8
	waited       = 10 * time.Second
	// windowPause is how often the database is asked whether fewer are under way.
	windowPause = 50 * time.Millisecond
	// pokesAtOnce is how many pokes are under way: enough to keep a small Temporal server
	// busy, few enough not to queue there.
	pokesAtOnce = 16
	// pokeTimeout bounds one poke, well below the lease.
	pokeTimeout = 5 * time.Second
	// The pauses while Temporal or the database cannot be reached.
	firstPause = 200 * time.Millisecond
	longPause  = 5 * time.Second
)

// NewDispatcher makes a dispatcher; [Dispatcher.Run] makes it work.
func NewDispatcher(o DispatcherOptions) *Dispatcher {
	if o.Observe == nil {
		o.Observe = func(account.Kind, error) {}
	}
	if o.Window <= 0 {
		o.Window = defaultWindow
	}
	return &Dispatcher{outbox: o.Outbox, poker: o.Poker, logger: o.Logger, observe: o.Observe, window: o.Window, woken: make(chan struct{}, 1)}
}

// Wake makes the dispatcher look now. It never blocks.
func (d *Dispatcher) Wake() {
	select {
	case d.woken <- struct{}{}:
	default:
	}
}

// Run dispatches until the context ends; pokes that are under way then are finished.
func (d *Dispatcher) Run(ctx context.Context) {
	var listening sync.WaitGroup
	listening.Go(func() { d.listen(ctx) })
	defer listening.Wait()
	pause := firstPause
	for ctx.Err() == nil {
		wait, ok := d.pass(ctx)
		if ok {
			pause = firstPause
		} else {
			wait, pause = pause, min(pause*2, longPause)
		}
		if wait == 0 {
			continue
		}
		d.sleep(ctx, wait, ok)
	}
}

// sleep waits until something is due. While the outside fails, being woken does not shorten the
// pause: it would only fail again.
func (d *Dispatcher) sleep(ctx context.Context, wait time.Duration, wakeable bool) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	woken := d.woken
	if !wakeable {
		woken = nil
	}
	select {
	case <-timer.C:
	case <-woken:
	case <-ctx.Done():
	}
}

// pass claims what is due and pokes it. ok is false when the database or Temporal failed; wait
// is when to look again.
func (d *Dispatcher) pass(ctx context.Context) (wait time.Duration, ok bool) {
	routine := d.window
	if time.Since(d.urgentAt) < waited {
		routine = max(d.window/besideUrgent, 1)
	}
	if time.Now().Before(d.routineAt) {
		routine = 0
	}
	claimed, wait, held, err := d.outbox.ClaimPokes(ctx, claimLimit, routine, lease)
	if err != nil {
		if ctx.Err() == nil {
			d.logger.WarnContext(ctx, "claiming pokes failed", "operation", "claim_pokes", "error_class", string(failure.Of(err)), "error", err.Error())
		}
		return 0, false
	}
	if held {
		if routine > 0 {
			d.routineAt = time.Now().Add(windowPause)
		}
		wait = max(time.Until(d.routineAt), time.Millisecond)
	}
	if slices.ContainsFunc(claimed, func(p store.Poke) bool { return p.Urgent }) {
		d.urgentAt = time.Now()
	}
	if len(claimed) == 0 {
		return wait, true
	}
	done, failed := d.poke(ctx, claimed)
	// What was claimed is settled although the program stops meanwhile.
	ctx = context.WithoutCancel(ctx)
	if err := d.outbox.PokesDone(ctx, done); err != nil {
		// They are poked again when the lease ends; a poke too many changes nothing.
		d.logger.WarnContext(ctx, "clearing pokes failed", "operation", "clear_pokes", "error_class", string(failure.Of(err)), "error", err.Error())
	}
	if len(failed) == 0 {
		return wait, true
	}
	if err := d.outbox.PokesFailed(ctx, failed, firstPause); err != nil {
		d.logger.WarnContext(ctx, "giving pokes back failed", "operation", "return_pokes", "error_class", string(failure.Of(err)), "error", err.Error())
	}
	return 0, len(done) > 0
}

// poke pokes what was claimed. When the program stops, pokes under way are finished and the
// others are given back at once: a stop must not wait for a Temporal that does not answer.
func (d *Dispatcher) poke(ctx context.Context, claimed []store.Poke) (done, failed []store.Poke) {
	stopping := ctx.Done()
	ctx = context.WithoutCancel(ctx)
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(pokesAtOnce)
	for _, p := range claimed {
		group.Go(func() error {
			select {
			case <-stopping:
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, p)
				return nil
			default:
			}
			ctx, cancel := context.WithTimeout(ctx, pokeTimeout)
			defer cancel()
			entity := account.Entity(p.Entity)
			kind, _ := entity.Split()
			err := d.poker.Poke(ctx, entity, account.Job(p.Job), p.Urgent)
			d.observe(kind, err)
			mu.Lock()
			defer mu.Unlock()
			if failure.Of(err) == failure.Permanent {
				d.logger.ErrorContext(ctx, "cannot be poked, ever", "operation", "poke", "workflow_id", p.Entity, "error", err.Error())
				done = append(done, p)
				return nil
			}
			if err != nil {
				d.logger.WarnContext(ctx, "poke failed", "operation", "poke", "workflow_id", p.Entity, "attempt", p.Attempts, "error", err.Error())
				failed = append(failed, p)
				return nil
			}
			d.logger.DebugContext(ctx, "poked", "operation", "poke", "workflow_id", p.Entity)
			done = append(done, p)
			return nil
		})
	}
	_ = group.Wait() // no poke returns an error: each is settled by itself
	return done, failed
}

// listen is woken by transactions of other programs. While it cannot listen, what they leave is
// found when the dispatcher looks by itself.
func (d *Dispatcher) listen(ctx context.Context) {
	pause := firstPause
	for ctx.Err() == nil {
		started := time.Now()
		err := d.outbox.ListenForPokes(ctx, d.Wake)
		if ctx.Err() != nil {
			return
		}
		if time.Since(started) > longPause {
			pause = firstPause
		}
		d.logger.WarnContext(ctx, "listening for pokes failed", "operation", "listen", "error_class", string(failure.Of(err)))
		d.sleep(ctx, pause, false)
		pause = min(pause*2, longPause)
	}
}
