package fences_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/selfservice"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// adopted is somebody whom a product had before us: it has noted their customer in its own table,
// and nothing at Stripe names them.
type adopted struct{ user, customer, subscription string }

// adopted makes one, of whom nobody tells us.
func (l *lab) adopted(name string) adopted {
	l.t.Helper()
	a := adopted{user: l.Sandbox.Clerk.AddUser(person(name, name+"@example.com", true))}
	a.customer = l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: name + "@example.com"})
	a.subscription = l.buy(stripesim.CheckoutSpec{CustomerID: a.customer}).SubscriptionID
	l.untold()
	l.notes(a.user, a.customer)
	l.exec(`INSERT INTO subscriptions (user_id, stripe_subscription_id, stripe_customer_id, status, plan_id)
		SELECT id, $2, $3, 'active', (SELECT min(id) FROM plans) FROM person_user WHERE clerk_user_id = $1`, a.user, a.subscription, a.customer)
	return a
}

// untold forgets what both providers have told so far: it was long ago.
func (l *lab) untold() {
	l.t.Helper()
	l.must(l.Sandbox.Clerk.Settled(l.t.Context()))
	l.must(l.Sandbox.Stripe.Settled(l.t.Context()))
	l.Sandbox.ClerkWebhooks.TakeHeld()
	l.Sandbox.StripeWebhooks.TakeHeld()
}

// notes writes into the product's own table, as the product does.
func (l *lab) notes(user, customer string) {
	l.t.Helper()
	l.exec(`INSERT INTO person_user (clerk_user_id, stripe_customer_id) VALUES ($1, $2)
		ON CONFLICT (clerk_user_id) DO UPDATE SET stripe_customer_id = excluded.stripe_customer_id`, user, customer)
}

// made fails the test unless so many customers were made by us.
func (l *lab) made(want int64) {
	l.t.Helper()
	if n := int64(l.Sandbox.StripeFaults.Requests()["POST /v1/customers"]); n != want {
		l.t.Errorf("%d customers were made, want %d", n, want)
	}
}

// isTheirs fails the test unless the customer that the product had noted is the user's only one,
// everywhere.
func (l *lab) isTheirs(a adopted) {
	l.t.Helper()
	l.made(0)
	l.wants(a.customer, `SELECT stripe_customer_id FROM person_user WHERE clerk_user_id = $1`, a.user)
	l.wants(a.customer, `SELECT string_agg(c.stripe_customer_id, ' ') FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE u.clerk_user_id = $1`, a.user)
	l.wants("0", `SELECT count(*) FROM drift WHERE resolved_at IS NULL AND class = 'conflicting_claims'`)
}

// undecided fails the test unless the customer is nobody's, loudly, and each of these users is as
// the product has noted them and has no other.
func (l *lab) undecided(customer string, users ...string) {
	l.t.Helper()
	l.wants("", `SELECT user_id FROM stripe_customers WHERE stripe_customer_id = $1`, customer)
	l.wants("1", `SELECT count(*) FROM drift WHERE class = 'conflicting_claims' AND entity = 'customer/' || $1 AND resolved_at IS NULL`, customer)
	for _, user := range users {
		l.wants(customer, `SELECT stripe_customer_id FROM person_user WHERE clerk_user_id = $1`, user)
		l.wants("0", `SELECT count(*) FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE u.clerk_user_id = $1`, user)
	}
}

// everyList has a bulk sync read what Stripe lists, and give customers to who has none.
func (l *lab) everyList() *bulk {
	l.t.Helper()
	b := l.bulk(l.work)
	for _, step := range []string{activities.BulkProducts, activities.BulkPrices, activities.BulkCustomers, activities.BulkSubscriptions, activities.BulkOnboarding} {
		_, err := b.step(step)
		l.must(err)
	}
	return b
}

func portal(l *lab, user string) (string, *store.Operation, error) {
	return l.requests(l.work).Portal(l.t.Context(), selfservice.Caller{UserID: user}, selfservice.Key{}, "https://app.example.com/")
}

// Whatever happens first to somebody whom the product had before us, they keep the customer that it
// has noted, and are given no other.
func TestWhomTheProductHasNotedIsTheCustomers(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]func(l *lab, a adopted){
		"the user is looked at": func(l *lab, a adopted) {
			l.must(l.work.look(l.t.Context(), account.UserEntity(a.user)))
			l.settle()
		},
		"the customer is looked at": func(l *lab, a adopted) {
			l.must(l.Sandbox.Stripe.UpdateCustomer(a.customer, stripesim.CustomerSpec{Email: "ada@example.com", Name: "Ada"}))
			l.settle()
		},
		"a bulk sync": func(l *lab, _ adopted) {
			l.everyList()
			l.wants("", `SELECT string_agg(reason, ', ') FROM bulk_failures`)
		},
		"a bulk sync after Stripe's lists": func(l *lab, _ adopted) {
			_, err := l.bulk(l.work).step(activities.BulkOnboarding)
			l.must(err)
			l.wants("", `SELECT string_agg(reason, ', ') FROM bulk_failures`)
		},
		"a bulk sync of that user": func(l *lab, a adopted) {
			b := l.bulk(l.work)
			l.exec(`UPDATE bulk_runs SET entities = ARRAY['user/' || $1]`, a.user)
			_, err := b.step(activities.BulkNamed)
			l.must(err)
		},
		"a command": func(l *lab, a adopted) {
			s := subject(a)
			op := l.asks(s, store.ActionCancel)
			l.must(l.work.apply(l.t.Context(), s, op))
			l.wants("done", `SELECT status FROM operations WHERE id = $1`, op)
			l.wants("true", `SELECT cancel_at_period_end::text FROM subscriptions`)
		},
		"a return from a checkout of the product's own": func(l *lab, a adopted) {
			_, price := l.other("Seats", nil)
			session := l.post("/v1/checkout/sessions", "mode", "subscription", "customer", a.customer, "line_items[0][price]", price, "line_items[0][quantity]", "1",
				"success_url", "https://app.example.com/ok", "cancel_url", "https://app.example.com/no")
			l.buy(stripesim.CheckoutSpec{SessionID: session})
			l.untold()
			desk := l.requests(l.work)
			desk.Wait = time.Second
			op, err := desk.Return(l.t.Context(), selfservice.Caller{UserID: a.user}, selfservice.Key{}, session)
			l.must(err)
			l.settle()
			ended, err := l.Store.Operation(l.t.Context(), op.ID)
			l.must(err)
			if ended.Status != store.OperationDone {
				l.t.Errorf("the return is %s", ended.Status)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			a := l.adopted("ada")
			first(l, a)
			l.isTheirs(a)
			l.settle()
			l.must(l.work.look(t.Context(), account.UserEntity(a.user)))
			l.settle()
			l.isTheirs(a)
			l.agree(a.user)
			l.wants("product:"+a.user, `SELECT link_source FROM stripe_customers WHERE stripe_customer_id = $1`, a.customer)
			l.wants("Ada Lovelace", `SELECT initcap(name) FROM stripe_customers WHERE stripe_customer_id = $1`, a.customer)
		})
	}
}

// Nobody is sold anything before the customer that the product has noted is theirs, and never what
// that has already.
func TestNothingIsSoldBesideACustomerThatTheProductHasNoted(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	a := l.adopted("ada")
	desk := l.requests(l.work)
	_, _, err := desk.Checkout(t.Context(), l.checkoutOf(a.user, "k1"))
	if code := refused(t, err); code != "already_subscribed" {
		t.Errorf("a checkout of what they have was answered %q", code)
	}
	l.cancel(a.subscription)
	l.untold()
	desk.Wait = time.Second
	opened, pending, err := desk.Checkout(t.Context(), l.checkoutOf(a.user, "k2"))
	l.must(err)
	if opened.SessionID != "" || pending == nil || pending.Status.Settled() {
		t.Errorf("a checkout was answered %+v, %+v before it was known whose the customer is", opened, pending)
	}
	address, pending, err := portal(l, a.user)
	l.must(err)
	if address != "" || pending == nil || pending.Status.Settled() {
		t.Errorf("the portal was answered %q, %+v before it was known whose the customer is", address, pending)
	}
	if n := l.Sandbox.StripeFaults.Requests()["POST /v1/checkout/sessions"]; n != 0 {
		t.Errorf("%d checkouts were opened", n)
	}
	l.settle() // which that has asked for
	l.isTheirs(a)
	if pending == nil {
		t.Fatal("nothing was waited for")
	}
	if ended, err := l.Store.Operation(t.Context(), pending.ID); err != nil || ended.Status != store.OperationDone {
		t.Errorf("what was waited for is %+v, %v", ended, err)
	}
	opened, _, err = desk.Checkout(t.Context(), l.checkoutOf(a.user, "k2"))
	l.must(err)
	if state := l.stateOf(opened.SessionID); state != account.CheckoutOpen {
		t.Errorf("the checkout is %s", state)
	}
	if address, _, err = portal(l, a.user); err != nil || address == "" {
		t.Errorf("the portal was answered %q, %v", address, err)
	}
	l.isTheirs(a)
}

// A user who is deleted is billed no more, whatever the product had noted, and is erased when that
// is known. Neither is so while it is not known whose the customer is.
func TestADeletedUserIsNotBilledByWhatTheProductHasNoted(t *testing.T) {
	t.Parallel()
	for _, rows := range []bool{true, false} {
		t.Run(fmt.Sprintf("its subscription is stored %t", rows), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			a := l.adopted("ada")
			if !rows {
				l.exec(`DELETE FROM subscriptions`)
			}
			l.must(l.Sandbox.Clerk.DeleteUser(a.user))
			l.take()
			l.must(l.work.look(t.Context(), account.UserEntity(a.user)))
			l.wants("true", `SELECT (deletion_requested_at IS NOT NULL AND deleted_at IS NULL)::text FROM person_user`)
			l.settle()
			l.sweep()
			if raw, _ := l.Sandbox.Stripe.Subscription(a.subscription); !strings.Contains(string(raw), `"cancel_at_period_end":true`) {
				t.Errorf("the subscription of a deleted user goes on: %s", raw)
			}
			l.isTheirs(a)
			for range 3 {
				l.exec(`UPDATE person_user SET erase_retry_at = now() WHERE deleted_at IS NULL`)
				l.sweep()
			}
			l.wants("true", `SELECT (deleted_at IS NOT NULL)::text FROM person_user`)
		})
	}
}

// Two users for whom the product has noted the same customer: it is nobody's until a person has
// corrected that, and neither is given another, sold anything, or billed for it unseen.
func TestTwoUsersForWhomTheProductHasNotedOneCustomer(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	ada := l.adopted("ada")
	bob := l.Sandbox.Clerk.AddUser(person("bob", "bob@example.com", true))
	l.untold()
	l.notes(bob, ada.customer)
	look := func() {
		for _, user := range []string{ada.user, bob} {
			l.must(l.work.look(t.Context(), account.UserEntity(user)))
		}
		l.settle()
	}
	look()
	l.undecided(ada.customer, ada.user, bob)
	l.everyList()
	l.wants("customer_contested: "+ada.customer, `SELECT string_agg(DISTINCT reason, ', ') FROM bulk_failures`)
	look()
	l.undecided(ada.customer, ada.user, bob)
	l.made(0)

	desk := l.requests(l.work)
	desk.Wait = time.Second
	for _, user := range []string{ada.user, bob} {
		opened, pending, err := desk.Checkout(t.Context(), l.checkoutOf(user, user))
		l.must(err)
		if opened.SessionID != "" || pending == nil || pending.Status.Settled() {
			t.Errorf("%s was answered %+v, %+v", user, opened, pending)
		}
	}
	op := l.asks(subject(ada), store.ActionCancel)
	l.must(l.work.apply(t.Context(), subject(ada), op))
	l.ended(op, "refused customer_contested")

	l.exec(`UPDATE person_user SET stripe_customer_id = NULL WHERE clerk_user_id = $1`, bob)
	l.must(l.work.look(t.Context(), account.CustomerEntity(ada.customer)))
	look()
	l.wants(ada.user, `SELECT u.clerk_user_id FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE c.stripe_customer_id = $1`, ada.customer)
	l.made(1)
	if n := l.live(bob); n != 1 {
		t.Errorf("%d customers are the other one's", n)
	}
	l.wants("0", `SELECT count(*) FROM drift WHERE resolved_at IS NULL`)
}

// The product's own row says that a subscription is somebody's, and what weighs more says that its
// customer is somebody else's. The look of their own command finds that out: nothing is done.
func TestNobodyCancelsWhatTurnsOutToBeSomebodyElses(t *testing.T) {
	t.Parallel()
	for _, metadata := range []bool{true, false} {
		t.Run(fmt.Sprintf("by the customer's metadata %t", metadata), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			ada, bob := l.adopted("ada"), l.Sandbox.Clerk.AddUser(person("bob", "bob@example.com", true))
			l.exec(`INSERT INTO person_user (clerk_user_id) VALUES ($1)`, bob)
			if metadata {
				l.exec(`UPDATE person_user SET stripe_customer_id = NULL`)
				l.post("/v1/customers/"+ada.customer, "metadata[clerk_user_id]", ada.user)
			}
			l.untold()
			l.exec(`UPDATE subscriptions SET user_id = (SELECT id FROM person_user WHERE clerk_user_id = $1)`, bob)
			his := subject{bob, ada.customer, ada.subscription}
			op := l.asks(his, store.ActionCancel)
			l.must(l.work.apply(t.Context(), his, op))
			l.ended(op, "refused customer_contested")
			if l.endsByPeriod(ada.subscription) {
				t.Error("it ends")
			}
			l.must(l.work.lookAtCustomer(t.Context(), ada.customer))
			l.linked(ada.user, ada.customer)
			desk := l.requests(l.work)
			_, err := desk.Command(t.Context(), selfservice.CommandRequest{Caller: selfservice.Caller{UserID: bob}, Command: account.CommandCancel, SubscriptionID: ada.subscription})
			if r, ok := errors.AsType[*selfservice.Refusal](err); !ok || r.Kind != selfservice.NotFound {
				t.Errorf("asked again, they are told %v", err)
			}
		})
	}
}

// So it is where one of the two was given the customer before the product noted it for the other:
// the link stays, and the other is loud.
func TestTheProductNotesACustomerThatIsSomebodyElses(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	ada, customer, _ := l.subscribed("ada")
	bob := l.Sandbox.Clerk.AddUser(person("bob", "bob@example.com", true))
	l.untold()
	l.notes(bob, customer)
	for range 2 {
		l.must(l.work.look(t.Context(), account.UserEntity(bob)))
		l.must(l.work.look(t.Context(), account.CustomerEntity(customer)))
		l.settle()
		l.linked(ada, customer)
		l.made(1)
		l.wants("1", `SELECT count(*) FROM drift WHERE class = 'conflicting_claims' AND entity = 'customer/' || $1 AND resolved_at IS NULL`, customer)
		l.wants(customer, `SELECT stripe_customer_id FROM person_user WHERE clerk_user_id = $1`, bob)
	}
	found, err := l.Store.Compare("run", account.DeleteCancelAtPeriodEnd).Customers(t.Context(), []account.Customer{{ID: customer, Email: "ada@example.com", Name: "ada Lovelace",
		Metadata: map[string]string{"clerk_user_id": ada}}})
	l.must(err)
	if len(found) != 1 || found[0].Class != account.DriftConflictingClaims {
		t.Errorf("a comparison finds %+v", found)
	}
	desk := l.requests(l.work)
	desk.Wait = time.Second
	if address, pending, err := desk.Portal(t.Context(), selfservice.Caller{UserID: bob}, selfservice.Key{}, "https://app.example.com/"); err != nil || address != "" || pending == nil {
		t.Errorf("the portal was answered %q, %+v, %v", address, pending, err)
	}
	if n := l.Sandbox.StripeFaults.Requests()["POST /v1/billing_portal/sessions"]; n != 0 {
		t.Errorf("the portal of somebody else's customer was opened %d times", n)
	}
	// What is deleted with the other is not hers.
	l.must(l.Sandbox.Clerk.DeleteUser(bob))
	l.settle()
	l.wants("true", `SELECT (deleted_at IS NOT NULL)::text FROM person_user WHERE clerk_user_id = $1`, bob)
	l.wants("false", `SELECT cancel_at_period_end::text FROM subscriptions WHERE stripe_customer_id = $1`, customer)
	l.exec(`UPDATE person_user SET stripe_customer_id = NULL WHERE clerk_user_id = $1`, bob)
	l.must(l.work.look(t.Context(), account.CustomerEntity(customer)))
	l.wants("0", `SELECT count(*) FROM drift WHERE resolved_at IS NULL`)
}

// A customer that names somebody else at Stripe, whom there is, is a conflict; one that names
// nobody whom Clerk has is the user's.
func TestANotedCustomerThatNamesAnother(t *testing.T) {
	t.Parallel()
	for _, exists := range []bool{true, false} {
		for _, deleted := range []bool{true, false} {
			t.Run(fmt.Sprintf("who exists %t, the noted one is deleted %t", exists, deleted), func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{})
				ada, bob := l.adopted("ada"), l.Sandbox.Clerk.AddUser(person("bob", "bob@example.com", true))
				l.must(l.Sandbox.Stripe.UpdateCustomer(ada.customer, stripesim.CustomerSpec{Email: "bob@example.com", Metadata: map[string]string{"clerk_user_id": bob}}))
				l.untold()
				if !exists {
					l.must(l.Sandbox.Clerk.ForgetUser(bob))
				}
				if deleted {
					l.must(l.Sandbox.Clerk.DeleteUser(ada.user))
				}
				l.take()
				l.must(l.work.look(t.Context(), account.UserEntity(ada.user)))
				l.settle()
				l.settle()
				raw, _ := l.Sandbox.Stripe.Subscription(ada.subscription)
				stopped := strings.Contains(string(raw), `"cancel_at_period_end":true`)
				if !exists {
					l.isTheirs(ada)
					if stopped != deleted {
						t.Errorf("the subscription: %s", raw)
					}
					return
				}
				if l.undecided(ada.customer, ada.user); stopped {
					t.Error("the subscription of somebody else was ended")
				}
				if !deleted {
					return
				}
				// The erasure waits for whoever decides.
				l.wants("", `SELECT deleted_at FROM person_user WHERE clerk_user_id = $1`, ada.user)
				l.must(l.Sandbox.Stripe.UpdateCustomer(ada.customer, stripesim.CustomerSpec{Email: "bob@example.com", Metadata: map[string]string{"clerk_user_id": ada.user}}))
				l.settle()
				l.sweep()
				l.wants("true", `SELECT (deleted_at IS NOT NULL)::text FROM person_user WHERE clerk_user_id = $1`, ada.user)
				l.wants("true", `SELECT cancel_at_period_end::text FROM subscriptions`)
			})
		}
	}
}

// Who has been noted with a customer that Stripe does not have, or has deleted, is given another,
// and it is kept whose that one was.
func TestANotedCustomerThatIsGone(t *testing.T) {
	t.Parallel()
	for _, missing := range []bool{true, false} {
		for name, ask := range map[string]func(l *lab, user string){
			"the user is looked at": func(l *lab, user string) {
				l.must(l.work.look(l.t.Context(), account.UserEntity(user)))
			},
			"the customer is looked at": func(l *lab, user string) {
				l.must(l.work.look(l.t.Context(), account.CustomerEntity(l.customerOf(user))))
			},
			"a bulk sync": func(l *lab, _ string) {
				l.everyList()
				l.wants("", `SELECT string_agg(reason, ', ') FROM bulk_failures`)
			},
			"a checkout": func(l *lab, user string) {
				desk := l.requests(l.work)
				desk.Wait = time.Second
				_, pending, err := desk.Checkout(l.t.Context(), l.checkoutOf(user, ""))
				l.must(err)
				if pending == nil {
					l.t.Error("a checkout was opened")
				}
			},
		} {
			t.Run(fmt.Sprintf("missing %t, %s", missing, name), func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{})
				user := l.Sandbox.Clerk.AddUser(person("ada", "ada@example.com", true))
				customer := "cus_ofanothermode"
				if !missing {
					customer = l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "ada@example.com"})
					l.must(l.Sandbox.Stripe.DeleteCustomer(customer))
				}
				l.untold()
				l.notes(user, customer)
				ask(l, user)
				l.settle()
				l.made(1)
				if n := l.live(user); n != 1 {
					t.Errorf("%d customers are the user's", n)
				}
				if has := l.customerOf(user); has == "" || has == customer {
					t.Errorf("the user has customer %q", has)
				}
				l.wants(user, `SELECT u.clerk_user_id FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE c.stripe_customer_id = $1`, customer)
				l.agree(user)
				l.sells(user, l.customerOf(user))
			})
		}
	}
}

// A deleted user of whose noted customer nothing is left is erased once that is confirmed.
func TestADeletedUserWhoseNotedCustomerIsGone(t *testing.T) {
	t.Parallel()
	for _, missing := range []bool{true, false} {
		t.Run(fmt.Sprintf("missing %t", missing), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			l.bound()
			a := l.adopted("ada")
			if missing {
				l.Sandbox.Stripe.Lose(a.customer, a.subscription)
			} else {
				l.must(l.Sandbox.Stripe.DeleteCustomer(a.customer))
				l.untold()
			}
			l.must(l.Sandbox.Clerk.DeleteUser(a.user))
			l.settle()
			for range 2 {
				l.erasing(a.user)
				l.wants(fmt.Sprint(!missing), erased, a.user)
			}
			l.later(missingConfirmedAfter)
			l.erasing(a.user)
			l.erasing(a.user)
			l.wants("true", erased, a.user)
		})
	}
}

// What an older version of the product notes while we run already is found as well, with the next
// that happens to either.
func TestTheProductNotesACustomerLater(t *testing.T) {
	t.Parallel()
	for _, had := range []bool{true, false} {
		for _, byUser := range []bool{true, false} {
			t.Run(fmt.Sprintf("the user has a customer %t, the user is looked at %t", had, byUser), func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{})
				user := l.newcomer("ada")
				first := ""
				if had {
					l.must(l.work.look(t.Context(), account.UserEntity(user)))
					l.settle()
					first = l.customerOf(user)
				}
				customer := l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "ada@example.com", Name: "ada Lovelace"})
				l.buy(stripesim.CheckoutSpec{CustomerID: customer})
				l.notes(user, customer)
				if byUser {
					l.untold()
					l.must(l.work.look(t.Context(), account.UserEntity(user)))
				}
				l.settle()
				l.linked(user, customer)
				l.wants(customer, `SELECT stripe_customer_id FROM person_user`)
				l.made(map[bool]int64{true: 1, false: 0}[had])
				if had {
					l.wants(user, `SELECT u.clerk_user_id FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE c.stripe_customer_id = $1`, first)
				}
			})
		}
	}
}

// A subscription that the product has stored for a user says whose its customer is, too.
func TestACustomerOfASubscriptionThatTheProductHasStored(t *testing.T) {
	t.Parallel()
	for _, deleted := range []bool{true, false} {
		t.Run(fmt.Sprintf("the user is deleted %t", deleted), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			a := l.adopted("ada")
			l.exec(`UPDATE person_user SET stripe_customer_id = NULL`)
			if deleted {
				l.must(l.Sandbox.Clerk.DeleteUser(a.user))
			} else {
				_, _, err := l.requests(l.work).Checkout(t.Context(), selfservice.CheckoutRequest{Caller: selfservice.Caller{UserID: a.user},
					Key: selfservice.Key{Method: http.MethodPost, Value: "k"}, PriceID: "price_none", SuccessURL: "https://a.example", CancelURL: "https://a.example"})
				if code := refused(t, err); code != "price_not_sold" {
					t.Errorf("refused with %q", code)
				}
				l.must(l.work.look(t.Context(), account.UserEntity(a.user)))
			}
			l.settle()
			l.sweep()
			l.isTheirs(a)
			l.wants(fmt.Sprint(deleted), `SELECT cancel_at_period_end::text FROM subscriptions`)
			l.wants(fmt.Sprint(deleted), `SELECT (deleted_at IS NOT NULL)::text FROM person_user`)
		})
	}
}

// A user and the customer that the product has noted for them are looked at at once, the one
// between any two steps of the other.
func TestANotedCustomerAndItsUserAreLookedAtAtOnce(t *testing.T) {
	t.Parallel()
	for _, userFirst := range []bool{true, false} {
		t.Run(map[bool]string{true: "the user is interrupted", false: "the customer is interrupted"}[userFirst], func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			n := 0
			l.explore(policies{}, func() scene {
				n++
				a := l.adopted(fmt.Sprintf("ada%d", n))
				s := scene{
					first:  func(ctx context.Context, by *actor) error { return by.lookAtUser(ctx, a.user) },
					second: func(ctx context.Context, by *actor) error { return by.lookAtCustomer(ctx, a.customer) },
					check: func() {
						l.settle()
						l.isTheirs(a)
						l.linked(a.user, a.customer)
					},
				}
				if !userFirst {
					s.first, s.second = s.second, s.first
				}
				return s
			})
		})
	}
}

// What we have written into the product's table ourselves bears out no link: evidence against the
// owner stays loud.
func TestOurOwnWordInTheProductsTableIsNoEvidence(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	ada, customer, subscription := l.subscribed("ada")
	bob, _ := l.signUp("bob")
	l.must(l.Sandbox.Stripe.UpdateCustomer(customer, stripesim.CustomerSpec{Email: "ada@example.com", Name: "ada Lovelace", Metadata: map[string]string{"clerk_user_id": ""}}))
	l.post("/v1/subscriptions/"+subscription, "metadata[clerk_user_id]", bob)
	l.settle()
	l.linked(ada, customer)
	l.wants("1", `SELECT count(*) FROM drift WHERE class = 'conflicting_claims' AND entity = 'customer/' || $1 AND resolved_at IS NULL`, customer)
}

// What the product has noted of a subscription by itself, such as its end, may be wrong, and gives
// way to what Stripe shows, however long ago it was written: nobody loses access, and is sold a second
// one.
func TestWhatTheProductHasWronglyNotedOfASubscriptionGivesWay(t *testing.T) {
	t.Parallel()
	const noted = `UPDATE subscriptions SET status = 'canceled', updated_at = now() - interval '40 days' WHERE stripe_subscription_id = $1`
	const status = `SELECT status FROM subscriptions WHERE stripe_subscription_id = $1`
	t.Run("before us, by a look", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, policies{})
		a := l.adopted("ada")
		l.exec(noted, a.subscription)
		l.must(l.work.look(t.Context(), account.UserEntity(a.user)))
		l.settle()
		l.wants("active", status, a.subscription)
		l.agree(a.user)
	})
	t.Run("before us, by a bulk sync", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, policies{})
		a := l.adopted("ada")
		l.exec(noted, a.subscription)
		l.everyList()
		l.wants("active", status, a.subscription)
	})
	t.Run("beside us", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, policies{})
		user, customer, subscription := l.subscribed("ada")
		l.exec(noted, subscription)
		_, _, err := l.requests(l.work).Checkout(t.Context(), l.checkoutOf(user, "k"))
		if code := refused(t, err); code != "already_subscribed" {
			t.Errorf("a second subscription is sold beside the one that Stripe shows as active: %q", code)
		}
		l.must(l.work.lookAtCustomer(t.Context(), customer))
		l.wants("active", status, subscription)
		l.agree(user)
	})
	t.Run("as paid for", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, policies{})
		_, customer, subscription := l.subscribed("ada")
		l.exec(`DELETE FROM subscription_changes`) // no read of ours has shown that it was paid for
		l.exec(`UPDATE subscriptions SET updated_at = now() - interval '1 day'`)
		unpaid := strings.ReplaceAll(l.listOf(customer), `"status":"active"`, `"status":"incomplete"`)
		defer l.work.answer("GET /v1/subscriptions?", http.StatusOK, unpaid)()
		l.must(l.work.lookAtCustomer(t.Context(), customer))
		l.wants("incomplete", status, subscription)
	})
}

// A product has rows of its own beside those of Stripe's subscriptions, for what it gives away or has
// sold once, with ids of its own making. Such a row holds up nothing: neither a checkout nor an event,
// a sync or the erasure of its user.
func TestARowOfTheProductsOwnHoldsUpNothing(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"lifetime_1", "sub_lifetime1", "pi_3Nabcdefghij", ""} {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			l.bound()
			user, customer, subscription := l.subscribed("ada")
			buyer, buyersCustomer := l.signUp("bob")
			own := func(user, id, customer string) {
				l.exec(`INSERT INTO subscriptions (user_id, stripe_subscription_id, stripe_customer_id, status, updated_at)
					SELECT id, $2, $3, 'active', now() - interval '40 days' FROM person_user WHERE clerk_user_id = $1`, user, id, customer)
			}
			own(buyer, id+"b", buyersCustomer)
			if opened, _, err := l.requests(l.work).Checkout(t.Context(), l.checkoutOf(buyer, "k")); err != nil {
				t.Errorf("a checkout is answered %v (%+v)", err, opened)
			}
			own(user, id, customer)
			l.must(l.Sandbox.Stripe.SetQuantity(subscription, 3))
			l.take()
			op := l.asksSync(user)
			l.settle()
			l.must(l.work.lookAtUser(t.Context(), user))
			l.must(l.work.publish(t.Context(), user, false))
			l.wants("3", `SELECT quantity FROM subscriptions WHERE stripe_subscription_id = $1`, subscription)
			l.wants("0", `SELECT count(*) FROM webhook_events WHERE status <> 'completed' AND entity = $1`, "customer/"+customer)
			if is := l.stands(op); is != store.OperationDone {
				t.Errorf("the sync is told as %s", is)
			}
			l.must(l.Sandbox.Clerk.DeleteUser(user))
			l.settle()
			l.later(missingConfirmedAfter + time.Minute)
			l.must(l.work.lookAtCustomer(t.Context(), customer))
			l.erasing(user)
			l.erased(user)
			if l.runsOn(subscription) {
				t.Error("what an erased user has runs on")
			}
		})
	}
}

// A product that was there before us writes an empty text, or a word of its own, where a user has no
// customer. Whoever of them wants to buy is given one, as those with nothing are, and there is no
// portal for them.
func TestWhoeverHasNoCustomersIDIsGivenACustomer(t *testing.T) {
	t.Parallel()
	for name, column := range map[string]any{"nothing": nil, "empty": "", "a word": "none"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user := l.unheardOf()
			l.exec(`INSERT INTO person_user (clerk_user_id, stripe_customer_id) VALUES ($1, $2)`, user, column)
			if _, _, err := portal(l, user); refused(t, err) != "no_customer" {
				t.Errorf("the portal answers %v", err)
			}
			desk := l.requests(l.work)
			if opened, pending, err := desk.Checkout(t.Context(), l.checkoutOf(user, "k")); err != nil || pending == nil {
				t.Fatalf("the checkout is answered %v %+v, and nobody looks after the user", err, opened)
			}
			l.settle()
			if opened, pending, err := desk.Checkout(t.Context(), l.checkoutOf(user, "k")); err != nil || pending != nil || opened.SessionID == "" {
				t.Errorf("the checkout is answered %v %+v %+v", err, opened, pending)
			}
		})
	}
}
