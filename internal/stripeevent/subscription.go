package stripeevent

import (
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// Subscription answers the subscription that the event tells of, as it stood then, without its
// items, and whether it tells of one. Of the schedule that manages it an event has no more than the
// id.
func (e Event) Subscription() (account.Subscription, bool) {
	if e.ObjectKind != "subscription" || family(e.Type) != "customer.subscription." || !hasPrefix("sub_", e.ObjectID) || e.customer == "" {
		return account.Subscription{}, false
	}
	o := e.object
	s := account.Subscription{
		ID: e.ObjectID, CustomerID: e.customer, Status: account.Status(code(text(o.Get("status")))),
		TrialStart: moment(o.Get("trial_start")), TrialEnd: moment(o.Get("trial_end")),
		CancelAtPeriodEnd: flag(o.Get("cancel_at_period_end")), CancelAt: moment(o.Get("cancel_at")),
		CanceledAt: moment(o.Get("canceled_at")), EndedAt: moment(o.Get("ended_at")),
		CollectionPaused: o.Get("pause_collection").IsObject(), ScheduleID: withPrefix("sub_sched_", reference(o.Get("schedule"))),
		Created: moment(o.Get("created")), Unread: true,
	}
	if end := periodEnd(o); end != 0 {
		s.CurrentPeriodEnd = time.Unix(end, 0).UTC()
	}
	return s, s.Status != ""
}

// Bought answers the subscription that the event's checkout session has begun, "" where it tells of
// none.
func (e Event) Bought() string {
	if e.ObjectKind != "checkout.session" {
		return ""
	}
	return withPrefix("sub_", reference(e.object.Get("subscription")))
}
