package account_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// noon is the time at which decisions are made in these tests.
func noon() time.Time { return time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC) }

func statuses() []account.Status {
	return []account.Status{account.StatusIncomplete, account.StatusIncompleteExpired, account.StatusTrialing, account.StatusActive,
		account.StatusPastDue, account.StatusUnpaid, account.StatusPaused, account.StatusCanceled, "invented_later"}
}

// Each status, with collection paused and not, under each policy.
func TestGrants(t *testing.T) {
	t.Parallel()
	for _, status := range statuses() {
		for _, paused := range []bool{false, true} {
			for _, whilePaused := range []bool{false, true} {
				policy := account.AccessPolicy{PastDueGrace: time.Hour, WhilePaused: whilePaused}
				s := account.Subscription{Status: status, CollectionPaused: paused, PastDueSince: noon().Add(-30 * time.Minute)}
				granting := status == account.StatusActive || status == account.StatusTrialing || status == account.StatusPastDue
				if got, want := policy.Grants(s, noon()), granting && (!paused || whilePaused); got != want {
					t.Errorf("%s, paused %t, policy %t: %t, want %t", status, paused, whilePaused, got, want)
				}
			}
		}
	}
}

// The grace of a past_due subscription ends at one moment, whoever computes it.
func TestGrace(t *testing.T) {
	t.Parallel()
	invoice := noon().Add(-72 * time.Hour)
	for _, c := range []struct {
		name  string
		grace time.Duration
		s     account.Subscription
		now   time.Time
		want  bool
	}{
		{"just before its end", 72 * time.Hour, account.Subscription{PastDueSince: invoice}, noon().Add(-time.Nanosecond), true},
		{"at its end", 72 * time.Hour, account.Subscription{PastDueSince: invoice}, noon(), false},
		{"no grace", 0, account.Subscription{PastDueSince: invoice}, invoice, false},
		{"a later invoice and period change nothing", 72 * time.Hour, account.Subscription{PastDueSince: invoice, LatestInvoiceCreated: noon(), CurrentPeriodStart: noon()}, noon(), false},
		{"from nothing", 72 * time.Hour, account.Subscription{LatestInvoiceCreated: noon(), CurrentPeriodStart: noon()}, noon(), false},
		{"not due yet", 72 * time.Hour, account.Subscription{PastDueSince: noon().Add(time.Hour)}, noon(), true},
	} {
		c.s.Status = account.StatusPastDue
		if got := (account.AccessPolicy{PastDueGrace: c.grace}).Grants(c.s, c.now); got != c.want {
			t.Errorf("%s: %t, want %t", c.name, got, c.want)
		}
	}
}

// first is the first of some times, zero if there are none.
func first(times []time.Time) time.Time {
	if len(times) == 0 {
		return time.Time{}
	}
	return times[0]
}

// All the moments at which a subscription can change by itself, those too that Stripe has not acted
// on.
func TestBoundaries(t *testing.T) {
	t.Parallel()
	policy := account.AccessPolicy{PastDueGrace: 10 * time.Hour}
	in := func(hours int) time.Time { return noon().Add(time.Duration(hours) * time.Hour) }
	s := account.Subscription{Status: account.StatusPastDue, CurrentPeriodEnd: in(-1), CancelAt: in(30), PastDueSince: in(-2)}
	if got, want := policy.Boundaries(s, noon()), []time.Time{in(-1), in(8), in(30)}; !slices.EqualFunc(got, want, time.Time.Equal) {
		t.Errorf("%s, want %s", got, want)
	}
}

// The next moment at which a subscription can change by itself.
func TestFirstBoundary(t *testing.T) {
	t.Parallel()
	policy := account.AccessPolicy{PastDueGrace: 10 * time.Hour}
	in := func(hours int) time.Time { return noon().Add(time.Duration(hours) * time.Hour) }
	none := time.Time{}
	for _, c := range []struct {
		name string
		s    account.Subscription
		want time.Time
	}{
		{"period", account.Subscription{Status: account.StatusActive, CurrentPeriodEnd: in(5)}, in(5)},
		{"period that has passed", account.Subscription{Status: account.StatusActive, CurrentPeriodEnd: in(-5)}, in(-5)},
		{"set end before the period's", account.Subscription{Status: account.StatusActive, CurrentPeriodEnd: in(5), CancelAt: in(3)}, in(3)},
		{"set end after the period's", account.Subscription{Status: account.StatusActive, CurrentPeriodEnd: in(5), CancelAt: in(9)}, in(5)},
		{"trial", account.Subscription{Status: account.StatusTrialing, CurrentPeriodEnd: in(5), TrialEnd: in(4)}, in(4)},
		{"a trial that is over is none", account.Subscription{Status: account.StatusActive, CurrentPeriodEnd: in(5), TrialEnd: in(-400)}, in(5)},
		{"grace", account.Subscription{Status: account.StatusPastDue, CurrentPeriodEnd: in(50), PastDueSince: in(-2)}, in(8)},
		{"period before the grace's end", account.Subscription{Status: account.StatusPastDue, CurrentPeriodEnd: in(3), PastDueSince: in(-2)}, in(3)},
		{"a grace that is over is none", account.Subscription{Status: account.StatusPastDue, CurrentPeriodEnd: in(50), PastDueSince: in(-20)}, in(50)},
		{"first payment", account.Subscription{Status: account.StatusIncomplete, CurrentPeriodEnd: in(500), Created: in(-3)}, in(20)},
		{"first payment of who knows when", account.Subscription{Status: account.StatusIncomplete, CurrentPeriodEnd: in(500)}, in(500)},
		{"unpaid", account.Subscription{Status: account.StatusUnpaid, CurrentPeriodEnd: in(5)}, in(5)},
		{"canceled", account.Subscription{Status: account.StatusCanceled, CurrentPeriodEnd: in(5), CancelAt: in(3)}, none},
		{"expired", account.Subscription{Status: account.StatusIncompleteExpired, CurrentPeriodEnd: in(5), Created: in(-1)}, none},
		{"nothing known", account.Subscription{Status: account.StatusActive}, none},
	} {
		if got := first(policy.Boundaries(c.s, noon())); !got.Equal(c.want) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// Whenever access changes by itself, a boundary has been known before.
func TestBoundaryFindsEveryChange(t *testing.T) {
	t.Parallel()
	random(t, func(r *cases) {
		policy := account.AccessPolicy{PastDueGrace: time.Duration(r.IntN(100)) * time.Hour, WhilePaused: r.IntN(2) == 0}
		s := r.subscription(0).Subscription
		before := noon()
		after := before.Add(time.Duration(1+r.IntN(200)) * time.Hour)
		if policy.Grants(s, before) == policy.Grants(s, after) {
			return
		}
		if at := first(policy.Boundaries(s, before)); at.IsZero() || at.After(after) {
			t.Errorf("seed %d: %+v changes access between %s and %s, and the boundary is %s", r.seed, s, before, after, at)
		}
	})
}

// What a deleted user's subscription needs, for each status and policy; and what has been done is
// enough.
func TestStop(t *testing.T) {
	t.Parallel()
	now, periodEnd, none := account.StopNow, account.StopAtPeriodEnd, account.StopNothing
	want := map[account.Status][3]account.Stop{
		// cancel_at_period_end, cancel_now, keep
		account.StatusActive:            {periodEnd, now, none},
		account.StatusTrialing:          {periodEnd, now, none},
		account.StatusPastDue:           {now, now, none},
		account.StatusUnpaid:            {now, now, none},
		account.StatusIncomplete:        {now, now, none},
		account.StatusPaused:            {now, now, none},
		account.StatusCanceled:          {none, none, none},
		account.StatusIncompleteExpired: {none, none, none},
		"invented_later":                {now, now, none},
	}
	for _, status := range statuses() {
		for i, policy := range []account.DeletionPolicy{account.DeleteCancelAtPeriodEnd, account.DeleteCancelNow, account.DeleteKeep} {
			s := account.Subscription{Status: status, CurrentPeriodEnd: noon()}
			if got := policy.Stop(s); got != want[status][i] {
				t.Errorf("%s under %s: %q, want %q", status, policy, got, want[status][i])
			}
			// A subscription set to end is fine where it is paid for, and nowhere else.
			s.CancelAtPeriodEnd = true
			expected := want[status][i]
			if expected == periodEnd {
				expected = none
			}
			if got := policy.Stop(s); got != expected {
				t.Errorf("%s, set to end, under %s: %q, want %q", status, policy, got, expected)
			}
		}
	}
	for _, c := range []struct {
		name string
		s    account.Subscription
		want account.Stop
	}{
		{"set end within the period", account.Subscription{CurrentPeriodEnd: noon(), CancelAt: noon().Add(-time.Hour)}, none},
		{"set end at the period's end", account.Subscription{CurrentPeriodEnd: noon(), CancelAt: noon()}, none},
		{"set end after a renewal", account.Subscription{CurrentPeriodEnd: noon(), CancelAt: noon().Add(time.Hour)}, periodEnd},
		{"draft of a renewal", account.Subscription{CurrentPeriodEnd: noon(), Outstanding: true}, now},
		{"draft of a renewal, set to end", account.Subscription{CurrentPeriodEnd: noon(), CancelAtPeriodEnd: true, Outstanding: true}, now},
		{"metered item", account.Subscription{CurrentPeriodEnd: noon(), CancelAtPeriodEnd: true, Metered: true}, now},
		{"schedule that ends it", account.Subscription{CurrentPeriodEnd: noon(), ScheduleID: "sub_sched_1", ScheduleEndsAt: noon()}, none},
		{"schedule that ends it after another phase", account.Subscription{CurrentPeriodEnd: noon(), ScheduleID: "sub_sched_1", ScheduleEndsAt: noon(),
			LaterPhases: []account.Phase{{}}}, periodEnd},
		{"schedule that ends it after another phase, as stored", account.Subscription{CurrentPeriodEnd: noon(), ScheduleID: "sub_sched_1", ScheduleEndsAt: noon(),
			PhasesAhead: true}, periodEnd},
		{"set end within the trial", account.Subscription{CurrentPeriodEnd: noon(), TrialEnd: noon().Add(2 * time.Hour), CancelAt: noon().Add(time.Hour)}, none},
	} {
		c.s.Status = account.StatusActive
		if got := account.DeleteCancelAtPeriodEnd.Stop(c.s); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// Both ways of being scheduled to end count, and what is over is not scheduled.
func TestScheduledToEnd(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		s    account.Subscription
		want string
	}{
		{account.Subscription{Status: account.StatusActive}, "0001-01-01 false"},
		{account.Subscription{Status: account.StatusActive, CancelAtPeriodEnd: true, CurrentPeriodEnd: noon()}, "2026-03-10 true"},
		{account.Subscription{Status: account.StatusActive, CancelAtPeriodEnd: true}, "0001-01-01 true"},
		{account.Subscription{Status: account.StatusActive, CancelAt: noon()}, "2026-03-10 true"},
		{account.Subscription{Status: account.StatusActive, CancelAt: noon(), CancelAtPeriodEnd: true, CurrentPeriodEnd: noon().AddDate(1, 0, 0)}, "2026-03-10 true"},
		{account.Subscription{Status: account.StatusCanceled, CancelAt: noon()}, "0001-01-01 false"},
	} {
		at, scheduled := c.s.ScheduledToEnd()
		if got := fmt.Sprint(at.Format(time.DateOnly), " ", scheduled); got != c.want {
			t.Errorf("%+v: %s, want %s", c.s, got, c.want)
		}
	}
}
