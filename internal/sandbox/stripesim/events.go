package stripesim

import (
	"context"
	"encoding/json"
	"maps"
	"reflect"
	"strings"
	"time"
)

// event is one entry of the account's log. Its object is rendered when it happens and never again.
type event struct {
	ID, Type  string
	Version   string
	Created   int64
	Data      json.RawMessage
	Request   string
	Key       string
	Delivered bool
}

const eventsKept = 30 * 24 * 60 * 60 // seconds that Stripe lists an event

func (r renderer) event(e *event) object {
	pending := 1
	if e.Delivered {
		pending = 0
	}
	return object{"id": e.ID, "object": "event", "api_version": e.Version, "created": e.Created, "data": e.Data, "livemode": r.live,
		"pending_webhooks": pending, "request": object{"id": orNull(e.Request), "idempotency_key": orNull(e.Key)}, "type": e.Type}
}

// record logs and queues one event about x as it is now; prev holds what an update changed.
func (s *Server) record(typ string, x any, prev object) {
	data := object{"object": s.renderer(s.eventVersion()).resource(x)}
	if prev != nil {
		data["previous_attributes"] = prev
	}
	e := &event{ID: s.newID("evt_"), Type: typ, Version: s.opts.EventVersion, Created: s.unix(), Data: mustJSON(data),
		Request: s.cause.request, Key: s.cause.key}
	s.db.Events.put(e.ID, e)
	s.forgetOldEvents()
	s.outbox = append(s.outbox, emission{id: e.ID, typ: typ, body: mustJSON(s.renderer(s.eventVersion()).event(e))})
	if t, ok := x.(timed); ok {
		s.plan(t)
	}
}

func (s *Server) forgetOldEvents() {
	limit, gone := s.unix()-eventsKept, 0
	for gone < len(s.db.Events.Order) && s.db.Events.get(s.db.Events.Order[gone]).Created < limit {
		delete(s.db.Events.Rows, s.db.Events.Order[gone])
		gone++
	}
	s.db.Events.Order = s.db.Events.Order[gone:]
}

// updating makes a change to x and records it as an event with previous_attributes, or records
// nothing when x looks the same.
func (s *Server) updating(typ string, x any, change func()) {
	view := s.renderer(s.eventVersion())
	before := asJSON(view.resource(x))
	change()
	if prev := previous(before, asJSON(view.resource(x))); len(prev) > 0 {
		if !strings.HasSuffix(typ, ".updated") && typ != "charge.refunded" {
			prev = nil // the other types say what happened by their name
		}
		s.record(typ, x, prev)
	} else if t, ok := x.(timed); ok {
		s.plan(t)
	}
}

// previous gives the old values of what differs: of an object only the keys that differ (null for
// those that are new), of everything else the whole.
func previous(before, after map[string]any) object {
	out := object{}
	for k, old := range before {
		now, ok := after[k]
		if ok && reflect.DeepEqual(old, now) {
			continue
		}
		oldMap, isMap := old.(map[string]any)
		nowMap, nowIsMap := now.(map[string]any)
		switch {
		case isMap && nowIsMap && oldMap["object"] == "list":
			out[k] = old
		case isMap && nowIsMap:
			out[k] = previous(oldMap, nowMap)
		default:
			out[k] = old
		}
	}
	for k := range after {
		if _, ok := before[k]; !ok {
			out[k] = nil
		}
	}
	return out
}

// flush gives the queued events to Emit, in order and outside the lock. Only one goroutine does so
// at a time.
func (s *Server) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.emitting {
		return
	}
	s.emitting = true
	for len(s.outbox) > 0 {
		batch := s.outbox
		s.outbox = nil
		s.mu.Unlock()
		for _, e := range batch {
			s.emit(e.id, e.typ, e.body)
		}
		s.mu.Lock()
	}
	s.emitting = false
	for _, ch := range s.settled {
		close(ch)
	}
	s.settled = nil
}

// Settled returns when every event recorded so far has been given to Emit. It must not be called
// from Emit.
func (s *Server) Settled(ctx context.Context) error {
	s.mu.Lock()
	if !s.emitting && len(s.outbox) == 0 {
		s.mu.Unlock()
		return nil
	}
	ch := make(chan struct{})
	s.settled = append(s.settled, ch)
	s.mu.Unlock()
	s.flush()
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Event is one entry of the account's log, as it was emitted.
type Event struct {
	ID, Type string
	Created  time.Time
	Body     json.RawMessage
}

// Events gives the log of the last 30 days of simulated time, oldest first.
func (s *Server) Events() []Event {
	var out []Event
	s.view(func() {
		r := s.renderer(s.eventVersion())
		for _, id := range s.db.Events.Order {
			e := s.db.Events.get(id)
			out = append(out, Event{ID: e.ID, Type: e.Type, Created: time.Unix(e.Created, 0).UTC(), Body: mustJSON(r.event(e))})
		}
	})
	return out
}

// MarkDelivered notes that an event's delivery was answered 2xx, which delivery_success of the list
// asks for.
func (s *Server) MarkDelivered(eventID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.db.Events.get(eventID); e != nil {
		e.Delivered = true
	}
}

func (s *Server) getEvent(c *call) (any, *apiError) {
	if e := s.db.Events.get(c.id); e != nil {
		return e, nil
	}
	return nil, missing("event", c.id)
}

func (s *Server) listEvents(c *call) (any, *apiError) {
	types := map[string]bool{}
	for _, f := range c.root.at("types").list() {
		types[f.value] = true
	}
	if t, ok := c.text("type"); ok {
		types[t] = true
	}
	created := c.span("created")
	delivered, filter := c.boolean("delivery_success")
	return listed(c, &s.db.Events, func(e *event) bool {
		return (len(types) == 0 || types[e.Type] || matchesStar(types, e.Type)) && created.holds(e.Created) &&
			(!filter || e.Delivered == delivered)
	})
}

// matchesStar is the rule for "customer.*".
func matchesStar(types map[string]bool, typ string) bool {
	for pattern := range maps.Keys(types) {
		if n := len(pattern); n > 1 && pattern[n-1] == '*' && len(typ) >= n-1 && typ[:n-1] == pattern[:n-1] {
			return true
		}
	}
	return false
}

func mustJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic("stripesim: render: " + err.Error()) // only plain maps, slices and scalars are rendered
	}
	return b
}

func asJSON(o object) map[string]any {
	out := map[string]any{}
	if err := json.Unmarshal(mustJSON(o), &out); err != nil {
		panic("stripesim: render: " + err.Error())
	}
	return out
}
