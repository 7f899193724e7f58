package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/app"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

type drift struct {
	Class   string   `help:"List the differences of this class." placeholder:"CLASS"`
	Compare bool     `help:"Compare everything first, and wait for the end of it." name:"run"`
	Repair  []string `help:"Compare everything, and have the differences of this class repaired; several times for several, or all for those that mend by themselves." placeholder:"CLASS"`
	Limit   int      `help:"List at most so many." default:"100"`
	JSON    bool     `help:"As JSON, one difference a line; with --class all, those of all classes."`
}

// Help explains the command.
func (drift) Help() string {
	return "Without anything it counts the differences that are known. Nothing is repaired unless --repair says so, " +
		"and then only after everything was read to its end."
}

// Run tells in what the systems differ.
func (c drift) Run(s *session) error {
	return s.console(func(o *app.Operator) error {
		if c.Compare || len(c.Repair) > 0 {
			if err := c.reconcile(s, o); err != nil {
				return err
			}
		}
		if c.Class != "" || c.JSON {
			return c.list(s, o)
		}
		classes, err := o.Drift(s)
		if err != nil {
			return err
		}
		if len(classes) == 0 {
			_, err := fmt.Fprintln(s.out, "no difference is known")
			return err
		}
		table := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(table, "CLASS\tOPEN\tOLDEST\tREPAIR\tWHAT THAT DOES, OR WHAT TO DO") // written by Flush
		for _, each := range classes {
			_, _ = fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\n", each.Class, each.Open, each.Oldest.Format(time.RFC3339), each.Repair, each.Remedy)
		}
		return table.Flush()
	})
}

// everyClass stands for all classes.
const everyClass = "all"

func (c drift) list(s *session, o *app.Operator) error {
	class := account.Drift(c.Class)
	if c.Class == everyClass {
		class = ""
	}
	list, err := o.OpenDifferences(s, class, 0, c.Limit)
	if err != nil {
		return err
	}
	if c.JSON {
		encoder := json.NewEncoder(s.out)
		for _, d := range list {
			if err := encoder.Encode(d); err != nil {
				return err
			}
		}
		return nil
	}
	return s.driftTable(list)
}

func (s *session) driftTable(list []store.OpenDifference) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(s.out, "no difference is known")
		return err
	}
	table := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "CLASS\tABOUT\tSUBJECT\tSINCE\tLAST SEEN\tDETAIL") // written by Flush
	for _, d := range list {
		detail, err := json.Marshal(d.Detail)
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", d.Class, d.Entity, d.Subject, d.SeenAt.Format(time.RFC3339), d.LastSeen.Format(time.RFC3339), detail)
	}
	return table.Flush()
}

// repairs are the classes that are to be repaired.
func (c drift) repairs() (classes []account.Drift) {
	for _, name := range c.Repair {
		if name != everyClass {
			classes = append(classes, account.Drift(name))
			continue
		}
		for _, class := range account.DriftClasses() {
			if class.Repair() == account.RepairAlone {
				classes = append(classes, class)
			}
		}
	}
	return classes
}

// reconcile has everything compared and waits for the end.
func (c drift) reconcile(s *session, o *app.Operator) error {
	runID, begun, err := o.Reconcile(s, caller, c.repairs())
	if err != nil {
		return err
	}
	if !begun {
		if len(c.Repair) > 0 {
			return errors.New("a comparison is under way already; ask again when it has ended")
		}
		_, _ = fmt.Fprintln(s.out, "a comparison is under way already; waiting for its end")
	}
	_, _ = fmt.Fprintf(s.out, "comparing everything, workflow %s\n", workflows.OnDemandReconciliationID)
	var result workflows.ReconciliationResult
	err = o.Runs.Client.GetWorkflow(s, workflows.OnDemandReconciliationID, runID).GetWithOptions(s, &result, client.WorkflowRunGetOptions{})
	if err != nil {
		return fmt.Errorf("the comparison did not come to its end; nothing was closed or repaired: %w", err)
	}
	_, err = fmt.Fprintf(s.out, "compared: %s\ndifferences: %s\n", counted(result.Compared), counted(result.Confirmed))
	if err == nil && result.Unread > 0 {
		_, err = fmt.Fprintf(s.out, "%d could not be read, and nothing is said of them: see unread in GET /api/drift/runs\n", result.Unread)
	}
	if err == nil && len(c.Repair) > 0 {
		_, err = fmt.Fprintf(s.out, "repairs: asked for %d, %d differences are not mended yet\n", result.Asked, result.Unmended)
	}
	return err
}

func counted(of map[string]int64) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(of)) {
		parts = append(parts, fmt.Sprintf("%d %s", of[name], name))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}
