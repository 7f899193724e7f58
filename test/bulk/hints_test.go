package bulk_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/operator"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// An earlier application's note of a user's customer says where to look, and proves nothing, since
// the user could have written it. A customer that is confirmed to be theirs becomes theirs, one
// that is gone is of no interest, and of all others a person is told; nobody gets a second customer
// for it, and nobody somebody else's.
func TestNotesOfAnEarlierApplicationAreHints(t *testing.T) {
	t.Parallel()
	p := newProduct(t, 3)
	stripe := p.Sandbox.Stripe
	price := stripe.AddPrice(stripe.AddProduct("Old"), 1000, "month")
	paying := func(email string, metadata map[string]string) string {
		id := stripe.AddCustomer(stripesim.CustomerSpec{Email: email, Metadata: metadata})
		p.buys(id, price, false)
		return id
	}
	noted := func(name string, verified bool, note any) string {
		return p.Sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: name, UnsafeMetadata: map[string]any{"stripe": note},
			Emails: []clerksim.EmailSpec{{Address: name + "@example.com", Verified: verified}}})
	}
	gone := stripe.AddCustomer(stripesim.CustomerSpec{Email: "gone@example.com"})
	p.must(stripe.DeleteCustomer(gone))
	others := p.people[0].Customers[0]
	named := paying("own@example.com", nil)
	foreign := paying("named@example.com", map[string]string{"clerk_user_id": "user_2SomebodyElse"})
	confirmed := paying("Confirmed@Example.com", nil)
	short := paying("short@example.com", nil)
	unlike := paying("elsewhere@example.com", nil)
	unverified := paying("unverified@example.com", nil)

	users := map[string]struct {
		user     string
		customer string // theirs afterwards, "" for a new one, "-" for none
		told     string // of which a person is told
	}{
		"has the address":               {noted("confirmed", true, map[string]any{"customerId": confirmed}), confirmed, ""},
		"has the address, noted short":  {noted("short", true, short), short, ""},
		"has another address":           {noted("unlike", true, map[string]any{"customerId": unlike}), "-", unlike},
		"has it unverified":             {noted("unverified", false, map[string]any{"customerId": unverified}), "-", unverified},
		"notes somebody else's":         {noted("thief", true, map[string]any{"customerId": others}), "-", others},
		"notes one that names another":  {noted("named", true, map[string]any{"customerId": foreign}), "-", foreign},
		"notes one that is gone":        {noted("late", true, map[string]any{"customerId": gone}), "", ""},
		"notes what is no customer":     {noted("odd", true, map[string]any{"customerId": 7}), "", ""},
		"notes nothing, has an address": {noted("own", true, map[string]any{}), "", ""}, // LINK_BY_EMAIL is off
	}
	p.must(stripe.Settled(t.Context()))
	before := len(stripe.Customers())

	run := p.ended(p.begin(operator.BulkOrder{}))
	failures, err := p.console.BulkFailures(t.Context(), run.ID, "", 100)
	p.must(err)
	told := map[account.Entity]string{}
	for _, f := range failures {
		told[f.Entity] = f.Reason
	}
	made := 0
	for what, u := range users {
		var customer, reason string
		p.must(p.Row(t.Context(), `SELECT coalesce(stripe_customer_id, '-') FROM person_user WHERE clerk_user_id = $1`, []any{u.user}, &customer))
		if u.told != "" {
			reason = "hint_not_confirmed: " + u.told
		}
		if got := told[account.UserEntity(u.user)]; got != reason {
			t.Errorf("of who %s is told %q, want %q", what, got, reason)
		}
		switch {
		case u.customer != "" && customer != u.customer:
			t.Errorf("who %s has %s, want %s", what, customer, u.customer)
		case u.customer == "":
			made++
			if customer == "-" || customer == gone || customer == named {
				t.Errorf("who %s has %s, want a customer of their own", what, customer)
			}
		}
	}
	if n := len(stripe.Customers()) - before; n != made+1 { // and the one of newProduct who never paid
		t.Errorf("%d customers were made, want %d", n, made+1)
	}
	if len(told) != 4 {
		t.Errorf("%d failures are told of: %v", len(told), told)
	}
	truth := p.NewTruth(account.AccessPolicy{}, account.DeleteCancelAtPeriodEnd, map[string]string{price: "Old"})
	p.Until("who was confirmed has access", func(ctx context.Context) error {
		return truth.Of(ctx, system.Owned{ClerkUserID: users["has the address"].user, Customers: []string{confirmed}},
			system.Owned{ClerkUserID: users["has the address, noted short"].user, Customers: []string{short}})
	})

	// A second pass brings nothing else about.
	second := p.ended(p.begin(operator.BulkOrder{}))
	if second.Failed != 4 || second.Done != 0 || len(stripe.Customers())-before != made+1 {
		t.Errorf("the second pass came to %+v", second)
	}

	// Without a bulk sync a confirmed note is taken, too, and one that is not does not keep a user
	// without a customer.
	p.deliver(delivery.Faults{})
	late := paying("late-comer@example.com", nil)
	p.must(stripe.Settled(t.Context()))
	comer := noted("late-comer", true, map[string]any{"customer_id": late})
	liar := noted("liar", true, map[string]any{"customer_id": unlike})
	p.Until("both have customers", func(ctx context.Context) error {
		var of, other string
		if err := p.Row(ctx, `SELECT coalesce(max(stripe_customer_id) FILTER (WHERE clerk_user_id = $1), ''), coalesce(max(stripe_customer_id) FILTER (WHERE clerk_user_id = $2), '')
			FROM person_user`, []any{comer, liar}, &of, &other); err != nil {
			return err
		}
		if of != late || other == "" || other == unlike {
			return fmt.Errorf("they have %q and %q", of, other)
		}
		return nil
	})
}
