package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

// plan is a product with one price.
type plan struct {
	Name       string `json:"name"`
	UnitAmount int64  `json:"unit_amount"` // in cents
	Interval   string `json:"interval"`    // day, week, month, year
}

// checkout is a stripesim.CheckoutSpec as a person writes it.
type checkout struct {
	Session              string            `json:"session,omitempty"`
	Customer             string            `json:"customer,omitempty"`
	Email                string            `json:"email,omitempty"`
	Price                string            `json:"price,omitempty"`
	ClientReferenceID    string            `json:"client_reference_id,omitempty"`
	PaymentLink          string            `json:"payment_link,omitempty"`
	Metadata             map[string]string `json:"metadata,omitempty"`
	SubscriptionMetadata map[string]string `json:"subscription_metadata,omitempty"`
	TrialDays            int64             `json:"trial_days,omitempty"`
	Quantity             int64             `json:"quantity,omitempty"`
}

// cancellation says when a subscription is to end.
type cancellation struct {
	When string `json:"when"` // period_end, now, or a time in RFC 3339
}

// item changes what a subscription is for.
type item struct {
	Price    string `json:"price,omitempty"`
	Quantity int64  `json:"quantity,omitempty"`
}

// payments says what becomes of a customer's payments.
type payments struct {
	Outcome string `json:"outcome"` // succeed, declined, challenged
}

// refund gives an amount of a charge back.
type refund struct {
	Charge string `json:"charge"`
	Amount int64  `json:"amount,omitempty"` // in cents; 0 is all
}

// leap moves Stripe's clock.
type leap struct {
	By duration `json:"by"`
}

// stripeActions are what customers do in checkout and portal, what a bank does, and what time does.
func (s *Sandbox) stripeActions() []action {
	return []action{
		{"POST /_sandbox/plans", "make a product and its price", plan{"Pro", 1900, "month"}, with(s.addPlan)},
		{"POST /_sandbox/checkouts", `complete a checkout: an open "session", or a new one`, checkout{Email: "ana@example.com", Price: "price_...", ClientReferenceID: "user_..."}, with(s.completeCheckout)},
		{"GET /_sandbox/customers", "all customers with their subscriptions", nil, func(*http.Request) (any, error) { return s.customers() }},
		{"DELETE /_sandbox/customers/{id}", "delete a customer in the dashboard", nil, byID(s.Stripe.DeleteCustomer)},
		{"PUT /_sandbox/customers/{id}/payments", "what becomes of the customer's payments: succeed, declined, challenged", payments{"declined"}, with(s.setPayments)},
		{"POST /_sandbox/subscriptions/{id}/cancel", "cancel in the portal: period_end, now, or a time", cancellation{"period_end"}, with(s.cancel)},
		{"POST /_sandbox/subscriptions/{id}/reactivate", "take a scheduled cancellation back", nil, byID(s.Stripe.Reactivate)},
		{"POST /_sandbox/subscriptions/{id}/pause", "pause collection", nil, byID(s.Stripe.PauseCollection)},
		{"POST /_sandbox/subscriptions/{id}/resume", "resume collection", nil, byID(s.Stripe.ResumeCollection)},
		{"POST /_sandbox/subscriptions/{id}/pay", "pay the latest invoice", nil, byID(s.Stripe.PayOpenInvoice)},
		{"PATCH /_sandbox/subscriptions/{id}", "change price or quantity", item{Price: "price_..."}, with(s.changeItem)},
		{"POST /_sandbox/refunds", "give money back", refund{Charge: "ch_..."},
			with(func(_ *http.Request, in refund) (any, error) { return nil, s.Stripe.Refund(in.Charge, in.Amount) })},
		{"GET /_sandbox/clock", "Stripe's time", nil, func(*http.Request) (any, error) { return s.clock(), nil }},
		{"POST /_sandbox/clock", "let time pass in Stripe, with all that becomes due", leap{duration(31 * 24 * time.Hour)},
			with(func(r *http.Request, in leap) (any, error) {
				err := s.Stripe.Advance(r.Context(), time.Duration(in.By))
				return s.clock(), err
			})},
	}
}

func (s *Sandbox) addPlan(_ *http.Request, in plan) (any, error) {
	if in.Name == "" || in.UnitAmount <= 0 || !slices.Contains([]string{"day", "week", "month", "year"}, in.Interval) {
		return nil, errors.New("a plan has a name, a unit_amount above 0 and an interval of day, week, month or year")
	}
	product := s.Stripe.AddProduct(in.Name)
	return map[string]string{"product": product, "price": s.Stripe.AddPrice(product, in.UnitAmount, in.Interval)}, nil
}

func (s *Sandbox) completeCheckout(r *http.Request, in checkout) (any, error) {
	done, err := s.Stripe.CompleteCheckout(r.Context(), stripesim.CheckoutSpec{SessionID: in.Session, CustomerID: in.Customer, Email: in.Email,
		PriceID: in.Price, ClientReferenceID: in.ClientReferenceID, PaymentLink: in.PaymentLink, Metadata: in.Metadata, SubscriptionMetadata: in.SubscriptionMetadata,
		TrialDays: in.TrialDays, Quantity: in.Quantity})
	if err != nil {
		return nil, fmt.Errorf("complete checkout: %w", err)
	}
	return map[string]string{"session": done.SessionID, "customer": done.CustomerID, "subscription": done.SubscriptionID,
		"invoice": done.InvoiceID, "charge": done.ChargeID}, nil
}

func (s *Sandbox) customers() (any, error) {
	type customer struct {
		Customer      json.RawMessage   `json:"customer"`
		Subscriptions []json.RawMessage `json:"subscriptions"`
	}
	out := []customer{}
	for _, c := range s.Stripe.Customers() {
		var head struct {
			ID string `json:"id"`
		}
		if err := json.Unmarshal(c, &head); err != nil {
			return nil, fmt.Errorf("read customer: %w", err)
		}
		out = append(out, customer{c, s.Stripe.Subscriptions(head.ID)})
	}
	return out, nil
}

func (s *Sandbox) setPayments(r *http.Request, in payments) (any, error) {
	outcome, ok := map[string]stripesim.PaymentOutcome{"succeed": stripesim.PaymentsSucceed, "declined": stripesim.PaymentsDeclined,
		"challenged": stripesim.PaymentsChallenged}[in.Outcome]
	if !ok {
		return nil, fmt.Errorf("outcome is succeed, declined or challenged, not %q", in.Outcome)
	}
	return nil, s.Stripe.SetPaymentOutcome(r.PathValue("id"), outcome)
}

func (s *Sandbox) cancel(r *http.Request, in cancellation) (any, error) {
	id := r.PathValue("id")
	switch in.When {
	case "", "period_end":
		return nil, s.Stripe.CancelAtPeriodEnd(id)
	case "now":
		return nil, s.Stripe.CancelNow(id)
	}
	at, err := time.Parse(time.RFC3339, in.When)
	if err != nil {
		return nil, fmt.Errorf("when is period_end, now or a time such as 2030-01-31T12:00:00Z: %w", err)
	}
	return nil, s.Stripe.CancelAt(id, at)
}

func (s *Sandbox) changeItem(r *http.Request, in item) (any, error) {
	id := r.PathValue("id")
	if in.Price != "" {
		if err := s.Stripe.ChangePrice(id, in.Price); err != nil {
			return nil, err
		}
	}
	if in.Quantity > 0 {
		return nil, s.Stripe.SetQuantity(id, in.Quantity)
	}
	return nil, nil
}

func (s *Sandbox) clock() map[string]time.Time {
	return map[string]time.Time{"now": s.Stripe.Now().UTC()}
}
