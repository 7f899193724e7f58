package stripeevent

import (
	"github.com/tidwall/gjson"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// Schedule answers the subscription schedule that the event tells of, as it stood then, and whether
// it tells of one.
func (e Event) Schedule() (account.Schedule, bool) {
	if family(e.Type) != "subscription_schedule." || !hasPrefix("sub_sched_", e.ObjectID) || e.customer == "" {
		return account.Schedule{}, false
	}
	o := e.object
	s := account.Schedule{
		ID: e.ObjectID, CustomerID: e.customer, SubscriptionID: withPrefix("sub_", reference(o.Get("subscription"))),
		Status: account.ScheduleStatus(code(text(o.Get("status")))), EndsSubscription: text(o.Get("end_behavior")) == "cancel",
	}
	s.Phases = phases(o.Get("phases"))
	return s, s.Status.Rank() > 0
}

func phases(list gjson.Result) (phases []account.Phase) {
	for _, p := range list.Array() {
		phase := account.Phase{Start: moment(p.Get("start_date")), End: moment(p.Get("end_date")), Prices: []string{}}
		for _, item := range p.Get("items").Array() {
			if price := reference(item.Get("price")); account.ValidPriceID(price) {
				phase.Prices = append(phase.Prices, price)
			}
		}
		phases = append(phases, phase)
	}
	return phases
}
