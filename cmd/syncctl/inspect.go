package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/app"
	"github.com/nepfy/clerk-stripe-sync/internal/operator"
)

type inspectUser struct {
	ID   string `arg:"" help:"Id of the user, or of one of their customers, subscriptions or events."`
	JSON bool   `help:"As JSON."`
}

// Run shows how a user stands in the three systems.
func (c inspectUser) Run(s *session) error {
	o, err := app.NewInspector(s, s.environ)
	if err != nil {
		return err
	}
	defer o.Close()
	id, err := o.Resolve(s, c.ID)
	if err != nil {
		return err
	}
	if id == "" {
		return fmt.Errorf("%s leads to no user", c.ID)
	}
	view, err := o.Inspect(s, id)
	if err != nil {
		return err
	}
	if c.JSON {
		encoder := json.NewEncoder(s.out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(view)
	}
	return s.inspection(view)
}

// inspection prints how a user stands: first what is wrong, then the three systems side by side.
func (s *session) inspection(v operator.Inspection) error {
	heading := func(text string) { _, _ = fmt.Fprintf(s.out, "\n%s\n", text) } // the tables' errors tell
	_, _ = fmt.Fprintf(s.out, "user %s\n", v.UserID)
	if len(v.Findings) == 0 {
		_, _ = fmt.Fprintln(s.out, "The three systems agree, and nothing stands in the way.")
	}
	for _, finding := range v.Findings {
		_, _ = fmt.Fprintln(s.out, "! "+finding)
	}
	heading("CLERK, POSTGRESQL AND STRIPE")
	if err := s.sideBySide(v); err != nil {
		return err
	}
	if len(v.Runs)+len(v.Operations) > 0 {
		heading("IN FLIGHT")
		for _, o := range v.Operations {
			_, _ = fmt.Fprintf(s.out, "operation %s: %s, %s since %s\n", o.ID, o.Action, o.Status, o.CreatedAt.Format(time.RFC3339))
		}
		for _, run := range v.Runs {
			_, _ = fmt.Fprintf(s.out, "workflow %s (%s): %s %s\n", run.WorkflowID, run.Type, strings.ToLower(run.Status), run.Details)
			for _, a := range run.Pending {
				_, _ = fmt.Fprintf(s.out, "  %s, attempt %d %s\n", a.Activity, a.Attempt, a.LastFailure)
			}
			if run.Link != "" {
				_, _ = fmt.Fprintln(s.out, "  "+run.Link)
			}
		}
	}
	if len(v.Differences) > 0 {
		heading("DIFFERENCES")
		if err := s.driftTable(v.Differences); err != nil {
			return err
		}
	}
	heading("LAST EVENTS")
	if err := s.eventTable(v.Events); err != nil {
		return err
	}
	heading("LAST CHANGES")
	table := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	for _, l := range v.Audit {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", l.At.Format(time.RFC3339), l.Action, l.Subject, l.Caller) // written by Flush
	}
	return table.Flush()
}

// sideBySide prints what each system says.
func (s *session) sideBySide(v operator.Inspection) error {
	table := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	row := func(what, clerk, postgres, stripe string) {
		dash := func(text string) string {
			if text == "" {
				return "-"
			}
			return text
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", what, dash(clerk), dash(postgres), dash(stripe)) // written by Flush
	}
	row("", "CLERK", "POSTGRESQL", "STRIPE")
	postgres := v.Postgres
	if postgres == nil {
		postgres = &operator.PostgresView{}
	}
	var name, email, customers []string
	for _, c := range v.Stripe {
		name, email = append(name, c.Name), append(email, c.Email)
		customers = append(customers, c.CustomerID+words(c.Deleted, " (deleted)")+words(!c.Known && c.Error == "", " (unknown)"))
	}
	row("known", known(v.Clerk.Known, v.Clerk.Error), known(v.Postgres != nil, ""), "")
	row("name", v.Clerk.Name, postgres.Name, strings.Join(name, ", "))
	row("email", v.Clerk.Email, postgres.Email, strings.Join(email, ", "))
	metadata := v.Clerk.Projection()
	row("customer", metadata.CustomerID, strings.Join(postgres.Customers, ", "), strings.Join(customers, ", "))
	row("access", fmt.Sprint(metadata.SubscriptionActive), fmt.Sprint(postgres.Projection.SubscriptionActive), "")
	row("plan", metadata.Plan, postgres.Projection.Plan, "")
	row("version", fmt.Sprint(metadata.Version), fmt.Sprintf("%d, published %d", postgres.Projection.Version, postgres.Published), "")
	for _, each := range v.Subscriptions() {
		row(each.ID, words(metadata.SubscriptionID == each.ID, string(metadata.Status)), each.Postgres, each.Stripe)
	}
	return table.Flush()
}

func known(is bool, err string) string {
	switch {
	case err != "":
		return "cannot be asked"
	case is:
		return "yes"
	default:
		return "no"
	}
}
