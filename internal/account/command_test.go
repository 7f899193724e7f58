package account_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// Each command on each status, set to end or not.
func TestDecide(t *testing.T) {
	t.Parallel()
	period := noon().AddDate(0, 1, 0)
	running := account.Subscription{Status: account.StatusActive, CurrentPeriodEnd: period}
	with := func(change func(*account.Subscription)) account.Subscription {
		s := running
		change(&s)
		return s
	}
	flagged := with(func(s *account.Subscription) { s.CancelAtPeriodEnd, s.CancelAt = true, period })
	sooner := with(func(s *account.Subscription) { s.CancelAt = period.Add(-time.Hour) })
	later := with(func(s *account.Subscription) { s.CancelAt = period.Add(time.Hour) })
	status := func(status account.Status) account.Subscription {
		return with(func(s *account.Subscription) { s.Status = status })
	}
	scheduled := with(func(s *account.Subscription) { s.ScheduleID = "sub_sched_1" })
	act, satisfied := account.Decision{}, account.Decision{Satisfied: true}
	refused := func(r account.Refusal) account.Decision { return account.Decision{Refused: r} }
	for name, c := range map[string]struct {
		subscription               account.Subscription
		cancel, cancelNow, reactiv account.Decision
	}{
		"runs":                   {running, act, act, satisfied},
		"ends with its period":   {flagged, satisfied, act, act},
		"ends before its period": {sooner, satisfied, act, act},
		"ends after a renewal":   {later, act, act, act},
		"trialing":               {status(account.StatusTrialing), act, act, satisfied},
		"past due":               {status(account.StatusPastDue), act, act, satisfied},
		"unpaid":                 {status(account.StatusUnpaid), act, act, satisfied},
		"paused":                 {status(account.StatusPaused), act, act, refused(account.RefusedPaused)},
		"paused and set to end": {with(func(s *account.Subscription) {
			s.Status, s.CancelAtPeriodEnd, s.CancelAt = account.StatusPaused, true, period
		}), satisfied, act, refused(account.RefusedPaused)},
		"collection paused":         {with(func(s *account.Subscription) { s.CollectionPaused = true }), act, act, satisfied},
		"never paid":                {status(account.StatusIncomplete), refused(account.RefusedUnpaid), act, satisfied},
		"never paid and over":       {status(account.StatusIncompleteExpired), refused(account.RefusedEnded), satisfied, refused(account.RefusedEnded)},
		"over":                      {status(account.StatusCanceled), refused(account.RefusedEnded), satisfied, refused(account.RefusedEnded)},
		"managed by a schedule":     {scheduled, account.Decision{ReleaseSchedule: "sub_sched_1"}, account.Decision{ReleaseSchedule: "sub_sched_1"}, satisfied},
		"at the end of a phase":     {with(func(s *account.Subscription) { s.ScheduleID, s.CancelAt = "sub_sched_1", period.AddDate(1, 0, 0) }), account.Decision{ReleaseSchedule: "sub_sched_1"}, account.Decision{ReleaseSchedule: "sub_sched_1"}, satisfied},
		"ended by a schedule":       {with(func(s *account.Subscription) { s.ScheduleID, s.ScheduleEndsAt = "sub_sched_1", period.AddDate(1, 0, 0) }), account.Decision{ReleaseSchedule: "sub_sched_1"}, account.Decision{ReleaseSchedule: "sub_sched_1"}, account.Decision{ReleaseSchedule: "sub_sched_1"}},
		"of a status not known yet": {status("frozen"), act, act, satisfied},
	} {
		for command, want := range map[account.Command]account.Decision{
			account.CommandCancel: c.cancel, account.CommandCancelNow: c.cancelNow, account.CommandReactivate: c.reactiv,
		} {
			if got := account.Decide(command, c.subscription, false); got != want {
				t.Errorf("%s, %s: %+v, want %+v", name, command, got, want)
			}
			if got := account.Decide(command, c.subscription, true); got != refused(account.RefusedUserDeleted) {
				t.Errorf("%s, %s of a user who is being deleted: %+v", name, command, got)
			}
		}
	}
	if got := account.Decide("pay", running, false); got.Acts() {
		t.Errorf("a command that is none acts: %+v", got)
	}
}

// While a schedule manages a subscription, the schedule alone says whether and when it ends: a date
// on the subscription may be the end of a phase that another one follows.
func TestAScheduleAloneEndsWhatItManages(t *testing.T) {
	t.Parallel()
	s := account.Subscription{Status: account.StatusActive, ScheduleID: "sub_sched_1", CurrentPeriodEnd: noon(), CancelAt: noon()}
	if at, ends := s.ScheduledToEnd(); ends || !at.IsZero() || s.Ending().Set() {
		t.Errorf("it goes on behind its phase, and ends at %s (%t), set %t", at, ends, s.Ending().Set())
	}
	s.ScheduleEndsAt = noon().AddDate(0, 1, 0)
	if at, ends := s.ScheduledToEnd(); !ends || !at.Equal(s.ScheduleEndsAt) || !s.Ending().At.Equal(s.ScheduleEndsAt) {
		t.Errorf("its schedule ends it at %s, and it ends at %s (%t)", s.ScheduleEndsAt, at, ends)
	}
}

// What is final is not taken back: the end of a subscription, and that of a schedule.
func TestReversible(t *testing.T) {
	t.Parallel()
	for command, want := range map[account.Command]bool{account.CommandCancel: true, account.CommandReactivate: true, account.CommandCancelNow: false} {
		if got := (account.Decision{}).Reversible(command); got != want {
			t.Errorf("%s: reversible %t", command, got)
		}
		if (account.Decision{ReleaseSchedule: "sub_sched_1"}).Reversible(command) {
			t.Errorf("%s of what a schedule managed is reversible", command)
		}
	}
}

// An undo acts only on what is exactly as its step left it.
func TestDecideUndo(t *testing.T) {
	t.Parallel()
	now, period := noon(), noon().AddDate(0, 1, 0)
	none, flag := account.Ending{}, account.Ending{AtPeriodEnd: true, At: period}
	date := account.Ending{At: period.AddDate(0, 1, 0)}
	for name, c := range map[string]struct {
		status            account.Status
		now, before, left account.Ending
		deleting          bool
		want              account.Undoing
	}{
		"as it was left":           {account.StatusActive, flag, none, flag, false, account.UndoRestore},
		"as it was before":         {account.StatusActive, none, none, flag, false, account.UndoDone},
		"changed by somebody":      {account.StatusActive, date, none, flag, false, account.UndoSuperseded},
		"renewed meanwhile":        {account.StatusActive, account.Ending{AtPeriodEnd: true, At: period.AddDate(0, 1, 0)}, none, flag, false, account.UndoSuperseded},
		"ended meanwhile":          {account.StatusCanceled, flag, none, flag, false, account.UndoSuperseded},
		"user deleted meanwhile":   {account.StatusActive, flag, none, flag, true, account.UndoSuperseded},
		"a date that can be set":   {account.StatusActive, none, date, none, false, account.UndoRestore},
		"a date that has passed":   {account.StatusActive, none, account.Ending{At: now}, none, false, account.UndoSuperseded},
		"a flag can always be set": {account.StatusActive, none, account.Ending{AtPeriodEnd: true, At: now}, none, false, account.UndoRestore},
	} {
		s := account.Subscription{Status: c.status, CancelAtPeriodEnd: c.now.AtPeriodEnd, CancelAt: c.now.At}
		if got := account.DecideUndo(s, c.before, c.left, c.deleting, now); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// Ids of other forms reach no provider.
func TestCheckoutIDs(t *testing.T) {
	t.Parallel()
	for id, want := range map[string][3]bool{
		"sub_1": {true, false, true}, "cs_test_1": {false, true, true}, "price_1": {false, false, true}, "gold-plan": {false, false, true},
		"": {}, "sub_": {false, false, true}, "sub_1/../x": {}, "cs_?": {}, "sub_1 ": {},
	} {
		if got := [3]bool{account.ValidSubscriptionID(id), account.ValidSessionID(id), account.ValidPriceID(id)}; got != want {
			t.Errorf("%q: %v, want %v", id, got, want)
		}
	}
}

// What a server has written on a session is evidence; a reference beside it may be the payer's own.
func TestClaimsOfASession(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		session account.CheckoutSession
		want    string
	}{
		"a reference":                {account.CheckoutSession{ClientReferenceID: "user_a"}, "user_a reference:cs_1"},
		"a Payment Link's reference": {account.CheckoutSession{ClientReferenceID: "user_a", PaymentLink: "plink_1"}, "user_a payment_link_reference:cs_1"},
		"metadata":                   {account.CheckoutSession{ClientReferenceID: "order-7", Metadata: map[string]string{"userId": "user_b"}}, "user_b checkout_metadata:cs_1"},
		"both, and the same":         {account.CheckoutSession{ClientReferenceID: "user_a", Metadata: map[string]string{"clerk_user_id": "user_a"}}, "user_a checkout_metadata:cs_1"},
		"both, and not the same":     {account.CheckoutSession{ClientReferenceID: "user_a", Metadata: map[string]string{"clerk_user_id": "user_b"}}, "user_b checkout_metadata:cs_1, user_a reference:cs_1"},
		"nobody":                     {account.CheckoutSession{}, ""},
	} {
		c.session.ID = "cs_1"
		var got []string
		for _, claim := range c.session.Claims() {
			got = append(got, claim.ClerkUserID+" "+claim.Source)
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
