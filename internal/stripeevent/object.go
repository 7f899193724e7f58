package stripeevent

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"
)

// object is what we take from any of the objects that events carry. One struct serves them all,
// since an event does not say what its object is before the object itself does.
type object struct {
	ID       text     `json:"id"`
	Object   text     `json:"object"`
	Customer ref      `json:"customer"`
	Metadata metadata `json:"metadata"`
	Status   text     `json:"status"`
	Created  number   `json:"created"`
	Currency text     `json:"currency"`

	// Subscriptions.
	terms

	// Checkout sessions.
	ClientReferenceID text `json:"client_reference_id"`

	// Invoices. Since 2025-03-31.basil the subscription stands under parent, and the payments
	// in a list of their own, which webhooks leave out.
	Subscription        ref                 `json:"subscription"`
	SubscriptionDetails subscriptionDetails `json:"subscription_details"`
	Parent              struct {
		SubscriptionDetails subscriptionDetails `json:"subscription_details"`
	} `json:"parent"`
	Payments struct {
		Data []struct {
			Payment struct {
				PaymentIntent ref `json:"payment_intent"`
				Charge        ref `json:"charge"`
			} `json:"payment"`
		} `json:"data"`
	} `json:"payments"`
	BillingReason     text   `json:"billing_reason"`
	Total             number `json:"total"`
	AmountPaid        number `json:"amount_paid"`
	AttemptCount      number `json:"attempt_count"`
	StatusTransitions struct {
		PaidAt number `json:"paid_at"`
	} `json:"status_transitions"`

	// Payment intents, charges and disputes.
	Amount           number `json:"amount"`
	AmountReceived   number `json:"amount_received"`
	AmountCaptured   number `json:"amount_captured"`
	AmountRefunded   number `json:"amount_refunded"`
	Refunded         flag   `json:"refunded"`
	Reason           text   `json:"reason"`
	FailureCode      text   `json:"failure_code"`
	Charge           ref    `json:"charge"`
	LatestCharge     ref    `json:"latest_charge"`
	PaymentIntent    ref    `json:"payment_intent"`
	Invoice          ref    `json:"invoice"`
	LastPaymentError struct {
		Code        text `json:"code"`
		DeclineCode text `json:"decline_code"`
	} `json:"last_payment_error"`

	// Prices.
	Product ref `json:"product"`
}

// subscriptionDetails are what an invoice tells of its subscription.
type subscriptionDetails struct {
	Subscription ref      `json:"subscription"`
	Metadata     metadata `json:"metadata"`
}

// The types below take what they can use and count everything else as absent.

type text string

func (t *text) UnmarshalJSON(b []byte) error {
	if len(b) == 0 || b[0] != '"' {
		return nil
	}
	var s string
	if json.Unmarshal(b, &s) == nil {
		*t = text(s)
	}
	return nil
}

type number int64

func (n *number) UnmarshalJSON(b []byte) error {
	var i int64
	if json.Unmarshal(b, &i) == nil {
		*n = number(i)
	}
	return nil
}

// String is the number in decimals, "" for none.
func (n number) String() string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(int64(n), 10)
}

func (n number) time() time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(int64(n), 0).UTC()
}

type flag bool

func (f *flag) UnmarshalJSON(b []byte) error {
	*f = flag(bytes.Equal(b, []byte("true")))
	return nil
}

func (f flag) String() string { return strconv.FormatBool(bool(f)) }

// presence tells whether there is an object.
type presence bool

func (p *presence) UnmarshalJSON(b []byte) error {
	*p = presence(len(b) > 0 && b[0] == '{')
	return nil
}

func (p presence) String() string { return strconv.FormatBool(bool(p)) }

// ref is the id of another object, which Stripe gives as the id alone or as the whole object.
type ref string

func (r *ref) UnmarshalJSON(b []byte) error {
	var id text
	if len(b) > 0 && b[0] == '{' {
		var whole struct {
			ID text `json:"id"`
		}
		_ = json.Unmarshal(b, &whole) // it is valid JSON, or we would not be here
		id = whole.ID
	} else {
		_ = id.UnmarshalJSON(b)
	}
	if objectIDForm.MatchString(string(id)) {
		*r = ref(id)
	}
	return nil
}

// metadata are the values that are strings, as all are in Stripe.
type metadata map[string]string

func (m *metadata) UnmarshalJSON(b []byte) error {
	var values map[string]text
	if json.Unmarshal(b, &values) == nil && len(values) > 0 {
		*m = make(metadata, len(values))
		for key, value := range values {
			(*m)[key] = string(value)
		}
	}
	return nil
}
