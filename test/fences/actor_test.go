package fences_test

import (
	"context"
	"time"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/clerkapi"
	"github.com/nepfy/clerk-stripe-sync/internal/exchange"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeapi"
	"github.com/nepfy/clerk-stripe-sync/internal/stripechanges"
)

// policies are what an operator may choose.
type policies struct {
	deletion    account.DeletionPolicy
	linkByEmail bool
	// linkByEmailAfter is LINK_BY_EMAIL_AFTER, here at once unless it is set.
	linkByEmailAfter time.Duration
	// trustReferences is TRUST_CLIENT_REFERENCE.
	trustReferences bool
}

// actor is one who runs activities: an attempt, a worker, somebody beside the workflows. Each has
// connections of its own, and can be stopped wherever it talks to anybody.
type actor struct {
	*points
	users         *activities.Users
	customers     *activities.Customers
	subscriptions *activities.Subscriptions
	projections   *activities.Projections
	catalogue     *activities.Catalogue
	commands      *activities.Commands
	stripe        *stripechanges.Client
}

// missingConfirmedAfter is the least time between two answers that something is missing.
const missingConfirmedAfter = 10 * time.Minute

func (l *lab) actor(o policies) *actor {
	l.t.Helper()
	if o.deletion == "" {
		o.deletion = account.DeleteCancelAtPeriodEnd
	}
	base := exchange.NewBase()
	p := &points{base: base}
	db, err := store.Open(l.t.Context(), store.Options{DSN: l.DSN, MaxConns: 2, Tracer: p, TrustClientReference: o.trustReferences})
	l.must(err)
	stripe := stripechanges.New(stripeapi.New(stripeapi.Options{Key: l.Sandbox.StripeSecretKey, BaseURL: l.Sandbox.StripeURL(), Transport: p}), db)
	clerk := clerkapi.New(clerkapi.Options{Key: l.Sandbox.ClerkSecretKey, BaseURL: l.Sandbox.ClerkURL(), Transport: p})
	l.t.Cleanup(func() {
		p.sawReplaced(l.t)
		db.Close()
		base.CloseIdleConnections()
	})
	a := &actor{
		points:    p,
		stripe:    stripe,
		users:     &activities.Users{Store: db, Clerk: clerk, Access: access(), Deletion: o.deletion, LinkByEmail: o.linkByEmail, RereadDelay: time.Millisecond, MissingConfirmedAfter: missingConfirmedAfter},
		customers: &activities.Customers{Store: db, Stripe: stripe, Access: access(), LinkByEmail: o.linkByEmail, MissingConfirmedAfter: missingConfirmedAfter},
		subscriptions: &activities.Subscriptions{Store: db, Stripe: stripe, Policy: activities.SubscriptionPolicy{
			Access: access(), Deletion: o.deletion, LinkByEmail: o.linkByEmail, LinkByEmailAfter: o.linkByEmailAfter, BoundaryDelay: time.Second, RereadDelay: time.Millisecond,
			MissingConfirmedAfter: missingConfirmedAfter,
		}},
		projections: &activities.Projections{Store: db, Clerk: clerk},
		catalogue:   &activities.Catalogue{Store: db, Stripe: stripe, RereadDelay: time.Millisecond},
	}
	a.commands = &activities.Commands{Subscriptions: a.subscriptions}
	return a
}

// look does what an entity's workflow does when it is poked.
func (a *actor) look(ctx context.Context, entity account.Entity) error {
	switch kind, id := entity.Split(); kind {
	case account.KindUser:
		return a.lookAtUser(ctx, id)
	case account.KindCustomer:
		return a.lookAtCustomer(ctx, id)
	case account.KindProduct:
		_, err := a.catalogue.RecordProduct(ctx, activities.ProductInput{ProductID: id})
		return err
	case account.KindCharge:
		return nil
	default:
		return nil
	}
}

func (a *actor) lookAtCustomer(ctx context.Context, id string) error {
	in := activities.RecordInput{CustomerID: id}
	for {
		result, err := a.subscriptions.RecordSubscriptions(ctx, in)
		if err == nil && result.StopDue {
			result, err = a.subscriptions.StopBilling(ctx, in)
		}
		if err == nil && result.PublishDue {
			err = a.publish(ctx, result.ClerkUserID, false)
		}
		if err == nil && result.UndoFor != "" {
			_, err = a.customers.UndoStripeCustomer(ctx, activities.UndoInput{ClerkUserID: result.UndoFor, CustomerID: id})
		}
		if err != nil || result.RereadAfter == 0 {
			return err
		}
		in.Reread++
	}
}

func (a *actor) lookAtUser(ctx context.Context, id string) error {
	in := activities.UserInput{ClerkUserID: id}
	for {
		result, err := a.users.SyncUser(ctx, in)
		if err != nil {
			return err
		}
		if result.CheckoutsDue && (result.Outcome == activities.OutcomeDeleted || !result.Deleting) {
			return a.customers.ExpireCheckouts(ctx, in)
		}
		if result.Outcome == activities.OutcomeMissing || result.Outcome == activities.OutcomeDeleted {
			return nil
		}
		if result.Deleting {
			if err := a.customers.ExpireCheckouts(ctx, in); err != nil {
				return err
			}
			_, err := a.users.EraseUser(ctx, in)
			return err
		}
		if result.CustomerDue {
			made, err := a.give(ctx, activities.UserInput{ClerkUserID: id, Existing: result.Existing})
			if err != nil {
				return err
			}
			if made.Deleting {
				continue
			}
			result.PublishDue = result.PublishDue || made.PublishDue
		}
		if result.PublishDue || result.PublishForced {
			return a.publish(ctx, id, result.PublishForced)
		}
		return nil
	}
}

func (a *actor) ensure(ctx context.Context, user string) (activities.CustomerResult, error) {
	return a.give(ctx, activities.UserInput{ClerkUserID: user})
}

// give gives a user a customer, and undoes one that was made in vain.
func (a *actor) give(ctx context.Context, in activities.UserInput) (activities.CustomerResult, error) {
	made, err := a.customers.EnsureStripeCustomer(ctx, in)
	if err != nil || made.Undo == "" {
		return made, err
	}
	_, err = a.customers.UndoStripeCustomer(ctx, activities.UndoInput{ClerkUserID: in.ClerkUserID, CustomerID: made.Undo})
	return made, err
}

func (a *actor) publish(ctx context.Context, user string, forced bool) error {
	for {
		result, err := a.projections.PublishProjection(ctx, activities.PublishInput{ClerkUserID: user, Forced: forced})
		if err != nil || !result.More {
			return err
		}
		forced = false
	}
}

func (a *actor) record(ctx context.Context, customer string) error {
	_, err := a.subscriptions.RecordSubscriptions(ctx, activities.RecordInput{CustomerID: customer})
	return err
}

func (a *actor) syncUser(ctx context.Context, user string) error {
	_, err := a.users.SyncUser(ctx, activities.UserInput{ClerkUserID: user})
	return err
}
