//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/bench/internal/load"
)

const (
	stripePath = "/api/webhooks/stripe"
	inboxTable = "webhook_events"
)

// contender is an endpoint that is measured.
type contender struct {
	name    string
	process *process
	path    string
	// customers is how many the events are about, and eventType what they tell, "" for the usual.
	customers int
	eventType string
	// database is where it stores events, and inbox the table; "" for one that stores none.
	database, inbox string
	// drains is set where its dispatcher has something to do.
	drains bool
}

// measured is what one run of one contender came to.
type measured struct {
	load.Report

	// CPU is what the program and PostgreSQL used together for an event that was answered 200, in
	// microseconds.
	CPU float64 `json:"cpu"`
	// Database is PostgreSQL's part of that.
	Database float64 `json:"database"`
	// Memory is the most that the program had, in MiB.
	Memory float64 `json:"memory"`
}

// ack measures how fast deliveries are answered, beside the two baselines.
func (b *bench) ack(ctx context.Context) error {
	contenders, err := b.contenders(ctx)
	if err != nil {
		return err
	}
	defer func() {
		for _, c := range contenders {
			b.note(c.process.stop())
		}
	}()
	b.report.line("\n### From the socket to the commit\n")
	b.report.line("Each connection sends its next event when the last was answered. `verify` only calls `ConstructEvent` of Stripe's library; `insert` also makes one insert a request; `ours` stores the event with its entity's poke while the dispatcher has nothing to do; `draining` is the same while it pokes Temporal for a thousand customers. CPU is that of the program and of PostgreSQL together for an event; memory the most that the program had. Each run begins with an empty inbox, and when that before it has left nothing to do.")
	for _, connections := range []int{1, 16, 64, 256} {
		results := map[string][]measured{}
		for run := range b.runs {
			for _, c := range contenders {
				m, err := b.measure(ctx, c, fmt.Sprintf("r%dc%d%s", run, connections, c.name), load.Options{Connections: connections, During: b.during})
				if err != nil {
					return err
				}
				results[c.name] = append(results[c.name], m)
				if err := b.settle(ctx, c); err != nil {
					return err
				}
			}
		}
		b.ackTable(connections, contenders, results)
	}
	return nil
}

// settle waits until a contender's dispatcher has done what it was given, takes away what was
// stored, and has PostgreSQL write what it has to: whoever is measured next would share the machine
// with that, and be charged for it. Nobody takes the events, and a product whose inbox holds
// hundreds of thousands that are due, which are counted, and asked for again and again, is not what
// is measured.
func (b *bench) settle(ctx context.Context, c contender) error {
	if c.drains {
		// What is routine, as the sweep asks for it, waits for looks that nobody takes here.
		waiting, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if err := whenNothingIs(waiting, c.database, `SELECT count(*) FROM pokes WHERE due_at IS NOT NULL AND urgent`, 20*time.Millisecond, func() bool { return true }); err != nil {
			return fmt.Errorf("waiting until nothing urgent is due: %w", err)
		}
	}
	if c.database != "" {
		db, err := pgx.Connect(ctx, c.database)
		if err != nil {
			return fmt.Errorf("connecting: %w", err)
		}
		defer func() { _ = db.Close(ctx) }() // it has answered
		if _, err := db.Exec(ctx, `TRUNCATE `+pgx.Identifier{c.inbox}.Sanitize()); err != nil {
			return fmt.Errorf("emptying an inbox: %w", err)
		}
	}
	return b.stack.checkpoint(ctx)
}

// ackTable tells what contenders came to at so many connections, and how they stand to each other.
func (b *bench) ackTable(connections int, contenders []contender, results map[string][]measured) {
	b.report.table(fmt.Sprint("connections: ", connections), "a second", "p50", "p99", "CPU", "of it PostgreSQL", "memory")
	middle := map[string]measured{}
	for _, c := range contenders {
		runs := results[c.name]
		m := measured{
			CPU: median(runs, func(m measured) float64 { return m.CPU }), Database: median(runs, func(m measured) float64 { return m.Database }),
			Memory: median(runs, func(m measured) float64 { return m.Memory }),
		}
		m.PerSecond = median(runs, func(m measured) float64 { return m.PerSecond })
		m.P50, m.P99 = median(runs, func(m measured) float64 { return m.P50 }), median(runs, func(m measured) float64 { return m.P99 })
		middle[c.name] = m
		b.report.line("| %s | %.0f | %.2f ms | %.2f ms | %.0f µs | %.0f µs | %.0f MiB |", c.name, m.PerSecond, m.P50, m.P99, m.CPU, m.Database, m.Memory)
	}
	verify, insert, ours, draining := middle["verify"], middle["insert"], middle["ours"], middle["draining"]
	b.report.line("\n`ours` is %.2f of `verify` and %.2f of `insert`; its p99 is %.2f and its CPU %.2f of those of `insert`. `draining` is %.2f of `ours`.",
		ours.PerSecond/verify.PerSecond, ours.PerSecond/insert.PerSecond, ours.P99/insert.P99, ours.CPU/insert.CPU, draining.PerSecond/ours.PerSecond)
}

func (b *bench) contenders(ctx context.Context) ([]contender, error) {
	bare, err := b.stack.start(ctx, b.tool("baseline"), map[string]string{"STRIPE_WEBHOOK_SECRET": b.stack.sandbox.StripeWebhookSecret}, "-addr", "ADDR")
	if err != nil {
		return nil, err
	}
	insert, err := b.inserting(ctx)
	if err != nil {
		return nil, err
	}
	ours, err := b.answering(ctx, "")
	if err != nil {
		return nil, err
	}
	return append([]contender{{name: "verify", process: bare, path: "/", customers: 50}, insert}, ours...), nil
}

// inserting starts the bare handler that makes one insert a request.
func (b *bench) inserting(ctx context.Context) (contender, error) {
	dsn, err := b.stack.database(ctx, "bare")
	if err != nil {
		return contender{}, err
	}
	environ := map[string]string{"STRIPE_WEBHOOK_SECRET": b.stack.sandbox.StripeWebhookSecret, "DATABASE_URL": dsn}
	insert, err := b.stack.start(ctx, b.tool("baseline"), environ, "-addr", "ADDR")
	return contender{name: "insert", process: insert, path: "/", customers: 50, database: dsn, inbox: "bare_events"}, err
}

// answering starts the program twice, on databases and namespaces whose names begin so: with a
// dispatcher that has nothing to do, and with one that has.
func (b *bench) answering(ctx context.Context, prefix string) ([]contender, error) {
	// Whoever was poked within the hour is not poked again: after the first events the dispatcher has
	// nothing to do.
	idle, err := b.stack.environment(ctx, prefix+"idle", map[string]string{"POKE_INTERVAL": "1h"})
	if err != nil {
		return nil, err
	}
	ours, err := b.stack.start(ctx, b.binary("starter-api"), idle)
	if err != nil {
		return nil, err
	}
	draining, err := b.stack.environment(ctx, prefix+"draining", nil)
	if err != nil {
		return nil, err
	}
	busy, err := b.stack.start(ctx, b.binary("starter-api"), draining)
	if err != nil {
		return nil, err
	}
	return []contender{
		{name: "ours", process: ours, path: stripePath, customers: 50, database: idle["DATABASE_URL"], inbox: inboxTable},
		// What is routine waits for looks, which nobody takes here; what is urgent is poked as fast as
		// can be.
		{name: "draining", process: busy, path: stripePath, customers: 1000, eventType: "customer.subscription.created", database: draining["DATABASE_URL"], inbox: inboxTable, drains: true},
	}, nil
}

// measure has the load generator, which is a program of its own, deliver to a contender.
func (b *bench) measure(ctx context.Context, c contender, prefix string, o load.Options) (m measured, err error) {
	pid := c.process.cmd.Process.Pid
	if err := forgetPeak(pid); err != nil {
		return m, err
	}
	before, err := b.used(pid)
	if err != nil {
		return m, err
	}
	generator := exec.CommandContext(ctx, b.tool("load"), "-url", "http://"+c.process.addr+c.path, "-connections", fmt.Sprint(o.Connections),
		"-for", o.During.String(), "-rate", fmt.Sprint(o.Rate), "-customers", fmt.Sprint(c.customers), "-type", c.eventType, "-prefix", prefix)
	generator.Env = append(os.Environ(), "LOAD_SECRET="+b.stack.sandbox.StripeWebhookSecret)
	generator.Stderr = os.Stderr
	out, err := generator.Output()
	if err != nil {
		return m, fmt.Errorf("the load generator: %w", err)
	}
	if err := json.Unmarshal(out, &m.Report); err != nil {
		return m, fmt.Errorf("the load generator said %q: %w", out, err)
	}
	after, err := b.used(pid)
	if err != nil {
		return m, err
	}
	if taken := float64(m.Answers["200"]); taken > 0 {
		m.Database = float64((after.database - before.database).Microseconds()) / taken
		m.CPU = float64((after.program-before.program).Microseconds())/taken + m.Database
	}
	m.Memory, err = peakMemory(pid)
	return m, err
}

// usage is the time that a program and PostgreSQL have used.
type usage struct{ program, database time.Duration }

func (b *bench) used(pid int) (u usage, err error) {
	if u.program, _, err = cpuOf(pid, false); err != nil {
		return u, err
	}
	u.database, err = cpuOfServer(b.stack.postgres.PID())
	return u, err
}

// median is the middle one of what runs came to.
func median(runs []measured, of func(measured) float64) float64 {
	values := make([]float64, len(runs))
	for i, m := range runs {
		values[i] = of(m)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
