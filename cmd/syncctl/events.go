package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/app"
	"github.com/nepfy/clerk-stripe-sync/internal/operator"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// caller is how the audit log names who asks from the command line.
const caller = "operator"

type events struct {
	List   listEvents   `cmd:"" help:"List events, the newest first."`
	Show   showEvent    `cmd:"" help:"Show one event."`
	Retry  retryEvents  `cmd:"" help:"Have events that wait or fail tried at once."`
	Replay replayEvents `cmd:"" help:"Have events that have ended taken again, as if they had just been delivered."`
}

// selection says which events are meant.
type selection struct {
	ID     []string `help:"Id of an event; several times for several." name:"id" placeholder:"ID"`
	Type   string   `help:"Event type, or its beginning with a * behind it." placeholder:"TYPE"`
	User   string   `help:"Clerk user id: the events about this user and their customers." placeholder:"USER"`
	Entity string   `help:"Whom the events are about, such as customer/cus_..." placeholder:"ENTITY"`
	Source string   `help:"clerk or stripe." placeholder:"SOURCE"`
	Status []string `help:"pending, waiting, failing, completed or ignored; several times for several." placeholder:"STATUS"`
	Since  string   `help:"Received from then on: a time, such as 2026-01-31T08:00:00Z, or so long ago, such as 2h." placeholder:"TIME"`
	Until  string   `help:"Received before then, as --since." placeholder:"TIME"`
}

func (s selection) selected() (operator.Selection, error) {
	selected := operator.Selection{IDs: s.ID, Type: s.Type, UserID: s.User, Entity: s.Entity, Source: s.Source}
	for _, status := range s.Status {
		selected.Statuses = append(selected.Statuses, store.EventStatus(status))
	}
	var err error
	if selected.Since, err = timeOf("--since", s.Since); err != nil {
		return selected, err
	}
	selected.Until, err = timeOf("--until", s.Until)
	return selected, err
}

// timeOf reads a time, or how long ago it was.
func timeOf(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil {
		return time.Now().Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("%w: %s is neither a time, such as 2026-01-31T08:00:00Z or 2026-01-31, nor so long ago, such as 2h", errUsage, flag)
}

// console is what commands about the inbox and about differences stand on.
func (s *session) console(do func(*app.Operator) error) error {
	o, err := app.NewConsole(s, s.environ)
	if err != nil {
		return err
	}
	defer o.Close()
	return mistake(do(o))
}

// mistake makes of a request that cannot be understood a usage error.
func mistake(err error) error {
	if m, ok := errors.AsType[*operator.Mistake](err); ok {
		return fmt.Errorf("%w: %s", errUsage, m.Text)
	}
	return err
}

type listEvents struct {
	selection
	Limit int  `help:"At most so many." default:"50"`
	JSON  bool `help:"As JSON, one event a line."`
}

// Run lists events.
func (c listEvents) Run(s *session) error {
	selected, err := c.selected()
	if err != nil {
		return err
	}
	return s.console(func(o *app.Operator) error {
		list, next, err := o.Events(s, selected, store.EventPlace{}, c.Limit)
		if err != nil {
			return err
		}
		if c.JSON {
			encoder := json.NewEncoder(s.out)
			for _, e := range list {
				if err := encoder.Encode(e); err != nil {
					return err
				}
			}
			return nil
		}
		if err := s.eventTable(list); err != nil {
			return err
		}
		if next != nil {
			_, err = fmt.Fprintf(s.out, "there are more; narrow it down, or raise --limit\n")
		}
		return err
	})
}

// eventTable prints events, and of those that have not ended why and since when.
func (s *session) eventTable(list []store.Event) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(s.out, "no events")
		return err
	}
	table := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "RECEIVED\tEVENT\tTYPE\tABOUT\tSTATUS\tSINCE\tREASON") // written by Flush
	for _, e := range list {
		since := "-"
		if e.HeldSince != nil {
			since = e.HeldSince.Format(time.RFC3339)
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.ReceivedAt.Format(time.RFC3339), e.EventID, e.Type, or(e.Entity, "-"), e.Status, since, or(e.Reason, "-"))
	}
	return table.Flush()
}

type showEvent struct {
	ID      string `arg:"" help:"Id of the event."`
	Payload bool   `help:"With its payload, which holds personal data."`
}

// Run shows an event.
func (c showEvent) Run(s *session) error {
	return s.console(func(o *app.Operator) error {
		e, payload, err := o.Event(s, "", c.ID)
		if err != nil {
			return err
		}
		if e == nil {
			return fmt.Errorf("there is no event %s", c.ID)
		}
		table := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
		line := func(name, value string) { _, _ = fmt.Fprintf(table, "%s\t%s\n", name, value) } // written by Flush
		line("event", e.EventID+" from "+e.Source)
		line("type", e.Type)
		line("about", or(e.Entity, "-"))
		line("status", string(e.Status))
		line("reason", or(e.Reason, "-"))
		line("received", e.ReceivedAt.Format(time.RFC3339)+words(e.Recovered, ", found in the provider's list"))
		line("waits or fails since", moment(e.HeldSince))
		line("attempts", fmt.Sprint(e.Attempts))
		line("tried again by itself", moment(e.RetryAt))
		line("ended", moment(e.CompletedAt))
		line("replays", fmt.Sprint(e.Replays))
		line("payload", words(e.Kept, "kept")+words(!e.Kept, "not kept"))
		if err := table.Flush(); err != nil {
			return err
		}
		if c.Payload && payload != "" {
			_, err = fmt.Fprintln(s.out, payload)
		}
		return err
	})
}

// words is the text if something is so, else nothing.
func words(so bool, text string) string {
	if so {
		return text
	}
	return ""
}

type retryEvents struct {
	selection
	DryRun bool `help:"Only count."`
}

// Run has events tried.
func (c retryEvents) Run(s *session) error {
	selected, err := c.selected()
	if err != nil {
		return err
	}
	return s.order(operator.Order{Selection: selected, DryRun: c.DryRun, Caller: caller}, "tried", (*operator.Console).Retry)
}

type replayEvents struct {
	selection
	DryRun bool `help:"Only count."`
}

// Run has events taken again.
func (c replayEvents) Run(s *session) error {
	selected, err := c.selected()
	if err != nil {
		return err
	}
	return s.order(operator.Order{Selection: selected, DryRun: c.DryRun, Caller: caller}, "taken again", (*operator.Console).Replay)
}

// order gives an order, again and again until all that is selected is done, and tells what came of
// it.
func (s *session) order(o operator.Order, done string, give func(*operator.Console, context.Context, operator.Order, store.EventPlace) (operator.Done, error)) error {
	return s.console(func(op *app.Operator) error {
		total := operator.Done{ByType: map[string]int{}, Skipped: map[string]int{}}
		for after := (&store.EventPlace{}); after != nil; {
			part, err := give(&op.Console, s, o, *after)
			if err != nil {
				return err
			}
			total.Events += part.Events
			for kind, n := range part.ByType {
				total.ByType[kind] += n
			}
			for why, n := range part.Skipped {
				total.Skipped[why] += n
			}
			after = part.Next
		}
		is := "are"
		if o.DryRun {
			is = "would be"
		}
		lines := []string{fmt.Sprintf("%d events %s %s", total.Events, is, done)}
		for _, kind := range slices.Sorted(maps.Keys(total.ByType)) {
			lines = append(lines, fmt.Sprintf("  %d %s", total.ByType[kind], kind))
		}
		for _, why := range slices.Sorted(maps.Keys(total.Skipped)) {
			lines = append(lines, fmt.Sprintf("%d are left alone: %s", total.Skipped[why], why))
		}
		_, err := fmt.Fprintln(s.out, strings.Join(lines, "\n"))
		return err
	})
}
