package clerksim

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
)

// maxEvents is how many webhooks the instance remembers for Events and EmitAgain.
const maxEvents = 10_000

// Event is one webhook: the id that Svix gives it, its type, and its body.
type Event struct {
	ID   string          `json:"id"`
	Type string          `json:"type"`
	Body json.RawMessage `json:"body"`
}

// Events returns the webhooks of all changes so far, oldest first, at most the last ten thousand.
func (s *Server) Events() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

// EmitAgain emits a webhook once more, same id, same body, and reports whether it is known.
func (s *Server) EmitAgain(id string) bool {
	s.mu.Lock()
	at := slices.IndexFunc(s.events, func(e Event) bool { return e.ID == id })
	if at >= 0 {
		s.outbox = append(s.outbox, s.events[at])
	}
	s.mu.Unlock()
	s.flush()
	return at >= 0
}

// Settled returns when every change made so far has been emitted. It matters only to who changes
// things from several goroutines: a change made by one may be emitted by another.
func (s *Server) Settled(ctx context.Context) error {
	s.mu.Lock()
	if len(s.outbox) == 0 && !s.emitting {
		s.mu.Unlock()
		return nil
	}
	if s.drained == nil {
		s.drained = make(chan struct{})
	}
	drained := s.drained
	s.mu.Unlock()
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for webhooks to be emitted: %w", context.Cause(ctx))
	}
}

// happened queues the webhook of a change. The caller holds the lock, and calls flush when it has
// released it.
func (s *Server) happened(typ string, data any) {
	e := Event{ID: s.newID("msg"), Type: typ, Body: mustJSON(map[string]any{
		"object": "event", "type": typ, "timestamp": millis(s.now()), "instance_id": s.instance, "data": data,
		"event_attributes": map[string]any{"http_request": map[string]any{"client_ip": "127.0.0.1", "user_agent": "sandbox"}},
	})}
	if len(s.events) == maxEvents {
		s.events = slices.Delete(s.events, 0, maxEvents/10)
	}
	s.events = append(s.events, e)
	s.outbox = append(s.outbox, e)
}

// changed stamps a user and queues its user.updated.
func (s *Server) changed(u *user) {
	u.Updated = millis(s.now())
	s.happened("user.updated", u.render())
}

// flush emits what is queued, in order, without the lock. If another goroutine is at it, or the
// callback of this one, that one emits ours too.
func (s *Server) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.emitting {
		return
	}
	s.emitting = true
	for len(s.outbox) > 0 {
		e := s.outbox[0]
		s.outbox = s.outbox[1:]
		if s.emit != nil {
			s.mu.Unlock()
			s.emit(e.ID, e.Type, e.Body)
			s.mu.Lock()
		}
	}
	s.emitting = false
	if s.drained != nil {
		close(s.drained)
		s.drained = nil
	}
}
