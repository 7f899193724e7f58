package stripeapi

import (
	"context"

	"github.com/stripe/stripe-go/v76"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// OpenInvoices reads a subscription's open invoices, the newest first: one request, which shows the newest hundred.
// Of one that is longer overdue than that nobody needs to know.
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
