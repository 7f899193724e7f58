package selfservice

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeevent"
)

// opening is the opening of one checkout, under the user's lease.
type opening struct {
	desk    *Desk
	request CheckoutRequest
	price   *store.CataloguePrice
	op      *store.Operation
	// repeated is set where the operation may have been begun before: by an earlier request under the
	// same key, or with a customer who has turned out to be gone.
	repeated bool
	// otherCurrency is set where the customer who pays has a subscription in another currency.
	otherCurrency bool
}

// The stable words for why no checkout is opened.
const (
	alreadySubscribed = "already_subscribed"
	otherSubscription = "other_subscription"
	currencyConflict  = "currency_conflict"
	checkoutExpired   = "checkout_expired"
	checkoutCompleted = "checkout_completed"
)

// run answers a checkout that is open now, or why there is none. Two requests at once, of one key
// or of two, go one after the other.
func (o *opening) run(ctx context.Context, user *store.User) (session account.CheckoutSession, err error) {
	d := o.desk
	if err := o.refused(); err != nil {
		return session, err
	}
	ctx, cancel := context.WithTimeout(ctx, openingTime)
	defer cancel()
	holder := o.op.ID + ":" + rand.Text()
	if err := d.lease(ctx, user, holder); err != nil {
		return session, err
	}
	// Where something may be open for a user who is being deleted, the lease is left: once it is over,
	// the sweep has the user's own workflow close what is open. The same follows if this process ends
	// here.
	left := false
	defer func() {
		if !left {
			d.release(ctx, user, holder)
		}
	}()
	if user, err = o.again(ctx, user); err != nil {
		return session, err
	}
	if err := o.adopted(ctx, user); err != nil {
		return session, err
	}
	session, asked, err := o.open(ctx, user)
	if asked || err == nil {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), closingTime)
		defer cancel()
		if err == nil {
			o.note(after, session)
		}
		closed, deleted := o.closeForDeleted(after, user, session)
		if left = !closed; deleted != nil {
			return account.CheckoutSession{}, deleted
		}
	}
	if err != nil {
		return account.CheckoutSession{}, err
	}
	return session, judge(session)
}

// again reads, under the lease, what may have changed while it was waited for: another request
// under the same key may have done it, and the user may be being deleted.
func (o *opening) again(ctx context.Context, user *store.User) (*store.User, error) {
	op, err := o.desk.Store.Operation(ctx, o.op.ID)
	if err != nil || op == nil {
		return nil, orElse(unavailable(err), operationNotFound())
	}
	o.op = op
	o.repeated = o.repeated || op.Status != store.OperationAccepted
	if err := o.refused(); err != nil {
		return nil, err
	}
	user, err = o.desk.Store.UserByClerkID(ctx, user.ClerkUserID)
	switch {
	case err != nil:
		return nil, unavailable(err)
	case user == nil || user.Deleting():
		return nil, userNotFound()
	case user.CustomerID() == "":
		return nil, errCustomerGone
	default:
		return user, nil
	}
}

// adopted answers [errNotAdopted] where the product's own tables, or evidence on record, name a
// customer for the user that is not linked to them: nothing is sold before it is. What such a
// customer has, and is the user's by all that is known, is a reason to refuse at once.
func (o *opening) adopted(ctx context.Context, user *store.User) error {
	d := o.desk
	if err := d.place(ctx, user); err != nil {
		return err
	}
	ids, err := d.Store.ToAdopt(ctx, user)
	if err != nil {
		return unavailable(err)
	}
	var held []account.Subscription
	for _, id := range ids {
		subscriptions, customer, err := d.Stripe.CustomerSubscriptions(ctx, id)
		if failure.IsNotFound(err) {
			continue
		}
		if err != nil {
			return upstream(err)
		}
		if customer == nil {
			continue // which has nothing
		}
		known, err := d.Store.EvidenceOn(ctx, id, account.ReadClaims(*customer, subscriptions)...)
		if err != nil {
			return unavailable(err)
		}
		if account.Claimant(known).ClerkUserID == user.ClerkUserID {
			held = append(held, subscriptions...)
		}
	}
	reason, because, err := o.obstacle(ctx, held)
	switch {
	case err != nil:
		return unavailable(err)
	case reason != "":
		return o.settleRefused(ctx, reason, because)
	case len(ids) > 0:
		return errNotAdopted
	default:
		return nil
	}
}

// place asks Stripe which customers' those subscriptions are that the product has noted of a user
// without them: what the user has may be a reason to refuse something. What Stripe does not have is
// none.
func (d *Desk) place(ctx context.Context, user *store.User) error {
	if !user.Unplaced {
		return nil
	}
	ids, err := d.Store.UnplacedSubscriptions(ctx, user)
	if err != nil {
		return unavailable(err)
	}
	for _, id := range ids {
		subscription, err := d.Stripe.Subscription(ctx, id)
		switch {
		case failure.IsNotFound(err):
			continue
		case err != nil && !subscription.Unread:
			return upstream(err)
		}
		if err := d.Store.Place(ctx, subscription.CustomerID, id, store.Cause{}); err != nil {
			return unavailable(err)
		}
	}
	return nil
}

// open answers the operation's own session, as it is now, or opens it. asked tells that Stripe was
// asked to open one, whatever came of it.
func (o *opening) open(ctx context.Context, user *store.User) (session account.CheckoutSession, asked bool, err error) {
	d := o.desk
	if o.op.SessionID != "" {
		session, err = d.Stripe.CheckoutSession(ctx, o.op.SessionID)
		if failure.IsNotFound(err) {
			if err := o.openedJustNow(ctx, user); err != nil {
				return session, false, err
			}
			return account.CheckoutSession{ID: o.op.SessionID, Status: account.CheckoutExpired}, false, nil
		}
		if err != nil || session.Status != account.CheckoutOpen {
			return session, false, asUpstream(err)
		}
		// Something else may have been bought since, by another way than ours.
		return session, false, o.clear(ctx, user, session.ID)
	}
	if o.repeated {
		// It may have been opened, and nobody has heard of it.
		if session, err = o.earlier(ctx, user); err != nil {
			return session, false, err
		}
		if session.ID != "" && session.Status != account.CheckoutOpen {
			return session, false, nil
		}
	}
	if err := o.clear(ctx, user, session.ID); err != nil || session.ID != "" {
		return session, false, err
	}
	customerID := user.CustomerID()
	session, err = d.Stripe.OpenCheckout(ctx, account.NewCheckout{
		ClerkUserID: user.ClerkUserID, CustomerID: customerID, PriceID: o.price.ID, ProductID: o.price.ProductID, Quantity: o.request.Quantity,
		SuccessURL: o.request.SuccessURL, CancelURL: o.request.CancelURL, Request: o.op.ID, IdempotencyKey: o.op.ID + ":checkout:" + customerID,
	})
	if err == nil {
		return session, true, nil
	}
	gone, checked := d.gone(ctx, user, err)
	switch {
	case checked != nil:
		return session, true, checked
	case gone:
		return session, true, errCustomerGone
	case failure.Of(err) == failure.Permanent:
		return session, true, o.refuse(ctx, err)
	default:
		return session, true, upstream(err)
	}
}

// openedJustNow answers why the operation's own session, which Stripe says that it does not have, is
// not given up: it was opened within the last minute, and may not show yet.
func (o *opening) openedJustNow(ctx context.Context, user *store.User) error {
	opened, err := o.desk.Store.OpenedCheckouts(ctx, user.ClerkUserID, account.ReadsBehind)
	if err != nil {
		return unavailable(err)
	}
	if slices.Contains(opened, o.op.SessionID) {
		return upstream(failure.NotShownYet("stripe", "read checkout session"))
	}
	return nil
}

// earlier finds the session that an earlier request of the operation has opened, in whatever state;
// none has no id.
func (o *opening) earlier(ctx context.Context, user *store.User) (session account.CheckoutSession, err error) {
	sessions, err := o.desk.Stripe.CheckoutSessionsSince(ctx, user.CustomerID(), o.op.CreatedAt.Add(-account.ClocksDiffer))
	if err != nil && !failure.IsNotFound(err) {
		return session, upstream(err)
	}
	for _, s := range sessions {
		if s.Metadata[account.MetadataRequest] == o.op.ID && (session.ID == "" || s.Status == account.CheckoutOpen) {
			session = s
		}
	}
	return session, nil
}

// clear makes sure that what is about to be opened is the only way to buy the product, or one that
// may not be held beside it: Stripe, not our copy, says what the customers have, also of what its
// list does not show and we know of, or shows as it cannot be any more; and earlier checkouts are
// closed, but for the operation's own. That is closed too where nothing may be bought. Each
// customer is looked at and each checkout closed whatever becomes of the others.
func (o *opening) clear(ctx context.Context, user *store.User, own string) error {
	d := o.desk
	customers, err := d.Store.CustomersOf(ctx, user)
	if err != nil {
		return unavailable(err)
	}
	customers = slices.DeleteFunc(customers, func(c store.Customer) bool {
		return c.DeletedInStripe // one that is missing may be there again, and bill
	})
	known, err := o.known(ctx, user, customers)
	if err != nil {
		return unavailable(err)
	}
	// First the way to a new one, then whether there is one: in the other order one could be bought
	// in between.
	failed := []error{o.closeOthers(ctx, user, customers, own, known)}
	var held []account.Subscription
	for _, c := range customers {
		subscriptions, _, err := d.Stripe.CustomerSubscriptions(ctx, c.ID)
		if err != nil && !failure.IsNotFound(err) {
			failed = append(failed, err)
		}
		subscriptions, err = o.asKnown(ctx, known[c.ID], subscriptions)
		failed = append(failed, err)
		if slices.ContainsFunc(subscriptions, func(s account.Subscription) bool { return s.Unread && live(s) }) {
			failed = append(failed, failure.New(failure.Transient, "stripe", "list subscriptions", "items_not_listed", nil))
		}
		held = append(held, subscriptions...)
		if c.ID == user.CustomerID() {
			o.otherCurrency = slices.ContainsFunc(subscriptions, func(s account.Subscription) bool {
				return live(s) && slices.ContainsFunc(s.Items, func(i account.Item) bool { return i.Currency != o.price.Currency })
			})
		}
	}
	reason, because, err := o.obstacle(ctx, held)
	failed = append(failed, err)
	if reason != "" && own != "" {
		if err := d.Stripe.ExpireCheckoutSession(ctx, own, "expire:"+own); !failure.IsNotFound(err) {
			failed = append(failed, err)
		}
	}
	if err := failure.Join(failed...); failure.ProviderOf(err) == "postgres" {
		return unavailable(err)
	} else if err != nil {
		return upstream(err)
	}
	if reason != "" {
		return o.settleRefused(ctx, reason, because)
	}
	return nil
}

// known is what we know of one subscription of a customer.
type known struct {
	id string
	// row is how we have stored it, nil where we have not; justNow is set where that was within the
	// last minute.
	row     *store.Subscription
	justNow bool
	// told is set where something that is not stored yet has told of it.
	told bool
}

// knowledge is what we know of subscriptions, by customer.
type knowledge map[string][]known

// hear adds a subscription that something has told of.
func (of knowledge) hear(customerID, id string) {
	if id == "" {
		return
	}
	i := slices.IndexFunc(of[customerID], func(k known) bool { return k.id == id })
	if i < 0 {
		i = len(of[customerID])
		of[customerID] = append(of[customerID], known{id: id})
	}
	of[customerID][i].told = true
}

// known are the subscriptions that a user's customers have as far as we know, or had: by our rows,
// and by what has come within the last minute and is not stored yet, events and the user's own
// return from a checkout.
func (o *opening) known(ctx context.Context, user *store.User, customers []store.Customer) (of knowledge, err error) {
	d := o.desk
	rows, err := d.Store.SubscriptionsOfUser(ctx, user)
	if err != nil {
		return nil, err
	}
	of = make(knowledge, len(customers))
	entities := make([]account.Entity, len(customers))
	for i, c := range customers {
		entities[i] = account.CustomerEntity(c.ID)
	}
	since := time.Now().Add(-account.ReadsBehind)
	for _, row := range rows {
		of[row.CustomerID] = append(of[row.CustomerID], known{id: row.StripeID, row: &row, justNow: row.UpdatedAt != nil && row.UpdatedAt.After(since)})
	}
	payloads, err := d.Store.Beginnings(ctx, entities, since)
	if err != nil {
		return nil, err
	}
	for _, payload := range payloads {
		if event, err := stripeevent.Parse(payload); err == nil {
			_, customerID := event.Entity().Split()
			of.hear(customerID, cmp.Or(event.Bought(), event.CreatedObject()))
		}
	}
	returns, err := d.Store.Unsettled(ctx, entities)
	if err != nil {
		return nil, err
	}
	for _, r := range returns {
		if r.Action == store.ActionReturn {
			_, customerID := r.Entity.Split()
			of.hear(customerID, r.SubscriptionID)
		}
	}
	return of, nil
}

// asKnown answers all that a customer has, of what a list has shown: the list may be a moment
// behind. What we know of and it leaves out is read by its id, and so is what it shows to wait for
// its first payment while something has told that it was bought. Where it shows what cannot be any
// more, since a read has shown otherwise before, our row counts. What Stripe does not have nobody
// has, unless our row of this very minute says that it does.
func (o *opening) asKnown(ctx context.Context, of []known, listed []account.Subscription) ([]account.Subscription, error) {
	var failed []error
	for _, k := range of {
		i := slices.IndexFunc(listed, func(s account.Subscription) bool { return s.ID == k.id })
		if i < 0 && k.row != nil && account.Status(k.row.Status).Terminal() {
			continue
		}
		if i < 0 || k.told && listed[i].Status == account.StatusIncomplete {
			subscription, err := o.desk.Stripe.Subscription(ctx, k.id)
			switch {
			case failure.IsNotFound(err) && i < 0 && k.justNow:
				subscription = k.row.Held().Subscription
				for _, item := range k.row.Items {
					subscription.Items = append(subscription.Items, account.Item{ID: item.ID, PriceID: item.Price, ProductID: item.Product, Currency: o.price.Currency})
				}
			case failure.IsNotFound(err):
				continue
			case err != nil:
				failed = append(failed, err)
				continue
			}
			if i < 0 {
				i = len(listed)
				listed = append(listed, subscription)
			}
			listed[i] = subscription
		}
		if k.row == nil {
			continue
		}
		over, err := o.desk.Store.Outlived(ctx, *k.row, listed[i].Status)
		if failed = append(failed, err); over {
			listed[i].Status = account.Status(k.row.Status)
		}
	}
	return listed, failure.Join(failed...)
}

// closeOthers closes the open checkouts, of any of a user's customers, of what may not be held
// beside what is being bought, whoever opened them, but for the operation's own. One that sells no
// subscription stays. What the user's own requests have opened just now, and Stripe's list does not
// show, is read by its id; of one that is completed it hears what was bought.
func (o *opening) closeOthers(ctx context.Context, user *store.User, customers []store.Customer, own string, of knowledge) error {
	d := o.desk
	var failed []error
	listed := []string{own}
	for _, c := range customers {
		sessions, err := d.Stripe.OpenCheckoutSessions(ctx, c.ID)
		if failure.IsNotFound(err) {
			continue
		}
		failed = append(failed, err)
		for _, s := range sessions {
			if listed = append(listed, s.ID); s.ID != own {
				failed = append(failed, o.closeExcluded(ctx, s))
			}
		}
	}
	opened, err := d.Store.OpenedCheckouts(ctx, user.ClerkUserID, account.ReadsBehind)
	failed = append(failed, err)
	for _, id := range opened {
		if slices.Contains(listed, id) {
			continue
		}
		s, err := d.Stripe.CheckoutSession(ctx, id)
		switch {
		case failure.IsNotFound(err): // it was opened a moment ago, and may be paid all the same
			failed = append(failed, failure.NotShownYet("stripe", "read checkout session"))
		case err != nil:
			failed = append(failed, err)
		case s.Status == account.CheckoutOpen:
			s.Products = []string{s.Metadata[account.MetadataProduct]} // as we have written on it
			failed = append(failed, o.closeExcluded(ctx, s))
		default:
			of.hear(s.CustomerID, s.SubscriptionID)
		}
	}
	return failure.Join(failed...)
}

// closeExcluded closes an open checkout, where what it sells may not be held beside what is being
// bought.
func (o *opening) closeExcluded(ctx context.Context, s account.CheckoutSession) error {
	if len(s.Products) == 0 {
		return nil
	}
	if !slices.Contains(s.Products, o.price.ProductID) {
		if excluded, err := o.excludes(ctx, s.Products...); err != nil || !excluded {
			return err
		}
	}
	err := o.desk.Stripe.ExpireCheckoutSession(ctx, s.ID, "expire:"+s.ID)
	if failure.IsNotFound(err) { // Stripe has shown it to be open
		return failure.NotShownYet("stripe", "expire checkout session")
	}
	return err
}

// obstacle answers why nothing may be bought beside what a user has, "" where it may: what they
// have already, and what they may not have beside what they have.
func (o *opening) obstacle(ctx context.Context, held []account.Subscription) (reason string, because account.Subscription, err error) {
	for _, s := range held {
		if live(s) && slices.Contains(products(s), o.price.ProductID) {
			return alreadySubscribed, s, nil
		}
	}
	for _, s := range held {
		if !live(s) {
			continue
		}
		if excluded, err := o.excludes(ctx, products(s)...); err != nil {
			return "", because, err
		} else if excluded {
			return otherSubscription, s, nil
		}
	}
	return "", because, nil
}

// live tells whether a subscription is one that its user has. One whose first payment is still open
// is not: it comes to nothing by itself.
func live(s account.Subscription) bool {
	return !s.Status.Terminal() && s.Status != account.StatusIncomplete
}

func products(s account.Subscription) []string {
	ids := make([]string, len(s.Items))
	for i, item := range s.Items {
		ids[i] = item.ProductID
	}
	return ids
}

// excludes tells whether what is being bought may not be held beside these products together.
// Either side can allow it: what is added to a plan is bought before the plan or after it. Of
// several products in one subscription each has to.
func (o *opening) excludes(ctx context.Context, others ...string) (bool, error) {
	if o.desk.Beside == account.BesideAllow || o.price.Beside {
		return false, nil
	}
	allowing, err := o.desk.Store.ProductsBeside(ctx, others)
	if err != nil {
		return false, err
	}
	return len(others) == 0 || slices.ContainsFunc(others, func(id string) bool { return !slices.Contains(allowing, id) }), nil
}

// note notes which session was opened: before closeForDeleted looks whether the user is being
// deleted, so that a deletion which that look does not see finds the session by its id.
func (o *opening) note(ctx context.Context, session account.CheckoutSession) {
	if err := o.desk.Store.CheckoutOpened(ctx, o.op.ID, session.ID); err != nil {
		// The session is there all the same, and the same key finds it.
		o.desk.Logger.WarnContext(ctx, "what was opened was not noted", "operation", "checkout", "operation_id", o.op.ID,
			"error_class", string(failure.Of(err)), "error", err.Error())
	}
}

// closeForDeleted looks once more whether the user is being deleted, now that Stripe has been asked
// to open a checkout: their deletion may have looked for open ones before this one was. closed is
// false where one may be open that should not be.
func (o *opening) closeForDeleted(ctx context.Context, user *store.User, session account.CheckoutSession) (closed bool, err error) {
	d := o.desk
	row, err := d.Store.UserByClerkID(ctx, user.ClerkUserID)
	if err != nil {
		return false, unavailable(err)
	}
	if row != nil && !row.Deleting() {
		return true, nil
	}
	if session.ID == "" {
		return false, userNotFound() // what came of it is not known
	}
	// A 404 says nothing: the session was opened a moment ago, and may not show yet.
	if err := d.Stripe.ExpireCheckoutSession(ctx, session.ID, "expire:"+session.ID); err != nil {
		d.Logger.WarnContext(ctx, "a checkout of a user who is being deleted was not closed; the sweep has it closed", "operation", "checkout",
			"session_id", session.ID, "error_class", string(failure.Of(err)), "error", err.Error())
		return false, userNotFound()
	}
	_ = d.Store.SettleOperation(ctx, o.op.ID, store.OperationRefused, string(account.RefusedUserDeleted)) // the answer is the same without
	return true, userNotFound()
}

// judge answers nil for a session that is open, and else why there is none to go to. What Stripe
// repeats under a key was true when it was first said.
func judge(session account.CheckoutSession) error {
	switch session.Status {
	case account.CheckoutOpen:
		return nil
	case account.CheckoutComplete:
		return refuse(Conflict, checkoutCompleted, "The checkout that this Idempotency-Key opened has been completed; there is nothing left to pay.")
	case account.CheckoutExpired:
		return checkoutClosed()
	default:
		return checkoutClosed()
	}
}

func checkoutClosed() error {
	return refuse(Conflict, checkoutExpired,
		"The checkout that this Idempotency-Key opened is closed: it ran out, or another was opened since. Ask again under a new Idempotency-Key.")
}

// refuse is the answer where Stripe refuses to open a checkout although its customer is there.
func (o *opening) refuse(ctx context.Context, err error) error {
	if o.otherCurrency {
		return o.settleRefused(ctx, currencyConflict, account.Subscription{})
	}
	_ = o.desk.Store.SettleOperation(ctx, o.op.ID, store.OperationFailed, failure.CodeOf(err)) // the answer is the same without
	// Our catalogue may be behind: the price may have been archived, or be another than we think.
	o.desk.poke(ctx, account.JobSync, account.ProductEntity(o.price.ProductID))
	return upstream(err)
}

// settleRefused ends the operation with a refusal, and answers it. The same key gets the same
// answer again, unless it was done before, which it stays.
func (o *opening) settleRefused(ctx context.Context, reason string, because account.Subscription) error {
	at, _ := because.ScheduledToEnd()
	if o.op.Status == store.OperationDone {
		return refusalOf(reason, because.ID, at)
	}
	err := o.desk.Store.RefuseCheckout(ctx, o.op.ID, reason, because.ID, account.Ending{AtPeriodEnd: because.CancelAtPeriodEnd, At: at})
	if err != nil {
		return unavailable(err)
	}
	return refusalOf(reason, because.ID, at)
}

// refused is the refusal that the operation has ended with, nil for none. One that failed is tried
// again.
func (o *opening) refused() error {
	if o.op.Status != store.OperationRefused {
		return nil
	}
	ending, err := o.op.Before()
	if err != nil {
		return fmt.Errorf("reading a refusal: %w", err)
	}
	return refusalOf(o.op.Reason, o.op.SubscriptionID, ending.At)
}

// refusalOf is why no checkout is opened; at is when the subscription that it is about is set to
// end, zero where it is not.
func refusalOf(reason, subscriptionID string, at time.Time) error {
	refusal := &Refusal{Kind: Conflict, Code: reason, SubscriptionID: subscriptionID, EndsAt: at}
	switch reason {
	case alreadySubscribed:
		refusal.Detail = "You have a subscription of this product already."
	case otherSubscription:
		refusal.Detail = fmt.Sprintf("You have the subscription %s of another product, and would pay for both.", subscriptionID)
		if at.IsZero() {
			refusal.Detail += " Change its plan in the billing portal, or cancel it and buy this one when it has ended."
		} else {
			refusal.Detail += fmt.Sprintf(" It ends at %s: buy this one then, or cancel it at once.", at.UTC().Format(time.RFC3339))
		}
	case currencyConflict:
		refusal.Detail = "What you have is paid in another currency, and Stripe takes one currency of a customer. Choose a price in that currency."
	case string(account.RefusedUserDeleted):
		return userNotFound()
	default:
		refusal.Detail = "The state does not allow it."
	}
	return refusal
}

// asUpstream is [upstream], nil for no error.
func asUpstream(err error) error {
	if err == nil {
		return nil
	}
	return upstream(err)
}

// lease takes the user's lease for one request, waiting for whoever has it.
func (d *Desk) lease(ctx context.Context, user *store.User, holder string) error {
	ctx, cancel := context.WithTimeout(ctx, d.Wait)
	defer cancel()
	for {
		taken, err := d.Store.LeaseCheckout(ctx, user.ID, holder, checkoutLease)
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

// release gives the lease back. Whatever came of the request, the next one need not wait for the
// lease to end.
func (d *Desk) release(ctx context.Context, user *store.User, holder string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closingTime)
	defer cancel()
	if err := d.Store.ReleaseCheckout(ctx, user.ID, holder); err != nil {
		d.Logger.WarnContext(ctx, "a checkout's lease was not given back; it ends by itself", "operation", "checkout",
			"error_class", string(failure.Of(err)), "error", err.Error())
	}
}
