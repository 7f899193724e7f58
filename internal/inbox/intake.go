package inbox

import (
	"context"
	"log/slog"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/intake"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// Delivery is an event as it came through the door: its signature is good, its body is a JSON
// object, its id has the provider's form.
type Delivery struct {
	// Source is [intake.SourceClerk] or [intake.SourceStripe].
	Source string
	// EventID is the provider's id of the event, the same in each redelivery: Stripe's id
	// (evt_...), or, for Clerk, Svix's message id.
	EventID string
	// Body is the raw body.
	Body string
	// ReceivedAt is when the body had been read.
	ReceivedAt time.Time
}

// Outcome is what became of a delivery that was accepted.
type Outcome string

// The outcomes. Each is answered 200: the provider must not send the event again.
const (
	// Stored deliveries are new and will be worked on.
	Stored Outcome = "stored"
	// Known deliveries had been stored before.
	Known Outcome = "known"
	// Unchanged deliveries tell what PostgreSQL holds already; they are recorded as completed.
	Unchanged Outcome = "unchanged"
	// Ignored deliveries are recorded as none of our business.
	Ignored Outcome = "ignored"
)

// Intake decides what a delivery is about and stores it.
type Intake struct {
	Writer *Writer
	// Livemode is the mode of our Stripe key. Events of the other mode are ignored.
	Livemode bool
	// Identity answers which accounts the database belongs to, as far as it is known.
	Identity *Identity
	Logger   *slog.Logger
	// Observe is told what became of each delivery; it may be nil.
	Observe func(source, eventType string, outcome Outcome)
}

// Accept stores a verified delivery and returns after the commit. Any error means that it is
// not stored, and that the provider has to send it again.
func (i *Intake) Accept(ctx context.Context, d Delivery) (Outcome, error) {
	event := i.classify(ctx, d)
	added, err := i.Writer.Add(ctx, event)
	if err != nil {
		return "", err
	}
	outcome := Stored
	switch {
	case added == store.AddedBefore:
		outcome = Known
	case event.Ignore != "":
		outcome = Ignored
	case added == store.AddedDone:
		outcome = Unchanged
	}
	if i.Observe != nil {
		i.Observe(d.Source, event.Type, outcome)
	}
	i.Logger.LogAttrs(ctx, slog.LevelDebug, "delivery taken", slog.String("event_id", d.EventID), slog.String("event_type", event.Type),
		slog.String("entity", string(event.Entity)), slog.String("result", string(outcome)), slog.String("reason", event.Ignore))
	return outcome, nil
}

func (i *Intake) classify(ctx context.Context, d Delivery) store.NewEvent {
	event := store.NewEvent{Source: d.Source, EventID: d.EventID, Payload: d.Body, ReceivedAt: d.ReceivedAt}
	intake.Rules{Livemode: i.Livemode, Identity: i.Identity.Get(ctx)}.Classify(&event)
	return event
}
