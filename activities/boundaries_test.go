package activities_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// A boundary that Stripe does not act on is looked at ever more slowly, which must not hide the
// boundaries that are still to come, nor slow down because a customer is busy.
func TestWakeAtBoundaries(t *testing.T) {
	t.Parallel()
	const delay = time.Minute // of the bench
	const past = -30 * 24 * time.Hour
	for _, c := range []struct {
		name string
		// When the periods of the customer's subscriptions end, and the first one is set to end; from
		// now.
		periods []time.Duration
		end     time.Duration
		given   activities.RecordInput
		wake    time.Duration
		overdue int
	}{
		{"to come", []time.Duration{10 * time.Minute, 5 * time.Minute}, 0, activities.RecordInput{Overdue: 7}, 5*time.Minute + delay, 0},
		{"passed by less than the delay", []time.Duration{-30 * time.Second}, 0, activities.RecordInput{ForBoundary: true}, 30 * time.Second, 0},
		{"passed", []time.Duration{past}, 0, activities.RecordInput{}, delay, 0},
		{"passed, and looked at for it", []time.Duration{past}, 0, activities.RecordInput{ForBoundary: true}, delay, 1},
		{"passed, and looked at for it again", []time.Duration{past}, 0, activities.RecordInput{ForBoundary: true, Overdue: 3}, 8 * delay, 4},
		{"passed, and looked at because something happened", []time.Duration{past}, 0, activities.RecordInput{Overdue: 3}, 8 * delay, 3},
		{"passed for ever", []time.Duration{past}, 0, activities.RecordInput{ForBoundary: true, Overdue: 900}, 6 * time.Hour, 901},
		{"one passed, another's to come", []time.Duration{past, 10 * time.Minute}, 0, activities.RecordInput{ForBoundary: true, Overdue: 20}, 10*time.Minute + delay, 21},
		{"the period's passed, the set end to come", []time.Duration{past}, 10 * time.Minute, activities.RecordInput{ForBoundary: true, Overdue: 20}, 10*time.Minute + delay, 21},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, account.DeleteKeep)
			b.person("cus_1")
			before := time.Now()
			for i, period := range c.periods {
				s := subscription(fmt.Sprintf("sub_%d", i), "cus_1", account.StatusActive)
				s.CurrentPeriodEnd = before.Add(period)
				if c.end != 0 && i == 0 {
					s.CancelAt = before.Add(c.end)
				}
				b.stripe.put(s)
			}
			given := c.given
			given.CustomerID = "cus_1"
			result, err := b.subscriptions.RecordSubscriptions(t.Context(), given)
			if err != nil {
				t.Fatal(err)
			}
			// The look itself takes a while.
			if wake := result.WakeAt.Sub(before); wake < c.wake-time.Second || wake > c.wake+time.Since(before)+time.Second {
				t.Errorf("looks again in %s, want %s", wake, c.wake)
			}
			if result.Overdue != c.overdue {
				t.Errorf("counted %d, want %d", result.Overdue, c.overdue)
			}
		})
	}
}

// However long the delay is that an operator has set, and however often a boundary was looked at,
// the next look is ahead.
func TestALongDelayIsNoShorterForHavingBeenWaitedFor(t *testing.T) {
	t.Parallel()
	for _, looks := range []int{0, 10, 17, 19, 900} {
		t.Run(fmt.Sprint(looks), func(t *testing.T) {
			t.Parallel()
			b := newBench(t, account.DeleteKeep)
			b.subscriptions.Policy.BoundaryDelay = 24 * time.Hour
			b.person("cus_1")
			s := subscription("sub_1", "cus_1", account.StatusActive)
			s.CurrentPeriodEnd = time.Now().Add(-30 * 24 * time.Hour)
			b.stripe.put(s)
			result, err := b.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: "cus_1", ForBoundary: true, Overdue: looks})
			if err != nil {
				t.Fatal(err)
			}
			if wait := time.Until(result.WakeAt); wait < 5*time.Hour || wait > 6*time.Hour {
				t.Errorf("looks again in %s, want 6h", wait)
			}
		})
	}
}
