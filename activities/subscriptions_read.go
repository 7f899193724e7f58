package activities

import (
	"context"
	"slices"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeevent"
)

// shown is what one read of Stripe showed of a customer.
type shown struct {
	// began is when the read began, by the database's clock; zero for a command's own.
	began         time.Time
	customer      account.Customer
	subscriptions []account.Subscription
	// missing are stored subscriptions that Stripe answers 404 for.
	missing         []string
	customerMissing bool
	// elsewhere are stored subscriptions that are another customer's, by that customer.
	elsewhere map[string][]string
	// invoices are open ones of subscriptions that owe, where none was known; told is when they were
	// read.
	invoices []account.Payment
	told     time.Time
	// unread is why something of it could not be read. All else is stored, and no event is completed.
	// kept are the subscriptions that keep the row that they have, since they were not read, or since
	// it is not known since when they owe.
	unread error
	kept   []string
	ofDeleted
}

// partial tells whether something could not be read.
func (s *shown) partial() bool { return s.unread != nil }

// keep notes that something of a subscription could not be read.
func (s *shown) keep(subscriptionID string, err error) {
	s.unread = failure.Join(s.unread, err)
	s.kept = append(s.kept, subscriptionID)
}

// read reads a customer under a number, and where a subscription is past_due and none of our rows
// says since when it owes, its open invoices: one more request, and only then. Whatever of a single
// subscription cannot be read holds up no other.
func (a *Subscriptions) read(ctx context.Context, customerID string, number int64) (shown, error) {
	seen, err := readCustomer(ctx, a.Store, a.Stripe, customerID)
	if err != nil {
		return seen, err
	}
	var owing []string
	for _, s := range seen.subscriptions {
		if s.Status == account.StatusPastDue {
			owing = append(owing, s.ID)
		}
	}
	if len(owing) == 0 {
		return seen, nil
	}
	if owing, err = a.owedUnknown(ctx, customerID, number, owing); err != nil {
		return seen, err
	}
	for _, id := range owing {
		seen.told = time.Now()
		invoices, err := a.Stripe.OpenInvoices(ctx, id)
		if err != nil && !failure.IsNotFound(err) {
			seen.keep(id, err)
		}
		seen.invoices = append(seen.invoices, invoices...)
	}
	return seen, nil
}

// owedUnknown keeps of some subscriptions those of which neither a row nor an event that is about
// to be taken says since when they owe.
func (a *Subscriptions) owedUnknown(ctx context.Context, customerID string, number int64, owing []string) ([]string, error) {
	unknown, err := a.Store.OwedUnknown(ctx, account.CustomerEntity(customerID), number, owing)
	if err != nil || len(unknown) == 0 {
		return nil, err
	}
	payloads, err := a.Store.PendingInvoices(ctx, account.CustomerEntity(customerID), number)
	if err != nil || len(payloads) == 0 {
		return unknown, err
	}
	told := map[string][]account.Payment{}
	for _, payload := range payloads {
		event, err := stripeevent.Parse(payload)
		if err != nil {
			continue // it was parsed when it came; see take
		}
		if invoice, ok := event.Payment(); ok {
			told[invoice.SubscriptionID] = append(told[invoice.SubscriptionID], invoice)
		}
	}
	var still []string
	for _, id := range unknown {
		// One that is told to be open may be paid by now, as a row or another event says, and what was
		// found before may be over.
		known, was, err := a.Store.Owed(ctx, id)
		if err != nil {
			return nil, err
		}
		if !account.KnowsOwed(account.InvoicesWith(known, told[id]), was) {
			still = append(still, id)
		}
	}
	return still, nil
}

// readCustomer asks Stripe once. Only what the answer leaves open costs more: the customer itself
// where no subscription shows it, and each subscription that we know and that the list left out.
func readCustomer(ctx context.Context, st *store.Store, stripe Stripe, customerID string) (shown, error) {
	var seen shown
	list, customer, err := stripe.CustomerSubscriptions(ctx, customerID)
	switch {
	case failure.IsNotFound(err):
		list = nil
	case err != nil:
		return seen, err
	}
	for _, s := range list {
		if !s.Unread {
			seen.subscriptions = append(seen.subscriptions, s)
			continue
		}
		over, err := ended(ctx, st, customerID, s)
		switch {
		case err != nil:
			return seen, err
		case over:
			continue // nothing more can be learnt of it
		}
		alone, err := stripe.Subscription(ctx, s.ID)
		switch {
		case failure.IsNotFound(err): // as the list may be behind
		case err != nil:
			seen.keep(s.ID, err)
		default:
			seen.subscriptions = append(seen.subscriptions, alone)
		}
	}
	if customer != nil {
		seen.customer = *customer
	} else {
		found, err := stripe.Customer(ctx, customerID)
		switch {
		case failure.IsNotFound(err):
			seen.customerMissing = true
			seen.note(err, customerID)
			return seen, nil
		case err != nil:
			return seen, err
		}
		seen.customer = found
	}
	return seen, readLeftOut(ctx, st, stripe, customerID, &seen)
}

// ended tells whether a subscription has ended by what Stripe's list shows of it, and by what is
// stored.
func ended(ctx context.Context, st *store.Store, customerID string, listed account.Subscription) (bool, error) {
	if !listed.Status.Terminal() {
		return false, nil
	}
	stored, err := st.SubscriptionsOfCustomer(ctx, customerID)
	return slices.ContainsFunc(stored, func(s store.Subscription) bool {
		return s.StripeID == listed.ID && account.Status(s.Status).Terminal()
	}), err
}

// readLeftOut reads each subscription that we know, that may still change and that the list left
// out.
func readLeftOut(ctx context.Context, st *store.Store, stripe Stripe, customerID string, seen *shown) error {
	stored, err := st.SubscriptionsOfCustomer(ctx, customerID)
	if err != nil {
		return err
	}
	for _, s := range stored {
		if _, listed := find(seen.subscriptions, s.StripeID); account.Status(s.Status).Terminal() || listed || slices.Contains(seen.kept, s.StripeID) {
			continue
		}
		subscription, err := stripe.Subscription(ctx, s.StripeID)
		switch {
		case failure.IsNotFound(err):
			seen.missing = append(seen.missing, s.StripeID)
			seen.note(err, s.StripeID)
		case err != nil:
			seen.keep(s.StripeID, err)
		case subscription.CustomerID == customerID:
			seen.subscriptions = append(seen.subscriptions, subscription)
		default:
			if seen.elsewhere == nil {
				seen.elsewhere = map[string][]string{}
			}
			seen.elsewhere[subscription.CustomerID] = append(seen.elsewhere[subscription.CustomerID], s.StripeID)
		}
	}
	return nil
}
