package fences_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

// newcomer is a user whom we know and who has no customer yet.
func (l *lab) newcomer(name string) (user string) {
	l.t.Helper()
	user = l.Sandbox.Clerk.AddUser(person(name, name+"@example.com", true))
	l.unpoked()
	l.must(l.work.syncUser(l.t.Context(), user))
	return user
}

// deletedWhileCreating is a user who is deleted while the answer to the creation of their customer
// is on its way. What is left to be undone is for the test.
func (l *lab) deletedWhileCreating() (user string, made activities.CustomerResult) {
	l.t.Helper()
	user = l.newcomer("ada")
	a := l.actor(policies{})
	at := a.arm(l.t, "answered POST /v1/customers", 0)
	done := begin(func() (err error) {
		made, err = a.customers.EnsureStripeCustomer(l.t.Context(), activities.UserInput{ClerkUserID: user})
		return err
	})
	reach(l.t, at, done)
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	// The deletion goes through before Stripe's word of the customer is looked at.
	l.must(l.Sandbox.Clerk.Settled(l.t.Context()))
	messages := l.Sandbox.StripeWebhooks.TakeHeld()
	l.unpoked()
	l.must(l.work.syncUser(l.t.Context(), user))
	at.release()
	wait(l.t, done)
	for _, m := range messages {
		l.Sandbox.StripeWebhooks.Send(m)
	}
	if made.Undo == "" || !made.Deleting {
		l.t.Fatalf("the creation answered %+v", made)
	}
	l.wants("", `SELECT user_id FROM stripe_customers WHERE stripe_customer_id = $1`, made.Undo)
	return user, made
}

// openCheckout sends a customer to a checkout.
func (l *lab) openCheckout(customer string) error {
	form := url.Values{"mode": {"subscription"}, "customer": {customer}, "line_items[0][price]": {l.price}, "line_items[0][quantity]": {"1"},
		"success_url": {"https://example.com/thanks"}}
	request, err := http.NewRequestWithContext(l.t.Context(), http.MethodPost, l.Sandbox.StripeURL()+"/v1/checkout/sessions", strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+l.Sandbox.StripeSecretKey)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("opening a checkout was answered %d", response.StatusCode)
	}
	return nil
}

func (l *lab) undo(user, customer string) string {
	l.t.Helper()
	result, err := l.work.customers.UndoStripeCustomer(l.t.Context(), activities.UndoInput{ClerkUserID: user, CustomerID: customer})
	l.must(err)
	return result.Outcome
}

func (l *lab) isDeleted(customer string) bool {
	l.t.Helper()
	raw, known := l.Sandbox.Stripe.Customer(customer)
	return !known || strings.Contains(strings.ReplaceAll(string(raw), " ", ""), `"deleted":true`)
}

// A customer that was made for a user who is deleted meanwhile is removed again, and leaves nothing
// behind.
func TestCustomerMadeInVainIsRemoved(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, made := l.deletedWhileCreating()
	for range 2 { // once more changes nothing
		if got := l.undo(user, made.Undo); got != "deleted" || !l.isDeleted(made.Undo) {
			t.Errorf("the undo says %q", got)
		}
	}
	l.settle()
	l.must(l.work.lookAtUser(t.Context(), user))
	l.wants("1", `SELECT count(*) FROM person_user WHERE deleted_at IS NOT NULL`)
	l.wants("", `SELECT string_agg(entity || ' ' || type || ' ' || status || ' ' || coalesce(reason, ''), ', ') FROM webhook_events WHERE status NOT IN ('completed', 'ignored')`)
	l.wants("0", `SELECT count(*) FROM drift WHERE resolved_at IS NULL`)
}

// Whatever hangs on it keeps it, and it is reported.
func TestCustomerMadeInVainIsKeptIfUsed(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]func(l *lab, customer string) error{
		"a card":         func(l *lab, customer string) error { return l.Sandbox.Stripe.AddCard(customer) },
		"a subscription": func(l *lab, customer string) error { l.buy(stripesim.CheckoutSpec{CustomerID: customer}); return nil },
		"a subscription that has ended": func(l *lab, customer string) error {
			return l.Sandbox.Stripe.CancelNow(l.buy(stripesim.CheckoutSpec{CustomerID: customer, NoCard: true, TrialDays: 3}).SubscriptionID)
		},
		"an open checkout": func(l *lab, customer string) error { return l.openCheckout(customer) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, made := l.deletedWhileCreating()
			l.must(use(l, made.Undo))
			if got := l.undo(user, made.Undo); got != "kept" || l.isDeleted(made.Undo) {
				t.Errorf("the undo says %q, deleted %t", got, l.isDeleted(made.Undo))
			}
			l.wants(made.Undo, `SELECT subject FROM drift WHERE class = 'orphan_customer' AND resolved_at IS NULL`)
			// Its own event comes in the end, and gives it to the policy.
			l.settle()
			l.must(l.work.lookAtUser(t.Context(), user))
			l.wants(user, `SELECT clerk_user_id FROM person_user u JOIN stripe_customers c ON c.user_id = u.id WHERE c.stripe_customer_id = $1`, made.Undo)
			l.wants("0", `SELECT count(*) FROM drift WHERE resolved_at IS NULL`)
		})
	}
}

// A customer that its own event linked before the undo came is kept; the deletion policy has it.
func TestCustomerMadeInVainIsKeptIfLinked(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, made := l.deletedWhileCreating()
	l.take()
	l.must(l.work.lookAtCustomer(t.Context(), made.Undo))
	l.wants(made.Undo, `SELECT stripe_customer_id FROM stripe_customers WHERE user_id IS NOT NULL`)
	if got := l.undo(user, made.Undo); got != "linked" || l.isDeleted(made.Undo) {
		t.Errorf("the undo says %q, deleted %t", got, l.isDeleted(made.Undo))
	}
	l.settle()
	l.wants("1", `SELECT count(*) FROM person_user WHERE deleted_at IS NOT NULL`)
}

// The customer's own event and the undo meet at every step: a customer that was linked before is
// never removed, and in the end nobody is left waiting.
func TestUndoMeetsTheCustomersOwnEvent(t *testing.T) {
	t.Parallel()
	for _, undoFirst := range []bool{true, false} {
		t.Run(map[bool]string{true: "the undo is interrupted", false: "the event is interrupted"}[undoFirst], func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			l.explore(policies{}, func() scene {
				user, made := l.deletedWhileCreating()
				l.unpoked()
				outcome := ""
				undo := func(ctx context.Context, a *actor) error {
					result, err := a.customers.UndoStripeCustomer(ctx, activities.UndoInput{ClerkUserID: user, CustomerID: made.Undo})
					outcome = result.Outcome
					return err
				}
				look := func(ctx context.Context, a *actor) error { return a.lookAtCustomer(ctx, made.Undo) }
				s := scene{first: undo, second: look, check: func() {
					if outcome != "deleted" && outcome != "linked" || l.isDeleted(made.Undo) != (outcome == "deleted") {
						t.Errorf("the undo says %q, deleted %t", outcome, l.isDeleted(made.Undo))
					}
					l.settle()
					l.must(l.work.lookAtUser(t.Context(), user))
					l.wants("true", `SELECT deleted_at IS NOT NULL FROM person_user WHERE clerk_user_id = $1`, user)
					l.wants("", `SELECT string_agg(entity || ' ' || type || ' ' || status || ' ' || coalesce(reason, ''), ', ') FROM webhook_events WHERE status NOT IN ('completed', 'ignored')`)
					l.wants("", `SELECT stripe_customer_id FROM stripe_customers WHERE stripe_customer_id = $1 AND deleted_in_stripe <> $2`, made.Undo, outcome == "deleted")
				}}
				if !undoFirst {
					s.first, s.second = look, undo
				}
				return s
			})
		})
	}
}

// The answer to the creation is lost. The next attempt gets the customer that was made.
func TestLostAnswerMakesNoSecondCustomer(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user := l.newcomer("ada")
	l.work.lose("POST /v1/customers")
	if _, err := l.work.ensure(t.Context(), user); err == nil {
		t.Fatal("the answer was not lost")
	}
	if n := len(l.Sandbox.Stripe.Customers()); n != 1 {
		t.Fatalf("Stripe has %d customers", n)
	}
	l.must(l.work.lookAtUser(t.Context(), user))
	if n := len(l.Sandbox.Stripe.Customers()); n != 1 {
		t.Errorf("Stripe has %d customers", n)
	}
	l.settle()
	l.agree(user)
	if l.customerOf(user) == "" || l.live(user) != 1 {
		t.Errorf("the user has customer %q, %d at Stripe", l.customerOf(user), l.live(user))
	}
}

// Two attempts create at once, under one key: one customer.
func TestTwoAttemptsMakeOneCustomer(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	var user string
	ensure := func(ctx context.Context, a *actor) error { _, err := a.ensure(ctx, user); return err }
	l.explore(policies{}, func() scene {
		user = l.newcomer("ada")
		l.exec(`UPDATE pokes SET due_at = NULL`)
		return scene{first: ensure, second: ensure, check: func() {
			if n := l.live(user); n != 1 {
				t.Errorf("the user has %d customers", n)
			}
			l.settle()
			l.agree(user)
		}}
	})
}

// While a customer is made for a user, another one turns out to be theirs: its subscription is not
// forgotten by who links the new one, whoever comes last.
func TestCreationMeetsAnotherCustomer(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	l.explore(policies{}, func() scene {
		user := l.newcomer("ada")
		bought := l.buy(stripesim.CheckoutSpec{Email: "payer@example.org", SubscriptionMetadata: map[string]string{"clerk_user_id": user}})
		l.unpoked()
		l.exec(`DELETE FROM customer_claims WHERE stripe_customer_id = $1`, bought.CustomerID)
		return scene{
			first:  func(ctx context.Context, a *actor) error { _, err := a.ensure(ctx, user); return err },
			second: func(ctx context.Context, b *actor) error { return b.record(ctx, bought.CustomerID) },
			check: func() {
				l.projected(user)
				l.wants("true "+bought.CustomerID, `SELECT (projection ->> 'subscriptionActive') || ' ' || (projection ->> 'customerId') FROM person_user WHERE clerk_user_id = $1`, user)
				l.settle()
				l.agree(user)
			},
		}
	})
}

// While a customer is made for a user, the one that they had turns out to be theirs. The new one is
// undone, and not linked before, by whoever looks at it where who found out is gone; only where it
// is used already it is kept, and theirs too. What is bought on it gives access at once. Where its
// own event has linked it before that was found, it stays: they may be buying on it.
func TestCustomerMadeBesideAnotherIsRemoved(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		use  func(l *lab, customer string) error
		live int
	}{
		"unused": {nil, 1},
		"a card": {func(l *lab, customer string) error { return l.Sandbox.Stripe.AddCard(customer) }, 2},
		"a subscription": {func(l *lab, customer string) error {
			l.buy(stripesim.CheckoutSpec{CustomerID: customer})
			return nil
		}, 2},
	} {
		for _, toldFirst := range []bool{false, true} {
			for _, dies := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, told first %t, dies %t", name, toldFirst, dies), func(t *testing.T) {
					t.Parallel()
					l := newLab(t, policies{})
					user := l.newcomer("ada")
					a := l.actor(policies{})
					at := a.arm(t, "answered POST /v1/customers", 0)
					var made activities.CustomerResult
					done := begin(func() (err error) {
						made, err = a.customers.EnsureStripeCustomer(t.Context(), activities.UserInput{ClerkUserID: user})
						return err
					})
					reach(t, at, done)
					before := l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Metadata: map[string]string{"clerk_user_id": user}})
					l.must(l.work.record(t.Context(), before))
					if toldFirst {
						l.settle()
						at.release()
						wait(t, done)
						if made.Undo != "" || l.live(user) != 2 {
							t.Errorf("the creation answered %+v, and the user has %d customers", made, l.live(user))
						}
						return
					}
					at.release()
					wait(t, done)
					if made.CustomerID != before || made.Undo == "" {
						t.Fatalf("the creation answered %+v", made)
					}
					l.wants("", `SELECT user_id FROM stripe_customers WHERE stripe_customer_id = $1`, made.Undo)
					if c.use != nil {
						l.must(c.use(l, made.Undo))
					}
					if !dies {
						want := "deleted"
						if c.use != nil {
							want = "kept"
						}
						if got := l.undo(user, made.Undo); got != want {
							t.Errorf("the undo says %q, want %q", got, want)
						}
					}
					l.settle()
					l.agree(user)
					if n := l.live(user); n != c.live {
						t.Errorf("the user has %d customers, want %d", n, c.live)
					}
					l.wants(fmt.Sprint(c.live), `SELECT count(*) FROM stripe_customers WHERE user_id IS NOT NULL AND NOT deleted_in_stripe`)
					l.wants("0", `SELECT count(*) FROM stripe_customers WHERE made_in_vain_for IS NOT NULL AND NOT deleted_in_stripe`)
					l.wants("0", `SELECT count(*) FROM drift WHERE resolved_at IS NULL`)
					l.wants("", `SELECT string_agg(entity || ' ' || type || ' ' || status || ' ' || coalesce(reason, ''), ', ') FROM webhook_events WHERE status NOT IN ('completed', 'ignored')`)
				})
			}
		}
	}
}

// madeBesideAnother is a user for whom a customer is made while another one turns out to be theirs.
// What was made is for the test to have undone.
func (l *lab) madeBesideAnother() (user, had, undo string) {
	l.t.Helper()
	user = l.newcomer("ada")
	a := l.actor(policies{})
	at := a.arm(l.t, "answered POST /v1/customers", 0)
	var made activities.CustomerResult
	done := begin(func() (err error) {
		made, err = a.customers.EnsureStripeCustomer(l.t.Context(), activities.UserInput{ClerkUserID: user})
		return err
	})
	reach(l.t, at, done)
	had = l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Metadata: map[string]string{"clerk_user_id": user}})
	l.must(l.work.record(l.t.Context(), had))
	at.release()
	wait(l.t, done)
	if made.CustomerID != had || made.Undo == "" {
		l.t.Fatalf("the creation answered %+v", made)
	}
	return user, had, made.Undo
}

// Whoever looks at a customer that is being removed may have read it before, and links nobody to
// what is gone; nor does its own event, which comes behind all that.
func TestACustomerThatIsRemovedIsLinkedToNobody(t *testing.T) {
	t.Parallel()
	for _, undoFirst := range []bool{true, false} {
		t.Run(map[bool]string{true: "the undo is interrupted", false: "the look is interrupted"}[undoFirst], func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			l.explore(policies{}, func() scene {
				user, had, made := l.madeBesideAnother()
				undo := func(ctx context.Context, a *actor) error {
					_, err := a.customers.UndoStripeCustomer(ctx, activities.UndoInput{ClerkUserID: user, CustomerID: made})
					return err
				}
				look := func(ctx context.Context, a *actor) error { return a.lookAtCustomer(ctx, made) }
				s := scene{first: undo, second: look, check: func() {
					l.wants(had, `SELECT string_agg(c.stripe_customer_id, ' ') FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE clerk_user_id = $1`, user)
					l.settle()
					l.agree(user)
					if n := l.live(user); n != 1 || !l.isDeleted(made) {
						t.Errorf("the user has %d customers at Stripe", n)
					}
					l.wants(had, `SELECT string_agg(c.stripe_customer_id, ' ') FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE clerk_user_id = $1`, user)
					l.wants("0", `SELECT count(*) FROM drift WHERE resolved_at IS NULL`)
					l.wants("", `SELECT string_agg(entity || ' ' || type || ' ' || status || ' ' || coalesce(reason, ''), ', ') FROM webhook_events WHERE status NOT IN ('completed', 'ignored')`)
				}}
				if !undoFirst {
					s.first, s.second = look, undo
				}
				return s
			})
		})
	}
}

// A customer is made for a user while that user is deleted, step against step: nothing of them
// stays, and no event waits.
func TestCreationMeetsTheDeletion(t *testing.T) {
	t.Parallel()
	for _, creationFirst := range []bool{true, false} {
		t.Run(map[bool]string{true: "the creation is interrupted", false: "the deletion is interrupted"}[creationFirst], func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			n := 0
			l.explore(policies{}, func() scene {
				n++
				user := l.Sandbox.Clerk.AddUser(secretive(n))
				l.unpoked()
				l.must(l.work.syncUser(t.Context(), user))
				l.must(l.Sandbox.Clerk.DeleteUser(user))
				l.unpoked()
				create := func(ctx context.Context, a *actor) error { _, err := a.ensure(ctx, user); return err }
				remove := func(ctx context.Context, a *actor) error { return a.lookAtUser(ctx, user) }
				s := scene{first: create, second: remove, check: func() {
					// Not even until the customer's own event comes.
					l.wants("0", `SELECT count(*) FROM stripe_customers c JOIN person_user u ON u.id = c.user_id
						WHERE u.deleted_at IS NOT NULL AND concat(c.email, c.name) <> ''`)
					l.settle()
					// The run that made the customer looks again when it finds the mark.
					l.must(l.work.lookAtUser(t.Context(), user))
					l.gone(user, account.DeleteCancelAtPeriodEnd)
				}}
				if !creationFirst {
					s.first, s.second = remove, create
				}
				return s
			})
		})
	}
}

// Stripe broke while creating and would answer that under this key for a day. A new generation of
// the key gets a customer.
func TestStoredFailureIsLeftBehind(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user := l.newcomer("ada")
	l.Sandbox.Stripe.BreakNext(1)
	if _, err := l.work.ensure(t.Context(), user); err == nil {
		t.Fatal("Stripe did not break")
	}
	l.wants("1", `SELECT generation FROM stripe_requests WHERE key LIKE 'customer:create:%'`)
	l.must(l.work.lookAtUser(t.Context(), user))
	l.wants("2", `SELECT generation FROM stripe_requests WHERE key LIKE 'customer:create:%'`)
	l.settle()
	l.agree(user)
	if n := l.live(user); n != 1 {
		t.Errorf("the user has %d customers", n)
	}
}

// The customer whose creation was never heard of was deleted before the key was used again. What
// Stripe replays is read back, and not linked.
func TestReplayedCustomerThatIsGoneIsNotLinked(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user := l.newcomer("ada")
	l.work.lose("POST /v1/customers")
	if _, err := l.work.ensure(t.Context(), user); err == nil {
		t.Fatal("the answer was not lost")
	}
	lost := stringField(t, l.Sandbox.Stripe.Customers()[0], "id")
	l.must(l.Sandbox.Stripe.DeleteCustomer(lost))
	l.must(l.work.lookAtUser(t.Context(), user))
	l.settle()
	l.agree(user)
	if got := l.customerOf(user); got == lost || got == "" || l.isDeleted(got) {
		t.Errorf("the user's customer is %q, %q was deleted", got, lost)
	}
	l.wants("2", `SELECT generation FROM stripe_requests WHERE key LIKE 'customer:create:%'`)
}

// A second attempt while Stripe still works on the first is no reason to try anything else.
func TestCreationInProgressIsWaitedFor(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user := l.newcomer("ada")
	release := l.Sandbox.Stripe.Stall()
	defer release()
	a := l.actor(policies{})
	first := begin(func() error { _, err := a.ensure(t.Context(), user); return err })
	l.Until("Stripe works on the creation", func(context.Context) error {
		if l.Sandbox.Stripe.InProgress() != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	if _, err := l.work.ensure(t.Context(), user); failure.Of(err) != failure.Transient {
		t.Errorf("meanwhile another attempt gets %v", err)
	}
	release()
	wait(t, first)
	l.settle()
	l.agree(user)
	if n := l.live(user); n != 1 {
		t.Errorf("the user has %d customers", n)
	}
	l.wants("1", `SELECT generation FROM stripe_requests WHERE key LIKE 'customer:create:%'`)
}

// The answer to the creation is lost, and the user changes their name before the next attempt, so
// that the key is spent on other parameters. The customer that was made is the one they get, with
// their new name, whether or not its event comes.
func TestLostAnswerAndAnotherName(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("its event is lost %t", lost), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user := l.newcomer("ada")
			l.work.lose("POST /v1/customers")
			if _, err := l.work.ensure(t.Context(), user); err == nil {
				t.Fatal("the answer was not lost")
			}
			l.must(l.Sandbox.Stripe.Settled(t.Context()))
			created := l.Sandbox.StripeWebhooks.TakeHeld() // Stripe's word of it is late, at least
			name := "Augusta"
			l.must(l.Sandbox.Clerk.UpdateUser(user, clerksim.UserChange{FirstName: &name}))
			l.unpoked()
			l.must(l.work.syncUser(t.Context(), user))
			_, err := l.work.ensure(t.Context(), user)
			l.must(err)
			if !lost {
				for _, m := range created {
					l.Sandbox.StripeWebhooks.Send(m)
				}
			}
			l.settle()
			l.agree(user)
			if n := len(l.Sandbox.Stripe.Customers()); n != 1 {
				t.Errorf("Stripe has %d customers", n)
			}
			if got := stringField(t, l.Sandbox.Stripe.Customers()[0], "name"); got != "Augusta Lovelace" {
				t.Errorf("the customer's name is %q", got)
			}
		})
	}
}
