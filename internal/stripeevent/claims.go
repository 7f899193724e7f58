package stripeevent

import "github.com/nepfy/clerk-stripe-sync/internal/account"

// Claims answers the evidence that the event holds of which Clerk user its customer belongs to:
// the client_reference_id of a checkout session, and the metadata of a session, a subscription, a
// customer, or the subscription of an invoice. Metadata is written with the secret key. The
// client_reference_id of a payment link is what the payer's address bar said: a payer can name
// somebody else there, and gives that person the subscription.
//
// A session whose two places name different users gives two claims, so that the conflict is seen.
func (e Event) Claims() []account.Claim {
	customer := e.customerID()
	if customer == "" {
		return nil
	}
	var claims []account.Claim
	claim := func(user, place, objectID string) {
		if account.ValidUserID(user) && objectID != "" {
			claims = append(claims, account.Claim{CustomerID: customer, ClerkUserID: user, Source: place + ":" + objectID})
		}
	}
	named, _ := account.ClaimedUser(e.object.Metadata)
	switch e.ObjectKind {
	case "checkout.session":
		reference := string(e.object.ClientReferenceID)
		claim(reference, "checkout", e.ObjectID)
		if named != reference {
			claim(named, "checkout_metadata", e.ObjectID)
		}
	case "subscription":
		claim(named, "subscription", e.ObjectID)
	case "customer":
		claim(named, "customer", e.ObjectID)
	case "invoice":
		for _, details := range []subscriptionDetails{e.object.SubscriptionDetails, e.object.Parent.SubscriptionDetails} {
			user, _ := account.ClaimedUser(details.Metadata)
			claim(user, "subscription", e.object.subscriptionID())
		}
	}
	return claims
}

// subscriptionID answers the subscription that an invoice is for, in both shapes.
func (o object) subscriptionID() string {
	for _, id := range []ref{o.Subscription, o.Parent.SubscriptionDetails.Subscription, o.SubscriptionDetails.Subscription} {
		if hasPrefix("sub_", string(id)) {
			return string(id)
		}
	}
	return ""
}
