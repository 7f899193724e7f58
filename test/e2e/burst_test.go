package e2e_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeevent"
	"github.com/nepfy/clerk-stripe-sync/test/system"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

const (
	// burstLeast is the least that a checkout sends; Stripe sends a few more to some accounts.
	burstLeast = 12
	// burstCopies is how often each of them is delivered.
	burstCopies = 3
	// burstSenders is how many deliveries are under way at a time: so few that a look at Stripe is
	// done before the burst is over, and could be made again and again.
	burstSenders = 2
	// burstInterval is the pause between two pokes of one entity, as production has it where nothing
	// is configured.
	burstInterval = time.Second
	// The most that a burst may cost on the median: a look at its start and one at its end, which is
	// when the interval is over. On a machine so busy that it is delivered over several intervals,
	// there is one more for each of them, with its share of the history.
	burstReads   = 2
	burstWrites  = 2
	burstSignals = 2
	burstEvents  = 30
	lookEvents   = burstEvents / burstReads
)

// One checkout is a dozen events, and each of them may come more than once and in any order. To the
// real programs it is one row, one projection, and a look at its start and at its end.
//
// BURST_RUNS sets how many checkouts are measured; the table of the figures is in the log.
func TestBurst(t *testing.T) {
	t.Parallel()
	runs := numberFrom(t, "BURST_RUNS", 5)
	s := system.Start(t, servers, system.Options{Stopped: true})
	for _, program := range []string{system.ProgramAPI, system.ProgramWorker} {
		s.StartProcess(program, map[string]string{"POKE_INTERVAL": burstInterval.String()})
	}
	product := s.Sandbox.Stripe.AddProduct("Pro")
	price := s.Sandbox.Stripe.AddPrice(product, 2000, "month")
	s.Quiet(false)

	dice := rand.New(rand.NewPCG(1, 2))
	figures := make([]burstFigures, runs)
	for i := range figures {
		figures[i] = playBurst(t, s, price, dice)
	}
	t.Log("\n" + burstTable(figures))
	reads := median(figures, func(f burstFigures) int { return f.reads - f.late() })
	writes := median(figures, func(f burstFigures) int { return f.writes - f.late() })
	signals := median(figures, func(f burstFigures) int { return f.signals - f.late() })
	events := median(figures, func(f burstFigures) int { return f.events - f.late()*lookEvents })
	if reads > burstReads || writes > burstWrites || signals > burstSignals || events > burstEvents {
		t.Errorf("on the median a burst costs %d signals, %d reads of Stripe, %d writes to Clerk and %d events of history, want at most %d, %d, %d and %d",
			signals, reads, writes, events, burstSignals, burstReads, burstWrites, burstEvents)
	}
}

// late is how many intervals went by while the burst was still being delivered.
func (f burstFigures) late() int { return int(f.answered / burstInterval) }

// burstFigures is what one burst cost.
type burstFigures struct {
	deliveries int
	signals    int           // to the customer's workflow
	reads      int           // requests to Stripe
	writes     int           // requests to Clerk that change something
	events     int           // of the history of the customer's workflow
	answered   time.Duration // the first delivery to the answer to the last
	agreed     time.Duration // the first delivery to agreement
}

// playBurst has a new user buy, and keeps what Stripe would send for it until everything else is
// quiet.
func playBurst(t *testing.T, s *system.System, price string, dice *rand.Rand) burstFigures {
	t.Helper()
	user := s.Sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: "Ada", Emails: []clerksim.EmailSpec{{Address: "ada@example.com", Verified: true}}})
	s.Quiet(false)
	customer := customerOf(t, s, user)
	s.Until("the customer is poked at once again", func(context.Context) error {
		if s.Count(`SELECT count(*) FROM pokes WHERE entity = $1 AND poked_at > clock_timestamp() - $2::interval`, string(account.CustomerEntity(customer)), burstInterval) > 0 {
			return errors.New("it has been poked just now")
		}
		return nil
	})
	versionBefore := s.Count(`SELECT projection_version FROM person_user WHERE clerk_user_id = $1`, user)

	s.Sandbox.StripeWebhooks.Hold()
	if _, err := s.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{CustomerID: customer, PriceID: price, ClientReferenceID: user}); err != nil {
		t.Fatal(err)
	}
	if err := s.Sandbox.Stripe.Settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	events := s.Sandbox.StripeWebhooks.TakeHeld()
	s.Sandbox.StripeWebhooks.Release()
	handled := 0
	for _, each := range typesOf(t, events) {
		if stripeevent.Handled(each) {
			handled++
		}
	}
	if len(events) < burstLeast || handled == 0 || handled == len(events) {
		t.Fatalf("the checkout sends %d events, %d of handled types: %s", len(events), handled, typesOf(t, events))
	}

	before := countsOf(t, s, workflows.CustomerWorkflowID(customer))
	s.Sandbox.StripeFaults.Reset()
	s.Sandbox.ClerkFaults.Reset()
	started := time.Now()
	deliverShuffled(t, s, slices.Repeat(events, burstCopies), burstSenders, dice)
	figures := burstFigures{deliveries: burstCopies * len(events), answered: time.Since(started)}
	s.Agree(user, policy())
	figures.agreed = time.Since(started)
	s.Quiet(false)

	after := countsOf(t, s, workflows.CustomerWorkflowID(customer))
	figures.signals, figures.events = after.since(before)
	figures.reads, figures.writes = calls(t, s)
	if figures.reads == 0 || figures.writes == 0 {
		t.Fatalf("counted %d reads of Stripe and %d writes to Clerk: the burst cannot have come from there", figures.reads, figures.writes)
	}
	checkBurst(t, s, user, customer, events, handled)
	// The row appears in one step, and so does the projection: no look saw half a checkout.
	if n := s.Count(`SELECT projection_version FROM person_user WHERE clerk_user_id = $1`, user) - versionBefore; n != 1 {
		t.Errorf("the projection changed %d times, want once", n)
	}
	return figures
}

// checkBurst looks at what a burst left.
func checkBurst(t *testing.T, s *system.System, user, customer string, events []delivery.Message, handled int) {
	t.Helper()
	if n := s.Count(`SELECT count(*) FROM subscriptions WHERE stripe_customer_id = $1 AND status = 'active'`, customer); n != 1 {
		t.Errorf("%d rows of the subscription, want 1", n)
	}
	ids := make([]string, len(events))
	for i, e := range events {
		ids[i] = e.ID
	}
	if n := s.Count(`SELECT count(*) FROM webhook_events WHERE event_id = ANY($1) AND status = 'completed'`, ids); n != handled {
		t.Errorf("%d of the burst's events are completed, want the %d of handled types", n, handled)
	}
	const ignored = `status = 'ignored' AND reason = 'type not handled' AND payload IS NULL`
	if n := s.Count(`SELECT count(*) FROM webhook_events WHERE event_id = ANY($1) AND `+ignored, ids); n != len(events)-handled {
		t.Errorf("%d of the burst's events are ignored as not handled, want %d", n, len(events)-handled)
	}
	projection, _ := s.Sandbox.Clerk.PublicMetadata(user)["stripe"].(map[string]any)
	if projection["subscriptionActive"] != true || projection["customerId"] != customer || projection["plan"] != "Pro" {
		t.Errorf("Clerk holds %v", projection)
	}
}

// since answers how many signals and events of history have come since; the run before may have
// gone on.
func (c counts) since(before counts) (signals, events int) {
	if c.run == before.run {
		return c.signals - before.signals, c.events - before.events
	}
	return c.signals, c.events
}

// calls counts the requests to Stripe, which have to be reads, and those to Clerk that change
// something.
func calls(t *testing.T, s *system.System) (reads, writes int) {
	t.Helper()
	for request, n := range s.Sandbox.StripeFaults.Requests() {
		reads += n
		if !strings.HasPrefix(request, http.MethodGet) {
			t.Errorf("Stripe got %d requests %s: nothing that is told may change it", n, request)
		}
	}
	for request, n := range s.Sandbox.ClerkFaults.Requests() {
		if !strings.HasPrefix(request, http.MethodGet) {
			writes += n
		}
	}
	return reads, writes
}

// deliverShuffled delivers messages in random order, so many at a time, over HTTP.
func deliverShuffled(t *testing.T, s *system.System, messages []delivery.Message, senders int, dice *rand.Rand) {
	t.Helper()
	all := slices.Clone(messages)
	dice.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	ctx, cancel := context.WithTimeout(t.Context(), system.Patience())
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(senders)
	for _, m := range all {
		group.Go(func() error {
			status, err := s.Sandbox.StripeWebhooks.Deliver(ctx, m)
			if err == nil && status != http.StatusOK {
				err = fmt.Errorf("a delivery was answered %d", status)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

func burstTable(figures []burstFigures) string {
	var b strings.Builder
	b.WriteString("| burst | deliveries | signals | reads of Stripe | writes to Clerk | history events | all answered after | agreement after |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	line := func(name string, f burstFigures) {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %d ms | %d ms |\n", name, f.deliveries, f.signals, f.reads, f.writes, f.events, f.answered.Milliseconds(), f.agreed.Milliseconds())
	}
	for i, f := range figures {
		line(strconv.Itoa(i+1), f)
	}
	of := func(pick func([]int) int) burstFigures {
		each := func(value func(burstFigures) int) int {
			values := make([]int, len(figures))
			for i, f := range figures {
				values[i] = value(f)
			}
			return pick(values)
		}
		return burstFigures{
			deliveries: each(func(f burstFigures) int { return f.deliveries }),
			signals:    each(func(f burstFigures) int { return f.signals }),
			reads:      each(func(f burstFigures) int { return f.reads }), writes: each(func(f burstFigures) int { return f.writes }),
			events:   each(func(f burstFigures) int { return f.events }),
			answered: time.Duration(each(func(f burstFigures) int { return int(f.answered) })),
			agreed:   time.Duration(each(func(f burstFigures) int { return int(f.agreed) })),
		}
	}
	line("median", of(middle[int]))
	line("worst", of(slices.Max[[]int]))
	return b.String()
}

func median(figures []burstFigures, value func(burstFigures) int) int {
	values := make([]int, len(figures))
	for i, f := range figures {
		values[i] = value(f)
	}
	return middle(values)
}

// middle answers the median; of an even number of values the higher of the two in the middle.
func middle[T cmp.Ordered](values []T) T {
	slices.Sort(values)
	return values[len(values)/2]
}

func customerOf(t *testing.T, s *system.System, user string) (customer string) {
	t.Helper()
	if err := s.Row(t.Context(), `SELECT stripe_customer_id FROM person_user WHERE clerk_user_id = $1`, []any{user}, &customer); err != nil {
		t.Fatal("looking for the user's customer:", err)
	}
	return customer
}

func typesOf(t *testing.T, events []delivery.Message) []string {
	t.Helper()
	types := make([]string, len(events))
	for i, e := range events {
		parsed, err := stripeevent.Parse(string(e.Body))
		if err != nil {
			t.Fatal(err)
		}
		types[i] = parsed.Type
	}
	return types
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
