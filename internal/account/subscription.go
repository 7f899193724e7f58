package account

import "time"

// Status is a subscription's status in Stripe's own words.
type Status string

// The statuses that Stripe gives a subscription.
const (
	StatusIncomplete        Status = "incomplete"
	StatusIncompleteExpired Status = "incomplete_expired"
	StatusTrialing          Status = "trialing"
	StatusActive            Status = "active"
	StatusPastDue           Status = "past_due"
	StatusUnpaid            Status = "unpaid"
	StatusPaused            Status = "paused"
	StatusCanceled          Status = "canceled"
)

// Terminal tells whether Stripe will never change a subscription of this status again.
func (s Status) Terminal() bool {
	return s == StatusCanceled || s == StatusIncompleteExpired
}

// Outlives tells whether a read that shows a subscription of this status in another cannot be of
// now: what has ended does not begin again, and what was paid for once does not wait for its first
// payment. If a read has shown the first before, such a read is behind, however long ago that was.
func (s Status) Outlives(shown Status) bool {
	return s.Terminal() && !shown.Terminal() || shown == StatusIncomplete && s != StatusIncomplete
}

// Subscription is one Stripe subscription as one read of Stripe showed it. A zero time means
// that Stripe gives none.
type Subscription struct {
	ID         string
	CustomerID string
	Status     Status
	Items      []Item

	CurrentPeriodStart time.Time
	CurrentPeriodEnd   time.Time
	TrialStart         time.Time
	TrialEnd           time.Time

	// CancelAtPeriodEnd and CancelAt are two ways of being scheduled to end: the first is the
	// flag, the second the date that Stripe's portal sets without touching the flag.
	CancelAtPeriodEnd bool
	CancelAt          time.Time
	// CanceledAt is when somebody asked for the end, EndedAt when it came.
	CanceledAt time.Time
	EndedAt    time.Time

	// CollectionPaused is set while Stripe makes invoices but does not collect them
	// (pause_collection). The status stays "active" meanwhile.
	CollectionPaused bool
	// LatestInvoiceCreated is when the latest invoice was made.
	LatestInvoiceCreated time.Time
	// Metered is set where what is used of some item is billed afterwards.
	Metered bool
	// Outstanding is set where the latest invoice is one that Stripe may still collect: a draft,
	// whoever is to pay it, or an open one that is charged automatically. It is stored only while the
	// user is being deleted, or is.
	Outstanding bool
	// PastDueSince is since when a past_due subscription owes what it owes, as our own rows of its
	// invoices say; no read of the subscription shows it. The grace runs from here. See
	// [PastDueSince].
	PastDueSince time.Time
	// ScheduleID names the subscription schedule that manages this subscription, if any.
	// While one does, Stripe refuses some changes of the subscription itself.
	ScheduleID string
	// ScheduleEndsAt is when that schedule ends the subscription: the end of its last phase, where its
	// end_behavior is "cancel". Zero where it lets the subscription go on instead.
	ScheduleEndsAt time.Time
	// LaterPhases are the phases of that schedule that have not begun. They are not stored.
	LaterPhases []Phase
	// PhasesAhead is set where there are LaterPhases. It is stored only while the user is being
	// deleted, or is.
	PhasesAhead bool
	Created     time.Time
	Metadata    map[string]string
	// Unread is set where Stripe has shown the subscription and left out items, and these could not be
	// read: all but the items is here.
	Unread bool
}

// ScheduledToEnd tells whether the subscription will end without anyone doing more, and when.
// The time is zero where only the flag is set and Stripe gives no period.
func (s Subscription) ScheduledToEnd() (at time.Time, scheduled bool) {
	switch {
	case s.Status.Terminal():
		return time.Time{}, false
	case s.ScheduleID != "":
		// A date on the subscription itself may be the end of a phase that another one follows.
		return s.ScheduleEndsAt, !s.ScheduleEndsAt.IsZero()
	case !s.CancelAt.IsZero():
		return s.CancelAt, true
	case s.CancelAtPeriodEnd:
		return s.CurrentPeriodEnd, true
	default:
		return time.Time{}, false
	}
}

// Item is one line of a subscription: a price, and how many of it.
type Item struct {
	// ID is the item's own ("si_..."): it stays when the item is moved to another price.
	ID        string
	PriceID   string
	ProductID string
	// Metered items are billed by what was used. They have no quantity.
	Metered  bool
	Quantity int64
	// UnitAmount is in the currency's smallest unit; zero where the item is Unpriced.
	UnitAmount int64
	// Unpriced is set where what a unit costs is not a whole number of the smallest unit of Currency,
	// or not known: the price has a fraction, or is by package or tier, or is in another currency than
	// the subscription.
	Unpriced bool
	// Currency is what the subscription is billed in, whatever the price's own currency is.
	Currency      string
	Interval      string // day, week, month, year
	IntervalCount int64
}

// Type is the subscription type that the product's app knows: "monthly", "yearly", "weekly",
// "daily", or the count with the interval ("3-month") where it is not one.
func (i Item) Type() string { return IntervalType(i.Interval, i.IntervalCount) }

// Customer is one Stripe customer.
type Customer struct {
	ID       string
	Email    string
	Name     string
	Deleted  bool
	Created  time.Time
	Metadata map[string]string
}

// Product is a Stripe product with its prices; for us a plan.
type Product struct {
	ID      string
	Name    string
	Active  bool
	Deleted bool
	// Beside tells whether the product may be bought beside another; see [AllowsBeside].
	Beside bool
	// AddOn is set where the product only adds to another, as its metadata say (add_on=true): it makes
	// the plan of a subscription only where nothing else does.
	AddOn  bool
	Prices []Price
	// PricesPartial is set where there are so many prices that not all of them are here: all that are
	// active are, as far as they can be listed. Of one that is not here nothing is said.
	PricesPartial bool
	// Created is when it was made, where a list shows it; zero elsewhere. It is not stored.
	Created time.Time
}

// MetadataBeside is the metadata key by which a product says that it may be bought beside others.
const MetadataBeside = "beside"

// AllowsBeside tells whether a product's metadata say that it may be bought beside others, as what
// is added to a plan is.
func AllowsBeside(metadata map[string]string) bool { return metadata[MetadataBeside] == "allow" }

// MetadataAddOn is the metadata key by which a product says that it only adds to another.
const MetadataAddOn = "add_on"

// IsAddOn tells whether a product's metadata say that it only adds to another.
func IsAddOn(metadata map[string]string) bool { return metadata[MetadataAddOn] == "true" }

// Price is one Stripe price.
type Price struct {
	ID            string
	ProductID     string
	Active        bool
	UnitAmount    int64 // in the currency's smallest unit; zero where the price is Unpriced
	Unpriced      bool  // see [Item.Unpriced]
	Currency      string
	Interval      string // empty for one-time prices
	IntervalCount int64
	LookupKey     string
	// UsageType is how the quantity of a recurring price comes about: [UsageLicensed], which is
	// bought, or [UsageMetered], which is counted afterwards. It is empty for one-time prices.
	UsageType string
	// Created is when it was made, where a list shows it; zero elsewhere. It is not stored.
	Created time.Time `db:"-"`
}

// The usage types that Stripe gives a recurring price.
const (
	UsageLicensed = "licensed"
	UsageMetered  = "metered"
)

// Type is the subscription type of this price; see [Item.Type].
func (p Price) Type() string { return IntervalType(p.Interval, p.IntervalCount) }

// NewCustomer is a Stripe customer to be created. An empty email or name is not sent.
type NewCustomer struct {
	// ClerkUserID is written on the customer, as evidence of whose it is.
	ClerkUserID string
	Email       string
	Name        string
	// Request names what asks for the customer, the same in each attempt; "" for IdempotencyKey. It is
	// written on the customer, so that one whose making was not heard of is found again.
	Request string
	// IdempotencyKey makes creating again under the same key answer the same customer, for
	// about a day.
	IdempotencyKey string
	// Missing are customers that were made under the key before, as far as is known, and that Stripe has
	// been found not to have any more.
	Missing []string
}
