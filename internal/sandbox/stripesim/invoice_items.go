package stripesim

import (
	"slices"
	"strings"
)

// invoiceItem is something to be billed with the next invoice: a proration, or what somebody has
// added by hand. It is pending until an invoice has taken it in.
type invoiceItem struct {
	ID, Customer, Invoice string
	Subscription          string // "": of whichever of the customer's is billed next
	Currency              string
	Created               int64
	Line                  line
	Metadata              map[string]string
}

func (x *invoiceItem) line() line {
	l := x.Line
	l.ID, l.Pended = "il_"+strings.TrimPrefix(x.ID, "ii_"), true
	return l
}

// pendingOf are the pending items that a subscription's next invoice takes in, oldest first.
func (s *Server) pendingOf(x *subscription) []*invoiceItem {
	items := s.db.InvoiceItems.newest(func(it *invoiceItem) bool {
		return it.Invoice == "" && it.Customer == x.Customer && (it.Subscription == x.ID || it.Subscription == "" && it.Currency == x.Currency)
	})
	slices.Reverse(items)
	return items
}

// book makes invoice items of a subscription's new prorations.
func (s *Server) book(x *subscription) {
	for _, l := range x.Pending {
		it := &invoiceItem{ID: "ii_" + strings.TrimPrefix(l.ID, "il_"), Customer: x.Customer, Subscription: x.ID, Currency: x.Currency, Created: s.unix(), Line: l}
		s.db.InvoiceItems.put(it.ID, it)
	}
	x.Pending = nil
}

// dropProrations removes a subscription's pending prorations, as Stripe does where it ends at once
// without a final invoice. What was added by hand stays.
func (s *Server) dropProrations(x *subscription) {
	for _, it := range s.pendingOf(x) {
		if it.Subscription == x.ID && it.Line.Proration {
			s.db.InvoiceItems.remove(it.ID)
		}
	}
}

func (s *Server) createInvoiceItem(c *call) (any, *apiError) {
	id := c.required("customer")
	cus := s.db.Customers.get(id)
	if c.err == nil && (cus == nil || cus.Deleted) {
		return nil, missingRef("customer", id, "customer")
	}
	it := &invoiceItem{ID: s.newID("ii_"), Customer: id, Subscription: c.or("", "subscription"), Currency: c.or("", "currency"), Created: s.unix(),
		Metadata: c.metadata(nil, "metadata")}
	it.Line = line{Text: c.or("", "description"), Quantity: 1, Start: s.unix(), End: s.unix()}
	if n, ok := c.integer("quantity"); ok {
		it.Line.Quantity = n
	}
	amount, priced := c.integer("amount")
	it.Line.Amount = amount
	if price, ok := c.text("price"); ok {
		p := s.db.Prices.get(price)
		switch {
		case p == nil:
			return nil, missingRef("price", price, "price")
		case p.Interval != "":
			return nil, invalid("", "price", "The price specified is set to `type=recurring` but this field only accepts prices with `type=one_time`.")
		}
		it.Line.Price, it.Line.Amount, it.Currency, priced = price, p.UnitAmount*it.Line.Quantity, p.Currency, true
	}
	if sub := s.db.Subscriptions.get(it.Subscription); it.Subscription != "" {
		switch {
		case sub == nil || sub.Customer != id:
			return nil, missingRef("subscription", it.Subscription, "subscription")
		case sub.ended():
			return nil, invalid("", "subscription", "You cannot add an invoice item to a subscription that has ended.")
		}
	}
	switch {
	case c.err != nil:
		return nil, c.err
	case !priced:
		return nil, missingParam("amount")
	case it.Currency == "":
		return nil, missingParam("currency")
	}
	s.db.InvoiceItems.put(it.ID, it)
	s.record("invoiceitem.created", it, nil)
	return it, nil
}

func (s *Server) getInvoiceItem(c *call) (any, *apiError) {
	if it := s.db.InvoiceItems.get(c.id); it != nil {
		return it, nil
	}
	return nil, missing("invoiceitem", c.id)
}

func (s *Server) listInvoiceItems(c *call) (any, *apiError) {
	customer, byCustomer := c.text("customer")
	if byCustomer && c.err == nil && s.db.Customers.get(customer) == nil {
		return nil, missingRef("customer", customer, "customer")
	}
	invoice, byInvoice := c.text("invoice")
	pending, byPending := c.boolean("pending")
	created := c.span("created")
	return listed(c, &s.db.InvoiceItems, func(x *invoiceItem) bool {
		return (!byCustomer || x.Customer == customer) && (!byInvoice || x.Invoice == invoice) &&
			(!byPending || (x.Invoice == "") == pending) && created.holds(x.Created)
	})
}

// removeInvoiceItem takes away what no invoice has taken in yet.
func (s *Server) removeInvoiceItem(c *call) (any, *apiError) {
	it := s.db.InvoiceItems.get(c.id)
	if it == nil {
		return nil, missing("invoiceitem", c.id)
	}
	inv := s.db.Invoices.get(it.Invoice)
	if inv != nil && inv.Status != "draft" {
		return nil, invalid("", "", "You can only delete an invoice item that is not attached to an invoice, or that is attached to a draft.")
	}
	s.db.InvoiceItems.remove(it.ID)
	if inv != nil {
		s.updating("invoice.updated", inv, func() {
			inv.Lines = slices.DeleteFunc(slices.Clone(inv.Lines), func(l line) bool { return l.ID == it.line().ID })
			inv.Total = 0
			for _, l := range inv.Lines {
				inv.Total += l.Amount
			}
			inv.Total = max(0, inv.Total)
		})
	}
	s.record("invoiceitem.deleted", it, nil)
	return object{"id": it.ID, "object": "invoiceitem", "deleted": true}, nil
}

// createUsage counts what was used of a metered item.
func (s *Server) createUsage(c *call) (any, *apiError) {
	n, given := c.integer("quantity")
	set := c.or("increment", "action") == "set"
	for _, id := range s.db.Subscriptions.Order {
		sub := s.db.Subscriptions.get(id)
		i := slices.IndexFunc(sub.Items, func(it item) bool { return it.ID == c.id })
		switch {
		case i < 0:
			continue
		case c.err != nil:
			return nil, c.err
		case !given:
			return nil, missingParam("quantity")
		case !s.db.Prices.get(sub.Items[i].Price).metered():
			return nil, invalid("", "", "You can only create usage records for metered plans. You can convert this plan to a metered plan by setting the usage_type on it.")
		case sub.ended():
			return nil, missing("subscription_item", c.id)
		}
		if set {
			sub.Items[i].Used = 0
		}
		sub.Items[i].Used += n
		return object{"id": s.newID("mbur_"), "object": "usage_record", "livemode": s.opts.Livemode, "quantity": n, "subscription_item": c.id, "timestamp": s.unix()}, nil
	}
	return nil, missing("subscription_item", c.id)
}

func (r renderer) invoiceItem(x *invoiceItem) object {
	var price any
	unit := x.Line.Amount
	if p := r.db.Prices.get(x.Line.Price); p != nil {
		price, unit = r.price(p), p.UnitAmount
	}
	out := object{
		"id": x.ID, "object": "invoiceitem", "amount": x.Line.Amount, "currency": x.Currency, "customer": x.Customer, "date": x.Created,
		"description": orNull(x.Line.Text), "discountable": !x.Line.Proration, "discounts": []any{}, "invoice": orNull(x.Invoice), "livemode": r.live,
		"metadata": orNothing(x.Metadata), "period": object{"end": x.Line.End, "start": x.Line.Start}, "proration": x.Line.Proration,
		"quantity": x.Line.Quantity, "tax_rates": []any{}, "test_clock": nil,
	}
	if !r.v.basil() {
		out["plan"], out["price"], out["subscription"], out["unit_amount"] = nil, price, orNull(x.Subscription), unit
		out["unit_amount_decimal"] = decimal(unit)
		return out
	}
	out["parent"], out["pricing"] = nil, nil
	if x.Subscription != "" {
		out["parent"] = object{"type": "subscription_details", "subscription_details": object{"subscription": x.Subscription, "subscription_item": orNull(x.Line.Item)}}
	}
	return out
}
