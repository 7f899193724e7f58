package fences_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// noted is a user who is nothing but a row of the product's own table, in which the product has
// noted a deletion, with a customer and a subscription that name them.
func (l *lab) noted(columns string) (user, customer string) {
	l.t.Helper()
	user = l.Sandbox.Clerk.AddUser(secretive(1))
	l.Sandbox.ClerkWebhooks.TakeHeld() // years ago
	customer = l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: payer(1), Metadata: map[string]string{"clerk_user_id": user}})
	l.buy(stripesim.CheckoutSpec{CustomerID: customer})
	l.exec(`INSERT INTO person_user (clerk_user_id, first_name, email, stripe_customer_id, erase_retry_at, `+columns+`)
		VALUES ($1, 'Xanthippe1x', 'xanthippe1@secret.example', $2, now(), now() - interval '1 day'`+map[bool]string{true: `, now() - interval '1 day'`}[columns == both]+`)`, user, customer)
	l.settle()
	return user, customer
}

const both = "deletion_requested_at, deleted_at"

// A product's own note of a deletion is no erasure, and no deletion by itself: once Clerk says that
// the user is deleted, or twice that it does not have them, the billing is stopped, and what is
// personal is erased.
func TestDeletionThatTheProductHasNotedIsFinished(t *testing.T) {
	t.Parallel()
	for _, columns := range []string{"deletion_requested_at", "deleted_at", both} {
		for _, told := range []bool{true, false} {
			t.Run(columns+map[bool]string{true: ", Clerk tells of it", false: ", Clerk does not have them"}[told], func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{})
				user, customer := l.noted(columns)
				l.must(l.Sandbox.Clerk.DeleteUser(user))
				if !told {
					l.must(l.Sandbox.Clerk.Settled(t.Context()))
					l.Sandbox.ClerkWebhooks.TakeHeld() // years ago too
					l.exec(`UPDATE person_user SET erase_retry_at = now()`)
				}
				l.sweep()
				if !told {
					l.wants("0", `SELECT count(*) FROM audit_log WHERE action = 'user.deletion_requested'`)
					l.wants("true", `SELECT erase_retry_at - now() BETWEEN '9 minutes' AND '10 minutes' FROM person_user`)
					l.comesBackLater()
				}
				l.gone(user, account.DeleteCancelAtPeriodEnd, customer)
				l.wants("0", `SELECT count(*) FROM drift WHERE resolved_at IS NULL`)
				l.wants("1", `SELECT count(*) FROM audit_log WHERE action = 'user.deletion_requested' AND before IS NOT NULL`)
				l.sweep()
				l.wants("0", `SELECT count(*) FROM pokes WHERE due_at IS NOT NULL`)
			})
		}
	}
}

// comesBackLater has the sweep come back to what it would in a while, when what was missing has been so
// for ten minutes.
func (l *lab) comesBackLater() {
	l.t.Helper()
	l.exec(`UPDATE drift SET seen_at = seen_at - interval '10 minutes'`)
	l.exec(`UPDATE person_user SET erase_retry_at = now() WHERE erase_retry_at IS NOT NULL`)
	l.sweep()
}

// As long as Clerk has the user nothing is erased for the product's note, and nobody comes back to
// it.
func TestDeletionThatTheProductHasNotedErasesNobodyWhomClerkHas(t *testing.T) {
	t.Parallel()
	for _, columns := range []string{"deletion_requested_at", "deleted_at", both} {
		t.Run(columns, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, customer := l.noted(columns)
			l.sweep()
			l.sweep()
			l.wants("Xanthippe1x", `SELECT first_name FROM person_user WHERE clerk_user_id = $1`, user)
			l.wants("0", `SELECT count(*) FROM audit_log WHERE action IN ('user.erased', 'user.deletion_requested')`)
			l.wants(user, `SELECT u.clerk_user_id FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE c.stripe_customer_id = $1`, customer)
			l.wants("0", `SELECT count(*) FROM pokes WHERE due_at IS NOT NULL`)
			l.wants("", `SELECT erase_retry_at FROM person_user`)
		})
	}
}

// Clerk answers once that it does not have a user whose deletion the product has noted, and shows
// them when it is asked again: they live on.
func TestOneNotFoundOfClerkErasesNobodyWhomTheProductHasNoted(t *testing.T) {
	t.Parallel()
	for _, columns := range []string{"deletion_requested_at", "deleted_at", both} {
		t.Run(columns, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, _ := l.noted(columns)
			l.Sandbox.ClerkFaults.Add(faults.Rule{PathPrefix: "/v1/users/" + user, Status: http.StatusNotFound, Times: 1})
			l.must(l.work.lookAtUser(t.Context(), user))
			for range 2 {
				l.comesBackLater()
			}
			l.wants("Xanthippe1x", `SELECT first_name FROM person_user WHERE clerk_user_id = $1`, user)
			l.wants("0", `SELECT count(*) FROM audit_log WHERE action IN ('user.erased', 'user.deletion_requested')`)
			l.wants("0", `SELECT count(*) FROM drift WHERE resolved_at IS NULL`)
			l.wants("", `SELECT erase_retry_at FROM person_user`)
		})
	}
}

// The product goes on handling Clerk's user.deleted by itself, and notes the deletion, or takes
// back what it has noted, at any moment of ours. What it notes is neither our erasure nor its end.
func TestWhatTheProductNotesBesideADeletionIsNoErasure(t *testing.T) {
	t.Parallel()
	for columns, written := range map[string]string{
		"deletion_requested_at": "deletion_requested_at = now()", "deleted_at": "deleted_at = now()",
		both: "deletion_requested_at = now(), deleted_at = now()", "taken back": "deletion_requested_at = NULL, deleted_at = NULL",
	} {
		for _, moment := range []string{"before the mark", "behind the mark", "behind what was stopped", "behind the erasure"} {
			t.Run(columns+", "+moment, func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{})
				user := l.Sandbox.Clerk.AddUser(secretive(1))
				l.settle()
				customer := l.customerOf(user)
				l.buy(stripesim.CheckoutSpec{CustomerID: customer, ClientReferenceID: user})
				l.settle()
				l.must(l.Sandbox.Clerk.DeleteUser(user))
				for _, step := range []struct {
					name string
					then func()
				}{
					{"before the mark", func() { l.unpoked(); l.must(l.work.syncUser(t.Context(), user)) }},
					{"behind the mark", func() { l.must(l.work.lookAtCustomer(t.Context(), customer)) }},
					{"behind what was stopped", func() { l.must(l.work.lookAtUser(t.Context(), user)) }},
					{"behind the erasure", l.settle},
				} {
					if step.name == moment {
						l.exec(`UPDATE person_user SET ` + written)
					}
					step.then()
				}
				l.comesBackLater()
				l.gone(user, account.DeleteCancelAtPeriodEnd, customer)
				l.wants("true", `SELECT deletion_requested_at IS NOT NULL FROM person_user`)
				l.wants("1", `SELECT count(*) FROM audit_log WHERE action = 'user.erased'`)
			})
		}
	}
}

// Nothing is sold to a user whose deletion the product has asked for: what is open is closed by the
// next look, and nobody comes back to it.
func TestOpenCheckoutsOfANotedUserAreClosedOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, _ := l.signUp("ada")
	opened, _, err := l.requests(l.actor(policies{})).Checkout(t.Context(), l.checkoutOf(user, "k1"))
	l.must(err)
	l.exec(`UPDATE person_user SET deletion_requested_at = now()`)
	l.must(l.Store.Poke(t.Context(), account.JobSync, account.UserEntity(user)))
	l.settle()
	other := l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: payer(1), Metadata: byServer(user)})
	second := l.post("/v1/checkout/sessions", "mode", "subscription", "customer", other,
		"line_items[0][price]", l.price, "line_items[0][quantity]", "1", "success_url", "https://app.example.com/ok")
	l.settle()
	for _, session := range []string{opened.SessionID, second} {
		if is := l.stateOf(session); is != account.CheckoutExpired {
			t.Errorf("%s is %s", session, is)
		}
	}
	l.exec(`UPDATE pokes SET poked_at = now() - interval '1 hour'`)
	n, err := l.Store.Sweep(t.Context(), 10)
	if n != 0 || err != nil {
		t.Errorf("%d are swept once more (%v)", n, err)
	}
}

// What could not be closed of such a user the sweep comes back to: no deletion's own run does.
func TestCheckoutsOfANotedUserThatCannotBeClosedAreComeBackTo(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, _ := l.signUp("ada")
	opened, _, err := l.requests(l.actor(policies{})).Checkout(t.Context(), l.checkoutOf(user, "k1"))
	l.must(err)
	l.exec(`UPDATE operations SET settled_at = settled_at - interval '1 hour'`)
	l.exec(`UPDATE person_user SET deletion_requested_at = now()`)
	allow := l.Sandbox.StripeFaults.Add(faults.Rule{PathPrefix: "/v1/checkout/sessions", Status: http.StatusForbidden})
	if err := l.work.customers.ExpireCheckouts(t.Context(), activities.UserInput{ClerkUserID: user}); err == nil {
		t.Fatal("they were closed")
	}
	allow()
	l.exec(`UPDATE pokes SET poked_at = now() - interval '2 minutes'`)
	l.sweep()
	if is := l.stateOf(opened.SessionID); is != account.CheckoutExpired {
		t.Errorf("the checkout is %s", is)
	}
}

// A sweep takes of those whose checkouts are due nobody whom one before has poked, and who was not
// looked at yet.
func TestSweepTakesNobodyTwiceForCheckouts(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	l.exec(`INSERT INTO person_user (clerk_user_id, deletion_requested_at) SELECT 'user_' || n, now() FROM generate_series(1, 20) n`)
	l.exec(`INSERT INTO stripe_customers (stripe_customer_id, user_id, checkouts_due) SELECT 'cus_' || clerk_user_id, id, true FROM person_user`)
	for _, want := range []int{12, 8, 0} {
		if n, err := l.Store.Sweep(t.Context(), 12); n != want || err != nil {
			t.Errorf("%d were swept (%v), want %d", n, err, want)
		}
	}
	l.exec(`UPDATE pokes SET due_at = NULL, poked_at = now() - interval '2 minutes'`)
	if n, err := l.Store.Sweep(t.Context(), 100); n != 20 || err != nil {
		t.Errorf("%d are come back to (%v)", n, err)
	}
}

// A user whom the product has noted is deleted at Clerk weeks later, and what Clerk tells of it
// gets lost. A comparison shows it, as for everybody else.
func TestALostDeletionOfANotedUserShows(t *testing.T) {
	t.Parallel()
	for _, columns := range []string{"deletion_requested_at", "deleted_at", both} {
		t.Run(columns, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, _ := l.noted(columns)
			l.sweep() // Clerk has them
			l.wants("", `SELECT erase_retry_at FROM person_user`)
			l.must(l.Sandbox.Clerk.DeleteUser(user))
			l.untold()
			found, err := l.Store.Compare("run_1", account.DeleteCancelAtPeriodEnd).StoredUser(t.Context(), user)
			l.must(err)
			if !slices.ContainsFunc(found, func(d store.Difference) bool { return d.Class == account.DriftUserMissing }) {
				t.Errorf("found %+v", found)
			}
		})
	}
}

// The same, where a publish hears it from Clerk: the user is looked at, and erased once that is
// confirmed.
func TestAPublishThatFindsANotedUserGoneHasThemLookedAt(t *testing.T) {
	t.Parallel()
	for _, columns := range []string{"deletion_requested_at", "deleted_at", both} {
		t.Run(columns, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, customer := l.noted(columns)
			l.sweep()
			l.must(l.Sandbox.Clerk.DeleteUser(user))
			l.untold()
			l.exec(`UPDATE person_user SET published_version = projection_version - 1`)
			l.must(l.work.publish(t.Context(), user, false))
			l.settle()
			l.wants("0", `SELECT count(*) FROM audit_log WHERE action = 'user.deletion_requested'`)
			l.comesBackLater()
			l.gone(user, account.DeleteCancelAtPeriodEnd, customer)
		})
	}
}

// Whoever the product has noted as deleted, and Clerk has still, is given no customer because
// somebody comes back to the note, and no comparison asks for one. Where they ask for something
// themselves they are.
func TestComingBackToANotedDeletionMakesNoCustomer(t *testing.T) {
	t.Parallel()
	for _, columns := range []string{"deletion_requested_at", "deleted_at", both} {
		t.Run(columns, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user := l.Sandbox.Clerk.AddUser(secretive(1))
			l.untold() // years ago
			l.exec(`INSERT INTO person_user (clerk_user_id, first_name, email, erase_retry_at, `+columns+`)
				VALUES ($1, 'Xanthippe1x', 'xanthippe1@secret.example', now(), now()`+map[bool]string{true: `, now()`}[columns == both]+`)`, user)
			l.sweep()
			l.wants("", `SELECT erase_retry_at FROM person_user`)
			if n := len(l.Sandbox.Stripe.Customers()); n > 0 {
				t.Errorf("%d customers were made", n)
			}
			l.must(l.Store.NotePage(t.Context(), "run_1", store.SeenUser, []string{user}, nil))
			found, err := l.Store.Compare("run_1", account.DeleteCancelAtPeriodEnd).StoredUser(t.Context(), user)
			if len(found) > 0 || err != nil {
				t.Errorf("found %+v (%v)", found, err)
			}
			if columns != "deleted_at" {
				return // nothing is sold to them
			}
			op := l.asksSync(user)
			l.must(l.Store.Poke(t.Context(), account.JobSync, account.UserEntity(user)))
			l.settle()
			l.isStill(op, store.OperationDone, "")
			l.agree(user)
		})
	}
}
