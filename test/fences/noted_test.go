package fences_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
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
					l.exec(`UPDATE person_user SET erase_retry_at = erase_retry_at - interval '10 minutes'`)
					l.exec(`UPDATE drift SET seen_at = seen_at - interval '10 minutes'`)
					l.sweep()
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
				l.exec(`UPDATE person_user SET erase_retry_at = now() WHERE erase_retry_at IS NOT NULL`)
				l.exec(`UPDATE drift SET seen_at = seen_at - interval '10 minutes'`)
				l.sweep()
			}
			l.wants("Xanthippe1x", `SELECT first_name FROM person_user WHERE clerk_user_id = $1`, user)
			l.wants("0", `SELECT count(*) FROM audit_log WHERE action IN ('user.erased', 'user.deletion_requested')`)
			l.wants("0", `SELECT count(*) FROM drift WHERE resolved_at IS NULL`)
			l.wants("", `SELECT erase_retry_at FROM person_user`)
		})
	}
}

// The product goes on handling Clerk's user.deleted by itself, and notes the deletion at any moment
// of ours. What it notes is neither our erasure nor its end.
func TestWhatTheProductNotesBesideADeletionIsNoErasure(t *testing.T) {
	t.Parallel()
	for _, columns := range []string{"deletion_requested_at", "deleted_at", both} {
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
						l.exec(`UPDATE person_user SET ` + strings.ReplaceAll(columns, ",", " = now(),") + ` = now()`)
					}
					step.then()
				}
				l.exec(`UPDATE person_user SET erase_retry_at = now() WHERE erase_retry_at IS NOT NULL`)
				l.sweep()
				l.gone(user, account.DeleteCancelAtPeriodEnd, customer)
				l.wants("1", `SELECT count(*) FROM audit_log WHERE action = 'user.erased'`)
			})
		}
	}
}
