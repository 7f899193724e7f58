package activities

import (
	"context"
	"sync/atomic"
	"time"

	"go.temporal.io/sdk/activity"
)

const (
	// promptFor bounds what a sync waits for Clerk: its workflow takes no command meanwhile.
	promptFor = time.Second
	// promptAgain is how long after a failure no sync tries: what Clerk does not take now is the business of the
	// activity that has all the time it needs.
	promptAgain = 10 * time.Second
)

// PromptPublisher publishes at the end of a sync what that has changed, where Clerk takes it at once. It saves the
// workflow an activity, and whoever waits the way there. Nothing depends on it: what it does not bring about is still
// due, and the workflow has it published as ever. It publishes beside others, as any publisher may.
type PromptPublisher struct {
	Projections *Projections

	resting atomic.Int64 // until when, in nanoseconds since 1970
}

// Publish tells whether Clerk holds what is stored now, and which version was written for that.
func (p *PromptPublisher) Publish(ctx context.Context, clerkUserID string) (version int64, done bool) {
	// One that is urgent tries in any case: what failed may have been too late in the line for Clerk's rate, in which it
	// goes first.
	priority := PriorityOf(ctx)
	urgent := activity.IsActivity(ctx) && priority > 0 && priority <= PriorityNew
	if p == nil || !urgent && time.Now().UnixNano() < p.resting.Load() {
		return 0, false
	}
	ctx, cancel := context.WithTimeout(ctx, promptFor)
	defer cancel()
	result, err := p.Projections.PublishProjection(ctx, PublishInput{ClerkUserID: clerkUserID})
	if err != nil {
		p.resting.Store(time.Now().Add(promptAgain).UnixNano())
		return 0, false
	}
	return result.Version, !result.More && !result.Missing
}
