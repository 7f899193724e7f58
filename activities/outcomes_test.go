package activities_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// stoppable is a Stripe that ends subscriptions, and takes note of how.
type stoppable struct {
	*stripeWorld
	calls []string
	// refuse answers why Stripe refuses to end a subscription; nil for never.
	refuse func(id string) error
	// charges are the customers of charges.
	charges map[string]string
	asked   int
}

func (s *stoppable) end(id string, change func(*account.Subscription)) (account.Subscription, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		if err := s.refuse(id); err != nil {
			return account.Subscription{}, err
		}
	}
	sub := s.subscriptions[id]
	change(&sub)
	s.subscriptions[id] = sub
	return sub, nil
}

func (s *stoppable) CancelNow(_ context.Context, id, _ string) (account.Subscription, error) {
	s.calls = append(s.calls, "now "+id)
	return s.end(id, func(sub *account.Subscription) { sub.Status = account.StatusCanceled })
}

func (s *stoppable) SetEnding(_ context.Context, id string, _, to account.Ending, _ string) (account.Subscription, error) {
	s.calls = append(s.calls, "at period end "+id)
	return s.end(id, func(sub *account.Subscription) { sub.CancelAtPeriodEnd, sub.CancelAt = to.AtPeriodEnd, to.At })
}

func (s *stoppable) ReleaseSchedule(_ context.Context, id, _ string) error {
	s.calls = append(s.calls, "release "+id)
	return nil
}

func (s *stoppable) EndThroughSchedule(_ context.Context, id string, at time.Time, _ string) error {
	s.calls = append(s.calls, "end with present phase "+id)
	return s.throughSchedule(id, func(sub *account.Subscription) { sub.ScheduleEndsAt = at })
}

func (s *stoppable) EndWithPresentPhase(_ context.Context, id string, at time.Time, _ string) error {
	s.calls = append(s.calls, "end with present phase "+id)
	return s.throughSchedule(id, func(sub *account.Subscription) {
		sub.ScheduleEndsAt, sub.LaterPhases, sub.PhasesAhead = at, nil, false
	})
}

func (s *stoppable) DeleteInvoiceItem(_ context.Context, id string) error {
	return s.stopCharge("delete "+id, id)
}

func (s *stoppable) StopCollecting(_ context.Context, id, _ string) error {
	return s.stopCharge("stop collecting "+id, id)
}

func (s *stoppable) stopCharge(call, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
	if s.refuse != nil {
		if err := s.refuse(id); err != nil {
			return err
		}
	}
	s.charged = slices.DeleteFunc(s.charged, func(p account.PendingCharge) bool { return p.ID == id })
	return nil
}

func (s *stoppable) CancelSchedule(_ context.Context, id, _ string) error {
	s.calls = append(s.calls, "cancel "+id)
	s.mu.Lock()
	schedule := s.schedules[id]
	schedule.Status = account.ScheduleCanceled
	s.schedules[id] = schedule
	s.mu.Unlock()
	return s.throughSchedule(id, func(sub *account.Subscription) { sub.Status = account.StatusCanceled })
}

func (s *stoppable) throughSchedule(id string, change func(*account.Subscription)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, sub := range s.subscriptions {
		if sub.ScheduleID != id {
			continue
		}
		if s.refuse != nil {
			if err := s.refuse(key); err != nil {
				return err
			}
		}
		change(&sub)
		s.subscriptions[key] = sub
	}
	return nil
}

func (s *stoppable) ChargeCustomer(_ context.Context, id string) (string, error) {
	s.asked++
	customer, known := s.charges[id]
	if !known {
		return "", failure.NotFound("stripe", "read charge")
	}
	return customer, nil
}

// bench is a database with the activities on it, and a Stripe that can be told to end things.
type bench struct {
	t             *testing.T
	dsn           string
	store         *store.Store
	stripe        *stoppable
	clerk         *clerkWorld
	users         *activities.Users
	subscriptions *activities.Subscriptions
	catalogue     *activities.Catalogue
	disputes      *activities.Disputes
}

func newBench(t *testing.T, deletion account.DeletionPolicy) *bench {
	t.Helper()
	return newBenchOn(t, deletion, store.Options{MaxConns: 4})
}

func newBenchOn(t *testing.T, deletion account.DeletionPolicy, o store.Options) *bench {
	t.Helper()
	o.DSN = databases.DSN(t)
	b := &bench{t: t, dsn: o.DSN, clerk: newClerk(), stripe: &stoppable{stripeWorld: newStripe(), charges: map[string]string{}}}
	s, err := store.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	b.store = s
	b.users = &activities.Users{Store: s, Clerk: b.clerk, Deletion: deletion}
	b.subscriptions = &activities.Subscriptions{Store: s, Stripe: b.stripe, Policy: activities.SubscriptionPolicy{Deletion: deletion, BoundaryDelay: time.Minute, RereadDelay: time.Second}}
	b.catalogue = &activities.Catalogue{Store: s, Stripe: b.stripe}
	b.disputes = &activities.Disputes{Store: s, Stripe: b.stripe}
	return b
}

// person signs up at Clerk and owns customers at Stripe.
func (b *bench) person(customers ...string) {
	b.t.Helper()
	b.clerk.users[ada] = account.User{ID: ada, FirstName: "Ada", Email: "ada@example.com", EmailVerified: true}
	b.sync()
	for i, id := range customers {
		b.stripe.customers[id] = account.Customer{ID: id, Created: time.Unix(int64(1_700_000_000+i), 0), Metadata: map[string]string{"clerk_user_id": ada}}
		b.record(id)
	}
}

func (b *bench) sync() activities.UserResult {
	b.t.Helper()
	result, err := b.users.SyncUser(b.t.Context(), activities.UserInput{ClerkUserID: ada})
	if err != nil {
		b.t.Fatal(err)
	}
	return result
}

func (b *bench) record(customer string) activities.RecordResult {
	b.t.Helper()
	result, err := b.subscriptions.RecordSubscriptions(b.t.Context(), activities.RecordInput{CustomerID: customer})
	if err != nil {
		b.t.Fatal(err)
	}
	return result
}

// deliver stores deliveries about an entity, of these types.
func (b *bench) deliver(entity account.Entity, types ...string) {
	b.t.Helper()
	list := make([]store.NewEvent, len(types))
	for i, eventType := range types {
		list[i] = store.NewEvent{Source: "stripe", EventID: fmt.Sprintf("evt_%s_%d", entity, i), Type: eventType, Entity: entity,
			Job: account.JobSync, Payload: `{}`, ReceivedAt: time.Now()}
	}
	if _, err := b.store.AddEvents(b.t.Context(), list, 0); err != nil {
		b.t.Fatal(err)
	}
}

// rows reads a column past the store.
func (b *bench) rows(sql string, args ...any) []string {
	b.t.Helper()
	conn, err := pgx.Connect(b.t.Context(), b.dsn)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(b.t.Context())) }()
	rows, _ := conn.Query(b.t.Context(), sql, args...)
	values, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		b.t.Fatal(err)
	}
	return values
}

// is compares a column with what it has to hold.
func (b *bench) is(want []string, sql string, args ...any) {
	b.t.Helper()
	if got := b.rows(sql, args...); !slices.Equal(got, want) {
		b.t.Errorf("%s\nis   %q\nwant %q", sql, got, want)
	}
}

const eventStates = `SELECT concat_ws(' ', type, status, reason) FROM webhook_events ORDER BY seq`

func pro(prices ...string) account.Product {
	p := account.Product{ID: "prod_1", Name: "Pro", Active: true}
	for _, id := range prices {
		p.Prices = append(p.Prices, account.Price{ID: id, ProductID: p.ID, Active: true, UnitAmount: 2000, Currency: "usd", Interval: "month", IntervalCount: 1})
	}
	return p
}

// A product that becomes known gives its plan to whoever bought it before, and one that is renamed
// is looked at again by those who have it.
func TestRecordProduct(t *testing.T) {
	t.Parallel()
	b := newBench(t, account.DeleteKeep)
	b.person("cus_1")
	sub := subscription("sub_1", "cus_1", account.StatusActive)
	sub.Items = []account.Item{{PriceID: "price_1", ProductID: "prod_1", Quantity: 1, Currency: "usd", Interval: "month", IntervalCount: 1}}
	b.stripe.put(sub)
	b.record("cus_1")
	plan := `SELECT coalesce((SELECT plan_name FROM plans WHERE id = plan_id), '') || ' ' || price_known FROM subscriptions`
	drift := `SELECT class FROM drift WHERE resolved_at IS NULL`
	b.is([]string{" false"}, plan)
	b.is([]string{"unknown_price"}, drift)
	b.is([]string{"product/prod_1"}, `SELECT entity FROM pokes WHERE entity LIKE 'product/%' AND due_at IS NOT NULL`)
	const routine = `SELECT entity || ' ' || urgent FROM pokes WHERE entity = 'customer/cus_1' AND due_at IS NOT NULL`

	product := func(want activities.ProductResult) {
		t.Helper()
		got, err := b.catalogue.RecordProduct(t.Context(), activities.ProductInput{ProductID: "prod_1"})
		if err != nil || got != want {
			t.Errorf("recorded %+v, %v, want %+v", got, err, want)
		}
	}
	b.stripe.products["prod_1"] = pro("price_0", "price_1")
	b.deliver("product/prod_1", "product.created", "price.created")
	product(activities.ProductResult{Outcome: activities.OutcomeSynced, Prices: 2, Affected: 1})
	b.is([]string{"customer/cus_1 false"}, routine) // however many have it, a checkout goes past them
	b.is([]string{"product.created completed", "price.created completed"}, eventStates)
	b.record("cus_1")
	b.is([]string{"Pro true"}, plan)
	b.is(nil, drift)
	product(activities.ProductResult{Outcome: activities.OutcomeSynced, Prices: 2})

	renamed := pro("price_0", "price_1")
	renamed.Name = "Premium"
	b.stripe.products["prod_1"] = renamed
	product(activities.ProductResult{Outcome: activities.OutcomeSynced, Prices: 2, Affected: 1})
	b.record("cus_1")
	b.is([]string{"Premium"}, `SELECT projection->>'plan' FROM person_user`)
}

// A product that the catalogue does not have is read although another item's is known: it may be
// what makes the plan.
func TestAnUnknownItemBesideAKnownOneIsAskedFor(t *testing.T) {
	t.Parallel()
	b := newBench(t, account.DeleteKeep)
	b.person("cus_1")
	b.stripe.products["prod_1"] = pro("price_1")
	if _, err := b.catalogue.RecordProduct(t.Context(), activities.ProductInput{ProductID: "prod_1"}); err != nil {
		t.Fatal(err)
	}
	sub := subscription("sub_1", "cus_1", account.StatusActive)
	sub.Items = []account.Item{{ID: "si_1", PriceID: "price_1", ProductID: "prod_1", Quantity: 1}, {ID: "si_2", PriceID: "price_2", ProductID: "prod_2", Quantity: 1}}
	b.stripe.put(sub)
	b.record("cus_1")
	b.is(nil, `SELECT class FROM drift WHERE resolved_at IS NULL`)
	b.is([]string{"product/prod_2"}, `SELECT entity FROM pokes WHERE entity LIKE 'product/%' AND due_at IS NOT NULL`)
}

// A product that Stripe does not know is drift that waits, unless its deletion is what was told:
// then its plan is not sold any more, and who has it keeps it.
func TestRecordProductThatIsGone(t *testing.T) {
	t.Parallel()
	b := newBench(t, account.DeleteKeep)
	record := func() activities.Outcome {
		t.Helper()
		result, err := b.catalogue.RecordProduct(t.Context(), activities.ProductInput{ProductID: "prod_1"})
		if err != nil {
			t.Fatal(err)
		}
		return result.Outcome
	}
	b.deliver("product/prod_1", "product.updated")
	if got := record(); got != activities.OutcomeMissing {
		t.Errorf("an unknown product is %s", got)
	}
	b.is([]string{"product.updated waiting Stripe does not know this product"}, eventStates)
	b.is(nil, `SELECT plan_name FROM plans`)
	b.stripe.products["prod_1"] = pro("price_1")
	record()
	delete(b.stripe.products, "prod_1")
	b.deliver("product/prod_1", "product.updated", "product.deleted")
	if got := record(); got != activities.OutcomeSynced {
		t.Errorf("a deleted product is %s", got)
	}
	b.is([]string{"Pro false 1"}, `SELECT concat_ws(' ', plan_name, active::text, (SELECT count(*) FROM plan_prices)) FROM plans`)
	b.is([]string{"product.updated completed", "product.deleted completed"}, eventStates)
}

// A dispute goes to the customer of the payment that we recorded; only an unknown charge is asked
// for, and one without a customer is nobody's.
func TestRouteDispute(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		recorded, shown string
		unknown         bool
		want            activities.RouteResult
		state           string
		entity          account.Entity
		asked           int
	}{
		"recorded":    {recorded: "cus_1", want: activities.RouteResult{CustomerID: "cus_1"}, state: "charge.dispute.created pending", entity: "customer/cus_1"},
		"shown":       {shown: "cus_2", want: activities.RouteResult{CustomerID: "cus_2"}, state: "charge.dispute.created pending", entity: "customer/cus_2", asked: 1},
		"of a guest":  {shown: "", state: "charge.dispute.created ignored no customer", entity: "charge/ch_1", asked: 1},
		"not to find": {unknown: true, state: "charge.dispute.created waiting Stripe does not know this charge", entity: "charge/ch_1", asked: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, account.DeleteKeep)
			if !c.unknown {
				b.stripe.charges["ch_1"] = c.shown
			}
			if c.recorded != "" {
				err := b.store.Update(t.Context(), "pay", store.Cause{}, func(ctx context.Context, tx *store.Tx) error {
					return tx.RecordPayment(ctx, account.Payment{ID: "pi_1", Kind: account.PaymentIntent, CustomerID: c.recorded, ChargeID: "ch_1", Status: "succeeded", Currency: "usd"}, "evt_1", time.Now())
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			b.deliver("charge/ch_1", "charge.dispute.created")
			for range 2 {
				got, err := b.disputes.RouteDispute(t.Context(), activities.ChargeInput{ChargeID: "ch_1"})
				if err != nil || got != c.want {
					t.Errorf("routed %+v, %v, want %+v", got, err, c.want)
				}
			}
			b.is([]string{c.state}, eventStates)
			b.is([]string{string(c.entity)}, `SELECT entity FROM webhook_events`)
			if b.stripe.asked != 2*c.asked {
				t.Errorf("Stripe was asked %d times", b.stripe.asked)
			}
			if c.want.CustomerID != "" {
				b.is([]string{string(c.entity)}, `SELECT entity FROM pokes WHERE due_at IS NOT NULL AND entity LIKE 'customer/%'`)
			}
		})
	}
}

// The deletion policy is applied to what would bill on and to nothing else, once; afterwards the
// user can be erased.
func TestStopBilling(t *testing.T) {
	t.Parallel()
	subscriptions := func(b *bench) {
		for id, status := range map[string]account.Status{"sub_active": account.StatusActive, "sub_unpaid": account.StatusUnpaid, "sub_over": account.StatusCanceled} {
			b.stripe.put(subscription(id, "cus_1", status))
		}
		managed := subscription("sub_managed", "cus_1", account.StatusActive)
		managed.ScheduleID = "sub_sched_1"
		b.stripe.put(managed)
		for id, status := range map[string]account.ScheduleStatus{"sub_sched_1": account.ScheduleActive, "sub_sched_2": account.ScheduleNotStarted, "sub_sched_3": account.ScheduleReleased} {
			b.stripe.schedules[id] = account.Schedule{ID: id, CustomerID: "cus_1", Status: status}
		}
	}
	for policy, want := range map[account.DeletionPolicy][]string{
		account.DeleteCancelAtPeriodEnd: {"at period end sub_active", "cancel sub_sched_2", "end with present phase sub_sched_1", "now sub_unpaid"},
		account.DeleteCancelNow:         {"cancel sub_sched_1", "cancel sub_sched_2", "now sub_active", "now sub_unpaid"},
		account.DeleteKeep:              nil,
	} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			b := newBench(t, policy)
			b.person("cus_1")
			subscriptions(b)
			b.record("cus_1")
			if result := b.record("cus_1"); result.StopDue {
				t.Error("something is to be stopped of somebody who stays")
			}
			b.deliver(account.UserEntity(ada), "user.deleted")
			if result := b.sync(); !result.Deleting {
				t.Fatalf("a signed deletion came to %+v", result)
			}
			erase := func() activities.EraseResult {
				result, err := b.users.EraseUser(t.Context(), activities.UserInput{ClerkUserID: ada})
				if err != nil {
					t.Fatal(err)
				}
				return result
			}
			if result := erase(); result.Erased || result.Unsettled != 1 {
				t.Errorf("before its customers were read again: %+v", result)
			}
			if result := b.record("cus_1"); result.StopDue != (want != nil) {
				t.Errorf("stop due: %t", result.StopDue)
			}
			for range 2 {
				if result, err := b.subscriptions.StopBilling(t.Context(), activities.RecordInput{CustomerID: "cus_1"}); err != nil || result.StopDue {
					t.Errorf("stopped: %+v, %v", result, err)
				}
			}
			slices.Sort(b.stripe.calls)
			if !slices.Equal(b.stripe.calls, want) {
				t.Errorf("Stripe was told %q, want %q", b.stripe.calls, want)
			}
			if result := erase(); !result.Erased {
				t.Errorf("after all was settled: %+v", result)
			}
			b.is([]string{"true true"}, `SELECT (deleted_at IS NOT NULL) || ' ' || (email IS NULL) FROM person_user`)
		})
	}
}

// Stripe refuses to end what has ended meanwhile: that is fine. Any other refusal is told, shows on
// the events, and keeps the user from being erased.
func TestStopBillingRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t, account.DeleteCancelNow)
	b.person("cus_1")
	b.stripe.put(subscription("sub_1", "cus_1", account.StatusActive))
	b.record("cus_1")
	b.deliver(account.UserEntity(ada), "user.deleted")
	b.sync()
	b.deliver("customer/cus_1", "customer.subscription.updated")
	refused := failure.New(failure.Permanent, "stripe", "cancel subscription", "not_allowed", nil)
	b.stripe.refuse = func(string) error { return refused }
	if _, err := b.subscriptions.StopBilling(t.Context(), activities.RecordInput{CustomerID: "cus_1"}); failure.CodeOf(err) != "not_allowed" {
		t.Errorf("a refusal was answered: %v", err)
	}
	b.is([]string{"user.deleted completed", "customer.subscription.updated failing permanent: not_allowed"}, eventStates)
	if result, err := b.users.EraseUser(t.Context(), activities.UserInput{ClerkUserID: ada}); err != nil || result.Erased {
		t.Errorf("erased although billing goes on: %+v, %v", result, err)
	}
	b.stripe.refuse = func(id string) error {
		ended := b.stripe.subscriptions[id]
		ended.Status = account.StatusCanceled
		b.stripe.subscriptions[id] = ended
		return refused
	}
	if result, err := b.subscriptions.StopBilling(t.Context(), activities.RecordInput{CustomerID: "cus_1"}); err != nil || result.StopDue {
		t.Errorf("what ended by itself: %+v, %v", result, err)
	}
	b.is([]string{"user.deleted completed", "customer.subscription.updated completed"}, eventStates)
	b.is([]string{"canceled"}, `SELECT status FROM subscriptions`)
}

// What one of the providers answers 404 for is drift: it is loud, waits, and changes nothing.
func TestMissingIsDrift(t *testing.T) {
	t.Parallel()
	b := newBench(t, account.DeleteCancelNow)
	b.person("cus_1")
	b.stripe.put(subscription("sub_1", "cus_1", account.StatusActive))
	b.record("cus_1")
	state := `SELECT concat_ws(' ', projection->>'status', projection->>'subscriptionActive', deletion_requested_at) FROM person_user`
	before := b.rows(state)

	delete(b.stripe.subscriptions, "sub_1")
	b.record("cus_1")
	b.is([]string{"subscription_missing_in_stripe"}, `SELECT class FROM drift WHERE resolved_at IS NULL AND class <> 'unknown_price'`)
	delete(b.stripe.customers, "cus_1")
	b.deliver("customer/cus_1", "customer.updated")
	if result := b.record("cus_1"); result.Outcome != activities.OutcomeMissing {
		t.Errorf("a customer that is gone is %s", result.Outcome)
	}
	delete(b.clerk.users, ada)
	b.deliver(account.UserEntity(ada), "user.updated")
	if result := b.sync(); result.Outcome != activities.OutcomeMissing || result.Deleting {
		t.Errorf("a user that Clerk does not know came to %+v", result)
	}
	b.is([]string{"customer_missing_in_stripe", "subscription_missing_in_stripe", "user_missing_in_clerk"}, `SELECT class FROM drift WHERE resolved_at IS NULL AND class <> 'unknown_price' ORDER BY 1`)
	b.is([]string{"customer.updated waiting Stripe does not know this customer", "user.updated waiting Clerk does not know this user"}, eventStates)
	b.is(before, state)

	// When they are back, all is as it was and nothing is loud any more.
	b.stripe.customers["cus_1"] = account.Customer{ID: "cus_1", Metadata: map[string]string{"clerk_user_id": ada}}
	b.stripe.put(subscription("sub_1", "cus_1", account.StatusActive))
	b.clerk.users[ada] = account.User{ID: ada, FirstName: "Ada", Email: "ada@example.com", EmailVerified: true}
	b.record("cus_1")
	b.sync()
	b.is([]string{"customer.updated completed", "user.updated completed"}, eventStates)
	b.is(nil, `SELECT class FROM drift WHERE resolved_at IS NULL AND class <> 'unknown_price'`)
	b.is(before, state)
}
