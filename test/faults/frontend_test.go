//go:build faults && linux

package faults_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// frontEnd asks the API on behalf of people, as the product's pages do: with an Idempotency-Key,
// and again with the same one where no answer came or one that says later.
type frontEnd struct {
	s    *stage
	http *http.Client

	mu       sync.Mutex
	commands []*command
	asked    int
}

// command is one wish, and what its caller was told of it in the end.
type command struct {
	kind      string
	user      string
	during    faultSet // what was broken while it was under way
	operation string   // its id, "" where none was named
	told      string   // "done", or the code of why not
	status    string   // of the operation, by what was told
	attempts  int
	began     time.Time
	took      time.Duration
	forgotten bool     // PostgreSQL was restored as it had been before it was told, so that what it holds proves nothing
	wrong     []string // in what the systems were otherwise than it was told
}

func newFrontEnd(s *stage) *frontEnd {
	f := &frontEnd{s: s, http: &http.Client{Timeout: 40 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 32, IdleConnTimeout: 5 * time.Second}}}
	s.t.Cleanup(f.http.CloseIdleConnections)
	return f
}

// all answers the commands so far; they are not written any more once the crowd has come to rest.
func (f *frontEnd) all() []*command {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*command(nil), f.commands...)
}

// summary tells what callers were told, and how long they waited for it.
func (f *frontEnd) summary() string {
	all := f.all()
	told := map[string]int{}
	took := make([]time.Duration, len(all))
	for i, c := range all {
		told[c.kind+": "+c.told]++
		took[i] = c.took
	}
	slices.Sort(took)
	if len(took) == 0 {
		return "nobody asked for anything"
	}
	return fmt.Sprintf("what callers were told: %v; known after %s on the median, %s of the last tenth, %s at most", told,
		took[len(took)/2].Round(time.Millisecond), took[len(took)*9/10].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
}

func (f *frontEnd) begin(kind, user string) *command {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	c := &command{kind: kind, user: user, began: time.Now(), during: f.s.now()}
	f.commands = append(f.commands, c)
	return c
}

// How long people go on asking. What outlives the longest fault by that much has failed.
const patience = 10 * time.Minute

// answer is what the API said.
type answer struct {
	status     int
	retryAfter time.Duration
	Code       string `json:"code"`
	Operation  string `json:"operation"`
	ID         string `json:"id"`     // of a checkout
	Status     any    `json:"status"` // a problem's is a number, an operation's a word
	Reason     string `json:"reason"`
	Settled    bool   `json:"settled"`
	// Data is what is said of a user's subscription.
	Data *struct {
		Clerk    map[string]any `json:"clerk"`
		Database map[string]any `json:"database"`
		InSync   *bool          `json:"inSync"`
	} `json:"data"`
}

// order asks for something until it is known what became of it.
func (f *frontEnd) order(ctx context.Context, c *command, path, body string) (answer, error) {
	f.mu.Lock()
	key := fmt.Sprintf("%s-%d-%d", strings.ReplaceAll(c.kind, " ", "-"), f.asked, time.Now().UnixNano())
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	refused := 0
	for {
		c.during |= f.s.now()
		c.attempts++
		a, err := f.ask(ctx, c.user, http.MethodPost, path, body, key)
		pause := 500 * time.Millisecond
		switch {
		case err != nil: // the connection broke, or the balancer has nobody: ask again
		case a.status == http.StatusAccepted:
			ended, err := f.follow(ctx, c, a)
			if err == nil && ended.Reason == store.Interrupted {
				continue // the same key goes on with it
			}
			if err != nil || c.kind != "checkout" || ended.Status != "done" {
				return ended, err
			}
			// What it waited for is done; the session is in the answer to the same request.
		case a.Code == "operation_not_found" && f.s.forgot(c.began, time.Now()):
			return answer{Code: codeForgotten}, nil // PostgreSQL was restored while the caller waited
		case a.status == http.StatusOK:
			return a, nil
		case a.status == http.StatusServiceUnavailable || a.status == http.StatusInternalServerError:
			// Nothing was done, and the key may say so for good: a person gives up after a while.
			if refused++; refused > 40 {
				return a, nil
			}
			pause = max(pause, a.retryAfter)
		default:
			return a, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return answer{}, fmt.Errorf("no answer within %s, the last %+v (%w)", patience, a, err)
		}
	}
}

// follow asks for an operation until it has ended.
func (f *frontEnd) follow(ctx context.Context, c *command, accepted answer) (answer, error) {
	if accepted.Operation == "" {
		return answer{}, errors.New("accepted without an operation")
	}
	for {
		c.during |= f.s.now()
		a, err := f.ask(ctx, c.user, http.MethodGet, accepted.Operation, "", "")
		if err == nil && a.status == http.StatusOK && a.Settled {
			a.Operation = accepted.Operation
			return a, nil
		}
		if err == nil && a.status == http.StatusNotFound && f.s.forgot(c.began, time.Now()) {
			c.forgotten = true
			return answer{Operation: accepted.Operation, Code: codeForgotten}, nil
		}
		if err == nil && a.status == http.StatusNotFound {
			return answer{}, fmt.Errorf("the operation that was accepted, %s, is not known", accepted.Operation)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return answer{}, fmt.Errorf("operation %s has not ended within %s: %+v (%w)", accepted.Operation, patience, a, err)
		}
	}
}

var errNobody = errors.New("nobody answers for the API")

func (f *frontEnd) ask(ctx context.Context, user, method, path, body, key string) (answer, error) {
	var content io.Reader = http.NoBody
	if body != "" {
		content = strings.NewReader(body)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+f.s.balancer.address+path, content)
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("Authorization", "Bearer "+f.s.Sandbox.Clerk.SessionToken(clerksim.TokenSpec{UserID: user, AZP: party}))
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		request.Header.Set("Idempotency-Key", key)
	}
	response, err := f.http.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	read, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{}
	if json.Unmarshal(read, &a) != nil {
		return answer{}, errNobody
	}
	a.status = response.StatusCode
	if seconds, err := time.ParseDuration(response.Header.Get("Retry-After") + "s"); err == nil {
		a.retryAfter = min(seconds, 5*time.Second)
	}
	return a, nil
}

// party is the origin of the product's pages.
const party = "https://app.example.com"

// tell notes what a command's caller was told.
func (c *command) tell(a answer, err error) bool {
	c.took = time.Since(c.began)
	c.operation = strings.TrimPrefix(a.Operation, "/api/operations/")
	switch {
	case err != nil:
		c.told = "nothing"
		c.wrong = append(c.wrong, err.Error())
	case a.Code != "":
		c.told = a.Code
		if !slices.Contains(refusals(), a.Code) {
			c.blame("told %q, for which there is no reason", a.Code)
		}
	case a.Settled:
		c.status, _ = a.Status.(string)
		c.told = c.status
		if a.Reason != "" {
			c.told += " (" + a.Reason + ")"
		}
	default:
		c.told, c.status = "done", "done"
	}
	return c.status == "done"
}

// codeForgotten stands for an operation that was accepted, and of which a PostgreSQL that was
// restored knows nothing. Its caller was told nothing that could be untrue.
const codeForgotten = "forgotten"

// refusals are what a caller may be told who asks for nothing wrong: the state does not allow it
// any more, the subscription is so new that nobody has told of it yet, or it could not be begun.
func refusals() []string {
	return []string{"subscription_ended", "first_payment_open", "already_subscribed", "other_subscription", "checkout_expired", "checkout_completed", "superseded", "subscription_not_found",
		"not_accepted", "provider_unavailable", "checkout_in_progress", codeForgotten}
}

// ask has somebody ask for something, waits until they are told what became of it, and looks
// whether it is so.
func (c *crowd) ask(ctx context.Context) {
	m := c.someone()
	if m == nil {
		return
	}
	defer m.mu.Unlock()
	defer func() { m.touched |= c.s.now() }()
	roll := c.chance(100)
	sub := c.subscription(ctx, m)
	switch {
	case roll < 8:
		c.look(ctx, m)
	case roll < 20 || m.customer == "" && len(m.former) == 0:
		c.sync(ctx, m)
	case sub == nil:
		c.buy(ctx, m)
	case roll < 70 && sub.ends():
		c.command(ctx, m, sub, "reactivate", "/api/subscriptions/"+sub.ID+"/reactivate", "")
	case roll < 85:
		c.command(ctx, m, sub, "cancel", "/api/subscriptions/"+sub.ID+"/cancel", "")
	default:
		c.command(ctx, m, sub, "cancel now", "/api/subscriptions/"+sub.ID+"/cancel", `{"at":"now"}`)
	}
}

// statePath is where a person is told of their subscription.
const statePath = "/api/sync/clerk-stripe"

// look has a person look at their subscription, and holds what they are told to itself: what is
// said to agree is the same, and of a subscription it is said whether it ends.
func (c *crowd) look(ctx context.Context, m *member) {
	cmd := c.api.begin("look", m.user)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var a answer
	for {
		var err error
		cmd.during |= c.s.now()
		cmd.attempts++
		// It may be that nobody answers, that the database is away, or that Clerk is, from whom a user is
		// read whom nobody knows yet, or that such a user is about to be read.
		a, err = c.api.ask(ctx, m.user, http.MethodGet, statePath, "", "")
		if err == nil && a.status != http.StatusServiceUnavailable && a.status != http.StatusAccepted {
			break
		}
		select {
		case <-time.After(500 * time.Millisecond):
			continue
		case <-ctx.Done():
			cmd.tell(answer{}, fmt.Errorf("no answer within %s, the last %+v (%w)", patience, a, err))
			return
		}
	}
	cmd.tell(a, nil)
	if a.status == http.StatusOK && a.Data != nil {
		cmd.consistent(a)
	}
}

// consistent holds what was said of a subscription to itself.
func (c *command) consistent(a answer) {
	// More is compared there than here, so that what is the same here may not be in sync.
	if a.Data.InSync != nil && *a.Data.InSync && !same(a.Data.Clerk, a.Data.Database) {
		c.blame("told in sync, with Clerk %v and the database %v", a.Data.Clerk, a.Data.Database)
	}
	for where, held := range map[string]map[string]any{"Clerk": a.Data.Clerk, "the database": a.Data.Database} {
		_, exists := held["subscriptionId"]
		for _, field := range []string{"subscriptionActive", "cancelAtPeriodEnd"} {
			if _, said := held[field].(bool); exists && !said {
				c.blame("told of a subscription that %s holds, and not %s: %v", where, field, held)
			}
		}
	}
}

// same tells whether Clerk and the database hold the same of a subscription.
func same(clerk, database map[string]any) bool {
	for _, field := range []string{"subscriptionId", "status", "priceId", "currentPeriodEnd", "cancelAtPeriodEnd", "cancelAt"} {
		if clerk[field] != database[field] {
			return false
		}
	}
	return true
}

// sync has a person read anew. Their name is theirs alone to change, and they do nothing else
// meanwhile.
func (c *crowd) sync(ctx context.Context, m *member) {
	cmd := c.api.begin("sync", m.user)
	path, body := "/api/users/me/sync", ""
	if c.chance(2) == 0 {
		path, body = "/api/sync/clerk-stripe", `{"action":"sync-user"}`
	}
	if !cmd.tell(c.api.order(ctx, cmd, path, body)) {
		return
	}
	raw, _ := c.s.Sandbox.Clerk.User(m.user)
	var user struct {
		FirstName string `json:"first_name"`
	}
	if err := json.Unmarshal(raw, &user); err != nil {
		cmd.wrong = append(cmd.wrong, err.Error())
		return
	}
	cmd.see(ctx, c.s, `SELECT coalesce((SELECT first_name = $2 FROM person_user WHERE clerk_user_id = $1), false)`, "PostgreSQL does not have the name", m.user, user.FirstName)
}

// command has a person change how their subscription ends, and looks at all three systems when they
// are told.
func (c *crowd) command(ctx context.Context, m *member, before *stripeSub, kind, path, body string) {
	cmd := c.api.begin(kind, m.user)
	done := cmd.tell(c.api.order(ctx, cmd, path, body))
	if cmd.told == "nothing" || cmd.told == codeForgotten {
		return
	}
	now, found := c.find(m, before.ID)
	if !found {
		cmd.wrong = append(cmd.wrong, "Stripe does not have the subscription any more")
		return
	}
	// Stripe's clock goes on meanwhile: a subscription that is over has ended by itself, or by this.
	switch {
	case cmd.told == "subscription_ended" && !now.over():
		cmd.wrong = append(cmd.wrong, "told that it has ended, and Stripe says "+now.Status)
	case now.over():
		if kind == "cancel now" && !done && !before.ends() && !m.unpaying {
			cmd.wrong = append(cmd.wrong, fmt.Sprintf("told %q, and Stripe has ended the subscription", cmd.told))
		}
	case !done && now.ends() != before.ends():
		cmd.wrong = append(cmd.wrong, fmt.Sprintf("told %q, and Stripe says that it ends: %t, before %t", cmd.told, now.ends(), before.ends()))
	case done && kind == "cancel now":
		cmd.wrong = append(cmd.wrong, "told done, and Stripe says "+now.Status)
	case done && now.ends() != (kind == "cancel"):
		cmd.wrong = append(cmd.wrong, fmt.Sprintf("told done, and Stripe says that it ends: %t", now.ends()))
	}
	if !done {
		return
	}
	cmd.see(ctx, c.s, `SELECT coalesce((SELECT CASE $2 WHEN 'cancel now' THEN status = 'canceled' WHEN 'cancel' THEN status = 'canceled' OR cancel_at_period_end OR cancel_at IS NOT NULL
		ELSE status = 'canceled' OR NOT cancel_at_period_end AND cancel_at IS NULL END FROM subscriptions WHERE stripe_subscription_id = $1), false)`,
		"PostgreSQL does not have it", before.ID, kind)
	c.published(cmd, m, before.ID, kind)
}

// published looks for what was commanded in what Clerk holds for front ends.
func (c *crowd) published(cmd *command, m *member, subscription, kind string) {
	held, _ := c.s.Sandbox.Clerk.PublicMetadata(m.user)["stripe"].(map[string]any)
	if held["subscriptionId"] != subscription || c.s.forgot(cmd.began, time.Now()) {
		return // another leads by now, or PostgreSQL knows an earlier one and is brought back
	}
	_, byDate := held["cancelAt"]
	ends := held["cancelAtPeriodEnd"] == true || byDate
	over := held["status"] == "canceled"
	if kind == "cancel now" && !over || !over && ends != (kind == "cancel") {
		cmd.wrong = append(cmd.wrong, fmt.Sprintf("told done, and Clerk holds %v", held))
	}
}

// buy opens a checkout by the API, completes it as a person does, and comes back.
func (c *crowd) buy(ctx context.Context, m *member) {
	stripe := c.s.Sandbox.Stripe
	if m.unpaying {
		m.unpaying = false
		_ = stripe.SetPayments(m.customer, true) // the customer is there
	}
	cmd := c.api.begin("checkout", m.user)
	body := fmt.Sprintf(`{"priceId":%q,"successUrl":%q,"cancelUrl":%q}`, c.prices[c.chance(len(c.prices))], party+"/thanks?session={CHECKOUT_SESSION_ID}", party+"/")
	a, err := c.api.order(ctx, cmd, "/api/checkout", body)
	if !cmd.tell(a, err) || a.ID == "" {
		return
	}
	bought, err := stripe.CompleteCheckout(ctx, stripesim.CheckoutSpec{SessionID: a.ID})
	if err != nil {
		// Stripe's clock may have jumped over the session's end.
		cmd.told = "done, and expired"
		c.expired(cmd, a.ID)
		return
	}
	m.subscription = bought.SubscriptionID
	back := c.api.begin("return", m.user)
	if !back.tell(c.api.order(ctx, back, "/api/checkout/return", fmt.Sprintf(`{"sessionId":%q}`, a.ID))) {
		return
	}
	back.see(ctx, c.s, `SELECT EXISTS (SELECT FROM subscriptions s JOIN person_user u ON u.id = s.user_id WHERE clerk_user_id = $1 AND stripe_subscription_id = $2)`,
		"PostgreSQL does not have what was bought", m.user, bought.SubscriptionID)
	if held, _ := c.s.Sandbox.Clerk.PublicMetadata(m.user)["stripe"].(map[string]any); held["subscriptionId"] != bought.SubscriptionID && !c.s.forgot(back.began, time.Now()) {
		back.wrong = append(back.wrong, fmt.Sprintf("told done, and Clerk holds %v", held))
	}
}

// expired looks whether a session that was said to be open, and is not, has ended by itself.
func (c *crowd) expired(cmd *command, id string) {
	var session struct {
		Status    string `json:"status"`
		ExpiresAt int64  `json:"expires_at"`
	}
	if err := c.s.stripe("/v1/checkout/sessions/"+id, &session); err != nil {
		cmd.blame("told done, and %v", err)
	} else if session.Status != "open" && session.ExpiresAt > c.s.Sandbox.Stripe.Now().Unix() {
		cmd.blame("told done, and the session is %s before its end", session.Status)
	}
}

func (c *crowd) find(m *member, id string) (stripeSub, bool) {
	for _, raw := range c.s.Sandbox.Stripe.Subscriptions(m.customer) {
		var sub stripeSub
		if err := json.Unmarshal(raw, &sub); err == nil && sub.ID == id {
			return sub, true
		}
	}
	return stripeSub{}, false
}

// see looks at a condition on the database, once the database answers.
func (c *command) see(ctx context.Context, s *stage, sql, otherwise string, args ...any) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		var holds bool
		err := s.db.QueryRow(ctx, sql, args...).Scan(&holds)
		if err == nil {
			if !holds && !s.forgot(c.began, time.Now()) {
				c.wrong = append(c.wrong, "told done, and "+otherwise)
			}
			return
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			c.wrong = append(c.wrong, "PostgreSQL was not there to be looked at: "+err.Error())
			return
		}
	}
}
