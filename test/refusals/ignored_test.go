package refusals_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// What is properly signed and none of our business is answered 200, so that the provider does not
// send it again, and kept as a row that says why, without the payload: there may be somebody else's
// data in it. Nothing follows from it.
func TestIgnoredDeliveries(t *testing.T) {
	t.Parallel()
	w := newWorld(t, system.Options{})
	s := w.signers()
	of := func(object map[string]any) map[string]any {
		return map[string]any{"data": map[string]any{"object": object}}
	}
	const deletion, cancellation = "user.deleted", "customer.subscription.deleted"

	for name, ignored := range map[string]struct {
		source, path string
		signer       delivery.Signer
		message      delivery.Message
		kind, reason string
	}{
		"Clerk, unknown type":       {"clerk", clerkPath, s.clerk, w.clerkEvent("user.promoted", nil), "user.promoted", "type not handled"},
		"Clerk, another's type":     {"clerk", clerkPath, s.clerk, w.clerkEvent("session.removed", nil), "session.removed", "type not handled"},
		"Clerk, another instance":   {"clerk", clerkPath, s.clerk, w.clerkEvent(deletion, map[string]any{"instance_id": "ins_2another"}), deletion, "other Clerk instance"},
		"Clerk, without a user":     {"clerk", clerkPath, s.clerk, w.clerkEvent(deletion, map[string]any{"data": map[string]any{}}), deletion, "no user id"},
		"Clerk, an id of no form":   {"clerk", clerkPath, s.clerk, w.clerkEvent(deletion, map[string]any{"data": map[string]any{"id": "user_1/../../x"}}), deletion, "no user id"},
		"Clerk, without a type":     {"clerk", clerkPath, s.clerk, w.clerkEvent("", nil), "", "not an event"},
		"Stripe, unknown type":      {"stripe", stripePath, s.stripe, w.stripeEvent("customer.adopted", nil), "customer.adopted", "type not handled"},
		"Stripe, not our concern":   {"stripe", stripePath, s.stripe, w.stripeEvent("payout.paid", nil), "payout.paid", "type not handled"},
		"Stripe, live mode":         {"stripe", stripePath, s.stripe, w.stripeEvent(cancellation, map[string]any{"livemode": true}), cancellation, "other mode"},
		"Stripe, connected account": {"stripe", stripePath, s.stripe, w.stripeEvent(cancellation, map[string]any{"account": "acct_1connected"}), cancellation, "other account"},
		"Stripe, a guest's payment": {"stripe", stripePath, s.stripe, w.stripeEvent("payment_intent.succeeded", of(map[string]any{"id": "pi_1guest", "object": "payment_intent", "customer": nil})), "payment_intent.succeeded", "no customer"},
		"Stripe, without an object": {"stripe", stripePath, s.stripe, w.stripeEvent(cancellation, map[string]any{"data": nil}), cancellation, "no customer"},
		"Stripe, an id of no form":  {"stripe", stripePath, s.stripe, w.stripeEvent("customer.updated", of(map[string]any{"id": "cus_1/../x", "object": "customer"})), "customer.updated", "no customer"},
		"Stripe, without a type":    {"stripe", stripePath, s.stripe, w.stripeEvent("", nil), "", "not an event"},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.on(t)
			number := w.number()
			before := w.state(number)
			for _, want := range []string{"ignored", "known"} { // the second time it is nothing new
				response, p := w.post(http.MethodPost, ignored.path, ignored.signer(ignored.message.ID, time.Now(), ignored.message.Body), ignored.message.Body)
				if response.StatusCode != http.StatusOK || p.Result != want {
					t.Errorf("answered %d %q %q, want 200 %q", response.StatusCode, p.Code, p.Result, want)
				}
			}
			row, ok := w.event(ignored.source, ignored.message.ID)
			if want := (event{Type: ignored.kind, Status: "ignored", Reason: ignored.reason}); !ok || row != want {
				t.Errorf("the row is %+v (%t), want %+v", row, ok, want)
			}
			before.without("webhook_events").unchanged(t, w.state(number).without("webhook_events"))
		})
	}

	// Nothing comes of them later either.
	number := w.number()
	before := w.state(number)
	w.Rest()
	before.unchanged(t, w.state(number))
	w.Agree(w.user, policy())
	w.hasAccess(w.user)

	// Only events of connected accounts carry another account's id than ours.
	m := w.stripeEvent("customer.subscription.updated", map[string]any{"account": w.Sandbox.Stripe.AccountID()})
	response, p := w.post(http.MethodPost, stripePath, s.stripe(m.ID, time.Now(), m.Body), m.Body)
	if response.StatusCode != http.StatusOK || p.Result != "stored" {
		t.Errorf("with our own account's id: answered %d %q %q", response.StatusCode, p.Code, p.Result)
	}
}
