package activities_test

import (
	"context"
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/nepfy/clerk-stripe-sync/internal/localstack/testdb"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// databases are shared by the tests of this package; each test has one of its own.
var databases = testdb.New(migrate)

func TestMain(m *testing.M) { goleak.VerifyTestMain(databases.Around(m)) }

func migrate(ctx context.Context, dsn string) error {
	m, err := store.NewMigrator(dsn)
	if err != nil {
		return err
	}
	_, err = m.Up(ctx)
	return errors.Join(err, m.Close())
}

func openStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{DSN: databases.DSN(t), MaxConns: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}
