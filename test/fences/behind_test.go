package fences_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// moment is what Stripe's reads show of a customer at one moment, to be shown again later by a copy
// of Stripe's that is behind.
type moment struct{ list, customer string }

func (l *lab) moment(customer string) moment {
	l.t.Helper()
	return moment{list: l.listOf(customer), customer: l.byServer(http.MethodGet, "/v1/customers/"+customer, nil)}
}

// looksBehind looks at a customer while Stripe's reads show an earlier moment, as often as such a
// look asks for, but no more often than reads; then while they show what is. It answers how often
// it looked.
func (l *lab) looksBehind(customer string, m moment, reads int) (looks int) {
	l.t.Helper()
	for {
		restore := func() {}
		if looks < reads {
			l.work.answer("GET /v1/subscriptions?", http.StatusOK, m.list)
			restore = l.work.answer("GET /v1/customers/"+customer, http.StatusOK, m.customer)
		}
		result, err := l.work.subscriptions.RecordSubscriptions(l.t.Context(), activities.RecordInput{CustomerID: customer, Reread: looks})
		restore()
		l.must(err)
		if looks++; result.RereadAfter == 0 {
			return looks
		}
	}
}

// What an event says is newer than a read that does not show it: the customer is read again, and
// the event is completed by a read that does. That goes for what ends too, of which no event tells
// what it was before.
func TestAnEventIsNotAnsweredByAReadThatIsBehind(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before func(l *lab, s subject)
		now    func(l *lab, s subject)
		sql    string
		want   string
	}{
		"a subscription is ended at once": {
			now: func(l *lab, s subject) { l.must(l.Sandbox.Stripe.CancelNow(s.subscription)) },
			sql: `SELECT status FROM subscriptions WHERE stripe_subscription_id = $1`, want: "canceled",
		},
		"a customer is deleted": {
			now: func(l *lab, s subject) { l.must(l.Sandbox.Stripe.DeleteCustomer(s.customer)) },
			sql: `SELECT deleted_in_stripe FROM stripe_customers WHERE stripe_customer_id = (SELECT stripe_customer_id FROM subscriptions WHERE stripe_subscription_id = $1)`, want: "true",
		},
		"a customer has another address": {
			now: func(l *lab, s subject) {
				l.must(l.Sandbox.Stripe.UpdateCustomer(s.customer, stripesim.CustomerSpec{Email: "new@example.com", Name: "ada1 Lovelace"}))
			},
			sql: `SELECT email FROM stripe_customers WHERE stripe_customer_id = (SELECT stripe_customer_id FROM subscriptions WHERE stripe_subscription_id = $1)`, want: "new@example.com",
		},
		"a schedule takes a subscription over": {
			now: func(l *lab, s subject) {
				l.byServer(http.MethodPost, "/v1/subscription_schedules", map[string][]string{"from_subscription": {s.subscription}})
			},
			sql: `SELECT schedule_id IS NOT NULL FROM subscriptions WHERE stripe_subscription_id = $1`, want: "true",
		},
		"a schedule ends a subscription": {
			before: func(l *lab, s subject) { l.managed(s.subscription, l.price) },
			now: func(l *lab, s subject) {
				l.post("/v1/subscription_schedules/"+l.text(`SELECT schedule_id FROM subscriptions WHERE stripe_subscription_id = $1`, s.subscription), "end_behavior", "cancel")
			},
			sql: `SELECT schedule_ends_at IS NOT NULL FROM subscriptions WHERE stripe_subscription_id = $1`, want: "true",
		},
		"a schedule lets a subscription go": {
			before: func(l *lab, s subject) { l.managed(s.subscription, l.price) },
			now: func(l *lab, s subject) {
				l.post("/v1/subscription_schedules/" + l.text(`SELECT schedule_id FROM subscriptions WHERE stripe_subscription_id = $1`, s.subscription) + "/release")
			},
			sql: `SELECT schedule_id IS NULL FROM subscriptions WHERE stripe_subscription_id = $1`, want: "true",
		},
		"a schedule is canceled with its subscription": {
			before: func(l *lab, s subject) { l.managed(s.subscription, l.price) },
			now: func(l *lab, s subject) {
				l.post("/v1/subscription_schedules/" + l.text(`SELECT schedule_id FROM subscriptions WHERE stripe_subscription_id = $1`, s.subscription) + "/cancel")
			},
			sql: `SELECT status FROM subscriptions WHERE stripe_subscription_id = $1`, want: "canceled",
		},
	} {
		// Each event of it may come alone, and last.
		for _, alone := range []bool{false, true} {
			for _, behind := range []int{0, 1} {
				t.Run(fmt.Sprintf("%s, the last event alone %t, %d reads behind", name, alone, behind), func(t *testing.T) {
					t.Parallel()
					l := newLab(t, policies{})
					s := l.subject(1)
					if c.before != nil {
						c.before(l, s)
						l.settle()
					}
					m := l.moment(s.customer)
					c.now(l, s)
					l.unpoked()
					if alone {
						l.exec(`DELETE FROM webhook_events WHERE status = 'pending' AND seq < (SELECT max(seq) FROM webhook_events WHERE entity = $1)`, "customer/"+s.customer)
					}
					if looks := l.looksBehind(s.customer, m, behind); looks != behind+1 {
						t.Errorf("it was looked at %d times (%s)", looks, l.text(`SELECT string_agg(type, ' ') FROM webhook_events WHERE entity = $1`, "customer/"+s.customer))
					}
					l.wants(c.want, c.sql, s.subscription)
					l.wants("0", `SELECT count(*) FROM webhook_events WHERE status <> 'completed' AND entity = $1`, "customer/"+s.customer)
				})
			}
		}
	}
}

// What has ended stays ended: an event that came before it, and is about what was before, holds up
// nothing.
func TestAnEventOfWhatHasEndedSinceIsAnswered(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(s.subscription))
	first := l.managed(s.subscription, l.price)
	l.post("/v1/subscription_schedules/" + first + "/release")
	l.managed(s.subscription, l.price) // another follows
	l.settle()
	l.must(l.Sandbox.Stripe.UpdateCustomer(s.customer, stripesim.CustomerSpec{Email: "new@example.com", Name: "ada1 Lovelace"}))
	l.must(l.Sandbox.Stripe.CancelNow(s.subscription))
	l.must(l.Sandbox.Stripe.DeleteCustomer(s.customer))
	l.unpoked()
	l.exec(`UPDATE webhook_events SET status = 'pending', completed_at = NULL WHERE entity = $1`, "customer/"+s.customer) // all of them come late
	if looks := l.looksBehind(s.customer, moment{}, 0); looks != 1 {
		t.Errorf("it was looked at %d times", looks)
	}
	l.wants("0", `SELECT count(*) FROM webhook_events WHERE status <> 'completed' AND entity = $1`, "customer/"+s.customer)
}

// unpaid is somebody whose grace is over, of whom Stripe says that they have not paid, and who has
// no access any more.
func (l *lab) unpaid() (s subject, m moment) {
	l.t.Helper()
	s = l.subject(1)
	l.must(l.Sandbox.Stripe.SetPayments(s.customer, false))
	l.must(l.Sandbox.Stripe.Advance(l.t.Context(), 31*day+2*time.Hour))
	l.settle()
	m = l.moment(s.customer)
	m.list = strings.Replace(m.list, `"status":"past_due"`, `"status":"unpaid"`, 1) // as accounts may have it after the last retry
	restore := l.work.answer("GET /v1/subscriptions?", http.StatusOK, m.list)
	l.must(l.work.record(l.t.Context(), s.customer))
	restore()
	l.must(l.work.publish(l.t.Context(), s.user, false))
	l.wants("unpaid false", `SELECT status || ' ' || (SELECT projection->>'subscriptionActive' FROM person_user) FROM subscriptions`)
	l.longAgo()
	return s, m
}

// longAgo has all that was changed so far have been changed long ago, as it would have been had the
// sandbox's clock not been turned.
func (l *lab) longAgo() {
	l.t.Helper()
	l.exec(`UPDATE subscriptions SET updated_at = updated_at - interval '1 day'`)
	l.exec(`ALTER TABLE audit_log DISABLE TRIGGER USER`)
	l.exec(`UPDATE audit_log SET at = at - interval '1 day'`)
	l.exec(`ALTER TABLE audit_log ENABLE TRIGGER USER`)
}

const accessNow = `SELECT status || ' ' || (SELECT projection->>'subscriptionActive' FROM person_user) FROM subscriptions`

// Who has paid keeps the access that a read has given them, though a later read is answered by a
// copy of Stripe's that is behind. What Stripe shows again and again is believed.
func TestAReadThatIsBehindTakesNoAccessFromWhoHasPaid(t *testing.T) {
	t.Parallel()
	for _, behind := range []int{0, 1, 2, 3, 4} {
		t.Run(fmt.Sprintf("%d reads behind", behind), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s, m := l.unpaid()
			l.must(l.Sandbox.Stripe.SetPayments(s.customer, true))
			l.must(l.Sandbox.Stripe.PayOpenInvoice(s.subscription))
			l.settle()
			l.wants("active true", accessNow)
			m.customer = l.moment(s.customer).customer
			l.must(l.Sandbox.Stripe.UpdateCustomer(s.customer, stripesim.CustomerSpec{Email: "ada1@example.com", Name: "ada1 L"}))
			l.unpoked()
			l.exec(`DELETE FROM webhook_events WHERE status = 'pending'`) // somebody has poked, or a boundary has passed
			history := l.text(`SELECT count(*) FROM subscription_changes`)
			looks := l.looksBehind(s.customer, m, behind)
			if behind == 4 {
				if looks != 4 {
					t.Errorf("it was looked at %d times", looks)
				}
				l.wants("unpaid false", accessNow)
				return
			}
			if looks != behind+1 {
				t.Errorf("it was looked at %d times", looks)
			}
			l.wants("active true", accessNow)
			l.wants(history, `SELECT count(*) FROM subscription_changes`)
		})
	}
}

// What turns back in truth is stored at once where an event says so, where it was longer ago, and
// where it is something else than it was.
func TestWhatHasTurnedBackIsStored(t *testing.T) {
	t.Parallel()
	ends := `SELECT cancel_at_period_end || ' ' || quantity FROM subscriptions`
	for name, c := range map[string]struct {
		then  func(l *lab, s subject)
		want  string
		looks int
	}{
		"its event has come": {func(l *lab, _ subject) { l.unpoked() }, "false 1", 1},
		"without an event":   {func(l *lab, _ subject) {}, "false 1", 4},
		"it was a minute ago": {func(l *lab, _ subject) {
			l.exec(`UPDATE subscriptions SET updated_at = updated_at - interval '1 minute'`)
			l.exec(`UPDATE webhook_events SET received_at = received_at - interval '1 minute'`)
		}, "false 1", 1},
		"to something new": {func(l *lab, s subject) {
			l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(s.subscription))
			l.must(l.Sandbox.Stripe.SetQuantity(s.subscription, 3))
		}, "true 3", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(s.subscription))
			l.settle()
			l.wants("true 1", ends)
			l.must(l.Sandbox.Stripe.Advance(t.Context(), 2*time.Second)) // events of one second are in no order
			l.must(l.Sandbox.Stripe.Reactivate(s.subscription))
			c.then(l, s)
			if looks := l.looksBehind(s.customer, moment{}, 0); looks != c.looks {
				t.Errorf("it was looked at %d times", looks)
			}
			l.wants(c.want, ends)
		})
	}
}

// A command that meets such a read stores what it decides about, and the customer is read again.
// What that shows is stored at once, though it was so a moment ago too.
func TestWhatACommandHasTurnedBackIsTurnedBackAtOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s, m := l.unpaid()
	l.must(l.Sandbox.Stripe.SetPayments(s.customer, true))
	l.must(l.Sandbox.Stripe.PayOpenInvoice(s.subscription))
	l.settle()
	l.wants("active true", accessNow)
	op := l.asks(s, store.ActionReactivate) // which finds nothing to do
	restore := l.work.answer("GET /v1/subscriptions?", http.StatusOK, m.list)
	result, err := l.work.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: op, CustomerID: s.customer})
	restore()
	l.must(err)
	if result.Record.RereadAfter == 0 {
		t.Errorf("nobody looks again: %+v", result)
	}
	result.Record, err = l.work.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: s.customer, Reread: 1})
	l.must(err)
	l.wants("active true", accessNow)
}

// The plan that somebody has moved to, and the seats that they have bought, stay as well.
func TestAReadThatIsBehindTakesNoPlanBack(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	dearer := l.addPrice(5000)
	m := l.moment(s.customer)
	l.must(l.Sandbox.Stripe.ChangePrice(s.subscription, dearer))
	l.must(l.Sandbox.Stripe.SetQuantity(s.subscription, 3))
	l.settle()
	if looks := l.looksBehind(s.customer, m, 1); looks != 2 {
		t.Errorf("it was looked at %d times", looks)
	}
	l.wants(dearer+" 3", `SELECT stripe_price_id || ' ' || quantity FROM subscriptions`)
	l.wants("0", `SELECT count(*) FROM subscription_changes WHERE quantity < 3 AND read_seq > (SELECT max(read_seq) FROM subscription_changes WHERE quantity = 3)`)
}

// A bulk sync that meets such a read leaves the customer to their own workflow.
func TestABulkSyncLeavesAReadThatIsBehindToTheWorkflow(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	m := l.moment(s.customer)
	l.must(l.Sandbox.Stripe.CancelNow(s.subscription))
	l.settle()
	l.wants("canceled", `SELECT status FROM subscriptions`)
	restore := l.work.answer("GET /v1/subscriptions?", http.StatusOK, m.list)
	result, err := l.work.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: s.customer, InBulk: true})
	restore()
	l.must(err)
	l.wants("canceled", `SELECT status FROM subscriptions`)
	if result.RereadAfter == 0 {
		t.Error("nobody looks again")
	}
	l.wants("1", `SELECT count(*) FROM pokes WHERE entity = $1 AND due_at IS NOT NULL`, "customer/"+s.customer)
}

// Whatever tells of a subscription that somebody has bought has the customer read again while
// Stripe does not show it, also alone.
func TestWhatIsBoughtIsReadAgainUntilItShows(t *testing.T) {
	t.Parallel()
	for eventType, looks := range map[string]int{
		"checkout.session.completed": 2, "customer.subscription.created": 2, "customer.subscription.updated": 2, "invoice.finalized": 2, "invoice.paid": 2,
		"payment_intent.succeeded": 1, // it names none
	} {
		t.Run(eventType, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, customer := l.signUp("ada")
			m := l.moment(customer)
			l.buy(stripesim.CheckoutSpec{CustomerID: customer, ClientReferenceID: user})
			l.unpoked()
			l.exec(`DELETE FROM webhook_events WHERE status = 'pending' AND type <> $1`, eventType)
			l.wants("true", `SELECT count(*) > 0 FROM webhook_events WHERE status = 'pending'`)
			if looked := l.looksBehind(customer, m, 1); looked != looks {
				t.Errorf("it was looked at %d times, not %d", looked, looks)
			}
			l.wants("0", `SELECT count(*) FROM webhook_events WHERE status <> 'completed' AND entity = $1`, "customer/"+customer)
		})
	}
}

// What an event's name alone says is waited for too: that a subscription is paused, goes on, or is
// paid for the first time.
func TestWhatAnEventsNameSaysIsReadAgainUntilItShows(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		eventType, object string
		shown             account.Status
		looks             int
	}{
		"paused":                 {"customer.subscription.paused", `"object":"subscription","id":"%s","status":"paused"`, account.StatusTrialing, 2},
		"paused, resumed since":  {"customer.subscription.paused", `"object":"subscription","id":"%s","status":"paused"`, account.StatusActive, 1},
		"resumed":                {"customer.subscription.resumed", `"object":"subscription","id":"%s","status":"active"`, account.StatusPaused, 2},
		"paid":                   {"invoice.paid", `"object":"invoice","id":"in_1","subscription":"%s","status":"paid"`, account.StatusIncomplete, 2},
		"one of several is paid": {"invoice.paid", `"object":"invoice","id":"in_1","subscription":"%s","status":"paid"`, account.StatusPastDue, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			m := l.moment(s.customer)
			m.list = strings.Replace(m.list, `"status":"active"`, `"status":"`+string(c.shown)+`"`, 1)
			payload := fmt.Sprintf(`{"id":"evt_1","object":"event","type":%q,"created":%d,"data":{"object":{"customer":%q,`+c.object+`}}}`, c.eventType, time.Now().Unix(), s.customer, s.subscription)
			_, err := l.Store.AddEvents(t.Context(), []store.NewEvent{{Source: "stripe", EventID: "evt_1", Type: c.eventType, Entity: account.CustomerEntity(s.customer),
				Job: account.JobSync, ReceivedAt: time.Now(), Payload: payload}}, 0)
			l.must(err)
			restore := l.work.answer("GET /v1/subscriptions?", http.StatusOK, m.list)
			l.must(l.work.record(t.Context(), s.customer)) // as it has been for long
			restore()
			l.exec(`UPDATE subscriptions SET updated_at = updated_at - interval '1 minute'`)
			l.exec(`UPDATE webhook_events SET received_at = received_at - interval '1 minute'`)
			l.exec(`UPDATE webhook_events SET status = 'pending', completed_at = NULL, received_at = now() WHERE event_id = 'evt_1'`)
			if looks := l.looksBehind(s.customer, m, 1); looks != c.looks {
				t.Errorf("it was looked at %d times, not %d", looks, c.looks)
			}
		})
	}
}

// Somebody pays at a checkout. Stripe makes the subscription incomplete and, a moment later,
// active. The first look shows that and gives access; the next one is answered by a copy that is a
// moment behind. What was paid for once does not wait for its first payment.
func TestWhoHasJustBoughtKeepsAccessThoughAReadIsBehind(t *testing.T) {
	t.Parallel()
	for _, last := range []string{"checkout.session.completed", "payment_intent.succeeded", "customer.updated", "invoice.paid", "customer.subscription.updated", "nothing, somebody syncs"} {
		t.Run(last, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, customer := l.signUp("ada")
			l.buy(stripesim.CheckoutSpec{CustomerID: customer, ClientReferenceID: user})
			l.must(l.Sandbox.Stripe.UpdateCustomer(customer, stripesim.CustomerSpec{Email: "ada@example.com", Name: "ada Lovelace", Metadata: map[string]string{"clerk_user_id": user, "seen": "1"}}))
			shown := l.listOf(customer)
			before := strings.Replace(shown, `"status":"active"`, `"status":"incomplete"`, 1)
			if before == shown {
				t.Fatal("no status in " + shown)
			}
			l.unpoked()
			l.exec(`UPDATE webhook_events SET status = 'ignored', completed_at = now() WHERE type = $1 AND status = 'pending'`, last) // is still to come
			l.must(l.work.lookAtCustomer(t.Context(), customer))
			l.wants("active true", accessNow)
			l.exec(`UPDATE webhook_events SET status = 'pending', completed_at = NULL, received_at = now() WHERE type = $1 AND status = 'ignored'`, last)
			restore := l.work.answer("GET /v1/subscriptions?", http.StatusOK, before)
			result, err := l.work.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: customer})
			restore()
			l.must(err)
			for n := 1; result.RereadAfter > 0; n++ {
				result, err = l.work.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: customer, Reread: n})
				l.must(err)
			}
			l.settle()
			l.wants("active true", accessNow)
		})
	}
}

// change is one that a second one takes back. sql answers what it changes, stored and projected.
type change struct {
	first, second func(l *lab, s subject) error
	sql           string
}

func takenBack() map[string]change {
	return map[string]change{
		"an end is set and taken back": {
			func(l *lab, s subject) error { return l.Sandbox.Stripe.CancelAtPeriodEnd(s.subscription) },
			func(l *lab, s subject) error { return l.Sandbox.Stripe.Reactivate(s.subscription) },
			`SELECT cancel_at_period_end::text || ' ' || (SELECT projection->>'cancelAtPeriodEnd' FROM person_user) FROM subscriptions`,
		},
		"collection is paused and resumed": {
			func(l *lab, s subject) error { return l.Sandbox.Stripe.PauseCollection(s.subscription) },
			func(l *lab, s subject) error { return l.Sandbox.Stripe.ResumeCollection(s.subscription) },
			`SELECT collection_paused::text || ' ' || (SELECT projection->>'subscriptionActive' FROM person_user) FROM subscriptions`,
		},
		"more seats, and fewer again": {
			func(l *lab, s subject) error { return l.Sandbox.Stripe.SetQuantity(s.subscription, 50) },
			func(l *lab, s subject) error { return l.Sandbox.Stripe.SetQuantity(s.subscription, 1) },
			`SELECT quantity::text FROM subscriptions`,
		},
	}
}

// Two changes that take each other back are answered by one look, which shows the second: the row
// does not change. The next look is answered by a copy that is behind the second.
func TestWhatCameAndWentBetweenTwoLooksDoesNotComeBack(t *testing.T) {
	t.Parallel()
	for name, c := range takenBack() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			l.longAgo()
			want := l.text(c.sql)
			l.must(c.first(l, s))
			m := l.moment(s.customer)
			l.must(l.Sandbox.Stripe.Advance(t.Context(), 2*time.Second))
			l.must(c.second(l, s))
			l.settle() // both events are answered by one look
			l.wants(want, c.sql)
			if looks := l.looksBehind(s.customer, m, 1); looks != 2 {
				t.Errorf("it was looked at %d times", looks)
			}
			l.settle()
			l.wants(want, c.sql)
		})
	}
}

// A subscription was ended at once. Somebody asks for its end with the period a moment later, and
// the look of that command is answered by a copy that is behind. What has ended has ended.
func TestACommandBehindAReadThatShowsWhatHasEndedGivesNoAccess(t *testing.T) {
	t.Parallel()
	for _, action := range []store.Action{store.ActionCancel, store.ActionCancelNow, store.ActionReactivate} {
		t.Run(string(action), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			if action == store.ActionReactivate {
				l.must(l.Sandbox.Stripe.CancelAtPeriodEnd(s.subscription))
				l.settle()
			}
			l.longAgo()
			m := l.moment(s.customer)
			l.must(l.Sandbox.Stripe.CancelNow(s.subscription))
			l.settle()
			l.wants("canceled false", accessNow)
			op := l.asks(s, action)
			restore := l.work.answer("GET /v1/subscriptions?", http.StatusOK, m.list)
			var result activities.CommandResult
			err := again(func() (err error) {
				result, err = l.work.commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: op, CustomerID: s.customer})
				return err
			})
			restore()
			l.must(err)
			for n := 1; result.Record.RereadAfter > 0; n++ { // as the workflow does
				result.Record, err = l.work.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: s.customer, Reread: n})
				l.must(err)
			}
			l.settle()
			l.wants("canceled false", accessNow)
		})
	}
}

// Of two changes that take each other back the second's event is delivered, and answered, first. The
// first's comes behind it, and its read is answered by a copy that is behind the second change: what
// the later event has told counts. Where both were made in one second, the customer is read again.
func TestAnEventThatIsDeliveredLateVouchesForNoReadBehindALaterOne(t *testing.T) {
	t.Parallel()
	for name, c := range takenBack() {
		for _, apart := range []time.Duration{0, 2 * time.Second} {
			t.Run(fmt.Sprintf("%s, %s apart", name, apart), func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{})
				s := l.subject(1)
				l.longAgo()
				want := l.text(c.sql)
				l.must(c.first(l, s))
				m := l.moment(s.customer)
				l.unpoked()
				l.exec(`UPDATE webhook_events SET status = 'ignored', completed_at = now() WHERE status = 'pending'`) // on its way
				l.must(l.Sandbox.Stripe.Advance(t.Context(), apart))
				l.must(c.second(l, s))
				l.settle()
				l.wants(want, c.sql)
				l.exec(`UPDATE webhook_events SET status = 'pending', completed_at = NULL, received_at = now() WHERE status = 'ignored'`)
				l.looksBehind(s.customer, m, 1)
				l.settle()
				l.wants(want, c.sql)
				l.wants("0", `SELECT count(*) FROM webhook_events WHERE status <> 'completed'`)
			})
		}
	}
}

// Two changes of one second that take each other back are delivered the other way round, as events of
// one second may be, and taken together: nobody knows their order. A look that is behind the second
// concludes nothing.
func TestEventsOfOneSecondVouchForNoReadThatIsBehind(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	l.longAgo()
	l.must(l.Sandbox.Stripe.PauseCollection(s.subscription))
	m := l.moment(s.customer)
	l.must(l.Sandbox.Stripe.ResumeCollection(s.subscription))
	l.must(l.Sandbox.Stripe.Settled(t.Context()))
	held := l.Sandbox.StripeWebhooks.TakeHeld()
	if len(held) != 2 {
		t.Fatalf("there are %d events", len(held))
	}
	for _, i := range []int{1, 0} {
		l.Sandbox.StripeWebhooks.Send(held[i])
		l.take()
	}
	// Both are of one second, whatever the clock showed.
	l.exec(`UPDATE webhook_events SET payload = jsonb_set(payload::jsonb, '{created}', '1700000000') WHERE status = 'pending'`)
	l.looksBehind(s.customer, m, 1)
	l.settle()
	l.wants("false", `SELECT collection_paused FROM subscriptions`)
}
