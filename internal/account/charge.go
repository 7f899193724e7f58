package account

// PendingCharge is something that Stripe collects of a customer by itself, whoever looks at it or
// not.
type PendingCharge struct {
	// ID is that of the invoice ("in_..."), or of the invoice item ("ii_...").
	ID   string
	Kind ChargeKind
	// Amount is in the currency's smallest unit, and negative where it is credited.
	Amount int64
}

// ChargeKind says what a pending charge is.
type ChargeKind string

// The kinds of pending charges.
const (
	// ChargeItem is an invoice item that no invoice has taken in yet: a proration, or what somebody
	// has added. The next invoice of the subscription or of the customer takes it in, also the final
	// one of a subscription that ends with its period.
	ChargeItem ChargeKind = "invoice_item"
	// ChargeInvoice is a draft that Stripe will finalize, or an open invoice that it will try to
	// collect.
	ChargeInvoice ChargeKind = "invoice"
)
