package stripeapi

import (
	"context"
	"time"

	"github.com/stripe/stripe-go/v76"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

// OpenCheckout opens the checkout of a subscription. The Clerk user id stands on the session and on
// the subscription that comes of it, as evidence of whose it is.
//
// replayed tells that Stripe answered what it had stored under the key. The session may have been
// completed or have expired since.
func (c *Client) OpenCheckout(ctx context.Context, n account.NewCheckout) (session account.CheckoutSession, replay bool, err error) {
	const op = "open checkout session"
	if !account.ValidCustomerID(n.CustomerID) || !account.ValidUserID(n.ClerkUserID) || !account.ValidPriceID(n.PriceID) {
		return account.CheckoutSession{}, false, badID(op)
	}
	if !usableKey(n.IdempotencyKey) {
		return account.CheckoutSession{}, false, badKey(op)
	}
	owner := account.MetadataKeys()[0]
	session, err = c.oneSession(ctx, op, "", func(ctx context.Context) (*stripe.CheckoutSession, error) {
		item := &stripe.CheckoutSessionLineItemParams{Price: stripe.String(n.PriceID)}
		if n.Quantity > 0 {
			item.Quantity = stripe.Int64(n.Quantity) // which Stripe refuses of a metered price
		}
		params := &stripe.CheckoutSessionParams{
			Mode:              stripe.String(string(stripe.CheckoutSessionModeSubscription)),
			Customer:          stripe.String(n.CustomerID),
			ClientReferenceID: stripe.String(n.ClerkUserID),
			LineItems:         []*stripe.CheckoutSessionLineItemParams{item},
			SubscriptionData:  &stripe.CheckoutSessionSubscriptionDataParams{Metadata: map[string]string{owner: n.ClerkUserID}},
			SuccessURL:        stripe.String(n.SuccessURL),
			CancelURL:         stripe.String(n.CancelURL),
		}
		params.Context = ctx
		params.SetIdempotencyKey(n.IdempotencyKey)
		params.AddMetadata(owner, n.ClerkUserID)
		params.AddMetadata(account.MetadataProduct, n.ProductID)
		if n.Request != "" {
			params.AddMetadata(account.MetadataRequest, n.Request)
		}
		made, err := c.sdk.CheckoutSessions.New(params)
		replay = err == nil && replayed(made.LastResponse.Header)
		return made, err
	})
	return session, replay, err
}

// CheckoutSession reads one checkout session.
func (c *Client) CheckoutSession(ctx context.Context, sessionID string) (account.CheckoutSession, error) {
	const op = "read checkout session"
	if !account.ValidSessionID(sessionID) {
		return account.CheckoutSession{}, badID(op)
	}
	return c.oneSession(ctx, op, sessionID, func(ctx context.Context) (*stripe.CheckoutSession, error) {
		params := &stripe.CheckoutSessionParams{}
		params.Context = ctx
		return c.sdk.CheckoutSessions.Get(sessionID, params)
	})
}

// OpenPortal opens a session of Stripe's billing portal for a customer and answers its address. Who
// has the address can act as the customer for a while, so it is told to nobody but the customer.
//
// replayed tells that Stripe answered what it had stored under the key: an address that may lead
// nowhere any more.
func (c *Client) OpenPortal(ctx context.Context, customerID, returnURL, idempotencyKey string) (url string, replay bool, err error) {
	const op = "open billing portal"
	if !account.ValidCustomerID(customerID) {
		return "", false, badID(op)
	}
	if !usableKey(idempotencyKey) {
		return "", false, badKey(op)
	}
	session, err := do(ctx, op, func(ctx context.Context) (*stripe.BillingPortalSession, error) {
		params := &stripe.BillingPortalSessionParams{Customer: stripe.String(customerID), ReturnURL: stripe.String(returnURL)}
		params.Context = ctx
		params.SetIdempotencyKey(idempotencyKey)
		return c.sdk.BillingPortalSessions.New(params)
	})
	if err != nil {
		return "", false, err
	}
	if session.URL == "" {
		return "", false, badBody(op)
	}
	return session.URL, replayed(session.LastResponse.Header), nil
}

// oneSession makes a call that is about one checkout session, the named one where there is a name,
// and answers it.
func (c *Client) oneSession(
	ctx context.Context, op, sessionID string, call func(context.Context) (*stripe.CheckoutSession, error),
) (account.CheckoutSession, error) {
	s, err := do(ctx, op, call)
	if err != nil {
		return account.CheckoutSession{}, err
	}
	if !account.ValidSessionID(s.ID) || sessionID != "" && s.ID != sessionID || s.Status == "" {
		return account.CheckoutSession{}, badBody(op)
	}
	return toSession(s), nil
}

func toSession(s *stripe.CheckoutSession) account.CheckoutSession {
	session := account.CheckoutSession{
		ID: s.ID, Status: account.CheckoutStatus(s.Status), ClientReferenceID: s.ClientReferenceID, Metadata: s.Metadata, URL: s.URL, Created: unix(s.Created),
	}
	if s.Customer != nil {
		session.CustomerID = s.Customer.ID
	}
	if s.PaymentLink != nil {
		session.PaymentLink = s.PaymentLink.ID
	}
	if s.CustomerDetails != nil {
		session.Email = s.CustomerDetails.Email
	}
	if s.Subscription != nil {
		session.SubscriptionID = s.Subscription.ID
	}
	session.Products = subscribed(s)
	return session
}

// subscribed are the products of the recurring prices that a session sells, where the session shows
// what it sells.
func subscribed(s *stripe.CheckoutSession) (products []string) {
	if s.LineItems == nil {
		return nil
	}
	for _, item := range s.LineItems.Data {
		if item.Price != nil && item.Price.Recurring != nil && item.Price.Product != nil {
			products = append(products, item.Price.Product.ID)
		}
	}
	return products
}

// OpenCheckoutSessions lists a customer's checkout sessions that somebody could still complete,
// whoever opened them, with what they sell. Stripe shows ten prices of each.
func (c *Client) OpenCheckoutSessions(ctx context.Context, customerID string) ([]account.CheckoutSession, error) {
	const op = "list open checkout sessions"
	if !account.ValidCustomerID(customerID) {
		return nil, badID(op)
	}
	sessions, err := all(ctx, op, func(s *stripe.CheckoutSession) string { return s.ID },
		func(ctx context.Context, after *string) (page[*stripe.CheckoutSession], error) {
			params := openSessions(ctx, customerID, pageSize, after)
			params.AddExpand("data.line_items")
			it := c.sdk.CheckoutSessions.List(params)
			return collect(it, it.CheckoutSession)
		})
	if err != nil {
		return nil, err
	}
	open := make([]account.CheckoutSession, 0, len(sessions))
	for _, s := range sessions {
		open = append(open, toSession(s))
	}
	return open, nil
}

// CheckoutSessionsSince lists a customer's checkout sessions of any status that were made at a
// moment or later.
func (c *Client) CheckoutSessionsSince(ctx context.Context, customerID string, since time.Time) ([]account.CheckoutSession, error) {
	const op = "list checkout sessions"
	if !account.ValidCustomerID(customerID) {
		return nil, badID(op)
	}
	sessions, err := all(ctx, op, func(s *stripe.CheckoutSession) string { return s.ID },
		func(ctx context.Context, after *string) (page[*stripe.CheckoutSession], error) {
			it := c.sdk.CheckoutSessions.List(&stripe.CheckoutSessionListParams{
				ListParams:   listParams(ctx, pageSize, after),
				Customer:     stripe.String(customerID),
				CreatedRange: &stripe.RangeQueryParams{GreaterThanOrEqual: since.Unix()},
			})
			return collect(it, it.CheckoutSession)
		})
	if err != nil {
		return nil, err
	}
	made := make([]account.CheckoutSession, 0, len(sessions))
	for _, s := range sessions {
		made = append(made, toSession(s))
	}
	return made, nil
}

// ExpireCheckoutSession closes a checkout session, so that nobody can complete it any more. One
// that was completed or has expired meanwhile is no error: it is not open, which is all that is
// asked for.
func (c *Client) ExpireCheckoutSession(ctx context.Context, sessionID, idempotencyKey string) error {
	const op = "expire checkout session"
	if !wellFormed("cs_", sessionID) {
		return badID(op)
	}
	if !usableKey(idempotencyKey) {
		return badKey(op)
	}
	session, err := do(ctx, op, func(ctx context.Context) (*stripe.CheckoutSession, error) {
		params := &stripe.CheckoutSessionExpireParams{}
		params.Context = ctx
		params.SetIdempotencyKey(idempotencyKey)
		return c.sdk.CheckoutSessions.Expire(sessionID, params)
	})
	if failure.Of(err) == failure.Permanent && !failure.IsNotFound(err) {
		// Stripe refuses what is not open, without a code that says so.
		now, readErr := c.CheckoutSession(ctx, sessionID)
		if readErr != nil {
			return readErr
		}
		if now.Status != account.CheckoutOpen {
			return nil
		}
	}
	if err != nil {
		return err
	}
	if session.ID != sessionID {
		return badBody(op)
	}
	return nil
}

func openSessions(ctx context.Context, customerID string, limit int64, after *string) *stripe.CheckoutSessionListParams {
	return &stripe.CheckoutSessionListParams{
		ListParams: listParams(ctx, limit, after),
		Customer:   stripe.String(customerID),
		Status:     stripe.String(string(stripe.CheckoutSessionStatusOpen)),
	}
}
