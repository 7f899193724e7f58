package stripesim

import "slices"

type intent struct {
	ID, Customer, Invoice, Currency, Description string
	Status                                       string
	Amount, Received                             int64
	Charge, Card                                 string
	Created, CanceledAt                          int64
	Failure                                      string // code of the last error
	Metadata                                     map[string]string
}

type charge struct {
	ID, Customer, Invoice, Intent, Card, Currency string
	Status                                        string // succeeded, failed, pending
	Amount, Refunded                              int64
	Created                                       int64
	Failure                                       string
	Disputed                                      bool
	Email                                         string
	Metadata                                      map[string]string
}

type refund struct {
	ID, Charge, Intent, Customer, Currency, Reason string
	Failure                                        string // why it failed; "" while it has succeeded
	Amount                                         int64
	Created                                        int64
	Metadata                                       map[string]string
}

type dispute struct {
	ID, Charge, Intent, Currency, Status string
	Amount                               int64
	Created                              int64
}

// PaymentOutcome is what becomes of a customer's payments.
type PaymentOutcome string

// The outcomes. Declined is a refused card; Challenged is one whose bank asks the customer first,
// and gets no answer.
const (
	PaymentsSucceed    PaymentOutcome = ""
	PaymentsDeclined   PaymentOutcome = "declined"
	PaymentsChallenged PaymentOutcome = "challenged"
)

// attemptKind tells the account's own attempts from those that somebody asked for.
type attemptKind bool

const (
	automatic attemptKind = true
	byHand    attemptKind = false
)

// attempt tries to collect an open invoice.
func (s *Server) attempt(inv *invoice, kind attemptKind) (paid bool) {
	cus, pi := s.db.Customers.get(inv.Customer), s.db.Intents.get(inv.Intent)
	preferred := ""
	if sub := s.db.Subscriptions.get(inv.Subscription); sub != nil {
		preferred = sub.Card
	}
	pm := s.cardOf(cus, preferred)
	if kind == automatic {
		inv.Attempts++
	}
	if pm != nil && !pm.AlwaysDecline && cus.Outcome == PaymentsSucceed {
		ch := s.charge(pi, pm, cus)
		s.markPaid(inv, ch.ID)
		return true
	}
	s.refuse(pi, pm, cus)
	if cus.Outcome == PaymentsChallenged {
		s.record("invoice.payment_action_required", inv, nil)
	}
	s.record("invoice.payment_failed", inv, nil)
	if kind == automatic {
		s.notPaid(inv)
	}
	return false
}

// charge takes the money of an intent.
func (s *Server) charge(pi *intent, pm *card, cus *customer) *charge {
	ch := s.newCharge(pi, pm, cus, "succeeded")
	pi.Status, pi.Received, pi.Charge, pi.Card, pi.Failure = "succeeded", pi.Amount, ch.ID, pm.ID, ""
	s.record("charge.succeeded", ch, nil)
	s.record("payment_intent.succeeded", pi, nil)
	return ch
}

// refuse is a payment that did not happen; without a card there is not even a charge.
func (s *Server) refuse(pi *intent, pm *card, cus *customer) {
	if cus.Outcome == PaymentsChallenged {
		pi.Status, pi.Failure = "requires_action", "authentication_required"
		s.record("payment_intent.requires_action", pi, nil)
		return
	}
	pi.Status, pi.Failure = "requires_payment_method", "card_declined"
	if pm != nil {
		ch := s.newCharge(pi, pm, cus, "failed")
		ch.Failure, pi.Charge = pi.Failure, ch.ID
		s.record("charge.failed", ch, nil)
	}
	s.record("payment_intent.payment_failed", pi, nil)
}

func (s *Server) newCharge(pi *intent, pm *card, cus *customer, status string) *charge {
	ch := &charge{ID: s.newID("ch_"), Customer: pi.Customer, Invoice: pi.Invoice, Intent: pi.ID, Card: pm.ID, Currency: pi.Currency,
		Status: status, Amount: pi.Amount, Created: s.unix(), Email: cus.Email}
	s.db.Charges.put(ch.ID, ch)
	return ch
}

func (s *Server) cancelIntent(id string) {
	if pi := s.db.Intents.get(id); pi != nil && pi.Status != "succeeded" && pi.Status != statusCanceled {
		pi.Status, pi.CanceledAt = statusCanceled, s.unix()
		s.record("payment_intent.canceled", pi, nil)
	}
}

func (s *Server) getIntent(c *call) (any, *apiError) {
	if pi := s.db.Intents.get(c.id); pi != nil {
		return pi, nil
	}
	return nil, missing("payment_intent", c.id)
}

func (s *Server) listIntents(c *call) (any, *apiError) {
	customer, byCustomer := c.text("customer")
	created := c.span("created")
	return listed(c, &s.db.Intents, func(x *intent) bool {
		return (!byCustomer || x.Customer == customer) && created.holds(x.Created)
	})
}

func (s *Server) getCharge(c *call) (any, *apiError) {
	if ch := s.db.Charges.get(c.id); ch != nil {
		return ch, nil
	}
	return nil, missing("charge", c.id)
}

func (s *Server) listCharges(c *call) (any, *apiError) {
	customer, byCustomer := c.text("customer")
	pi, byIntent := c.text("payment_intent")
	created := c.span("created")
	return listed(c, &s.db.Charges, func(x *charge) bool {
		return (!byCustomer || x.Customer == customer) && (!byIntent || x.Intent == pi) && created.holds(x.Created)
	})
}

func (s *Server) createRefund(c *call) (any, *apiError) {
	id, byCharge := c.text("charge")
	if pi, ok := c.text("payment_intent"); ok && !byCharge {
		if found := s.db.Intents.get(pi); found != nil {
			id = found.Charge
		}
		if id == "" {
			return nil, missingRef("payment_intent", pi, "payment_intent")
		}
	} else if !byCharge {
		return nil, invalid("parameter_missing", "", "One of the following params should be provided for this request: payment_intent or charge.")
	}
	ch := s.db.Charges.get(id)
	if ch == nil {
		return nil, missingRef("charge", id, "charge")
	}
	left := ch.Amount - ch.Refunded
	amount, ok := c.integer("amount")
	if !ok {
		amount = left
	}
	reason, _ := c.choice([]string{"duplicate", "fraudulent", "requested_by_customer"}, "reason")
	meta := c.metadata(nil, "metadata")
	switch {
	case c.err != nil:
		return nil, c.err
	case ch.Status != "succeeded":
		return nil, invalid("", "charge", "This charge has failed and cannot be refunded.")
	case left == 0:
		return nil, invalid("charge_already_refunded", "", "Charge %s has already been refunded.", ch.ID)
	case amount > left || amount <= 0:
		return nil, invalid("", "amount", "Refund amount (%d) is greater than unrefunded amount on charge (%d)", amount, left)
	}
	re := &refund{ID: s.newID("re_"), Charge: ch.ID, Intent: ch.Intent, Customer: ch.Customer, Currency: ch.Currency, Reason: reason,
		Amount: amount, Created: s.unix(), Metadata: meta}
	s.db.Refunds.put(re.ID, re)
	s.updating("charge.refunded", ch, func() { ch.Refunded += amount })
	s.record("refund.created", re, nil)
	return re, nil
}

// failRefund is what the payer's bank does that sends a refund back: the charge is refunded that
// much less. Stripe tells it of the refund alone, under its newer names and under its older one.
func (s *Server) failRefund(re *refund, why string) {
	ch := s.db.Charges.get(re.Charge)
	s.updating("charge.refund.updated", re, func() { re.Failure = why })
	ch.Refunded -= re.Amount
	s.record("refund.updated", re, nil)
	s.record("refund.failed", re, nil)
}

func (s *Server) getRefund(c *call) (any, *apiError) {
	if re := s.db.Refunds.get(c.id); re != nil {
		return re, nil
	}
	return nil, missing("refund", c.id)
}

func (s *Server) listRefunds(c *call) (any, *apiError) {
	ch, byCharge := c.text("charge")
	pi, byIntent := c.text("payment_intent")
	return listed(c, &s.db.Refunds, func(x *refund) bool {
		return (!byCharge || x.Charge == ch) && (!byIntent || x.Intent == pi)
	})
}

// openDispute is what a cardholder's bank does.
func (s *Server) openDispute(ch *charge) *dispute {
	d := &dispute{ID: s.newID("dp_"), Charge: ch.ID, Intent: ch.Intent, Currency: ch.Currency, Status: "needs_response",
		Amount: ch.Amount - ch.Refunded, Created: s.unix()}
	s.db.Disputes.put(d.ID, d)
	s.updating("charge.updated", ch, func() { ch.Disputed = true })
	s.record("charge.dispute.created", d, nil)
	s.record("charge.dispute.funds_withdrawn", d, nil)
	return d
}

func (s *Server) closeDispute(d *dispute, won bool) {
	verdict := "lost"
	if won {
		verdict = "won"
	}
	s.updating("charge.dispute.updated", d, func() { d.Status = verdict })
	if won {
		s.record("charge.dispute.funds_reinstated", d, nil)
	}
	s.record("charge.dispute.closed", d, nil)
}

func (d *dispute) open() bool { return !slices.Contains([]string{"won", "lost"}, d.Status) }

func (s *Server) getDispute(c *call) (any, *apiError) {
	if d := s.db.Disputes.get(c.id); d != nil {
		return d, nil
	}
	return nil, missing("dispute", c.id)
}

func (s *Server) listDisputes(c *call) (any, *apiError) {
	ch, byCharge := c.text("charge")
	pi, byIntent := c.text("payment_intent")
	created := c.span("created")
	return listed(c, &s.db.Disputes, func(x *dispute) bool {
		return (!byCharge || x.Charge == ch) && (!byIntent || x.Intent == pi) && created.holds(x.Created)
	})
}
