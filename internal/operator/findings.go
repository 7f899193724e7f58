package operator

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// compare says in a sentence each what does not agree, and what stands in the way. What is on its
// way shows here as well, for the moment that it takes.
func (v Inspection) compare() []string {
	var found []string
	say := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	switch {
	case v.Clerk.Error != "":
		say("Clerk cannot be asked: %s.", v.Clerk.Error)
	case !v.Clerk.Known && v.Postgres == nil:
		say("Neither Clerk nor we know this user.")
	case !v.Clerk.Known && v.Postgres.DeletionRequestedAt == nil:
		say("Clerk does not know this user, and nobody has told us of a deletion.")
	case v.Clerk.Known && v.Postgres == nil:
		say("Clerk knows this user and we do not.")
	}
	if p := v.Postgres; p != nil {
		found = append(found, p.compare(v)...)
	}
	for _, u := range v.Unsettled {
		say("%s of %s may still bill this deleted user: %s.", u.Subject, cmp.Or(u.CustomerID, "an unknown customer"), u.Reason.Means())
	}
	for _, e := range v.Events {
		if e.Status == store.EventFailing || e.Status == store.EventWaiting {
			reason := ""
			if e.Reason != nil {
				reason = *e.Reason
			}
			say("Event %s (%s) is %s: %s.", e.EventID, e.Type, e.Status, reason)
		}
	}
	for _, run := range v.Runs {
		for _, a := range run.Pending {
			if a.LastFailure != "" {
				say("%s of %s is at attempt %d: %s.", a.Activity, run.WorkflowID, a.Attempt, a.LastFailure)
			}
		}
	}
	return found
}

func (p *PostgresView) compare(v Inspection) (found []string) {
	say := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	switch {
	case p.DeletedAt != nil:
		say("This user is deleted, and what was personal is erased.")
	case p.DeletionRequestedAt != nil:
		say("This user is being deleted.")
	}
	if v.Clerk.Known && p.DeletionRequestedAt == nil {
		if p.Profile != v.Clerk.Profile {
			say("Name or email here are not Clerk's.")
		}
		if p.Projection.Version > 0 && !p.Projection.Equals(v.Clerk.Metadata) {
			say("Clerk's metadata are not our projection (version %d, published %d).", p.Projection.Version, p.Published)
		}
	}
	if p.PublishError != nil {
		say("The projection does not reach Clerk: %s.", *p.PublishError)
	}
	if len(p.Customers) == 0 && p.DeletionRequestedAt == nil {
		say("There is no customer at Stripe.")
	}
	for _, s := range v.Stripe {
		found = append(found, s.compare(p, v.Clerk)...)
	}
	return found
}

func (s StripeView) compare(p *PostgresView, c ClerkView) (found []string) {
	say := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	linked := slices.Contains(p.Customers, s.CustomerID)
	switch {
	case s.Error != "":
		say("Stripe cannot be asked about %s: %s.", s.CustomerID, s.Error)
		return found
	case !s.Known:
		say("Stripe does not know customer %s.", s.CustomerID)
		return found
	case s.Deleted && linked:
		say("Customer %s is deleted at Stripe and not here.", s.CustomerID)
	case !linked && !s.Deleted:
		say("Customer %s is not linked to this user.", s.CustomerID)
	}
	if c.Known && !s.Deleted && p.DeletionRequestedAt == nil && (c.Name != "" && c.Name != s.Name || c.Email != "" && !strings.EqualFold(c.Email, s.Email)) {
		say("Customer %s does not carry the name and email that Clerk has.", s.CustomerID)
	}
	for _, theirs := range s.Subscriptions {
		i := slices.IndexFunc(p.Subscriptions, func(ours SubscriptionView) bool { return ours.ID == theirs.ID })
		switch {
		case i < 0:
			say("Subscription %s (%s) is not stored here.", theirs.ID, theirs.Status)
		case p.Subscriptions[i].Status != theirs.Status || p.Subscriptions[i].Ends != theirs.Ends || !p.Subscriptions[i].CurrentPeriodEnd.Equal(theirs.CurrentPeriodEnd):
			say("Subscription %s is %s here and %s at Stripe.", theirs.ID, standing(p.Subscriptions[i]), standing(theirs))
		}
	}
	for _, ours := range p.Subscriptions {
		known := slices.ContainsFunc(s.Subscriptions, func(theirs SubscriptionView) bool { return theirs.ID == ours.ID })
		if ours.CustomerID == s.CustomerID && !known && ours.Status != account.StatusCanceled && ours.Status != account.StatusIncompleteExpired {
			say("Subscription %s is %s here and Stripe does not list it.", ours.ID, ours.Status)
		}
	}
	return found
}

func standing(s SubscriptionView) string {
	text := string(s.Status)
	if !s.CurrentPeriodEnd.IsZero() {
		text += " until " + s.CurrentPeriodEnd.Format("2006-01-02 15:04")
	}
	if s.Ends {
		text += " and then ends"
	}
	return text
}
