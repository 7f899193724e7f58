// Package intake decides what an event is about, and whether it is ours: for deliveries at the
// door, for events that are found to have been missed, and for those that are replayed, by the same
// rules.
package intake

import (
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/clerkevent"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeevent"
)

// The sources of events.
const (
	SourceClerk  = "clerk"
	SourceStripe = "stripe"
)

// Why an event is ignored. It is kept without its payload.
const (
	IgnoredType       = "type not handled"
	IgnoredMode       = "other mode"
	IgnoredAccount    = "other account"
	IgnoredInstance   = "other Clerk instance"
	IgnoredNoCustomer = "no customer"
	IgnoredMalformed  = "not an event"
	IgnoredNoUser     = "no user id"
)

// Rules say which events are ours.
type Rules struct {
	// Livemode is the mode of our Stripe key. Events of the other mode are ignored.
	Livemode bool
	// Identity is which accounts the database belongs to, as far as it is known.
	Identity store.Identity
}

// Classify fills in what an event is about: its type, entity, job and claims; or why it is ignored,
// and then it has neither entity nor payload.
func (r Rules) Classify(event *store.NewEvent) {
	if event.Source == SourceClerk {
		r.clerk(event)
	} else {
		r.stripe(event)
	}
	if event.Ignore != "" {
		event.Entity, event.Payload = "", ""
	}
}

func (r Rules) stripe(event *store.NewEvent) {
	parsed, err := stripeevent.ParseJSON(event.Payload)
	if err != nil {
		event.Ignore = IgnoredMalformed
		return
	}
	event.Type, event.Entity, event.Job, event.Urgent = parsed.Type, parsed.Entity(), account.JobSync, stripeevent.Urgent(parsed.Type)
	switch {
	case !stripeevent.Handled(parsed.Type):
		event.Ignore = IgnoredType
	case parsed.Livemode != r.Livemode:
		event.Ignore = IgnoredMode
	case parsed.Account != "" && parsed.Account != r.Identity.StripeAccountID:
		// Events of connected accounts are about somebody else's customers.
		event.Ignore = IgnoredAccount
	case event.Entity == "":
		event.Ignore = IgnoredNoCustomer
	default:
		event.Claims = parsed.Claims()
	}
}

func (r Rules) clerk(event *store.NewEvent) {
	parsed, err := clerkevent.Parse(event.Payload)
	if err != nil {
		event.Ignore = IgnoredMalformed
		return
	}
	event.Type, event.Entity, event.Job, event.Shows = parsed.Type, parsed.Entity(), store.JobOf(parsed.Type), parsed.Shows
	event.Urgent = event.Job != account.JobSync // somebody new, or somebody who wants to be forgotten
	switch {
	case !clerkevent.Handled(parsed.Type):
		event.Ignore = IgnoredType
	case r.Identity.ClerkInstanceID != "" && parsed.InstanceID != "" && parsed.InstanceID != r.Identity.ClerkInstanceID:
		event.Ignore = IgnoredInstance
	case event.Entity == "":
		event.Ignore = IgnoredNoUser
	}
}
