package activities

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeevent"
)

// takenEvents are the events that one read answers, and those that came before Stripe's own reads
// show what they tell. Those that are left are answered by no read, since this one did not show
// all.
type takenEvents struct {
	done, early, left []store.Due
	// told are the changes of which the early ones tell.
	told []stripeevent.Change
	// beside is set where others that came within the last minute were answered before.
	beside bool
	// events are the due ones, parsed, in the order in which they were received.
	events []stripeevent.Event
}

// Stripe does not promise that a read sees an event at once. An event younger than
// [account.ReadsBehind] that the read does not show yet is worth reading again for, this many times,
// each after [SubscriptionPolicy.RereadDelay].
const (
	maxRereads = 3
	// A customer that goes on to show what cannot be is read again ever more slowly: the delay is
	// doubled this many times at most.
	maxSlower = 8
)

// readEvent stands for the event's id with a fact about money that was read, and not told by an
// event.
const readEvent = "read"

// take takes the due events that were received before the read began and stores the payment
// facts in them: facts are in the payload and nowhere else once it is gone.
func (a *Subscriptions) take(ctx context.Context, tx *store.Tx, in RecordInput, number int64, seen shown, now time.Time) (takenEvents, error) {
	var taken takenEvents
	due, err := tx.TakeEvents(ctx, account.CustomerEntity(in.CustomerID), number)
	if err != nil {
		return taken, err
	}
	events := make([]stripeevent.Event, len(due))
	var told []toldPayment
	for i, d := range due {
		taken.beside = d.Beside
		event, err := stripeevent.Parse(d.Payload)
		if err != nil {
			// Intake parsed it; what it holds by now is no reason to stop the others.
			continue
		}
		events[i] = event
		if schedule, ok := event.Schedule(); ok {
			if err := tx.RecordSchedules(ctx, schedule); err != nil {
				return taken, err
			}
		}
		if payment, ok := event.Payment(); ok {
			payment.CustomerID = in.CustomerID
			told = append(told, toldPayment{payment, d.EventID, event.Created})
		}
	}
	for i, p := range told {
		if slices.ContainsFunc(told[i+1:], p.saidBy) || slices.ContainsFunc(told[:i], p.saidBy) {
			continue
		}
		if err := tx.RecordPayment(ctx, p.Payment, p.eventID, p.at); err != nil {
			return taken, err
		}
	}
	for _, invoice := range seen.invoices {
		// What was read is as good as what an event tells.
		if err := tx.RecordPayment(ctx, invoice, readEvent, seen.told); err != nil {
			return taken, err
		}
	}
	taken.events = events
	shows := newEvidence(seen, events)
	if seen.partial() {
		taken.left = due
		return taken, nil
	}
	for i, d := range due {
		age := now.Sub(d.ReceivedAt)
		// The rereads may have been made for an event that came before this one.
		again := in.Reread < maxRereads || age < maxRereads*a.Policy.RereadDelay
		if again && age < account.ReadsBehind && !shows.event(events[i], i) {
			taken.early = append(taken.early, d)
			taken.told = append(taken.told, events[i].Changed()...)
			continue
		}
		taken.done = append(taken.done, d)
	}
	return taken, nil
}

// toldPayment is a fact about money with the event that told it.
type toldPayment struct {
	account.Payment
	eventID string
	at      time.Time
}

// saidBy tells whether a later fact about the same object says all that this one does, as one of
// several events of one payment does as a rule: then to store this one too changes nothing. What a
// charge tells of refunds is of its moment.
func (p toldPayment) saidBy(later toldPayment) bool {
	if p.ID != later.ID || p.Kind == account.PaymentCharge ||
		cmp.Or(cmp.Compare(p.Rank(), later.Rank()), p.at.Compare(later.at), cmp.Compare(p.eventID, later.eventID)) >= 0 ||
		p.at.After(later.at) || p.AmountPaid > later.AmountPaid || p.Attempts > later.Attempts {
		return false
	}
	a, b := p.Payment, later.Payment
	a.Status, a.Reason, a.Amount, a.Currency, a.AmountPaid, a.Attempts = b.Status, b.Reason, b.Amount, b.Currency, b.AmountPaid, b.Attempts
	for _, text := range []struct{ mine, theirs *string }{
		{&a.SubscriptionID, &b.SubscriptionID}, {&a.InvoiceID, &b.InvoiceID}, {&a.IntentID, &b.IntentID}, {&a.ChargeID, &b.ChargeID},
	} {
		if *text.mine == "" {
			*text.mine = *text.theirs
		}
	}
	for _, moment := range []struct{ mine, theirs *time.Time }{
		{&a.Created, &b.Created}, {&a.PaidAt, &b.PaidAt}, {&a.DueAt, &b.DueAt}, {&a.FinalizedAt, &b.FinalizedAt}, {&a.FailedAt, &b.FailedAt},
	} {
		if moment.mine.IsZero() {
			*moment.mine = *moment.theirs
		}
	}
	return a == b
}

func (t takenEvents) ids() []string { return append(eventIDs(t.done), eventIDs(t.left)...) }

func (t takenEvents) observe(observe func(string, string, store.EventStatus, time.Time), result RecordResult) {
	if observe == nil || result.Outcome != OutcomeSynced {
		return
	}
	for _, d := range t.done {
		observe(d.Source, d.Type, store.EventCompleted, d.ReceivedAt)
	}
}

// lately is what events of the last minute tell of a customer's subscriptions: those that are due,
// and those that were answered before, of which one may have been made later than what is due. Where
// there are none, which beside tells, a due event that says what is shown is enough.
type lately struct {
	due    []stripeevent.Event
	beside bool
	load   func() ([]store.Due, error)
	// all are the loaded ones and the due ones, once it was asked for them.
	all []stripeevent.Event
}

// tells answers what they say of the values that a read shows in the columns of a subscription's
// row.
func (l *lately) tells(shown account.Subscription) func(column string) (store.Telling, error) {
	fields := map[string]string{"collection_paused": "pause_collection", "stripe_price_id": "price", "schedule_ends_at": "schedule_end"}
	return func(column string) (store.Telling, error) {
		field := cmp.Or(fields[column], column)
		value, known := stripeevent.Shown(shown, field)
		says := func(events []stripeevent.Event) store.Telling {
			if column == "ended_at" && slices.ContainsFunc(events, func(e stripeevent.Event) bool { return e.Ended() == shown.ID }) {
				return store.ToldSo
			}
			if !known {
				return store.ToldNothing
			}
			return telling(events, fieldValue{shown.ID, field, value})
		}
		if said := says(l.due); said == store.ToldSo && !l.beside {
			return said, nil
		}
		if l.all == nil {
			before, err := l.load()
			if err != nil {
				return store.ToldNothing, err
			}
			l.all = []stripeevent.Event{}
			for _, d := range before {
				if event, err := stripeevent.Parse(d.Payload); err == nil { // it was parsed when it came
					l.all = append(l.all, event)
				}
			}
			l.all = append(l.all, l.due...)
		}
		return says(l.all), nil
	}
}

// telling is what events say of a value of a subscription's field.
func telling(events []stripeevent.Event, value fieldValue) store.Telling {
	known, had := false, false
	var last, so, other moment
	var lastValue string
	for i, event := range events {
		for _, c := range event.Changed() {
			if c.SubscriptionID != value.object || c.Field != value.field {
				continue
			}
			at := moment{event.Created, i}
			if !known || !last.after(at) {
				known, last, lastValue = true, at, c.After
			}
			if c.After != value.value {
				if !other.after(at) {
					other = at
				}
			} else if !so.after(at) {
				so = at
			}
			had = had || c.Before == value.value
		}
	}
	switch {
	case !known || !had && lastValue != value.value:
		return store.ToldNothing
	case so.created.Equal(other.created):
		return store.ToldAtOnce
	case lastValue == value.value:
		return store.ToldSo
	default:
		return store.ToldBefore
	}
}

// evidence answers whether a read shows what an event told.
type evidence struct {
	customer        account.Customer
	customerMissing bool
	subscriptions   map[string]account.Subscription
	// missing are subscriptions of ours that Stripe does not have.
	missing []string
	// told is of fields of subscriptions and of the customer, whose id is "" here.
	told lastTold
	// ended are the objects of which a due event says that they have ended.
	ended map[string]bool
}

// moment is when an event was made, in whole seconds, and its place among the due ones, which were
// received in this order.
type moment struct {
	created time.Time
	place   int
}

func (m moment) after(other moment) bool {
	return cmp.Or(m.created.Compare(other.created), cmp.Compare(m.place, other.place)) > 0
}

// fieldValue is a value that a field of an object has.
type fieldValue struct{ object, field, value string }

// lastTold is the last of the events that give a field a value.
type lastTold map[fieldValue]moment

func (t lastTold) tell(value fieldValue, at moment) {
	if last, ok := t[value]; !ok || at.after(last) {
		t[value] = at
	}
}

// again tells whether an event after a moment says that a field has a value.
func (t lastTold) again(value fieldValue, since moment) bool {
	last, ok := t[value]
	return ok && last.after(since)
}

func newEvidence(seen shown, events []stripeevent.Event) evidence {
	e := evidence{
		customer: seen.customer, customerMissing: seen.customerMissing, missing: seen.missing,
		subscriptions: map[string]account.Subscription{}, told: lastTold{}, ended: map[string]bool{},
	}
	for _, s := range seen.subscriptions {
		e.subscriptions[s.ID] = s
	}
	for i, event := range events {
		for _, c := range event.Changed() {
			e.told.tell(fieldValue{c.SubscriptionID, c.Field, c.After}, moment{event.Created, i})
		}
		for _, c := range event.ChangedCustomer() {
			e.told.tell(fieldValue{"", c.Field, c.After}, moment{event.Created, i})
		}
		e.ended[event.Ended()] = true
	}
	return e
}

// event tells whether the read shows the event. It does not where an object is absent that the
// event tells of, where one is there still that the event says has ended, or where a field still
// has the value that the event says it had before, unless a later due event says that it has it
// again. place is the event's among the due ones.
func (e evidence) event(event stripeevent.Event, place int) bool {
	return e.present(event) && e.over(event) && e.changed(event, moment{event.Created, place})
}

// present tells whether the read shows what the event says is there.
func (e evidence) present(event stripeevent.Event) bool {
	if e.customerMissing || e.customer.Deleted {
		// That a customer is missing is no news of those who were there before.
		return event.CreatedObject() == "" || !e.customerMissing
	}
	named := event.Bought()
	switch s, ok := event.Subscription(); {
	case ok && event.Ended() == "":
		named = s.ID
	case event.ObjectKind == "subscription":
		named = event.CreatedObject()
	}
	payment, ok := event.Payment()
	if ok && payment.SubscriptionID != "" {
		named = payment.SubscriptionID
	}
	s, known := e.subscriptions[named]
	if !known {
		return named == "" || slices.Contains(e.missing, named) || e.ended[named]
	}
	// The first invoice is all that such a subscription waits for.
	return s.Status != account.StatusIncomplete || payment.Kind != account.PaymentInvoice || payment.Status != "paid"
}

// over tells whether the read shows that what the event says has ended has.
func (e evidence) over(event stripeevent.Event) bool {
	ended := event.Ended()
	if ended == "" {
		return true
	}
	switch event.ObjectKind {
	case "subscription":
		s, ok := e.subscriptions[ended]
		return !ok || s.Status.Terminal()
	case "customer":
		return e.customerMissing || e.customer.Deleted
	case "subscription_schedule":
		for _, s := range e.subscriptions {
			if s.ScheduleID == ended && !s.Status.Terminal() {
				return false
			}
		}
	}
	return true
}

// changed tells whether the read shows what the event says has changed.
func (e evidence) changed(event stripeevent.Event, at moment) bool {
	for _, c := range event.Changed() {
		subscription, ok := e.subscriptions[c.SubscriptionID]
		// What has ended has not changed since.
		if ok && !subscription.Status.Terminal() && c.Stale(subscription) && !e.told.again(fieldValue{c.SubscriptionID, c.Field, c.Before}, at) {
			return false
		}
	}
	if !e.customerMissing && !e.customer.Deleted {
		for _, c := range event.ChangedCustomer() {
			if c.Shown(e.customer) == c.Before && !e.told.again(fieldValue{"", c.Field, c.Before}, at) {
				return false
			}
		}
	}
	// These have no previous_attributes.
	switch s := e.subscriptions[event.ObjectID]; event.Type {
	case "customer.subscription.paused":
		return s.Status != account.StatusTrialing
	case "customer.subscription.resumed":
		return s.Status != account.StatusPaused
	case "subscription_schedule.created":
		schedule, _ := event.Schedule()
		managed, ok := e.subscriptions[schedule.SubscriptionID]
		return !ok || managed.ScheduleID != "" || managed.Status.Terminal() || e.ended[schedule.ID]
	default:
		return true
	}
}
