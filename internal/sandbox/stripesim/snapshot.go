package stripesim

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"time"
)

// Subscription is a subscription as API version 2023-10-16 shows it.
func (s *Server) Subscription(id string) (body json.RawMessage, ok bool) {
	s.view(func() {
		if x := s.db.Subscriptions.get(id); x != nil {
			body, ok = mustJSON(s.renderer(v20231016).subscription(x)), true
		}
	})
	return body, ok
}

// Subscriptions is every subscription of a customer, in all statuses, newest first.
func (s *Server) Subscriptions(customerID string) (bodies []json.RawMessage) {
	s.view(func() {
		for _, x := range s.db.Subscriptions.newest(func(x *subscription) bool { return x.Customer == customerID }) {
			bodies = append(bodies, mustJSON(s.renderer(v20231016).subscription(x)))
		}
	})
	return bodies
}

// Customer is a customer as API version 2023-10-16 shows it; of a deleted one that is the id and
// the word.
func (s *Server) Customer(id string) (body json.RawMessage, ok bool) {
	s.view(func() {
		if x := s.db.Customers.get(id); x != nil {
			body, ok = mustJSON(s.renderer(v20231016).customer(x)), true
		}
	})
	return body, ok
}

// Customers is every customer that is not deleted, newest first.
func (s *Server) Customers() (bodies []json.RawMessage) {
	s.view(func() {
		for _, x := range s.db.Customers.newest(func(x *customer) bool { return !x.Deleted }) {
			bodies = append(bodies, mustJSON(s.renderer(v20231016).customer(x)))
		}
	})
	return bodies
}

// Counts tells how many objects of each kind there are, by the name that Stripe gives the kind.
func (s *Server) Counts() map[string]int {
	var out map[string]int
	s.view(func() {
		out = map[string]int{
			"customer":     len(s.db.Customers.newest(func(x *customer) bool { return !x.Deleted })),
			"product":      len(s.db.Products.Order),
			"price":        len(s.db.Prices.Order),
			"subscription": len(s.db.Subscriptions.Order), "subscription_schedule": len(s.db.Schedules.Order),
			"invoice": len(s.db.Invoices.Order), "invoiceitem": len(s.db.InvoiceItems.Order), "payment_intent": len(s.db.Intents.Order), "charge": len(s.db.Charges.Order),
			"refund": len(s.db.Refunds.Order), "dispute": len(s.db.Disputes.Order), "checkout.session": len(s.db.Sessions.Order),
			"event": len(s.db.Events.Order),
		}
	})
	return out
}

// saved is what Save writes.
type saved struct {
	Now   time.Time
	State *state
	Keys  map[string]*keptAnswer
}

// Save writes the account as JSON, so that Load can continue with it. Options are not part of it.
func (s *Server) Save(w io.Writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := map[string]*keptAnswer{}
	for k, v := range s.keys {
		if v.Done {
			keys[k] = v
		}
	}
	if err := json.NewEncoder(w).Encode(saved{Now: s.clock.now(), State: s.db, Keys: keys}); err != nil {
		return fmt.Errorf("save the simulated account: %w", err)
	}
	return nil
}

// Load replaces the account by one that Save wrote. The clock goes on from the later of the two,
// never back, and nothing is emitted before the next request or Advance.
func (s *Server) Load(r io.Reader) error {
	in := saved{State: newState()}
	if err := json.NewDecoder(r).Decode(&in); err != nil {
		return fmt.Errorf("load the simulated account: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.db, s.keys = in.State, map[string]*keptAnswer{}
	maps.Copy(s.keys, in.Keys)
	if behind := in.Now.Sub(s.clock.now()); behind > 0 {
		s.clock.skipped += behind
	}
	s.moment = in.Now // what became due while it lay on disk happens at its own time
	s.replan()
	return nil
}
