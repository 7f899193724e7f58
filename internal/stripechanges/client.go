// Package stripechanges makes the changes at Stripe, each of them once, however often it is tried
// and whatever came of the tries.
//
// It is the one place that decides what follows where Stripe repeats an answer that it has stored:
// see [once]. Whoever changes something at Stripe does it through [Client], under a key that is the
// same in each attempt at the same change, and hears of no stored failure. Everything that is
// created names in its metadata the request that it came of ([account.MetadataRequest]), so that
// what was made and not heard of is found again. It is looked for in Stripe's lists, since search
// is behind.
package stripechanges

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeapi"
)

// Client is a [stripeapi.Client] whose changes are made once. What it reads is as the other reads
// it.
type Client struct {
	*stripeapi.Client
	ledger Ledger
	now    func() time.Time
}

// New makes a client of another.
func New(stripe *stripeapi.Client, ledger Ledger) *Client {
	return &Client{Client: stripe, ledger: ledger, now: time.Now}
}

// notFound judges a 404 about an object that Stripe's own stored answer says it has made. While the
// object is young that is a transient failure, and nothing is made in its place: the copy that
// answered may not have it yet. Later the 404 is believed. So it is at once where the object's time
// is not ours, as on a test clock.
func (c *Client) notFound(op string, created time.Time) error {
	if c.now().Sub(created).Abs() < account.ReadsBehind+account.ClocksDiffer {
		return failure.NotShownYet("stripe", op)
	}
	return nil
}

// CreateCustomer creates a customer, or answers the one that an earlier attempt has made, as it is
// now. before tells that it was made before this call: something may have been bought on it since.
// One that somebody has written over to another user since is theirs, and another is made.
func (c *Client) CreateCustomer(ctx context.Context, n account.NewCustomer) (customer account.Customer, before bool, err error) {
	n.Request = orKey(n.Request, n.IdempotencyKey)
	return once(ctx, c.ledger, change[account.Customer]{
		key: n.IdempotencyKey,
		ask: func(ctx context.Context, key string) (account.Customer, bool, error) {
			n := n
			n.IdempotencyKey = key
			return c.Client.CreateCustomer(ctx, n)
		},
		find: func(ctx context.Context, since time.Time) (account.Customer, bool, error) {
			return c.CustomersSince(ctx, since.Add(-account.ClocksDiffer), func(made account.Customer) bool {
				return !made.Deleted && made.Metadata[account.MetadataRequest] == n.Request && !made.NamesAnother(n.ClerkUserID)
			})
		},
		still: func(ctx context.Context, stored account.Customer) (account.Customer, bool, error) {
			now, err := c.Customer(ctx, stored.ID)
			if failure.IsNotFound(err) {
				if slices.Contains(n.Missing, stored.ID) {
					return now, false, nil
				}
				return now, false, c.notFound("create customer", stored.Created)
			}
			return now, err == nil && !now.Deleted && !now.NamesAnother(n.ClerkUserID), err
		},
	})
}

// UpdateCustomer sets a customer's email and name; see [stripeapi.Client.UpdateCustomer].
func (c *Client) UpdateCustomer(ctx context.Context, customerID string, email, name *string, idempotencyKey string) (account.Customer, error) {
	return set(ctx, c.ledger, idempotencyKey,
		func(ctx context.Context, key string) (account.Customer, error) {
			return c.Client.UpdateCustomer(ctx, customerID, email, name, key)
		},
		func(ctx context.Context) (account.Customer, bool, error) {
			now, err := c.Customer(ctx, customerID)
			same := (email == nil || *email == "" || strings.EqualFold(now.Email, *email)) && (name == nil || *name == "" || now.Name == *name)
			return now, err == nil && !now.Deleted && same, err
		})
}

// DeleteCustomer deletes a customer; see [stripeapi.Client.DeleteCustomer]. Stripe takes no key for
// a DELETE and stores nothing: it can be repeated, and what is gone stays gone.
func (c *Client) DeleteCustomer(ctx context.Context, customerID, idempotencyKey string) error {
	return c.Client.DeleteCustomer(ctx, customerID, idempotencyKey)
}

// SetEnding sets how a subscription ends; see [stripeapi.Client.SetEnding]. Where it is not known
// whether an earlier attempt has, and it ends otherwise than the caller has seen, that is a
// transient failure: somebody has changed it, and the caller has to look again.
func (c *Client) SetEnding(ctx context.Context, subscriptionID string, from, to account.Ending, idempotencyKey string) (account.Subscription, error) {
	return set(ctx, c.ledger, idempotencyKey,
		func(ctx context.Context, key string) (account.Subscription, error) {
			return c.Client.SetEnding(ctx, subscriptionID, from, to, key)
		},
		func(ctx context.Context) (account.Subscription, bool, error) {
			now, err := c.Subscription(ctx, subscriptionID)
			switch {
			case err != nil || now.Status.Terminal():
				return now, false, err // Stripe says why not
			case alike(now.Ending(), to):
				return now, true, nil
			case !alike(now.Ending(), from):
				return now, false, changed("set end of subscription")
			default:
				return now, false, nil
			}
		})
}

// TakeKey sees to it that a change of a subscription is not made under this key from now on, if it
// has not been; see [stripeapi.Client.TakeKey]. The key has its generation: there is none to follow
// it, since nothing is to be made.
func (c *Client) TakeKey(ctx context.Context, subscriptionID, idempotencyKey string) error {
	return c.Client.TakeKey(ctx, subscriptionID, idempotencyKey)
}

// alike tells whether two endings come to the same. Stripe shows the date beside the flag too, and
// moves it with the period.
func alike(one, other account.Ending) bool {
	if one.AtPeriodEnd || other.AtPeriodEnd {
		return one.AtPeriodEnd == other.AtPeriodEnd
	}
	return one.At.Equal(other.At)
}

// CancelNow ends a subscription at once; see [stripeapi.Client.CancelNow].
func (c *Client) CancelNow(ctx context.Context, subscriptionID, idempotencyKey string) (account.Subscription, error) {
	return set(ctx, c.ledger, idempotencyKey,
		func(ctx context.Context, key string) (account.Subscription, error) {
			return c.Client.CancelNow(ctx, subscriptionID, key)
		},
		func(ctx context.Context) (account.Subscription, bool, error) {
			now, err := c.Subscription(ctx, subscriptionID)
			return now, err == nil && now.Status.Terminal(), err
		})
}

// ReleaseSchedule detaches a schedule from its subscription; see
// [stripeapi.Client.ReleaseSchedule].
func (c *Client) ReleaseSchedule(ctx context.Context, scheduleID, idempotencyKey string) error {
	return c.do(ctx, idempotencyKey,
		func(ctx context.Context, key string) error { return c.Client.ReleaseSchedule(ctx, scheduleID, key) },
		func(ctx context.Context) (bool, error) {
			now, err := c.Schedule(ctx, scheduleID)
			return err == nil && now.Status.Over(), err
		})
}

// EndThroughSchedule ends a subscription by the schedule that manages it; see
// [stripeapi.Client.EndThroughSchedule].
func (c *Client) EndThroughSchedule(ctx context.Context, scheduleID string, at time.Time, idempotencyKey string) error {
	return c.do(ctx, idempotencyKey,
		func(ctx context.Context, key string) error {
			return c.Client.EndThroughSchedule(ctx, scheduleID, at, key)
		},
		func(ctx context.Context) (bool, error) {
			now, err := c.Schedule(ctx, scheduleID)
			return err == nil && !now.Status.Over() && now.EndsAt().Equal(at), err
		})
}

// EndWithPresentPhase ends a subscription by the schedule that manages it, with the phase that
// runs; see [stripeapi.Client.EndWithPresentPhase].
func (c *Client) EndWithPresentPhase(ctx context.Context, scheduleID string, at time.Time, idempotencyKey string) error {
	return c.do(ctx, idempotencyKey,
		func(ctx context.Context, key string) error {
			return c.Client.EndWithPresentPhase(ctx, scheduleID, at, key)
		},
		func(ctx context.Context) (bool, error) {
			now, err := c.Schedule(ctx, scheduleID)
			return err == nil && !now.Status.Over() && now.EndsAt().Equal(at) && len(now.Later) == 0, err
		})
}

// StopCollecting keeps an invoice from being collected; see [stripeapi.Client.StopCollecting].
func (c *Client) StopCollecting(ctx context.Context, invoiceID, idempotencyKey string) error {
	return c.do(ctx, idempotencyKey,
		func(ctx context.Context, key string) error { return c.Client.StopCollecting(ctx, invoiceID, key) },
		func(ctx context.Context) (bool, error) {
			collecting, err := c.Collecting(ctx, invoiceID)
			return err == nil && !collecting, err
		})
}

// DeleteInvoiceItem takes away an invoice item; see [stripeapi.Client.DeleteInvoiceItem]. As with a
// customer, there is no key to it.
func (c *Client) DeleteInvoiceItem(ctx context.Context, itemID string) error {
	return c.Client.DeleteInvoiceItem(ctx, itemID)
}

// ContinueThroughSchedule takes an end by a schedule back; see
// [stripeapi.Client.ContinueThroughSchedule].
func (c *Client) ContinueThroughSchedule(ctx context.Context, scheduleID, idempotencyKey string) error {
	return c.do(ctx, idempotencyKey,
		func(ctx context.Context, key string) error {
			return c.Client.ContinueThroughSchedule(ctx, scheduleID, key)
		},
		func(ctx context.Context) (bool, error) {
			now, err := c.Schedule(ctx, scheduleID)
			return err == nil && !now.Status.Over() && !now.EndsSubscription, err
		})
}

// CancelSchedule ends a schedule and the subscription that it manages; see
// [stripeapi.Client.CancelSchedule].
func (c *Client) CancelSchedule(ctx context.Context, scheduleID, idempotencyKey string) error {
	return c.do(ctx, idempotencyKey,
		func(ctx context.Context, key string) error { return c.Client.CancelSchedule(ctx, scheduleID, key) },
		func(ctx context.Context) (bool, error) {
			now, err := c.Schedule(ctx, scheduleID)
			return err == nil && now.Status == account.ScheduleCanceled, err
		})
}

// OpenCheckout opens the checkout of a subscription, or answers the session that an earlier attempt
// has opened, as it is now: open or complete. One that has expired is of no use, and another is
// opened in its place.
func (c *Client) OpenCheckout(ctx context.Context, n account.NewCheckout) (account.CheckoutSession, error) {
	n.Request = orKey(n.Request, n.IdempotencyKey)
	session, _, err := once(ctx, c.ledger, change[account.CheckoutSession]{
		key: n.IdempotencyKey,
		ask: func(ctx context.Context, key string) (account.CheckoutSession, bool, error) {
			n := n
			n.IdempotencyKey = key
			return c.Client.OpenCheckout(ctx, n)
		},
		find: func(ctx context.Context, since time.Time) (account.CheckoutSession, bool, error) {
			sessions, err := c.CheckoutSessionsSince(ctx, n.CustomerID, since.Add(-account.ClocksDiffer))
			if err != nil {
				return account.CheckoutSession{}, false, err
			}
			// Those that are open, whenever they were made: a customer on a test clock lives in another
			// time.
			open, err := c.OpenCheckoutSessions(ctx, n.CustomerID)
			for _, s := range append(sessions, open...) {
				if s.Metadata[account.MetadataRequest] == n.Request && s.Status != account.CheckoutExpired {
					return s, true, nil
				}
			}
			return account.CheckoutSession{}, false, err
		},
		still: func(ctx context.Context, stored account.CheckoutSession) (account.CheckoutSession, bool, error) {
			now, err := c.CheckoutSession(ctx, stored.ID)
			if failure.IsNotFound(err) {
				return now, false, c.notFound("open checkout", stored.Created)
			}
			return now, err == nil && now.Status != account.CheckoutExpired, err
		},
	})
	return session, err
}

// ExpireCheckoutSession closes a checkout session; see [stripeapi.Client.ExpireCheckoutSession].
func (c *Client) ExpireCheckoutSession(ctx context.Context, sessionID, idempotencyKey string) error {
	return c.do(ctx, idempotencyKey,
		func(ctx context.Context, key string) error {
			return c.Client.ExpireCheckoutSession(ctx, sessionID, key)
		},
		func(ctx context.Context) (bool, error) {
			now, err := c.CheckoutSession(ctx, sessionID)
			return err == nil && now.Status != account.CheckoutOpen, err
		})
}

// OpenPortal opens a session of Stripe's billing portal and answers its address. One that was
// opened before may lead nowhere any more, and cannot be read; another does no harm, and is opened
// in its place.
func (c *Client) OpenPortal(ctx context.Context, customerID, returnURL, idempotencyKey string) (string, error) {
	address, _, err := once(ctx, c.ledger, change[string]{
		key: idempotencyKey,
		ask: func(ctx context.Context, key string) (string, bool, error) {
			return c.Client.OpenPortal(ctx, customerID, returnURL, key)
		},
		find:  func(context.Context, time.Time) (string, bool, error) { return "", false, nil },
		still: func(context.Context, string) (string, bool, error) { return "", false, nil },
	})
	return address, err
}

// orKey names a request that has no name of its own by its key, which is the same in each attempt
// too.
func orKey(request, key string) string {
	if request == "" {
		return key
	}
	return request
}

// set makes a change that leaves something in a state, which shows whether it was made.
func set[T any](
	ctx context.Context, ledger Ledger, key string,
	ask func(ctx context.Context, idempotencyKey string) (T, error), made func(context.Context) (T, bool, error),
) (T, error) {
	answer, _, err := once(ctx, ledger, change[T]{
		key: key,
		ask: func(ctx context.Context, key string) (T, bool, error) {
			answer, err := ask(ctx, key)
			return answer, false, err
		},
		find: func(ctx context.Context, _ time.Time) (T, bool, error) { return made(ctx) },
	})
	return answer, err
}

// do is [set] for a change that answers nothing.
func (c *Client) do(ctx context.Context, key string, ask func(ctx context.Context, idempotencyKey string) error, made func(context.Context) (bool, error)) error {
	_, err := set(ctx, c.ledger, key,
		func(ctx context.Context, key string) (struct{}, error) { return struct{}{}, ask(ctx, key) },
		func(ctx context.Context) (struct{}, bool, error) {
			is, err := made(ctx)
			return struct{}{}, is, err
		})
	return err
}

// changed is the failure of a change that somebody else's has overtaken.
func changed(op string) error {
	return failure.New(failure.Transient, "stripe", op, "changed_meanwhile", nil)
}
