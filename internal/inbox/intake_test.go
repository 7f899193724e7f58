package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/clerkevent"
	"github.com/nepfy/clerk-stripe-sync/internal/inbox"
	"github.com/nepfy/clerk-stripe-sync/internal/intake"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeevent"
)

// recording keeps the last event that it was to store.
type recording struct {
	last  store.NewEvent
	known bool
	// unchanged is set where what is stored says already what the event tells.
	unchanged bool
	err       error
}

// AddEvents implements inbox.Adder.
func (r *recording) AddEvents(_ context.Context, events []store.NewEvent, _ time.Duration) ([]store.Added, error) {
	r.last = events[len(events)-1]
	switch {
	case r.known:
		return []store.Added{store.AddedBefore}, r.err
	case r.unchanged || r.last.Ignore != "":
		return []store.Added{store.AddedDone}, r.err
	default:
		return []store.Added{store.AddedDue}, r.err
	}
}

// open is an Intake of test mode, over a writer that stores into a recording.
func open(t *testing.T, identity store.Identity) (*inbox.Intake, *recording) {
	t.Helper()
	db := &recording{}
	w := inbox.NewWriter(inbox.WriterOptions{Adder: db})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return &inbox.Intake{Writer: w, Logger: silent(),
		Identity: inbox.NewIdentity(func(context.Context) (store.Identity, error) { return identity, nil })}, db
}

func bound() store.Identity {
	return store.Identity{StripeAccountID: "acct_1", ClerkInstanceID: "ins_1"}
}

// decision is what an intake decides about a delivery.
type decision struct {
	entity account.Entity
	job    account.Job
	ignore string
}

func decide(t *testing.T, identity store.Identity, source, body string) (decision, store.NewEvent) {
	t.Helper()
	in, db := open(t, identity)
	received := time.Unix(1_700_000_000, 0)
	outcome, err := in.Accept(t.Context(), inbox.Delivery{Source: source, EventID: "id_1", Body: body, ReceivedAt: received})
	if err != nil {
		t.Fatal(err)
	}
	e := db.last
	if e.Source != source || e.EventID != "id_1" || !e.ReceivedAt.Equal(received) {
		t.Errorf("stored as %+v", e)
	}
	if ignored := e.Ignore != ""; ignored != (outcome == inbox.Ignored) || ignored != (e.Payload == "") || ignored != (e.Entity == "") {
		t.Errorf("%s: outcome %s, %d bytes kept, entity %q, ignored %q", body, outcome, len(e.Payload), e.Entity, e.Ignore)
	}
	d := decision{e.Entity, e.Job, e.Ignore}
	if e.Ignore != "" {
		d.job = 0
	} else if e.Payload != body {
		t.Errorf("kept %s of %s", e.Payload, body)
	}
	return d, e
}

func stripeBody(eventType, object string) string {
	return fmt.Sprintf(`{"id":"evt_1","object":"event","type":%q,"livemode":false,"created":1700000000,"data":{"object":%s}}`, eventType, object)
}

// handledByStripe are the types that the product promises to handle, with the least object that
// names whom they concern.
func handledByStripe() map[string][]string {
	return map[string][]string{
		`{"object":"subscription","id":"sub_1","customer":"cus_1"}`: {
			"customer.subscription.created", "customer.subscription.updated", "customer.subscription.deleted", "customer.subscription.paused",
			"customer.subscription.resumed", "customer.subscription.pending_update_applied", "customer.subscription.pending_update_expired",
			"customer.subscription.trial_will_end", "customer.subscription.invented_later",
		},
		`{"object":"checkout.session","id":"cs_1","customer":"cus_1"}`: {
			"checkout.session.completed", "checkout.session.async_payment_succeeded", "checkout.session.async_payment_failed", "checkout.session.expired",
		},
		`{"object":"invoice","id":"in_1","customer":{"id":"cus_1","object":"customer"}}`: {
			"invoice.paid", "invoice.payment_succeeded", "invoice.payment_failed", "invoice.payment_action_required",
			"invoice.finalized", "invoice.voided", "invoice.marked_uncollectible",
		},
		`{"object":"payment_intent","id":"pi_1","customer":"cus_1"}`: {"payment_intent.succeeded", "payment_intent.payment_failed", "payment_intent.canceled"},
		`{"object":"customer","id":"cus_1"}`:                         {"customer.created", "customer.updated", "customer.deleted"},
		`{"object":"subscription_schedule","id":"sub_sched_1","customer":"cus_1"}`: {
			"subscription_schedule.aborted", "subscription_schedule.canceled", "subscription_schedule.completed", "subscription_schedule.created",
			"subscription_schedule.expiring", "subscription_schedule.released", "subscription_schedule.updated",
		},
		`{"object":"charge","id":"ch_1","customer":"cus_1"}`: {"charge.refunded"},
		`{"object":"dispute","id":"dp_1","charge":"ch_1"}`: {
			"charge.dispute.created", "charge.dispute.updated", "charge.dispute.closed", "charge.dispute.funds_reinstated", "charge.dispute.funds_withdrawn",
		},
		`{"object":"refund","id":"re_1","charge":"ch_1"}`:      {"charge.refund.updated", "refund.created", "refund.updated", "refund.failed"},
		`{"object":"price","id":"price_1","product":"prod_1"}`: {"price.created", "price.updated", "price.deleted"},
		`{"object":"product","id":"prod_1"}`:                   {"product.created", "product.updated", "product.deleted"},
	}
}

// Every promised type of Stripe's goes to whom it concerns.
func TestIntakeStripe(t *testing.T) {
	t.Parallel()
	types := map[string]bool{}
	for object, eventTypes := range handledByStripe() {
		want := decision{"customer/cus_1", account.JobSync, ""}
		switch {
		case strings.Contains(object, "ch_1") && !strings.Contains(object, "cus_1"):
			want.entity = "charge/ch_1"
		case strings.Contains(object, "prod_1"):
			want.entity = "product/prod_1"
		}
		for _, eventType := range eventTypes {
			types[eventType] = true
			if got, e := decide(t, bound(), intake.SourceStripe, stripeBody(eventType, object)); got != want || e.Type != eventType {
				t.Errorf("%s: %+v, want %+v", eventType, got, want)
			}
		}
	}
	for _, eventType := range stripeevent.HandledTypes() {
		if !types[eventType] {
			t.Errorf("%s is handled and not tested", eventType)
		}
	}
}

// What is none of our business is kept as ignored, with its reason and without its payload.
func TestIntakeIgnores(t *testing.T) {
	t.Parallel()
	subscription := `{"object":"subscription","id":"sub_1","customer":"cus_1"}`
	with := func(field string) string {
		return strings.Replace(stripeBody("customer.subscription.updated", subscription), `"livemode":false`, field, 1)
	}
	ignored := func(reason string) decision { return decision{ignore: reason} }
	customer := decision{"customer/cus_1", account.JobSync, ""}
	for _, c := range []struct {
		name, source, body string
		want               decision
	}{
		{"unknown type", "stripe", stripeBody("balance.available", `{"object":"balance","customer":"cus_1"}`), ignored(intake.IgnoredType)},
		{"type of a neighbour", "stripe", stripeBody("customer.source.updated", `{"object":"card","customer":"cus_1"}`), ignored(intake.IgnoredType)},
		{"invoice that is no payment", "stripe", stripeBody("invoice.created", `{"object":"invoice","customer":"cus_1"}`), ignored(intake.IgnoredType)},
		{"live mode", "stripe", with(`"livemode":true`), ignored(intake.IgnoredMode)},
		{"unknown type of the other mode", "stripe", strings.Replace(stripeBody("balance.available", `{}`), `"livemode":false`, `"livemode":true`, 1), ignored(intake.IgnoredType)},
		{"connected account", "stripe", with(`"livemode":false,"account":"acct_2"`), ignored(intake.IgnoredAccount)},
		{"our own account, named", "stripe", with(`"livemode":false,"account":"acct_1"`), customer},
		{"guest checkout", "stripe", stripeBody("checkout.session.completed", `{"object":"checkout.session","id":"cs_1","customer":null}`), ignored(intake.IgnoredNoCustomer)},
		{"customer id of another form", "stripe", stripeBody("customer.subscription.updated", `{"object":"subscription","customer":"../users"}`), ignored(intake.IgnoredNoCustomer)},
		{"dispute without a charge", "stripe", stripeBody("charge.dispute.created", `{"object":"dispute","id":"dp_1"}`), ignored(intake.IgnoredNoCustomer)},
		{"price without a product", "stripe", stripeBody("price.created", `{"object":"price","id":"price_1"}`), ignored(intake.IgnoredNoCustomer)},
		{"no object", "stripe", stripeBody("customer.updated", `null`), ignored(intake.IgnoredNoCustomer)},
		{"no event", "stripe", `{"hello":"world"}`, ignored(intake.IgnoredMalformed)},
		{"empty object", "stripe", `{}`, ignored(intake.IgnoredMalformed)},

		{"created", "clerk", `{"type":"user.created","instance_id":"ins_1","data":{"id":"user_1"}}`, decision{"user/user_1", account.JobOnboard, ""}},
		{"updated", "clerk", `{"type":"user.updated","instance_id":"ins_1","data":{"id":"user_1"}}`, decision{"user/user_1", account.JobSync, ""}},
		{"deleted", "clerk", `{"type":"user.deleted","instance_id":"ins_1","data":{"id":"user_1","deleted":true}}`, decision{"user/user_1", account.JobOffboard, ""}},
		{"no instance named", "clerk", `{"type":"user.updated","data":{"id":"user_1"}}`, decision{"user/user_1", account.JobSync, ""}},
		{"other instance", "clerk", `{"type":"user.deleted","instance_id":"ins_2","data":{"id":"user_1"}}`, ignored(intake.IgnoredInstance)},
		{"unknown type of Clerk's", "clerk", `{"type":"session.created","instance_id":"ins_1","data":{"id":"sess_1","user_id":"user_1"}}`, ignored(intake.IgnoredType)},
		{"no user id", "clerk", `{"type":"user.updated","instance_id":"ins_1","data":{}}`, ignored(intake.IgnoredNoUser)},
		{"user id of another form", "clerk", `{"type":"user.deleted","instance_id":"ins_1","data":{"id":"user_1/metadata"}}`, ignored(intake.IgnoredNoUser)},
		{"no event of Clerk's", "clerk", `{"data":{"id":"user_1"}}`, ignored(intake.IgnoredMalformed)},
	} {
		if got, _ := decide(t, bound(), c.source, c.body); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	if n := len(clerkevent.HandledTypes()); n != 3 {
		t.Errorf("%d types of Clerk's are handled, 3 are tested", n)
	}
}

// A database that belongs to nobody yet takes what is signed with our secrets.
func TestIntakeBeforeIdentity(t *testing.T) {
	t.Parallel()
	if got, _ := decide(t, store.Identity{}, "clerk", `{"type":"user.created","instance_id":"ins_2","data":{"id":"user_1"}}`); got.ignore != "" {
		t.Errorf("ignored: %s", got.ignore)
	}
}

// Live events belong to a live key.
func TestIntakeLivemode(t *testing.T) {
	t.Parallel()
	in, db := open(t, bound())
	in.Livemode = true
	for livemode, want := range map[string]string{"true": "", "false": intake.IgnoredMode} {
		body := strings.Replace(stripeBody("customer.updated", `{"object":"customer","id":"cus_1"}`), `"livemode":false`, `"livemode":`+livemode, 1)
		if _, err := in.Accept(t.Context(), inbox.Delivery{Source: "stripe", EventID: "evt_1", Body: body}); err != nil || db.last.Ignore != want {
			t.Errorf("livemode %s: %q, %v, want %q", livemode, db.last.Ignore, err, want)
		}
	}
}

// The evidence in an event is stored with it; that of one that is ignored is not.
func TestIntakeClaims(t *testing.T) {
	t.Parallel()
	object := `{"object":"checkout.session","id":"cs_1","customer":"cus_1","client_reference_id":"user_1","metadata":{"clerk_user_id":"user_2"}}`
	_, e := decide(t, bound(), "stripe", stripeBody("checkout.session.completed", object))
	want := []account.Claim{
		{CustomerID: "cus_1", ClerkUserID: "user_2", Source: "checkout_metadata:cs_1"},
		{CustomerID: "cus_1", ClerkUserID: "user_1", Source: "reference:cs_1"},
	}
	if !reflect.DeepEqual(e.Claims, want) {
		t.Errorf("claims %+v, want %+v", e.Claims, want)
	}
	if _, e := decide(t, bound(), "stripe", strings.Replace(stripeBody("checkout.session.completed", object), `"livemode":false`, `"livemode":true`, 1)); len(e.Claims) != 0 {
		t.Errorf("an ignored event has claims %+v", e.Claims)
	}
}

// What somebody waits for is urgent: a first checkout, a new user, one who wants to be forgotten.
// What comes in waves is not. What Clerk tells of a change shows the user; what else it tells shows
// nobody.
func TestIntakeUrgent(t *testing.T) {
	t.Parallel()
	for eventType, want := range map[string]bool{
		"checkout.session.completed": true, "checkout.session.async_payment_succeeded": true, "customer.subscription.created": true,
		"checkout.session.expired": false, "customer.subscription.updated": false, "invoice.paid": false, "customer.updated": false,
	} {
		if _, e := decide(t, bound(), intake.SourceStripe, stripeBody(eventType, `{"object":"subscription","id":"sub_1","customer":"cus_1"}`)); e.Urgent != want {
			t.Errorf("%s is urgent: %t", eventType, e.Urgent)
		}
	}
	for eventType, want := range map[string][2]bool{"user.created": {true, false}, "user.deleted": {true, false}, "user.updated": {false, true}} {
		_, e := decide(t, bound(), intake.SourceClerk, fmt.Sprintf(`{"type":%q,"instance_id":"ins_1","data":{"id":"user_1"}}`, eventType))
		if e.Urgent != want[0] || (e.Shows != nil) != want[1] {
			t.Errorf("%s is urgent: %t, and shows %v", eventType, e.Urgent, e.Shows)
		}
	}
}

// What became of a delivery is told, and a failure to store it is the caller's to answer.
func TestIntakeOutcomes(t *testing.T) {
	t.Parallel()
	in, db := open(t, bound())
	var told []string
	in.Observe = func(source, eventType string, outcome inbox.Outcome) {
		told = append(told, fmt.Sprint(source, " ", eventType, " ", outcome))
	}
	accept := func(eventType string) (inbox.Outcome, error) {
		return in.Accept(t.Context(), inbox.Delivery{Source: "stripe", EventID: "evt_1", Body: stripeBody(eventType, `{"object":"customer","id":"cus_1"}`)})
	}
	for _, c := range []struct {
		eventType string
		known     bool
		want      inbox.Outcome
	}{{"customer.updated", false, inbox.Stored}, {"customer.updated", true, inbox.Known}, {"balance.available", false, inbox.Ignored}, {"balance.available", true, inbox.Known}} {
		db.known = c.known
		if got, err := accept(c.eventType); got != c.want || err != nil {
			t.Errorf("%s, known %t: %s, %v, want %s", c.eventType, c.known, got, err, c.want)
		}
	}
	db.unchanged, db.known = true, false
	if got, err := accept("customer.updated"); got != inbox.Unchanged || err != nil {
		t.Errorf("what tells nothing new: %s, %v", got, err)
	}
	db.err = errors.New("unavailable")
	if got, err := accept("customer.updated"); err == nil || got != "" {
		t.Errorf("what is not stored was answered %q", got)
	}
	if want := "[stripe customer.updated stored stripe customer.updated known stripe balance.available ignored stripe balance.available known stripe customer.updated unchanged]"; fmt.Sprint(told) != want {
		t.Errorf("told %v, want %s", told, want)
	}
}
