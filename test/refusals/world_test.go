package refusals_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// world is a running application with one paying user in it, at rest: something to lose.
type world struct {
	*system.System
	t                              *testing.T
	product, price                 string
	user, customer, subscriptionID string
}

func newWorld(t *testing.T, o system.Options) *world {
	t.Helper()
	w := &world{System: system.Start(t, servers, o), t: t}
	w.addPrice()
	w.user = w.signUp(clerksim.UserSpec{FirstName: "Ada", LastName: "Lovelace", Emails: []clerksim.EmailSpec{{Address: "ada@example.com", Verified: true}}})
	w.customer = w.customerOf(w.user)
	bought, err := w.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{CustomerID: w.customer, PriceID: w.price, ClientReferenceID: w.user})
	if err != nil {
		t.Fatal(err)
	}
	w.subscriptionID = bought.SubscriptionID
	w.hasAccess(w.user)
	w.Rest()
	return w
}

func (w *world) addPrice() {
	w.product = w.Sandbox.Stripe.AddProduct("Pro")
	w.price = w.Sandbox.Stripe.AddPrice(w.product, 2000, "month")
	w.Until("the price is known", func(context.Context) error {
		if w.Count(`SELECT count(*) FROM plan_prices WHERE stripe_price_id = $1`, w.price) != 1 {
			return errors.New("not yet")
		}
		return nil
	})
}

// signUp adds a user and waits until they have a customer and Clerk says so.
func (w *world) signUp(spec clerksim.UserSpec) string {
	w.t.Helper()
	user := w.Sandbox.Clerk.AddUser(spec)
	w.Until("the user has a customer", func(context.Context) error {
		held, _ := w.Sandbox.Clerk.PublicMetadata(user)["stripe"].(map[string]any)
		if held["customerId"] == nil {
			return fmt.Errorf("Clerk holds %v", held)
		}
		return nil
	})
	w.Rest()
	return user
}

func (w *world) customerOf(user string) (customer string) {
	w.t.Helper()
	if err := w.Row(w.t.Context(), `SELECT coalesce(stripe_customer_id, '') FROM person_user WHERE clerk_user_id = $1`, []any{user}, &customer); err != nil {
		w.t.Fatal(err)
	}
	return customer
}

// hasAccess waits until Clerk says that a user's subscription is active.
func (w *world) hasAccess(user string) {
	w.t.Helper()
	w.Until("Clerk says that the user has access", func(context.Context) error {
		held, _ := w.Sandbox.Clerk.PublicMetadata(user)["stripe"].(map[string]any)
		if held["subscriptionActive"] != true {
			return fmt.Errorf("Clerk holds %v", held)
		}
		return nil
	})
}

// state is all that a refusal must leave alone: the tables, Stripe, Clerk, and how often the
// providers were asked.
type state map[string]string

// tables are compared as a whole. Pokes that were done are forgotten by and by, so of those only
// what came after the numbers stood at $1 counts.
func (w *world) state(since int) state {
	w.t.Helper()
	conn, err := pgx.Connect(w.t.Context(), w.DSN)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	s := state{}
	for _, table := range []string{"webhook_events", "person_user", "stripe_customers", "customer_claims", "subscriptions", "subscription_changes",
		"payments", "audit_log", "drift", "provider_identity", "plans", "plan_prices"} {
		s[table] = w.text(conn, `SELECT coalesce(string_agg(t::text, E'\n' ORDER BY t::text), '') FROM `+table+` t`)
	}
	s["pokes"] = w.text(conn, `SELECT coalesce(string_agg(t::text, E'\n' ORDER BY t::text), '') FROM pokes t WHERE token > `+fmt.Sprint(since))
	s["Stripe"] = fmt.Sprint(w.Sandbox.Stripe.Counts(), slices.Collect(stringsOf(w.Sandbox.Stripe.Customers())))
	for _, id := range w.Sandbox.Clerk.Users() {
		raw, _ := w.Sandbox.Clerk.User(id)
		s["Clerk"] += string(raw) + "\n"
	}
	for provider, requests := range map[string]map[string]int{"Clerk": w.Sandbox.ClerkFaults.Requests(), "Stripe": w.Sandbox.StripeFaults.Requests()} {
		// Both programs look at their keys once in a while.
		delete(requests, "GET /v1/instance")
		delete(requests, "GET /v1/account")
		s[provider+" requests"] = fmt.Sprint(requests)
	}
	return s
}

func (w *world) text(conn *pgx.Conn, sql string) (text string) {
	w.t.Helper()
	if err := conn.QueryRow(w.t.Context(), sql).Scan(&text); err != nil {
		w.t.Fatal(err)
	}
	return text
}

func (w *world) number() int { return w.Count(`SELECT last_value FROM sync_seq`) }

// unchanged fails the test for each part of the state that is not as it was.
func (s state) unchanged(t *testing.T, now state) {
	t.Helper()
	for _, part := range slices.Sorted(maps.Keys(s)) {
		if s[part] != now[part] {
			t.Errorf("%s changed.\nbefore: %s\nafter:  %s", part, s[part], now[part])
		}
	}
}

// without is the state but for some parts.
func (s state) without(parts ...string) state {
	rest := maps.Clone(s)
	for _, part := range parts {
		delete(rest, part)
	}
	return rest
}

// event is a row of webhook_events.
type event struct {
	Type, Entity, Status, Reason string
	Payload                      bool
}

// event reads the row of an event; ok is false if there is none.
func (w *world) event(source, id string) (e event, ok bool) {
	w.t.Helper()
	err := w.Row(w.t.Context(), `SELECT type, coalesce(entity, ''), status, coalesce(reason, ''), payload IS NOT NULL FROM webhook_events
		WHERE source = $1 AND event_id = $2`, []any{source, id}, &e.Type, &e.Entity, &e.Status, &e.Reason, &e.Payload)
	if errors.Is(err, pgx.ErrNoRows) {
		return e, false
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return e, true
}

// clerkEvent is a delivery of Clerk's about our user. Changes replace fields of the event.
func (w *world) clerkEvent(kind string, changes map[string]any) delivery.Message {
	return message("msg_", "", map[string]any{"object": "event", "type": kind, "timestamp": time.Now().UnixMilli(),
		"instance_id": w.Sandbox.Clerk.InstanceID(), "data": map[string]any{"id": w.user, "object": "user", "deleted": true}}, changes)
}

// stripeEvent is a delivery of Stripe's about our customer, which claims them for somebody else.
func (w *world) stripeEvent(kind string, changes map[string]any) delivery.Message {
	return message("evt_", "id", map[string]any{"object": "event", "type": kind, "created": time.Now().Unix(), "livemode": false, "api_version": "2023-10-16",
		"data": map[string]any{"object": map[string]any{"id": w.subscriptionID, "object": "subscription", "customer": w.customer, "status": "canceled",
			"metadata": map[string]any{"clerk_user_id": "user_2somebodyelse"}}}}, changes)
}

func message(prefix, idField string, fields, changes map[string]any) delivery.Message {
	id := prefix + rand.Text()
	if idField != "" {
		fields[idField] = id
	}
	maps.Copy(fields, changes)
	body, err := json.Marshal(fields)
	if err != nil {
		panic(err) // maps of plain values
	}
	return delivery.Message{ID: id, Body: body}
}

// on is the world as one of a test's parts sees it.
func (w *world) on(t *testing.T) *world {
	t.Helper()
	part := *w
	part.t = t
	return &part
}

// post sends a request to starter-api and answers status, headers and body. A body that is too large
// is refused before it is sent, and the connection ends soon after: a large one is announced, so that
// the answer is not lost with the connection.
func (w *world) post(method, path string, header http.Header, body []byte) (*http.Response, problem) {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.t.Context(), method, w.URL()+path, strings.NewReader(string(body)))
	if err != nil {
		w.t.Fatal(err)
	}
	request.Header = header
	if len(body) > 1<<20 {
		request.Header = header.Clone()
		request.Header.Set("Expect", "100-continue")
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, ExpectContinueTimeout: system.Patience()}}
	response, err := client.Do(request)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = response.Body.Close() }()
	var p problem
	if err := json.NewDecoder(response.Body).Decode(&p); err != nil {
		w.t.Fatalf("%s %s: answered %d with a body that is not JSON: %v", method, path, response.StatusCode, err)
	}
	return response, p
}

// problem is what the answers of the endpoints have in common.
type problem struct {
	Status int    `json:"status"`
	Code   string `json:"code"`
	Result string `json:"result"`
}

func policy() account.AccessPolicy { return account.AccessPolicy{PastDueGrace: 72 * time.Hour} }
