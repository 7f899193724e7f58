package operator

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/intake"
	"github.com/nepfy/clerk-stripe-sync/internal/runs"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// Console answers an operator.
type Console struct {
	Store *store.Store
	// Runs is where comparisons are begun, and where the runs of workflows are looked at.
	Runs runs.Server
	// Wake makes the dispatcher look at once for what was asked to be poked; nil where it runs
	// elsewhere.
	Wake func()
}

// Selection says which events an operator means. What is left out chooses nothing; the rest has to
// hold together.
type Selection struct {
	// IDs are ids of events: Stripe's evt_..., or Svix's msg_... for Clerk's.
	IDs []string `json:"ids,omitempty"`
	// Type is an event type, or the beginning of some with a * behind it.
	Type string `json:"type,omitempty"`
	// UserID is a Clerk user; meant are the events about them and about their customers.
	UserID string `json:"userId,omitempty"`
	// Entity is whom the events are about, such as customer/cus_...
	Entity string `json:"entity,omitempty"`
	// Source is clerk or stripe.
	Source   string              `json:"source,omitempty"`
	Statuses []store.EventStatus `json:"statuses,omitempty"`
	// Since and Until bound when the events were received.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
}

// Empty tells whether nothing is selected, and so everything.
func (s Selection) Empty() bool {
	return len(s.IDs) == 0 && s.Type == "" && s.UserID == "" && s.Entity == "" && s.Source == "" && len(s.Statuses) == 0 && s.Since.IsZero() && s.Until.IsZero()
}

// Statuses lists the statuses that an event can have.
func Statuses() []store.EventStatus {
	return []store.EventStatus{store.EventPending, store.EventWaiting, store.EventFailing, store.EventCompleted, store.EventIgnored}
}

func (s Selection) check() error {
	if s.UserID != "" && !account.ValidUserID(s.UserID) {
		return mistaken("%q is not a Clerk user id", s.UserID)
	}
	if kind, _ := account.Entity(s.Entity).Split(); s.Entity != "" && kind == "" {
		return mistaken("%q is not of the form user/..., customer/..., product/... or charge/...", s.Entity)
	}
	if s.Source != "" && s.Source != intake.SourceClerk && s.Source != intake.SourceStripe {
		return mistaken("a source is clerk or stripe, not %q", s.Source)
	}
	for _, status := range s.Statuses {
		if !slices.Contains(Statuses(), status) {
			return mistaken("there is no status %q; there are %v", string(status), Statuses())
		}
	}
	if !s.Since.IsZero() && !s.Until.IsZero() && !s.Since.Before(s.Until) {
		return mistaken("the window ends before it begins")
	}
	return nil
}

// Mistake is a request that cannot be understood; its text says what to do.
type Mistake struct{ Text string }

// Error implements error.
func (m *Mistake) Error() string { return m.Text }

func mistaken(format string, args ...any) error { return &Mistake{fmt.Sprintf(format, args...)} }

// filter is the selection as the store takes it. none is set where nothing can be meant: the user
// has nothing here.
func (c *Console) filter(ctx context.Context, s Selection) (f store.EventFilter, err error) {
	if err := s.check(); err != nil {
		return f, err
	}
	f = store.EventFilter{Source: s.Source, IDs: s.IDs, Type: s.Type, Statuses: s.Statuses, Since: s.Since, Until: s.Until}
	if s.Entity != "" {
		f.Entities = append(f.Entities, account.Entity(s.Entity))
	}
	if s.UserID == "" {
		return f, nil
	}
	entities, err := c.entitiesOf(ctx, s.UserID)
	if err != nil {
		return f, err
	}
	if s.Entity != "" {
		entities = slices.DeleteFunc(entities, func(e account.Entity) bool { return string(e) != s.Entity })
	}
	f.Entities = entities
	return f, nil
}

// entitiesOf are a user, and the customers that are theirs or that somebody claims for them.
func (c *Console) entitiesOf(ctx context.Context, clerkUserID string) ([]account.Entity, error) {
	entities := []account.Entity{account.UserEntity(clerkUserID)}
	user, err := c.Store.UserByClerkID(ctx, clerkUserID)
	if err != nil {
		return nil, err
	}
	if user != nil {
		customers, err := c.Store.CustomersOf(ctx, user)
		if err != nil {
			return nil, err
		}
		for _, each := range customers {
			entities = append(entities, account.CustomerEntity(each.ID))
		}
	}
	claimed, err := c.Store.UnlinkedClaimed(ctx, clerkUserID)
	if err != nil {
		return nil, err
	}
	for _, id := range claimed {
		entities = append(entities, account.CustomerEntity(id))
	}
	return entities, nil
}

// Events lists events, the newest first. next is the place behind which the next page goes on, nil
// after the last.
func (c *Console) Events(ctx context.Context, s Selection, after store.EventPlace, limit int) (events []store.Event, next *store.EventPlace, err error) {
	f, err := c.filter(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	if events, err = c.Store.Events(ctx, f, after, limit); err != nil {
		return nil, nil, err
	}
	if len(events) == limit {
		last := events[len(events)-1]
		next = &store.EventPlace{ReceivedAt: last.ReceivedAt, EventID: last.EventID}
	}
	return events, next, nil
}

// Event answers one event with its payload, "" where that is not kept. The source may be left out.
func (c *Console) Event(ctx context.Context, source, id string) (event *store.Event, payload string, err error) {
	sources := []string{intake.SourceStripe, intake.SourceClerk}
	if source != "" {
		sources = []string{source}
	}
	for _, source := range sources {
		if event, payload, err = c.Store.Event(ctx, source, id); err != nil || event != nil {
			return event, payload, err
		}
	}
	return nil, "", nil
}

// Order is what an operator wants done with events.
type Order struct {
	Selection
	// DryRun only counts.
	DryRun bool `json:"dryRun,omitempty"`
	// Caller is who wants it, for the audit log.
	Caller string `json:"-"`
}

// Done is what came of an order, or, of a dry run, what would.
type Done struct {
	// Events counts those that were, or would be, tried or taken again.
	Events int `json:"events"`
	// ByType counts them by type.
	ByType map[string]int `json:"byType"`
	// Skipped counts those that were selected and cannot be, by the reason.
	Skipped map[string]int `json:"skipped,omitempty"`
	// Next is set where more are selected than one order takes: an order goes on behind it.
	Next *store.EventPlace `json:"next,omitempty"`
}

// orderSize is how many events one order takes at most, and one transaction.
const orderSize = 500

// Retry has events that have not ended tried at once, which they would be by themselves later.
func (c *Console) Retry(ctx context.Context, o Order, after store.EventPlace) (Done, error) {
	if len(o.Statuses) == 0 {
		o.Statuses = []store.EventStatus{store.EventPending, store.EventWaiting, store.EventFailing}
	}
	for _, status := range o.Statuses {
		if status == store.EventCompleted || status == store.EventIgnored {
			return Done{}, mistaken("an event that is %s has ended: it can be replayed, not retried", status)
		}
	}
	done, events, err := c.selected(ctx, o, after)
	if err != nil || o.DryRun || len(events) == 0 {
		done.count(events)
		return done, err
	}
	if done.Events, err = c.Store.RetryEvents(ctx, events, store.Cause{Caller: o.Caller}); err != nil {
		return done, err
	}
	done.byType(events)
	c.wake()
	return done, nil
}

// Replay has events that have ended taken again as if they had just been delivered. It is harmless:
// an event says that something changed, and what is true is read again. An event whose payload is
// not kept any more cannot be.
func (c *Console) Replay(ctx context.Context, o Order, after store.EventPlace) (Done, error) {
	if o.Empty() {
		return Done{}, mistaken("say which events: by id, type, user, entity, status or time")
	}
	if len(o.Statuses) == 0 {
		o.Statuses = []store.EventStatus{store.EventCompleted, store.EventIgnored}
	}
	for _, status := range o.Statuses {
		if status != store.EventCompleted && status != store.EventIgnored {
			return Done{}, mistaken("an event that is %s has not ended: it can be retried, not replayed", status)
		}
	}
	done, events, err := c.selected(ctx, o, after)
	if err != nil {
		return done, err
	}
	identity, err := c.Store.Identity(ctx)
	if err != nil {
		return done, err
	}
	rules := intake.Rules{Livemode: identity.StripeLivemode != nil && *identity.StripeLivemode, Identity: identity}
	var replays []store.Replay
	var taken []store.Event
	for _, e := range events {
		claims, why, err := c.replayable(ctx, rules, e)
		if err != nil {
			return done, err
		}
		if why != "" {
			done.skip(why)
			continue
		}
		replays, taken = append(replays, store.Replay{Event: e, Claims: claims}), append(taken, e)
	}
	if o.DryRun || len(replays) == 0 {
		done.count(taken)
		return done, nil
	}
	if done.Events, err = c.Store.ReplayEvents(ctx, replays, store.Cause{Caller: o.Caller}); err != nil {
		return done, err
	}
	done.byType(taken)
	c.wake()
	return done, nil
}

// replayable tells why an event cannot be replayed, "" if it can, and then the evidence in it.
func (c *Console) replayable(ctx context.Context, rules intake.Rules, e store.Event) (claims []account.Claim, why string, err error) {
	if !e.Kept || e.Entity == nil {
		return nil, "its payload is not kept", nil
	}
	_, payload, err := c.Store.Event(ctx, e.Source, e.EventID)
	if err != nil || payload == "" {
		return nil, "its payload is not kept", err
	}
	event := store.NewEvent{Source: e.Source, EventID: e.EventID, Payload: payload}
	rules.Classify(&event)
	if event.Ignore != "" {
		return nil, "it would be ignored: " + event.Ignore, nil
	}
	return event.Claims, "", nil
}

// selected lists the events that one order takes.
func (c *Console) selected(ctx context.Context, o Order, after store.EventPlace) (Done, []store.Event, error) {
	done := Done{ByType: map[string]int{}}
	events, next, err := c.Events(ctx, o.Selection, after, orderSize)
	done.Next = next
	return done, events, err
}

func (d *Done) count(events []store.Event) {
	d.Events = len(events)
	d.byType(events)
}

func (d *Done) byType(events []store.Event) {
	for _, e := range events {
		d.ByType[e.Type]++
	}
}

func (d *Done) skip(why string) {
	if d.Skipped == nil {
		d.Skipped = map[string]int{}
	}
	d.Skipped[why]++
}

func (c *Console) wake() {
	if c.Wake != nil {
		c.Wake()
	}
}
