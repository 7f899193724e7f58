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
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/selfservice"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// An attempt whose answer from Stripe comes late wakes after its successor has committed. What it
// had read is dropped; history, projection and audit show nothing of it.
func TestLateReadOfACustomerIsDropped(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, customer, subscription := l.subscribed("ada")
	late := l.actor(policies{})
	at := late.arm(t, "answered GET /v1/subscriptions", 0)
	done := begin(func() error { return late.record(t.Context(), customer) })
	reach(t, at, done)

	l.must(l.Sandbox.Stripe.SetQuantity(subscription, 3))
	l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(subscription))
	l.settle()
	l.agree(user)
	before := l.text(`SELECT concat_ws('|', projection, projection_version, (SELECT count(*) FROM subscription_changes), (SELECT count(*) FROM audit_log),
		(SELECT read_seq FROM stripe_customers WHERE stripe_customer_id = $2)) FROM person_user WHERE clerk_user_id = $1`, user, customer)

	at.release()
	wait(t, done)
	l.wants("3 t", `SELECT quantity || ' ' || left(cancel_at_period_end::text, 1) FROM subscriptions WHERE stripe_subscription_id = $1`, subscription)
	l.wants(before, `SELECT concat_ws('|', projection, projection_version, (SELECT count(*) FROM subscription_changes), (SELECT count(*) FROM audit_log),
		(SELECT read_seq FROM stripe_customers WHERE stripe_customer_id = $2)) FROM person_user WHERE clerk_user_id = $1`, user, customer)
	l.agree(user)
}

// The late attempt still says from the user's row that a publish is due: the successor that found
// it may have died before it told anybody.
func TestLateReadStillAsksForThePublish(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, customer, subscription := l.subscribed("ada")
	late := l.actor(policies{})
	at := late.arm(t, "answered GET /v1/subscriptions", 0)
	var result activities.RecordResult
	done := begin(func() (err error) {
		result, err = late.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: customer})
		return err
	})
	reach(t, at, done)
	l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(subscription))
	l.unpoked()
	l.must(l.work.record(t.Context(), customer))
	at.release()
	wait(t, done)
	if !result.PublishDue || result.ClerkUserID != user || result.Outcome != activities.OutcomeSynced {
		t.Errorf("the late attempt answered %+v", result)
	}
	l.must(l.work.publish(t.Context(), user, false))
	l.agree(user)
}

// An event that came after a late read began is not answered by it: it tells what that read does
// not show, though nothing in the event says so.
func TestLateReadCompletesNoLaterEvent(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	_, customer, _ := l.subscribed("ada")
	late := l.actor(policies{})
	at := late.arm(t, "answered GET /v1/subscriptions", 0)
	done := begin(func() error { return late.record(t.Context(), customer) })
	reach(t, at, done)
	l.must(l.Sandbox.Stripe.UpdateCustomer(customer, stripesim.CustomerSpec{Email: "ada@example.org", Name: "ada Lovelace"}))
	l.unpoked()
	at.release()
	wait(t, done)
	l.wants("pending", `SELECT status FROM webhook_events WHERE type = 'customer.updated' ORDER BY seq DESC LIMIT 1`)
	l.wants("ada@example.com", `SELECT email FROM stripe_customers WHERE stripe_customer_id = $1`, customer)
	l.must(l.work.record(t.Context(), customer))
	l.wants("completed", `SELECT status FROM webhook_events WHERE type = 'customer.updated' ORDER BY seq DESC LIMIT 1`)
	l.wants("ada@example.org", `SELECT email FROM stripe_customers WHERE stripe_customer_id = $1`, customer)
}

// The same for a user: an old name does not come back, and is not given to the customer.
func TestLateReadOfAUserIsDropped(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, customer := l.signUp("ada")
	late := l.actor(policies{})
	at := late.arm(t, "answered GET /v1/users/"+user, 0)
	done := begin(func() error { return late.lookAtUser(t.Context(), user) })
	reach(t, at, done)

	name := "Augusta"
	l.must(l.Sandbox.Clerk.UpdateUser(user, clerksim.UserChange{FirstName: &name}))
	l.settle()
	before := l.text(`SELECT concat_ws('|', read_seq, profile_version, (SELECT count(*) FROM audit_log)) FROM person_user WHERE clerk_user_id = $1`, user)

	at.release()
	wait(t, done)
	l.settle()
	l.wants("Augusta", `SELECT first_name FROM person_user WHERE clerk_user_id = $1`, user)
	l.wants(before, `SELECT concat_ws('|', read_seq, profile_version, (SELECT count(*) FROM audit_log)) FROM person_user WHERE clerk_user_id = $1`, user)
	l.wants("Augusta Lovelace", `SELECT name FROM stripe_customers WHERE stripe_customer_id = $1`, customer)
	l.agree(user)
}

// The same for a product.
func TestLateReadOfAProductIsDropped(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, _, _ := l.subscribed("ada")
	late := l.actor(policies{})
	at := late.arm(t, "answered GET /v1/products/"+l.product, 0)
	done := begin(func() error {
		_, err := late.catalogue.RecordProduct(t.Context(), activities.ProductInput{ProductID: l.product})
		return err
	})
	reach(t, at, done)

	l.must(l.Sandbox.Stripe.UpdateProduct(l.product, "Premium"))
	l.must(l.Sandbox.Stripe.ArchivePrice(l.price))
	l.settle()
	l.wants("Premium", `SELECT projection ->> 'plan' FROM person_user WHERE clerk_user_id = $1`, user)

	at.release()
	wait(t, done)
	l.settle()
	l.wants("Premium", `SELECT plan_name FROM plans WHERE stripe_product_id = $1`, l.product)
	l.wants("false", `SELECT active FROM plan_prices WHERE stripe_price_id = $1`, l.price)
	l.wants("Premium", `SELECT projection ->> 'plan' FROM person_user WHERE clerk_user_id = $1`, user)
	l.agree(user)
}

// A read that began earlier commits after one that began later in every possible way, and the
// later one stays.
func TestTwoReadsOfOneCustomer(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, customer, subscription := l.subscribed("ada")
	quantity := int64(1)
	l.explore(policies{}, func() scene {
		quantity++
		return scene{
			first: func(ctx context.Context, a *actor) error { return a.record(ctx, customer) },
			second: func(ctx context.Context, b *actor) error {
				if err := l.Sandbox.Stripe.SetQuantity(subscription, quantity); err != nil {
					return err
				}
				return b.record(ctx, customer)
			},
			check: func() {
				l.wants(fmt.Sprint(quantity), `SELECT quantity FROM subscriptions WHERE stripe_subscription_id = $1`, subscription)
				l.projected(user)
			},
		}
	})
}

// The items of one subscription cannot be listed (it has more than ten). What became of the
// customer's other one is recorded all the same.
func TestItemsThatCannotBeListedHoldUpNoOther(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, customer, first := l.subscribed("ada")
	other := l.Sandbox.Stripe.AddPrice(l.Sandbox.Stripe.AddProduct("Extra"), 500, "month")
	l.settle()
	many := l.buy(stripesim.CheckoutSpec{CustomerID: customer, ClientReferenceID: user, PriceID: other}).SubscriptionID
	l.settle()
	l.must(l.Sandbox.Stripe.CancelNow(first))
	l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(many))
	l.take()
	list := l.byServer(http.MethodGet, "/v1/subscriptions?customer="+customer+"&status=all&limit=100&expand[]=data.latest_invoice&expand[]=data.customer&expand[]=data.schedule", nil)
	var shown map[string]any
	l.must(json.Unmarshal([]byte(list), &shown))
	for _, each := range shown["data"].([]any) {
		if s := each.(map[string]any); s["id"] == many {
			s["items"].(map[string]any)["has_more"] = true
		}
	}
	raw, err := json.Marshal(shown)
	l.must(err)
	l.work.answer("GET /v1/subscriptions?", http.StatusOK, string(raw))
	items := l.work.refuse("GET /v1/subscription_items", http.StatusInternalServerError, `{"error":{"type":"api_error","message":"?"}}`)
	alone := l.work.refuse("GET /v1/subscriptions/"+many, http.StatusInternalServerError, `{"error":{"type":"api_error","message":"?"}}`)
	if err := l.work.lookAtCustomer(t.Context(), customer); err == nil {
		t.Error("the look says that it has seen all")
	}
	l.wants("canceled", `SELECT status FROM subscriptions WHERE stripe_subscription_id = $1`, first)
	l.wants("active false", `SELECT status || ' ' || cancel_at_period_end FROM subscriptions WHERE stripe_subscription_id = $1`, many)
	items()
	alone()
	l.settle()
	l.wants("active true", `SELECT status || ' ' || cancel_at_period_end FROM subscriptions WHERE stripe_subscription_id = $1`, many)
	l.agree(user)
}

// Somebody asks for a sync. Their customer's subscription has become past_due, of which nobody
// told, and its open invoices cannot be listed, so that it keeps the row that it had. The sync is
// not told as done before it can be.
func TestASyncThatDidNotSeeAllIsNotDone(t *testing.T) {
	t.Parallel()
	for _, partial := range []bool{false, true} {
		t.Run(map[bool]string{false: "all can be read", true: "its invoices cannot be listed"}[partial], func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, customer, subscription := l.subscribed("ada")
			l.must(l.Sandbox.Stripe.SetPayments(customer, false))
			l.must(l.Sandbox.Stripe.Advance(t.Context(), 32*day))
			l.must(l.Sandbox.Stripe.Settled(t.Context()))
			l.Sandbox.StripeWebhooks.TakeHeld() // lost
			l.unpoked()
			restore := func() {}
			if partial {
				restore = l.work.refuse("GET /v1/invoices", http.StatusInternalServerError, `{"error":{"type":"api_error","message":"?"}}`)
			}
			desk := l.requests(l.actor(policies{}))
			desk.Wait = 100 * time.Millisecond
			op, err := desk.Sync(t.Context(), selfservice.Caller{UserID: user}, selfservice.Key{}, "")
			l.must(err)
			if op.Status != store.OperationAccepted {
				t.Fatalf("it is %s", op.Status)
			}
			l.must(l.work.lookAtUser(t.Context(), user))
			for range 3 { // attempts of one activity
				err = l.work.lookAtCustomer(t.Context(), customer)
			}
			if (err != nil) != partial {
				t.Fatal(err)
			}
			l.must(l.work.lookAtUser(t.Context(), user))
			want := "done past_due"
			if partial {
				want = "accepted active"
			}
			states := `SELECT o.status || ' ' || s.status FROM operations o, subscriptions s WHERE o.id = $1 AND s.stripe_subscription_id = $2`
			_, err = l.Store.Operation(t.Context(), op.ID)
			l.must(err)
			l.wants(want, states, op.ID, subscription)
			restore()
			l.must(l.work.lookAtCustomer(t.Context(), customer))
			_, err = l.Store.Operation(t.Context(), op.ID)
			l.must(err)
			l.wants("done past_due", states, op.ID, subscription)
		})
	}
}

// Somebody comes back from paying. What they have bought is read, stored and told to Clerk; of
// another subscription of theirs something cannot be read. Their return is done. One that is about
// that other subscription is not, before it is read, nor is one that names none.
func TestAReturnIsDoneBesideWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	for _, partial := range []bool{false, true} {
		t.Run(map[bool]string{false: "all can be read", true: "the invoices of another cannot be listed"}[partial], func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			l.must(l.Sandbox.Stripe.SetPayments(s.customer, false))
			l.must(l.Sandbox.Stripe.Advance(t.Context(), 32*day))
			l.must(l.Sandbox.Stripe.Settled(t.Context()))
			l.Sandbox.StripeWebhooks.TakeHeld() // lost
			l.must(l.Sandbox.Stripe.SetPayments(s.customer, true))
			bought := l.buy(stripesim.CheckoutSpec{CustomerID: s.customer, ClientReferenceID: s.user}).SubscriptionID
			l.unpoked()
			restore := func() {}
			if partial {
				restore = l.work.refuse("GET /v1/invoices", http.StatusForbidden, `{"error":{"type":"invalid_request_error","message":"?"}}`)
			}
			returned := map[string]string{}
			for _, id := range []string{bought, s.subscription, ""} {
				returned[id] = l.asks(subject{s.user, s.customer, id}, store.ActionReturn)
			}
			are := func(want string) {
				t.Helper()
				got := ""
				for _, id := range []string{bought, s.subscription, ""} {
					op, err := l.Store.Operation(t.Context(), returned[id])
					l.must(err)
					got += string(op.Status) + " "
				}
				if got != want {
					t.Errorf("the returns are %s, want %s", got, want)
				}
			}
			are("accepted accepted accepted ")
			look := func() {
				_, err := l.work.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: s.customer, InPart: partial})
				l.must(err)
				l.must(l.work.publish(t.Context(), s.user, false))
			}
			for range 2 {
				look()
				if partial {
					are("done accepted accepted ")
				} else {
					are("done done done ")
				}
			}
			restore()
			look()
			are("done done done ")
		})
	}
}

// A full read is under way while another read, a younger one, cannot see all. What the full one
// drops because of that is not what its events told: they stay due until it is stored.
func TestEventsAreNotCompletedByAReadWhoseRowsAPartialOneHasDropped(t *testing.T) {
	t.Parallel()
	for _, partial := range []bool{false, true} {
		t.Run(map[bool]string{false: "the younger read is whole", true: "the younger read is partial"}[partial], func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			_, customer, subscription := l.subscribed("ada")
			l.must(l.Sandbox.Stripe.SetPayments(customer, false))
			l.must(l.Sandbox.Stripe.Advance(t.Context(), 32*day))
			l.must(l.Sandbox.Stripe.Settled(t.Context()))
			for _, m := range l.Sandbox.StripeWebhooks.TakeHeld() {
				if strings.Contains(string(m.Body), `customer.subscription.updated`) {
					l.Sandbox.StripeWebhooks.Send(m) // those of the invoices are lost
				}
			}
			l.unpoked()
			full, other := l.actor(policies{}), l.actor(policies{})
			at := full.arm(t, "answered GET /v1/invoices", 0)
			done := begin(func() error { return full.lookAtCustomer(t.Context(), customer) })
			reach(t, at, done)
			if partial {
				other.refuse("GET /v1/invoices", http.StatusInternalServerError, `{"error":{"type":"api_error","message":"?"}}`)
			}
			if err := other.lookAtCustomer(t.Context(), customer); (err != nil) != partial {
				t.Fatal(err)
			}
			at.release()
			if err := <-done; (failure.CodeOf(err) == "overtaken_in_part") != partial {
				t.Fatal(err)
			}
			if partial {
				l.wants("active", `SELECT status FROM subscriptions WHERE stripe_subscription_id = $1`, subscription)
				l.must(full.lookAtCustomer(t.Context(), customer)) // the next attempt
			}
			l.wants("past_due", `SELECT status FROM subscriptions WHERE stripe_subscription_id = $1`, subscription)
			l.wants("0", `SELECT count(*) FROM webhook_events WHERE entity = $1 AND status NOT IN ('completed', 'ignored')`, "customer/"+customer)
		})
	}
}

// A look that has met the same before answers what it could read, with the failure beside it. No
// event is completed, and the failure is shown. When to look again is for its workflow to say,
// which does so ever less often.
func TestAPartialLookIsAResult(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	_, customer, subscription := l.subscribed("ada")
	l.must(l.Sandbox.Stripe.SetPayments(customer, false))
	l.must(l.Sandbox.Stripe.Advance(t.Context(), 32*day))
	l.take()
	restore := l.work.refuse("GET /v1/invoices", http.StatusInternalServerError, `{"error":{"type":"api_error","message":"?"}}`)
	l.exec(`UPDATE webhook_events SET type = 'customer.updated' WHERE type LIKE 'invoice.%'`) // which would say since when it owes
	result, err := l.work.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: customer, InPart: true})
	l.must(err)
	if result.InPart != string(failure.Transient) || !result.Live || result.RereadAfter != 0 {
		t.Errorf("it came to %+v", result)
	}
	l.wants("active", `SELECT status FROM subscriptions WHERE stripe_subscription_id = $1`, subscription)
	l.wants("0", `SELECT count(*) FROM webhook_events WHERE entity = $1 AND status NOT IN ('failing') AND received_at > now() - interval '1 minute' AND completed_at IS NULL`, "customer/"+customer)
	restore()
	l.settle()
	l.wants("past_due", `SELECT status FROM subscriptions WHERE stripe_subscription_id = $1`, subscription)
}
