package main

import (
	"fmt"

	"github.com/nepfy/clerk-stripe-sync/internal/app"
)

type confirm struct {
	Customer string `arg:"" help:"Id of the Stripe customer."`
	User     string `arg:"" help:"The user whose it is, by their Clerk user id."`
}

// Help explains the command.
func (confirm) Help() string {
	return "Be sure of it: whoever opens a Payment Link, a pricing table or a buy button can name anybody. What is written " +
		"on the customer or on a subscription at Stripe wins over this."
}

// Run confirms whose a customer is.
func (c confirm) Run(s *session) error {
	return s.console(func(o *app.Operator) error {
		if err := o.Confirm(s, c.Customer, c.User, caller); err != nil {
			return err
		}
		_, err := fmt.Fprintf(s.out, "%s is confirmed as %s's, and is being read\n", c.Customer, c.User)
		return err
	})
}
