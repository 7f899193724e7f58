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
	OpenCheckoutSessions(ctx context.Context, customerID string) ([]account.CheckoutSession, error)
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
	// Origins are where people may be sent back to from Stripe; none for anywhere.
	Origins []string
	// TrustClientReference is [account.Evidence.TrustReferences].
	TrustClientReference bool
	Logger               *slog.Logger
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

// begin commits a request as an operation, or finds the one that the same key began.
func (d *Desk) begin(ctx context.Context, caller Caller, key Key, n store.NewOperation, arguments ...string) (op *store.Operation, isNew bool, err error) {
	n.Caller, n.KeyHash, n.Lifetime = caller.Name(), key.hash(caller), keyLife
	n.RequestHash = digest(append([]string{string(n.Action), n.ClerkUserID, n.SubscriptionID, n.SessionID}, arguments...)...)
	op, isNew, err = d.Store.BeginOperation(ctx, n)
	if err != nil {
		return nil, false, unavailable(err)
	}
	if string(op.RequestHash) != string(n.RequestHash) {
		return nil, false, refuse(KeyReused, "idempotency_key_reused", "This Idempotency-Key was used for another request.")
	}
	return op, isNew, nil
}

// unavailable is the answer to a failure of our own database.
func unavailable(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w (%w)", refuse(Unavailable, "not_accepted", "The request could not be taken; try again."), err)
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
// use, or until the caller's patience is over, and answers it as it was last seen.
func (d *Desk) await(ctx context.Context, op *store.Operation, first time.Duration, done <-chan struct{}) (*store.Operation, error) {
	pause := first
	for !op.Status.Settled() {
		timer := time.NewTimer(pause)
		over := false
		select {
		case <-timer.C:
		case <-done:
			over = true
		case <-ctx.Done():
			over = true
		}
		timer.Stop()
		pause = min(2*pause, lastLook)
		// The caller's patience does not bound the last look.
		looking, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		seen, err := d.Store.Operation(looking, op.ID)
		cancel()
		switch {
		case err != nil && over:
			return nil, unavailable(err)
		case err != nil:
			continue // the database may be back before the patience is over
		case seen == nil:
			return nil, refuse(NotFound, "operation_not_found", "There is no such operation.")
		}
		if op = seen; over {
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
