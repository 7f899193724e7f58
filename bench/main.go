//go:build linux

// Command bench measures the programs on this machine, in one sitting, beside what they are
// compared with.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nepfy/clerk-stripe-sync/bench/internal/marks"
	"github.com/nepfy/clerk-stripe-sync/internal/localstack"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one sitting.
type bench struct {
	stack    *stack
	binaries string // where the programs are that are measured
	tools    string // where the load generator and the baselines are
	runs     int
	during   time.Duration
	people   int
	many     int
	temporal string // where Temporal's program is
	report   report
	errs     []error
}

func run() (err error) {
	b := &bench{}
	flag.StringVar(&b.binaries, "binaries", "bin", "where the programs are")
	flag.IntVar(&b.runs, "runs", 3, "how often each is measured; medians are told")
	flag.DurationVar(&b.during, "for", 5*time.Second, "how long each measurement takes")
	flag.IntVar(&b.people, "people", 50_000, "how many users a bulk sync brings in")
	flag.IntVar(&b.many, "many", 1_000_000, "how many users the larger of two products has")
	only := flag.String("only", "", "parts, separated by commas; none for all: "+strings.Join(slices.Sorted(maps.Keys(parts(b))), ", "))
	against := flag.String("against", "", "the marks, of whose base this tree is to be no worse: compares both, and fails where it is; -for, -runs then only where given")
	document := flag.String("write", "", "the document to write to; none to print")
	flag.Parse()
	b.tools = b.binaries
	var accepted marks.Marks
	if *against != "" {
		if accepted, err = marks.Read(*against); err != nil {
			return err
		}
		flag.Visit(func(f *flag.Flag) {
			switch f.Name {
			case "for":
				accepted.For = marks.Duration(b.during)
			case "runs":
				accepted.Runs = b.runs
			}
		})
		if err := accepted.Check(); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	root, err := localstack.ProjectRoot(".")
	if err != nil {
		return err
	}
	if b.stack, err = startStack(ctx, root, os.Stderr); err != nil {
		return err
	}
	defer func() { err = errors.Join(append(b.errs, err, b.stack.stop(context.WithoutCancel(ctx)))...) }()
	if b.temporal, err = localstack.TemporalBinary(ctx, root, os.Stderr); err != nil {
		return err
	}
	if err := b.machine(ctx); err != nil {
		return err
	}
	if *against != "" {
		err := b.against(ctx, root, accepted)
		fmt.Print(b.report.String())
		return err
	}
	if *only == "crowd" {
		b.report.line("Each figure is of one run.")
	} else {
		b.report.line("Answers a second, from the socket to the commit and from a thousand users to a million, and customers a second are medians of %d interleaved runs, those of answers of %s each; all else is of one.", b.runs, b.during)
	}
	defer func() {
		if err != nil {
			fmt.Fprintln(os.Stderr, b.report.String()) // what was found before it failed
		}
	}()
	for _, name := range []string{"ack", "overload", "agreement", "saturation", "growth", "crowd"} {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), name) {
			continue
		}
		if err := parts(b)[name](ctx); err != nil {
			return fmt.Errorf("measuring %s: %w", name, err)
		}
		if err := b.stack.tidy(ctx); err != nil {
			return fmt.Errorf("tidying up after %s: %w", name, err)
		}
	}
	if *document != "" {
		begin := measuredBegin
		if *only == "crowd" {
			begin = crowdBegin
		}
		return b.report.writeTo(*document, begin)
	}
	fmt.Print(b.report.String())
	return nil
}

func parts(b *bench) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{"ack": b.ack, "overload": b.overload, "agreement": b.agreement, "saturation": b.saturation, "crowd": b.crowd, "growth": b.growth}
}

func (b *bench) binary(name string) string { return filepath.Join(b.binaries, name) }

func (b *bench) tool(name string) string { return filepath.Join(b.tools, name) }

func (b *bench) note(err error) {
	if err != nil {
		b.errs = append(b.errs, err)
	}
}
