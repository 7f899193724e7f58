package fences_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/selfservice"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// shownAs is Stripe with all subscriptions in one state.
type shownAs struct {
	selfservice.Stripe
	status account.Status
}

func (s shownAs) CustomerSubscriptions(ctx context.Context, customerID string) ([]account.Subscription, *account.Customer, error) {
	list, customer, err := s.Stripe.CustomerSubscriptions(ctx, customerID)
	for i := range list {
		list[i].Status = s.status
	}
	return list, customer, err
}

// Whatever state a subscription is in, it is an obstacle to another product and to the same one
// exactly where it bills or may bill again.
func TestEachStateThatMayBillIsAnObstacle(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, _, _ := l.subscribed("ada")
	l.exec(`UPDATE subscriptions SET status = 'incomplete'`) // from which each other may follow
	_, basic := l.other("Basic", nil)
	desk := l.requests(l.actor(policies{}))
	stripe := desk.Stripe
	for status, is := range map[account.Status]bool{
		account.StatusActive: true, account.StatusTrialing: true, account.StatusPastDue: true, account.StatusUnpaid: true, account.StatusPaused: true, "frozen": true,
		account.StatusIncomplete: false, account.StatusIncompleteExpired: false, account.StatusCanceled: false,
	} {
		desk.Stripe = shownAs{stripe, status}
		for price, code := range map[string]string{basic: "other_subscription", l.price: "already_subscribed"} {
			request := l.checkoutOf(user, "")
			request.PriceID = price
			_, _, err := desk.Checkout(t.Context(), request)
			if got := refused(t, err); (got == code) != is || !is && got != "" {
				t.Errorf("beside one that is %s: answered %q, an obstacle %t", status, got, is)
			}
		}
	}
}

// A checkout that was opened, and is open, is not answered again once something was bought by
// another way that may not be held beside it: it is closed, and so it is where nobody had heard of
// it.
func TestAnOpenCheckoutIsClosedOnceItMayNotBePaid(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, code   string
		other, heard bool
	}{{"the same", "already_subscribed", false, true}, {"another", "other_subscription", true, true}, {"another, and nobody had heard", "other_subscription", true, false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, customer := l.signUp("ada")
			bought := l.price
			if c.other {
				_, bought = l.other("Basic", nil)
			}
			a := l.actor(policies{})
			desk := l.requests(a)
			request := l.checkoutOf(user, "k1")
			opened, _, err := desk.Checkout(t.Context(), request)
			l.must(err)
			if !c.heard {
				l.exec(`UPDATE operations SET status = 'accepted', stripe_session_id = NULL, settled_at = NULL`)
			}
			l.buy(stripesim.CheckoutSpec{CustomerID: customer, PriceID: bought})
			again, _, err := desk.Checkout(t.Context(), request)
			if code := refused(t, err); code != c.code {
				t.Errorf("answered %+v, %q, want %q", again, code, c.code)
			}
			if state := l.stateOf(opened.SessionID); state != account.CheckoutExpired {
				t.Errorf("the checkout is %s, and can be paid beside what was bought", state)
			}
		})
	}
}

// One customer's checkouts cannot be listed or closed, or one customer has something already: those
// of the others are closed all the same.
func TestOneObstacleKeepsNoOtherCheckoutOpen(t *testing.T) {
	t.Parallel()
	for name, rule := range map[string]*faults.Rule{
		"one cannot be closed":     {Method: "POST", PathContains: "/expire", Status: 400, Times: 1},
		"one cannot be listed":     {Method: "GET", PathPrefix: "/v1/checkout/sessions", QueryContains: "status=open", Status: 400, Times: 1},
		"one has something it is":  nil,
		"one cannot be looked at":  {Method: "GET", PathPrefix: "/v1/subscriptions", Status: 400, Times: 1},
		"one cannot be closed now": {Method: "POST", PathContains: "/expire", Status: 503, Times: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, one, two := l.withTwoCustomers()
			product, _ := l.other("Basic", nil)
			for _, customer := range []string{one, two} {
				l.openProductCheckout(user, customer, product)
			}
			left := 0
			switch {
			case rule == nil:
				l.buy(stripesim.CheckoutSpec{CustomerID: one})
			case strings.Contains(name, "looked at"):
				l.Sandbox.StripeFaults.Add(*rule)
			default:
				left = 1
				l.Sandbox.StripeFaults.Add(*rule)
			}
			if _, _, err := l.requests(l.actor(policies{})).Checkout(t.Context(), l.checkoutOf(user, "k1")); err == nil {
				t.Error("a checkout was opened all the same")
			}
			if n := l.openCheckouts(one) + l.openCheckouts(two); n != left {
				t.Errorf("%d checkouts are open, want %d", n, left)
			}
		})
	}
}

// openProductCheckout opens a checkout as an earlier request of ours did.
func (l *lab) openProductCheckout(user, customer, product string) {
	l.t.Helper()
	l.post("/v1/checkout/sessions", "mode", "subscription", "customer", customer, "line_items[0][price]", l.price, "line_items[0][quantity]", "1",
		"success_url", "https://app.example.com/ok", "metadata[clerk_user_id]", user, "metadata["+account.MetadataProduct+"]", product)
}

// What a checkout sells is what it sells at Stripe, whoever opened it and whatever they noted on
// it: one that sells what may not be held beside what is bought now is closed. One that sells no
// subscription, or what may be held beside others, is not.
func TestACheckoutOfSomebodyElsesMakingIsClosedToo(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, one, _ := l.withTwoCustomers()
	_, basic := l.other("Basic", nil)
	addOn, seats := l.other("Seats", map[string]string{"beside": "allow"})
	once := l.Sandbox.Stripe.AddProduct("Setup")
	setup := l.Sandbox.Stripe.AddPrice(once, 900, "")
	l.settle()
	for _, c := range []struct {
		mode, price, noted string
		want               account.CheckoutStatus
	}{
		{"subscription", l.price, "", account.CheckoutExpired},
		{"subscription", basic, "", account.CheckoutExpired},
		{"subscription", basic, addOn, account.CheckoutExpired},
		{"subscription", seats, "", account.CheckoutOpen},
		{"subscription", seats, "seats", account.CheckoutOpen},
		{"payment", setup, "", account.CheckoutOpen},
		{"payment", setup, once, account.CheckoutOpen},
		{"payment", setup, "42", account.CheckoutOpen},
	} {
		form := []string{"mode", c.mode, "customer", one, "line_items[0][price]", c.price, "line_items[0][quantity]", "1", "success_url", "https://app.example.com/ok"}
		if c.noted != "" {
			form = append(form, "metadata["+account.MetadataProduct+"]", c.noted)
		}
		theirs := l.post("/v1/checkout/sessions", form...)
		if _, _, err := l.requests(l.actor(policies{})).Checkout(t.Context(), l.checkoutOf(user, "")); err != nil {
			t.Fatal(err)
		}
		if status := l.stateOf(theirs); status != c.want {
			t.Errorf("what sells %s, noted as %q, is %s, want %s", c.price, c.noted, status, c.want)
		}
	}
}

// A customer who was missing once and is there again bills: nothing is sold beside what they have,
// before they were read again too.
func TestACustomerThatWasMissingIsAskedForWhatTheyHave(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, one, two := l.withTwoCustomers()
	l.buy(stripesim.CheckoutSpec{CustomerID: one})
	l.take()
	l.unpoked()
	l.exec(`UPDATE stripe_customers SET missing_since = now() WHERE stripe_customer_id = $1`, one)
	l.exec(`UPDATE person_user SET stripe_customer_id = $1`, two)
	_, basic := l.other("Basic", nil)
	l.exec(`UPDATE stripe_customers SET missing_since = now() WHERE stripe_customer_id = $1`, one)
	request := l.checkoutOf(user, "k1")
	request.PriceID = basic
	_, _, err := l.requests(l.actor(policies{})).Checkout(t.Context(), request)
	if code := refused(t, err); code != "other_subscription" {
		t.Errorf("beside what a customer has who was missing: %q", code)
	}
}

// The database fails after a checkout was begun: it is pending, and not refused as one that was not
// accepted. The same key finds what was opened.
func TestACheckoutWithoutADatabaseIsPending(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"INSERT INTO checkout_leases", "INSERT INTO stripe_requests"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			user, _ := l.signUp("ada")
			desk, relay := l.teller(2 * time.Second)
			relay.OnAnswer(func(sql string) {
				if strings.Contains(sql, at) {
					relay.OnAnswer(nil)
					relay.Cut()
				}
			})
			_, pending, err := desk.Checkout(t.Context(), l.checkoutOf(user, "k1"))
			if strings.Contains(at, "stripe_requests") {
				if code := refused(t, err); code != "provider_unavailable" && pending == nil {
					t.Errorf("refused with %q", code)
				}
			} else if err != nil || pending == nil || pending.Status != store.OperationAccepted {
				t.Errorf("told %+v, %v of a checkout that was begun", pending, err)
			}
			relay.Mend()
			l.exec(`UPDATE checkout_leases SET until = now() - interval '1 second'`)
			opened, _, err := l.requests(l.actor(policies{})).Checkout(t.Context(), l.checkoutOf(user, "k1"))
			l.must(err)
			if n := l.openCheckouts(l.customerOf(user)); n != 1 || opened.URL == "" {
				t.Errorf("%d checkouts are open, and %+v was answered", n, opened)
			}
		})
	}
}
