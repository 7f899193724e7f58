package activities

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// Customers gives users their Stripe customers. Its activities run on Stripe's task queue.
type Customers struct {
	Store  *store.Store
	Stripe Stripe
	Access account.AccessPolicy
	// LinkByEmail is [SubscriptionPolicy.LinkByEmail]: a customer that is about to be linked by
	// its email is reason enough not to make another.
	LinkByEmail bool
	// MissingConfirmedAfter and Livemode are those of [SubscriptionPolicy].
	MissingConfirmedAfter time.Duration
	Livemode              bool
	// Compensated is told what came of each undo; it may be nil.
	Compensated func(step, outcome string)
}

// CustomerResult says what became of a user's customer.
type CustomerResult struct {
	CustomerID string `json:"customerId,omitempty"`
	PublishDue bool   `json:"publishDue,omitempty"`
	// Undo names a customer that this onboarding made and that must not stay: its user is
	// being deleted, or got another customer meanwhile.
	Undo string `json:"undo,omitempty"`
	// Claimed is set when a customer that names this user exists and is about to be linked, so
	// that none was made.
	Claimed bool `json:"claimed,omitempty"`
	// Deleting is set when the user is being deleted: nothing was made.
	Deleting bool `json:"deleting,omitempty"`
	// Hinted is the customer that the user's own notes, or the product's own table, point at, where
	// the user has none and none was made. With Claimed it is theirs.
	Hinted string `json:"hinted,omitempty"`
	// Undecided is set where the product's own table names Hinted, and it is not theirs by all that is
	// known: a person has to decide.
	Undecided bool `json:"undecided,omitempty"`
}

// EnsureStripeCustomer gives a user a customer, unless they have one or one claims them, and brings
// name and email of their customers to the user's, each of them whatever becomes of the others. An
// empty value never overwrites.
//
// Idempotent: the customer is created under a key made from the user, so a repeated attempt gets
// the same customer, as it is by then. Profile writes are keyed by the profile's version.
func (a *Customers) EnsureStripeCustomer(ctx context.Context, in UserInput) (result CustomerResult, err error) {
	defer func() { showFailing(ctx, a.Store, account.UserEntity(in.ClerkUserID), err) }()
	user, err := a.Store.UserByClerkID(ctx, in.ClerkUserID)
	if err != nil || user == nil {
		return result, err
	}
	if attempt(ctx) > 1 || in.Again || user.Deleting() {
		// An attempt before this one may have found out, and told nobody.
		if result.Undo, err = a.Store.MadeInVain(ctx, in.ClerkUserID); err != nil {
			return result, err
		}
	}
	if user.Deleting() {
		return CustomerResult{Deleting: true, Undo: result.Undo}, nil
	}
	if user.Unplaced {
		if err := a.place(ctx, user); err != nil {
			return result, err
		}
	}
	// Whoever is about to be theirs is looked for before those that are: one that is linked
	// in between is found as theirs then, and not missed by both looks.
	if result.Claimed, err = a.claimed(ctx, user); err != nil {
		return result, err
	}
	customers, err := a.Store.CustomersOf(ctx, user)
	if err != nil {
		return result, err
	}
	var failed []error
	for _, c := range customers {
		if !c.Exists() {
			continue
		}
		gone, err := a.pushProfile(ctx, user, c)
		failed = append(failed, err)
		if !gone {
			result.CustomerID = c.ID
		}
	}
	if err := failure.Join(failed...); err != nil {
		return result, err
	}
	if result.CustomerID != "" {
		result.Claimed, result.PublishDue = false, user.PublishDue()
		return result, nil
	}
	if result.Hinted, result.Undecided, err = a.adopted(ctx, user, customers, in.InBulk); err != nil || result.Hinted != "" {
		result.Claimed = !result.Undecided
		return result, err
	}
	if result.Claimed {
		return result, nil
	}
	if result.Hinted, result.Claimed, err = a.hinted(ctx, user, in.InBulk); err != nil || result.Claimed || in.InBulk && result.Hinted != "" {
		return result, err
	}
	result.Hinted = ""
	if result.Claimed, err = a.foundAgain(ctx, customers); err != nil || result.Claimed {
		return result, err
	}
	if in.Existing {
		if result.Claimed, err = a.named(ctx, in.ClerkUserID); err != nil || result.Claimed {
			return result, err
		}
	}
	// Each of these looks passes over what the user has been given since the first of them.
	if customers, err = a.Store.CustomersOf(ctx, user); err != nil {
		return result, err
	}
	if slices.ContainsFunc(customers, store.Customer.Exists) {
		return a.EnsureStripeCustomer(ctx, in)
	}
	return a.create(ctx, user, customers)
}

// create creates a customer, or links the one that an earlier attempt has made and not heard of. had
// are the user's customers so far: those that Stripe was found not to have are not waited for.
//
// Once Stripe has been asked, an attempt that is cancelled sees it through: what was made has to be
// linked, or named to be undone.
func (a *Customers) create(ctx context.Context, user *store.User, had []store.Customer) (CustomerResult, error) {
	if err := ctx.Err(); err != nil {
		return CustomerResult{}, err
	}
	ctx, done := seenThrough(ctx)
	defer done()
	// The creation counts as a read: who has just been made has no subscriptions.
	number, err := a.Store.NextRead(ctx)
	if err != nil {
		return CustomerResult{}, err
	}
	profile := user.Profile()
	key := creation(user.ClerkUserID)
	made := account.NewCustomer{ClerkUserID: user.ClerkUserID, Email: profile.Email, Name: profile.FullName(), Request: key, IdempotencyKey: key}
	for _, c := range had {
		if c.MissingSince != nil {
			made.Missing = append(made.Missing, c.ID)
		}
	}
	customer, before, err := a.Stripe.CreateCustomer(ctx, made)
	if failure.Of(err) == failure.Permanent && profile.Email != "" {
		// Stripe refuses some addresses that Clerk takes. A customer without one is better
		// than a user without a customer.
		made.Email, made.IdempotencyKey = "", key+":no-email"
		customer, before, err = a.Stripe.CreateCustomer(ctx, made)
	}
	if err != nil {
		return CustomerResult{}, err
	}
	if before {
		number = 0 // something may have been bought on it since
	}
	return a.linkCreated(ctx, user, customer, number)
}

// creation is the key of the one creation of a user's customer.
func creation(clerkUserID string) string { return "customer:create:" + clerkUserID }

// undoUnheard removes a customer that was made for a user who is being deleted and of which nobody
// has heard, since whoever asked for it has died: it has their name and email, and is nobody's. One
// that was linked meanwhile is looked after like any of theirs.
func (a *Customers) undoUnheard(ctx context.Context, clerkUserID string) error {
	key := creation(clerkUserID)
	since, asked, err := a.Store.StripeAskedSince(ctx, key)
	if err != nil || !asked {
		return err
	}
	made, found, err := a.Stripe.CustomersSince(ctx, since.Add(-account.ClocksDiffer), func(c account.Customer) bool {
		return !c.Deleted && c.Metadata[account.MetadataRequest] == key && !c.NamesAnother(clerkUserID)
	})
	if err != nil || !found {
		return err
	}
	if owner, err := a.Store.OwnerOfCustomer(ctx, made.ID); err != nil || owner != "" {
		return err
	}
	_, err = a.UndoStripeCustomer(ctx, UndoInput{ClerkUserID: clerkUserID, CustomerID: made.ID})
	return err
}

// seenThrough is a context that ends with the attempt's time and not with its cancellation.
func seenThrough(ctx context.Context) (context.Context, context.CancelFunc) {
	until, bounded := ctx.Deadline()
	ctx = context.WithoutCancel(ctx)
	if !bounded {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, until)
}

// linkCreated links a customer that was just created, unless the user is being deleted or got
// another customer meanwhile: then it is to be undone.
func (a *Customers) linkCreated(ctx context.Context, user *store.User, customer account.Customer, number int64) (result CustomerResult, err error) {
	err = a.Store.Update(ctx, "link a created customer", cause(ctx), func(ctx context.Context, tx *store.Tx) error {
		result = CustomerResult{CustomerID: customer.ID}
		locked, row, err := tx.LockCustomerFor(ctx, user.ClerkUserID, customer.ID)
		if err != nil {
			return err
		}
		if locked == nil || locked.Deleting() {
			result = CustomerResult{Undo: customer.ID, Deleting: true}
			return tx.MadeInVain(ctx, customer.ID, user.ClerkUserID)
		}
		if row.UserID != nil {
			// Its own event came first and linked it by what we had written on it.
			result.PublishDue = locked.PublishDue()
			return nil
		}
		owned, err := tx.CustomersOf(ctx, locked)
		if err != nil {
			return err
		}
		if other := slices.IndexFunc(owned, store.Customer.Exists); other >= 0 {
			result = CustomerResult{CustomerID: owned[other].ID, Undo: customer.ID, PublishDue: locked.PublishDue()}
			if err := tx.MadeInVain(ctx, customer.ID, user.ClerkUserID); err != nil {
				return err
			}
			// Whoever looks at it undoes it too, where this attempt is the last that anybody hears of.
			return tx.Poke(ctx, account.JobSync, account.CustomerEntity(customer.ID))
		}
		given := user.ProfileVersion
		profile, due := user.Profile(), []account.Entity(nil)
		if number == 0 && (differsEmail(&customer.Email, profile.Email) || differs(&customer.Name, profile.FullName())) {
			// It was made when they had another name or email, and is still to be given theirs.
			given, due = 0, append(due, account.UserEntity(user.ClerkUserID))
		}
		if err := tx.Link(ctx, locked, row, "created", given, nil); err != nil {
			return err
		}
		if err := tx.Reading(ctx, number, row.ReadSeq, locked.HighestNumber()); err != nil {
			return err
		}
		if number > row.ReadSeq {
			err = tx.SetCustomer(ctx, row, customer, number, true)
		} else {
			// It was made before, and something may have been bought on it since.
			err = tx.Poke(ctx, account.JobSync, append(due, account.CustomerEntity(customer.ID))...)
		}
		if err != nil {
			return err
		}
		if err := tx.SetCustomerProfile(ctx, row, customer.Email, customer.Name, given); err != nil {
			return err
		}
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		if _, err := tx.Reproject(ctx, locked, a.Access, now, nil); err != nil {
			return err
		}
		result.PublishDue = locked.PublishDue()
		return nil
	})
	return result, err
}

// pushProfile gives a customer the user's name and email, if it was not given this version of them
// and shows others. gone is set where the customer is not at Stripe any more, which is recorded.
func (a *Customers) pushProfile(ctx context.Context, user *store.User, c store.Customer) (gone bool, err error) {
	if c.ProfileVersion >= user.ProfileVersion {
		return false, nil
	}
	profile := user.Profile()
	email, name := profile.Email, profile.FullName()
	// The key is of the version, and of the repair where the version was written before: under the
	// first key Stripe would answer as it did then, and write nothing.
	key := "customer:profile:" + c.ID + ":" + strconv.FormatInt(user.ProfileVersion, 10)
	if c.ProfileForgotten() {
		key += ":" + strconv.FormatInt(-c.ProfileVersion, 10)
		// Somebody has changed it, and our copy may be from before.
		shown, err := a.Stripe.Customer(ctx, c.ID)
		switch {
		case failure.IsNotFound(err), err == nil && shown.Deleted:
			return true, a.noteGone(ctx, user, c.ID)
		case err != nil:
			return false, err
		}
		c.Email, c.Name = &shown.Email, &shown.Name
	}
	if differsEmail(c.Email, email) || differs(c.Name, name) {
		// Both are sent, whichever differs: under one key the parameters must be the same in
		// each attempt.
		_, err := a.Stripe.UpdateCustomer(ctx, c.ID, &email, &name, key)
		switch {
		case failure.IsNotFound(err):
			return true, a.noteGone(ctx, user, c.ID)
		case failure.Of(err) == failure.Permanent && email != "" && name != "":
			// An address that Stripe refuses must not keep the name from it.
			_, err = a.Stripe.UpdateCustomer(ctx, c.ID, nil, &name, key+":no-email")
			if failure.Of(err) != failure.Permanent && err != nil {
				return false, err
			}
		case err != nil && failure.Of(err) != failure.Permanent:
			return false, err
		}
	}
	return false, a.Store.Update(ctx, "note a customer's profile", cause(ctx), func(ctx context.Context, tx *store.Tx) error {
		locked, row, err := tx.LockCustomer(ctx, c.ID)
		if err != nil || locked == nil || locked.Deleting() {
			return err
		}
		return tx.SetCustomerProfile(ctx, row, email, name, user.ProfileVersion)
	})
}

// differs tells whether a customer has to be given something: an empty value never overwrites.
func differs(has *string, want string) bool {
	return want != "" && (has == nil || *has != want)
}

// differsEmail is differs for an address: Clerk keeps them in small letters, and one that was typed
// otherwise at a checkout is the same.
func differsEmail(has *string, want string) bool {
	return want != "" && (has == nil || !strings.EqualFold(strings.TrimSpace(*has), want))
}

// UndoInput names a customer that onboarding made and the user it was made for.
type UndoInput struct {
	ClerkUserID string `json:"clerkUserId"`
	CustomerID  string `json:"customerId"`
}

// UndoResult says what became of it.
type UndoResult struct {
	// Deleted, Linked (somebody linked it after all) or Kept (something hangs on it).
	Outcome string `json:"outcome"`
}

// UndoStripeCustomer removes a customer that an onboarding made beside another one, or for a user
// who is being deleted. It runs under the user's row lock and removes the customer only if our
// tables have no link to it and Stripe shows no subscription, payment method or open checkout on
// it; else the customer is kept, and reported as an orphan until its own look links it.
//
// Idempotent: a customer that is gone is gone; the key is the same in each attempt.
func (a *Customers) UndoStripeCustomer(ctx context.Context, in UndoInput) (result UndoResult, err error) {
	err = a.Store.Update(ctx, "undo a customer", cause(ctx), func(ctx context.Context, tx *store.Tx) error {
		_, row, err := tx.LockCustomerFor(ctx, in.ClerkUserID, in.CustomerID)
		if err != nil {
			return err
		}
		if row != nil && row.UserID != nil {
			result.Outcome = "linked"
			return tx.MadeInVain(ctx, in.CustomerID, "")
		}
		unused, err := a.Stripe.CustomerIsUnused(ctx, in.CustomerID)
		switch {
		case failure.IsNotFound(err):
			result.Outcome = "deleted"
			return a.noteUndone(ctx, tx, in.CustomerID)
		case err != nil:
			return err
		case !unused:
			result.Outcome = "kept"
			if err := tx.MadeInVain(ctx, in.CustomerID, ""); err != nil {
				return err
			}
			// Its own look may have left it to this one, and links it now.
			if err := tx.Poke(ctx, account.JobSync, account.CustomerEntity(in.CustomerID)); err != nil {
				return err
			}
			return tx.NoteDrift(ctx, account.CustomerEntity(in.CustomerID), account.DriftOrphanCustomer, in.CustomerID)
		}
		if err := a.Stripe.DeleteCustomer(ctx, in.CustomerID, operationKey(ctx, "undo", in.CustomerID)); err != nil {
			return err
		}
		result.Outcome = "deleted"
		if err := tx.SetDeleted(ctx, in.CustomerID); err != nil {
			return err
		}
		return tx.Audit(ctx, store.Entry{Action: "customer.undone", Entity: account.CustomerEntity(in.CustomerID), Subject: in.CustomerID})
	})
	if err == nil && a.Compensated != nil {
		a.Compensated("create_customer", result.Outcome)
	}
	return result, err
}

// noteUndone notes what has become of a customer that was to be undone and of which Stripe has
// nothing to list: an earlier attempt has deleted it, or Stripe does not have it at all.
func (a *Customers) noteUndone(ctx context.Context, tx *store.Tx, customerID string) error {
	shown, read := a.Stripe.Customer(ctx, customerID)
	gone, err := a.gone(ctx, customerID, shown, read)
	switch {
	case err != nil:
		return err
	case read != nil:
		return tx.MadeInVain(ctx, customerID, "")
	case !gone:
		return failure.New(failure.Transient, "stripe", "read customer", "there_after_all", nil)
	default:
		return tx.SetDeleted(ctx, customerID)
	}
}
