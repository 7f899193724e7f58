package selfservice

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// Sync has a user and all of their customers read anew and waits until what came of it is stored
// and published. A user whom we do not know yet is onboarded.
func (d *Desk) Sync(ctx context.Context, caller Caller, key Key, named string) (*store.Operation, error) {
	userID, err := target(caller, named)
	if err != nil {
		return nil, err
	}
	user, err := d.Store.UserByClerkID(ctx, userID)
	if err != nil {
		return nil, unavailable(err)
	}
	if user == nil {
		if err := d.known(ctx, caller, userID); err != nil {
			return nil, err
		}
	}
	if user != nil && user.Deleting() {
		return nil, userNotFound()
	}
	return d.sync(ctx, caller, key, userID, user)
}

// sync begins a sync and waits for its end.
func (d *Desk) sync(ctx context.Context, caller Caller, key Key, userID string, user *store.User) (*store.Operation, error) {
	op, isNew, err := d.begin(ctx, caller, key, store.NewOperation{Action: store.ActionSync, ClerkUserID: userID, Entity: account.UserEntity(userID)})
	if err != nil || op.Status.Settled() {
		return op, err
	}
	if isNew {
		d.pokeAll(ctx, userID, user)
	}
	return d.watch(ctx, op)
}

// watch waits for the end of what only has to be seen.
func (d *Desk) watch(ctx context.Context, op *store.Operation) (*store.Operation, error) {
	ctx, cancel := context.WithTimeout(ctx, d.Wait)
	defer cancel()
	return d.await(ctx, op, firstLook, nil)
}

// pokeAll has a user and their customers looked at. What cannot be poked now the sweep pokes.
func (d *Desk) pokeAll(ctx context.Context, userID string, user *store.User) {
	job := account.JobOnboard
	var customers []account.Entity
	if user != nil {
		job = account.JobSync
		owned, err := d.Store.CustomersOf(ctx, user)
		if err != nil {
			d.Logger.WarnContext(ctx, "a user's customers could not be listed to be poked", "operation", "poke", "error_class", string(failure.Of(err)), "error", err.Error())
		}
		for _, c := range owned {
			customers = append(customers, account.CustomerEntity(c.ID))
		}
	}
	d.poke(ctx, job, account.UserEntity(userID))
	if len(customers) > 0 {
		d.poke(ctx, account.JobSync, customers...)
	}
}

// clerkPatience bounds the reads of Clerk that an answer can do without.
const clerkPatience = 3 * time.Second

// clerkPause is how long after Clerk has said that it does not have a user it is asked once more.
const clerkPause = time.Second

// heldByClerk answers what Clerk's metadata hold of a user. That it does not have them it has to
// say twice, a moment apart: not each of its copies shows whoever is there.
func (d *Desk) heldByClerk(ctx context.Context, userID string) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, clerkPatience)
	defer cancel()
	_, held, err := d.Clerk.User(ctx, userID)
	if !failure.IsNotFound(err) {
		return held, err
	}
	select {
	case <-ctx.Done():
		return nil, err
	case <-time.After(clerkPause):
	}
	_, held, err = d.Clerk.User(ctx, userID)
	return held, err
}

// known refuses a request about a user whom nobody knows. A token proves that its own user exists;
// of others whom we do not know only Clerk can tell.
func (d *Desk) known(ctx context.Context, caller Caller, userID string) error {
	if userID == caller.UserID {
		return nil
	}
	_, err := d.heldByClerk(ctx, userID)
	switch {
	case failure.IsNotFound(err):
		return userNotFound()
	case err != nil:
		return upstream(err)
	default:
		return nil
	}
}

// user answers the row of whom a request is about. Whom Clerk knows and we do not yet is onboarded
// first; where that takes longer than the caller waits, the operation that does it is answered.
func (d *Desk) user(ctx context.Context, caller Caller, named string) (*store.User, *store.Operation, error) {
	userID, err := target(caller, named)
	if err != nil {
		return nil, nil, err
	}
	user, err := d.Store.UserByClerkID(ctx, userID)
	switch {
	case err != nil:
		return nil, nil, unavailable(err)
	case user != nil && user.Deleting():
		return nil, nil, userNotFound()
	case user != nil:
		return user, nil, nil
	}
	if err := d.known(ctx, caller, userID); err != nil {
		return nil, nil, err
	}
	op, err := d.sync(ctx, caller, Key{}, userID, nil)
	if err != nil || !op.Status.Settled() {
		return nil, op, err
	}
	if user, err = d.Store.UserByClerkID(ctx, userID); err != nil {
		return nil, nil, unavailable(err)
	}
	if user == nil || user.Deleting() {
		return nil, nil, userNotFound()
	}
	return user, nil, nil
}

// State is what the three systems say of a user.
type State struct {
	User account.User
	// Database is the stored projection of the leading subscription, nil if there is none.
	Database *account.Projection
	// Clerk is what Clerk's metadata holds; nil where Clerk does not answer.
	Clerk json.RawMessage
	// InSync tells whether the two are the same; nil where that is not known.
	InSync *bool
}

// State answers what PostgreSQL and, read live, Clerk say of a user's subscription.
func (d *Desk) State(ctx context.Context, caller Caller, named string) (State, *store.Operation, error) {
	user, op, err := d.user(ctx, caller, named)
	if err != nil || user == nil {
		return State{}, op, err
	}
	stored, err := user.Projection()
	if err != nil {
		return State{}, nil, unavailable(err)
	}
	state := State{User: user.Profile()}
	if stored.SubscriptionID != "" {
		state.Database = &stored
	}
	held, err := d.heldByClerk(ctx, user.ClerkUserID)
	if failure.IsNotFound(err) {
		return State{}, nil, userNotFound()
	}
	if err != nil {
		d.Logger.WarnContext(ctx, "Clerk does not answer; its part of the answer is left out", "operation", "read_state",
			"error_class", string(failure.Of(err)), "error", err.Error())
		return state, nil, nil
	}
	same := stored.Equals(held)
	var object map[string]json.RawMessage
	if state.Clerk = held; json.Unmarshal(held, &object) != nil || object == nil {
		state.Clerk = json.RawMessage(`{}`) // nothing, or nothing of ours
	}
	state.InSync = &same
	return state, nil, nil
}

// Subscription is one subscription of a user's.
type Subscription struct {
	account.Held
	// Grants tells whether it grants access now.
	Grants   bool
	Quantity int64
}

// Subscriptions answers all subscriptions of a user, the leading one first, then the newest.
func (d *Desk) Subscriptions(ctx context.Context, caller Caller, named string) ([]Subscription, *store.Operation, error) {
	user, op, err := d.user(ctx, caller, named)
	if err != nil || user == nil {
		return nil, op, err
	}
	rows, err := d.Store.SubscriptionsOfUser(ctx, user)
	if err != nil {
		return nil, nil, unavailable(err)
	}
	now := time.Now()
	held := make([]account.Held, len(rows))
	list := make([]Subscription, len(rows))
	for i, row := range rows {
		held[i] = row.Held()
		list[i] = Subscription{Held: held[i], Grants: d.Access.Grants(held[i].Subscription, now), Quantity: row.Quantity}
	}
	lead, _ := account.Leading(held, d.Access, now)
	slices.SortStableFunc(list, func(a, b Subscription) int {
		if (a.ID == lead.ID) != (b.ID == lead.ID) {
			if a.ID == lead.ID {
				return -1
			}
			return 1
		}
		return b.Created.Compare(a.Created)
	})
	return list, nil, nil
}

// mostLines is the longest page of the audit log.
const mostLines = 200

// Audit answers a page of the audit log: the user's own, or, for an admin who names nobody, all of
// it. Lines are the newest first; before is the id of the last line of the page before, 0 for the
// first page.
func (d *Desk) Audit(ctx context.Context, caller Caller, named string, all bool, before int64, limit int) ([]store.AuditLine, error) {
	limit = min(max(limit, 1), mostLines)
	if all {
		if !caller.Admin {
			return nil, refuse(Forbidden, "not_admin", "Only an admin may see everybody's.")
		}
		lines, err := d.Store.Audit(ctx, before, limit)
		return lines, unavailable(err)
	}
	userID, err := target(caller, named)
	if err != nil {
		return nil, err
	}
	user, err := d.Store.UserByClerkID(ctx, userID)
	if err != nil {
		return nil, unavailable(err)
	}
	if user == nil {
		if userID != caller.UserID {
			return nil, userNotFound()
		}
		return nil, nil // nothing has happened to them here
	}
	lines, err := d.Store.AuditOfUser(ctx, user, before, limit)
	return lines, unavailable(err)
}
