package activities

import (
	"context"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
)

const (
	// promptFor bounds what a sync waits for Clerk: its workflow takes no command meanwhile.
	promptFor = time.Second
	// promptRest is [PromptPublisher.Rest] where it says nothing, and promptRests the longest: what
	// Clerk does not take now is the business of the activity that has all the time it needs, but one
	// that was late on a busy machine must not make more work for all that come after it.
	promptRest  = 250 * time.Millisecond
	promptRests = 10 * time.Second
)

// PromptPublisher publishes at the end of a sync what that has changed, where Clerk takes it at
// once. It saves the workflow an activity, and whoever waits the way there. Nothing depends on it:
// what it does not bring about is still due, and the workflow has it published as ever. It
// publishes beside others, as any publisher may.
type PromptPublisher struct {
	Projections *Projections
	// Rest is how long after a failure no sync tries, and twice as long after each further one, up to
	// ten seconds; 0 stands for a quarter of a second.
	Rest time.Duration

	mu      sync.Mutex
	pause   time.Duration // the latest one, zero since Clerk took something
	resting time.Time     // until when
}

// Publish tells whether Clerk holds what is stored now, and which version was written for that.
// awaited is set where somebody waits for it: that is tried in any case.
func (p *PromptPublisher) Publish(ctx context.Context, clerkUserID string, awaited bool) (version int64, done bool) {
	// One that is urgent tries in any case: what failed may have been too late in the line for Clerk's
	// rate, in which it goes first.
	priority := PriorityOf(ctx)
	urgent := awaited || activity.IsActivity(ctx) && priority > 0 && priority <= PriorityNew
	if p == nil || !urgent && p.rests() {
		return 0, false
	}
	ctx, cancel := context.WithTimeout(ctx, promptFor)
	defer cancel()
	result, err := p.Projections.PublishProjection(ctx, PublishInput{ClerkUserID: clerkUserID})
	p.saw(err)
	if err != nil {
		return 0, false
	}
	return result.Version, !result.More && !result.Missing
}

func (p *PromptPublisher) rests() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Before(p.resting)
}

// saw takes note of how a publish ended. Of those that fail side by side the first counts.
func (p *PromptPublisher) saw(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	switch {
	case err == nil:
		p.pause = 0
	case !now.Before(p.resting):
		first := p.Rest
		if first <= 0 {
			first = promptRest
		}
		p.pause = max(first, min(2*p.pause, promptRests))
		p.resting = now.Add(p.pause)
	}
}
