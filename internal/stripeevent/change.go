package stripeevent

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// Change is one field of a subscription that an event says has changed. Values are texts: times
// as Unix seconds, flags as "true" and "false", prices as sorted ids joined by commas, "" for
// none.
type Change struct {
	SubscriptionID string
	// Field is the name of Stripe's field; "price" and "quantity" are those of all items, and
	// "pause_collection" is "true" while collection is paused.
	Field  string
	Before string
	After  string
}

// Stale tells whether a read of the subscription still shows what was true before the change.
// Stripe does not promise that a read sees an event at once. Whatever else the read shows is as
// new as the event, or newer.
func (c Change) Stale(s account.Subscription) bool {
	if s.ID != c.SubscriptionID || c.Before == c.After {
		return false
	}
	shown, known := Shown(s, c.Field)
	return known && shown == c.Before
}

// Shown answers what a read of a subscription shows in a field of a [Change], as the same text,
// and whether the field is one of them.
func Shown(s account.Subscription, field string) (value string, known bool) {
	switch field {
	case "status":
		return string(s.Status), true
	case "cancel_at_period_end":
		return strconv.FormatBool(s.CancelAtPeriodEnd), true
	case "cancel_at":
		return seconds(s.CancelAt), true
	case "canceled_at":
		return seconds(s.CanceledAt), true
	case "trial_end":
		return seconds(s.TrialEnd), true
	case "current_period_end":
		return seconds(s.CurrentPeriodEnd), true
	case "pause_collection":
		return strconv.FormatBool(s.CollectionPaused), true
	case "price":
		prices := make([]string, 0, len(s.Items))
		for _, i := range s.Items {
			prices = append(prices, i.PriceID)
		}
		return joined(prices), true
	case "quantity":
		var sum int64
		for _, i := range s.Items {
			sum += i.Quantity
		}
		return strconv.FormatInt(sum, 10), true
	default:
		return "", false
	}
}

// Changed lists what the event says has changed of a subscription, in the fields that matter
// to us; none for other events.
func (e Event) Changed() []Change {
	if e.ObjectKind != "subscription" || family(e.Type) != "customer.subscription." || !hasPrefix("sub_", e.ObjectID) {
		return nil
	}
	var named map[string]json.RawMessage
	if json.Unmarshal(e.previous, &named) != nil || len(named) == 0 {
		return nil
	}
	var was previousAttributes
	_ = json.Unmarshal(e.previous, &was) // what has an unexpected shape is left out
	is := e.object

	var changes []Change
	add := func(field, before, after string) {
		if before != after {
			changes = append(changes, Change{SubscriptionID: e.ObjectID, Field: field, Before: before, After: after})
		}
	}
	// A name in previous_attributes without a value means that there was none.
	for _, f := range []struct{ name, before, after string }{
		{"status", code(was.Status), code(is.Status)},
		{"cancel_at_period_end", was.CancelAtPeriodEnd.String(), is.CancelAtPeriodEnd.String()},
		{"cancel_at", was.CancelAt.String(), is.CancelAt.String()},
		{"canceled_at", was.CanceledAt.String(), is.CanceledAt.String()},
		{"trial_end", was.TrialEnd.String(), is.TrialEnd.String()},
		{"pause_collection", was.PauseCollection.String(), is.PauseCollection.String()},
	} {
		if _, changed := named[f.name]; changed {
			add(f.name, f.before, f.after)
		}
	}
	// These stand on the items, or on the subscription, or on both.
	if before := was.periodEnd(); before != 0 {
		add("current_period_end", before.String(), is.periodEnd().String())
	}
	if was.Items.HasMore || is.Items.HasMore {
		return changes
	}
	if before := was.prices(); before != "" {
		add("price", before, is.prices())
	}
	if before := was.quantity(); before != 0 {
		add("quantity", before.String(), is.quantity().String())
	}
	return changes
}

// previousAttributes are the fields of a subscription as they were, as far as they have changed.
type previousAttributes struct {
	Status text `json:"status"`
	terms
}

// terms are what we compare of a subscription, beside its status. Since 2025-03-31.basil the
// period stands on the items.
type terms struct {
	CancelAtPeriodEnd flag     `json:"cancel_at_period_end"`
	CancelAt          number   `json:"cancel_at"`
	CanceledAt        number   `json:"canceled_at"`
	TrialEnd          number   `json:"trial_end"`
	CurrentPeriodEnd  number   `json:"current_period_end"`
	Quantity          number   `json:"quantity"`
	PauseCollection   presence `json:"pause_collection"`
	Items             items    `json:"items"`
}

type items struct {
	HasMore flag `json:"has_more"`
	Data    []struct {
		Quantity         number `json:"quantity"`
		CurrentPeriodEnd number `json:"current_period_end"`
		Price            ref    `json:"price"`
	} `json:"data"`
}

// periodEnd is the end of the period, of several items the first.
func (t terms) periodEnd() number {
	end := t.CurrentPeriodEnd
	for _, i := range t.Items.Data {
		if t.CurrentPeriodEnd == 0 && i.CurrentPeriodEnd != 0 && (end == 0 || i.CurrentPeriodEnd < end) {
			end = i.CurrentPeriodEnd
		}
	}
	return end
}

func (t terms) prices() string {
	var prices []string
	for _, i := range t.Items.Data {
		if i.Price != "" {
			prices = append(prices, string(i.Price))
		}
	}
	return joined(prices)
}

// quantity is the sum over the items; the subscription itself has one only while it has a
// single item.
func (t terms) quantity() number {
	if len(t.Items.Data) == 0 {
		return t.Quantity
	}
	var sum number
	for _, i := range t.Items.Data {
		sum += i.Quantity
	}
	return sum
}

func joined(ids []string) string {
	slices.Sort(ids)
	return strings.Join(ids, ",")
}

func seconds(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt(t.Unix(), 10)
}
