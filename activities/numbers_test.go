package activities_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// restart gives a bench a program that has drawn no number yet, on the same database.
func (b *bench) restart() {
	b.t.Helper()
	s, err := store.Open(b.t.Context(), store.Options{DSN: b.dsn, MaxConns: 4})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(s.Close)
	b.store, b.users.Store, b.subscriptions.Store, b.catalogue.Store, b.disputes.Store = s, s, s, s, s
}

// A database is put back, and its sequence with it or alone, at any moment of a read, and something
// comes that the read has not seen. No read that loses to a number of before completes anything;
// the one that follows shows what is true, and completes what came.
func TestReadsAfterARestore(t *testing.T) {
	t.Parallel()
	reads := map[string]struct {
		entity account.Entity
		read   func(b *bench) error
		hold   func(b *bench) *gate
		// change changes what the provider shows, stored tells what our rows do.
		change  func(b *bench)
		stored  string
		changed string
	}{
		"customer": {
			entity: "customer/cus_1", hold: func(b *bench) *gate { return b.stripe.hold() },
			read: func(b *bench) error {
				_, err := b.subscriptions.RecordSubscriptions(context.WithoutCancel(b.t.Context()), activities.RecordInput{CustomerID: "cus_1", Reread: 3})
				return err
			},
			change: func(b *bench) { b.stripe.put(subscription("sub_1", "cus_1", account.StatusPastDue)) },
			stored: `SELECT status FROM subscriptions`, changed: "past_due",
		},
		"user": {
			entity: account.UserEntity(ada), hold: func(b *bench) *gate { return b.clerk.hold() },
			read: func(b *bench) error {
				_, err := b.users.SyncUser(context.WithoutCancel(b.t.Context()), activities.UserInput{ClerkUserID: ada})
				return err
			},
			change: func(b *bench) {
				b.clerk.mu.Lock()
				defer b.clerk.mu.Unlock()
				b.clerk.users[ada] = account.User{ID: ada, FirstName: "Augusta", Email: "ada@example.com", EmailVerified: true}
			},
			stored: `SELECT first_name FROM person_user`, changed: "Augusta",
		},
		"product": {
			entity: account.ProductEntity("prod_1"), hold: func(b *bench) *gate { return b.stripe.hold() },
			read: func(b *bench) error {
				_, err := b.catalogue.RecordProduct(context.WithoutCancel(b.t.Context()), activities.ProductInput{ProductID: "prod_1"})
				return err
			},
			change: func(b *bench) {
				b.stripe.mu.Lock()
				defer b.stripe.mu.Unlock()
				renamed := pro("price_1")
				renamed.Name = "Premium"
				b.stripe.products["prod_1"] = renamed
			},
			stored: `SELECT plan_name FROM plans`, changed: "Premium",
		},
	}
	const rowsToo = `WITH u AS (UPDATE person_user SET read_seq = least(read_seq, 9)), c AS (UPDATE stripe_customers SET read_seq = least(read_seq, 9)),
		p AS (UPDATE plans SET read_seq = least(read_seq, 9)) SELECT setval('sync_seq', 9)::text`
	for kind, r := range reads {
		for restored, sql := range map[string]string{"sequence": `SELECT setval('sync_seq', 1)::text`, "rows and sequence": rowsToo} {
			for _, moment := range []string{"before a program starts", "while one runs", "during the read"} {
				t.Run(fmt.Sprintf("%s, %s, %s", kind, restored, moment), func(t *testing.T) {
					t.Parallel()
					b := newBench(t, account.DeleteCancelAtPeriodEnd)
					b.stripe.products["prod_1"] = pro("price_1")
					if _, err := b.catalogue.RecordProduct(t.Context(), activities.ProductInput{ProductID: "prod_1"}); err != nil {
						t.Fatal(err)
					}
					b.stripe.put(subscription("sub_1", "cus_1", account.StatusActive))
					b.person("cus_1")
					b.rows(`SELECT setval('sync_seq', 5000)::text`)
					for _, every := range reads {
						if err := every.read(b); err != nil {
							t.Fatal(err)
						}
					}
					happens := func() {
						b.rows(sql)
						r.change(b)
						b.deliver(r.entity, "it.changed")
					}
					switch moment {
					case "during the read":
						gate := r.hold(b)
						done := make(chan error, 1)
						go func() { done <- r.read(b) }()
						<-gate.read
						happens()
						close(gate.release)
						if err := <-done; failure.Of(err) != failure.Operator {
							t.Errorf("the read that was under way ended with %v", err)
						}
						b.is([]string{"0"}, `SELECT count(*)::text FROM webhook_events WHERE status = 'completed'`)
					case "before a program starts":
						happens()
						b.restart()
					default:
						happens()
					}
					var err error
					for range 2 {
						if err = r.read(b); err == nil {
							break
						}
						if failure.Of(err) != failure.Operator {
							t.Errorf("a read ended with %v", err)
						}
						b.is([]string{"0"}, `SELECT count(*)::text FROM webhook_events WHERE status = 'completed'`)
					}
					if err != nil {
						t.Errorf("the next read ended with %v", err)
					}
					b.is([]string{r.changed}, r.stored)
					b.is([]string{"it.changed completed"}, eventStates)
				})
			}
		}
	}
}

// A second look that loses to a number that the sequence has not reached does not leave the matter
// undecided for ever.
func TestASecondLookAfterARestoreDecides(t *testing.T) {
	t.Parallel()
	b := newBench(t, account.DeleteCancelAtPeriodEnd)
	b.person("cus_1")
	b.rows(`SELECT setval('sync_seq', 5000)::text`)
	b.record("cus_1")
	b.rows(`SELECT setval('sync_seq', 1)::text`)
	b.restart()
	overtaken, err := b.store.Overtaken(t.Context(), "customer/cus_1", 2)
	if failure.Of(err) != failure.Operator || overtaken {
		t.Errorf("overtaken %t, %v", overtaken, err)
	}
	number, err := b.store.NextRead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if overtaken, err = b.store.Overtaken(t.Context(), "customer/cus_1", number); err != nil || overtaken {
		t.Errorf("the next one: overtaken %t, %v", overtaken, err)
	}
}

// What a deletion was ordered by is past the sequence: the customer's next read counts as one after
// it all the same.
func TestAnErasureAfterARestoreGoesOn(t *testing.T) {
	t.Parallel()
	b := newBench(t, account.DeleteCancelAtPeriodEnd)
	b.person("cus_1")
	b.rows(`SELECT setval('sync_seq', 5000)::text`)
	b.rows(`UPDATE person_user SET deletion_requested_at = now(), deletion_seq = nextval('sync_seq') RETURNING ''`)
	b.rows(`SELECT setval('sync_seq', 100)::text`)
	b.restart()
	var err error
	for range 2 {
		if _, err = b.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: "cus_1"}); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	b.is([]string{"t"}, `SELECT (c.read_seq > u.deletion_seq)::text::char FROM stripe_customers c, person_user u`)
}
