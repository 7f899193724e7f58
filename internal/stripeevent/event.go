// Package stripeevent reads what a Stripe webhook says. It understands the payloads of API
// versions 2023-10-16, basil, clover and dahlia alike, since automatic billing and endpoints made
// in the dashboard use the account's version and not ours.
//
// An event says that something changed; what is true is read from Stripe. So little is taken from
// a payload: whom it concerns, evidence of which user a customer belongs to, facts about payments,
// and what a read has to show before the event is done. Fields of an unexpected type count as
// absent: no field that we could do without makes an event unreadable.
package stripeevent

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// ErrNotAnEvent is the error of a body that is no event of Stripe's. Its text, and that of all
// errors of this package, holds nothing of the body.
var ErrNotAnEvent = errors.New("not a Stripe event")

// Event is one event as its payload tells it.
type Event struct {
	ID   string
	Type string
	// Livemode is false for events of test mode and of sandboxes.
	Livemode bool
	// Account is set for events of connected accounts only.
	Account string
	// APIVersion is the version in which the object is rendered; "" where the event names none.
	APIVersion string
	// Created is when the event was made, in whole seconds: two events of the same second have
	// no order.
	Created time.Time
	// ObjectID and ObjectKind are the id and the type of the event's object ("sub_1",
	// "subscription"). The id is "" if it does not have the form of one.
	ObjectID   string
	ObjectKind string

	// customer is the customer that the event's object is or names, "" without one.
	customer                   string
	object, previous, metadata gjson.Result
}

var (
	eventIDForm = regexp.MustCompile(`^evt_[A-Za-z0-9_]{1,250}$`)
	typeForm    = regexp.MustCompile(`^[a-z0-9_.]{1,255}$`)
	// objectIDForm is wide: sellers choose the ids of products themselves.
	objectIDForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)
)

// Parse reads a verified payload. It fails only for what is no event at all: not JSON, without an
// id, or without a type. Events of unknown types and with unknown objects are fine.
func Parse(body string) (Event, error) {
	if !gjson.Valid(body) {
		return Event{}, fmt.Errorf("%w: not a JSON object", ErrNotAnEvent)
	}
	return ParseJSON(body)
}

// ParseJSON is [Parse] for a payload that is known to be JSON: looking whether it is takes half of
// the time.
func ParseJSON(body string) (Event, error) {
	payload := gjson.Parse(body)
	if !payload.IsObject() {
		return Event{}, fmt.Errorf("%w: not a JSON object", ErrNotAnEvent)
	}
	var e Event
	payload.ForEach(func(name, value gjson.Result) bool {
		switch name.Str {
		case "id":
			e.ID = text(value)
		case "type":
			e.Type = text(value)
		case "livemode":
			e.Livemode = flag(value)
		case "account":
			e.Account = text(value)
		case "api_version":
			e.APIVersion = text(value)
		case "created":
			e.Created = moment(value)
		case "data":
			e.data(value)
		}
		return true
	})
	switch {
	case !eventIDForm.MatchString(e.ID):
		return Event{}, fmt.Errorf("%w: no usable id", ErrNotAnEvent)
	case !typeForm.MatchString(e.Type):
		return Event{}, fmt.Errorf("%w: no usable type", ErrNotAnEvent)
	}
	return e, nil
}

// data reads the event's object: in one pass what every event is asked for, and the rest when
// somebody asks.
func (e *Event) data(data gjson.Result) {
	data.ForEach(func(name, value gjson.Result) bool {
		switch name.Str {
		case "object":
			e.object = value
		case "previous_attributes":
			e.previous = value
		}
		return true
	})
	if !e.object.IsObject() {
		return
	}
	var customer gjson.Result
	e.object.ForEach(func(name, value gjson.Result) bool {
		switch name.Str {
		case "object":
			e.ObjectKind = text(value)
		case "id":
			e.ObjectID = reference(value)
		case "customer":
			customer = value
		case "metadata":
			e.metadata = value
		}
		return true
	})
	if e.customer = reference(customer); e.ObjectKind == "customer" {
		e.customer = e.ObjectID
	}
	if !account.ValidCustomerID(e.customer) {
		e.customer = ""
	}
}

// HandledTypes lists the event types that a webhook endpoint has to be registered for.
func HandledTypes() []string {
	return []string{
		"customer.subscription.created",
		"customer.subscription.updated",
		"customer.subscription.deleted",
		"customer.subscription.paused",
		"customer.subscription.resumed",
		"customer.subscription.pending_update_applied",
		"customer.subscription.pending_update_expired",
		"customer.subscription.trial_will_end",
		"checkout.session.completed",
		"checkout.session.async_payment_succeeded",
		"checkout.session.async_payment_failed",
		"checkout.session.expired",
		"invoice.finalized",
		"invoice.paid",
		"invoice.payment_succeeded",
		"invoice.payment_failed",
		"invoice.payment_action_required",
		"invoice.voided",
		"invoice.marked_uncollectible",
		"payment_intent.succeeded",
		"payment_intent.payment_failed",
		"payment_intent.canceled",
		"customer.created",
		"customer.updated",
		"customer.deleted",
		"subscription_schedule.aborted",
		"subscription_schedule.canceled",
		"subscription_schedule.completed",
		"subscription_schedule.created",
		"subscription_schedule.expiring",
		"subscription_schedule.released",
		"subscription_schedule.updated",
		"charge.refunded",
		"charge.refund.updated",
		"refund.created",
		"refund.updated",
		"refund.failed",
		"charge.dispute.created",
		"charge.dispute.updated",
		"charge.dispute.closed",
		"charge.dispute.funds_reinstated",
		"charge.dispute.funds_withdrawn",
		"price.created",
		"price.updated",
		"price.deleted",
		"product.created",
		"product.updated",
		"product.deleted",
	}
}

// Handled tells whether events of a type are handled: all of [HandledTypes], and those that
// Stripe may add to the families handled whole.
func Handled(eventType string) bool {
	return family(eventType) != "" || slices.Contains(HandledTypes(), eventType)
}

// Urgent tells whether somebody waits for what comes of an event of a type: it begins a
// subscription, or says that one is paid for at last.
func Urgent(eventType string) bool {
	switch eventType {
	case "checkout.session.completed", "checkout.session.async_payment_succeeded", "customer.subscription.created":
		return true
	default:
		return false
	}
}

// family answers the prefix of the families that are handled whole.
func family(eventType string) string {
	for _, f := range []string{"customer.subscription.", "subscription_schedule.", "charge.dispute.", "charge.refund.", "refund.", "price.", "product."} {
		if strings.HasPrefix(eventType, f) {
			return f
		}
	}
	return ""
}

// Entity answers whom the event concerns: a customer, a product, or the charge of a dispute or a
// refund, which name no customer (a refund does in the newest API versions). It is "" for types
// that are not handled, and for objects without a usable id of that kind, such as the payment of a
// guest.
func (e Event) Entity() account.Entity {
	if !Handled(e.Type) {
		return ""
	}
	switch family(e.Type) {
	case "charge.dispute.":
		if id := reference(e.object.Get("charge")); account.ValidChargeID(id) {
			return account.ChargeEntity(id)
		}
		return ""
	case "charge.refund.", "refund.":
		if e.customer != "" {
			break
		}
		if id := reference(e.object.Get("charge")); account.ValidChargeID(id) {
			return account.ChargeEntity(id)
		}
		if id := reference(e.object.Get("payment_intent")); account.ValidPaymentIntentID(id) {
			return account.ChargeEntity(id)
		}
		return ""
	case "product.":
		if account.ValidProductID(e.ObjectID) {
			return account.ProductEntity(e.ObjectID)
		}
		return ""
	case "price.":
		if id := reference(e.object.Get("product")); account.ValidProductID(id) {
			return account.ProductEntity(id)
		}
		return ""
	}
	if e.customer != "" {
		return account.CustomerEntity(e.customer)
	}
	return ""
}

// CreatedObject answers the id of the object whose creation the event tells and which a read
// therefore has to show: a subscription, a customer, a product or a price. It is "" for all
// other events.
func (e Event) CreatedObject() string {
	switch e.Type {
	case "customer.subscription.created", "customer.created", "product.created", "price.created":
		return e.ObjectID
	default:
		return ""
	}
}

// Ended answers the id of the object of which the event tells what nothing takes back: that a
// subscription or a schedule has ended, or that a customer, a product or a price was deleted. It is
// "" for all other events.
func (e Event) Ended() string {
	if subscription, ok := e.Subscription(); ok && (subscription.Status.Terminal() || e.Type == "customer.subscription.deleted") {
		return subscription.ID
	}
	if schedule, ok := e.Schedule(); ok && schedule.Status.Over() {
		return schedule.ID
	}
	switch e.Type {
	case "customer.deleted", "product.deleted", "price.deleted":
		return e.ObjectID
	default:
		return ""
	}
}
