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
	// Users is how many users Clerk said there are, nil while it was not asked.
	Users      *int64     `db:"users" json:"users"`
	StartedAt  time.Time  `db:"started_at" json:"startedAt"`
	UpdatedAt  time.Time  `db:"updated_at" json:"updatedAt"`
	FinishedAt *time.Time `db:"finished_at" json:"finishedAt"`
	// Failure is why it ended before its end, nil where it did not.
	Failure *string `db:"failure" json:"failure"`
}

const bulkColumns = `id, caller, dry_run, entities, since, alongside, step, after, paused, pages, seen, found, done, failed, users, started_at, updated_at, finished_at, failure`

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
	Failures   map[account.Entity]string
}

// NoteBulkPage commits what a page came to together with how far the pass is now.
func (s *Store) NoteBulkPage(ctx context.Context, id string, p BulkPage) error {
	return s.Update(ctx, "note a page of a bulk sync", Cause{}, func(ctx context.Context, tx *Tx) error {
		failed, err := tx.addBulkFailures(ctx, id, p.Failures)
		if err != nil {
			return err
		}
		return tx.noteBulkPage(ctx, id, p, failed)
	})
}

func (t *Tx) noteBulkPage(ctx context.Context, id string, p BulkPage, failed int64) error {
	var seen, found map[string]int64
	if err := t.tx.QueryRow(ctx, `SELECT seen, found FROM bulk_runs WHERE id = $1 FOR UPDATE`, id).Scan(&seen, &found); err != nil {
		return classify("read a bulk sync", err)
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

func (t *Tx) addBulkFailures(ctx context.Context, id string, failures map[account.Entity]string) (newly int64, err error) {
	if len(failures) == 0 {
		return 0, nil
	}
	var entities, reasons []string
	for entity, reason := range failures {
		entities, reasons = append(entities, string(entity)), append(reasons, fit(reason))
	}
	tag, err := t.tx.Exec(ctx, `INSERT INTO bulk_failures (run_id, entity, reason) SELECT $1, entity, reason FROM unnest($2::text[], $3::text[]) AS f (entity, reason)
		ORDER BY entity ON CONFLICT (run_id, entity) DO NOTHING`, id, entities, reasons)
	return tag.RowsAffected(), classify("note failures of a bulk sync", err)
}

// BulkFailure is something that could not be brought in.
type BulkFailure struct {
	Entity account.Entity `db:"entity" json:"entity"`
	Reason string         `db:"reason" json:"reason"`
	At     time.Time      `db:"at" json:"at"`
}

// BulkFailures lists what a pass could not bring in, in the order of their names, behind the one named.
func (s *Store) BulkFailures(ctx context.Context, id string, after account.Entity, limit int) ([]BulkFailure, error) {
	rows, _ := s.pool.Query(ctx, `SELECT entity, reason, at FROM bulk_failures WHERE run_id = $1 AND entity > $2 ORDER BY entity LIMIT $3`, id, string(after), limit)
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[BulkFailure])
	return list, classify("list failures of a bulk sync", err)
}

// SetBulkUsers records how many users Clerk says there are.
func (s *Store) SetBulkUsers(ctx context.Context, id string, users int64) error {
	_, err := s.pool.Exec(ctx, `UPDATE bulk_runs SET users = $2, updated_at = now() WHERE id = $1`, id, users)
	return classify("count users", err)
}

// PauseBulk has a pass stop behind the page that is under way, or go on. It answers whether there is such a
// pass that has not ended.
func (s *Store) PauseBulk(ctx context.Context, id string, paused bool) (bool, error) {
	tag, err := s.pool.Exec(ctx, `UPDATE bulk_runs SET paused = $2, updated_at = now() WHERE id = $1 AND finished_at IS NULL`, id, paused)
	return tag.RowsAffected() > 0, classify("pause a bulk sync", err)
}

// FinishBulk records the end of a pass, and why it came early, "" if it did not. Recording it again changes nothing.
func (s *Store) FinishBulk(ctx context.Context, id, failure string) error {
	_, err := s.pool.Exec(ctx, `UPDATE bulk_runs SET finished_at = now(), updated_at = now(), failure = nullif($2, '') WHERE id = $1 AND finished_at IS NULL`, id, failure)
	return classify("finish a bulk sync", err)
}

// WithoutCustomer lists users who have no customer at Stripe and are not being deleted, in the order of our own ids,
// behind the one named, and answers the id that the next page continues behind, "" after the last.
func (s *Store) WithoutCustomer(ctx context.Context, after string, limit int) (clerkUserIDs []string, next string, err error) {
	type row struct{ ID, ClerkUserID string }
	rows, _ := s.pool.Query(ctx, `SELECT id::text AS after, clerk_user_id FROM person_user WHERE id > $1 AND stripe_customer_id IS NULL AND deletion_requested_at IS NULL
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

// ForgetProfile forgets which version of its user's profile a customer was given last, so that it is given it
// again.
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
