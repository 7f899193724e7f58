package inbox

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// ErrOverloaded says that more deliveries wait to be committed than the program is willing to
// hold in memory. The provider sends the delivery again.
var ErrOverloaded = errors.New("too many deliveries are waiting to be stored")

// ErrStopping says that the program is stopping and takes no more deliveries.
var ErrStopping = errors.New("the inbox is stopping")

// Adder commits events in one transaction and answers for each what became of it.
type Adder interface {
	AddEvents(ctx context.Context, events []store.NewEvent, spacing time.Duration) (added []store.Added, err error)
}

// Writer commits deliveries in groups: while one commit is under way the next group gathers, so
// that a hundred deliveries at once cost a few commits and one alone waits for nobody. One
// writer keeps the order of arrival.
type Writer struct {
	adder    Adder
	spacing  time.Duration
	maxGroup int
	wake     func()
	queue    chan queued
	stopped  chan struct{}
	failure  atomic.Pointer[failure.Error]
}

type queued struct {
	event  store.NewEvent
	answer chan answer
}

type answer struct {
	added store.Added
	err   error
}

// WriterOptions are how a writer works.
type WriterOptions struct {
	Adder Adder
	// Spacing is the least time between two pokes of one entity.
	Spacing time.Duration
	// MaxGroup is how many deliveries one transaction commits; 0 stands for [DefaultGroup].
	MaxGroup int
	// MaxQueued is how many deliveries wait at most; 0 stands for 1024.
	MaxQueued int
	// Wake is called after each commit that left something to poke.
	Wake func()
}

// DefaultGroup is how many deliveries one transaction commits where nothing else is said.
const DefaultGroup = 256

// commitTimeout bounds one group's transaction. It is below the time that providers wait for an
// answer.
const commitTimeout = 8 * time.Second

// NewWriter makes a writer; [Writer.Run] makes it work.
func NewWriter(o WriterOptions) *Writer {
	if o.MaxGroup == 0 {
		o.MaxGroup = DefaultGroup
	}
	if o.MaxQueued == 0 {
		o.MaxQueued = 1024
	}
	if o.Wake == nil {
		o.Wake = func() {}
	}
	return &Writer{adder: o.Adder, spacing: o.Spacing, maxGroup: o.MaxGroup, wake: o.Wake,
		queue: make(chan queued, o.MaxQueued), stopped: make(chan struct{})}
}

// Add has an event committed and answers what became of it. It fails at once when too many
// wait already. A caller that goes away early does not take its delivery back: it is stored or
// not, and the provider's next attempt finds out.
func (w *Writer) Add(ctx context.Context, event store.NewEvent) (added store.Added, err error) {
	q := queued{event: event, answer: make(chan answer, 1)}
	select {
	case <-w.stopped:
		return 0, ErrStopping
	default:
	}
	select {
	case w.queue <- q:
	default:
		return 0, ErrOverloaded
	}
	select {
	case a := <-q.answer:
		return a.added, a.err
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-w.stopped:
		// The writer ended; it may have answered just before.
		select {
		case a := <-q.answer:
			return a.added, a.err
		default:
			return 0, ErrStopping
		}
	}
}

// Failure is why the last commit failed, nil if it did not.
func (w *Writer) Failure() error {
	if failed := w.failure.Load(); failed != nil {
		return failed
	}
	return nil
}

// Run commits until the context ends. The programs end it after the last request has been
// answered; what is still queued then is committed before Run returns.
func (w *Writer) Run(ctx context.Context) {
	defer close(w.stopped)
	for {
		select {
		case first := <-w.queue:
			w.commit(ctx, w.gather(first))
		case <-ctx.Done():
			for {
				select {
				case first := <-w.queue:
					w.commit(ctx, w.gather(first))
				default:
					return
				}
			}
		}
	}
}

// gather takes what has queued up by now; it waits for nothing.
func (w *Writer) gather(first queued) []queued {
	group := []queued{first}
	for len(group) < w.maxGroup {
		select {
		case q := <-w.queue:
			group = append(group, q)
		default:
			return group
		}
	}
	return group
}

// commit stores a group and answers each of its callers. A group that fails for good is tried
// one by one, so that a delivery that cannot be stored holds up nobody else's.
func (w *Writer) commit(ctx context.Context, group []queued) {
	// A group that was begun is finished, also while the program stops.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	events := make([]store.NewEvent, len(group))
	for i, q := range group {
		events[i] = q.event
	}
	added, err := w.adder.AddEvents(ctx, events, w.spacing)
	failed, _ := errors.AsType[*failure.Error](err)
	w.failure.Store(failed)
	if err != nil && len(group) > 1 && failure.Of(err) == failure.Permanent {
		for _, q := range group {
			w.commit(ctx, []queued{q})
		}
		return
	}
	poke := false
	for i, q := range group {
		if err != nil {
			q.answer <- answer{err: err}
			continue
		}
		poke = poke || added[i] == store.AddedDue
		q.answer <- answer{added: added[i]}
	}
	if poke {
		w.wake()
	}
}
