package fences_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

// A product that was there before us has noted a customer and its subscription for ada's former
// account; its server has since written the new account on the customer at Stripe. That is a
// conflict, and loud, until a person corrects the product's table. What turns out to be the new
// account's gives the former one nothing from then on.
func TestWhatTurnsOutToBeAnothersGivesTheFormerUserNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	former := l.Sandbox.Clerk.AddUser(person("ada", "former@example.com", true))
	owner := l.Sandbox.Clerk.AddUser(person("ada", "ada@example.com", true))
	customer := l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "ada@example.com", Metadata: byServer(owner)})
	subscription := l.buy(stripesim.CheckoutSpec{CustomerID: customer}).SubscriptionID
	l.untold()
	l.exec(`INSERT INTO person_user (clerk_user_id, stripe_customer_id) VALUES ($1, $3), ($2, NULL)`, former, owner, customer)
	l.exec(`INSERT INTO subscriptions (user_id, stripe_subscription_id, stripe_customer_id, status, plan_id)
		SELECT id, $2, $3, 'active', (SELECT min(id) FROM plans) FROM person_user WHERE clerk_user_id = $1`, former, subscription, customer)
	for _, user := range []string{former, owner} {
		l.must(l.work.look(t.Context(), account.UserEntity(user)))
	}
	l.must(l.work.lookAtCustomer(t.Context(), customer))
	l.settle()
	l.wants("", `SELECT user_id FROM stripe_customers WHERE stripe_customer_id = $1`, customer)
	l.wants("1", `SELECT count(*) FROM drift WHERE class = 'conflicting_claims' AND resolved_at IS NULL`)
	l.isActive(former, true) // by what the product has noted
	// A person corrects the product's own table, and has the customer looked at.
	l.exec(`UPDATE person_user SET stripe_customer_id = NULL WHERE clerk_user_id = $1`, former)
	l.must(l.Store.Poke(t.Context(), account.JobSync, account.CustomerEntity(customer)))
	l.settle()
	l.wants(owner, `SELECT u.clerk_user_id FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE c.stripe_customer_id = $1`, customer)
	l.wants(owner, `SELECT u.clerk_user_id FROM subscriptions s JOIN person_user u ON u.id = s.user_id`)
	l.isActive(former, false)
	l.isActive(owner, true)
	l.agree(owner)
}

// isActive fails the test unless the user's rows, their projection and Clerk say so of their access.
func (l *lab) isActive(user string, want bool) {
	l.t.Helper()
	l.projected(user)
	l.wants(strconv.FormatBool(want), `SELECT projection->>'subscriptionActive' FROM person_user WHERE clerk_user_id = $1`, user)
	raw, err := json.Marshal(l.Sandbox.Clerk.PublicMetadata(user)["stripe"])
	l.must(err)
	var held account.Projection
	l.must(json.Unmarshal(raw, &held))
	if held.SubscriptionActive != want {
		l.t.Errorf("Clerk is told of %s that access is %t", user, held.SubscriptionActive)
	}
}

// An older version of the product has given a subscription's row to another user, while its customer
// stays whose it is, or has stored it for the other without a customer, or with one of theirs.
// Whoever's customer Stripe shows it to be has it back with the next look, and the other loses what
// it gave them in the same transaction, also where nothing else of the row differs.
func TestARowThatTheProductHasGivenToAnotherComesBack(t *testing.T) {
	t.Parallel()
	for name, given := range map[string]string{
		"the user alone":          `UPDATE subscriptions SET user_id = (SELECT id FROM person_user WHERE clerk_user_id = $1)`,
		"without a customer":      `UPDATE subscriptions SET stripe_customer_id = NULL, user_id = (SELECT id FROM person_user WHERE clerk_user_id = $1)`,
		"with the other customer": `UPDATE subscriptions SET (stripe_customer_id, user_id) = (SELECT stripe_customer_id, id FROM person_user WHERE clerk_user_id = $1)`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			owner, customer, subscription := l.subscribed("ada")
			other, _ := l.signUp("bob")
			l.exec(given, other)
			l.must(l.work.syncUser(t.Context(), other))
			l.must(l.work.publish(t.Context(), other, false))
			l.isActive(other, true)
			l.exec(`UPDATE pokes SET due_at = NULL`)
			if err := l.work.record(t.Context(), customer); err != nil {
				t.Fatal(err)
			}
			l.projected(owner) // before anybody has looked at either
			l.projected(other)
			l.wants(other, `SELECT clerk_user_id FROM person_user WHERE projection_version <> published_version`)
			l.wants("1", `SELECT count(*) FROM pokes WHERE entity = $1 AND due_at IS NOT NULL`, account.UserEntity(other))
			l.wants("1", `SELECT count(*) FROM audit_log WHERE subject = $1 AND action = 'subscription.changed'
				AND before ->> 'user_id' = (SELECT id::text FROM person_user WHERE clerk_user_id = $2)`, subscription, other)
			l.settle()
			l.isActive(other, false)
			l.isActive(owner, true)
		})
	}
}

// Two subscriptions have each been given to the other's user. Both customers are looked at together,
// and either transaction waits for the row that the other has locked: one of them starts anew.
func TestTwoWhoseRowsWereExchangedAreLookedAtTogether(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	users, customers := map[string]string{}, map[string]string{}
	for _, name := range []string{"ada", "bob"} {
		user, customer, subscription := l.subscribed(name)
		users[subscription], customers[subscription] = user, customer
	}
	l.exec(`UPDATE subscriptions s SET user_id = (SELECT o.user_id FROM subscriptions o WHERE o.stripe_subscription_id <> s.stripe_subscription_id)`)
	var waiting []*stop
	var looks []<-chan error
	for _, customer := range customers {
		actor := l.actor(policies{})
		former := actor.arm(t, "FROM person_user WHERE id = $1 FOR NO KEY UPDATE", 1) // behind the owner
		look := begin(func() error { return actor.record(t.Context(), customer) })
		reach(t, former, look)
		waiting, looks = append(waiting, former), append(looks, look)
	}
	for i := range waiting {
		waiting[i].release()
	}
	for _, look := range looks {
		wait(t, look)
	}
	for subscription, user := range users {
		l.wants(user, `SELECT u.clerk_user_id FROM subscriptions s JOIN person_user u ON u.id = s.user_id WHERE s.stripe_subscription_id = $1`, subscription)
		l.projected(user)
	}
	l.settle()
	for _, user := range users {
		l.isActive(user, true)
	}
}

// A comparison finds whom a subscription gives access, or who has none for theirs, though Clerk holds
// what is stored: the user's row is looked at beside the rows of their subscriptions.
func TestAComparisonFindsAProjectionThatIsNotThatOfTheRows(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	owner, customer, subscription := l.subscribed("ada")
	other, _ := l.signUp("bob")
	l.must(l.work.publish(t.Context(), owner, false))
	compare := l.Store.Compare("run_1", account.DeleteCancelAtPeriodEnd)
	stale := func(user string) (subjects []string) {
		found, err := compare.StoredUser(t.Context(), user)
		l.must(err)
		for _, d := range found {
			if d.Class == account.DriftStaleMetadata {
				subjects = append(subjects, d.Subject)
			}
		}
		return subjects
	}
	if found := append(stale(owner), stale(other)...); len(found) > 0 {
		t.Errorf("found %s", found)
	}
	l.exec(`UPDATE subscriptions SET user_id = (SELECT id FROM person_user WHERE clerk_user_id = $1)`, other)
	for _, user := range []string{owner, other} {
		if found := stale(user); len(found) != 1 || found[0] != subscription {
			t.Errorf("of %s it has found %s", user, found)
		}
	}
	seen, _, err := l.work.stripe.CustomerSubscriptions(t.Context(), customer)
	l.must(err)
	found, err := compare.Subscriptions(t.Context(), seen)
	l.must(err)
	if len(found) != 1 || found[0].Class != account.DriftStaleSubscription || fmt.Sprint(found[0].Detail["fields"]) != "[user_id]" {
		t.Errorf("of the subscription it has found %+v", found)
	}
}
