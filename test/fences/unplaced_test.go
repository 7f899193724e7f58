package fences_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/selfservice"
)

// unplaced is somebody whom a product had before us: it has noted their subscription with this in
// the column of its customer, and nothing at Stripe names them.
func (l *lab) unplaced(noted any) adopted {
	l.t.Helper()
	a := adopted{user: l.Sandbox.Clerk.AddUser(person("ada", "ada@example.com", true))}
	a.customer = l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "other@example.com"})
	a.subscription = l.buy(stripesim.CheckoutSpec{CustomerID: a.customer}).SubscriptionID
	l.untold()
	l.exec(`INSERT INTO person_user (clerk_user_id) VALUES ($1)`, a.user)
	l.grants(a.user, a.subscription, noted)
	return a
}

// grants writes a row of the product's own that gives a user something.
func (l *lab) grants(user, subscription string, customer any) {
	l.t.Helper()
	l.exec(`INSERT INTO subscriptions (user_id, stripe_subscription_id, stripe_customer_id, status, plan_id)
		SELECT id, $2, $3, 'active', (SELECT min(id) FROM plans) FROM person_user WHERE clerk_user_id = $1`, user, subscription, customer)
}

// A product need not have noted which customer's a subscription is. Whoever looks first, its user or
// its customer, the subscription says whose the customer is, so that its user is given no other and
// loses what it gives when it ends.
func TestWhoseSubscriptionTheProductHasNotedIsTheCustomers(t *testing.T) {
	t.Parallel()
	for name, noted := range map[string]any{"nothing": nil, "empty": "", "a word": "none", "another customer": "cus_mistaken"} {
		for first, look := range map[string]func(l *lab, a adopted){
			"the user is looked at": func(l *lab, a adopted) { l.must(l.work.look(l.t.Context(), account.UserEntity(a.user))) },
			"the customer is looked at": func(l *lab, a adopted) {
				l.must(l.work.look(l.t.Context(), account.CustomerEntity(a.customer)))
			},
			"a bulk sync": func(l *lab, _ adopted) { l.everyList() },
			"it ends":     func(*lab, adopted) {},
		} {
			if name == "another customer" && first == "the user is looked at" {
				continue // the customer that is noted is looked at, and is none of Stripe's
			}
			t.Run(name+", "+first, func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{})
				a := l.unplaced(noted)
				look(l, a)
				l.settle()
				l.must(l.Sandbox.Stripe.CancelNow(a.subscription))
				l.settle()
				l.isTheirs(a)
				l.wants("canceled", `SELECT status FROM subscriptions WHERE stripe_subscription_id = $1`, a.subscription)
				l.wants("false", `SELECT projection->>'subscriptionActive' FROM person_user WHERE clerk_user_id = $1`, a.user)
				l.wants(a.customer, `SELECT stripe_customer_id FROM subscriptions`)
				l.wants("1", `SELECT count(*) FROM audit_log WHERE action = 'subscription.placed' AND subject = $1 AND entity = 'customer/' || $2`, a.subscription, a.customer)
				l.agree(a.user)
			})
		}
	}
}

// A customer of whom the product has noted one subscription for one user and one for another is
// nobody's until a person has decided.
func TestTwoUsersWithNotedSubscriptionsOfOneCustomer(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	price := l.addPrice(900)
	a := l.unplaced(nil)
	bob := l.Sandbox.Clerk.AddUser(person("bob", "bob@example.com", true))
	other := l.buy(stripesim.CheckoutSpec{CustomerID: a.customer, PriceID: price}).SubscriptionID
	l.untold()
	l.exec(`INSERT INTO person_user (clerk_user_id) VALUES ($1)`, bob)
	l.grants(bob, other, nil)
	l.must(l.work.look(t.Context(), account.CustomerEntity(a.customer)))
	l.settle()
	l.wants("", `SELECT user_id FROM stripe_customers WHERE stripe_customer_id = $1`, a.customer)
	l.wants("1", `SELECT count(*) FROM drift WHERE class = 'conflicting_claims' AND entity = 'customer/' || $1 AND resolved_at IS NULL`, a.customer)
}

// What a user has of whom the product has noted the subscription alone is stopped when they are
// deleted, whatever was looked at before, and they are erased.
func TestADeletedUserIsNotBilledByANotedSubscription(t *testing.T) {
	t.Parallel()
	for name, noted := range map[string]any{"nothing": nil, "a word": "none"} {
		for _, status := range []string{"active", "canceled"} {
			for _, looked := range []bool{true, false} {
				t.Run(name+", "+status+map[bool]string{true: ", looked at before"}[looked], func(t *testing.T) {
					t.Parallel()
					l := newLab(t, policies{})
					l.bound()
					a := l.unplaced(noted)
					l.exec(`UPDATE subscriptions SET status = $1`, status)
					if looked {
						l.must(l.work.look(t.Context(), account.UserEntity(a.user)))
						l.settle()
					}
					l.must(l.Sandbox.Clerk.DeleteUser(a.user))
					l.settle()
					if l.runsOn(a.subscription) {
						t.Error("it is billed on")
					}
					l.wants("true", erased, a.user)
					l.isTheirs(a)
					l.wants("0", `SELECT count(*) FROM pokes WHERE entity = 'customer/'`)
				})
			}
		}
	}
}

// While Stripe cannot be asked whose a noted subscription is its user is not erased, and nobody is
// looked at who is nobody.
func TestNobodyIsErasedWhoseNotedSubscriptionCannotBeRead(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	l.bound()
	a := l.unplaced(nil)
	l.must(l.work.syncUser(t.Context(), a.user))
	l.must(l.Sandbox.Clerk.DeleteUser(a.user))
	l.take()
	l.must(l.work.syncUser(t.Context(), a.user)) // which has its deletion noted, and dies before it asks Stripe
	result, err := l.work.users.EraseUser(t.Context(), activities.UserInput{ClerkUserID: a.user})
	l.must(err)
	if result.Erased || len(result.Open) != 1 || result.Open[0].CustomerID != "" || strings.Join(result.Open[0].Running, " ") != a.subscription {
		t.Errorf("the erasure answers %+v", result)
	}
	l.wants("0", `SELECT count(*) FROM pokes WHERE entity = 'customer/'`)
	l.erasing(a.user)
	l.erasing(a.user)
	l.wants("true", erased, a.user)
	if l.runsOn(a.subscription) {
		t.Error("it is billed on")
	}
}

// A row of the product's own for which Stripe has nothing gives what it gave, and is shown. It holds
// up no erasure: at once where its id cannot be Stripe's, else once Stripe has said so twice.
func TestANotedSubscriptionThatStripeDoesNotHave(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"lifetime_1", "sub_lifetime1", ""} {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			l.bound()
			user := l.Sandbox.Clerk.AddUser(person("ada", "ada@example.com", true))
			l.untold()
			l.exec(`INSERT INTO person_user (clerk_user_id) VALUES ($1)`, user)
			l.grants(user, id, nil)
			l.must(l.work.look(t.Context(), account.UserEntity(user)))
			l.settle()
			l.made(1)
			l.wants("true", `SELECT projection->>'subscriptionActive' FROM person_user`)
			l.wants("1", `SELECT count(*) FROM drift WHERE class = 'subscription_missing_in_stripe' AND entity = 'user/' || $1 AND subject = $2 AND resolved_at IS NULL`, user, id)
			l.must(l.Sandbox.Clerk.DeleteUser(user))
			l.settle()
			if strings.HasPrefix(id, "sub_") {
				l.erasing(user)
				l.wants("false", erased, user)
				l.later(missingConfirmedAfter + time.Minute)
				l.erasing(user)
				l.wants("1", `SELECT count(*) FROM audit_log WHERE action = 'missing.confirmed' AND subject = $1 AND entity = 'user/' || $2`, id, user)
				l.wants(id, `SELECT after -> 'missing' ->> 0 FROM audit_log WHERE action = 'user.erased'`)
			}
			l.wants("true", erased, user)
			l.wants("0", `SELECT count(*) FROM drift WHERE resolved_at IS NULL`)
			l.wants("0", `SELECT count(*) FROM pokes WHERE entity = 'customer/'`)
		})
	}
}

// What Stripe did not have is found when it shows after all, by any look at its user or its customer.
func TestANotedSubscriptionThatShowsLater(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	a := l.unplaced(nil)
	found := l.Sandbox.Stripe.Lose(a.subscription)
	l.must(l.work.look(t.Context(), account.UserEntity(a.user)))
	l.settle()
	l.wants("1", `SELECT count(*) FROM drift WHERE class = 'subscription_missing_in_stripe' AND resolved_at IS NULL`)
	found()
	l.must(l.work.look(t.Context(), account.UserEntity(a.user)))
	l.settle()
	l.wants("0", `SELECT count(*) FROM drift WHERE class = 'subscription_missing_in_stripe' AND resolved_at IS NULL`)
	l.wants(a.customer, `SELECT s.stripe_customer_id FROM subscriptions s JOIN stripe_customers c ON c.stripe_customer_id = s.stripe_customer_id AND c.user_id = s.user_id WHERE s.missing_since IS NULL`)
}

// A subscription that the product has noted with a wrong customer of its user's is found at its own:
// what it gives ends with it, and it is stopped when the user is deleted.
func TestANotedSubscriptionOfAnotherCustomer(t *testing.T) {
	t.Parallel()
	for _, deleted := range []bool{true, false} {
		t.Run(map[bool]string{true: "its user is deleted", false: "it ends"}[deleted], func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			l.bound()
			user, customer := l.signUp("ada")
			own := l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "other@example.com"})
			subscription := l.buy(stripesim.CheckoutSpec{CustomerID: own}).SubscriptionID
			l.untold()
			l.grants(user, subscription, customer)
			if deleted {
				l.must(l.Sandbox.Clerk.DeleteUser(user))
				l.settle()
				l.wants("true", erased, user)
				if l.runsOn(subscription) {
					t.Error("it is billed on")
				}
				return
			}
			l.must(l.work.look(t.Context(), account.CustomerEntity(customer)))
			l.settle()
			l.wants(own, `SELECT s.stripe_customer_id FROM subscriptions s JOIN stripe_customers c ON c.stripe_customer_id = s.stripe_customer_id AND c.user_id = s.user_id`)
			l.must(l.Sandbox.Stripe.CancelNow(subscription))
			l.settle()
			l.wants("canceled", `SELECT status FROM subscriptions`)
			l.agree(user)
		})
	}
}

// Nothing is sold a second time beside what the product has noted without its customer, and it can be
// cancelled, also where nobody has looked at its user before they ask.
func TestANotedSubscriptionIsTheCallersBeforeTheirFirstLook(t *testing.T) {
	t.Parallel()
	t.Run("a checkout", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, policies{})
		user, _ := l.signUp("ada")
		own := l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "other@example.com"})
		subscription := l.buy(stripesim.CheckoutSpec{CustomerID: own}).SubscriptionID
		l.untold()
		l.grants(user, subscription, nil)
		opened, _, err := l.requests(l.work).Checkout(t.Context(), l.checkoutOf(user, "k"))
		if reason := refused(t, err); reason != "already_subscribed" {
			t.Errorf("it is answered %q, %+v", reason, opened)
		}
	})
	t.Run("a command", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, policies{})
		a := l.unplaced(nil)
		op, err := l.requests(l.work).Command(t.Context(), selfservice.CommandRequest{Caller: selfservice.Caller{UserID: a.user}, Key: selfservice.Key{Method: "POST", Route: "/c", Value: "k"},
			Command: account.CommandCancel, SubscriptionID: a.subscription})
		l.must(err)
		l.settle()
		l.wants("customer/"+a.customer, `SELECT entity FROM operations WHERE id = $1`, op.ID)
		l.isTheirs(a)
	})
}

// A comparison shows of what has no customer that Stripe does not have it, of its user, and of nobody
// who is nobody.
func TestAComparisonOfANotedSubscriptionWithoutItsCustomer(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	a := l.unplaced(nil)
	l.grants(a.user, "sub_lifetime1", "")
	found, err := l.Store.Compare("run", account.DeleteCancelAtPeriodEnd).StoredUser(t.Context(), a.user)
	l.must(err)
	shown := map[string]bool{}
	for _, d := range found {
		shown[string(d.Class)+" "+d.Subject] = true
	}
	if !shown["subscription_missing_in_stripe sub_lifetime1"] {
		t.Errorf("found %+v", found)
	}
	page, _, _, err := l.Store.Compare("run", account.DeleteCancelAtPeriodEnd).StoredPage(t.Context(), "", 10)
	l.must(err)
	for _, d := range page {
		if kind, _ := d.Entity.Split(); kind == "" {
			t.Errorf("%s is of nobody", d.Class)
		}
	}
}

// A user of whom every row names its customer costs no question more.
func TestWhoseRowsNameTheirCustomersIsNotAskedFor(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, _, subscription := l.subscribed("ada")
	row, err := l.Store.UserByClerkID(t.Context(), user)
	l.must(err)
	if row.Unplaced {
		t.Error("something of theirs is to be asked for")
	}
	before := l.Sandbox.StripeFaults.Requests()["GET /v1/subscriptions/{id}"]
	l.must(l.work.look(t.Context(), account.UserEntity(user)))
	if after := l.Sandbox.StripeFaults.Requests()["GET /v1/subscriptions/{id}"]; after != before {
		t.Errorf("%s was read %d times", subscription, after-before)
	}
}
