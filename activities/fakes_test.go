package activities_test

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

// stripeWorld is a Stripe that holds what a test put there. A gate holds an answer that has
// been read already, as a slow network does.
type stripeWorld struct {
	activities.Stripe // anything else is a test's mistake and panics

	mu            sync.Mutex
	customers     map[string]account.Customer
	subscriptions map[string]account.Subscription
	products      map[string]account.Product
	// invoices are the open ones by subscription; asked counts how often they were asked for.
	invoices  map[string][]account.Payment
	asked     int
	schedules map[string]account.Schedule
	// charged is what is to be collected, whichever customer of.
	charged []account.PendingCharge
	gates   []*gate
}

func newStripe() *stripeWorld {
	return &stripeWorld{customers: map[string]account.Customer{}, subscriptions: map[string]account.Subscription{}, products: map[string]account.Product{}, schedules: map[string]account.Schedule{}}
}

// gate holds one answer.
type gate struct {
	read    chan struct{} // closed when the answer has been read
	release chan struct{} // closed by the test to let it through
}

func newGate() *gate { return &gate{read: make(chan struct{}), release: make(chan struct{})} }

// hold makes the next read wait, after it has been made.
func (s *stripeWorld) hold() *gate {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := newGate()
	s.gates = append(s.gates, g)
	return g
}

func (s *stripeWorld) takeGate() *gate {
	if len(s.gates) == 0 {
		return nil
	}
	g := s.gates[0]
	s.gates = s.gates[1:]
	return g
}

func (g *gate) pass(ctx context.Context) error {
	if g == nil {
		return nil
	}
	close(g.read)
	select {
	case <-g.release:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *stripeWorld) put(sub account.Subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscriptions[sub.ID] = sub
}

func (s *stripeWorld) CustomerSubscriptions(ctx context.Context, customerID string) ([]account.Subscription, *account.Customer, error) {
	s.mu.Lock()
	var list []account.Subscription
	for _, sub := range s.subscriptions {
		if sub.CustomerID == customerID {
			list = append(list, sub)
		}
	}
	customer, known := s.customers[customerID]
	g := s.takeGate()
	s.mu.Unlock()
	if err := g.pass(ctx); err != nil {
		return nil, nil, err
	}
	if !known {
		return nil, nil, failure.NotFound("stripe", "list subscriptions")
	}
	return list, &customer, nil
}

func (s *stripeWorld) Customer(_ context.Context, customerID string) (account.Customer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	customer, known := s.customers[customerID]
	if !known {
		return customer, failure.NotFound("stripe", "read customer")
	}
	return customer, nil
}

func (s *stripeWorld) Subscription(_ context.Context, id string) (account.Subscription, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub, known := s.subscriptions[id]
	if !known {
		return sub, failure.NotFound("stripe", "read subscription")
	}
	return sub, nil
}

func (s *stripeWorld) OpenInvoices(_ context.Context, subscriptionID string) ([]account.Payment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return s.invoices[subscriptionID], nil
}

func (s *stripeWorld) CustomerSchedules(_ context.Context, customerID string) ([]account.Schedule, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.customers[customerID]; !known {
		return nil, failure.NotFound("stripe", "list subscription schedules")
	}
	var list []account.Schedule
	for _, schedule := range s.schedules {
		if schedule.CustomerID == customerID {
			list = append(list, schedule)
		}
	}
	return list, nil
}

func (s *stripeWorld) PendingCharges(_ context.Context, customerID string) ([]account.PendingCharge, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.customers[customerID]; !known {
		return nil, failure.NotFound("stripe", "list pending charges")
	}
	return slices.Clone(s.charged), nil
}

func (s *stripeWorld) Schedule(_ context.Context, id string) (account.Schedule, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	schedule, known := s.schedules[id]
	if !known {
		return schedule, failure.NotFound("stripe", "read subscription schedule")
	}
	return schedule, nil
}

func (s *stripeWorld) Account(context.Context) (string, error) { return "acct_1", nil }

func (s *stripeWorld) Product(ctx context.Context, id string) (account.Product, error) {
	s.mu.Lock()
	product, known := s.products[id]
	g := s.takeGate()
	s.mu.Unlock()
	if err := g.pass(ctx); err != nil {
		return product, err
	}
	if !known {
		return product, failure.NotFound("stripe", "read product")
	}
	return product, nil
}

// clerkWorld is a Clerk with users and the one metadata key that is ours. Gates hold a read
// after it was made; write gates hold a write before it takes effect.
type clerkWorld struct {
	mu         sync.Mutex
	users      map[string]account.User
	metadata   map[string]map[string]any
	writes     int
	gates      []*gate
	writeGates []*gate
}

func newClerk() *clerkWorld {
	return &clerkWorld{users: map[string]account.User{}, metadata: map[string]map[string]any{}}
}

func (c *clerkWorld) hold() *gate {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := newGate()
	c.gates = append(c.gates, g)
	return g
}

func (c *clerkWorld) holdWrite() *gate {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := newGate()
	c.writeGates = append(c.writeGates, g)
	return g
}

func (c *clerkWorld) User(ctx context.Context, id string) (account.User, json.RawMessage, error) {
	c.mu.Lock()
	user, known := c.users[id]
	held, err := json.Marshal(c.metadata[id])
	var g *gate
	if len(c.gates) > 0 {
		g, c.gates = c.gates[0], c.gates[1:]
	}
	c.mu.Unlock()
	if passErr := g.pass(ctx); passErr != nil {
		return user, nil, passErr
	}
	if !known {
		return user, nil, failure.NotFound("clerk", "read user")
	}
	return user, held, err
}

func (c *clerkWorld) SetStripeMetadata(ctx context.Context, id string, value json.RawMessage) error {
	c.mu.Lock()
	var g *gate
	if len(c.writeGates) > 0 {
		g, c.writeGates = c.writeGates[0], c.writeGates[1:]
	}
	c.mu.Unlock()
	if err := g.pass(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.users[id]; !known {
		return failure.NotFound("clerk", "write metadata")
	}
	var patch map[string]any
	if err := json.Unmarshal(value, &patch); err != nil {
		return err
	}
	if c.metadata[id] == nil {
		c.metadata[id] = map[string]any{}
	}
	maps.Copy(c.metadata[id], patch)
	maps.DeleteFunc(c.metadata[id], func(_ string, v any) bool { return v == nil })
	c.writes++
	return nil
}

// version is the projection's version that Clerk holds.
func (c *clerkWorld) version(t *testing.T, id string) int64 {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	version, _ := c.metadata[id]["version"].(float64)
	return int64(version)
}
