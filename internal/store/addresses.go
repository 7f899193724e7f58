package store

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// addressMark is what is kept of an address on a tombstone: a hash under the database's own key,
// the same for every way in which the address is written. It is no secret to whoever has the key
// too: see docs/decisions/address-marks.md.
func addressMark(address string) string {
	return `(SELECT sha256(substr(i.address_key, 33) || sha256(substr(i.address_key, 1, 32) || convert_to(lower(trim(` + address + `)), 'UTF8')))
		FROM provider_identity i)`
}

// hadAddress is the condition that a deleted user had verified an address that nobody has verified
// who is there: who is goes before, since a new account with it is the likely owner of what is
// bought with it from then on.
func hadAddress(userID, address string) string {
	return `(EXISTS (SELECT FROM tombstone_addresses a WHERE a.user_id = ` + userID + ` AND a.mark = ` + addressMark(address) + `)
		AND NOT EXISTS (SELECT FROM person_user l WHERE lower(l.email) = lower(trim(` + address + `)) AND l.email IS NOT NULL
			AND l.email_verified AND l.deletion_requested_at IS NULL))`
}

// pageLasts is for how long a page to pay at stays open at Stripe: a customer who is made later
// than that was made by nobody who was deleted before.
const pageLasts = "24 hours"

// KeepAddresses keeps the marks of addresses that a user who is being deleted, or is, has verified
// as their primary one: of the one that is stored, and of those that are given, as Clerk has told
// of them. The customers that have one of them belong to the user, if nothing better says whose
// they are, also after the addresses were erased. Nothing but the marks is kept.
func (t *Tx) KeepAddresses(ctx context.Context, u *User, verified []string) error {
	if u.EmailVerified {
		verified = append([]string{deref(u.Email)}, verified...)
	}
	var kept []string
	for _, address := range verified {
		if strings.TrimSpace(address) != "" {
			kept = append(kept, fit(address))
		}
	}
	if len(kept) == 0 {
		return nil
	}
	return t.tx.Later(ctx, "keep the marks of addresses", `INSERT INTO tombstone_addresses (mark, user_id)
		SELECT `+addressMark("address")+`, $1 FROM unnest($2::text[]) AS kept (address) ON CONFLICT DO NOTHING`, u.ID, kept)
}

// ByAddress is whose a customer is by its address alone.
type ByAddress struct {
	// ClerkUserID is "" where it is nobody's by it.
	ClerkUserID string
	// Tombstone is set for a deleted user.
	Tombstone bool
	// Seen is how long ago the customer was first seen here, and Made how long ago it was made at
	// Stripe, zero where that is not known.
	Seen, Made time.Duration
}

// UserByCustomerEmail answers the one user whose verified primary email an unclaimed customer has,
// and nobody where there is none or more than one. Where nobody has it who is there, it is a
// deleted user who had it, and whom the customer may be of: it was made while they were there, or
// at a page that they may have left open. Of several the first who was deleted since, who was there
// when it was made.
func (t *Tx) UserByCustomerEmail(ctx context.Context, customerID string) (ByAddress, error) {
	return userByCustomerEmail(ctx, t.tx, customerID)
}

// UserByCustomerEmail is [Tx.UserByCustomerEmail] outside of a transaction.
func (s *Store) UserByCustomerEmail(ctx context.Context, customerID string) (ByAddress, error) {
	return userByCustomerEmail(ctx, s.pool, customerID)
}

// agesOf are the columns that say how long ago a customer was seen, and made.
const agesOf = `now() - c.first_seen_at AS seen, coalesce(now() - c.stripe_created_at, interval '0') AS made`

func userByCustomerEmail(ctx context.Context, q querier, customerID string) (ByAddress, error) {
	rows, _ := q.Query(ctx, `SELECT u.clerk_user_id, false AS tombstone, `+agesOf+` FROM stripe_customers c
			CROSS JOIN person_user u WHERE c.stripe_customer_id = $1 AND lower(u.email) =
				(SELECT lower(email) FROM stripe_customers WHERE stripe_customer_id = $1 AND NOT deleted_in_stripe AND email <> '')
			AND u.email IS NOT NULL AND u.email_verified AND u.deletion_requested_at IS NULL LIMIT 2`, customerID)
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ByAddress])
	if err == nil && len(found) == 0 {
		rows, _ = q.Query(ctx, `SELECT u.clerk_user_id, true AS tombstone, `+agesOf+` FROM stripe_customers c
				JOIN tombstone_addresses a ON a.mark = `+addressMark("c.email")+` JOIN person_user u ON u.id = a.user_id
			WHERE c.stripe_customer_id = $1 AND NOT c.deleted_in_stripe AND c.email <> ''
				AND c.stripe_created_at < u.deletion_requested_at + interval '`+pageLasts+`'
			ORDER BY u.deletion_requested_at LIMIT 1`, customerID)
		found, err = pgx.CollectRows(rows, pgx.RowToStructByPos[ByAddress])
	}
	if err != nil || len(found) != 1 {
		return ByAddress{}, classify("look for a user by email", err)
	}
	return found[0], nil
}

// UsersByAddress is [Store.UserByCustomerEmail] for customers as Stripe has just shown them, all at
// once: whose each is by its address, and nothing for those that are nobody's by it.
func (s *Store) UsersByAddress(ctx context.Context, customers []account.Customer) (map[string]string, error) {
	var ids, addresses []string
	var made []*time.Time
	for _, c := range customers {
		if address := strings.TrimSpace(c.Email); address != "" && !c.Deleted {
			ids, addresses, made = append(ids, c.ID), append(addresses, fit(address)), append(made, nullTime(c.Created))
		}
	}
	users := map[string]string{}
	if len(ids) == 0 {
		return users, nil
	}
	rows, _ := s.pool.Query(ctx, `SELECT c.id, coalesce(here.ids[1], gone.clerk_user_id) FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS c (id, email, made)
		CROSS JOIN LATERAL (SELECT array(SELECT clerk_user_id FROM person_user WHERE lower(email) = lower(c.email) AND email IS NOT NULL
			AND email_verified AND deletion_requested_at IS NULL LIMIT 2) AS ids) here
		LEFT JOIN LATERAL (SELECT u.clerk_user_id FROM tombstone_addresses a JOIN person_user u ON u.id = a.user_id
			WHERE cardinality(here.ids) = 0 AND a.mark = `+addressMark("c.email")+` AND c.made < u.deletion_requested_at + interval '`+pageLasts+`'
			ORDER BY u.deletion_requested_at LIMIT 1) gone ON true
		WHERE cardinality(here.ids) = 1 OR gone.clerk_user_id IS NOT NULL`, ids, addresses, made)
	var id, user string
	_, err := pgx.ForEachRow(rows, []any{&id, &user}, func() error {
		users[id] = user
		return nil
	})
	return users, classify("look for users by address", err)
}
