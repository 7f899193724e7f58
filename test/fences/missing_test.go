package fences_test

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/operator"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/selfservice"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// bound stores to which account the database belongs, as the programs do when they start.
func (l *lab) bound() {
	l.t.Helper()
	id, err := l.work.subscriptions.Stripe.Account(l.t.Context())
	l.must(err)
	l.must(l.Store.BindStripe(l.t.Context(), id, false))
}

// erasing tries to erase a user, and looks after whom that wakes.
func (l *lab) erasing(user string) {
	l.t.Helper()
	l.must(l.work.lookAtUser(l.t.Context(), user))
	l.settle()
}

// later makes what is missing be so for longer.
func (l *lab) later(d time.Duration) {
	l.t.Helper()
	l.exec(`UPDATE missing_objects SET missing_since = missing_since - $1::interval`, d)
}

const erased = `SELECT erased_at IS NOT NULL FROM person_user WHERE clerk_user_id = $1`

// A customer that Stripe does not have any more bills nobody. It counts as settled once Stripe has
// said so twice, long enough apart, with the right account answering each time; the audit log says
// so.
func TestMissingCustomerIsConfirmedBeforeItsUserIsErased(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string]func(l *lab, customer, subscription string){
		"a customer without a subscription": func(l *lab, customer, _ string) { l.Sandbox.Stripe.Lose(customer) },
		"a customer with its subscription":  func(l *lab, customer, subscription string) { l.Sandbox.Stripe.Lose(customer, subscription) },
		"a subscription":                    func(l *lab, _, subscription string) { l.Sandbox.Stripe.Lose(subscription) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			l.bound()
			var user, customer, subscription string
			if name == "a customer without a subscription" {
				user, customer = l.signUp("ada")
			} else {
				user, customer, subscription = l.subscribed("ada")
			}
			lost(l, customer, subscription)
			l.must(l.Sandbox.Clerk.DeleteUser(user))
			l.settle()
			l.erasing(user)
			l.wants("false", erased, user)
			l.later(missingConfirmedAfter / 2)
			l.erasing(user)
			l.wants("false", erased, user)
			l.later(missingConfirmedAfter / 2)
			l.erasing(user) // wakes the customer, which is read once more, and that wakes the user
			l.wants("true", erased, user)
			l.wants("true", `SELECT bool_and(after ->> 'missing_since' IS NOT NULL) FROM audit_log WHERE action = 'missing.confirmed'`)
			l.wants("true", `SELECT count(*) = jsonb_array_length((SELECT after -> 'missing' FROM audit_log WHERE action = 'user.erased')) FROM missing_objects`)
		})
	}
}

// What is not Stripe's own word on this very object in this very account says nothing, however
// often it is repeated.
func TestNobodyIsErasedForAnAnswerOfSomebodyElse(t *testing.T) {
	t.Parallel()
	noSuch := func(id string) string {
		return `{"error":{"type":"invalid_request_error","code":"resource_missing","param":"id","message":"No such customer: '` + id + `'"}}`
	}
	for name, c := range map[string]struct {
		account, body string
		status        int
		unbound       bool
	}{
		"a proxy's 404":                 {body: "<html>not found</html>", status: http.StatusNotFound},
		"another object is missing":     {body: noSuch("cus_other"), status: http.StatusNotFound},
		"it is in the other mode":       {body: noSuch("CUSTOMER'; a similar object exists in live mode, but a test mode key was used to make this request.")},
		"another account answers":       {account: `{"object":"account","id":"acct_another1"}`},
		"the account cannot be read":    {account: `{"error":{"type":"invalid_request_error","message":"The provided key does not have access."}}`, status: http.StatusForbidden},
		"no account was ever stored":    {unbound: true},
		"a 400 names another parameter": {body: `{"error":{"type":"invalid_request_error","code":"parameter_invalid_empty","message":"?"}}`, status: http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			if !c.unbound {
				l.bound()
			}
			user, customer := l.signUp("ada")
			l.must(l.Sandbox.Clerk.DeleteUser(user))
			l.unpoked()
			found := l.Sandbox.Stripe.Lose(customer)
			status := c.status
			if status == 0 {
				status = http.StatusNotFound
				if c.account != "" {
					status = http.StatusOK
				}
			}
			switch {
			case c.account != "":
				l.work.refuse("GET /v1/account?", status, c.account)
			case c.body != "":
				l.work.refuse("GET /v1/customers/"+customer+"?", status, strings.Replace(c.body, "CUSTOMER", customer, 1))
			}
			l.must(l.work.lookAtUser(t.Context(), user))
			for range 3 {
				_ = l.work.lookAtCustomer(t.Context(), customer) // an operator's failure is one
				l.later(2 * missingConfirmedAfter)
			}
			l.must(l.work.lookAtUser(t.Context(), user))
			l.wants("false", erased, user)
			l.wants("0", `SELECT count(*) FROM missing_objects WHERE confirmed_at IS NOT NULL`)
			// When it is there again the user is erased without anybody's help.
			found()
			l.work.answers = nil
			l.erasing(user)
			l.wants("true", erased, user)
		})
	}
}

// What appears again after it was taken for gone is dealt with as the policy says, though its user
// is erased.
func TestFoundAgainAfterTheErasureIsStopped(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{deletion: account.DeleteCancelNow})
	l.bound()
	user, customer, subscription := l.subscribed("ada")
	found := l.Sandbox.Stripe.Lose(customer, subscription)
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	l.settle()
	l.later(missingConfirmedAfter)
	l.erasing(user)
	l.wants("true", erased, user)
	found()
	l.must(l.work.lookAtCustomer(t.Context(), customer))
	l.settle()
	l.wants("canceled", `SELECT status FROM subscriptions WHERE stripe_subscription_id = $1`, subscription)
	l.wants("2", `SELECT count(*) FROM audit_log WHERE action = 'missing.found_again'`)
	l.wants("0", `SELECT count(*) FROM missing_objects`)
	raw, _ := l.Sandbox.Stripe.Subscription(subscription)
	if status := stringField(t, raw, "status"); status != "canceled" {
		t.Errorf("the subscription of an erased user is %s", status)
	}
}

// A customer with an open checkout is not there for a while when its user is deleted, and is there
// again: after they were erased, before it was confirmed that it is gone, or only its checkouts
// could not be listed. The checkout is closed. While it is gone nobody is woken for it.
func TestACheckoutOfACustomerThatIsFoundAgainIsClosed(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"after the erasure", "before it is confirmed", "and only its checkouts were not listed"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			l.bound()
			user, customer := l.signUp("ada")
			l.must(l.openCheckout(customer))
			restore := l.work.refuse("GET /v1/checkout/sessions", http.StatusNotFound,
				`{"error":{"type":"invalid_request_error","code":"resource_missing","param":"customer","message":"No such customer: '`+customer+`'"}}`)
			found := func() {}
			if when != "and only its checkouts were not listed" {
				found = l.Sandbox.Stripe.Lose(customer)
			}
			l.must(l.Sandbox.Clerk.DeleteUser(user))
			l.settle()
			l.erasing(user)
			if when == "after the erasure" {
				l.later(missingConfirmedAfter)
				l.erasing(user)
				l.wants("true", erased, user)
				l.unpoked()
				_, err := l.Store.Sweep(t.Context(), 100)
				l.must(err)
				l.wants("0", `SELECT count(*) FROM pokes WHERE due_at IS NOT NULL`)
			}
			found()
			restore()
			l.must(l.work.lookAtCustomer(t.Context(), customer))
			// Whatever wakes the user: the sweep does, for as long as it is due.
			l.wants("true", `SELECT checkouts_due FROM stripe_customers WHERE stripe_customer_id = $1`, customer)
			l.exec(`UPDATE pokes SET due_at = NULL, poked_at = now() - interval '2 minutes'`)
			_, err := l.Store.Sweep(t.Context(), 100)
			l.must(err)
			l.settle()
			l.wants("true", erased, user)
			open, err := l.work.stripe.OpenCheckoutSessions(t.Context(), customer)
			l.must(err)
			if len(open) > 0 {
				t.Errorf("%d checkouts of an erased user are open", len(open))
			}
			l.wants("false", `SELECT checkouts_due FROM stripe_customers WHERE stripe_customer_id = $1`, customer)
		})
	}
}

// An object that was missing once and is shown in between has not been missing twice.
func TestMissingAgainBeginsAnew(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	l.bound()
	user, customer := l.signUp("ada")
	blocked := l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: "b@example.com", Metadata: map[string]string{"clerk_user_id": user}})
	l.settle()
	found := l.Sandbox.Stripe.Lose(customer)
	l.Sandbox.Stripe.Lose(blocked)
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	l.settle()
	l.later(missingConfirmedAfter)
	found()
	l.must(l.work.lookAtCustomer(t.Context(), customer))
	l.wants("0", `SELECT count(*) FROM missing_objects WHERE stripe_id = $1`, customer)
	l.Sandbox.Stripe.Lose(customer)
	l.must(l.work.lookAtCustomer(t.Context(), customer))
	l.wants("false", `SELECT confirmed_at IS NOT NULL FROM missing_objects WHERE stripe_id = $1`, customer)
}

// A customer that is linked in the moment in which the deletion is asked for is not among those
// that this wakes. The erasure wakes it, and is done.
func TestLinkBesideTheDeletionIsWoken(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user := l.Sandbox.Clerk.AddUser(secretive(1))
	l.settle()
	other := l.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{Email: payer(1), Metadata: map[string]string{"clerk_user_id": user}})
	l.unpoked()
	a, b := l.actor(policies{}), l.actor(policies{})
	linking := a.arm(t, "FROM person_user WHERE clerk_user_id = $1 FOR NO KEY UPDATE", 0)
	linked := begin(func() error { return a.lookAtCustomer(t.Context(), other) })
	reach(t, linking, linked)
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	l.unpoked()
	claims := b.arm(t, "SELECT DISTINCT cl.stripe_customer_id", 0)
	marked := begin(func() error { return b.syncUser(t.Context(), user) })
	reach(t, claims, marked)
	linking.release()
	wait(t, linked)
	claims.release()
	wait(t, marked)
	l.settle()
	l.erasing(user)
	l.wants("true", erased, user)
	if found := l.traces(); found != "" {
		t.Errorf("there are traces:\n%s", found)
	}
}

// A customer whose first read has failed for good is read again when the erasure is tried, and not
// only then.
func TestCustomerWhoseReadFailedIsWoken(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, customer := l.signUp("ada")
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	l.unpoked()
	restore := l.work.refuse("GET /v1/subscriptions?", http.StatusBadRequest, notAllowed)
	l.must(l.work.lookAtUser(t.Context(), user))
	if err := l.work.lookAtCustomer(t.Context(), customer); err == nil {
		t.Fatal("the read did not fail")
	}
	restore()
	l.exec(`UPDATE pokes SET due_at = NULL`) // the wake-up was used on the read that failed
	l.erasing(user)
	l.wants("true", erased, user)
}

// Where the user's own run has ended, the sweep has an erasure that is not done tried again.
func TestErasureThatNobodyTriesIsSwept(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, _ := l.signUp("ada")
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	l.take()
	l.must(l.work.syncUser(t.Context(), user))
	l.exec(`UPDATE pokes SET due_at = NULL`)
	l.exec(`UPDATE person_user SET erase_retry_at = now() - interval '1 second'`)
	if n, err := l.Store.Sweep(t.Context(), 100); err != nil || n != 1 {
		t.Fatalf("swept %d, %v", n, err)
	}
	l.settle()
	l.wants("true", erased, user)
}

// A customer that is not settled does not wake its user: the two would wake each other for ever.
func TestUnsettledCustomerDoesNotWakeItsUser(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	l.bound()
	user, customer := l.signUp("ada")
	l.Sandbox.Stripe.Lose(customer)
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	l.settle()
	result, err := l.work.users.EraseUser(t.Context(), activities.UserInput{ClerkUserID: user})
	l.must(err)
	if result.Unsettled != 1 || len(result.Open) != 1 || result.Open[0].CustomerID != customer || len(result.Open[0].Missing) != 1 {
		t.Errorf("the erasure waits for %+v", result)
	}
	l.exec(`UPDATE pokes SET due_at = NULL`)
	recorded, err := l.work.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: customer})
	l.must(err)
	l.wants("", `SELECT string_agg(entity, ', ') FROM pokes WHERE due_at IS NOT NULL`)
	if !recorded.Live || recorded.WakeAt.IsZero() {
		t.Errorf("nobody comes back to it: %+v", recorded)
	}
}

// An operator can end an erasure that waits: only of a user whose deletion was asked for, and with
// what may still bill them in the audit log.
func TestOperatorErasesADeletedUser(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, customer, subscription := l.subscribed("ada")
	console := operator.Console{Store: l.Store}
	erase := func(shown []account.Unsettled) error {
		return console.EraseAnyway(context.WithoutCancel(t.Context()), user, "operator", shown)
	}
	if _, err := console.MayStillBill(t.Context(), user); err == nil {
		t.Error("it lists what bills a user who stays")
	}
	if err := erase(nil); err == nil {
		t.Error("it erases a user who stays")
	}
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	l.take()
	l.must(l.work.syncUser(t.Context(), user))
	open, err := console.MayStillBill(t.Context(), user)
	l.must(err)
	if len(open) != 2 {
		t.Errorf("what may still bill is %+v, want the customer, which was not read, and the subscription", open)
	}
	if err := erase(open[:1]); err == nil {
		t.Error("it erases though more bills than was shown")
	}
	l.wants("false", erased, user)
	l.must(erase(open))
	l.wants("true", erased, user)
	l.wants("operator 2", `SELECT caller || ' ' || jsonb_array_length(after -> 'may_still_bill') FROM audit_log WHERE action = 'user.erased_by_operator'`)
	if err := erase(open); err == nil {
		t.Error("it erases twice")
	}
	// The policy is applied all the same.
	l.must(l.work.lookAtCustomer(t.Context(), customer))
	l.wants("true", `SELECT cancel_at_period_end FROM subscriptions WHERE stripe_subscription_id = $1`, subscription)
}

// Of whoever is erased nothing personal is kept in the inbox, neither in what came before the
// deletion nor in what comes after it, though their customer is missing at Stripe, so that its
// events wait until they are given up.
func TestAnErasedUsersPayloadsDoNotWait(t *testing.T) {
	t.Parallel()
	const personal = `SELECT string_agg(concat_ws(' ', type, status, reason), ', ') FROM webhook_events WHERE payload ~ 'Ada Secret|ada@example.com'`
	l := newLab(t, policies{})
	l.bound()
	user, customer, subscription := l.subscribed("ada")
	spec := stripesim.CustomerSpec{Email: "ada@example.com", Name: "Ada Secret", Metadata: map[string]string{"k": "v"}}
	l.must(l.Sandbox.Stripe.UpdateCustomer(customer, spec))
	l.take()
	l.must(l.Sandbox.Stripe.UpdateCustomer(customer, spec))
	late := l.Sandbox.StripeWebhooks.TakeHeld()
	l.Sandbox.Stripe.Lose(customer, subscription)
	l.settle()
	l.wants("true", `SELECT count(*) > 0 FROM webhook_events WHERE status = 'waiting' AND payload ~ 'Ada Secret'`)
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	l.settle()
	for range 3 {
		l.erasing(user)
		l.later(missingConfirmedAfter)
	}
	l.erasing(user)
	l.wants("true", erased, user)
	l.wants("", personal)
	for _, m := range late {
		l.Sandbox.StripeWebhooks.Send(m)
	}
	l.settle()
	l.wants("", personal)
	n, err := l.Store.ExpireWaiting(t.Context(), 0, 100)
	l.must(err)
	if n == 0 {
		t.Error("nothing waited")
	}
	l.wants("", personal)
}

// A customer who was once answered with 404, and whom the lists show, is there.
func TestACustomerThatIsListedAgainIsNotMissing(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, one, two := l.withTwoCustomers()
	l.buy(stripesim.CheckoutSpec{CustomerID: one})
	l.take()
	l.settle()
	l.wants(one, `SELECT stripe_customer_id FROM person_user WHERE clerk_user_id = $1`, user)
	restore := l.work.answer("GET /v1/subscriptions?", 404, stripeMissing)
	l.work.answer("GET /v1/customers/", 404, stripeMissing)
	l.must(l.work.lookAtCustomer(t.Context(), one))
	restore()
	l.wants(two, `SELECT stripe_customer_id FROM person_user WHERE clerk_user_id = $1`, user)
	l.exec(`UPDATE pokes SET due_at = NULL`)
	b := l.bulk(l.actor(policies{}))
	for _, step := range []string{activities.BulkProducts, activities.BulkPrices, activities.BulkCustomers, activities.BulkSubscriptions, activities.BulkOnboarding} {
		_, err := b.step(step)
		l.must(err)
	}
	l.settle()
	l.wants("", `SELECT missing_since FROM stripe_customers WHERE stripe_customer_id = $1`, one)
	l.wants(one, `SELECT stripe_customer_id FROM person_user WHERE clerk_user_id = $1`, user)
	l.wants(one, `SELECT projection ->> 'customerId' FROM person_user WHERE clerk_user_id = $1`, user)
}

// Stripe answers 404 for a customer once, in a look that nothing but a boundary was the reason for.
// What is stored of it can still change: it is looked at again.
func TestACustomerThatWasMissingOnceIsLookedAtAgain(t *testing.T) {
	t.Parallel()
	for _, missing := range []bool{false, true} {
		t.Run(map[bool]string{false: "control", true: "missing"}[missing], func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			l.settle()
			if missing {
				l.work.answer("GET /v1/customers/"+s.customer, http.StatusNotFound, `{"error":{"type":"invalid_request_error","code":"resource_missing","param":"id","message":"No such customer: '`+s.customer+`'"}}`)
				l.work.answer("GET /v1/subscriptions?", http.StatusNotFound, `{"error":{"type":"invalid_request_error","code":"resource_missing","param":"customer","message":"No such customer: '`+s.customer+`'"}}`)
			}
			result, err := l.work.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: s.customer, ForBoundary: true})
			l.must(err)
			l.wants("active", `SELECT status FROM subscriptions WHERE stripe_subscription_id = $1`, s.subscription)
			l.wants("0", `SELECT count(*) FROM pokes WHERE due_at IS NOT NULL`)
			if !result.Live || result.WakeAt.IsZero() {
				t.Errorf("nobody looks at it again: %+v", result)
			}
		})
	}
}

// comesBack is somebody who has paid at a page that made them a customer, before Stripe has told of
// it. ask is what their browser asks, each time it comes back.
func (l *lab) comesBack() (user string, bought stripesim.CheckoutResult, ask func() *store.Operation) {
	l.t.Helper()
	user, _ = l.signUp("ada")
	l.settle()
	bought = l.buy(stripesim.CheckoutSpec{Email: "ada@example.com", ClientReferenceID: user, SubscriptionMetadata: byServer(user)})
	desk := l.requests(l.actor(policies{}))
	desk.Wait = 50 * time.Millisecond
	return user, bought, func() *store.Operation {
		l.t.Helper()
		op, err := desk.Return(l.t.Context(), selfservice.Caller{UserID: user},
			selfservice.Key{Method: http.MethodPost, Route: "/api/checkout/return", Value: "k"}, bought.SessionID)
		l.must(err)
		return op
	}
}

// Somebody comes back from paying before Stripe has told of it. The customer that the checkout has
// made is not shown by the first read yet, as Stripe does not promise it: the session, which Stripe
// has shown, says that it is there.
func TestAReturnWaitsForACustomerThatDoesNotShowYet(t *testing.T) {
	t.Parallel()
	for _, behind := range []bool{false, true} {
		t.Run(map[bool]string{false: "control", true: "the first read is behind"}[behind], func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, bought, ask := l.comesBack()
			if op := ask(); op.Status != store.OperationAccepted {
				t.Fatalf("it is %s", op.Status)
			}
			if behind {
				restore := l.work.answer(bought.CustomerID, http.StatusNotFound, `{"error":{"type":"invalid_request_error","code":"resource_missing","message":"No such customer: '`+bought.CustomerID+`'"}}`)
				l.must(l.work.record(t.Context(), bought.CustomerID))
				restore()
			}
			l.settle() // Stripe's events
			l.must(l.work.publish(t.Context(), user, false))
			op := ask()
			l.wants("true", `SELECT projection ->> 'subscriptionActive' FROM person_user WHERE clerk_user_id = $1`, user)
			if op.Status != store.OperationDone {
				t.Errorf("they have paid and have access, and are told %s (%s)", op.Status, op.Reason)
			}
		})
	}
}

// Somebody comes back from paying before Stripe has told of it. The first read shows their
// subscription as it was before it was paid for: it is read again, and they are not told that all
// is there while they have no access. What stays so is told after a while.
func TestAReturnWaitsForWhatIsPaidFor(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, bought, ask := l.comesBack()
	ask()
	unpaid := regexp.MustCompile(`"status": ?"active"`).ReplaceAllString(l.listOf(bought.CustomerID), `"status":"incomplete"`)
	restore := l.work.answer("GET /v1/subscriptions?", http.StatusOK, unpaid)
	result, err := l.work.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: bought.CustomerID})
	l.must(err)
	l.must(l.work.publish(t.Context(), user, false))
	l.wants("incomplete", `SELECT status FROM subscriptions WHERE stripe_subscription_id = $1`, bought.SubscriptionID)
	if op := ask(); op.Status != store.OperationAccepted {
		t.Errorf("they have no access yet, and are told %s", op.Status)
	}
	if result.RereadAfter <= 0 {
		t.Errorf("nobody reads it again: %+v", result)
	}
	op := ask()
	l.exec(`UPDATE operations SET created_at = created_at - interval '31 seconds' WHERE id = $1`, op.ID)
	result, err = l.work.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: bought.CustomerID})
	l.must(err)
	if op := ask(); op.Status != store.OperationDone || result.RereadAfter != 0 {
		t.Errorf("what is not paid at once is told %s, and read again after %s", op.Status, result.RereadAfter)
	}
	restore()
}

// A customer that was missing once is waited for like any other: only a read that began since the
// request says that it still is.
func TestASyncWaitsForACustomerThatWasMissingOnce(t *testing.T) {
	t.Parallel()
	for _, still := range []bool{false, true} {
		t.Run(map[bool]string{false: "it is there again", true: "it is missing still"}[still], func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			l.settle()
			found := l.Sandbox.Stripe.Lose(s.customer)
			l.must(l.work.record(t.Context(), s.customer))
			l.wants("true", `SELECT missing_since IS NOT NULL FROM stripe_customers WHERE stripe_customer_id = $1`, s.customer)
			if !still {
				found()
			}
			begun, _, err := l.Store.BeginOperation(t.Context(), store.NewOperation{RequestHash: []byte("r"), Caller: s.user, ClerkUserID: s.user, Lifetime: time.Hour,
				Action: store.ActionSync, Entity: account.UserEntity(s.user)})
			l.must(err)
			stands := func(want store.OperationStatus) {
				t.Helper()
				op, err := l.Store.Operation(t.Context(), begun.ID)
				l.must(err)
				if op.Status != want {
					t.Errorf("the sync is %s, want %s", op.Status, want)
				}
			}
			l.must(l.work.lookAtUser(t.Context(), s.user))
			stands(store.OperationAccepted)
			l.must(l.work.record(t.Context(), s.customer))
			l.must(l.work.publish(t.Context(), s.user, false))
			stands(store.OperationDone)
		})
	}
}
