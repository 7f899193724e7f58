// Package clerkuser reads a user in Clerk's own form, in which its API answers and its webhooks
// tell of one.
package clerkuser

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/tidwall/gjson"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// MetadataKey is the key of a user's public metadata that is ours.
const MetadataKey = "stripe"

// Parse is [Read] of a user as JSON.
func Parse(text string) (account.ListedUser, error) {
	var u clerk.User
	if err := json.Unmarshal([]byte(text), &u); err != nil {
		return account.ListedUser{}, fmt.Errorf("decoding a user: %w", err)
	}
	return Read(&u)
}

// Read answers what of a user concerns us. It fails where the public metadata are no JSON object.
func Read(u *clerk.User) (account.ListedUser, error) {
	held, err := stripeMetadata(u)
	if err != nil {
		return account.ListedUser{}, err
	}
	user := account.User{
		ID:           u.ID,
		FirstName:    value(u.FirstName),
		LastName:     value(u.LastName),
		Username:     value(u.Username),
		CustomerHint: customerHint(u),
	}
	if u.CreatedAt != 0 {
		user.CreatedAt = time.UnixMilli(u.CreatedAt).UTC()
	}
	if u.UpdatedAt != 0 {
		user.UpdatedAt = time.UnixMilli(u.UpdatedAt).UTC()
	}
	primary := value(u.PrimaryEmailAddressID)
	for _, e := range u.EmailAddresses {
		if e != nil && primary != "" && e.ID == primary {
			user.Email = e.EmailAddress
			user.EmailVerified = e.Verification != nil && e.Verification.Status == "verified"
		}
	}
	return account.ListedUser{User: user, Held: held}, nil
}

func stripeMetadata(u *clerk.User) (json.RawMessage, error) {
	if len(u.PublicMetadata) == 0 {
		return nil, nil
	}
	var public map[string]json.RawMessage
	if err := json.Unmarshal(u.PublicMetadata, &public); err != nil {
		return nil, fmt.Errorf("reading a user's public metadata: %w", err)
	}
	held := public[MetadataKey]
	if string(held) == "null" {
		return nil, nil
	}
	return held, nil
}

// customerHint reads the customer that an earlier application has noted under the key "stripe" of
// the unsafe metadata: by itself, or under one of the names that such applications use.
func customerHint(u *clerk.User) string {
	noted := gjson.GetBytes(u.UnsafeMetadata, MetadataKey)
	for _, name := range []string{"@this", "customerId", "customer_id", "stripeCustomerId", "customer", "customer.id", "id"} {
		if c := noted.Get(name); c.Type == gjson.String && account.ValidCustomerID(c.Str) {
			return c.Str
		}
	}
	return ""
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
