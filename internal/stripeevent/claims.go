package stripeevent

import (
	"github.com/tidwall/gjson"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// Claims answers what the event says of which Clerk user its customer belongs to: the metadata of a
// customer, of a subscription, or of the subscription of an invoice; and of a checkout session what
// [account.CheckoutSession.Claims] makes of it.
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
	named, _ := account.UserInMetadata(metadata(e.metadata))
	switch e.ObjectKind {
	case "checkout.session":
		return account.CheckoutSession{
			ID: e.ObjectID, CustomerID: e.customer, ClientReferenceID: text(e.object.Get("client_reference_id")),
			Metadata: metadata(e.metadata), PaymentLink: reference(e.object.Get("payment_link")),
		}.Claims()
	case "subscription":
		claim(named, account.PlaceSubscription, e.ObjectID)
	case "customer":
		claim(named, account.PlaceCustomer, e.ObjectID)
	case "invoice":
		// Since 2025-03-31.basil the subscription stands under parent.
		for _, details := range []string{"subscription_details", "parent.subscription_details"} {
			user, _ := account.UserInMetadata(metadata(e.object.Get(details).Get("metadata")))
			claim(user, account.PlaceSubscription, subscriptionOf(e.object))
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
