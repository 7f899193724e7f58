package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nepfy/clerk-stripe-sync/client"
)

// The variables that say where the API is, and who asks.
const (
	variableAPIURL   = "SYNC_API_URL"
	variableAPIToken = "SYNC_API_TOKEN"
	defaultAPIURL    = "http://127.0.0.1:8080"
)

// api is a client of the API for the user whose token is in the environment.
func (s *session) api() (*client.ClientWithResponses, error) {
	token := strings.TrimSpace(s.environ[variableAPIToken])
	if token == "" {
		return nil, errors.New(variableAPIToken + " is not set: it holds a Clerk session token, of an admin to act for other users")
	}
	address := s.environ[variableAPIURL]
	if address == "" {
		address = defaultAPIURL
	}
	return client.Connect(address, func(context.Context) (string, error) { return token, nil }, &http.Client{Timeout: 2 * time.Minute})
}

// told prints what an operation was answered.
func (s *session) told(answer client.Answer, err error) error {
	if err != nil {
		return fmt.Errorf("asking the API: %w", err)
	}
	if err := client.Check(answer); err != nil {
		return err
	}
	var done client.Done
	if err := json.Unmarshal(answer.GetBody(), &done); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	_, err = fmt.Fprintf(s.out, "%s\n%s\n", done.Message, strings.TrimPrefix(done.Operation, "/api/operations/"))
	return err
}

// user is another user, for admins.
func user(id string) *string {
	if id == "" {
		return nil
	}
	return &id
}

type subscriptions struct {
	User string `help:"Another user, by their Clerk user id; for admins."`
}

// Run lists subscriptions.
func (c subscriptions) Run(s *session) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	list, err := api.ListSubscriptionsWithResponse(s, &client.ListSubscriptionsParams{UserId: user(c.User)})
	if err != nil {
		return fmt.Errorf("asking the API: %w", err)
	}
	if err := client.Check(list); err != nil {
		return err
	}
	if list.JSON200 == nil {
		_, err := fmt.Fprintln(s.out, "the user is being onboarded; ask again")
		return err
	}
	table := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "SUBSCRIPTION\tSTATUS\tACCESS\tPLAN\tENDS\tPERIOD UNTIL") // written by Flush
	for _, each := range list.JSON200.Subscriptions {
		ends := "-"
		switch {
		case each.CancelAtPeriodEnd:
			ends = "with its period"
		case each.CancelAt != nil:
			ends = each.CancelAt.Format(time.RFC3339)
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%t\t%s\t%s\t%s\n", each.Id, each.Status, each.Active, or(each.Plan, "-"), ends, moment(each.CurrentPeriodEnd))
	}
	return table.Flush()
}

func or(s *string, otherwise string) string {
	if s == nil {
		return otherwise
	}
	return *s
}

func moment(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Format(time.RFC3339)
}

type cancel struct {
	Subscription string `arg:"" help:"Stripe's id of the subscription."`
	Now          bool   `help:"At once, instead of with its current period."`
	User         string `help:"Whose it is, by their Clerk user id; for admins."`
}

// Run cancels a subscription.
func (c cancel) Run(s *session) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	at := client.CancelRequestAtPeriodEnd
	if c.Now {
		at = client.CancelRequestAtNow
	}
	return s.told(api.CancelSubscriptionWithResponse(s, c.Subscription, &client.CancelSubscriptionParams{UserId: user(c.User)}, client.CancelRequest{At: &at}))
}

type reactivate struct {
	Subscription string `arg:"" help:"Stripe's id of the subscription."`
	User         string `help:"Whose it is, by their Clerk user id; for admins."`
}

// Run takes a cancellation back.
func (c reactivate) Run(s *session) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	return s.told(api.ReactivateSubscriptionWithResponse(s, c.Subscription, &client.ReactivateSubscriptionParams{UserId: user(c.User)}))
}

type syncUser struct {
	User string `arg:"" optional:"" help:"Another user, by their Clerk user id; for admins."`
}

// Run has a user read anew.
func (c syncUser) Run(s *session) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	return s.told(api.SyncUserWithResponse(s, &client.SyncUserParams{UserId: user(c.User)}))
}

type operation struct {
	ID string `arg:"" help:"As a command printed it."`
}

// Run tells how far an operation is.
func (c operation) Run(s *session) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	answer, err := api.GetOperationWithResponse(s, c.ID)
	if err != nil {
		return fmt.Errorf("asking the API: %w", err)
	}
	if err := client.Check(answer); err != nil {
		return err
	}
	o := answer.JSON200
	_, err = fmt.Fprintf(s.out, "%s: %s %s\n", o.Action, o.Status, or(o.Reason, ""))
	return err
}
