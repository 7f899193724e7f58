package account

import "time"

// PaymentKind says what a payment fact is about.
type PaymentKind string

// The kinds of payment facts, named as Stripe names the objects.
const (
	PaymentInvoice PaymentKind = "invoice"
	PaymentIntent  PaymentKind = "payment_intent"
	PaymentCharge  PaymentKind = "charge"
	PaymentDispute PaymentKind = "dispute"
	PaymentRefund  PaymentKind = "refund"
)

// Payment is a fact about money, taken from a verified event. Facts are kept for the books
// and for analytics; they never grant access.
type Payment struct {
	ID             string // the Stripe object's id
	Kind           PaymentKind
	CustomerID     string // "" for disputes and refunds until their charge is known
	SubscriptionID string
	InvoiceID      string
	IntentID       string
	ChargeID       string
	Status         string
	Reason         string // billing_reason, failure code or dispute reason: Stripe's code, never text
	Amount         int64  // in the currency's smallest unit
	AmountPaid     int64
	AmountRefunded int64
	Currency       string
	Created        time.Time // of the object
	PaidAt         time.Time
	Attempts       int64
	// DueAt and FinalizedAt are an invoice's: until when it is to be paid where it is sent to the
	// customer, and when it was opened.
	DueAt       time.Time
	FinalizedAt time.Time
	// FailedAt is when an event told that an invoice could not be collected, or that a refund did not
	// reach the payer.
	FailedAt time.Time
}

// Rank orders the statuses of one kind of payment by how final they are. A status moves only
// to an equal or higher rank, so that an event that comes late cannot take a fact back.
// An unknown status ranks lowest but one, above nothing and below all that is known.
func (p Payment) Rank() int {
	ranks := map[PaymentKind]map[string]int{
		PaymentInvoice: {"draft": 1, "open": 2, "uncollectible": 3, "void": 4, "paid": 5},
		PaymentIntent: {
			"requires_payment_method": 1, "requires_confirmation": 2, "requires_action": 3,
			"processing": 4, "requires_capture": 5, "canceled": 6, "succeeded": 7,
		},
		PaymentCharge: {"pending": 1, "failed": 2, "succeeded": 3, "partially_refunded": 4, "refunded": 5},
		PaymentDispute: {
			"warning_needs_response": 1, "warning_under_review": 2, "warning_closed": 3,
			"needs_response": 4, "under_review": 5, "prevented": 6, "lost": 7, "won": 8,
		},
		// A refund that succeeded may fail weeks later: the payer's bank sends it back. None that failed
		// succeeds.
		PaymentRefund: {"requires_action": 1, "pending": 2, "succeeded": 3, "canceled": 4, "failed": 5},
	}
	return ranks[p.Kind][p.Status]
}
