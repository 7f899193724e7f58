//go:build unix

package testdb_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/nepfy/clerk-stripe-sync/internal/localstack/testdb"
)

var databases = testdb.New(func(ctx context.Context, dsn string) error {
	return run(ctx, dsn, "CREATE TABLE thing (id integer PRIMARY KEY)")
})

func TestMain(m *testing.M) { goleak.VerifyTestMain(databases.Around(m)) }

func run(ctx context.Context, dsn, statement string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, statement)
	return errors.Join(err, conn.Close(ctx))
}

func TestEachTestHasItsOwnMigratedDatabase(t *testing.T) {
	t.Parallel()
	for range 8 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			// The same row would clash in a shared database.
			if err := run(t.Context(), databases.DSN(t), "INSERT INTO thing VALUES (1)"); err != nil {
				t.Error(err)
			}
		})
	}
}

// Not parallel: the environment belongs to the whole process.
func TestADatabaseOnAGivenServerGoesWithItsTestThoughItIsInUse(t *testing.T) {
	t.Setenv("TEST_DATABASE_URL", databases.DSN(t))
	server := testdb.New(nil)
	var dsn string
	t.Run("uses", func(t *testing.T) {
		dsn = server.DSN(t)
		conn, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
	})
	if err := run(t.Context(), dsn, "SELECT"); err == nil || !strings.Contains(err.Error(), "3D000") {
		t.Errorf("the database is still there: %v", err)
	}
}

// Not parallel: the environment belongs to the whole process.
func TestAGivenServerIsUsedAndLeftClean(t *testing.T) {
	given := databases.DSN(t)
	t.Setenv("TEST_DATABASE_URL", given)
	server := testdb.New(func(ctx context.Context, dsn string) error {
		return run(ctx, dsn, "CREATE TABLE other ()")
	})
	t.Run("uses", func(t *testing.T) {
		if err := run(t.Context(), server.DSN(t), "SELECT FROM other"); err != nil {
			t.Error(err)
		}
	})
	before := count(t, given)
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	if after := count(t, given); after != before-1 {
		t.Errorf("%d databases before, %d after: the template was to go", before, after)
	}
}

func count(t *testing.T, dsn string) (n int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_database").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
