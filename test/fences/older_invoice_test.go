package fences_test

import (
	"net/http"
	"net/url"
	"strconv"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

// owing are subscribers of whom Stripe says that they are active, or on trial, while an invoice of
// before is open that it goes on trying to collect: a newer one was paid since, or none is due. The
// latest invoice tells nothing of it.
func owing() map[string]func(l *lab) (user, customer, subscription string) {
	return map[string]func(l *lab) (user, customer, subscription string){
		"a renewal that failed, and another plan since": func(l *lab) (user, customer, subscription string) {
			year := l.Sandbox.Stripe.AddPrice(l.product, 20000, "year")
			user, customer, subscription = l.subscribed("ada")
			l.failsToRenew(customer)
			l.must(l.Sandbox.Stripe.ChangePrice(subscription, year))
			return user, customer, subscription
		},
		"a renewal that failed, and a trial since": func(l *lab) (user, customer, subscription string) {
			user, customer, subscription = l.subscribed("ada")
			l.failsToRenew(customer)
			end := strconv.FormatInt(l.Sandbox.Stripe.Now().Add(60*day).Unix(), 10)
			l.byServer(http.MethodPost, "/v1/subscriptions/"+subscription, url.Values{"trial_end": {end}, "proration_behavior": {"none"}})
			return user, customer, subscription
		},
		"a renewal that failed, and a second one that was paid": func(l *lab) (user, customer, subscription string) {
			user, customer, subscription = l.subscribed("ada")
			l.failsToRenew(customer)
			l.byServer(http.MethodPost, "/v1/subscriptions/"+subscription, url.Values{"billing_cycle_anchor": {"now"}, "proration_behavior": {"none"}})
			return user, customer, subscription
		},
	}
}

// failsToRenew has a customer's renewal fail, after which they have a new card.
func (l *lab) failsToRenew(customer string) {
	l.t.Helper()
	l.settle()
	l.must(l.Sandbox.Stripe.SetPayments(customer, false))
	l.must(l.Sandbox.Stripe.Advance(l.t.Context(), 32*day))
	l.settle()
	l.wants("past_due", `SELECT status FROM subscriptions`)
	l.must(l.Sandbox.Stripe.SetPayments(customer, true))
}

// The older invoice of whoever is deleted is not collected after they were erased, nor does the
// erasure wait for it. What they have paid for runs out. Of whoever stays it is collected, and so
// it is with keep.
func TestOlderOpenInvoiceOfADeletedUserIsNotCollected(t *testing.T) {
	t.Parallel()
	for name, life := range owing() {
		for _, c := range []struct {
			who     string
			policy  account.DeletionPolicy
			deleted bool
		}{
			{"deleted", account.DeleteCancelAtPeriodEnd, true},
			{"deleted, ended at once", account.DeleteCancelNow, true},
			{"deleted, kept", account.DeleteKeep, true},
			{"stays", account.DeleteCancelAtPeriodEnd, false},
		} {
			t.Run(name+", "+c.who, func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{deletion: c.policy})
				user, customer, subscription := life(l)
				l.settle()
				if status := l.text(`SELECT status FROM subscriptions`); status != "active" && status != "trialing" {
					t.Fatalf("the subscription is %s", status)
				}
				l.wants("1", `SELECT count(*) FROM payments WHERE kind = 'invoice' AND status = 'open'`)
				paid := l.text(`SELECT current_period_end FROM subscriptions`)
				if c.deleted {
					l.must(l.Sandbox.Clerk.DeleteUser(user))
					l.settle()
					l.wants("true", erased, user)
				}
				before, _ := l.charged(customer)
				l.must(l.Sandbox.Stripe.Advance(t.Context(), 20*day)) // the next tries, and no renewal
				l.settle()
				after, invoices := l.charged(customer)
				stopped := c.deleted && c.policy != account.DeleteKeep
				if collected := after > before; collected == stopped {
					t.Errorf("charged %d since: invoices %s", after-before, invoices)
				}
				if !stopped {
					return
				}
				if ends := l.runsOn(subscription); ends {
					t.Error("the subscription goes on")
				}
				if c.policy == account.DeleteCancelAtPeriodEnd && l.text(`SELECT status FROM subscriptions`) != "canceled" { // as that is whose latest invoice is the open one
					l.wants(paid, `SELECT current_period_end FROM subscriptions WHERE status = 'active' AND cancel_at_period_end`)
				}
				l.notBilled(customer, after)
			})
		}
	}
}

// Nor is that of a customer who becomes known as an erased user's only then.
func TestOlderOpenInvoiceThatBecomesKnownAfterTheErasureIsNotCollected(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	year := l.Sandbox.Stripe.AddPrice(l.product, 20000, "year")
	user := l.Sandbox.Clerk.AddUser(late(true))
	var bought stripesim.CheckoutResult
	tell := l.without(func() {
		bought = l.buy(stripesim.CheckoutSpec{Email: lateTyped, ClientReferenceID: user, PaymentLink: "plink_1"})
		l.must(l.Sandbox.Stripe.SetPayments(bought.CustomerID, false))
		l.must(l.Sandbox.Stripe.Advance(t.Context(), 32*day))
		l.must(l.Sandbox.Stripe.SetPayments(bought.CustomerID, true))
		l.must(l.Sandbox.Stripe.ChangePrice(bought.SubscriptionID, year))
	})
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	l.settle()
	l.erased(user)
	tell()
	l.settle()
	if l.runsOn(bought.SubscriptionID) {
		t.Error("the subscription of an erased user goes on")
	}
	before, _ := l.charged(bought.CustomerID)
	l.notBilled(bought.CustomerID, before)
}
