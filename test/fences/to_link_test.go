package fences_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/selfservice"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

const failsForNow = `{"error":{"type":"api_error","message":"for now"}}`

// firstMoment is as long as a caller waits who is to be answered before anything else happens.
const firstMoment = 100 * time.Millisecond

// buysElsewhere is a purchase at a checkout of the app's own server, on a customer of its own that
// names the user. Its events have come, and it has not been looked at.
func (l *lab) buysElsewhere(user string) stripesim.CheckoutResult {
	l.t.Helper()
	bought := l.buy(stripesim.CheckoutSpec{Email: "elsewhere@example.com", ClientReferenceID: user, Metadata: byServer(user), SubscriptionMetadata: byServer(user)})
	l.unpoked()
	return bought
}

// stands is the status of an operation, as who asks for it is told.
func (l *lab) stands(operation string) store.OperationStatus {
	l.t.Helper()
	op, err := l.Store.Operation(l.t.Context(), operation)
	l.must(err)
	return op.Status
}

// unheardOf is a user whom Clerk has and we have not heard of.
func (l *lab) unheardOf() (user string) {
	l.t.Helper()
	user = l.Sandbox.Clerk.AddUser(person("bob", "bob@example.com", true))
	l.untold()
	return user
}

// notTheirs are purchases on a customer that is named for a user and that nobody is about to link
// to them.
func notTheirs() map[string]func(l *lab, user string) (customer string) {
	return map[string]func(l *lab, user string) string{
		"it waits for another user": func(l *lab, user string) string {
			return l.buy(stripesim.CheckoutSpec{Email: "else@example.com", Metadata: byServer(user), SubscriptionMetadata: byServer(l.unheardOf())}).CustomerID
		},
		"evidence conflicts": func(l *lab, user string) string {
			first := l.buy(stripesim.CheckoutSpec{Email: "else@example.com", SubscriptionMetadata: byServer(user)})
			l.buy(stripesim.CheckoutSpec{CustomerID: first.CustomerID, SubscriptionMetadata: byServer(l.unheardOf())})
			return first.CustomerID
		},
		"a payer has named them": func(l *lab, user string) string {
			return l.buy(stripesim.CheckoutSpec{Email: "else@example.com", ClientReferenceID: user, PaymentLink: "plink_1"}).CustomerID
		},
	}
}

// Whoever has paid and asks for a sync is told that it is done once what they have paid for is
// stored and published, also on a customer that evidence on record names them for and that could
// not be read yet.
func TestASyncWaitsForACustomerThatEvidenceNamesTheUserFor(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, own := l.signUp("ada")
	bought := l.buysElsewhere(user)
	restore := l.work.refuse("customer="+bought.CustomerID, http.StatusInternalServerError, failsForNow)
	op := l.asksSync(user)
	looks := func() {
		l.must(l.work.syncUser(t.Context(), user))
		l.must(l.work.record(t.Context(), own))
		_ = l.work.lookAtCustomer(t.Context(), bought.CustomerID)
		l.must(l.work.publish(t.Context(), user, false))
		l.exec(`UPDATE operations SET retry_at = now()`)
		_, err := l.Store.Sweep(t.Context(), 500)
		l.must(err)
	}
	looks()
	if is := l.stands(op); is != "accepted" {
		t.Errorf("the sync is told as %s beside a customer that names the user and was not read", is)
	}
	restore()
	looks()
	l.settle()
	if is := l.stands(op); is != "done" {
		t.Errorf("the sync is told as %s once all was read", is)
	}
	l.wants("active", `SELECT status FROM subscriptions WHERE stripe_subscription_id = $1`, bought.SubscriptionID)
	l.agree(user)
}

// What waits for another user, or for a person, ends no sync any later, keeps nobody from buying,
// and holds up no erasure.
func TestNobodyWaitsForACustomerThatIsNotAboutToBeTheirs(t *testing.T) {
	t.Parallel()
	for name, pays := range notTheirs() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, own := l.signUp("ada")
			customer := pays(l, user)
			l.unpoked()
			for _, looked := range []bool{false, true} {
				if looked {
					l.must(l.work.lookAtCustomer(t.Context(), customer))
					l.unowned(customer)
				}
				asked := l.asksSync(user)
				l.must(l.work.syncUser(t.Context(), user))
				l.must(l.work.record(t.Context(), own))
				l.must(l.work.publish(t.Context(), user, false))
				if is := l.stands(asked); is != "done" {
					t.Errorf("looked at %v: the sync is told as %s", looked, is)
				}
				swept := l.asksSync(user)
				l.must(l.work.syncUser(t.Context(), user))
				l.must(l.work.record(t.Context(), own))
				l.must(l.work.publish(t.Context(), user, false))
				l.exec(`UPDATE operations SET retry_at = now() WHERE id = $1`, swept)
				_, err := l.Store.Sweep(t.Context(), 500)
				l.must(err)
				l.wants("done", `SELECT status FROM operations WHERE id = $1`, swept)
			}
			opened, _, err := l.requests(l.work).Checkout(t.Context(), l.checkoutOf(user, "k"))
			if l.must(err); l.stateOf(opened.SessionID) != account.CheckoutOpen {
				t.Errorf("the checkout is %s", l.stateOf(opened.SessionID))
			}
			l.must(l.Sandbox.Clerk.DeleteUser(user))
			l.settle()
			l.erased(user)
		})
	}
}

// Nobody is sold what they have on a customer that evidence on record names them for and that is
// not linked yet.
func TestNothingIsSoldBesideACustomerThatEvidenceNamesTheUserFor(t *testing.T) {
	t.Parallel()
	t.Run("it was not looked at", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, policies{})
		user, own := l.signUp("ada")
		l.buysElsewhere(user)
		_, _, err := l.requests(l.work).Checkout(t.Context(), l.checkoutOf(user, "k"))
		if code := refused(t, err); code != "already_subscribed" {
			t.Errorf("the checkout is told %q", code)
		}
		l.noneOpen(own)
	})
	t.Run("it cannot be read", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, policies{})
		user, own := l.signUp("ada")
		bought := l.buysElsewhere(user)
		restore := l.work.refuse("customer="+bought.CustomerID, http.StatusInternalServerError, failsForNow)
		if opened, pending, err := l.requests(l.work).Checkout(t.Context(), l.checkoutOf(user, "k")); err == nil && pending == nil {
			t.Errorf("%s is sold beside what they have", opened.SessionID)
		}
		l.noneOpen(own)
		restore()
		l.must(l.work.lookAtCustomer(t.Context(), bought.CustomerID))
		_, _, err := l.requests(l.work).Checkout(t.Context(), l.checkoutOf(user, "k"))
		if code := refused(t, err); code != "already_subscribed" {
			t.Errorf("the checkout is told %q once it was read", code)
		}
	})
	t.Run("the list is behind", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, policies{})
		user, own := l.signUp("ada")
		l.buysElsewhere(user)
		defer l.work.answer("GET /v1/subscriptions?", http.StatusOK, `{"object":"list","data":[],"has_more":false,"url":"/v1/subscriptions"}`)()
		desk := l.requests(l.work)
		desk.Wait = firstMoment
		if opened, pending, err := desk.Checkout(t.Context(), l.checkoutOf(user, "k")); err == nil && pending == nil {
			t.Errorf("%s is sold beside what they have", opened.SessionID)
		}
		l.noneOpen(own)
	})
}

// A deleted user is erased, and told as erased, once what they have on a customer that evidence on
// record names them for is stopped; until then it is shown.
func TestNobodyIsErasedBesideACustomerThatEvidenceNamesThemFor(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, own := l.signUp("ada")
	bought := l.buysElsewhere(user)
	l.work.refuse(bought.CustomerID, http.StatusInternalServerError, failsForNow)
	restore := l.work.refuse(bought.SubscriptionID, http.StatusInternalServerError, failsForNow)
	l.must(l.Sandbox.Clerk.DeleteUser(user))
	l.unpoked()
	l.must(l.work.lookAtUser(t.Context(), user))
	l.must(l.work.lookAtCustomer(t.Context(), own))
	_ = l.work.lookAtCustomer(t.Context(), bought.CustomerID)
	l.must(l.work.lookAtUser(t.Context(), user))
	l.wants("", `SELECT erased_at FROM person_user WHERE clerk_user_id = $1`, user)
	row, err := l.Store.UserByClerkID(t.Context(), user)
	l.must(err)
	open, err := l.Store.UnsettledOfUser(t.Context(), row, account.DeleteCancelAtPeriodEnd)
	l.must(err)
	if want := (account.Unsettled{CustomerID: bought.CustomerID, Subject: bought.CustomerID, Reason: account.UnsettledNotRead}); len(open) != 1 || open[0] != want {
		t.Errorf("what may still bill them: %v, want %v", open, want)
	}
	restore()
	l.settle()
	l.erased(user)
	if l.runsOn(bought.SubscriptionID) {
		t.Errorf("%s of an erased user runs on", bought.SubscriptionID)
	}
}

// Who comes back from paying on such a customer owns the checkout, whatever the session itself
// says.
func TestACheckoutIsTheirsWhomEvidenceNames(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, _ := l.signUp("ada")
	bought := l.buy(stripesim.CheckoutSpec{Email: "elsewhere@example.com", SubscriptionMetadata: byServer(user)})
	l.unpoked()
	desk := l.requests(l.work)
	desk.Wait = firstMoment
	op, err := desk.Return(t.Context(), selfservice.Caller{UserID: user}, selfservice.Key{}, bought.SessionID)
	l.must(err)
	l.settle()
	if is := l.stands(op.ID); is != store.OperationDone {
		t.Errorf("the return is told as %s", is)
	}
}
