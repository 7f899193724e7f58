package stripeevent

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// Change is one field of a subscription that an event says has changed. Values are texts: times
// as Unix seconds, flags as "true" and "false", prices as sorted ids joined by commas, "" for
// none.
type Change struct {
	SubscriptionID string
	// Field is the name of Stripe's field; "price" and "quantity" are those of all items,
	// "pause_collection" is "true" while collection is paused, and "schedule_end" is the schedule that
	// manages it with the moment at which it ends it.
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
	case "schedule":
		return s.ScheduleID, true
	case "schedule_end":
		return scheduleEnd(s.ScheduleID, s.ScheduleEndsAt), true
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

func scheduleEnd(scheduleID string, at time.Time) string {
	if scheduleID == "" {
		return ""
	}
	return scheduleID + " " + seconds(at)
}

// Changed lists what the event says has changed of a subscription, in the fields that matter
// to us; none for events that tell of none.
func (e Event) Changed() []Change {
	if schedule, ok := e.Schedule(); ok {
		return e.changedEnd(schedule)
	}
	if e.ObjectKind != "subscription" || family(e.Type) != "customer.subscription." || !hasPrefix("sub_", e.ObjectID) {
		return nil
	}
	was, is := e.previous, e.object
	if !was.IsObject() {
		return nil
	}
	var changes []Change
	add := func(field, before, after string) {
		if before != after {
			changes = append(changes, Change{SubscriptionID: e.ObjectID, Field: field, Before: before, After: after})
		}
	}
	for _, field := range []string{"status", "cancel_at_period_end", "cancel_at", "canceled_at", "trial_end", "pause_collection", "schedule"} {
		// A name in previous_attributes without a value means that there was none.
		if before := was.Get(field); before.Exists() {
			add(field, valueOf(field, before), valueOf(field, is.Get(field)))
		}
	}
	// These stand on the items, or on the subscription, or on both.
	if before := periodEnd(was); before != 0 {
		add("current_period_end", decimal(before), decimal(periodEnd(is)))
	}
	if flag(was.Get("items.has_more")) || flag(is.Get("items.has_more")) {
		return changes
	}
	if before := prices(was); before != "" {
		add("price", before, prices(is))
	}
	if before := quantity(was); before != 0 {
		add("quantity", decimal(before), decimal(quantity(is)))
	}
	return changes
}

// changedEnd is the change of when a schedule ends the subscription that it manages.
func (e Event) changedEnd(schedule account.Schedule) []Change {
	was := schedule
	if before := e.previous.Get("end_behavior"); before.Exists() {
		was.EndsSubscription = text(before) == "cancel"
	}
	if before := e.previous.Get("phases"); before.IsArray() {
		was.Phases = phases(before)
	}
	if schedule.SubscriptionID == "" || was.EndsAt().Equal(schedule.EndsAt()) {
		return nil
	}
	return []Change{{
		SubscriptionID: schedule.SubscriptionID, Field: "schedule_end",
		Before: scheduleEnd(schedule.ID, was.EndsAt()), After: scheduleEnd(schedule.ID, schedule.EndsAt()),
	}}
}

// CustomerChange is one field of a customer that an event says has changed: "email", "name", or
// "metadata" with the key behind a dot. A value that is not there is "".
type CustomerChange struct{ Field, Before, After string }

// ChangedCustomer lists what the event says has changed of a customer, in the fields that matter to
// us; none for other events.
func (e Event) ChangedCustomer() (changes []CustomerChange) {
	if e.ObjectKind != "customer" || e.Type != "customer.updated" || !e.previous.IsObject() {
		return nil
	}
	add := func(field string, before gjson.Result, after gjson.Result) {
		if b, a := text(before), text(after); before.Exists() && b != a {
			changes = append(changes, CustomerChange{field, b, a})
		}
	}
	add("email", e.previous.Get("email"), e.object.Get("email"))
	add("name", e.previous.Get("name"), e.object.Get("name"))
	if before := e.previous.Get("metadata"); before.IsObject() {
		now := metadata(e.metadata)
		before.ForEach(func(key, value gjson.Result) bool {
			if b, a := text(value), now[key.Str]; b != a {
				changes = append(changes, CustomerChange{"metadata." + key.Str, b, a})
			}
			return true
		})
	}
	return changes
}

// Shown answers what a read of a customer shows in the field.
func (c CustomerChange) Shown(customer account.Customer) string {
	switch key, ok := strings.CutPrefix(c.Field, "metadata."); {
	case ok:
		return customer.Metadata[key]
	case c.Field == "email":
		return customer.Email
	default:
		return customer.Name
	}
}

// valueOf is what a subscription's own field says, as the text of a [Change].
func valueOf(field string, r gjson.Result) string {
	switch field {
	case "status":
		return code(text(r))
	case "cancel_at_period_end":
		return strconv.FormatBool(flag(r))
	case "pause_collection":
		return strconv.FormatBool(r.IsObject())
	case "schedule":
		return reference(r)
	default:
		return decimal(number(r))
	}
}

// periodEnd is the end of the period, of several items the first. Since 2025-03-31.basil the period
// stands on the items.
func periodEnd(subscription gjson.Result) int64 {
	if end := number(subscription.Get("current_period_end")); end != 0 {
		return end
	}
	var first int64
	for _, item := range itemsOf(subscription) {
		if end := number(item.Get("current_period_end")); end != 0 && (first == 0 || end < first) {
			first = end
		}
	}
	return first
}

func prices(subscription gjson.Result) string {
	var prices []string
	for _, item := range itemsOf(subscription) {
		if price := reference(item.Get("price")); price != "" {
			prices = append(prices, price)
		}
	}
	return joined(prices)
}

// quantity is the sum over the items; the subscription itself has one only while it has a
// single item.
func quantity(subscription gjson.Result) int64 {
	items := itemsOf(subscription)
	if len(items) == 0 {
		return number(subscription.Get("quantity"))
	}
	var sum int64
	for _, item := range items {
		sum += number(item.Get("quantity"))
	}
	return sum
}

// itemsOf are the items in a subscription, or those that have changed in it.
func itemsOf(subscription gjson.Result) []gjson.Result {
	items := subscription.Get("items.data")
	if !items.IsArray() {
		return nil
	}
	return items.Array()
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
