package stripesim

import (
	"maps"
	"slices"
	"strings"
)

type customer struct {
	ID, Email, Name, Phone, Description string
	Created                             int64
	Metadata                            map[string]string
	Address, Shipping                   object
	Balance                             int64
	Currency                            string
	Delinquent                          bool
	DefaultCard                         string // invoice_settings.default_payment_method
	Locales                             []string
	TaxExempt                           string
	InvoicePrefix                       string
	Invoices                            int64 // how many were numbered
	Deleted                             bool
	Outcome                             PaymentOutcome
	ChangedAt                           int64
	Before                              *customer // as search still sees it while the index lags
}

type card struct {
	ID, Customer  string
	Created       int64
	Brand, Last4  string
	Metadata      map[string]string
	AlwaysDecline bool
}

const customerParams = `address.* balance cash_balance.* coupon default_source description=..350 email invoice_prefix
	invoice_settings.default_payment_method invoice_settings.footer invoice_settings.custom_fields.* invoice_settings.rendering_options.*
	metadata.* name next_invoice_sequence payment_method phone=..20 preferred_locales.# promotion_code shipping.* source tax.*
	tax_exempt=|exempt|none|reverse tax_id_data.* test_clock validate`

func (s *Server) createCustomer(c *call) (any, *apiError) {
	cus := &customer{ID: s.newID("cus_"), Created: s.unix(), TaxExempt: "none", Metadata: map[string]string{}}
	change := s.customerChange(c, cus)
	token, _ := c.text("payment_method")
	if source, ok := c.text("source"); ok {
		token = source
	}
	if c.err != nil {
		return nil, c.err
	}
	change()
	s.addCustomer(cus)
	if token != "" {
		s.attach(cus, token)
	}
	return cus, nil
}

func (s *Server) addCustomer(cus *customer) {
	id := strings.ToUpper(s.newID("x_")[3:])
	cus.InvoicePrefix = id[:8]
	cus.ChangedAt = s.unix()
	s.db.Customers.put(cus.ID, cus)
	s.record("customer.created", cus, nil)
}

// customerChange reads the parameters of create and update; the change it answers is made once all
// are known to be good.
func (s *Server) customerChange(c *call, cus *customer) func() {
	next := *cus
	for name, at := range map[string]*string{"email": &next.Email, "name": &next.Name, "phone": &next.Phone,
		"description": &next.Description, "tax_exempt": &next.TaxExempt} {
		if v, ok := c.text(name); ok {
			*at = v
		}
	}
	c.limit(maxName, "name")
	c.limit(maxEmail, "email")
	if next.Email != "" && !validEmail(next.Email) {
		c.fail(badValue("email_invalid", "email", "Invalid email address: %s", next.Email))
	}
	c.noDiscount()
	if n, ok := c.integer("balance"); ok {
		next.Balance = n
	}
	if c.has("address") {
		next.Address = c.tree("address")
	}
	if c.has("shipping") {
		next.Shipping = c.tree("shipping")
	}
	if fields := c.root.at("preferred_locales").list(); len(fields) > 0 {
		next.Locales = nil
		for _, f := range fields {
			next.Locales = append(next.Locales, f.value)
		}
	}
	if pm, ok := c.text("invoice_settings", "default_payment_method"); ok {
		if own := s.db.Cards.get(pm); pm != "" && (own == nil || own.Customer != cus.ID) {
			c.fail(missingRef("PaymentMethod", pm, "invoice_settings[default_payment_method]"))
		}
		next.DefaultCard = pm
	}
	next.Metadata = c.metadata(cus.Metadata, "metadata")
	return func() { *cus = next }
}

func (s *Server) getCustomer(c *call) (any, *apiError) {
	if cus := s.db.Customers.get(c.id); cus != nil {
		return cus, nil
	}
	return nil, missing("customer", c.id)
}

// liveCustomer finds the customer of a route that a deleted one has no part in.
func (s *Server) liveCustomer(id string) (*customer, *apiError) {
	if cus := s.db.Customers.get(id); cus != nil && !cus.Deleted {
		return cus, nil
	}
	return nil, missing("customer", id)
}

func (s *Server) updateCustomer(c *call) (any, *apiError) {
	cus, e := s.liveCustomer(c.id)
	if e != nil {
		return nil, e
	}
	change := s.customerChange(c, cus)
	if c.err != nil {
		return nil, c.err
	}
	s.changeCustomer(cus, change)
	return cus, nil
}

func (s *Server) changeCustomer(cus *customer, change func()) {
	if cus.ChangedAt+int64(s.db.SearchLag.Seconds()) <= s.unix() {
		before := *cus
		before.Metadata, before.Before = maps.Clone(cus.Metadata), nil
		cus.Before = &before
	}
	older := cus.Before
	s.updating("customer.updated", cus, change)
	cus.Before, cus.ChangedAt = older, s.unix()
}

func (s *Server) removeCustomer(c *call) (any, *apiError) {
	cus, e := s.liveCustomer(c.id)
	if e != nil {
		return nil, e
	}
	s.deleteCustomer(cus)
	return cus, nil
}

// deleteCustomer cancels what bills the customer, then forgets everything but the id.
func (s *Server) deleteCustomer(cus *customer) {
	for _, sub := range s.db.Subscriptions.newest(func(x *subscription) bool { return x.Customer == cus.ID && !x.ended() }) {
		s.cancelSubscription(sub, "cancellation_requested")
	}
	for _, sc := range s.db.Schedules.newest(func(x *schedule) bool { return x.Customer == cus.ID && x.open() }) {
		s.endSchedule(sc, statusCanceled)
	}
	for _, it := range s.db.InvoiceItems.newest(func(x *invoiceItem) bool { return x.Customer == cus.ID && x.Invoice == "" }) {
		s.db.InvoiceItems.remove(it.ID)
	}
	for _, pm := range s.db.Cards.newest(func(x *card) bool { return x.Customer == cus.ID }) {
		s.updating("payment_method.detached", pm, func() { pm.Customer = "" })
	}
	s.record("customer.deleted", cus, nil)
	before := *cus
	before.Before = nil
	*cus = customer{ID: cus.ID, Created: cus.Created, Deleted: true, ChangedAt: s.unix(), Metadata: map[string]string{}, Before: &before}
}

func (s *Server) listCustomers(c *call) (any, *apiError) {
	email, filter := c.text("email")
	created := c.span("created")
	return listed(c, &s.db.Customers, func(x *customer) bool {
		return !x.Deleted && (!filter || x.Email == email) && created.holds(x.Created)
	})
}

func (s *Server) listCustomerCards(c *call) (any, *apiError) {
	if _, e := s.liveCustomer(c.id); e != nil {
		return nil, e
	}
	return listed(c, &s.db.Cards, func(x *card) bool { return x.Customer == c.id && c.or("card", "type") == "card" })
}

// attach gives the customer a card. Tokens whose name says so make one that is always declined, as
// Stripe's test tokens do.
func (s *Server) attach(cus *customer, token string) *card {
	pm := &card{ID: s.newID("pm_"), Customer: cus.ID, Created: s.unix(), Brand: "visa", Last4: "4242",
		AlwaysDecline: strings.Contains(strings.ToLower(token), "declined") || strings.Contains(token, "chargeCustomerFail")}
	if pm.AlwaysDecline {
		pm.Last4 = "0341"
	}
	s.db.Cards.put(pm.ID, pm)
	s.record("payment_method.attached", pm, nil)
	return pm
}

// cardOf is the card that the customer's invoices are paid with; nil when there is none.
func (s *Server) cardOf(cus *customer, preferred string) *card {
	for _, id := range []string{preferred, cus.DefaultCard} {
		if pm := s.db.Cards.get(id); pm != nil && pm.Customer == cus.ID {
			return pm
		}
	}
	own := s.db.Cards.newest(func(x *card) bool { return x.Customer == cus.ID })
	if len(own) == 0 {
		return nil
	}
	return own[len(own)-1]
}

func (s *Server) getCard(c *call) (any, *apiError) {
	if pm := s.db.Cards.get(c.id); pm != nil {
		return pm, nil
	}
	return nil, missing("PaymentMethod", c.id)
}

func (s *Server) attachCard(c *call) (any, *apiError) {
	id := c.required("customer")
	if c.err != nil {
		return nil, c.err
	}
	cus := s.db.Customers.get(id)
	if cus == nil || cus.Deleted {
		return nil, missingRef("customer", id, "customer")
	}
	if pm := s.db.Cards.get(c.id); pm != nil {
		if pm.Customer != "" && pm.Customer != id {
			return nil, invalid("", "", "The payment method you provided has already been attached to a customer.")
		}
		s.updating("payment_method.attached", pm, func() { pm.Customer = id })
		return pm, nil
	}
	if !slices.Contains([]string{"pm_card_visa", "pm_card_mastercard", "pm_card_chargeCustomerFail", "pm_card_visa_chargeDeclined"}, c.id) {
		return nil, missing("PaymentMethod", c.id)
	}
	return s.attach(cus, c.id), nil
}

func (s *Server) detachCard(c *call) (any, *apiError) {
	pm := s.db.Cards.get(c.id)
	if pm == nil {
		return nil, missing("PaymentMethod", c.id)
	}
	s.updating("payment_method.detached", pm, func() { pm.Customer = "" })
	return pm, nil
}

// gone is set for one that was deleted: its id can still be read.
func (c *customer) gone() bool { return c.Deleted }
