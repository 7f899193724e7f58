package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// Reconciliation is one comparison of the three systems.
type Reconciliation struct {
	ID         string `db:"id" json:"id"`
	WorkflowID string `db:"workflow_id" json:"workflowId"`
	// Caller is who asked for it, nil of one that the schedule began.
	Caller *string `db:"caller" json:"caller"`
	// Repair lists the classes that it repairs.
	Repair     []string   `db:"repair" json:"repair"`
	StartedAt  time.Time  `db:"started_at" json:"startedAt"`
	FinishedAt *time.Time `db:"finished_at" json:"finishedAt"`
	// Complete is set once everything was read to its end.
	Complete bool `db:"complete" json:"complete"`
	// Failure is why it was given up, nil where it was not.
	Failure *string `db:"failure" json:"failure"`
	// Compared counts what was read by kind, Confirmed the differences by class, Repaired those that
	// were repaired.
	Compared  map[string]int64 `db:"compared" json:"compared"`
	Confirmed map[string]int64 `db:"confirmed" json:"confirmed"`
	Repaired  map[string]int64 `db:"repaired" json:"repaired"`
	// Unread are the entities that differ as far as the lists show and could not be read by
	// themselves, and why. Nothing is concluded about them.
	Unread map[string]string `db:"unread" json:"unread"`
}

const reconciliationColumns = `id, workflow_id, caller, repair, started_at, finished_at, complete, failure, compared, confirmed, repaired,
	(SELECT coalesce(jsonb_object_agg(entity, reason), '{}') FROM reconciliation_failures f WHERE f.run_id = reconciliation_runs.id) AS unread`

// BeginReconciliation records that a run has begun. Recording it again changes nothing.
func (s *Store) BeginReconciliation(ctx context.Context, r Reconciliation) error {
	if r.Repair == nil {
		r.Repair = []string{}
	}
	_, err := s.pool.Exec(ctx, `INSERT INTO reconciliation_runs (id, workflow_id, caller, repair) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING`,
		r.ID, r.WorkflowID, r.Caller, r.Repair)
	return classify("begin a reconciliation", err)
}

// Reconciliations lists runs, the newest first.
func (s *Store) Reconciliations(ctx context.Context, limit int) ([]Reconciliation, error) {
	rows, _ := s.pool.Query(ctx, `SELECT `+reconciliationColumns+` FROM reconciliation_runs WHERE started_at <= now() ORDER BY started_at DESC LIMIT $1`, limit)
	runs, err := pgx.CollectRows(rows, pgx.RowToStructByName[Reconciliation])
	return runs, classify("list reconciliations", err)
}

// Reconciliation reads a run, nil where there is none.
func (s *Store) Reconciliation(ctx context.Context, id string) (*Reconciliation, error) {
	rows, _ := s.pool.Query(ctx, `SELECT `+reconciliationColumns+` FROM reconciliation_runs WHERE id = $1`, id)
	run, err := pgx.CollectOneRow(rows, pgx.RowToAddrOfStructByName[Reconciliation])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return run, classify("read a reconciliation", err)
}

// NotePage keeps what a page of a list has shown, and the differences that were found on it.
func (s *Store) NotePage(ctx context.Context, run, kind string, ids []string, found []Difference) error {
	if len(ids) == 0 && len(found) == 0 {
		return nil
	}
	return s.Update(ctx, "note a page", Cause{}, func(ctx context.Context, tx *Tx) error {
		if kind != "" && len(ids) > 0 {
			if err := tx.tx.Later(ctx, "note what was seen", `INSERT INTO reconciliation_seen (run_id, kind, id) SELECT $1, $2, id FROM unnest($3::text[]) AS d (id)
				ON CONFLICT DO NOTHING`, run, kind, ids); err != nil {
				return err
			}
		}
		return tx.noteFound(ctx, run, found, false)
	})
}

func (t *Tx) noteFound(ctx context.Context, run string, found []Difference, confirmed bool) error {
	batch := &pgx.Batch{}
	var claims []claimOf
	for _, d := range found {
		for _, claim := range d.Claims {
			claims = append(claims, claimOf{Claim: claim})
		}
		detail, err := detailOf(d)
		if err != nil {
			return err
		}
		batch.Queue(`INSERT INTO reconciliation_found AS f (run_id, entity, class, subject, detail, confirmed) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (run_id, entity, class, subject) DO UPDATE SET detail = excluded.detail, confirmed = f.confirmed OR excluded.confirmed`,
			run, string(d.Entity), string(d.Class), d.Subject, detail, confirmed)
	}
	if batch.Len() == 0 {
		return nil
	}
	if err := t.addClaims(ctx, claims); err != nil {
		return err
	}
	return classify("note differences", t.tx.SendAll(ctx, batch))
}

func detailOf(d Difference) ([]byte, error) {
	if d.Detail == nil {
		return []byte(`{}`), nil
	}
	raw, err := json.Marshal(d.Detail)
	if err != nil {
		return nil, fmt.Errorf("encoding a difference: %w", err)
	}
	return raw, nil
}

// Found is what a run found of one entity at its first look.
type Found struct {
	Entity account.Entity
	// Differences are those that are not confirmed yet; when repairs are looked at, those whose repair
	// was asked for.
	Differences []Difference
	// Busy is set while something is under way for the entity: then what differs says nothing.
	Busy bool
}

// publishPatience is how long a projection may be on its way to Clerk before that it is not there
// counts as a difference.
const publishPatience = 5 * time.Minute

// FoundPage lists the entities of a kind with differences that are to be looked at once more, in
// their order: those not confirmed yet, or those under repair.
func (s *Store) FoundPage(ctx context.Context, run string, kind account.Kind, repairing bool, after account.Entity, limit int) ([]Found, error) {
	type row struct {
		Entity  string `db:"entity"`
		Class   string `db:"class"`
		Subject string `db:"subject"`
		Busy    bool   `db:"busy"`
	}
	rows, _ := s.pool.Query(ctx, `WITH page AS MATERIALIZED (SELECT DISTINCT entity FROM reconciliation_found
			WHERE run_id = $1 AND entity > $2 AND starts_with(entity, $3) AND CASE WHEN $4 THEN repairing ELSE NOT confirmed END ORDER BY entity LIMIT $5)
		SELECT entity, class, subject,
			EXISTS (SELECT FROM webhook_events e WHERE e.entity = f.entity AND e.status = 'pending')
			OR EXISTS (SELECT FROM pokes p WHERE p.entity = f.entity AND due_at IS NOT NULL)
			OR EXISTS (SELECT FROM person_user u WHERE u.clerk_user_id = CASE WHEN starts_with(f.entity, 'user/') THEN substr(f.entity, 6) END
				AND publish_error IS NULL AND publish_due_since > now() - $6::interval) AS busy
		FROM page JOIN reconciliation_found f USING (entity)
		WHERE run_id = $1 AND CASE WHEN $4 THEN repairing ELSE NOT confirmed END ORDER BY entity, class, subject`,
		run, string(after), string(kind)+"/", repairing, limit, publishPatience)
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[row])
	if err != nil {
		return nil, classify("list what was found", err)
	}
	var found []Found
	for _, r := range list {
		entity := account.Entity(r.Entity)
		if len(found) == 0 || found[len(found)-1].Entity != entity {
			found = append(found, Found{Entity: entity})
		}
		last := &found[len(found)-1]
		last.Busy = last.Busy || r.Busy
		last.Differences = append(last.Differences, Difference{Entity: entity, Class: account.Drift(r.Class), Subject: r.Subject})
	}
	return found, nil
}

// Confirm ends a second look at an entity: what is confirmed becomes open drift, what was dropped
// is forgotten.
func (s *Store) Confirm(ctx context.Context, run string, confirmed, dropped []Difference) error {
	return s.Update(ctx, "confirm differences", Cause{}, func(ctx context.Context, tx *Tx) error {
		if err := tx.forgetFound(ctx, run, dropped); err != nil {
			return err
		}
		if err := tx.noteFound(ctx, run, confirmed, true); err != nil {
			return err
		}
		for _, d := range confirmed {
			if err := tx.noteDrift(ctx, d, run); err != nil {
				return err
			}
		}
		return nil
	})
}

// NoteUnread keeps of which entities of a page a run could not read what is so, and why, and
// forgets those that it could.
func (s *Store) NoteUnread(ctx context.Context, run string, unread map[account.Entity]string, read []account.Entity) error {
	var entities, reasons []string
	for entity, reason := range unread {
		entities, reasons = append(entities, string(entity)), append(reasons, fit(reason))
	}
	_, err := s.pool.Exec(ctx, `WITH gone AS (DELETE FROM reconciliation_failures WHERE run_id = $1 AND entity = ANY($4))
		INSERT INTO reconciliation_failures (run_id, entity, reason) SELECT $1, entity, reason FROM unnest($2::text[], $3::text[]) AS u (entity, reason)
		WHERE EXISTS (SELECT FROM reconciliation_runs WHERE id = $1)
		ON CONFLICT (run_id, entity) DO UPDATE SET reason = excluded.reason, at = now()`, run, entities, reasons, read)
	return classify("note what could not be read", err)
}

// Mended ends a look at an entity under repair: these differences are gone.
func (s *Store) Mended(ctx context.Context, run string, mended []Difference) error {
	return s.Update(ctx, "close differences", Cause{}, func(ctx context.Context, tx *Tx) error {
		if err := tx.forgetFound(ctx, run, mended); err != nil {
			return err
		}
		for _, d := range mended {
			if err := tx.ResolveDrift(ctx, d.Entity, d.Class, d.Subject); err != nil {
				return err
			}
			if err := tx.count(ctx, run, "repaired", string(d.Class), 1); err != nil {
				return err
			}
		}
		return nil
	})
}

func (t *Tx) forgetFound(ctx context.Context, run string, gone []Difference) error {
	batch := &pgx.Batch{}
	for _, d := range gone {
		batch.Queue(`DELETE FROM reconciliation_found WHERE run_id = $1 AND entity = $2 AND class = $3 AND subject = $4`,
			run, string(d.Entity), string(d.Class), d.Subject)
	}
	if batch.Len() == 0 {
		return nil
	}
	return classify("forget differences", t.tx.SendAll(ctx, batch))
}

// count adds to one of a run's counts.
func (t *Tx) count(ctx context.Context, run, column, name string, n int64) error {
	return t.tx.Later(ctx, "count", `UPDATE reconciliation_runs SET `+column+` = jsonb_set(`+column+`, ARRAY[$2], to_jsonb(coalesce((`+column+`->>$2)::bigint, 0) + $3)) WHERE id = $1`, run, name, n)
}

// ConcludeComparison ends the comparing of a run that was complete: what it knows how to find and
// has not met again is closed, and what it has confirmed is counted.
func (s *Store) ConcludeComparison(ctx context.Context, run string, compared map[string]int64) (confirmed map[string]int64, err error) {
	err = s.Update(ctx, "conclude a comparison", Cause{}, func(ctx context.Context, tx *Tx) error {
		if err := tx.tx.Later(ctx, "close differences", `UPDATE drift d SET resolved_at = now() FROM reconciliation_runs r
			WHERE r.id = $1 AND d.resolved_at IS NULL AND d.run_id <> $1 AND d.last_seen_at < r.started_at
			AND NOT EXISTS (SELECT FROM reconciliation_found f WHERE f.run_id = $1 AND f.entity = d.entity AND f.class = d.class AND f.subject = d.subject)`, run); err != nil {
			return err
		}
		err = tx.tx.QueryRow(ctx, `UPDATE reconciliation_runs SET complete = true, compared = $2, confirmed = (SELECT coalesce(jsonb_object_agg(class, n), '{}')
				FROM (SELECT class, count(*) AS n FROM reconciliation_found WHERE run_id = $1 AND confirmed GROUP BY class) c)
			WHERE id = $1 RETURNING confirmed`, run, compared).Scan(&confirmed)
		return classifyRun("conclude a comparison", err)
	})
	return confirmed, err
}

// FinishReconciliation ends a run. failure says why it is not complete, "" if it is.
func (s *Store) FinishReconciliation(ctx context.Context, run, failure string) error {
	_, err := s.pool.Exec(ctx, `UPDATE reconciliation_runs SET finished_at = coalesce(finished_at, now()), failure = nullif($2, '') WHERE id = $1`, run, failure)
	return classify("finish a reconciliation", err)
}

// ForgetRun removes some of what a run has noted, and answers whether there is more.
func (s *Store) ForgetRun(ctx context.Context, run string, limit int) (more bool, err error) {
	tag, err := s.pool.Exec(ctx, `DELETE FROM reconciliation_seen WHERE ctid = ANY(ARRAY(SELECT ctid FROM reconciliation_seen WHERE run_id = $1 LIMIT $2))`, run, limit)
	if err != nil {
		return false, classify("forget what was seen", err)
	}
	if tag.RowsAffected() == int64(limit) {
		return true, nil
	}
	_, err = s.pool.Exec(ctx, `DELETE FROM reconciliation_found WHERE run_id = $1`, run)
	return false, classify("forget what was found", err)
}

// RepairPage asks for the repair of the next confirmed differences of these classes, of so many
// entities at a time and never of more than most in the whole run, and answers of how many it has
// by now and whether that is all. Who asked is in the audit log.
func (s *Store) RepairPage(ctx context.Context, run string, classes []account.Drift, limit, most int, why Cause) (asked int, last bool, err error) {
	err = s.Update(ctx, "repair differences", why, func(ctx context.Context, tx *Tx) error {
		if err := tx.tx.QueryRow(ctx, `SELECT asked FROM reconciliation_runs WHERE id = $1 FOR UPDATE`, run).Scan(&asked); err != nil {
			return classifyRun("read a reconciliation", err)
		}
		limit := min(limit, most-asked)
		if limit <= 0 {
			last = true
			return nil
		}
		found, err := tx.nextRepairs(ctx, run, classes, limit)
		if err != nil {
			return err
		}
		entities := 0
		var before account.Entity
		for _, d := range found {
			if d.Entity != before {
				entities, before = entities+1, d.Entity
			}
			if err := tx.repair(ctx, d); err != nil {
				return err
			}
		}
		asked, last = asked+entities, entities < limit
		return tx.tx.Later(ctx, "count repairs", `UPDATE reconciliation_runs SET asked = $2 WHERE id = $1`, run, asked)
	})
	return asked, last, err
}

func (t *Tx) nextRepairs(ctx context.Context, run string, classes []account.Drift, limit int) ([]Difference, error) {
	names := make([]string, len(classes))
	for i, class := range classes {
		names[i] = string(class)
	}
	rows, _ := t.tx.Query(ctx, `WITH page AS MATERIALIZED (SELECT DISTINCT entity FROM reconciliation_found
			WHERE run_id = $1 AND confirmed AND NOT repairing AND class = ANY($2) ORDER BY entity LIMIT $3)
		UPDATE reconciliation_found f SET repairing = true FROM page
		WHERE f.run_id = $1 AND f.entity = page.entity AND confirmed AND NOT repairing AND class = ANY($2) RETURNING f.entity, class, subject`, run, names, limit)
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d Difference, err error) {
		err = row.Scan(&d.Entity, &d.Class, &d.Subject)
		return d, err
	})
	slices.SortFunc(found, func(a, b Difference) int { return cmp.Compare(a.Entity, b.Entity) })
	return found, classify("choose repairs", err)
}

// repair asks for what mends a difference: a look at its entity, which takes what the provider says
// for true. Only two classes need more.
func (t *Tx) repair(ctx context.Context, d Difference) error {
	if err := t.tx.Later(ctx, "note a repair", `UPDATE drift SET repair_asked_at = now() WHERE entity = $1 AND class = $2 AND subject = $3 AND resolved_at IS NULL`,
		string(d.Entity), string(d.Class), d.Subject); err != nil {
		return err
	}
	_, id := d.Entity.Split()
	var user *User
	var err error
	switch d.Class { //nolint:exhaustive // all others need a look and nothing else
	case account.DriftStaleCustomer:
		if user, err = t.forgetProfile(ctx, id); err != nil {
			return err
		}
	case account.DriftUserMissing:
		if user, err = t.LockUser(ctx, id); err != nil {
			return err
		}
		if user, err = t.stillMissing(ctx, user, d); err != nil {
			return err
		}
		if user != nil {
			if err := t.RequestDeletion(ctx, user, nil); err != nil {
				return err
			}
		}
	default:
	}
	err = t.Audit(ctx, Entry{Action: "drift.repair_asked", User: user, Entity: d.Entity, Subject: d.Subject, After: map[string]any{"class": string(d.Class)}})
	if err != nil {
		return err
	}
	if user != nil {
		if err := t.PokeRoutinely(ctx, account.JobSync, account.UserEntity(user.ClerkUserID)); err != nil {
			return err
		}
	}
	return t.PokeRoutinely(ctx, jobOfRepair(d.Class), d.Entity)
}

// stillMissing answers a locked user unless a look has shown since that Clerk has them, which ends
// the difference: a deletion is not taken back.
func (t *Tx) stillMissing(ctx context.Context, u *User, d Difference) (*User, error) {
	open, err := t.DriftIsOlder(ctx, d.Entity, d.Class, 0)
	if err != nil || !open {
		return nil, err
	}
	return u, nil
}

func jobOfRepair(class account.Drift) account.Job {
	switch class { //nolint:exhaustive // all others are syncs
	case account.DriftMissingUser, account.DriftUserWithoutCustomer:
		return account.JobOnboard
	case account.DriftUserMissing:
		return account.JobOffboard
	default:
		return account.JobSync
	}
}

// forgetProfile forgets which version of its user's profile a customer was given last, so that it
// is given it again, and answers the user. What stands instead of the version is another number
// each time.
func (t *Tx) forgetProfile(ctx context.Context, customerID string) (*User, error) {
	user, customer, err := t.LockCustomer(ctx, customerID)
	if err != nil || user == nil {
		return nil, err
	}
	return user, t.tx.Later(ctx, "forget a customer's profile", `UPDATE stripe_customers SET profile_version = -nextval('sync_seq') WHERE stripe_customer_id = $1`, customer.ID)
}

// readSeqOf answers the number of the last read of an entity whose result was stored, 0 where there
// is none.
func (s *Store) readSeqOf(ctx context.Context, entity account.Entity) (read int64, err error) {
	kind, id := entity.Split()
	var sql string
	switch kind {
	case account.KindUser:
		sql = `SELECT read_seq FROM person_user WHERE clerk_user_id = $1`
	case account.KindCustomer:
		sql = `SELECT read_seq FROM stripe_customers WHERE stripe_customer_id = $1`
	case account.KindProduct:
		sql = `SELECT read_seq FROM plans WHERE stripe_product_id = $1`
	case account.KindCharge:
		return 0, nil // nothing is stored of it
	}
	err = s.pool.QueryRow(ctx, sql, id).Scan(&read)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	return read, classify("read an entity's number", err)
}
