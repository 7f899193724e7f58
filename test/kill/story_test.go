package kill_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// storyBegins is when the stories of this process begin at Stripe, whose clock moves only when it
// is told to: so all of them are about the same days, and the renewal ends in the present.
var storyBegins = time.Now().Add(-35 * 24 * time.Hour).Truncate(time.Hour)

// stage is a story under way: the sandbox, and the two programs as processes, each with a relay
// between itself and PostgreSQL.
type stage struct {
	*system.System
	t       *testing.T
	relays  map[string]*system.DatabaseRelay
	running map[string]*system.Process
	price   string
	user    string

	// tend is called again and again while the story waits for something: it is what starts a
	// program that was killed.
	tend func()
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{t: t, tend: func() {}, relays: map[string]*system.DatabaseRelay{}, running: map[string]*system.Process{},
		System: system.Start(t, servers, system.Options{Stopped: true, Sandbox: sandbox.Options{
			StripeNow: func() time.Time { return storyBegins }, StripeFrozen: true,
			WebhookRetry: []time.Duration{100 * time.Millisecond, 300 * time.Millisecond, time.Second},
		}})}
	for _, program := range []string{system.ProgramAPI, system.ProgramWorker} {
		s.relays[program] = system.RelayDatabase(t, s.DSN)
		s.start(program)
	}
	product := s.Sandbox.Stripe.AddProduct("Pro")
	s.price = s.Sandbox.Stripe.AddPrice(product, 2000, "month")
	s.until("the price is known", s.holds(`SELECT count(*) = 1 FROM plan_prices`))
	s.settle("product/" + product)
	return s
}

func (s *stage) start(program string) {
	s.t.Helper()
	s.running[program] = s.StartProcess(program, map[string]string{"DATABASE_URL": s.relays[program].DSN()})
}

// play plays the story and answers the state before the end of it, while the person is a customer,
// and in the end.
func (s *stage) play() (customer, deleted state) {
	s.t.Helper()
	s.signUp()
	s.checkOut()
	s.changeProfile()
	s.renew()
	customer = s.state()
	s.delete()
	return customer, s.state()
}

func (s *stage) signUp() {
	s.t.Helper()
	s.user = s.Sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: "Ada", LastName: "Lovelace", Emails: []clerksim.EmailSpec{{Address: "ada@example.com", Verified: true}}})
	s.until("the user has a customer and Clerk says so", func(ctx context.Context) error {
		held, _ := s.Sandbox.Clerk.PublicMetadata(s.user)["stripe"].(map[string]any)
		if held["customerId"] == nil {
			return fmt.Errorf("Clerk holds %v", held)
		}
		return s.published(ctx)
	})
	s.settled()
}

func (s *stage) checkOut() {
	s.t.Helper()
	if _, err := s.Sandbox.Stripe.CompleteCheckout(s.t.Context(), stripesim.CheckoutSpec{CustomerID: s.customer(), PriceID: s.price, ClientReferenceID: s.user}); err != nil {
		s.t.Fatal(err)
	}
	s.until("the user has access", func(ctx context.Context) error {
		held, _ := s.Sandbox.Clerk.PublicMetadata(s.user)["stripe"].(map[string]any)
		if held["subscriptionActive"] != true {
			return fmt.Errorf("Clerk holds %v", held)
		}
		return s.published(ctx)
	})
	s.settled()
}

func (s *stage) changeProfile() {
	s.t.Helper()
	name := "Augusta"
	if err := s.Sandbox.Clerk.UpdateUser(s.user, clerksim.UserChange{FirstName: &name}); err != nil {
		s.t.Fatal(err)
	}
	s.until("Stripe has the name", func(ctx context.Context) error {
		raw, _ := s.Sandbox.Stripe.Customer(s.customer())
		var c struct{ Name string }
		if err := json.Unmarshal(raw, &c); err != nil || c.Name != "Augusta Lovelace" {
			return fmt.Errorf("it has %q (%w)", c.Name, err)
		}
		return s.holds(`SELECT bool_and(c.profile_version = u.profile_version) FROM stripe_customers c JOIN person_user u ON u.id = c.user_id`)(ctx)
	})
	s.settled()
}

func (s *stage) renew() {
	s.t.Helper()
	if err := s.Sandbox.Stripe.Advance(s.t.Context(), 35*24*time.Hour); err != nil {
		s.t.Fatal(err)
	}
	s.until("the renewal is recorded and published", func(ctx context.Context) error {
		if err := s.holds(`SELECT count(*) = 2 FROM payments WHERE kind = 'invoice' AND status = 'paid'`)(ctx); err != nil {
			return err
		}
		return s.Agreement(ctx, s.user, account.AccessPolicy{})
	})
	s.settled()
}

func (s *stage) delete() {
	s.t.Helper()
	if err := s.Sandbox.Clerk.DeleteUser(s.user); err != nil {
		s.t.Fatal(err)
	}
	s.until("the user is erased", s.holds(`SELECT deleted_at IS NOT NULL FROM person_user`))
	s.settled()
}

func (s *stage) customer() (id string) {
	s.t.Helper()
	if err := s.Row(s.t.Context(), `SELECT coalesce(stripe_customer_id, '') FROM person_user`, nil, &id); err != nil {
		s.t.Fatal(err)
	}
	return id
}

func (s *stage) published(ctx context.Context) error {
	return s.holds(`SELECT bool_and(projection_version = published_version) FROM person_user`)(ctx)
}

// holds is a condition on the database.
func (s *stage) holds(sql string) func(context.Context) error {
	return func(ctx context.Context) error {
		var holds *bool
		if err := s.Row(ctx, sql, nil, &holds); err != nil {
			return err
		}
		if holds == nil || !*holds {
			return errors.New("not true: " + sql)
		}
		return nil
	}
}

// until waits for something that has to happen although a program was killed: longer than others
// do, since it may take the server a minute to give up an attempt that nobody works on any more.
func (s *stage) until(what string, condition func(context.Context) error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*system.Patience())
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		s.tend()
		err := condition(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.t.Fatalf("waited in vain until %s: %v", what, err)
		}
	}
}

// settled waits until nothing is left to do for our user and their customer.
func (s *stage) settled() {
	s.t.Helper()
	s.settle("user/"+s.user, "customer/"+s.customer())
}

// settle waits until nothing is left to do: every delivery is taken, no event and no poke is due,
// Clerk holds what it should, both programs run, no workflow has work under way, and no number was
// drawn while all that was looked at.
func (s *stage) settle(workflows ...string) {
	s.t.Helper()
	s.until("nothing is left to do", func(ctx context.Context) error {
		before := s.Count(`SELECT last_value FROM sync_seq`)
		idle, cancel := context.WithTimeout(ctx, 50*time.Millisecond) // the programs have to be tended
		defer cancel()
		if err := s.Sandbox.Idle(idle); err != nil {
			return err
		}
		for program, p := range s.running {
			if p.Ended() {
				return fmt.Errorf("%s is not running", program)
			}
		}
		if err := s.holds(`SELECT NOT EXISTS (SELECT FROM webhook_events WHERE status IN ('pending', 'failing', 'waiting'))
			AND NOT EXISTS (SELECT FROM pokes WHERE due_at IS NOT NULL)
			AND NOT EXISTS (SELECT FROM person_user WHERE projection_version <> published_version)`)(ctx); err != nil {
			return err
		}
		for _, id := range workflows {
			if err := s.rests(ctx, id); err != nil {
				return err
			}
		}
		if s.Count(`SELECT last_value FROM sync_seq`) != before {
			return errors.New("a number was drawn")
		}
		return nil
	})
}

// rests answers nil if the latest run of a workflow has nothing under way.
func (s *stage) rests(ctx context.Context, id string) error {
	description, err := s.Temporal.DescribeWorkflowExecution(ctx, id, "")
	var missing *serviceerror.NotFound
	switch {
	case errors.As(err, &missing):
		return nil
	case err != nil:
		return err
	case description.GetWorkflowExecutionInfo().GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING:
		return nil // the server still lists an attempt that a run gave up before it ended, and that died with its worker
	case len(description.GetPendingActivities()) > 0 || description.GetPendingWorkflowTask() != nil:
		return fmt.Errorf("%s has work under way", id)
	default:
		return nil
	}
}
