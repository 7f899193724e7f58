package stripesim

// expects refuses a price in another currency than the one that is needed where it is to go.
func (p *price) expects(currency, param string) *apiError {
	if p.Currency == currency {
		return nil
	}
	return invalid("", param, "The price specified only supports `%s`. This doesn't match the expected currency: `%s`.", p.Currency, currency)
}

// differs names what two prices do not have in common of what Stripe bills one subscription by; ""
// for nothing. Prices of different intervals share a subscription only in the flexible billing
// mode, which the simulated account does not have: it answers "classic".
func (p *price) differs(other *price) string {
	switch {
	case p.Currency != other.Currency:
		return "currency"
	case p.Interval != other.Interval:
		return "interval"
	case p.IntervalCount != other.IntervalCount:
		return "interval_count"
	}
	return ""
}

// together refuses items that Stripe does not bill in one subscription of a currency: of different
// currencies or intervals, or twice the same price.
func (s *Server) together(items []item, currency, param string) *apiError {
	first := s.db.Prices.get(items[0].Price)
	for i, it := range items {
		p := s.db.Prices.get(it.Price)
		if e := p.expects(currency, param); e != nil {
			return e
		}
		if what := p.differs(first); what != "" {
			return invalid("", param, "Currency and interval fields must match across all plans on this subscription. Found mismatch in %s field.", what)
		}
		if e := onlyOnce(items[:i], it.Price, param); e != nil {
			return e
		}
	}
	return nil
}

// inOnePhase is together for a phase of a schedule, whose currency its first price says.
func (s *Server) inOnePhase(items []item, param string) *apiError {
	first := s.db.Prices.get(items[0].Price)
	for i, it := range items {
		if s.db.Prices.get(it.Price).differs(first) != "" {
			return invalid("", param, "For a particular phase, all of its `plans` must have the same `interval`, `interval_count`, and `currency`.")
		}
		if e := onlyOnce(items[:i], it.Price, param); e != nil {
			return e
		}
	}
	return nil
}

func onlyOnce(before []item, priceID, param string) *apiError {
	for _, other := range before {
		if other.Price == priceID {
			return invalid("", param, "Cannot add multiple subscription items with the same plan: %s", priceID)
		}
	}
	return nil
}

// phasesTogether refuses phases in more than one currency, or in another than the schedule's
// customer is billed in.
func (s *Server) phasesTogether(x *schedule, phases []phase) *apiError {
	for _, p := range phases {
		if p.Currency != phases[0].Currency {
			return combinesCurrencies(phases[0].Currency)
		}
	}
	if sub := s.db.Subscriptions.get(x.Subscription); sub != nil && sub.Currency != phases[0].Currency {
		return combinesCurrencies(sub.Currency)
	}
	return s.oneCurrency(x.Customer, phases[0].Currency, x)
}

// oneCurrency refuses a second currency on a customer who has something running in another; except
// is a schedule that does not count.
func (s *Server) oneCurrency(customerID, currency string, except *schedule) *apiError {
	for _, x := range s.db.Subscriptions.newest(func(x *subscription) bool { return x.Customer == customerID && !x.ended() }) {
		if x.Currency != currency {
			return combinesCurrencies(x.Currency)
		}
	}
	for _, x := range s.db.Schedules.newest(func(x *schedule) bool { return x.Customer == customerID && x.open() }) {
		for _, phase := range x.Phases {
			if phase.Currency != "" && phase.Currency != currency && (except == nil || x.ID != except.ID) {
				return combinesCurrencies(phase.Currency)
			}
		}
	}
	return nil
}

func combinesCurrencies(has string) *apiError {
	return invalid("", "", "You cannot combine currencies on a single customer. This customer has an active subscription, subscription schedule, discount, quote, or invoice item with currency %s", has)
}
