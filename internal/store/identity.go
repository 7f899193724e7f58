package store

import (
	"context"
	"errors"
	"fmt"
)

// Identity is which accounts the database belongs to; empty fields are not known yet.
type Identity struct {
	StripeAccountID string
	StripeLivemode  *bool
	ClerkInstanceID string
}

// ErrOtherAccount says that the database belongs to another account than the key at hand. A
// program that meets it must not go on: it would mix two products.
var ErrOtherAccount = errors.New("the database belongs to another account")

// Identity reads which accounts the database belongs to.
func (s *Store) Identity(ctx context.Context) (Identity, error) {
	var id Identity
	err := s.pool.QueryRow(ctx, `SELECT coalesce(stripe_account_id, ''), stripe_livemode, coalesce(clerk_instance_id, '') FROM provider_identity`).
		Scan(&id.StripeAccountID, &id.StripeLivemode, &id.ClerkInstanceID)
	return id, classify("read the identity", err)
}

// BindStripe stores the Stripe account and its mode when they are first seen, and answers
// [ErrOtherAccount] if others are stored.
func (s *Store) BindStripe(ctx context.Context, accountID string, livemode bool) error {
	var account string
	var mode bool
	err := s.pool.QueryRow(ctx, `UPDATE provider_identity SET stripe_account_id = coalesce(stripe_account_id, $1),
		stripe_livemode = coalesce(stripe_livemode, $2) RETURNING stripe_account_id, stripe_livemode`, accountID, livemode).Scan(&account, &mode)
	if err != nil {
		return classify("bind the Stripe account", err)
	}
	if account != accountID || mode != livemode {
		return fmt.Errorf("%w: STRIPE_SECRET_KEY is of account %s (live: %t), DATABASE_URL holds the data of %s (live: %t); use the key of that account or an empty database",
			ErrOtherAccount, accountID, livemode, account, mode)
	}
	return nil
}

// BindClerk stores the Clerk instance when it is first seen, and answers [ErrOtherAccount] if
// another is stored.
func (s *Store) BindClerk(ctx context.Context, instanceID string) error {
	var bound string
	err := s.pool.QueryRow(ctx, `UPDATE provider_identity SET clerk_instance_id = coalesce(clerk_instance_id, $1) RETURNING clerk_instance_id`, instanceID).Scan(&bound)
	if err != nil {
		return classify("bind the Clerk instance", err)
	}
	if bound != instanceID {
		return fmt.Errorf("%w: CLERK_SECRET_KEY is of instance %s, DATABASE_URL holds the data of %s; use the key of that instance or an empty database",
			ErrOtherAccount, instanceID, bound)
	}
	return nil
}
