package account

import (
	"encoding/json"
	"regexp"
	"strings"
	"time"
)

var (
	userID     = regexp.MustCompile(`^user_[A-Za-z0-9]{1,128}$`)
	customerID = regexp.MustCompile(CustomerIDPattern)
	productID  = regexp.MustCompile(`^[A-Za-z0-9_-]{1,200}$`)
	intentID   = regexp.MustCompile(`^pi_[A-Za-z0-9_]{1,128}$`)
	chargeID   = regexp.MustCompile(`^(ch|py)_[A-Za-z0-9_]{1,128}$`)
)

// CustomerIDPattern is the form of a Stripe customer id, for what matches texts itself.
const CustomerIDPattern = `^cus_[A-Za-z0-9_]{1,128}$`

// ValidUserID tells whether id has the form of a Clerk user id. Clerk's SDK does not escape
// ids, so nothing else may reach it.
func ValidUserID(id string) bool { return userID.MatchString(id) }

// ValidCustomerID tells whether id has the form of a Stripe customer id.
func ValidCustomerID(id string) bool { return customerID.MatchString(id) }

// ValidProductID tells whether id has the form of a Stripe product id. Sellers may choose
// these themselves, so the form is wide.
func ValidProductID(id string) bool { return productID.MatchString(id) }

// ValidChargeID tells whether id has the form of a Stripe charge id.
func ValidChargeID(id string) bool { return chargeID.MatchString(id) }

// ValidPaymentIntentID tells whether id has the form of a Stripe payment intent id.
func ValidPaymentIntentID(id string) bool { return intentID.MatchString(id) }

// User is a Clerk user as one read of Clerk showed them. Any of the personal fields may be
// empty: people sign up with a phone, or with nothing at all.
type User struct {
	ID        string
	FirstName string
	LastName  string
	Username  string
	// Email is the primary email address.
	Email string
	// EmailVerified tells whether Clerk has verified that very address.
	EmailVerified bool
	// CustomerHint is the Stripe customer that an earlier application's unsafe metadata names, ""
	// where it names none. The user could have written it: see [Adopts].
	CustomerHint string
	// CreatedAt is when they signed up, and UpdatedAt when anything of them was changed last, at
	// Clerk's clock; zero where that is not known. Neither is stored.
	CreatedAt, UpdatedAt time.Time
}

// ListedUser is a user as Clerk's list shows them.
type ListedUser struct {
	User
	// Held is what stands under the key "stripe" of their public metadata; nil where nothing does.
	Held json.RawMessage
}

// mostName is how many characters Stripe takes of a customer's name.
const mostName = 256

// FullName is the name that a Stripe customer is given: first and last, what there is of them and
// what Stripe takes of it.
func (u User) FullName() string {
	name := strings.TrimSpace(u.FirstName + " " + u.LastName)
	n := 0
	for i := range name {
		if n == mostName {
			return strings.TrimSpace(name[:i])
		}
		n++
	}
	return name
}
