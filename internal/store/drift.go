package store

import (
	"context"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// NoteDrift records a difference, or that it is still there. One that is new is told to
// [Options.OnDrift] once the transaction has committed.
func (t *Tx) NoteDrift(ctx context.Context, entity account.Entity, class account.Drift, subject string) error {
	return t.noteDrift(ctx, Difference{Entity: entity, Class: class, Subject: subject}, "")
}

func (t *Tx) noteDrift(ctx context.Context, d Difference, run string) error {
	detail, err := detailOf(d)
	if err != nil {
		return err
	}
	var isNew bool
	err = t.tx.QueryRow(ctx, `INSERT INTO drift AS d (class, entity, subject, detail, run_id) VALUES ($1, $2, $3, $4, nullif($5, ''))
		ON CONFLICT (entity, class, subject) WHERE resolved_at IS NULL DO UPDATE SET last_seen_at = now(),
			detail = CASE WHEN excluded.detail = '{}' THEN d.detail ELSE excluded.detail END, run_id = coalesce(excluded.run_id, d.run_id)
		RETURNING xmax = 0`, string(d.Class), string(d.Entity), d.Subject, detail, run).Scan(&isNew)
	if isNew {
		t.drifted = append(t.drifted, NewDrift{Class: d.Class, Entity: d.Entity, Subject: d.Subject})
	}
	return classify("note drift", err)
}

// NewDrift is a difference that was not open before.
type NewDrift struct {
	Class   account.Drift
	Entity  account.Entity
	Subject string
}

// ResolveDrift closes the open differences of a class, of one subject or, with "", of all.
func (t *Tx) ResolveDrift(ctx context.Context, entity account.Entity, class account.Drift, subject string) error {
	return t.tx.Later(ctx, "resolve drift", `UPDATE drift SET resolved_at = now() WHERE entity = $1 AND class = $2 AND resolved_at IS NULL
		AND ($3 = '' OR subject = $3)`, string(entity), string(class), subject)
}

// DriftIsOlder tells whether a difference of a class has been open for some time.
func (t *Tx) DriftIsOlder(ctx context.Context, entity account.Entity, class account.Drift, than time.Duration) (older bool, err error) {
	err = t.tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM drift WHERE entity = $1 AND class = $2 AND resolved_at IS NULL AND seen_at <= now() - $3::interval)`,
		string(entity), string(class), than).Scan(&older)
	return older, classify("look for an open difference", err)
}

// resolveUnowned closes the open differences that only a customer has that is nobody's.
func (t *Tx) resolveUnowned(ctx context.Context, customerID string) error {
	return t.tx.Later(ctx, "resolve drift of a customer", `UPDATE drift SET resolved_at = now() WHERE entity = $1 AND class = ANY($2) AND resolved_at IS NULL`,
		string(account.CustomerEntity(customerID)),
		[]string{string(account.DriftConflictingClaims), string(account.DriftOrphanCustomer), string(account.DriftUnverifiedReference)})
}

// OpenDrift counts the open differences by class.
func (s *Store) OpenDrift(ctx context.Context) (map[string]int64, error) {
	rows, err := s.pool.Query(ctx, `SELECT class, count(*) FROM drift WHERE resolved_at IS NULL GROUP BY class`)
	if err != nil {
		return nil, classify("count drift", err)
	}
	defer rows.Close()
	open := map[string]int64{}
	for rows.Next() {
		var class string
		var n int64
		if err := rows.Scan(&class, &n); err != nil {
			return nil, classify("count drift", err)
		}
		open[class] = n
	}
	return open, classify("count drift", rows.Err())
}
