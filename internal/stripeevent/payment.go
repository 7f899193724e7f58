package stripeevent

import (
	"strings"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// Payment answers the fact about money that the event tells, and whether it tells one: events
// of invoices, payment intents, refunded charges, refunds and disputes do.
//
// The fact's own id stands in the field of its kind as well (ChargeID of a charge, and so on), so
// that everything about one charge can be found by one field. Payloads from 2025-03-31.basil on
// do not say which payment intent paid an invoice, nor which invoice a payment intent paid.
func (e Event) Payment() (account.Payment, bool) {
	if !Handled(e.Type) || e.ObjectID == "" {
		return account.Payment{}, false
	}
	o := e.object
	p := account.Payment{
		ID:         e.ObjectID,
		CustomerID: e.customer,
		Status:     code(text(o.Get("status"))),
		Currency:   code(text(o.Get("currency"))),
		Created:    moment(o.Get("created")),
	}
	switch {
	case strings.HasPrefix(e.Type, "invoice.") && hasPrefix("in_", p.ID):
		return e.invoice(p), true
	case strings.HasPrefix(e.Type, "payment_intent.") && hasPrefix("pi_", p.ID):
		return e.paymentIntent(p), true
	case e.Type == "charge.refunded" && account.ValidChargeID(p.ID):
		return e.charge(p), true
	case strings.HasPrefix(e.Type, "charge.dispute.") && (hasPrefix("dp_", p.ID) || hasPrefix("du_", p.ID)):
		return e.dispute(p), true
	case isRefund(e.Type) && (hasPrefix("re_", p.ID) || hasPrefix("pyr_", p.ID)):
		return e.refund(p), true
	default:
		return account.Payment{}, false
	}
}

func (e Event) invoice(p account.Payment) account.Payment {
	o := e.object
	p.Kind = account.PaymentInvoice
	p.InvoiceID = p.ID
	p.SubscriptionID = subscriptionOf(o)
	p.IntentID = withPrefix("pi_", reference(o.Get("payment_intent")))
	p.ChargeID = chargeID(reference(o.Get("charge")))
	for _, payment := range o.Get("payments.data.#.payment").Array() {
		if p.IntentID == "" {
			p.IntentID = withPrefix("pi_", reference(payment.Get("payment_intent")))
		}
		if p.ChargeID == "" {
			p.ChargeID = chargeID(reference(payment.Get("charge")))
		}
	}
	p.Reason = code(text(o.Get("billing_reason")))
	p.Amount = number(o.Get("total"))
	p.AmountPaid = number(o.Get("amount_paid"))
	p.Attempts = number(o.Get("attempt_count"))
	p.PaidAt = moment(o.Get("status_transitions.paid_at"))
	p.FinalizedAt = moment(o.Get("status_transitions.finalized_at"))
	p.DueAt = moment(o.Get("due_date"))
	if e.Type == "invoice.payment_failed" {
		p.FailedAt = e.Created
	}
	return p
}

func (e Event) paymentIntent(p account.Payment) account.Payment {
	o := e.object
	p.Kind = account.PaymentIntent
	p.IntentID = p.ID
	p.InvoiceID = withPrefix("in_", reference(o.Get("invoice")))
	p.ChargeID = chargeID(reference(o.Get("latest_charge")))
	p.Reason = code(text(o.Get("last_payment_error.decline_code")))
	if p.Reason == "" {
		p.Reason = code(text(o.Get("last_payment_error.code")))
	}
	p.Amount = number(o.Get("amount"))
	p.AmountPaid = number(o.Get("amount_received"))
	p.PaidAt = e.paidNow(p.Status == "succeeded")
	return p
}

func (e Event) charge(p account.Payment) account.Payment {
	o := e.object
	p.Kind = account.PaymentCharge
	p.ChargeID = p.ID
	p.IntentID = withPrefix("pi_", reference(o.Get("payment_intent")))
	p.InvoiceID = withPrefix("in_", reference(o.Get("invoice")))
	p.Reason = code(text(o.Get("failure_code")))
	p.Amount = number(o.Get("amount"))
	p.AmountPaid = number(o.Get("amount_captured"))
	p.AmountRefunded = number(o.Get("amount_refunded"))
	// Stripe leaves the status at "succeeded" when a charge is refunded.
	switch {
	case flag(o.Get("refunded")):
		p.Status = "refunded"
	case p.AmountRefunded > 0:
		p.Status = "partially_refunded"
	}
	return p
}

func (e Event) dispute(p account.Payment) account.Payment {
	o := e.object
	p.Kind = account.PaymentDispute
	p.ChargeID = chargeID(reference(o.Get("charge")))
	p.IntentID = withPrefix("pi_", reference(o.Get("payment_intent")))
	p.Reason = code(text(o.Get("reason")))
	p.Amount = number(o.Get("amount"))
	return p
}

func (e Event) refund(p account.Payment) account.Payment {
	o := e.object
	p.Kind = account.PaymentRefund
	p.ChargeID = chargeID(reference(o.Get("charge")))
	p.IntentID = withPrefix("pi_", reference(o.Get("payment_intent")))
	p.Reason = code(text(o.Get("reason")))
	p.Amount = number(o.Get("amount"))
	if p.Status == "failed" || p.Status == "canceled" {
		p.FailedAt = e.Created
		if why := code(text(o.Get("failure_reason"))); why != "" {
			p.Reason = why
		}
	}
	return p
}

// isRefund tells whether the object of events of a type is a refund.
func isRefund(eventType string) bool {
	return strings.HasPrefix(eventType, "refund.") || strings.HasPrefix(eventType, "charge.refund.")
}

// paidNow answers the event's time if the event is the payment itself.
func (e Event) paidNow(paid bool) time.Time {
	if !paid {
		return time.Time{}
	}
	return e.Created
}

// code takes a text that is one of Stripe's codes. Anything else could be a text about a person.
func code(t string) string {
	if len(t) > 64 || strings.IndexFunc(t, notOfACode) >= 0 {
		return ""
	}
	return t
}

func notOfACode(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_'
}

func chargeID(id string) string {
	if !account.ValidChargeID(id) {
		return ""
	}
	return id
}

func withPrefix(prefix, id string) string {
	if !hasPrefix(prefix, id) {
		return ""
	}
	return id
}

// hasPrefix tells whether an id has a prefix and something behind it.
func hasPrefix(prefix, id string) bool {
	return len(id) > len(prefix) && strings.HasPrefix(id, prefix)
}
