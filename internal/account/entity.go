package account

import "strings"

// Entity is the thing that an event is about and that one workflow cares for; it is that
// workflow's id as well: "user/user_...", "customer/cus_...", "product/prod_...", or
// "charge/ch_..." for a dispute or refund whose customer is not known yet.
type Entity string

// Kind is the part of an entity before its id.
type Kind string

// The kinds of entities.
const (
	KindUser     Kind = "user"
	KindCustomer Kind = "customer"
	KindProduct  Kind = "product"
	KindCharge   Kind = "charge"
)

// UserEntity is the entity of a Clerk user.
func UserEntity(clerkUserID string) Entity { return Entity("user/" + clerkUserID) }

// CustomerEntity is the entity of a Stripe customer.
func CustomerEntity(customerID string) Entity { return Entity("customer/" + customerID) }

// ProductEntity is the entity of a Stripe product.
func ProductEntity(productID string) Entity { return Entity("product/" + productID) }

// ChargeEntity is the entity of a charge that is disputed or refunded; of a refund that names no
// charge, that of its payment intent.
func ChargeEntity(chargeID string) Entity { return Entity("charge/" + chargeID) }

// Split takes an entity apart. It answers two empty strings for what is not an entity.
func (e Entity) Split() (Kind, string) {
	kind, id, ok := strings.Cut(string(e), "/")
	if !ok || id == "" {
		return "", ""
	}
	switch Kind(kind) {
	case KindUser, KindCustomer, KindProduct, KindCharge:
		return Kind(kind), id
	default:
		return "", ""
	}
}

// Job is what a user's workflow has to do. A higher job wins over a lower one: deleted over
// created over updated. Entities that are not users have one job only, [JobSync].
type Job int

// The jobs, in rising order.
const (
	JobSync Job = iota + 1
	JobOnboard
	JobOffboard
)
