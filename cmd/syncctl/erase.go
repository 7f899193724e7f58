package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/app"
)

// userCommands are what is done about one user.
type userCommands struct {
	Show  inspectUser `cmd:"" default:"withargs" help:"Show a user in Clerk, PostgreSQL and Stripe side by side, and what is in flight."`
	Erase eraseUser   `cmd:"" help:"Erase a user whose deletion was asked for, without waiting for what may still bill them."`
}

type eraseUser struct {
	ID  string `arg:"" help:"Clerk user id."`
	Yes bool   `help:"Do not ask."`
}

// Help explains the command.
func (eraseUser) Help() string {
	return "A deleted user is erased by itself as soon as nothing bills them any more. This is for one of whom that cannot be " +
		"found out. What may still bill them is listed first, and is written to the audit log."
}

var errNotErased = errors.New("nothing was erased")

// Run erases a user.
func (c eraseUser) Run(s *session) error {
	return s.console(func(o *app.Operator) error {
		open, err := o.MayStillBill(s, c.ID)
		if err != nil {
			return err
		}
		if err := s.unsettled(open); err != nil {
			return err
		}
		if !c.Yes {
			_, _ = fmt.Fprintf(s.out, "Erase %s now? What is listed may go on billing them. Type yes: ", c.ID) // the answer tells
			answer, _ := bufio.NewReader(os.Stdin).ReadString('\n')
			if strings.TrimSpace(answer) != "yes" {
				return errNotErased
			}
		}
		if err := o.EraseAnyway(s, c.ID, caller, open); err != nil {
			return err
		}
		_, err = fmt.Fprintf(s.out, "%s is erased\n", c.ID)
		return err
	})
}

// unsettled prints what may still bill a user.
func (s *session) unsettled(open []account.Unsettled) error {
	if len(open) == 0 {
		_, err := fmt.Fprintln(s.out, "nothing bills this user any more")
		return err
	}
	table := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "CUSTOMER\tMAY STILL BILL\tWHY") // written by Flush
	for _, u := range open {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\n", cmp.Or(u.CustomerID, "unknown"), u.Subject, u.Reason.Means())
	}
	return table.Flush()
}
