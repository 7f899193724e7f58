package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/client"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// party is the origin of the product's pages.
const party = "https://app.example.com"

// world is the running application with a product to sell.
type world struct {
	*system.System
	t              *testing.T
	product, price string
	http           *http.Client
}

// start runs the programs and waits until the price is in the catalogue.
func start(t *testing.T, environ map[string]string) *world {
	t.Helper()
	// A command is waited for as long as a busy machine takes, so that 202 is answered where a test
	// asks for it.
	o := system.Options{Environ: map[string]string{"CLERK_AUTHORIZED_PARTIES": party, "ADMIN_USER_IDS": adminID, "COMMAND_WAIT": "45s"}}
	maps.Copy(o.Environ, environ)
	return furnish(t, system.Start(t, servers, o))
}

// adminID is a user whom the configuration makes an admin.
const adminID = "user_2theAdmin"

func furnish(t *testing.T, s *system.System) *world {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	w := &world{System: s, t: t, http: &http.Client{Transport: transport, Timeout: time.Minute}}
	w.product = s.Sandbox.Stripe.AddProduct("Pro")
	w.price = w.addPrice(w.product, 2000)
	return w
}

func (w *world) addPrice(product string, amount int64) string {
	w.t.Helper()
	price := w.Sandbox.Stripe.AddPrice(product, amount, "month")
	w.Until("the price is in the catalogue", func(context.Context) error {
		if w.Count(`SELECT count(*) FROM plan_prices WHERE stripe_price_id = $1`, price) != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	return price
}

// person is somebody who asks.
type person struct {
	w            *world
	user         string
	customer     string
	subscription string
	api          *client.ClientWithResponses
}

// somebody is a user of Clerk of whom nothing else is known yet.
func (w *world) somebody(name string) *person {
	w.t.Helper()
	user := w.Sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: name, LastName: "Lovelace",
		Emails: []clerksim.EmailSpec{{Address: strings.ToLower(name) + "@example.com", Verified: true}}})
	return w.as(user)
}

// as asks as a user.
func (w *world) as(user string) *person {
	w.t.Helper()
	p := &person{w: w, user: user}
	api, err := client.Connect(w.URL(), func(context.Context) (string, error) { return p.token(), nil }, w.http)
	if err != nil {
		w.t.Fatal(err)
	}
	p.api = api
	return p
}

// customerOf waits until a user is onboarded.
func (p *person) onboarded() *person {
	p.w.t.Helper()
	p.w.Until("the user has a customer", func(ctx context.Context) error {
		return p.w.Row(ctx, `SELECT stripe_customer_id FROM person_user WHERE clerk_user_id = $1 AND stripe_customer_id IS NOT NULL`, []any{p.user}, &p.customer)
	})
	return p
}

// subscriber is a user with an active subscription, known everywhere.
func (w *world) subscriber(name string) *person {
	w.t.Helper()
	p := w.somebody(name).onboarded()
	return p.buys(stripesim.CheckoutSpec{PriceID: w.price})
}

// buys completes a checkout and waits until all three systems know.
func (p *person) buys(spec stripesim.CheckoutSpec) *person {
	p.w.t.Helper()
	spec.CustomerID, spec.ClientReferenceID = p.customer, p.user
	bought, err := p.w.Sandbox.Stripe.CompleteCheckout(p.w.t.Context(), spec)
	if err != nil {
		p.w.t.Fatal(err)
	}
	p.subscription = bought.SubscriptionID
	p.w.Until("the subscription is stored", func(context.Context) error {
		if p.w.Count(`SELECT count(*) FROM subscriptions WHERE stripe_subscription_id = $1`, p.subscription) != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	p.w.Quiet(true)
	p.agrees()
	return p
}

// agrees fails the test unless the three systems come to agree about the person.
func (p *person) agrees() {
	p.w.t.Helper()
	p.w.Agree(p.user, policy())
}

func (p *person) token() string {
	return p.w.Sandbox.Clerk.SessionToken(clerksim.TokenSpec{UserID: p.user, AZP: party})
}

// ends is how Stripe says that the person's subscription ends: status, flag, date.
func (p *person) ends() string {
	p.w.t.Helper()
	for _, raw := range p.w.Sandbox.Stripe.Subscriptions(p.customer) {
		var s struct {
			ID                string `json:"id"`
			Status            string `json:"status"`
			CancelAtPeriodEnd bool   `json:"cancel_at_period_end"`
			CancelAt          *int64 `json:"cancel_at"`
		}
		if err := json.Unmarshal(raw, &s); err != nil {
			p.w.t.Fatal(err)
		}
		if s.ID != p.subscription {
			continue
		}
		switch {
		case s.CancelAtPeriodEnd:
			return s.Status + ", ends with its period"
		case s.CancelAt != nil:
			return s.Status + ", ends by date"
		default:
			return s.Status
		}
	}
	return "missing"
}

// reply is an answer.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// code is the problem's code, "" if it is none.
func (r reply) code() string { return r.text("code") }

func (r reply) text(name string) string {
	var document map[string]any
	if json.Unmarshal(r.body, &document) != nil {
		return ""
	}
	text, _ := document[name].(string)
	return text
}

func (r reply) String() string { return fmt.Sprintf("%d %s", r.status, bytes.TrimSpace(r.body)) }

// ask makes a request. Every answer has to be as the description says.
func (w *world) ask(method, path, body string, header map[string]string) reply {
	w.t.Helper()
	r, err := w.try(w.t.Context(), method, path, body, header)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// try is ask for where the connection may break.
func (w *world) try(ctx context.Context, method, path, body string, header map[string]string) (reply, error) {
	w.t.Helper()
	request, err := http.NewRequestWithContext(ctx, method, w.URL()+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for name, value := range header {
		request.Header.Set(name, value)
	}
	answer, err := w.http.Do(request)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = answer.Body.Close() }()
	read, err := io.ReadAll(answer.Body)
	if err != nil {
		return reply{}, err
	}
	d, err := described()
	if err != nil {
		w.t.Fatal(err)
	}
	r := reply{answer.StatusCode, answer.Header, read}
	if r.code() == "route_not_found" || r.code() == "method_not_allowed" {
		return r, nil // there is nothing there to be described
	}
	for _, fault := range d.undescribed(request, answer, read) {
		w.t.Errorf("%s %s was answered %d %s, which is not described: %s", method, path, answer.StatusCode, bytes.TrimSpace(read), fault)
	}
	return r, nil
}

// asks makes a request with the person's own token.
func (p *person) asks(method, path, body string) reply {
	p.w.t.Helper()
	return p.w.ask(method, path, body, map[string]string{"Authorization": "Bearer " + p.token()})
}

// asksWith is asks under an Idempotency-Key.
func (p *person) asksWith(key, method, path, body string) reply {
	p.w.t.Helper()
	return p.w.ask(method, path, body, map[string]string{"Authorization": "Bearer " + p.token(), "Idempotency-Key": key})
}

// want fails the test unless an answer has this status and, of problems, this code.
func want(t *testing.T, r reply, status int, code string) {
	t.Helper()
	if r.status != status || r.code() != code {
		t.Errorf("answered %s, want %d %s", r, status, code)
	}
}

func policy() account.AccessPolicy { return account.AccessPolicy{PastDueGrace: 72 * time.Hour} }

// outage answers everything as a provider does that is down.
func outage() faults.Rule { return faults.Rule{Status: http.StatusServiceUnavailable, HTML: true} }

// refusal refuses requests of one kind for good.
func refusal(method, prefix string) faults.Rule {
	return faults.Rule{Method: method, PathPrefix: prefix, Status: http.StatusBadRequest}
}

// fresh is the same person, asking at the address that the API has now.
func (p *person) fresh() *person {
	again := p.w.as(p.user)
	again.customer, again.subscription = p.customer, p.subscription
	return again
}

// numberFrom answers the number in an environment variable.
func numberFrom(t *testing.T, variable string, otherwise int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s must be a number from 1", variable)
	}
	return n
}
