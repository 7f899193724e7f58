package deploys_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// Two copies of each program are replaced one after the other, by SIGTERM, while webhooks are
// delivered and people cancel and reactivate without a pause. Nothing is refused and nothing is
// lost.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	w := newTown(t, map[string]string{"SHUTDOWN_DELAY": "1s", "SHUTDOWN_TIMEOUT": "20s"})
	b := newBalancer(t)
	var apis []*system.Process
	var backends []*backend
	var workers []*system.Process
	startAPI := func() (*system.Process, *backend) {
		p := w.StartProgram(servers.Programs, system.ProgramAPI, nil)
		return p, b.add(p.Addr)
	}
	for range 2 {
		p, c := startAPI()
		apis, backends = append(apis, p), append(backends, c)
		workers = append(workers, w.StartProgram(servers.Programs, system.ProgramWorker, nil))
	}
	w.PointWebhooks(b.host())
	w.settle(20)
	buyers := w.buyers(4)

	load := w.load(buyers)
	for i := range 2 {
		w.stop(apis[i])
		_, backends[i] = startAPI()
		w.Until("the new copy takes requests", func(context.Context) error { return b.takes(backends[i]) })
		w.stop(workers[i])
		workers[i] = w.StartProgram(servers.Programs, system.ProgramWorker, nil)
		w.Until("the new worker works", func(context.Context) error {
			if did(workers[i], "RecordSubscriptions") == 0 {
				return fmt.Errorf("it has done nothing")
			}
			return nil
		})
	}
	w.UntilWithin(w.patience(), "there was a load", load.enough)
	changes, commands := load.end()

	w.quiet()
	w.agrees()
	for _, p := range buyers {
		if got := p.ends(); got != p.ending {
			t.Errorf("%s's subscription ends %t at Stripe, and %t was ordered last", p.user, got, p.ending)
		}
	}
	if n := w.Count(`SELECT count(*) FROM operations WHERE status <> 'done'`); n != 0 {
		t.Errorf("%d operations are not done", n)
	}
	served, refused := b.count()
	for _, each := range refused {
		t.Error("refused:", each)
	}
	for _, attempt := range append(w.Sandbox.StripeWebhooks.Log(), w.Sandbox.ClerkWebhooks.Log()...) {
		if attempt.Err != nil {
			t.Errorf("a delivery was answered %d: %v", attempt.Status, attempt.Err)
		}
	}
	t.Logf("%d requests, of them %d commands; %d changes at Stripe", served, commands, changes)
}

// buyer is somebody who asks by the API.
type buyer struct {
	w                            *town
	user, customer, subscription string
	ending                       bool // as it was ordered last
}

// buyers are people with one subscription each, on the customer that they got when they signed up.
func (w *town) buyers(n int) []*buyer {
	w.t.Helper()
	var all []*buyer
	for i := range n {
		user := w.Sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: "Bob", LastName: fmt.Sprint(i),
			Emails: []clerksim.EmailSpec{{Address: fmt.Sprintf("bob%d@example.com", i), Verified: true}}})
		all = append(all, &buyer{w: w, user: user})
		w.people = append(w.people, user)
	}
	w.quiet()
	for _, p := range all {
		w.must(w.Row(w.t.Context(), `SELECT stripe_customer_id FROM person_user WHERE clerk_user_id = $1`, []any{p.user}, &p.customer))
		bought, err := w.Sandbox.Stripe.CompleteCheckout(w.t.Context(), stripesim.CheckoutSpec{CustomerID: p.customer, PriceID: w.price, ClientReferenceID: p.user})
		w.must(err)
		p.subscription = bought.SubscriptionID
	}
	w.quiet()
	return all
}

// load is what goes on while programs are replaced.
type load struct {
	stop              context.CancelFunc
	going             sync.WaitGroup
	mu                sync.Mutex
	changes, commands int
}

// enough tells whether there was anything that could have been refused or lost.
func (l *load) enough(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changes < 20 || l.commands < 10 {
		return fmt.Errorf("%d changes and %d commands", l.changes, l.commands)
	}
	return nil
}

func (l *load) end() (changes, commands int) {
	l.stop()
	l.going.Wait()
	return l.changes, l.commands
}

// load has Stripe send webhooks, and the buyers cancel and reactivate in turn, until it is ended.
func (w *town) load(buyers []*buyer) *load {
	ctx, stop := context.WithCancel(w.t.Context())
	l := &load{stop: stop}
	l.going.Go(func() {
		tick := time.NewTicker(30 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			if err := w.Sandbox.Stripe.SetQuantity(w.customers[n%len(w.customers)].subscription, int64(2+n)); err != nil {
				w.t.Error(err)
				return
			}
			l.mu.Lock()
			l.changes++
			l.mu.Unlock()
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: len(buyers)}, Timeout: time.Minute}
	for _, p := range buyers {
		l.going.Go(func() {
			for ctx.Err() == nil {
				if err := p.asks(client); err != nil {
					w.t.Error(err)
					return
				}
				l.mu.Lock()
				l.commands++
				l.mu.Unlock()
			}
		})
	}
	w.t.Cleanup(func() {
		stop()
		l.going.Wait()
		client.CloseIdleConnections()
	})
	return l
}

// asks cancels, or reactivates what was cancelled, and waits until it is done.
func (p *buyer) asks(client *http.Client) error {
	verb := "cancel"
	if p.ending {
		verb = "reactivate"
	}
	status, body, err := p.send(client, http.MethodPost, "/api/subscriptions/"+p.subscription+"/"+verb)
	if err != nil {
		return err
	}
	if status != http.StatusOK && status != http.StatusAccepted {
		return fmt.Errorf("%s was answered %d %s", verb, status, body)
	}
	p.ending = !p.ending
	for deadline := time.Now().Add(p.w.patience()); status == http.StatusAccepted; time.Sleep(50 * time.Millisecond) {
		var answer struct{ Operation, Status string }
		if err := json.Unmarshal(body, &answer); err != nil {
			return fmt.Errorf("decoding %s: %w", body, err)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s stands at %s", verb, body)
		}
		var operation []byte
		if status, operation, err = p.send(client, http.MethodGet, answer.Operation); err != nil {
			return err
		}
		if status == http.StatusOK && strings.Contains(string(operation), `"done"`) {
			return nil
		}
		status = http.StatusAccepted
	}
	return nil
}

func (p *buyer) send(client *http.Client, method, path string) (status int, body []byte, err error) {
	request, err := http.NewRequest(method, p.w.URL()+path, http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Authorization", "Bearer "+p.w.Sandbox.Clerk.SessionToken(clerksim.TokenSpec{UserID: p.user}))
	answer, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err = io.ReadAll(answer.Body)
	return answer.StatusCode, body, err
}

// ends tells whether Stripe says that the subscription ends with its period.
func (p *buyer) ends() bool {
	p.w.t.Helper()
	var s struct {
		CancelAtPeriodEnd bool `json:"cancel_at_period_end"`
	}
	p.w.must(json.Unmarshal(p.w.Sandbox.Stripe.Subscriptions(p.customer)[0], &s))
	return s.CancelAtPeriodEnd
}
