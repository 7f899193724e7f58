package activities

import (
	"context"
	"encoding/json"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeevent"
)

// Stripe is what the activities ask of Stripe. Its errors are classified failures. A change that is
// asked for again under the same key is made once, and no failure that Stripe has stored under the
// key is answered; package stripechanges sees to that.
type Stripe interface {
	// CustomerSubscriptions lists every subscription of any status, or fails as a whole; the customer
	// is nil where no subscription shows it. Where only items are refused, every subscription is
	// answered beside the error, some of them Unread.
	CustomerSubscriptions(ctx context.Context, customerID string) ([]account.Subscription, *account.Customer, error)
	// Subscription reads one. Where only its items cannot be read, all else is answered beside the
	// error, Unread.
	Subscription(ctx context.Context, subscriptionID string) (account.Subscription, error)
	Customer(ctx context.Context, customerID string) (account.Customer, error)
	// CustomersNaming answers, from an index that is behind, the customers that name a user in their
	// metadata.
	CustomersNaming(ctx context.Context, clerkUserID string) ([]account.Customer, error)
	// CustomersSubscribedFor answers, from such an index, the ids of customers whose subscriptions name
	// a user in their metadata.
	CustomersSubscribedFor(ctx context.Context, clerkUserID string) ([]string, error)
	// CustomersSince answers the first customer for which wanted holds of those that were made at a
	// moment or later, from a list that shows what was made just now.
	CustomersSince(ctx context.Context, since time.Time, wanted func(account.Customer) bool) (customer account.Customer, found bool, err error)
	// CreateCustomer tells with before that the customer, which is as it is now, was made before this
	// call.
	CreateCustomer(ctx context.Context, n account.NewCustomer) (customer account.Customer, before bool, err error)
	UpdateCustomer(ctx context.Context, customerID string, email, name *string, idempotencyKey string) (account.Customer, error)
	DeleteCustomer(ctx context.Context, customerID, idempotencyKey string) error
	// CustomerIsUnused tells whether no subscription of any status, payment method or open
	// checkout session hangs on the customer.
	CustomerIsUnused(ctx context.Context, customerID string) (bool, error)
	CancelNow(ctx context.Context, subscriptionID, idempotencyKey string) (account.Subscription, error)
	// SetEnding sets how a subscription ends: by the flag, by a date, or, with none, not at all. from
	// is how it is set to end now, since Stripe clears a flag and a date differently.
	SetEnding(ctx context.Context, subscriptionID string, from, to account.Ending, idempotencyKey string) (account.Subscription, error)
	// TakeKey has a change that was asked for under a key not be made from now on, if it has not been
	// made.
	TakeKey(ctx context.Context, subscriptionID, idempotencyKey string) error
	// CustomerSchedules lists every subscription schedule of any status, or fails as a whole; beside
	// one of an unknown status, which is a failure, all others are answered.
	CustomerSchedules(ctx context.Context, customerID string) ([]account.Schedule, error)
	Schedule(ctx context.Context, scheduleID string) (account.Schedule, error)
	// EndThroughSchedule ends a subscription at a moment of its present period by the schedule that
	// manages it; ContinueThroughSchedule takes an end by the schedule back.
	EndThroughSchedule(ctx context.Context, scheduleID string, at time.Time, idempotencyKey string) error
	ContinueThroughSchedule(ctx context.Context, scheduleID, idempotencyKey string) error
	// EndWithPresentPhase is EndThroughSchedule where no phase is to begin any more.
	EndWithPresentPhase(ctx context.Context, scheduleID string, at time.Time, idempotencyKey string) error
	// CancelSchedule ends a schedule and, at once, the subscription that it manages, if it has begun.
	CancelSchedule(ctx context.Context, scheduleID, idempotencyKey string) error
	// ReleaseSchedule takes the schedule off its subscription; its later phases are gone with that.
	ReleaseSchedule(ctx context.Context, scheduleID, idempotencyKey string) error
	// Account answers the id of the account that the key belongs to.
	Account(ctx context.Context) (string, error)
	OpenCheckoutSessions(ctx context.Context, customerID string) ([]account.CheckoutSession, error)
	ExpireCheckoutSession(ctx context.Context, sessionID, idempotencyKey string) error
	// Product reads a product with all its prices, archived ones too, unless there are very many.
	Product(ctx context.Context, productID string) (account.Product, error)
	Price(ctx context.Context, priceID string) (account.Price, error)
	// OpenInvoices lists a subscription's open invoices.
	OpenInvoices(ctx context.Context, subscriptionID string) ([]account.Payment, error)
	// PendingCharges lists what Stripe will collect of a customer by itself, or fails as a whole.
	PendingCharges(ctx context.Context, customerID string) ([]account.PendingCharge, error)
	// StopCollecting keeps an invoice from being collected by itself; DeleteInvoiceItem takes away
	// what no invoice has taken in.
	StopCollecting(ctx context.Context, invoiceID, idempotencyKey string) error
	DeleteInvoiceItem(ctx context.Context, itemID string) error
	// ChargeCustomer answers the customer of a charge or a payment intent, "" where it has none.
	ChargeCustomer(ctx context.Context, id string) (customerID string, err error)
}

// Clerk is what the activities ask of Clerk. Its errors are classified failures.
type Clerk interface {
	// User reads a user and what public_metadata holds under "stripe".
	User(ctx context.Context, clerkUserID string) (user account.User, held json.RawMessage, err error)
	// SetStripeMetadata merges value into public_metadata under "stripe"; nulls remove.
	SetStripeMetadata(ctx context.Context, clerkUserID string, value json.RawMessage) error
}

// EventLister lists Stripe's own record of what happened.
type EventLister interface {
	// EventsPage lists events from a moment on, the newest first, behind the one named, and answers
	// the id that the next page continues behind, "" after the last.
	EventsPage(ctx context.Context, from time.Time, after string) (events []stripeevent.Listed, next string, err error)
}

// ChangeLister lists the users of Clerk in the order of their last changes.
type ChangeLister interface {
	// ChangedUsersPage lists users from a place on, "" for the first page, those first that were
	// changed last, and answers the place of the next page, "" after the last.
	ChangedUsersPage(ctx context.Context, after string) (users []account.ListedUser, next string, err error)
}

// StripeLists lists everything that an account has, a page at a time, behind the id named; each
// method answers the id that the next page continues behind, "" after the last. Behind the id,
// after an "@", may stand when the object was made, in Unix seconds, so that the list can go on if
// it is deleted meanwhile: see behind.
type StripeLists interface {
	// CustomersPage lists the customers that are not deleted.
	CustomersPage(ctx context.Context, after string) (customers []account.Customer, next string, err error)
	// SubscriptionsPage lists subscriptions of any status.
	SubscriptionsPage(ctx context.Context, after string) (subscriptions []account.Subscription, next string, err error)
	// ProductsPage lists products without their prices.
	ProductsPage(ctx context.Context, after string) (products []account.Product, next string, err error)
	PricesPage(ctx context.Context, after string) (prices []account.Price, next string, err error)
}

// UserList lists everybody at Clerk.
type UserList interface {
	// UsersPage lists users from a place on, "" for the first page, and answers the place of the next
	// page, "" after the last. Nobody is passed over who is there all the time.
	UsersPage(ctx context.Context, after string) (users []account.ListedUser, next string, err error)
}

// Watchers tells for which customers a workflow is open.
type Watchers interface {
	// WatchedPage lists such customers; next is "" after the last page. It may be some seconds behind.
	WatchedPage(ctx context.Context, after string) (customerIDs []string, next string, err error)
	// Watched tells whether a workflow is open for a customer now.
	Watched(ctx context.Context, customerID string) (bool, error)
}
