package stripeapi

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/stripe/stripe-go/v76"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

// CustomerSubscriptions reads all subscriptions that a customer has or had, newest first, with
// their latest invoices and the schedules that manage them, and the customer as the same read
// showed it: one request, as long as there are at most a hundred. It answers all of them or an
// error, never a part. One of which Stripe leaves out items, and does not answer for them, is
// Unread: it holds up no other. Where Stripe refuses our key or our rate for that, all of them are
// answered beside the error, and no items of those behind it are asked for.
//
// The customer is nil where no subscription shows it. A customer that Stripe does not know is
// answered as an error for which failure.IsNotFound holds, or as no subscriptions.
func (c *Client) CustomerSubscriptions(ctx context.Context, customerID string) ([]account.Subscription, *account.Customer, error) {
	const op = "list subscriptions"
	if !account.ValidCustomerID(customerID) {
		return nil, nil, badID(op)
	}
	type shown struct {
		*stripe.Subscription
		page []byte
	}
	list, err := all(ctx, op, func(s shown) string { return s.ID },
		func(ctx context.Context, after *string) (page[shown], error) {
			params := &stripe.SubscriptionListParams{
				ListParams: listParams(ctx, pageSize, after),
				Customer:   stripe.String(customerID),
				// Without it Stripe leaves out those that have ended.
				Status: stripe.String("all"),
			}
			params.AddExpand("data.latest_invoice")
			params.AddExpand("data.customer")
			params.AddExpand("data.schedule")
			it := c.sdk.Subscriptions.List(params)
			return collect(it, func() shown {
				return shown{it.Subscription(), raw(it.SubscriptionList().LastResponse)}
			})
		})
	if err != nil {
		return nil, nil, err
	}
	subscriptions := make([]account.Subscription, 0, len(list))
	var customer *account.Customer
	for _, s := range list {
		if s.Customer == nil || s.Customer.ID != customerID || s.Status == "" {
			return nil, nil, badBody(op)
		}
		if customer == nil && s.Customer.Object == "customer" {
			customer = new(toCustomer(s.Customer))
		}
		subscription := withoutItems(s.Subscription, s.page)
		if err == nil {
			subscription, err = c.listed(ctx, op, s.Subscription, s.page)
		}
		subscriptions = append(subscriptions, subscription)
	}
	return subscriptions, customer, err
}

// listed is a subscription of a list, Unread where what Stripe has left out of it cannot be read:
// whoever looks at it by itself meets the failure. Beside that it is an error where Stripe refuses
// our key or our rate: what is left out of the others could not be read either.
func (c *Client) listed(ctx context.Context, op string, s *stripe.Subscription, answer []byte) (account.Subscription, error) {
	subscription, err := c.toSubscription(ctx, op, s, answer)
	if class := failure.Of(err); subscription.Unread && ctx.Err() == nil && class != failure.Throttled && class != failure.Operator {
		return subscription, nil
	}
	return subscription, err
}

// Subscription reads one subscription with its latest invoice. Where Stripe leaves out items, and
// does not answer for them, all else is answered beside the error, Unread. An id that cannot be one
// of Stripe's is not asked for: Stripe does not have it. Products make such ids for what they give
// away.
func (c *Client) Subscription(ctx context.Context, subscriptionID string) (account.Subscription, error) {
	const op = "read subscription"
	if !wellFormed("sub_", subscriptionID) {
		return account.Subscription{}, failure.NotFound(provider, op)
	}
	return c.oneSubscription(ctx, op, subscriptionID, func(ctx context.Context) (*stripe.Subscription, error) {
		params := &stripe.SubscriptionParams{}
		params.Context = ctx
		params.AddExpand("latest_invoice")
		params.AddExpand("schedule")
		return c.sdk.Subscriptions.Get(subscriptionID, params)
	})
}

// SetEnding sets how a subscription ends: with its current period (the flag), at a date, or, where
// to has neither, not at all. It answers the subscription as it is then. from is how it is set to
// end now: Stripe takes back the flag and a date by different parameters, and takes only one of
// them. Nothing is prorated. Stripe refuses it for a subscription that has ended or that a schedule
// manages; see [Client.EndThroughSchedule].
func (c *Client) SetEnding(ctx context.Context, subscriptionID string, from, to account.Ending, idempotencyKey string) (account.Subscription, error) {
	const op = "set end of subscription"
	if !usableKey(idempotencyKey) {
		return account.Subscription{}, badKey(op)
	}
	return c.oneSubscription(ctx, op, subscriptionID, func(ctx context.Context) (*stripe.Subscription, error) {
		params := &stripe.SubscriptionParams{}
		switch {
		case to.AtPeriodEnd:
			params.CancelAtPeriodEnd = stripe.Bool(true)
		case !to.At.IsZero():
			params.CancelAt = stripe.Int64(to.At.Unix())
			params.ProrationBehavior = stripe.String("none")
		case from.AtPeriodEnd:
			params.CancelAtPeriodEnd = stripe.Bool(false)
		default:
			params.AddExtra("cancel_at", "") // the SDK has no other way to send an empty one
		}
		params.Context = ctx
		params.SetIdempotencyKey(idempotencyKey)
		params.AddExpand("latest_invoice")
		params.AddExpand("schedule")
		return c.sdk.Subscriptions.Update(subscriptionID, params)
	})
}

// TakeKey asks for a change of a subscription that changes nothing, under a key under which another
// change may have been asked for: from then on Stripe refuses that one, as it refuses a key with
// other parameters. Where the other one has come before, it is this one that is refused, and
// nothing is left to take.
func (c *Client) TakeKey(ctx context.Context, subscriptionID, idempotencyKey string) error {
	const op = "take key of subscription"
	if !usableKey(idempotencyKey) {
		return badKey(op)
	}
	_, err := c.oneSubscription(ctx, op, subscriptionID, func(ctx context.Context) (*stripe.Subscription, error) {
		params := &stripe.SubscriptionParams{}
		params.Context = ctx
		params.SetIdempotencyKey(idempotencyKey)
		return c.sdk.Subscriptions.Update(subscriptionID, params)
	})
	if KeySpent(err) {
		return nil
	}
	return err
}

// CancelNow ends a subscription at once and for good, without an invoice and without proration,
// and answers the subscription as it is then. Stripe answers "not found" for one that has ended.
func (c *Client) CancelNow(ctx context.Context, subscriptionID, idempotencyKey string) (account.Subscription, error) {
	const op = "cancel subscription now"
	if !usableKey(idempotencyKey) {
		return account.Subscription{}, badKey(op)
	}
	return c.oneSubscription(ctx, op, subscriptionID, func(ctx context.Context) (*stripe.Subscription, error) {
		params := &stripe.SubscriptionCancelParams{}
		params.Context = ctx
		params.SetIdempotencyKey(idempotencyKey)
		params.AddExpand("latest_invoice")
		params.AddExpand("schedule")
		return c.sdk.Subscriptions.Cancel(subscriptionID, params)
	})
}

// oneSubscription makes a call that is about one subscription and answers it.
func (c *Client) oneSubscription(
	ctx context.Context, op, subscriptionID string, call func(context.Context) (*stripe.Subscription, error),
) (account.Subscription, error) {
	if !wellFormed("sub_", subscriptionID) {
		return account.Subscription{}, badID(op)
	}
	s, err := do(ctx, op, call)
	if err != nil {
		return account.Subscription{}, err
	}
	if s.ID != subscriptionID || s.Customer == nil || s.Customer.ID == "" {
		return account.Subscription{}, badBody(op)
	}
	return c.toSubscription(ctx, op, s, raw(s.LastResponse))
}

// toSubscription makes our own subscription of the SDK's, Unread beside the error where not all of
// its items can be read. body is the answer in which it stood.
func (c *Client) toSubscription(ctx context.Context, op string, s *stripe.Subscription, body []byte) (account.Subscription, error) {
	if s.Status == "" {
		return account.Subscription{}, badBody(op)
	}
	subscription := withoutItems(s, body)
	items, err := c.items(ctx, s)
	if err == nil {
		subscription.Items, subscription.Unread = items, false
		subscription.Metered = slices.ContainsFunc(items, func(i account.Item) bool { return i.Metered })
	}
	return subscription, err
}

// withoutItems is what an answer shows of a subscription beside its items.
func withoutItems(s *stripe.Subscription, body []byte) account.Subscription {
	start, end := s.CurrentPeriodStart, s.CurrentPeriodEnd
	if end == 0 {
		start, end = itemPeriod(body, s.ID)
	}
	subscription := account.Subscription{
		ID:                 s.ID,
		CustomerID:         s.Customer.ID,
		Status:             account.Status(s.Status),
		CurrentPeriodStart: unix(start),
		CurrentPeriodEnd:   unix(end),
		TrialStart:         unix(s.TrialStart),
		TrialEnd:           unix(s.TrialEnd),
		CancelAtPeriodEnd:  s.CancelAtPeriodEnd,
		CancelAt:           unix(s.CancelAt),
		CanceledAt:         unix(s.CanceledAt),
		EndedAt:            unix(s.EndedAt),
		CollectionPaused:   s.PauseCollection != nil,
		Created:            unix(s.Created),
		Metadata:           s.Metadata,
		Unread:             true,
	}
	if s.LatestInvoice != nil {
		subscription.LatestInvoiceCreated = unix(s.LatestInvoice.Created)
		subscription.Outstanding = outstanding(s.LatestInvoice)
	}
	if s.Schedule != nil {
		subscription.ScheduleID = s.Schedule.ID
		if schedule := toSchedule(s.Schedule); schedule.Status.Rank() > 0 {
			subscription.ScheduleEndsAt = schedule.EndsAt()
			subscription.LaterPhases = schedule.Later
			subscription.PhasesAhead = len(schedule.Later) > 0
		}
	}
	return subscription
}

// items answers a subscription's items, asking for those that Stripe left out: it embeds ten.
func (c *Client) items(ctx context.Context, s *stripe.Subscription) ([]account.Item, error) {
	if s.Items == nil {
		return nil, nil
	}
	embedded := s.Items.Data
	if s.Items.HasMore {
		const op = "list subscription items"
		var err error
		embedded, err = all(ctx, op, func(i *stripe.SubscriptionItem) string { return i.ID },
			func(ctx context.Context, after *string) (page[*stripe.SubscriptionItem], error) {
				it := c.sdk.SubscriptionItems.List(&stripe.SubscriptionItemListParams{
					ListParams:   listParams(ctx, pageSize, after),
					Subscription: stripe.String(s.ID),
				})
				return collect(it, it.SubscriptionItem)
			})
		if err != nil {
			return nil, err
		}
	}
	items := make([]account.Item, 0, len(embedded))
	for _, i := range embedded {
		if i.Price == nil {
			continue
		}
		item := account.Item{ID: i.ID, PriceID: i.Price.ID, Quantity: i.Quantity, Currency: string(i.Price.Currency)}
		if i.Price.Product != nil {
			item.ProductID = i.Price.Product.ID
		}
		if i.Price.Recurring != nil {
			item.Interval = string(i.Price.Recurring.Interval)
			item.IntervalCount = i.Price.Recurring.IntervalCount
			item.Metered = i.Price.Recurring.UsageType == stripe.PriceRecurringUsageTypeMetered
		}
		item.UnitAmount, item.Unpriced = unitAmount(i.Price)
		if s.Currency != "" && s.Currency != i.Price.Currency {
			// Billed is one of the price's currency_options, which this answer does not hold.
			item.Currency, item.UnitAmount, item.Unpriced = string(s.Currency), 0, true
		}
		if item.Metered {
			// What recurs of it is nothing, whatever a unit costs.
			item.Quantity, item.Unpriced = 0, false
		}
		items = append(items, item)
	}
	return items, nil
}

// itemPeriod finds a subscription's period on its items, where API versions from
// 2025-03-31.basil on have it. Items can have different periods; the one that ends first is the
// next that changes anything.
func itemPeriod(body []byte, subscriptionID string) (start, end int64) {
	type subscription struct {
		ID    string `json:"id"`
		Items struct {
			Data []struct {
				Start int64 `json:"current_period_start"`
				End   int64 `json:"current_period_end"`
			} `json:"data"`
		} `json:"items"`
	}
	var answer struct {
		subscription
		Data []subscription `json:"data"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return 0, 0
	}
	for _, s := range append(answer.Data, answer.subscription) {
		if s.ID != subscriptionID {
			continue
		}
		for _, item := range s.Items.Data {
			if item.End != 0 && (end == 0 || item.End < end) {
				start, end = item.Start, item.End
			}
		}
	}
	return start, end
}

func raw(r *stripe.APIResponse) []byte {
	if r == nil {
		return nil
	}
	return r.RawJSON
}

func usableKey(key string) bool { return key != "" && len(key) <= maxKey }
