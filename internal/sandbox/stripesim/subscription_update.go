package stripesim

import (
	"slices"
)

// updateSubscription reads what is asked, refuses what Stripe refuses, then makes the change as one
// event.
func (s *Server) updateSubscription(c *call) (any, *apiError) {
	sub := s.db.Subscriptions.get(c.id)
	if sub == nil {
		return nil, missing("subscription", c.id)
	}
	if e := s.refusal(c, sub); e != nil {
		return nil, e
	}
	next := *sub
	s.readCancellation(c, &next)
	s.readPause(c, &next)
	s.readSettings(c, &next)
	newCycle, e := s.readItems(c, &next)
	if e != nil {
		return nil, e
	}
	trialEnded := s.readTrial(c, &next)
	if c.or("", "billing_cycle_anchor") == "now" {
		newCycle = true
	}
	if c.err != nil {
		return nil, c.err
	}
	if newCycle && next.Status != statusTrialing || trialEnded {
		next.Anchor, next.PeriodStart = s.unix(), s.unix()
		next.PeriodEnd = nextPeriod(s.unix(), s.unix(), s.db.Prices.get(next.Items[0].Price))
		if next.AtPeriodEnd {
			next.CancelAt = next.PeriodEnd
		}
	}
	s.updating(subscriptionUpdated, sub, func() { *sub = next })
	s.book(sub)
	switch {
	case trialEnded || (newCycle && sub.Status != statusTrialing):
		s.invoiceNow(sub, true)
	case c.or("", "proration_behavior") == "always_invoice" && len(s.pendingOf(sub)) > 0:
		s.invoiceNow(sub, false)
	}
	return sub, nil
}

func (s *Server) refusal(c *call, sub *subscription) *apiError {
	cancels := c.has("cancel_at") || c.has("cancel_at_period_end")
	switch {
	case sub.ended() && slices.ContainsFunc(c.root.order, func(k string) bool {
		return !slices.Contains([]string{"cancellation_details", "metadata", "expand"}, k)
	}):
		return invalid("", "", "A canceled subscription can only update its cancellation_details and metadata.")
	case c.has("cancel_at") && c.has("cancel_at_period_end"):
		return badValue("", "cancel_at", "You may only specify one of these parameters: cancel_at, cancel_at_period_end.")
	case cancels && sub.Schedule != "":
		return invalid("", "", "The subscription is managed by the subscription schedule `%s`, and updating any cancelation behavior directly is not allowed. Please update the schedule instead.", sub.Schedule)
	}
	return nil
}

func (s *Server) readCancellation(c *call, next *subscription) {
	if feedback, ok := c.text("cancellation_details", "feedback"); ok {
		next.Feedback = feedback
	}
	if comment, ok := c.text("cancellation_details", "comment"); ok {
		next.Comment = comment
	}
	stop := func(at int64, atPeriodEnd bool) {
		next.CancelAt, next.AtPeriodEnd = at, atPeriodEnd
		next.CanceledAt, next.Reason = s.unix(), "cancellation_requested"
	}
	carryOn := func() {
		next.CancelAt, next.AtPeriodEnd, next.CanceledAt, next.Reason = 0, false, 0, ""
	}
	if flag, ok := c.boolean("cancel_at_period_end"); ok {
		switch {
		case flag && !next.AtPeriodEnd:
			stop(next.PeriodEnd, true)
		case !flag && next.AtPeriodEnd: // a date set by cancel_at stays: only cancel_at clears it
			carryOn()
		}
	}
	if v, ok := c.text("cancel_at"); ok && v == "" {
		carryOn()
	} else if at, ok := c.integer("cancel_at"); ok {
		if at <= s.unix() {
			c.fail(notInFuture("cancel_at"))
		}
		stop(at, false)
	}
}

func (s *Server) readPause(c *call, next *subscription) {
	f := c.root.at("pause_collection")
	switch {
	case f == nil:
	case f.given:
		next.Pause = nil
	default:
		next.Pause = &pause{Behavior: c.required("pause_collection", "behavior")}
		c.choice([]string{"keep_as_draft", "mark_uncollectible", "void"}, "pause_collection", "behavior")
		at, given := c.integer("pause_collection", "resumes_at")
		if next.Pause.ResumesAt = at; given && at <= s.unix() {
			c.fail(notInFuture("pause_collection[resumes_at]"))
		}
	}
}

func (s *Server) readSettings(c *call, next *subscription) {
	s.setMetadata(next, c.metadata(next.Metadata, "metadata"))
	if v, ok := c.text("description"); ok {
		next.Description = v
	}
	if pm, ok := c.text("default_payment_method"); ok {
		if own := s.db.Cards.get(pm); pm != "" && (own == nil || own.Customer != next.Customer) {
			c.fail(missingRef("PaymentMethod", pm, "default_payment_method"))
		}
		next.Card = pm
	}
	next.Collection = c.or(next.Collection, "collection_method")
	if n, ok := c.integer("days_until_due"); ok {
		next.DaysUntilDue = n
	}
	checkDue(c, next.Collection, next.DaysUntilDue)
	c.noDiscount()
	next.MissingCard = c.or(next.MissingCard, "trial_settings", "end_behavior", "missing_payment_method")
}

// readItems applies the items and notes their proration; newCycle when the interval changes.
func (s *Server) readItems(c *call, next *subscription) (newCycle bool, e *apiError) {
	if !c.has("items") {
		return false, nil
	}
	before := slices.Clone(next.Items)
	items := slices.Clone(next.Items)
	for _, f := range c.root.at("items").list() {
		base := pathOf(f)
		id, _ := c.text(append(base, "id")...)
		if id == "" {
			it, e := s.newItem(c, f)
			if e != nil {
				return false, e
			}
			it.ID, it.Created = s.newID("si_"), s.unix()
			items = append(items, it)
			continue
		}
		i := slices.IndexFunc(items, func(x item) bool { return x.ID == id })
		if i < 0 {
			return false, missingRef("subscription_item", id, f.name+"[id]")
		}
		if gone, _ := c.boolean(append(base, "deleted")...); gone {
			items = slices.Delete(items, i, i+1)
			continue
		}
		if p, ok := c.text(append(base, "price")...); ok && p != items[i].Price {
			if e := s.sellable(p, f.name+"[price]"); e != nil {
				return false, e
			}
			items[i].Price = p
		}
		if c.has(append(base, "quantity")...) {
			items[i].Quantity = s.quantity(c, "items", f, items[i].Price, false)
		}
		items[i].Metadata = c.metadata(items[i].Metadata, append(base, "metadata")...)
	}
	if len(items) == 0 {
		return false, invalid("", "items", "A subscription must have at least one active plan. In order to cancel your subscription, please use our API endpoint for canceling a subscription.")
	}
	if e := s.together(items, next.Currency, "items"); e != nil {
		return false, e
	}
	next.Items = items
	was, is := s.db.Prices.get(before[0].Price), s.db.Prices.get(items[0].Price)
	newCycle = was.Interval != is.Interval || was.IntervalCount != is.IntervalCount
	if c.or("create_prorations", "proration_behavior") != "none" && next.Status != statusTrialing {
		next.Pending = append(slices.Clone(next.Pending), s.prorations(next, before, newCycle)...)
	}
	return newCycle, nil
}

// prorations credits the unused time of the old items and charges the new ones for it.
func (s *Server) prorations(x *subscription, before []item, newCycle bool) []line {
	old, now := s.price(before), s.price(x.Items)
	if length := x.PeriodEnd - x.PeriodStart; length > 0 && old != now {
		left := max(0, x.PeriodEnd-s.unix())
		part := func(amount int64, text string) line {
			return line{ID: s.newID("il_"), Amount: amount * left / length, Text: text, Proration: true, Price: x.Items[0].Price,
				Quantity: x.Items[0].Quantity, Start: s.unix(), End: x.PeriodEnd}
		}
		lines := []line{part(-old, "Unused time")}
		if !newCycle { // a new cycle is billed whole
			lines = append(lines, part(now, "Remaining time"))
		}
		return lines
	}
	return nil
}

// readTrial sets or ends the trial; ended when it is over at once.
func (s *Server) readTrial(c *call, next *subscription) (ended bool) {
	v, ok := c.text("trial_end")
	if !ok || v == "" {
		return false
	}
	if v == "now" {
		if next.Status != statusTrialing {
			return false
		}
		next.Status, next.TrialEnd = statusActive, s.unix()
		return true
	}
	end, _ := c.integer("trial_end")
	if s.checkTrialEnd(c, end, "trial_end"); c.err != nil {
		return false
	}
	if next.Status != statusTrialing {
		next.TrialStart, next.PeriodStart = s.unix(), s.unix()
	}
	next.Status, next.TrialEnd, next.PeriodEnd, next.Anchor, next.TrialAnnounced = statusTrialing, end, end, end, false
	if next.AtPeriodEnd {
		next.CancelAt = end
	}
	return false
}
