package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// Customer is a row of stripe_customers.
type Customer struct {
	ID              string     `db:"stripe_customer_id"`
	UserID          *string    `db:"user_id"`
	LinkSource      *string    `db:"link_source"`
	ReadSeq         int64      `db:"read_seq"`
	Email           *string    `db:"email"`
	Name            *string    `db:"name"`
	ProfileVersion  int64      `db:"profile_version"`
	CreatedAt       *time.Time `db:"stripe_created_at"`
	DeletedInStripe bool       `db:"deleted_in_stripe"`
	// MissingSince is since when Stripe has answered 404 for it, nil where it knows it.
	MissingSince *time.Time `db:"missing_since"`
	// SchedulesReadSeq is the number of the last read that listed the customer's schedules too. Only
	// those of a user who is being deleted do.
	SchedulesReadSeq int64 `db:"schedules_read_seq"`
	// WholeSeq is the number of the last read that showed all of the customer: ReadSeq, unless the
	// last read could not.
	WholeSeq int64 `db:"whole_seq"`
	// MadeInVainFor is the user whom the customer was made for in vain, nil once it is kept. It stays
	// on one that was removed: whoever read it before that does not link it.
	MadeInVainFor *string `db:"made_in_vain_for"`
}

// Exists tells whether the customer is at Stripe, as far as we were shown: neither deleted nor
// missing.
func (c Customer) Exists() bool { return !c.DeletedInStripe && c.MissingSince == nil }

// ProfileForgotten tells whether the customer is to be given its user's profile again, although it
// was given this version before: somebody has overwritten it at Stripe.
func (c Customer) ProfileForgotten() bool { return c.ProfileVersion < 0 }

const customerColumns = `stripe_customer_id, user_id, link_source, read_seq, email, name, profile_version, stripe_created_at, deleted_in_stripe, missing_since, coalesce(schedules_read_seq, 0) AS schedules_read_seq, coalesce(whole_read_seq, read_seq) AS whole_seq, made_in_vain_for`

// errLinkMoved says that a customer got another user between reading the link and locking the
// rows. The transaction starts again.
var errLinkMoved = errors.New("the customer's link moved")

// LockCustomer locks a customer's user, where it has one, and then the customer itself, making
// its row if there is none. user is nil for a customer that nobody owns yet.
func (t *Tx) LockCustomer(ctx context.Context, customerID string) (user *User, customer *Customer, err error) {
	linked, err := t.link(ctx, customerID)
	if err != nil {
		return nil, nil, err
	}
	if linked != "" {
		if user, err = t.LockUserByID(ctx, linked); err != nil {
			return nil, nil, err
		}
	}
	customer, err = t.lockCustomerRow(ctx, customerID)
	if err != nil {
		return nil, nil, err
	}
	if deref(customer.UserID) != linked {
		return nil, nil, errLinkMoved
	}
	return user, customer, nil
}

// LockCustomerFor locks a user's row and then a customer that may become theirs. The link may
// be anything; the caller looks at it.
func (t *Tx) LockCustomerFor(ctx context.Context, clerkUserID, customerID string) (user *User, customer *Customer, err error) {
	if user, err = t.LockUser(ctx, clerkUserID); err != nil || user == nil {
		return nil, nil, err
	}
	customer, err = t.lockCustomerRow(ctx, customerID)
	return user, customer, err
}

func (t *Tx) link(ctx context.Context, customerID string) (userID string, err error) {
	err = t.tx.QueryRow(ctx, `SELECT coalesce(user_id::text, '') FROM stripe_customers WHERE stripe_customer_id = $1`, customerID).Scan(&userID)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	return userID, classify("read a customer's link", err)
}

func (t *Tx) lockCustomerRow(ctx context.Context, customerID string) (*Customer, error) {
	if err := t.tx.Later(ctx, "create a customer's row", `INSERT INTO stripe_customers (stripe_customer_id) VALUES ($1) ON CONFLICT DO NOTHING`, customerID); err != nil {
		return nil, err
	}
	rows, _ := t.tx.Query(ctx, `SELECT `+customerColumns+` FROM stripe_customers WHERE stripe_customer_id = $1 FOR UPDATE`, customerID)
	c, err := pgx.CollectOneRow(rows, pgx.RowToAddrOfStructByName[Customer])
	return c, classify("lock a customer", err)
}

// SetCustomer stores what a read of Stripe showed of a customer and the number of that read. Stripe
// does not bring back who was deleted, so that a read which shows the customer as it was before
// does not either. personal is false where no personal data may be stored, because the owner is
// being deleted.
func (t *Tx) SetCustomer(ctx context.Context, c *Customer, seen account.Customer, read int64, personal bool) error {
	if !personal {
		seen.Email, seen.Name = "", ""
	}
	c.ReadSeq, c.WholeSeq, c.DeletedInStripe, c.MissingSince = read, read, c.DeletedInStripe || seen.Deleted, nil
	return t.tx.Later(ctx, "store a customer", `UPDATE stripe_customers SET read_seq = $2, whole_read_seq = NULL,
		email = CASE WHEN $6 THEN email ELSE nullif($3, '') END, name = CASE WHEN $6 THEN name ELSE nullif($4, '') END,
		stripe_created_at = coalesce($5, stripe_created_at), deleted_in_stripe = deleted_in_stripe OR $6,
		missing_since = NULL, missing_read_at = NULL
		WHERE stripe_customer_id = $1`, c.ID, read, fit(seen.Email), fit(seen.Name), nullTime(seen.Created), seen.Deleted)
}

// ReadInPart notes that the read which has just been stored did not show all, and which one was the
// last that did. What it has left out is as that one showed it: nothing is concluded from the
// number of this one.
func (t *Tx) ReadInPart(ctx context.Context, c *Customer, whole int64) error {
	c.WholeSeq = whole
	return t.tx.Later(ctx, "note that a customer was read in part", `UPDATE stripe_customers SET whole_read_seq = $2 WHERE stripe_customer_id = $1`, c.ID, whole)
}

// SetMissing stores that Stripe does not know a customer, as a read says that began at a moment by
// the database's clock, zero where that is not known. Whatever else is stored of it stays.
func (t *Tx) SetMissing(ctx context.Context, c *Customer, began time.Time) error {
	if c.MissingSince == nil {
		c.MissingSince = new(time.Now())
	}
	return t.tx.Later(ctx, "store that a customer is missing", `UPDATE stripe_customers SET missing_since = coalesce(missing_since, now()),
		missing_read_at = greatest(missing_read_at, $2) WHERE stripe_customer_id = $1`, c.ID, nullTime(began))
}

// SetDeleted stores that a customer is deleted at Stripe, whatever else is read of it meanwhile.
func (t *Tx) SetDeleted(ctx context.Context, customerID string) error {
	return t.tx.Later(ctx, "store that a customer is deleted", `UPDATE stripe_customers SET deleted_in_stripe = true WHERE stripe_customer_id = $1`, customerID)
}

// NoteGone records that a read of this number showed a user's customer to be deleted at Stripe or,
// unless deleted is set, to be missing there, and gives the user another primary customer, or none.
// Their own syncs see to the rest. One that nobody owns and that the evidence says is the user's is
// linked to them, so that it is kept whose it was.
func (s *Store) NoteGone(ctx context.Context, clerkUserID, customerID string, read int64, deleted bool, policy account.AccessPolicy) error {
	return s.Update(ctx, "note that a customer is gone", Cause{}, func(ctx context.Context, tx *Tx) error {
		user, customer, err := tx.LockCustomerFor(ctx, clerkUserID, customerID)
		if err != nil || user == nil {
			return err
		}
		if err := tx.Reading(ctx, read, customer.ReadSeq); err != nil {
			return err
		}
		switch {
		case deleted: // which nothing takes back
			customer.DeletedInStripe = true
			err = tx.SetDeleted(ctx, customerID)
		case read > customer.ReadSeq:
			if err = tx.SetMissing(ctx, customer, time.Time{}); err == nil {
				err = tx.NoteDrift(ctx, account.CustomerEntity(customerID), account.DriftCustomerMissing, customerID)
			}
		}
		if err != nil {
			return err
		}
		if customer.UserID == nil && !customer.Exists() {
			evidence, err := tx.EvidenceOn(ctx, customerID)
			if err != nil {
				return err
			}
			if owner := account.Claimant(evidence); owner.ClerkUserID == clerkUserID {
				if err := tx.Link(ctx, user, customer, owner.Source, 0, nil); err != nil {
					return err
				}
			}
		}
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		if _, err := tx.Reproject(ctx, user, policy, now, nil); err != nil {
			return err
		}
		return tx.Poke(ctx, account.JobSync, account.CustomerEntity(customerID), account.UserEntity(clerkUserID))
	})
}

// Link makes a customer a user's. Both rows are locked by the caller, and the customer has no
// user. The profile that the customer was last given is forgotten, so that it is given the
// user's, and what was open about its having no user is closed.
func (t *Tx) Link(ctx context.Context, u *User, c *Customer, source string, profileVersion int64, eventIDs []string) error {
	if err := t.tx.Later(ctx, "link a customer", `UPDATE stripe_customers SET user_id = $2, link_source = $3, linked_at = now(), profile_version = $4,
		stripe_created_at = coalesce(stripe_created_at, now()) WHERE stripe_customer_id = $1 AND user_id IS NULL`, c.ID, u.ID, source, profileVersion); err != nil {
		return err
	}
	c.UserID, c.LinkSource = &u.ID, &source
	if err := t.resolveUnowned(ctx, c.ID); err != nil {
		return err
	}
	return t.Audit(ctx, Entry{Action: "customer.linked", User: u, Entity: account.CustomerEntity(c.ID), Subject: c.ID,
		After: map[string]any{"source": source}, EventIDs: eventIDs})
}

// MadeInVain keeps that a customer was made for a user and must not stay, in the transaction that
// finds out: whoever was about to undo it may be gone. "" for the user says that it is kept for
// good.
func (t *Tx) MadeInVain(ctx context.Context, customerID, clerkUserID string) error {
	if clerkUserID == "" {
		return t.tx.Later(ctx, "forget a customer made in vain", `UPDATE stripe_customers SET made_in_vain_for = NULL WHERE stripe_customer_id = $1 AND made_in_vain_for IS NOT NULL`, customerID)
	}
	return t.tx.Later(ctx, "note a customer made in vain", `INSERT INTO stripe_customers (stripe_customer_id, made_in_vain_for) VALUES ($1, $2)
		ON CONFLICT (stripe_customer_id) DO UPDATE SET made_in_vain_for = excluded.made_in_vain_for`, customerID, clerkUserID)
}

// MadeInVain answers a customer that was made for a user in vain and is not undone yet, "" where
// there is none.
func (s *Store) MadeInVain(ctx context.Context, clerkUserID string) (customerID string, err error) {
	err = s.pool.QueryRow(ctx, `SELECT stripe_customer_id FROM stripe_customers WHERE made_in_vain_for = $1 AND NOT deleted_in_stripe ORDER BY 1 LIMIT 1`, clerkUserID).Scan(&customerID)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	return customerID, classify("look for a customer made in vain", err)
}

// SetCustomerProfile notes that a customer was given the user's profile of this version.
func (t *Tx) SetCustomerProfile(ctx context.Context, c *Customer, email, name string, version int64) error {
	return t.tx.Later(ctx, "note a customer's profile", `UPDATE stripe_customers SET profile_version = greatest(profile_version, $2),
		email = coalesce(nullif($3, ''), email), name = coalesce(nullif($4, ''), name) WHERE stripe_customer_id = $1`, c.ID, version, fit(email), fit(name))
}

// CustomersOf lists a user's customers from the oldest to the newest.
func (t *Tx) CustomersOf(ctx context.Context, u *User) ([]Customer, error) {
	return customersOf(ctx, t.tx, u.ID)
}

// CustomersOf lists a user's customers from the oldest to the newest.
func (s *Store) CustomersOf(ctx context.Context, u *User) ([]Customer, error) {
	return customersOf(ctx, s.pool, u.ID)
}

func customersOf(ctx context.Context, q querier, userID string) ([]Customer, error) {
	rows, _ := q.Query(ctx, `SELECT `+customerColumns+` FROM stripe_customers WHERE user_id = $1
		ORDER BY stripe_created_at NULLS LAST, stripe_customer_id`, userID)
	customers, err := pgx.CollectRows(rows, pgx.RowToStructByName[Customer])
	return customers, classify("list a user's customers", err)
}

// querier is what a pool and a transaction have in common.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// executor is a querier that writes too.
type executor interface {
	querier
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// nullTime is a time for a column, nil for zero. It is in UTC, because columns without a zone
// keep what the clock shows.
func nullTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// SetHint keeps which customer a user's own notes point at; "" forgets what they pointed at before.
func (t *Tx) SetHint(ctx context.Context, u *User, customerID string) error {
	if customerID == "" {
		return t.tx.Later(ctx, "forget a hint", `DELETE FROM customer_hints WHERE user_id = $1`, u.ID)
	}
	return t.tx.Later(ctx, "keep a hint", `INSERT INTO customer_hints AS h (user_id, stripe_customer_id) VALUES ($1, $2)
		ON CONFLICT (user_id) DO UPDATE SET stripe_customer_id = excluded.stripe_customer_id WHERE h.stripe_customer_id <> excluded.stripe_customer_id`, u.ID, customerID)
}

// Hint answers which customer a user's own notes point at, "" where they point at none.
func (s *Store) Hint(ctx context.Context, u *User) (customerID string, err error) {
	err = s.pool.QueryRow(ctx, `SELECT stripe_customer_id FROM customer_hints WHERE user_id = $1`, u.ID).Scan(&customerID)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	return customerID, classify("look for a hint", err)
}

// ToldLately tells whether Stripe has said within so long that it has a customer: a read or its
// creation has shown that it was made then, it was noted then that it was made in vain, or an event
// about it has come. A read that does not find it may be behind that.
func (s *Store) ToldLately(ctx context.Context, customerID string, within time.Duration) (told bool, err error) {
	err = s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM stripe_customers WHERE stripe_customer_id = $1 AND NOT deleted_in_stripe
			AND CASE WHEN made_in_vain_for IS NOT NULL THEN first_seen_at WHEN read_seq > 0 THEN stripe_created_at END > now() - $3::interval)
		OR EXISTS (SELECT FROM webhook_events WHERE entity = $2 AND source = 'stripe' AND type <> 'customer.deleted' AND received_at > now() - $3::interval)`,
		customerID, string(account.CustomerEntity(customerID)), within).Scan(&told)
	return told, classify("look when a customer was told of", err)
}

// OwnerOfCustomer answers the Clerk id of the user who owns a customer, "" where nobody does.
func (s *Store) OwnerOfCustomer(ctx context.Context, customerID string) (clerkUserID string, err error) {
	err = s.pool.QueryRow(ctx, `SELECT u.clerk_user_id FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE c.stripe_customer_id = $1`, customerID).
		Scan(&clerkUserID)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	return clerkUserID, classify("look for a customer's owner", err)
}
