package stripechanges

import (
	"context"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeapi"
)

// Ledger stores the generations of idempotency keys, for all attempts, processes and copies.
type Ledger interface {
	// StripeRequest notes that Stripe is about to be asked under a key, and answers the present
	// generation.
	StripeRequest(ctx context.Context, key string) (store.StripeRequest, error)
	// NextStripeRequest leaves a generation behind and answers the one that follows it.
	NextStripeRequest(ctx context.Context, r store.StripeRequest) (store.StripeRequest, error)
}

// change is one change at Stripe, to be made once however often it is tried.
type change[T any] struct {
	// key is the same in each attempt at this change, and that of no other.
	key string
	// ask asks Stripe under a generation of the key. replayed tells that the answer is a stored one.
	ask func(ctx context.Context, idempotencyKey string) (answer T, replayed bool, err error)
	// find looks whether the change has been made, since is before the first request of the present
	// generation. An error ends the attempt: a change that is not wanted any more, now that somebody
	// else has made another, is one.
	find func(ctx context.Context, since time.Time) (answer T, found bool, err error)
	// still looks whether what a stored answer shows is of use now. Nil where it is in any case.
	still func(ctx context.Context, stored T) (now T, of bool, err error)
}

// mostGenerations is how many generations one attempt goes through.
const mostGenerations = 3

// once makes a change, or finds that it is made. before tells that it was made by an earlier
// attempt, and that the answer may show how it stood then.
//
// Stripe stores the answer to a POST under its key for about a day, a failure as well as a success,
// and answers nothing else under the key in that time. Such a failure says nothing of what was
// done: the object may be there. So what is true is read, and only if the change is not made it is
// asked for under another generation of the key. The same goes for a key that was used with other
// parameters, of whose outcome nothing is known, and for a key that Stripe may have forgotten. In
// the ordinary case nothing is asked besides.
func once[T any](ctx context.Context, ledger Ledger, c change[T]) (answer T, before bool, err error) {
	var none T
	request, err := ledger.StripeRequest(ctx, c.key)
	if err != nil {
		return none, false, err
	}
	for range mostGenerations {
		unknown := request.Old
		if !unknown {
			answer, replayed, err := c.ask(ctx, request.IdempotencyKey())
			unknown = stripeapi.KeySpent(err)
			switch {
			case unknown:
			case err != nil || !replayed || c.still == nil:
				return answer, replayed, err
			default:
				if answer, of, err := c.still(ctx, answer); err != nil || of {
					return answer, true, err
				}
			}
		}
		if unknown {
			if answer, found, err := c.find(ctx, request.Since); err != nil || found {
				return answer, found, err
			}
		}
		if request, err = ledger.NextStripeRequest(ctx, request); err != nil {
			return none, false, err
		}
	}
	return none, false, failure.New(failure.Transient, "stripe", "make a change once", "stored_failures", nil)
}
