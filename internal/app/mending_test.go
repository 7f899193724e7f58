package app_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/app"
	"github.com/nepfy/clerk-stripe-sync/internal/runs"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/test/system"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// broken is a system at work, with one customer, of which something is about to be broken that only
// an operator can mend.
type broken struct {
	*system.System
	t                            *testing.T
	programs                     []*program
	user, customer, subscription string
}

func newBroken(t *testing.T) *broken {
	t.Helper()
	b := &broken{System: system.Start(t, servers, system.Options{Stopped: true}), t: t}
	b.programs = both(t, b.Environ)
	b.PointWebhooks(strings.TrimPrefix(b.programs[0].base, "http://"))
	price := b.Sandbox.Stripe.AddPrice(b.Sandbox.Stripe.AddProduct("Pro"), 2000, "month")
	b.user = b.Sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: "Ada", LastName: "Lovelace", Emails: []clerksim.EmailSpec{{Address: "ada@example.com", Verified: true}}})
	b.Until("the user has a customer", func(ctx context.Context) error {
		return b.Row(ctx, `SELECT stripe_customer_id FROM person_user WHERE clerk_user_id = $1 AND stripe_customer_id IS NOT NULL`, []any{b.user}, &b.customer)
	})
	bought, err := b.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{PriceID: price, CustomerID: b.customer, ClientReferenceID: b.user})
	if err != nil {
		t.Fatal(err)
	}
	b.subscription = bought.SubscriptionID
	b.agrees()
	return b
}

func (b *broken) agrees() {
	b.t.Helper()
	b.Quiet(true)
	b.Agree(b.user, account.AccessPolicy{PastDueGrace: 72 * time.Hour})
}

// cancels has the subscription set to end, at Stripe.
func (b *broken) cancels() {
	b.t.Helper()
	if err := b.Sandbox.Stripe.CancelAtPeriodEnd(b.subscription); err != nil {
		b.t.Fatal(err)
	}
}

// untilCount waits until a query counts something.
func (b *broken) untilCount(what, sql string) {
	b.t.Helper()
	b.Until(what, func(context.Context) error {
		if b.Count(sql) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
}

// What a revoked key holds up says so, loses nothing, and goes on within ten seconds of the key's
// being good again, with nothing pressed.
func TestWorkGoesOnWithTheMendedKey(t *testing.T) {
	t.Parallel()
	b := newBroken(t)
	b.Sandbox.Stripe.SetKey("sk_test_rolled")
	b.cancels()
	b.untilCount("the event says what holds it up",
		`SELECT count(*) FROM webhook_events WHERE status = 'failing' AND reason LIKE 'operator:%' AND type = 'customer.subscription.updated'`)
	b.programs[1].lacks("stripe")
	if n := b.Count(`SELECT count(*) FROM subscriptions WHERE cancel_at_period_end`); n != 0 {
		t.Error("what could not be read is stored")
	}
	b.Sandbox.Stripe.SetKey(b.Sandbox.StripeSecretKey)
	mended := time.Now()
	b.untilCount("the cancellation is stored", `SELECT count(*) FROM subscriptions WHERE cancel_at_period_end`)
	if took := time.Since(mended); took > 15*time.Second {
		t.Errorf("work went on %s after the key was mended", took)
	}
	b.agrees()
}

// Taking a migration away, as a restored backup does, is named; deliveries are refused, or kept;
// and all of it is there once the schema is.
func TestWorkGoesOnWithTheSchema(t *testing.T) {
	t.Parallel()
	b := newBroken(t)
	if err := app.MigrateDown(t.Context(), b.Environ, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, p := range b.programs {
		p.lacks("migrations")
	}
	b.cancels()
	if err := app.Setup(t.Context(), b.Environ, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, p := range b.programs {
		p.lacks()
	}
	b.untilCount("the cancellation is stored", `SELECT count(*) FROM subscriptions WHERE cancel_at_period_end`)
	b.agrees()
}

// A database is put back while everything runs, with its rows or the sequence alone. The read that
// is under way then stores nothing, nothing is lost, and work goes on by itself.
func TestWorkGoesOnAfterARestore(t *testing.T) {
	t.Parallel()
	const ago = 100_000
	for restored, sql := range map[string]string{
		"the sequence alone": `SELECT setval('sync_seq', (SELECT last_value - $1 FROM sync_seq))`,
		"rows and sequence": `WITH u AS (UPDATE person_user SET read_seq = read_seq - $1 RETURNING 1), c AS (UPDATE stripe_customers SET read_seq = read_seq - $1 RETURNING 1),
			p AS (UPDATE plans SET read_seq = read_seq - $1 RETURNING 1), h AS (UPDATE subscription_changes SET read_seq = read_seq - $1 RETURNING 1),
			e AS (UPDATE webhook_events SET seq = seq - $1 RETURNING 1), o AS (UPDATE pokes SET token = token - $1 RETURNING 1)
			SELECT setval('sync_seq', (SELECT last_value - $1 FROM sync_seq))`,
	} {
		t.Run(restored, func(t *testing.T) {
			t.Parallel()
			b := newBroken(t)
			restore := func() {
				var at int64
				if err := b.Row(t.Context(), sql, []any{int64(ago)}, &at); err != nil {
					t.Fatal(err)
				}
			}
			// It has been running for a while.
			if err := b.Row(t.Context(), `SELECT setval('sync_seq', 1000000)`, nil, new(int64)); err != nil {
				t.Fatal(err)
			}
			if err := b.Sandbox.Clerk.UpdateUser(b.user, clerksim.UserChange{FirstName: new("Augusta")}); err != nil {
				t.Fatal(err)
			}
			b.untilCount("the customer is read", `SELECT count(*) FROM stripe_customers WHERE read_seq > 1000000`)
			b.agrees()
			restore()
			b.cancels()
			b.untilCount("the cancellation is stored", `SELECT count(*) FROM subscriptions WHERE cancel_at_period_end`)
			for _, p := range b.programs {
				p.lacks()
			}
			b.agrees()

			// Once more, while a read is under way that does not see what comes next.
			asked, release := make(chan struct{}, 1), make(chan struct{})
			remove := b.Sandbox.StripeFaults.Add(faults.Rule{Method: http.MethodGet, PathPrefix: "/v1/subscriptions", HoldAfter: release, Times: 1, OnHit: func() { asked <- struct{}{} }})
			defer remove()
			if err := b.Store.Poke(t.Context(), account.JobSync, account.CustomerEntity(b.customer)); err != nil {
				t.Fatal(err)
			}
			select {
			case <-asked:
			case <-time.After(system.Patience()):
				t.Fatal("Stripe is not asked")
			}
			restore()
			if err := b.Sandbox.Stripe.CancelNow(b.subscription); err != nil {
				t.Fatal(err)
			}
			b.untilCount("the end has been told of", `SELECT count(*) FROM webhook_events WHERE type = 'customer.subscription.deleted'`)
			close(release)
			b.untilCount("the end is stored", `SELECT count(*) FROM subscriptions WHERE status = 'canceled'`)
			b.agrees()
			if n := b.Count(`SELECT count(*) FROM webhook_events WHERE status NOT IN ('completed', 'ignored')`); n != 0 {
				t.Errorf("%d events have not ended", n)
			}
		})
	}
}

// A user is deleted while Stripe refuses their name, for longer than anybody waits: billing is
// stopped and they are erased all the same.
func TestADeletionOvertakesWhatStripeDoesNotTake(t *testing.T) {
	t.Parallel()
	b := newBroken(t)
	refused := make(chan struct{}, 1000)
	remove := b.Sandbox.StripeFaults.Add(faults.Rule{Method: http.MethodPost, PathPrefix: "/v1/customers/" + b.customer, Status: http.StatusServiceUnavailable,
		OnHit: func() { refused <- struct{}{} }})
	defer remove()
	if err := b.Sandbox.Clerk.UpdateUser(b.user, clerksim.UserChange{FirstName: new("Augusta")}); err != nil {
		t.Fatal(err)
	}
	for range 3 { // by now a pause is longer than it takes to look
		select {
		case <-refused:
		case <-time.After(system.Patience()):
			t.Fatal("Stripe is not given the name")
		}
	}
	if err := b.Sandbox.Clerk.DeleteUser(b.user); err != nil {
		t.Fatal(err)
	}
	b.untilCount("the user is erased", `SELECT count(*) FROM person_user WHERE deleted_at IS NOT NULL`)
	if n := b.Count(`SELECT count(*) FROM subscriptions WHERE status = 'active' AND NOT cancel_at_period_end`); n != 0 {
		t.Error("the user is billed on")
	}
}

// A program raises the sequence when it starts, and says so while it is behind. Setting the
// database up is enough.
func TestASequenceThatIsBehindIsNamed(t *testing.T) {
	t.Parallel()
	s := system.Start(t, servers, system.Options{Stopped: true})
	at := func(sql string) (number int64) {
		t.Helper()
		if err := s.Row(t.Context(), sql, nil, &number); err != nil {
			t.Fatal(err)
		}
		return number
	}
	at(`WITH c AS (INSERT INTO stripe_customers (stripe_customer_id, read_seq) VALUES ('cus_1', 5000000) RETURNING 1) SELECT setval('sync_seq', 1)`)
	programs := both(t, s.Environ)
	s.Until("the sequence is raised", func(context.Context) error {
		if reached := at(`SELECT last_value FROM sync_seq`); reached < 6000000 {
			return fmt.Errorf("it stands at %d", reached)
		}
		return nil
	})
	for _, p := range programs {
		p.lacks()
	}
	at(`SELECT setval('sync_seq', 1)`)
	for _, p := range programs {
		if reasons := p.lacks("numbers"); !strings.Contains(reasons["numbers"], "syncctl setup") {
			t.Errorf("%s says: %v", p.name, reasons)
		}
	}
	if err := app.Setup(t.Context(), s.Environ, io.Discard); err != nil {
		t.Fatal(err)
	}
	if reached := at(`SELECT last_value FROM sync_seq`); reached != 6000000 {
		t.Errorf("the sequence stands at %d", reached)
	}
	for _, p := range programs {
		p.lacks()
	}
}

// With no room for the inbox no delivery is answered as if it were stored, /readyz says what it is,
// and the provider's own redelivery brings all of it once there is room.
func TestWorkGoesOnWithRoomOnTheDisk(t *testing.T) {
	t.Parallel()
	b := newBroken(t)
	free := b.fillDisk()
	name := 0
	b.programs[0].eventually("a delivery finds no room", func() error {
		name++
		if err := b.Sandbox.Clerk.UpdateUser(b.user, clerksim.UserChange{FirstName: new(fmt.Sprintf("Ada%d", name))}); err != nil {
			return err
		}
		status, missing, err := b.programs[0].missing()
		if err == nil && (status != http.StatusServiceUnavailable || !strings.Contains(missing["inbox"], "disk is full")) {
			err = fmt.Errorf("answered %d %v", status, missing)
		}
		return err
	})
	b.cancels()
	free()
	b.programs[0].lacks()
	b.untilCount("the cancellation is stored", `SELECT count(*) FROM subscriptions WHERE cancel_at_period_end`)
	b.untilCount("the last name is stored", fmt.Sprintf(`SELECT count(*) FROM person_user WHERE first_name = 'Ada%d'`, name))
	b.agrees()
}

// A namespace that is gone is named, deliveries are kept, and once there is one again the work goes
// on; runs that went with it come back with the next event, or with the next comparison.
func TestWorkGoesOnWithTheNamespace(t *testing.T) {
	t.Parallel()
	b := newBroken(t)
	if _, err := b.Temporal.OperatorService().DeleteNamespace(t.Context(), &operatorservice.DeleteNamespaceRequest{Namespace: b.Namespace}); err != nil {
		t.Fatal(err)
	}
	for _, p := range b.programs {
		if reasons := p.lacks("temporal"); !strings.Contains(reasons["temporal"], "namespace does not exist") {
			t.Errorf("%s says: %v", p.name, reasons)
		}
	}
	newcomer := b.Sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: "Bob", Emails: []clerksim.EmailSpec{{Address: "bob@example.com", Verified: true}}})
	b.untilCount("the delivery is kept", `SELECT count(*) FROM webhook_events WHERE entity = 'user/`+newcomer+`' AND status = 'pending'`)

	admin, err := client.NewNamespaceClient(client.Options{HostPort: b.Environ["TEMPORAL_ADDRESS"]})
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if err := admin.Register(t.Context(), &workflowservice.RegisterNamespaceRequest{Namespace: b.Namespace, WorkflowExecutionRetentionPeriod: durationpb.New(24 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	b.Until("the namespace is set up", func(ctx context.Context) error { return app.Setup(ctx, b.Environ, io.Discard) })
	for _, p := range b.programs {
		p.lacks()
	}
	// A poll of the worker's that began in the namespace that is gone ends after a minute; only then
	// it asks in the new one.
	b.UntilWithin(3*time.Minute, "the worker polls the new namespace", func(context.Context) error {
		if b.Count(`SELECT count(*) FROM webhook_events WHERE status IN ('pending', 'failing')`)+b.Count(`SELECT count(*) FROM pokes WHERE due_at IS NOT NULL`) > 0 {
			return errors.New("not yet")
		}
		return nil
	})
	b.Quiet(true)
	b.Agree(newcomer, account.AccessPolicy{PastDueGrace: 72 * time.Hour})

	// An event of the customer that was still on its way has brought the run back already, or not.
	server := runs.Server{Client: b.Temporal}
	b.Until("the customer's run is gone", func(ctx context.Context) error {
		err := b.Temporal.TerminateWorkflow(ctx, workflows.CustomerWorkflowID(b.customer), "", "a test")
		if _, gone := errors.AsType[*serviceerror.NotFound](err); err != nil && !gone {
			return err
		}
		watched, err := server.Watched(ctx, b.customer)
		if err == nil && watched {
			err = errors.New("there still")
		}
		return err
	})
	b.Until("the server lists the run no more", func(ctx context.Context) error {
		listed, _, err := server.WatchedPage(ctx, "")
		if err == nil && slices.Contains(listed, b.customer) {
			err = errors.New("listed still")
		}
		return err
	})
	// What the server remembers of the namespace that is gone may take a run there, a moment after
	// there is one again of that name. Such a comparison is lost with it, so one is asked for as long
	// as none is under way.
	b.Until("the customer is watched again", func(ctx context.Context) error {
		watched, err := server.Watched(ctx, b.customer)
		if err != nil || watched {
			return err
		}
		if _, _, err := server.Reconcile(ctx, workflows.ReconciliationInput{Caller: "operator", Repair: []account.Drift{account.DriftUnwatched}}); err != nil {
			return err
		}
		return errors.New("not yet")
	})
	b.agrees()
}

// fillDisk leaves no room for the inbox, until free is called.
func (b *broken) fillDisk() (free func()) {
	b.t.Helper()
	db, err := pgx.Connect(b.t.Context(), b.DSN)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = db.Close(context.Background()) })
	exec := func(sql string) error {
		_, err := db.Exec(b.t.Context(), sql)
		return err
	}
	must := func(sql string) {
		b.t.Helper()
		if err := exec(sql); err != nil {
			b.t.Fatal(err)
		}
	}
	small, ok := system.SmallTablespace(b.t, db)
	if !ok {
		// No file system can be made here: PostgreSQL is made to say what it says then.
		must(`CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'disk_full', MESSAGE = 'could not extend file: No space left on device'; END $$;
			CREATE TRIGGER no_room BEFORE INSERT OR UPDATE ON webhook_events FOR EACH ROW EXECUTE FUNCTION no_room()`)
		return func() { must(`DROP TRIGGER no_room ON webhook_events`) }
	}
	must(`ALTER TABLE webhook_events SET TABLESPACE ` + small)
	must(`CREATE TABLE filling (text text) TABLESPACE ` + small)
	for err == nil {
		err = exec(`INSERT INTO filling SELECT repeat('x', 1000) FROM generate_series(1, 8)`)
	}
	if !strings.Contains(err.Error(), "53100") {
		b.t.Fatal("filling the disk ended with:", err)
	}
	return func() { must(`DROP TABLE filling`) }
}
