package store

import (
	"context"
	"strings"
	"time"

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

// upsertClaims stores evidence in one order, so that two transactions do not wait for each other;
// of two claims in one place the later counts. What is known already is not touched.
const upsertClaims = `INSERT INTO customer_claims AS known (stripe_customer_id, clerk_user_id, source, event_id)
	SELECT DISTINCT ON (customer, place) customer, clerk_user, place, nullif(event_id, '') FROM claims
	WHERE NOT EXISTS (SELECT FROM customer_claims k WHERE k.stripe_customer_id = customer AND k.source = place AND k.clerk_user_id = clerk_user)
	ORDER BY customer, place, n DESC
	ON CONFLICT (stripe_customer_id, source) DO UPDATE SET clerk_user_id = excluded.clerk_user_id, event_id = excluded.event_id, claimed_at = now()
	WHERE known.clerk_user_id <> excluded.clerk_user_id`

// missingFor is for how long it counts that Clerk did not have a user: they may sign up, and nobody
// tell us. Once a customer is somebody's it counts until they do, as nobody asks for them any more.
const missingFor = "1 hour"

// EvidenceOn reads all that is known of whose a customer is. shown is what a read of the customer
// has just shown, which counts instead of what is stored of the same places.
func (t *Tx) EvidenceOn(ctx context.Context, customerID string, shown ...account.Claim) (account.Evidence, error) {
	return t.store.evidenceOn(ctx, t.tx, customerID, shown)
}

// EvidenceOn is [Tx.EvidenceOn] outside of a transaction.
func (s *Store) EvidenceOn(ctx context.Context, customerID string, shown ...account.Claim) (account.Evidence, error) {
	return s.evidenceOn(ctx, s.pool, customerID, shown)
}

func (s *Store) evidenceOn(ctx context.Context, q querier, customerID string, shown []account.Claim) (account.Evidence, error) {
	all, err := s.evidence(ctx, q, "", []string{customerID}, map[string][]account.Claim{customerID: shown})
	return all[customerID].Evidence, err
}

// evidenceOf is the evidence about one customer, and which of the users whom it names are known, or
// were shown by Clerk in a comparison.
type evidenceOf struct {
	account.Evidence
	here map[string]bool
}

// evidence reads what is known of whose customers are, for all of them at once.
func (s *Store) evidence(ctx context.Context, q querier, run string, customers []string, shown map[string][]account.Claim) (map[string]evidenceOf, error) {
	all := make(map[string]evidenceOf, len(customers))
	for _, id := range customers {
		all[id] = evidenceOf{account.Evidence{Users: map[string]account.ClaimedUser{}, TrustReferences: s.trustReferences}, map[string]bool{}}
	}
	var owners, users, sources []string
	for _, claims := range shown {
		for _, c := range claims {
			owners, users, sources = append(owners, c.CustomerID), append(users, c.ClerkUserID), append(sources, c.Source)
		}
	}
	rows, _ := q.Query(ctx, `WITH shown AS (SELECT * FROM unnest($2::text[], $3::text[], $4::text[]) AS s (customer, clerk_user, source)),
		named AS (SELECT * FROM shown UNION ALL SELECT stripe_customer_id, clerk_user_id, source FROM customer_claims
			WHERE stripe_customer_id = ANY($1) AND (stripe_customer_id, source) NOT IN (SELECT customer, source FROM shown)
			UNION ALL `+productClaims("p.stripe_customer_id = ANY($1)", "s.stripe_customer_id = ANY($1)")+`)
		SELECT n.customer, n.clerk_user, n.source, u.id IS NOT NULL, u.deletion_requested_at IS NOT NULL, u.id IS NULL AND m.clerk_user_id IS NOT NULL, coalesce(m.seen_at - m.first_seen_at, interval '0'),
			CASE WHEN u.email_verified AND u.deletion_requested_at IS NULL THEN coalesce(u.email, '') ELSE '' END,
			CASE WHEN u.deletion_requested_at IS NULL OR c.email IS NULL THEN false ELSE `+hadAddress("u.id", "c.email")+` END, coalesce(c.email, ''),
			u.id IS NOT NULL OR $5 <> '' AND EXISTS (SELECT FROM reconciliation_seen WHERE run_id = $5 AND kind = 'user' AND id = n.clerk_user)
		FROM named n LEFT JOIN stripe_customers c ON c.stripe_customer_id = n.customer AND NOT c.deleted_in_stripe
			LEFT JOIN person_user u ON u.clerk_user_id = n.clerk_user
			LEFT JOIN users_not_in_clerk m ON m.clerk_user_id = n.clerk_user AND (c.user_id IS NOT NULL OR m.seen_at > now() - interval '`+missingFor+`')
		ORDER BY n.customer, n.source`, customers, owners, users, sources, run)
	var c account.Claim
	var u account.ClaimedUser
	var email string
	var here bool
	_, err := pgx.ForEachRow(rows, []any{&c.CustomerID, &c.ClerkUserID, &c.Source, &u.Known, &u.Tombstone, &u.Missing, &u.MissingFor, &u.VerifiedEmail, &u.HadAddress, &email, &here}, func() error {
		e := all[c.CustomerID]
		e.Claims, e.CustomerEmail = append(e.Claims, c), email
		e.Users[c.ClerkUserID], e.here[c.ClerkUserID] = u, here
		all[c.CustomerID] = e
		return nil
	})
	return all, classify("read evidence", err)
}

// NoteNotInClerk keeps that Clerk does not have a user whom a claim names, and has those customers
// looked at that name somebody else too, or have the verified address of somebody, or of a deleted
// user: they may be somebody else's now. since is when Clerk was asked first, zero for just now.
func (t *Tx) NoteNotInClerk(ctx context.Context, clerkUserID string, since time.Time) error {
	rows, _ := t.tx.Query(ctx, `WITH noted AS (INSERT INTO users_not_in_clerk AS m (clerk_user_id, first_seen_at)
			SELECT $1::text, coalesce($2, now()) WHERE EXISTS (SELECT FROM customer_claims WHERE clerk_user_id = $1)
			ON CONFLICT (clerk_user_id) DO UPDATE SET seen_at = now(), first_seen_at = least(m.first_seen_at, excluded.first_seen_at))
		SELECT DISTINCT 'customer/' || cl.stripe_customer_id FROM customer_claims cl LEFT JOIN stripe_customers c USING (stripe_customer_id)
		WHERE cl.clerk_user_id = $1 AND c.user_id IS NULL
			AND (EXISTS (SELECT FROM customer_claims o WHERE o.stripe_customer_id = cl.stripe_customer_id AND o.clerk_user_id <> $1)
				OR EXISTS (SELECT FROM person_user p WHERE p.stripe_customer_id = cl.stripe_customer_id)
				OR EXISTS (SELECT FROM subscriptions s WHERE s.stripe_customer_id = cl.stripe_customer_id)
				OR EXISTS (SELECT FROM person_user u WHERE lower(u.email) = lower(c.email) AND u.email_verified AND u.deletion_requested_at IS NULL)
				OR EXISTS (SELECT FROM tombstone_addresses a WHERE a.mark = `+addressMark("c.email")+`))`, clerkUserID, nullTime(since))
	contested, err := pgx.CollectRows(rows, pgx.RowTo[account.Entity])
	if err != nil || len(contested) == 0 {
		return classify("note that Clerk does not have a user", err)
	}
	return t.Poke(ctx, account.JobSync, contested...)
}

// unlinkedClaimed selects the customers that no user owns and that may be the user's whose id at
// Clerk an expression is: those with evidence that names them, and those with a mere reference to
// them whose address they have verified, or had before they were deleted.
func (s *Store) unlinkedClaimed(clerkUserID string) string {
	const unlinked = `c.user_id IS NULL AND c.deleted_in_stripe IS NOT TRUE AND c.missing_since IS NULL`
	return `SELECT DISTINCT cl.stripe_customer_id FROM customer_claims cl
		LEFT JOIN stripe_customers c USING (stripe_customer_id)
		LEFT JOIN person_user claimed ON claimed.clerk_user_id = cl.clerk_user_id
		WHERE cl.clerk_user_id = ` + clerkUserID + ` AND ` + unlinked + `
			AND (split_part(cl.source, ':', 1) NOT IN ('` + strings.Join(account.UnverifiedPlaces(s.trustReferences), "', '") + `')
			OR claimed.email_verified AND lower(trim(claimed.email)) = lower(trim(c.email))
			OR EXISTS (SELECT FROM tombstone_addresses a WHERE a.user_id = claimed.id AND a.mark = ` + addressMark("c.email") + `))
		UNION SELECT n.id FROM (` + productClaims("p.clerk_user_id = "+clerkUserID, "p.clerk_user_id = "+clerkUserID) + `) n (id)
		LEFT JOIN stripe_customers c ON c.stripe_customer_id = n.id WHERE ` + unlinked
}

// UnlinkedClaimed lists the customers that no user owns and that may be this user's. Whether they
// are, all that is known of each decides, when it is looked at; by what is known now see
// [Store.ToLink].
func (s *Store) UnlinkedClaimed(ctx context.Context, clerkUserID string) ([]string, error) {
	return s.unlinked(ctx, s.pool, clerkUserID)
}

func (s *Store) unlinked(ctx context.Context, q querier, clerkUserID string) ([]string, error) {
	rows, _ := q.Query(ctx, s.unlinkedClaimed("$1")+` ORDER BY 1`, clerkUserID)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return ids, classify("look for claims", err)
}

// ToLink lists the customers that no user owns and that are a user's by all that is known of each:
// their own look is about to link them. One that waits for another user, or for a person, is none.
// As a rule a single statement finds that there are none.
func (s *Store) ToLink(ctx context.Context, clerkUserID string) ([]string, error) {
	return s.toLink(ctx, s.pool, clerkUserID)
}

func (s *Store) toLink(ctx context.Context, q querier, clerkUserID string) ([]string, error) {
	ids, err := s.unlinked(ctx, q, clerkUserID)
	if err != nil {
		return nil, err
	}
	return s.theirs(ctx, q, clerkUserID, ids)
}

// theirs answers those of some customers that are a user's by the evidence about each.
func (s *Store) theirs(ctx context.Context, q querier, clerkUserID string, ids []string) (theirs []string, err error) {
	if len(ids) == 0 {
		return nil, nil
	}
	known, err := s.evidence(ctx, q, "", ids, nil)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if account.Claimant(known[id].Evidence).ClerkUserID == clerkUserID {
			theirs = append(theirs, id)
		}
	}
	return theirs, nil
}

// UnlinkedByEmail lists the customers with this email that no user owns and about which there is no
// evidence, or none but of users whom Clerk did not have, however long ago: whoever looks at the
// customer has that asked again.
func (s *Store) UnlinkedByEmail(ctx context.Context, email string) ([]string, error) {
	if strings.TrimSpace(email) == "" {
		return nil, nil
	}
	rows, _ := s.pool.Query(ctx, `SELECT stripe_customer_id FROM stripe_customers c WHERE lower(email) = lower($1) AND user_id IS NULL
		AND NOT deleted_in_stripe AND missing_since IS NULL AND NOT EXISTS (SELECT FROM customer_claims cl WHERE cl.stripe_customer_id = c.stripe_customer_id
			AND split_part(cl.source, ':', 1) <> ALL($2)
			AND (EXISTS (SELECT FROM person_user u WHERE u.clerk_user_id = cl.clerk_user_id)
				OR NOT EXISTS (SELECT FROM users_not_in_clerk m WHERE m.clerk_user_id = cl.clerk_user_id)))
		AND NOT EXISTS (SELECT FROM person_user p WHERE p.stripe_customer_id = c.stripe_customer_id)
		AND NOT EXISTS (SELECT FROM subscriptions s WHERE s.stripe_customer_id = c.stripe_customer_id) ORDER BY 1`, email, account.UnverifiedPlaces(s.trustReferences))
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return ids, classify("look for customers by email", err)
}

// ErrNotConfirmed is why an operator's word about a customer is not taken. Its text says why.
type ErrNotConfirmed string

func (e ErrNotConfirmed) Error() string { return string(e) }

// ConfirmOwner keeps an operator's word that a customer is a user's, and has the customer looked
// at, which links it. It counts as what stands on a session does: what is written on the customer
// or a subscription at Stripe wins over it. A link that there is already stays; one to another user
// is an [ErrNotConfirmed], as is a customer or a user whom we do not know.
func (s *Store) ConfirmOwner(ctx context.Context, customerID, clerkUserID string, why Cause) error {
	var refused ErrNotConfirmed
	err := s.Update(ctx, "confirm a customer's owner", why, func(ctx context.Context, tx *Tx) error {
		refused = ""
		known, err := s.ownedCustomers(ctx, []string{customerID})
		if err != nil {
			return err
		}
		row, ok := known[customerID]
		if !ok {
			refused = "no customer of this id is known here"
			return nil
		}
		user, customer, err := tx.LockCustomerFor(ctx, clerkUserID, customerID)
		switch {
		case err != nil:
			return err
		case user == nil || user.Deleting():
			refused = "no user of this id is known here"
			return nil
		case customer.UserID != nil && *customer.UserID != user.ID:
			refused = ErrNotConfirmed("the customer is linked to " + deref(row.ClerkUserID) + " already; a link stays")
			return nil
		}
		claim := account.Claim{CustomerID: customerID, ClerkUserID: clerkUserID, Source: account.PlaceOperator + ":" + customerID}
		evidence, err := tx.EvidenceOn(ctx, customerID, claim)
		if err != nil {
			return err
		}
		if other, ok := evidence.Outvoted(clerkUserID); ok && customer.UserID == nil {
			remedy := "write clerk_user_id on the customer at Stripe"
			if account.OfProduct(other.Source) {
				remedy = "correct the product's own table"
			}
			refused = ErrNotConfirmed(other.Source + " names " + other.ClerkUserID + ": " + remedy)
			return nil
		}
		if err := tx.addClaims(ctx, []claimOf{{Claim: claim}}); err != nil {
			return err
		}
		entity := account.CustomerEntity(customerID)
		if err := tx.ResolveDrift(ctx, entity, account.DriftUnverifiedLink, ""); err != nil {
			return err
		}
		if err := tx.Audit(ctx, Entry{Action: "customer.confirmed", User: user, Entity: entity, Subject: customerID}); err != nil {
			return err
		}
		return tx.Poke(ctx, account.JobSync, entity)
	})
	if err == nil && refused != "" {
		return refused
	}
	return err
}

// claimOf is a claim with the event that made it.
type claimOf struct {
	account.Claim
	eventID string
}

// columnsOf are claims as the arrays that a statement takes them in: customers, users, places and
// events.
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

// AddClaim stores evidence that did not come with an event, and has the customer looked at, which
// links it. Both or neither: whoever finds the evidence later takes the look for granted. Where it
// is stored and the customer has an owner, nothing is left to do.
func (s *Store) AddClaim(ctx context.Context, claim account.Claim) error {
	var known bool
	if err := s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM customer_claims k JOIN stripe_customers c USING (stripe_customer_id)
		WHERE k.stripe_customer_id = $1 AND k.source = $2 AND k.clerk_user_id = $3 AND c.user_id IS NOT NULL)`,
		claim.CustomerID, claim.Source, claim.ClerkUserID).Scan(&known); err != nil || known {
		return classify("look for a claim", err)
	}
	return s.addClaim(ctx, claim, true)
}

// KeepClaim is [Store.AddClaim] for a caller that sees to the customer itself.
func (s *Store) KeepClaim(ctx context.Context, claim account.Claim) error {
	return s.addClaim(ctx, claim, false)
}

func (s *Store) addClaim(ctx context.Context, claim account.Claim, poke bool) error {
	return s.Update(ctx, "store a claim", Cause{}, func(ctx context.Context, tx *Tx) error {
		if err := tx.addClaims(ctx, []claimOf{{Claim: claim}}); err != nil || !poke {
			return err
		}
		return tx.Poke(ctx, account.JobSync, account.CustomerEntity(claim.CustomerID))
	})
}
