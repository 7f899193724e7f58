package account

import (
	"slices"
	"strings"
	"time"
)

// Claim says that a customer belongs to a user: the Clerk user id stands on the customer, on one of
// its subscriptions, or on a checkout session. Its source says who can have written it there, and
// so what it is worth; see [Evidence].
type Claim struct {
	CustomerID  string
	ClerkUserID string
	// Source says where the id stands: a place, and the id of the object, e.g. "customer:cus_1".
	Source string
}

// The places of a claim.
const (
	// PlaceCustomer and PlaceSubscription are the metadata of either, which take the secret key to
	// write.
	PlaceCustomer     = "customer"
	PlaceSubscription = "subscription"
	// PlaceSession is the metadata of a checkout session, which take the secret key too: whoever opens
	// a session writes them, and a Payment Link hands its own to every session of its.
	PlaceSession = "checkout_metadata"
	// PlaceProduct is the product's own table of users, where its server has noted the user's
	// customer: person_user.stripe_customer_id.
	PlaceProduct = "product"
	// PlaceProductSubscription is the product's own table of subscriptions, where one of the
	// customer's is the user's.
	PlaceProductSubscription = "product_subscription"
	// PlaceOperator is what an operator has confirmed.
	PlaceOperator = "operator"
	// PlaceNotes are a user's own notes of their customer, as far as [Adopts] has borne them out.
	PlaceNotes = "hint"
	// PlaceReference is the client_reference_id of a session whose metadata do not say the same. The
	// address of a pricing table, of a buy button or of a Payment Link can carry one, so that the
	// payer may have written it.
	PlaceReference = "reference"
	// PlacePaymentLink is that of a session which a Payment Link has opened, and no server.
	PlacePaymentLink = "payment_link_reference"
	// PlaceSessionOnce is a reference that was stored before it was told apart whether the metadata
	// said the same.
	PlaceSessionOnce = "checkout"
)

// rank says which claims win: the higher, the nearer to the customer itself.
type rank int

const (
	// unverified claims prove nothing by themselves: somebody may have written them who pays, and
	// nobody else.
	unverified rank = iota
	// remembered claims are those of a deleted user who had verified the customer's own address.
	remembered
	// confirmed claims are those of a user who has verified the customer's own address.
	confirmed
	ofSession
	ofSubscription
	ofCustomer
)

func (c Claim) rank(trusted bool) rank {
	place, _, _ := strings.Cut(c.Source, ":")
	switch {
	case place == PlaceCustomer, place == PlaceProduct:
		return ofCustomer
	case place == PlaceSubscription, place == PlaceProductSubscription:
		return ofSubscription
	case place == PlaceNotes:
		return confirmed
	case slices.Contains(UnverifiedPlaces(trusted), place):
		return unverified
	default:
		return ofSession
	}
}

// OfProduct tells whether a claim of this source stands in the product's own tables.
func OfProduct(source string) bool {
	place, _, _ := strings.Cut(source, ":")
	return place == PlaceProduct || place == PlaceProductSubscription
}

// UnverifiedPlaces are the places of claims that prove nothing by themselves.
func UnverifiedPlaces(trusted bool) []string {
	if trusted {
		return []string{PlacePaymentLink}
	}
	return []string{PlacePaymentLink, PlaceReference, PlaceSessionOnce}
}

// ClaimedUser is what is known of a user whom a claim names.
type ClaimedUser struct {
	// Known is set where we hold the user's row, Tombstone where their deletion was asked for.
	Known, Tombstone bool
	// Missing is set where Clerk has lately answered that it does not have the user, and we hold no
	// row.
	Missing bool
	// MissingFor is the time between Clerk's first answer of that kind and its last.
	MissingFor time.Duration
	// VerifiedEmail is the user's primary address, "" unless Clerk has verified it, and for a
	// tombstone.
	VerifiedEmail string
	// HadAddress is set for a tombstone that had verified the customer's own address, which nobody has
	// verified who is there.
	HadAddress bool
}

// Evidence is all that is known of whose a customer is that no user owns.
type Evidence struct {
	Claims []Claim
	// Users is what is known of those whom the claims name. Of one who is not in it nothing is.
	Users map[string]ClaimedUser
	// CustomerEmail is the customer's own address at Stripe, "" where it has none or is deleted.
	CustomerEmail string
	// TrustReferences has the client_reference_id of a session count as evidence, for those whose own
	// server opens every session. It does not reach sessions of Payment Links.
	TrustReferences bool
}

// VerifiedBeside ends the source of a reference that its user's verified address bears out.
const VerifiedBeside = ", verified email"

// Owner is whom the evidence about a customer names.
type Owner struct {
	// ClerkUserID is the one user, "" where there is none, and where there is a conflict.
	ClerkUserID string
	// Source is where the id stands, of several places the nearest to the customer.
	Source string
	// Conflict is set where claims of the same weight name different users: then nobody is linked,
	// since either could be wrong.
	Conflict bool
	// Missing is set where Clerk has nobody of those who are named: they lose to whoever is found in
	// another way.
	Missing bool
	// Unverified are the references to users that nothing has confirmed; they do not count.
	Unverified []Claim
}

// Claimant weighs the evidence about a customer:
//
//   - What stands on the customer wins over what stands on a subscription, that over what stands on a session. What the product's own
//     tables say of the customer, or of a subscription, is as good as what stands there.
//   - A reference that the payer may have written counts only where the user whom it names has verified the
//     customer's address as their primary one; then it is what everything else wins over. That of a deleted user counts as
//     well, unless somebody who is there has verified the address since: a new account with it is the likely owner of what
//     is bought then. It tells less than what anybody else is named by.
//   - A user whom neither Clerk nor we have loses to any other. A user whose deletion was asked for never loses, except by
//     such a reference: what was theirs stays the erased user's, and the deletion policy has to reach it. Only where nothing but the
//     product's own tables names them may it be somebody else's by now, whom ending it would harm: then the other rules decide.
//   - Different users whom nothing of this tells apart are a conflict.
func Claimant(e Evidence) Owner {
	var owner Owner
	best := map[string]Claim{}
	ranks := map[string]rank{}
	beside := map[string]bool{} // named by something else than the product's own tables
	for _, c := range e.Claims {
		r := c.rank(e.TrustReferences)
		if r == unverified {
			if !e.confirms(c) {
				owner.Unverified = append(owner.Unverified, c)
				continue
			}
			r, c.Source = confirmed, c.Source+VerifiedBeside
			if e.Users[c.ClerkUserID].Tombstone {
				r = remembered
			}
		}
		if r > remembered && !OfProduct(c.Source) {
			beside[c.ClerkUserID] = true
		}
		if r > ranks[c.ClerkUserID] {
			best[c.ClerkUserID], ranks[c.ClerkUserID] = c, r
		}
	}
	users := make([]string, 0, len(best))
	for id := range best {
		users = append(users, id)
	}
	// Each rule leaves those over which nobody wins by it.
	users = prefer(users, func(id string) bool { return e.Users[id].Tombstone && beside[id] })
	users = prefer(users, func(id string) bool { return !e.Users[id].Missing })
	owner.Missing = len(users) > 0 && e.Users[users[0]].Missing
	top := unverified
	for _, id := range users {
		top = max(top, ranks[id])
	}
	users = prefer(users, func(id string) bool { return ranks[id] == top })
	switch len(users) {
	case 0:
	case 1:
		owner.ClerkUserID, owner.Source = users[0], best[users[0]].Source
	default:
		owner.Conflict = true
	}
	return owner
}

// Against tells whether the evidence about a customer that a user owns names another: the link
// stays, and somebody has to see it.
func (e Evidence) Against(ownerID string) bool {
	named := Claimant(e)
	return !named.Missing && (named.Conflict || named.ClerkUserID != "" && named.ClerkUserID != ownerID)
}

// Unsettled are those whom something names a customer for, whom we do not know, and of whom Clerk
// has not said twice, so long apart, that it does not have them: one answer may be a moment behind.
// References that the payer may have written are left out unless references is set.
func (e Evidence) Unsettled(apart time.Duration, references bool) []string {
	var claims []Claim
	for _, c := range e.Claims {
		u := e.Users[c.ClerkUserID]
		settled := u.Known || u.Missing && u.MissingFor >= apart
		if !settled && (references || c.rank(e.TrustReferences) != unverified) {
			claims = append(claims, c)
		}
	}
	return NamedUsers(claims)
}

// Outvoted tells whether a claim keeps a customer from being linked to a user by what is known: one
// that names another user whom we have.
func (e Evidence) Outvoted(clerkUserID string) (by Claim, is bool) {
	named := Claimant(e)
	if !named.Conflict && named.ClerkUserID == clerkUserID {
		return Claim{}, false
	}
	i := slices.IndexFunc(e.Claims, func(c Claim) bool {
		return c.ClerkUserID != clerkUserID && e.Users[c.ClerkUserID].Known && !slices.Contains(named.Unverified, c) &&
			(named.Conflict || c.ClerkUserID == named.ClerkUserID)
	})
	if i < 0 {
		return Claim{}, false
	}
	return e.Claims[i], true
}

// prefer keeps those of whom something is true, or all where it is true of none.
func prefer(users []string, better func(string) bool) []string {
	var preferred []string
	for _, id := range users {
		if better(id) {
			preferred = append(preferred, id)
		}
	}
	if len(preferred) == 0 {
		return users
	}
	return preferred
}

// confirms tells whether the user whom a reference names has verified the customer's address, or
// had.
func (e Evidence) confirms(c Claim) bool {
	if user := e.Users[c.ClerkUserID]; user.Tombstone {
		return user.HadAddress
	}
	verified := e.Users[c.ClerkUserID].VerifiedEmail
	return verified != "" && sameAddress(verified, e.CustomerEmail)
}

func sameAddress(a, b string) bool {
	return strings.EqualFold(strings.TrimSpace(a), strings.TrimSpace(b))
}

// MetadataKeys are the metadata keys that may hold a Clerk user id: our own first, then those
// that earlier apps wrote.
func MetadataKeys() []string {
	return []string{"clerk_user_id", "clerkUserId", "userId", "user_id"}
}

// UserInMetadata reads the Clerk user id out of an object's metadata. Values of another form are
// somebody else's ids and no evidence.
func UserInMetadata(metadata map[string]string) (clerkUserID string, ok bool) {
	for _, key := range MetadataKeys() {
		if id := metadata[key]; ValidUserID(id) {
			return id, true
		}
	}
	return "", false
}

// NamesAnother tells whether the customer's metadata name a user, and not this one: who writes them
// may have given it away.
func (c Customer) NamesAnother(clerkUserID string) bool {
	named, ok := UserInMetadata(c.Metadata)
	return ok && named != clerkUserID
}

// ReadClaims collects the evidence that a read of a customer and its subscriptions shows.
func ReadClaims(customer Customer, subscriptions []Subscription) []Claim {
	var claims []Claim
	if user, ok := UserInMetadata(customer.Metadata); ok {
		claims = append(claims, Claim{CustomerID: customer.ID, ClerkUserID: user, Source: PlaceCustomer + ":" + customer.ID})
	}
	for _, s := range subscriptions {
		if user, ok := UserInMetadata(s.Metadata); ok {
			claims = append(claims, Claim{CustomerID: customer.ID, ClerkUserID: user, Source: PlaceSubscription + ":" + s.ID})
		}
	}
	return claims
}

// Adopts tells whether a customer that a user's own notes point at is theirs: the evidence about it
// names them, or, where it names nobody, it has the address that they have verified as their
// primary one. The notes themselves prove nothing.
func Adopts(clerkUserID, verifiedEmail string, customer Customer, known Evidence) bool {
	owner := Claimant(known)
	if owner.Conflict || owner.ClerkUserID != "" && !known.Users[owner.ClerkUserID].Missing {
		return owner.ClerkUserID == clerkUserID
	}
	return verifiedEmail != "" && sameAddress(customer.Email, verifiedEmail)
}

// NamedUsers lists the users that claims name, each once, sorted.
func NamedUsers(claims []Claim) []string {
	users := make([]string, 0, len(claims))
	for _, c := range claims {
		users = append(users, c.ClerkUserID)
	}
	slices.Sort(users)
	return slices.Compact(users)
}
