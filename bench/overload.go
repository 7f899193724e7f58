//go:build linux

package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/bench/internal/load"
)

// overload sends five times what can be taken, and looks whether what was answered 200 is there.
func (b *bench) overload(ctx context.Context) error {
	environ, err := b.stack.environment(ctx, "overload", map[string]string{"POKE_INTERVAL": "1h"})
	if err != nil {
		return err
	}
	p, err := b.stack.start(ctx, b.binary("starter-api"), environ)
	if err != nil {
		return err
	}
	defer func() { b.note(p.stop()) }()
	c := contender{name: "ours", process: p, path: stripePath, customers: 50, database: environ["DATABASE_URL"], inbox: inboxTable}
	can, err := b.measure(ctx, c, "can", load.Options{Connections: 64, During: b.during})
	if err != nil {
		return err
	}
	calm := load.Options{Connections: 256, During: b.during, Rate: can.PerSecond / 4}
	before, err := b.calmly(ctx, c, "before", calm)
	if err != nil {
		return err
	}
	flood, err := b.measure(ctx, c, "flood", load.Options{Connections: 2048, During: 10 * time.Second, Rate: 5 * can.PerSecond})
	if err != nil {
		return err
	}
	kept, err := count(ctx, environ["DATABASE_URL"], `SELECT count(*) FROM webhook_events WHERE event_id LIKE 'evt\_flood%'`)
	if err != nil {
		return err
	}
	// A worker would have taken them by then. There is none here, and they would be asked for again
	// and again.
	if err := b.settle(ctx, c); err != nil {
		return err
	}
	select {
	case <-time.After(time.Minute): // what it is like then is the question
	case <-ctx.Done():
		return ctx.Err()
	}
	after, err := b.calmly(ctx, c, "after", calm)
	if err != nil {
		return err
	}
	b.report.line("\n### Five times what it can take\n")
	b.report.line("%.0f events a second can be taken at 64 connections. For ten seconds %.0f a second are due, whether or not those before were answered, on at most 2048 connections. Before that and a minute later are the middle ones, by their p99, of %d runs. What was stored is counted, and then taken away, as a worker would take it: there is none here.",
		can.PerSecond, 5*can.PerSecond, b.runs)
	b.report.table("", "due", "not sent", "200", "503", "no answer", "p50", "p99", "slowest", "memory")
	for _, row := range []struct {
		name string
		measured
	}{{"before", before}, {"five times", flood}, {"a minute later", after}} {
		m := row.measured
		b.report.line("| %s | %d | %d | %d | %d | %d | %.1f ms | %.1f ms | %.0f ms | %.0f MiB |", row.name, m.Due, m.Unsent, m.Answers["200"], m.Answers["503"], m.Failed, m.P50, m.P99, m.Max, m.Memory)
	}
	b.report.line("\nOf %d that were answered 200, %d are stored. In the flood the slowest 200 took %.0f ms, the slowest 503 %.0f ms.",
		flood.Answers["200"], kept, flood.Slowest["200"], flood.Slowest["503"])
	return nil
}

// calmly measures several times, one after the other, and answers the run whose p99 is the middle
// one: of one run it is the work of its few slowest answers.
func (b *bench) calmly(ctx context.Context, c contender, name string, o load.Options) (measured, error) {
	var runs []measured
	for run := range b.runs {
		m, err := b.measure(ctx, c, fmt.Sprint(name, run), o)
		if err != nil {
			return m, err
		}
		runs = append(runs, m)
	}
	slices.SortFunc(runs, func(a, b measured) int { return cmp.Compare(a.P99, b.P99) })
	return runs[len(runs)/2], nil
}

func count(ctx context.Context, dsn, sql string) (n int, err error) {
	db, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return 0, fmt.Errorf("connecting: %w", err)
	}
	defer func() { _ = db.Close(ctx) }() // it has answered
	if err := db.QueryRow(ctx, sql).Scan(&n); err != nil {
		return 0, fmt.Errorf("counting: %w", err)
	}
	return n, nil
}
