package fences_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

const day = 24 * time.Hour

// byServer does at Stripe what the product's own server does beside us.
func (l *lab) byServer(method, path string, form url.Values) (body string) {
	l.t.Helper()
	request, err := http.NewRequestWithContext(l.t.Context(), method, l.Sandbox.StripeURL()+path, strings.NewReader(form.Encode()))
	l.must(err)
	request.Header.Set("Authorization", "Bearer "+l.Sandbox.StripeSecretKey)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := http.DefaultClient.Do(request)
	l.must(err)
	raw, err := io.ReadAll(answer.Body)
	l.must(err)
	l.must(answer.Body.Close())
	http.DefaultClient.CloseIdleConnections()
	if answer.StatusCode != http.StatusOK {
		l.t.Fatalf("%s %s: %d %s", method, path, answer.StatusCode, raw)
	}
	return string(raw)
}

// willStart makes a schedule that begins by itself after a while, and says so to nobody.
func (l *lab) willStart(customer string, after time.Duration) (schedule string) {
	l.t.Helper()
	begins := l.Sandbox.Stripe.Now().Add(after)
	body := l.byServer(http.MethodPost, "/v1/subscription_schedules", url.Values{"customer": {customer}, "start_date": {strconv.FormatInt(begins.Unix(), 10)}, "end_behavior": {"release"},
		"phases[0][items][0][price]": {l.price}, "phases[0][items][0][quantity]": {"1"}, "phases[0][iterations]": {"12"}})
	return stringField(l.t, json.RawMessage(body), "id")
}

// schedule answers a schedule's status, how it ends its subscription, and how many phases it has.
func (l *lab) schedule(id string) string {
	l.t.Helper()
	var s struct {
		Status      string
		EndBehavior string `json:"end_behavior"`
		Phases      []any
	}
	l.must(json.Unmarshal([]byte(l.byServer(http.MethodGet, "/v1/subscription_schedules/"+id, nil)), &s))
	return s.Status + " " + s.EndBehavior + " " + strconv.Itoa(len(s.Phases))
}

// managed puts a subscription under a schedule that raises its price with each of the later
// periods.
func (l *lab) managed(subscription string, later ...string) (schedule string) {
	l.t.Helper()
	body := l.byServer(http.MethodPost, "/v1/subscription_schedules", url.Values{"from_subscription": {subscription}})
	id := stringField(l.t, json.RawMessage(body), "id")
	var s struct {
		Phases []struct {
			Start int64 `json:"start_date"`
			End   int64 `json:"end_date"`
		}
	}
	l.must(json.Unmarshal([]byte(body), &s))
	form := url.Values{"end_behavior": {"release"},
		"phases[0][items][0][price]": {l.price}, "phases[0][items][0][quantity]": {"1"},
		"phases[0][start_date]": {strconv.FormatInt(s.Phases[0].Start, 10)}, "phases[0][end_date]": {strconv.FormatInt(s.Phases[0].End, 10)}}
	for i, price := range later {
		n := "phases[" + strconv.Itoa(i+1) + "]"
		form.Set(n+"[items][0][price]", price)
		form.Set(n+"[items][0][quantity]", "1")
		form.Set(n+"[iterations]", "1")
	}
	l.byServer(http.MethodPost, "/v1/subscription_schedules/"+id, form)
	return id
}

// paid is how many invoices of more than nothing were paid.
func (l *lab) paid() string {
	l.t.Helper()
	return l.text(`SELECT count(*) FROM payments WHERE kind = 'invoice' AND status = 'paid' AND amount_paid > 0`)
}

// A schedule that has not begun would bill a user whom everybody has forgotten. Before a user is
// erased each is cancelled, also on a customer without a subscription; and one that is made later
// is, in the next sync, whether the user is erased by then or not.
func TestScheduleThatHasNotBegunBillsNobodyWhoIsDeleted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		policy               account.DeletionPolicy
		subscribed           bool
		before, while, after int // schedules
		want                 string
	}{
		"before the deletion":                        {account.DeleteCancelAtPeriodEnd, false, 1, 0, 0, "canceled"},
		"before the deletion, beside a subscription": {account.DeleteCancelNow, true, 1, 0, 0, "canceled"},
		"more of them than one page shows":           {account.DeleteCancelAtPeriodEnd, false, 120, 0, 0, "canceled"},
		"after the deletion was asked for":           {account.DeleteCancelAtPeriodEnd, false, 0, 2, 0, "canceled"},
		"after the erasure":                          {account.DeleteCancelAtPeriodEnd, false, 0, 0, 1, "canceled"},
		"kept":                                       {account.DeleteKeep, false, 1, 0, 0, "not_started"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{deletion: c.policy})
			user, customer := l.signUp("ada")
			l.must(l.Sandbox.Stripe.AddCard(customer))
			bought := "0"
			if c.subscribed {
				bought = "1"
				l.buy(stripesim.CheckoutSpec{CustomerID: customer, ClientReferenceID: user})
				l.settle()
			}
			var schedules []string
			make := func(n int) {
				for range n {
					schedules = append(schedules, l.willStart(customer, 10*day))
				}
			}
			make(c.before)
			l.settle()
			l.must(l.Sandbox.Clerk.DeleteUser(user))
			l.take()
			make(c.while)
			l.settle()
			l.wants("true", `SELECT deleted_at IS NOT NULL FROM person_user WHERE clerk_user_id = $1`, user)
			make(c.after)
			l.settle()
			for _, id := range schedules {
				if got, _, _ := strings.Cut(l.schedule(id), " "); got != c.want {
					t.Errorf("schedule %s of a deleted user is %s, want %s", id, got, c.want)
				}
			}
			if c.policy == account.DeleteKeep {
				return
			}
			l.must(l.Sandbox.Stripe.Advance(t.Context(), 40*day))
			l.settle()
			if paid := l.paid(); paid != bought {
				t.Errorf("%s invoices were paid, want %s: a deleted user was billed", paid, bought)
			}
		})
	}
}

// What Stripe refuses keeps the user from being erased, and keeps nothing else from being
// cancelled.
func TestNobodyIsErasedWhileAScheduleCannotBeCancelled(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, customer := l.signUp("ada")
	stuck, other := l.willStart(customer, 10*day), l.willStart(customer, 10*day)
	l.settle()
	restore := l.work.refuse("POST /v1/subscription_schedules/"+stuck, http.StatusBadRequest, `{"error":{"type":"invalid_request_error","message":"Not now."}}`)
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	l.unpoked()
	l.must(l.work.lookAtUser(t.Context(), user))
	if err := l.work.lookAtCustomer(t.Context(), customer); err == nil {
		t.Error("a refusal was not told")
	}
	if got, _, _ := strings.Cut(l.schedule(other), " "); got != "canceled" {
		t.Errorf("the other schedule is %s", got)
	}
	l.must(l.work.lookAtUser(t.Context(), user))
	l.wants("", `SELECT deleted_at FROM person_user WHERE clerk_user_id = $1`, user)
	restore()
	l.settle() // the user's own try has woken the customer
	l.wants("true", `SELECT deleted_at IS NOT NULL FROM person_user WHERE clerk_user_id = $1`, user)
	if got, _, _ := strings.Cut(l.schedule(stuck), " "); got != "canceled" {
		t.Errorf("the schedule is %s", got)
	}
}

// A read that began before the deletion was asked for has not listed the schedules, and settles
// nothing.
func TestReadBesideTheMarkSettlesNoSchedule(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, customer := l.signUp("ada")
	schedule := l.willStart(customer, 10*day)
	l.settle()
	a := l.actor(policies{})
	reading := a.arm(t, "ask GET /v1/subscriptions", 0)
	read := begin(func() error { return a.lookAtCustomer(t.Context(), customer) })
	reach(t, reading, read)
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	l.unpoked()
	l.must(l.work.lookAtUser(t.Context(), user))
	reading.release()
	wait(t, read)
	l.settle()
	l.wants("true", `SELECT deleted_at IS NOT NULL FROM person_user WHERE clerk_user_id = $1`, user)
	if got, _, _ := strings.Cut(l.schedule(schedule), " "); got != "canceled" {
		t.Errorf("the schedule of an erased user is %s", got)
	}
}

// A deleted user's subscription that a schedule manages ends with its period, in one call, however
// many phases were to come.
func TestManagedSubscriptionOfADeletedUserIsNotRenewed(t *testing.T) {
	t.Parallel()
	for policy, want := range map[account.DeletionPolicy]string{account.DeleteCancelAtPeriodEnd: "active cancel 1", account.DeleteCancelNow: "canceled release 3"} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{deletion: policy})
			user, _, subscription := l.subscribed("ada")
			schedule := l.managed(subscription, l.price, l.addPrice(9900))
			l.settle()
			l.must(l.Sandbox.Clerk.DeleteUser(user))
			l.settle()
			l.wants("true", `SELECT deleted_at IS NOT NULL FROM person_user WHERE clerk_user_id = $1`, user)
			if got := l.schedule(schedule); got != want {
				t.Errorf("the schedule is %q, want %q", got, want)
			}
			l.must(l.Sandbox.Stripe.Advance(t.Context(), 100*day))
			l.settle()
			l.wants("canceled", `SELECT status FROM subscriptions WHERE stripe_subscription_id = $1`, subscription)
			if paid := l.paid(); paid != "1" {
				t.Errorf("%s invoices were paid", paid)
			}
		})
	}
}

// A command ends a managed subscription through its schedule, in one call: nothing is released. The
// customer's other schedules stay, and are named.
func TestCommandEndsAManagedSubscriptionThroughItsSchedule(t *testing.T) {
	t.Parallel()
	for action, want := range map[store.Action]string{store.ActionCancel: "active cancel 1", store.ActionCancelNow: "canceled release 3"} {
		t.Run(string(action), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			schedule := l.managed(s.subscription, l.price, l.addPrice(9900))
			other := l.willStart(s.customer, 300*day)
			l.settle()
			op := l.asks(s, action)
			l.must(l.work.apply(t.Context(), s, op))
			l.settle()
			if got := l.schedule(schedule); got != want {
				t.Errorf("the schedule is %q, want %q", got, want)
			}
			if got := l.schedule(other); got != "not_started release 1" {
				t.Errorf("the other schedule is %q", got)
			}
			done, err := l.Store.Operation(t.Context(), op)
			l.must(err)
			if done.Status != store.OperationDone || len(done.OtherSchedules) != 1 || done.OtherSchedules[0] != other {
				t.Errorf("it is %s (%s), and names %v, want done and %s", done.Status, done.Reason, done.OtherSchedules, other)
			}
			l.agree(s.user)
			if action == store.ActionCancel {
				l.wants("true", `SELECT (projection ->> 'cancelAt') = (projection ->> 'currentPeriodEnd') FROM person_user WHERE clerk_user_id = $1`, s.user)
			}
			l.must(l.Sandbox.Stripe.Advance(t.Context(), 100*day))
			l.settle()
			l.wants("canceled", `SELECT status FROM subscriptions WHERE stripe_subscription_id = $1`, s.subscription)
			if paid := l.paid(); paid != "1" {
				t.Errorf("%s invoices were paid", paid)
			}
		})
	}
}

// An end that a schedule has set is taken back by the schedule, which keeps its phases.
func TestReactivatingKeepsTheSchedule(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	schedule := l.managed(s.subscription, l.addPrice(9900))
	l.settle()
	l.byServer(http.MethodPost, "/v1/subscription_schedules/"+schedule, url.Values{"end_behavior": {"cancel"}})
	l.settle()
	op := l.asks(s, store.ActionReactivate)
	l.must(l.work.apply(t.Context(), s, op))
	l.settle()
	l.wants("done", `SELECT status FROM operations WHERE id = $1`, op)
	if got := l.schedule(schedule); got != "active release 2" {
		t.Errorf("the schedule is %q", got)
	}
	l.agree(s.user)
}

const notAllowed = `{"error":{"type":"invalid_request_error","message":"That is not allowed."}}`

// Where Stripe does not let a schedule end its subscription, the schedule is released; and where it
// then refuses the end too, later phases are gone for good. That is what the operation says, with
// the phases, and not that nothing was done.
func TestReleasedScheduleIsNotCalledNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	dear := l.addPrice(9900)
	schedule := l.managed(s.subscription, l.price, dear)
	l.settle()
	// Nothing at all is done while Stripe refuses everything, and that is said.
	restore := l.work.refuse("POST /v1/subscription", http.StatusBadRequest, notAllowed)
	op := l.asks(s, store.ActionCancel)
	l.must(l.work.apply(t.Context(), s, op))
	restore()
	l.wants("failed http_400", `SELECT status || ' ' || reason FROM operations WHERE id = $1`, op)
	if got := l.schedule(schedule); got != "active release 3" {
		t.Errorf("the schedule is %q although all was refused", got)
	}

	l.work.refuse("POST /v1/subscription_schedules/"+schedule+"?", http.StatusBadRequest, notAllowed)
	restore = l.work.refuse("POST /v1/subscriptions/", http.StatusBadRequest, notAllowed)
	op = l.asks(s, store.ActionCancel)
	l.must(l.work.apply(t.Context(), s, op))
	restore()
	l.settle()
	l.wants("failed schedule_released", `SELECT status || ' ' || reason FROM operations WHERE id = $1`, op)
	if got := l.schedule(schedule); got != "released release 3" {
		t.Errorf("the schedule is %q", got)
	}
	failed, err := l.Store.Operation(t.Context(), op)
	l.must(err)
	dropped, err := failed.Dropped()
	l.must(err)
	if len(dropped) != 2 || dropped[1].Prices[0] != dear {
		t.Errorf("the phases that were dropped are %+v", dropped)
	}
	l.wants("2 "+schedule, `SELECT jsonb_array_length(after -> 'dropped_phases') || ' ' || (after ->> 'schedule_released') FROM audit_log WHERE operation_id = $1`, op)
	l.agree(s.user)
}

// A schedule that lets go between the read and the step makes the command decide again: nothing is
// lost, and it is done.
func TestScheduleThatEndsMeanwhileIsDecidedAgain(t *testing.T) {
	t.Parallel()
	for _, action := range []store.Action{store.ActionCancel, store.ActionCancelNow} {
		for _, how := range []string{"release", "cancel"} {
			t.Run(string(action)+" "+how, func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{})
				s := l.subject(1)
				schedule := l.managed(s.subscription, l.addPrice(9900))
				l.settle()
				op := l.asks(s, action)
				a := l.actor(policies{})
				acting := a.arm(t, "/v1/subscription_schedules/"+schedule, 0)
				applied := begin(func() error { return a.apply(t.Context(), s, op) })
				reach(t, acting, applied)
				l.byServer(http.MethodPost, "/v1/subscription_schedules/"+schedule+"/"+how, nil)
				acting.release()
				wait(t, applied)
				l.settle()
				want := "done "
				if how == "cancel" && action == store.ActionCancel {
					want = "superseded subscription_ended" // it has ended for good
				}
				l.wants(want, `SELECT status || ' ' || coalesce(reason, '') FROM operations WHERE id = $1`, op)
				l.agree(s.user)
			})
		}
	}
}

// An answer that is lost on the way back from a schedule does not make the command do it twice or
// say something else.
func TestLostAnswerOfAScheduleIsFoundOut(t *testing.T) {
	t.Parallel()
	for _, match := range []string{"POST /v1/subscription_schedules/", "GET /v1/subscription_schedules/"} {
		t.Run(match, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			schedule := l.managed(s.subscription, l.addPrice(9900))
			l.settle()
			op := l.asks(s, store.ActionCancel)
			l.work.lose(match)
			l.must(l.work.apply(t.Context(), s, op))
			l.wants("done", `SELECT status FROM operations WHERE id = $1`, op)
			if got := l.schedule(schedule); got != "active cancel 1" {
				t.Errorf("the schedule is %q", got)
			}
			l.wants("", `SELECT dropped_phases FROM operations WHERE id = $1`, op)
		})
	}
}

// Syncs of users who stay ask Stripe for nothing more than before, whatever schedules there are.
func TestSchedulesCostUsersWhoStayNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	_, customer, subscription := l.subscribed("ada")
	l.managed(subscription, l.addPrice(9900))
	l.willStart(customer, 300*day)
	l.take()
	a := l.actor(policies{})
	_, err := a.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: customer})
	l.must(err)
	if len(a.asked) != 1 || a.asked[0] != "GET /v1/subscriptions" {
		t.Errorf("it asked %q", a.asked)
	}
}

// A command that began on a subscription without a schedule, and has released one since, is not
// taken back: what is gone with the schedule is gone.
func TestAReleaseIsNotToldAsPutBack(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	op := l.asks(s, store.ActionCancel)
	restore := l.work.refuse("POST /v1/subscriptions/", http.StatusServiceUnavailable, `{"error":{"type":"api_error","message":"?"}}`)
	in := activities.CommandInput{OperationID: op, CustomerID: s.customer}
	if _, err := l.work.commands.ApplyCommand(t.Context(), in); err == nil {
		t.Fatal("it was done")
	}
	restore()
	l.wants("acting true", `SELECT status || ' ' || reversible FROM operations WHERE id = $1`, op)
	schedule := l.managed(s.subscription, l.addPrice(9900))
	restore = l.work.refuse("POST /v1/subscription_schedules/"+schedule+"?", http.StatusBadRequest, notAllowed)
	result, err := l.work.commands.ApplyCommand(t.Context(), in)
	l.must(err)
	restore()
	if got := l.schedule(schedule); !strings.HasPrefix(got, "released") || !result.Recorded {
		t.Fatalf("the schedule is %s, the command %+v", got, result)
	}
	if result.Reversible {
		t.Errorf("it counts as reversible: %+v", result)
	}
	// Clerk refuses for good.
	l.must(l.work.undo(t.Context(), s, op))
	if status := l.text(`SELECT status FROM operations WHERE id = $1`, op); status == "undone" {
		t.Error("it is told as undone, which says that all is as before")
	}
}

// Stripe has released the schedule and said so, refuses the end, and the read that follows is a
// little behind.
func TestReleaseThatIsNotShownYetIsNotCalledNothing(t *testing.T) {
	t.Parallel()
	for _, behind := range []bool{false, true} {
		t.Run(map[bool]string{false: "the read is up to date", true: "the read is behind"}[behind], func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			schedule := l.managed(s.subscription, l.price, l.addPrice(9900))
			l.settle()
			stale := l.byServer(http.MethodGet, "/v1/subscriptions?customer="+s.customer+"&status=all&limit=100&expand[]=data.latest_invoice&expand[]=data.customer&expand[]=data.schedule", nil)
			l.work.refuse("POST /v1/subscription_schedules/"+schedule+"?", http.StatusBadRequest, notAllowed)
			restore := l.work.refuse("POST /v1/subscriptions/", http.StatusBadRequest, notAllowed)
			if behind {
				l.work.answer("GET /v1/subscriptions?", http.StatusOK, stale)
			}
			op := l.asks(s, store.ActionCancel)
			l.must(l.work.apply(t.Context(), s, op))
			restore()
			l.settle()
			if got := l.schedule(schedule); got != "released release 3" {
				t.Fatalf("the schedule is %q", got)
			}
			l.wants("failed schedule_released", `SELECT status || ' ' || reason FROM operations WHERE id = $1`, op)
			l.wants("2", `SELECT jsonb_array_length(dropped_phases) FROM operations WHERE id = $1`, op)
		})
	}
}

// A schedule was about to be released, which Stripe did not answer. The product's own server has
// put another one in its place by the next attempt: that one is asked to end the subscription
// first, as every schedule is, and nothing of it is lost.
func TestAnotherScheduleIsAskedBeforeItIsReleased(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	dear := l.addPrice(9900)
	one := l.managed(s.subscription, l.price, dear)
	l.settle()
	op := l.asks(s, store.ActionCancel)
	in := activities.CommandInput{OperationID: op, CustomerID: s.customer}
	l.work.refuse("POST /v1/subscription_schedules/"+one+"?", http.StatusBadRequest, notAllowed)
	restore := l.work.refuse("POST /v1/subscription_schedules/"+one+"/release", http.StatusServiceUnavailable, `{"error":{"type":"api_error","message":"?"}}`)
	if _, err := l.work.commands.ApplyCommand(t.Context(), in); err == nil {
		t.Fatal("it was done")
	}
	restore()
	l.byServer(http.MethodPost, "/v1/subscription_schedules/"+one+"/release", nil)
	other := l.managed(s.subscription, l.price, dear)
	l.must(l.work.apply(t.Context(), s, op))
	l.settle()
	l.wants("done", `SELECT status FROM operations WHERE id = $1`, op)
	if got := l.schedule(other); got != "active cancel 1" {
		t.Errorf("the other schedule is %q, want %q: its phases are lost, though it was not asked", got, "active cancel 1")
	}
}
