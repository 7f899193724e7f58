package fences_test

import (
	"testing"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

// pass makes every list of a bulk sync.
func (b *bulk) pass() {
	b.l.t.Helper()
	for _, step := range []string{
		activities.BulkProducts, activities.BulkPrices, activities.BulkUsers, activities.BulkCustomers, activities.BulkSubscriptions,
		activities.BulkOnboarding, activities.BulkQuarantine,
	} {
		for complete := false; !complete; {
			result, err := b.step(step)
			b.l.must(err)
			complete = result.Complete
		}
	}
}

// The customers of a product that was there before us name nobody, or users of Clerk's development
// instance. Where that is switched on, a bulk sync makes each the one user's who has verified its
// address, as its events would, before it gives anybody another; where two have, it asks nobody.
func TestABulkSyncLinksByTheVerifiedAddress(t *testing.T) {
	t.Parallel()
	for _, linkByEmail := range []bool{true, false} {
		for name, metadata := range map[string]map[string]string{"nobody": nil, "a user of another instance": {"clerk_user_id": "user_ofTheDevelopmentInstance"}} {
			t.Run(name+map[bool]string{true: ", switched on", false: ", switched off"}[linkByEmail], func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{linkByEmail: linkByEmail})
				user := l.Sandbox.Clerk.AddUser(person("ada", "ada@example.com", true))
				for _, name := range []string{"bo", "cy"} {
					l.Sandbox.Clerk.AddUser(person(name, "both@example.com", true))
				}
				customer := l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "Ada@example.com", Metadata: metadata})
				twice := l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "both@example.com", Metadata: metadata})
				bought := l.buy(stripesim.CheckoutSpec{CustomerID: customer})
				l.untold()
				l.bulk(l.work).pass()
				l.settle()
				l.unowned(twice)
				if !linkByEmail {
					l.made(3)
					l.unowned(customer)
					return
				}
				l.made(2) // for the others
				l.wants(user, `SELECT u.clerk_user_id FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE c.stripe_customer_id = $1`, customer)
				l.wants("active", `SELECT status FROM subscriptions WHERE stripe_subscription_id = $1`, bought.SubscriptionID)
				l.agree(user)
				l.wants("0", `SELECT count(*) FROM bulk_failures`)
			})
		}
	}
}

// So is what a deleted user had: the deletion policy has to reach it.
func TestABulkSyncBringsInWhatADeletedUserBought(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{linkByEmail: true})
	user := l.Sandbox.Clerk.AddUser(late(true))
	l.settle()
	bought := l.buy(stripesim.CheckoutSpec{Email: lateTyped})
	l.untold()
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	l.settle()
	l.erased(user)
	l.bulk(l.work).pass()
	l.settle()
	l.wants(user, `SELECT u.clerk_user_id FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE c.stripe_customer_id = $1`, bought.CustomerID)
	if l.runsOn(bought.SubscriptionID) {
		t.Error("the subscription of an erased user goes on")
	}
}
