package account

import (
	"regexp"
	"time"
)

var (
	subscriptionID = regexp.MustCompile(SubscriptionIDPattern)
	sessionID      = regexp.MustCompile(`^cs_[A-Za-z0-9_]{1,200}$`)
	priceID        = regexp.MustCompile(`^[A-Za-z0-9_-]{1,200}$`)
)

// SubscriptionIDPattern is the form of a Stripe subscription id, for what matches texts itself.
const SubscriptionIDPattern = `^sub_[A-Za-z0-9_]{1,128}$`

// ValidSubscriptionID tells whether id has the form of a Stripe subscription id.
func ValidSubscriptionID(id string) bool { return subscriptionID.MatchString(id) }

// ValidSessionID tells whether id has the form of a Stripe checkout session id.
func ValidSessionID(id string) bool { return sessionID.MatchString(id) }

// ValidPriceID tells whether id has the form of a Stripe price id. Old plans, which are prices too,
// have ids of their sellers' choice.
func ValidPriceID(id string) bool { return priceID.MatchString(id) }

// CheckoutStatus is a checkout session's status in Stripe's own words.
type CheckoutStatus string

// The statuses that Stripe gives a checkout session.
const (
	CheckoutOpen     CheckoutStatus = "open"
	CheckoutComplete CheckoutStatus = "complete"
	CheckoutExpired  CheckoutStatus = "expired"
)

// CheckoutSession is one checkout at Stripe.
type CheckoutSession struct {
	ID         string
	Status     CheckoutStatus
	CustomerID string    // "" until a customer is known
	Created    time.Time // when it was opened, by Stripe's clock
	// SubscriptionID is what was bought, "" until the session is complete, and where it sells none.
	SubscriptionID    string
	ClientReferenceID string
	Metadata          map[string]string
	// Products are what a session sells subscriptions of. It is only read where open sessions are
	// listed, and empty for one that sells no subscription.
	Products []string
	// PaymentLink is the Payment Link that the session came of, "" where it was opened by a server, a
	// pricing table or a buy button, which it does not show apart.
	PaymentLink string
	// Email is the address that the payer gave, "" before they did.
	Email string
	// URL is where the person pays; it is only there while the session is open. Whoever has it can
	// pay, so it is told to nobody but the person.
	URL string
}

// BesidePolicy says whether a subscription may be bought beside one of another product.
type BesidePolicy string

// The policies.
const (
	// BesideRefuse: only where one of the two products allows it; see [AllowsBeside]. It is the
	// default.
	BesideRefuse BesidePolicy = "refuse"
	// BesideAllow: always.
	BesideAllow BesidePolicy = "allow"
)

// MetadataProduct is the metadata key that names the product which a checkout session of ours
// sells.
const MetadataProduct = "product_id"

// MetadataRequest is the metadata key under which everything that we create at Stripe names the
// request of ours that it came of.
const MetadataRequest = "sync_request"

// Claims are what a session says of whose its customer is. The metadata were written by whoever
// holds the secret key. A client_reference_id that they bear out says nothing more; any other could
// be the payer's own.
func (c CheckoutSession) Claims() []Claim {
	var claims []Claim
	claim := func(place, user string) {
		claims = append(claims, Claim{CustomerID: c.CustomerID, ClerkUserID: user, Source: place + ":" + c.ID})
	}
	named, ok := UserInMetadata(c.Metadata)
	if ok {
		claim(PlaceSession, named)
	}
	switch {
	case !ValidUserID(c.ClientReferenceID) || c.ClientReferenceID == named:
	case c.PaymentLink != "":
		claim(PlacePaymentLink, c.ClientReferenceID)
	default:
		claim(PlaceReference, c.ClientReferenceID)
	}
	return claims
}

// NewCheckout is a checkout of one subscription that is to be opened.
type NewCheckout struct {
	ClerkUserID string
	CustomerID  string
	PriceID     string
	ProductID   string
	Quantity    int64 // 0 for a metered price, of which none is bought
	// SuccessURL is where the person comes back to after paying, CancelURL where they do without.
	// Stripe replaces {CHECKOUT_SESSION_ID} in the first.
	SuccessURL, CancelURL string
	// Request names what asks for the checkout, the same in each attempt; "" for IdempotencyKey. It is
	// written on the session, so that one whose making was not heard of is found again.
	Request string
	// IdempotencyKey makes opening again under the same key answer the same session, for about a day.
	IdempotencyKey string
}
