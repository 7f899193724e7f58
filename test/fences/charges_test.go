package fences_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

// charged is what a customer has been charged in all, and the statuses of their invoices, the
// newest first.
func (l *lab) charged(customer string) (sum int64, invoices string) {
	l.t.Helper()
	var charges struct {
		Data []struct {
			Status string
			Amount int64
		}
	}
	l.must(json.Unmarshal([]byte(l.byServer(http.MethodGet, "/v1/charges?limit=100&customer="+customer, nil)), &charges))
	for _, c := range charges.Data {
		if c.Status == "succeeded" {
			sum += c.Amount
		}
	}
	var list struct{ Data []struct{ Status string } }
	l.must(json.Unmarshal([]byte(l.byServer(http.MethodGet, "/v1/invoices?limit=100&customer="+customer, nil)), &list))
	for _, i := range list.Data {
		invoices += i.Status + " "
	}
	return sum, strings.TrimSpace(invoices)
}

// times are the bounds of a subscription's period, in Unix seconds.
func (l *lab) times(subscription string) (start, end int64) {
	l.t.Helper()
	raw, _ := l.Sandbox.Stripe.Subscription(subscription)
	var s struct {
		Start int64 `json:"current_period_start"`
		End   int64 `json:"current_period_end"`
	}
	l.must(json.Unmarshal(raw, &s))
	return s.Start, s.End
}

// erases deletes a user, fails the test unless they are erased at once, and answers what was
// charged by then.
func (l *lab) erases(user, customer string) int64 {
	l.t.Helper()
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	l.settle()
	l.wants("true", erased, user)
	l.wants("0", `SELECT count(*) FROM pending_charges`)
	before, _ := l.charged(customer)
	return before
}

// notBilled fails the test where a customer is charged in the two months that follow, or is left
// with an invoice that will be.
func (l *lab) notBilled(customer string, before int64) {
	l.t.Helper()
	for range 9 {
		l.must(l.Sandbox.Stripe.Advance(l.t.Context(), 7*day))
		l.settle()
	}
	if after, invoices := l.charged(customer); after != before {
		l.t.Errorf("charged %d after the erasure: invoices %s", after-before, invoices)
	}
	pending, err := l.work.stripe.PendingCharges(l.t.Context(), customer)
	l.must(err)
	if len(pending) > 0 {
		l.t.Errorf("Stripe would still collect %+v", pending)
	}
}

// Stripe leaves the invoice of a renewal, and that of a trial's end, a draft for about an hour
// before it charges it. Whoever is deleted in that hour has not paid for the period, and is not
// charged for it; one who is on trial, or has paid, keeps what they have until it ends.
func TestWhoeverIsDeletedWhileAnInvoiceIsADraftIsNotBilled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		trial int64
		// wait is from the end of the period, or of the trial, on.
		wait       time.Duration
		before     func(l *lab, customer, subscription string)
		status     string
		endsLater  bool
		inAdvance  bool
		collection string
	}{
		"trial end":                  {trial: 7, wait: 10 * time.Minute, status: "canceled"},
		"renewal":                    {wait: 10 * time.Minute, status: "canceled"},
		"renewal, paid":              {wait: 2 * time.Hour, status: "active", endsLater: true},
		"on trial":                   {trial: 7, wait: -day, status: "trialing", endsLater: true},
		"renewal of one set to end":  {wait: 10 * time.Minute, status: "canceled", before: func(l *lab, _, s string) { l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(s)) }},
		"renewal that is to be sent": {wait: 10 * time.Minute, status: "canceled", inAdvance: true, collection: "send_invoice"},
		"renewal that was sent":      {wait: 2 * time.Hour, status: "active", endsLater: true, inAdvance: true, collection: "send_invoice"},
		"upgrade billed beside a draft": {wait: 10 * time.Minute, status: "active", endsLater: true, before: func(l *lab, _, s string) {
			raw, _ := l.Sandbox.Stripe.Subscription(s)
			var sub struct {
				Items struct{ Data []struct{ ID string } }
			}
			l.must(json.Unmarshal(raw, &sub))
			l.byServer(http.MethodPost, "/v1/subscriptions/"+s, url.Values{"items[0][id]": {sub.Items.Data[0].ID}, "items[0][price]": {l.addPrice(5000)}, "proration_behavior": {"always_invoice"}})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, customer := l.signUp("ada")
			sub := l.buy(stripesim.CheckoutSpec{CustomerID: customer, ClientReferenceID: user, TrialDays: c.trial}).SubscriptionID
			if c.inAdvance {
				l.byServer(http.MethodPost, "/v1/subscriptions/"+sub, url.Values{"collection_method": {c.collection}, "days_until_due": {"30"}})
			}
			l.settle()
			_, end := l.times(sub)
			l.must(l.Sandbox.Stripe.AdvanceTo(t.Context(), time.Unix(end, 0).Add(c.wait)))
			if c.before != nil {
				c.before(l, customer, sub)
			}
			l.settle()
			before := l.erases(user, customer)
			l.wants(fmt.Sprint(c.status, " ", c.endsLater), `SELECT status || ' ' || cancel_at_period_end FROM subscriptions WHERE stripe_subscription_id = $1`, sub)
			l.notBilled(customer, before)
		})
	}
}

// With keep billing is left alone, drafts and items too.
func TestKeepLeavesPendingChargesAlone(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{deletion: account.DeleteKeep})
	user, customer, sub := l.subscribed("ada")
	l.byServer(http.MethodPost, "/v1/invoiceitems", url.Values{"customer": {customer}, "amount": {"500"}, "currency": {"usd"}})
	_, end := l.times(sub)
	before := l.erases(user, customer)
	l.must(l.Sandbox.Stripe.AdvanceTo(t.Context(), time.Unix(end, 0).Add(2*time.Hour)))
	l.settle()
	if after, invoices := l.charged(customer); after != before+2500 {
		t.Errorf("charged %d, want 2500: invoices %s", after-before, invoices)
	}
}

// Stripe collects what is pending when a subscription ends with its period: prorations of an
// upgrade, what somebody has added, and what was used of a metered price. None of it is billed to
// whoever is erased by then. What they have paid for runs out as before.
func TestNothingPendingIsBilledAfterTheErasure(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before func(l *lab, customer, subscription string)
		status string
		audit  string
	}{
		"prorations": {func(l *lab, _, s string) { l.must(l.Sandbox.Stripe.ChangePrice(s, l.addPrice(90000))) }, "active true", "2"},
		"prorations of one set to end": {func(l *lab, _, s string) {
			l.must(l.Sandbox.Stripe.ChangePrice(s, l.addPrice(90000)))
			l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(s))
		}, "active true", "2"},
		"prorations, with a schedule": {func(l *lab, _, s string) {
			l.must(l.Sandbox.Stripe.ChangePrice(s, l.addPrice(90000)))
			l.byServer(http.MethodPost, "/v1/subscription_schedules", url.Values{"from_subscription": {s}})
		}, "active false", "2"},
		"added by hand": {func(l *lab, customer, _ string) {
			l.byServer(http.MethodPost, "/v1/invoiceitems", url.Values{"customer": {customer}, "amount": {"500"}, "currency": {"usd"}})
		}, "active true", "1"},
		"usage": {func(l *lab, _, s string) {
			var price struct{ ID string }
			l.must(json.Unmarshal([]byte(l.byServer(http.MethodPost, "/v1/prices", url.Values{"product": {l.product}, "currency": {"usd"}, "unit_amount": {"3"},
				"recurring[interval]": {"month"}, "recurring[usage_type]": {"metered"}})), &price))
			l.byServer(http.MethodPost, "/v1/subscriptions/"+s, url.Values{"items[0][price]": {price.ID}, "proration_behavior": {"none"}})
			l.must(l.Sandbox.Stripe.Use(s, 1000))
		}, "canceled false", "0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, customer, sub := l.subscribed("ada")
			l.must(l.Sandbox.Stripe.Advance(t.Context(), 24*time.Hour))
			c.before(l, customer, sub)
			l.settle()
			before := l.erases(user, customer)
			l.wants(c.status, `SELECT status || ' ' || cancel_at_period_end FROM subscriptions WHERE stripe_subscription_id = $1`, sub)
			l.wants(c.audit, `SELECT count(*) FROM audit_log WHERE action = 'pending_charge.stopped'`)
			l.notBilled(customer, before)
			if raw, _ := l.Sandbox.Stripe.Subscription(sub); stringField(t, raw, "status") != "canceled" {
				t.Error("the subscription has not ended")
			}
		})
	}
}

// One item that Stripe does not let go keeps no other from being taken away; nobody is erased
// before it is.
func TestOneItemKeepsNoOtherFromBeingTakenAway(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, customer, _ := l.subscribed("ada")
	var ids []string
	for range 3 {
		var item struct{ ID string }
		l.must(json.Unmarshal([]byte(l.byServer(http.MethodPost, "/v1/invoiceitems", url.Values{"customer": {customer}, "amount": {"500"}, "currency": {"usd"}})), &item))
		ids = append(ids, item.ID)
	}
	l.settle()
	restore := l.work.refuse("DELETE /v1/invoiceitems/"+ids[1], http.StatusServiceUnavailable, `{"error":{"type":"api_error","message":"?"}}`)
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	l.take()
	l.must(l.work.lookAtUser(t.Context(), user))
	if err := l.work.lookAtCustomer(t.Context(), customer); err == nil {
		t.Error("the customer counts as settled")
	}
	l.wants("false", `SELECT (deleted_at IS NOT NULL)::text FROM person_user WHERE clerk_user_id = $1`, user)
	pending, err := l.work.stripe.PendingCharges(t.Context(), customer)
	l.must(err)
	if len(pending) != 1 || pending[0].ID != ids[1] {
		t.Errorf("pending are %+v, want %s", pending, ids[1])
	}
	l.wants("charge_pending", `SELECT CASE WHEN EXISTS (SELECT FROM pending_charges WHERE stripe_id = $1) THEN 'charge_pending' END`, ids[1])
	restore()
	l.must(l.work.lookAtCustomer(t.Context(), customer))
	l.settle()
	l.wants("true", erased, user)
	l.wants("3", `SELECT count(*) FROM audit_log WHERE action = 'pending_charge.stopped'`)
}

// An invoice is stopped whose collection was taken up again by hand after its subscription had
// ended, and one that no subscription has.
func TestInvoiceThatAdvancesByItselfIsStopped(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, customer, sub := l.subscribed("ada")
	_, end := l.times(sub)
	l.must(l.Sandbox.Stripe.AdvanceTo(t.Context(), time.Unix(end, 0).Add(time.Minute)))
	l.must(l.Sandbox.Stripe.CancelNow(sub))
	var list struct{ Data []struct{ ID, Status string } }
	l.must(json.Unmarshal([]byte(l.byServer(http.MethodGet, "/v1/invoices?status=draft&customer="+customer, nil)), &list))
	if len(list.Data) != 1 {
		t.Fatalf("%d drafts", len(list.Data))
	}
	l.byServer(http.MethodPost, "/v1/invoices/"+list.Data[0].ID, url.Values{"auto_advance": {"true"}})
	l.settle()
	before := l.erases(user, customer)
	l.notBilled(customer, before)
}

// A change of plan that is scheduled for a day within the period does not come over whoever was
// erased before that day, whether the schedule goes on after the period or ends with it.
func TestPhaseThatHasNotBegunDoesNotComeOverAnErasedUser(t *testing.T) {
	t.Parallel()
	for _, ends := range []bool{false, true} {
		for _, prorates := range []string{"always_invoice", "create_prorations", "none"} {
			t.Run(fmt.Sprintf("ends with the period %t, %s", ends, prorates), func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{})
				dear := l.addPrice(90000)
				user, customer, sub := l.subscribed("ada")
				start, end := l.times(sub)
				mid := start + (end-start)/2
				var schedule struct{ ID string }
				l.must(json.Unmarshal([]byte(l.byServer(http.MethodPost, "/v1/subscription_schedules", url.Values{"from_subscription": {sub}})), &schedule))
				behavior, last := "release", end+31*86400
				if ends {
					behavior, last = "cancel", end
				}
				l.byServer(http.MethodPost, "/v1/subscription_schedules/"+schedule.ID, url.Values{"end_behavior": {behavior},
					"phases[0][start_date]": {fmt.Sprint(start)}, "phases[0][end_date]": {fmt.Sprint(mid)}, "phases[0][items][0][price]": {l.price},
					"phases[1][start_date]": {fmt.Sprint(mid)}, "phases[1][end_date]": {fmt.Sprint(last)}, "phases[1][items][0][price]": {dear},
					"phases[1][proration_behavior]": {prorates}})
				l.settle()
				before := l.erases(user, customer)
				l.must(l.Sandbox.Stripe.AdvanceTo(t.Context(), time.Unix(mid, 0).Add(time.Hour)))
				l.settle()
				raw, _ := l.Sandbox.Stripe.Subscription(sub)
				if strings.Contains(string(raw), dear) {
					t.Error("the subscription was moved to the dear price")
				}
				if status := stringField(t, raw, "status"); status != "active" {
					t.Errorf("what was paid for is %s", status)
				}
				l.notBilled(customer, before)
				if raw, _ = l.Sandbox.Stripe.Subscription(sub); stringField(t, raw, "status") != "canceled" {
					t.Error("the subscription has not ended")
				}
			})
		}
	}
}
