package system

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// Row reads one row of the database for an assertion.
func (s *System) Row(ctx context.Context, sql string, args []any, into ...any) error {
	return s.asserting.QueryRow(ctx, sql, args...).Scan(into...)
}

// Count answers a number from the database, failing the test if it cannot.
func (s *System) Count(sql string, args ...any) int {
	s.t.Helper()
	var n int
	s.must(s.Row(context.Background(), sql, args, &n), "counting")
	return n
}

// Quiet waits until every delivery has been taken, no event is due but those that may stay, no
// poke is due and no projection is behind.
func (s *System) Quiet(mayWait bool) {
	s.t.Helper()
	due := `('pending', 'failing', 'waiting')`
	if mayWait {
		due = `('pending', 'failing')`
	}
	s.Until("the inbox is empty and Clerk is up to date", func(ctx context.Context) error {
		before, err := s.quietNow(ctx, due)
		if err != nil {
			return err
		}
		// What is done behind an empty inbox, such as the making of a customer, sends webhooks of
		// its own. It is quiet only if none has come while the ones under way were waited for.
		after, err := s.quietNow(ctx, due)
		if err == nil && after != before {
			err = fmt.Errorf("%d more events have come", after-before)
		}
		return err
	})
}

// Rest waits until nothing happens any more: no number was drawn for a while, and every event that
// causes an event has been answered. A wait that is too short makes a test fail, never pass.
func (s *System) Rest() {
	s.t.Helper()
	s.Quiet(true)
	last, since := int64(-1), time.Now()
	s.Until("the programs rest", func(ctx context.Context) error {
		var n int64
		if err := s.Row(ctx, `SELECT last_value FROM sync_seq`, nil, &n); err != nil {
			return err
		}
		if n != last {
			last, since = n, time.Now()
		}
		if time.Since(since) < 700*time.Millisecond {
			return errors.New("something was read or received a moment ago")
		}
		return nil
	})
	s.Quiet(true)
}

// quietNow waits for the deliveries under way and answers how many events are stored, or what is
// due.
func (s *System) quietNow(ctx context.Context, due string) (stored int, err error) {
	if err := s.Sandbox.Idle(ctx); err != nil {
		return 0, err
	}
	var events, pokes, behind int
	var example string
	err = s.Row(ctx, `SELECT (SELECT count(*) FROM webhook_events), (SELECT count(*) FROM webhook_events WHERE status IN `+due+`),
		(SELECT coalesce(min(type || ' ' || coalesce(entity, '') || ' ' || status || ': ' || coalesce(reason, '')), '') FROM webhook_events WHERE status IN `+due+`),
		(SELECT count(*) FROM pokes WHERE due_at IS NOT NULL), (SELECT count(*) FROM person_user WHERE projection_version <> published_version OR repair_seq IS NOT NULL)`,
		nil, &stored, &events, &example, &pokes, &behind)
	if err == nil && events+pokes+behind > 0 {
		err = fmt.Errorf("%d events due (%s), %d pokes due, %d users behind", events, example, pokes, behind)
	}
	return stored, err
}

// Agreement tells where the three systems disagree about a user, or answers nil. What Stripe's
// sandbox says is the truth.
func (s *System) Agreement(ctx context.Context, clerkUserID string, policy account.AccessPolicy) error {
	user, err := s.Store.UserByClerkID(ctx, clerkUserID)
	if err != nil {
		return err
	}
	if user == nil {
		return fmt.Errorf("PostgreSQL does not know user %s", clerkUserID)
	}
	stored, err := user.Projection()
	if err != nil {
		return err
	}
	metadata, err := json.Marshal(s.Sandbox.Clerk.PublicMetadata(clerkUserID)["stripe"])
	if err != nil {
		return fmt.Errorf("encoding Clerk's metadata: %w", err)
	}
	if !stored.Equals(metadata) {
		return fmt.Errorf("Clerk holds %s, PostgreSQL %s version %d (published %d)", metadata, user.ProjectionJSON, user.ProjectionVersion, user.PublishedVersion)
	}
	return s.rowsAgree(ctx, user.ID, policy)
}

// sandboxSubscription is what is compared of a subscription.
type sandboxSubscription struct {
	ID                string `json:"id"`
	Status            string `json:"status"`
	CurrentPeriodEnd  int64  `json:"current_period_end"`
	CancelAtPeriodEnd bool   `json:"cancel_at_period_end"`
	CancelAt          *int64 `json:"cancel_at"`
	PauseCollection   any    `json:"pause_collection"`
	Items             struct {
		Data []struct {
			Quantity int64 `json:"quantity"`
			Price    struct {
				ID string `json:"id"`
			} `json:"price"`
		} `json:"data"`
	} `json:"items"`
}

func (s *System) rowsAgree(ctx context.Context, userID string, _ account.AccessPolicy) error {
	rows, _ := s.asserting.Query(ctx, `SELECT stripe_customer_id FROM stripe_customers WHERE user_id = $1`, userID)
	customers, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("listing customers: %w", err)
	}
	for _, customer := range customers {
		for _, raw := range s.Sandbox.Stripe.Subscriptions(customer) {
			var want sandboxSubscription
			if err := json.Unmarshal(raw, &want); err != nil {
				return fmt.Errorf("decoding a subscription: %w", err)
			}
			if err := compareRow(ctx, s.asserting, want); err != nil {
				return err
			}
		}
	}
	return nil
}

func compareRow(ctx context.Context, conn *pgxpool.Pool, want sandboxSubscription) error {
	var status, price string
	var periodEnd, cancelAt *int64
	var atPeriodEnd, paused bool
	var quantity int64
	err := conn.QueryRow(ctx, `SELECT status, coalesce(stripe_price_id, ''), extract(epoch FROM current_period_end)::bigint, extract(epoch FROM cancel_at)::bigint,
		cancel_at_period_end, collection_paused, quantity FROM subscriptions WHERE stripe_subscription_id = $1`, want.ID).
		Scan(&status, &price, &periodEnd, &cancelAt, &atPeriodEnd, &paused, &quantity)
	if err != nil {
		return fmt.Errorf("subscription %s: %w", want.ID, err)
	}
	number := func(n *int64) int64 {
		if n == nil {
			return 0
		}
		return *n
	}
	got := fmt.Sprintf("%s %s until %d, ends %t %d, paused %t, %d", status, price, number(periodEnd), atPeriodEnd, number(cancelAt), paused, quantity)
	truth := fmt.Sprintf("%s %s until %d, ends %t %d, paused %t, %d", want.Status, want.Items.Data[0].Price.ID, want.CurrentPeriodEnd,
		want.CancelAtPeriodEnd, number(want.CancelAt), want.PauseCollection != nil, want.Items.Data[0].Quantity)
	if got != truth {
		return fmt.Errorf("subscription %s: PostgreSQL says %s, Stripe %s", want.ID, got, truth)
	}
	return nil
}

// Agree waits until the three systems agree about a user.
func (s *System) Agree(clerkUserID string, policy account.AccessPolicy) {
	s.t.Helper()
	s.Until("the three systems agree about "+clerkUserID, func(ctx context.Context) error {
		return s.Agreement(ctx, clerkUserID, policy)
	})
}

// Expire makes an operation a day old.
func (s *System) Expire(operation string) {
	s.t.Helper()
	_, err := s.asserting.Exec(context.Background(), `UPDATE operations SET expires_at = now() WHERE id = $1`, operation)
	s.must(err, "making an operation old")
}
