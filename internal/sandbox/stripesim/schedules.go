package stripesim

import "slices"

type schedule struct {
	ID, Customer, Subscription, Released, Status string
	EndBehavior                                  string // release, cancel
	Created, CanceledAt, CompletedAt, ReleasedAt int64
	Phases                                       []phase
	Performed                                    int64 // up to where the phases are over
	Metadata                                     map[string]string
}

type phase struct {
	Start, End, TrialEnd int64
	Items                []item
	Metadata             map[string]string
	Currency             string
	Proration            string // proration_behavior
}

const scheduleParams = `default_settings.* default_settings.billing_cycle_anchor=automatic|phase_start
	default_settings.collection_method=charge_automatically|send_invoice default_settings.description=..500 end_behavior=cancel|release
	metadata.* phases.#.items.#.price phases.#.items.#.plan
	phases.#.items.#.quantity phases.#.items.#.metadata.* phases.#.start_date phases.#.end_date phases.#.iterations phases.#.trial
	phases.#.trial_end phases.#.metadata.* phases.#.currency
	phases.#.proration_behavior=always_invoice|create_prorations|none phases.#.collection_method=charge_automatically|send_invoice
	phases.#.default_payment_method phases.#.description=..500 phases.#.billing_cycle_anchor=automatic|phase_start phases.#.coupon `

func (x *schedule) ident() string { return x.ID }

// open is Stripe's "not over": only such a schedule can be released or canceled.
func (x *schedule) open() bool { return x.Status == "not_started" || x.Status == statusActive }

func (x *schedule) due() int64 {
	if !x.open() {
		return 0
	}
	if x.Status == "not_started" {
		return x.Phases[0].Start
	}
	return x.Phases[x.current()].End
}

// current is the phase that is running: the first one while none of its ends has been performed.
func (x *schedule) current() int {
	for i, p := range x.Phases {
		if !p.done(x) {
			return i
		}
	}
	return len(x.Phases) - 1
}

func (p phase) done(x *schedule) bool { return x.Performed >= p.End }

// scheduleDue begins the first phase, moves to the next one, or ends.
func (s *Server) scheduleDue(x *schedule) {
	if x.Status == "not_started" {
		s.updating("subscription_schedule.updated", x, func() { s.beginSchedule(x) })
		return
	}
	i := x.current()
	last := i == len(x.Phases)-1
	x.Performed = x.Phases[i].End
	sub := s.db.Subscriptions.get(x.Subscription)
	switch {
	case last && x.EndBehavior == "cancel":
		x.Status, x.CompletedAt = "completed", s.unix()
		s.record("subscription_schedule.completed", x, nil)
		s.endTerm(sub, "cancellation_requested")
	case last:
		s.endSchedule(x, "released")
	default:
		s.record("subscription_schedule.updated", x, object{"current_phase": object{"start_date": x.Phases[i].Start, "end_date": x.Phases[i].End}})
		s.updating(subscriptionUpdated, sub, func() { s.applyPhase(sub, x.Phases[i+1]) })
		s.book(sub)
		if x.Phases[i+1].Proration == "always_invoice" && len(s.pendingOf(sub)) > 0 {
			s.invoiceNow(sub, false)
		}
	}
}

func (s *Server) beginSchedule(x *schedule) {
	p := x.Phases[0]
	x.Status = statusActive
	sub, _ := s.startSubscription(order{customer: s.db.Customers.get(x.Customer), items: slices.Clone(p.Items), trialEnd: p.TrialEnd,
		collection: "charge_automatically", missingCard: "create_invoice", metadata: p.Metadata, schedule: x.ID})
	x.Subscription = sub.ID
}

// applyPhase gives a subscription a phase's items, keeping the item of a price that stays.
func (s *Server) applyPhase(sub *subscription, p phase) {
	before, items := slices.Clone(sub.Items), []item(nil)
	for i, want := range p.Items {
		it := item{Price: want.Price, Quantity: want.Quantity, Metadata: want.Metadata}
		if i < len(sub.Items) {
			it.ID, it.Created = sub.Items[i].ID, sub.Items[i].Created
		} else {
			it.ID, it.Created = s.newID("si_"), s.unix()
		}
		items = append(items, it)
	}
	sub.Items = items
	if p.Proration != "none" {
		sub.Pending = append(sub.Pending, s.prorations(sub, before, false)...)
	}
	if len(p.Metadata) > 0 {
		s.setMetadata(sub, p.Metadata)
	}
}

// endSchedule lets the subscription go (released) or marks the schedule canceled.
func (s *Server) endSchedule(x *schedule, status string) {
	sub := s.db.Subscriptions.get(x.Subscription)
	x.Status = status
	switch status {
	case "released":
		x.ReleasedAt, x.Released, x.Subscription = s.unix(), x.Subscription, ""
		s.record("subscription_schedule.released", x, nil)
		if sub != nil {
			s.updating(subscriptionUpdated, sub, func() { sub.Schedule = "" })
		}
	default:
		x.CanceledAt = s.unix()
		s.record("subscription_schedule.canceled", x, nil)
	}
}

func (s *Server) createSchedule(c *call) (any, *apiError) {
	x := &schedule{ID: s.newID("sub_sched_"), Created: s.unix(), EndBehavior: c.or("release", "end_behavior"), Metadata: c.metadata(nil, "metadata")}
	if from, ok := c.text("from_subscription"); ok {
		return s.scheduleFrom(c, x, from)
	}
	x.Customer = c.required("customer")
	if cus := s.db.Customers.get(x.Customer); c.err == nil && (cus == nil || cus.Deleted) {
		return nil, missingRef("customer", x.Customer, "customer")
	}
	start := s.unix()
	if v := c.or("now", "start_date"); v != "now" {
		start, _ = c.integer("start_date")
	}
	if e := s.readPhases(c, x, start); e != nil {
		return nil, e
	}
	x.Status = "not_started"
	s.db.Schedules.put(x.ID, x)
	if start <= s.unix() {
		s.beginSchedule(x)
	}
	s.record("subscription_schedule.created", x, nil)
	return x, nil
}

// scheduleFrom puts an existing subscription under a schedule whose only phase is what it is now.
func (s *Server) scheduleFrom(c *call, x *schedule, from string) (any, *apiError) {
	sub := s.db.Subscriptions.get(from)
	switch {
	case c.has("phases"):
		return nil, invalid("", "", "You cannot set `phases` when creating a subscription schedule with `from_subscription`.")
	case sub == nil:
		return nil, missingRef("subscription", from, "from_subscription")
	case sub.ended():
		return nil, invalid("", "", "You cannot migrate a subscription that is in the `%s` status to a subscription schedule.", sub.Status)
	case sub.Schedule != "":
		return nil, invalid("", "", "You cannot migrate a subscription that is already attached to a schedule: `%s`.", sub.Schedule)
	}
	x.Customer, x.Subscription, x.Status = sub.Customer, sub.ID, statusActive
	x.Phases = []phase{{Start: sub.PeriodStart, End: sub.PeriodEnd, Items: slices.Clone(sub.Items), Metadata: map[string]string{}, Currency: sub.Currency}}
	if sub.CancelAt != 0 {
		x.EndBehavior, x.Phases[0].End = "cancel", sub.CancelAt
	}
	s.db.Schedules.put(x.ID, x)
	s.record("subscription_schedule.created", x, nil)
	s.updating(subscriptionUpdated, sub, func() { sub.Schedule = x.ID })
	return x, nil
}

func (s *Server) readPhases(c *call, x *schedule, start int64) *apiError {
	fields := c.root.at("phases").list()
	if len(fields) == 0 {
		c.fail(missingParam("phases"))
	}
	x.Phases = nil
	for _, f := range fields {
		base := pathOf(f)
		p := phase{Start: start, Metadata: c.metadata(nil, append(base, "metadata")...), Proration: c.or("create_prorations", append(base, "proration_behavior")...)}
		if v, ok := c.integer(append(base, "start_date")...); ok {
			p.Start = v
		}
		for _, it := range f.at("items").list() {
			read, e := s.newItem(c, it)
			if e != nil {
				return e
			}
			p.Items = append(p.Items, read)
		}
		if len(p.Items) == 0 {
			return missingParam(f.name + "[items]")
		}
		if e := s.inOnePhase(p.Items, f.name+"[items]"); e != nil {
			return e
		}
		pr := s.db.Prices.get(p.Items[0].Price)
		p.Currency = pr.Currency
		if asked := c.currency(append(base, "currency")...); asked != "" {
			if e := pr.expects(asked, f.name+"[items][0][price]"); e != nil {
				return e
			}
		}
		c.noDiscount(base...)
		times := int64(1)
		if n, ok := c.integer(append(base, "iterations")...); ok {
			times = n
		}
		for p.End = p.Start; times > 0; times-- {
			p.End = nextPeriod(p.Start, p.End, pr)
		}
		if end, ok := c.integer(append(base, "end_date")...); ok {
			p.End = end
		}
		if trial, _ := c.boolean(append(base, "trial")...); trial {
			p.TrialEnd = p.End
		}
		if end, ok := c.integer(append(base, "trial_end")...); ok {
			p.TrialEnd = end
		}
		if p.End <= p.Start {
			return badValue("", f.name+"[end_date]", "The end date of a phase must be after its start date.")
		}
		x.Phases, start = append(x.Phases, p), p.End
	}
	if c.err != nil {
		return c.err
	}
	return s.phasesTogether(x, x.Phases)
}

func (s *Server) getSchedule(c *call) (any, *apiError) {
	if x := s.db.Schedules.get(c.id); x != nil {
		return x, nil
	}
	return nil, missing("subscription_schedule", c.id)
}

func (s *Server) updateSchedule(c *call) (any, *apiError) {
	x := s.db.Schedules.get(c.id)
	if x == nil {
		return nil, missing("subscription_schedule", c.id)
	}
	if !x.open() {
		return nil, invalid("", "", "You cannot update a subscription schedule that is currently in the `%s` status. It must be in the `not_started` or `active` status.", x.Status)
	}
	next := *x
	next.EndBehavior = c.or(x.EndBehavior, "end_behavior")
	next.Metadata = c.metadata(x.Metadata, "metadata")
	if c.has("phases") {
		if e := s.readPhases(c, &next, x.Phases[0].Start); e != nil {
			return nil, e
		}
		if e := x.keepsCurrent(next.Phases, s.unix()); e != nil {
			return nil, e
		}
	}
	if c.err != nil {
		return nil, c.err
	}
	change := func() { s.updating("subscription_schedule.updated", x, func() { *x = next }) }
	if sub := s.db.Subscriptions.get(x.Subscription); sub != nil {
		s.updating(subscriptionUpdated, sub, change) // it shows when the schedule ends it
	} else {
		change()
	}
	return x, nil
}

// keepsCurrent is Stripe's rule for new phases of a schedule that has begun: the phase that runs
// has to be among them with the start that it has, it cannot end in the past, and each phase begins
// where the one before it ends.
func (x *schedule) keepsCurrent(phases []phase, now int64) *apiError {
	for i, p := range phases {
		if i > 0 && p.Start != phases[i-1].End {
			return invalid("", "phases", "You must set the start date of a phase to the end date of the phase before it.")
		}
	}
	if x.Status != statusActive {
		return nil
	}
	current := x.Phases[x.current()]
	for _, p := range phases {
		if p.Start != current.Start {
			continue
		}
		if p.End <= now {
			return invalid("", "phases", "You can not set the end date of the current phase in the past.")
		}
		return nil
	}
	return invalid("", "phases", "You must include the current phase, with its start date, when you update the phases of a subscription schedule that has begun.")
}

func (s *Server) releaseSchedule(c *call) (any, *apiError) { return s.finishSchedule(c, "released") }

func (s *Server) cancelSchedule(c *call) (any, *apiError) {
	x, e := s.finishSchedule(c, statusCanceled)
	if e != nil {
		return nil, e
	}
	if sub := s.db.Subscriptions.get(x.(*schedule).Subscription); sub != nil && !sub.ended() {
		s.cancelSubscription(sub, "cancellation_requested")
	}
	return x, nil
}

func (s *Server) finishSchedule(c *call, status string) (any, *apiError) {
	x := s.db.Schedules.get(c.id)
	if x == nil {
		return nil, missing("subscription_schedule", c.id)
	}
	if !x.open() {
		return nil, invalid("", "", "You cannot change a subscription schedule that is currently in the `%s` status.", x.Status)
	}
	s.endSchedule(x, status)
	return x, nil
}

func (s *Server) listSchedules(c *call) (any, *apiError) {
	customer, byCustomer := c.text("customer")
	if byCustomer && c.err == nil && s.db.Customers.get(customer) == nil {
		return nil, missingRef("customer", customer, "customer")
	}
	scheduled, byScheduled := c.boolean("scheduled")
	created := c.span("created")
	return listed(c, &s.db.Schedules, func(x *schedule) bool {
		return (!byCustomer || x.Customer == customer) && created.holds(x.Created) &&
			(!byScheduled || (x.Status == "not_started") == scheduled)
	})
}
