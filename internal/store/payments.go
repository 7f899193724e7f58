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
// only grow, what says how things stand follows the most final status, of several
// equally final ones the latest told, and what only some events name is kept once it is known.
//
// What was refunded of a charge is what its latest event told, and what its refunds have told
// since: one that fails takes its amount back.
func (t *Tx) RecordPayment(ctx context.Context, p account.Payment, eventID string, told time.Time) error {
	status, rank := p.Status, p.Rank()
	var refunded *int64
	var refundedTold *time.Time
	if p.Kind == account.PaymentCharge {
		if status == "refunded" || status == "partially_refunded" {
			// Stripe's own word, which the refunds are applied to.
			status, rank = "succeeded", account.Payment{Kind: p.Kind, Status: "succeeded"}.Rank()
		}
		refunded, refundedTold = &p.AmountRefunded, nullTime(told)
	}
	if err := t.tx.Later(ctx, "record a payment", `INSERT INTO payments AS p (id, kind, stripe_customer_id, stripe_subscription_id, stripe_invoice_id, payment_intent_id,
		charge_id, status, status_rank, reason, amount, amount_paid, currency, attempts, occurred_at, paid_at, event_id, told_at, charge_told_at,
		due_at, finalized_at, first_failed_at, first_failed_attempt, refunded_told, refunded_told_at)
	VALUES ($1,$2,nullif($3,''),nullif($4,''),nullif($5,''),nullif($6,''),nullif($7,''),$8,$9,nullif($10,''),$11,$12,$13,$14,$15,$16,$17,$18,$18,$19,$20,$21,CASE WHEN $21::timestamptz IS NOT NULL THEN $14::bigint END,$22,$23)
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
		attempts = greatest(p.attempts, excluded.attempts),
		occurred_at = least(p.occurred_at, excluded.occurred_at),
		paid_at = least(p.paid_at, excluded.paid_at),
		due_at = greatest(p.due_at, excluded.due_at),
		finalized_at = least(p.finalized_at, excluded.finalized_at),
		first_failed_at = least(p.first_failed_at, excluded.first_failed_at),
		first_failed_attempt = CASE WHEN excluded.first_failed_at >= p.first_failed_at THEN p.first_failed_attempt
			WHEN excluded.first_failed_at IS NOT NULL THEN excluded.first_failed_attempt ELSE p.first_failed_attempt END,
		refunded_told = CASE WHEN `+laterRefunded+` THEN excluded.refunded_told ELSE p.refunded_told END,
		refunded_told_at = greatest(p.refunded_told_at, excluded.refunded_told_at),
		updated_at = now()
	WHERE `+laterStatus+` OR `+laterCharge+` OR `+laterRefunded+`
	   OR (p.amount_paid, p.attempts, p.occurred_at, p.paid_at, p.due_at, p.finalized_at, p.first_failed_at,
	       p.stripe_customer_id, p.stripe_subscription_id, p.stripe_invoice_id, p.payment_intent_id) IS DISTINCT FROM
	      (greatest(p.amount_paid, excluded.amount_paid), greatest(p.attempts, excluded.attempts),
	       least(p.occurred_at, excluded.occurred_at), least(p.paid_at, excluded.paid_at), greatest(p.due_at, excluded.due_at),
	       least(p.finalized_at, excluded.finalized_at), least(p.first_failed_at, excluded.first_failed_at),
	       coalesce(p.stripe_customer_id, excluded.stripe_customer_id), coalesce(p.stripe_subscription_id, excluded.stripe_subscription_id),
	       coalesce(p.stripe_invoice_id, excluded.stripe_invoice_id), coalesce(p.payment_intent_id, excluded.payment_intent_id))`,
		p.ID, string(p.Kind), p.CustomerID, p.SubscriptionID, p.InvoiceID, p.IntentID, p.ChargeID, status, rank, p.Reason,
		p.Amount, p.AmountPaid, p.Currency, p.Attempts, nullTime(p.Created), nullTime(p.PaidAt), eventID, told.UTC(),
		nullTime(p.DueAt), nullTime(p.FinalizedAt), nullTime(p.FailedAt), refunded, refundedTold); err != nil {
		return err
	}
	if p.Kind != account.PaymentCharge && p.Kind != account.PaymentRefund {
		return nil
	}
	return t.applyRefunds(ctx, p.ChargeID, p.IntentID)
}

// applyRefunds makes what was refunded of a charge, or of that of an intent, what is known of it by
// now. The charge's event tells the sum of its moment. What failed since is taken off it, what
// began since is added; and of one second, which has no order, what was refunded from it on counts
// at least.
func (t *Tx) applyRefunds(ctx context.Context, chargeID, intentID string) error {
	return t.tx.Later(ctx, "apply refunds", `UPDATE payments c SET amount_refunded = n.refunded, updated_at = now(),
		status = CASE WHEN n.refunded <= 0 THEN 'succeeded' WHEN n.refunded < c.amount THEN 'partially_refunded' ELSE 'refunded' END
	FROM (SELECT c.id, greatest(0, coalesce(c.refunded_told, 0)
				- coalesce(sum(r.amount) FILTER (WHERE failed AND r.first_failed_at >= c.refunded_told_at AND r.occurred_at <= c.refunded_told_at), 0)
				+ coalesce(sum(r.amount) FILTER (WHERE NOT failed AND r.occurred_at > c.refunded_told_at), 0),
			coalesce(sum(r.amount) FILTER (WHERE NOT failed AND r.occurred_at >= c.refunded_told_at), 0))::bigint AS refunded
		FROM payments c LEFT JOIN (SELECT *, status IN ('failed', 'canceled') AS failed FROM payments WHERE kind = 'refund'
				AND (charge_id = nullif($1::text, '') OR payment_intent_id = nullif($2::text, ''))) r
			ON r.charge_id = c.id OR r.charge_id IS NULL AND r.payment_intent_id = c.payment_intent_id
		WHERE c.kind = 'charge' AND c.status_rank = 3 AND (c.id = nullif($1::text, '') OR c.payment_intent_id = nullif($2::text, '')) GROUP BY c.id) n
	WHERE c.id = n.id AND (c.amount_refunded IS DISTINCT FROM n.refunded
		OR c.status IS DISTINCT FROM CASE WHEN n.refunded <= 0 THEN 'succeeded' WHEN n.refunded < c.amount THEN 'partially_refunded' ELSE 'refunded' END)`, chargeID, intentID)
}

// Two events are never equally late: their ids decide between those of one second.
const (
	laterStatus = `(excluded.status_rank, excluded.told_at, excluded.event_id) > (p.status_rank, p.told_at, p.event_id)`
	// A payment that is tried again has another charge, and payloads of newer API versions name none.
	laterCharge = `(excluded.charge_id IS NOT NULL AND (p.charge_id IS NULL OR (excluded.charge_told_at, excluded.charge_id) > (p.charge_told_at, p.charge_id)))`
	// Of one second the larger sum holds: refunds of parts follow each other.
	laterRefunded = `(excluded.refunded_told_at IS NOT NULL AND (p.refunded_told_at IS NULL OR (excluded.refunded_told_at, excluded.refunded_told) > (p.refunded_told_at, p.refunded_told)))`
)

// CustomerOfCharge answers the customer of the payment that we recorded for a charge, or for a
// payment intent, or "".
func (s *Store) CustomerOfCharge(ctx context.Context, id string) (string, error) {
	var customerID string
	err := s.pool.QueryRow(ctx, `SELECT stripe_customer_id FROM payments WHERE (charge_id = $1 OR payment_intent_id = $1)
		AND stripe_customer_id IS NOT NULL LIMIT 1`, id).Scan(&customerID)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	return customerID, classify("look a charge up", err)
}

// OwedUnknown answers which of a customer's past_due subscriptions owe we do not know since when:
// neither was it stored before, unless for an invoice that is paid by now, nor does a row of an
// open invoice of this delinquency say it. See [account.PastDueSince]. Where an event of a payment
// is to be taken by a read of this number, it may end what was known.
func (s *Store) OwedUnknown(ctx context.Context, entity account.Entity, number int64, subscriptionIDs []string) ([]string, error) {
	rows, _ := s.pool.Query(ctx, `SELECT owing.sub FROM unnest($1::text[]) AS owing (sub)
		WHERE NOT EXISTS (SELECT FROM subscriptions WHERE stripe_subscription_id = owing.sub AND status = 'past_due' AND past_due_since IS NOT NULL
				AND (past_due_invoice IS NOT NULL OR items IS NOT NULL)
				AND NOT EXISTS (SELECT FROM payments WHERE kind = 'invoice' AND id = past_due_invoice AND status = 'paid'))
		AND NOT EXISTS (SELECT FROM payments WHERE kind = 'invoice' AND stripe_subscription_id = owing.sub AND status = 'open' AND occurred_at > `+lastPaid("owing.sub")+`)
		OR EXISTS (SELECT FROM webhook_events WHERE entity = $2 AND status IN ('pending', 'failing', 'waiting') AND seq < $3 AND type IN ('invoice.paid', 'invoice.payment_succeeded'))`,
		subscriptionIDs, string(entity), number)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return ids, classify("look for what is owed", err)
}

// PendingInvoices answers the payloads of an entity's events about invoices that a read of this
// number is to take.
func (s *Store) PendingInvoices(ctx context.Context, entity account.Entity, number int64) ([]string, error) {
	rows, _ := s.pool.Query(ctx, `SELECT payload FROM webhook_events WHERE entity = $1 AND status IN ('pending', 'failing', 'waiting')
		AND seq < $2 AND type LIKE 'invoice.%' AND payload IS NOT NULL`, string(entity), number)
	payloads, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return payloads, classify("look for events of invoices", err)
}

// mostOfBilling bounds how many events are looked through for what bills a customer.
const mostOfBilling = 200

// PendingOfBilling answers the payloads of a customer's events that have not ended and may name a
// subscription or a schedule, the latest first; of very many, the latest.
func (s *Store) PendingOfBilling(ctx context.Context, entity account.Entity) ([]string, error) {
	rows, _ := s.pool.Query(ctx, `SELECT payload FROM webhook_events WHERE entity = $1 AND status IN ('pending', 'failing', 'waiting') AND payload IS NOT NULL
		AND (type LIKE 'customer.subscription.%' OR type LIKE 'subscription\_schedule.%' OR type LIKE 'invoice.%' OR type LIKE 'checkout.session.%')
		ORDER BY seq DESC LIMIT $2`, string(entity), mostOfBilling)
	payloads, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return payloads, classify("look for events of what bills", err)
}

// lastPaid is when the last paid invoice of a subscription was made.
func lastPaid(id string) string {
	return `coalesce((SELECT max(paid.occurred_at) FROM payments paid WHERE paid.kind = 'invoice' AND paid.status = 'paid' AND paid.stripe_subscription_id = ` + id + `), '-infinity')`
}

// Owed answers what was found of a past_due subscription before, and what decides since when it
// owes: its last paid invoice, all that came after it, and the one that decided before.
func (s *Store) Owed(ctx context.Context, subscriptionID string) (invoices []account.Invoice, was account.Delinquency, err error) {
	rows, _ := s.pool.Query(ctx, `SELECT status, past_due_since, past_due_invoice, items FROM subscriptions WHERE stripe_subscription_id = $1`, subscriptionID)
	stored, err := pgx.CollectRows(rows, pgx.RowToStructByNameLax[Subscription])
	if err != nil {
		return nil, was, classify("read since when a subscription owes", err)
	}
	for _, row := range stored {
		was = row.delinquency()
	}
	invoices, err = invoicesOwed(ctx, s.pool, subscriptionID, was.InvoiceID)
	return invoices, was, err
}

// invoicesOwed reads what decides since when a subscription owes: its last paid invoice, all that
// came after it, and the one that decided before.
func invoicesOwed(ctx context.Context, q querier, subscriptionID, before string) ([]account.Invoice, error) {
	rows, _ := q.Query(ctx, `SELECT id, status, occurred_at, due_at, finalized_at, first_failed_at, first_failed_attempt, paid_at, attempts FROM payments
		WHERE kind = 'invoice' AND stripe_subscription_id = $1 AND occurred_at IS NOT NULL AND (id = $2 OR occurred_at >= `+lastPaid("$1")+`)`, subscriptionID, before)
	invoices, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (i account.Invoice, err error) {
		var created, due, finalized, failed, paid *time.Time
		var attempt *int64
		err = row.Scan(&i.ID, &i.Status, &created, &due, &finalized, &failed, &attempt, &paid, &i.Attempts)
		if attempt != nil {
			i.FirstFailedAttempt = *attempt
		}
		i.Created, i.DueAt, i.FinalizedAt, i.FirstFailedAt, i.PaidAt = derefTime(created), derefTime(due), derefTime(finalized), derefTime(failed), derefTime(paid)
		return i, err
	})
	return invoices, classify("read what is owed", err)
}
