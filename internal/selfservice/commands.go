package selfservice

import (
	"context"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// CommandRequest asks for something to be done to a subscription.
type CommandRequest struct {
	Caller  Caller
	Key     Key
	Command account.Command
	// UserID names whose subscription it is, where an admin asks for somebody else.
	UserID         string
	SubscriptionID string
}

// Command does what is asked for and answers the operation as it stands when it has ended, or when
// the caller's patience is over.
func (d *Desk) Command(ctx context.Context, r CommandRequest) (*store.Operation, error) {
	userID, err := target(r.Caller, r.UserID)
	if err != nil {
		return nil, err
	}
	if !account.ValidSubscriptionID(r.SubscriptionID) {
		return nil, refuse(Invalid, "field_invalid", "That is not the id of a subscription.")
	}
	customerID, owner, err := d.Store.OwnerOf(ctx, r.SubscriptionID)
	if err != nil {
		return nil, unavailable(err)
	}
	if owner == userID && customerID == "" {
		if customerID, err = d.placed(ctx, userID, r.SubscriptionID); err != nil {
			return nil, err
		}
	}
	if owner != userID || customerID == "" {
		return nil, subscriptionNotFound()
	}
	op, _, err := d.begin(ctx, r.Caller, r.Key, store.NewOperation{
		Action: store.Action(r.Command), ClerkUserID: userID, Entity: account.CustomerEntity(customerID), SubscriptionID: r.SubscriptionID,
	})
	if err != nil || op.Status.Settled() {
		return op, err
	}
	return d.drive(ctx, op)
}

// placed answers whose customer's a subscription is of which the product has not noted that, "" where
// Stripe does not have it.
func (d *Desk) placed(ctx context.Context, userID, subscriptionID string) (string, error) {
	user, err := d.Store.UserByClerkID(ctx, userID)
	if err != nil || user == nil {
		return "", unavailable(err)
	}
	if err := d.place(ctx, user); err != nil {
		return "", err
	}
	customerID, _, err := d.Store.OwnerOf(ctx, subscriptionID)
	return customerID, unavailable(err)
}

// updateMargin is how long a workflow's answer may be under way after its own patience is over.
const updateMargin = time.Second

// drive sends an operation to the customer's workflow and waits. Where the workflow cannot be
// reached, or has more updates in flight than the server allows, a poke makes it find the operation
// by itself; and should that be lost too, the sweep pokes. So nothing that was committed is
// forgotten.
func (d *Desk) drive(ctx context.Context, op *store.Operation) (*store.Operation, error) {
	ctx, cancel := context.WithTimeout(ctx, d.Wait+updateMargin)
	defer cancel()
	answered, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		err := d.Commander.Command(ctx, op, d.Wait)
		if err == nil {
			close(answered)
			return
		}
		if ctx.Err() == nil {
			d.Logger.WarnContext(ctx, "a command did not reach its workflow, which is poked instead", "operation", "command",
				"operation_id", op.ID, "workflow_id", string(op.Entity), "error_class", string(failure.Of(err)), "error", err.Error())
			d.poke(ctx, account.JobSync, op.Entity)
		}
	}()
	// As a rule the workflow's answer comes first.
	op, err := d.await(ctx, op, lastLook, answered)
	cancel()
	<-ended
	return op, err
}

// poke has entities looked at. A poke that cannot be stored is made good by the sweep.
func (d *Desk) poke(ctx context.Context, job account.Job, entities ...account.Entity) {
	if err := d.Store.Poke(ctx, job, entities...); err != nil {
		d.Logger.WarnContext(ctx, "a poke could not be stored", "operation", "poke", "error_class", string(failure.Of(err)), "error", err.Error())
		return
	}
	d.Wake()
}
