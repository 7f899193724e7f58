package selfservice

import (
	"context"
	"errors"
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
	Caller  Caller
	Key     Key
	PriceID string
	// Quantity is how many are bought, 0 for one. A metered price has none: what is used is counted
	// afterwards.
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

// Opening a checkout ends in openingTime, with what has to be seen to afterwards in closingTime
// more; the lease outlives both, so that nobody else opens one for the same user meanwhile.
const (
	openingTime   = 60 * time.Second
	closingTime   = 15 * time.Second
	checkoutLease = 90 * time.Second
)

// Checkout opens a checkout for the caller's own customer, and answers one that is open. At most
// one is open at a time for products that may not be held beside each other, and none is opened for
// a product that the caller has already, or that may not be held beside what they have. A caller
// who has no customer at Stripe, or none any more, is given one first.
func (d *Desk) Checkout(ctx context.Context, r CheckoutRequest) (opened Checkout, pending *store.Operation, err error) {
	none := Checkout{}
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
	case price.Metered && r.Quantity != 0:
		return none, nil, refuse(Invalid, "quantity_of_metered", "A metered price has no quantity: what is used is counted afterwards. Leave quantity out.")
	case !price.Metered && r.Quantity == 0:
		r.Quantity = 1
	}
	var op *store.Operation
	defer func() { pending, err = accepted(op, pending, err) }()
	for range mostCustomers {
		user, pending, err := d.payer(ctx, r.Caller)
		if err != nil || user == nil {
			return none, pending, err
		}
		isNew := false
		if op == nil {
			op, isNew, err = d.begin(ctx, r.Caller, r.Key, store.NewOperation{
				Action: store.ActionCheckout, ClerkUserID: user.ClerkUserID, Entity: account.CustomerEntity(user.CustomerID()),
			}, r.PriceID, strconv.FormatInt(r.Quantity, 10), r.SuccessURL, r.CancelURL)
			if err != nil {
				return none, nil, err
			}
		}
		opening := opening{desk: d, request: r, price: price, op: op, repeated: !isNew}
		session, err := opening.run(ctx, user)
		if errors.Is(err, errCustomerGone) {
			continue
		}
		if errors.Is(err, errNotAdopted) {
			if pending, err := d.sync(ctx, r.Caller, Key{}, user.ClerkUserID, user); err != nil || !pending.Status.Settled() {
				return none, pending, err
			}
			continue
		}
		if err != nil {
			return none, nil, err
		}
		return Checkout{SessionID: session.ID, URL: session.URL, OperationID: op.ID}, nil, nil
	}
	return none, nil, refuse(Unavailable, notAccepted, "The customer at Stripe is gone, or it is not settled yet whose it is; try again.")
}

// accepted makes of "not accepted" the operation, where there is one: it was accepted, and the same
// key goes on with it, whatever has been done by now.
func accepted(op, pending *store.Operation, err error) (*store.Operation, error) {
	if r, ok := errors.AsType[*Refusal](err); ok && r.Code == notAccepted && op != nil {
		return op, nil
	}
	return pending, err
}

// mostCustomers is how many customers one request may find gone from Stripe before it is refused.
const mostCustomers = 3

// errCustomerGone says that a user's customer has turned out to be deleted at Stripe, or missing
// there. It is recorded: who is asked for again has another, or none.
var errCustomerGone = errors.New("the customer is gone from Stripe")

// errNotAdopted says that the product's own tables, or evidence on record, name a customer for a
// user that is not linked to them yet.
var errNotAdopted = errors.New("a customer that is named for the user is not linked")

// payer answers the caller's row once they have a customer at Stripe. Who has none is given one;
// where that takes longer than they wait, the operation that does it is answered.
func (d *Desk) payer(ctx context.Context, caller Caller) (*store.User, *store.Operation, error) {
	user, pending, err := d.user(ctx, caller, "")
	if err != nil || user == nil || user.CustomerID() != "" {
		return user, pending, err
	}
	pending, err = d.sync(ctx, caller, Key{}, user.ClerkUserID, user)
	if err != nil || !pending.Status.Settled() {
		return nil, pending, err
	}
	if user, pending, err = d.user(ctx, caller, ""); err != nil || user == nil {
		return nil, pending, err
	}
	if user.CustomerID() == "" {
		return nil, nil, refuse(Unavailable, "not_accepted", "There is no customer yet; try again.")
	}
	return user, nil, nil
}

func (d *Desk) checkCheckout(r CheckoutRequest) error {
	switch {
	case !account.ValidPriceID(r.PriceID):
		return refuse(Invalid, "field_invalid", "priceId is not the id of a price.")
	case r.Quantity < 0 || r.Quantity > mostSeats:
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

// gone looks whether a request was refused because its customer is not at Stripe any more, and
// records that. The user's row names another customer afterwards, or none, and the customer's own
// sync sees to the rest.
func (d *Desk) gone(ctx context.Context, user *store.User, refused error) (bool, error) {
	if failure.Of(refused) != failure.Permanent {
		return false, nil
	}
	customerID := user.CustomerID()
	number, err := d.Store.NextRead(ctx)
	if err != nil {
		return false, unavailable(err)
	}
	customer, err := d.Stripe.Customer(ctx, customerID)
	if err != nil && !failure.IsNotFound(err) {
		return false, upstream(err)
	}
	if err == nil && !customer.Deleted {
		return false, nil
	}
	if err != nil {
		told, err := d.Store.ToldLately(ctx, customerID, account.ReadsBehind)
		switch {
		case err != nil:
			return false, unavailable(err)
		case told:
			return false, upstream(failure.NotShownYet("stripe", "read customer"))
		}
	}
	if err := d.Store.NoteGone(ctx, user.ClerkUserID, customerID, number, err == nil, d.Access); err != nil {
		return false, unavailable(err)
	}
	d.Wake()
	return true, nil
}

// Portal opens Stripe's billing portal for the caller's own customer. Under the same key it is
// opened again, since an address that was answered before may lead nowhere any more; the way back
// from it stays the same.
func (d *Desk) Portal(ctx context.Context, caller Caller, key Key, returnURL string) (address string, pending *store.Operation, err error) {
	if !d.returnable(returnURL) {
		return "", nil, refuse(Invalid, "field_invalid", "returnUrl is not an address that people may be sent to.")
	}
	var op *store.Operation
	defer func() { pending, err = accepted(op, pending, err) }()
	for range mostCustomers {
		user, pending, err := d.user(ctx, caller, "")
		if err != nil || user == nil {
			return "", pending, err
		}
		if user.CustomerID() == "" {
			return "", nil, refuse(Conflict, "no_customer", "There is nothing to manage yet.")
		}
		toAdopt, err := d.Store.ToAdopt(ctx, user)
		if err != nil {
			return "", nil, unavailable(err)
		}
		if slices.Contains(toAdopt, user.CustomerID()) {
			// The portal shows what the customer has: it has to be theirs first.
			if pending, err := d.sync(ctx, caller, Key{}, user.ClerkUserID, user); err != nil || !pending.Status.Settled() {
				return "", pending, err
			}
			continue
		}
		if op == nil {
			if op, _, err = d.begin(ctx, caller, key, store.NewOperation{
				Action: store.ActionPortal, ClerkUserID: user.ClerkUserID, Entity: account.CustomerEntity(user.CustomerID()),
			}, returnURL); err != nil {
				return "", nil, err
			}
		}
		address, err = d.Stripe.OpenPortal(ctx, user.CustomerID(), returnURL, "portal:"+op.ID+":"+user.CustomerID())
		if err == nil {
			// Their deletion may have been asked for meanwhile. What is done in the portal all the same the
			// deletion policy finds; but nobody is shown the way there.
			user, err = d.Store.UserByClerkID(ctx, user.ClerkUserID)
			if err != nil {
				return "", nil, unavailable(err)
			}
			if user == nil || user.Deleting() {
				d.portalEnded(ctx, op, store.OperationRefused, string(account.RefusedUserDeleted))
				return "", nil, userNotFound()
			}
			d.portalEnded(ctx, op, store.OperationDone, "")
			return address, nil, nil
		}
		gone, checked := d.gone(ctx, user, err)
		if checked != nil {
			return "", nil, checked
		}
		if !gone {
			if failure.Of(err) == failure.Permanent {
				d.portalEnded(ctx, op, store.OperationFailed, failure.CodeOf(err))
			}
			return "", nil, upstream(err)
		}
	}
	return "", nil, refuse(Unavailable, "not_accepted", "The customer at Stripe is gone, or it is not settled yet whose it is; try again.")
}

// portalEnded notes how the opening of a portal ended. The row is there for its key, which means
// this request from its beginning on; where the end cannot be noted the answer is the same, and the
// row expires.
func (d *Desk) portalEnded(ctx context.Context, op *store.Operation, status store.OperationStatus, reason string) {
	if err := d.Store.SettleOperation(ctx, op.ID, status, reason); err != nil {
		d.Logger.WarnContext(ctx, "how the opening of a portal ended was not noted", "operation", "portal", "operation_id", op.ID,
			"error_class", string(failure.Of(err)), "error", err.Error())
	}
}

func orElse(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
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
	session, err := d.completed(ctx, sessionID)
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
		// What the session says counts as it will when its event comes. It is stored first: once the
		// operation is committed, nothing may come in between.
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

// The pauses between two reads of a checkout session that is still shown as open.
const (
	firstReread = 500 * time.Millisecond
	lastReread  = 2 * time.Second
)

// completed reads a checkout session from which somebody comes back. They are sent back the moment
// it is complete, and not each of Stripe's reads shows that at once: one that is shown as open is
// read again for a few seconds, as far as the caller waits.
func (d *Desk) completed(ctx context.Context, sessionID string) (session account.CheckoutSession, err error) {
	patience := time.After(d.Wait)
	for pause := firstReread; ; pause *= 2 {
		session, err = d.Stripe.CheckoutSession(ctx, sessionID)
		if err != nil || session.Status != account.CheckoutOpen || pause > lastReread {
			return session, err
		}
		select {
		case <-time.After(pause):
		case <-patience:
			return session, nil
		case <-ctx.Done():
			return session, ctx.Err()
		}
	}
}

// owns tells whether a checkout session is a user's: by its customer, else by the user whom it
// names, else by the address that it was paid with. One that merely refers to the user, as its
// payer may have written, is refused with what would confirm it.
func (d *Desk) owns(ctx context.Context, user *store.User, session account.CheckoutSession) (bool, error) {
	customers, err := d.Store.CustomersOf(ctx, user)
	if err != nil {
		return false, unavailable(err)
	}
	if slices.ContainsFunc(customers, func(c store.Customer) bool { return c.ID == session.CustomerID }) {
		return true, nil
	}
	// Of one that the product's own tables name, or evidence, the customer's own look decides,
	// which the caller waits for.
	toAdopt, err := d.Store.ToAdopt(ctx, user)
	if err != nil {
		return false, unavailable(err)
	}
	if slices.Contains(toAdopt, session.CustomerID) {
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
	if named.ClerkUserID == "" && d.LinkByEmail {
		return d.ownsByAddress(ctx, user, session)
	}
	return named.ClerkUserID == user.ClerkUserID, nil
}

// ownsByAddress tells whether the customer of a session that names nobody is about to be linked to
// a user by the address that it was paid with. Its own look decides, which the caller waits for:
// which of the two is first, they or the events of Stripe, is chance.
func (d *Desk) ownsByAddress(ctx context.Context, user *store.User, session account.CheckoutSession) (bool, error) {
	if session.CustomerID == "" {
		return false, nil
	}
	owner, err := d.Store.OwnerOfCustomer(ctx, session.CustomerID)
	if err != nil || owner != "" {
		return false, unavailable(err)
	}
	evidence, err := d.Store.EvidenceOn(ctx, session.CustomerID, session.Claims()...)
	if err != nil {
		return false, unavailable(err)
	}
	if named := account.Claimant(evidence); named.Conflict || named.ClerkUserID != "" && !named.Missing {
		return named.ClerkUserID == user.ClerkUserID, nil
	}
	users, err := d.Store.UsersByAddress(ctx, []account.Customer{{ID: session.CustomerID, Email: session.Email}})
	if err != nil {
		return false, unavailable(err)
	}
	return users[session.CustomerID] == user.ClerkUserID, nil
}

func sessionNotFound() error {
	return refuse(NotFound, "session_not_found", "You have no checkout session of this id.")
}
