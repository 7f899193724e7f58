package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// RecordPayment stores a fact about money, or what a later event adds to it. told is when the
// event was made. Facts may come in any order, and more than once, and end the same: amounts paid
// and refunded only grow, what says how things stand follows the most final status, of several
// equally final ones the latest told, and what only some events name is kept once it is known.
func (t *Tx) RecordPayment(ctx context.Context, p account.Payment, eventID string, told time.Time) error {
	return t.tx.Later(ctx, "record a payment", `INSERT INTO payments AS p (id, kind, stripe_customer_id, stripe_subscription_id, stripe_invoice_id, payment_intent_id,
			charge_id, status, status_rank, reason, amount, amount_paid, amount_refunded, currency, attempts, occurred_at, paid_at, event_id, told_at, charge_told_at)
		VALUES ($1,$2,nullif($3,''),nullif($4,''),nullif($5,''),nullif($6,''),nullif($7,''),$8,$9,nullif($10,''),$11,$12,$13,$14,$15,$16,$17,$18,$19,$19)
		ON CONFLICT (id) DO UPDATE SET
			stripe_customer_id = coalesce(p.stripe_customer_id, excluded.stripe_customer_id),
			stripe_subscription_id = coalesce(p.stripe_subscription_id, excluded.stripe_subscription_id),
			stripe_invoice_id = coalesce(p.stripe_invoice_id, excluded.stripe_invoice_id),
			payment_intent_id = coalesce(p.payment_intent_id, excluded.payment_intent_id),
			charge_id = CASE WHEN `+laterCharge+` THEN excluded.charge_id ELSE p.charge_id END,
			charge_told_at = CASE WHEN `+laterCharge+` THEN excluded.charge_told_at ELSE p.charge_told_at END,
			status = CASE WHEN `+laterStatus+` THEN excluded.status ELSE p.status END,
			status_rank = greatest(p.status_rank, excluded.status_rank),
			reason = CASE WHEN `+laterStatus+` THEN excluded.reason ELSE p.reason END,
			amount = CASE WHEN `+laterStatus+` THEN excluded.amount ELSE p.amount END,
			currency = CASE WHEN `+laterStatus+` THEN excluded.currency ELSE p.currency END,
			event_id = CASE WHEN `+laterStatus+` THEN excluded.event_id ELSE p.event_id END,
			told_at = CASE WHEN `+laterStatus+` THEN excluded.told_at ELSE p.told_at END,
			amount_paid = greatest(p.amount_paid, excluded.amount_paid),
			amount_refunded = greatest(p.amount_refunded, excluded.amount_refunded),
			attempts = greatest(p.attempts, excluded.attempts),
			occurred_at = least(p.occurred_at, excluded.occurred_at),
			paid_at = least(p.paid_at, excluded.paid_at),
			updated_at = now()
		WHERE `+laterStatus+` OR `+laterCharge+`
		   OR (p.amount_paid, p.amount_refunded, p.attempts, p.occurred_at, p.paid_at,
		       p.stripe_customer_id, p.stripe_subscription_id, p.stripe_invoice_id, p.payment_intent_id) IS DISTINCT FROM
		      (greatest(p.amount_paid, excluded.amount_paid), greatest(p.amount_refunded, excluded.amount_refunded), greatest(p.attempts, excluded.attempts),
		       least(p.occurred_at, excluded.occurred_at), least(p.paid_at, excluded.paid_at),
		       coalesce(p.stripe_customer_id, excluded.stripe_customer_id), coalesce(p.stripe_subscription_id, excluded.stripe_subscription_id),
		       coalesce(p.stripe_invoice_id, excluded.stripe_invoice_id), coalesce(p.payment_intent_id, excluded.payment_intent_id))`,
		p.ID, string(p.Kind), p.CustomerID, p.SubscriptionID, p.InvoiceID, p.IntentID, p.ChargeID, p.Status, p.Rank(), p.Reason,
		p.Amount, p.AmountPaid, p.AmountRefunded, p.Currency, p.Attempts, nullTime(p.Created), nullTime(p.PaidAt), eventID, told.UTC())
}

// Two events are never equally late: their ids decide between those of one second.
const (
	laterStatus = `(excluded.status_rank, excluded.told_at, excluded.event_id) > (p.status_rank, p.told_at, p.event_id)`
	// A payment that is tried again has another charge, and payloads of newer API versions name none.
	laterCharge = `(excluded.charge_id IS NOT NULL AND (p.charge_id IS NULL OR (excluded.charge_told_at, excluded.charge_id) > (p.charge_told_at, p.charge_id)))`
)

// CustomerOfCharge answers the customer of the payment that we recorded for a charge, or "".
func (s *Store) CustomerOfCharge(ctx context.Context, chargeID string) (string, error) {
	var customerID string
	err := s.pool.QueryRow(ctx, `SELECT stripe_customer_id FROM payments WHERE charge_id = $1 AND stripe_customer_id IS NOT NULL LIMIT 1`, chargeID).Scan(&customerID)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	return customerID, classify("look a charge up", err)
}
