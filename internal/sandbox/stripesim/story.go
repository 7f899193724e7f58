package stripesim

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// act runs what a route does, with no request behind it: the events name none, as those of
// dashboard and portal do.
func (s *Server) act(h handler, id string, form url.Values) error {
	return s.do(func() error { return s.apply(h, id, form) })
}

// apply is act within a step that has begun.
func (s *Server) apply(h handler, id string, form url.Values) error {
	c := &call{params: params{root: &field{}}, s: s, v: s.eventVersion(), id: id}
	if err := c.root.add(form.Encode()); err != nil {
		return err
	}
	_, e := h(c)
	if e == nil {
		e = c.err
	}
	if e != nil {
		return fmt.Errorf("change %s: %w", id, e)
	}
	return nil
}

// CustomerSpec describes a customer; empty fields stay empty.
type CustomerSpec struct {
	Email, Name string
	Metadata    map[string]string
	// Created is when it was made, the present moment unless set.
	Created time.Time
}

// AddCustomer makes a customer without a card and answers its id.
func (s *Server) AddCustomer(spec CustomerSpec) string {
	cus := &customer{Email: spec.Email, Name: spec.Name, TaxExempt: "none", Metadata: cloned(spec.Metadata)}
	s.view(func() {
		cus.ID, cus.Created = s.newID("cus_"), s.unix()
		if !spec.Created.IsZero() {
			cus.Created = spec.Created.Unix()
		}
		s.addCustomer(cus)
	})
	return cus.ID
}

// AddCard gives a customer a card that can be charged, so that a subscription can be made for it by
// the API.
func (s *Server) AddCard(customerID string) error {
	return s.do(func() error {
		cus, e := s.liveCustomer(customerID)
		if e != nil {
			return e
		}
		pm := s.attach(cus, "pm_card_visa")
		s.changeCustomer(cus, func() { cus.DefaultCard = pm.ID })
		return nil
	})
}

// UpdateCustomer replaces a customer's name and email and merges metadata (an empty value removes a
// key).
func (s *Server) UpdateCustomer(id string, spec CustomerSpec) error {
	form := url.Values{"email": {spec.Email}, "name": {spec.Name}}
	for k, v := range spec.Metadata {
		form.Set("metadata["+k+"]", v)
	}
	return s.act(s.updateCustomer, id, form)
}

// DeleteCustomer cancels the customer's subscriptions at once and deletes it.
func (s *Server) DeleteCustomer(id string) error { return s.act(s.removeCustomer, id, nil) }

// AddProduct makes a product and answers its id.
func (s *Server) AddProduct(name string) string {
	p := &product{Name: name, Active: true, Metadata: map[string]string{}}
	s.view(func() {
		p.ID, p.Created, p.Updated = s.newID("prod_"), s.unix(), s.unix()
		s.db.Products.put(p.ID, p)
		s.record("product.created", p, nil)
	})
	return p.ID
}

// PriceOption changes a price before it is made.
type PriceOption func(*price)

// Currency sets a price's currency; the default is usd.
func Currency(code string) PriceOption { return func(p *price) { p.Currency = code } }

// Every makes the period n intervals long.
func Every(n int64) PriceOption { return func(p *price) { p.IntervalCount = n } }

// Nickname names a price for those who sell it.
func Nickname(name string) PriceOption { return func(p *price) { p.Nickname = name } }

// LookupKey gives a price a key to be found by.
func LookupKey(key string) PriceOption { return func(p *price) { p.LookupKey = key } }

// AddPrice makes a price of a product and answers its id. unitAmount is in the currency's smallest
// unit; interval is day, week, month or year, or "" for a one-time price.
func (s *Server) AddPrice(productID string, unitAmount int64, interval string, opts ...PriceOption) string {
	p := &price{Product: productID, UnitAmount: unitAmount, Interval: interval, Currency: "usd", IntervalCount: 1, UsageType: "licensed",
		Active: true, Metadata: map[string]string{}}
	for _, o := range opts {
		o(p)
	}
	s.view(func() {
		p.ID, p.Created = s.newID("price_"), s.unix()
		s.db.Prices.put(p.ID, p)
		s.record("price.created", p, nil)
	})
	return p.ID
}

// UpdateProduct renames a product.
func (s *Server) UpdateProduct(id, name string) error {
	return s.act(s.updateProduct, id, url.Values{"name": {name}})
}

// ArchivePrice makes a price inactive: who has it keeps it, nobody new can get it.
func (s *Server) ArchivePrice(id string) error {
	return s.act(s.updatePrice, id, url.Values{"active": {"false"}})
}

// DeleteProduct deletes a product that has no prices; one that has is refused, as by Stripe.
func (s *Server) DeleteProduct(id string) error { return s.act(s.removeProduct, id, nil) }

// CheckoutSpec describes a checkout that a person completes.
type CheckoutSpec struct {
	// SessionID names an open session, made by the API; the fields below it, up to BillingAnchor, are
	// then taken from there.
	SessionID         string
	CustomerID, Email string // CustomerID "": a new customer is made, with Email
	PriceID           string
	ClientReferenceID string
	// PaymentLink names the Payment Link that opened the session; the ClientReferenceID is what the
	// payer's address said.
	PaymentLink string
	Metadata    map[string]string // of the session
	// SubscriptionMetadata is what subscription_data.metadata says.
	SubscriptionMetadata map[string]string
	Quantity             int64 // 0 is one
	TrialDays            int64
	// BillingAnchor is when the first period ends and the second is billed, as
	// subscription_data.billing_cycle_anchor says; zero is a whole period from now. The first invoice
	// is not prorated.
	BillingAnchor time.Time

	// Delayed is a payment method whose bank answers later: SettleCheckout brings the answer.
	Delayed bool
	// NoCard leaves the customer without a payment method, as a free trial may.
	NoCard bool
}

// CheckoutResult names what a checkout made; ids of what it did not make are "".
type CheckoutResult struct {
	SessionID, CustomerID, SubscriptionID, InvoiceID, PaymentIntentID, ChargeID string
}

// CompleteCheckout does what a person does on the checkout page, with the whole burst of events
// that Stripe sends for it. A card that is declined (SetPayments) and a session that is not open
// are errors, and change nothing.
func (s *Server) CompleteCheckout(ctx context.Context, spec CheckoutSpec) (CheckoutResult, error) {
	if err := ctx.Err(); err != nil {
		return CheckoutResult{}, err
	}
	var out CheckoutResult
	err := s.do(func() error {
		x, err := s.sessionFor(spec)
		if err != nil {
			return err
		}
		if err := s.complete(x, spec.Delayed, spec.NoCard); err != nil {
			if spec.SessionID == "" {
				s.db.Sessions.remove(x.ID) // made for this call alone
			}
			return err
		}
		out = CheckoutResult{SessionID: x.ID, CustomerID: x.Customer, SubscriptionID: x.Subscription, InvoiceID: x.Invoice, PaymentIntentID: x.Intent}
		if inv := s.db.Invoices.get(x.Invoice); inv != nil {
			out.PaymentIntentID, out.ChargeID = inv.Intent, inv.Charge
		} else if pi := s.db.Intents.get(x.Intent); pi != nil {
			out.ChargeID = pi.Charge
		}
		return nil
	})
	return out, err
}

func (s *Server) sessionFor(spec CheckoutSpec) (*session, error) {
	if spec.SessionID != "" {
		if x := s.db.Sessions.get(spec.SessionID); x != nil {
			return x, nil
		}
		return nil, fmt.Errorf("complete checkout: %w", missing("checkout.session", spec.SessionID))
	}
	p := s.db.Prices.get(spec.PriceID)
	if p == nil {
		return nil, fmt.Errorf("complete checkout: %w", missingRef("price", spec.PriceID, "price"))
	}
	if spec.CustomerID != "" {
		if _, e := s.liveCustomer(spec.CustomerID); e != nil {
			return nil, fmt.Errorf("complete checkout: %w", e)
		}
	}
	if spec.Email != "" && !validEmail(spec.Email) {
		return nil, fmt.Errorf("complete checkout: %w", badValue("email_invalid", "email", "Invalid email address: %s", spec.Email))
	}
	mode := "subscription"
	if p.Interval == "" {
		mode = "payment"
	}
	x := &session{ID: s.sessionID(), Mode: mode, Status: "open", PaymentStatus: "unpaid", Customer: spec.CustomerID, Email: spec.Email,
		Reference: spec.ClientReferenceID, PaymentLink: spec.PaymentLink, Price: spec.PriceID, Quantity: max(1, spec.Quantity), SuccessURL: "https://example.com/success",
		Metadata: cloned(spec.Metadata), SubscriptionMetadata: cloned(spec.SubscriptionMetadata), TrialDays: spec.TrialDays,
		MissingCard: "create_invoice", CollectCard: "always", Created: s.unix(), ExpiresAt: s.unix() + sessionLife, Currency: p.Currency, UI: "hosted"}
	if p.metered() {
		x.Quantity = 0
	}
	if !spec.BillingAnchor.IsZero() {
		x.Anchor = spec.BillingAnchor.Unix()
	}
	if spec.CustomerID != "" {
		x.Email = ""
	}
	s.db.Sessions.put(x.ID, x)
	s.plan(x)
	return x, nil
}

// SettleCheckout brings the bank's answer to a Delayed checkout.
func (s *Server) SettleCheckout(sessionID string, ok bool) error {
	return s.do(func() error {
		x := s.db.Sessions.get(sessionID)
		if x == nil {
			return missing("checkout.session", sessionID)
		}
		return s.settleSession(x, ok)
	})
}

// CancelAtPeriodEnd is the customer's cancellation in the portal: the subscription runs until its
// period ends.
func (s *Server) CancelAtPeriodEnd(subscriptionID string) error {
	return s.act(s.updateSubscription, subscriptionID, url.Values{"cancel_at_period_end": {"true"}})
}

// CancelAt schedules the end by date, with cancel_at_period_end false, as newer portals do.
func (s *Server) CancelAt(subscriptionID string, t time.Time) error {
	return s.act(s.updateSubscription, subscriptionID, url.Values{"cancel_at": {unixText(t)}})
}

// CancelNow ends a subscription at once.
func (s *Server) CancelNow(subscriptionID string) error {
	return s.act(s.removeSubscription, subscriptionID, nil)
}

// AddSchedule makes a schedule in the dashboard: a customer's subscription to a price that begins
// at a moment to come. It answers the schedule's id.
func (s *Server) AddSchedule(customerID, priceID string, start time.Time) (id string, err error) {
	err = s.do(func() error {
		known := len(s.db.Schedules.Order)
		form := url.Values{"customer": {customerID}, "start_date": {unixText(start)}, "phases[0][items][0][price]": {priceID}, "phases[0][iterations]": {"12"}}
		if err := s.apply(s.createSchedule, "", form); err != nil {
			return err
		}
		id = s.db.Schedules.Order[known]
		return nil
	})
	return id, err
}

// Lose makes the account answer 404 for objects: for a customer, a subscription or a schedule, as
// if it had never had them. Nothing is told of it. found gives them back as they were.
func (s *Server) Lose(ids ...string) (found func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var back []func()
	for _, id := range ids {
		if x := s.db.Customers.get(id); x != nil {
			s.db.Customers.remove(id)
			back = append(back, func() { s.db.Customers.put(id, x) })
		}
		if x := s.db.Subscriptions.get(id); x != nil {
			s.db.Subscriptions.remove(id)
			back = append(back, func() { s.db.Subscriptions.put(id, x); s.plan(x) })
		}
		if x := s.db.Schedules.get(id); x != nil {
			s.db.Schedules.remove(id)
			back = append(back, func() { s.db.Schedules.put(id, x); s.plan(x) })
		}
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, put := range back {
			put()
		}
	}
}

// Reactivate clears a scheduled end, however it was set.
func (s *Server) Reactivate(subscriptionID string) error {
	return s.act(s.updateSubscription, subscriptionID, url.Values{"cancel_at": {""}})
}

// PauseCollection stops collecting payments until told otherwise; the status stays what it is.
func (s *Server) PauseCollection(subscriptionID string) error {
	return s.act(s.updateSubscription, subscriptionID, url.Values{"pause_collection[behavior]": {"void"}})
}

// PauseCollectionUntil stops collecting payments until t.
func (s *Server) PauseCollectionUntil(subscriptionID string, t time.Time) error {
	return s.act(s.updateSubscription, subscriptionID,
		url.Values{"pause_collection[behavior]": {"void"}, "pause_collection[resumes_at]": {unixText(t)}})
}

// ResumeCollection collects payments again.
func (s *Server) ResumeCollection(subscriptionID string) error {
	return s.act(s.updateSubscription, subscriptionID, url.Values{"pause_collection": {""}})
}

// ChangePrice moves a subscription's first item to another price; with another interval a new
// period begins and is billed.
func (s *Server) ChangePrice(subscriptionID, priceID string) error {
	return s.changeItem(subscriptionID, "price", priceID)
}

// SetQuantity changes the quantity of a subscription's first item.
func (s *Server) SetQuantity(subscriptionID string, n int64) error {
	return s.changeItem(subscriptionID, "quantity", strconv.FormatInt(n, 10))
}

func (s *Server) changeItem(subscriptionID, name, value string) error {
	return s.do(func() error {
		sub := s.db.Subscriptions.get(subscriptionID)
		if sub == nil {
			return missing("subscription", subscriptionID)
		}
		return s.apply(s.updateSubscription, subscriptionID, url.Values{"items[0][id]": {sub.Items[0].ID}, "items[0][" + name + "]": {value}})
	})
}

// Use counts what is used of a subscription's first metered item, to be billed when the period
// ends.
func (s *Server) Use(subscriptionID string, n int64) error {
	return s.do(func() error {
		sub := s.db.Subscriptions.get(subscriptionID)
		if sub == nil {
			return missing("subscription", subscriptionID)
		}
		for _, it := range sub.Items {
			if s.db.Prices.get(it.Price).metered() {
				return s.apply(s.createUsage, it.ID, url.Values{"quantity": {strconv.FormatInt(n, 10)}})
			}
		}
		return fmt.Errorf("subscription %s has no metered item", subscriptionID)
	})
}

// EndTrial ends a trial now, which bills the first period.
func (s *Server) EndTrial(subscriptionID string) error {
	return s.act(s.updateSubscription, subscriptionID, url.Values{"trial_end": {"now"}})
}

// SetPayments decides whether the customer's payments succeed from here on.
func (s *Server) SetPayments(customerID string, succeed bool) error {
	if succeed {
		return s.SetPaymentOutcome(customerID, PaymentsSucceed)
	}
	return s.SetPaymentOutcome(customerID, PaymentsDeclined)
}

// SetPaymentOutcome is SetPayments with all outcomes.
func (s *Server) SetPaymentOutcome(customerID string, o PaymentOutcome) error {
	return s.do(func() error {
		cus, e := s.liveCustomer(customerID)
		if e != nil {
			return e
		}
		cus.Outcome = o
		return nil
	})
}

// PayOpenInvoice makes the customer pay the subscription's latest invoice; a declined card is an
// error.
func (s *Server) PayOpenInvoice(subscriptionID string) error {
	return s.do(func() error {
		sub := s.db.Subscriptions.get(subscriptionID)
		if sub == nil {
			return missing("subscription", subscriptionID)
		}
		return s.apply(s.payInvoice, sub.Latest, nil)
	})
}

// Refund gives back an amount of a charge, in the currency's smallest unit; 0 is all that is left.
func (s *Server) Refund(chargeID string, amount int64) error {
	form := url.Values{"charge": {chargeID}}
	if amount > 0 {
		form.Set("amount", strconv.FormatInt(amount, 10))
	}
	return s.act(s.createRefund, "", form)
}

// FailRefund has the payer's bank send the latest refund of a charge back.
func (s *Server) FailRefund(chargeID string) error {
	return s.do(func() error {
		for _, id := range slices.Backward(s.db.Refunds.Order) {
			if re := s.db.Refunds.get(id); re.Charge == chargeID && re.Failure == "" {
				s.failRefund(re, "expired_or_canceled_card")
				return nil
			}
		}
		return missing("refund", chargeID)
	})
}

// Dispute opens a dispute of a charge and answers its id.
func (s *Server) Dispute(chargeID string) (disputeID string, err error) {
	err = s.do(func() error {
		ch := s.db.Charges.get(chargeID)
		if ch == nil || ch.Status != "succeeded" {
			return missing("charge", chargeID)
		}
		disputeID = s.openDispute(ch).ID
		return nil
	})
	return disputeID, err
}

// CloseDispute ends a dispute.
func (s *Server) CloseDispute(id string, won bool) error {
	return s.do(func() error {
		d := s.db.Disputes.get(id)
		if d == nil || !d.open() {
			return missing("dispute", id)
		}
		s.closeDispute(d, won)
		return nil
	})
}

func unixText(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

func cloned(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return maps.Clone(m)
}
