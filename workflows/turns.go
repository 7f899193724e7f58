package workflows

import (
	"slices"
	"time"

	"go.temporal.io/sdk/workflow"
)

// changeTurns is the version of the queue. A run in which somebody has waited for a turn without it
// keeps the old order until it continues as new.
const changeTurns = "turns"

// turns lets one coroutine at a time act on the customer: a look with the deletion policy, a step
// of a command, or a full run that wants to continue as new.
//
// The others wait in a queue. An activity that keeps failing is cancelled when somebody else waits,
// and its coroutine goes to the end of the queue. So each has its turn in time, whether or not the
// others succeed.
type turns struct {
	taken bool
	queue []*place
}

// place is one coroutine's place in the queue.
type place struct {
	// yields is set after its activity was cancelled for others, until one newcomer has gone before
	// it.
	yields bool
	// presses is set if the activity under way is to be cancelled for it, as soon as that may be taken
	// for asleep.
	presses bool
}

// first adds a newcomer. It goes before those at the end of the queue that yield; each of them lets
// one newcomer pass.
func (t *turns) first() *place {
	at := len(t.queue)
	for ; at > 0 && t.queue[at-1].yields; at-- {
		t.queue[at-1].yields = false
	}
	p := &place{}
	t.queue = slices.Insert(t.queue, at, p)
	return p
}

// last adds somebody at the end of the queue. gaveWay tells whether its activity was cancelled for
// those who wait.
func (t *turns) last(gaveWay bool) *place {
	p := &place{yields: gaveWay}
	t.queue = append(t.queue, p)
	return p
}

// take waits for the turn of a place and takes it. presses tells whether the activity under way is
// cancelled for it at once. behind is the order of runs of the version before: it tells whether
// somebody else has to go first.
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

// pressAfter is how long a place waits that does not press before it does. A boundary has to be
// looked at, and a full run has to end, even if a command fails for hours.
const pressAfter = time.Minute

// await waits for a turn.
func (t *turns) await(ctx workflow.Context, p *place, next func() bool) error {
	if next() || p.presses || workflow.GetVersion(ctx, changeTurns, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return workflow.Await(ctx, next)
	}
	came, err := workflow.AwaitWithOptions(ctx, workflow.AwaitOptions{
		Timeout:      pressAfter,
		TimerOptions: workflow.TimerOptions{Summary: "What acts on the customer is cancelled then, so that others have their turn."},
	}, next)
	if err != nil || came {
		return err
	}
	p.presses = true
	return workflow.Await(ctx, next)
}

// end ends the turn that was taken.
func (t *turns) end() { t.taken = false }

// pressed tells whether somebody waits for whom the activity under way is to be cancelled.
func (t *turns) pressed() bool {
	return slices.ContainsFunc(t.queue, func(p *place) bool { return p.presses })
}

// forget has those who wait now wait without pressing.
func (t *turns) forget() {
	for _, p := range t.queue {
		p.presses = false
	}
}
