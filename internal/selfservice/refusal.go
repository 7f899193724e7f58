package selfservice

import (
	"fmt"
	"time"
)

// Kind says what a refusal means to the caller.
type Kind int

// The kinds of refusals.
const (
	// Invalid: the request itself is wrong, and would be for everybody.
	Invalid Kind = iota + 1
	// Unauthenticated: nobody knows who asks.
	Unauthenticated
	// Forbidden: the caller may not ask for this.
	Forbidden
	// NotFound: there is no such thing, or it is somebody else's.
	NotFound
	// Conflict: the state does not allow it now.
	Conflict
	// KeyReused: the idempotency key was used for another request.
	KeyReused
	// Upstream: a provider refuses it, or does not answer.
	Upstream
	// Unavailable: it cannot be taken now; nothing was done.
	Unavailable
)

// Refusal is an answer that is no. Its code is stable; its detail is our own text.
type Refusal struct {
	Kind   Kind
	Code   string
	Detail string
	// SubscriptionID is the subscription that the answer is about, and EndsAt when it is set to end;
	// "" and zero for none.
	SubscriptionID string
	EndsAt         time.Time
}

// Error implements error.
func (r *Refusal) Error() string { return fmt.Sprintf("%s: %s", r.Code, r.Detail) }

func refuse(kind Kind, code, detail string) error {
	return &Refusal{Kind: kind, Code: code, Detail: detail}
}

// NotAuthenticated is the refusal of a token that is not a valid one; reason is a word of our own.
func NotAuthenticated(reason string) error {
	return refuse(Unauthenticated, "token_invalid", "The session token is not valid: "+reason+".")
}

// NotKnownYet is the refusal of a token that cannot be judged now.
func NotKnownYet(err error) error {
	return fmt.Errorf("%w (%w)", refuse(Unavailable, "not_accepted", "The session token cannot be checked now; try again."), err)
}

func userNotFound() error {
	return refuse(NotFound, "user_not_found", "There is no such user.")
}

func subscriptionNotFound() error {
	return refuse(NotFound, "subscription_not_found", "You have no subscription of this id.")
}

func operationNotFound() error {
	return refuse(NotFound, "operation_not_found", "You have no operation of this id.")
}
