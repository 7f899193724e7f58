package fences_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

const stripeMissing = `{"error":{"type":"invalid_request_error","code":"resource_missing","message":"No such object."}}`

const emptyList = `{"object":"list","data":[],"has_more":false,"url":"/v1/subscriptions"}`

// held is all that must stay as it is while something is wrong.
func (l *lab) held(user string) string {
	l.t.Helper()
	return l.text(`SELECT concat_ws(E'\n', u.projection, u.projection_version, u.published_version, u.stripe_customer_id,
			(SELECT string_agg((to_jsonb(s) - 'missing_since' - 'kept_read_seq')::text, E'\n' ORDER BY stripe_subscription_id) FROM subscriptions s),
			(SELECT string_agg(c.stripe_customer_id || c.user_id, ' ' ORDER BY 1) FROM stripe_customers c), (SELECT count(*) FROM subscription_changes))
		FROM person_user u WHERE clerk_user_id = $1`, user) + fmt.Sprint(l.Sandbox.Clerk.PublicMetadata(user))
}

// granted is what gives the user access: all that is held but which customer is the primary one.
func (l *lab) granted(user string) string {
	l.t.Helper()
	return l.text(`SELECT concat_ws(E'\n', u.projection - 'customerId' - 'version',
			(SELECT string_agg((to_jsonb(s) - 'missing_since' - 'kept_read_seq')::text, E'\n' ORDER BY stripe_subscription_id) FROM subscriptions s),
			(SELECT string_agg(c.stripe_customer_id || c.user_id, ' ' ORDER BY 1) FROM stripe_customers c), (SELECT count(*) FROM subscription_changes))
		FROM person_user u WHERE clerk_user_id = $1`, user)
}

// Whatever Stripe answers in error, nothing is taken from anyone: rows, projection and access stay,
// the event waits or the attempt fails, and all is made up for when Stripe is itself again.
func TestAccessIsNeverTakenBecauseOfAnError(t *testing.T) {
	t.Parallel()
	type wrong struct{ match, body string }
	status := func(body string) int {
		if body == stripeMissing {
			return 404
		}
		return 200
	}
	for _, c := range []struct {
		name    string
		answers []wrong
		class   failure.Class // of the attempt's error; "" if it answers
		drift   string        // the class of the difference that is noted
		waits   string        // the reason for which the event waits; "" if it is completed
	}{
		{"the customer is not found", []wrong{{"GET /v1/subscriptions?", stripeMissing}, {"GET /v1/customers/", stripeMissing}}, "",
			"customer_missing_in_stripe", "Stripe does not know this customer"},
		{"the list is refused, the customer is there", []wrong{{"GET /v1/subscriptions?", stripeMissing}}, "", "", ""},
		{"the list is empty", []wrong{{"GET /v1/subscriptions?", emptyList}}, "", "", ""},
		{"the list is empty, the subscription is not found", []wrong{{"GET /v1/subscriptions?", emptyList}, {"GET /v1/subscriptions/sub_", stripeMissing}}, "",
			"subscription_missing_in_stripe", ""},
		{"the list is empty, the subscription is no answer", []wrong{{"GET /v1/subscriptions?", emptyList}, {"GET /v1/subscriptions/sub_", `{}`}}, failure.Transient, "", ""},
		{"the list is not JSON", []wrong{{"GET /v1/subscriptions?", `<html>`}}, failure.Transient, "", ""},
		{"the list is nothing", []wrong{{"GET /v1/subscriptions?", `{}`}}, failure.Transient, "", ""},
		{"the list breaks off", []wrong{{"GET /v1/subscriptions?", `{"object":"list","data":[`}}, failure.Transient, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, customer, _ := l.subscribed("ada")
			stays := l.held
			if c.drift == "customer_missing_in_stripe" {
				stays = l.granted // a customer that Stripe does not have is nobody's primary one
			}
			before := stays(user)
			// Something happens that changes no row, so that an event is due.
			l.must(l.Sandbox.Stripe.UpdateCustomer(customer, stripesim.CustomerSpec{Email: "ada@example.com", Name: "ada Lovelace", Metadata: map[string]string{"k": "v"}}))
			l.unpoked()
			var restore []func()
			for _, a := range c.answers {
				restore = append(restore, l.work.answer(a.match, status(a.body), a.body))
			}
			for range 2 {
				if err := l.work.record(t.Context(), customer); failure.Of(err) != c.class {
					t.Errorf("the attempt ended with %v", err)
				}
			}
			if now := stays(user); now != before {
				t.Errorf("before:\n%s\nnow:\n%s", before, now)
			}
			want := "completed"
			switch {
			case c.class != "":
				want = "pending"
			case c.waits != "":
				want = "waiting " + c.waits
			}
			l.wants(want, `SELECT concat_ws(' ', status, reason) FROM webhook_events WHERE type = 'customer.updated' ORDER BY seq DESC LIMIT 1`)
			l.wants(c.drift, `SELECT string_agg(class, ' ') FROM drift WHERE resolved_at IS NULL`)

			for _, f := range restore {
				f()
			}
			l.must(l.work.lookAtCustomer(t.Context(), customer))
			l.wants("0", `SELECT count(*) FROM webhook_events WHERE status NOT IN ('completed', 'ignored')`)
			l.wants("0", `SELECT count(*) FROM drift WHERE resolved_at IS NULL`)
			l.wants("0", `SELECT count(*) FROM subscriptions WHERE missing_since IS NOT NULL`)
			l.agree(user)
			l.wants("true", `SELECT projection ->> 'subscriptionActive' FROM person_user WHERE clerk_user_id = $1`, user)
		})
	}
}

// A list of several pages breaks off in the middle: the part is not taken for the whole.
func TestHalfAListIsNoList(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, customer, oldest := l.subscribed("ada")
	for range 101 {
		l.buy(stripesim.CheckoutSpec{CustomerID: customer, ClientReferenceID: user})
	}
	l.must(l.Sandbox.Stripe.SetQuantity(oldest, 5)) // stands on the second page
	l.unpoked()
	before := l.held(user)
	due := l.text(`SELECT count(*) FROM webhook_events WHERE status = 'pending'`)
	l.Sandbox.StripeFaults.Add(faults.Rule{PathPrefix: "/v1/subscriptions", Times: 1, OnHit: func() {
		l.Sandbox.StripeFaults.Add(faults.Rule{PathPrefix: "/v1/subscriptions", Times: 1, Status: 502, HTML: true})
	}})
	if err := l.work.record(t.Context(), customer); failure.Of(err) != failure.Transient {
		t.Errorf("the attempt ended with %v", err)
	}
	if now := l.held(user); now != before {
		t.Errorf("before:\n%s\nnow:\n%s", before, now)
	}
	l.wants(due, `SELECT count(*) FROM webhook_events WHERE status = 'pending'`)
	l.must(l.work.lookAtCustomer(t.Context(), customer))
	l.wants("102 5", `SELECT count(*) || ' ' || max(quantity) FROM subscriptions`)
	l.agree(user)
}

// A price that the catalogue does not know keeps plan and access, loudly, until the catalogue does.
func TestUnknownPriceKeepsThePlan(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, customer, subscription := l.subscribed("ada")
	other := l.Sandbox.Stripe.AddProduct("Premium")
	price := l.Sandbox.Stripe.AddPrice(other, 5000, "year")
	l.must(l.Sandbox.Stripe.Settled(t.Context()))
	catalogue := l.Sandbox.StripeWebhooks.TakeHeld() // lost on its way
	l.must(l.Sandbox.Stripe.ChangePrice(subscription, price))
	l.unpoked()
	l.must(l.work.lookAtCustomer(t.Context(), customer))
	l.wants("true Pro "+price, `SELECT concat_ws(' ', projection ->> 'subscriptionActive', projection ->> 'plan', projection ->> 'priceId') FROM person_user WHERE clerk_user_id = $1`, user)
	l.wants("active false", `SELECT status || ' ' || price_known FROM subscriptions`)
	l.wants(subscription, `SELECT subject FROM drift WHERE class = 'unknown_price' AND resolved_at IS NULL`)
	l.agree(user)
	// The product is asked for without anyone's help.
	l.settle()
	l.wants("true Premium yearly", `SELECT concat_ws(' ', projection ->> 'subscriptionActive', projection ->> 'plan', projection ->> 'subscriptionType') FROM person_user WHERE clerk_user_id = $1`, user)
	l.wants("0", `SELECT count(*) FROM drift WHERE resolved_at IS NULL`)
	l.agree(user)
	for _, m := range catalogue {
		l.Sandbox.StripeWebhooks.Send(m)
	}
	l.settle()
	l.agree(user)
}

// Stripe fails for as long as it likes: the event says so, access stays, and all heals by itself.
func TestAnOutageIsSeenAndHeals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	user, _, subscription := w.subscribed(person("ada", "ada@example.com", true))
	end := w.Sandbox.StripeFaults.Add(faults.Rule{PathPrefix: "/v1/subscriptions", Status: 503, HTML: true})
	w.must(w.Sandbox.Stripe.CancelAtPeriodEnd(subscription))
	w.Until("the event says what it waits for", func(ctx context.Context) error {
		var status, reason string
		err := w.Row(ctx, `SELECT status, coalesce(reason, '') FROM webhook_events WHERE type = 'customer.subscription.updated' AND status <> 'completed' LIMIT 1`, nil, &status, &reason)
		if err != nil || status != "failing" || !strings.HasPrefix(reason, "transient: ") {
			return fmt.Errorf("%s: %s (%w)", status, reason, errors.Join(errors.New("not yet"), err))
		}
		return nil
	})
	if n := w.Count(`SELECT count(*) FROM subscriptions WHERE status = 'active' AND NOT cancel_at_period_end`); n != 1 {
		t.Error("the row changed")
	}
	if held, _ := w.Sandbox.Clerk.PublicMetadata(user)["stripe"].(map[string]any); held["subscriptionActive"] != true {
		t.Errorf("Clerk holds %v", held)
	}
	end()
	w.Until("the cancellation is known", func(context.Context) error {
		if w.Count(`SELECT count(*) FROM subscriptions WHERE cancel_at_period_end`) != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	w.still(user)
	w.agree(user)
}

// A customer that nobody owns is not found, and is found again.
func TestDriftOfAnUnownedCustomerEnds(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	customer := l.buy(stripesim.CheckoutSpec{Email: "payer@example.org"}).CustomerID
	restore := l.work.answer("/v1/", 404, stripeMissing)
	l.take()
	l.must(l.work.lookAtCustomer(t.Context(), customer))
	l.wants("customer_missing_in_stripe", `SELECT string_agg(class, ' ') FROM drift WHERE resolved_at IS NULL`)
	restore()
	l.must(l.work.record(t.Context(), customer))
	l.wants("0", `SELECT count(*) FROM drift WHERE resolved_at IS NULL`)
}

// A subscription at an unknown price ends, and with it the difference.
func TestDriftOfAnUnknownPriceEnds(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	_, customer, subscription := l.subscribed("ada")
	l.must(l.Sandbox.Stripe.ChangePrice(subscription, l.Sandbox.Stripe.AddPrice(l.Sandbox.Stripe.AddProduct("Premium"), 5000, "year")))
	l.must(l.work.lookAtCustomer(t.Context(), customer))
	l.wants("1", `SELECT count(*) FROM drift WHERE class = 'unknown_price' AND resolved_at IS NULL`)
	l.must(l.Sandbox.Stripe.CancelNow(subscription))
	l.must(l.work.lookAtCustomer(t.Context(), customer))
	l.wants("0", `SELECT count(*) FROM drift WHERE resolved_at IS NULL`)
}

// Clerk does not know a user any more, and says only later that the user was deleted.
func TestDriftOfAMissingUserEndsWithTheirDeletion(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, _ := l.signUp("ada")
	l.must(l.Sandbox.Clerk.ForgetUser(user))
	l.must(l.work.lookAtUser(t.Context(), user))
	l.wants("user_missing_in_clerk", `SELECT string_agg(class, ' ') FROM drift WHERE resolved_at IS NULL`)
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	l.settle()
	l.wants("0", `SELECT count(*) FROM drift WHERE resolved_at IS NULL`)
	l.wants("1", `SELECT count(*) FROM person_user WHERE deleted_at IS NOT NULL`)
}
