package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/app"
	"github.com/nepfy/clerk-stripe-sync/internal/operator"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

type bulk struct {
	Start    startBulk    `cmd:"" help:"Bring in everything that Clerk and Stripe hold, and follow it to its end."`
	Status   statusBulk   `cmd:"" help:"Tell how far a bulk sync is; without an id, list the latest."`
	Watch    watchBulk    `cmd:"" help:"Follow a bulk sync to its end."`
	Pause    pauseBulk    `cmd:"" help:"Have a bulk sync stop behind the page that is under way."`
	Resume   resumeBulk   `cmd:"" help:"Have a bulk sync that is paused go on."`
	Cancel   cancelBulk   `cmd:"" help:"Have a bulk sync end behind the page that is under way; what was brought in stays."`
	Failures failuresBulk `cmd:"" help:"List what a bulk sync could not bring in, and why."`
}

type startBulk struct {
	DryRun    bool     `help:"Only count what differs."`
	ID        []string `help:"Only this Clerk user or Stripe customer; several times for several." name:"id" placeholder:"ID"`
	Since     string   `help:"Only what has changed since then, at most 29 days ago: a time, such as 2026-01-31T08:00:00Z, a day, such as 2026-01-31, or so long ago, such as 36h." placeholder:"TIME"`
	Alongside bool     `help:"Begin although another goes on."`
	Detach    bool     `help:"Do not wait for the end."`
}

// Run begins a bulk sync.
func (c startBulk) Run(s *session) error {
	return s.console(func(o *app.Operator) error {
		since, err := timeOf("--since", c.Since)
		if err != nil {
			return err
		}
		run, begun, err := o.StartBulk(s, operator.BulkOrder{DryRun: c.DryRun, IDs: c.ID, Since: since, Alongside: c.Alongside, Caller: caller})
		if err != nil {
			return err
		}
		if !begun {
			return fmt.Errorf("%s is under way since %s: follow it with syncctl bulk watch %s, or use --alongside", run.ID, run.StartedAt.Format(time.RFC3339), run.ID)
		}
		_, _ = fmt.Fprintf(s.out, "%s has begun\n", run.ID) // what follows tells
		if c.Detach {
			return nil
		}
		return s.follow(o, run.ID)
	})
}

type watchBulk struct {
	ID string `arg:"" help:"Id of the bulk sync."`
}

// Run follows a bulk sync.
func (c watchBulk) Run(s *session) error {
	return s.console(func(o *app.Operator) error { return s.follow(o, c.ID) })
}

type statusBulk struct {
	ID    string `arg:"" optional:"" help:"Id of the bulk sync."`
	Limit int    `help:"List at most so many." default:"10"`
	JSON  bool   `help:"As JSON, one bulk sync a line."`
}

// Run tells how far bulk syncs are.
func (c statusBulk) Run(s *session) error {
	return s.console(func(o *app.Operator) error {
		runs, err := o.Bulks(s, c.Limit)
		if c.ID != "" {
			var run *store.BulkRun
			if run, err = bulkOf(o.Bulk(s, c.ID)); err == nil {
				runs = []store.BulkRun{*run}
			}
		}
		if err != nil {
			return err
		}
		if c.JSON {
			encoder := json.NewEncoder(s.out)
			for _, run := range runs {
				if err := encoder.Encode(run); err != nil {
					return err
				}
			}
			return nil
		}
		if len(runs) == 0 {
			_, err := fmt.Fprintln(s.out, "there was no bulk sync yet")
			return err
		}
		table := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(table, "ID\tBEGAN\tBY\tSTANDS\tLOOKED AT\tDIFFERED\tBROUGHT IN\tFAILED\tIN QUARANTINE") // written by Flush
		for _, run := range runs {
			_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\n", run.ID, run.StartedAt.Format(time.RFC3339), run.Caller, standing(run),
				counted(run.Seen), counted(run.Found), run.Done, run.Failed, run.Quarantined)
		}
		return table.Flush()
	})
}

func bulkOf(run *store.BulkRun, err error) (*store.BulkRun, error) {
	if err == nil && run == nil {
		err = fmt.Errorf("there is no such bulk sync")
	}
	return run, err
}

func standing(run store.BulkRun) string {
	switch {
	case run.Failure != nil:
		return "ended early: " + *run.Failure
	case run.FinishedAt != nil && run.DryRun:
		return "ended, dry run"
	case run.FinishedAt != nil:
		return "ended"
	case run.Paused:
		return "paused at " + run.Step
	case run.Step == "":
		return "begins"
	default:
		return "reads " + run.Step
	}
}

type pauseBulk struct {
	ID string `arg:"" help:"Id of the bulk sync."`
}

// Run pauses a bulk sync.
func (c pauseBulk) Run(s *session) error { return s.change(c.ID, true) }

type resumeBulk struct {
	ID string `arg:"" help:"Id of the bulk sync."`
}

// Run has a bulk sync go on.
func (c resumeBulk) Run(s *session) error { return s.change(c.ID, false) }

func (s *session) change(id string, paused bool) error {
	return s.console(func(o *app.Operator) error { return s.stands(bulkOf(o.PauseBulk(s, id, paused))) })
}

type cancelBulk struct {
	ID string `arg:"" help:"Id of the bulk sync."`
}

// Run ends a bulk sync.
func (c cancelBulk) Run(s *session) error {
	return s.console(func(o *app.Operator) error { return s.stands(bulkOf(o.CancelBulk(s, c.ID))) })
}

func (s *session) stands(run *store.BulkRun, err error) error {
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "%s %s\n", run.ID, standing(*run))
	return err
}

type failuresBulk struct {
	ID    string `arg:"" help:"Id of the bulk sync."`
	Limit int    `help:"At most so many." default:"1000"`
}

// Run lists what could not be brought in.
func (c failuresBulk) Run(s *session) error {
	return s.console(func(o *app.Operator) error {
		if _, err := bulkOf(o.Bulk(s, c.ID)); err != nil {
			return err
		}
		list, err := o.BulkFailures(s, c.ID, account.Entity(""), c.Limit)
		if err != nil {
			return err
		}
		table := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
		for _, f := range list {
			again := "failed for good"
			if f.RetryAt != nil {
				again = "again at " + f.RetryAt.Format(time.RFC3339)
			}
			_, _ = fmt.Fprintf(table, "%s\t%s\t%s\ttried %d times, %s\n", f.Entity, f.At.Format(time.RFC3339), f.Reason, f.Attempts, again) // written by Flush
		}
		return table.Flush()
	})
}

// follow shows how a bulk sync goes on until it ends.
func (s *session) follow(o *app.Operator, id string) error {
	show := s.progress()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		run, err := bulkOf(o.Bulk(s, id))
		if err != nil {
			return err
		}
		if run.FinishedAt != nil {
			return s.ended(*run)
		}
		if err := show(*run); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-s.Done():
			_, err := fmt.Fprintf(s.out, "\nit goes on without this: syncctl bulk watch %s\n", id)
			return err
		}
	}
}

func (s *session) ended(run store.BulkRun) error {
	if run.Failure != nil {
		return fmt.Errorf("%s ended early: %s", run.ID, *run.Failure)
	}
	if run.Quarantined > 0 {
		run.Failed += run.Quarantined // nobody comes back to them any more
	}
	lines := []string{fmt.Sprintf("\n%s took %s", run.ID, run.FinishedAt.Sub(run.StartedAt).Round(time.Second)), "looked at: " + counted(run.Seen), "differed: " + counted(run.Found)}
	if !run.DryRun {
		lines = append(lines, fmt.Sprintf("brought in: %d, failed: %d", run.Done, run.Failed))
	}
	if run.Failed > 0 {
		lines = append(lines, "why: syncctl bulk failures "+run.ID)
	}
	for class := range maps.Keys(run.Found) {
		if account.Drift(class).Repair() != account.RepairAlone {
			lines = append(lines, "some of it needs a person: syncctl drift --run")
			break
		}
	}
	_, err := fmt.Fprintln(s.out, strings.Join(lines, "\n"))
	return err
}

// linesEvery is how often a line tells how far it is where there is no terminal.
const linesEvery = 10 * time.Second

// progress shows how far a bulk sync is: a bar for each list on a terminal, else a line now and
// then.
func (s *session) progress() func(store.BulkRun) error {
	out, isFile := s.out.(*os.File)
	if isFile && term.IsTerminal(int(out.Fd())) {
		return bars(out)
	}
	var told time.Time
	var before store.BulkRun
	return func(run store.BulkRun) error {
		if run.Step == before.Step && time.Since(told) < linesEvery || run.Step == "" {
			return nil
		}
		rate := ""
		if took := run.UpdatedAt.Sub(before.UpdatedAt).Seconds(); run.Step == before.Step && took > 0 {
			rate = fmt.Sprintf(", %.0f/s", float64(run.Seen[run.Step]-before.Seen[run.Step])/took)
			if left := total(run) - run.Seen[run.Step]; left > 0 && run.Seen[run.Step] > before.Seen[run.Step] {
				seconds := float64(left) / float64(run.Seen[run.Step]-before.Seen[run.Step]) * took
				rate += fmt.Sprintf(", %d left, %s to go", left, (time.Duration(seconds) * time.Second).Round(time.Second))
			}
		}
		before, told = run, time.Now()
		_, err := fmt.Fprintf(s.out, "%s: %d looked at%s; brought in so far: %d, failed: %d, in quarantine: %d\n", standing(run), run.Seen[run.Step], rate, run.Done, run.Failed, run.Quarantined)
		return err
	}
}

// total is how long the list is that is being read, as far as that is known.
func total(run store.BulkRun) int64 {
	switch {
	case run.Step == activities.BulkUsers && run.Users != nil:
		return *run.Users
	case run.Step == activities.BulkNamed:
		return int64(len(run.Entities))
	default:
		return 0
	}
}

func bars(out io.Writer) func(store.BulkRun) error {
	var bar *progressbar.ProgressBar
	var step string
	return func(run store.BulkRun) error {
		if run.Step == "" {
			return nil
		}
		if run.Step != step {
			if step != "" {
				_, _ = fmt.Fprintln(out) // the bar's own errors tell
			}
			step = run.Step
			length := total(run)
			if length == 0 {
				length = -1 // not known: the bar turns
			}
			bar = progressbar.NewOptions64(length, progressbar.OptionSetWriter(out), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
				progressbar.OptionSetPredictTime(true), progressbar.OptionSetWidth(30))
		}
		bar.Describe(fmt.Sprintf("%s; brought in %d, failed %d", standing(run), run.Done, run.Failed))
		return bar.Set64(run.Seen[run.Step])
	}
}
