package activities

import (
	"context"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/intake"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeevent"
)

// Recovery finds what the providers never told us of. [Recovery.RecoverEvents] runs on Stripe's
// task queue, [Recovery.RecoverUsers] on Clerk's.
type Recovery struct {
	Store  *store.Store
	Stripe EventLister
	Clerk  ChangeLister
	// Livemode is the mode of our Stripe key.
	Livemode bool
	// Spacing is the least time between two pokes of one entity.
	Spacing time.Duration
	// Observe is told how many were missing; it may be nil.
	Observe func(source string, missing int)
}

// RecoveryPass is one pass over a provider's list, from the newest back to what is known. It is
// input and result alike: an attempt takes it on from where it stands.
type RecoveryPass struct {
	// From is how far back the pass goes, at the provider's clock; zero before it has begun.
	From time.Time `json:"from,omitzero"`
	// Newest is the time of the newest that the pass has met: everything before it is known once the
	// pass is complete.
	Newest time.Time `json:"newest,omitzero"`
	// After is the event behind which Stripe's list continues, Place where Clerk's does.
	After string `json:"after,omitempty"`
	Place string `json:"place,omitempty"`
	// Complete is set when the list was read as far as From, and the cursor was moved.
	Complete bool `json:"complete,omitempty"`
	// Listed counts what was looked at, Missing what was not known.
	Listed  int `json:"listed,omitempty"`
	Missing int `json:"missing,omitempty"`
	// Gap is set where the list ends after what is known: what lies between them is lost to it.
	Gap bool `json:"gap,omitempty"`
}

const (
	// recoveryOverlap is how far before the end of the last pass the next one begins. A provider's
	// list may show an event a little after its time; events of one second have no order.
	recoveryOverlap = 10 * time.Minute
	// eventsListed is how long Stripe lists an event.
	eventsListed = 30 * 24 * time.Hour
)

// RecoverEvents reads Stripe's list of events from the newest back to what is known and puts what
// is missing into the inbox, as if it had been delivered.
//
// Idempotent: an event that is there already is left alone. The cursor moves when the list has been
// read as far as it goes, to the time of the newest event that the pass began with, so that neither
// a clock of ours nor an event of the same second can make it pass anything over.
func (a *Recovery) RecoverEvents(ctx context.Context, pass RecoveryPass) (RecoveryPass, error) {
	identity, err := a.Store.Identity(ctx)
	if err != nil {
		return pass, err
	}
	rules := intake.Rules{Livemode: a.Livemode, Identity: identity}
	return a.scan(ctx, intake.SourceStripe, pass, func(ctx context.Context, pass *RecoveryPass) (last bool, err error) {
		listed, next, err := a.Stripe.EventsPage(ctx, pass.From, pass.After)
		if err != nil {
			return false, err
		}
		if len(listed) > 0 && pass.Newest.IsZero() {
			pass.Newest = listed[0].Created
			pass.Gap = listed[0].Created.Sub(pass.From) > eventsListed
		}
		if err := a.recoverEvents(ctx, rules, listed, pass); err != nil {
			return false, err
		}
		pass.Listed += len(listed)
		pass.After = behind(next, listed, eventMade)
		return next == "", nil
	})
}

func (a *Recovery) recoverEvents(ctx context.Context, rules intake.Rules, listed []stripeevent.Listed, pass *RecoveryPass) error {
	events := recovered(rules, listed)
	if len(events) == 0 {
		return nil
	}
	added, err := a.Store.RecoverEvents(ctx, events, a.Spacing)
	if err != nil {
		return err
	}
	for _, is := range added {
		if is == store.AddedDue {
			pass.Missing++
		}
	}
	return nil
}

// recovered are the events of a list as if they had been delivered now, but for those whose
// delivery was never asked for.
func recovered(rules intake.Rules, listed []stripeevent.Listed) (events []store.NewEvent) {
	now := time.Now()
	for _, e := range listed {
		if !stripeevent.Handled(e.Type) {
			continue
		}
		event := store.NewEvent{Source: intake.SourceStripe, EventID: e.ID, Payload: string(e.Body), ReceivedAt: now, Recovered: true}
		rules.Classify(&event)
		events = append(events, event)
	}
	return events
}

// RecoverUsers reads Clerk's users, those first that were changed last, back to what is known, and
// has those looked at whom we do not have as they are listed. Clerk keeps no list of events. Users
// who are gone are in no list: nothing follows from that here.
//
// Idempotent: looking at a user again changes nothing. The cursor moves as that of events does.
func (a *Recovery) RecoverUsers(ctx context.Context, pass RecoveryPass) (RecoveryPass, error) {
	return a.scan(ctx, intake.SourceClerk, pass, func(ctx context.Context, pass *RecoveryPass) (last bool, err error) {
		listed, next, err := a.Clerk.ChangedUsersPage(ctx, pass.Place)
		if err != nil {
			return false, err
		}
		if len(listed) > 0 && pass.Newest.IsZero() {
			pass.Newest = listed[0].UpdatedAt
		}
		for i, u := range listed {
			if u.UpdatedAt.Before(pass.From) {
				listed, last = listed[:i], true
				break
			}
		}
		if err := a.recoverUsers(ctx, listed, pass); err != nil {
			return false, err
		}
		pass.Listed += len(listed)
		pass.Place = next
		return last || next == "", nil
	})
}

func (a *Recovery) recoverUsers(ctx context.Context, listed []account.ListedUser, pass *RecoveryPass) error {
	ids := make([]string, len(listed))
	for i, u := range listed {
		ids[i] = u.ID
	}
	known, err := a.Store.UsersByClerkIDs(ctx, ids)
	if err != nil {
		return err
	}
	jobs := map[account.Entity]account.Job{}
	for _, u := range listed {
		row, ok := known[u.ID]
		switch {
		case !ok:
			jobs[account.UserEntity(u.ID)] = account.JobOnboard
		case row.Deleting():
			// A tombstone, which nothing undoes.
		default:
			// Whoever cannot be compared holds up nobody: their own sync finds out why.
			if differs, err := row.Differs(u); err != nil || differs != "" {
				jobs[account.UserEntity(u.ID)] = account.JobSync
			}
		}
	}
	pass.Missing += len(jobs)
	return a.Store.PokeEach(ctx, jobs, a.Spacing)
}

// scan takes a pass on, as far as the time of an attempt goes, and moves the cursor after the last
// page.
func (a *Recovery) scan(ctx context.Context, source string, pass RecoveryPass,
	page func(context.Context, *RecoveryPass) (last bool, err error),
) (RecoveryPass, error) {
	if pass.From.IsZero() {
		safe, err := a.Store.RecoveryCursor(ctx, source)
		if err != nil {
			return pass, err
		}
		pass.From = safe.Add(-recoveryOverlap)
	}
	complete, err := pages(ctx, func(ctx context.Context) (last bool, err error) {
		next := pass
		if last, err = page(ctx, &next); err == nil {
			pass = next
		}
		return last, err
	})
	if err != nil || !complete {
		return pass, err
	}
	if err := a.Store.AdvanceRecovery(ctx, source, pass.From, pass.Newest, pass.Missing); err != nil {
		return pass, err
	}
	pass.Complete = true
	if a.Observe != nil {
		a.Observe(source, pass.Missing)
	}
	return pass, nil
}

// scanFor is how long one attempt goes on reading pages.
const scanFor = 10 * time.Second

// pages reads one page after the other until the last one, or until the time of an attempt is over.
// When a page fails, what was read before it is kept: the next activity goes on behind that, and
// meets the failure itself if it lasts.
func pages(ctx context.Context, page func(context.Context) (last bool, err error)) (complete bool, err error) {
	until := time.Now().Add(scanFor)
	for read := 0; ; read++ {
		switch last, err := page(ctx); {
		case err != nil && read > 0:
			return false, nil
		case err != nil:
			return false, err
		case last:
			return true, nil
		case time.Now().After(until):
			return false, nil
		}
	}
}
