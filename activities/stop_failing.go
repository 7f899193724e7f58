package activities

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeevent"
)

// stoppingTime is how long an attempt that has failed may take to stop what bills a deleted user.
// It is not part of the attempt's own time, which may be what has run out: the next attempt may
// begin beside it, and asks under the same keys.
const stoppingTime = time.Minute

// holding does what an activity does to a customer while the customer's workflow lets nothing else
// happen to it, and shows its failure.
//
// Whoever holds a customer keeps the deletion policy from it, and a failure is tried again for as
// long as it takes. So whatever has failed, for a while or for good, of whatever provider, by its
// time or by a panic: where the customer's user is being deleted, what is known to bill them is
// stopped before the attempt ends. The failure is answered all the same, with what could not be
// stopped, and nothing is concluded from what was stopped: the customer is settled only once it was
// read and stored.
//
// An attempt that is cancelled stops nothing: another one begins, or its workflow is not wanted any
// more.
func holding[R any](ctx context.Context, a *Subscriptions, customerID string, act func(*stopping) (R, error)) (result R, err error) {
	s := &stopping{Subscriptions: a, customerID: customerID, tried: map[string]bool{}, unread: map[string]account.Subscription{}}
	ended := false
	defer func() {
		if !ended { // it panics, and goes on with that
			err = failure.New(failure.Transient, "worker", "act on a customer", "panic", nil)
		}
		switch {
		case err != nil:
			err = s.afterFailure(ctx, err)
			showFailing(ctx, a.Store, account.CustomerEntity(customerID), err)
		case s.gaveUp != nil:
			// What could not be stopped is for the look that every deletion asks for, and that comes next.
			_ = s.afterFailure(ctx, s.gaveUp)
		}
	}()
	result, err = act(s)
	ended = true
	return result, err
}

// stopping applies the deletion policy to what one customer has, in one attempt: to each once,
// whatever becomes of the others.
//
// Idempotent as [Subscriptions.StopBilling] is, whose keys are the same in each attempt.
type stopping struct {
	*Subscriptions
	customerID string
	// gaveUp is a failure that the activity answers as its result, and not as a failure.
	gaveUp error
	// tried are subscriptions of which the attempt knows how they stand, and that it has stopped or
	// not been able to; unread are those that could not be read, as they are known otherwise: listed
	// in part, stored, or told of.
	tried  map[string]bool
	unread map[string]account.Subscription
	// listed is set once the schedules were, and begun are the subscriptions that they manage.
	listed bool
	begun  []string
}

// afterFailure stops what is known to bill the customer's user, if they are being deleted, and
// answers the failure with what failed besides.
func (s *stopping) afterFailure(ctx context.Context, failed error) error {
	if errors.Is(ctx.Err(), context.Canceled) || s.Policy.Deletion == account.DeleteKeep {
		return failed
	}
	longer, done := context.WithTimeout(context.WithoutCancel(ctx), stoppingTime)
	defer done()
	defer context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.Canceled) {
			done()
		}
	})()
	deleting, err := s.ofDeleted(longer)
	if deleting {
		err = s.everything(longer)
	}
	if err == nil {
		return failed
	}
	return failure.Join(failed, err)
}

// ofDeleted tells whether the customer is one of a user who is being deleted, or is: its owner, or
// whom the evidence that is stored names, where the failure has kept it from being linked.
func (s *stopping) ofDeleted(ctx context.Context) (bool, error) {
	owner, err := s.Store.OwnerOfCustomer(ctx, s.customerID)
	if err != nil {
		return false, err
	}
	if owner == "" {
		claimed, err := s.claimant(ctx, s.Store, s.customerID, false)
		if owner = claimed.clerkUserID; err != nil || owner == "" {
			return false, err
		}
	}
	user, err := s.Store.UserByClerkID(ctx, owner)
	return user != nil && user.Deleting(), err
}

// everything stops all that is known to bill the customer, wherever from: what is stored of it goes
// first, since nobody has to list it, however it ends as it is stored, since that may be what could
// not be stored; then what Stripe lists. Where that fails, what events and schedules tell of takes
// its place, and of what cannot be read at all what a list has shown decides, else what is stored,
// else what an event has told.
func (s *stopping) everything(ctx context.Context) error {
	failed := []error{
		guarded(func() error { return s.stored(ctx, true) }),
		guarded(func() error { return s.schedules(ctx) }),
		guarded(func() error { return s.shownByStripe(ctx) }),
		guarded(func() error { return s.charges(ctx, true) }),
	}
	for _, id := range slices.Sorted(maps.Keys(s.unread)) {
		failed = append(failed, guarded(func() error { return s.end(ctx, s.unread[id]) }))
	}
	return failure.Join(failed...)
}

// guarded has a panic be the failure of one of several things, and not of those behind it.
func guarded(do func() error) (err error) {
	defer func() {
		if recover() != nil {
			err = failure.New(failure.Transient, "worker", "stop what bills", "panic", nil)
		}
	}()
	return do()
}

// stored stops the subscriptions that are stored: all that may bill, or those that do as they are
// stored.
func (s *stopping) stored(ctx context.Context, all bool) error {
	rows, err := s.Store.SubscriptionsOfCustomer(ctx, s.customerID)
	failed := []error{err}
	for _, row := range rows {
		known := row.Held().Subscription
		if !known.Status.Terminal() && (all || s.Policy.Deletion.Stop(known) != account.StopNothing) {
			failed = append(failed, s.readAndStop(ctx, row.StripeID, &known))
		}
	}
	return failure.Join(failed...)
}

// readAndStop reads a subscription and stops it, once. known is how it is known otherwise, nil
// where it is not.
func (s *stopping) readAndStop(ctx context.Context, id string, known *account.Subscription) error {
	if _, unread := s.unread[id]; unread || s.tried[id] {
		return nil
	}
	current, err := s.standing(ctx, id)
	switch {
	case failure.IsNotFound(err):
		return nil // recording makes it loud
	case err != nil && known != nil:
		s.unread[id] = *known
		return err
	case err != nil:
		return err
	case current.CustomerID != s.customerID:
		return nil
	}
	s.tried[id] = true
	return s.end(ctx, current)
}

// shownByStripe stops the subscriptions that Stripe lists and, where that fails, those that events
// and schedules tell of.
func (s *stopping) shownByStripe(ctx context.Context) error {
	list, _, err := s.Stripe.CustomerSubscriptions(ctx, s.customerID)
	if failure.IsNotFound(err) {
		err = nil // recording says so
	}
	failed := []error{err}
	for _, shown := range list {
		_, unread := s.unread[shown.ID]
		delete(s.unread, shown.ID)
		if shown.Unread && unread {
			s.unread[shown.ID] = shown // which says more than what is stored
			continue
		}
		if shown.Unread && !shown.Status.Terminal() { // read by itself it may be shown as it is by now
			failed = append(failed, s.readAndStop(ctx, shown.ID, &shown))
			continue
		}
		if !s.tried[shown.ID] {
			s.tried[shown.ID] = true
			failed = append(failed, s.end(ctx, shown))
		}
	}
	if err == nil {
		return failure.Join(failed...)
	}
	told, err := s.told(ctx)
	failed = append(failed, err)
	for _, id := range append(told.subscriptions, s.begun...) {
		failed = append(failed, s.readAndStop(ctx, id, told.known[id]))
	}
	return failure.Join(failed...)
}

// toldOf is what events tell of that have not been dealt with.
type toldOf struct {
	subscriptions, schedules []string
	// known is how the latest event of a subscription has told that it stands, where ending it for
	// that takes nothing that was paid for since; ahead are schedules that have certainly not begun,
	// as the latest event of them has told.
	known map[string]*account.Subscription
	ahead []string
}

// told are the subscriptions and the schedules that events tell of.
func (s *stopping) told(ctx context.Context) (toldOf, error) {
	told := toldOf{known: map[string]*account.Subscription{}}
	payloads, err := s.Store.PendingOfBilling(ctx, account.CustomerEntity(s.customerID))
	latest := map[string]time.Time{} // of several of the same second the first, which came last
	later := func(id string, event stripeevent.Event) bool {
		at, seen := latest[id]
		if seen && !event.Created.After(at) {
			return false
		}
		latest[id] = event.Created
		return true
	}
	for _, payload := range payloads {
		event, err := stripeevent.Parse(payload)
		if err != nil {
			continue // it was parsed when it came; see take
		}
		if event.ObjectKind == "subscription" && event.ObjectID != "" {
			told.subscriptions = append(told.subscriptions, event.ObjectID)
		}
		if known, ok := event.Subscription(); ok && known.CustomerID == s.customerID && later(known.ID, event) {
			delete(told.known, known.ID)
			// One that owed may be paid for by now: to end it at once would take that away.
			if s.Policy.Deletion == account.DeleteCancelNow || s.Policy.Deletion.Stop(known) != account.StopNow {
				told.known[known.ID] = &known
			}
		}
		if schedule, ok := event.Schedule(); ok {
			told.schedules = append(told.schedules, schedule.ID)
			if schedule.SubscriptionID != "" {
				told.subscriptions = append(told.subscriptions, schedule.SubscriptionID)
			}
			if later(schedule.ID, event) {
				told.ahead = slices.DeleteFunc(told.ahead, func(id string) bool { return id == schedule.ID })
				if schedule.Status == account.ScheduleNotStarted && time.Until(schedule.Begins()) > certainlyAhead {
					told.ahead = append(told.ahead, schedule.ID)
				}
			}
		}
		for _, id := range []string{event.Bought(), invoiced(event)} {
			if id != "" {
				told.subscriptions = append(told.subscriptions, id)
			}
		}
	}
	return told, err
}

// certainlyAhead is how far ahead a schedule begins of which no proof is needed that it has not
// begun; see also [store.Store.SchedulesAhead].
const certainlyAhead = time.Hour

// invoiced is the subscription that an event's invoice is of, "" for none.
func invoiced(event stripeevent.Event) string {
	invoice, _ := event.Payment()
	return invoice.SubscriptionID
}

// schedules cancels the schedules that would start a subscription by themselves, once: those that
// Stripe lists, and those that are stored as not begun. Where Stripe lists none, also those that
// events tell of. Those that have begun are stopped with their subscriptions.
func (s *stopping) schedules(ctx context.Context) error {
	if s.listed {
		return nil
	}
	list, err := s.Stripe.CustomerSchedules(ctx, s.customerID)
	s.listed = err == nil
	var failed []error
	others, storeErr := s.Store.NotBegunSchedules(ctx, s.customerID)
	failed = append(failed, storeErr)
	var ahead []string
	if err != nil && !failure.IsNotFound(err) { // of a customer who is not there recording says so
		told, storeErr := s.told(ctx)
		failed = append(failed, err, storeErr)
		others, ahead = append(others, told.schedules...), told.ahead
	}
	unread, errs := s.readOthers(ctx, others, ahead, &list)
	failed = append(failed, errs...)
	for _, schedule := range list {
		if schedule.SubscriptionID != "" && schedule.Status == account.ScheduleActive {
			s.begun = append(s.begun, schedule.SubscriptionID)
		}
	}
	for _, id := range append(account.NotBegun(list), unread...) {
		failed = append(failed, s.cancelSchedule(ctx, id))
	}
	return failure.Join(failed...)
}

// readOthers reads schedules that a list has left out. It answers those that cannot be read and
// have certainly not begun, since their time has not come, as events have told or as is stored: to
// cancel one that has would end, at once, what is paid for.
func (s *stopping) readOthers(ctx context.Context, ids, told []string, list *[]account.Schedule) (ahead []string, failed []error) {
	var unread []string
	for _, id := range slices.Compact(slices.Sorted(slices.Values(ids))) {
		if slices.ContainsFunc(*list, func(schedule account.Schedule) bool { return schedule.ID == id }) {
			continue
		}
		schedule, err := s.Stripe.Schedule(ctx, id)
		switch {
		case failure.IsNotFound(err):
		case err != nil:
			unread, failed = append(unread, id), append(failed, err)
		case schedule.CustomerID == s.customerID:
			*list = append(*list, schedule)
		}
	}
	if len(unread) == 0 {
		return nil, failed
	}
	stored, err := s.Store.SchedulesAhead(ctx, s.customerID)
	for _, id := range unread {
		if slices.Contains(told, id) || slices.Contains(stored, id) {
			ahead = append(ahead, id)
		}
	}
	return ahead, append(failed, err)
}

func (s *stopping) cancelSchedule(ctx context.Context, id string) error {
	err := s.Stripe.CancelSchedule(ctx, id, freshKey("cancel-schedule", id))
	if failure.Of(err) != failure.Permanent {
		return err
	}
	// Refused: it may have begun or ended since. If so, there is nothing to cancel any more, and
	// recording shows what it has left.
	now, readErr := s.Stripe.Schedule(ctx, id)
	if failure.IsNotFound(readErr) || readErr == nil && now.Status != account.ScheduleNotStarted {
		return nil
	}
	return err
}
