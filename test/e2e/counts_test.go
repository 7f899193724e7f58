package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/config"
	"github.com/nepfy/clerk-stripe-sync/internal/httpapi"
	"github.com/nepfy/clerk-stripe-sync/internal/inbox"
	"github.com/nepfy/clerk-stripe-sync/internal/intake"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/internal/telemetry"
	"github.com/nepfy/clerk-stripe-sync/test/system"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// Deliveries that come while one is being committed are committed together, in the next
// transaction, and none is answered before its own.
func TestOneCommitForManyDeliveries(t *testing.T) {
	t.Parallel()
	const queued = 60
	relay := system.RelayDatabase(t, servers.Databases.DSN(t))
	db, err := store.Open(t.Context(), store.Options{DSN: relay.DSN(), MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	door := openDoor(t, inbox.WriterOptions{Adder: db, Spacing: time.Second, MaxQueued: queued})

	var commits atomic.Int64
	committing, released := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(released) })
	relay.OnAnswer(func(sql string) {
		// One statement stores a group, and is a transaction of its own.
		if strings.Contains(sql, "INSERT INTO webhook_events") && commits.Add(1) == 1 {
			close(committing)
			<-released
		}
	})
	answers := make(chan int, queued+2)
	var sending sync.WaitGroup
	send := func(i int) {
		sending.Go(func() {
			event := fmt.Sprintf(`{"id":"evt_%d","type":"customer.updated","data":{"object":{"object":"customer","id":"cus_%d"}}}`, i, i)
			status, err := door.sender.Deliver(t.Context(), delivery.Message{ID: fmt.Sprintf("evt_%d", i), Body: []byte(event)})
			if err != nil {
				t.Error(err)
			}
			answers <- status
		})
	}
	defer sending.Wait()
	defer release()

	send(0)
	<-committing
	// One more than the queue takes: when that is refused, all the others stand in it.
	for i := range queued + 1 {
		send(i + 1)
	}
	if status := <-answers; status != http.StatusServiceUnavailable {
		t.Errorf("before the first commit was known a delivery was answered %d", status)
	}
	release()
	sending.Wait()
	for range queued + 1 {
		if status := <-answers; status != http.StatusOK {
			t.Errorf("a delivery was answered %d", status)
		}
	}
	if n := commits.Load(); n != 2 {
		t.Errorf("%d deliveries took %d transactions, want 2: one for the first and one for all that came meanwhile", queued+1, n)
	}
}

// What intake does not need of an event costs it no decoding: an event with ten times as much in it
// takes as many allocations. A decoder that builds maps of what it reads takes one and more for
// each member.
//
// It runs before the tests that run together: it counts what everybody allocates.
func TestIntakeDecodesNoMoreThanItNeeds(t *testing.T) { //nolint:paralleltest // as said
	d := openDoor(t, inbox.WriterOptions{Adder: forgetful{}, Spacing: time.Second})
	event := func(members int) []byte {
		var rest strings.Builder
		for i := range members {
			fmt.Fprintf(&rest, `,"member_%d":{"id":"x_%d","list":[{"amount":%d},{"flag":true}],"text":"as long as others"}`, i, i, i)
		}
		return fmt.Appendf(nil, `{"id":"evt_1","object":"event","type":"invoice.paid","livemode":false,"created":1700000000,"data":{"object":{
			"object":"invoice","id":"in_1","customer":"cus_1","subscription":"sub_1","status":"paid","amount_paid":2000,"currency":"usd"%s}}}`, rest.String())
	}
	allocations := func(body []byte) float64 {
		return testing.AllocsPerRun(200, func() {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/webhooks/stripe", bytes.NewReader(body))
			maps.Copy(r.Header, d.sign("evt_1", time.Now(), body))
			answer := httptest.NewRecorder()
			d.handler.ServeHTTP(answer, r)
			if answer.Code != http.StatusOK {
				t.Fatalf("answered %d", answer.Code)
			}
		})
	}
	small, large := event(60), event(600)
	if len(small) < 5_000 || len(large) < 9*len(small) {
		t.Fatalf("events of %d and %d bytes", len(small), len(large))
	}
	of5, of50 := allocations(small), allocations(large)
	t.Logf("%.0f allocations for %d bytes, %.0f for %d", of5, len(small), of50, len(large))
	// The little that it may grow by is for buffers that grow.
	if of50 > of5+15 {
		t.Errorf("an event of %d bytes takes %.0f allocations, one of %d bytes %.0f", len(large), of50, len(small), of5)
	}
}

// forgetful takes every event and keeps none.
type forgetful struct{}

func (forgetful) AddEvents(_ context.Context, events []store.NewEvent, _ time.Duration) ([]store.Added, error) {
	return slices.Repeat([]store.Added{store.AddedDue}, len(events)), nil
}

// door is the way in for Stripe's webhooks, by itself.
type door struct {
	handler http.Handler
	sender  *delivery.Sender
	sign    delivery.Signer
}

func openDoor(t *testing.T, o inbox.WriterOptions) *door {
	t.Helper()
	const secret = "whsec_for_a_test"
	logger := slog.New(slog.DiscardHandler)
	writer := inbox.NewWriter(o)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { writer.Run(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	unknown := inbox.NewIdentity(func(context.Context) (store.Identity, error) { return store.Identity{}, nil })
	handler, err := httpapi.NewStripeWebhook(httpapi.WebhookOptions{
		Secrets: []config.Secret{config.Secret(secret)}, Metrics: telemetry.NewMetrics(), Logger: logger,
		Intake: &inbox.Intake{Writer: writer, Identity: unknown, Logger: logger},
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	d := &door{handler: handler}
	if d.sign, err = delivery.SignAsStripe(secret); err != nil {
		t.Fatal(err)
	}
	d.sender = delivery.New(delivery.Options{URL: server.URL, Sign: d.sign})
	t.Cleanup(d.sender.Close)
	return d
}

// The commit of a delivery wakes the dispatcher. It also looks by itself, for what others left: one
// delivery after another would take that long each if nothing else woke it.
func TestTheCommitWakesTheDispatcher(t *testing.T) {
	t.Parallel()
	const (
		rounds        = 10
		looksByItself = 10 * time.Second
	)
	// No worker: nothing but deliveries asks for a poke.
	s := system.Start(t, servers, system.Options{Stopped: true})
	s.StartAPI()
	started := time.Now()
	for range rounds {
		customer := s.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{})
		s.Until("the customer's workflow is poked", func(ctx context.Context) error {
			_, err := s.Temporal.DescribeWorkflowExecution(ctx, workflows.CustomerWorkflowID(customer), "")
			return err
		})
		if took := time.Since(started); took > rounds*looksByItself/2 {
			t.Fatalf("deliveries wait until the dispatcher looks by itself: %s by now", took)
		}
	}
}

// A pass pokes each entity once, whatever is due for it, with a signal that carries nothing; and
// what comes of it is one look at Stripe and one write to Clerk: two ordinary activities at most.
func TestOneSignalAndTwoActivities(t *testing.T) {
	t.Parallel()
	const people = 3
	s := system.Start(t, servers, system.Options{})
	price := s.Sandbox.Stripe.AddPrice(s.Sandbox.Stripe.AddProduct("Pro"), 2000, "month")
	users, customers := make([]string, people), make([]string, people)
	for i := range users {
		users[i] = s.Sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: "Ada"})
	}
	s.Quiet(false)
	for i, user := range users {
		customers[i] = customerOf(t, s, user)
		s.Until("the run that looked after the sign-up has ended", func(ctx context.Context) error {
			run, err := s.Temporal.DescribeWorkflowExecution(ctx, workflows.CustomerWorkflowID(customers[i]), "")
			if err == nil && run.GetWorkflowExecutionInfo().GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED {
				err = fmt.Errorf("it is %s", run.GetWorkflowExecutionInfo().GetStatus())
			}
			return err
		})
	}
	s.StopAPI()
	s.StopWorker()

	// A checkout and a change are a dozen events for each of them, all due when the program starts.
	s.Sandbox.StripeWebhooks.Hold()
	for i, user := range users {
		done, err := s.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{CustomerID: customers[i], PriceID: price, ClientReferenceID: user})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Sandbox.Stripe.SetQuantity(done.SubscriptionID, 2); err != nil {
			t.Fatal(err)
		}
	}
	takeIn(t, s)
	if n := s.Count(`SELECT count(*) FROM webhook_events WHERE status = 'pending'`); n < people*6 {
		t.Fatalf("only %d events are due", n)
	}
	s.StartAPI()
	s.Until("everything due is poked", func(context.Context) error {
		if n := s.Count(`SELECT count(*) FROM pokes WHERE due_at IS NOT NULL`); n > 0 {
			return fmt.Errorf("%d pokes are due", n)
		}
		return nil
	})
	for _, customer := range customers {
		if c := countsOf(t, s, workflows.CustomerWorkflowID(customer)); c.signals != 1 || c.loaded != 0 {
			t.Errorf("customer %s was signalled %d times, %d of them with more in it than that somebody waits, want one signal", customer, c.signals, c.loaded)
		}
	}

	s.Sandbox.StripeFaults.Reset()
	s.Sandbox.ClerkFaults.Reset()
	s.StartWorker()
	s.Quiet(false)
	late := 0
	for i, user := range users {
		s.Agree(user, policy())
		c := countsOf(t, s, workflows.CustomerWorkflowID(customers[i]))
		// Where Clerk does not take it at once there is a publish besides.
		if c.activities["RecordSubscriptions"] != 1 || c.activities["PublishProjection"]+1 != len(c.activities) || len(c.activities) > 2 || c.markers != 0 || c.signals != 1 {
			t.Errorf("customer %s: %d signals, activities %v, %d markers; want one signal, one look", customers[i], c.signals, c.activities, c.markers)
		}
		late += c.activities["PublishProjection"]
	}
	if n := s.Sandbox.StripeFaults.Requests()["GET /v1/subscriptions"]; n != people {
		t.Errorf("%d looks at Stripe, want one for each of %d", n, people)
	}
	// What was too late to be heard of was written all the same, and is written again by that publish.
	if n := s.Sandbox.ClerkFaults.Requests()["PATCH /v1/users/{id}/metadata"]; n < people || n > people+late {
		t.Errorf("%d writes to Clerk, want one for each of %d, and at most %d again: %v", n, people, late, s.Sandbox.ClerkFaults.Requests())
	}
}

// takeIn stores what Stripe has sent meanwhile, as the door does, while no program runs.
func takeIn(t *testing.T, s *system.System) {
	t.Helper()
	if err := s.Sandbox.Stripe.Settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	writer := inbox.NewWriter(inbox.WriterOptions{Adder: s.Store, Spacing: time.Second})
	door := &inbox.Intake{Writer: writer, Identity: inbox.NewIdentity(s.Store.Identity), Logger: slog.New(slog.DiscardHandler)}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { writer.Run(ctx) })
	for _, m := range s.Sandbox.StripeWebhooks.TakeHeld() {
		if _, err := door.Accept(t.Context(), inbox.Delivery{Source: intake.SourceStripe, EventID: m.ID, Body: string(m.Body), ReceivedAt: time.Now()}); err != nil {
			t.Error(err)
		}
	}
	stop()
	running.Wait()
	s.Sandbox.StripeWebhooks.Release()
}

// counts is what the history of a run holds.
type counts struct {
	events          int
	signals, loaded int // loaded: with more in it than that somebody waits
	markers         int // of which local activities would be some
	run             string
	activities      map[string]int
}

// countsOf counts what is in the history of the latest run of a workflow.
func countsOf(t *testing.T, s *system.System, workflowID string) counts {
	t.Helper()
	c := counts{activities: map[string]int{}}
	for event, err := range historyOf(t.Context(), s, workflowID) {
		if err != nil {
			t.Fatalf("reading the history of %s: %v", workflowID, err)
		}
		c.events++
		switch {
		case event.GetWorkflowExecutionStartedEventAttributes() != nil:
			c.run = event.GetWorkflowExecutionStartedEventAttributes().GetOriginalExecutionRunId()
		case event.GetWorkflowExecutionSignaledEventAttributes() != nil:
			c.signals++
			for _, payload := range event.GetWorkflowExecutionSignaledEventAttributes().GetInput().GetPayloads() {
				// The nothing that is sent is a payload too, without data.
				if said := string(payload.GetData()); said != "" && said != `{"urgent":true}` {
					c.loaded++
				}
			}
		case event.GetActivityTaskScheduledEventAttributes() != nil:
			c.activities[event.GetActivityTaskScheduledEventAttributes().GetActivityType().GetName()]++
		case event.GetMarkerRecordedEventAttributes() != nil:
			c.markers++
		}
	}
	return c
}

func historyOf(ctx context.Context, s *system.System, workflowID string) func(yield func(*historypb.HistoryEvent, error) bool) {
	return func(yield func(*historypb.HistoryEvent, error) bool) {
		events := s.Temporal.GetWorkflowHistory(ctx, workflowID, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			event, err := events.Next()
			if !yield(event, err) || err != nil {
				return
			}
		}
	}
}

// As many customers are under way for what nobody waits for as is configured, over a real database,
// and the others wait in the outbox.
func TestRoutineLooksAreConfigured(t *testing.T) {
	t.Parallel()
	s := system.Start(t, servers, system.Options{Stopped: true, Environ: map[string]string{"ROUTINE_LOOKS": "2"}})
	const people = 5
	var events []store.NewEvent
	for i := range people {
		events = append(events, store.NewEvent{Source: "stripe", EventID: fmt.Sprint("evt_", i), Type: "customer.updated", Entity: account.CustomerEntity(fmt.Sprint("cus_", i)),
			Job: account.JobSync, Payload: "{}", ReceivedAt: time.Now()})
	}
	if _, err := s.Store.AddEvents(t.Context(), events, time.Second); err != nil {
		t.Fatal(err)
	}
	s.StartAPI() // nobody looks
	s.Until("two are poked, and the others wait", func(context.Context) error {
		poked, due := s.Count(`SELECT count(*) FROM pokes WHERE due_at IS NULL`), s.Count(`SELECT count(*) FROM pokes WHERE attempts = 0 AND due_at IS NOT NULL`)
		if poked != 2 || due != people-2 {
			return fmt.Errorf("%d and %d", poked, due)
		}
		return nil
	})
}
