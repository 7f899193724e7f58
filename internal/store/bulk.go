package store

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// BulkRun is one pass over everything that both providers hold, which brings it in.
type BulkRun struct {
	ID     string `db:"id" json:"id"`
	Caller string `db:"caller" json:"caller"`
	// DryRun only counts.
	DryRun bool `db:"dry_run" json:"dryRun"`
	// Entities are the users and customers that are meant; none for all.
	Entities []string `db:"entities" json:"entities"`
	// Since is the moment from which on what has changed is meant, nil for everything.
	Since *time.Time `db:"since" json:"since"`
	// Alongside lets it go on beside another.
	Alongside bool `db:"alongside" json:"alongside"`
	// Step is the list that is being read, After the place behind which its next page begins.
	Step   string `db:"step" json:"step"`
	After  string `db:"after" json:"after"`
	Paused bool   `db:"paused" json:"paused"`
	Pages  int64  `db:"pages" json:"pages"`
	// Seen counts what was looked at by list, Found what differed by class.
	Seen  map[string]int64 `db:"seen" json:"seen"`
	Found map[string]int64 `db:"found" json:"found"`
	// Done counts what was brought in, Failed what could not be.
	Done   int64 `db:"done" json:"done"`
	Failed int64 `db:"failed" json:"failed"`
	// Quarantined is how many could not be brought in for now and are come back to.
	Quarantined int64 `db:"quarantined" json:"quarantined"`
	// Users is how many users Clerk said there are, nil while it was not asked.
	Users      *int64     `db:"users" json:"users"`
	StartedAt  time.Time  `db:"started_at" json:"startedAt"`
	UpdatedAt  time.Time  `db:"updated_at" json:"updatedAt"`
	FinishedAt *time.Time `db:"finished_at" json:"finishedAt"`
	// Failure is why it ended before its end, nil where it did not.
	Failure *string `db:"failure" json:"failure"`
}

const bulkColumns = `id, caller, dry_run, entities, since, alongside, step, after, paused, pages, seen, found, done, failed, users, started_at, updated_at, finished_at, failure,
	(SELECT count(*) FROM bulk_failures f WHERE f.run_id = bulk_runs.id AND f.retry_at IS NOT NULL) AS quarantined`

// ErrBulkUnderWay says that another pass has not ended.
var ErrBulkUnderWay = errors.New("another bulk sync is under way")

// BeginBulk records a pass that is about to begin. While another has not ended it answers
// [ErrBulkUnderWay], unless one of the two goes on alongside.
func (s *Store) BeginBulk(ctx context.Context, r BulkRun) error {
	if r.Entities == nil {
		r.Entities = []string{}
	}
	_, err := s.pool.Exec(ctx, `INSERT INTO bulk_runs (id, caller, dry_run, entities, since, alongside) VALUES ($1, $2, $3, $4, $5, $6)`,
		r.ID, r.Caller, r.DryRun, r.Entities, r.Since, r.Alongside)
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.ConstraintName == "bulk_runs_one" {
		return ErrBulkUnderWay
	}
	return classify("begin a bulk sync", err)
}

// Bulk reads a pass, nil where there is none.
func (s *Store) Bulk(ctx context.Context, id string) (*BulkRun, error) {
	rows, _ := s.pool.Query(ctx, `SELECT `+bulkColumns+` FROM bulk_runs WHERE id = $1`, id)
	return oneBulk(rows)
}

// UnfinishedBulk reads the pass that keeps others from beginning, nil where there is none.
func (s *Store) UnfinishedBulk(ctx context.Context) (*BulkRun, error) {
	rows, _ := s.pool.Query(ctx, `SELECT `+bulkColumns+` FROM bulk_runs WHERE finished_at IS NULL AND NOT alongside`)
	return oneBulk(rows)
}

func oneBulk(rows pgx.Rows) (*BulkRun, error) {
	run, err := pgx.CollectOneRow(rows, pgx.RowToAddrOfStructByName[BulkRun])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return run, classify("read a bulk sync", err)
}

// Bulks lists passes, the newest first.
func (s *Store) Bulks(ctx context.Context, limit int) ([]BulkRun, error) {
	rows, _ := s.pool.Query(ctx, `SELECT `+bulkColumns+` FROM bulk_runs WHERE started_at <= now() ORDER BY started_at DESC LIMIT $1`, limit)
	runs, err := pgx.CollectRows(rows, pgx.RowToStructByName[BulkRun])
	return runs, classify("list bulk syncs", err)
}

// BulkPage is what one page of a pass came to.
type BulkPage struct {
	// Step is the list, Next the place behind which its next page begins, "" after the last.
	Step, Next string
	Seen       int
	Found      map[string]int64
	Done       int
	// Failures are those that failed for good, and why; Quarantined those that are come back to.
	Failures, Quarantined map[account.Entity]string
}

// NoteBulkPage commits what a page came to together with how far the pass is now.
func (s *Store) NoteBulkPage(ctx context.Context, id string, p BulkPage) error {
	return s.Update(ctx, "note a page of a bulk sync", Cause{}, func(ctx context.Context, tx *Tx) error {
		failed, err := tx.addBulkFailures(ctx, id, p.Failures, false)
		if err != nil {
			return err
		}
		if _, err := tx.addBulkFailures(ctx, id, p.Quarantined, true); err != nil {
			return err
		}
		return tx.noteBulkPage(ctx, id, p, failed)
	})
}

func (t *Tx) noteBulkPage(ctx context.Context, id string, p BulkPage, failed int64) error {
	var seen, found map[string]int64
	if err := t.tx.QueryRow(ctx, `SELECT seen, found FROM bulk_runs WHERE id = $1 FOR UPDATE`, id).Scan(&seen, &found); err != nil {
		return classifyRun("read a bulk sync", err)
	}
	seen[p.Step] += int64(p.Seen)
	for class, n := range p.Found {
		found[class] += n
	}
	counts, err := json.Marshal([]map[string]int64{seen, found})
	if err != nil {
		return classify("encode counts", err)
	}
	return t.tx.Later(ctx, "note a page of a bulk sync", `UPDATE bulk_runs SET step = $2, after = $3, pages = pages + 1, seen = $4::jsonb -> 0, found = $4::jsonb -> 1,
		done = done + $5, failed = failed + $6, updated_at = now() WHERE id = $1`, id, p.Step, p.Next, counts, p.Done, failed)
}

// bulkRetry is how long something in quarantine is left alone after so many attempts ("attempts"):
// a minute, and twice as long each time.
const bulkRetry = `interval '1 minute' * power(2, least(attempts, 10) - 1)`

// bulkAttempts is how often something is tried before it counts as failed, about half an hour after
// the first time.
const bulkAttempts = 6

func (t *Tx) addBulkFailures(ctx context.Context, id string, failures map[account.Entity]string, again bool) (newly int64, err error) {
	if len(failures) == 0 {
		return 0, nil
	}
	var entities, reasons []string
	for entity, reason := range failures {
		entities, reasons = append(entities, string(entity)), append(reasons, fit(reason))
	}
	tag, err := t.tx.Exec(ctx, `INSERT INTO bulk_failures (run_id, entity, reason, retry_at) SELECT $1, entity, reason, CASE WHEN $4 THEN now() + interval '1 minute' END
		FROM unnest($2::text[], $3::text[]) AS f (entity, reason) ORDER BY entity ON CONFLICT (run_id, entity) DO NOTHING`, id, entities, reasons, again)
	return tag.RowsAffected(), classify("note failures of a bulk sync", err)
}

// BulkFailure is something that could not be brought in.
type BulkFailure struct {
	Entity account.Entity `db:"entity" json:"entity"`
	Reason string         `db:"reason" json:"reason"`
	At     time.Time      `db:"at" json:"at"`
	// Attempts is how often it was tried, RetryAt when it is tried again, nil where it is not.
	Attempts int        `db:"attempts" json:"attempts"`
	RetryAt  *time.Time `db:"retry_at" json:"retryAt"`
}

// BulkRetries lists what is to be tried again by now. Where that is nothing, it answers how long it
// is until the next is, zero where nothing is in quarantine.
func (s *Store) BulkRetries(ctx context.Context, id string, limit int) (due []account.Entity, wait time.Duration, err error) {
	rows, _ := s.pool.Query(ctx, `SELECT entity, greatest(retry_at - now(), interval '0') FROM bulk_failures WHERE run_id = $1 AND retry_at IS NOT NULL
		ORDER BY retry_at, entity LIMIT $2`, id, limit)
	var entity account.Entity
	var until time.Duration
	_, err = pgx.ForEachRow(rows, []any{&entity, &until}, func() error {
		if until == 0 {
			due = append(due, entity)
		} else if len(due) == 0 && wait == 0 {
			wait = max(until, time.Millisecond)
		}
		return nil
	})
	return due, wait, classify("list what is to be tried again", err)
}

// BulkRetried is what came of trying again: what was brought in, what failed for good, and what is
// to be tried once more.
type BulkRetried struct {
	Done            []account.Entity
	Failures, Again map[account.Entity]string
}

// NoteBulkRetries commits what came of trying again. What was tried often enough counts as failed.
func (s *Store) NoteBulkRetries(ctx context.Context, id, step string, r BulkRetried) error {
	var entities, reasons []string
	var final []bool
	for failures, last := range map[*map[account.Entity]string]bool{&r.Failures: true, &r.Again: false} {
		for entity, reason := range *failures {
			entities, reasons, final = append(entities, string(entity)), append(reasons, fit(reason)), append(final, last)
		}
	}
	return s.Update(ctx, "note what was tried again", Cause{}, func(ctx context.Context, tx *Tx) error {
		tag, err := tx.tx.Exec(ctx, `DELETE FROM bulk_failures WHERE run_id = $1 AND entity = ANY($2) AND retry_at IS NOT NULL`, id, r.Done)
		if err != nil {
			return classify("forget what was brought in", err)
		}
		var failed int64
		if err := tx.tx.QueryRow(ctx, `WITH again AS (UPDATE bulk_failures b SET attempts = attempts + 1, reason = t.reason, at = now(),
				retry_at = CASE WHEN NOT t.final AND attempts + 1 < $5 THEN now() + `+bulkRetry+` END
			FROM unnest($2::text[], $3::text[], $4::boolean[]) AS t (entity, reason, final) WHERE b.run_id = $1 AND b.entity = t.entity AND retry_at IS NOT NULL RETURNING retry_at)
			SELECT count(*) FROM again WHERE retry_at IS NULL`, id, entities, reasons, final, bulkAttempts).Scan(&failed); err != nil {
			return classify("note what failed again", err)
		}
		return tx.tx.Later(ctx, "note what was tried again", `UPDATE bulk_runs SET step = $2, after = '', done = done + $3, failed = failed + $4, updated_at = now() WHERE id = $1`,
			id, step, tag.RowsAffected(), failed)
	})
}

// BulkFailures lists what a pass could not bring in, in the order of their names, behind the one
// named.
func (s *Store) BulkFailures(ctx context.Context, id string, after account.Entity, limit int) ([]BulkFailure, error) {
	rows, _ := s.pool.Query(ctx, `SELECT entity, reason, at, attempts, retry_at FROM bulk_failures WHERE run_id = $1 AND entity > $2 ORDER BY entity LIMIT $3`, id, string(after), limit)
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[BulkFailure])
	return list, classify("list failures of a bulk sync", err)
}

// SetBulkUsers records how many users Clerk says there are.
func (s *Store) SetBulkUsers(ctx context.Context, id string, users int64) error {
	_, err := s.pool.Exec(ctx, `UPDATE bulk_runs SET users = $2, updated_at = now() WHERE id = $1`, id, users)
	return classify("count users", err)
}

// PauseBulk has a pass stop behind the page that is under way, or go on. It answers whether there
// is such a pass that has not ended.
func (s *Store) PauseBulk(ctx context.Context, id string, paused bool) (bool, error) {
	tag, err := s.pool.Exec(ctx, `UPDATE bulk_runs SET paused = $2, updated_at = now() WHERE id = $1 AND finished_at IS NULL`, id, paused)
	return tag.RowsAffected() > 0, classify("pause a bulk sync", err)
}

// FinishBulk records the end of a pass, and why it came early, "" if it did not. What is in
// quarantine then has failed: nobody comes back to it. Recording it again changes nothing.
func (s *Store) FinishBulk(ctx context.Context, id, failure string) error {
	_, err := s.pool.Exec(ctx, `WITH given_up AS (UPDATE bulk_failures SET retry_at = NULL WHERE run_id = $1 AND retry_at IS NOT NULL
			AND EXISTS (SELECT FROM bulk_runs WHERE id = $1 AND finished_at IS NULL) RETURNING 1)
		UPDATE bulk_runs SET finished_at = now(), updated_at = now(), failure = nullif($2, ''), failed = failed + (SELECT count(*) FROM given_up)
		WHERE id = $1 AND finished_at IS NULL`, id, failure)
	return classify("finish a bulk sync", err)
}

// WithoutCustomer lists users who have no customer at Stripe and are not being deleted, in the
// order of our own ids, behind the one named, and answers the id that the next page continues
// behind, "" after the last.
func (s *Store) WithoutCustomer(ctx context.Context, after string, limit int) (clerkUserIDs []string, next string, err error) {
	type row struct{ ID, ClerkUserID string }
	rows, _ := s.pool.Query(ctx, `SELECT id::text AS after, clerk_user_id FROM person_user u WHERE id > $1 AND deletion_requested_at IS NULL
		AND NOT EXISTS (SELECT FROM stripe_customers c WHERE c.user_id = u.id AND NOT c.deleted_in_stripe AND c.missing_since IS NULL)
		ORDER BY id LIMIT $2`, orFirst(after), limit)
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	if err != nil {
		return nil, "", classify("list users without a customer", err)
	}
	for _, r := range list {
		clerkUserIDs = append(clerkUserIDs, r.ClerkUserID)
	}
	if len(list) == limit {
		next = list[len(list)-1].ID
	}
	return clerkUserIDs, next, nil
}

// ForgetProfile forgets which version of its user's profile a customer was given last, so that it
// is given it again.
func (s *Store) ForgetProfile(ctx context.Context, customerID string) error {
	return s.Update(ctx, "forget a customer's profile", Cause{}, func(ctx context.Context, tx *Tx) error {
		_, err := tx.forgetProfile(ctx, customerID)
		return err
	})
}

// Distinct lists entities in order, each once.
func Distinct(entities []account.Entity) []account.Entity {
	sorted := slices.Clone(entities)
	slices.Sort(sorted)
	return slices.Compact(sorted)
}
