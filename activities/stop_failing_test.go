package activities_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// troubled is a Stripe some of whose reads fail.
type troubled struct {
	*stoppable
	// trouble answers why a read fails, nil where it does not; id is what is read, or of which
	// customer.
	trouble func(ctx context.Context, read, id string) error
}

const (
	listSubscriptions = "list subscriptions"
	readSubscription  = "read subscription"
	listSchedules     = "list schedules"
	readSchedule      = "read schedule"
)

func (s troubled) CustomerSubscriptions(ctx context.Context, id string) ([]account.Subscription, *account.Customer, error) {
	if err := s.trouble(ctx, listSubscriptions, id); err != nil {
		return nil, nil, err
	}
	return s.stoppable.CustomerSubscriptions(ctx, id)
}

func (s troubled) Subscription(ctx context.Context, id string) (account.Subscription, error) {
	if err := s.trouble(ctx, readSubscription, id); err != nil {
		return account.Subscription{}, err
	}
	return s.stoppable.Subscription(ctx, id)
}

func (s troubled) CustomerSchedules(ctx context.Context, id string) ([]account.Schedule, error) {
	if err := s.trouble(ctx, listSchedules, id); err != nil {
		return nil, err
	}
	return s.stoppable.CustomerSchedules(ctx, id)
}

func (s troubled) Schedule(ctx context.Context, id string) (account.Schedule, error) {
	if err := s.trouble(ctx, readSchedule, id); err != nil {
		return account.Schedule{}, err
	}
	return s.stoppable.Schedule(ctx, id)
}

// fails has some of Stripe's reads fail.
func (b *bench) fails(class failure.Class, failing ...string) {
	b.troubles(func(_ context.Context, read, _ string) error {
		if slices.Contains(failing, read) {
			return failure.New(class, "stripe", read, "unreadable", nil)
		}
		return nil
	})
}

func (b *bench) troubles(trouble func(ctx context.Context, read, id string) error) {
	b.subscriptions.Stripe = troubled{b.stripe, trouble}
}

// executes runs a statement past the store.
func (b *bench) executes(sql string) {
	b.t.Helper()
	conn, err := pgx.Connect(b.t.Context(), b.dsn)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(b.t.Context())) }()
	if _, err := conn.Exec(b.t.Context(), sql); err != nil {
		b.t.Fatal(err)
	}
}

// deleting has the person's deletion be asked for.
func (b *bench) deleting() {
	b.t.Helper()
	b.deliver(account.UserEntity(ada), "user.deleted")
	if result := b.sync(); !result.Deleting {
		b.t.Fatalf("the deletion came to %+v", result)
	}
}

// begins puts a schedule at Stripe that begins in ten days.
func (b *bench) begins(id string) account.Schedule {
	b.stripe.schedules[id] = account.Schedule{ID: id, CustomerID: "cus_1", Status: account.ScheduleNotStarted,
		Phases: []account.Phase{{Start: time.Now().Add(240 * time.Hour), End: time.Now().Add(480 * time.Hour)}}}
	return b.stripe.schedules[id]
}

// stopped compares what Stripe was asked to end, each once, with what has to be.
func (b *bench) stopped(want ...string) {
	b.t.Helper()
	slices.Sort(b.stripe.calls)
	if !slices.Equal(b.stripe.calls, want) {
		b.t.Errorf("Stripe was asked for %q, want %q", b.stripe.calls, want)
	}
}

// looks does what the customer's workflow does, and answers how it ended.
func (b *bench) looks() error {
	result, err := b.subscriptions.RecordSubscriptions(b.t.Context(), activities.RecordInput{CustomerID: "cus_1"})
	if err == nil && result.StopDue {
		_, err = b.subscriptions.StopBilling(b.t.Context(), activities.RecordInput{CustomerID: "cus_1"})
	}
	return err
}

// unlisted is a Stripe that lists no customer's subscriptions.
type unlisted struct{ *stoppable }

func (unlisted) CustomerSubscriptions(context.Context, string) ([]account.Subscription, *account.Customer, error) {
	return nil, nil, failure.New(failure.Transient, "stripe", "list subscriptions", "http_500", nil)
}

// Who is deleted is not billed on because their customer cannot be read. Who stays is left alone.
func TestACustomerWhoCannotBeReadIsNotBilledOn(t *testing.T) {
	t.Parallel()
	for name, deleted := range map[string]bool{"deleted": true, "who stays": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, account.DeleteCancelAtPeriodEnd)
			b.stripe.put(subscription("sub_1", "cus_1", account.StatusActive))
			b.person("cus_1")
			if deleted {
				b.rows(`UPDATE person_user SET deletion_requested_at = now(), deletion_seq = nextval('sync_seq') RETURNING ''`)
			}
			b.subscriptions.Stripe = unlisted{b.stripe}
			for range 2 {
				_, err := b.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: "cus_1"})
				if failure.Of(err) != failure.Transient {
					t.Errorf("the read ended with %v", err)
				}
			}
			var want []string
			if deleted {
				want = []string{"at period end sub_1"}
			}
			if !slices.Equal(b.stripe.calls, want) {
				t.Errorf("Stripe was asked for %v, want %v", b.stripe.calls, want)
			}
			b.subscriptions.Stripe = b.stripe
			b.record("cus_1")
			b.is([]string{map[bool]string{true: "true", false: "false"}[deleted]}, `SELECT cancel_at_period_end::text FROM subscriptions`)
		})
	}
}

// Whoever holds the customer, and whatever it fails of: who is deleted is not billed on, and no
// schedule of theirs begins. Who stays is left alone.
func TestWhoeverHoldsACustomerStopsWhatBillsADeletedUser(t *testing.T) {
	t.Parallel()
	command := activities.CommandInput{OperationID: "op_abcdefghijklmnopqrstuvwx", CustomerID: "cus_1"}
	look := activities.RecordInput{CustomerID: "cus_1"}
	holders := map[string]func(context.Context, *bench, *activities.Commands) error{
		"RecordSubscriptions": func(ctx context.Context, b *bench, _ *activities.Commands) error {
			_, err := b.subscriptions.RecordSubscriptions(ctx, look)
			return err
		},
		"StopBilling": func(ctx context.Context, b *bench, _ *activities.Commands) error {
			_, err := b.subscriptions.StopBilling(ctx, look)
			return err
		},
		"ApplyCommand": func(ctx context.Context, _ *bench, c *activities.Commands) error {
			_, err := c.ApplyCommand(ctx, command)
			return err
		},
		"UndoCommand": func(ctx context.Context, _ *bench, c *activities.Commands) error {
			_, err := c.UndoCommand(ctx, command)
			return err
		},
	}
	ways := map[string]func(b *bench){
		"Stripe lists nothing for a while": func(b *bench) { b.fails(failure.Transient, listSubscriptions) },
		"Stripe lists nothing for good":    func(b *bench) { b.fails(failure.Permanent, listSubscriptions) },
		"Stripe does not let us list":      func(b *bench) { b.fails(failure.Operator, listSubscriptions) },
		"Stripe shows no subscription":     func(b *bench) { b.fails(failure.Transient, listSubscriptions, readSubscription) },
		"the time runs out": func(b *bench) {
			b.troubles(func(ctx context.Context, read, _ string) error {
				if until, bounded := ctx.Deadline(); read == listSubscriptions && bounded && time.Until(until) < 10*time.Second {
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			})
		},
		"the list makes it panic": func(b *bench) {
			b.troubles(func(_ context.Context, read, _ string) error {
				if read == listSubscriptions {
					panic("a list that nobody expects")
				}
				return nil
			})
		},
		"PostgreSQL gives no number":    func(b *bench) { b.executes(`ALTER SEQUENCE sync_seq RENAME TO gone_seq`) },
		"PostgreSQL refuses an attempt": func(b *bench) { b.executes(`ALTER TABLE webhook_events RENAME TO gone_events`) },
	}
	for holder, hold := range holders {
		for way, fail := range ways {
			for _, deleted := range []bool{true, false} {
				if !deleted && holder == "StopBilling" {
					continue // it is for who is deleted
				}
				t.Run(fmt.Sprintf("%s, %s, deleted %t", holder, way, deleted), func(t *testing.T) {
					t.Parallel()
					b := newBench(t, account.DeleteCancelAtPeriodEnd)
					sub := subscription("sub_1", "cus_1", account.StatusActive)
					sub.CancelAtPeriodEnd, sub.CancelAt = true, sub.CurrentPeriodEnd
					b.stripe.put(sub)
					b.person("cus_1")
					op, _, err := b.store.BeginOperation(t.Context(), store.NewOperation{ID: command.OperationID, RequestHash: []byte{1}, Caller: ada, Lifetime: time.Hour,
						Action: store.ActionReactivate, ClerkUserID: ada, Entity: "customer/cus_1", SubscriptionID: "sub_1"})
					if err != nil {
						t.Fatal(err)
					}
					commands := &activities.Commands{Subscriptions: b.subscriptions}
					if holder == "UndoCommand" {
						if result, err := commands.ApplyCommand(t.Context(), command); err != nil || !result.Recorded {
							t.Fatalf("%s came to %+v, %v", op.ID, result, err)
						}
					} else {
						sub.CancelAtPeriodEnd, sub.CancelAt = false, time.Time{}
						b.stripe.put(sub)
						b.record("cus_1")
					}
					b.begins("sub_sched_1")
					if deleted {
						b.deleting()
					}
					b.stripe.calls = nil
					fail(b)
					ctx, done := context.WithTimeout(t.Context(), 300*time.Millisecond)
					if way != "the time runs out" {
						ctx, done = context.WithCancel(t.Context())
					}
					defer done()
					for range 2 {
						err := survived(func() error { return hold(ctx, b, commands) })
						// A command that was not begun ends by what is refused for good.
						if gaveUp := holder == "ApplyCommand" && strings.HasSuffix(way, "for good"); gaveUp != (err == nil) {
							t.Errorf("it ended with %v", err)
						}
					}
					if strings.HasSuffix(way, "no subscription") {
						slices.Sort(b.stripe.calls) // whether the first attempt has done it nobody can tell the second
						b.stripe.calls = slices.Compact(b.stripe.calls)
					}
					if deleted {
						b.stopped("at period end sub_1", "cancel sub_sched_1")
					} else {
						b.stopped()
					}
				})
			}
		}
	}
}

// survived answers a panic as an error.
func survived(do func() error) (err error) {
	defer func() {
		if what := recover(); what != nil {
			err = fmt.Errorf("panic: %v", what)
		}
	}()
	return do()
}

// An attempt that is cancelled has stopped nothing: another one begins at once, or nobody wants it
// any more.
func TestACancelledAttemptStopsNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, account.DeleteCancelAtPeriodEnd)
	b.stripe.put(subscription("sub_1", "cus_1", account.StatusActive))
	b.person("cus_1")
	b.deleting()
	ctx, cancel := context.WithCancel(t.Context())
	b.troubles(func(ctx context.Context, _, _ string) error {
		cancel()
		return ctx.Err()
	})
	if _, err := b.subscriptions.RecordSubscriptions(ctx, activities.RecordInput{CustomerID: "cus_1"}); err == nil {
		t.Error("it did not fail")
	}
	b.stopped()
}

// A table of ours, or the product's own constraint on it, refuses what a read shows. Neither what
// was bought just now, of which nothing is stored, nor anything else is billed on.
func TestWhatCannotBeStoredIsNotBilledOn(t *testing.T) {
	t.Parallel()
	tables := newBench(t, account.DeleteKeep).rows(`SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1`)
	if len(tables) < 10 {
		t.Fatalf("the tables are %q", tables)
	}
	for _, table := range tables {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, account.DeleteCancelAtPeriodEnd)
			b.stripe.put(subscription("sub_1", "cus_1", account.StatusActive))
			b.person("cus_1")
			b.stripe.put(subscription("sub_2", "cus_1", account.StatusActive))
			b.begins("sub_sched_1")
			b.deleting()
			b.deliver("customer/cus_1", "customer.subscription.created")
			b.executes(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = '23514', MESSAGE = 'no'; END $$`)
			b.executes(`CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON ` + pgx.Identifier{table}.Sanitize() + ` FOR EACH ROW EXECUTE FUNCTION refuse()`)
			for range 2 {
				err := b.looks()
				if slices.Contains([]string{"subscriptions", "stripe_customers"}, table) && failure.Of(err) != failure.Permanent {
					t.Errorf("the refusal came to %v", err)
				}
			}
			b.stopped("at period end sub_1", "at period end sub_2", "cancel sub_sched_1")
		})
	}
}

// A value of one subscription is refused by the product's own constraint. That one and the other
// are stopped, and nobody is erased.
func TestOneRowThatCannotBeStoredKeepsNothingBilled(t *testing.T) {
	t.Parallel()
	b := newBench(t, account.DeleteCancelAtPeriodEnd)
	for _, id := range []string{"sub_1", "sub_2"} {
		b.stripe.put(subscription(id, "cus_1", account.StatusActive))
	}
	b.person("cus_1")
	b.executes(`ALTER TABLE subscriptions ADD CONSTRAINT few CHECK (quantity < 5)`)
	many := subscription("sub_2", "cus_1", account.StatusActive)
	many.Items[0].Quantity = 7
	b.stripe.put(many)
	b.deleting()
	for range 3 {
		if err := b.looks(); failure.Of(err) != failure.Permanent || failure.ProviderOf(err) != "postgres" {
			t.Errorf("the look ended with %v", err)
		}
	}
	b.stopped("at period end sub_1", "at period end sub_2")
	if result, err := b.users.EraseUser(t.Context(), activities.UserInput{ClerkUserID: ada}); err != nil || result.Erased {
		t.Errorf("erased though nothing is stored of the end: %+v, %v", result, err)
	}
}

// How a subscription is stored may be what could not be stored: one that has been made to renew
// since, or that Stripe collects on by now, is stopped by what it is.
func TestWhatIsStoredIsNotBelievedOfWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		now  account.Status
		want string
	}{
		"renews": {account.StatusActive, "at period end sub_1"},
		"unpaid": {account.StatusUnpaid, "now sub_1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, account.DeleteCancelAtPeriodEnd)
			sub := subscription("sub_1", "cus_1", account.StatusActive)
			sub.CancelAtPeriodEnd, sub.CancelAt = true, sub.CurrentPeriodEnd
			b.stripe.put(sub)
			b.person("cus_1")
			b.deleting()
			b.stripe.put(subscription("sub_1", "cus_1", c.now))
			b.fails(failure.Transient, listSubscriptions)
			for range 2 {
				if err := b.looks(); failure.Of(err) != failure.Transient {
					t.Errorf("the look ended with %v", err)
				}
			}
			b.stopped(c.want)
		})
	}
}

// The lists fail. What is known otherwise of what bills, or will, takes their place.
func TestWhatIsKnownOtherwiseIsStoppedWhereListsFail(t *testing.T) {
	t.Parallel()
	schedule := func(b *bench) { b.begins("sub_sched_1") }
	stored := func(b *bench) {
		held := b.begins("sub_sched_1")
		err := b.store.Update(b.t.Context(), "tell", store.Cause{}, func(ctx context.Context, tx *store.Tx) error { return tx.RecordSchedules(ctx, held) })
		if err != nil {
			b.t.Fatal(err)
		}
	}
	tells := func(b *bench, eventType string, object map[string]any) {
		payload, err := json.Marshal(map[string]any{"id": "evt_told", "type": eventType, "data": map[string]any{"object": object}})
		if err != nil {
			b.t.Fatal(err)
		}
		if _, err := b.store.AddEvents(b.t.Context(), []store.NewEvent{{Source: "stripe", EventID: "evt_told", Type: eventType, Entity: "customer/cus_1",
			Job: account.JobSync, Payload: string(payload), ReceivedAt: time.Now()}}, 0); err != nil {
			b.t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		make    func(b *bench)
		failing []string
		want    []string
	}{
		"a schedule that is listed, and no subscription is":         {schedule, []string{listSubscriptions}, []string{"cancel sub_sched_1"}},
		"a schedule that is stored, and none is listed":             {stored, []string{listSchedules}, []string{"cancel sub_sched_1"}},
		"a schedule that is stored, and cannot be read, and is far": {stored, []string{listSubscriptions, readSubscription, listSchedules, readSchedule}, []string{"cancel sub_sched_1"}},
		"a schedule that is stored as not begun and has begun": {func(b *bench) {
			stored(b)
			begun := b.stripe.schedules["sub_sched_1"]
			begun.Status, begun.SubscriptionID = account.ScheduleActive, "sub_2"
			b.stripe.schedules["sub_sched_1"] = begun
			managed := subscription("sub_2", "cus_1", account.StatusActive)
			managed.ScheduleID = "sub_sched_1"
			b.stripe.put(managed)
		}, []string{listSubscriptions, listSchedules}, []string{"end with present phase sub_sched_1"}},
		"a schedule that an event tells of": {func(b *bench) {
			b.begins("sub_sched_1")
			tells(b, "subscription_schedule.created", map[string]any{"object": "subscription_schedule", "id": "sub_sched_1", "customer": "cus_1", "status": "not_started"})
		}, []string{listSchedules}, []string{"cancel sub_sched_1"}},
		"a subscription that an event tells of": {func(b *bench) {
			b.stripe.put(subscription("sub_2", "cus_1", account.StatusActive))
			tells(b, "customer.subscription.created", map[string]any{"object": "subscription", "id": "sub_2", "customer": "cus_1"})
		}, []string{listSubscriptions}, []string{"at period end sub_2"}},
		"a subscription that an event tells of, and cannot be read": {func(b *bench) {
			b.stripe.put(subscription("sub_2", "cus_1", account.StatusActive))
			tells(b, "customer.subscription.created", map[string]any{"object": "subscription", "id": "sub_2", "customer": "cus_1", "status": "active"})
		}, []string{listSubscriptions, readSubscription}, []string{"at period end sub_2"}},
		"a subscription that a schedule manages, as an event tells, and cannot be read": {func(b *bench) {
			b.stripe.put(subscription("sub_2", "cus_1", account.StatusActive))
			tells(b, "customer.subscription.updated", map[string]any{"object": "subscription", "id": "sub_2", "customer": "cus_1", "status": "active",
				"schedule": "sub_sched_2", "current_period_end": 1900000000})
		}, []string{listSubscriptions, readSubscription}, []string{"end with present phase sub_sched_2"}},
		// It may be paid for by now, and would be ended at once.
		"a subscription that owed as an event tells, and cannot be read": {func(b *bench) {
			b.stripe.put(subscription("sub_2", "cus_1", account.StatusActive))
			tells(b, "customer.subscription.updated", map[string]any{"object": "subscription", "id": "sub_2", "customer": "cus_1", "status": "past_due"})
		}, []string{listSubscriptions, readSubscription}, nil},
		"a subscription of somebody else that an event tells of, and cannot be read": {func(b *bench) {
			tells(b, "customer.subscription.created", map[string]any{"object": "subscription", "id": "sub_2", "customer": "cus_2", "status": "active"})
		}, []string{listSubscriptions, readSubscription}, nil},
		"a schedule that an event tells of, and cannot be read, and is far": {func(b *bench) {
			begins := b.begins("sub_sched_1").Begins().Unix()
			tells(b, "subscription_schedule.created", map[string]any{"object": "subscription_schedule", "id": "sub_sched_1", "customer": "cus_1", "status": "not_started",
				"phases": []any{map[string]any{"start_date": begins, "end_date": begins + 86400}}})
		}, []string{listSubscriptions, listSchedules, readSchedule}, []string{"cancel sub_sched_1"}},
		"a schedule that an event tells of, and cannot be read, and may have begun": {func(b *bench) {
			b.begins("sub_sched_1")
			begins := time.Now().Add(time.Minute).Unix()
			tells(b, "subscription_schedule.created", map[string]any{"object": "subscription_schedule", "id": "sub_sched_1", "customer": "cus_1", "status": "not_started",
				"phases": []any{map[string]any{"start_date": begins, "end_date": begins + 86400}}})
		}, []string{listSubscriptions, listSchedules, readSchedule}, nil},
		"a subscription that a checkout has begun": {func(b *bench) {
			b.stripe.put(subscription("sub_2", "cus_1", account.StatusActive))
			tells(b, "checkout.session.completed", map[string]any{"object": "checkout.session", "id": "cs_2", "customer": "cus_1", "subscription": "sub_2"})
		}, []string{listSubscriptions}, []string{"at period end sub_2"}},
		"a subscription that an invoice is of": {func(b *bench) {
			b.stripe.put(subscription("sub_2", "cus_1", account.StatusActive))
			tells(b, "invoice.paid", map[string]any{"object": "invoice", "id": "in_2", "customer": "cus_1", "subscription": "sub_2", "status": "paid"})
		}, []string{listSubscriptions}, []string{"at period end sub_2"}},
		"a subscription of somebody else that an event tells of": {func(b *bench) {
			b.stripe.put(subscription("sub_2", "cus_2", account.StatusActive))
			tells(b, "customer.subscription.created", map[string]any{"object": "subscription", "id": "sub_2", "customer": "cus_1"})
		}, []string{listSubscriptions}, nil},
		"a subscription that is listed, and no schedule is": {func(b *bench) {
			b.stripe.put(subscription("sub_2", "cus_1", account.StatusActive))
		}, []string{listSchedules}, []string{"at period end sub_2"}},
		"a subscription that is listed, and cannot be read": {func(b *bench) {
			b.stripe.put(subscription("sub_2", "cus_1", account.StatusActive))
		}, []string{readSubscription, listSchedules}, []string{"at period end sub_2"}},
	} {
		for _, class := range []failure.Class{failure.Transient, failure.Permanent} {
			t.Run(name+", "+string(class), func(t *testing.T) {
				t.Parallel()
				b := newBench(t, account.DeleteCancelAtPeriodEnd)
				b.stripe.put(subscription("sub_1", "cus_1", account.StatusActive))
				b.person("cus_1")
				b.deleting()
				c.make(b)
				b.fails(class, c.failing...)
				if err := b.looks(); failure.Of(err) != class {
					t.Errorf("the look ended with %v", err)
				}
				b.stopped(append([]string{"at period end sub_1"}, c.want...)...)
			})
		}
	}
}

// One that cannot be stopped, or read, keeps nothing else from being stopped, while the customer
// cannot be stored.
func TestOneRefusalKeepsNothingElseRunningWhereAnAttemptFails(t *testing.T) {
	t.Parallel()
	for _, refused := range []string{"sub_1", "sub_2", "sub_3"} {
		t.Run(refused, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, account.DeleteCancelAtPeriodEnd)
			for _, id := range []string{"sub_1", "sub_2"} {
				b.stripe.put(subscription(id, "cus_1", account.StatusActive))
			}
			b.person("cus_1")
			b.stripe.put(subscription("sub_3", "cus_1", account.StatusActive))
			b.begins("sub_sched_1")
			b.deleting()
			b.executes(`ALTER TABLE subscriptions ADD CONSTRAINT few CHECK (quantity < 0) NOT VALID`)
			b.stripe.refuse = func(id string) error {
				if id == refused {
					return failure.New(failure.Transient, "stripe", "end", "busy", nil)
				}
				return nil
			}
			if err := b.looks(); failure.Of(err) != failure.Transient {
				t.Errorf("the look ended with %v: what could not be stopped has to be tried again", err)
			}
			b.stopped("at period end sub_1", "at period end sub_2", "at period end sub_3", "cancel sub_sched_1")
			b.stripe.refuse, b.stripe.calls = nil, nil
			if err := b.looks(); failure.Of(err) != failure.Permanent {
				t.Errorf("the second look ended with %v", err)
			}
			b.stopped("at period end " + refused)
		})
	}
}

// A customer who could not be linked to a user who is being deleted is theirs by what is known of
// it.
func TestWhatCannotBeLinkedToADeletedUserIsNotBilledOn(t *testing.T) {
	t.Parallel()
	b := newBench(t, account.DeleteCancelAtPeriodEnd)
	b.person()
	b.deleting()
	b.stripe.customers["cus_1"] = account.Customer{ID: "cus_1", Created: time.Unix(1_700_000_000, 0), Metadata: map[string]string{"clerk_user_id": ada}}
	b.stripe.put(subscription("sub_1", "cus_1", account.StatusActive))
	b.executes(`ALTER TABLE stripe_customers ADD CONSTRAINT free CHECK (user_id IS NULL)`)
	for range 2 {
		if err := b.looks(); failure.Of(err) != failure.Permanent {
			t.Errorf("the look ended with %v", err)
		}
	}
	b.stopped("at period end sub_1")
}

// So is one who is theirs by the address alone that they had verified, where that is on, also when
// they are erased; and no other is.
func TestWhatCannotBeLinkedByTheAddressOfADeletedUserIsNotBilledOn(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{true, false} {
		t.Run(fmt.Sprint(on), func(t *testing.T) {
			t.Parallel()
			b := newBench(t, account.DeleteCancelAtPeriodEnd)
			b.subscriptions.Policy.LinkByEmail = on
			b.person()
			b.deleting()
			b.stripe.customers["cus_1"] = account.Customer{ID: "cus_1", Email: "ada@example.com", Created: time.Unix(1_700_000_000, 0)}
			b.stripe.put(subscription("sub_1", "cus_1", account.StatusActive))
			b.executes(`ALTER TABLE stripe_customers ADD CONSTRAINT free CHECK (user_id IS NULL)`)
			for range 2 {
				if err := b.looks(); on && failure.Of(err) != failure.Permanent || !on && err != nil {
					t.Errorf("the look ended with %v", err)
				}
			}
			if on {
				b.stopped("at period end sub_1")
			} else {
				b.stopped()
			}
		})
	}
}

// A step that cannot be taken back shows on what it holds up.
func TestAnUndoThatCannotReadIsShown(t *testing.T) {
	t.Parallel()
	b := newBench(t, account.DeleteCancelAtPeriodEnd)
	sub := subscription("sub_1", "cus_1", account.StatusActive)
	sub.CancelAtPeriodEnd, sub.CancelAt = true, sub.CurrentPeriodEnd
	b.stripe.put(sub)
	b.person("cus_1")
	command := activities.CommandInput{OperationID: "op_abcdefghijklmnopqrstuvwx", CustomerID: "cus_1"}
	if _, _, err := b.store.BeginOperation(t.Context(), store.NewOperation{ID: command.OperationID, RequestHash: []byte{1}, Caller: ada, Lifetime: time.Hour,
		Action: store.ActionReactivate, ClerkUserID: ada, Entity: "customer/cus_1", SubscriptionID: "sub_1"}); err != nil {
		t.Fatal(err)
	}
	commands := &activities.Commands{Subscriptions: b.subscriptions}
	if result, err := commands.ApplyCommand(t.Context(), command); err != nil || !result.Recorded {
		t.Fatalf("%+v, %v", result, err)
	}
	b.deliver("customer/cus_1", "customer.updated")
	b.fails(failure.Permanent, listSubscriptions)
	if _, err := commands.UndoCommand(t.Context(), command); failure.Of(err) != failure.Permanent {
		t.Errorf("the undo ended with %v", err)
	}
	b.is([]string{"customer.updated failing permanent: unreadable"}, eventStates)
}

// listedInPart is a Stripe that does not list the items of a subscription.
type listedInPart struct {
	troubled
	id string
}

func (s listedInPart) CustomerSubscriptions(ctx context.Context, id string) ([]account.Subscription, *account.Customer, error) {
	list, customer, err := s.troubled.CustomerSubscriptions(ctx, id)
	for i, shown := range list {
		if shown.ID == s.id {
			list[i].Items, list[i].Unread = nil, true
		}
	}
	return list, customer, err
}

// shownInPart is one whose list fails with something beside that, or that shows the subscription by
// itself, without its items.
type shownInPart struct {
	listedInPart
	fails      error
	readInPart bool
}

func (s shownInPart) CustomerSubscriptions(ctx context.Context, id string) ([]account.Subscription, *account.Customer, error) {
	list, customer, err := s.listedInPart.CustomerSubscriptions(ctx, id)
	return list, customer, cmp.Or(err, s.fails)
}

func (s shownInPart) Subscription(ctx context.Context, id string) (account.Subscription, error) {
	shown, err := s.troubled.Subscription(ctx, id)
	if id == s.id && s.readInPart {
		shown, _ = s.stoppable.Subscription(ctx, id)
		shown.Items, shown.Unread = nil, true
	}
	return shown, err
}

// Of a subscription whose items cannot be listed the list may be behind: it is read by itself
// before it is stopped.
func TestWhatIsListedInPartIsReadBeforeItIsStopped(t *testing.T) {
	t.Parallel()
	b := newBench(t, account.DeleteCancelAtPeriodEnd)
	b.person("cus_1")
	b.deleting()
	managed := subscription("sub_managed", "cus_1", account.StatusActive)
	managed.ScheduleID = "sub_sched_1"
	b.stripe.put(managed)
	b.stripe.schedules = map[string]account.Schedule{"sub_sched_1": {ID: "sub_sched_1", CustomerID: "cus_1", SubscriptionID: "sub_managed", Status: account.ScheduleActive}}
	b.executes(`ALTER TABLE subscriptions ADD CONSTRAINT unmanaged CHECK (stripe_subscription_id <> 'sub_managed')`) // so that none is stored
	b.fails(failure.Transient, listSchedules)
	b.subscriptions.Stripe = listedInPart{b.subscriptions.Stripe.(troubled), "sub_managed"}
	if err := b.looks(); err == nil {
		t.Fatal("it was stored")
	}
	b.stopped("end with present phase sub_sched_1")
}

// A checkout of a deleted user has completed late, and its items cannot be read, in a list or by
// themselves: what is shown of it all the same says how it is stopped. So it is whatever else the
// list fails of, and whatever is stored of it.
func TestWhatIsShownInPartIsStopped(t *testing.T) {
	t.Parallel()
	with := func(change func(*account.Subscription)) account.Subscription {
		late := subscription("sub_late", "cus_1", account.StatusActive)
		change(&late)
		return late
	}
	lates := map[string]struct {
		late account.Subscription
		want []string
	}{
		"renews":                    {with(func(*account.Subscription) {}), []string{"at period end sub_late"}},
		"in trial":                  {with(func(s *account.Subscription) { s.Status = account.StatusTrialing }), []string{"at period end sub_late"}},
		"owes":                      {with(func(s *account.Subscription) { s.Status = account.StatusUnpaid }), []string{"now sub_late"}},
		"managed":                   {with(func(s *account.Subscription) { s.ScheduleID = "sub_sched_1" }), []string{"end with present phase sub_sched_1"}},
		"ends after another period": {with(func(s *account.Subscription) { s.CancelAt = s.CurrentPeriodEnd.Add(time.Hour) }), []string{"at period end sub_late"}},
		"ends with its period":      {with(func(s *account.Subscription) { s.CancelAtPeriodEnd = true }), nil},
		"ended":                     {with(func(s *account.Subscription) { s.Status = account.StatusCanceled }), nil},
	}
	ways := map[string]struct {
		fails      error
		readInPart bool
	}{
		"which nothing else fails of":      {},
		"which is not let to list more":    {fails: failure.New(failure.Operator, "stripe", listSubscriptions, "http_403", nil)},
		"which is asked too often":         {fails: failure.New(failure.Throttled, "stripe", listSubscriptions, "http_429", nil)},
		"which shows the rest when it can": {readInPart: true},
	}
	for state, c := range lates {
		for way, stripe := range ways {
			for _, stored := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, in a list %s, stored %t", state, way, stored), func(t *testing.T) {
					t.Parallel()
					b := newBench(t, account.DeleteCancelAtPeriodEnd)
					if stored { // as one that nothing has to be done about
						b.stripe.put(with(func(s *account.Subscription) { s.CancelAtPeriodEnd = true }))
					}
					b.person("cus_1")
					b.deleting()
					b.stripe.put(c.late)
					b.troubles(func(_ context.Context, read, id string) error {
						if read == readSubscription && id == "sub_late" {
							return failure.New(failure.Transient, "stripe", read, "http_500", nil)
						}
						return nil
					})
					b.subscriptions.Stripe = shownInPart{listedInPart{b.subscriptions.Stripe.(troubled), "sub_late"}, stripe.fails, stripe.readInPart}
					for range 3 {
						if err := b.looks(); err == nil {
							t.Error("it was read")
						}
					}
					b.stopped(c.want...)
				})
			}
		}
	}
}

// What is told of what cannot be read, and is in no list: a subscription of which all but the items
// is shown.
func TestWhatIsToldOfAndReadInPartIsStopped(t *testing.T) {
	t.Parallel()
	b := newBench(t, account.DeleteCancelAtPeriodEnd)
	b.person("cus_1")
	b.deleting()
	b.stripe.put(subscription("sub_late", "cus_1", account.StatusUnpaid))
	if _, err := b.store.AddEvents(t.Context(), []store.NewEvent{{Source: "stripe", EventID: "evt_told", Type: "customer.subscription.created", Entity: "customer/cus_1",
		Job: account.JobSync, Payload: `{"id":"evt_told","type":"customer.subscription.created","data":{"object":{"object":"subscription","id":"sub_late","customer":"cus_1"}}}`,
		ReceivedAt: time.Now()}}, 0); err != nil {
		t.Fatal(err)
	}
	b.fails(failure.Transient, listSubscriptions, readSubscription)
	b.subscriptions.Stripe = shownInPart{listedInPart{b.subscriptions.Stripe.(troubled), "sub_late"}, nil, true}
	for range 2 {
		if err := b.looks(); err == nil {
			t.Error("it was listed")
		}
	}
	b.stopped("now sub_late")
}
