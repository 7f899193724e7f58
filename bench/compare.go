//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/nepfy/clerk-stripe-sync/bench/internal/base"
	"github.com/nepfy/clerk-stripe-sync/bench/internal/load"
	"github.com/nepfy/clerk-stripe-sync/bench/internal/marks"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox"
)

// side is one of the two that are compared: the base, or this tree. Both have the same servers and
// the same baselines beside them; the programs, the databases, the namespaces and the sandbox are
// each side's own.
type side struct {
	name  string
	bench *bench
}

// programsOfASide are what is built of the base.
func programsOfASide() []string {
	return []string{"./cmd/starter-api", "./cmd/worker", "./cmd/syncctl"}
}

// against measures this tree's programs beside those of the base that marks name, run by run in
// turn, and returns an error where a ratio has become worse by more than the marks tolerate.
func (b *bench) against(ctx context.Context, root string, m marks.Marks) (err error) {
	dir, err := os.MkdirTemp("", "clerk-stripe-sync-base-")
	if err != nil {
		return fmt.Errorf("making room: %w", err)
	}
	defer func() { b.note(os.RemoveAll(dir)) }()
	progress("building the base, %s", m.Base)
	programs, err := base.Build(ctx, root, m.Base, dir, programsOfASide()...)
	if err != nil {
		return err
	}
	sides := make([]side, 0, 2)
	for _, s := range []struct{ name, binaries string }{{"base", programs}, {"this", b.binaries}} {
		one, stop, err := b.side(ctx, s.name, s.binaries)
		if err != nil {
			return err
		}
		defer stop()
		sides = append(sides, one)
	}
	sitting := marks.NewSitting()
	into := func(s side) map[marks.Key][]float64 {
		if s.name == "base" {
			return sitting.Base
		}
		return sitting.This
	}
	if err := b.compareDeliveries(ctx, m, sides, into); err != nil {
		return err
	}
	for _, one := range append(sides, side{bench: b}) {
		if err := one.bench.stack.tidy(ctx); err != nil {
			return fmt.Errorf("tidying up after deliveries: %w", err)
		}
	}
	if err := b.compareAgreement(ctx, m, sides, into); err != nil {
		return err
	}
	lines, err := m.Compare(sitting)
	if err != nil {
		return err
	}
	b.report.line("Measured beside the base %s in turn, %d runs of each; the medians, and in parentheses the lowest and the highest run.\n", m.Base, m.Runs)
	b.report.WriteString(marks.Table(lines))
	return m.Failure(lines)
}

// side prepares one.
func (b *bench) side(ctx context.Context, name, binaries string) (side, func(), error) {
	box, err := sandbox.Start(ctx, sandbox.Options{WebhookConcurrency: 16})
	if err != nil {
		return side{}, nil, err
	}
	own := &bench{binaries: binaries, tools: b.binaries, stack: &stack{dir: b.stack.dir, postgres: b.stack.postgres, temporal: b.stack.temporal, sandbox: box}}
	// A side's own program prepares its database: its schema is not that of the other.
	own.stack.setup = func(ctx context.Context, environ map[string]string) error {
		return setupBy(ctx, filepath.Join(binaries, "syncctl"), environ)
	}
	return side{name: name, bench: own}, func() {
		for _, err := range append(own.errs, box.Stop(context.WithoutCancel(ctx))) {
			b.note(err)
		}
	}, nil
}

// setupBy has a side's own syncctl prepare what its programs stand on.
func setupBy(ctx context.Context, syncctl string, environ map[string]string) error {
	cmd := exec.CommandContext(ctx, syncctl, "setup")
	for name, value := range environ {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s setup: %w\n%s", syncctl, err, bytes.TrimSpace(out))
	}
	return nil
}

// inTurn is who comes when in a run: each comes first in every other one, so that neither has the
// machine as the other left it more often than the other way round.
func inTurn(sides []side, run int) []side {
	order := slices.Clone(sides)
	if run%2 == 1 {
		slices.Reverse(order)
	}
	return order
}

// compareDeliveries measures how fast deliveries are answered, beside the bare handler that makes
// one insert each.
func (b *bench) compareDeliveries(ctx context.Context, m marks.Marks, sides []side, into func(side) map[marks.Key][]float64) error {
	bare, err := b.inserting(ctx)
	if err != nil {
		return err
	}
	defer func() { b.note(bare.process.stop()) }()
	contenders := map[string][]contender{}
	for _, s := range sides {
		both, err := s.bench.answering(ctx, s.name+"_")
		if err != nil {
			return fmt.Errorf("starting %s: %w", s.name, err)
		}
		defer func() {
			for _, c := range both {
				s.bench.note(c.process.stop())
			}
		}()
		contenders[s.name] = both
	}
	perSecond := func(by *bench, c contender, run, connections int) (float64, error) {
		measured, err := by.measure(ctx, c, fmt.Sprintf("r%dc%d%s", run, connections, c.name), load.Options{Connections: connections, During: time.Duration(m.For)})
		if err == nil {
			err = by.settle(ctx, c)
		}
		return measured.PerSecond, err
	}
	for run := range m.Runs {
		for _, connections := range m.Connections {
			// Both are compared with the same run of it: it is the same program.
			insert, err := perSecond(b, bare, run, connections)
			if err != nil {
				return err
			}
			for _, s := range inTurn(sides, run) {
				var figures []float64
				for _, c := range contenders[s.name] {
					figure, err := perSecond(s.bench, c, run, connections)
					if err != nil {
						return fmt.Errorf("measuring %s: %w", s.name, err)
					}
					figures = append(figures, figure)
				}
				ours, draining := figures[0], figures[1]
				add(into(s), marks.Key{Name: marks.OursToInsert, Connections: connections}, ours/insert)
				add(into(s), marks.Key{Name: marks.DrainingToOurs, Connections: connections}, draining/ours)
				progress("run %d of %d, %d connections, %s: %.0f a second, %.0f draining, and insert %.0f", run+1, m.Runs, connections, s.name, ours, draining, insert)
			}
		}
	}
	return nil
}

// compareAgreement measures how long it takes from a delivery until all agree, beside the bare
// workflow.
func (b *bench) compareAgreement(ctx context.Context, m marks.Marks, sides []side, into func(side) map[marks.Key][]float64) error {
	all := map[string][]payer{}
	for _, s := range sides {
		p, err := s.bench.startPrograms(ctx, s.name+"_agreement", nil)
		if err != nil {
			return fmt.Errorf("starting %s: %w", s.name, err)
		}
		defer p.stop()
		if all[s.name], err = s.bench.payers(ctx, payers); err != nil {
			return fmt.Errorf("having people buy at %s: %w", s.name, err)
		}
	}
	bare, err := b.bareWorkflows(ctx, payers, latency)
	if err != nil {
		return err
	}
	defer bare.stop()
	for _, s := range sides {
		defer s.bench.slowProviders()()
	}
	for run := range m.Runs {
		took := map[string][]time.Duration{}
		for i := range m.Changes {
			// Who was changed in the run before is set otherwise in this one, whatever the number of
			// changes.
			n := run*m.Changes + i
			for _, s := range inTurn(sides, n) {
				one, err := s.bench.change(ctx, all[s.name][n%payers], n/payers%2 == 0)
				if err != nil {
					return fmt.Errorf("changing a subscription at %s: %w", s.name, err)
				}
				took[s.name] = append(took[s.name], one)
			}
			one, err := bare.run(ctx, n%payers)
			if err != nil {
				return err
			}
			took[""] = append(took[""], one)
		}
		beside := middle(took[""])
		for _, s := range sides {
			add(into(s), marks.Key{Name: marks.AgreementToBare}, float64(middle(took[s.name]))/float64(beside))
			progress("run %d of %d, agreement, %s: %s, and a bare workflow %s", run+1, m.Runs, s.name, middle(took[s.name]), beside)
		}
	}
	return nil
}

func add(to map[marks.Key][]float64, key marks.Key, value float64) { to[key] = append(to[key], value) }

func middle(durations []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(durations))[len(durations)/2]
}

// progress tells whoever waits how far a sitting is.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s "+format+"\n", append([]any{time.Now().Format(time.TimeOnly)}, args...)...)
}
