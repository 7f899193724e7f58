package fences_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// A command sleeps while Stripe refuses it for now, or has not begun, and one that was asked for
// later is done meanwhile: the earlier one is not done after it. What was asked for last stands.
func TestAnEarlierCommandIsNotDoneAfterALaterOne(t *testing.T) {
	t.Parallel()
	for _, begun := range []bool{true, false} {
		for earlier, later := range map[store.Action]store.Action{store.ActionCancel: store.ActionReactivate, store.ActionReactivate: store.ActionCancel, store.ActionCancelNow: store.ActionReactivate} {
			l := newLab(t, policies{})
			s := l.subject(1)
			ends := "false"
			if later == store.ActionCancel {
				ends = "true"
			}
			if earlier == store.ActionReactivate {
				l.post("/v1/subscriptions/"+s.subscription, "cancel_at_period_end", "true")
				l.settle()
			}
			first := l.asks(s, earlier)
			if begun {
				restore := l.work.refuse("/v1/subscriptions/"+s.subscription, http.StatusServiceUnavailable, `{}`)
				l.work.tries(t, s, first)
				restore()
				l.ended(first, "acting")
			}
			l.exec(`UPDATE operations SET created_at = created_at - interval '10 seconds' WHERE id = $1`, first)
			second := l.asks(s, later)
			l.must(l.work.apply(t.Context(), s, second))
			l.ended(second, "done")
			l.must(l.work.apply(t.Context(), s, first))
			l.ended(first, "superseded changed_since")
			l.settle()
			l.wants("active "+ends, `SELECT status || ' ' || cancel_at_period_end FROM subscriptions WHERE stripe_subscription_id = $1`, s.subscription)
			l.agree(s.user)
		}
	}
}

// A command's request is given up before it has arrived at Stripe, and a later command is done.
// When the request lands at last, before the earlier command is looked at again or after, what was
// asked for last stands.
func TestALateRequestOfAnEarlierCommandDoesNotHaveTheLastWord(t *testing.T) {
	t.Parallel()
	for i, earlier := range []store.Action{store.ActionReactivate, store.ActionCancel} {
		for _, landsFirst := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, lands first %t", earlier, landsFirst), func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{})
				s := l.subject(1)
				later := store.ActionReactivate
				if earlier == store.ActionReactivate {
					later = store.ActionCancel
					l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(s.subscription))
					l.settle()
				}
				a := l.actor(policies{})
				first := l.asks(s, earlier)
				land := a.delay(t, "POST /v1/subscriptions/"+s.subscription)
				a.tries(t, s, first)
				l.exec(`UPDATE operations SET created_at = created_at - make_interval(secs => $1)`, 10*i) // or at once
				second := l.asks(s, later)
				l.must(l.work.apply(t.Context(), s, second))
				l.ended(second, "done")
				late := func() {
					if status := land(); status != http.StatusBadRequest {
						t.Errorf("the late request was answered %d", status)
					}
				}
				if landsFirst {
					late()
				}
				l.must(l.work.apply(t.Context(), s, first))
				if !landsFirst {
					late()
				}
				l.ended(first, "superseded changed_since")
				l.settle()
				if ends := l.endsByPeriod(s.subscription); ends != (later == store.ActionCancel) {
					t.Errorf("the last that was asked for is %s, and it ends with its period: %t", later, ends)
				}
				l.agree(s.user)
			})
		}
	}
}

// A command is outdone, and then somebody changes the same at Stripe: that is theirs, whether or
// not the command's request had arrived before the later one was done.
func TestACommandThatIsOutdoneLeavesOthersChangesAlone(t *testing.T) {
	t.Parallel()
	for _, arrived := range []bool{false, true} {
		t.Run(fmt.Sprintf("it had arrived %t", arrived), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			a := l.actor(policies{})
			first := l.asks(s, store.ActionCancel)
			if arrived {
				a.lose("POST /v1/subscriptions/")
			} else {
				a.delay(t, "POST /v1/subscriptions/")
			}
			a.tries(t, s, first)
			second := l.asks(s, store.ActionReactivate)
			l.must(l.work.apply(t.Context(), s, second))
			l.ended(second, "done")
			l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(s.subscription)) // in Stripe's portal
			_, err := l.work.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: first, CustomerID: s.customer, GaveWay: true})
			l.must(err)
			l.ended(first, "superseded changed_since")
			l.settle()
			if !l.endsByPeriod(s.subscription) {
				t.Error("what was changed in the portal was taken back")
			}
			l.agree(s.user)
		})
	}
}

// An attempt of the earlier command was given up and goes on without knowing it, from wherever it
// stands, while a later command is done. The later one has the last word, and who asked first is
// not told that theirs is done.
func TestAnAttemptThatGoesOnDoesNotHaveTheLastWord(t *testing.T) {
	t.Parallel()
	for earlier, later := range map[store.Action]store.Action{store.ActionReactivate: store.ActionCancel, store.ActionCancel: store.ActionReactivate} {
		for _, managed := range []bool{false, true} {
			if managed && earlier == store.ActionReactivate {
				continue // there is nothing to take back through a schedule that ends nothing
			}
			t.Run(fmt.Sprintf("%s, by a schedule %t", earlier, managed), func(t *testing.T) {
				t.Parallel()
				l, n := newLab(t, policies{}), 0
				l.exploreEvery(2, policies{}, func() scene {
					n++
					s := l.subject(n)
					if managed {
						l.managed(s.subscription, l.addPrice(2000))
					}
					if earlier == store.ActionReactivate {
						l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(s.subscription))
					}
					l.settle()
					first := l.asks(s, earlier)
					l.exec(`UPDATE operations SET created_at = created_at - interval '10 seconds' WHERE id = $1`, first)
					second := l.asks(s, later)
					return scene{
						first: func(ctx context.Context, a *actor) error {
							// One attempt, as of a worker that has lost its lease: what it answers goes nowhere.
							_, err := a.commands.ApplyCommand(ctx, activities.CommandInput{OperationID: first, CustomerID: s.customer})
							if failure.Of(err) == failure.Transient {
								err = nil
							}
							return err
						},
						second: func(ctx context.Context, a *actor) error { return a.apply(ctx, s, second) },
						check: func() {
							l.must(l.work.apply(t.Context(), s, first))
							l.settle()
							l.ended(second, "done")
							if got := l.text(`SELECT status FROM operations WHERE id = $1`, first); got != "done" && got != "superseded" {
								t.Errorf("the first is %s", got)
							}
							if ends := l.ends(s); ends != (later == store.ActionCancel) {
								t.Errorf("the last that was asked for is %s, told as done, and it ends: %t", later, ends)
							}
							l.agree(s.user)
						},
					}
				})
			})
		}
	}
}

// ends tells whether a subject's subscription is set to end, by itself or by its schedule.
func (l *lab) ends(s subject) bool {
	l.t.Helper()
	_, ends := l.became(s, "")
	return ends != "never"
}

// What an earlier command has asked for has landed, and its attempt was not told so. The later one
// reads Stripe, which does not show it yet: so it seems that there is nothing to do.
func TestALaterCommandIsDoneThoughWhatAnEarlierOneDidDoesNotShowYet(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(s.subscription))
	l.settle()
	first := l.asks(s, store.ActionReactivate)
	before := l.byServer(http.MethodGet, "/v1/subscriptions?customer="+s.customer+
		"&expand[0]=data.latest_invoice&expand[1]=data.customer&expand[2]=data.schedule&limit=100&status=all", nil)
	a := l.actor(policies{})
	a.lose("POST /v1/subscriptions/" + s.subscription)
	a.tries(t, s, first)
	if l.endsByPeriod(s.subscription) {
		t.Fatal("the request has not landed")
	}
	second := l.asks(s, store.ActionCancel)
	restore := l.work.answer("GET /v1/subscriptions?", http.StatusOK, before)
	l.must(l.work.apply(t.Context(), s, second))
	restore()
	l.must(l.work.apply(t.Context(), s, first))
	l.settle()
	l.ended(first, "superseded changed_since")
	l.ended(second, "done")
	if !l.endsByPeriod(s.subscription) {
		t.Error("the cancel was asked for last and is done, and the subscription renews")
	}
	l.agree(s.user)
}

// A command is found done by what another one of the same kind did, whose own request is on its
// way: it is known to come to nothing before the command is told as done, so that it cannot undo
// what is asked for after that.
func TestARequestThatIsUnderWayIsNotDoneBehindItsOwnCommand(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	a := l.actor(policies{})
	first, same := l.asks(s, store.ActionCancel), l.asks(s, store.ActionCancel)
	land := a.delay(t, "POST /v1/subscriptions/"+s.subscription)
	a.tries(t, s, first)
	l.must(l.work.apply(t.Context(), s, same))
	l.must(l.work.apply(t.Context(), s, first))
	l.wants("2", `SELECT count(*) FROM operations WHERE status = 'done' AND id IN ($1, $2)`, first, same)
	last := l.asks(s, store.ActionReactivate)
	l.must(l.work.apply(t.Context(), s, last))
	land()
	l.settle()
	if l.endsByPeriod(s.subscription) {
		t.Error("it was set to end behind the reactivation")
	}
	l.agree(s.user)
}

// Of commands that are asked for at once, the first could not be done and gave way to the second:
// that one has the last word.
func TestACommandThatGaveWayIsNotDoneAfterALaterOne(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	first, second := l.asks(s, store.ActionCancel), l.asks(s, store.ActionReactivate)
	l.must(l.work.apply(t.Context(), s, second))
	_, err := l.work.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: first, CustomerID: s.customer, GaveWay: true})
	l.must(err)
	l.ended(first, "superseded changed_since")
	l.settle()
	l.wants("active false", `SELECT status || ' ' || cancel_at_period_end FROM subscriptions WHERE stripe_subscription_id = $1`, s.subscription)
	l.agree(s.user)
}

// Commands that are asked for at once have no order: each is done, and the one that the workflow
// receives last stands.
func TestCommandsAskedForAtOnceAreAllDone(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	first, second := l.asks(s, store.ActionCancel), l.asks(s, store.ActionReactivate)
	l.must(l.work.apply(t.Context(), s, second))
	l.must(l.work.apply(t.Context(), s, first))
	l.wants("2", `SELECT count(*) FROM operations WHERE status = 'done' AND id IN ($1, $2)`, first, second)
	l.settle()
	l.wants("active true", `SELECT status || ' ' || cancel_at_period_end FROM subscriptions WHERE stripe_subscription_id = $1`, s.subscription)
	l.agree(s.user)
}

// A schedule manages the subscription. What the first command has asked the schedule for has
// landed, and its answer was lost. The later one reads Stripe, which does not show it yet, and asks
// Stripe all the same: through the schedule, since Stripe takes nothing else.
func TestALaterCommandIsDoneThroughItsScheduleThoughAnEarlierOneDoesNotShowYet(t *testing.T) {
	t.Parallel()
	for _, behind := range []int{0, 1, 100} {
		t.Run(map[int]string{0: "control", 1: "one look is behind", 100: "all looks of the attempt are"}[behind], func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			l.managed(s.subscription, l.price, l.addPrice(9900))
			l.settle()
			first := l.asks(s, store.ActionCancel)
			stale := l.byServer(http.MethodGet, "/v1/subscriptions?customer="+s.customer+
				"&expand[0]=data.latest_invoice&expand[1]=data.customer&expand[2]=data.schedule&limit=100&status=all", nil)
			a := l.actor(policies{})
			a.lose("POST /v1/subscription_schedules/")
			a.tries(t, s, first)
			second := l.asks(s, store.ActionReactivate)
			b := l.actor(policies{})
			restore := func() {}
			if behind > 0 {
				restore = b.answer("GET /v1/subscriptions?", http.StatusOK, stale)
			}
			// Its look takes the keys, looks again, and asks. Behind that Stripe shows it.
			var asking *stop
			if behind == 1 {
				asking = b.arm(t, "ask POST /v1/subscription", 1)
			}
			done := begin(func() error { return b.apply(t.Context(), s, second) })
			if asking != nil {
				reach(t, asking, done)
				t.Log(asking.at)
				restore()
				asking.release()
			}
			wait(t, done)
			restore()
			l.must(l.work.apply(t.Context(), s, first))
			l.settle()
			got := l.text(`SELECT status || ' ' || coalesce(reason, '') FROM operations WHERE id = $1`, second)
			t.Log("first", l.text(`SELECT status || ' ' || coalesce(reason, '') FROM operations WHERE id = $1`, first), "second", got)
			ends := l.text(`SELECT schedule_ends_at FROM subscriptions WHERE stripe_subscription_id = $1`, s.subscription)
			if got != "done " || ends != "" {
				t.Errorf("the reactivation, asked for last, is %q, and the subscription ends %q", got, ends)
			}
		})
	}
}

// A cancel has landed, and its answer was lost. The user takes it back, and the look at Stripe does
// not show yet that the subscription is set to end.
func TestAReactivationIsDoneThoughTheCancelBeforeItDoesNotShowYet(t *testing.T) {
	t.Parallel()
	for _, behind := range []int{0, 1, 100} {
		t.Run(map[int]string{0: "control", 1: "the looks before it asks are behind", 100: "all looks are"}[behind], func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			first := l.asks(s, store.ActionCancel)
			stale := l.byServer(http.MethodGet, "/v1/subscriptions?customer="+s.customer+
				"&expand[0]=data.latest_invoice&expand[1]=data.customer&expand[2]=data.schedule&limit=100&status=all", nil)
			a := l.actor(policies{})
			a.lose("POST /v1/subscriptions/" + s.subscription)
			a.tries(t, s, first)
			if !l.endsByPeriod(s.subscription) {
				t.Fatal("the request has not landed")
			}
			second := l.asks(s, store.ActionReactivate)
			b := l.actor(policies{})
			restore := func() {}
			if behind > 0 {
				restore = b.answer("GET /v1/subscriptions?", http.StatusOK, stale)
			}
			var asking *stop
			if behind == 1 {
				asking = b.arm(t, "ask POST /v1/subscriptions/", 1) // the first takes the key
			}
			done := begin(func() error { return b.apply(t.Context(), s, second) })
			if asking != nil {
				reach(t, asking, done)
				restore()
				asking.release()
			}
			wait(t, done)
			restore()
			l.must(l.work.apply(t.Context(), s, first))
			l.settle()
			got := l.text(`SELECT status || ' ' || coalesce(reason, '') FROM operations WHERE id = $1`, second)
			if ends := l.endsByPeriod(s.subscription); got != "done " || ends {
				t.Errorf("the reactivation, asked for last, is %q, and the subscription is set to end: %t", got, ends)
			}
			l.agree(s.user)
		})
	}
}

// A cancel at once asks the schedule that manages the subscription, under a key, and the request is
// late. What was asked for later is done.
func TestALateCancelNowThroughAScheduleDoesNotHaveTheLastWord(t *testing.T) {
	t.Parallel()
	for _, later := range []store.Action{store.ActionCancel, store.ActionReactivate} {
		t.Run(string(later), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			l.managed(s.subscription, l.price, l.addPrice(9900))
			l.settle()
			first := l.asks(s, store.ActionCancelNow)
			a := l.actor(policies{})
			land := a.delay(t, "POST /v1/subscription_schedules/")
			a.tries(t, s, first)
			second := l.asks(s, later)
			l.must(l.work.apply(t.Context(), s, second))
			_, err := l.work.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: first, CustomerID: s.customer, GaveWay: true})
			l.must(err)
			t.Log("landed", land())
			l.settle()
			ones := l.text(`SELECT status FROM operations WHERE id = $1`, first)
			two := l.text(`SELECT status FROM operations WHERE id = $1`, second)
			if status := l.text(`SELECT status FROM subscriptions WHERE stripe_subscription_id = $1`, s.subscription); status != "active" && ones != "done" {
				t.Errorf("the first is %s, the second %s, and the subscription is %s", ones, two, status)
			}
		})
	}
}

// A cancel has landed, its answer was lost, and it does not show when the user reactivates. It
// shows for a moment behind the reactivation, which is done all the same.
func TestAReactivationIsDoneThoughTheCancelShowsBehindIt(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	list := "/v1/subscriptions?customer=" + s.customer + "&expand[0]=data.latest_invoice&expand[1]=data.customer&expand[2]=data.schedule&limit=100&status=all"
	first := l.asks(s, store.ActionCancel)
	before := l.byServer(http.MethodGet, list, nil)
	a, b := l.actor(policies{}), l.actor(policies{})
	a.lose("POST /v1/subscriptions/" + s.subscription)
	a.tries(t, s, first)
	meanwhile := l.byServer(http.MethodGet, list, nil)
	second := l.asks(s, store.ActionReactivate)
	restore := b.answer("GET /v1/subscriptions?", http.StatusOK, before)
	asking := b.arm(t, "ask POST /v1/subscriptions/", 1) // the first takes the key
	done := begin(func() error { return b.apply(t.Context(), s, second) })
	reach(t, asking, done)
	restore()
	restore = b.answer("GET /v1/subscriptions?", http.StatusOK, meanwhile)
	again := b.arm(t, "ask POST /v1/subscriptions/", 0) // by the next attempt
	asking.release()
	reach(t, again, done)
	restore()
	again.release()
	wait(t, done)
	l.settle()
	l.ended(second, "done")
	if l.ends(s) {
		t.Error("the reactivation was asked for last and is done, and the subscription ends")
	}
	l.agree(s.user)
}

// The same is asked for twice: the first is not answered, the second is done. Then it is changed in
// Stripe's portal. The first is not done after that.
func TestWhatIsDoneByALaterOneIsNotDoneAgainBehindThePortal(t *testing.T) {
	t.Parallel()
	for _, begun := range []bool{false, true} {
		t.Run(map[bool]string{false: "control: not begun", true: "begun"}[begun], func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			one := l.asks(s, store.ActionCancel)
			in := activities.CommandInput{OperationID: one, CustomerID: s.customer}
			if begun {
				restore := l.work.refuse("POST /v1/subscriptions/"+s.subscription, http.StatusServiceUnavailable, `{"error":{"type":"api_error","message":"?"}}`)
				if _, err := l.work.commands.ApplyCommand(t.Context(), in); err == nil {
					t.Fatal("it was done")
				}
				restore()
			}
			l.exec(`UPDATE operations SET created_at = created_at - interval '10 seconds', acting_since = acting_since - interval '10 seconds'`)
			two := l.asks(s, store.ActionCancel)
			l.must(l.work.apply(t.Context(), s, two))
			l.ended(two, "done")
			l.post("/v1/subscriptions/"+s.subscription, "cancel_at_period_end", "false") // in the portal
			in.GaveWay = true
			_, err := l.work.commands.ApplyCommand(t.Context(), in)
			l.must(err)
			l.settle()
			if status, ends := l.became(s, one); ends != "never" {
				t.Errorf("the first is told as %s, and the subscription, which was made to go on last, ends %s", status, ends)
			}
		})
	}
}

// The first command's request is on its way, the second, which ends at once, is not answered, the
// third is done. The first ends as superseded: none of its requests may be done any more.
func TestWhatASleepingCancelNowSupersedesIsNotDoneBehindTheLast(t *testing.T) {
	t.Parallel()
	for _, between := range []bool{false, true} {
		for first, last := range map[store.Action]store.Action{store.ActionCancel: store.ActionReactivate, store.ActionReactivate: store.ActionCancel} {
			t.Run(string(first)+map[bool]string{false: ", control", true: ", cancel now between"}[between], func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{})
				s := l.subject(1)
				if first == store.ActionReactivate {
					l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(s.subscription))
					l.settle()
				}
				later := func() {
					l.exec(`UPDATE operations SET created_at = created_at - interval '10 seconds', acting_since = acting_since - interval '10 seconds'`)
				}
				a, b := l.actor(policies{}), l.actor(policies{})
				one := l.asks(s, first)
				land := a.delay(t, "POST /v1/subscriptions/"+s.subscription)
				a.tries(t, s, one)
				two := ""
				if between {
					later()
					two = l.asks(s, store.ActionCancelNow)
					restore := b.refuse("DELETE /v1/subscriptions/", http.StatusServiceUnavailable, `{"error":{"type":"api_error","message":"?"}}`)
					b.tries(t, s, two)
					restore()
					// It gives way to the first, whose turn it is.
					_, err := b.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: one, CustomerID: s.customer, GaveWay: true})
					l.must(err)
				}
				later()
				three := l.asks(s, last)
				l.must(l.work.apply(t.Context(), s, three))
				if between {
					_, err := b.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: two, CustomerID: s.customer, GaveWay: true})
					l.must(err)
				}
				t.Log("landed", land())
				l.must(l.work.apply(t.Context(), s, one))
				l.settle()
				for _, op := range []string{one, two, three} {
					if op != "" {
						t.Log(l.text(`SELECT action || ': ' || status || ' ' || coalesce(reason, '') FROM operations WHERE id = $1`, op))
					}
				}
				if status, ends := l.became(s, three); status != "done" || (ends != "never") != (last == store.ActionCancel) {
					t.Errorf("the last, %s, is told as %s, and the subscription ends %s", last, status, ends)
				}
			})
		}
	}
}

// A command's request is on its way when Stripe answers 404 for the customer once.
func TestACommandWhoseCustomerWasMissingOnceIsNotDoneBehindItsEnd(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	l.longAgo()
	one := l.asks(s, store.ActionCancel)
	in := activities.CommandInput{OperationID: one, CustomerID: s.customer}
	a := l.actor(policies{})
	land := a.delay(t, "POST /v1/subscriptions/"+s.subscription)
	if _, err := a.commands.ApplyCommand(t.Context(), in); err == nil {
		t.Fatal("it was done")
	}
	for _, path := range []string{"GET /v1/customers/", "GET /v1/subscriptions"} {
		l.work.answer(path, http.StatusNotFound, `{"error":{"type":"invalid_request_error","code":"resource_missing","param":"id","message":"No such customer: '`+s.customer+`'"}}`)
	}
	_, err := l.work.commands.ApplyCommand(t.Context(), in)
	l.must(err)
	t.Log(l.text(`SELECT status || ' ' || coalesce(reason, '') FROM operations WHERE id = $1`, one))
	t.Log("landed", land())
	l.settle()
	if status, ends := l.became(s, one); status == "superseded" && ends != "never" {
		t.Errorf("it is told as %s, and the subscription ends %s", status, ends)
	}
}

// Stripe refuses a command to an attempt whose predecessor's request is on its way: that is not
// done after the command has failed.
func TestALateRequestIsNotDoneBehindARefusal(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	op := l.asks(s, store.ActionCancel)
	a := l.actor(policies{})
	land := a.delay(t, "POST /v1/subscriptions/"+s.subscription)
	a.tries(t, s, op)
	b := l.actor(policies{})
	restore := b.refuse("POST /v1/subscriptions/"+s.subscription, http.StatusBadRequest, `{"error":{"type":"invalid_request_error","message":"Not now."}}`)
	taking := b.arm(t, "ask POST /v1/subscriptions/", 1) // the first is refused
	done := begin(func() error { return b.apply(t.Context(), s, op) })
	reach(t, taking, done)
	restore()
	taking.release()
	wait(t, done)
	if status := land(); status != http.StatusBadRequest {
		t.Errorf("the late request was answered %d", status)
	}
	if status, ends := l.became(s, op); status != "failed" || ends != "never" {
		t.Errorf("it is %s, and the subscription ends %s", status, ends)
	}
}
