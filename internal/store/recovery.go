package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// recoveryBefore is how far back the first pass over a provider's list looks: what happened before
// we were there is for a comparison of everything, not for events.
const recoveryBefore = time.Hour

// RecoveryCursor answers up to when, at the provider's own clock, everything that happened there is
// known here.
func (s *Store) RecoveryCursor(ctx context.Context, source string) (safeUntil time.Time, err error) {
	err = s.pool.QueryRow(ctx, `SELECT coalesce((SELECT safe_until FROM recovery_cursors WHERE source = $1), now() - $2::interval)`,
		source, recoveryBefore).Scan(&safeUntil)
	return safeUntil.UTC(), classify("read the recovery cursor", err)
}

// AdvanceRecovery ends a pass over a provider's list that was complete from one moment until
// another: in between everything is known, and so many were missing. The cursor never moves back,
// and never over what the pass has not covered: where the database was put back meanwhile, the next
// pass begins where that ends. With a zero time, for a list that was empty, it stays where it is.
func (s *Store) AdvanceRecovery(ctx context.Context, source string, from, until time.Time, missing int) error {
	_, err := s.pool.Exec(ctx, `INSERT INTO recovery_cursors AS c (source, safe_until, missing, missing_all)
		VALUES ($1, CASE WHEN $5 <= now() - $4::interval THEN coalesce($2, now() - $4::interval) ELSE now() - $4::interval END, $3, $3)
		ON CONFLICT (source) DO UPDATE SET safe_until = CASE WHEN $5 <= c.safe_until THEN greatest(c.safe_until, coalesce($2, c.safe_until)) ELSE c.safe_until END,
			advanced_at = now(), missing = excluded.missing, missing_all = c.missing_all + excluded.missing`, source, nullTime(until), missing, recoveryBefore, from.UTC())
	return classify("advance the recovery cursor", err)
}

// RecoverEvents commits events that a provider lists as [Store.AddEvents] commits deliveries, and
// has their entities poked. It answers for each what became of it.
func (s *Store) RecoverEvents(ctx context.Context, events []NewEvent, spacing time.Duration) (added []Added, err error) {
	err = s.Update(ctx, "recover events", Cause{}, func(ctx context.Context, tx *Tx) error {
		if added, err = addEvents(ctx, tx.tx, events, nil, spacing); err != nil {
			return err
		}
		return tx.announce(ctx)
	})
	return added, err
}

// RecoveryState is how far a provider's list has been read.
type RecoveryState struct {
	Source     string    `db:"source"`
	SafeUntil  time.Time `db:"safe_until"`
	AdvancedAt time.Time `db:"advanced_at"`
	Missing    int64     `db:"missing"`
	MissingAll int64     `db:"missing_all"`
}

// RecoveryStates answers how far each provider's list has been read.
func (s *Store) RecoveryStates(ctx context.Context) ([]RecoveryState, error) {
	rows, _ := s.pool.Query(ctx, `SELECT source, safe_until, advanced_at, missing, missing_all FROM recovery_cursors ORDER BY source`)
	states, err := pgx.CollectRows(rows, pgx.RowToStructByName[RecoveryState])
	return states, classify("read the recovery cursors", err)
}

// LookAges answers how long ago, in seconds, each provider's own list was last read to its end, and
// how long ago the last comparison that came to its end began; nil where there was none.
func (s *Store) LookAges(ctx context.Context) (recovery map[string]float64, reconciliation *float64, err error) {
	recovery = map[string]float64{}
	var source string
	var age float64
	rows, _ := s.pool.Query(ctx, `SELECT source, extract(epoch FROM now() - advanced_at)::float8 FROM recovery_cursors`)
	_, err = pgx.ForEachRow(rows, []any{&source, &age}, func() error {
		recovery[source] = age
		return nil
	})
	if err != nil {
		return nil, nil, classify("measure the recovery", err)
	}
	err = s.pool.QueryRow(ctx, `SELECT extract(epoch FROM now() - max(started_at))::float8 FROM reconciliation_runs WHERE complete`).Scan(&reconciliation)
	return recovery, reconciliation, classify("measure the reconciliation", err)
}

// UsersByClerkIDs reads users by their Clerk ids. Those whom we do not know are absent.
func (s *Store) UsersByClerkIDs(ctx context.Context, clerkUserIDs []string) (map[string]*User, error) {
	rows, _ := s.pool.Query(ctx, `SELECT `+userColumns+` FROM person_user WHERE clerk_user_id = ANY($1)`, clerkUserIDs)
	list, err := pgx.CollectRows(rows, pgx.RowToAddrOfStructByName[User])
	if err != nil {
		return nil, classify("read users", err)
	}
	users := make(map[string]*User, len(list))
	for _, u := range list {
		users[u.ClerkUserID] = u
	}
	return users, nil
}

// PokeEach asks for entities to be looked at, each with a job of its own.
func (s *Store) PokeEach(ctx context.Context, jobs map[account.Entity]account.Job, spacing time.Duration) error {
	if len(jobs) == 0 {
		return nil
	}
	return s.Update(ctx, "poke", Cause{}, func(ctx context.Context, tx *Tx) error {
		if err := tx.poke(ctx, jobs, false, spacing); err != nil {
			return err
		}
		return tx.announce(ctx)
	})
}
