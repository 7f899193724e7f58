package app

import (
	"context"
	"errors"
	"fmt"
	"io"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/nepfy/clerk-stripe-sync/internal/config"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// Setup does all that a new environment needs: migrations, search attributes and schedules. Doing
// it again changes nothing but what is configured otherwise by now. What it does it tells the
// writer, a line each.
func Setup(ctx context.Context, environ map[string]string, out io.Writer) error {
	c, err := config.LoadSetup(environ)
	if err != nil {
		return err
	}
	if err := Migrate(ctx, environ, out); err != nil {
		return err
	}
	options, err := TemporalOptions(environ)
	if err != nil {
		return err
	}
	temporal, err := client.DialContext(ctx, options)
	if err != nil {
		return fmt.Errorf("connecting to Temporal at %q: check TEMPORAL_ADDRESS: %w", options.HostPort, err)
	}
	defer temporal.Close()
	namespace := options.Namespace
	if namespace == "" {
		namespace = client.DefaultNamespace
	}
	if err := registerSearchAttributes(ctx, temporal, namespace); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "search attributes are registered in namespace %s\n", namespace); err != nil {
		return err
	}
	for _, s := range schedules(c.Schedules) {
		done, err := s.ensure(ctx, temporal.ScheduleClient())
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(out, done); err != nil {
			return err
		}
	}
	return nil
}

// Migrate brings the schema up to date, and the number sequence past what is stored.
func Migrate(ctx context.Context, environ map[string]string, out io.Writer) error {
	return withMigrator(environ, func(m *store.Migrator) error {
		applied, err := m.Up(ctx)
		if err != nil {
			return err
		}
		for _, name := range applied {
			if _, err := fmt.Fprintf(out, "applied %s\n", name); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintln(out, "the database schema is current"); err != nil {
			return err
		}
		reached, err := m.RaiseNumbers(ctx)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(out, "the number sequence is past all that is stored: %d\n", reached)
		return err
	})
}

// MigrateDown takes the latest migration back.
func MigrateDown(ctx context.Context, environ map[string]string, out io.Writer) error {
	return withMigrator(environ, func(m *store.Migrator) error {
		name, err := m.Down(ctx)
		if err != nil {
			return err
		}
		if name == "" {
			_, err = fmt.Fprintln(out, "no migration is applied")
			return err
		}
		_, err = fmt.Fprintf(out, "took back %s\n", name)
		return err
	})
}

// MigrationStatus lists the migrations.
func MigrationStatus(ctx context.Context, environ map[string]string, out io.Writer) error {
	return withMigrator(environ, func(m *store.Migrator) error {
		list, err := m.Status(ctx)
		if err != nil {
			return err
		}
		for _, s := range list {
			state := "pending"
			if s.Applied {
				state = "applied"
			}
			if _, err := fmt.Fprintf(out, "%-8s %s\n", state, s.Name); err != nil {
				return err
			}
		}
		return nil
	})
}

func withMigrator(environ map[string]string, do func(*store.Migrator) error) error {
	c, err := config.LoadSetup(environ)
	if err != nil {
		return err
	}
	m, err := store.NewMigrator(c.DatabaseURL.Reveal())
	if err != nil {
		return err
	}
	return errors.Join(do(m), m.Close())
}

// registerSearchAttributes adds what is missing; the server takes what is there already as done.
func registerSearchAttributes(ctx context.Context, temporal client.Client, namespace string) error {
	_, err := temporal.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{
		Namespace: namespace,
		SearchAttributes: map[string]enumspb.IndexedValueType{
			workflows.SearchClerkUserID:        enumspb.INDEXED_VALUE_TYPE_KEYWORD,
			workflows.SearchStripeCustomerID:   enumspb.INDEXED_VALUE_TYPE_KEYWORD,
			workflows.SearchSubscriptionStatus: enumspb.INDEXED_VALUE_TYPE_KEYWORD,
			workflows.SearchLastFailure:        enumspb.INDEXED_VALUE_TYPE_KEYWORD,
		},
	})
	if isUnimplementedOrDenied(err) {
		return fmt.Errorf("this Temporal service does not let clients register search attributes; add the keywords %s, %s, %s and %s in its own console",
			workflows.SearchClerkUserID, workflows.SearchStripeCustomerID, workflows.SearchSubscriptionStatus, workflows.SearchLastFailure)
	}
	if err != nil {
		return fmt.Errorf("registering search attributes: %w", err)
	}
	return nil
}
