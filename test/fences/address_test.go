package fences_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/selfservice"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeevent"
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

// awaiting are the policies of whoever links by address once what says more would have come.
func awaiting() policies { return policies{linkByEmail: true, linkByEmailAfter: time.Minute} }

// aMinuteLater lets a minute pass, as far as it counts for whose a customer is.
func (l *lab) aMinuteLater() {
	l.t.Helper()
	l.exec(`UPDATE stripe_customers SET first_seen_at = first_seen_at - interval '61 seconds'`)
	l.exec(`UPDATE users_not_in_clerk SET first_seen_at = first_seen_at - interval '61 seconds', seen_at = seen_at - interval '61 seconds'`)
	l.exec(`UPDATE pokes SET due_at = due_at - interval '61 seconds'`)
	l.settle()
}

func (l *lab) ownedBy(user, customer string) {
	l.t.Helper()
	l.wants(user, `SELECT u.clerk_user_id FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE c.stripe_customer_id = $1`, customer)
}

// The app's own server opens a checkout and writes the user on the session. The payer's address is
// one that another user has verified. Whose the customer is does not depend on which of Stripe's
// events is looked at first. Where nothing else is told of it, it is in the end whose address it
// has.
func TestWhoseACustomerIsDoesNotDependOnTheOrderOfEvents(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"customer.created", "checkout.session.completed"} {
		for _, lost := range []bool{false, true} {
			if lost && first != "customer.created" {
				continue
			}
			t.Run(first+map[bool]string{true: ", and nothing else"}[lost], func(t *testing.T) {
				t.Parallel()
				l := newLab(t, awaiting())
				bob, _ := l.signUp("bob")
				ada, _ := l.signUp("ada")
				bought := l.buy(stripesim.CheckoutSpec{Email: "bob@example.com", ClientReferenceID: ada, Metadata: byServer(ada)})
				l.must(l.Sandbox.Stripe.Settled(t.Context()))
				held := l.Sandbox.StripeWebhooks.TakeHeld()
				deliver := func(first string, is bool) {
					for _, m := range held {
						if e, err := stripeevent.Parse(string(m.Body)); err != nil {
							t.Fatal(err)
						} else if (e.Type == first) == is {
							l.Sandbox.StripeWebhooks.Send(m)
						}
					}
					l.settle()
				}
				deliver(first, true)
				if !lost {
					deliver(first, false)
					l.ownedBy(ada, bought.CustomerID)
				}
				l.aMinuteLater()
				owner := map[bool]string{false: ada, true: bob}[lost]
				l.ownedBy(owner, bought.CustomerID)
				l.agree(owner)
			})
		}
	}
}

// Somebody starts over: deletes their account, signs up again with the same address and buys, at a
// page of the app's own server, which names the new user. Clerk's first read does not show the new
// user yet, whether or not their own event has come. What they have bought is theirs and goes on.
func TestWhoStartsOverIsNotTakenForTheirDeletedSelf(t *testing.T) {
	t.Parallel()
	for name, told := range map[string]bool{"the sign-up was told": true, "the sign-up is told later": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, awaiting())
			old, _ := l.signUp("ada")
			l.must(l.Sandbox.Clerk.DeleteUser(old))
			l.settle()
			l.erased(old)
			user := l.Sandbox.Clerk.AddUser(person("ada", "ada@example.com", true))
			if !told {
				l.untold()
			}
			bought := l.buy(stripesim.CheckoutSpec{Email: "ada@example.com", ClientReferenceID: user, Metadata: byServer(user), SubscriptionMetadata: byServer(user)})
			l.must(l.Sandbox.Clerk.ForgetUser(user)) // a copy of Clerk's that is a moment behind
			l.settle()
			l.unowned(bought.CustomerID)
			l.must(l.Sandbox.Clerk.RememberUser(user))
			l.aMinuteLater()
			l.ownedBy(user, bought.CustomerID)
			if !l.runsOn(bought.SubscriptionID) {
				t.Error("what the new user has bought was ended, as the deleted user's")
			}
		})
	}
}

// A new user pays with a colleague's address, who has verified it. One answer of Clerk's that it
// does not have them makes what they bought not the colleague's; a second one a minute later does.
func TestOneNotFoundGivesNobodysPurchaseToAnother(t *testing.T) {
	t.Parallel()
	for _, there := range []bool{true, false} {
		t.Run(map[bool]string{true: "a moment behind", false: "there is no such user"}[there], func(t *testing.T) {
			t.Parallel()
			l := newLab(t, awaiting())
			bob, _ := l.signUp("bob")
			user := l.Sandbox.Clerk.AddUser(person("ada", "ada@example.com", true))
			l.untold()
			bought := l.buy(stripesim.CheckoutSpec{Email: "bob@example.com", ClientReferenceID: user, Metadata: byServer(user), SubscriptionMetadata: byServer(user)})
			l.must(l.Sandbox.Clerk.ForgetUser(user))
			l.settle()
			l.unowned(bought.CustomerID)
			if there {
				l.must(l.Sandbox.Clerk.RememberUser(user))
			}
			l.aMinuteLater()
			l.ownedBy(map[bool]string{true: user, false: bob}[there], bought.CustomerID)
		})
	}
}

// Who starts over buys by a Payment Link or a pricing table before their new sign-up has come
// through. What names nobody, or the new user, is theirs and not their deleted self's; what nobody
// signs up for any more is the deleted user's in the end, and stopped.
func TestWhoStartsOverBuysBeforeTheirSignUpIsKnown(t *testing.T) {
	t.Parallel()
	for _, referred := range []bool{true, false} {
		for _, comes := range []bool{true, false} {
			t.Run(fmt.Sprintf("with a reference %t, the sign-up comes %t", referred, comes), func(t *testing.T) {
				t.Parallel()
				l := newLab(t, awaiting())
				old, _ := l.signUp("ada")
				l.must(l.Sandbox.Clerk.DeleteUser(old))
				l.settle()
				l.erased(old)
				user := l.Sandbox.Clerk.AddUser(person("ada", "ada@example.com", true))
				l.must(l.Sandbox.Clerk.Settled(t.Context()))
				late := l.Sandbox.ClerkWebhooks.TakeHeld()
				if !comes {
					l.must(l.Sandbox.Clerk.ForgetUser(user))
				}
				spec := stripesim.CheckoutSpec{Email: "ada@example.com", PaymentLink: "plink_1"}
				if referred {
					spec.ClientReferenceID = user
				}
				bought := l.buy(spec)
				l.settle()
				if comes {
					for _, m := range late {
						l.Sandbox.ClerkWebhooks.Send(m)
					}
					l.settle()
				}
				l.aMinuteLater()
				l.ownedBy(map[bool]string{true: user, false: old}[comes], bought.CustomerID)
				if l.runsOn(bought.SubscriptionID) != comes {
					t.Errorf("the subscription goes on: %t", !comes)
				}
			})
		}
	}
}

// What a bulk sync reads was made long ago, so that nothing more is to come of it; what was made
// just now waits, and so does its user, who is given no other.
func TestABulkSyncAwaitsWhatIsYetToComeOfNewCustomers(t *testing.T) {
	t.Parallel()
	for _, old := range []bool{true, false} {
		for name, metadata := range map[string]map[string]string{"nobody": nil, "a user of another instance": {"clerk_user_id": "user_ofTheDevelopmentInstance"}} {
			t.Run(fmt.Sprintf("%s, made long ago %t", name, old), func(t *testing.T) {
				t.Parallel()
				l := newLab(t, awaiting())
				user := l.Sandbox.Clerk.AddUser(person("ada", "ada@example.com", true))
				spec := stripesim.CustomerSpec{Email: "ada@example.com", Metadata: metadata}
				if old {
					spec.Created = time.Now().Add(-time.Hour)
				}
				customer := l.Sandbox.Stripe.AddCustomer(spec)
				l.buy(stripesim.CheckoutSpec{CustomerID: customer})
				l.untold()
				b := l.bulk(l.work)
				l.exec(`UPDATE bulk_runs SET started_at = started_at - interval '1 hour'`)
				b.pass()
				if old {
					l.ownedBy(user, customer)
				} else {
					l.unowned(customer)
				}
				l.settle()
				l.aMinuteLater()
				l.ownedBy(user, customer)
				l.made(0)
				l.agree(user)
			})
		}
	}
}

// Who has paid by a Payment Link without a reference, with the address that they have verified,
// comes back. Whether or not Stripe's events were looked at by then, the checkout is theirs; whose
// address it is not is told that there is none.
func TestAReturnOfWhoIsLinkedByTheirAddress(t *testing.T) {
	t.Parallel()
	for _, looked := range []bool{false, true} {
		for _, o := range []policies{awaiting(), {linkByEmail: true}, {}} {
			t.Run(fmt.Sprintf("by address %t, after %s, the events were looked at %t", o.linkByEmail, o.linkByEmailAfter, looked), func(t *testing.T) {
				t.Parallel()
				l := newLab(t, o)
				user, _ := l.signUp("ada")
				other, _ := l.signUp("bob")
				bought := l.buy(stripesim.CheckoutSpec{Email: "Ada@example.com", PaymentLink: "plink_1"})
				l.take()
				if looked {
					l.settle()
				}
				desk := l.requests(l.work)
				desk.Wait, desk.LinkByEmail = 300*time.Millisecond, o.linkByEmail
				comesBack := func(user string) (*store.Operation, error) {
					return desk.Return(t.Context(), selfservice.Caller{UserID: user}, selfservice.Key{}, bought.SessionID)
				}
				_, err := comesBack(other)
				notFound := func(err error) {
					if code := refused(t, err); code != "session_not_found" {
						t.Errorf("refused as %s", code)
					}
				}
				notFound(err)
				op, err := comesBack(user)
				if !o.linkByEmail {
					notFound(err)
					return
				}
				if err != nil || op == nil {
					t.Fatalf("who has paid is told %+v, %v", op, err)
				}
				l.settle()
				if o.linkByEmailAfter > 0 {
					l.aMinuteLater()
				}
				l.ownedBy(user, bought.CustomerID)
				l.agree(user)
			})
		}
	}
}

// Bob signs up while a customer with his address waits for what says more, which then names ada. He
// is given a customer of his own.
func TestWhoLosesACustomerByItsAddressIsGivenAnother(t *testing.T) {
	t.Parallel()
	l := newLab(t, awaiting())
	ada, _ := l.signUp("ada")
	bought := l.buy(stripesim.CheckoutSpec{Email: "bob@example.com", ClientReferenceID: ada, Metadata: byServer(ada)})
	l.must(l.Sandbox.Stripe.Settled(t.Context()))
	held := l.Sandbox.StripeWebhooks.TakeHeld()
	deliver := func(created bool) {
		for _, m := range held {
			e, err := stripeevent.Parse(string(m.Body))
			l.must(err)
			if (e.Type == "customer.created") == created {
				l.Sandbox.StripeWebhooks.Send(m)
			}
		}
		l.settle()
	}
	deliver(true)
	bob := l.Sandbox.Clerk.AddUser(person("bob", "bob@example.com", true))
	l.settle()
	deliver(false)
	l.ownedBy(ada, bought.CustomerID)
	l.aMinuteLater()
	l.settle()
	if l.customerOf(bob) == "" {
		t.Error("bob has no customer")
	}
	l.agree(bob)
}
