package stripesim_test

import (
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

func TestScheduleFromASubscriptionIsReleased(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.checkout(stripesim.CheckoutSpec{PriceID: w.price(1500, "month")})
	sched, err := w.api.SubscriptionSchedules.New(&stripe.SubscriptionScheduleParams{FromSubscription: &r.SubscriptionID})
	w.ok(err)
	equal(t, "active", sched.Status, stripe.SubscriptionScheduleStatusActive)
	equal(t, "managed", w.subscription(r.SubscriptionID).Schedule.ID, sched.ID)
	it := w.api.SubscriptionSchedules.List(&stripe.SubscriptionScheduleListParams{Customer: &r.CustomerID})
	equal(t, "listed", it.Next() && it.SubscriptionSchedule().ID == sched.ID, true)
	released, err := w.api.SubscriptionSchedules.Release(sched.ID, &stripe.SubscriptionScheduleReleaseParams{})
	w.ok(err)
	equal(t, "released", released.Status, stripe.SubscriptionScheduleStatusReleased)
	equal(t, "no longer managed", w.subscription(r.SubscriptionID).Schedule == nil, true)
	inOrder(t, w.types(), "subscription_schedule.created", "subscription_schedule.released", "customer.subscription.updated")
	_, err = w.api.SubscriptionSchedules.Release(sched.ID, &stripe.SubscriptionScheduleReleaseParams{})
	equal(t, "released twice", stripeError(t, err).HTTPStatusCode, 400)
}

// A schedule that the dashboard made begins by itself, and bills.
func TestAScheduleOfTheDashboardBegins(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	customer, price := w.payer("a@example.com"), w.price(1000, "day")
	id, err := w.sim.AddSchedule(customer, price, start().Add(2*day))
	w.ok(err)
	sched, err := w.api.SubscriptionSchedules.Get(id, nil)
	w.ok(err)
	equal(t, "at first", sched.Status, stripe.SubscriptionScheduleStatusNotStarted)
	w.advance(2*day + time.Minute)
	sched, err = w.api.SubscriptionSchedules.Get(id, nil)
	w.ok(err)
	equal(t, "later", sched.Status, stripe.SubscriptionScheduleStatusActive)
	equal(t, "its subscription", w.subscription(sched.Subscription.ID).Status, stripe.SubscriptionStatusActive)
	_, err = w.sim.AddSchedule("cus_nobody", price, start().Add(4*day))
	equal(t, "for nobody", err != nil, true)
}

func phases(prices ...string) []*stripe.SubscriptionSchedulePhaseParams {
	var out []*stripe.SubscriptionSchedulePhaseParams
	for _, p := range prices {
		out = append(out, &stripe.SubscriptionSchedulePhaseParams{Iterations: stripe.Int64(1),
			Items: []*stripe.SubscriptionSchedulePhaseItemParams{{Price: &p, Quantity: stripe.Int64(1)}}})
	}
	return out
}

func TestPhasesFollowEachOther(t *testing.T) {
	t.Parallel()
	for behavior, want := range map[string]stripe.SubscriptionStatus{"release": "active", "cancel": "canceled"} {
		t.Run(behavior, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			small, large := w.price(1000, "month"), w.price(3000, "month")
			sched, err := w.api.SubscriptionSchedules.New(&stripe.SubscriptionScheduleParams{Customer: stripe.String(w.payer("a@example.com")),
				StartDate: stripe.Int64(start().Add(day).Unix()), EndBehavior: &behavior, Phases: phases(small, large)})
			w.ok(err)
			equal(t, "at first", sched.Status, stripe.SubscriptionScheduleStatusNotStarted)
			w.advance(day + time.Minute)
			sched, err = w.api.SubscriptionSchedules.Get(sched.ID, nil)
			w.ok(err)
			id := sched.Subscription.ID
			equal(t, "first phase", w.subscription(id).Items.Data[0].Price.ID, small)
			w.types()
			w.advance(32 * day)
			equal(t, "second phase", w.subscription(id).Items.Data[0].Price.ID, large)
			inOrder(t, w.types(), "subscription_schedule.updated", "customer.subscription.updated")
			w.advance(32 * day)
			equal(t, "after the last phase", w.subscription(id).Status, want)
			equal(t, "not managed any more, or over", w.subscription(id).Schedule == nil || want == "canceled", true)
		})
	}
}

func TestCancelingAScheduleCancelsItsSubscription(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sched, err := w.api.SubscriptionSchedules.New(&stripe.SubscriptionScheduleParams{Customer: stripe.String(w.payer("a@example.com")),
		StartDateNow: stripe.Bool(true), Phases: phases(w.price(1000, "month"))})
	w.ok(err)
	equal(t, "active", w.subscription(sched.Subscription.ID).Status, stripe.SubscriptionStatusActive)
	_, err = w.api.SubscriptionSchedules.Cancel(sched.ID, &stripe.SubscriptionScheduleCancelParams{})
	w.ok(err)
	equal(t, "canceled", w.subscription(sched.Subscription.ID).Status, stripe.SubscriptionStatusCanceled)
	inOrder(t, w.types(), "subscription_schedule.canceled", "customer.subscription.deleted")
}
