package fences_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

// live is how many customers a user has at Stripe: those that name the user and are not deleted,
// and those that are linked.
func (l *lab) live(user string) (n int) {
	l.t.Helper()
	for _, raw := range l.Sandbox.Stripe.Customers() {
		text := string(raw)
		if strings.Contains(text, `"deleted":true`) || strings.Contains(text, `"deleted": true`) {
			continue
		}
		id := stringField(l.t, raw, "id")
		if strings.Contains(text, user) || l.text(`SELECT u.clerk_user_id FROM stripe_customers c JOIN person_user u ON u.id = c.user_id
			WHERE c.stripe_customer_id = $1`, id) == user {
			n++
		}
	}
	return n
}

// linked fails the test unless a customer belongs to a user, with a subscription, and none of its
// events is left.
func (l *lab) linked(user, customer string) {
	l.t.Helper()
	l.wants(user, `SELECT u.clerk_user_id FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE c.stripe_customer_id = $1`, customer)
	l.wants("active", `SELECT status FROM subscriptions WHERE stripe_customer_id = $1`, customer)
	l.wants("", `SELECT string_agg(entity || ' ' || type || ' ' || status || ' ' || coalesce(reason, ''), ', ') FROM webhook_events WHERE status NOT IN ('completed', 'ignored')`)
	l.agree(user)
}

// A customer that a user had never heard of and the user appear at once, the one coming between
// any two steps of the other. One of them finds the other, with no help from a timer, and the user
// gets no second customer: the claim was known before.
func TestCustomerAndUserAppearAtOnce(t *testing.T) {
	t.Parallel()
	for _, userFirst := range []bool{true, false} {
		t.Run(map[bool]string{true: "the user is interrupted", false: "the customer is interrupted"}[userFirst], func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			n := 0
			l.explore(policies{}, func() scene {
				n++
				user := l.Sandbox.Clerk.AddUser(person("ada", fmt.Sprintf("ada%d@example.com", n), true))
				customer := l.buy(stripesim.CheckoutSpec{Email: "payer@example.org", ClientReferenceID: user, Metadata: byServer(user)}).CustomerID
				l.unpoked()
				lookAtUser := func(ctx context.Context, a *actor) error { return a.lookAtUser(ctx, user) }
				lookAtCustomer := func(ctx context.Context, a *actor) error { return a.lookAtCustomer(ctx, customer) }
				s := scene{first: lookAtUser, second: lookAtCustomer, check: func() {
					l.settle()
					l.linked(user, customer)
					if n := l.live(user); n != 1 {
						t.Errorf("the user has %d customers", n)
					}
					// Not even for a moment: the events of one that is undone could have it linked first.
					if n := l.Sandbox.StripeFaults.Requests()["POST /v1/customers"]; n != 0 {
						t.Errorf("%d customers were made", n)
					}
				}}
				if !userFirst {
					s.first, s.second = s.second, s.first
				}
				return s
			})
		})
	}
}

// A user who was there before us is looked at while the customer that they had is: that one is
// given to them, and no other is made, whichever step of the one the other comes at.
func TestWhoHadACustomerIsGivenNoOther(t *testing.T) {
	t.Parallel()
	for _, userFirst := range []bool{true, false} {
		t.Run(map[bool]string{true: "the user is interrupted", false: "the customer is interrupted"}[userFirst], func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			n := 0
			l.explore(policies{}, func() scene {
				n++
				spec := person("ada", fmt.Sprintf("ada%d@example.com", n), true)
				spec.CreatedAt = time.Now().Add(-24 * time.Hour)
				user := l.Sandbox.Clerk.AddUser(spec)
				customer := l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Metadata: map[string]string{"clerk_user_id": user}})
				l.must(l.Sandbox.Stripe.Settled(l.t.Context()))
				l.Sandbox.StripeWebhooks.TakeHeld() // nobody told us of it
				l.unpoked()
				l.must(l.work.syncUser(l.t.Context(), user))
				lookAtUser := func(ctx context.Context, a *actor) error { return a.lookAtUser(ctx, user) }
				lookAtCustomer := func(ctx context.Context, a *actor) error { return a.lookAtCustomer(ctx, customer) }
				s := scene{first: lookAtUser, second: lookAtCustomer, check: func() {
					l.settle()
					l.wants(user, `SELECT u.clerk_user_id FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE c.stripe_customer_id = $1`, customer)
					if n := l.live(user); n != 1 {
						t.Errorf("the user has %d customers", n)
					}
					if n := l.Sandbox.StripeFaults.Requests()["POST /v1/customers"]; n != 0 {
						t.Errorf("%d customers were made", n)
					}
				}}
				if !userFirst {
					s.first, s.second = s.second, s.first
				}
				return s
			})
		})
	}
}

// The same where no event carries the evidence: it stands on the customer at Stripe and is found
// by reading. Whoever commits last looks last.
func TestUserAppearsWhileTheClaimIsRead(t *testing.T) {
	t.Parallel()
	for _, userFirst := range []bool{true, false} {
		t.Run(map[bool]string{true: "the user is interrupted", false: "the customer is interrupted"}[userFirst], func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			n := 0
			l.explore(policies{}, func() scene {
				n++
				user := l.Sandbox.Clerk.AddUser(person("ada", fmt.Sprintf("ada%d@example.com", n), true))
				bought := l.buy(stripesim.CheckoutSpec{Email: "payer@example.org", SubscriptionMetadata: map[string]string{"clerk_user_id": user}})
				l.unpoked()
				l.exec(`DELETE FROM customer_claims WHERE stripe_customer_id = $1`, bought.CustomerID)
				lookAtUser := func(ctx context.Context, a *actor) error { return a.syncUser(ctx, user) }
				lookAtCustomer := func(ctx context.Context, a *actor) error { return a.record(ctx, bought.CustomerID) }
				s := scene{first: lookAtUser, second: lookAtCustomer, check: func() {
					l.settle()
					l.linked(user, bought.CustomerID)
				}}
				if !userFirst {
					s.first, s.second = s.second, s.first
				}
				return s
			})
		})
	}
}

// Whichever comes first waits for the other without anyone's help.
func TestCustomerComesBeforeItsUser(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user := l.Sandbox.Clerk.AddUser(person("ada", "ada@example.com", true))
	l.must(l.Sandbox.Clerk.ForgetUser(user))
	created := l.Sandbox.ClerkWebhooks.TakeHeld()
	customer := l.buy(stripesim.CheckoutSpec{Email: "payer@example.org", ClientReferenceID: user, Metadata: byServer(user)}).CustomerID
	l.settle()
	l.wants("waiting no user: the claimed one is not known yet", `SELECT DISTINCT status || ' ' || reason FROM webhook_events WHERE entity = 'customer/' || $1`, customer)
	l.wants("", `SELECT user_id FROM stripe_customers WHERE stripe_customer_id = $1`, customer)
	l.wants("0", `SELECT count(*) FROM subscriptions`)

	// The events are given up long before the user comes: the claim is what counts.
	l.exec(`UPDATE webhook_events SET received_at = now() - interval '31 days' WHERE status = 'waiting'`)
	if n, err := l.Store.ExpireWaiting(t.Context(), 30*24*time.Hour, 1000); err != nil || n == 0 {
		t.Fatalf("%d events were given up: %v", n, err)
	}
	l.wants("ignored no user", `SELECT DISTINCT status || ' ' || reason FROM webhook_events WHERE entity = 'customer/' || $1`, customer)
	l.must(l.Sandbox.Clerk.RememberUser(user))
	for _, m := range created {
		l.Sandbox.ClerkWebhooks.Send(m)
	}
	l.settle()
	l.linked(user, customer)
	if n := l.live(user); n != 1 {
		t.Errorf("the user has %d customers", n)
	}
}

// Claims of the same weight that name two users link nobody, loudly; what an operator writes on the
// customer decides.
func TestConflictingClaims(t *testing.T) {
	t.Parallel()
	for name, correct := range map[string]func(ada, bob string) string{
		"for the one":   func(ada, _ string) string { return ada },
		"for the other": func(_, bob string) string { return bob },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			ada, _ := l.signUp("ada")
			bob, _ := l.signUp("bob")
			customer := l.buy(stripesim.CheckoutSpec{Email: "payer@example.org", Metadata: byServer(ada)}).CustomerID
			l.must(l.Store.AddClaim(t.Context(), account.Claim{CustomerID: customer, ClerkUserID: bob, Source: "checkout_metadata:cs_other"}))
			// None of it has been looked at yet.
			l.settle()
			l.wants("", `SELECT user_id FROM stripe_customers WHERE stripe_customer_id = $1`, customer)
			l.wants("0", `SELECT count(*) FROM subscriptions`)
			l.wants("1", `SELECT count(*) FROM drift WHERE class = 'conflicting_claims' AND entity = 'customer/' || $1 AND resolved_at IS NULL`, customer)
			l.wants("waiting no user: claims name different users", `SELECT DISTINCT status || ' ' || reason FROM webhook_events WHERE entity = 'customer/' || $1`, customer)
			for _, user := range []string{ada, bob} {
				l.wants("false", `SELECT projection ->> 'subscriptionActive' FROM person_user WHERE clerk_user_id = $1`, user)
			}

			owner := correct(ada, bob)
			l.must(l.Sandbox.Stripe.UpdateCustomer(customer, stripesim.CustomerSpec{Email: "payer@example.org", Metadata: byServer(owner)}))
			l.settle()
			l.linked(owner, customer)
			l.wants("0", `SELECT count(*) FROM drift WHERE resolved_at IS NULL`)
		})
	}
}

// Evidence that turns up for somebody else once a customer is linked is loud, and moves nothing.
func TestAClaimAgainstTheOwnerMovesNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	ada, customer, _ := l.subscribed("ada")
	bob, _ := l.signUp("bob")
	l.must(l.Sandbox.Stripe.UpdateCustomer(customer, stripesim.CustomerSpec{Email: "ada@example.com", Name: "ada Lovelace", Metadata: map[string]string{"clerk_user_id": bob}}))
	l.settle()
	l.linked(ada, customer)
	l.wants("1", `SELECT count(*) FROM drift WHERE class = 'conflicting_claims' AND entity = 'customer/' || $1 AND resolved_at IS NULL`, customer)
	l.wants("false", `SELECT projection ->> 'subscriptionActive' FROM person_user WHERE clerk_user_id = $1`, bob)
	l.must(l.Sandbox.Stripe.UpdateCustomer(customer, stripesim.CustomerSpec{Email: "ada@example.com", Name: "ada Lovelace", Metadata: map[string]string{"clerk_user_id": ada}}))
	l.settle()
	l.wants("0", `SELECT count(*) FROM drift WHERE resolved_at IS NULL`)
}

// A customer whom nobody claims belongs, where that is switched on, to the one user with that
// verified primary email.
func TestLinkingByEmail(t *testing.T) {
	t.Parallel()
	users := func(specs ...clerksim.UserSpec) []clerksim.UserSpec { return specs }
	ada := person("ada", "ada@example.com", true)
	other := clerksim.UserSpec{FirstName: "eve", Emails: []clerksim.EmailSpec{{Address: "eve@example.com", Verified: true}, {Address: "ada@example.com", Verified: true}}}
	for _, c := range []struct {
		name   string
		on     bool
		users  []clerksim.UserSpec
		linked bool // to the first of them
	}{
		{"on", true, users(ada), true},
		{"off", false, users(ada), false},
		{"not verified", true, users(person("eve", "ada@example.com", false)), false},
		{"two users have it", true, users(ada, person("eve", "ada@example.com", true)), false},
		{"the other has it unverified", true, users(ada, person("eve", "ada@example.com", false)), true},
		{"not the primary one", true, users(other), false},
	} {
		for _, customerFirst := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, customer first %t", c.name, customerFirst), func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{linkByEmail: c.on})
				var ids []string
				var customer string
				pay := func() {
					customer = l.buy(stripesim.CheckoutSpec{Email: "Ada@Example.com"}).CustomerID
					l.settle()
				}
				if customerFirst {
					pay()
					l.wants("waiting no user: nobody owns this customer yet", `SELECT DISTINCT status || ' ' || reason FROM webhook_events WHERE entity = 'customer/' || $1`, customer)
				}
				for _, spec := range c.users {
					ids = append(ids, l.Sandbox.Clerk.AddUser(spec))
				}
				l.settle()
				if !customerFirst {
					pay()
				}
				if c.linked {
					l.linked(ids[0], customer)
					l.wants("verified email", `SELECT link_source FROM stripe_customers WHERE stripe_customer_id = $1`, customer)
				} else {
					l.wants("", `SELECT user_id FROM stripe_customers WHERE stripe_customer_id = $1`, customer)
					l.wants("0", `SELECT count(*) FROM subscriptions`)
				}
				for _, id := range ids {
					want := 1
					if c.linked && !customerFirst && id == ids[0] {
						want = 2 // the user had one before
					}
					if n := l.live(id); n != want {
						t.Errorf("%s has %d customers, want %d", id, n, want)
					}
				}
			})
		}
	}
}

// An address that is verified later links then.
func TestLinkingByAnEmailThatIsVerifiedLater(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{linkByEmail: true})
	user := l.Sandbox.Clerk.AddUser(person("ada", "ada@example.com", false))
	l.settle()
	customer := l.buy(stripesim.CheckoutSpec{Email: "ada@example.com"}).CustomerID
	l.settle()
	l.wants("", `SELECT user_id FROM stripe_customers WHERE stripe_customer_id = $1`, customer)
	l.must(l.Sandbox.Clerk.VerifyEmail(user, "ada@example.com"))
	l.settle()
	l.linked(user, customer)
}

// A customer that was made for a user, and of which nobody heard, is written over to somebody else,
// as an operator may. The user is given one of their own.
func TestACustomerThatIsSomebodyElsesByNowIsNotTheirs(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	other, _ := l.signUp("bo")
	user := l.newcomer("ada")
	a := l.actor(policies{})
	a.lose("POST /v1/customers")
	if _, err := a.customers.EnsureStripeCustomer(t.Context(), activities.UserInput{ClerkUserID: user}); err == nil {
		t.Fatal("the answer was not lost")
	}
	made := ""
	for _, raw := range l.Sandbox.Stripe.Customers() {
		if strings.Contains(string(raw), user) {
			made = stringField(t, raw, "id")
		}
	}
	l.must(l.Sandbox.Stripe.UpdateCustomer(made, stripesim.CustomerSpec{Email: "bo@example.com", Metadata: map[string]string{"clerk_user_id": other}}))
	l.take()
	l.must(l.work.lookAtCustomer(t.Context(), made))
	l.wants(other, `SELECT clerk_user_id FROM person_user u JOIN stripe_customers c ON c.user_id = u.id WHERE c.stripe_customer_id = $1`, made)
	for range 3 {
		l.must(l.work.lookAtUser(t.Context(), user))
	}
	if has := l.customerOf(user); has == "" || has == made {
		t.Errorf("the user has customer %q", has)
	}
}

// A customer that a user's own notes name is looked at, also where the attempt that has found them
// dies.
func TestANotedCustomerIsLookedAtByAnyAttempt(t *testing.T) {
	t.Parallel()
	for _, dies := range []bool{false, true} {
		l := newLab(t, policies{})
		customer := l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "ada@example.com", Name: "ada Lovelace"})
		spec := person("ada", "ada@example.com", true)
		spec.UnsafeMetadata = map[string]any{"stripe": map[string]any{"customerId": customer}}
		user := l.Sandbox.Clerk.AddUser(spec)
		l.unpoked()
		l.must(l.work.syncUser(t.Context(), user))
		in := activities.UserInput{ClerkUserID: user}
		if dies {
			a := l.actor(policies{})
			at := a.arm(t, "sql INSERT INTO pokes", 0)
			ctx, cancel := context.WithCancel(t.Context())
			done := begin(func() error {
				_, err := a.customers.EnsureStripeCustomer(ctx, in)
				return err
			})
			reach(t, at, done)
			cancel()
			at.release()
			if err := <-done; err == nil {
				t.Fatal("it did not die")
			}
			l.exec(`UPDATE pokes SET due_at = NULL`)
		}
		_, err := l.work.customers.EnsureStripeCustomer(t.Context(), in)
		l.must(err)
		l.settle()
		if has := l.customerOf(user); has != customer {
			t.Errorf("an attempt died %t: the user has customer %q", dies, has)
		}
	}
}
