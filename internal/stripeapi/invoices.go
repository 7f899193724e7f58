package stripeapi

import (
	"context"

	"github.com/stripe/stripe-go/v76"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// OpenInvoices reads a subscription's open invoices, the newest first: one request, which shows the
// newest hundred. Of one that is longer overdue than that nobody needs to know.
func (c *Client) OpenInvoices(ctx context.Context, subscriptionID string) ([]account.Payment, error) {
	const op = "list open invoices"
	if !wellFormed("sub_", subscriptionID) {
		return nil, badID(op)
	}
	list, _, err := onePage(ctx, op, "", func(i *stripe.Invoice) string { return i.ID },
		func(ctx context.Context, after *string) (page[*stripe.Invoice], error) {
			it := c.sdk.Invoices.List(&stripe.InvoiceListParams{
				ListParams:   listParams(ctx, pageSize, after),
				Subscription: stripe.String(subscriptionID),
				Status:       stripe.String(string(stripe.InvoiceStatusOpen)),
			})
			return collect(it, it.Invoice)
		})
	if err != nil {
		return nil, err
	}
	invoices := make([]account.Payment, 0, len(list))
	for _, i := range list {
		if i.Status != stripe.InvoiceStatusOpen || i.Customer == nil {
			return nil, badBody(op)
		}
		invoices = append(invoices, toInvoice(i, subscriptionID))
	}
	return invoices, nil
}

func toInvoice(i *stripe.Invoice, subscriptionID string) account.Payment {
	invoice := account.Payment{
		ID: i.ID, Kind: account.PaymentInvoice, CustomerID: i.Customer.ID, SubscriptionID: subscriptionID, InvoiceID: i.ID,
		Status: string(i.Status), Reason: string(i.BillingReason), Amount: i.Total, AmountPaid: i.AmountPaid, Currency: string(i.Currency),
		Created: unix(i.Created), DueAt: unix(i.DueDate), Attempts: i.AttemptCount,
	}
	if i.PaymentIntent != nil {
		invoice.IntentID = i.PaymentIntent.ID
	}
	if i.Charge != nil {
		invoice.ChargeID = i.Charge.ID
	}
	if i.StatusTransitions != nil {
		invoice.FinalizedAt = unix(i.StatusTransitions.FinalizedAt)
	}
	return invoice
}

// outstanding tells whether Stripe may still collect an invoice: a draft, which it finalizes after
// about an hour, or an open one that it charges by itself. One that it sends may be paid or not, as
// whoever got it likes.
func outstanding(i *stripe.Invoice) bool {
	return i.Status == stripe.InvoiceStatusDraft || i.Status == stripe.InvoiceStatusOpen && i.CollectionMethod != stripe.InvoiceCollectionMethodSendInvoice
}

// PendingCharges reads what Stripe will collect of a customer by itself, or fails as a whole:
// invoice items that no invoice has taken in yet, which the next one does, and invoices that
// advance by themselves. The items are read first: one that an invoice takes in meanwhile shows
// with that. Of a customer that Stripe does not know it answers an error for which
// failure.IsNotFound holds.
func (c *Client) PendingCharges(ctx context.Context, customerID string) ([]account.PendingCharge, error) {
	const op = "list pending charges"
	if !account.ValidCustomerID(customerID) {
		return nil, badID(op)
	}
	items, err := all(ctx, op, func(i *stripe.InvoiceItem) string { return i.ID },
		func(ctx context.Context, after *string) (page[*stripe.InvoiceItem], error) {
			it := c.sdk.InvoiceItems.List(&stripe.InvoiceItemListParams{
				ListParams: listParams(ctx, pageSize, after),
				Customer:   stripe.String(customerID),
				Pending:    stripe.Bool(true),
			})
			return collect(it, it.InvoiceItem)
		})
	if err != nil {
		return nil, err
	}
	invoices, err := all(ctx, op, func(i *stripe.Invoice) string { return i.ID },
		func(ctx context.Context, after *string) (page[*stripe.Invoice], error) {
			it := c.sdk.Invoices.List(&stripe.InvoiceListParams{
				ListParams: listParams(ctx, pageSize, after),
				Customer:   stripe.String(customerID),
			})
			return collect(it, it.Invoice)
		})
	if err != nil {
		return nil, err
	}
	var pending []account.PendingCharge
	for _, i := range items {
		if i.Customer == nil || i.Customer.ID != customerID {
			return nil, badBody(op)
		}
		pending = append(pending, account.PendingCharge{ID: i.ID, Kind: account.ChargeItem, Amount: i.Amount})
	}
	for _, i := range invoices {
		if i.Customer == nil || i.Customer.ID != customerID || i.Status == "" {
			return nil, badBody(op)
		}
		if i.AutoAdvance && outstanding(i) {
			pending = append(pending, account.PendingCharge{ID: i.ID, Kind: account.ChargeInvoice, Amount: i.AmountDue})
		}
	}
	return pending, nil
}

// StopCollecting keeps an invoice from advancing by itself: a draft stays one, and an open one is
// not charged any more. Stripe refuses it for one that is paid, void or uncollectible.
func (c *Client) StopCollecting(ctx context.Context, invoiceID, idempotencyKey string) error {
	const op = "stop collecting invoice"
	if !wellFormed("in_", invoiceID) {
		return badID(op)
	}
	if !usableKey(idempotencyKey) {
		return badKey(op)
	}
	_, err := do(ctx, op, func(ctx context.Context) (*stripe.Invoice, error) {
		params := &stripe.InvoiceParams{AutoAdvance: stripe.Bool(false)}
		params.Context = ctx
		params.SetIdempotencyKey(idempotencyKey)
		return c.sdk.Invoices.Update(invoiceID, params)
	})
	return err
}

// Collecting tells whether Stripe will collect an invoice by itself.
func (c *Client) Collecting(ctx context.Context, invoiceID string) (bool, error) {
	const op = "read invoice"
	if !wellFormed("in_", invoiceID) {
		return false, badID(op)
	}
	i, err := do(ctx, op, func(ctx context.Context) (*stripe.Invoice, error) {
		params := &stripe.InvoiceParams{}
		params.Context = ctx
		return c.sdk.Invoices.Get(invoiceID, params)
	})
	if err != nil {
		return false, err
	}
	if i.ID != invoiceID || i.Status == "" {
		return false, badBody(op)
	}
	return i.AutoAdvance && outstanding(i), nil
}

// DeleteInvoiceItem takes away an invoice item that no invoice has taken in for good. Stripe
// answers "not found" for one that is gone.
func (c *Client) DeleteInvoiceItem(ctx context.Context, itemID string) error {
	const op = "delete invoice item"
	if !wellFormed("ii_", itemID) {
		return badID(op)
	}
	_, err := do(ctx, op, func(ctx context.Context) (*stripe.InvoiceItem, error) {
		params := &stripe.InvoiceItemParams{}
		params.Context = ctx
		return c.sdk.InvoiceItems.Del(itemID, params)
	})
	return err
}
