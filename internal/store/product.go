package store

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// A product that was there before us has noted in its own tables whose a customer is: in
// person_user, and in the subscriptions of a user. That is its server's word, and evidence as it
// stands at any time: nothing is copied, so that what the product writes later, by an older version
// of it that still runs, counts as well. What we write there ourselves names customers that are
// linked, and is no evidence.

// productClaims selects that evidence as customer, clerk_user and source, without what it says of
// owners. The conditions are on users p, and on subscriptions s of users p.
func productClaims(ofUsers, ofSubscriptions string) string {
	const form = ` ~ '` + account.CustomerIDPattern + `'`
	return `SELECT p.stripe_customer_id, p.clerk_user_id, '` + account.PlaceProduct + `:' || p.clerk_user_id FROM person_user p
		WHERE ` + ofUsers + ` AND p.stripe_customer_id` + form + ` AND NOT EXISTS (SELECT FROM stripe_customers o WHERE o.stripe_customer_id = p.stripe_customer_id AND o.user_id = p.id)
		UNION ALL SELECT s.stripe_customer_id, p.clerk_user_id, '` + account.PlaceProductSubscription + `:' || s.stripe_subscription_id FROM subscriptions s
		JOIN person_user p ON p.id = s.user_id WHERE ` + ofSubscriptions + ` AND s.stripe_customer_id` + form + `
			AND NOT EXISTS (SELECT FROM stripe_customers o WHERE o.stripe_customer_id = s.stripe_customer_id AND o.user_id = p.id)`
}

// toAdopt selects the customers that the product's own tables name for the user $1, who does not
// own them, and that are at Stripe as far as we were shown. Of subscriptions those count that can
// still change. taken is set where another user owns the customer.
const toAdopt = `SELECT n.id, c.user_id IS NOT NULL AS taken FROM (SELECT stripe_customer_id FROM person_user WHERE id = $1
			UNION SELECT stripe_customer_id FROM subscriptions WHERE user_id = $1 AND status NOT IN ('canceled', 'incomplete_expired')) n (id)
		LEFT JOIN stripe_customers c ON c.stripe_customer_id = n.id
		WHERE n.id ~ '` + account.CustomerIDPattern + `' AND c.user_id IS DISTINCT FROM $1
			AND (c.user_id IS NOT NULL OR NOT coalesce(c.deleted_in_stripe OR c.missing_since IS NOT NULL, false))`

// ToAdopt lists the customers that are not linked to a user yet and that the product's own tables
// name for them, or evidence on record as [Store.ToLink] has it. Until they are linked, or are
// found to be gone from Stripe, nothing is made for the user, nor sold to them.
func (s *Store) ToAdopt(ctx context.Context, u *User) ([]string, error) {
	rows, _ := s.pool.Query(ctx, `SELECT id, bool_or(noted) FROM (SELECT id, true FROM (`+toAdopt+`) a
			UNION ALL SELECT id, false FROM (`+s.unlinkedClaimed("$2")+`) b (id)) n (id, noted) GROUP BY id ORDER BY id`, u.ID, u.ClerkUserID)
	var ids, named []string
	var id string
	var noted bool
	_, err := pgx.ForEachRow(rows, []any{&id, &noted}, func() error {
		if noted {
			ids = append(ids, id)
		} else {
			named = append(named, id)
		}
		return nil
	})
	if err != nil {
		return nil, classify("look for customers to adopt", err)
	}
	theirs, err := s.theirs(ctx, s.pool, u.ClerkUserID, named)
	return append(ids, theirs...), err
}

// Undecided is a customer that the product's own table of users names for a user, and that is not
// linked to them: "" where there is none.
type Undecided struct {
	CustomerID string
	// Taken is set where another user owns the customer: the link stays, and a person has to correct
	// the table.
	Taken bool
}

// Undecided answers the customer that the product's own table names for a user and that none of
// their own customers is. One that is gone from Stripe, and nobody's, is none: the user may have
// another. As a rule nothing is asked for it.
func (t *Tx) Undecided(ctx context.Context, u *User, own []Customer) (Undecided, error) {
	return undecided(ctx, t.tx, u, own)
}

// Undecided is [Tx.Undecided] outside of a transaction.
func (s *Store) Undecided(ctx context.Context, u *User, own []Customer) (Undecided, error) {
	return undecided(ctx, s.pool, u, own)
}

func undecided(ctx context.Context, q querier, u *User, own []Customer) (Undecided, error) {
	named := deref(u.StripeCustomerID)
	if !account.ValidCustomerID(named) {
		return Undecided{}, nil
	}
	for _, c := range own {
		if c.ID == named {
			return Undecided{}, nil
		}
	}
	rows, _ := q.Query(ctx, `SELECT a.id, a.taken FROM (`+toAdopt+`) a WHERE a.id = $2`, u.ID, named)
	found, err := pgx.CollectOneRow(rows, pgx.RowToStructByPos[Undecided])
	if errors.Is(err, pgx.ErrNoRows) {
		return Undecided{}, nil
	}
	return found, classify("look for a customer to adopt", err)
}

// ResolveConflict closes the conflict about a customer that a user owns, unless the product's own
// table names it for another user.
func (t *Tx) ResolveConflict(ctx context.Context, owner *User, customerID string) error {
	return t.tx.Later(ctx, "resolve a conflict", `UPDATE drift SET resolved_at = now() WHERE entity = $1 AND class = $2 AND resolved_at IS NULL
		AND NOT EXISTS (SELECT FROM person_user WHERE stripe_customer_id = $3 AND id <> $4)`,
		string(account.CustomerEntity(customerID)), string(account.DriftConflictingClaims), customerID, owner.ID)
}
