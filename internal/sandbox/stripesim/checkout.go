package stripesim

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
)

type session struct {
	ID, Mode, Status, PaymentStatus   string
	Customer, Email, Reference        string
	Price                             string
	Quantity                          int64
	SuccessURL, CancelURL             string
	Metadata, SubscriptionMetadata    map[string]string
	TrialDays, TrialEnd, Anchor       int64
	MissingCard                       string
	CollectCard                       string // payment_method_collection
	Created, ExpiresAt                int64
	Subscription, Invoice, Intent     string
	SetupIntent, Currency, UI, Return string
	PaymentLink                       string
}

const sessionLife = 24 * 60 * 60

const sessionParams = `after_expiration.* allow_promotion_codes automatic_tax.* billing_address_collection=auto|required cancel_url client_reference_id
	consent_collection.* currency customer customer_creation=always|if_required customer_email customer_update.* custom_fields.* custom_text.* discounts.*
	expires_at invoice_creation.* line_items.#.price line_items.#.quantity line_items.#.adjustable_quantity.* line_items.#.tax_rates.#
	locale metadata.* mode payment_intent_data.* payment_method_collection=always|if_required payment_method_configuration payment_method_options.*
	payment_method_types.# phone_number_collection.* redirect_on_completion=always|if_required|never return_url setup_intent_data.*
	shipping_address_collection.* shipping_options.* submit_type=auto|book|donate|pay|subscribe subscription_data.metadata.* subscription_data.trial_end
	subscription_data.trial_period_days subscription_data.description=..500 subscription_data.billing_cycle_anchor
	subscription_data.proration_behavior=create_prorations|none subscription_data.default_tax_rates.# subscription_data.invoice_settings.*
	subscription_data.trial_settings.end_behavior.missing_payment_method=cancel|create_invoice|pause success_url tax_id_collection.*
	ui_mode=custom|embedded|hosted`

func (x *session) ident() string { return x.ID }

func (x *session) due() int64 {
	if x.Status != "open" {
		return 0
	}
	return x.ExpiresAt
}

func (s *Server) createSession(c *call) (any, *apiError) {
	x := &session{ID: s.sessionID(), Status: "open", PaymentStatus: "unpaid", Created: s.unix(),
		Customer: c.or("", "customer"), Email: c.or("", "customer_email"), Reference: c.or("", "client_reference_id"),
		SuccessURL: c.or("", "success_url"), CancelURL: c.or("", "cancel_url"), Metadata: c.metadata(nil, "metadata"),
		SubscriptionMetadata: c.metadata(nil, "subscription_data", "metadata"), UI: c.or("hosted", "ui_mode"), Return: c.or("", "return_url"),
		MissingCard: c.or("create_invoice", "subscription_data", "trial_settings", "end_behavior", "missing_payment_method"),
		CollectCard: c.or("always", "payment_method_collection")}
	x.Mode, _ = c.choice([]string{"payment", "setup", "subscription"}, "mode")
	x.ExpiresAt = s.unix() + sessionLife
	if at, ok := c.integer("expires_at"); ok {
		if at < s.unix()+30*60 || at > s.unix()+sessionLife {
			c.fail(badValue("", "expires_at", "The `expires_at` timestamp must be between 30 minutes and 24 hours from Checkout Session creation."))
		}
		x.ExpiresAt = at
	}
	x.TrialEnd = s.trialOf(c, "subscription_data")
	x.Anchor, _ = c.integer("subscription_data", "billing_cycle_anchor")
	if days, ok := c.integer("subscription_data", "trial_period_days"); ok {
		x.TrialDays, x.TrialEnd = days, 0
	}
	x.Currency = c.currency("currency")
	c.noDiscount()
	c.address("success_url")
	c.address("cancel_url")
	c.address("return_url")
	c.limit(maxReference, "client_reference_id")
	if x.Email != "" && !validEmail(x.Email) {
		c.fail(badValue("email_invalid", "customer_email", "Invalid email address: %s", x.Email))
	}
	s.readLines(c, x)
	if e := s.checkSession(c, x); e != nil {
		return nil, e
	}
	s.db.Sessions.put(x.ID, x)
	s.plan(x)
	return x, nil
}

// readLines reads what is bought. All of it is in one currency, and what recurs is billed together.
func (s *Server) readLines(c *call, x *session) {
	var first *price // that recurs
	for i, f := range c.root.at("line_items").list() {
		id, at := c.required(append(pathOf(f), "price")...), f.name+"[price]"
		n := s.quantity(c, "line_items", f, id, true)
		if i == 0 {
			x.Price, x.Quantity = id, n
		}
		if e := s.buyable(id, at); e != nil {
			c.fail(e)
			return
		}
		p := s.db.Prices.get(id)
		x.Currency = cmp.Or(x.Currency, p.Currency)
		if e := p.expects(x.Currency, at); e != nil {
			c.fail(e)
		}
		if p.Interval == "" {
			continue
		}
		if first == nil {
			first = p
		}
		if p.differs(first) != "" {
			c.fail(invalid("", "line_items", "Checkout does not support multiple prices with different billing intervals."))
		}
	}
}

func (s *Server) sessionID() string {
	if s.opts.Livemode {
		return s.newID("cs_live_")
	}
	return s.newID("cs_test_")
}

func (s *Server) checkSession(c *call, x *session) *apiError {
	cus := s.db.Customers.get(x.Customer)
	p := s.db.Prices.get(x.Price)
	switch {
	case c.err != nil:
		return c.err
	case x.Mode == "":
		return missingParam("mode")
	case x.UI == "hosted" && x.SuccessURL == "":
		return missingParam("success_url")
	case x.Mode != "setup" && x.Price == "":
		return missingParam("line_items")
	case x.Customer != "" && x.Email != "":
		return badValue("", "customer_email", "You may only specify one of these parameters: customer, customer_email.")
	case x.Anchor != 0 && x.Anchor <= s.unix():
		return badValue("", "subscription_data[billing_cycle_anchor]", "Invalid timestamp: must be an integer Unix timestamp in the future.")
	case x.Customer != "" && (cus == nil || cus.Deleted):
		return missingRef("customer", x.Customer, "customer")
	case x.Mode != "subscription" && c.has("subscription_data"):
		return invalid("", "subscription_data", "You can not pass `subscription_data` in `%s` mode.", x.Mode)
	case x.Mode == "setup" && c.has("line_items"):
		return invalid("", "line_items", "You can not pass `line_items` in `setup` mode.")
	case p != nil && p.Interval != "" && x.Mode == "payment":
		return invalid("", "line_items", "You specified `payment` mode but passed a recurring price. Either switch to `subscription` mode or use only one-time prices.")
	case p != nil && p.Interval == "" && x.Mode == "subscription":
		return invalid("", "line_items", "You must provide at least one recurring price in `subscription` mode when using prices.")
	}
	if p == nil {
		return nil
	}
	if x.Quantity == noQuantity {
		return invalid("parameter_missing", "line_items[0][quantity]", "Quantity is required. Add `quantity` to `line_items[0]`")
	}
	return s.oneCurrency(x.Customer, x.Currency, nil)
}

// buyable says why nobody can buy at a price.
func (s *Server) buyable(id, param string) *apiError {
	p := s.db.Prices.get(id)
	switch {
	case p == nil:
		return missingRef("price", id, param)
	case !p.Active:
		return invalid("", param, "The price specified is inactive. This field only accepts active prices.")
	default:
		return nil
	}
}

func (s *Server) getSession(c *call) (any, *apiError) {
	if x := s.db.Sessions.get(c.id); x != nil {
		return x, nil
	}
	return nil, missing("checkout.session", c.id)
}

func (s *Server) listSessions(c *call) (any, *apiError) {
	customer, byCustomer := c.text("customer")
	sub, bySub := c.text("subscription")
	pi, byIntent := c.text("payment_intent")
	email, byEmail := c.text("customer_details", "email")
	status, byStatus := c.choice([]string{"complete", "expired", "open"}, "status")
	created := c.span("created")
	return listed(c, &s.db.Sessions, func(x *session) bool {
		return (!byCustomer || x.Customer == customer) && (!bySub || x.Subscription == sub) && (!byIntent || x.Intent == pi) &&
			(!byStatus || x.Status == status) && (!byEmail || x.Email == email) && created.holds(x.Created)
	})
}

func (s *Server) expireByRequest(c *call) (any, *apiError) {
	x := s.db.Sessions.get(c.id)
	if x == nil {
		return nil, missing("checkout.session", c.id)
	}
	if x.Status != "open" {
		return nil, invalid("", "", "Only Checkout Sessions with a status in [\"open\"] can be expired. This Checkout Session has a status of %s.", x.Status)
	}
	s.expireSession(x)
	return x, nil
}

func (s *Server) expireSession(x *session) {
	x.Status = "expired"
	s.record("checkout.session.expired", x, nil)
}

// errNotOpen is a checkout that is over, or whose customer is gone.
var errNotOpen = errors.New("the checkout session is not open")

// errDeclined is a checkout whose payment was refused: the session stays open, as the page does.
var errDeclined = errors.New("the card was declined")

// complete does what a customer does on the checkout page. With delayed, the bank takes its time:
// the subscription runs, and settleSession brings the answer.
func (s *Server) complete(x *session, delayed, noCard bool) error {
	if x.Status != "open" {
		return fmt.Errorf("complete checkout session %s: %w", x.ID, errNotOpen)
	}
	cus := s.db.Customers.get(x.Customer)
	if cus != nil && cus.Deleted {
		return fmt.Errorf("complete checkout session %s of a deleted customer: %w", x.ID, errNotOpen)
	}
	if cus != nil && cus.Outcome != PaymentsSucceed {
		return fmt.Errorf("complete checkout session %s: %w", x.ID, errDeclined)
	}
	if x.Mode == "subscription" {
		if e := s.oneCurrency(x.Customer, x.Currency, nil); e != nil {
			return fmt.Errorf("complete checkout session %s: %w", x.ID, e)
		}
	}
	if noCard && s.costs(x) && (cus == nil || s.cardOf(cus, "") == nil) {
		return fmt.Errorf("complete checkout session %s without a card: %w", x.ID, errDeclined)
	}
	if cus == nil {
		cus = &customer{ID: s.newID("cus_"), Created: s.unix(), Email: x.Email, TaxExempt: "none", Metadata: map[string]string{}}
		s.addCustomer(cus)
		x.Customer = cus.ID
	}
	var pm *card
	if !noCard {
		pm = s.attach(cus, "pm_card_visa")
		s.changeCustomer(cus, func() { cus.DefaultCard = pm.ID })
	}
	x.PaymentStatus = "paid"
	switch x.Mode {
	case "subscription":
		s.completeSubscription(x, cus, pm, delayed)
	case "payment":
		s.completePayment(x, cus, pm, delayed)
	case "setup":
		x.SetupIntent, x.PaymentStatus = s.newID("seti_"), "no_payment_required"
	}
	if x.Email == "" {
		x.Email = cus.Email
	}
	x.Status = "complete"
	s.record("checkout.session.completed", x, nil)
	return nil
}

// costs tells whether the checkout takes money at once.
func (s *Server) costs(x *session) bool {
	p := s.db.Prices.get(x.Price)
	return p != nil && p.exact() != "0" && x.TrialDays == 0 && x.TrialEnd <= s.unix()
}

func (s *Server) completeSubscription(x *session, cus *customer, pm *card, delayed bool) {
	o := order{customer: cus, items: []item{{Price: x.Price, Quantity: x.Quantity, Metadata: map[string]string{}}},
		trialEnd: x.TrialEnd, anchor: x.Anchor, missingCard: x.MissingCard, collection: "charge_automatically",
		metadata: maps.Clone(x.SubscriptionMetadata), viaCheckout: true}
	if o.metadata == nil {
		o.metadata = map[string]string{}
	}
	if x.TrialDays > 0 {
		o.trialEnd = s.unix() + x.TrialDays*24*60*60
	}
	if pm != nil {
		o.card = pm.ID
	}
	sub, inv := s.startSubscription(o)
	x.Subscription, x.Invoice = sub.ID, inv.ID
	switch {
	case inv.Status != "open":
	case delayed:
		x.PaymentStatus = "unpaid"
		s.process(s.db.Intents.get(inv.Intent))
		s.updating(subscriptionUpdated, sub, func() { sub.Status = statusActive })
	default:
		s.attempt(inv, automatic)
	}
	if inv.Total == 0 && sub.Status == statusTrialing {
		x.PaymentStatus = "no_payment_required"
	}
}

func (s *Server) completePayment(x *session, cus *customer, pm *card, delayed bool) {
	p := s.db.Prices.get(x.Price)
	pi := &intent{ID: s.newID("pi_"), Customer: cus.ID, Amount: p.amount(x.Quantity), Currency: p.Currency,
		Status: "requires_payment_method", Created: s.unix(), Metadata: map[string]string{}}
	s.db.Intents.put(pi.ID, pi)
	x.Intent = pi.ID
	s.record("payment_intent.created", pi, nil)
	if pm == nil {
		pm = s.cardOf(cus, "")
	}
	if delayed || pm == nil {
		x.PaymentStatus = "unpaid"
		s.process(pi)
		return
	}
	s.charge(pi, pm, cus)
}

func (s *Server) process(pi *intent) {
	pi.Status = "processing"
	s.record("payment_intent.processing", pi, nil)
}

// settleSession is the late answer of a bank to a delayed payment.
func (s *Server) settleSession(x *session, ok bool) error {
	if x.Status != "complete" || x.PaymentStatus != "unpaid" {
		return fmt.Errorf("settle checkout session %s: no payment of it is waiting", x.ID)
	}
	cus, inv := s.db.Customers.get(x.Customer), s.db.Invoices.get(x.Invoice)
	pi := s.db.Intents.get(x.Intent)
	if inv != nil {
		pi = s.db.Intents.get(inv.Intent)
	}
	pm := s.cardOf(cus, "")
	if pm == nil {
		return fmt.Errorf("settle checkout session %s: %w", x.ID, errNotOpen)
	}
	if ok {
		ch := s.charge(pi, pm, cus)
		if inv != nil {
			inv.Attempts++
			s.markPaid(inv, ch.ID)
		}
		x.PaymentStatus = "paid"
		s.record("checkout.session.async_payment_succeeded", x, nil)
		return nil
	}
	s.refuse(pi, pm, cus)
	if inv != nil {
		inv.Attempts++
		s.record("invoice.payment_failed", inv, nil)
		s.notPaid(inv)
	}
	s.record("checkout.session.async_payment_failed", x, nil)
	return nil
}
