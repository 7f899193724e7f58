package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/migrations"
)

// versionTable is goose's own record of what has been applied.
const versionTable = "clerk_stripe_sync_migrations"

// Migrator applies the schema. Any number of them may run at once: one applies, the others wait
// for it and find nothing left to do.
type Migrator struct {
	db       *sql.DB
	provider *goose.Provider
}

// NewMigrator connects to the database with a connection of its own, without the timeouts of
// the pool: a migration may take as long as it takes.
func NewMigrator(dsn string) (*Migrator, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, errors.New("DATABASE_URL is not a PostgreSQL address such as postgres://user:password@host:5432/name")
	}
	config.RuntimeParams["timezone"] = "UTC"
	db := stdlib.OpenDB(*config)
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 120))
	if err != nil {
		return nil, fmt.Errorf("preparing the migration lock: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, fs.FS(migrations.FS),
		goose.WithSessionLocker(locker), goose.WithTableName(versionTable), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading the migrations: %w", err), db.Close())
	}
	return &Migrator{db: db, provider: provider}, nil
}

// Close closes the migrator's connection.
func (m *Migrator) Close() error { return m.db.Close() }

// Up applies what has not been applied yet and answers the names of those files.
func (m *Migrator) Up(ctx context.Context) ([]string, error) {
	results, err := m.provider.Up(ctx)
	if err != nil {
		return nil, fmt.Errorf("applying migrations: %w", err)
	}
	var applied []string
	for _, r := range results {
		applied = append(applied, r.Source.Path)
	}
	return applied, nil
}

// Down takes the latest migration back and answers its name, or "" if there is none. Data in
// what it drops is lost.
func (m *Migrator) Down(ctx context.Context) (string, error) {
	result, err := m.provider.Down(ctx)
	if errors.Is(err, goose.ErrNoNextVersion) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("taking a migration back: %w", err)
	}
	return result.Source.Path, nil
}

// MigrationStatus is one migration and whether it has been applied.
type MigrationStatus struct {
	Name    string
	Applied bool
}

// Status lists all migrations in order.
func (m *Migrator) Status(ctx context.Context) ([]MigrationStatus, error) {
	states, err := m.provider.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the state of migrations: %w", err)
	}
	var list []MigrationStatus
	for _, s := range states {
		list = append(list, MigrationStatus{Name: s.Source.Path, Applied: s.State == goose.StateApplied})
	}
	return list, nil
}

// Migrated answers an operator failure while the database lacks a migration that this program
// needs. A database that is further on is fine: old programs go on while new ones start.
func (s *Store) Migrated(ctx context.Context) error {
	files, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		return fmt.Errorf("listing migrations: %w", err)
	}
	versions := make([]int64, len(files))
	for i, name := range files {
		if versions[i], err = goose.NumericComponent(name); err != nil {
			return fmt.Errorf("reading the number of a migration: %w", err)
		}
	}
	var missing bool
	err = s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM unnest($1::bigint[]) AS needed (version)
		WHERE NOT EXISTS (SELECT FROM `+versionTable+` WHERE version_id = needed.version AND is_applied))`, versions).Scan(&missing)
	if err != nil {
		return classify("read the schema's version", err)
	}
	if missing {
		return failure.New(failure.Operator, "postgres", "check the schema", "migration_missing", nil)
	}
	return nil
}
