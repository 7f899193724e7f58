package account

// Drift is a class of differences between the systems.
type Drift string

// The classes that syncs meet too. No sync may decide them by itself.
const (
	// DriftConflictingClaims: the evidence about a customer names different users, or another than the
	// owner.
	DriftConflictingClaims Drift = "conflicting_claims"
	// DriftUnknownPrice: no price of a subscription is in the catalogue; its plan stays.
	DriftUnknownPrice Drift = "unknown_price"
	// DriftCustomerMissing: Stripe answers 404 for a customer.
	DriftCustomerMissing Drift = "customer_missing_in_stripe"
	// DriftSubscriptionMissing: Stripe answers 404 for a subscription we hold; it stays.
	DriftSubscriptionMissing Drift = "subscription_missing_in_stripe"
	// DriftUserMissing: Clerk answers 404 for a user we hold and nobody deleted.
	DriftUserMissing Drift = "user_missing_in_clerk"
	// DriftUnverifiedReference: a checkout on a customer that nobody owns refers to a user, in words
	// that the payer may have written, and nothing confirms it.
	DriftUnverifiedReference Drift = "unverified_reference"
	// DriftOrphanCustomer: a customer that nobody owns and that is not empty: onboarding made it,
	// could not link it and may not delete it, or something that bills hangs on it.
	DriftOrphanCustomer Drift = "orphan_customer"
)

// The classes that only a comparison of everything meets.
const (
	// DriftMissingUser: Clerk has a user whom we do not know.
	DriftMissingUser Drift = "missing_user"
	// DriftStaleUser: our copy of a user's name or email is not Clerk's.
	DriftStaleUser Drift = "stale_user"
	// DriftStaleMetadata: what Clerk's metadata hold of a user's subscription differs from our
	// projection, or the projection from the user's stored subscriptions.
	DriftStaleMetadata Drift = "stale_metadata"
	// DriftUserWithoutCustomer: a user has no customer at Stripe.
	DriftUserWithoutCustomer Drift = "user_without_customer"
	// DriftMissingCustomer: Stripe has a customer that is one of our users' and that we do not know.
	DriftMissingCustomer Drift = "missing_customer"
	// DriftUnlinkedCustomer: a customer names one user whom we know and is not linked to them.
	DriftUnlinkedCustomer Drift = "unlinked_customer"
	// DriftClaimedUserMissing: a customer names a user whom neither Clerk nor we know.
	DriftClaimedUserMissing Drift = "claimed_user_missing"
	// DriftStaleCustomer: a customer at Stripe does not carry its user's name and email, or is deleted
	// there and not here.
	DriftStaleCustomer Drift = "stale_customer"
	// DriftUnverifiedLink: a customer is linked by a reference alone that its payer may have written.
	DriftUnverifiedLink Drift = "unverified_link"
	// DriftDuplicateCustomer: a user has several customers at Stripe.
	DriftDuplicateCustomer Drift = "duplicate_customer"
	// DriftMissingSubscription: Stripe has a subscription that we do not have.
	DriftMissingSubscription Drift = "missing_subscription"
	// DriftStaleSubscription: our copy of a subscription is not Stripe's.
	DriftStaleSubscription Drift = "stale_subscription"
	// DriftDoubleSubscription: a user has two running subscriptions for one product.
	DriftDoubleSubscription Drift = "double_subscription"
	// DriftDeletedUserBilled: a subscription of a user who is deleted, or is being deleted, goes on
	// otherwise than the deletion policy says.
	DriftDeletedUserBilled Drift = "deleted_user_billed"
	// DriftMissingPlan: Stripe has a product, or a price of one, that is not in the catalogue.
	DriftMissingPlan Drift = "missing_plan"
	// DriftStalePlan: our copy of a product or a price is not Stripe's.
	DriftStalePlan Drift = "stale_plan"
	// DriftUnwatched: no workflow is open for a customer with a subscription that can still change, so
	// nobody looks at its boundaries.
	DriftUnwatched Drift = "unwatched_customer"
)

// Repair is how a class of differences can be mended.
type Repair string

// The ways.
const (
	// RepairAlone: looking at the entity again mends it, from what the provider says is true. It can
	// be done by itself.
	RepairAlone Repair = "alone"
	// RepairOnRequest: it can be mended, but only a person can say that it should be.
	RepairOnRequest Repair = "on request"
	// RepairByPerson: a person has to decide it, at the provider.
	RepairByPerson Repair = "by a person"
)

// driftKind is what is to be known of a class.
type driftKind struct {
	class  Drift
	means  string
	remedy string
	repair Repair
}

func driftKinds() []driftKind {
	return []driftKind{
		{DriftMissingUser, "Clerk has a user whom we do not know", "onboards the user", RepairAlone},
		{DriftStaleUser, "our copy of a user is not Clerk's", "reads the user from Clerk", RepairAlone},
		{DriftStaleMetadata, "Clerk's metadata differ from our projection, or the projection from the user's subscriptions",
			"computes the projection anew, and writes it to Clerk", RepairAlone},
		{DriftUserWithoutCustomer, "a user has no customer at Stripe", "makes one, or links the one that names the user", RepairAlone},
		{DriftMissingCustomer, "a customer at Stripe names a user and we do not know it", "reads the customer and links it", RepairAlone},
		{DriftUnlinkedCustomer, "a customer names a user and is not linked", "links it", RepairAlone},
		{DriftStaleCustomer, "a customer at Stripe does not carry its user's name and email, or was deleted there",
			"reads it, and writes the user's name and email to Stripe", RepairAlone},
		{DriftMissingSubscription, "Stripe has a subscription that we do not have", "reads the customer's subscriptions", RepairAlone},
		{DriftStaleSubscription, "our copy of a subscription is not Stripe's", "reads the customer's subscriptions", RepairAlone},
		{DriftDeletedUserBilled, "a deleted user's subscription goes on", "applies the deletion policy", RepairAlone},
		{DriftUnknownPrice, "no price of a subscription is in the catalogue", "reads its product; the last known plan is kept meanwhile", RepairAlone},
		{DriftMissingPlan, "a product or price is not in the catalogue", "reads the product with its prices", RepairAlone},
		{DriftStalePlan, "our copy of a product or price is not Stripe's", "reads the product with its prices", RepairAlone},
		{DriftUnwatched, "nobody looks at a running subscription's boundaries", "starts the customer's workflow", RepairAlone},
		{DriftUserMissing, "Clerk does not know a user whom nobody deleted",
			"deletes the user as if Clerk had said so: billing is stopped by the policy and personal data is erased", RepairOnRequest},
		{DriftConflictingClaims, "a customer's evidence names several users", "correct the metadata at Stripe, or the product's own table", RepairByPerson},
		{DriftUnverifiedReference, "a checkout refers to a user, as its payer may have written, and nothing confirms it",
			"have the user verify the customer's email address, or confirm it: `syncctl confirm`, or clerk_user_id in the customer's metadata at Stripe", RepairByPerson},
		{DriftUnverifiedLink, "a customer is linked by a reference alone that its payer may have written",
			"confirm it: `syncctl confirm`, or clerk_user_id in the customer's metadata at Stripe; access is unchanged", RepairByPerson},
		{DriftCustomerMissing, "Stripe does not know a customer that we hold", "find out who removed it; access is unchanged", RepairByPerson},
		{DriftSubscriptionMissing, "Stripe does not know a subscription that we hold", "find out who removed it; access is unchanged", RepairByPerson},
		{DriftOrphanCustomer, "a customer that nobody owns, with something on it", "write clerk_user_id into its metadata at Stripe, or cancel and remove it there", RepairByPerson},
		{DriftClaimedUserMissing, "a customer names a user whom Clerk does not have", "correct the metadata at Stripe, or cancel what bills on it", RepairByPerson},
		{DriftDuplicateCustomer, "a user has several customers at Stripe", "cancel on one what is not meant, and remove it at Stripe", RepairByPerson},
		{DriftDoubleSubscription, "a user pays twice for one product", "cancel and refund one of the two at Stripe", RepairByPerson},
	}
}

// DriftClasses lists all classes, those that can be repaired first.
func DriftClasses() []Drift {
	kinds := driftKinds()
	classes := make([]Drift, len(kinds))
	for i, k := range kinds {
		classes[i] = k.class
	}
	return classes
}

// Repair answers how differences of the class can be mended, "" for what is no class.
func (d Drift) Repair() Repair { return d.kind().repair }

// Means says in a sentence what a difference of the class is.
func (d Drift) Means() string { return d.kind().means }

// Remedy says what mending does, or what a person has to do.
func (d Drift) Remedy() string { return d.kind().remedy }

func (d Drift) kind() driftKind {
	for _, k := range driftKinds() {
		if k.class == d {
			return k
		}
	}
	return driftKind{}
}
