package stripeevent

import (
	"github.com/tidwall/gjson"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// Claims answers the evidence that the event holds of which Clerk user its customer belongs to:
// the client_reference_id of a checkout session, and the metadata of a session, a subscription, a
// customer, or the subscription of an invoice. Metadata is written with the secret key. The
// client_reference_id of a payment link is what the payer's address bar said: a payer can name
// somebody else there, and gives that person the subscription.
//
// A session whose two places name different users gives two claims, so that the conflict is seen.
func (e Event) Claims() []account.Claim {
	if e.customer == "" {
		return nil
	}
	var claims []account.Claim
	claim := func(user, place, objectID string) {
		if account.ValidUserID(user) && objectID != "" {
			claims = append(claims, account.Claim{CustomerID: e.customer, ClerkUserID: user, Source: place + ":" + objectID})
		}
	}
	named, _ := account.ClaimedUser(metadata(e.metadata))
	switch e.ObjectKind {
	case "checkout.session":
		referred := text(e.object.Get("client_reference_id"))
		claim(referred, "checkout", e.ObjectID)
		if named != referred {
			claim(named, "checkout_metadata", e.ObjectID)
		}
	case "subscription":
		claim(named, "subscription", e.ObjectID)
	case "customer":
		claim(named, "customer", e.ObjectID)
	case "invoice":
		// Since 2025-03-31.basil the subscription stands under parent.
		for _, details := range []string{"subscription_details", "parent.subscription_details"} {
			user, _ := account.ClaimedUser(metadata(e.object.Get(details).Get("metadata")))
			claim(user, "subscription", subscriptionOf(e.object))
		}
	}
	return claims
}

// subscriptionOf answers the subscription that an invoice is for, in both shapes.
func subscriptionOf(invoice gjson.Result) string {
	for _, place := range []string{"subscription", "parent.subscription_details.subscription", "subscription_details.subscription"} {
		if id := reference(invoice.Get(place)); hasPrefix("sub_", id) {
			return id
		}
	}
	return ""
}
