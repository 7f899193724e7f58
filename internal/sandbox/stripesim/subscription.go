package stripesim

import (
	"slices"
	"time"
)

// The statuses of a subscription; some are those of schedules too.
const (
	statusIncomplete = "incomplete"
	statusExpired    = "incomplete_expired"
	statusTrialing   = "trialing"
	statusActive     = "active"
	statusPastDue    = "past_due"
	statusUnpaid     = "unpaid"
	statusPaused     = "paused"
	statusCanceled   = "canceled"
)

const (
	incompleteLife = 23 * 60 * 60     // seconds until an unpaid first invoice ends a subscription
	trialNotice    = 3 * 24 * 60 * 60 // seconds before a trial's end that Stripe announces it
)

type subscription struct {
	ID, Customer, Status, Currency, Description string
	Items                                       []item
	Created, Start, Anchor                      int64
	PeriodStart, PeriodEnd                      int64
	CancelAt, CanceledAt, EndedAt               int64
	AtPeriodEnd                                 bool
	Reason, Comment, Feedback                   string // cancellation_details
	TrialStart, TrialEnd                        int64
	TrialAnnounced                              bool
	MissingCard                                 string // trial_settings.end_behavior.missing_payment_method
	Pause                                       *pause
	Latest, Schedule, Card                      string
	Collection                                  string
	DaysUntilDue                                int64
	Metadata                                    map[string]string
	MetadataAt                                  int64             // when they were changed last
	MetadataBefore                              map[string]string // as search still shows them while the index lags
	Pending                                     []line            // prorations that are about to become invoice items
}

type item struct {
	ID, Price string
	Quantity  int64
	Used      int64 // of a metered price, since it was last billed
	Created   int64
	Metadata  map[string]string
}

type pause struct {
	Behavior  string
	ResumesAt int64
}

func (x *subscription) ident() string { return x.ID }

func (x *subscription) ended() bool { return x.Status == statusCanceled || x.Status == statusExpired }

func (x *subscription) due() int64 {
	if x.ended() {
		return 0
	}
	var times []int64
	switch x.Status {
	case statusIncomplete:
		times = append(times, x.Created+incompleteLife)
	case statusPaused:
	case statusTrialing:
		times = append(times, x.TrialEnd)
		if !x.TrialAnnounced {
			times = append(times, x.TrialEnd-trialNotice)
		}
	default:
		times = append(times, x.PeriodEnd)
	}
	if x.CancelAt != 0 {
		times = append(times, x.CancelAt)
	}
	if x.Pause != nil && x.Pause.ResumesAt != 0 {
		times = append(times, x.Pause.ResumesAt)
	}
	if len(times) == 0 {
		return 0
	}
	return slices.Min(times)
}

// subscriptionDue performs the next thing that time does to a subscription.
func (s *Server) subscriptionDue(x *subscription) {
	now := s.unix()
	if sc := s.db.Schedules.get(x.Schedule); sc != nil && sc.due() != 0 && sc.due() <= now {
		// What ends with its last phase is not renewed in the same moment.
		s.scheduleDue(sc)
		s.plan(sc)
		if x.ended() {
			return
		}
	}
	switch {
	case x.Status == statusIncomplete && x.Created+incompleteLife <= now:
		s.expireSubscription(x)
	case x.CancelAt != 0 && x.CancelAt <= now:
		s.endTerm(x, x.Reason)
	case x.Pause != nil && x.Pause.ResumesAt != 0 && x.Pause.ResumesAt <= now:
		s.updating(subscriptionUpdated, x, func() { x.Pause = nil })
	case x.Status == statusTrialing && x.TrialEnd <= now:
		s.endTrial(x)
	case x.Status == statusTrialing && !x.TrialAnnounced && x.TrialEnd-trialNotice <= now:
		x.TrialAnnounced = true
		s.record("customer.subscription.trial_will_end", x, nil)
	case x.PeriodEnd <= now:
		s.renew(x)
	}
}

const subscriptionUpdated = "customer.subscription.updated"

// order is what a new subscription is made of.
type order struct {
	customer                *customer
	items                   []item
	trialEnd                int64 // 0 is none
	cancelAt                int64
	atPeriodEnd             bool
	anchor                  int64 // 0 is now
	behavior                string
	card, missingCard       string
	collection, description string
	daysUntilDue            int64
	metadata                map[string]string
	schedule                string
	viaCheckout             bool // the payment is made by the caller
}

// startSubscription makes a subscription with its first invoice, and pays it unless the order says
// otherwise.
func (s *Server) startSubscription(o order) (*subscription, *invoice) {
	now := s.unix()
	first := s.db.Prices.get(o.items[0].Price)
	sub := &subscription{ID: s.newID("sub_"), Customer: o.customer.ID, Status: statusIncomplete, Currency: first.Currency,
		Description: o.description, Created: now, Start: now, Anchor: now, PeriodStart: now, CancelAt: o.cancelAt, Card: o.card,
		MissingCard: o.missingCard, Collection: o.collection, DaysUntilDue: o.daysUntilDue, Metadata: o.metadata, Schedule: o.schedule}
	for _, it := range o.items {
		it.ID, it.Created = s.newID("si_"), now
		sub.Items = append(sub.Items, it)
	}
	sub.PeriodEnd = nextPeriod(now, now, first)
	switch {
	case o.trialEnd > now:
		sub.Status, sub.TrialStart, sub.TrialEnd = statusTrialing, now, o.trialEnd
		sub.PeriodEnd, sub.Anchor = o.trialEnd, o.trialEnd
	case o.anchor > now:
		sub.PeriodEnd, sub.Anchor = o.anchor, o.anchor
	}
	if o.atPeriodEnd {
		sub.AtPeriodEnd, sub.CancelAt = true, sub.PeriodEnd
	}
	if sub.CancelAt != 0 {
		sub.CanceledAt, sub.Reason = now, "cancellation_requested"
	}
	s.db.Subscriptions.put(sub.ID, sub)
	inv := s.draftInvoice(sub, "subscription_create", true)
	sub.Latest = inv.ID
	s.record("customer.subscription.created", sub, nil)
	if o.customer.Currency == "" {
		s.changeCustomer(o.customer, func() { o.customer.Currency = sub.Currency })
	}
	if sub.Status == statusTrialing && sub.TrialEnd-trialNotice <= now {
		sub.TrialAnnounced = true
		s.record("customer.subscription.trial_will_end", sub, nil)
	}
	s.record("invoice.created", inv, nil)
	s.finalize(inv)
	switch {
	case inv.Status != "open" || o.viaCheckout || o.behavior == "default_incomplete":
	case sub.Collection == sendInvoice:
		s.updating(subscriptionUpdated, sub, func() { sub.Status = statusActive })
	default:
		s.attempt(inv, automatic)
	}
	return sub, inv
}

// endTerm ends a subscription whose time has come, as it was set to. Stripe leaves pending
// prorations in place until then, and collects them, other pending invoice items and what was used
// of metered prices with a final invoice.
func (s *Server) endTerm(x *subscription, reason string) {
	s.quietInvoices(x)
	final := s.finalInvoice(x)
	s.cancelSubscription(x, reason)
	if final != nil {
		final.FinalizeAt = s.unix() + int64(s.opts.InvoiceDelay.Seconds())
		s.record("invoice.created", final, nil)
	}
}

// finalInvoice is a draft of what a subscription that ends has not billed yet, nil where that is
// nothing.
func (s *Server) finalInvoice(x *subscription) *invoice {
	used := x.Status != statusTrialing && slices.ContainsFunc(x.Items, func(it item) bool { return it.Used > 0 })
	if !used && len(s.pendingOf(x)) == 0 {
		return nil
	}
	inv := s.draftInvoice(x, "subscription_cycle", false)
	x.Latest = inv.ID
	return inv
}

// cancelSubscription ends a subscription now. Its pending prorations are removed, and what was used
// is not billed.
func (s *Server) cancelSubscription(x *subscription, reason string) {
	s.quietInvoices(x)
	s.dropProrations(x)
	x.Status, x.EndedAt, x.Pause = statusCanceled, s.unix(), nil
	if x.CanceledAt == 0 {
		x.CanceledAt = s.unix()
	}
	if x.Reason == "" {
		x.Reason = reason
	}
	held := s.db.Schedules.get(x.Schedule)
	s.record("customer.subscription.deleted", x, nil)
	if held != nil && held.open() {
		s.endSchedule(held, statusCanceled)
	}
}

// expireSubscription gives up a subscription whose first invoice was never paid.
func (s *Server) expireSubscription(x *subscription) {
	s.updating(subscriptionUpdated, x, func() { x.Status, x.EndedAt = statusExpired, s.unix() })
	if inv := s.db.Invoices.get(x.Latest); inv != nil && inv.Status == "open" {
		s.voidInvoice(inv)
	}
}

// quietInvoices stops the collection of what is still open, as Stripe does when a subscription
// ends.
func (s *Server) quietInvoices(x *subscription) {
	for _, inv := range s.db.Invoices.newest(func(i *invoice) bool { return i.Subscription == x.ID && (i.Status == "open" || i.Status == "draft") }) {
		s.updating("invoice.updated", inv, func() { inv.NextAttempt, inv.FinalizeAt = 0, 0 })
	}
}

// renew begins the next period with an invoice, which is collected a little later.
func (s *Server) renew(x *subscription) {
	p := s.db.Prices.get(x.Items[0].Price)
	start, anchor := x.PeriodEnd, x.Anchor
	s.updating(subscriptionUpdated, x, func() {
		x.PeriodStart, x.PeriodEnd = start, nextPeriod(anchor, start, p)
		if x.Status == statusTrialing {
			x.Status = statusActive
			for i := range x.Items {
				x.Items[i].Used = 0 // what is used on trial is free
			}
		}
		inv := s.draftInvoice(x, "subscription_cycle", true)
		x.Latest = inv.ID
		if !(x.Status == statusUnpaid || (x.Pause != nil && x.Pause.Behavior == "keep_as_draft")) {
			inv.FinalizeAt = s.unix() + int64(s.opts.InvoiceDelay.Seconds())
		}
	})
	s.record("invoice.created", s.db.Invoices.get(x.Latest), nil)
}

// endTrial does at the end of a trial what its settings say.
func (s *Server) endTrial(x *subscription) {
	cus := s.db.Customers.get(x.Customer)
	if s.cardOf(cus, x.Card) == nil && x.Collection != sendInvoice {
		switch x.MissingCard {
		case "cancel":
			s.cancelSubscription(x, "payment_failed")
			return
		case "pause":
			s.updating(subscriptionUpdated, x, func() { x.Status = statusPaused })
			s.record("customer.subscription.paused", x, nil)
			return
		}
	}
	s.renew(x)
}

// invoiceNow bills at once what is pending, and the present period too when that is new.
func (s *Server) invoiceNow(x *subscription, wholePeriod bool) {
	inv := s.draftInvoice(x, "subscription_update", wholePeriod)
	s.updating(subscriptionUpdated, x, func() { x.Latest = inv.ID })
	s.record("invoice.created", inv, nil)
	s.finalize(inv)
	if inv.Status == "open" && x.Collection != sendInvoice {
		s.attempt(inv, automatic)
	}
}

// nextPeriod is the first end of a period after start, counted from the anchor; months keep the
// anchor's day as far as they have it.
func nextPeriod(anchor, start int64, p *price) int64 {
	a := time.Unix(anchor, 0).UTC()
	count := int(max(1, p.IntervalCount))
	step := func(n int) time.Time {
		switch p.Interval {
		case "day":
			return a.AddDate(0, 0, n*count)
		case "week":
			return a.AddDate(0, 0, 7*n*count)
		case "year":
			return addMonths(a, 12*n*count)
		}
		return addMonths(a, n*count)
	}
	n := 1
	if since := start - anchor; since > 0 { // skip most of the way, then walk
		longest := map[string]int64{"day": 1, "week": 7, "month": 31, "year": 366}[p.Interval] * int64(count) * 24 * 60 * 60
		n = max(1, int(since/max(1, longest)))
	}
	for step(n).Unix() <= start {
		n++
	}
	return step(n).Unix()
}

func addMonths(t time.Time, n int) time.Time {
	first := time.Date(t.Year(), t.Month()+time.Month(n), 1, t.Hour(), t.Minute(), t.Second(), 0, time.UTC)
	last := first.AddDate(0, 1, -1).Day()
	return first.AddDate(0, 0, min(t.Day(), last)-1)
}
