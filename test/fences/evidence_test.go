package fences_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

func (l *lab) unowned(customer string) {
	l.t.Helper()
	l.wants("", `SELECT user_id FROM stripe_customers WHERE stripe_customer_id = $1`, customer)
	l.wants("0", `SELECT count(*) FROM subscriptions WHERE stripe_customer_id = $1`, customer)
}

func (l *lab) drifts(class account.Drift, customer string) string {
	l.t.Helper()
	return l.text(`SELECT count(*) FROM drift WHERE class = $1 AND entity = 'customer/' || $2 AND resolved_at IS NULL`, string(class), customer)
}

// atStripe is a customer as Stripe has it.
func (l *lab) atStripe(customer string) string {
	l.t.Helper()
	for _, raw := range l.Sandbox.Stripe.Customers() {
		if stringField(l.t, raw, "id") == customer {
			return string(raw)
		}
	}
	return ""
}

// Whoever pays by a Payment Link, a pricing table or a buy button can name somebody else. Nothing
// of that user goes to the payer's customer, their own stays their primary one, and somebody has to
// say whose it is. Who has no customer gets one of their own beside it.
func TestAPayerWhoNamesSomebodyElse(t *testing.T) {
	t.Parallel()
	for name, spec := range map[string]stripesim.CheckoutSpec{
		"a Payment Link":                               {PaymentLink: "plink_1"},
		"a pricing table":                              {},
		"a Payment Link with metadata of its own":      {PaymentLink: "plink_1", Metadata: map[string]string{"campaign": "spring"}},
		"a Payment Link that has filled in an address": {PaymentLink: "plink_1", Email: "prefilled@example.org"},
	} {
		for _, customerFirst := range []bool{true, false} {
			t.Run(name+map[bool]string{true: ", paid before the user signs up", false: ", paid after"}[customerFirst], func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{})
				var user, own, paid string
				spec := spec
				pay := func() {
					spec.ClientReferenceID = user
					if spec.Email == "" {
						spec.Email = "payer@example.org"
					}
					paid = l.buy(spec).CustomerID
				}
				if customerFirst {
					user = l.Sandbox.Clerk.AddUser(person("ada", "ada@example.com", true))
					pay()
					l.settle()
					own = l.customerOf(user)
				} else {
					user, own = l.signUp("ada")
					pay()
					l.settle()
				}
				if own == "" || own == paid {
					t.Errorf("the user's customer is %q, and the payer's %q", own, paid)
				}
				l.unowned(paid)
				l.wants(own, `SELECT projection ->> 'customerId' FROM person_user WHERE clerk_user_id = $1`, user)
				if at := l.atStripe(paid); strings.Contains(at, "ada@example.com") || strings.Contains(at, "Lovelace") {
					t.Errorf("the payer's customer is given the user's profile: %s", at)
				}
				if n := l.drifts(account.DriftUnverifiedReference, paid); n != "1" {
					t.Errorf("%s unverified references are told of", n)
				}
				reason := l.text(`SELECT DISTINCT reason FROM webhook_events WHERE entity = 'customer/' || $1 AND status = 'waiting'`, paid)
				if !strings.HasPrefix(reason, store.WaitingNoUser) || !strings.Contains(reason, user) || !strings.Contains(reason, "verified") || !strings.Contains(reason, "clerk_user_id") {
					t.Errorf("the events wait for %q", reason)
				}
				l.agree(user)
			})
		}
	}
}

// The user who really paid by a Payment Link has what they paid for, whoever is known first, and as
// soon as the address is verified.
func TestAReferenceThatTheVerifiedAddressBearsOut(t *testing.T) {
	t.Parallel()
	pay := func(l *lab, user string) string {
		return l.buy(stripesim.CheckoutSpec{Email: "Ada@example.com", ClientReferenceID: user, PaymentLink: "plink_1"}).CustomerID
	}
	t.Run("paid first", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, policies{})
		user := l.Sandbox.Clerk.AddUser(person("ada", "ada@example.com", true))
		held := l.Sandbox.ClerkWebhooks.TakeHeld()
		l.must(l.Sandbox.Clerk.ForgetUser(user))
		customer := pay(l, user)
		l.settle()
		l.unowned(customer)
		l.must(l.Sandbox.Clerk.RememberUser(user))
		for _, m := range held {
			l.Sandbox.ClerkWebhooks.Send(m)
		}
		l.settle()
		l.linked(user, customer)
		if n := l.live(user); n != 1 {
			t.Errorf("the user has %d customers", n)
		}
	})
	t.Run("signed up first", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, policies{})
		user, _ := l.signUp("ada")
		customer := pay(l, user)
		l.settle()
		l.linked(user, customer)
		l.wants(customer, `SELECT stripe_customer_id FROM person_user WHERE clerk_user_id = $1`, user)
	})
	t.Run("verified later", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, policies{})
		user := l.Sandbox.Clerk.AddUser(person("ada", "ada@example.com", false))
		l.settle()
		customer := pay(l, user)
		l.settle()
		l.unowned(customer)
		l.must(l.Sandbox.Clerk.VerifyEmail(user, "ada@example.com"))
		l.settle()
		l.linked(user, customer)
		if n := l.drifts(account.DriftUnverifiedReference, customer); n != "0" {
			t.Errorf("%s unverified references are told of still", n)
		}
	})
}

// What nothing bears out an operator confirms, at Stripe or here.
func TestAReferenceThatAnOperatorConfirms(t *testing.T) {
	t.Parallel()
	for name, confirm := range map[string]func(l *lab, customer, user string) error{
		"on the customer at Stripe": func(l *lab, customer, user string) error {
			return l.Sandbox.Stripe.UpdateCustomer(customer, stripesim.CustomerSpec{Email: "payer@example.org", Metadata: byServer(user)})
		},
		"here": func(l *lab, customer, user string) error {
			return l.Store.ConfirmOwner(l.t.Context(), customer, user, store.Cause{Caller: "operator"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, _ := l.signUp("ada")
			customer := l.buy(stripesim.CheckoutSpec{Email: "payer@example.org", ClientReferenceID: user, PaymentLink: "plink_1"}).CustomerID
			l.settle()
			l.unowned(customer)
			l.must(confirm(l, customer, user))
			l.settle()
			l.linked(user, customer)
			l.wants("0", `SELECT count(*) FROM drift WHERE resolved_at IS NULL`)
		})
	}
	t.Run("but not what is another's", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, policies{})
		_, customer := l.signUp("ada")
		bob, _ := l.signUp("bob")
		for _, c := range [][2]string{{customer, bob}, {"cus_nobody", bob}, {customer, "user_nobody"}} {
			if err := l.Store.ConfirmOwner(t.Context(), c[0], c[1], store.Cause{}); err == nil {
				t.Errorf("%v is confirmed", c)
			}
		}
		l.wants("0", `SELECT count(*) FROM stripe_customers WHERE stripe_customer_id = 'cus_nobody'`)
	})
}

// A wrong reference is corrected where the documents say: on the customer.
func TestAWrongReferenceIsCorrectedOnTheCustomer(t *testing.T) {
	t.Parallel()
	for name, spec := range map[string]stripesim.CheckoutSpec{
		"the session's":      {Metadata: byServer("user_old")},
		"the subscription's": {SubscriptionMetadata: byServer("user_old")},
		"the payer's":        {ClientReferenceID: "user_old"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, _ := l.signUp("ada")
			spec.Email = "payer@example.org"
			customer := l.buy(spec).CustomerID
			l.settle()
			l.unowned(customer)
			l.must(l.Sandbox.Stripe.UpdateCustomer(customer, stripesim.CustomerSpec{Email: "payer@example.org", Metadata: byServer(user)}))
			l.settle()
			l.linked(user, customer)
			l.wants("0", `SELECT count(*) FROM drift WHERE resolved_at IS NULL`)
		})
	}
}

// An id that Clerk does not have loses to any other, wherever it stands; once there is such a user
// they lose to nobody that is further away.
func TestAUserWhomNobodyHasLoses(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	ada, _ := l.signUp("ada")
	gone := l.Sandbox.Clerk.AddUser(person("gone", "gone@example.com", true))
	held := l.Sandbox.ClerkWebhooks.TakeHeld()
	l.must(l.Sandbox.Clerk.ForgetUser(gone))
	customer := l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "payer@example.org", Metadata: byServer(gone)})
	l.settle()
	l.unowned(customer)
	reason := l.text(`SELECT DISTINCT reason FROM webhook_events WHERE entity = 'customer/' || $1 AND status = 'waiting'`, customer)
	if !strings.HasPrefix(reason, store.WaitingNoUser) {
		t.Errorf("the events wait for %q", reason)
	}
	l.buy(stripesim.CheckoutSpec{CustomerID: customer, SubscriptionMetadata: byServer(ada)})
	l.settle()
	l.linked(ada, customer)
	// They turn up after all: the link stays, and somebody has to see it.
	l.must(l.Sandbox.Clerk.RememberUser(gone))
	for _, m := range held {
		l.Sandbox.ClerkWebhooks.Send(m)
	}
	l.settle()
	l.must(l.Sandbox.Stripe.UpdateCustomer(customer, stripesim.CustomerSpec{Email: "other@example.org", Metadata: byServer(gone)}))
	l.settle()
	l.wants(ada, `SELECT u.clerk_user_id FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE c.stripe_customer_id = $1`, customer)
	if n := l.drifts(account.DriftConflictingClaims, customer); n != "1" {
		t.Errorf("%s conflicts are told of", n)
	}
}

// Whose app has moved from one Clerk instance to another has customers that name users whom Clerk
// does not have. Where that is switched on, they are the one user's who has verified their address,
// whichever of the two comes first, and not a guess where two have.
func TestAUserWhomNobodyHasLosesToAVerifiedAddress(t *testing.T) {
	t.Parallel()
	for _, linkByEmail := range []bool{true, false} {
		for _, userFirst := range []bool{true, false} {
			t.Run(fmt.Sprintf("switched on %t, the user first %t", linkByEmail, userFirst), func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{linkByEmail: linkByEmail})
				gone := l.Sandbox.Clerk.AddUser(person("gone", "gone@example.com", true))
				l.Sandbox.ClerkWebhooks.TakeHeld()
				l.must(l.Sandbox.Clerk.ForgetUser(gone))
				var ada, twice string
				appear := func() {
					ada = l.Sandbox.Clerk.AddUser(person("ada", "ada@example.com", true))
					l.settle()
				}
				if userFirst {
					appear()
				}
				customer := l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "Ada@example.com", Metadata: byServer(gone)})
				bought := l.buy(stripesim.CheckoutSpec{CustomerID: customer, Metadata: byServer(gone)})
				for _, name := range []string{"bo", "cy"} {
					l.Sandbox.Clerk.AddUser(person(name, "both@example.com", true))
				}
				twice = l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "both@example.com", Metadata: byServer(gone)})
				l.settle()
				if !userFirst {
					appear()
				}
				l.unowned(twice)
				if !linkByEmail {
					l.unowned(customer)
					return
				}
				l.wants(ada, `SELECT u.clerk_user_id FROM subscriptions s JOIN person_user u ON u.id = s.user_id WHERE s.stripe_subscription_id = $1 AND s.status = 'active'`,
					bought.SubscriptionID)
				l.agree(ada)
				l.wants("0", `SELECT count(*) FROM webhook_events WHERE entity = 'customer/' || $1 AND status NOT IN ('completed', 'ignored')`, customer)
				if n := l.drifts(account.DriftConflictingClaims, customer); n != "0" {
					t.Errorf("%s conflicts are told of", n)
				}
				if made := l.live(ada); !userFirst && made != 1 {
					t.Errorf("the user has %d customers", made)
				}
			})
		}
	}
}

// The user turns up before anything else is named: what Clerk said for a while does not count
// against them.
func TestAUserWhomNobodyHadIsBack(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user := l.Sandbox.Clerk.AddUser(person("ada", "ada@example.com", true))
	held := l.Sandbox.ClerkWebhooks.TakeHeld()
	l.must(l.Sandbox.Clerk.ForgetUser(user))
	customer := l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "payer@example.org", Metadata: byServer(user)})
	l.settle()
	l.must(l.Sandbox.Clerk.RememberUser(user))
	for _, m := range held {
		l.Sandbox.ClerkWebhooks.Send(m)
	}
	l.buy(stripesim.CheckoutSpec{CustomerID: customer, Metadata: byServer("user_else")})
	l.settle()
	l.linked(user, customer)
}

// What names an erased user stays theirs, whatever else it names, so that the deletion policy
// reaches it. A reference that the payer may have written does not.
func TestAnErasedUserNeverLoses(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	ada, _ := l.signUp("ada")
	bob, _ := l.signUp("bob")
	l.must(l.Sandbox.Clerk.DeleteUser(ada))
	l.settle()
	bought := l.buy(stripesim.CheckoutSpec{CustomerID: l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "payer@example.org", Metadata: byServer(bob)}), Metadata: byServer(ada)})
	l.settle()
	l.wants(ada, `SELECT u.clerk_user_id FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE c.stripe_customer_id = $1`, bought.CustomerID)
	l.wants("true", `SELECT cancel_at_period_end FROM subscriptions WHERE stripe_subscription_id = $1`, bought.SubscriptionID)
	named := l.buy(stripesim.CheckoutSpec{Email: "payer@example.org", ClientReferenceID: ada, PaymentLink: "plink_1"}).CustomerID
	l.settle()
	l.unowned(named)
}

// Whose own server opens every session may say so.
func TestReferencesMayBeTrusted(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{trustReferences: true})
	user, _ := l.signUp("ada")
	bought := l.buy(stripesim.CheckoutSpec{Email: "payer@example.org", ClientReferenceID: user})
	l.settle()
	l.linked(user, bought.CustomerID)
	customer := l.buy(stripesim.CheckoutSpec{Email: "payer@example.org", ClientReferenceID: user, PaymentLink: "plink_1"}).CustomerID
	l.settle()
	l.unowned(customer)
}
