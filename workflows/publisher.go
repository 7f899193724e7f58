package workflows

import (
	"go.temporal.io/sdk/workflow"

	"github.com/nepfy/clerk-stripe-sync/activities"
)

// publisher brings Clerk to the stored projection beside everything else, so that an outage of
// Clerk never holds up what is recorded. At most one publish is outstanding; one that is asked
// for meanwhile runs after it, since the outstanding one may have read the projection already.
type publisher struct {
	running bool
	// queued is set when a pass is to begin: it does what was asked for until then.
	queued bool
	forced bool
	// priority is the most urgent of those who asked for the pass that is to begin, 0 where none has
	// one.
	priority int
	// begun and ended count the passes.
	begun, ended int
	// attempts is the activity that is under way, and repeats is how it was begun anew.
	attempts sleeper
	repeats  repeats
	// hurries is set while somebody waits for the pass that is to begin.
	hurries bool
	// failed is set when the last publish ended in a permanent failure. The versions still
	// differ, so the sweep comes back to it.
	failed bool
}

// ask has the user's projection published, and answers the pass that does it: one that begins after
// this. forced is for where Clerk was seen to hold something else than what was published: such a
// publish may not skip. It is as urgent as what ctx has activities done for.
func (p *publisher) ask(ctx workflow.Context, clerkUserID string, forced bool) (pass int) {
	if clerkUserID == "" {
		return p.ended
	}
	p.forced = p.forced || forced
	p.queued = true
	if key := workflow.GetActivityOptions(ctx).Priority.PriorityKey; key > 0 && key <= activities.PriorityNew {
		p.attempts.rouse(ctx, changeRouse)
		p.hurries = true
	}
	if key := workflow.GetActivityOptions(ctx).Priority.PriorityKey; key > 0 && (p.priority == 0 || key < p.priority) {
		p.priority = key
	}
	if !p.running {
		p.running = true
		workflow.Go(ctx, func(ctx workflow.Context) {
			for p.queued {
				p.queued = false
				p.publish(ctx, clerkUserID)
			}
			p.running = false
		})
	}
	return p.begun + 1
}

// done tells whether a pass has ended.
func (p *publisher) done(pass int) bool { return p.ended >= pass }

func (p *publisher) publish(ctx workflow.Context, clerkUserID string) {
	var set activitySet
	in := activities.PublishInput{ClerkUserID: clerkUserID, Forced: p.forced}
	publishing := onClerk(ctx)
	if p.priority > 0 {
		publishing = prioritized(publishing, p.priority, "publish")
	}
	p.forced, p.priority, p.hurries = false, 0, false
	p.begun++
	var result activities.PublishResult
	p.attempts.wanted, p.attempts.forget = func() bool { return p.hurries }, func() { p.hurries = false }
	roused, err := p.attempts.execute(publishing, &p.repeats, &result, set.projections.PublishProjection, in)
	if roused {
		// What was asked for of this pass the next one does. It is forced, as every further attempt of an
		// activity is.
		p.queued, p.forced = true, true
		return
	}
	p.ended = p.begun
	p.failed = err != nil
	if err != nil {
		workflow.GetLogger(ctx).Warn("publish gave up; the sweep comes back to it", "error", err)
		return
	}
	p.queued = p.queued || result.More
}

// pending is what a run that continues as new hands to the next: whether a publish has not been
// seen to end. The next run's is forced, as every further attempt of an activity is: the
// outstanding one may have been, and it may have written something old after somebody's newer.
func (p *publisher) pending() PublishPending {
	return PublishPending{Due: p.running, Forced: p.running}
}

// PublishPending is a publish that is carried over continue-as-new.
type PublishPending struct {
	Due    bool `json:"due,omitempty"`
	Forced bool `json:"forced,omitempty"`
}
