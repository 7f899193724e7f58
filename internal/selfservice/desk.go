package selfservice

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// Stripe is what is asked of Stripe while somebody waits. Its errors are classified failures.
type Stripe interface {
	CustomerSubscriptions(ctx context.Context, customerID string) ([]account.Subscription, *account.Customer, error)
	// Subscription reads one. Where only its items cannot be read, all else is answered beside the
	// error, Unread.
	Subscription(ctx context.Context, subscriptionID string) (account.Subscription, error)
	Customer(ctx context.Context, customerID string) (account.Customer, error)
	OpenCheckoutSessions(ctx context.Context, customerID string) ([]account.CheckoutSession, error)
	// CheckoutSessionsSince lists a customer's sessions of any status that were made at a moment or
	// later.
	CheckoutSessionsSince(ctx context.Context, customerID string, since time.Time) ([]account.CheckoutSession, error)
	ExpireCheckoutSession(ctx context.Context, sessionID, idempotencyKey string) error
	OpenCheckout(ctx context.Context, n account.NewCheckout) (account.CheckoutSession, error)
	CheckoutSession(ctx context.Context, sessionID string) (account.CheckoutSession, error)
	OpenPortal(ctx context.Context, customerID, returnURL, idempotencyKey string) (url string, err error)
}

// Clerk is what is asked of Clerk while somebody waits. Its errors are classified failures.
type Clerk interface {
	User(ctx context.Context, clerkUserID string) (user account.User, held json.RawMessage, err error)
}

// Commander has a customer's workflow do what an operation says. It returns when that has ended or
// wait is over; an error means that nobody knows whether the workflow has heard of it.
type Commander interface {
	Command(ctx context.Context, op *store.Operation, wait time.Duration) error
}

// Caller is who asks, as their session token says.
type Caller struct {
	UserID string
	// Admin may name another user.
	Admin bool
	// ActorID is who acts as the user, "" if nobody else does. It is written down with what they do.
	ActorID string
}

// Name is the caller as the audit log has it.
func (c Caller) Name() string {
	if c.ActorID != "" {
		return c.ActorID + " as " + c.UserID
	}
	return c.UserID
}

// Desk takes requests.
type Desk struct {
	Store     *store.Store
	Stripe    Stripe
	Clerk     Clerk
	Commander Commander
	// Wake makes the dispatcher look at once for what was asked to be poked.
	Wake func()
	// Wait is how long a caller waits for the end of an operation.
	Wait   time.Duration
	Access account.AccessPolicy
	// Beside says whether products may be bought beside each other that do not say so themselves.
	Beside account.BesidePolicy
	// Origins are where people may be sent back to from Stripe; none for anywhere.
	Origins []string
	// TrustClientReference is [account.Evidence.TrustReferences].
	TrustClientReference bool
	// LinkByEmail has a customer for whom nobody is named be whose verified address it has.
	LinkByEmail bool
	Logger      *slog.Logger
}

// keyLife is how long an Idempotency-Key means the same operation.
const keyLife = 24 * time.Hour

// Key identifies a request, so that asking again is not asking twice.
type Key struct {
	// Method and Route are those of the request; Value is the caller's Idempotency-Key, "" for none.
	Method, Route, Value string
}

func (k Key) hash(caller Caller) []byte {
	if k.Value == "" {
		return nil
	}
	return digest(caller.UserID, k.Method, k.Route, k.Value)
}

// digest hashes texts in a way that keeps them apart.
func digest(texts ...string) []byte {
	raw, err := json.Marshal(texts)
	if err != nil {
		panic(fmt.Sprintf("encoding texts: %v", err)) // texts always can be
	}
	sum := sha256.Sum256(raw)
	return sum[:]
}

// target is whom a request is about: the caller, or whom an admin names.
func target(caller Caller, named string) (string, error) {
	switch {
	case named == "" || named == caller.UserID:
		return caller.UserID, nil
	case !caller.Admin:
		return "", refuse(Forbidden, "not_admin", "Only an admin may name another user.")
	case !account.ValidUserID(named):
		return "", refuse(Invalid, "field_invalid", "That is not a Clerk user id.")
	default:
		return named, nil
	}
}

// begin commits a request as an operation, or finds the one that the same key began. Where the
// commit may have happened and nobody says so, it is begun again, which tells; where the database
// does not say so for as long as the caller waits, the operation is answered as one that may be
// there: it is not to be called refused.
func (d *Desk) begin(ctx context.Context, caller Caller, key Key, n store.NewOperation, arguments ...string) (op *store.Operation, isNew bool, err error) {
	n.ID, n.Caller, n.KeyHash, n.Lifetime = store.NewOperationID(), caller.Name(), key.hash(caller), keyLife
	n.RequestHash = digest(append([]string{string(n.Action), n.ClerkUserID, n.SubscriptionID, n.SessionID}, arguments...)...)
	op, isNew, err = d.Store.BeginOperation(ctx, n)
	if failure.CodeOf(err) == store.CommitUnknown {
		if op, isNew, err = d.beginAgain(ctx, n); err != nil {
			return &store.Operation{ //nolint:nilerr // the commit may have happened, so that nobody may be told that it failed
				ID: n.ID, RequestHash: n.RequestHash, Caller: n.Caller, Action: n.Action, ClerkUserID: n.ClerkUserID, Entity: n.Entity,
				SubscriptionID: n.SubscriptionID, SessionID: n.SessionID, Status: store.OperationAccepted,
			}, true, nil
		}
	}
	if err != nil {
		return nil, false, unavailable(err)
	}
	if string(op.RequestHash) != string(n.RequestHash) {
		return nil, false, refuse(KeyReused, "idempotency_key_reused", "This Idempotency-Key was used for another request.")
	}
	return op, isNew, nil
}

// beginAgain begins an operation that may have been begun, until the database says how it stands or
// the caller's patience is over. Whether the caller is still there is of no matter: what was
// committed will be done.
func (d *Desk) beginAgain(ctx context.Context, n store.NewOperation) (op *store.Operation, isNew bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.Wait)
	defer cancel()
	for {
		if op, isNew, err = d.Store.BeginOperation(ctx, n); err == nil {
			return op, isNew, nil
		}
		select {
		case <-time.After(lastLook):
		case <-ctx.Done():
			return nil, false, err
		}
	}
}

// notAccepted is the code of a refusal of what was not accepted, so that nothing was done.
const notAccepted = "not_accepted"

// unavailable is the answer to a failure of our own database.
func unavailable(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w (%w)", refuse(Unavailable, notAccepted, "The request could not be taken; try again."), err)
}

// upstream is the answer to a provider's failure.
func upstream(err error) error {
	r := refuse(Upstream, "provider_refused", "The provider refused the request.")
	if failure.Of(err) != failure.Permanent {
		r = refuse(Unavailable, "provider_unavailable", "The provider does not answer; try again.")
	}
	return fmt.Errorf("%w (%w)", r, err)
}

// The pauses between two looks at an operation whose end is waited for.
const (
	firstLook = 25 * time.Millisecond
	lastLook  = 400 * time.Millisecond
)

// await looks at an operation until it has ended, until done says that looking further is of no
// use, or until the caller's patience is over, and answers it as it was last seen: it was
// committed, so that it goes on whether or not the database can be asked how it stands.
func (d *Desk) await(ctx context.Context, op *store.Operation, first time.Duration, done <-chan struct{}) (*store.Operation, error) {
	pause, last := first, false
	for !op.Status.Settled() {
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-done:
			done, last = nil, true
		case <-ctx.Done():
			last = true
		}
		timer.Stop()
		pause = min(2*pause, lastLook)
		// The caller's patience does not bound the last look.
		looking, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		seen, err := d.Store.Operation(looking, op.ID)
		cancel()
		switch {
		case err != nil && ctx.Err() != nil:
			d.Logger.WarnContext(ctx, "an operation goes on, and how it stands cannot be read", "operation", "await", "operation_id", op.ID,
				"error_class", string(failure.Of(err)), "error", err.Error())
			return op, nil //nolint:nilerr // it is logged, and the operation as it was last seen is no failure
		case err != nil:
			continue // the database may be back before the patience is over
		case seen == nil:
			return nil, refuse(NotFound, "operation_not_found", "There is no such operation.")
		}
		if op = seen; last {
			break
		}
	}
	return op, nil
}

// Operation answers an operation of the caller's, or any for an admin.
func (d *Desk) Operation(ctx context.Context, caller Caller, id string) (*store.Operation, error) {
	if !store.ValidOperationID(id) {
		return nil, operationNotFound()
	}
	op, err := d.Store.Operation(ctx, id)
	if err != nil {
		return nil, unavailable(err)
	}
	if op == nil || op.ClerkUserID != caller.UserID && !caller.Admin {
		return nil, operationNotFound()
	}
	return op, nil
}
