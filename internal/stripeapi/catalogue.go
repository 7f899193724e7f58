package stripeapi

import (
	"context"

	"github.com/stripe/stripe-go/v76"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// Product reads a product with all its prices, the archived ones too, which running
// subscriptions may still have.
func (c *Client) Product(ctx context.Context, productID string) (account.Product, error) {
	const op = "read product"
	if !account.ValidProductID(productID) {
		return account.Product{}, badID(op)
	}
	p, err := do(ctx, op, func(ctx context.Context) (*stripe.Product, error) {
		params := &stripe.ProductParams{}
		params.Context = ctx
		return c.sdk.Products.Get(productID, params)
	})
	if err != nil {
		return account.Product{}, err
	}
	if p.ID != productID {
		return account.Product{}, badBody(op)
	}
	product := account.Product{ID: p.ID, Name: p.Name, Active: p.Active, Deleted: p.Deleted, Beside: account.AllowsBeside(p.Metadata)}
	if p.Deleted {
		// Stripe deletes a product only when it has no prices.
		return product, nil
	}
	product.Prices, err = c.ProductPrices(ctx, productID)
	if err != nil {
		return account.Product{}, err
	}
	return product, nil
}

// ProductPrices lists all prices of a product, the archived ones too.
func (c *Client) ProductPrices(ctx context.Context, productID string) ([]account.Price, error) {
	const op = "list prices"
	if !account.ValidProductID(productID) {
		return nil, badID(op)
	}
	list, err := all(ctx, op, func(p *stripe.Price) string { return p.ID },
		func(ctx context.Context, after *string) (page[*stripe.Price], error) {
			it := c.sdk.Prices.List(&stripe.PriceListParams{
				ListParams: listParams(ctx, pageSize, after),
				Product:    stripe.String(productID),
			})
			return collect(it, it.Price)
		})
	if err != nil {
		return nil, err
	}
	prices := make([]account.Price, 0, len(list))
	for _, p := range list {
		prices = append(prices, toPrice(p, productID))
	}
	return prices, nil
}

func toPrice(p *stripe.Price, productID string) account.Price {
	price := account.Price{
		ID:         p.ID,
		ProductID:  productID,
		Active:     p.Active,
		UnitAmount: p.UnitAmount,
		Currency:   string(p.Currency),
		LookupKey:  p.LookupKey,
	}
	if p.Recurring != nil {
		price.Interval = string(p.Recurring.Interval)
		price.IntervalCount = p.Recurring.IntervalCount
		price.UsageType = string(p.Recurring.UsageType)
	}
	return price
}

// ChargeCustomer answers the customer of a charge, "" where it has none. A dispute names its
// charge and no customer.
func (c *Client) ChargeCustomer(ctx context.Context, chargeID string) (customerID string, err error) {
	const op = "read charge"
	if !account.ValidChargeID(chargeID) {
		return "", badID(op)
	}
	charge, err := do(ctx, op, func(ctx context.Context) (*stripe.Charge, error) {
		params := &stripe.ChargeParams{}
		params.Context = ctx
		return c.sdk.Charges.Get(chargeID, params)
	})
	if err != nil {
		return "", err
	}
	if charge.ID != chargeID {
		return "", badBody(op)
	}
	if charge.Customer == nil {
		return "", nil
	}
	if !account.ValidCustomerID(charge.Customer.ID) {
		return "", badBody(op)
	}
	return charge.Customer.ID, nil
}
