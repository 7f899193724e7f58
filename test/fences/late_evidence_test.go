package fences_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

const (
	lateAddress = "xanthippe.late@secret.example"
	// lateTyped is the same address as somebody types it on a page to pay at.
	lateTyped = "Xanthippe.Late@secret.example"
)

// late is somebody with a verified address, whose deletion comes before what tells of their
// purchase.
func late(verified bool) clerksim.UserSpec {
	spec := person("xanthippe", lateAddress, verified)
	spec.LastName = "Quillfeather"
	return spec
}

// without hides what Stripe tells of something that happens there, and answers how it is told after
// all.
func (l *lab) without(happens func()) (tell func()) {
	l.t.Helper()
	l.settle()
	happens()
	l.must(l.Sandbox.Stripe.Settled(l.t.Context()))
	held := l.Sandbox.StripeWebhooks.TakeHeld()
	return func() {
		for _, m := range held {
			l.Sandbox.StripeWebhooks.Send(m)
		}
	}
}

func (l *lab) erased(user string) {
	l.t.Helper()
	l.wants("true", `SELECT (deleted_at IS NOT NULL)::text FROM person_user WHERE clerk_user_id = $1`, user)
}

// runsOn tells whether a subscription goes on at Stripe.
func (l *lab) runsOn(subscription string) bool {
	l.t.Helper()
	raw, ok := l.Sandbox.Stripe.Subscription(subscription)
	if !ok {
		l.t.Fatalf("there is no subscription %s", subscription)
	}
	var s struct {
		Status string
		Ends   bool `json:"cancel_at_period_end"`
	}
	l.must(json.Unmarshal(raw, &s))
	return s.Status != "canceled" && !s.Ends
}

// What a user bought is theirs, and stopped by the deletion policy, also where nothing but their
// verified address says so and all that tells of it comes when they are erased: by a reference that
// they may have written, or by the address alone where that is on.
func TestWhatAnErasedUserBoughtIsStoppedThoughItsEventsComeLater(t *testing.T) {
	t.Parallel()
	byLink := func(user string) stripesim.CheckoutSpec {
		return stripesim.CheckoutSpec{Email: lateTyped, ClientReferenceID: user, PaymentLink: "plink_1"}
	}
	byAddress := func(string) stripesim.CheckoutSpec { return stripesim.CheckoutSpec{Email: lateTyped} }
	for how, c := range map[string]struct {
		spec        func(user string) stripesim.CheckoutSpec
		linkByEmail bool
	}{
		"reference": {byLink, false},
		"address":   {byAddress, true},
	} {
		for when, life := range map[string]func(l *lab) (user, subscription string){
			"bought before the deletion": func(l *lab) (user, subscription string) {
				user = l.Sandbox.Clerk.AddUser(late(true))
				tell := l.without(func() { subscription = l.buy(c.spec(user)).SubscriptionID })
				l.must(l.Sandbox.Clerk.DeleteUser(user))
				l.settle()
				l.erased(user)
				tell()
				return user, subscription
			},
			"a page that was left open is paid after the erasure": func(l *lab) (user, subscription string) {
				user = l.Sandbox.Clerk.AddUser(late(true))
				l.settle()
				l.must(l.Sandbox.Clerk.DeleteUser(user))
				l.settle()
				l.erased(user)
				return user, l.buy(c.spec(user)).SubscriptionID
			},
			"nobody had heard of the user either": func(l *lab) (user, subscription string) {
				tell := l.without(func() {
					user = l.Sandbox.Clerk.AddUser(late(true))
					subscription = l.buy(c.spec(user)).SubscriptionID
				})
				l.must(l.Sandbox.Clerk.DeleteUser(user))
				l.settle()
				l.erased(user)
				tell()
				return user, subscription
			},
			"the user is heard of after their deletion": func(l *lab) (user, subscription string) {
				user = l.Sandbox.Clerk.AddUser(late(true))
				l.must(l.Sandbox.Clerk.Settled(l.t.Context()))
				signedUp := l.Sandbox.ClerkWebhooks.TakeHeld()
				subscription = l.buy(c.spec(user)).SubscriptionID
				l.must(l.Sandbox.Clerk.DeleteUser(user))
				l.settle()
				l.erased(user)
				for _, m := range signedUp {
					l.Sandbox.ClerkWebhooks.Send(m)
				}
				return user, subscription
			},
			"the address is verified just before the deletion": func(l *lab) (user, subscription string) {
				user = l.Sandbox.Clerk.AddUser(late(false))
				subscription = l.buy(c.spec(user)).SubscriptionID
				l.settle()
				l.must(l.Sandbox.Clerk.VerifyEmail(user, lateAddress))
				l.must(l.Sandbox.Clerk.DeleteUser(user))
				return user, subscription
			},
			"bought, verified and deleted while nobody looked": func(l *lab) (user, subscription string) {
				user = l.Sandbox.Clerk.AddUser(late(false))
				subscription = l.buy(c.spec(user)).SubscriptionID
				l.must(l.Sandbox.Clerk.VerifyEmail(user, lateAddress))
				l.must(l.Sandbox.Clerk.DeleteUser(user))
				return user, subscription
			},
		} {
			t.Run(how+", "+when, func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{linkByEmail: c.linkByEmail})
				user, subscription := life(l)
				l.settle()
				if l.runsOn(subscription) {
					t.Error("the subscription of an erased user goes on")
				}
				customer := l.text(`SELECT stripe_customer_id FROM subscriptions WHERE stripe_subscription_id = $1`, subscription)
				l.wants(user, `SELECT u.clerk_user_id FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE c.stripe_customer_id = $1`, customer)
				l.erased(user)
				if found := l.traces(); found != "" {
					t.Errorf("there are traces of a user who was deleted:\n%s", found)
				}
				if n := l.drifts(account.DriftUnverifiedReference, customer); n != "0" {
					t.Errorf("%s unverified references are told of still", n)
				}
			})
		}
	}
}

// The policy is the operator's: what becomes known late is ended at once, or let be.
func TestWhatBecomesKnownOfAnErasedUserLateFollowsThePolicy(t *testing.T) {
	t.Parallel()
	for policy, want := range map[account.DeletionPolicy]string{account.DeleteCancelNow: "canceled", account.DeleteKeep: "active"} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{deletion: policy})
			user := l.Sandbox.Clerk.AddUser(late(true))
			var bought stripesim.CheckoutResult
			tell := l.without(func() {
				bought = l.buy(stripesim.CheckoutSpec{Email: lateTyped, ClientReferenceID: user, PaymentLink: "plink_1"})
			})
			l.must(l.Sandbox.Clerk.DeleteUser(user))
			l.settle()
			l.erased(user)
			tell()
			l.settle()
			raw, _ := l.Sandbox.Stripe.Subscription(bought.SubscriptionID)
			if got := stringField(t, raw, "status"); got != want {
				t.Errorf("the subscription is %s, want %s", got, want)
			}
			l.gone(user, policy, bought.CustomerID)
		})
	}
}

// What is not shown to be an erased user's is left alone: a payer may have written whom they refer
// to, an address that was not verified is anybody's, and one that somebody has verified who is
// there is theirs.
func TestWhatIsNotShownToBeAnErasedUsersIsLeftAlone(t *testing.T) {
	t.Parallel()
	byLink := func(user string) stripesim.CheckoutSpec {
		return stripesim.CheckoutSpec{Email: lateTyped, ClientReferenceID: user, PaymentLink: "plink_1"}
	}
	byAddress := func(string) stripesim.CheckoutSpec { return stripesim.CheckoutSpec{Email: lateTyped} }
	// gone signs somebody up, hides their purchase, and has them erased.
	gone := func(l *lab, spec func(string) stripesim.CheckoutSpec, verified bool) (bought stripesim.CheckoutResult, tell func()) {
		user := l.Sandbox.Clerk.AddUser(late(verified))
		tell = l.without(func() { bought = l.buy(spec(user)) })
		l.must(l.Sandbox.Clerk.DeleteUser(user))
		l.settle()
		l.erased(user)
		return bought, tell
	}
	for name, c := range map[string]struct {
		spec        func(user string) stripesim.CheckoutSpec
		linkByEmail bool
		life        func(l *lab, spec func(string) stripesim.CheckoutSpec) (bought stripesim.CheckoutResult, owner string)
	}{
		"a reference, and another address": {
			spec: func(user string) stripesim.CheckoutSpec {
				return stripesim.CheckoutSpec{Email: "payer@example.org", ClientReferenceID: user, PaymentLink: "plink_1"}
			},
			life: func(l *lab, spec func(string) stripesim.CheckoutSpec) (stripesim.CheckoutResult, string) {
				bought, tell := gone(l, spec, true)
				tell()
				return bought, ""
			},
		},
		"a reference, and an address that was not verified": {
			spec: byLink,
			life: func(l *lab, spec func(string) stripesim.CheckoutSpec) (stripesim.CheckoutResult, string) {
				bought, tell := gone(l, spec, false)
				tell()
				return bought, ""
			},
		},
		"an address that was not verified": {
			spec: byAddress, linkByEmail: true,
			life: func(l *lab, spec func(string) stripesim.CheckoutSpec) (stripesim.CheckoutResult, string) {
				bought, tell := gone(l, spec, false)
				tell()
				return bought, ""
			},
		},
		"an address, where that is off": {
			spec: byAddress,
			life: func(l *lab, spec func(string) stripesim.CheckoutSpec) (stripesim.CheckoutResult, string) {
				bought, tell := gone(l, spec, true)
				tell()
				return bought, ""
			},
		},
		"a reference, and an address that somebody has verified who is there": {
			spec: byLink,
			life: func(l *lab, spec func(string) stripesim.CheckoutSpec) (stripesim.CheckoutResult, string) {
				bought, tell := gone(l, spec, true)
				l.Sandbox.Clerk.AddUser(late(true))
				l.settle()
				tell()
				return bought, ""
			},
		},
		"an address that somebody has verified who is there": {
			spec: byAddress, linkByEmail: true,
			life: func(l *lab, spec func(string) stripesim.CheckoutSpec) (stripesim.CheckoutResult, string) {
				bought, tell := gone(l, spec, true)
				here := l.Sandbox.Clerk.AddUser(late(true))
				l.settle()
				tell()
				return bought, here
			},
		},
		"an address, of a customer who was made long after the deletion": {
			spec: byAddress, linkByEmail: true,
			life: func(l *lab, spec func(string) stripesim.CheckoutSpec) (stripesim.CheckoutResult, string) {
				gone(l, func(string) stripesim.CheckoutSpec { return stripesim.CheckoutSpec{Email: "payer@example.org"} }, true)
				l.exec(`UPDATE person_user SET deletion_requested_at = deletion_requested_at - interval '25 hours' WHERE deletion_requested_at IS NOT NULL`)
				bought := l.buy(spec(""))
				l.settle()
				l.unowned(bought.CustomerID) // who pays first and signs up then is not taken for who was deleted
				here := l.Sandbox.Clerk.AddUser(late(true))
				return bought, here
			},
		},
		"what the product's own server has said to be another's": {
			spec: byLink,
			life: func(l *lab, _ func(string) stripesim.CheckoutSpec) (stripesim.CheckoutResult, string) {
				here, _ := l.signUp("ada")
				bought, tell := gone(l, func(user string) stripesim.CheckoutSpec {
					spec := byLink(user)
					spec.SubscriptionMetadata = byServer(here)
					return spec
				}, true)
				tell()
				return bought, here
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{linkByEmail: c.linkByEmail})
			bought, owner := c.life(l, c.spec)
			l.settle()
			l.sweep()
			if !l.runsOn(bought.SubscriptionID) {
				t.Error("the subscription of somebody else was stopped")
			}
			l.wants(owner, `SELECT u.clerk_user_id FROM stripe_customers c LEFT JOIN person_user u ON u.id = c.user_id WHERE c.stripe_customer_id = $1`, bought.CustomerID)
			if owner != "" {
				l.wants("active", `SELECT status FROM subscriptions WHERE stripe_subscription_id = $1`, bought.SubscriptionID)
				l.wants("true", `SELECT projection ->> 'subscriptionActive' FROM person_user WHERE clerk_user_id = $1`, owner)
			}
		})
	}
}

// What is kept of an address says nothing to whoever does not have the database's key: it is no
// plain hash, and under another key it is another.
func TestWhatIsKeptOfAnAddressIsKeyed(t *testing.T) {
	t.Parallel()
	marks := map[string]bool{}
	for range 2 {
		l := newLab(t, policies{})
		l.exec(`UPDATE provider_identity SET address_key = DEFAULT`) // the databases of tests are copies
		user := l.Sandbox.Clerk.AddUser(late(true))
		l.settle()
		l.must(l.Sandbox.Clerk.DeleteUser(user))
		l.settle()
		l.erased(user)
		mark := l.text(`SELECT string_agg(encode(mark, 'hex'), ',') FROM tombstone_addresses`)
		if len(mark) != 64 || marks[mark] {
			t.Errorf("what is kept is %q, under another key %v", mark, marks)
		}
		if plain := l.text(`SELECT encode(sha256(convert_to($1, 'UTF8')), 'hex')`, lateAddress); mark == plain || strings.Contains(l.traces(), "secret") {
			t.Error("what is kept tells the address")
		}
		marks[mark] = true
	}
}
