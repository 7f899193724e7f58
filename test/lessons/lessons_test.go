package lessons_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/api/serviceerror"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/app"
	"github.com/nepfy/clerk-stripe-sync/internal/operator"
	"github.com/nepfy/clerk-stripe-sync/internal/runs"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/test/system"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// All events of a checkout at once, each twice and in no order, make one row, and not a stale one.
func TestLesson01CreatedAndUpdatedAtOnce(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	user := l.user("Ada")
	customer := l.customer(user)
	l.Sandbox.StripeWebhooks.SetFaults(delivery.Faults{Double: 1, Reorder: 1})
	l.buys(user, customer)
	l.counts("the subscription is active", 1, `SELECT count(*) FROM subscriptions WHERE status = 'active'`)
	l.settled(user)
	if n := l.Count(`SELECT (SELECT count(*) FROM subscriptions) + (SELECT count(*) FROM stripe_customers)`); n != 2 {
		t.Errorf("there are %d rows, want one subscription and one customer", n)
	}
	l.hasAccess(user, true)
}

// Events in the wrong order, many of the same second, leave what Stripe says now.
func TestLesson02LateEventOverwritesNewerState(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	user := l.user("Ada")
	customer := l.customer(user)
	l.Quiet(true)
	l.Sandbox.StripeWebhooks.Hold()
	subscription := l.buys(user, customer)
	l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(subscription))
	l.must(l.Sandbox.Stripe.Reactivate(subscription))
	l.must(l.Sandbox.Stripe.SetQuantity(subscription, 3))
	for _, m := range backwards(l.held()) {
		l.delivers(m)
	}
	l.counts("the quantity is stored", 1, `SELECT count(*) FROM subscriptions WHERE quantity = 3 AND NOT cancel_at_period_end AND status = 'active'`)
	l.Sandbox.StripeWebhooks.Release()
	l.settled(user)
}

// What was answered 200 is done only once it is done: a redelivery meanwhile ends nothing.
func TestLesson03AcknowledgedThoughTheWriteFailed(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	user := l.user("Ada")
	customer := l.customer(user)
	l.Quiet(true)
	down := l.Sandbox.StripeFaults.Add(faults.Rule{PathPrefix: "/v1/subscriptions", Status: http.StatusServiceUnavailable})
	l.Sandbox.StripeWebhooks.Hold()
	l.buys(user, customer)
	messages := l.held()
	l.delivers(messages...)
	l.counts("the events say that they fail", 1, `SELECT count(*) FROM webhook_events WHERE type = 'customer.subscription.created' AND status = 'failing'`)
	l.delivers(messages...)
	if n := l.Count(`SELECT count(*) FROM webhook_events WHERE type = 'customer.subscription.created' AND status = 'failing' AND completed_at IS NULL`); n != 1 {
		t.Error("a redelivery has ended an event that failed")
	}
	down()
	l.Sandbox.StripeWebhooks.Release()
	l.counts("the events are completed", 1, `SELECT count(*) FROM webhook_events WHERE type = 'customer.subscription.created' AND status = 'completed'`)
	l.settled(user)
	l.hasAccess(user, true)
}

// Whatever is verified is taken, known or not: a provider disables an endpoint that refuses.
func TestLesson04RefusedForAnUnknownTypeOrUser(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	moon := `{"id":"evt_moonLanded","object":"event","type":"moon.landed","api_version":"2023-10-16","created":1700000000,"livemode":false,"data":{"object":{"id":"moon_1","object":"moon"}}}`
	l.delivers(delivery.Message{ID: "evt_moonLanded", Body: []byte(moon)})
	status, err := l.Sandbox.ClerkWebhooks.Deliver(t.Context(), delivery.Message{ID: "msg_moonLanded", Body: []byte(`{"object":"event","type":"moon.landed","data":{"id":"moon_1","object":"moon"}}`)})
	if err != nil || status != http.StatusOK {
		t.Errorf("Clerk was answered %d, %v", status, err)
	}
	if n := l.Count(`SELECT count(*) FROM webhook_events WHERE type = 'moon.landed' AND status = 'ignored' AND reason <> ''`); n != 2 {
		t.Errorf("%d of 2 unknown events are ignored and say why", n)
	}
	l.buys("", l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "nobody@example.com"}))
	l.Until("events of nobody's customer wait", func(context.Context) error {
		if l.Count(`SELECT count(*) FROM webhook_events WHERE status = 'waiting' AND reason <> ''`) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	l.Quiet(true)
	for _, attempt := range l.Sandbox.StripeWebhooks.Log() {
		if attempt.Err != nil {
			t.Errorf("%s was answered %d, %v", attempt.ID, attempt.Status, attempt.Err)
		}
	}
}

// However many ask at once for a user whom nobody has heard of, they get one customer.
func TestLesson05TwoCustomersForOneUser(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	l.Sandbox.ClerkWebhooks.Hold()
	user := l.user("Ada")
	var asking sync.WaitGroup
	for range 6 {
		asking.Go(func() { l.done(user, "/api/users/me/sync", "") })
	}
	l.Sandbox.ClerkWebhooks.Release()
	asking.Wait()
	l.customer(user)
	l.settled(user)
	if n := len(l.Sandbox.Stripe.Customers()); n != 1 {
		t.Errorf("Stripe has %d customers", n)
	}
}

// Stripe's search does not know what was made a moment ago, so it is not asked about who has just
// signed up; even when the answer to the making is lost there is one customer.
func TestLesson06SearchAsAUniquenessCheck(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	l.Sandbox.Stripe.SetSearchLag(time.Hour)
	l.Sandbox.StripeFaults.Add(faults.Rule{Method: http.MethodPost, PathPrefix: "/v1/customers", DropAfter: true, Times: 1})
	user := l.user("Ada")
	l.customer(user)
	l.settled(user)
	if n := len(l.Sandbox.Stripe.Customers()); n != 1 {
		t.Errorf("Stripe has %d customers", n)
	}
	if n := requests(l.Sandbox.StripeFaults.Requests(), "search"); n != 0 {
		t.Errorf("Stripe's search was asked %d times", n)
	}
}

// A second cancel is a wish of its own, not an answer to the first one that Stripe remembers.
func TestLesson07ASecondCancelDoesNothing(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	user, _, subscription := l.subscriber("Ada")
	for _, step := range []struct {
		action string
		ends   bool
	}{{"cancel", true}, {"reactivate", false}, {"cancel", true}} {
		l.done(user, "/api/subscriptions/"+subscription+"/"+step.action, "")
		if got := l.endsByItself(subscription); got != step.ends {
			t.Errorf("after %s Stripe says that it ends: %t", step.action, got)
		}
	}
	l.settled(user)
}

// The end of an old subscription, heard of after the new one, takes nothing from the new one.
func TestLesson08AnOldSubscriptionsEndWipesTheNewPlan(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	user, customer, old := l.subscriber("Ada")
	l.Sandbox.StripeWebhooks.Hold()
	l.must(l.Sandbox.Stripe.CancelNow(old))
	fresh := l.buys(user, customer)
	l.delivers(backwards(l.held())...) // the end of the old one comes last
	l.Sandbox.StripeWebhooks.Release()
	l.counts("both are stored", 2, `SELECT count(*) FROM subscriptions WHERE status = CASE stripe_subscription_id WHEN $1 THEN 'canceled' ELSE 'active' END`, old)
	l.settled(user)
	l.hasAccess(user, true)
	if got := l.told(user).SubscriptionID; got != fresh {
		t.Errorf("Clerk tells of %s, want the new one", got)
	}
}

// A paid invoice of nothing, as an ending makes it, is no subscription.
func TestLesson09AFinalInvoiceReactivates(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	user, _, subscription := l.subscriber("Ada")
	l.must(l.Sandbox.Stripe.CancelNow(subscription))
	l.counts("the end is stored", 1, `SELECT count(*) FROM subscriptions WHERE status = 'canceled'`)
	l.settled(user)
	l.hasAccess(user, false)
	l.delivers(l.another(l.event("invoice.paid"), "evt_invoiceOfNothing", func(body map[string]any) {
		invoice := object(body)
		invoice["amount_due"], invoice["amount_paid"], invoice["total"] = 0, 0, 0
	}))
	l.counts("the invoice was looked at", 1, `SELECT count(*) FROM webhook_events WHERE event_id = 'evt_invoiceOfNothing' AND status = 'completed'`)
	l.settled(user)
	l.hasAccess(user, false)
}

// Events of newer API versions have the period in the items; what is read is of one version, and
// stored.
func TestLesson10PeriodsMovedInANewerVersion(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	l.Sandbox.Stripe.SetEventVersion("2025-03-31.basil")
	user, _, _ := l.subscriber("Ada")
	if n := l.Count(`SELECT count(*) FROM subscriptions WHERE current_period_end > now() AND current_period_start IS NOT NULL`); n != 1 {
		t.Error("the period is not stored")
	}
	if l.told(user).CurrentPeriodEnd == "" {
		t.Error("Clerk does not know the period's end")
	}
}

// The portal may set a date instead of the flag. It is an end all the same, and taken back all the
// same.
func TestLesson11EndsByDateNotByFlag(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	user, _, subscription := l.subscriber("Ada")
	l.must(l.Sandbox.Stripe.CancelAt(subscription, l.Sandbox.Stripe.Now().Add(10*24*time.Hour)))
	l.counts("the date is stored", 1, `SELECT count(*) FROM subscriptions WHERE cancel_at IS NOT NULL`)
	l.settled(user)
	if p := l.told(user); p.CancelAt == "" {
		t.Errorf("Clerk does not know that it ends: %+v", p)
	}
	l.done(user, "/api/subscriptions/"+subscription+"/reactivate", "")
	if l.endsByItself(subscription) {
		t.Error("it ends still")
	}
	l.settled(user)
}

// Stripe refuses to cancel what a schedule manages. It is ended through the schedule.
func TestLesson12AScheduleRefusesTheCancel(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	user, _, subscription := l.subscriber("Ada")
	l.stripe("/v1/subscription_schedules", url.Values{"from_subscription": {subscription}})
	l.Quiet(true)
	l.done(user, "/api/subscriptions/"+subscription+"/cancel", "")
	if !l.endsByItself(subscription) {
		t.Error("it does not end")
	}
	l.settled(user)
}

// A trial grants access, collection that is paused does not; and it comes back with the collection.
func TestLesson13PausedShownAsActiveAndTrialsDenied(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	user := l.user("Ada")
	done, err := l.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{CustomerID: l.customer(user), ClientReferenceID: user, PriceID: l.price, TrialDays: 7})
	l.must(err)
	stored := func(paused bool) {
		t.Helper()
		l.counts("the pause is stored", 1, `SELECT count(*) FROM subscriptions WHERE status = 'trialing' AND collection_paused = $1`, paused)
		l.settled(user)
		l.hasAccess(user, !paused)
	}
	stored(false)
	l.must(l.Sandbox.Stripe.PauseCollection(done.SubscriptionID))
	stored(true)
	l.must(l.Sandbox.Stripe.ResumeCollection(done.SubscriptionID))
	stored(false)
}

// Nobody who is erased is billed on: Stripe knows of the end before the row is a tombstone.
func TestLesson14ADeletedUserIsBilledOn(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	user, _, subscription := l.subscriber("Ada")
	refusing := l.Sandbox.StripeFaults.Add(faults.Rule{Method: http.MethodPost, PathPrefix: "/v1/subscriptions", Status: http.StatusServiceUnavailable})
	remove := l.Sandbox.StripeFaults.Add(faults.Rule{Method: http.MethodDelete, PathPrefix: "/v1/subscriptions", Status: http.StatusServiceUnavailable})
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	l.counts("the deletion is asked for", 1, `SELECT count(*) FROM person_user WHERE clerk_user_id = $1 AND deletion_requested_at IS NOT NULL`, user)
	l.Until("the stop was tried", func(context.Context) error {
		counted := l.Sandbox.StripeFaults.Requests()
		if requests(counted, "POST /v1/subscriptions/{id}")+requests(counted, "DELETE /v1/subscriptions/{id}") == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	if n := l.Count(`SELECT count(*) FROM person_user WHERE deleted_at IS NOT NULL`); n != 0 {
		t.Error("the user is erased while the billing goes on")
	}
	refusing()
	remove()
	l.counts("the user is erased", 1, `SELECT count(*) FROM person_user WHERE clerk_user_id = $1 AND deleted_at IS NOT NULL`, user)
	if s := l.atStripe(subscription); s.Status != "canceled" && !l.endsByItself(subscription) {
		t.Errorf("at Stripe the subscription is %s and goes on", s.Status)
	}
}

// An address that nobody has verified adopts nothing, though linking by email is on.
func TestLesson15AnUnverifiedEmailAdoptsAnAccount(t *testing.T) {
	t.Parallel()
	l := learn(t, map[string]string{"LINK_BY_EMAIL": "true"})
	thief := l.Sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: "Eve", Emails: []clerksim.EmailSpec{{Address: "payer@example.com"}}})
	own := l.customer(thief)
	customer := l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "payer@example.com"})
	l.buys("", customer)
	l.counts("the customer is known", 1, `SELECT count(*) FROM stripe_customers WHERE stripe_customer_id = $1 AND read_seq > 0`, customer)
	l.settled(thief)
	l.hasAccess(thief, false)
	if n := l.Count(`SELECT count(*) FROM stripe_customers WHERE stripe_customer_id = $1 AND user_id IS NULL`, customer); n != 1 {
		t.Error("somebody owns the customer")
	}
	// Who pays under another address is linked by the id that the checkout names.
	paid, err := l.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{CustomerID: own, ClientReferenceID: thief, PriceID: l.price})
	l.must(err)
	l.counts("what they bought is stored", 1, `SELECT count(*) FROM subscriptions WHERE stripe_subscription_id = $1`, paid.SubscriptionID)
	l.settled(thief)
	l.hasAccess(thief, true)
}

// What no webhook ever told is found.
func TestLesson16AMissedWebhookLeavesAPayerUnknown(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	user := l.user("Ada")
	customer := l.customer(user)
	l.Quiet(true)
	l.Sandbox.StripeWebhooks.SetFaults(delivery.Faults{Lose: 1})
	l.buys(user, customer)
	l.must(l.Sandbox.Stripe.Settled(t.Context()))
	l.hasAccess(user, false)
	environ := maps.Clone(l.Environ)
	environ["RECOVERY_INTERVAL"] = "1s"
	l.must(app.Setup(t.Context(), environ, io.Discard))
	l.counts("the subscription is stored", 1, `SELECT count(*) FROM subscriptions WHERE status = 'active'`)
	l.settled(user)
	l.hasAccess(user, true)
}

// Bringing in a product that exists brings in what has ended too.
func TestLesson17ABackfillOmitsCanceledSubscriptions(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	for _, webhooks := range []*delivery.Sender{l.Sandbox.ClerkWebhooks, l.Sandbox.StripeWebhooks} {
		webhooks.SetFaults(delivery.Faults{Lose: 1})
	}
	user := l.user("Ada")
	subscription := l.buys(user, l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "ada@example.com", Metadata: map[string]string{"clerk_user_id": user}}))
	l.must(l.Sandbox.Stripe.CancelNow(subscription))
	l.must(l.Sandbox.Stripe.Settled(t.Context()))
	console, err := app.NewConsole(t.Context(), l.Environ)
	l.must(err)
	t.Cleanup(console.Close)
	if _, _, err := console.StartBulk(t.Context(), operator.BulkOrder{Caller: "operator"}); err != nil {
		t.Fatal(err)
	}
	l.counts("the canceled subscription is stored", 1, `SELECT count(*) FROM subscriptions WHERE stripe_subscription_id = $1 AND status = 'canceled'`, subscription)
	l.settled(user)
}

// A comparison that cannot read everything takes nothing from anybody, whatever it was asked to
// repair.
func TestLesson18AComparisonDemotesOnAnError(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	user, _, _ := l.subscriber("Ada")
	l.Rest()
	down := l.Sandbox.StripeFaults.Add(faults.Rule{Method: http.MethodGet, PathPrefix: "/v1/subscriptions", Status: http.StatusInternalServerError})
	var all []account.Drift
	for _, class := range account.DriftClasses() {
		if class.Repair() == account.RepairAlone {
			all = append(all, class)
		}
	}
	l.Sandbox.StripeFaults.Reset()
	server := runs.Server{Client: l.Temporal}
	if _, started, err := server.Reconcile(t.Context(), workflows.ReconciliationInput{Caller: "operator", Repair: all}); err != nil || !started {
		t.Fatalf("started %t, %v", started, err)
	}
	l.Until("the list was asked for again and again", func(context.Context) error {
		if n := requests(l.Sandbox.StripeFaults.Requests(), "GET /v1/subscriptions"); n < 3 {
			return fmt.Errorf("it was asked for %d times", n)
		}
		return nil
	})
	l.hasAccess(user, true)
	down()
	ctx, cancel := context.WithTimeout(t.Context(), system.Patience())
	defer cancel()
	var result workflows.ReconciliationResult
	if err := l.Temporal.GetWorkflow(ctx, workflows.OnDemandReconciliationID, "").Get(ctx, &result); err != nil {
		t.Fatal("the comparison ended with:", err)
	}
	if result.Asked != 0 || len(result.Confirmed) != 0 {
		t.Errorf("it came to %+v", result)
	}
	l.hasAccess(user, true)
	if n := l.Count(`SELECT count(*) FROM subscriptions WHERE status = 'active'`); n != 1 {
		t.Error("the subscription is active no more")
	}
}

// A price that the catalogue does not know yet keeps access, and is asked for by itself.
func TestLesson19AnUnknownPriceFallsToFree(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	user, _, subscription := l.subscriber("Ada")
	down := l.Sandbox.StripeFaults.Add(faults.Rule{PathPrefix: "/v1/products", Status: http.StatusServiceUnavailable})
	downToo := l.Sandbox.StripeFaults.Add(faults.Rule{PathPrefix: "/v1/prices", Status: http.StatusServiceUnavailable})
	price := l.Sandbox.Stripe.AddPrice(l.Sandbox.Stripe.AddProduct("Premium"), 5000, "year")
	l.must(l.Sandbox.Stripe.ChangePrice(subscription, price))
	l.Until("Clerk knows of the price", func(context.Context) error {
		if got := l.told(user).PriceID; got != price {
			return fmt.Errorf("it is %s", got)
		}
		return nil
	})
	l.hasAccess(user, true)
	if plan := l.told(user).Plan; plan != "Pro" {
		t.Errorf("the plan is %q, want the last one known", plan)
	}
	down()
	downToo()
	l.Until("Clerk knows the plan", func(context.Context) error {
		if got := l.told(user).Plan; got != "Premium" {
			return fmt.Errorf("it is %s", got)
		}
		return nil
	})
	l.settled(user)
}

// Somebody else's subscription is not there, and no provider is asked about it.
func TestLesson20AnyUserCancelsAnySubscription(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	ada, _, subscription := l.subscriber("Ada")
	eve, _, _ := l.subscriber("Eve")
	l.Rest()
	l.Sandbox.StripeFaults.Reset()
	for _, action := range []string{"cancel", "reactivate"} {
		if status, answer := l.asks(l.token(eve), http.MethodPost, "/api/subscriptions/"+subscription+"/"+action, ""); status != http.StatusNotFound {
			t.Errorf("%s was answered %d %s", action, status, answer)
		}
	}
	if counted := l.Sandbox.StripeFaults.Requests(); len(counted) != 0 {
		t.Errorf("Stripe was asked %v", counted)
	}
	l.hasAccess(ada, true)
}

// Back from paying, before any webhook has come, they have what they have paid for.
func TestLesson21BackFromCheckoutBeforeTheWebhook(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	user := l.user("Ada")
	customer := l.customer(user)
	l.Quiet(true)
	l.Sandbox.StripeWebhooks.Hold()
	paid, err := l.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{CustomerID: customer, ClientReferenceID: user, PriceID: l.price})
	l.must(err)
	l.done(user, "/api/checkout/return", fmt.Sprintf(`{"sessionId":%q}`, paid.SessionID))
	l.hasAccess(user, true)
	l.Sandbox.StripeWebhooks.Release()
	l.settled(user)
}

// Who a user is does not hang on an address: two may share one, and one may have none.
func TestLesson22TheSameEmailAndNone(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	before := l.user("Ada")
	l.customer(before)
	l.must(l.Sandbox.Clerk.DeleteUser(before))
	again := l.user("Ada")
	none := l.Sandbox.Clerk.AddUser(clerksim.UserSpec{})
	for _, user := range []string{again, none} {
		l.customer(user)
		l.settled(user)
	}
	twin := l.user("Ada")
	l.customer(twin)
	l.settled(twin)
	if n := l.Count(`SELECT count(*) FROM person_user WHERE email = 'ada@example.com'`); n != 2 {
		t.Errorf("%d users have the address, want 2", n)
	}
}

// A token made before they paid says who they are; what they have is read from the product's own
// rows.
func TestLesson23TheTokenShowsTheOldPlan(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	user := l.user("Ada")
	customer := l.customer(user)
	old := l.token(user)
	l.buys(user, customer)
	l.counts("the subscription is stored", 1, `SELECT count(*) FROM subscriptions WHERE status = 'active'`)
	status, answer := l.asks(old, http.MethodGet, "/api/subscriptions", "")
	if status != http.StatusOK || !strings.Contains(answer, `"status":"active"`) {
		t.Errorf("answered %d %s", status, answer)
	}
}

// Writing metadata has Clerk tell of it, which writes nothing again.
func TestLesson24AWriteRaisesAnEventThatWrites(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	user, _, _ := l.subscriber("Ada")
	l.Rest()
	l.Sandbox.ClerkFaults.Reset()
	name := "Augusta"
	l.must(l.Sandbox.Clerk.UpdateUser(user, clerksim.UserChange{FirstName: &name}))
	l.counts("the name is stored", 1, `SELECT count(*) FROM person_user WHERE first_name = 'Augusta'`)
	l.Rest()
	if n := requests(l.Sandbox.ClerkFaults.Requests(), "PATCH"); n != 0 {
		t.Errorf("Clerk was written to %d times for a change of a name", n)
	}
	if requests(l.Sandbox.ClerkFaults.Requests(), "GET") == 0 {
		t.Error("Clerk was not asked at all: nothing was counted")
	}
}

// What comes from the other mode changes nothing.
func TestLesson25TestModeInLive(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	user, _, _ := l.subscriber("Ada")
	l.delivers(l.another(l.event("customer.subscription.created"), "evt_fromLive", func(body map[string]any) { body["livemode"] = true }))
	if n := l.Count(`SELECT count(*) FROM webhook_events WHERE event_id = 'evt_fromLive' AND status = 'ignored' AND reason <> ''`); n != 1 {
		t.Error("an event of live mode is not ignored in test mode")
	}
	l.settled(user)
}

// A life, with a renewal that is declined, moves no money but what Stripe moves by itself. A trial
// brings in nothing yet, a year is twelve months, and what is paused or over is not counted. That
// no row is left out, however many there are, is shown by TestBilledAddsUpEveryRow in
// internal/store.
func TestLesson26RevenueCountsTrialsAndForgetsYearlyPlans(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	yearly := l.Sandbox.Stripe.AddPrice(l.Sandbox.Stripe.AddProduct("Pro, yearly"), 12000, "year")
	l.counts("the yearly price is in the catalogue", 1, `SELECT count(*) FROM plan_prices WHERE stripe_price_id = $1`, yearly)
	for name, spec := range map[string]stripesim.CheckoutSpec{
		"Ada": {PriceID: l.price, Quantity: 3}, "Bob": {PriceID: yearly}, "Cleo": {PriceID: l.price, TrialDays: 14}, "Dan": {PriceID: l.price}, "Eve": {PriceID: l.price},
	} {
		user := l.user(name)
		spec.CustomerID, spec.ClientReferenceID = l.customer(user), user
		bought, err := l.Sandbox.Stripe.CompleteCheckout(t.Context(), spec)
		l.must(err)
		switch name {
		case "Dan":
			l.must(l.Sandbox.Stripe.PauseCollection(bought.SubscriptionID))
		case "Eve":
			l.must(l.Sandbox.Stripe.CancelNow(bought.SubscriptionID))
		}
	}
	l.counts("all five are stored as they are", 5, `SELECT count(*) FROM subscriptions WHERE status <> 'active' OR collection_paused OR quantity = 3 OR billing_interval = 'year'`)
	l.Quiet(true)
	console := operator.Console{Store: l.Store}
	got, err := console.Revenue(t.Context())
	l.must(err)
	want := operator.Revenue{
		Monthly:   []account.MonthlyRevenue{{Currency: "usd", Amount: big.NewInt(3*2000 + 12000/12), Subscriptions: 2}},
		Uncounted: map[string]int64{"trialing": 1, "collection_paused": 1},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestLesson27AHandlerChargesAgain(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	user, customer, subscription := l.subscriber("Ada")
	l.must(l.Sandbox.Stripe.SetPayments(customer, false))
	l.must(l.Sandbox.Stripe.Advance(t.Context(), 32*24*time.Hour))
	l.counts("the declined renewal is stored", 1, `SELECT count(*) FROM subscriptions WHERE status = 'past_due'`)
	l.settled(user)
	l.must(l.Sandbox.Stripe.SetPayments(customer, true))
	l.must(l.Sandbox.Stripe.PayOpenInvoice(subscription))
	l.counts("the payment is stored", 1, `SELECT count(*) FROM subscriptions WHERE status = 'active'`)
	l.settled(user)
	l.done(user, "/api/subscriptions/"+subscription+"/cancel", "")
	for route, n := range l.Sandbox.StripeFaults.Requests() {
		for _, money := range []string{"payment_intents", "charges", "refunds", "/pay", "payment_methods", "setup_intents", "invoiceitems"} {
			if !strings.HasPrefix(route, http.MethodGet) && strings.Contains(route, money) {
				t.Errorf("Stripe was asked %s %d times", route, n)
			}
		}
	}
}

// The same events again and again, while runs close between them, are done once.
func TestLesson28WorkIsDoneTwiceAfterARunClosed(t *testing.T) {
	t.Parallel()
	l := learn(t, nil)
	user := l.user("Ada")
	customer := l.customer(user)
	l.Quiet(true)
	l.Sandbox.StripeWebhooks.Hold()
	l.buys(user, customer)
	messages := l.held()
	l.delivers(messages...)
	l.counts("the subscription is active", 1, `SELECT count(*) FROM subscriptions WHERE status = 'active'`)
	l.settled(user)
	count := func() int {
		t.Helper()
		return l.Count(`SELECT (SELECT count(*) FROM audit_log) + (SELECT count(*) FROM webhook_events) + (SELECT sum(projection_version) FROM person_user)`)
	}
	before := count()
	for range 3 {
		err := l.Temporal.TerminateWorkflow(t.Context(), workflows.CustomerWorkflowID(customer), "", "a test")
		if _, gone := errors.AsType[*serviceerror.NotFound](err); err != nil && !gone {
			t.Fatal(err)
		}
		l.delivers(messages...)
		l.settled(user)
	}
	if after := count(); after != before {
		t.Errorf("events, audit and versions count %d, before they were delivered again %d", after, before)
	}
	l.Sandbox.StripeWebhooks.Release()
}
