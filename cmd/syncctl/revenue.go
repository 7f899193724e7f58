package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/app"
)

type revenue struct {
	JSON bool `help:"As JSON, amounts in the currency's smallest unit."`
}

// Help explains the command.
func (revenue) Help() string {
	return "Counted is what somebody is billed for: subscriptions that are active or past due and whose collection is not paused. " +
		"What is billed at other intervals is spread over months: a year has twelve months and 365 days."
}

// Run tells what comes in a month.
func (c revenue) Run(s *session) error {
	return s.console(func(o *app.Operator) error {
		r, err := o.Revenue(s)
		if err != nil {
			return err
		}
		if c.JSON {
			return json.NewEncoder(s.out).Encode(r)
		}
		table := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(table, "CURRENCY\tMRR\tSUBSCRIPTIONS") // written by Flush
		for _, m := range r.Monthly {
			_, _ = fmt.Fprintf(table, "%s\t%s\t%d\n", m.Currency, amount(m.Amount, m.Currency), m.Subscriptions)
		}
		if r.Free > 0 {
			_, _ = fmt.Fprintf(table, "\nof these free, or metered: %d\n", r.Free)
		}
		for _, code := range slices.Sorted(maps.Keys(r.UnpricedIn)) {
			_, _ = fmt.Fprintf(table, "\nunpriced, billed in %s at an amount that is not known exactly, and in no sum: %d\n", cmp.Or(code, "no currency"), r.UnpricedIn[code])
		}
		for _, why := range slices.Sorted(maps.Keys(r.Uncounted)) {
			_, _ = fmt.Fprintf(table, "\nnot counted, %s: %d", strings.ReplaceAll(why, "_", " "), r.Uncounted[why])
		}
		if len(r.Uncounted) > 0 {
			_, _ = fmt.Fprintln(table)
		}
		return table.Flush()
	})
}

// amount writes an amount of a currency's smallest unit in the currency itself.
func amount(smallest *big.Int, code string) string { return account.FormatAmount(smallest, code) }
