package activities

import (
	"context"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// Disputes finds the customers of disputes and refunds, which name a charge and no customer. Its
// activity runs on Stripe's task queue.
type Disputes struct {
	Store  *store.Store
	Stripe Stripe
}

// ChargeInput names the charge that is disputed or refunded; of a refund that names none, its
// payment intent.
type ChargeInput struct {
	ChargeID string `json:"chargeId"`
}

// RouteResult says where a charge's events went.
type RouteResult struct {
	CustomerID string `json:"customerId,omitempty"`
}

// RouteDispute gives the events of a disputed or refunded charge to the charge's customer: the one
// of the payment that we recorded, else the one that Stripe shows. A charge without a customer is
// nobody's business here, and its events are ignored.
//
// Idempotent: events that were moved are not there to be moved again.
func (a *Disputes) RouteDispute(ctx context.Context, in ChargeInput) (result RouteResult, err error) {
	entity := account.ChargeEntity(in.ChargeID)
	defer func() { showFailing(ctx, a.Store, entity, err) }()
	number, err := a.Store.NextRead(ctx)
	if err != nil {
		return result, err
	}
	if result.CustomerID, err = a.Store.CustomerOfCharge(ctx, in.ChargeID); err != nil {
		return result, err
	}
	missing := false
	if result.CustomerID == "" {
		result.CustomerID, err = a.Stripe.ChargeCustomer(ctx, in.ChargeID)
		if missing = failure.IsNotFound(err); err != nil && !missing {
			return result, err
		}
	}
	err = a.Store.Update(ctx, "route a dispute", cause(ctx), func(ctx context.Context, tx *store.Tx) error {
		if result.CustomerID != "" {
			return tx.MoveEvents(ctx, entity, account.CustomerEntity(result.CustomerID))
		}
		if err := tx.Reading(ctx, number); err != nil {
			return err
		}
		due, err := tx.TakeEvents(ctx, entity, number)
		if err != nil {
			return err
		}
		if missing {
			return tx.HoldEvents(ctx, due, store.EventWaiting, "Stripe does not know this charge", false)
		}
		return tx.IgnoreEvents(ctx, due, "no customer")
	})
	return result, err
}
