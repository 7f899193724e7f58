//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// The parts of a document that are written anew by a sitting: one by those that measure many
// people, who take their time, and one by all others.
const (
	measuredBegin = "<!-- what follows is written by make bench -->\n"
	crowdBegin    = "<!-- what follows is written by make bench BENCH='-only crowd' -->\n"
	measuredEnd   = "<!-- until here -->\n"
)

// report is what a sitting has found, in Markdown.
type report struct{ strings.Builder }

func (r *report) line(format string, args ...any) { _, _ = fmt.Fprintf(r, format+"\n", args...) }

// table begins a table.
func (r *report) table(columns ...string) {
	r.line("\n| %s |\n|%s", strings.Join(columns, " | "), strings.Repeat(" --- |", len(columns)))
}

// writeTo replaces the measured part of a document that begins so.
func (r *report) writeTo(path, begin string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the document: %w", err)
	}
	before, rest, begins := strings.Cut(string(text), begin)
	_, after, ends := strings.Cut(rest, measuredEnd)
	if !begins || !ends {
		return fmt.Errorf("%s has no place for what is measured", path)
	}
	if err := os.WriteFile(path, []byte(before+begin+r.String()+measuredEnd+after), 0o600); err != nil {
		return fmt.Errorf("writing the document: %w", err)
	}
	return nil
}

// machine says on what was measured, and what else it had to do.
func (b *bench) machine(ctx context.Context) error {
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return fmt.Errorf("reading the machine's load: %w", err)
	}
	memory, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return fmt.Errorf("reading the machine's memory: %w", err)
	}
	total := strings.Fields(string(memory))[1]
	model := "not named"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, ok := strings.Cut(string(text), "model name\t: "); ok {
			model, _, _ = strings.Cut(rest, "\n")
		}
	}
	db, err := pgx.Connect(ctx, b.stack.postgres.DSN())
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	defer func() { _ = db.Close(ctx) }() // it has answered
	var version string
	if err := db.QueryRow(ctx, `SHOW server_version`).Scan(&version); err != nil {
		return fmt.Errorf("asking for PostgreSQL's version: %w", err)
	}
	temporal, err := exec.CommandContext(ctx, b.temporal, "--version").Output()
	if err != nil {
		return fmt.Errorf("asking for Temporal's version: %w", err)
	}
	b.report.line("\n```\n%s\n```", strings.Join(os.Args, " "))
	b.report.line("\nMeasured on %s, in one sitting: %d CPUs (%s), %s kB of memory, %s. PostgreSQL %s, which waits for the disk; %s; %s.",
		time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), model, total, runtime.Version(), version, strings.TrimSpace(string(temporal)), runtime.GOOS)
	b.report.line("The machine's load before: %s (one, five and fifteen minutes). Everything ran on it at once: the load generator, the program, PostgreSQL and Temporal.",
		strings.Join(strings.Fields(string(load))[:3], ", "))
	return nil
}
