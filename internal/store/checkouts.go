package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// CheckoutOpened notes which session an operation has opened, and that it is done.
func (s *Store) CheckoutOpened(ctx context.Context, id, sessionID string) error {
	return s.Update(ctx, "note an opened checkout", Cause{}, func(ctx context.Context, tx *Tx) error {
		o, err := tx.LockOperation(ctx, id)
		if err != nil || o == nil || o.Status == OperationDone && o.SessionID == sessionID {
			return err
		}
		if err := tx.tx.Later(ctx, "note an opened checkout", `UPDATE operations SET stripe_session_id = $2 WHERE id = $1`, id, sessionID); err != nil {
			return err
		}
		return tx.settle(ctx, o, OperationDone, "")
	})
}

// OpenedCheckouts lists the sessions that requests for a user have opened within so long, the
// latest first: Stripe's list of what is open may not show them yet.
func (s *Store) OpenedCheckouts(ctx context.Context, clerkUserID string, within time.Duration) (sessionIDs []string, err error) {
	rows, _ := s.pool.Query(ctx, `SELECT stripe_session_id FROM operations WHERE clerk_user_id = $1 AND action = 'checkout' AND status = 'done'
		AND settled_at > now() - $2::interval AND stripe_session_id IS NOT NULL ORDER BY settled_at DESC`, clerkUserID, within)
	sessionIDs, err = pgx.CollectRows(rows, pgx.RowTo[string])
	return sessionIDs, classify("list opened checkouts", err)
}

// RefuseCheckout ends an operation because of a subscription, "" where it is because of none, which
// is set to end like this.
func (s *Store) RefuseCheckout(ctx context.Context, id, reason, subscriptionID string, ending account.Ending) error {
	raw, err := json.Marshal(ending)
	if err != nil {
		return fmt.Errorf("encoding how a subscription ends: %w", err)
	}
	return s.Update(ctx, "refuse a checkout", Cause{}, func(ctx context.Context, tx *Tx) error {
		o, err := tx.LockOperation(ctx, id)
		if err != nil || o == nil {
			return err
		}
		o.SubscriptionID, o.BeforeJSON = subscriptionID, raw
		if err := tx.tx.Later(ctx, "refuse a checkout", `UPDATE operations SET stripe_subscription_id = nullif($2, ''), ending_before = $3 WHERE id = $1`,
			id, subscriptionID, raw); err != nil {
			return err
		}
		return tx.settle(ctx, o, OperationRefused, reason)
	})
}

// LeftCheckouts answers the request that held a user's lease and did not give it back, "" for none:
// its process has ended, or could not close what it had opened. due is set where checkouts may be
// open on a customer whose checkouts nobody could list for the user.
func (s *Store) LeftCheckouts(ctx context.Context, userID string) (holder string, due bool, err error) {
	err = s.pool.QueryRow(ctx, `SELECT coalesce((SELECT operation FROM checkout_leases WHERE user_id = $1 AND until < now()), ''),
		EXISTS (SELECT FROM stripe_customers WHERE user_id = $1 AND `+checkoutsDue+`)`, userID).Scan(&holder, &due)
	return holder, due, classify("look for checkouts that were left", err)
}

// checkoutsDue holds of a customer on whom checkouts may be open, of a user who is being deleted,
// or is. One that Stripe does not have is left alone until it is there again.
const checkoutsDue = `checkouts_due AND missing_since IS NULL`

// CheckoutsDue notes that checkouts may be open on a customer which has come to a user who is being
// deleted, or is, or has come back, and has them closed: nobody has listed them for that user.
func (t *Tx) CheckoutsDue(ctx context.Context, u *User, customerID string) error {
	if err := t.tx.Later(ctx, "note that checkouts may be open", `UPDATE stripe_customers SET checkouts_due = true WHERE stripe_customer_id = $1`, customerID); err != nil {
		return err
	}
	return t.Poke(ctx, account.JobOffboard, account.UserEntity(u.ClerkUserID))
}

// CheckoutsListed forgets that, once what was open on these customers is closed.
func (s *Store) CheckoutsListed(ctx context.Context, customerIDs []string) error {
	_, err := s.pool.Exec(ctx, `UPDATE stripe_customers SET checkouts_due = false WHERE stripe_customer_id = ANY($1) AND checkouts_due`, customerIDs)
	return classify("note that no checkouts are open", err)
}

// CheckoutsNotListed notes of customers that what is open of them has to be closed once more: Stripe
// said that it does not have them, or something could not be closed.
func (s *Store) CheckoutsNotListed(ctx context.Context, customerIDs []string) error {
	_, err := s.pool.Exec(ctx, `UPDATE stripe_customers SET checkouts_due = true WHERE stripe_customer_id = ANY($1) AND NOT checkouts_due`, customerIDs)
	return classify("note that checkouts may be open", err)
}

// checkoutsPause is how long the sweep leaves a user with open checkouts to whoever has poked them.
const checkoutsPause = time.Minute

// sweepCheckouts has the workflows of users who are being deleted, or are, close what a request may
// have left open.
func (t *Tx) sweepCheckouts(ctx context.Context, limit int, jobs map[account.Entity]account.Job) error {
	rows, _ := t.tx.Query(ctx, `SELECT u.clerk_user_id FROM person_user u JOIN (SELECT user_id FROM checkout_leases WHERE until < now()
			UNION SELECT user_id FROM stripe_customers WHERE `+checkoutsDue+`) AS left_open ON left_open.user_id = u.id
		WHERE u.deletion_requested_at IS NOT NULL AND NOT EXISTS (SELECT FROM pokes p WHERE p.entity = 'user/' || u.clerk_user_id
			AND (p.due_at IS NOT NULL OR p.poked_at > now() - $2::interval)) LIMIT $1`, limit, checkoutsPause)
	users, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return classify("sweep checkouts", err)
	}
	for _, id := range users {
		jobs[account.UserEntity(id)] = account.JobOffboard
	}
	return nil
}

// LeaseCheckout takes a user's lease for opening a checkout, or answers false while another request
// has it. A lease that the same request takes again is extended.
func (s *Store) LeaseCheckout(ctx context.Context, userID, holder string, lease time.Duration) (bool, error) {
	tag, err := s.pool.Exec(ctx, `INSERT INTO checkout_leases AS l (user_id, operation, until) VALUES ($1, $2, now() + $3::interval)
		ON CONFLICT (user_id) DO UPDATE SET operation = excluded.operation, until = excluded.until
		WHERE l.until < now() OR l.operation = excluded.operation`, userID, holder, lease)
	return tag.RowsAffected() == 1, classify("lease a checkout", err)
}

// ReleaseCheckout gives a lease back.
func (s *Store) ReleaseCheckout(ctx context.Context, userID, holder string) error {
	_, err := s.pool.Exec(ctx, `DELETE FROM checkout_leases WHERE user_id = $1 AND operation = $2`, userID, holder)
	return classify("release a checkout", err)
}
