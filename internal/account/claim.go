package account

import (
	"slices"
	"strings"
)

// Claim is evidence that a customer belongs to a user: somebody who may say so wrote the Clerk
// user id on the customer, on one of its subscriptions, or on a checkout session.
type Claim struct {
	CustomerID  string
	ClerkUserID string
	// Source says where the evidence stands, e.g. "customer:cus_1", "subscription:sub_1",
	// "checkout:cs_1".
	Source string
}

// MetadataKeys are the metadata keys that may hold a Clerk user id: our own first, then those
// that earlier apps wrote.
func MetadataKeys() []string {
	return []string{"clerk_user_id", "clerkUserId", "userId", "user_id"}
}

// ClaimedUser reads the Clerk user id out of an object's metadata. Values of another form are
// somebody else's ids and no evidence.
func ClaimedUser(metadata map[string]string) (clerkUserID string, ok bool) {
	for _, key := range MetadataKeys() {
		if id := metadata[key]; ValidUserID(id) {
			return id, true
		}
	}
	return "", false
}

// ReadClaims collects the evidence that a read of a customer and its subscriptions shows.
func ReadClaims(customer Customer, subscriptions []Subscription) []Claim {
	var claims []Claim
	if user, ok := ClaimedUser(customer.Metadata); ok {
		claims = append(claims, Claim{CustomerID: customer.ID, ClerkUserID: user, Source: "customer:" + customer.ID})
	}
	for _, s := range subscriptions {
		if user, ok := ClaimedUser(s.Metadata); ok {
			claims = append(claims, Claim{CustomerID: customer.ID, ClerkUserID: user, Source: "subscription:" + s.ID})
		}
	}
	return claims
}

// Claimant answers the one user that all claims name. It answers "" where there are none, and
// conflict where they name different users: then nobody is linked, since either could be wrong.
func Claimant(claims []Claim) (clerkUserID string, conflict bool) {
	for _, c := range claims {
		if clerkUserID != "" && c.ClerkUserID != clerkUserID {
			return "", true
		}
		clerkUserID = c.ClerkUserID
	}
	return clerkUserID, false
}

// Adopts tells whether a customer that a user's own notes point at is theirs: it names them and nobody else, or, where
// it names nobody, it has the address that they have verified as their primary one. The notes themselves prove nothing.
func Adopts(clerkUserID, verifiedEmail string, customer Customer, claims []Claim) bool {
	named, conflict := Claimant(append(ReadClaims(customer, nil), claims...))
	if conflict || named != "" {
		return named == clerkUserID
	}
	return verifiedEmail != "" && strings.EqualFold(customer.Email, verifiedEmail)
}

// DistinctUsers lists the users that claims name, each once, sorted.
func DistinctUsers(claims []Claim) []string {
	users := make([]string, 0, len(claims))
	for _, c := range claims {
		users = append(users, c.ClerkUserID)
	}
	slices.Sort(users)
	return slices.Compact(users)
}
