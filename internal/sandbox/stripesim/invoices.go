package stripesim

import (
	"fmt"
	"maps"
	"time"
)

type invoice struct {
	ID, Customer, Subscription, Status, Reason, Currency string
	Number, Collection                                   string
	Email, Name                                          string // the customer's, when it was made
	Created, PeriodStart, PeriodEnd                      int64
	Lines                                                []line
	Total, Paid                                          int64
	Intent, Charge                                       string
	Attempts                                             int
	NextAttempt, FinalizeAt                              int64 // 0: not by itself
	FinalizedAt, PaidAt, VoidedAt, UncollectibleAt       int64
	DueDate                                              int64
	OutOfBand                                            bool
	SubscriptionMetadata                                 map[string]string
}

type line struct {
	ID, Text, Price, Item string
	Amount, Quantity      int64
	Start, End            int64
	Proration             bool
	Pended                bool // an invoice item before
}

func (x *invoice) ident() string { return x.ID }

func (x *invoice) due() int64 {
	switch x.Status {
	case "draft":
		return x.FinalizeAt
	case "open":
		return x.NextAttempt
	}
	return 0
}

// invoiceDue finalizes a draft, or tries a payment again.
func (s *Server) invoiceDue(x *invoice) {
	if x.Status == "draft" {
		s.finalize(x)
		if x.Status != "open" || x.Collection == sendInvoice {
			return
		}
	}
	s.attempt(x, automatic)
}

// draftInvoice makes the invoice of a period (free while on trial), of pending invoice items and of
// what was used of metered prices. It is not yet announced.
func (s *Server) draftInvoice(x *subscription, reason string, wholePeriod bool) *invoice {
	cus := s.db.Customers.get(x.Customer)
	inv := &invoice{ID: s.newID("in_"), Customer: x.Customer, Subscription: x.ID, Status: "draft", Reason: reason, Currency: x.Currency,
		Collection: x.Collection, Email: cus.Email, Name: cus.Name, Created: s.unix(), PeriodStart: x.PeriodStart, PeriodEnd: x.PeriodEnd,
		SubscriptionMetadata: maps.Clone(x.Metadata)}
	for _, it := range s.pendingOf(x) {
		it.Invoice = inv.ID
		inv.Lines = append(inv.Lines, it.line())
	}
	for i := range x.Items {
		it := &x.Items[i]
		p := s.db.Prices.get(it.Price)
		if !wholePeriod && (reason != "subscription_cycle" || it.Used == 0 || x.Status == statusTrialing) {
			continue
		}
		l := line{ID: s.newID("il_"), Item: it.ID, Price: p.ID, Quantity: it.Quantity, Amount: p.amount(it.Quantity),
			Text: fmt.Sprintf("%d × %s", it.Quantity, s.db.productName(p.Product)), Start: x.PeriodStart, End: x.PeriodEnd}
		switch {
		case x.Status == statusTrialing: // what is used of a metered price meanwhile is free too
			l.Amount, l.Text = 0, "Trial period for "+s.db.productName(p.Product)
		case p.metered():
			l.Quantity, l.Amount = it.Used, p.amount(it.Used)
		}
		it.Used = 0
		inv.Lines = append(inv.Lines, l)
	}
	for _, l := range inv.Lines {
		inv.Total += l.Amount
	}
	inv.Total = max(0, inv.Total)
	s.db.Invoices.put(inv.ID, inv)
	return inv
}

// finalize opens a draft: it gets a number and, if it costs something, a payment intent. What is
// free is paid at once.
func (s *Server) finalize(inv *invoice) {
	cus := s.db.Customers.get(inv.Customer)
	cus.Invoices++
	inv.Status, inv.FinalizedAt, inv.FinalizeAt = "open", s.unix(), 0
	inv.Number = fmt.Sprintf("%s-%04d", cus.InvoicePrefix, cus.Invoices)
	if inv.Collection == sendInvoice {
		inv.DueDate = s.unix() + 30*24*60*60
	}
	var pi *intent
	if inv.Total > 0 {
		pi = &intent{ID: s.newID("pi_"), Customer: inv.Customer, Invoice: inv.ID, Amount: inv.Total, Currency: inv.Currency,
			Status: "requires_payment_method", Created: s.unix(), Description: "Subscription update"}
		s.db.Intents.put(pi.ID, pi)
		inv.Intent = pi.ID
	}
	s.record("invoice.finalized", inv, nil)
	if pi != nil {
		s.record("payment_intent.created", pi, nil)
	}
	if inv.Total == 0 {
		s.markPaid(inv, "")
		return
	}
	if sub := s.db.Subscriptions.get(inv.Subscription); sub != nil && sub.Pause != nil {
		switch sub.Pause.Behavior {
		case "void":
			s.voidInvoice(inv)
		case "mark_uncollectible":
			s.giveUp(inv)
		}
	}
}

// giveUp marks an invoice as uncollectible: nothing more is tried, and it can still be paid.
func (s *Server) giveUp(inv *invoice) {
	s.updating("invoice.marked_uncollectible", inv, func() { inv.Status, inv.UncollectibleAt, inv.NextAttempt = "uncollectible", s.unix(), 0 })
}

func (s *Server) giveUpByRequest(c *call) (any, *apiError) {
	inv := s.db.Invoices.get(c.id)
	if inv == nil {
		return nil, missing("invoice", c.id)
	}
	if inv.Status != "open" {
		return nil, invalid("", "", "You can only mark an open invoice as uncollectible. This invoice is %s.", inv.Status)
	}
	s.giveUp(inv)
	return inv, nil
}

func (s *Server) voidInvoice(inv *invoice) {
	s.updating("invoice.voided", inv, func() { inv.Status, inv.VoidedAt, inv.NextAttempt = "void", s.unix(), 0 })
	s.cancelIntent(inv.Intent)
}

// markPaid closes an invoice; charge is "" when it was free or paid out of band.
func (s *Server) markPaid(inv *invoice, charge string) {
	s.updating("invoice.updated", inv, func() {
		inv.Status, inv.PaidAt, inv.NextAttempt, inv.Paid, inv.Charge = "paid", s.unix(), 0, inv.Total, charge
	})
	if s.eventVersion().basil() && charge != "" {
		s.record("invoice_payment.paid", s.renderer(s.eventVersion()).invoicePayment(inv), nil)
	}
	s.record("invoice.paid", inv, nil)
	if !inv.OutOfBand {
		s.record("invoice.payment_succeeded", inv, nil)
	}
	sub := s.db.Subscriptions.get(inv.Subscription)
	if sub == nil || sub.Latest != inv.ID {
		return
	}
	switch sub.Status {
	case statusIncomplete, statusPastDue, statusUnpaid:
		s.updating(subscriptionUpdated, sub, func() { sub.Status = statusActive })
	}
	s.setDelinquent(sub.Customer, false)
}

func (s *Server) setDelinquent(customerID string, delinquent bool) {
	if cus := s.db.Customers.get(customerID); !cus.Deleted && cus.Delinquent != delinquent {
		s.changeCustomer(cus, func() { cus.Delinquent = delinquent })
	}
}

// notPaid does to the subscription what a failed payment does, and plans the next attempt.
func (s *Server) notPaid(inv *invoice) {
	sub := s.db.Subscriptions.get(inv.Subscription)
	if sub == nil || sub.ended() || sub.Status == statusIncomplete {
		return
	}
	d := s.opts.Dunning
	last := inv.Attempts > len(d.Retry)
	s.updating("invoice.updated", inv, func() {
		inv.NextAttempt = 0
		if !last {
			inv.NextAttempt = s.unix() + int64(d.Retry[inv.Attempts-1]/time.Second)
		}
	})
	s.setDelinquent(sub.Customer, true)
	switch {
	case last && d.Then == statusCanceled:
		s.cancelSubscription(sub, "payment_failed")
	case last && d.Then == statusUnpaid:
		s.updating(subscriptionUpdated, sub, func() { sub.Status = statusUnpaid })
	case sub.Status == statusActive || sub.Status == statusTrialing:
		s.updating(subscriptionUpdated, sub, func() { sub.Status = statusPastDue })
	}
}

func (s *Server) getInvoice(c *call) (any, *apiError) {
	if inv := s.db.Invoices.get(c.id); inv != nil {
		return inv, nil
	}
	return nil, missing("invoice", c.id)
}

func (s *Server) listInvoices(c *call) (any, *apiError) {
	customer, byCustomer := c.text("customer")
	sub, bySub := c.text("subscription")
	status, byStatus := c.choice([]string{"draft", "open", "paid", "uncollectible", "void"}, "status")
	created := c.span("created")
	return listed(c, &s.db.Invoices, func(x *invoice) bool {
		return (!byCustomer || x.Customer == customer) && (!bySub || x.Subscription == sub) &&
			(!byStatus || x.Status == status) && created.holds(x.Created)
	})
}

// updateInvoice lets an invoice advance by itself, or not any more.
func (s *Server) updateInvoice(c *call) (any, *apiError) {
	inv := s.db.Invoices.get(c.id)
	if inv == nil {
		return nil, missing("invoice", c.id)
	}
	on, given := c.boolean("auto_advance")
	switch {
	case c.err != nil:
		return nil, c.err
	case given && inv.Status != "draft" && inv.Status != "open":
		return nil, invalid("", "auto_advance", "You can only change `auto_advance` of a draft or open invoice; this one is %s.", inv.Status)
	case given:
		s.updating("invoice.updated", inv, func() {
			inv.FinalizeAt, inv.NextAttempt = 0, 0
			switch later := s.unix() + int64(s.opts.InvoiceDelay.Seconds()); {
			case on && inv.Status == "draft":
				inv.FinalizeAt = later
			case on && inv.Collection != sendInvoice:
				inv.NextAttempt = later
			}
		})
	}
	return inv, nil
}

func (s *Server) payInvoice(c *call) (any, *apiError) {
	inv := s.db.Invoices.get(c.id)
	outOfBand, _ := c.boolean("paid_out_of_band")
	switch {
	case inv == nil:
		return nil, missing("invoice", c.id)
	case c.err != nil:
		return nil, c.err
	case inv.Status == "paid":
		return nil, invalid("", "", "Invoice is already paid")
	case inv.Status == "void":
		return nil, invalid("", "", "You can only pay draft, open or uncollectible invoices; this one is %s", inv.Status)
	}
	if inv.Status == "draft" {
		s.finalize(inv)
	}
	if inv.Status == "paid" {
		return inv, nil
	}
	if outOfBand {
		inv.OutOfBand = true
		s.cancelIntent(inv.Intent)
		s.markPaid(inv, "")
		return inv, nil
	}
	if !s.attempt(inv, byHand) {
		return nil, declined()
	}
	return inv, nil
}

func (s *Server) voidByRequest(c *call) (any, *apiError) {
	inv := s.db.Invoices.get(c.id)
	if inv == nil {
		return nil, missing("invoice", c.id)
	}
	if inv.Status != "open" && inv.Status != "uncollectible" {
		return nil, invalid("", "", "You can only pass in open or uncollectible invoices. This invoice isn't open.")
	}
	s.voidInvoice(inv)
	return inv, nil
}
