package fences_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"go.temporal.io/sdk/testsuite"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/clerkapi"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeapi"
)

// bulk is a bulk sync that an actor makes.
type bulk struct {
	*activities.Bulk
	l  *lab
	id string
}

func (l *lab) bulk(a *actor) *bulk {
	l.t.Helper()
	stripe := stripeapi.New(stripeapi.Options{Key: l.Sandbox.StripeSecretKey, BaseURL: l.Sandbox.StripeURL(), Transport: a.points})
	clerk := clerkapi.New(clerkapi.Options{Key: l.Sandbox.ClerkSecretKey, BaseURL: l.Sandbox.ClerkURL(), Transport: a.points})
	b := &bulk{&activities.Bulk{Store: a.users.Store, Stripe: stripe, Clerk: clerk, Users: a.users, Customers: a.customers, Subscriptions: a.subscriptions,
		Projections: a.projections, Catalogue: a.catalogue, Deletion: account.DeleteCancelAtPeriodEnd, LinkByEmail: a.users.LinkByEmail, AtOnce: 1}, l, "bulk_1"}
	l.must(l.Store.BeginBulk(l.t.Context(), store.BulkRun{ID: b.id, Caller: "operator"}))
	return b
}

// step makes one attempt at a list.
func (b *bulk) step(step string) (activities.BulkResult, error) {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.RegisterActivity(b.BulkStripe)
	value, err := env.ExecuteActivity(b.BulkStripe, activities.BulkInput{ID: b.id, Step: step})
	var result activities.BulkResult
	if err == nil {
		err = value.Get(&result)
	}
	return result, err
}

func (b *bulk) stands() string {
	b.l.t.Helper()
	return b.l.text(`SELECT 'done ' || done || ', failed ' || failed FROM bulk_runs WHERE id = $1`, b.id)
}

// What a bulk sync makes in vain it undoes, whatever happened meanwhile, also where undoing it
// fails at first, or nobody has heard of it: one customer for a user who lives, none for one who is
// deleted.
func TestABulkSyncUndoesWhatItMadeInVain(t *testing.T) {
	t.Parallel()
	for _, deleted := range []bool{false, true} {
		for _, failing := range []bool{false, true} {
			t.Run(fmt.Sprintf("deleted %t, undoing fails at first %t", deleted, failing), func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{})
				user := l.Sandbox.Clerk.AddUser(secretive(1))
				l.unpoked()
				l.must(l.work.syncUser(t.Context(), user)) // known, without a customer
				a := l.actor(policies{})
				b := l.bulk(a)
				made := a.arm(t, "answered POST /v1/customers", 0)
				done := begin(func() error {
					_, err := b.step(activities.BulkOnboarding)
					return err
				})
				reach(t, made, done)
				held := l.Sandbox.StripeWebhooks.TakeHeld() // the event of the customer that was made comes later
				if deleted {
					l.must(l.Sandbox.Clerk.DeleteUser(user))
				} else {
					l.buy(stripesim.CheckoutSpec{Email: payer(1), ClientReferenceID: user, Metadata: byServer(user)})
				}
				l.settle()
				if failing {
					l.Sandbox.StripeFaults.Add(faults.Rule{Method: "DELETE", PathPrefix: "/v1/customers", Status: 503, Times: 1})
				}
				made.release()
				wait(t, done)
				if failing {
					l.exec(`UPDATE bulk_failures SET retry_at = now() WHERE retry_at IS NOT NULL`)
					_, err := b.step(activities.BulkQuarantine)
					l.must(err)
				}
				for _, m := range held {
					l.Sandbox.StripeWebhooks.Send(m)
				}
				l.settle()
				want := 1
				if deleted {
					want = 0
				}
				if n := len(l.Sandbox.Stripe.Customers()); n != want {
					t.Errorf("Stripe has %d customers, want %d: %s", n, want, l.Sandbox.Stripe.Customers())
				}
				l.wants("0", `SELECT count(*) FROM stripe_customers WHERE made_in_vain_for IS NOT NULL AND NOT deleted_in_stripe`)
				l.wants("0", `SELECT count(*) FROM bulk_failures`)
			})
		}
	}
}

// One customer of whom Stripe answers nothing but 500 holds up nobody: the others are brought in,
// it is told of, come back to, and brought in once it can be; or it counts as failed in the end.
func TestOneCustomerHoldsUpNoBulkSync(t *testing.T) {
	t.Parallel()
	for healed, others := range map[bool]int{true: 120, false: 5} {
		t.Run(fmt.Sprintf("it gets well %t", healed), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user := l.Sandbox.Clerk.AddUser(person("ada", "ada@example.com", true))
			l.unpoked()
			l.must(l.work.syncUser(t.Context(), user))
			for range others {
				l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "x@example.com", Metadata: byServer(user)})
			}
			bad := l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "x@example.com", Metadata: byServer(user)})
			l.unpoked()
			b := l.bulk(l.actor(policies{}))
			l.Sandbox.StripeFaults.Add(faults.Rule{Method: "GET", PathPrefix: "/v1/subscriptions", QueryContains: bad, Status: 500})
			result, err := b.step(activities.BulkCustomers)
			for err == nil && !result.Complete {
				result, err = b.step(activities.BulkCustomers)
			}
			l.must(err)
			if got := b.stands(); !result.Quarantined || got != fmt.Sprintf("done %d, failed 0", others) {
				t.Errorf("came to %+v, %s", result, got)
			}
			l.wants("customer/"+bad, `SELECT string_agg(entity, ', ') FROM bulk_failures WHERE retry_at IS NOT NULL`)
			l.wants(user, `SELECT clerk_user_id FROM customer_claims WHERE stripe_customer_id = $1`, bad)
			if run, err := l.Store.Bulk(t.Context(), b.id); err != nil || run.Quarantined != 1 {
				t.Errorf("the run is %+v: %v", run, err)
			}
			// It is left alone for a while.
			if result, err := b.step(activities.BulkQuarantine); err != nil || result.Complete || result.Wait <= 0 {
				t.Errorf("came to %+v: %v", result, err)
			}
			if healed {
				l.Sandbox.StripeFaults.Clear()
			}
			for n := 0; ; n++ {
				l.exec(`UPDATE bulk_failures SET retry_at = now() WHERE retry_at IS NOT NULL`)
				result, err := b.step(activities.BulkQuarantine)
				l.must(err)
				if result.Complete {
					break
				}
				if n > 10 {
					t.Fatal("it is come back to for ever")
				}
			}
			if healed {
				l.wants(fmt.Sprint(others+1), `SELECT count(*) FROM stripe_customers WHERE user_id IS NOT NULL`)
				l.wants("0", `SELECT count(*) FROM bulk_failures`)
			} else if got := b.stands(); got != fmt.Sprintf("done %d, failed 1", others) {
				t.Errorf("stands at %s", got)
			}
		})
	}
}

// While a provider does not answer at all, nothing is put aside: the page waits.
func TestAnOutageQuarantinesNobody(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user := l.Sandbox.Clerk.AddUser(secretive(1))
	l.unpoked()
	l.must(l.work.syncUser(t.Context(), user))
	b := l.bulk(l.actor(policies{}))
	l.Sandbox.StripeFaults.Add(faults.Rule{PathPrefix: "/v1/", Status: 503})
	if result, err := b.step(activities.BulkOnboarding); err == nil {
		t.Errorf("came to %+v", result)
	}
	l.wants("0", `SELECT count(*) FROM bulk_failures`)
	l.Sandbox.StripeFaults.Clear()
	result, err := b.step(activities.BulkOnboarding)
	l.must(err)
	if got := b.stands(); !result.Complete || got != "done 1, failed 0" {
		t.Errorf("came to %+v, %s", result, got)
	}
}

// A list whose cursor is deleted between two pages goes on, and shows everybody.
func TestABulkSyncGoesOnBehindADeletedCustomer(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user := l.Sandbox.Clerk.AddUser(person("ada", "ada@example.com", true))
	l.unpoked()
	l.must(l.work.syncUser(t.Context(), user))
	const all = 130
	var customers []string
	for range all {
		customers = append(customers, l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "x@example.com", Metadata: byServer(user)}))
	}
	l.unpoked()
	a := l.actor(policies{})
	b := l.bulk(a)
	noted := a.arm(t, "UPDATE bulk_runs SET step", 0)
	done := begin(func() error {
		result, err := b.step(activities.BulkCustomers)
		if err == nil && !result.Complete {
			_, err = b.step(activities.BulkCustomers)
		}
		return err
	})
	reach(t, noted, done)
	l.must(l.Sandbox.Stripe.DeleteCustomer(customers[all-100]))
	noted.release()
	wait(t, done)
	l.wants(fmt.Sprint(all), `SELECT count(*) FROM stripe_customers WHERE user_id IS NOT NULL`)
	if after := l.text(`SELECT after FROM bulk_runs`); after != "" {
		t.Errorf("the list stands behind %s", after)
	}
}

// One customer that cannot be read by itself keeps a comparison from saying anything of it, and of
// nobody else.
func TestOneCustomerHoldsUpNoComparison(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, _ := l.signUp("ada")
	a := l.actor(policies{})
	stripe := stripeapi.New(stripeapi.Options{Key: l.Sandbox.StripeSecretKey, BaseURL: l.Sandbox.StripeURL(), Transport: a.points})
	r := &activities.Reconciler{Store: l.Store, Stripe: stripe, Deletion: account.DeleteCancelAtPeriodEnd}
	var customers []string
	for range 4 {
		customers = append(customers, l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "x@example.com", Metadata: byServer(user)}))
	}
	l.unpoked()
	l.exec(`DELETE FROM webhook_events`)
	ctx := t.Context()
	l.must(l.Store.BeginReconciliation(ctx, store.Reconciliation{ID: "run_1"}))
	if scan, err := r.CompareStripe(ctx, activities.ScanInput{RunID: "run_1", List: activities.ListCustomers}); err != nil || scan.Found != 4 {
		t.Fatalf("the list shows %+v: %v", scan, err)
	}
	bad := customers[1]
	l.Sandbox.StripeFaults.Add(faults.Rule{Method: "GET", PathPrefix: "/v1/subscriptions", QueryContains: bad, Status: 500})
	look := func(unread int) activities.LookResult {
		t.Helper()
		result, err := r.LookAtStripe(ctx, activities.LookInput{RunID: "run_1", Kind: account.KindCustomer, Unread: unread})
		l.must(err)
		if !result.Complete {
			t.Fatalf("the look has not come to its end: %+v", result)
		}
		return result
	}
	if got := look(0); got.Confirmed != 3 || got.Undecided != 1 || got.Unread != 1 {
		t.Errorf("came to %+v", got)
	}
	run, err := l.Store.Reconciliation(ctx, "run_1")
	if err != nil || len(run.Unread) != 1 || run.Unread["customer/"+bad] == "" || strings.Contains(run.Unread["customer/"+bad], "@") {
		t.Errorf("the run tells of %v: %v", run.Unread, err)
	}
	l.Sandbox.StripeFaults.Clear()
	if got := look(1); got.Confirmed != 1 || got.Unread != 0 {
		t.Errorf("came to %+v", got)
	}
	if run, err = l.Store.Reconciliation(ctx, "run_1"); err != nil || len(run.Unread) != 0 {
		t.Errorf("the run tells of %v: %v", run.Unread, err)
	}
}

// A customer who was brought in by an attempt that died is looked after by their own workflow all
// the same.
func TestWhoWasBroughtInByAnAttemptThatDiedIsLookedAfter(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user := l.Sandbox.Clerk.AddUser(person("ada", "ada@example.com", true))
	l.unpoked()
	l.must(l.work.syncUser(t.Context(), user))
	customer := l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "ada@example.com", Name: "ada Lovelace", Metadata: byServer(user)})
	l.buy(stripesim.CheckoutSpec{CustomerID: customer})
	l.must(l.Sandbox.Stripe.Settled(t.Context()))
	l.Sandbox.StripeWebhooks.TakeHeld() // it was there before us: nobody tells of it
	l.exec(`UPDATE pokes SET due_at = NULL`)
	b := l.bulk(l.actor(policies{}))
	dies := l.actor(policies{})
	first := &bulk{&activities.Bulk{Store: dies.users.Store, Stripe: b.Stripe, Clerk: b.Clerk, Users: dies.users, Customers: dies.customers, Subscriptions: dies.subscriptions,
		Projections: dies.projections, Catalogue: dies.catalogue, Deletion: account.DeleteCancelAtPeriodEnd, AtOnce: 1}, l, b.id}
	at := dies.arm(t, "sql INSERT INTO pokes", 1)
	done := begin(func() error {
		_, err := first.step(activities.BulkCustomers)
		return err
	})
	reach(t, at, done)
	for _, step := range []string{activities.BulkCustomers, activities.BulkSubscriptions, activities.BulkOnboarding} {
		_, err := b.step(step)
		l.must(err)
	}
	l.wants("active", `SELECT status FROM subscriptions`)
	l.wants("true", `SELECT coalesce(bool_or(due_at IS NOT NULL), false)::text FROM pokes WHERE entity = 'customer/' || $1`, customer)
	at.release()
	<-done
}

// So is what a deleted user has bought, which is stopped.
func TestADeletedUsersPurchaseThatADyingAttemptFoundIsStopped(t *testing.T) {
	t.Parallel()
	for _, death := range []bool{false, true} {
		l := newLab(t, policies{})
		user, customer := l.signUp("ada")
		l.must(l.Sandbox.Clerk.DeleteUser(user))
		l.settle()
		l.wants("true", erased, user)
		l.buy(stripesim.CheckoutSpec{CustomerID: customer})
		l.must(l.Sandbox.Stripe.Settled(t.Context()))
		l.Sandbox.StripeWebhooks.TakeHeld() // lost
		l.exec(`UPDATE pokes SET due_at = NULL`)
		b := l.bulk(l.actor(policies{}))
		var at *stop
		var done <-chan error
		if death {
			dies := l.actor(policies{})
			first := &bulk{&activities.Bulk{Store: dies.users.Store, Stripe: b.Stripe, Clerk: b.Clerk, Users: dies.users, Customers: dies.customers, Subscriptions: dies.subscriptions,
				Projections: dies.projections, Catalogue: dies.catalogue, Deletion: account.DeleteCancelAtPeriodEnd, AtOnce: 1}, l, b.id}
			at = dies.arm(t, "sql INSERT INTO pokes", 1)
			done = begin(func() error {
				_, err := first.step(activities.BulkSubscriptions)
				return err
			})
			reach(t, at, done)
		}
		for _, step := range []string{activities.BulkSubscriptions, activities.BulkOnboarding} {
			_, err := b.step(step)
			l.must(err)
		}
		l.exec(`UPDATE pokes SET due_at = clock_timestamp() WHERE due_at IS NOT NULL`) // a while later
		l.settle()
		for _, raw := range l.Sandbox.Stripe.Subscriptions(customer) {
			if text := strings.ReplaceAll(string(raw), " ", ""); !strings.Contains(text, `"cancel_at_period_end":true`) {
				t.Errorf("an attempt died %t: the subscription of the erased user runs on", death)
			}
		}
		l.wants("1", `SELECT count(*) FROM subscriptions`)
		if death {
			at.release()
			<-done
		}
	}
}

// The open invoices of one customer may not be listed (a restricted key): a bulk sync brings in the
// others, and tells of this one.
func TestWhatMayNotBeReadOfOneHoldsUpNoBulkSync(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusInternalServerError, http.StatusForbidden} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			l.must(l.Sandbox.Stripe.SetPayments(s.customer, false))
			l.must(l.Sandbox.Stripe.Advance(t.Context(), 32*day))
			other := l.Sandbox.Clerk.AddUser(person("bo", "bo@example.com", true))
			l.unpoked()
			l.must(l.work.syncUser(t.Context(), other))
			customer := l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "bo@example.com", Metadata: byServer(other)})
			sub := l.buy(stripesim.CheckoutSpec{CustomerID: customer}).SubscriptionID
			l.unpoked()
			l.exec(`DELETE FROM webhook_events`) // all of that was lost
			a := l.actor(policies{})
			b := l.bulk(a)
			a.refuse("GET /v1/invoices", status, `{"error":{"type":"invalid_request_error","message":"?"}}`)
			for _, step := range []string{activities.BulkCustomers, activities.BulkSubscriptions} {
				for range 5 {
					result, err := b.step(step)
					if err == nil && result.Complete {
						break
					}
					t.Logf("%s: %+v, %v", step, result, err)
				}
			}
			l.wants("active", `SELECT status FROM subscriptions WHERE stripe_subscription_id = $1`, sub)
			l.wants(activities.BulkSubscriptions+" true", `SELECT step || ' ' || (after = '')::text FROM bulk_runs`)
			l.wants("customer/"+s.customer, `SELECT string_agg(entity, ', ') FROM bulk_failures`)
		})
	}
}
