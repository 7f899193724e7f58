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

// takenEvents are the events that one read answers, and those that came before Stripe's own
// reads show what they tell. Those that are left are answered by no read, since this one did not show all.
type takenEvents struct {
	done, early, left []store.Due
	// told are the changes of which the early ones tell.
	told []stripeevent.Change
}

// Stripe does not promise that a read sees an event at once. An event this young that the read
// does not show yet is worth reading again for, this many times, each after [SubscriptionPolicy.RereadDelay].
const (
	freshFor   = time.Minute
	maxRereads = 3
)

// readEvent stands for the event's id with a fact about money that was read, and not told by an event.
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
	if seen.partial() {
		taken.left = due
		return taken, nil
	}
	shows := newEvidence(seen, events)
	for i, d := range due {
		age := now.Sub(d.ReceivedAt)
		// The rereads may have been made for an event that came before this one.
		again := in.Reread < maxRereads || age < maxRereads*a.Policy.RereadDelay
		if again && age < freshFor && !shows.event(events[i], i) {
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

// saidBy tells whether a later fact about the same object says all that this one does, as one of several events of one
// payment does as a rule: then to store this one too changes nothing. What a charge tells of refunds is of its moment.
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

// evidence answers whether a read shows what an event told.
type evidence struct {
	customerMissing bool
	subscriptions   map[string]account.Subscription
	// told is the last of the due events that give a subscription's field a value.
	told map[fieldValue]moment
}

// moment is when an event was made, in whole seconds, and its place among the due ones, which were received in this order.
type moment struct {
	created time.Time
	place   int
}

func (m moment) after(other moment) bool {
	return cmp.Or(m.created.Compare(other.created), cmp.Compare(m.place, other.place)) > 0
}

type fieldValue struct{ subscription, field, value string }

func newEvidence(seen shown, events []stripeevent.Event) evidence {
	e := evidence{customerMissing: seen.customerMissing, subscriptions: map[string]account.Subscription{}, told: map[fieldValue]moment{}}
	for _, s := range seen.subscriptions {
		e.subscriptions[s.ID] = s
	}
	for i, event := range events {
		for _, c := range event.Changed() {
			value, at := fieldValue{c.SubscriptionID, c.Field, c.After}, moment{event.Created, i}
			if last, ok := e.told[value]; !ok || at.after(last) {
				e.told[value] = at
			}
		}
	}
	return e
}

// event tells whether the read shows the event. It does not where a created object is absent,
// or where a field still has the value that the event says it had before, unless a later due
// event says that it has it again. place is the event's among the due ones.
func (e evidence) event(event stripeevent.Event, place int) bool {
	switch created := event.CreatedObject(); event.ObjectKind {
	case "subscription":
		if _, ok := e.subscriptions[created]; created != "" && !ok {
			return false
		}
	case "customer":
		if created != "" && e.customerMissing {
			return false
		}
	}
	for _, c := range event.Changed() {
		subscription, ok := e.subscriptions[c.SubscriptionID]
		if again, told := e.told[fieldValue{c.SubscriptionID, c.Field, c.Before}]; ok && c.Stale(subscription) && (!told || !again.after(moment{event.Created, place})) {
			return false
		}
	}
	return true
}
