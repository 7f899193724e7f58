package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// RecordCharges stores what Stripe would collect of a customer of a user who is being deleted, or
// is, as a read has listed it. What is not listed any more is not pending any more. Both are
// audited.
func (t *Tx) RecordCharges(ctx context.Context, u *User, customerID string, pending []account.PendingCharge) error {
	stored, err := chargesOf(ctx, t.tx, customerID)
	if err != nil {
		return err
	}
	is := map[string]bool{}
	for _, p := range pending {
		is[p.ID] = true
	}
	was := map[string]bool{}
	for _, p := range stored {
		was[p.ID] = true
		if !is[p.ID] {
			if err := t.chargeGone(ctx, u, customerID, p, "pending_charge.gone"); err != nil {
				return err
			}
		}
	}
	for _, p := range pending {
		if was[p.ID] {
			continue
		}
		if err := t.tx.Later(ctx, "store a pending charge", `INSERT INTO pending_charges (stripe_id, stripe_customer_id, kind, amount) VALUES ($1, $2, $3, $4)
			ON CONFLICT (stripe_id) DO UPDATE SET stripe_customer_id = excluded.stripe_customer_id`, p.ID, customerID, string(p.Kind), p.Amount); err != nil {
			return err
		}
		if err := t.Audit(ctx, Entry{Action: "pending_charge.found", User: u, Entity: account.CustomerEntity(customerID), Subject: p.ID,
			After: map[string]any{"kind": p.Kind, "amount": p.Amount}}); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tx) chargeGone(ctx context.Context, u *User, customerID string, p account.PendingCharge, action string) error {
	if err := t.tx.Later(ctx, "forget a pending charge", `DELETE FROM pending_charges WHERE stripe_id = $1`, p.ID); err != nil {
		return err
	}
	return t.Audit(ctx, Entry{Action: action, User: u, Entity: account.CustomerEntity(customerID), Subject: p.ID, Before: map[string]any{"kind": p.Kind, "amount": p.Amount}})
}

// ChargeStopped records that Stripe was asked not to collect something of a customer, and does not.
func (s *Store) ChargeStopped(ctx context.Context, customerID string, p account.PendingCharge, why Cause) error {
	return s.Update(ctx, "record a stopped charge", why, func(ctx context.Context, tx *Tx) error {
		user, _, err := tx.LockCustomer(ctx, customerID)
		if err != nil {
			return err
		}
		return tx.chargeGone(ctx, user, customerID, p, "pending_charge.stopped")
	})
}

// ChargesOf lists what is stored of what Stripe would collect of a customer: what is billed before
// what is credited for it, so that no more than a credit is left where not all of it can be taken
// away.
func (s *Store) ChargesOf(ctx context.Context, customerID string) ([]account.PendingCharge, error) {
	return chargesOf(ctx, s.pool, customerID)
}

func chargesOf(ctx context.Context, q querier, customerID string) ([]account.PendingCharge, error) {
	rows, _ := q.Query(ctx, `SELECT stripe_id, kind, amount FROM pending_charges WHERE stripe_customer_id = $1 ORDER BY amount DESC, stripe_id`, customerID)
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[account.PendingCharge])
	return list, classify("list pending charges", err)
}
