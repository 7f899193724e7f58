package store

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// SetClaims stores the evidence that a read of a customer showed, and forgets what stood where
// that read shows nothing any more. Evidence from checkout sessions stays: sessions are not read.
func (t *Tx) SetClaims(ctx context.Context, customerID string, claims []account.Claim) error {
	kept, found := make([]string, 0, len(claims)), make([]claimOf, 0, len(claims))
	for _, c := range claims {
		kept, found = append(kept, c.Source), append(found, claimOf{Claim: c})
	}
	if err := t.addClaims(ctx, found); err != nil {
		return err
	}
	return t.tx.Later(ctx, "forget claims", `DELETE FROM customer_claims WHERE stripe_customer_id = $1 AND NOT source = ANY($2)
		AND (source LIKE 'customer:%' OR source LIKE 'subscription:%')`, customerID, kept)
}

// upsertClaims stores evidence in one order, so that two transactions do not wait for each other; of two claims in one
// place the later counts. What is known already is not touched.
const upsertClaims = `INSERT INTO customer_claims AS known (stripe_customer_id, clerk_user_id, source, event_id)
	SELECT DISTINCT ON (customer, place) customer, clerk_user, place, nullif(event_id, '') FROM claims
	WHERE NOT EXISTS (SELECT FROM customer_claims k WHERE k.stripe_customer_id = customer AND k.source = place AND k.clerk_user_id = clerk_user)
	ORDER BY customer, place, n DESC
	ON CONFLICT (stripe_customer_id, source) DO UPDATE SET clerk_user_id = excluded.clerk_user_id, event_id = excluded.event_id, claimed_at = now()
	WHERE known.clerk_user_id <> excluded.clerk_user_id`

// ClaimsOn lists the evidence about a customer.
func (t *Tx) ClaimsOn(ctx context.Context, customerID string) ([]account.Claim, error) {
	return claimsOn(ctx, t.tx, customerID)
}

// ClaimsOn lists the evidence about a customer.
func (s *Store) ClaimsOn(ctx context.Context, customerID string) ([]account.Claim, error) {
	return claimsOn(ctx, s.pool, customerID)
}

func claimsOn(ctx context.Context, q querier, customerID string) ([]account.Claim, error) {
	rows, _ := q.Query(ctx, `SELECT stripe_customer_id, clerk_user_id, source FROM customer_claims WHERE stripe_customer_id = $1 ORDER BY source`, customerID)
	claims, err := pgx.CollectRows(rows, pgx.RowToStructByPos[account.Claim])
	return claims, classify("read claims", err)
}

// UnlinkedClaimed lists the customers that somebody claims for this user and that no user owns.
func (s *Store) UnlinkedClaimed(ctx context.Context, clerkUserID string) ([]string, error) {
	rows, _ := s.pool.Query(ctx, `SELECT DISTINCT cl.stripe_customer_id FROM customer_claims cl
		LEFT JOIN stripe_customers c USING (stripe_customer_id)
		WHERE cl.clerk_user_id = $1 AND c.user_id IS NULL ORDER BY 1`, clerkUserID)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return ids, classify("look for claims", err)
}

// UnlinkedByEmail lists the customers with this email that no user owns and that nobody claims.
func (s *Store) UnlinkedByEmail(ctx context.Context, email string) ([]string, error) {
	if strings.TrimSpace(email) == "" {
		return nil, nil
	}
	rows, _ := s.pool.Query(ctx, `SELECT stripe_customer_id FROM stripe_customers c WHERE lower(email) = lower($1) AND user_id IS NULL
		AND NOT deleted_in_stripe AND NOT EXISTS (SELECT FROM customer_claims cl WHERE cl.stripe_customer_id = c.stripe_customer_id) ORDER BY 1`, email)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return ids, classify("look for customers by email", err)
}

// UserByCustomerEmail answers the one user whose verified primary email an unclaimed customer
// has, or "" where there is none or more than one.
func (t *Tx) UserByCustomerEmail(ctx context.Context, customerID string) (clerkUserID string, err error) {
	rows, _ := t.tx.Query(ctx, `SELECT clerk_user_id FROM person_user WHERE lower(email) =
			(SELECT lower(email) FROM stripe_customers WHERE stripe_customer_id = $1 AND NOT deleted_in_stripe AND email <> '')
		AND email IS NOT NULL AND email_verified AND deletion_requested_at IS NULL LIMIT 2`, customerID)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(ids) != 1 {
		return "", classify("look for a user by email", err)
	}
	return ids[0], nil
}

// claimOf is a claim with the event that made it.
type claimOf struct {
	account.Claim
	eventID string
}

// columnsOf are claims as the arrays that a statement takes them in: customers, users, places and events.
func columnsOf(claims []claimOf) []any {
	n := len(claims)
	customers, users, places, events := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	for i, c := range claims {
		customers[i], users[i], places[i], events[i] = c.CustomerID, c.ClerkUserID, c.Source, c.eventID
	}
	return []any{customers, users, places, events}
}

func (t *Tx) addClaims(ctx context.Context, claims []claimOf) error {
	if len(claims) == 0 {
		return nil
	}
	return t.tx.Later(ctx, "store claims", `WITH claims AS (SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
		WITH ORDINALITY AS c (customer, clerk_user, place, event_id, n)) `+upsertClaims, columnsOf(claims)...)
}

// AddClaim stores evidence that did not come with an event.
func (s *Store) AddClaim(ctx context.Context, claim account.Claim) error {
	return s.Update(ctx, "store a claim", Cause{}, func(ctx context.Context, tx *Tx) error {
		return tx.addClaims(ctx, []claimOf{{Claim: claim}})
	})
}
