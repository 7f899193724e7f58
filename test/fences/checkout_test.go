package fences_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/clerkapi"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/selfservice"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeapi"
	"github.com/nepfy/clerk-stripe-sync/internal/stripechanges"
)

// nobody commands nothing.
type nobody struct{}

func (nobody) Command(context.Context, *store.Operation, time.Duration) error { return nil }

// requests takes requests over an actor's connections.
func (l *lab) requests(a *actor) *selfservice.Desk {
	stripe := stripeapi.New(stripeapi.Options{Key: l.Sandbox.StripeSecretKey, BaseURL: l.Sandbox.StripeURL(), Transport: a.points})
	clerk := clerkapi.New(clerkapi.Options{Key: l.Sandbox.ClerkSecretKey, BaseURL: l.Sandbox.ClerkURL(), Transport: a.points})
	return &selfservice.Desk{Store: a.users.Store, Stripe: stripechanges.New(stripe, a.users.Store), Clerk: clerk, Commander: nobody{}, Wake: func() {},
		Wait: 5 * time.Second, Access: access(), Logger: slog.New(slog.DiscardHandler)}
}

// checkoutOf is a request for the lab's price; "" for no Idempotency-Key.
func (l *lab) checkoutOf(user, key string) selfservice.CheckoutRequest {
	return selfservice.CheckoutRequest{Caller: selfservice.Caller{UserID: user}, Key: selfservice.Key{Method: http.MethodPost, Route: "/api/checkout", Value: key},
		PriceID: l.price, SuccessURL: "https://app.example.com/ok", CancelURL: "https://app.example.com/no"}
}

// stateOf is a session's status at Stripe.
func (l *lab) stateOf(sessionID string) account.CheckoutStatus {
	l.t.Helper()
	stripe := stripeapi.New(stripeapi.Options{Key: l.Sandbox.StripeSecretKey, BaseURL: l.Sandbox.StripeURL()})
	defer stripe.Close()
	session, err := stripe.CheckoutSession(l.t.Context(), sessionID)
	l.must(err)
	return session.Status
}

// refused answers the code with which a request was refused, "" where it was not.
func refused(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	refusal, ok := errors.AsType[*selfservice.Refusal](err)
	if !ok {
		t.Fatalf("refused with %v", err)
	}
	return refusal.Code
}

// A user is deleted and erased while Stripe opens a checkout for them: they are told nothing of it,
// and nobody can pay it.
func TestCheckoutOpenedForAUserWhoIsDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"ask POST /v1/checkout/sessions", "answered POST /v1/checkout/sessions"} {
		l := newLab(t, policies{})
		user, customer := l.signUp("ada")
		a := l.actor(policies{})
		at := a.arm(t, point, 0)
		var opened selfservice.Checkout
		done := begin(func() (err error) {
			opened, _, err = l.requests(a).Checkout(t.Context(), l.checkoutOf(user, "k1"))
			return err
		})
		reach(t, at, done)
		l.must(l.Sandbox.Clerk.DeleteUser(user))
		l.settle()
		l.wants("true", `SELECT (deleted_at IS NOT NULL)::text FROM person_user`)
		at.release()
		if code := refused(t, <-done); code != "user_not_found" || opened.URL != "" {
			t.Errorf("%s: answered %q with %+v", point, code, opened)
		}
		l.noneOpen(customer)
		l.wants("0", `SELECT count(*) FROM checkout_leases`)
	}
}

// noneOpen fails the test where a customer has a checkout that could be paid.
func (l *lab) noneOpen(customer string) {
	l.t.Helper()
	stripe := stripeapi.New(stripeapi.Options{Key: l.Sandbox.StripeSecretKey, BaseURL: l.Sandbox.StripeURL()})
	defer stripe.Close()
	sessions, err := stripe.OpenCheckoutSessions(l.t.Context(), customer)
	l.must(err)
	if len(sessions) > 0 {
		l.t.Errorf("open at Stripe: %v", sessions)
	}
}

// The process that opens a checkout ends before it can look again, or cannot close what it has
// opened: the sweep has it closed, though the user is erased by then.
func TestCheckoutLeftOpenForADeletedUserIsClosed(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, customer := l.signUp("ada")
	a := l.actor(policies{})
	at := a.arm(t, "ask POST /v1/checkout/sessions", 0)
	done := begin(func() error {
		_, _, err := l.requests(a).Checkout(t.Context(), l.checkoutOf(user, "k1"))
		return err
	})
	reach(t, at, done)
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	l.settle()
	a.delay(t, "/expire")
	at.release()
	refused(t, <-done)
	l.wants("true", `SELECT (deleted_at IS NOT NULL)::text FROM person_user`)
	l.wants("1", `SELECT count(*) FROM checkout_leases`)
	l.sweep()
	l.wants("1", `SELECT count(*) FROM checkout_leases`) // which may still be worked under
	l.exec(`UPDATE checkout_leases SET until = now() - interval '1 second'`)
	l.exec(`UPDATE pokes SET poked_at = now() - interval '2 minutes'`)
	l.sweep()
	l.noneOpen(customer)
	l.wants("0", `SELECT count(*) FROM checkout_leases`)
}

// sweep has whatever is overdue looked at.
func (l *lab) sweep() {
	l.t.Helper()
	_, err := l.Store.Sweep(l.t.Context(), 100)
	l.must(err)
	l.settle()
}

// The address of the portal is not told to whoever is being deleted.
func TestPortalOpenedForAUserWhoIsDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, _ := l.signUp("ada")
	a := l.actor(policies{})
	at := a.arm(t, "ask POST /v1/billing_portal/sessions", 0)
	address := ""
	done := begin(func() (err error) {
		address, _, err = l.requests(a).Portal(t.Context(), selfservice.Caller{UserID: user}, selfservice.Key{}, "https://app.example.com/")
		return err
	})
	reach(t, at, done)
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	l.settle()
	at.release()
	if code := refused(t, <-done); code != "user_not_found" || address != "" {
		t.Errorf("answered %q with %q", code, address)
	}
}

// The answer to opening a checkout is lost, and the client asks again under the same key: it gets a
// checkout that is open.
func TestCheckoutAgainAfterALostAnswer(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, _ := l.signUp("ada")
	a := l.actor(policies{})
	a.lose("POST /v1/checkout/sessions")
	if _, _, err := l.requests(a).Checkout(t.Context(), l.checkoutOf(user, "k1")); err == nil {
		t.Fatal("the answer was not lost")
	}
	first := ""
	for range 3 {
		opened, _, err := l.requests(a).Checkout(t.Context(), l.checkoutOf(user, "k1"))
		l.must(err)
		if state := l.stateOf(opened.SessionID); state != account.CheckoutOpen || opened.URL == "" {
			t.Errorf("answered session %s, which is %s", opened.SessionID, state)
		}
		if first == "" {
			first = opened.SessionID
		}
		if opened.SessionID != first {
			t.Errorf("another session each time: %s, %s", first, opened.SessionID)
		}
	}
}

// Two requests at once under one key come to one session, which is open.
func TestCheckoutsAtOnceUnderOneKey(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, _ := l.signUp("ada")
	for _, point := range []string{"INSERT INTO checkout_leases", "ask GET /v1/checkout/sessions", "ask POST /v1/checkout/sessions", "answered POST /v1/checkout/sessions"} {
		a, b := l.actor(policies{}), l.actor(policies{})
		at := a.arm(t, point, 0)
		var one, other selfservice.Checkout
		done := begin(func() (err error) {
			one, _, err = l.requests(a).Checkout(t.Context(), l.checkoutOf(user, point))
			return err
		})
		reach(t, at, done)
		asked := b.arm(t, "INSERT INTO checkout_leases", 0)
		beside := begin(func() (err error) {
			other, _, err = l.requests(b).Checkout(t.Context(), l.checkoutOf(user, point))
			return err
		})
		reach(t, asked, beside)
		asked.release()
		at.release()
		wait(t, done)
		wait(t, beside)
		if one.SessionID != other.SessionID || l.stateOf(one.SessionID) != account.CheckoutOpen {
			t.Errorf("%s: sessions %s (%s) and %s (%s)", point, one.SessionID, l.stateOf(one.SessionID), other.SessionID, l.stateOf(other.SessionID))
		}
	}
}

// A key that was used for a portal means that portal, whatever came of it, and is refused with
// another way back.
func TestSameKeyAnotherPortal(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, _ := l.signUp("ada")
	other, _ := l.signUp("bo")
	a := l.actor(policies{})
	asks := func(caller, value, back, want string) {
		t.Helper()
		key := selfservice.Key{Method: http.MethodPost, Route: "/api/portal", Value: value}
		address, _, err := l.requests(a).Portal(t.Context(), selfservice.Caller{UserID: caller}, key, "https://app.example.com/"+back)
		if code := refused(t, err); code != want || (address == "") != (want != "") {
			t.Errorf("%s back to %s is answered %q with address %q, want %q", value, back, code, address, want)
		}
	}
	asks(user, "k1", "a", "")
	asks(user, "k1", "b", "idempotency_key_reused")
	asks(user, "k1", "a", "")
	asks(other, "k1", "b", "")
	asks(user, "k2", "b", "")
	asks(user, "", "a", "")
	asks(user, "", "b", "")
	// Where the answer is lost, or there is none, the key means the request all the same.
	a.lose("POST /v1/billing_portal/sessions")
	asks(user, "k3", "a", "provider_unavailable")
	asks(user, "k3", "b", "idempotency_key_reused")
	asks(user, "k3", "a", "")
	l.Sandbox.Stripe.BreakNext(1)
	asks(user, "k4", "a", "provider_unavailable")
	asks(user, "k4", "b", "idempotency_key_reused")
	asks(user, "k4", "a", "")
	l.wants("", `SELECT string_agg(status, ' ') FROM operations WHERE action = 'portal' AND status <> 'done'`)
}

// A key whose checkout was closed since, by another, or by its end, or by being paid, is answered
// why there is none.
func TestCheckoutAgainUnderAKeyWhoseSessionIsOver(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, _ := l.signUp("ada")
	desk := l.requests(l.actor(policies{}))
	asks := func(key, want string) selfservice.Checkout {
		t.Helper()
		opened, _, err := desk.Checkout(t.Context(), l.checkoutOf(user, key))
		if code := refused(t, err); code != want {
			t.Errorf("%s: answered %q, want %q", key, code, want)
		}
		return opened
	}
	asks("k1", "")
	second := asks("k2", "")
	asks("k1", "checkout_expired")
	asks("k1", "checkout_expired")
	if state := l.stateOf(second.SessionID); state != account.CheckoutOpen {
		t.Errorf("the second session is %s", state)
	}
	// The same where the first answer was lost.
	user, _ = l.signUp("bo")
	a := l.actor(policies{})
	a.lose("POST /v1/checkout/sessions")
	if _, _, err := l.requests(a).Checkout(t.Context(), l.checkoutOf(user, "k3")); err == nil {
		t.Fatal("the answer was not lost")
	}
	fourth := asks("k4", "")
	asks("k3", "checkout_expired")
	if state := l.stateOf(fourth.SessionID); state != account.CheckoutOpen {
		t.Errorf("the fourth session is %s", state)
	}
	l.buy(stripesim.CheckoutSpec{SessionID: fourth.SessionID})
	asks("k4", "checkout_completed")
	asks("k5", "already_subscribed")
	asks("k5", "already_subscribed")
}

// The customer of somebody's only subscription was deleted at Stripe, and they have another:
// checkout and portal are that one's.
func TestADeletedCustomerIsNotThePrimaryOne(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, customer, _ := l.subscribed("ada")
	l.must(l.Sandbox.Stripe.DeleteCustomer(customer))
	l.settle()
	l.must(l.work.lookAtUser(t.Context(), user))
	l.settle()
	primary := l.customerOf(user)
	if primary == customer || primary == "" {
		t.Fatalf("the primary customer is %q, and %s is deleted", primary, customer)
	}
	l.agree(user)
	if held, _ := l.Sandbox.Clerk.PublicMetadata(user)["stripe"].(map[string]any); held["customerId"] != primary || held["status"] != "canceled" {
		t.Errorf("the metadata are %v, want those of %s with the subscription that has ended", held, primary)
	}
	l.sells(user, primary)
}

// sells fails the test unless a user can buy and manage on this customer.
func (l *lab) sells(user, customer string) {
	l.t.Helper()
	desk := l.requests(l.actor(policies{}))
	opened, _, err := desk.Checkout(l.t.Context(), l.checkoutOf(user, ""))
	l.must(err)
	if state := l.stateOf(opened.SessionID); state != account.CheckoutOpen {
		l.t.Errorf("the session is %s", state)
	}
	if _, _, err = desk.Portal(l.t.Context(), selfservice.Caller{UserID: user}, selfservice.Key{}, "https://app.example.com/"); err != nil {
		l.t.Errorf("the portal: %v", err)
	}
	l.wants(customer, `SELECT stripe_customer_id FROM person_user WHERE clerk_user_id = $1`, user)
}

const noSuchCustomer = `{"error":{"type":"invalid_request_error","code":"resource_missing","message":"No such customer"}}`

// A customer that Stripe answers 404 for is not the primary one, and what its subscription gives
// stays. It is again when it is found.
func TestAMissingCustomerIsNotThePrimaryOne(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, customer, subscription := l.subscribed("ada")
	restore := l.work.answer(customer, http.StatusNotFound, noSuchCustomer)
	l.must(l.work.lookAtCustomer(t.Context(), customer))
	l.wants("active true", `SELECT projection->>'status' || ' ' || (projection->>'subscriptionActive') FROM person_user`)
	l.wants(subscription, `SELECT projection->>'subscriptionId' FROM person_user`)
	l.wants("", `SELECT stripe_customer_id FROM person_user`)
	l.must(l.work.lookAtUser(t.Context(), user))
	l.settle()
	other := l.customerOf(user)
	if other == "" || other == customer {
		t.Fatalf("the primary customer is %q, and %s is missing", other, customer)
	}
	l.agree(user)
	restore()
	l.must(l.work.lookAtCustomer(t.Context(), customer))
	l.settle()
	if now := l.customerOf(user); now != customer {
		t.Errorf("it was found again, and the primary customer is %s", now)
	}
	l.agree(user)
}

// One answer of 404 makes nobody a second customer: before another is made, Stripe is asked once
// more.
func TestACustomerThatWasMissingOnceIsFoundAgain(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, customer := l.signUp("ada")
	restore := l.work.answer(customer, http.StatusNotFound, noSuchCustomer)
	l.must(l.work.lookAtCustomer(t.Context(), customer))
	restore()
	l.must(l.work.lookAtUser(t.Context(), user))
	l.settle()
	l.wants("1", `SELECT count(*) FROM stripe_customers WHERE user_id IS NOT NULL`)
	l.wants(customer, `SELECT stripe_customer_id FROM person_user`)
}

// The customer was deleted, and nothing has told us yet: the request finds that out, and goes on
// with the user's other customer.
func TestACustomerFoundGoneByARequest(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, first := l.signUp("ada")
	second := l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "ada@example.com", Metadata: map[string]string{"clerk_user_id": user}})
	l.settle()
	l.wants("2", `SELECT count(*) FROM stripe_customers WHERE user_id IS NOT NULL`)
	primary := l.customerOf(user)
	other := map[string]string{first: second, second: first}[primary]
	a := l.actor(policies{})
	l.must(l.Sandbox.Stripe.DeleteCustomer(primary))
	desk := l.requests(a)
	request := l.checkoutOf(user, "k1")
	if _, _, err := desk.Portal(t.Context(), selfservice.Caller{UserID: user}, selfservice.Key{}, "https://app.example.com/"); err != nil {
		t.Errorf("the portal: %v", err)
	}
	opened, _, err := desk.Checkout(t.Context(), request)
	if err != nil || opened.URL == "" {
		t.Errorf("the checkout: %v", err)
	}
	l.wants(other, `SELECT stripe_customer_id FROM person_user WHERE clerk_user_id = $1`, user)
}

// Stripe's search shows who was deleted for a day more. A user without a customer does not wait for
// one of those.
func TestADeletedCustomerThatSearchStillShows(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user := l.newcomer("ada")
	found := l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "ada@example.com", Metadata: map[string]string{"clerk_user_id": user}})
	l.must(l.Sandbox.Stripe.DeleteCustomer(found))
	l.take()
	l.exec(`DELETE FROM webhook_events WHERE source = 'stripe'`)
	l.exec(`DELETE FROM customer_claims`)
	l.exec(`UPDATE pokes SET due_at = NULL`)
	made, err := l.work.customers.EnsureStripeCustomer(t.Context(), activities.UserInput{ClerkUserID: user, Existing: true})
	l.must(err)
	if made.CustomerID == "" || made.Claimed {
		t.Errorf("the user is left without a customer: %+v", made)
	}
	if ids := l.named(user); !slices.Contains(ids, found) {
		t.Errorf("search shows %v only: it does not show the deleted %s", ids, found)
	}
}

// Whom only their subscription names at Stripe is the user of its customer before a bulk sync has read
// either: they are given no other, and are sold nothing that they have. One that names others too is
// waited for by nobody.
func TestWhomASubscriptionAloneNamesIsGivenNoOtherCustomer(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, shared, somebody := l.newcomer("ada"), l.newcomer("bob"), l.newcomer("cy")
	l.exec(`UPDATE pokes SET due_at = NULL`)
	had := func(names ...string) (customer string) {
		customer = l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{})
		for _, name := range names {
			l.buy(stripesim.CheckoutSpec{CustomerID: customer, SubscriptionMetadata: map[string]string{"userId": name}})
		}
		return customer
	}
	theirs, deleted := had(user, user), had(user)
	had(shared, somebody)
	l.must(l.Sandbox.Stripe.DeleteCustomer(deleted))
	l.untold()
	ensure := func(user string) activities.CustomerResult {
		t.Helper()
		result, err := l.work.customers.EnsureStripeCustomer(t.Context(), activities.UserInput{ClerkUserID: user, Existing: true})
		l.must(err)
		return result
	}
	if result := ensure(user); !result.Claimed || result.CustomerID != "" {
		t.Errorf("the user is given another: %+v", result)
	}
	if result := ensure(shared); result.CustomerID == "" {
		t.Errorf("the user waits for a customer that is nobody's: %+v", result)
	}
	l.made(1)
	l.settle()
	l.wants(theirs, `SELECT stripe_customer_id FROM person_user WHERE clerk_user_id = $1`, user)
	l.agree(user)
	if result := ensure(user); result.CustomerID != theirs || result.Claimed {
		t.Errorf("came to %+v", result)
	}
	l.made(1)
}

// named are the customers that Stripe's search shows for a user.
func (l *lab) named(user string) (ids []string) {
	l.t.Helper()
	stripe := stripeapi.New(stripeapi.Options{Key: l.Sandbox.StripeSecretKey, BaseURL: l.Sandbox.StripeURL()})
	defer stripe.Close()
	customers, err := stripe.CustomersNaming(l.t.Context(), user)
	l.must(err)
	for _, c := range customers {
		ids = append(ids, c.ID)
	}
	return ids
}

// other makes another product with a price, which the catalogue knows.
func (l *lab) other(name string, metadata map[string]string) (product, price string) {
	l.t.Helper()
	product = l.Sandbox.Stripe.AddProduct(name)
	price = l.Sandbox.Stripe.AddPrice(product, 500, "month")
	if len(metadata) > 0 {
		form := make([]string, 0, len(metadata))
		for k, v := range metadata {
			form = append(form, "metadata["+k+"]", v)
		}
		l.post("/v1/products/"+product, form...)
	}
	l.settle()
	return product, price
}

// A second plan is not sold beside the first, whatever state the first is in in which it bills or
// may bill again, unless one of the two products allows it.
func TestCheckoutBesideAnotherProduct(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, customer, subscription := l.subscribed("ada")
	_, basic := l.other("Basic", nil)
	_, seats := l.other("Seats", map[string]string{"beside": "allow"})
	desk := l.requests(l.actor(policies{}))
	asks := func(price, want string) *selfservice.Refusal {
		t.Helper()
		request := l.checkoutOf(user, "")
		request.PriceID = price
		opened, _, err := desk.Checkout(t.Context(), request)
		if code := refused(t, err); code != want || (want == "") != (opened.URL != "") {
			t.Errorf("answered %q, want %q", code, want)
		}
		refusal, _ := errors.AsType[*selfservice.Refusal](err)
		return refusal
	}
	if r := asks(basic, "other_subscription"); r != nil && (r.Kind != selfservice.Conflict || r.SubscriptionID != subscription || !r.EndsAt.IsZero()) {
		t.Errorf("refused with %+v", r)
	}
	asks(l.price, "already_subscribed")
	asks(seats, "")
	desk.Beside = account.BesideAllow
	asks(basic, "")
	asks(l.price, "already_subscribed")
	desk.Beside = account.BesideRefuse

	// One that is set to end says when.
	l.post("/v1/subscriptions/"+subscription, "cancel_at_period_end", "true")
	if r := asks(basic, "other_subscription"); r != nil && r.EndsAt.IsZero() {
		t.Errorf("it is set to end, and is refused with %+v", r)
	}
	l.settle()
	l.wants(customer, `SELECT stripe_customer_id FROM person_user`)
	l.post("/v1/subscriptions/"+subscription, "cancel_at_period_end", "false")
	l.post("/v1/subscriptions/"+subscription, "pause_collection[behavior]", "void")
	asks(basic, "other_subscription")

	// What has ended is no obstacle.
	l.cancel(subscription)
	asks(basic, "")
	// Nor is what is added to a plan an obstacle to the plan.
	l.buy(stripesim.CheckoutSpec{CustomerID: customer, PriceID: seats})
	asks(basic, "")
	asks(seats, "already_subscribed")
}

// The same key gets the same refusal, with what it is about.
func TestCheckoutRefusedAgain(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, _, subscription := l.subscribed("ada")
	_, basic := l.other("Basic", nil)
	l.post("/v1/subscriptions/"+subscription, "cancel_at_period_end", "true")
	desk := l.requests(l.actor(policies{}))
	request := l.checkoutOf(user, "k1")
	request.PriceID = basic
	var first *selfservice.Refusal
	for range 2 {
		_, _, err := desk.Checkout(t.Context(), request)
		refusal, _ := errors.AsType[*selfservice.Refusal](err)
		if refusal == nil || refusal.Code != "other_subscription" || refusal.SubscriptionID != subscription || refusal.EndsAt.IsZero() {
			t.Fatalf("refused with %+v (%v)", refusal, err)
		}
		if first == nil {
			first = refusal
		}
		if refusal.Detail != first.Detail || !refusal.EndsAt.Equal(first.EndsAt) {
			t.Errorf("refused with %+v, and then with %+v", first, refusal)
		}
	}
	l.wants("refused other_subscription "+subscription, `SELECT status || ' ' || reason || ' ' || stripe_subscription_id FROM operations WHERE action = 'checkout'`)
}

// Opening a checkout closes what may not be held beside it, on every customer of the user, and
// nothing else.
func TestCheckoutClosesThoseOfOtherProducts(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, _ := l.signUp("ada")
	_, basic := l.other("Basic", nil)
	_, seats := l.other("Seats", map[string]string{"beside": "allow"})
	desk := l.requests(l.actor(policies{}))
	opens := func(price string) string {
		t.Helper()
		request := l.checkoutOf(user, "")
		request.PriceID = price
		opened, _, err := desk.Checkout(t.Context(), request)
		l.must(err)
		return opened.SessionID
	}
	open := func(want map[string]bool) {
		t.Helper()
		for id, is := range want {
			if state := l.stateOf(id); (state == account.CheckoutOpen) != is {
				t.Errorf("session %s is %s", id, state)
			}
		}
	}
	pro, added := opens(l.price), opens(seats)
	open(map[string]bool{pro: true, added: true})
	second := opens(basic)
	open(map[string]bool{pro: false, added: true, second: true})
	desk.Beside = account.BesideAllow
	third := opens(l.price)
	open(map[string]bool{added: true, second: true, third: true})
}

// A metered price is sold, without a quantity.
func TestCheckoutOfAMeteredPrice(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, customer := l.signUp("ada")
	price := l.post("/v1/prices", "product", l.product, "currency", "usd", "unit_amount", "3", "recurring[interval]", "month", "recurring[usage_type]", "metered")
	l.settle()
	l.wants("metered", `SELECT usage_type FROM plan_prices WHERE stripe_price_id = $1`, price)
	desk := l.requests(l.actor(policies{}))
	request := l.checkoutOf(user, "k1")
	request.PriceID, request.Quantity = price, 2
	_, _, err := desk.Checkout(t.Context(), request)
	if code := refused(t, err); code != "quantity_of_metered" {
		t.Errorf("two of a metered price: %q", code)
	}
	request.Quantity = 0
	opened, _, err := desk.Checkout(t.Context(), request)
	l.must(err)
	l.buy(stripesim.CheckoutSpec{SessionID: opened.SessionID, CustomerID: customer})
	l.settle()
	l.wants("1", `SELECT count(*) FROM subscriptions WHERE stripe_price_id = $1 AND status = 'active'`, price)
}

// Stripe takes one currency of a customer. That is said as it is, and not as a failure that may
// pass.
func TestCheckoutInAnotherCurrency(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, _, _ := l.subscribed("ada")
	product := l.Sandbox.Stripe.AddProduct("Basic")
	price := l.post("/v1/prices", "product", product, "currency", "eur", "unit_amount", "300", "recurring[interval]", "month")
	l.settle()
	desk := l.requests(l.actor(policies{}))
	desk.Beside = account.BesideAllow
	request := l.checkoutOf(user, "k1")
	request.PriceID = price
	for range 2 {
		_, _, err := desk.Checkout(t.Context(), request)
		if code := refused(t, err); code != "currency_conflict" {
			t.Errorf("refused with %q (%v)", code, err)
		}
	}
}

// post asks Stripe for something, past the programs, and answers the id of what came of it.
func (l *lab) post(path string, form ...string) (id string) {
	l.t.Helper()
	return l.asksStripe(http.MethodPost, path, form...)
}

// cancel ends a subscription at once.
func (l *lab) cancel(subscription string) {
	l.t.Helper()
	l.asksStripe(http.MethodDelete, "/v1/subscriptions/"+subscription)
}

func (l *lab) asksStripe(method, path string, form ...string) (id string) {
	l.t.Helper()
	status, raw := l.stripeAnswers(method, path, form...)
	if status != http.StatusOK {
		l.t.Fatalf("%s %s %v: %d %s", method, path, form, status, raw)
	}
	var object struct{ ID string }
	l.must(json.Unmarshal(raw, &object))
	return object.ID
}

func (l *lab) stripeAnswers(method, path string, form ...string) (status int, body []byte) {
	l.t.Helper()
	values := url.Values{}
	for i := 0; i < len(form); i += 2 {
		values.Set(form[i], form[i+1])
	}
	request, err := http.NewRequestWithContext(l.t.Context(), method, l.Sandbox.StripeURL()+path, strings.NewReader(values.Encode()))
	l.must(err)
	request.Header.Set("Authorization", "Bearer "+l.Sandbox.StripeSecretKey)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	l.must(err)
	defer func() { _ = response.Body.Close() }()
	body, err = io.ReadAll(response.Body)
	l.must(err)
	return response.StatusCode, body
}

// Who comes back from a checkout asks again, under the same key, when it has been done: nothing is
// asked of Stripe for that but the session.
func TestAskingAgainForAReturnThatIsDoneCostsNoLook(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, _ := l.signUp("ada")
	desk := l.requests(l.actor(policies{}))
	opened, _, err := desk.Checkout(t.Context(), l.checkoutOf(user, ""))
	l.must(err)
	l.buy(stripesim.CheckoutSpec{SessionID: opened.SessionID})
	l.settle()
	key := selfservice.Key{Method: http.MethodPost, Route: "/api/checkout/return", Value: "k"}
	desk.Wait = 50 * time.Millisecond
	_, err = desk.Return(t.Context(), selfservice.Caller{UserID: user}, key, opened.SessionID)
	l.must(err)
	l.settle()
	op, err := desk.Return(t.Context(), selfservice.Caller{UserID: user}, key, opened.SessionID)
	l.must(err)
	if op.Status != store.OperationDone {
		t.Fatalf("it is %s", op.Status)
	}
	l.settle()
	for range 3 {
		_, err := desk.Return(t.Context(), selfservice.Caller{UserID: user}, key, opened.SessionID)
		l.must(err)
		l.wants("", `SELECT string_agg(entity || ' urgent ' || urgent, ', ') FROM pokes WHERE due_at IS NOT NULL`)
		l.settle()
	}
}
