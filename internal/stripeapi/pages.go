package stripeapi

import (
	"context"
	"encoding/json"
	"time"

	"github.com/stripe/stripe-go/v76"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeevent"
)

// The lists of everything that the account has, a page at a time, the newest first. Each takes the
// id that the page is to continue behind, "" for the first page, and answers the id that the next
// one continues behind, "" after the last. What is added meanwhile is not on later pages, and
// nothing that is there is passed over. An object that is deleted meanwhile ends no list: behind
// its id, after an "@", may stand when it was made, and the list goes on from there (see resume).

// EventsPage lists events from a moment on. Stripe lists those of the last 30 days.
func (c *Client) EventsPage(ctx context.Context, from time.Time, after string) (events []stripeevent.Listed, next string, err error) {
	const op = "list events"
	bodies := map[string]json.RawMessage{}
	list, next, err := resume(after, func(after string, until int64) ([]*stripe.Event, string, error) {
		return onePage(ctx, op, after, func(e *stripe.Event) string { return e.ID },
			func(ctx context.Context, after *string) (page[*stripe.Event], error) {
				it := c.sdk.Events.List(&stripe.EventListParams{
					ListParams:   listParams(ctx, pageSize, after),
					CreatedRange: &stripe.RangeQueryParams{GreaterThanOrEqual: from.Unix(), LesserThanOrEqual: until},
				})
				p, err := collect(it, it.Event)
				if err == nil {
					err = elements(raw(it.EventList().LastResponse), bodies)
				}
				return p, err
			})
	})
	if err != nil {
		return nil, "", err
	}
	for _, e := range list {
		body := bodies[e.ID]
		if len(body) == 0 {
			return nil, "", badBody(op)
		}
		events = append(events, stripeevent.Listed{ID: e.ID, Type: string(e.Type), Created: unix(e.Created), Body: body})
	}
	return events, next, nil
}

// elements takes the elements of a list as they stand in the answer, by their ids: what the SDK
// makes of them has lost what it does not know.
func elements(answer []byte, into map[string]json.RawMessage) error {
	var list struct {
		Data []json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(answer, &list); err != nil {
		return err
	}
	for _, element := range list.Data {
		var named struct {
			ID string `json:"id"`
		}
		if err := json.Unmarshal(element, &named); err != nil {
			return err
		}
		into[named.ID] = element
	}
	return nil
}

// CustomersPage lists customers. Those that were deleted are not among them.
func (c *Client) CustomersPage(ctx context.Context, after string) (customers []account.Customer, next string, err error) {
	list, next, err := resume(after, func(after string, until int64) ([]*stripe.Customer, string, error) {
		return onePage(ctx, "list customers", after, func(c *stripe.Customer) string { return c.ID },
			func(ctx context.Context, after *string) (page[*stripe.Customer], error) {
				it := c.sdk.Customers.List(&stripe.CustomerListParams{ListParams: listParams(ctx, pageSize, after), CreatedRange: madeUntil(until)})
				return collect(it, it.Customer)
			})
	})
	for _, each := range list {
		customers = append(customers, toCustomer(each))
	}
	return customers, next, err
}

// SubscriptionsPage lists subscriptions of any status, each with its latest invoice. One of which
// Stripe leaves out items, and does not answer for them, is Unread: it holds up no other.
func (c *Client) SubscriptionsPage(ctx context.Context, after string) (subscriptions []account.Subscription, next string, err error) {
	const op = "list all subscriptions"
	var answer []byte
	list, next, err := resume(after, func(after string, until int64) ([]*stripe.Subscription, string, error) {
		return onePage(ctx, op, after, func(s *stripe.Subscription) string { return s.ID },
			func(ctx context.Context, after *string) (page[*stripe.Subscription], error) {
				params := &stripe.SubscriptionListParams{ListParams: listParams(ctx, pageSize, after), Status: stripe.String("all"), CreatedRange: madeUntil(until)}
				params.AddExpand("data.latest_invoice")
				params.AddExpand("data.schedule")
				it := c.sdk.Subscriptions.List(params)
				p, err := collect(it, it.Subscription)
				if err == nil {
					answer = raw(it.SubscriptionList().LastResponse)
				}
				return p, err
			})
	})
	if err != nil {
		return nil, "", err
	}
	for _, each := range list {
		if each.Customer == nil || each.Customer.ID == "" {
			return nil, "", badBody(op)
		}
		subscription, err := c.listed(ctx, op, each, answer)
		if err != nil {
			return nil, "", err
		}
		subscriptions = append(subscriptions, subscription)
	}
	return subscriptions, next, nil
}

// ProductsPage lists products, archived ones too, without their prices.
func (c *Client) ProductsPage(ctx context.Context, after string) (products []account.Product, next string, err error) {
	list, next, err := resume(after, func(after string, until int64) ([]*stripe.Product, string, error) {
		return onePage(ctx, "list products", after, func(p *stripe.Product) string { return p.ID },
			func(ctx context.Context, after *string) (page[*stripe.Product], error) {
				it := c.sdk.Products.List(&stripe.ProductListParams{ListParams: listParams(ctx, pageSize, after), CreatedRange: madeUntil(until)})
				return collect(it, it.Product)
			})
	})
	for _, each := range list {
		product := toProduct(each)
		product.Created = unix(each.Created)
		products = append(products, product)
	}
	return products, next, err
}

// PricesPage lists prices, archived ones too.
func (c *Client) PricesPage(ctx context.Context, after string) (prices []account.Price, next string, err error) {
	const op = "list all prices"
	list, next, err := resume(after, func(after string, until int64) ([]*stripe.Price, string, error) {
		return onePage(ctx, op, after, func(p *stripe.Price) string { return p.ID },
			func(ctx context.Context, after *string) (page[*stripe.Price], error) {
				it := c.sdk.Prices.List(&stripe.PriceListParams{ListParams: listParams(ctx, pageSize, after), CreatedRange: madeUntil(until)})
				return collect(it, it.Price)
			})
	})
	if err != nil {
		return nil, "", err
	}
	for _, each := range list {
		if each.Product == nil {
			return nil, "", badBody(op)
		}
		price := toPrice(each, each.Product.ID)
		price.Created = unix(each.Created)
		prices = append(prices, price)
	}
	return prices, next, nil
}
