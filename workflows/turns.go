package workflows

import (
	"slices"
	"time"

	"go.temporal.io/sdk/workflow"
)

// changeTurns is the change that has turns go round. A run in which somebody had to wait before goes on without, until it continues as new.
const changeTurns = "turns"

// turns lets one at a time act on the customer: a look, the deletion policy, a step of a command; and the run itself when it is full, which
// ends between two of them.
//
// Who waits stands in a queue. Who was given up so that others have their turn stands behind them then, and has its own in time, however the
// others fare: what is under way is given up for it, too.
type turns struct {
	taken bool
	queue []*place
}

// place is where somebody stands who waits for their turn.
type place struct {
	// yields is set where they gave way and nobody who came later has gone before them since.
	yields bool
	// presses is set where what is under way is given up for them as soon as it may be taken for asleep.
	presses bool
}

// first has somebody who has come stand before those who gave way, each of whom lets one go before.
func (t *turns) first() *place {
	at := len(t.queue)
	for ; at > 0 && t.queue[at-1].yields; at-- {
		t.queue[at-1].yields = false
	}
	p := &place{}
	t.queue = slices.Insert(t.queue, at, p)
	return p
}

// last has somebody stand behind all who wait. gaveWay tells whether they gave way for these.
func (t *turns) last(gaveWay bool) *place {
	p := &place{yields: gaveWay}
	t.queue = append(t.queue, p)
	return p
}

// take waits until it is somebody's turn, and takes it. presses tells whether what is under way is given up for them. behind tells, in runs
// that do not know of the change, whether they let somebody go before; others have whoever is there first go first.
func (t *turns) take(ctx workflow.Context, p *place, presses bool, behind func() bool) error {
	next := func() bool { return !t.taken && t.queue[0] == p }
	if !next() || behind() { // asked for its version only when it matters
		if workflow.GetVersion(ctx, changeTurns, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
			next = func() bool { return !t.taken && !behind() }
		} else {
			p.presses = presses
		}
	}
	err := t.await(ctx, p, next)
	t.queue = slices.DeleteFunc(t.queue, func(other *place) bool { return other == p })
	t.taken = t.taken || err == nil
	return err
}

// patience is how long somebody for whom nobody waits stands in the queue until what is under way is given up for them all the same: a
// boundary passes, and a full run has to end, though a command cannot be done.
const patience = time.Minute

// await waits for a turn.
func (t *turns) await(ctx workflow.Context, p *place, next func() bool) error {
	if next() || p.presses || workflow.GetVersion(ctx, changeTurns, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return workflow.Await(ctx, next)
	}
	came, err := workflow.AwaitWithOptions(ctx, workflow.AwaitOptions{
		Timeout:      patience,
		TimerOptions: workflow.TimerOptions{Summary: "What is under way is given up then for who waits for their turn."},
	}, next)
	if err != nil || came {
		return err
	}
	p.presses = true
	return workflow.Await(ctx, next)
}

// end ends the turn that was taken.
func (t *turns) end() { t.taken = false }

// pressed tells whether what is under way is to be given up for somebody who waits, and forget has it told no more of who waits now.
func (t *turns) pressed() bool {
	return slices.ContainsFunc(t.queue, func(p *place) bool { return p.presses })
}

func (t *turns) forget() {
	for _, p := range t.queue {
		p.presses = false
	}
}
