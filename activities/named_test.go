package activities_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// index is a Stripe whose search finds something, and which makes customers.
type index struct {
	*stripeWorld
	found          []account.Customer
	subscribed     []string // the customers of subscriptions that were found
	fails, refuses error    // the two searches
	searched, made int
}

func (i *index) CustomersNaming(context.Context, string) ([]account.Customer, error) {
	i.searched++
	return i.found, i.fails
}

func (i *index) CustomersSubscribedFor(context.Context, string) ([]string, error) {
	return i.subscribed, i.refuses
}

func (i *index) CreateCustomer(_ context.Context, n account.NewCustomer) (account.Customer, bool, error) {
	i.made++
	return account.Customer{ID: "cus_made", Email: n.Email, Name: n.Name, Metadata: map[string]string{"clerk_user_id": n.ClerkUserID}}, false, nil
}

// Who has been there for a while is given a customer only where Stripe knows none that is theirs,
// and none at all where it does not answer. One that others claim too is nobody's, and no reason to
// wait.
func TestNobodyOfOldGetsASecondCustomer(t *testing.T) {
	t.Parallel()
	names := account.Customer{ID: "cus_old", Metadata: map[string]string{"clerk_user_id": ada}}
	deleted := names
	deleted.Deleted = true
	for name, c := range map[string]struct {
		existing bool
		index    index
		claims   []account.Claim
		made     bool
		claimed  bool
		fails    bool
	}{
		"new":                                    {index: index{found: []account.Customer{names}}, made: true},
		"old, with one":                          {existing: true, index: index{found: []account.Customer{names}}, claimed: true},
		"old, with none":                         {existing: true, made: true},
		"old, with a deleted one":                {existing: true, index: index{found: []account.Customer{deleted}}, made: true},
		"old, with somebody's":                   {existing: true, index: index{found: []account.Customer{{ID: "cus_old", Metadata: map[string]string{"clerk_user_id": "user_2other", "userId": ada}}}}, made: true},
		"old, with a claimed one":                {existing: true, index: index{found: []account.Customer{names}}, claims: []account.Claim{{CustomerID: "cus_old", ClerkUserID: "user_2other", Source: "subscription:sub_1"}}, claimed: true},
		"old, without an answer":                 {existing: true, index: index{fails: errors.New("no answer")}, fails: true},
		"old, with half an answer":               {existing: true, index: index{refuses: errors.New("no answer")}, fails: true},
		"old, with a subscription":               {existing: true, index: index{subscribed: []string{"cus_old"}}, claimed: true},
		"old, both":                              {existing: true, index: index{found: []account.Customer{names}, refuses: errors.New("not asked")}, claimed: true},
		"old, with a forgotten one":              {existing: true, index: index{subscribed: []string{"cus_forgotten"}}, made: true},
		"old, with a subscription on somebody's": {existing: true, index: index{subscribed: []string{"cus_other"}}, made: true},
		"new, and nobody is asked":               {index: index{fails: errors.New("no answer")}, made: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			for _, claim := range c.claims {
				if err := w.store.AddClaim(t.Context(), claim); err != nil {
					t.Fatal(err)
				}
			}
			stripe := &c.index
			stripe.stripeWorld = w.stripe
			w.stripe.customers["cus_old"], w.stripe.customers["cus_other"] = account.Customer{ID: "cus_old"}, account.Customer{ID: "cus_other", Metadata: map[string]string{"clerk_user_id": "user_2other"}}
			for _, id := range []string{"cus_old", "cus_other"} {
				w.stripe.put(account.Subscription{ID: "sub_" + id, CustomerID: id, Status: account.StatusActive, Metadata: map[string]string{"userId": ada}})
			}
			customers := &activities.Customers{Store: w.store, Stripe: stripe}
			result, err := customers.EnsureStripeCustomer(t.Context(), activities.UserInput{ClerkUserID: ada, Existing: c.existing})
			if (err != nil) != c.fails || result.Claimed != c.claimed || (stripe.made > 0) != c.made || (stripe.searched > 0) != c.existing {
				t.Errorf("came to %+v with %d made after %d searches: %v", result, stripe.made, stripe.searched, err)
			}
			poked, _, _, err := w.store.ClaimPokes(t.Context(), 10, 10, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			if (len(poked) == 1 && poked[0].Entity == "customer/cus_old") != c.claimed {
				t.Errorf("poked were %v", poked)
			}
		})
	}
}

// Search shows what is older than it is behind; who signed up at an unknown time may be anybody.
func TestWhoIsOfOld(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []struct {
		at   time.Time
		want bool
	}{{time.Time{}, true}, {time.Now().Add(-11 * time.Minute), true}, {time.Now().Add(-8 * time.Minute), false}, {time.Now(), false}} {
		user := w.clerk.users[ada]
		user.CreatedAt = c.at
		w.clerk.users[ada] = user
		if result := w.syncUser(t); result.Existing != c.want {
			t.Errorf("who signed up at %s is of old: %t", c.at, result.Existing)
		}
	}
	w.stripe.customers["cus_1"] = account.Customer{ID: "cus_1", Metadata: map[string]string{"clerk_user_id": ada}}
	w.record(t, "cus_1")
	if result := w.syncUser(t); result.Existing {
		t.Error("who has a customer is searched for")
	}
}
