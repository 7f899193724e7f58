package refusals_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// Whatever people did not tell Clerk, each of them gets one customer at Stripe, with what there is.
func TestPeopleWhoToldLittle(t *testing.T) {
	t.Parallel()
	w := &world{System: system.Start(t, servers, system.Options{}), t: t}
	people := map[string]struct {
		spec        clerksim.UserSpec
		email, name string // at Stripe and here; "" is none
	}{
		"nothing at all":  {clerksim.UserSpec{PrimaryEmail: -1}, "", ""},
		"no email":        {clerksim.UserSpec{FirstName: "Grace", LastName: "Hopper", PrimaryEmail: -1}, "", "Grace Hopper"},
		"no name":         {clerksim.UserSpec{Emails: []clerksim.EmailSpec{{Address: "alan@example.com", Verified: true}}}, "alan@example.com", ""},
		"half a name":     {clerksim.UserSpec{LastName: "Turing", Emails: []clerksim.EmailSpec{{Address: "turing@example.com", Verified: true}}}, "turing@example.com", "Turing"},
		"phone only":      {clerksim.UserSpec{Phone: "+15555550100", PrimaryEmail: -1}, "", ""},
		"several emails":  {clerksim.UserSpec{FirstName: "Kay", Emails: []clerksim.EmailSpec{{Address: "kay1@example.com", Verified: true}, {Address: "kay2@example.com", Verified: true}}, PrimaryEmail: 1}, "kay2@example.com", "Kay"},
		"none is primary": {clerksim.UserSpec{FirstName: "Joan", Emails: []clerksim.EmailSpec{{Address: "joan1@example.com"}, {Address: "joan2@example.com"}}, PrimaryEmail: -1}, "", "Joan"},
		"not verified":    {clerksim.UserSpec{FirstName: "Mary", Emails: []clerksim.EmailSpec{{Address: "mary@example.com"}}}, "mary@example.com", "Mary"},
		"shared email 1":  {clerksim.UserSpec{FirstName: "Twin", Emails: []clerksim.EmailSpec{{Address: "twins@example.com"}}}, "twins@example.com", "Twin"},
		"shared email 2":  {clerksim.UserSpec{FirstName: "Twin", Emails: []clerksim.EmailSpec{{Address: "twins@example.com"}}}, "twins@example.com", "Twin"},
		"other alphabets": {clerksim.UserSpec{FirstName: "Sofja 🌟", LastName: "Ковалевская", Emails: []clerksim.EmailSpec{{Address: "sofja@example.com", Verified: true}}}, "sofja@example.com", "Sofja 🌟 Ковалевская"},
	}
	ids := map[string]string{}
	for name, p := range people {
		ids[name] = w.Sandbox.Clerk.AddUser(p.spec)
	}
	for name, p := range people {
		w.Until("there is a customer of the one with "+name, func(context.Context) error { return w.isCustomer(ids[name], p.email, p.name) })
		w.Agree(ids[name], policy())
	}
	w.Rest()
	if n := w.Sandbox.Stripe.Counts()["customer"]; n != len(people) {
		t.Errorf("%d customers at Stripe for %d people", n, len(people))
	}
	if n := w.Count(`SELECT count(*) FROM webhook_events WHERE status <> 'completed'`); n != 0 {
		t.Errorf("%d events are not completed", n)
	}
	if n := w.Count(`SELECT count(*) FROM drift`); n != 0 {
		t.Errorf("%d differences were noted", n)
	}

	// Who tells more later is given it, and an address that is taken back does not empty Stripe's.
	first := "Admiral"
	if err := w.Sandbox.Clerk.UpdateUser(ids["nothing at all"], clerksim.UserChange{FirstName: &first}); err != nil {
		t.Fatal(err)
	}
	if err := w.Sandbox.Clerk.RemoveEmail(ids["no name"], "alan@example.com"); err != nil {
		t.Fatal(err)
	}
	w.Until("Stripe has the name", func(context.Context) error { return w.isCustomer(ids["nothing at all"], "", "Admiral") })
	w.Until("the address is forgotten here", func(context.Context) error {
		if w.Count(`SELECT count(*) FROM person_user WHERE clerk_user_id = $1 AND email IS NULL`, ids["no name"]) != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	w.Rest()
	if got := w.atStripe(ids["no name"]); got.Email == nil || *got.Email != "alan@example.com" {
		t.Errorf("Stripe's address is %v: an empty value overwrote it", got.Email)
	}
}

// stripeCustomer is what is compared of a customer.
type stripeCustomer struct {
	ID       string            `json:"id"`
	Email    *string           `json:"email"`
	Name     *string           `json:"name"`
	Metadata map[string]string `json:"metadata"`
}

func (w *world) atStripe(user string) (c stripeCustomer) {
	w.t.Helper()
	raw, _ := w.Sandbox.Stripe.Customer(w.customerOf(user))
	if err := json.Unmarshal(raw, &c); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// isCustomer answers nil if exactly one customer at Stripe names a user and has this name and
// email.
func (w *world) isCustomer(user, email, name string) error {
	var own []stripeCustomer
	for _, raw := range w.Sandbox.Stripe.Customers() {
		var c stripeCustomer
		if err := json.Unmarshal(raw, &c); err != nil {
			return err
		}
		if c.Metadata["clerk_user_id"] == user {
			own = append(own, c)
		}
	}
	if len(own) != 1 {
		return fmt.Errorf("%d customers name the user", len(own))
	}
	has := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	if has(own[0].Email) != email || has(own[0].Name) != name {
		return fmt.Errorf("Stripe has %q and %q", has(own[0].Email), has(own[0].Name))
	}
	if w.Count(`SELECT count(*) FROM person_user WHERE clerk_user_id = $1 AND stripe_customer_id = $2 AND coalesce(email, '') = $3`, user, own[0].ID, email) != 1 {
		return errors.New("the row differs")
	}
	return nil
}

// A customer whom no user owns is no fault of anybody's: their events are taken, they wait, and
// once there is a user whom the evidence names everything they told is there.
func TestCustomerWithoutUser(t *testing.T) {
	t.Parallel()
	w := &world{System: system.Start(t, servers, system.Options{}), t: t}
	w.addPrice()
	stranger := w.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "stranger@example.com", Name: "Stranger"})
	bought, err := w.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{CustomerID: stranger, PriceID: w.price})
	if err != nil {
		t.Fatal(err)
	}
	w.Rest()
	for _, attempt := range w.Sandbox.StripeWebhooks.Log() {
		if attempt.Status != 200 {
			t.Errorf("a delivery was answered %d", attempt.Status)
		}
	}
	if n := w.Count(`SELECT count(*) FROM webhook_events WHERE entity = $1 AND status <> 'waiting'`, "customer/"+stranger); n != 0 {
		t.Errorf("%d events of the stranger do not wait", n)
	}
	if n := w.Count(`SELECT count(*) FROM webhook_events WHERE entity = $1 AND status = 'waiting' AND reason LIKE 'no user: %'`, "customer/"+stranger); n < 3 {
		t.Errorf("%d events of the stranger wait for a user", n)
	}
	if n := w.Count(`SELECT (SELECT count(*) FROM person_user) + (SELECT count(*) FROM subscriptions)`); n != 0 {
		t.Errorf("%d rows were made for nobody", n)
	}

	// The same address is no evidence where that is not switched on.
	user := w.signUp(clerksim.UserSpec{FirstName: "Strange", Emails: []clerksim.EmailSpec{{Address: "stranger@example.com", Verified: true}}})
	if w.customerOf(user) == stranger {
		t.Error("the stranger was linked by their address")
	}
	if err := w.Sandbox.Stripe.UpdateCustomer(stranger, stripesim.CustomerSpec{Email: "stranger@example.com", Name: "Stranger", Metadata: map[string]string{"clerk_user_id": user}}); err != nil {
		t.Fatal(err)
	}
	w.hasAccess(user)
	w.Rest()
	w.Agree(user, policy())
	if n := w.Count(`SELECT count(*) FROM webhook_events WHERE entity = $1 AND status <> 'completed'`, "customer/"+stranger); n != 0 {
		t.Errorf("%d events of the stranger still wait", n)
	}
	if n := w.Count(`SELECT count(*) FROM subscriptions WHERE stripe_subscription_id = $1`, bought.SubscriptionID); n != 1 {
		t.Errorf("%d rows of the subscription", n)
	}
}
