package activities_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// partial is a Stripe that does not show everything of a customer.
type partial struct {
	*stoppable
	class failure.Class
	// owes is the subscription whose invoices it does not list; hidden is one that it neither lists
	// nor shows by itself. It lists no schedules if unscheduled is set.
	owes, hidden string
	unscheduled  bool
}

func (p partial) CustomerSubscriptions(ctx context.Context, id string) ([]account.Subscription, *account.Customer, error) {
	list, customer, err := p.stoppable.CustomerSubscriptions(ctx, id)
	return slices.DeleteFunc(list, func(s account.Subscription) bool { return s.ID == p.hidden }), customer, err
}

func (p partial) Subscription(ctx context.Context, id string) (account.Subscription, error) {
	if id == p.hidden {
		return account.Subscription{}, failure.New(p.class, "stripe", "read subscription", "http_500", nil)
	}
	return p.stoppable.Subscription(ctx, id)
}

func (p partial) OpenInvoices(ctx context.Context, id string) ([]account.Payment, error) {
	if id == p.owes {
		return nil, failure.New(p.class, "stripe", "list open invoices", "http_500", nil)
	}
	return p.stoppable.OpenInvoices(ctx, id)
}

func (p partial) CustomerSchedules(ctx context.Context, id string) ([]account.Schedule, error) {
	if p.unscheduled {
		return nil, failure.New(p.class, "stripe", "list subscription schedules", "http_403", nil)
	}
	return p.stoppable.CustomerSchedules(ctx, id)
}

// Something of one subscription cannot be read. What the customer has bought since is recorded all
// the same, and gives access. The one keeps the row that it had, no event is completed, and the
// failure is answered until all of it can be read.
func TestWhatCannotBeReadOfOneSubscriptionHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	due := time.Now().Add(-time.Hour).Truncate(time.Second)
	for name, c := range map[string]struct {
		before account.Status // of the one before, "" where it has no row
		hidden bool
		kept   []string
	}{
		"its invoices, and it has no row":   {},
		"its invoices, and it was active":   {before: account.StatusActive, kept: []string{"active"}},
		"itself, and it was active":         {before: account.StatusActive, hidden: true, kept: []string{"active"}},
		"itself, and it was in trial":       {before: account.StatusTrialing, hidden: true, kept: []string{"trialing"}},
		"its invoices, and it was in trial": {before: account.StatusTrialing, kept: []string{"trialing"}},
	} {
		for _, class := range []failure.Class{failure.Transient, failure.Throttled, failure.Operator, failure.Permanent} {
			t.Run(name+", "+string(class), func(t *testing.T) {
				t.Parallel()
				b := newBench(t, account.DeleteKeep)
				b.subscriptions.Policy.Access = account.AccessPolicy{PastDueGrace: 72 * time.Hour}
				if c.before != "" {
					b.stripe.put(subscription("sub_owes", "cus_1", c.before))
				}
				b.person("cus_1")
				owes := subscription("sub_owes", "cus_1", account.StatusPastDue)
				owes.LatestInvoiceCreated = due.Add(-31 * 24 * time.Hour)
				b.stripe.put(owes)
				b.stripe.put(subscription("sub_new", "cus_1", account.StatusActive))
				b.stripe.invoices = map[string][]account.Payment{"sub_owes": {{ID: "in_1", Kind: account.PaymentInvoice, CustomerID: "cus_1", SubscriptionID: "sub_owes",
					InvoiceID: "in_1", Status: "open", Amount: 2000, Currency: "usd", Created: owes.LatestInvoiceCreated, DueAt: due, FinalizedAt: owes.LatestInvoiceCreated}}}
				b.deliver("customer/cus_1", "customer.subscription.updated")
				stripe := partial{stoppable: b.stripe, class: class, owes: "sub_owes"}
				if c.hidden {
					stripe.owes, stripe.hidden = "", "sub_owes"
				}
				b.subscriptions.Stripe = stripe
				for range 2 {
					b.recordsInPart(class)
				}
				b.is([]string{"active"}, `SELECT status FROM subscriptions WHERE stripe_subscription_id = 'sub_new'`)
				b.is(c.kept, `SELECT status FROM subscriptions WHERE stripe_subscription_id = 'sub_owes'`)
				b.is([]string{"true"}, `SELECT projection ->> 'subscriptionActive' FROM person_user`)
				left := "pending"
				if class == failure.Operator || class == failure.Permanent {
					left = "failing"
				}
				b.is([]string{left}, `SELECT status FROM webhook_events`)

				b.subscriptions.Stripe = b.stripe
				b.record("cus_1")
				b.is([]string{"past_due " + due.UTC().Format(time.DateTime)}, `SELECT status || ' ' || to_char(past_due_since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')
					FROM subscriptions WHERE stripe_subscription_id = 'sub_owes'`)
				b.is([]string{"completed"}, `SELECT status FROM webhook_events`)
			})
		}
	}
}

// A command is done beside a subscription of which something cannot be read. One about that very
// subscription is not decided, least of all as one about something that is not there.
func TestACommandIsDoneBesideWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	for name, hide := range map[string]func(*partial){
		"its invoices": func(p *partial) { p.owes = "sub_1" },
		"itself":       func(p *partial) { p.hidden = "sub_1" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, account.DeleteKeep)
			b.stripe.put(subscription("sub_1", "cus_1", account.StatusActive))
			b.stripe.put(subscription("sub_2", "cus_1", account.StatusActive))
			b.person("cus_1")
			b.stripe.put(subscription("sub_1", "cus_1", account.StatusPastDue))
			stripe := partial{stoppable: b.stripe, class: failure.Transient}
			hide(&stripe)
			b.subscriptions.Stripe = stripe
			commands := &activities.Commands{Subscriptions: b.subscriptions}
			for _, c := range []struct {
				subscription, op string
				recorded         bool
			}{{"sub_1", "op_aaaaaaaaaaaaaaaaaaaaaaaa", false}, {"sub_2", "op_bbbbbbbbbbbbbbbbbbbbbbbb", true}} {
				op, _, err := b.store.BeginOperation(t.Context(), store.NewOperation{ID: c.op, RequestHash: []byte(c.op), Caller: ada, Lifetime: time.Hour,
					Action: store.ActionCancel, ClerkUserID: ada, Entity: "customer/cus_1", SubscriptionID: c.subscription})
				if err != nil {
					t.Fatal(err)
				}
				result, err := commands.ApplyCommand(t.Context(), activities.CommandInput{OperationID: op.ID, CustomerID: "cus_1"})
				if result.Recorded != c.recorded || (failure.Of(err) == failure.Transient) == c.recorded {
					t.Errorf("the command about %s: %+v, %v", c.subscription, result, err)
				}
				if c.recorded && result.Record.RereadAfter == 0 {
					t.Error("nobody reads again what could not be read")
				}
			}
			if want := []string{"at period end sub_2"}; !slices.Equal(b.stripe.calls, want) {
				t.Errorf("Stripe was asked for %v, want %v", b.stripe.calls, want)
			}
			b.is([]string{"accepted", "recorded"}, `SELECT status FROM operations ORDER BY id`)
		})
	}
}

// recordsInPart holds that a look ends with a failure of this class, which is its result where no
// attempt can mend it: when to come back to what could not be read is for its workflow to say then.
func (b *bench) recordsInPart(class failure.Class) {
	b.t.Helper()
	result, err := b.subscriptions.RecordSubscriptions(b.t.Context(), activities.RecordInput{CustomerID: "cus_1"})
	if met := cmp.Or(failure.Of(err), failure.Class(result.InPart)); met != class || (err == nil) != (class == failure.Permanent) || err == nil && result.RereadAfter != 0 {
		b.t.Errorf("the read ended with %+v, %v", result, err)
	}
}

// Whatever of a deleted user's customer cannot be read, a checkout that completes late is stopped,
// and nobody is erased meanwhile.
func TestALateCheckoutIsStoppedThoughNotAllCanBeRead(t *testing.T) {
	t.Parallel()
	for name, hide := range map[string]func(*partial){
		"its schedules":          func(p *partial) { p.unscheduled = true },
		"another subscription":   func(p *partial) { p.hidden = "sub_1" },
		"what another one owes":  func(p *partial) { p.owes = "sub_1" },
		"what the late one owes": func(p *partial) { p.owes = "sub_late" },
	} {
		for _, class := range []failure.Class{failure.Transient, failure.Operator, failure.Permanent} {
			t.Run(name+", "+string(class), func(t *testing.T) {
				t.Parallel()
				b := newBench(t, account.DeleteCancelAtPeriodEnd)
				b.stripe.put(subscription("sub_1", "cus_1", account.StatusActive))
				b.person("cus_1")
				b.rows(`UPDATE person_user SET deletion_requested_at = now(), deletion_seq = nextval('sync_seq') RETURNING ''`)
				stripe := partial{stoppable: b.stripe, class: class}
				hide(&stripe)
				b.stripe.put(subscription("sub_late", "cus_1", account.StatusActive))
				if stripe.owes != "" {
					b.stripe.put(subscription(stripe.owes, "cus_1", account.StatusPastDue))
				}
				b.subscriptions.Stripe = stripe
				rounds := 2
				if stripe.owes != "" {
					rounds = 1 // it is ended, and owes nothing that anybody asks for
				}
				for range rounds {
					b.recordsInPart(class)
					if result, err := b.users.EraseUser(t.Context(), activities.UserInput{ClerkUserID: ada}); err != nil || result.Erased {
						t.Errorf("erased meanwhile: %+v, %v", result, err)
					}
				}
				// One that is past_due is ended at once.
				late := "at period end sub_late"
				if stripe.owes == "sub_late" {
					late = "now sub_late"
				}
				if !slices.Contains(b.stripe.calls, late) {
					t.Errorf("Stripe was asked for %v, want %s too", b.stripe.calls, late)
				}
				b.subscriptions.Stripe = b.stripe
				if result := b.record("cus_1"); result.StopDue {
					if _, err := b.subscriptions.StopBilling(t.Context(), activities.RecordInput{CustomerID: "cus_1"}); err != nil {
						t.Fatal(err)
					}
				}
				if result, err := b.users.EraseUser(t.Context(), activities.UserInput{ClerkUserID: ada}); err != nil || !result.Erased {
					t.Errorf("not erased once all can be read: %+v, %v", result, err)
				}
			})
		}
	}
}

// A subscription that has ended, and is stored so, is listed without all its items, which Stripe
// does not answer for any more. Nothing more can be learnt of it: what is told of the customer is
// completed.
func TestWhatHasEndedAndIsStoredKeepsNothingOpen(t *testing.T) {
	t.Parallel()
	for _, part := range []bool{false, true} {
		t.Run(fmt.Sprintf("listed in part %t", part), func(t *testing.T) {
			t.Parallel()
			b := newBench(t, account.DeleteKeep)
			b.stripe.put(subscription("sub_old", "cus_1", account.StatusCanceled))
			b.stripe.put(subscription("sub_1", "cus_1", account.StatusActive))
			b.person("cus_1")
			b.is([]string{"active", "canceled"}, `SELECT status FROM subscriptions ORDER BY status`)
			b.deliver("customer/cus_1", "customer.subscription.updated")
			b.troubles(func(_ context.Context, read, id string) error {
				if read == readSubscription && id == "sub_old" && part {
					return failure.New(failure.Permanent, "stripe", read, "http_400", nil)
				}
				return nil
			})
			if part {
				b.subscriptions.Stripe = listedInPart{troubled: b.subscriptions.Stripe.(troubled), id: "sub_old"}
			}
			for range 3 {
				_ = b.looks()
			}
			b.is([]string{"customer.subscription.updated completed"}, `SELECT type || ' ' || status FROM webhook_events WHERE entity = 'customer/cus_1' AND type = 'customer.subscription.updated'`)
			b.is([]string{"true"}, `SELECT (whole_read_seq IS NULL)::text FROM stripe_customers`)
		})
	}
}
