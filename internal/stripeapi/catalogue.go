package stripeapi

import (
	"context"

	"github.com/stripe/stripe-go/v76"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

// Product reads a product with all its prices, the archived ones too, which running subscriptions
// may still have. Of one that has very many, the archived ones are left out, and it says so.
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
	product := toProduct(p)
	if p.Deleted {
		// Stripe deletes a product only when it has no prices.
		return product, nil
	}
	var complete bool
	if product.Prices, complete, err = c.prices(ctx, productID, false, fewPages); err == nil && !complete {
		// One that prices are made for as they are sold: most are archived, and nobody asks for them any
		// more.
		product.PricesPartial = true
		product.Prices, _, err = c.prices(ctx, productID, true, maxPages)
	}
	if err != nil {
		return account.Product{}, err
	}
	return product, nil
}

func toProduct(p *stripe.Product) account.Product {
	return account.Product{
		ID: p.ID, Name: p.Name, Active: p.Active, Deleted: p.Deleted,
		Beside: account.AllowsBeside(p.Metadata), AddOn: account.IsAddOn(p.Metadata),
	}
}

// unitAmount is what a unit of a price costs in the smallest unit of the price's currency. It is
// unpriced where no whole number says that: Stripe's unit_amount is null for a fraction, for tiers,
// and where the payer decides, and for a package it is what several units cost together.
func unitAmount(p *stripe.Price) (amount int64, unpriced bool) {
	fraction := p.UnitAmount == 0 && p.UnitAmountDecimal != 0
	if fraction || p.TransformQuantity != nil || p.CustomUnitAmount != nil || p.BillingScheme == stripe.PriceBillingSchemeTiered {
		return 0, true
	}
	return p.UnitAmount, false
}

// fewPages is how much of a product's prices is read before those that are archived are left out.
const fewPages = 10

// ProductPrices lists all prices of a product, the archived ones too.
func (c *Client) ProductPrices(ctx context.Context, productID string) ([]account.Price, error) {
	const op = "list prices"
	if !account.ValidProductID(productID) {
		return nil, badID(op)
	}
	prices, complete, err := c.prices(ctx, productID, false, maxPages)
	if err == nil && !complete {
		return nil, failure.New(failure.Transient, provider, op, "list_does_not_end", nil)
	}
	return prices, err
}

// prices lists the prices of a product, up to so many pages, and tells whether that is all of them;
// the archived ones too, unless only the active ones are asked for.
func (c *Client) prices(ctx context.Context, productID string, active bool, most int) (prices []account.Price, complete bool, err error) {
	list, complete, err := upTo(ctx, "list prices", most, func(p *stripe.Price) string { return p.ID },
		func(ctx context.Context, after *string) (page[*stripe.Price], error) {
			params := &stripe.PriceListParams{ListParams: listParams(ctx, pageSize, after), Product: stripe.String(productID)}
			if active {
				params.Active = stripe.Bool(true)
			}
			it := c.sdk.Prices.List(params)
			return collect(it, it.Price)
		})
	if err != nil {
		return nil, false, err
	}
	prices = make([]account.Price, 0, len(list))
	for _, p := range list {
		prices = append(prices, toPrice(p, productID))
	}
	return prices, complete, nil
}

// Price reads one price.
func (c *Client) Price(ctx context.Context, priceID string) (account.Price, error) {
	const op = "read price"
	if !account.ValidPriceID(priceID) {
		return account.Price{}, badID(op)
	}
	p, err := do(ctx, op, func(ctx context.Context) (*stripe.Price, error) {
		params := &stripe.PriceParams{}
		params.Context = ctx
		return c.sdk.Prices.Get(priceID, params)
	})
	if err != nil {
		return account.Price{}, err
	}
	if p.ID != priceID || p.Product == nil {
		return account.Price{}, badBody(op)
	}
	return toPrice(p, p.Product.ID), nil
}

func toPrice(p *stripe.Price, productID string) account.Price {
	price := account.Price{
		ID:        p.ID,
		ProductID: productID,
		Active:    p.Active,
		Currency:  string(p.Currency),
		LookupKey: p.LookupKey,
	}
	price.UnitAmount, price.Unpriced = unitAmount(p)
	if p.Recurring != nil {
		price.Interval = string(p.Recurring.Interval)
		price.IntervalCount = p.Recurring.IntervalCount
		price.UsageType = string(p.Recurring.UsageType)
	}
	return price
}

// ChargeCustomer answers the customer of a charge, or of the payment intent that stands for one, ""
// where it has none. A dispute or a refund names what was paid, and no customer.
func (c *Client) ChargeCustomer(ctx context.Context, id string) (customerID string, err error) {
	const op = "read charge"
	var customer *stripe.Customer
	var shown string
	switch {
	case account.ValidChargeID(id):
		charge, err := do(ctx, op, func(ctx context.Context) (*stripe.Charge, error) {
			params := &stripe.ChargeParams{}
			params.Context = ctx
			return c.sdk.Charges.Get(id, params)
		})
		if err != nil {
			return "", err
		}
		shown, customer = charge.ID, charge.Customer
	case account.ValidPaymentIntentID(id):
		intent, err := do(ctx, op, func(ctx context.Context) (*stripe.PaymentIntent, error) {
			params := &stripe.PaymentIntentParams{}
			params.Context = ctx
			return c.sdk.PaymentIntents.Get(id, params)
		})
		if err != nil {
			return "", err
		}
		shown, customer = intent.ID, intent.Customer
	default:
		return "", badID(op)
	}
	if shown != id {
		return "", badBody(op)
	}
	if customer == nil {
		return "", nil
	}
	if !account.ValidCustomerID(customer.ID) {
		return "", badBody(op)
	}
	return customer.ID, nil
}
