package fences_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/intake"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// secretive is a person whose name and addresses stand nowhere else.
func secretive(n int) clerksim.UserSpec {
	return clerksim.UserSpec{FirstName: fmt.Sprintf("Xanthippe%dx", n), LastName: "Quillfeather", Username: fmt.Sprintf("xq%d", n),
		Emails: []clerksim.EmailSpec{{Address: fmt.Sprintf("xanthippe%d@secret.example", n), Verified: true}}}
}

func payer(n int) string { return fmt.Sprintf("xanthippe%d.pays@secret.example", n) }

// traces are the tables that hold something of a person who should be forgotten.
func (l *lab) traces() string {
	l.t.Helper()
	rows, err := l.db.Query(l.t.Context(), `SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1`)
	l.must(err)
	var tables []string
	for rows.Next() {
		var table string
		l.must(rows.Scan(&table))
		tables = append(tables, table)
	}
	l.must(rows.Err())
	if len(tables) < 10 {
		l.t.Fatalf("looked at %v only", tables)
	}
	var found []string
	for _, table := range tables {
		if row := l.text(`SELECT min(t::text) FROM ` + table + ` t WHERE t::text ~* 'xanthippe|quillfeather|secret\.example'`); row != "" {
			found = append(found, table+": "+row)
		}
	}
	return strings.Join(found, "\n")
}

// gone fails the test unless a deleted user is a tombstone with its links, with no trace of who
// they were, and nobody bills them on.
func (l *lab) gone(user string, policy account.DeletionPolicy, customers ...string) {
	l.t.Helper()
	l.wants("t t", `SELECT left((deletion_requested_at IS NOT NULL)::text, 1) || ' ' || left((erased_at IS NOT NULL)::text, 1) FROM person_user WHERE clerk_user_id = $1`, user)
	l.wants("", `SELECT string_agg(entity || ' ' || type || ' ' || status || ' ' || coalesce(reason, ''), ', ') FROM webhook_events WHERE status NOT IN ('completed', 'ignored')`)
	l.wants("0", `SELECT count(*) FROM person_user WHERE projection_version <> published_version`)
	if found := l.traces(); found != "" {
		l.t.Errorf("there are traces of a user who was deleted:\n%s", found)
	}
	for _, customer := range customers {
		l.wants(user, `SELECT u.clerk_user_id FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE c.stripe_customer_id = $1`, customer)
		if _, known := l.Sandbox.Stripe.Customer(customer); !known {
			l.t.Errorf("%s is gone from Stripe", customer)
		}
		for _, raw := range l.Sandbox.Stripe.Subscriptions(customer) {
			var s struct {
				ID, Status        string
				CancelAtPeriodEnd bool `json:"cancel_at_period_end"`
			}
			l.must(json.Unmarshal(raw, &s))
			stopped := map[account.DeletionPolicy]bool{
				account.DeleteCancelAtPeriodEnd: s.CancelAtPeriodEnd || s.Status == "canceled",
				account.DeleteCancelNow:         s.Status == "canceled",
				account.DeleteKeep:              s.Status == "active" && !s.CancelAtPeriodEnd,
			}
			if !stopped[policy] {
				l.t.Errorf("with %s the subscription %s of a deleted user is %s, ends with its period: %t", policy, s.ID, s.Status, s.CancelAtPeriodEnd)
			}
			l.wants(fmt.Sprint(s.Status, " ", s.CancelAtPeriodEnd), `SELECT status || ' ' || cancel_at_period_end::text FROM subscriptions WHERE stripe_subscription_id = $1`, s.ID)
		}
	}
}

// A user with a subscription is deleted while a checkout of theirs completes, between any two
// steps: of the deletion, or of what follows from the checkout; on a customer that we know or on
// one that nothing but the checkout names. Each policy holds for each subscription in the end, with
// no help from a timer.
func TestCheckoutCompletesWhileItsUserIsDeleted(t *testing.T) {
	t.Parallel()
	for _, policy := range []account.DeletionPolicy{account.DeleteCancelAtPeriodEnd, account.DeleteCancelNow, account.DeleteKeep} {
		for _, known := range []bool{true, false} {
			for _, checkoutFirst := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, known customer %t, checkout first %t", policy, known, checkoutFirst), func(t *testing.T) {
					t.Parallel()
					l := newLab(t, policies{deletion: policy})
					n := 0
					// The policies differ in what is done, not in when.
					stride := 13
					if policy == account.DeleteCancelAtPeriodEnd {
						stride = 3
					}
					l.exploreEvery(stride, policies{deletion: policy}, func() scene {
						n++
						user := l.Sandbox.Clerk.AddUser(secretive(n))
						l.settle()
						customer := l.customerOf(user)
						l.buy(stripesim.CheckoutSpec{CustomerID: customer, ClientReferenceID: user})
						l.settle()
						checkout := stripesim.CheckoutSpec{CustomerID: customer, PriceID: l.price, ClientReferenceID: user,
							SubscriptionMetadata: map[string]string{"clerk_user_id": user, "note": "for Quillfeather"}}
						if !known {
							checkout.CustomerID, checkout.Email = "", payer(n)
						}
						late := customer
						buy := func(ctx context.Context) error {
							bought, err := l.Sandbox.Stripe.CompleteCheckout(ctx, checkout)
							late = bought.CustomerID
							return err
						}
						lookAtUser := func(ctx context.Context, a *actor) error { return a.lookAtUser(ctx, user) }
						s := scene{first: lookAtUser, second: func(ctx context.Context, b *actor) error {
							if err := buy(ctx); err != nil {
								return err
							}
							return b.lookAtCustomer(ctx, late)
						}}
						if checkoutFirst {
							l.must(buy(t.Context()))
							s.first, s.second = func(ctx context.Context, a *actor) error { return a.lookAtCustomer(ctx, late) }, lookAtUser
						}
						l.must(l.Sandbox.Clerk.DeleteUser(user))
						l.unpoked()
						s.check = func() {
							l.settle()
							// What is said of them afterwards brings nothing back.
							l.lateEvents(user, n)
							l.settle()
							l.gone(user, policy, customer, late)
						}
						return s
					})
				})
			}
		}
	}
}

// lateEvents are events about a user that come when they are long deleted.
func (l *lab) lateEvents(user string, n int) {
	l.t.Helper()
	var events []store.NewEvent
	for _, kind := range []string{"user.created", "user.updated"} {
		events = append(events, store.NewEvent{Source: intake.SourceClerk, EventID: fmt.Sprintf("msg_%s_%s", kind, user), Type: kind, Entity: account.UserEntity(user),
			Job: store.JobOf(kind), ReceivedAt: time.Now(), Payload: fmt.Sprintf(`{"type":%q,"data":{"id":%q,"first_name":"Xanthippe%dx"}}`, kind, user, n)})
	}
	_, err := l.Store.AddEvents(l.t.Context(), events, 0)
	l.must(err)
}

// A checkout that completes when its user has long been erased.
func TestCheckoutCompletesAfterTheErasure(t *testing.T) {
	t.Parallel()
	for _, policy := range []account.DeletionPolicy{account.DeleteCancelAtPeriodEnd, account.DeleteCancelNow, account.DeleteKeep} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{deletion: policy})
			user := l.Sandbox.Clerk.AddUser(secretive(1))
			l.settle()
			customer := l.customerOf(user)
			l.must(l.Sandbox.Clerk.DeleteUser(user))
			l.settle()
			l.gone(user, policy, customer)
			l.buy(stripesim.CheckoutSpec{CustomerID: customer, ClientReferenceID: user})
			other := l.buy(stripesim.CheckoutSpec{Email: payer(1), ClientReferenceID: user, Metadata: byServer(user)}).CustomerID
			l.settle()
			l.gone(user, policy, customer, other)
		})
	}
}

// Somebody is deleted of whom nothing was known before. What comes afterwards finds the mark.
func TestDeletionIsTheFirstThatIsHeardOfAUser(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user := l.Sandbox.Clerk.AddUser(secretive(1))
	created := l.Sandbox.ClerkWebhooks.TakeHeld()
	customer := l.buy(stripesim.CheckoutSpec{Email: payer(1), ClientReferenceID: user, Metadata: byServer(user)}).CustomerID
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	l.settle()
	for _, m := range created {
		l.Sandbox.ClerkWebhooks.Send(m)
	}
	l.settle()
	l.gone(user, account.DeleteCancelAtPeriodEnd, customer)
}

// What Stripe could still collect on is ended at once, unless it is to be kept: a period end would
// only come after more attempts to collect.
func TestUnpaidSubscriptionsOfADeletedUserEndAtOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user := l.Sandbox.Clerk.AddUser(secretive(1))
	l.settle()
	customer := l.customerOf(user)
	subscription := l.buy(stripesim.CheckoutSpec{CustomerID: customer, ClientReferenceID: user}).SubscriptionID
	l.must(l.Sandbox.Stripe.SetPayments(customer, false))
	l.must(l.Sandbox.Stripe.Advance(t.Context(), 32*24*time.Hour))
	l.settle()
	l.wants("past_due", `SELECT status FROM subscriptions WHERE stripe_subscription_id = $1`, subscription)
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	l.settle()
	l.wants("canceled", `SELECT status FROM subscriptions WHERE stripe_subscription_id = $1`, subscription)
	l.gone(user, account.DeleteCancelNow, customer)
}

// A customer that nobody knew whose it was is deleted at Stripe, and then turns out to have been
// that of a user who is erased. The payer's address goes, also from events that had been given up.
func TestLinkToATombstoneErasesWhatWasKept(t *testing.T) {
	t.Parallel()
	for name, deleted := range map[string]bool{"deleted at Stripe": true, "alive": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user := l.Sandbox.Clerk.AddUser(secretive(1))
			l.settle()
			l.must(l.Sandbox.Clerk.DeleteUser(user))
			l.settle()
			late := l.buy(stripesim.CheckoutSpec{Email: payer(1), ClientReferenceID: user, Metadata: byServer(user)}).CustomerID
			// The event that names the user is late; the others come, and are given up.
			messages := l.Sandbox.StripeWebhooks.TakeHeld()
			var naming int
			for i, m := range messages {
				if strings.Contains(string(m.Body), `"checkout.session.completed"`) {
					naming = i
					continue
				}
				l.Sandbox.StripeWebhooks.Send(m)
			}
			l.settle()
			l.wants(payer(1), `SELECT email FROM stripe_customers WHERE stripe_customer_id = $1`, late)
			l.exec(`UPDATE webhook_events SET received_at = now() - interval '31 days' WHERE status = 'waiting'`)
			if n, err := l.Store.ExpireWaiting(t.Context(), 30*24*time.Hour, 1000); err != nil || n == 0 {
				t.Fatalf("%d events were given up: %v", n, err)
			}
			if deleted {
				l.must(l.Sandbox.Stripe.DeleteCustomer(late))
				l.settle()
			}
			l.Sandbox.StripeWebhooks.Send(messages[naming])
			l.settle()
			l.gone(user, account.DeleteCancelAtPeriodEnd, late)
		})
	}
}

// All that we know of a customer complies, but was read before the mark: nobody is erased for that,
// since a checkout may have completed that nobody has told us of.
func TestNobodyIsErasedBeforeTheBillingIsStopped(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user := l.Sandbox.Clerk.AddUser(secretive(1))
	l.settle()
	customer := l.customerOf(user)
	// This read of Stripe began before the mark, and sees nothing of the checkout.
	early := l.actor(policies{})
	at := early.arm(t, "answered GET /v1/subscriptions", 0)
	done := begin(func() error { return early.record(t.Context(), customer) })
	reach(t, at, done)
	l.buy(stripesim.CheckoutSpec{CustomerID: customer, ClientReferenceID: user})
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	l.unpoked()
	l.must(l.work.syncUser(t.Context(), user))
	at.release()
	wait(t, done)
	l.must(l.work.lookAtUser(t.Context(), user))
	l.wants("", `SELECT deleted_at FROM person_user WHERE clerk_user_id = $1`, user)
	l.settle()
	l.gone(user, account.DeleteCancelAtPeriodEnd, customer)
	l.wants("1", `SELECT count(*) FROM subscriptions WHERE cancel_at_period_end`)
}

// Whoever commits the mark of a deletion may die before customers that name the user are looked
// for: the next attempt looks.
func TestCustomersThatNameADeletedUserAreLookedAtByAnyAttempt(t *testing.T) {
	t.Parallel()
	for _, dies := range []bool{false, true} {
		l := newLab(t, policies{})
		user, _ := l.signUp("ada")
		other, _ := l.signUp("bo")
		bought := l.buy(stripesim.CheckoutSpec{Email: "payer@example.org", Metadata: byServer(user)})
		l.buy(stripesim.CheckoutSpec{CustomerID: bought.CustomerID, Metadata: byServer(other)})
		l.take()
		l.settle()
		l.wants("", `SELECT user_id FROM stripe_customers WHERE stripe_customer_id = $1`, bought.CustomerID)
		_, err := l.Store.ExpireWaiting(t.Context(), 0, 100)
		l.must(err)
		l.must(l.Sandbox.Clerk.DeleteUser(user))
		if dies {
			l.take()
			a := l.actor(policies{})
			at := a.arm(t, "sql SELECT DISTINCT cl.stripe_customer_id FROM customer_claims", 0)
			ctx, cancel := context.WithCancel(t.Context())
			done := begin(func() error { return a.syncUser(ctx, user) })
			reach(t, at, done)
			cancel()
			at.release()
			if err := <-done; err == nil {
				t.Fatal("it did not die")
			}
			l.wants("true", `SELECT (deletion_requested_at IS NOT NULL)::text FROM person_user WHERE clerk_user_id = $1`, user)
		}
		l.settle()
		l.sweep()
		l.must(l.work.lookAtUser(t.Context(), user))
		l.settle()
		l.wants("true", erased, user)
		for _, raw := range l.Sandbox.Stripe.Subscriptions(bought.CustomerID) {
			if text := strings.ReplaceAll(string(raw), " ", ""); !strings.Contains(text, `"cancel_at_period_end":true`) {
				t.Errorf("dies %t: subscription %s of the erased user runs on", dies, stringField(t, raw, "id"))
			}
		}
	}
}

// The product's server makes a customer for ada, and opens a checkout on it, while her deletion is
// asked for; what Stripe tells of that comes a little later. The checkout is closed.
func TestCheckoutOnACustomerThatIsLinkedToADeletedUserIsClosed(t *testing.T) {
	t.Parallel()
	for _, late := range []bool{false, true} {
		t.Run(map[bool]string{false: "told in time", true: "told late"}[late], func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, _ := l.signUp("ada")
			customer := l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "ada@example.com", Metadata: map[string]string{"clerk_user_id": user}})
			l.must(l.Sandbox.Stripe.Settled(t.Context()))
			if !late {
				l.settle()
			}
			held := l.Sandbox.StripeWebhooks.TakeHeld()
			l.must(l.openCheckout(customer))
			held = append(held, l.Sandbox.StripeWebhooks.TakeHeld()...)
			l.must(l.Sandbox.Clerk.DeleteUser(user))
			l.settle()
			for _, m := range held {
				l.Sandbox.StripeWebhooks.Send(m)
			}
			l.settle()
			l.must(l.work.lookAtUser(t.Context(), user))
			_, err := l.Store.Sweep(t.Context(), 100)
			l.must(err)
			l.settle()
			l.wants("true", `SELECT deleted_at IS NOT NULL FROM person_user WHERE clerk_user_id = $1`, user)
			l.wants(user, `SELECT u.clerk_user_id FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE c.stripe_customer_id = $1`, customer)
			open, err := l.work.stripe.OpenCheckoutSessions(t.Context(), customer)
			l.must(err)
			if len(open) > 0 {
				t.Errorf("%d checkouts of an erased user are open", len(open))
			}
			l.wants("0", `SELECT count(*) FROM stripe_customers WHERE checkouts_due`)
		})
	}
}

// A deleted user's subscription is set to end, and the attempt fails for something else, as each
// further one does for hours. Meanwhile they have it go on, in Stripe's portal. The keys are the
// same in each attempt at one activity.
func TestADeletedUserWhoReactivatesInThePortalIsStoppedAgain(t *testing.T) {
	t.Parallel()
	for _, fails := range []bool{false, true} {
		t.Run(map[bool]string{false: "control: nothing was asked before", true: "stopped before"}[fails], func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			l.must(l.Sandbox.Clerk.DeleteUser(s.user))
			l.unpoked()
			l.must(l.work.syncUser(t.Context(), s.user))
			a := l.actor(policies{})
			a.refuse("GET /v1/subscription_schedules?", http.StatusForbidden, `{"error":{"type":"invalid_request_error","message":"The key has not the right."}}`)
			in := activities.RecordInput{CustomerID: s.customer}
			if fails {
				if _, err := a.subscriptions.StopBilling(t.Context(), in); err == nil {
					t.Fatal("it did not fail")
				}
				if !l.endsByPeriod(s.subscription) {
					t.Fatal("it was not stopped")
				}
			}
			l.post("/v1/subscriptions/"+s.subscription, "cancel_at_period_end", "false")
			for range 3 {
				if _, err := a.subscriptions.StopBilling(t.Context(), in); err == nil {
					t.Fatal("it did not fail")
				}
			}
			if !l.endsByPeriod(s.subscription) {
				t.Error("the deleted user's subscription renews, and no further attempt ends it")
			}
		})
	}
}
