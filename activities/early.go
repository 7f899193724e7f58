package activities

import (
	"context"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// parted parts the due events of a user or a product into those that a read answers, and those of
// the last minute that it does not show.
func parted(due []store.Due, now time.Time, shows func(store.Due) bool) (done, early []store.Due) {
	for _, d := range due {
		if now.Sub(d.ReceivedAt) < account.ReadsBehind && !shows(d) {
			early = append(early, d)
		} else {
			done = append(done, d)
		}
	}
	return done, early
}

// readAgain has a user or a product read again whose read is behind what events tell, which need
// not be due any more. They are poked: a run that is about to end starts anew, and one that does
// not hears of it. That is after a delay at first, and when the youngest of the events has become
// twice as old then. Once it is a minute old the read is believed, so that there are few.
func readAgain(ctx context.Context, tx *store.Tx, entity account.Entity, told []store.Due, now time.Time, delay time.Duration) error {
	if len(told) == 0 {
		return nil
	}
	youngest := account.ReadsBehind
	for _, d := range told {
		youngest = min(youngest, now.Sub(d.ReceivedAt))
	}
	return tx.PokeWithin(ctx, max(delay, youngest), account.JobSync, entity)
}
