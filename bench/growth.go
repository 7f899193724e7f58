//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"go.temporal.io/sdk/client"

	"github.com/nepfy/clerk-stripe-sync/bench/internal/load"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

const (
	fewUsers = 1_000
	// lookups is how often each statement is timed.
	lookups = 1_000
)

// history is what a product has behind it: of each five users two pay, and all have been told of
// six times. Events keep their payload for thirty days only, and here it is gone.
func history(users int) []string {
	return []string{
		fmt.Sprintf(`INSERT INTO person_user (clerk_user_id, first_name, email, email_verified, stripe_customer_id, projection, projection_version, published_version)
			SELECT 'user_' || n, 'Ada', 'ada' || n || '@example.org', true, 'cus_' || n, '{"status":"active","subscriptionActive":true,"version":3}', 3, 3 FROM generate_series(1, %d) n`, users),
		`INSERT INTO stripe_customers (stripe_customer_id, user_id, email, name, link_source, linked_at) SELECT stripe_customer_id, id, email, 'Ada', 'created', now() FROM person_user`,
		`INSERT INTO customer_claims SELECT stripe_customer_id, clerk_user_id, 'customer:' || stripe_customer_id FROM person_user`,
		`INSERT INTO plans (plan_name, stripe_product_id) VALUES ('Old', 'prod_old')`,
		`INSERT INTO subscriptions (user_id, stripe_subscription_id, stripe_customer_id, plan_id, status, stripe_product_id, current_period_end)
			SELECT id, replace(stripe_customer_id, 'cus', 'sub'), stripe_customer_id, 1, 'active', 'prod_old', now() + interval '9 days' FROM person_user WHERE substr(clerk_user_id, 6)::int % 5 < 2`,
		`INSERT INTO subscription_changes (stripe_subscription_id, user_id, status, quantity, collection_paused, read_seq) SELECT stripe_subscription_id, user_id, 'active', 1, false, 1 FROM subscriptions`,
		`INSERT INTO payments (id, kind, stripe_customer_id, status, status_rank, amount, currency, event_id, told_at, charge_told_at)
			SELECT replace(stripe_customer_id, 'cus', 'in'), 'invoice', stripe_customer_id, 'paid', 7, 2000, 'usd', 'evt_old', now(), now() FROM subscriptions`,
		`INSERT INTO audit_log (action, user_id, clerk_user_id, entity, subject) SELECT 'user.created', id, clerk_user_id, 'user/' || clerk_user_id, clerk_user_id FROM person_user`,
		fmt.Sprintf(`INSERT INTO webhook_events (source, event_id, type, entity, status, received_at, completed_at)
			SELECT 'stripe', 'evt_old' || md5(n::text), 'invoice.paid', 'customer/cus_' || 1 + n %% %d, 'completed', now() - n * interval '1 second', now() - n * interval '1 second' FROM generate_series(1, %d) n`, users, 6*users),
		`VACUUM (ANALYZE)`,
	}
}

// product is one of so many users.
type product struct {
	users int
	p     *programs
	idle  *process
	env   map[string]string
	// told is what one customer's workflow has come to.
	told string
}

// growth measures whether what is done for one customer depends on how many there are.
func (b *bench) growth(ctx context.Context) error {
	defer b.stack.sandbox.ClerkFaults.Add(faults.Rule{Latency: latency})()
	defer b.stack.sandbox.StripeFaults.Add(faults.Rule{Latency: latency})()
	products := []*product{{users: fewUsers}, {users: b.many}}
	acks, agreements := map[int][]measured{}, map[int][]time.Duration{}
	for _, p := range products {
		if err := b.grow(ctx, p); err != nil {
			return err
		}
	}
	for run := range b.runs {
		for _, p := range products {
			m, err := b.measure(ctx, contender{name: "ours", process: p.idle, path: stripePath, customers: 50}, fmt.Sprintf("g%dr%d", p.users, run), load.Options{Connections: 64, During: b.during})
			if err != nil {
				return err
			}
			acks[p.users] = append(acks[p.users], m)
		}
	}
	for _, p := range products {
		b.note(p.idle.stop())
		if err := forgetAnswers(ctx, p); err != nil {
			return err
		}
	}
	b.report.line("\n### From a thousand users to a million\n")
	b.report.line("Two databases in one PostgreSQL: of each five users two pay, and each has been told of by six events. An answer at 64 connections, and an agreement of %d changes one after the other, as above, are measured in turn in both.", samples/2)
	b.report.table("users", "rows", "size", "answers a second", "p50", "p99", "agreement p50", "slowest")
	for _, p := range products {
		rows, size, err := b.extent(ctx, p)
		if err != nil {
			return err
		}
		list, err := b.agreementOf(ctx, p)
		if err != nil {
			return err
		}
		agreements[p.users] = list
		m := acks[p.users]
		b.report.line("| %d | %d | %.0f MiB | %.0f | %.1f ms | %.1f ms | %d ms | %d ms |", p.users, rows, size,
			median(m, func(m measured) float64 { return m.PerSecond }), median(m, func(m measured) float64 { return m.P50 }), median(m, func(m measured) float64 { return m.P99 }),
			list[len(list)/2].Milliseconds(), list[len(list)-1].Milliseconds())
	}
	of := func(users int) float64 {
		return median(acks[users], func(m measured) float64 { return m.PerSecond })
	}
	middle := func(users int) float64 { return agreements[users][len(agreements[users])/2].Seconds() }
	b.report.line("\nWith %d times the users an answer takes %.2f times as long, and an agreement %.2f times.", b.many/fewUsers, of(fewUsers)/of(b.many), middle(b.many)/middle(fewUsers))
	large := products[len(products)-1].env["DATABASE_URL"]
	bytes, err := count(ctx, large, `SELECT pg_total_relation_size('webhook_events') / count(*) FROM webhook_events`)
	if err != nil {
		return err
	}
	b.report.line("\nAn event that has ended and whose payload is gone takes %d bytes, with all indexes.", bytes)
	b.report.line("\nOf a customer who pays one workflow is open, however many there are: %s.", products[0].told)
	return b.lookUp(ctx, products)
}

// grow makes a product and starts the programs on it.
func (b *bench) grow(ctx context.Context, p *product) (err error) {
	name := fmt.Sprint("grown", p.users)
	if p.env, err = b.stack.environment(ctx, name, map[string]string{"POKE_INTERVAL": "1h"}); err != nil {
		return err
	}
	db, err := pgx.Connect(ctx, p.env["DATABASE_URL"])
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	defer func() { _ = db.Close(ctx) }() // it has answered
	for _, sql := range history(p.users) {
		if _, err := db.Exec(ctx, sql); err != nil {
			return fmt.Errorf("making a history: %w", err)
		}
	}
	p.idle, err = b.stack.start(ctx, b.binary("starter-api"), p.env)
	return err
}

// forgetAnswers removes what measuring the answers has left to be done: it would be done beside
// what is measured next.
func forgetAnswers(ctx context.Context, p *product) error {
	db, err := pgx.Connect(ctx, p.env["DATABASE_URL"])
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	defer func() { _ = db.Close(ctx) }() // it has answered
	for _, sql := range []string{`DELETE FROM webhook_events WHERE event_id NOT LIKE 'evt\_old%'`, `DELETE FROM pokes`, `VACUUM (ANALYZE) webhook_events, pokes`} {
		if _, err := db.Exec(ctx, sql); err != nil {
			return fmt.Errorf("removing what is due: %w", err)
		}
	}
	return nil
}

// extent is how many rows a product has, and how large it is.
func (b *bench) extent(ctx context.Context, p *product) (rows int, mebibytes float64, err error) {
	dsn := p.env["DATABASE_URL"]
	for _, table := range []string{"person_user", "stripe_customers", "customer_claims", "subscriptions", "subscription_changes", "payments", "audit_log"} {
		n, err := count(ctx, dsn, `SELECT count(*) FROM `+table)
		if err != nil {
			return 0, 0, err
		}
		rows += n
	}
	n, err := count(ctx, dsn, `SELECT count(*) FROM webhook_events WHERE event_id LIKE 'evt\_old%'`)
	if err != nil {
		return 0, 0, err
	}
	size, err := count(ctx, dsn, `SELECT pg_database_size(current_database()) / 1024 / 1024`)
	return rows + n, float64(size), err
}

// agreementOf times changes of customers of a product.
func (b *bench) agreementOf(ctx context.Context, p *product) (list []time.Duration, err error) {
	delete(p.env, "POKE_INTERVAL")
	if p.p, err = b.startProgramsOn(ctx, p.env); err != nil {
		return nil, err
	}
	defer p.p.stop()
	all, err := b.payers(ctx, payers)
	if err != nil {
		return nil, err
	}
	for i := range samples / 2 {
		took, err := b.change(ctx, all[i%len(all)], i/len(all)%2 == 0)
		if err != nil {
			return nil, err
		}
		list = append(list, took)
	}
	slices.Sort(list)
	p.told, err = b.historyOf(ctx, p, all[0])
	return list, err
}

// historyOf says what one customer's workflow has come to.
func (b *bench) historyOf(ctx context.Context, p *product, of payer) (string, error) {
	var customer string
	db, err := pgx.Connect(ctx, p.env["DATABASE_URL"])
	if err != nil {
		return "", fmt.Errorf("connecting: %w", err)
	}
	defer func() { _ = db.Close(ctx) }() // it has answered
	if err := db.QueryRow(ctx, `SELECT stripe_customer_id FROM subscriptions WHERE stripe_subscription_id = $1`, of.subscription).Scan(&customer); err != nil {
		return "", fmt.Errorf("looking for a customer: %w", err)
	}
	c, err := client.DialContext(ctx, client.Options{HostPort: b.stack.temporal.Address(), Namespace: p.env["TEMPORAL_NAMESPACE"], Logger: silent{}})
	if err != nil {
		return "", fmt.Errorf("connecting to Temporal: %w", err)
	}
	defer c.Close()
	described, err := c.DescribeWorkflowExecution(ctx, workflows.CustomerWorkflowID(customer), "")
	if err != nil {
		return "", fmt.Errorf("describing a workflow: %w", err)
	}
	answer, err := c.QueryWorkflow(ctx, workflows.CustomerWorkflowID(customer), "", workflows.QueryState)
	if err != nil {
		return "", fmt.Errorf("asking a workflow: %w", err)
	}
	var state workflows.LifecycleState
	if err := answer.Get(&state); err != nil {
		return "", fmt.Errorf("reading what a workflow says: %w", err)
	}
	info := described.GetWorkflowExecutionInfo()
	return fmt.Sprintf("after %d looks its history had %d events and %d bytes", state.Syncs, info.GetHistoryLength(), info.GetHistorySizeBytes()), nil
}

// lookUp times what is asked of the database all the time.
func (b *bench) lookUp(ctx context.Context, products []*product) error {
	statements := []struct{ name, sql string }{
		{"a user with their access, by Clerk's id", `SELECT projection FROM person_user WHERE clerk_user_id = 'user_' || $1::text`},
		{"the subscriptions of a customer", `SELECT count(*) FROM subscriptions WHERE stripe_customer_id = 'cus_' || $1::text`},
		{"the last events of a customer", `SELECT count(*) FROM (SELECT event_id FROM webhook_events WHERE entity = 'customer/cus_' || $1::text ORDER BY seq DESC LIMIT 20) e`},
		{"what is due in the inbox", `SELECT count(*) FROM webhook_events WHERE status IN ('pending', 'failing', 'waiting') AND retry_at <= now() AND $1::text IS NOT NULL`},
	}
	header := []string{"median of a statement"}
	for _, p := range products {
		header = append(header, fmt.Sprint(p.users, " users"))
	}
	b.report.table(header...)
	for _, s := range statements {
		cells := []string{s.name}
		for _, p := range products {
			took, err := timed(ctx, p, s.sql)
			if err != nil {
				return err
			}
			cells = append(cells, fmt.Sprintf("%d µs", took.Microseconds()))
		}
		b.report.line("| %s |", strings.Join(cells, " | "))
	}
	return nil
}

func timed(ctx context.Context, p *product, sql string) (time.Duration, error) {
	db, err := pgx.Connect(ctx, p.env["DATABASE_URL"])
	if err != nil {
		return 0, fmt.Errorf("connecting: %w", err)
	}
	defer func() { _ = db.Close(ctx) }() // it has answered
	var all []time.Duration
	for range lookups {
		began := time.Now()
		rows, err := db.Query(ctx, sql, fmt.Sprint(1+rand.N(p.users)))
		if err == nil {
			rows.Close()
			err = rows.Err()
		}
		if err != nil {
			return 0, fmt.Errorf("timing a statement: %w", err)
		}
		all = append(all, time.Since(began))
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}
