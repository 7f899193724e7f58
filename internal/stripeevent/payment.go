package stripeevent

import (
	"strings"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// Payment answers the fact about money that the event tells, and whether it tells one: events
// of invoices, payment intents, refunded charges and disputes do.
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
		CustomerID: e.customerID(),
		Status:     code(o.Status),
		Currency:   code(o.Currency),
		Created:    o.Created.time(),
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
	default:
		return account.Payment{}, false
	}
}

func (e Event) invoice(p account.Payment) account.Payment {
	o := e.object
	p.Kind = account.PaymentInvoice
	p.InvoiceID = p.ID
	p.SubscriptionID = o.subscriptionID()
	p.IntentID = withPrefix("pi_", o.PaymentIntent)
	p.ChargeID = chargeID(o.Charge)
	for _, payment := range o.Payments.Data {
		if p.IntentID == "" {
			p.IntentID = withPrefix("pi_", payment.Payment.PaymentIntent)
		}
		if p.ChargeID == "" {
			p.ChargeID = chargeID(payment.Payment.Charge)
		}
	}
	p.Reason = code(o.BillingReason)
	p.Amount = int64(o.Total)
	p.AmountPaid = int64(o.AmountPaid)
	p.Attempts = int64(o.AttemptCount)
	p.PaidAt = o.StatusTransitions.PaidAt.time()
	return p
}

func (e Event) paymentIntent(p account.Payment) account.Payment {
	o := e.object
	p.Kind = account.PaymentIntent
	p.IntentID = p.ID
	p.InvoiceID = withPrefix("in_", o.Invoice)
	p.ChargeID = chargeID(o.LatestCharge)
	p.Reason = code(o.LastPaymentError.DeclineCode)
	if p.Reason == "" {
		p.Reason = code(o.LastPaymentError.Code)
	}
	p.Amount = int64(o.Amount)
	p.AmountPaid = int64(o.AmountReceived)
	p.PaidAt = e.paidNow(p.Status == "succeeded")
	return p
}

func (e Event) charge(p account.Payment) account.Payment {
	o := e.object
	p.Kind = account.PaymentCharge
	p.ChargeID = p.ID
	p.IntentID = withPrefix("pi_", o.PaymentIntent)
	p.InvoiceID = withPrefix("in_", o.Invoice)
	p.Reason = code(o.FailureCode)
	p.Amount = int64(o.Amount)
	p.AmountPaid = int64(o.AmountCaptured)
	p.AmountRefunded = int64(o.AmountRefunded)
	// Stripe leaves the status at "succeeded" when a charge is refunded.
	switch {
	case bool(o.Refunded):
		p.Status = "refunded"
	case o.AmountRefunded > 0:
		p.Status = "partially_refunded"
	}
	return p
}

func (e Event) dispute(p account.Payment) account.Payment {
	o := e.object
	p.Kind = account.PaymentDispute
	p.ChargeID = chargeID(o.Charge)
	p.IntentID = withPrefix("pi_", o.PaymentIntent)
	p.Reason = code(o.Reason)
	p.Amount = int64(o.Amount)
	return p
}

// paidNow answers the event's time if the event is the payment itself.
func (e Event) paidNow(paid bool) time.Time {
	if !paid {
		return time.Time{}
	}
	return e.Created
}

// code takes a text that is one of Stripe's codes. Anything else could be a text about a person.
func code(t text) string {
	if len(t) > 64 || strings.IndexFunc(string(t), notOfACode) >= 0 {
		return ""
	}
	return string(t)
}

func notOfACode(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_'
}

func chargeID(r ref) string {
	if !account.ValidChargeID(string(r)) {
		return ""
	}
	return string(r)
}

func withPrefix(prefix string, r ref) string {
	if !hasPrefix(prefix, string(r)) {
		return ""
	}
	return string(r)
}

// hasPrefix tells whether an id has a prefix and something behind it.
func hasPrefix(prefix, id string) bool {
	return len(id) > len(prefix) && strings.HasPrefix(id, prefix)
}
