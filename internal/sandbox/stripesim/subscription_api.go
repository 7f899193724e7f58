package stripesim

import (
	"cmp"
	"slices"
	"strings"
)

const sendInvoice = "send_invoice"

const subscriptionParams = `add_invoice_items.* application_fee_percent automatic_tax.* billing_thresholds.* cancel_at
	cancel_at_period_end collection_method=charge_automatically|send_invoice coupon days_until_due description=..500
	default_payment_method default_source default_tax_rates.# discounts.* invoice_settings.* items.#.id items.#.price
	items.#.plan items.#.quantity items.#.metadata.* items.#.tax_rates.# items.#.billing_thresholds.* items.#.discounts.*
	metadata.* off_session on_behalf_of payment_settings.*
	payment_behavior=allow_incomplete|default_incomplete|error_if_incomplete|pending_if_incomplete pending_invoice_item_interval.* promotion_code
	transfer_data.* trial_end trial_from_plan trial_settings.end_behavior.missing_payment_method=cancel|create_invoice|pause ` +
	prorationParam + cancellationParams

const prorationParam = " proration_behavior=always_invoice|create_prorations|none "

const cancellationParams = " cancellation_details.comment" +
	" cancellation_details.feedback=|customer_service|low_quality|missing_features|other|switched_service|too_complex|too_expensive|unused "

const createSubscriptionParams = subscriptionParams + `customer currency backdate_start_date billing_cycle_anchor
	billing_cycle_anchor_config.* trial_period_days`

const updateSubscriptionParams = subscriptionParams + `items.#.deleted items.#.clear_usage pause_collection.resumes_at
	pause_collection.behavior=keep_as_draft|mark_uncollectible|void billing_cycle_anchor=now|unchanged proration_date`

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
	currency := c.currency("currency")
	c.noDiscount()
	s.checkTimes(c, o)
	checkDue(c, o.collection, o.daysUntilDue)
	if c.err != nil {
		return nil, c.err
	}
	currency = cmp.Or(currency, s.db.Prices.get(o.items[0].Price).Currency)
	if e := s.together(o.items, currency, "items"); e != nil {
		return nil, e
	}
	if own := s.db.Cards.get(o.card); o.card != "" && (own == nil || own.Customer != cus.ID) {
		return nil, missingRef("PaymentMethod", o.card, "default_payment_method")
	}
	if e := s.oneCurrency(cus.ID, currency, nil); e != nil {
		return nil, e
	}
	if e := s.payable(o); e != nil {
		return nil, e
	}
	sub, _ := s.startSubscription(o)
	return sub, nil
}

// checkTimes refuses moments of an order that have passed, or that are too far away.
func (s *Server) checkTimes(c *call, o order) {
	if len(o.items) == 0 {
		return
	}
	switch first := s.db.Prices.get(o.items[0].Price); {
	case c.has("cancel_at") && c.has("cancel_at_period_end"):
		c.fail(badValue("", "cancel_at", "You may only specify one of these parameters: cancel_at, cancel_at_period_end."))
	case o.cancelAt != 0 && o.cancelAt <= s.unix():
		c.fail(notInFuture("cancel_at"))
	case o.anchor != 0 && o.anchor <= s.unix():
		c.fail(badValue("", "billing_cycle_anchor", "Invalid timestamp: must be an integer Unix timestamp in the future."))
	case o.anchor > nextPeriod(max(s.unix(), o.trialEnd), max(s.unix(), o.trialEnd), first):
		c.fail(invalid("", "billing_cycle_anchor", "`billing_cycle_anchor` cannot be later than next natural billing date."))
	}
}

func notInFuture(name string) *apiError {
	return badValue("", name, "The timestamp specified for `%s` must be in the future.", name)
}

// checkDue holds that who is sent invoices has a time to pay them in, and nobody else.
func checkDue(c *call, collection string, days int64) {
	switch {
	case collection == sendInvoice && days < 1:
		c.fail(missingParam("days_until_due"))
	case collection != sendInvoice && c.has("days_until_due"):
		c.fail(invalid("", "days_until_due", "You can only specify `days_until_due` if `collection_method` is 'send_invoice'."))
	}
}

// noDiscount refuses coupons and promotion codes: the simulated account has none.
func (p *params) noDiscount(at ...string) {
	for _, name := range []string{"coupon", "promotion_code"} {
		path := append(slices.Clone(at), name)
		if v, _ := p.text(path...); v != "" {
			p.fail(missingRef(strings.ReplaceAll(name, "_", " "), v, bracketed(path)))
		}
		for _, f := range p.root.at(append(slices.Clone(at), "discounts")...).list() {
			if each := f.at(name); each != nil {
				p.fail(missingRef(strings.ReplaceAll(name, "_", " "), each.value, each.name))
			}
		}
	}
}

const longestTrial = 730 // days

// trialOf reads trial_end or trial_period_days; 0 is no trial.
func (s *Server) trialOf(c *call, at ...string) int64 {
	in := func(name string) []string { return append(slices.Clone(at), name) }
	days, byDays := c.integer(in("trial_period_days")...)
	v, _ := c.text(in("trial_end")...)
	switch {
	case v != "" && byDays:
		c.fail(badValue("", bracketed(in("trial_end")), "You may only specify one of these parameters: trial_end, trial_period_days."))
	case v != "" && v != "now":
		end, _ := c.integer(in("trial_end")...)
		s.checkTrialEnd(c, end, bracketed(in("trial_end")))
		return end
	case byDays && days < 0:
		c.fail(badValue("parameter_invalid_integer", bracketed(in("trial_period_days")), "This value must be greater than or equal to 0."))
	case days > longestTrial:
		c.fail(trialTooLong(bracketed(in("trial_period_days"))))
	case days > 0:
		return s.unix() + days*24*60*60
	}
	return 0
}

func (s *Server) checkTrialEnd(c *call, end int64, name string) {
	switch {
	case end <= s.unix():
		c.fail(badValue("", name, "Invalid timestamp: must be an integer Unix timestamp in the future."))
	case end > s.unix()+longestTrial*24*60*60:
		c.fail(trialTooLong(name))
	}
}

func trialTooLong(name string) *apiError {
	return badValue("", name, "The maximum number of trial period days is %d (2 years).", longestTrial)
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
		sum += s.db.Prices.get(it.Price).amount(it.Quantity)
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
	invoiceNow, _ := c.boolean("invoice_now")
	if c.err != nil {
		return nil, c.err
	}
	sub.CancelAt, sub.AtPeriodEnd, sub.CanceledAt, sub.Reason = 0, false, 0, ""
	sub.Feedback, sub.Comment = feedback, comment
	var final *invoice
	if invoiceNow {
		final = s.finalInvoice(sub)
	}
	s.cancelSubscription(sub, "cancellation_requested")
	if final != nil {
		s.record("invoice.created", final, nil)
		s.finalize(final)
		if final.Status == "open" && sub.Collection != sendInvoice {
			s.attempt(final, automatic)
		}
	}
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

// inList is Stripe's rule for the status filter: without one, everything that has not been
// canceled.
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
