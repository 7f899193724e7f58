package activities_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// tally counts what a store sends.
type tally struct {
	// statements are all of them, with begin and commit; turns are the ways to PostgreSQL and back
	// that they took.
	statements, turns atomic.Int64
}

// The methods by which the driver tells of statements.

func (c *tally) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.statements.Add(1)
	c.turns.Add(1)
	return ctx
}

func (c *tally) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (c *tally) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	c.statements.Add(int64(data.Batch.Len()))
	c.turns.Add(1)
	return ctx
}

func (c *tally) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

func (c *tally) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// databaseCost is what something came to in PostgreSQL: statements, ways there and back, rows that
// were written and their bytes, without what indexes need.
type databaseCost struct{ statements, turns, rows, bytes int64 }

func (c databaseCost) within(most databaseCost) bool {
	return c.statements <= most.statements && c.turns <= most.turns && c.rows <= most.rows && c.bytes <= most.bytes
}

// costOf counts what fn costs. A row that is written twice counts once.
func costOf(b *bench, counted *tally, fn func()) databaseCost {
	b.t.Helper()
	conn, err := pgx.Connect(b.t.Context(), b.dsn)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(b.t.Context())) }()
	var since int64
	if err := conn.QueryRow(b.t.Context(), `SELECT txid_current()`).Scan(&since); err != nil {
		b.t.Fatal(err)
	}
	statements, turns := counted.statements.Load(), counted.turns.Load()
	fn()
	cost := databaseCost{statements: counted.statements.Load() - statements, turns: counted.turns.Load() - turns}
	for _, table := range b.rows(`SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'`) {
		var rows, bytes int64
		sql := `SELECT count(*), coalesce(sum(pg_column_size(t.*)), 0) FROM ` + pgx.Identifier{table}.Sanitize() + ` t WHERE xmin::text::bigint > $1`
		if err := conn.QueryRow(b.t.Context(), sql, since).Scan(&rows, &bytes); err != nil {
			b.t.Fatal(err)
		}
		cost.rows, cost.bytes = cost.rows+rows, cost.bytes+bytes
	}
	return cost
}

// What a renewal costs PostgreSQL, and an event behind which nothing has changed. These are
// budgets: whoever raises one has a reason. The events themselves are not counted.
func TestWhatLooksCostPostgreSQL(t *testing.T) {
	t.Parallel()
	counted := &tally{}
	b := newBenchOn(t, account.DeleteCancelAtPeriodEnd, store.Options{MaxConns: 4, Tracer: counted})
	b.subscriptions.Prompt = &activities.PromptPublisher{Projections: &activities.Projections{Store: b.store, Clerk: b.clerk}}
	b.stripe.products["prod_1"] = pro("price_1")
	if _, err := b.catalogue.RecordProduct(t.Context(), activities.ProductInput{ProductID: "prod_1"}); err != nil {
		t.Fatal(err)
	}
	b.person("cus_1")
	began := time.Now().UTC().Truncate(time.Second)
	renewed := func(n int) {
		start := began.AddDate(0, n, 0)
		b.stripe.put(account.Subscription{ID: "sub_1", CustomerID: "cus_1", Status: account.StatusActive, Created: began, CurrentPeriodStart: start, CurrentPeriodEnd: start.AddDate(0, 1, 0),
			Items: []account.Item{{PriceID: "price_1", ProductID: "prod_1", Quantity: 1, UnitAmount: 2000, Currency: "usd", Interval: "month", IntervalCount: 1}}})
	}
	deliver := func(n int, types ...string) {
		for i, eventType := range types {
			object := fmt.Sprintf(`{"object":"subscription","id":"sub_1","customer":"cus_1","current_period_end":%d}`, began.AddDate(0, n+1, 0).Unix())
			switch kind, _, _ := strings.Cut(eventType, "."); kind {
			case "invoice":
				object = fmt.Sprintf(`{"object":"invoice","id":"in_%d","customer":"cus_1","subscription":"sub_1","status":"paid","amount_due":2000,"amount_paid":2000,"currency":"usd"}`, n)
			case "payment_intent":
				object = fmt.Sprintf(`{"object":"payment_intent","id":"pi_%d","customer":"cus_1","status":"succeeded","amount":2000,"amount_received":2000,"currency":"usd"}`, n)
			}
			if _, err := b.store.AddEvents(t.Context(), []store.NewEvent{{Source: "stripe", EventID: fmt.Sprintf("evt_%d_%d", n, i), Type: eventType, Entity: "customer/cus_1", Job: account.JobSync, ReceivedAt: time.Now(),
				Payload: fmt.Sprintf(`{"id":"evt_%d_%d","object":"event","type":%q,"created":%d,"data":{"object":%s}}`, n, i, eventType, began.Unix(), object)}}, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	look := func() {
		if result := b.record("cus_1"); result.Outcome != activities.OutcomeSynced || result.PublishDue || len(result.Commands) > 0 {
			t.Errorf("the look ended %+v", result)
		}
	}
	renewed(0)
	look()
	look() // the first ones make what stays
	renewal := func(n int) databaseCost {
		renewed(n)
		deliver(n, "customer.subscription.updated", "invoice.finalized", "invoice.paid", "payment_intent.succeeded")
		return costOf(b, counted, look)
	}
	renewal(1)
	if cost, most := renewal(2), (databaseCost{statements: 37, turns: 21, rows: 12, bytes: 4000}); !cost.within(most) {
		t.Errorf("a renewal cost %+v, at most %+v", cost, most)
	}
	deliver(3, "customer.updated")
	if cost, most := costOf(b, counted, look), (databaseCost{statements: 23, turns: 15, rows: 2, bytes: 500}); !cost.within(most) {
		t.Errorf("an event behind which nothing has changed cost %+v, at most %+v", cost, most)
	}
	if held := b.rows(`SELECT count(*)::text FROM webhook_events WHERE status <> 'completed'`); held[0] != "0" {
		t.Errorf("%s events have not ended", held[0])
	}
}
