package stripeapi

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v76"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

// Customer reads one customer. One that was deleted is answered with Deleted set: Stripe still
// knows its id.
func (c *Client) Customer(ctx context.Context, customerID string) (account.Customer, error) {
	return c.oneCustomer(ctx, "read customer", customerID, func(ctx context.Context) (*stripe.Customer, error) {
		params := &stripe.CustomerParams{}
		params.Context = ctx
		return c.sdk.Customers.Get(customerID, params)
	})
}

// CustomersNaming searches for customers whose metadata name a user under one of
// [account.MetadataKeys]. Stripe's index shows what was written a minute ago as a rule, and nothing
// of what was deleted; accounts in India have no search, and are refused.
func (c *Client) CustomersNaming(ctx context.Context, clerkUserID string) ([]account.Customer, error) {
	return search(ctx, "search customers", clerkUserID, toCustomer, func(params stripe.SearchParams) *stripe.SearchIter {
		return c.sdk.Customers.Search(&stripe.CustomerSearchParams{SearchParams: params}).SearchIter
	})
}

// CustomersSubscribedFor searches, like [Client.CustomersNaming], for subscriptions whose metadata
// name a user, and answers the ids of their customers, each once.
func (c *Client) CustomersSubscribedFor(ctx context.Context, clerkUserID string) ([]string, error) {
	const op = "search subscriptions"
	customer := func(s *stripe.Subscription) string {
		if s.Customer == nil {
			return ""
		}
		return s.Customer.ID
	}
	ids, err := search(ctx, op, clerkUserID, customer, func(params stripe.SearchParams) *stripe.SearchIter {
		return c.sdk.Subscriptions.Search(&stripe.SubscriptionSearchParams{SearchParams: params}).SearchIter
	})
	if slices.Contains(ids, "") {
		return nil, badBody(op)
	}
	slices.Sort(ids)
	return slices.Compact(ids), err
}

// search finds all objects of a kind whose metadata name a user.
func search[O, T any](ctx context.Context, op, clerkUserID string, to func(*O) T, start func(stripe.SearchParams) *stripe.SearchIter) ([]T, error) {
	if !account.ValidUserID(clerkUserID) {
		return nil, badID(op)
	}
	var clauses []string
	for _, key := range account.MetadataKeys() {
		clauses = append(clauses, fmt.Sprintf("metadata['%s']:'%s'", key, clerkUserID))
	}
	return do(ctx, op, func(ctx context.Context) (found []T, err error) {
		it := start(stripe.SearchParams{Context: ctx, Query: strings.Join(clauses, " OR "), Limit: stripe.Int64(pageSize)})
		for it.Next() {
			found = append(found, to(it.Current().(*O)))
		}
		if it.Err() == nil && it.Meta().URL == "" {
			return nil, errNoList
		}
		return found, it.Err()
	})
}

// CustomersSince lists the customers that were made at a moment or later and are not deleted, up to
// the first for which wanted holds, which is answered. Unlike search, the list shows what was made
// just now.
func (c *Client) CustomersSince(ctx context.Context, since time.Time, wanted func(account.Customer) bool) (found account.Customer, ok bool, err error) {
	const op = "list new customers"
	after := ""
	for range maxPages {
		list, next, err := onePage(ctx, op, after, func(c *stripe.Customer) string { return c.ID },
			func(ctx context.Context, after *string) (page[*stripe.Customer], error) {
				it := c.sdk.Customers.List(&stripe.CustomerListParams{
					ListParams:   listParams(ctx, pageSize, after),
					CreatedRange: &stripe.RangeQueryParams{GreaterThanOrEqual: since.Unix()},
				})
				return collect(it, it.Customer)
			})
		if err != nil {
			return account.Customer{}, false, err
		}
		for _, each := range list {
			if customer := toCustomer(each); wanted(customer) {
				return customer, true, nil
			}
		}
		if next == "" {
			return account.Customer{}, false, nil
		}
		after = next
	}
	return account.Customer{}, false, failure.New(failure.Transient, provider, op, "list_does_not_end", nil)
}

// CreateCustomer creates a customer that carries its Clerk user id in its metadata.
//
// replayed tells that Stripe answered what it had stored under the key. The customer may have
// been changed or deleted since: read it before relying on it.
func (c *Client) CreateCustomer(ctx context.Context, n account.NewCustomer) (customer account.Customer, replay bool, err error) {
	const op = "create customer"
	if !account.ValidUserID(n.ClerkUserID) {
		return account.Customer{}, false, badID(op)
	}
	if !usableKey(n.IdempotencyKey) {
		return account.Customer{}, false, badKey(op)
	}
	created, err := do(ctx, op, func(ctx context.Context) (*stripe.Customer, error) {
		params := &stripe.CustomerParams{Email: optional(&n.Email), Name: optional(&n.Name)}
		params.Context = ctx
		params.SetIdempotencyKey(n.IdempotencyKey)
		params.AddMetadata(account.MetadataKeys()[0], n.ClerkUserID)
		if n.Request != "" {
			params.AddMetadata(account.MetadataRequest, n.Request)
		}
		return c.sdk.Customers.New(params)
	})
	if err != nil {
		return account.Customer{}, false, err
	}
	if !account.ValidCustomerID(created.ID) {
		return account.Customer{}, false, badBody(op)
	}
	return toCustomer(created), replayed(created.LastResponse.Header), nil
}

// UpdateCustomer sets a customer's email and name. Nil or empty leaves what Stripe has, since
// an empty value never overwrites; with neither, the customer is only read.
func (c *Client) UpdateCustomer(ctx context.Context, customerID string, email, name *string, idempotencyKey string) (account.Customer, error) {
	const op = "update customer"
	email, name = optional(email), optional(name)
	if email == nil && name == nil {
		return c.Customer(ctx, customerID)
	}
	if !usableKey(idempotencyKey) {
		return account.Customer{}, badKey(op)
	}
	return c.oneCustomer(ctx, op, customerID, func(ctx context.Context) (*stripe.Customer, error) {
		params := &stripe.CustomerParams{Email: email, Name: name}
		params.Context = ctx
		params.SetIdempotencyKey(idempotencyKey)
		return c.sdk.Customers.Update(customerID, params)
	})
}

// DeleteCustomer deletes a customer and, in Stripe, ends its subscriptions with it. It is the
// undo of our own creation and nothing else; ask [Client.CustomerIsUnused] first. A customer
// that is gone already is no error.
func (c *Client) DeleteCustomer(ctx context.Context, customerID, idempotencyKey string) error {
	const op = "delete customer"
	if !usableKey(idempotencyKey) {
		return badKey(op)
	}
	customer, err := c.oneCustomer(ctx, op, customerID, func(ctx context.Context) (*stripe.Customer, error) {
		params := &stripe.CustomerParams{}
		params.Context = ctx
		params.SetIdempotencyKey(idempotencyKey)
		return c.sdk.Customers.Del(customerID, params)
	})
	switch {
	case failure.IsNotFound(err):
		return nil
	case err != nil:
		return err
	case !customer.Deleted:
		return badBody(op)
	default:
		return nil
	}
}

// CustomerIsUnused tells whether nothing hangs on a customer: no subscription of any status, no
// payment method, no open checkout session.
func (c *Client) CustomerIsUnused(ctx context.Context, customerID string) (bool, error) {
	const op = "look for what hangs on customer"
	if !account.ValidCustomerID(customerID) {
		return false, badID(op)
	}
	looks := []func(context.Context) (found bool, err error){
		func(ctx context.Context) (bool, error) {
			it := c.sdk.Subscriptions.List(&stripe.SubscriptionListParams{
				ListParams: listParams(ctx, 1, nil),
				Customer:   stripe.String(customerID),
				Status:     stripe.String("all"),
			})
			return it.Next(), it.Err()
		},
		func(ctx context.Context) (bool, error) {
			it := c.sdk.Customers.ListPaymentMethods(&stripe.CustomerListPaymentMethodsParams{
				ListParams: listParams(ctx, 1, nil),
				Customer:   stripe.String(customerID),
			})
			return it.Next(), it.Err()
		},
		func(ctx context.Context) (bool, error) {
			it := c.sdk.CheckoutSessions.List(openSessions(ctx, customerID, 1, nil))
			return it.Next(), it.Err()
		},
	}
	for _, look := range looks {
		found, err := do(ctx, op, look)
		if found || err != nil {
			return false, err
		}
	}
	return true, nil
}

// oneCustomer makes a call that is about one customer and answers it.
func (c *Client) oneCustomer(
	ctx context.Context, op, customerID string, call func(context.Context) (*stripe.Customer, error),
) (account.Customer, error) {
	if !account.ValidCustomerID(customerID) {
		return account.Customer{}, badID(op)
	}
	customer, err := do(ctx, op, call)
	if err != nil {
		return account.Customer{}, err
	}
	if customer.ID != customerID {
		return account.Customer{}, badBody(op)
	}
	return toCustomer(customer), nil
}

func toCustomer(c *stripe.Customer) account.Customer {
	return account.Customer{
		ID:       c.ID,
		Email:    c.Email,
		Name:     c.Name,
		Deleted:  c.Deleted,
		Created:  unix(c.Created),
		Metadata: c.Metadata,
	}
}

func optional(s *string) *string {
	if s == nil || *s == "" {
		return nil
	}
	return s
}
