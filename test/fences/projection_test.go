package fences_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

// twoCustomers is a user with two customers and a subscription on each.
func (l *lab) twoCustomers(name string) (user string, customers, subscriptions [2]string) {
	l.t.Helper()
	user, customers[0], subscriptions[0] = l.subscribed(name)
	bought := l.buy(stripesim.CheckoutSpec{Email: name + "@example.org", ClientReferenceID: user, Metadata: byServer(user)})
	customers[1], subscriptions[1] = bought.CustomerID, bought.SubscriptionID
	l.settle()
	l.agree(user)
	l.wants("2", `SELECT count(*) FROM subscriptions s JOIN person_user u ON u.id = s.user_id WHERE clerk_user_id = $1`, user)
	return user, customers, subscriptions
}

// Two customers of one user change at once, in every way in which one can come between the steps
// of the other. The one subscription ends while the other begins to grant: whoever computes the
// projection from its own change alone takes the user's access away, or leaves it to the dead one.
func TestTwoCustomersOfOneUserChangeAtOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	n := 0
	user, customers, subscriptions := l.twoCustomers("ada")
	l.explore(policies{}, func() scene {
		// One of the two is paused, turn by turn.
		running, paused := n%2, 1-n%2
		n++
		if n == 1 {
			l.must(l.Sandbox.Stripe.PauseCollection(subscriptions[paused]))
			l.settle()
		}
		l.wants("true "+subscriptions[running], `SELECT (projection ->> 'subscriptionActive') || ' ' || (projection ->> 'subscriptionId') FROM person_user WHERE clerk_user_id = $1`, user)
		l.must(l.Sandbox.Stripe.PauseCollection(subscriptions[running]))
		l.must(l.Sandbox.Stripe.ResumeCollection(subscriptions[paused]))
		l.unpoked()
		return scene{
			first:  func(ctx context.Context, a *actor) error { return a.lookAtCustomer(ctx, customers[running]) },
			second: func(ctx context.Context, b *actor) error { return b.lookAtCustomer(ctx, customers[paused]) },
			check: func() {
				l.wants("true "+subscriptions[paused], `SELECT (projection ->> 'subscriptionActive') || ' ' || (projection ->> 'subscriptionId') FROM person_user WHERE clerk_user_id = $1`, user)
				// Whoever published last published what is stored.
				l.agree(user)
				l.unpoked()
			},
		}
	})
}

// The same at full speed: three who look at two customers while both change all the time.
func TestCustomersOfOneUserChangeAllTheTime(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, customers, subscriptions := l.twoCustomers("ada")
	actors := []*actor{l.actor(policies{}), l.actor(policies{}), l.actor(policies{})}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	paused := [2]bool{}
	for range 25 {
		for i, s := range subscriptions {
			if dice.IntN(2) == 0 {
				continue
			}
			if paused[i] = !paused[i]; paused[i] {
				l.must(l.Sandbox.Stripe.PauseCollection(s))
			} else {
				l.must(l.Sandbox.Stripe.ResumeCollection(s))
			}
		}
		l.unpoked()
		beside(t,
			func() error { return actors[0].lookAtCustomer(t.Context(), customers[0]) },
			func() error { return actors[1].lookAtCustomer(t.Context(), customers[1]) },
			func() error { return actors[2].lookAtUser(t.Context(), user) },
		)
		l.wants(fmt.Sprint(!paused[0] || !paused[1]), `SELECT projection ->> 'subscriptionActive' FROM person_user WHERE clerk_user_id = $1`, user)
		l.agree(user)
		if t.Failed() {
			t.FailNow()
		}
	}
	if v := l.text(`SELECT projection_version FROM person_user WHERE clerk_user_id = $1`, user); len(v) < 2 {
		t.Errorf("after all of it the version is %s", v)
	}
	l.wants("0", `SELECT count(*) FROM webhook_events WHERE status NOT IN ('completed', 'ignored')`)
}

// A user changes at once with their customer: neither loses the other's.
func TestAUserAndTheirCustomerChangeAtOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, customer, subscription := l.subscribed("ada")
	paused := false
	l.explore(policies{}, func() scene {
		if paused = !paused; paused {
			l.must(l.Sandbox.Stripe.PauseCollection(subscription))
		} else {
			l.must(l.Sandbox.Stripe.ResumeCollection(subscription))
		}
		l.unpoked()
		return scene{
			first:  func(ctx context.Context, a *actor) error { return a.lookAtUser(ctx, user) },
			second: func(ctx context.Context, b *actor) error { return b.look(ctx, account.CustomerEntity(customer)) },
			check: func() {
				l.wants(fmt.Sprint(!paused), `SELECT projection ->> 'subscriptionActive' FROM person_user WHERE clerk_user_id = $1`, user)
				l.agree(user)
				l.unpoked()
			},
		}
	})
}
