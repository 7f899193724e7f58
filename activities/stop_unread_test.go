package activities_test

import (
	"context"
	"slices"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

// unlisted is a Stripe that lists no customer's subscriptions.
type unlisted struct{ *stoppable }

func (unlisted) CustomerSubscriptions(context.Context, string) ([]account.Subscription, *account.Customer, error) {
	return nil, nil, failure.New(failure.Transient, "stripe", "list subscriptions", "http_500", nil)
}

// Who is deleted is not billed on because their customer cannot be read. Who stays is left alone.
func TestACustomerWhoCannotBeReadIsNotBilledOn(t *testing.T) {
	t.Parallel()
	for name, deleted := range map[string]bool{"deleted": true, "who stays": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, account.DeleteCancelAtPeriodEnd)
			b.stripe.put(subscription("sub_1", "cus_1", account.StatusActive))
			b.person("cus_1")
			if deleted {
				b.rows(`UPDATE person_user SET deletion_requested_at = now(), deletion_seq = nextval('sync_seq') RETURNING ''`)
			}
			b.subscriptions.Stripe = unlisted{b.stripe}
			for range 2 {
				_, err := b.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: "cus_1"})
				if failure.Of(err) != failure.Transient {
					t.Errorf("the read ended with %v", err)
				}
			}
			var want []string
			if deleted {
				want = []string{"at period end sub_1"}
			}
			if !slices.Equal(b.stripe.calls, want) {
				t.Errorf("Stripe was asked for %v, want %v", b.stripe.calls, want)
			}
			b.subscriptions.Stripe = b.stripe
			b.record("cus_1")
			b.is([]string{map[bool]string{true: "true", false: "false"}[deleted]}, `SELECT cancel_at_period_end::text FROM subscriptions`)
		})
	}
}
