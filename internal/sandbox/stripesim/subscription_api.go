package stripesim

import (
	"slices"
)

const sendInvoice = "send_invoice"

const subscriptionParams = `add_invoice_items.* application_fee_percent automatic_tax.* billing_thresholds.* cancel_at
	cancel_at_period_end cancellation_details.comment cancellation_details.feedback collection_method coupon days_until_due
	default_payment_method default_source default_tax_rates.# description discounts.* invoice_settings.* items.#.id items.#.price
	items.#.plan items.#.quantity items.#.metadata.* items.#.tax_rates.# items.#.billing_thresholds.* items.#.discounts.*
	metadata.* off_session on_behalf_of payment_behavior payment_settings.* pending_invoice_item_interval.* promotion_code
	proration_behavior transfer_data.* trial_end trial_from_plan trial_settings.end_behavior.missing_payment_method `

const createSubscriptionParams = subscriptionParams + `customer currency backdate_start_date billing_cycle_anchor
	billing_cycle_anchor_config.* trial_period_days`

const updateSubscriptionParams = subscriptionParams + `items.#.deleted items.#.clear_usage pause_collection.behavior
	pause_collection.resumes_at billing_cycle_anchor proration_date`

func (s *Server) createSubscription(c *call) (any, *apiError) {
	id := c.required("customer")
	cus := s.db.Customers.get(id)
	if c.err == nil && (cus == nil || cus.Deleted) {
		return nil, missingRef("customer", id, "customer")
	}
	o := order{customer: cus, behavior: c.or("allow_incomplete", "payment_behavior"), description: c.or("", "description"),
		card: c.or("", "default_payment_method"), collection: c.or("charge_automatically", "collection_method"),
		missingCard: c.or("create_invoice", "trial_settings", "end_behavior", "missing_payment_method"), metadata: c.metadata(nil, "metadata")}
	for _, f := range c.root.at("items").list() {
		it, e := s.newItem(c, f)
		if e != nil {
			return nil, e
		}
		o.items = append(o.items, it)
	}
	if len(o.items) == 0 {
		c.fail(missingParam("items"))
	}
	o.cancelAt, _ = c.integer("cancel_at")
	o.atPeriodEnd, _ = c.boolean("cancel_at_period_end")
	o.anchor, _ = c.integer("billing_cycle_anchor")
	o.daysUntilDue, _ = c.integer("days_until_due")
	o.trialEnd = s.trialOf(c)
	if c.err != nil {
		return nil, c.err
	}
	if own := s.db.Cards.get(o.card); o.card != "" && (own == nil || own.Customer != cus.ID) {
		return nil, missingRef("PaymentMethod", o.card, "default_payment_method")
	}
	if e := s.payable(o); e != nil {
		return nil, e
	}
	if e := s.oneCurrency(cus.ID, s.db.Prices.get(o.items[0].Price).Currency); e != nil {
		return nil, e
	}
	sub, _ := s.startSubscription(o)
	return sub, nil
}

// trialOf reads trial_end or trial_period_days; 0 is no trial.
func (s *Server) trialOf(c *call, at ...string) int64 {
	in := func(name string) []string { return append(slices.Clone(at), name) }
	if v, _ := c.text(in("trial_end")...); v != "" && v != "now" {
		end, _ := c.integer(in("trial_end")...)
		return end
	}
	if days, ok := c.integer(in("trial_period_days")...); ok && days > 0 {
		return s.unix() + days*24*60*60
	}
	return 0
}

// payable refuses an order that Stripe would not even try to charge.
func (s *Server) payable(o order) *apiError {
	needs := o.trialEnd <= s.unix() && o.collection != sendInvoice && o.behavior != "default_incomplete" && s.price(o.items) > 0
	if !needs {
		return nil
	}
	pm := s.cardOf(o.customer, o.card)
	if pm == nil {
		return invalid("resource_missing", "", "This customer has no attached payment source or default payment method. Please consider adding a default payment method. For more information, visit https://stripe.com/docs/billing/subscriptions/payment-methods-setting#payment-method-priority.")
	}
	if o.behavior == "error_if_incomplete" && (pm.AlwaysDecline || o.customer.Outcome != PaymentsSucceed) {
		return declined()
	}
	return nil
}

func (s *Server) price(items []item) int64 {
	var sum int64
	for _, it := range items {
		sum += s.db.Prices.get(it.Price).UnitAmount * it.Quantity
	}
	return sum
}

func (s *Server) newItem(c *call, f *field) (item, *apiError) {
	base := pathOf(f)
	it := item{Price: c.or("", append(base, "price")...), Quantity: 1, Metadata: c.metadata(nil, append(base, "metadata")...)}
	if plan, ok := c.text(append(base, "plan")...); ok && it.Price == "" {
		it.Price = plan
	}
	it.Quantity = s.quantity(c, bracketed(base[:len(base)-1]), f, it.Price, false)
	return it, s.sellable(it.Price, f.name+"[price]")
}

// sellable says why a price cannot be subscribed to.
func (s *Server) sellable(id, param string) *apiError {
	p := s.db.Prices.get(id)
	switch {
	case id == "":
		return missingParam(param)
	case p == nil:
		return missingRef("price", id, param)
	case !p.Active:
		return invalid("", param, "The price specified is inactive. This field only accepts active prices.")
	case p.Interval == "":
		return invalid("", param, "The price specified is set to `type=one_time` but this field only accepts prices with `type=recurring`.")
	}
	return nil
}

// pathOf turns the bracketed name of a field back into a path.
func pathOf(f *field) []string { return slices.Clip(keyParts(f.name)) }

func (s *Server) getSubscription(c *call) (any, *apiError) {
	if sub := s.db.Subscriptions.get(c.id); sub != nil {
		return sub, nil
	}
	return nil, missing("subscription", c.id)
}

func (s *Server) removeSubscription(c *call) (any, *apiError) {
	sub := s.db.Subscriptions.get(c.id)
	if sub == nil || sub.ended() {
		return nil, missing("subscription", c.id)
	}
	feedback, comment := c.or(sub.Feedback, "cancellation_details", "feedback"), c.or(sub.Comment, "cancellation_details", "comment")
	if c.boolean("invoice_now"); c.err != nil {
		return nil, c.err
	}
	sub.CancelAt, sub.AtPeriodEnd, sub.CanceledAt, sub.Reason = 0, false, 0, ""
	sub.Feedback, sub.Comment = feedback, comment
	s.cancelSubscription(sub, "cancellation_requested")
	return sub, nil
}

func (s *Server) resumeSubscription(c *call) (any, *apiError) {
	sub := s.db.Subscriptions.get(c.id)
	if sub == nil {
		return nil, missing("subscription", c.id)
	}
	if sub.Status != statusPaused {
		return nil, invalid("", "", "Only paused subscriptions can be resumed. This subscription has a status of %s.", sub.Status)
	}
	s.updating(subscriptionUpdated, sub, func() {
		sub.Status, sub.Anchor, sub.PeriodStart = statusActive, s.unix(), s.unix()
		sub.PeriodEnd = nextPeriod(s.unix(), s.unix(), s.db.Prices.get(sub.Items[0].Price))
	})
	s.record("customer.subscription.resumed", sub, nil)
	s.invoiceNow(sub, true)
	return sub, nil
}

func (s *Server) listSubscriptions(c *call) (any, *apiError) {
	customer, byCustomer := c.text("customer")
	price, byPrice := c.text("price")
	method, byMethod := c.text("collection_method")
	created := c.span("created")
	starts, ends := c.span("current_period_start"), c.span("current_period_end")
	status, _ := c.choice([]string{"all", "ended", statusActive, statusCanceled, statusExpired, statusIncomplete, statusPastDue,
		statusPaused, statusTrialing, statusUnpaid}, "status")
	if byCustomer && c.err == nil && s.db.Customers.get(customer) == nil {
		return nil, missingRef("customer", customer, "customer")
	}
	return listed(c, &s.db.Subscriptions, func(x *subscription) bool {
		return (!byCustomer || x.Customer == customer) && x.inList(status) && created.holds(x.Created) &&
			starts.holds(x.PeriodStart) && ends.holds(x.PeriodEnd) && (!byMethod || x.Collection == method) &&
			(!byPrice || slices.ContainsFunc(x.Items, func(it item) bool { return it.Price == price }))
	})
}

// inList is Stripe's rule for the status filter: without one, everything that has not been canceled.
func (x *subscription) inList(status string) bool {
	switch status {
	case "all":
		return true
	case "":
		return x.Status != statusCanceled
	case "ended":
		return x.ended()
	}
	return x.Status == status
}
