package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// statement is a statement as the store sent it.
type statement struct {
	sql  string
	args []any
}

// recorder collects every statement that the store sends, and from where.
type recorder struct {
	mu         sync.Mutex
	statements map[string]statement
	lines      map[string]bool // file:line in the store that sent something
}

func newRecorder() *recorder {
	return &recorder{statements: map[string]statement{}, lines: map[string]bool{}}
}

func (r *recorder) record(sql string, args []any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.statements[sql]; !known {
		r.statements[sql] = statement{sql, slices.Clone(args)}
	}
	callers := make([]uintptr, 64)
	frames := runtime.CallersFrames(callers[:runtime.Callers(2, callers)])
	for more := true; more; {
		var frame runtime.Frame
		frame, more = frames.Next()
		if strings.Contains(frame.Function, "internal/store.") {
			r.lines[fmt.Sprintf("%s:%d", filepath.Base(frame.File), frame.Line)] = true
		}
	}
}

// The methods by which the driver tells of statements.

func (r *recorder) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	r.record(data.SQL, data.Args)
	return ctx
}

func (r *recorder) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (r *recorder) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	for _, q := range data.Batch.QueuedQueries {
		r.record(q.SQL, q.Arguments)
	}
	return ctx
}

func (r *recorder) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

func (r *recorder) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// The large tables: a product of some age, of whose events few are due.
const (
	manyEvents = 200_000
	manyUsers  = 50_000
)

// large are the tables that are large here. What is left out has one row.
func large() []string {
	return []string{"person_user", "stripe_customers", "customer_claims", "webhook_events", "pokes", "plans", "plan_prices", "subscriptions",
		"subscription_changes", "payments", "audit_log", "drift", "operations", "stripe_requests", "subscription_schedules", "missing_objects", "tombstone_addresses",
		"reconciliation_runs", "reconciliation_seen", "reconciliation_found"}
}

func (w *world) fill() {
	w.t.Helper()
	w.exec(`INSERT INTO person_user (clerk_user_id, email, email_verified, projection_version, published_version, publish_retry_at, publish_due_since, deletion_requested_at)
		SELECT 'user_' || n, 'u' || n || '@example.com', true, 2, CASE WHEN n % 500 = 0 THEN 1 ELSE 2 END,
		       CASE WHEN n % 500 = 0 THEN now() END, CASE WHEN n % 500 = 0 THEN now() END, CASE WHEN n % 700 = 0 THEN now() END FROM generate_series(1, $1::int) n`, manyUsers)
	w.exec(`INSERT INTO stripe_customers (stripe_customer_id, user_id, email)
		SELECT replace(clerk_user_id, 'user', 'cus'), CASE WHEN substr(clerk_user_id, 6)::int % 50 <> 0 THEN id END, email FROM person_user`)
	w.exec(`INSERT INTO customer_claims SELECT 'cus_' || n, 'user_' || n, 'customer:cus_' || n FROM generate_series(1, $1::int) n`, manyUsers)
	w.exec(`INSERT INTO webhook_events (source, event_id, type, entity, status, retry_at, received_at, completed_at, payload)
		SELECT CASE WHEN n % 4 = 0 THEN 'clerk' ELSE 'stripe' END, 'evt_' || n, 'customer.updated', 'customer/cus_' || n % $2::int,
		       CASE WHEN n % 100 = 0 THEN 'waiting' WHEN n % 101 = 0 THEN 'pending' WHEN n % 103 = 0 THEN 'failing' WHEN n % 7 = 0 THEN 'ignored' ELSE 'completed' END,
		       CASE WHEN n % 100 = 0 OR n % 101 = 0 OR n % 103 = 0 THEN now() END, now() - n * interval '10 seconds', now() - n * interval '10 seconds', '{}'
		FROM generate_series(1, $1::int) n`, manyEvents, manyUsers)
	w.exec(`INSERT INTO pokes (entity, due_at, poked_at) SELECT 'customer/cus_' || n, CASE WHEN n % 100 = 0 THEN now() END, now() - n * interval '1 second' FROM generate_series(1, 20000) n`)
	w.exec(`INSERT INTO plans (plan_name, stripe_product_id) SELECT 'Plan ' || n, CASE WHEN n % 10 <> 0 THEN 'prod_' || n END FROM generate_series(1, 5000) n`)
	w.exec(`INSERT INTO plan_prices (stripe_price_id, plan_id, active, unit_amount, currency) SELECT 'price_' || n, 1 + n % 5000, true, 100, 'usd' FROM generate_series(1, 10000) n`)
	w.exec(`INSERT INTO subscriptions (user_id, stripe_subscription_id, stripe_customer_id, plan_id, status, stripe_product_id, price_known, items)
		SELECT id, replace(clerk_user_id, 'user', 'sub'), replace(clerk_user_id, 'user', 'cus'), 1 + substr(clerk_user_id, 6)::int % 5000, 'active',
		       'prod_' || (1 + substr(clerk_user_id, 6)::int % 5000), substr(clerk_user_id, 6)::int % 100 <> 0,
		       jsonb_build_array(jsonb_build_object('price', 'price_' || substr(clerk_user_id, 6), 'product', 'prod_' || (1 + substr(clerk_user_id, 6)::int % 5000), 'quantity', 1)) FROM person_user`)
	w.exec(`INSERT INTO subscription_changes (stripe_subscription_id, user_id, status, quantity, collection_paused, read_seq)
		SELECT stripe_subscription_id, user_id, 'active', 1, false, 1 FROM subscriptions`)
	w.exec(`INSERT INTO payments (id, kind, stripe_customer_id, charge_id, status, status_rank, amount, currency, event_id, told_at, charge_told_at)
		SELECT 'pi_' || n, 'payment_intent', 'cus_' || n, 'ch_' || n, 'succeeded', 7, 1, 'usd', 'evt_' || n, now(), now() FROM generate_series(1, $1::int) n`, manyUsers)
	w.exec(`INSERT INTO payments (id, kind, stripe_customer_id, stripe_subscription_id, status, status_rank, amount, currency, event_id, told_at, charge_told_at, occurred_at)
		SELECT 'in_' || n, 'invoice', 'cus_' || n % 5000, 'sub_' || n % 5000, 'paid', 5, 1, 'usd', 'evt_' || n, now(), now(), now() - n * interval '1 hour' FROM generate_series(1, $1::int) n`, manyUsers)
	w.exec(`INSERT INTO audit_log (action, user_id, entity, subject) SELECT 'a', id, 'user/' || clerk_user_id, 's' FROM person_user`)
	w.exec(`INSERT INTO drift (class, entity, subject, resolved_at) SELECT 'unknown_price', 'customer/cus_' || n, 'x', CASE WHEN n % 200 <> 0 THEN now() END FROM generate_series(1, 20000) n`)
	w.exec(`INSERT INTO operations (id, key_hash, request_hash, caller, action, clerk_user_id, entity, stripe_subscription_id, status, expires_at, retry_at, projection_version)
		SELECT 'op_' || n, decode(lpad(n::text, 16, '0'), 'hex'), '', 'user_' || n, CASE WHEN n % 2 = 0 THEN 'sync' ELSE 'cancel' END, 'user_' || n, 'customer/cus_' || n, 'sub_' || n,
		       CASE WHEN n % 200 = 0 THEN 'accepted' WHEN n % 201 = 0 THEN 'recorded' ELSE 'done' END, now() + (n - 1000) * interval '1 minute',
		       CASE WHEN n % 200 = 0 OR n % 201 = 0 THEN now() END, 1 FROM generate_series(1, 20000) n`)
	w.exec(`INSERT INTO stripe_requests (key, asked_at) SELECT CASE WHEN n % 2 = 0 THEN 'customer:create:user_' || n ELSE 'op_' || n || ':cancel' END,
		now() - n * interval '1 minute' FROM generate_series(1, 20000) n`)
	w.exec(`INSERT INTO subscription_schedules (stripe_schedule_id, stripe_customer_id, status)
		SELECT 'sub_sched_' || n, 'cus_' || n, CASE WHEN n % 50 = 0 THEN 'not_started' ELSE 'released' END FROM generate_series(1, 20000) n`)
	w.exec(`INSERT INTO missing_objects (stripe_id, stripe_customer_id, confirmed_at) SELECT 'sub_' || n, 'cus_' || n, now() FROM generate_series(1, 20000) n`)
	w.exec(`INSERT INTO tombstone_addresses (mark, user_id) SELECT sha256(convert_to(email, 'UTF8')), id FROM person_user`)
	w.exec(`UPDATE person_user SET erase_retry_at = now() WHERE deletion_requested_at IS NOT NULL`)
	w.exec(`INSERT INTO reconciliation_runs (id, workflow_id, started_at, complete) SELECT 'run_' || n, 'reconciliation', now() - n * interval '1 day', true FROM generate_series(1, 5000) n`)
	w.exec(`INSERT INTO reconciliation_seen SELECT 'run_' || 1 + n % 40, kind, kind || '_' || n FROM generate_series(1, $1::int) n, unnest(ARRAY['user', 'cus', 'sub']) kind`, manyUsers)
	w.exec(`INSERT INTO reconciliation_found (run_id, entity, class, subject, confirmed, repairing)
		SELECT 'run_' || 1 + n % 20, 'customer/cus_' || n, 'stale_customer', 'cus_' || n, n % 2 = 0, n % 4 = 0 FROM generate_series(1, $1::int) n`, manyUsers)
	w.exec(`VACUUM (ANALYZE)`)
}

// everything calls every method of the store once, as the application does, on the large tables.
func everything(t *testing.T, w *world) {
	t.Helper()
	ctx := t.Context()
	must(t, w.Ping(ctx))
	must(t, w.Migrated(ctx))
	must(t, w.BindStripe(ctx, "acct_1", false))
	must(t, w.BindClerk(ctx, "ins_1"))
	_, err := w.Identity(ctx)
	must(t, err)

	event := stripeEvent("evt_new", "cus_7")
	event.Claims = []account.Claim{{CustomerID: "cus_7", ClerkUserID: "user_7", Source: "checkout:cs_1"}}
	w.add(event, clerkEvent("msg_new", "user.updated", "user_7"))
	read, err := w.NextRead(ctx)
	must(t, err)
	for _, err := range []error{
		w.MarkFailing(ctx, "customer/cus_7", "transient: x"),
		w.Poke(ctx, account.JobSync, "customer/cus_7", "user/user_7"),
		w.PublishFailed(ctx, "user_7", "x"),
	} {
		must(t, err)
	}
	reads := []func() error{
		func() error { _, err := w.HasDue(ctx, "customer/cus_7", "customer.updated", read); return err },
		func() error { _, err := w.InboxDepth(ctx); return err },
		func() error { _, _, err := w.PublishLag(ctx); return err },
		func() error { _, err := w.OpenDrift(ctx); return err },
		func() error { _, err := w.EvidenceOn(ctx, "cus_7"); return err },
		func() error { _, err := w.PricesWanted(ctx, "prod_7", []string{"price_7"}); return err },
		func() error { _, err := w.MadeInVain(ctx, "user_7"); return err },
		func() error { _, _, err := w.StripeAskedSince(ctx, "key_7"); return err },
		func() error { _, _, err := w.BulkRetries(ctx, "bulk_7", 50); return err },
		func() error {
			return w.NoteBulkRetries(ctx, "bulk_7", "quarantine", store.BulkRetried{Done: []account.Entity{"customer/cus_7"}, Again: map[account.Entity]string{"customer/cus_8": "x"}})
		},
		func() error {
			return w.NoteUnread(ctx, "run_7", map[account.Entity]string{"customer/cus_7": "x"}, []account.Entity{"customer/cus_8"})
		},
		func() error { _, err := w.UnlinkedClaimed(ctx, "user_7"); return err },
		func() error { _, err := w.ToLink(ctx, "user_7"); return err },
		func() error { _, err := w.ToAdopt(ctx, mustUser(t, w, "user_7")); return err },
		func() error { _, err := w.UnplacedSubscriptions(ctx, mustUser(t, w, "user_7")); return err },
		func() error { return w.Place(ctx, "cus_7", "sub_7", store.Cause{}) },
		func() error {
			noted := *mustUser(t, w, "user_7")
			noted.StripeCustomerID = new("cus_noted")
			_, err := w.Undecided(ctx, &noted, nil)
			return err
		},
		func() error { _, err := w.UnlinkedByEmail(ctx, "u50@example.com"); return err },
		func() error { _, err := w.UserByCustomerEmail(ctx, "cus_7"); return err },
		func() error { _, err := w.SubscriptionsOfCustomer(ctx, "cus_7"); return err },
		func() error { _, err := w.ToldLately(ctx, "cus_7", time.Minute); return err },
		func() error { _, err := w.CustomerOfCharge(ctx, "ch_7"); return err },
		func() error { _, err := w.CustomersOf(ctx, mustUser(t, w, "user_7")); return err },
		func() error { _, err := w.Published(ctx, "user_7", 2, 0, store.Cause{}); return err },
		func() error { _, err := w.Sweep(ctx, 500); return err },
		func() error { _, err := w.ExpireWaiting(ctx, 24*time.Hour, 500); return err },
		func() error { _, err := w.DropPayloads(ctx, 24*time.Hour, 500); return err },
		func() error { _, err := w.ForgetIdlePokes(ctx, time.Minute, 500); return err },
		func() error {
			claimed, _, _, err := w.ClaimPokes(ctx, 64, 32, time.Second) // as the dispatcher does
			if err == nil {
				err = w.PokesFailed(ctx, claimed[:1], time.Second)
			}
			if err == nil {
				err = w.PokesDone(ctx, claimed[1:])
			}
			return err
		},
		func() error {
			shows := clerkEvent("msg_shows", "user.updated", "user_7")
			shows.Shows = &account.ListedUser{User: account.User{ID: "user_7"}}
			_, err := w.AddEvents(ctx, []store.NewEvent{stripeEvent("evt_claimed", "cus_77"), shows}, 0)
			return err
		},
		func() error { _, _, _, err := w.ClaimPokes(ctx, 10_000, 10_000, time.Second); return err },
	}
	for _, read := range reads {
		must(t, read())
	}
	operations(t, w)
	recovery(t, w)
	comparison(t, w)
	questions(t, w)
	inTransactions(t, w, read)

	listening, cancel := context.WithCancel(ctx)
	if err := w.ListenForPokes(listening, cancel); listening.Err() == nil {
		t.Fatalf("listening ended: %v", err)
	}
}

// operations is the part of everything that is about operations and who asks for them.
func operations(t *testing.T, w *world) {
	t.Helper()
	ctx := t.Context()
	user := mustUser(t, w, "user_8")
	op, _, err := w.BeginOperation(ctx, store.NewOperation{KeyHash: []byte("k"), RequestHash: []byte("r"), Caller: "user_8", Action: store.ActionCancel,
		ClerkUserID: "user_8", Entity: "customer/cus_8", SubscriptionID: "sub_8", Lifetime: time.Hour})
	must(t, err)
	_, isNew, err := w.BeginOperation(ctx, store.NewOperation{KeyHash: []byte("k"), RequestHash: []byte("r"), Caller: "user_8", Action: store.ActionCancel,
		ClerkUserID: "user_8", Entity: "customer/cus_8", Lifetime: time.Hour})
	must(t, err)
	if isNew {
		t.Error("the same key began another operation")
	}
	for _, call := range []func() error{
		func() error { _, err := w.Operation(ctx, "op_200"); return err },
		func() error {
			r, err := w.StripeRequest(ctx, "customer:create:user_8")
			if err == nil {
				_, err = w.NextStripeRequest(ctx, r)
			}
			return err
		},
		func() error { _, err := w.ForgetStripeRequests(ctx, 500); return err },
		func() error {
			return w.TakeBack(ctx, &store.Operation{ID: "op_400"}, account.Ending{AtPeriodEnd: true})
		},
		func() error { return w.SettleOperation(ctx, "op_400", store.OperationFailed, "x") },
		func() error { _, err := w.Awaited(ctx, "user_8"); return err },
		func() error {
			w.exec(`UPDATE operations SET status = 'accepted', retry_at = now(), expires_at = now() WHERE id = 'op_600'`)
			return nil
		},
		func() error { // what can be seen by now
			w.exec(`UPDATE person_user SET projection_version = 1, published_version = 1 WHERE clerk_user_id = 'user_8'`)
			w.exec(`UPDATE stripe_customers SET read_seq = 1, user_id = (SELECT id FROM person_user WHERE clerk_user_id = 'user_8') WHERE stripe_customer_id = 'cus_8'`)
			w.exec(`UPDATE operations SET status = 'accepted', action = 'return', entity = 'customer/cus_8', seq = 0, stripe_subscription_id = NULL,
				clerk_user_id = 'user_8' WHERE id = 'op_200'`)
			op, err := w.Operation(ctx, "op_200")
			if err == nil && op.Status != store.OperationDone {
				t.Errorf("it is %s", op.Status)
			}
			return err
		},
		func() error { _, err := w.Sweep(ctx, 500); return err },
		func() error { _, err := w.ForgetOperations(ctx, 500); return err },
		func() error { _, err := w.LeaseCheckout(ctx, user.ID, "op_1", time.Minute); return err },
		func() error { return w.ReleaseCheckout(ctx, user.ID, "op_1") },
		func() error { _, _, err := w.OwnerOf(ctx, "sub_8"); return err },
		func() error { _, err := w.SubscriptionsOfUser(ctx, user); return err },
		func() error { _, _, err := w.LeftCheckouts(ctx, user.ID); return err },
		func() error { return w.CheckoutsNotListed(ctx, []string{"cus_8"}) },
		func() error { return w.CheckoutsListed(ctx, []string{"cus_8"}) },
		func() error { return w.CheckoutOpened(ctx, "op_800", "cs_test_1") },
		func() error { _, err := w.OpenedCheckouts(ctx, "user_8", time.Minute); return err },
		func() error { return w.RefuseCheckout(ctx, "op_1000", "other_subscription", "sub_8", account.Ending{}) },
		func() error {
			read, err := w.NextRead(ctx)
			return errors.Join(err, w.NoteGone(ctx, "user_8", "cus_8", read, false, policy()), w.NoteGone(ctx, "user_8", "cus_8", read, true, policy()))
		},
		func() error { _, err := w.ProductsBeside(ctx, []string{"prod_8", "prod_9"}); return err },
		func() error { _, err := w.CataloguePrice(ctx, "price_8"); return err },
		func() error { _, err := w.AuditOfUser(ctx, user, 0, 50); return err },
		func() error { _, err := w.Audit(ctx, 0, 50); return err },
		func() error {
			return w.AddClaim(ctx, account.Claim{CustomerID: "cus_8", ClerkUserID: "user_8", Source: "checkout:cs_8"})
		},
	} {
		must(t, call())
	}
	deleted(t, w, op)
	w.withUser("user_8", func(ctx context.Context, tx *store.Tx, u *store.User) error {
		locked, err := tx.LockOperation(ctx, op.ID)
		if err != nil {
			return err
		}
		tx.Because(locked)
		if err := tx.SettleUnpublishable(ctx, u, 1); err != nil {
			return err
		}
		before := account.Subscription{ID: "sub_8", Status: account.StatusActive}
		if _, err := tx.EndCustomerWaits(ctx, "cus_8", 1); err != nil {
			return err
		}
		if _, err := tx.Rivals(ctx, locked); err != nil {
			return err
		}
		if _, err := tx.Reliant(ctx, locked); err != nil {
			return err
		}
		if _, err := tx.CommandRequests(ctx, []string{op.ID}); err != nil {
			return err
		}
		for _, err := range []error{
			tx.ActOn(ctx, locked, before, account.Decision{}), tx.RecordOperation(ctx, locked, account.Ending{AtPeriodEnd: true}, u),
			tx.Undoing(ctx, locked), tx.Stays(ctx, locked),
			tx.ForgetRelease(ctx, locked), tx.CheckoutsDue(ctx, u, "cus_8"), tx.Keep(ctx, []store.Subscription{{StripeID: "sub_8"}}, []string{"sub_8"}, 1), tx.EndWaits(ctx, "customer/cus_8", 1, store.NoSuchCustomer),
			tx.AuditOperation(ctx, locked, &before, &before), tx.SettleOperation(ctx, locked, store.OperationDone, ""),
		} {
			if err != nil {
				return err
			}
		}
		_, err = tx.UnsettledOperations(ctx, "customer/cus_8", "user/user_8")
		return err
	})
}

// deleted is the part of everything that is about users who are being deleted, and what may still
// bill them.
func deleted(t *testing.T, w *world, op *store.Operation) {
	t.Helper()
	ctx := t.Context()
	for _, call := range []func() error{
		func() error { _, err := w.NextReadOf(ctx, "cus_8"); return err },
		func() error { _, err := w.NotBegunSchedules(ctx, "cus_8"); return err },
		func() error { _, err := w.SchedulesAhead(ctx, "cus_8"); return err },
		func() error { _, err := w.ChargesOf(ctx, "cus_8"); return err },
		func() error {
			return w.ChargeStopped(ctx, "cus_8", account.PendingCharge{ID: "ii_7", Kind: account.ChargeItem}, store.Cause{})
		},
		func() error { _, err := w.PendingOfBilling(ctx, "customer/cus_8"); return err },
		func() error {
			return w.NoteRelease(ctx, op, "sub_sched_8", []account.Phase{{Prices: []string{"price_8"}}})
		},
		func() error {
			_, err := w.UnsettledOfUser(ctx, mustUser(t, w, "user_8"), account.DeleteCancelAtPeriodEnd)
			return err
		},
	} {
		must(t, call())
	}
	w.withUser("user_8", func(ctx context.Context, tx *store.Tx, u *store.User) error {
		for _, err := range []error{
			tx.RecordSchedules(ctx, account.Schedule{ID: "sub_sched_8", CustomerID: "cus_8", Status: account.ScheduleNotStarted}),
			tx.SchedulesListed(ctx, &store.Customer{ID: "cus_8"}, 8),
			tx.RecordSighting(ctx, u, store.Sighting{CustomerID: "cus_8", Found: []string{"sub_8"}, Missing: []string{"sub_9"}, Began: time.Now()}),
			tx.RecordCharges(ctx, u, "cus_8", []account.PendingCharge{{ID: "ii_8", Kind: account.ChargeItem, Amount: 500}}),
			tx.EraseLater(ctx, u, time.Hour), tx.NotedInVain(ctx, u),
		} {
			if err != nil {
				return err
			}
		}
		if _, err := tx.DriftIsOlder(ctx, "user/user_8", account.DriftUserMissing, time.Minute); err != nil {
			return err
		}
		_, err := tx.Unsettled(ctx, u, account.DeleteCancelAtPeriodEnd, "cus_8")
		return err
	})
}

// recovery is the part of everything that is about events that never came.
func recovery(t *testing.T, w *world) {
	t.Helper()
	ctx := t.Context()
	lost := stripeEvent("evt_lost", "cus_9")
	lost.Recovered = true
	for _, call := range []func() error{
		func() error { _, err := w.RecoveryCursor(ctx, "stripe"); return err },
		func() error { return w.AdvanceRecovery(ctx, "stripe", time.Now().Add(-2*time.Hour), time.Now(), 1) },
		func() error { _, err := w.RecoverEvents(ctx, []store.NewEvent{lost}, time.Second); return err },
		func() error { _, err := w.RecoveryStates(ctx); return err },
		func() error { _, _, err := w.LookAges(ctx); return err },
		func() error { _, err := w.UsersByClerkIDs(ctx, []string{"user_9", "user_10"}); return err },
		func() error {
			return w.PokeEach(ctx, map[account.Entity]account.Job{"user/user_9": account.JobSync}, time.Second)
		},
	} {
		must(t, call())
	}
}

// comparison is the part of everything that compares the systems.
func comparison(t *testing.T, w *world) {
	t.Helper()
	ctx := t.Context()
	compare := w.Compare("run_1", account.DeleteCancelAtPeriodEnd).LinkingByEmail(true)
	stale := store.Difference{Entity: "customer/cus_9", Class: account.DriftStaleCustomer, Subject: "cus_9",
		Claims: []account.Claim{{CustomerID: "cus_9", ClerkUserID: "user_9", Source: "customer:cus_9"}}}
	gone := store.Difference{Entity: "user/user_11", Class: account.DriftUserMissing, Subject: "user_11"}
	classes := []account.Drift{account.DriftStaleCustomer, account.DriftUserMissing}
	for _, call := range []func() error{
		func() error {
			return w.BeginReconciliation(ctx, store.Reconciliation{ID: "run_new", WorkflowID: "reconciliation"})
		},
		func() error { _, err := w.Reconciliations(ctx, 10); return err },
		func() error { _, err := w.Reconciliation(ctx, "run_1"); return err },
		func() error {
			_, err := compare.Users(ctx, []account.ListedUser{{User: account.User{ID: "user_9"}}})
			return err
		},
		func() error {
			_, err := compare.Customers(ctx, []account.Customer{{ID: "cus_9"}, {ID: "cus_50"}, {ID: "cus_nobody", Email: "u50@example.com"}})
			return err
		},
		func() error {
			_, err := compare.Subscriptions(ctx, []account.Subscription{{ID: "sub_9", CustomerID: "cus_9", Items: []account.Item{{PriceID: "price_9"}}}})
			return err
		},
		func() error { _, err := compare.Products(ctx, []account.Product{{ID: "prod_9"}}); return err },
		func() error {
			_, err := compare.Prices(ctx, []account.Price{{ID: "price_9", ProductID: "prod_9"}})
			return err
		},
		func() error { _, _, _, err := compare.StoredPage(ctx, "", 200); return err },
		func() error { _, err := compare.StoredUser(ctx, "user_9"); return err },
		func() error { _, err := compare.StoredCustomer(ctx, "cus_9"); return err },
		func() error {
			return w.NotePage(ctx, "run_new", store.SeenUser, []string{"user_9", "user_10"}, []store.Difference{stale, gone})
		},
		func() error { _, err := w.FoundPage(ctx, "run_1", account.KindCustomer, false, "", 50); return err },
		func() error {
			return w.Confirm(ctx, "run_new", []store.Difference{stale, gone}, []store.Difference{{Entity: "user/user_10", Class: account.DriftStaleUser}})
		},
		func() error { _, err := w.ConcludeComparison(ctx, "run_new", map[string]int64{"users": 2}); return err },
		func() error {
			_, _, err := w.RepairPage(ctx, "run_new", classes, 20, 1000, store.Cause{Caller: "operator"})
			return err
		},
		func() error { return w.Mended(ctx, "run_new", []store.Difference{stale}) },
		func() error { return w.FinishReconciliation(ctx, "run_new", "") },
		func() error { _, err := w.ForgetRun(ctx, "run_new", 1000); return err },
		func() error { _, err := w.Overtaken(ctx, "user/user_9", 1); return err },
		func() error { _, err := w.Overtaken(ctx, "customer/cus_9", 1); return err },
		func() error { _, err := w.Overtaken(ctx, "product/prod_9", 1); return err },
		func() error { _, err := w.Billed(ctx); return err },
		func() error { _, err := w.RaiseNumbers(ctx, 0); return err },
		func() error { return w.NumbersBehind(ctx) },
	} {
		must(t, call())
	}
}

// questions is the part of everything that an operator asks.
func questions(t *testing.T, w *world) {
	t.Helper()
	ctx := t.Context()
	when := store.EventPlace{ReceivedAt: time.Now(), EventID: "evt_1"}
	for _, f := range []store.EventFilter{
		{}, {Source: "clerk"}, {IDs: []string{"evt_9"}}, {Source: "stripe", IDs: []string{"evt_9"}}, {Type: "customer.updated"}, {Type: "customer.*"},
		{Entities: []account.Entity{"customer/cus_9", "user/user_9"}}, {Statuses: []store.EventStatus{store.EventFailing, store.EventWaiting}},
		{Statuses: []store.EventStatus{store.EventCompleted}, Kept: true}, {Since: time.Now().Add(-time.Hour), Until: time.Now()},
	} {
		for _, place := range []store.EventPlace{{}, when} {
			_, err := w.Events(ctx, f, place, 50)
			must(t, err)
		}
	}
	event, _, err := w.Event(ctx, "stripe", "evt_9")
	must(t, err)
	for _, call := range []func() error{
		func() error { _, err := w.RetryEvents(ctx, []store.Event{*event}, store.Cause{}); return err },
		func() error {
			_, err := w.ReplayEvents(ctx, []store.Replay{{Event: *event}}, store.Cause{})
			return err
		},
		func() error { _, err := w.OpenDifferences(ctx, store.DriftFilter{}, 0, 50); return err },
		func() error {
			_, err := w.OpenDifferences(ctx, store.DriftFilter{Class: account.DriftUnknownPrice}, 0, 50)
			return err
		},
		func() error {
			_, err := w.OpenDifferences(ctx, store.DriftFilter{Entities: []account.Entity{"customer/cus_9"}}, 0, 50)
			return err
		},
		func() error { _, err := w.DriftCounts(ctx); return err },
		func() error { _, err := w.Unsettled(ctx, []account.Entity{"customer/cus_9"}); return err },
		func() error {
			_, err := w.Beginnings(ctx, []account.Entity{"customer/cus_9"}, time.Now().Add(-time.Minute))
			return err
		},
		func() error { _, err := w.OwnerOfCustomer(ctx, "cus_9"); return err },
		func() error {
			_, err := w.Hint(ctx, &store.User{ID: "00000000-0000-0000-0000-000000000009"})
			return err
		},
		func() error { return w.BeginBulk(ctx, store.BulkRun{ID: "bulk_1", Caller: "operator"}) },
		func() error {
			return w.NoteBulkPage(ctx, "bulk_1", store.BulkPage{Step: "users", Failures: map[account.Entity]string{"user/user_9": "x"}})
		},
		func() error { return w.SetBulkUsers(ctx, "bulk_1", 1) },
		func() error { _, err := w.PauseBulk(ctx, "bulk_1", true); return err },
		func() error { _, err := w.Bulk(ctx, "bulk_1"); return err },
		func() error { _, err := w.Bulks(ctx, 5); return err },
		func() error { _, err := w.UnfinishedBulk(ctx); return err },
		func() error { _, err := w.BulkFailures(ctx, "bulk_1", "", 5); return err },
		func() error { _, _, err := w.WithoutCustomer(ctx, "", 5); return err },
		func() error { return w.FinishBulk(ctx, "bulk_1", "") },
		func() error { return w.ForgetProfile(ctx, "cus_9") },
	} {
		must(t, call())
	}
}

// inTransactions is the part of everything that runs in transactions.
func inTransactions(t *testing.T, w *world, read int64) {
	t.Helper()
	w.update(func(ctx context.Context, tx *store.Tx) error {
		due, err := tx.TakeEvents(ctx, "customer/cus_7", read)
		if err != nil {
			return err
		}
		for _, err := range []error{
			tx.HoldEvents(ctx, due, store.EventWaiting, "x", false), tx.IgnoreEvents(ctx, due, "x"), tx.CompleteEvents(ctx, due, true),
			tx.MoveEvents(ctx, "charge/ch_1", "customer/cus_7"), tx.NoteMissing(ctx, "sub_7"),
			tx.SetClaims(ctx, "cus_7", []account.Claim{{CustomerID: "cus_7", ClerkUserID: "user_7", Source: "customer:cus_7"}}),
			tx.NoteDrift(ctx, "customer/cus_7", account.DriftUnknownPrice, "sub_7"), tx.ResolveDrift(ctx, "customer/cus_7", account.DriftUnknownPrice, ""),
			tx.ResolveConflict(ctx, mustUser(t, w, "user_7"), "cus_7"),
			tx.RepairDue(ctx, &store.User{ID: mustUser(t, w, "user_7").ID, ReadSeq: read}),
			tx.RecordPayment(ctx, account.Payment{ID: "pi_7", Kind: account.PaymentIntent, Status: "succeeded"}, "evt_1", at(1)),
			tx.RecordPayment(ctx, account.Payment{ID: "re_7", Kind: account.PaymentRefund, ChargeID: "ch_7", IntentID: "pi_7", Status: "failed"}, "evt_1", at(1)),
		} {
			if err != nil {
				return err
			}
		}
		if _, err := tx.EvidenceOn(ctx, "cus_7"); err != nil {
			return err
		}
		if err := tx.NoteNotInClerk(ctx, "user_nobody", time.Time{}); err != nil {
			return err
		}
		if _, err := tx.UserByCustomerEmail(ctx, "cus_7"); err != nil {
			return err
		}
		if _, err := tx.UserByCustomerEmail(ctx, "cus_700"); err != nil { // of a user who is being deleted
			return err
		}
		if _, err := tx.UserExists(ctx, "user_7"); err != nil {
			return err
		}
		if _, err := tx.CustomersAffectedByPlan(ctx, "prod_7", true); err != nil {
			return err
		}
		if _, err := tx.PlanNumber(ctx, "prod_new"); err != nil {
			return err
		}
		planID, _, err := tx.LockPlan(ctx, "prod_new", "Plan 10")
		if err != nil {
			return err
		}
		if _, err = tx.PlanName(ctx, planID); err != nil {
			return err
		}
		return tx.SetPlan(ctx, planID, account.Product{ID: "prod_new", Prices: []account.Price{{ID: "price_new", Currency: "usd"}}}, read)
	})
	w.set("user_7", full())
	w.set("user_7", account.Subscription{ID: "sub_7", CustomerID: "cus_7", Status: account.StatusActive, Items: []account.Item{{PriceID: "price_7"}}})
	w.set("user_7", account.Subscription{ID: "sub_7", CustomerID: "cus_7", Status: account.StatusPastDue, Items: []account.Item{{PriceID: "price_7"}}})
	w.exec(`UPDATE subscriptions SET items = NULL WHERE stripe_subscription_id = 'sub_7'`)
	w.set("user_7", account.Subscription{ID: "sub_7", CustomerID: "cus_7", Status: account.StatusPastDue, Items: []account.Item{{PriceID: "price_7"}}})
	_, err := w.OwedUnknown(t.Context(), account.CustomerEntity("cus_7"), 1, []string{"sub_7", "sub_8"})
	must(t, err)
	_, err = w.PendingInvoices(t.Context(), "customer/cus_7", read)
	must(t, err)
	_, _, err = w.Owed(t.Context(), "sub_7")
	must(t, err)
	w.link("user_7", "cus_new")
	w.update(func(ctx context.Context, tx *store.Tx) error {
		if _, err := tx.ToldSince(ctx, "customer/cus_7", time.Now().Add(-time.Minute)); err != nil {
			return err
		}
		stored, err := tx.SubscriptionsShown(ctx, "cus_7", []string{"sub_7", "sub_8"})
		if err != nil {
			return err
		}
		turned := account.Subscription{ID: "sub_7", CustomerID: "cus_7", Status: account.StatusActive}
		if _, _, err := tx.TurnsBack(ctx, time.Time{}, stored, turned, nil, func(string) (store.Telling, error) { return store.ToldNothing, nil }); err != nil {
			return err
		}
		ended := store.Subscription{StripeID: "sub_7", Status: string(account.StatusCanceled)}
		if _, err := tx.Outlived(ctx, ended, account.StatusActive); err != nil {
			return err
		}
		if err := tx.PokeWithin(ctx, time.Minute, account.JobSync, "customer/cus_7"); err != nil {
			return err
		}
		u, created, err := tx.EnsureUser(ctx, "user_new")
		if err != nil || !created {
			return fmt.Errorf("a new user was not created: %w", err)
		}
		_, err = tx.SetProfile(ctx, u, ada("user_new"), read, nil)
		return err
	})
	w.withUser("user_new", func(ctx context.Context, tx *store.Tx, u *store.User) error {
		_, err := tx.SetProfile(ctx, u, ada("user_new"), read, nil)
		return err
	})
	w.update(func(ctx context.Context, tx *store.Tx) error {
		u, c, err := tx.LockCustomer(ctx, "cus_7")
		if err != nil {
			return err
		}
		for _, err := range []error{
			tx.SetCustomer(ctx, c, account.Customer{ID: "cus_7"}, read, true), tx.ReadInPart(ctx, c, read), tx.SetCustomerProfile(ctx, c, "a", "b", 1),
			tx.MadeInVain(ctx, "cus_9", "user_9"), tx.MadeInVain(ctx, "cus_9", ""), tx.SetHint(ctx, u, "cus_9"), tx.SetHint(ctx, u, ""), tx.RequestDeletion(ctx, u, nil), tx.Erase(ctx, u), tx.EraseCustomer(ctx, c),
		} {
			if err != nil {
				return err
			}
		}
		return nil
	})
	w.set("user_7", account.Subscription{ID: "sub_7", CustomerID: "cus_7", Status: account.StatusActive, Outstanding: true, Items: []account.Item{{PriceID: "price_7"}}})
	w.exec(`UPDATE person_user SET deleted_at = now() WHERE clerk_user_id = 'user_new'`)
	w.withUser("user_new", func(ctx context.Context, tx *store.Tx, u *store.User) error { return tx.RequestDeletion(ctx, u, nil) })
}

// On large tables no statement that the store makes reads a table from end to end. Nothing can be
// forgotten: every place in the source that sends a statement has to have sent it.
func TestPlansOnLargeTables(t *testing.T) {
	t.Parallel()
	recorded := newRecorder()
	w := worldOn(t, databases.DSN(t), store.Options{MaxConns: 4, Tracer: recorded})
	w.fill()
	everything(t, w)

	places := senders(t)
	for _, place := range slices.Sorted(maps.Keys(places)) {
		if !recorded.knows(place, places[place]) {
			t.Errorf("%s sends a statement (%s) that this test does not know: call it in everything", place, places[place].method)
		}
	}
	explained := 0
	for _, sql := range slices.Sorted(maps.Keys(recorded.statements)) {
		if !regexp.MustCompile(`(?i)^\s*(select|insert|update|delete|with)`).MatchString(sql) {
			continue
		}
		explained++
		if strings.Contains(sql, "sum(unit_amount") {
			continue // what all subscriptions come to is the question
		}
		if strings.Contains(sql, "s.reached") {
			continue // whether any number is ahead is the question, which is seldom asked
		}
		for mode, plan := range w.explain(recorded.statements[sql]) {
			for _, finding := range plan.reads() {
				t.Errorf("with a %s plan: %s\n%s", mode, finding, sql)
			}
		}
	}
	if explained < 60 {
		t.Errorf("%d statements were explained; there were more", explained)
	}
}

// A plan that reads everything is found by this test, or it would show nothing.
func TestFullReadsAreFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.exec(`INSERT INTO pokes (entity, due_at) SELECT 'customer/cus_' || n, now() FROM generate_series(1, 20000) n`)
	w.exec(`VACUUM (ANALYZE) pokes`)
	for sql, want := range map[string]bool{
		`SELECT * FROM pokes WHERE attempts = $1`:                                              true,
		`UPDATE pokes SET job = 1 WHERE entity IN (SELECT entity FROM pokes WHERE token = $1)`: true,
		`WITH x AS MATERIALIZED (SELECT * FROM pokes WHERE token = $1) SELECT * FROM x`:        true,
		`SELECT entity FROM pokes WHERE $1::bigint > 0 ORDER BY entity`:                        true,
		`SELECT * FROM pokes WHERE entity = 'customer/cus_' || $1::bigint`:                     false,
		`SELECT singleton FROM provider_identity WHERE $1::bigint > 0`:                         false,
	} {
		for mode, plan := range w.explain(statement{sql, []any{int64(1)}}) {
			if found := len(plan.reads()) > 0; found != want {
				t.Errorf("%s, %s plan: found %t, want %t", sql, mode, found, want)
			}
		}
	}
}

// sender is a place that sends a statement.
type sender struct {
	method string
	// begins is how the statement begins of which only that is known where it is sent: it waits for
	// others.
	begins string
}

func (r *recorder) knows(place string, s sender) bool {
	if s.begins == "" {
		return r.lines[place]
	}
	for sql := range r.statements {
		if strings.HasPrefix(sql, s.begins) {
			return true
		}
	}
	return false
}

// literal is what a text that is put together begins with.
func literal(t *testing.T, e ast.Expr) string {
	t.Helper()
	switch e := e.(type) {
	case *ast.BinaryExpr:
		return literal(t, e.X)
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		must(t, err)
		return text
	}
	t.Fatalf("a statement that waits is given as %T: its first part has to stand there", e)
	return ""
}

// senders are the places in the store's source that send a statement.
func senders(t *testing.T) map[string]sender {
	t.Helper()
	places := map[string]sender{}
	files, err := filepath.Glob("*.go")
	must(t, err)
	set := token.NewFileSet()
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		source, err := os.ReadFile(name)
		must(t, err)
		file, err := parser.ParseFile(set, name, source, 0)
		must(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if method, ok := call.Fun.(*ast.SelectorExpr); ok && slices.Contains([]string{"Exec", "Query", "QueryRow", "SendBatch", "SendAll", "Later", "CopyFrom"}, method.Sel.Name) {
				if of, ok := method.X.(*ast.Ident); ok && of.Name == "results" {
					return true // reads the answers to what was sent
				}
				position := set.Position(method.Sel.Pos())
				place := sender{method: method.Sel.Name}
				if place.method == "Later" {
					place.begins = literal(t, call.Args[2])
				}
				places[fmt.Sprintf("%s:%d", name, position.Line)] = place
			}
			return true
		})
	}
	if len(places) < 50 {
		t.Fatalf("only %d places send statements: the source is read wrongly", len(places))
	}
	return places
}

// plan is what EXPLAIN (FORMAT JSON) says of one node.
type plan struct {
	Node     string `json:"Node Type"`
	Relation string `json:"Relation Name"`
	Index    string `json:"Index Name"`
	Cond     string `json:"Index Cond"`
	Plans    []plan `json:"Plans"`

	partial map[string]bool
}

// reads lists where a large table, or a whole index of one, is read from end to end. An index that
// holds only some of the rows, such as those that are due, may be.
func (p plan) reads() (found []string) {
	switch {
	case p.Node == "Seq Scan" && slices.Contains(large(), p.Relation):
		found = append(found, "reads all of "+p.Relation)
	case p.Index != "" && p.Cond == "" && !p.partial[p.Index]:
		found = append(found, "reads all of "+p.Index)
	}
	for _, child := range p.Plans {
		child.partial = p.partial
		found = append(found, child.reads()...)
	}
	return found
}

// explain answers the plan that the database makes for any values, and the one for these values.
func (w *world) explain(s statement) map[string]plan {
	w.t.Helper()
	partial := map[string]bool{}
	for _, name := range all[string](w, `SELECT indexrelid::regclass::text FROM pg_index WHERE indpred IS NOT NULL`) {
		partial[name] = true
	}
	w.exec(`SET plan_cache_mode = force_generic_plan`)
	w.exec(`PREPARE explained AS ` + s.sql)
	parameters := 0
	for _, match := range regexp.MustCompile(`\$(\d+)`).FindAllStringSubmatch(s.sql, -1) {
		n, err := strconv.Atoi(match[1])
		must(w.t, err)
		parameters = max(parameters, n)
	}
	execute := `EXECUTE explained`
	if parameters > 0 {
		execute += `(` + strings.TrimSuffix(strings.Repeat("NULL,", parameters), ",") + `)`
	}
	generic := one[string](w, `EXPLAIN (FORMAT JSON) `+execute)
	w.exec(`DEALLOCATE explained`)
	w.exec(`SET plan_cache_mode = force_custom_plan`)
	custom := one[string](w, `EXPLAIN (FORMAT JSON) `+s.sql, s.args...)
	plans := map[string]plan{}
	for mode, text := range map[string]string{"generic": generic, "custom": custom} {
		var explained []struct{ Plan plan }
		must(w.t, json.Unmarshal([]byte(text), &explained))
		explained[0].Plan.partial = partial
		plans[mode] = explained[0].Plan
	}
	return plans
}
