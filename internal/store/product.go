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

// namedCustomer is the customer that a row of subscriptions names, "" where it names none: the
// product need not have noted it, or may have put something else there.
const namedCustomer = `CASE WHEN stripe_customer_id ~ '` + account.CustomerIDPattern + `' THEN stripe_customer_id ELSE '' END`

// unplaced is the condition on a row s of subscriptions that it names no customer, and that Stripe
// may tell which one it is: it was not asked yet, or did not have the subscription, which may show
// later and grants something meanwhile.
const unplaced = `(s.stripe_customer_id ~ '` + account.CustomerIDPattern + `') IS NOT TRUE
	AND (s.missing_since IS NULL OR s.status NOT IN ('canceled', 'incomplete_expired') AND s.stripe_subscription_id ~ '` + account.SubscriptionIDPattern + `')`

// UnplacedSubscriptions lists the subscriptions that the product has noted of a user without their
// customer, or with what is none, and of which Stripe may tell it. By the customer everything else
// goes: whose it is, who reads it and what stops it.
func (s *Store) UnplacedSubscriptions(ctx context.Context, u *User) ([]string, error) {
	rows, _ := s.pool.Query(ctx, `SELECT s.stripe_subscription_id FROM subscriptions s WHERE s.user_id = $1 AND `+unplaced+` ORDER BY 1`, u.ID)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return ids, classify("list subscriptions without a customer", err)
}

// Place notes which customer's some subscriptions are, as Stripe has just shown it, in those rows
// that name none or another: a subscription's customer never changes, so that Stripe is right in
// any case. With that the row is evidence of whose the customer is, as if the product had written
// it. Nothing else of the row is touched.
func (t *Tx) Place(ctx context.Context, customerID string, subscriptions ...string) error {
	return t.tx.Later(ctx, "note a subscription's customer", `WITH wrong AS MATERIALIZED (SELECT s.id, s.stripe_customer_id AS was, u.id AS user_id, u.clerk_user_id
			FROM subscriptions s JOIN person_user u ON u.id = s.user_id
			WHERE s.stripe_subscription_id = ANY($2) AND s.stripe_customer_id IS DISTINCT FROM $1 ORDER BY s.stripe_subscription_id FOR UPDATE OF s),
		placed AS (UPDATE subscriptions s SET stripe_customer_id = $1, missing_since = NULL FROM wrong w WHERE s.id = w.id
			RETURNING s.stripe_subscription_id AS id, w.was, w.user_id, w.clerk_user_id),
		found AS (DELETE FROM missing_objects m USING placed p WHERE m.stripe_id = p.id),
		resolved AS (UPDATE drift d SET resolved_at = now() FROM placed p WHERE d.entity IN ('user/' || p.clerk_user_id, 'customer/' || p.was)
			AND d.class = $3 AND d.subject = p.id AND d.resolved_at IS NULL)
		INSERT INTO audit_log (action, user_id, clerk_user_id, entity, subject, before, after, event_ids, caller, operation_id, workflow_id, run_id)
		SELECT 'subscription.placed', p.user_id, p.clerk_user_id, 'customer/' || $1, p.id, jsonb_build_object('stripe_customer_id', p.was), jsonb_build_object('stripe_customer_id', $1::text),
			'{}', nullif($4, ''), nullif($5, ''), nullif($6, ''), nullif($7, '') FROM placed p`,
		customerID, subscriptions, string(account.DriftSubscriptionMissing), t.why.Caller, t.why.OperationID, t.why.WorkflowID, t.why.RunID)
}

// Place is [Tx.Place] in a transaction of its own, which has the customer looked at.
func (s *Store) Place(ctx context.Context, customerID, subscriptionID string, why Cause) error {
	return s.Update(ctx, "note a subscription's customer", why, func(ctx context.Context, tx *Tx) error {
		if err := tx.Place(ctx, customerID, subscriptionID); err != nil {
			return err
		}
		return tx.Poke(ctx, account.JobSync, account.CustomerEntity(customerID))
	})
}
