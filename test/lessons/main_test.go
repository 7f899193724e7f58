// Package lessons_test holds one test for each way in which programs that join Clerk and Stripe are
// known to go wrong. docs/lessons.md tells of them in the same order.
package lessons_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// servers are shared by the tests of this package; each test has a database and a namespace of
// its own on them.
var servers = system.NewServers()

func TestMain(m *testing.M) { goleak.VerifyTestMain(servers.Around(m), system.Leftover()) }

const party = "https://app.example.com"

// lesson is the running application, with one price that is in the catalogue.
type lesson struct {
	*system.System
	t     *testing.T
	price string
	http  *http.Client
}

func learn(t *testing.T, environ map[string]string) *lesson {
	t.Helper()
	o := system.Options{Sandbox: sandbox.Options{WebhookConcurrency: 4}, Environ: map[string]string{"CLERK_AUTHORIZED_PARTIES": party, "COMMAND_WAIT": "45s"}}
	maps.Copy(o.Environ, environ)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	l := &lesson{System: system.Start(t, servers, o), t: t, http: &http.Client{Transport: transport, Timeout: time.Minute}}
	l.price = l.Sandbox.Stripe.AddPrice(l.Sandbox.Stripe.AddProduct("Pro"), 2000, "month")
	l.counts("the price is in the catalogue", 1, `SELECT count(*) FROM plan_prices WHERE stripe_price_id = $1`, l.price)
	return l
}

func (l *lesson) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// counts waits until a query counts so many.
func (l *lesson) counts(what string, want int, sql string, args ...any) {
	l.t.Helper()
	l.Until(what, func(context.Context) error {
		if n := l.Count(sql, args...); n != want {
			return fmt.Errorf("counted %d, want %d", n, want)
		}
		return nil
	})
}

// user signs up.
func (l *lesson) user(name string) string {
	return l.Sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: name, LastName: "Lovelace", Emails: []clerksim.EmailSpec{{Address: strings.ToLower(name) + "@example.com", Verified: true}}})
}

// customer waits for the one that a user has been given.
func (l *lesson) customer(user string) (id string) {
	l.t.Helper()
	l.Until("the user has a customer", func(ctx context.Context) error {
		return l.Row(ctx, `SELECT stripe_customer_id FROM person_user WHERE clerk_user_id = $1 AND stripe_customer_id IS NOT NULL`, []any{user}, &id)
	})
	return id
}

// buys completes a checkout, and waits for nothing.
func (l *lesson) buys(user, customer string) (subscription string) {
	l.t.Helper()
	done, err := l.Sandbox.Stripe.CompleteCheckout(l.t.Context(), stripesim.CheckoutSpec{CustomerID: customer, ClientReferenceID: user, PriceID: l.price})
	l.must(err)
	return done.SubscriptionID
}

// subscriber has bought, and everybody knows.
func (l *lesson) subscriber(name string) (user, customer, subscription string) {
	l.t.Helper()
	user = l.user(name)
	customer = l.customer(user)
	subscription = l.buys(user, customer)
	l.counts("the subscription is stored", 1, `SELECT count(*) FROM subscriptions WHERE stripe_subscription_id = $1`, subscription)
	l.settled(user)
	return user, customer, subscription
}

// settled waits until nothing is under way, and the three systems agree about the user.
func (l *lesson) settled(user string) {
	l.t.Helper()
	l.Quiet(true)
	l.Agree(user, account.AccessPolicy{PastDueGrace: 72 * time.Hour})
}

// told is what Clerk holds of a user.
func (l *lesson) told(user string) (p account.Projection) {
	l.t.Helper()
	text, err := json.Marshal(l.Sandbox.Clerk.PublicMetadata(user)["stripe"])
	l.must(err)
	l.must(json.Unmarshal(text, &p))
	return p
}

// hasAccess fails the test unless the user has it, or has not, wherever one can ask.
func (l *lesson) hasAccess(user string, want bool) {
	l.t.Helper()
	if got := l.told(user).SubscriptionActive; got != want {
		l.t.Errorf("Clerk says that access is %t, want %t", got, want)
	}
	if n := l.Count(`SELECT count(*) FROM person_user WHERE clerk_user_id = $1 AND (projection ->> 'subscriptionActive')::boolean = $2`, user, want); n != 1 {
		l.t.Errorf("PostgreSQL does not say that access is %t", want)
	}
}

// held takes the webhooks of Stripe that wait to be sent, once all of them are there.
func (l *lesson) held() []delivery.Message {
	l.t.Helper()
	l.must(l.Sandbox.Stripe.Settled(l.t.Context()))
	messages := l.Sandbox.StripeWebhooks.TakeHeld()
	if len(messages) == 0 {
		l.t.Fatal("no webhook was held back")
	}
	return messages
}

// delivers has each message taken.
func (l *lesson) delivers(messages ...delivery.Message) {
	l.t.Helper()
	for _, m := range messages {
		if status, err := l.Sandbox.StripeWebhooks.Deliver(l.t.Context(), m); err != nil || status != http.StatusOK {
			l.t.Errorf("%s was answered %d, %v", m.ID, status, err)
		}
	}
}

// backwards is the messages in the wrong order.
func backwards(messages []delivery.Message) []delivery.Message {
	slices.Reverse(messages)
	return messages
}

// asks makes a request of the API as a user, with a token of their session.
func (l *lesson) asks(token, method, path, body string) (status int, answer string) {
	l.t.Helper()
	request, err := http.NewRequestWithContext(l.t.Context(), method, l.URL()+path, strings.NewReader(body))
	l.must(err)
	request.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	got, err := l.http.Do(request)
	l.must(err)
	defer func() { _ = got.Body.Close() }()
	text, err := io.ReadAll(got.Body)
	l.must(err)
	return got.StatusCode, string(text)
}

func (l *lesson) token(user string) string {
	return l.Sandbox.Clerk.SessionToken(clerksim.TokenSpec{UserID: user, AZP: party})
}

// done fails the test unless the request is answered 200.
func (l *lesson) done(user, path, body string) {
	l.t.Helper()
	if status, answer := l.asks(l.token(user), http.MethodPost, path, body); status != http.StatusOK {
		l.t.Errorf("POST %s was answered %d %s", path, status, answer)
	}
}

// atStripe is a subscription as Stripe has it.
func (l *lesson) atStripe(id string) (s struct {
	Status            string `json:"status"`
	CancelAtPeriodEnd bool   `json:"cancel_at_period_end"`
	CancelAt          *int64 `json:"cancel_at"`
}) {
	l.t.Helper()
	raw, ok := l.Sandbox.Stripe.Subscription(id)
	if !ok {
		l.t.Fatalf("Stripe has no subscription %s", id)
	}
	l.must(json.Unmarshal(raw, &s))
	return s
}

// endsByItself tells whether Stripe has an end for a subscription.
func (l *lesson) endsByItself(id string) bool {
	l.t.Helper()
	s := l.atStripe(id)
	return s.CancelAtPeriodEnd || s.CancelAt != nil
}

// event is the last event of a type that Stripe made.
func (l *lesson) event(kind string) stripesim.Event {
	l.t.Helper()
	for _, e := range backwardEvents(l.Sandbox.Stripe.Events()) {
		if e.Type == kind {
			return e
		}
	}
	l.t.Fatalf("Stripe has no event %s", kind)
	return stripesim.Event{}
}

func backwardEvents(events []stripesim.Event) []stripesim.Event {
	slices.Reverse(events)
	return events
}

// another is the same event once more, under an id of its own and changed.
func (l *lesson) another(e stripesim.Event, id string, change func(object map[string]any)) delivery.Message {
	l.t.Helper()
	var body map[string]any
	decoder := json.NewDecoder(bytes.NewReader(e.Body))
	decoder.UseNumber()
	l.must(decoder.Decode(&body))
	body["id"] = id
	change(body)
	text, err := json.Marshal(body)
	l.must(err)
	return delivery.Message{ID: id, Body: text}
}

// object is what an event is about.
func object(body map[string]any) map[string]any {
	data, _ := body["data"].(map[string]any)
	inner, _ := data["object"].(map[string]any)
	return inner
}

// stripe asks Stripe itself, as the team's own programs and its dashboard do.
func (l *lesson) stripe(path string, form url.Values) {
	l.t.Helper()
	request, err := http.NewRequestWithContext(l.t.Context(), http.MethodPost, l.Sandbox.StripeURL()+path, strings.NewReader(form.Encode()))
	l.must(err)
	request.Header.Set("Authorization", "Bearer "+l.Sandbox.StripeSecretKey)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := l.http.Do(request)
	l.must(err)
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		l.must(errors.New("Stripe answered " + answer.Status))
	}
}

// requests counts what Stripe or Clerk was asked, by a part of the route.
func requests(counted map[string]int, part string) (n int) {
	for route, times := range counted {
		if strings.Contains(route, part) {
			n += times
		}
	}
	return n
}
