package selfservice

import (
	"context"
	"encoding/hex"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// CheckoutRequest asks for the checkout of a subscription.
type CheckoutRequest struct {
	Caller     Caller
	Key        Key
	PriceID    string
	Quantity   int64
	SuccessURL string
	CancelURL  string
}

// Checkout is an open checkout.
type Checkout struct {
	SessionID string
	// URL is where the person pays. It is told to nobody else.
	URL         string
	OperationID string
}

// mostSeats bounds what one checkout sells.
const mostSeats = 10_000

// checkoutLease is how long opening a checkout may take: each request to Stripe ends by itself well
// before, and there are at most a handful.
const checkoutLease = 90 * time.Second

// Checkout opens a checkout for the caller's own customer. At most one is open for a product at a
// time: one that was opened before is closed, and none is opened for a product that the caller has
// already. A caller who has no customer yet is given one first.
func (d *Desk) Checkout(ctx context.Context, r CheckoutRequest) (Checkout, *store.Operation, error) {
	none := Checkout{}
	if r.Quantity == 0 {
		r.Quantity = 1
	}
	if err := d.checkCheckout(r); err != nil {
		return none, nil, err
	}
	price, err := d.Store.CataloguePrice(ctx, r.PriceID)
	switch {
	case err != nil:
		return none, nil, unavailable(err)
	case price == nil || !price.Sold:
		return none, nil, refuse(Invalid, "price_not_sold", "There is no such price to buy.")
	case !price.Recurring:
		return none, nil, refuse(Invalid, "price_not_recurring", "That is not the price of a subscription.")
	}
	user, pending, err := d.user(ctx, r.Caller, "")
	if err != nil || user == nil {
		return none, pending, err
	}
	if user.StripeCustomerID == nil {
		// Their onboarding has not come that far.
		pending, err := d.sync(ctx, r.Caller, Key{}, user.ClerkUserID, user)
		if err != nil || !pending.Status.Settled() {
			return none, pending, err
		}
		if user, pending, err = d.user(ctx, r.Caller, ""); err != nil || user == nil {
			return none, pending, err
		}
		if user.StripeCustomerID == nil {
			return none, nil, refuse(Unavailable, "not_accepted", "There is no customer yet; try again.")
		}
	}
	op, _, err := d.begin(ctx, r.Caller, r.Key, store.NewOperation{
		Action: store.ActionCheckout, ClerkUserID: user.ClerkUserID, Entity: account.CustomerEntity(*user.StripeCustomerID),
	}, r.PriceID, strconv.FormatInt(r.Quantity, 10), r.SuccessURL, r.CancelURL)
	if err != nil {
		return none, nil, err
	}
	session, err := d.open(ctx, r, user, price, op)
	if err != nil {
		return none, nil, err
	}
	return Checkout{SessionID: session.ID, URL: session.URL, OperationID: op.ID}, nil, nil
}

func (d *Desk) checkCheckout(r CheckoutRequest) error {
	switch {
	case !account.ValidPriceID(r.PriceID):
		return refuse(Invalid, "field_invalid", "priceId is not the id of a price.")
	case r.Quantity < 1 || r.Quantity > mostSeats:
		return refuse(Invalid, "field_invalid", "quantity is a number from 1 to 10000.")
	case !d.returnable(r.SuccessURL):
		return refuse(Invalid, "field_invalid", "successUrl is not an address that people may be sent to.")
	case !d.returnable(r.CancelURL):
		return refuse(Invalid, "field_invalid", "cancelUrl is not an address that people may be sent to.")
	default:
		return nil
	}
}

// returnable tells whether people may be sent to an address from Stripe.
func (d *Desk) returnable(address string) bool {
	// Stripe's placeholder is not an address's own character.
	u, err := url.Parse(strings.ReplaceAll(address, "{CHECKOUT_SESSION_ID}", "cs"))
	if err != nil || len(address) > 2000 || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" {
		return false
	}
	return len(d.Origins) == 0 || slices.Contains(d.Origins, u.Scheme+"://"+u.Host)
}

// open opens a checkout under the user's lease. The same operation gets the same session from Stripe.
func (d *Desk) open(ctx context.Context, r CheckoutRequest, user *store.User, price *store.CataloguePrice, op *store.Operation) (session account.CheckoutSession, err error) {
	if op.Status == store.OperationRefused {
		return session, refuse(Conflict, op.Reason, "You have a subscription of this product already.")
	}
	if err := d.lease(ctx, user, op); err != nil {
		return session, err
	}
	defer func() {
		// Whatever came of it, the next checkout need not wait for the lease to end.
		release := context.WithoutCancel(ctx)
		if released := d.Store.ReleaseCheckout(release, user.ID, op.ID); released != nil {
			d.Logger.WarnContext(ctx, "a checkout's lease was not given back; it ends by itself", "operation", "checkout",
				"error_class", string(failure.Of(released)), "error", released.Error())
		}
	}()
	if user, err = d.Store.UserByClerkID(ctx, user.ClerkUserID); err != nil || user == nil || user.Deleting() || user.StripeCustomerID == nil {
		return session, orElse(unavailable(err), userNotFound())
	}
	if op.Status != store.OperationDone { // else its own session is the open one
		if err := d.clear(ctx, user, price, op); err != nil {
			return session, err
		}
	}
	session, err = d.Stripe.OpenCheckout(ctx, account.NewCheckout{
		ClerkUserID: user.ClerkUserID, CustomerID: *user.StripeCustomerID, PriceID: price.ID, ProductID: price.ProductID,
		Quantity: r.Quantity, SuccessURL: r.SuccessURL, CancelURL: r.CancelURL, IdempotencyKey: op.ID + ":checkout",
	})
	if err != nil {
		if failure.Of(err) == failure.Permanent {
			_ = d.Store.SettleOperation(ctx, op.ID, store.OperationFailed, failure.CodeOf(err)) // the answer is the same without
		}
		return session, upstream(err)
	}
	if settled := d.Store.SettleOperation(ctx, op.ID, store.OperationDone, ""); settled != nil {
		// It is open all the same.
		d.Logger.WarnContext(ctx, "a checkout was opened, which could not be noted", "operation", "checkout", "operation_id", op.ID,
			"error_class", string(failure.Of(settled)), "error", settled.Error())
	}
	return session, nil
}

func orElse(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// lease takes the user's lease, waiting for whoever has it.
func (d *Desk) lease(ctx context.Context, user *store.User, op *store.Operation) error {
	ctx, cancel := context.WithTimeout(ctx, d.Wait)
	defer cancel()
	for {
		taken, err := d.Store.LeaseCheckout(ctx, user.ID, op.ID, checkoutLease)
		if err != nil {
			return unavailable(err)
		}
		if taken {
			return nil
		}
		select {
		case <-time.After(firstLook):
		case <-ctx.Done():
			return refuse(Unavailable, "checkout_in_progress", "Another checkout is being opened; try again.")
		}
	}
}

// clear makes sure that what is about to be opened is the only way to buy the product: Stripe, not our
// copy, says what the customers have, and earlier checkouts of the product are closed.
func (d *Desk) clear(ctx context.Context, user *store.User, price *store.CataloguePrice, op *store.Operation) error {
	customers, err := d.Store.CustomersOf(ctx, user)
	if err != nil {
		return unavailable(err)
	}
	for _, c := range customers {
		if c.DeletedInStripe {
			continue
		}
		// First the way to a new one, then whether there is one: in the other order one could be
		// bought in between.
		sessions, err := d.Stripe.OpenCheckoutSessions(ctx, c.ID)
		if err != nil && !failure.IsNotFound(err) {
			return upstream(err)
		}
		for _, s := range sessions {
			if s.Metadata[account.MetadataProduct] != price.ProductID {
				continue
			}
			if err := d.Stripe.ExpireCheckoutSession(ctx, s.ID, "expire:"+s.ID); err != nil && !failure.IsNotFound(err) {
				return upstream(err)
			}
		}
		subscriptions, _, err := d.Stripe.CustomerSubscriptions(ctx, c.ID)
		if err != nil && !failure.IsNotFound(err) {
			return upstream(err)
		}
		if slices.ContainsFunc(subscriptions, func(s account.Subscription) bool { return has(s, price.ProductID) }) {
			if err := d.Store.SettleOperation(ctx, op.ID, store.OperationRefused, alreadySubscribed); err != nil {
				return unavailable(err)
			}
			return refuse(Conflict, alreadySubscribed, "You have a subscription of this product already.")
		}
	}
	return nil
}

const alreadySubscribed = "already_subscribed"

// has tells whether a subscription is a live one of a product. One whose first payment is still open is
// not: it comes to nothing by itself.
func has(s account.Subscription, productID string) bool {
	return !s.Status.Terminal() && s.Status != account.StatusIncomplete &&
		slices.ContainsFunc(s.Items, func(i account.Item) bool { return i.ProductID == productID })
}

// Portal opens Stripe's billing portal for the caller's own customer.
func (d *Desk) Portal(ctx context.Context, caller Caller, key Key, returnURL string) (address string, pending *store.Operation, err error) {
	if !d.returnable(returnURL) {
		return "", nil, refuse(Invalid, "field_invalid", "returnUrl is not an address that people may be sent to.")
	}
	user, pending, err := d.user(ctx, caller, "")
	if err != nil || user == nil {
		return "", pending, err
	}
	if user.StripeCustomerID == nil {
		return "", nil, refuse(Conflict, "no_customer", "There is nothing to manage yet.")
	}
	if key.Value == "" {
		key.Value = strconv.FormatInt(time.Now().UnixNano(), 36)
	}
	address, err = d.Stripe.OpenPortal(ctx, *user.StripeCustomerID, returnURL, "portal:"+hex.EncodeToString(digest(caller.UserID, key.Value, returnURL)))
	if err != nil {
		return "", nil, upstream(err)
	}
	return address, nil, nil
}

// Return waits, for somebody who comes back from a checkout, until what they bought is stored and
// published: nobody comes back from paying to a free account.
func (d *Desk) Return(ctx context.Context, caller Caller, key Key, sessionID string) (*store.Operation, error) {
	if !account.ValidSessionID(sessionID) {
		return nil, refuse(Invalid, "field_invalid", "sessionId is not the id of a checkout session.")
	}
	user, pending, err := d.user(ctx, caller, "")
	if err != nil || user == nil {
		return pending, err
	}
	session, err := d.Stripe.CheckoutSession(ctx, sessionID)
	if failure.IsNotFound(err) {
		return nil, sessionNotFound()
	}
	if err != nil {
		return nil, upstream(err)
	}
	owned, err := d.owns(ctx, user, session)
	if err != nil {
		return nil, err
	}
	switch {
	case !owned:
		return nil, sessionNotFound()
	case session.Status == account.CheckoutOpen:
		return nil, refuse(Conflict, "checkout_open", "The checkout has not been completed.")
	case session.Status != account.CheckoutComplete:
		return nil, refuse(Conflict, "checkout_expired", "The checkout has expired; nothing was bought.")
	case session.CustomerID == "":
		return nil, refuse(Conflict, "no_customer", "The checkout has no customer.")
	}
	for _, claim := range session.Claims() {
		// What the session says counts as it will when its event comes. It is stored first: once the operation is committed, nothing
		// may come in between.
		if err := d.Store.AddClaim(ctx, claim); err != nil {
			return nil, unavailable(err)
		}
	}
	entity := account.CustomerEntity(session.CustomerID)
	op, isNew, err := d.begin(ctx, caller, key, store.NewOperation{
		Action: store.ActionReturn, ClerkUserID: user.ClerkUserID, Entity: entity, SubscriptionID: session.SubscriptionID, SessionID: sessionID,
	})
	if err != nil || op.Status.Settled() {
		return op, err
	}
	if isNew {
		d.poke(ctx, account.JobSync, entity)
	}
	return d.watch(ctx, op)
}

// owns tells whether a checkout session is a user's: by its customer, else by the user whom it names. One that merely
// refers to the user, as its payer may have written, is refused with what would confirm it.
func (d *Desk) owns(ctx context.Context, user *store.User, session account.CheckoutSession) (bool, error) {
	customers, err := d.Store.CustomersOf(ctx, user)
	if err != nil {
		return false, unavailable(err)
	}
	if slices.ContainsFunc(customers, func(c store.Customer) bool { return c.ID == session.CustomerID }) {
		return true, nil
	}
	buyer := account.ClaimedUser{Known: true}
	if user.EmailVerified {
		buyer.VerifiedEmail = user.Profile().Email
	}
	named := account.Claimant(account.Evidence{
		Claims: session.Claims(), Users: map[string]account.ClaimedUser{user.ClerkUserID: buyer},
		CustomerEmail: session.Email, TrustReferences: d.TrustClientReference,
	})
	if slices.ContainsFunc(named.Unverified, func(c account.Claim) bool { return c.ClerkUserID == user.ClerkUserID }) && named.ClerkUserID == "" {
		return false, refuse(Conflict, "reference_unverified",
			"The checkout refers to you, and was paid from an email address that is not your verified one. Verify that address, or ask for it to be confirmed.")
	}
	return named.ClerkUserID == user.ClerkUserID, nil
}

func sessionNotFound() error {
	return refuse(NotFound, "session_not_found", "You have no checkout session of this id.")
}
