package sagas_test

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
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// stage is the running application with a subscriber for each case. The cases share it: every fault
// meets one subscriber's requests and rows only.
type stage struct {
	*system.System
	t     *testing.T
	db    *pgxpool.Pool
	price string
	http  *http.Client
}

// setTheStage makes the stage without programs. Faults of the database are triggers that look into
// a table: a row there makes a change of that subject's fail, or wait for as long as the test holds
// a lock.
func setTheStage(t *testing.T, environ map[string]string) *stage {
	t.Helper()
	o := system.Options{Stopped: true, Environ: map[string]string{"STRIPE_RATE": "80", "CLERK_RATE": "80", "DATABASE_MAX_CONNS": "16"}}
	maps.Copy(o.Environ, environ)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	s := &stage{System: system.Start(t, servers, o), t: t, http: &http.Client{Transport: transport, Timeout: 90 * time.Second}}
	config, err := pgxpool.ParseConfig(s.DSN)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 40 // each case may hold a lock
	db, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	s.db = db
	s.exec(`CREATE TABLE faults (subject text NOT NULL, point text NOT NULL, kind text NOT NULL, key bigint)`)
	s.exec(`CREATE FUNCTION fault(of text, at text) RETURNS void LANGUAGE plpgsql AS $$
		DECLARE f record;
		BEGIN
			FOR f IN SELECT * FROM faults WHERE subject = of AND point = at LOOP
				CASE f.kind
					WHEN 'for good' THEN RAISE EXCEPTION 'refused' USING ERRCODE = 'check_violation';
					WHEN 'for a minute' THEN RAISE EXCEPTION 'not now' USING ERRCODE = 'too_many_connections';
					ELSE PERFORM pg_advisory_xact_lock(f.key);
				END CASE;
			END LOOP;
		END $$`)
	s.exec(`CREATE FUNCTION operation_fault() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF NEW.status = 'acting' AND OLD.status = 'accepted' THEN PERFORM fault(NEW.stripe_subscription_id, 'note'); END IF;
			IF NEW.status IN ('recorded', 'done') AND OLD.status = 'acting' THEN PERFORM fault(NEW.stripe_subscription_id, 'record'); END IF;
			RETURN NEW;
		END $$`)
	s.exec(`CREATE TRIGGER operation_fault BEFORE UPDATE ON operations FOR EACH ROW EXECUTE FUNCTION operation_fault()`)
	s.exec(`CREATE FUNCTION user_fault() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF NEW.published_version <> OLD.published_version THEN PERFORM fault(NEW.clerk_user_id, 'settle'); END IF;
			RETURN NEW;
		END $$`)
	s.exec(`CREATE TRIGGER user_fault BEFORE UPDATE ON person_user FOR EACH ROW EXECUTE FUNCTION user_fault()`)
	return s
}

func (s *stage) exec(sql string, args ...any) {
	s.t.Helper()
	if _, err := s.db.Exec(context.Background(), sql, args...); err != nil {
		s.t.Fatal(err)
	}
}

// sell makes the product and waits until it is in the catalogue.
func (s *stage) sell() {
	s.t.Helper()
	s.price = s.Sandbox.Stripe.AddPrice(s.Sandbox.Stripe.AddProduct("Pro"), 2000, "month")
	s.Until("the price is in the catalogue", func(context.Context) error {
		if s.Count(`SELECT count(*) FROM plan_prices`) != 1 {
			return errors.New("not yet")
		}
		return nil
	})
}

// subscriber is somebody whose command is broken.
type subscriber struct {
	s                                      *stage
	user, customer, subscription, schedule string
}

// subscribers makes that many, each with an active subscription that all three systems know.
func (s *stage) subscribers(n int) []*subscriber {
	s.t.Helper()
	people := make([]*subscriber, n)
	for i := range people {
		people[i] = &subscriber{s: s, user: s.Sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: fmt.Sprintf("Person%d", i)})}
	}
	for _, p := range people {
		s.UntilWithin(5*time.Minute, "everybody has a customer", func(ctx context.Context) error {
			return s.Row(ctx, `SELECT stripe_customer_id FROM person_user WHERE clerk_user_id = $1 AND stripe_customer_id IS NOT NULL`, []any{p.user}, &p.customer)
		})
		bought, err := s.Sandbox.Stripe.CompleteCheckout(s.t.Context(), stripesim.CheckoutSpec{CustomerID: p.customer, PriceID: s.price, ClientReferenceID: p.user})
		if err != nil {
			s.t.Fatal(err)
		}
		p.subscription = bought.SubscriptionID
	}
	s.UntilWithin(5*time.Minute, "everybody's subscription is known", func(context.Context) error {
		if known := s.Count(`SELECT count(*) FROM subscriptions WHERE status = 'active'`); known != n {
			return fmt.Errorf("%d of %d are", known, n)
		}
		return nil
	})
	return people
}

// ends is how Stripe says that the subscription ends.
func (p *subscriber) ends() string {
	p.s.t.Helper()
	for _, raw := range p.s.Sandbox.Stripe.Subscriptions(p.customer) {
		var s struct {
			Status            string `json:"status"`
			CancelAtPeriodEnd bool   `json:"cancel_at_period_end"`
			CancelAt          *int64 `json:"cancel_at"`
		}
		if err := json.Unmarshal(raw, &s); err != nil {
			p.s.t.Fatal(err)
		}
		switch {
		case s.CancelAtPeriodEnd:
			return endsWithPeriod
		case s.CancelAt != nil:
			return endsByDate
		default:
			return s.Status
		}
	}
	return "missing"
}

// How a subscription can stand.
const (
	runs           = "active"
	over           = "canceled"
	endsWithPeriod = "active, ends with its period"
	endsByDate     = "active, ends by date"
)

// portal is somebody else who changes the same thing meanwhile.
func (p *subscriber) portal() {
	// What Stripe refuses, such as a date for what is over, is refused to the portal too.
	_ = p.s.Sandbox.Stripe.CancelAt(p.subscription, time.Now().AddDate(0, 3, 0))
}

// manage puts the subscription under a schedule.
func (p *subscriber) manage() error {
	body, err := p.stripe(http.MethodPost, "/v1/subscription_schedules", url.Values{"from_subscription": {p.subscription}})
	if err != nil {
		return err
	}
	var schedule struct{ ID string }
	if err := json.Unmarshal(body, &schedule); err != nil {
		return err
	}
	p.schedule = schedule.ID
	return nil
}

func (p *subscriber) stripe(method, path string, form url.Values) ([]byte, error) {
	request, err := http.NewRequestWithContext(p.s.t.Context(), method, p.s.Sandbox.StripeURL()+path, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+p.s.Sandbox.StripeSecretKey)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := p.s.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("Stripe answered %d %s", answer.StatusCode, body)
	}
	return body, err
}

// reply is an answer of the API's.
type reply struct {
	status                  int
	code, operation, reason string
}

// asks makes a request of the API as the subscriber.
func (p *subscriber) asks(method, path, body string) (reply, error) {
	request, err := http.NewRequestWithContext(p.s.t.Context(), method, p.s.URL()+path, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	request.Header.Set("Authorization", "Bearer "+p.s.Sandbox.Clerk.SessionToken(clerksim.TokenSpec{UserID: p.user}))
	answer, err := p.s.http.Do(request)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = answer.Body.Close() }()
	read, err := io.ReadAll(answer.Body)
	if err != nil {
		return reply{}, err
	}
	var document struct{ Code, Operation, Status, Reason any }
	if err := json.Unmarshal(bytes.TrimSpace(read), &document); err != nil {
		return reply{}, fmt.Errorf("answered %d %s: %w", answer.StatusCode, read, err)
	}
	text := func(v any) string { s, _ := v.(string); return s }
	r := reply{status: answer.StatusCode, code: text(document.Code), operation: text(document.Operation), reason: text(document.Reason)}
	if r.code == "" {
		r.code = text(document.Status)
	}
	return r, nil
}

// settled waits until an operation has ended and answers how.
func (p *subscriber) settled(address string) (status string) {
	p.s.t.Helper()
	p.s.UntilWithin(4*time.Minute, "the operation "+address+" has ended", func(context.Context) error {
		r, err := p.asks(http.MethodGet, address, "")
		if err == nil && r.code == "pending" {
			err = errors.New("it is pending")
		}
		status = r.code
		return err
	})
	return status
}

// story is what the audit log says of the subscriber's commands.
func (p *subscriber) story() (told string) {
	p.s.t.Helper()
	if err := p.s.Row(context.Background(), `SELECT coalesce(string_agg(after ->> 'outcome', ', ' ORDER BY id), '') FROM audit_log
		WHERE action LIKE 'operation.%' AND subject = $1`, []any{p.subscription}, &told); err != nil {
		p.s.t.Fatal(err)
	}
	return told
}

// lockKeys are different for every case.
var lockKeys struct {
	sync.Mutex
	last int64
}

// stall makes a change of the database wait until release; reached answers when somebody waits
// there.
func (p *subscriber) stall(subject, point string) (reached func(), release func()) {
	p.s.t.Helper()
	lockKeys.Lock()
	lockKeys.last++
	key := lockKeys.last
	lockKeys.Unlock()
	held, err := p.s.db.Acquire(context.Background())
	if err != nil {
		p.s.t.Fatal(err)
	}
	if _, err := held.Exec(context.Background(), `SELECT pg_advisory_lock($1)`, key); err != nil {
		p.s.t.Fatal(err)
	}
	p.s.exec(`INSERT INTO faults VALUES ($1, $2, 'stall', $3)`, subject, point, key)
	reached = func() {
		p.s.t.Helper()
		p.s.Until("somebody waits at "+point, func(context.Context) error {
			if p.s.Count(`SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = $1 AND NOT granted`, key) == 0 {
				return errors.New("nobody does")
			}
			return nil
		})
	}
	release = sync.OnceFunc(func() {
		p.s.exec(`DELETE FROM faults WHERE key = $1`, key)
		if _, err := held.Exec(context.Background(), `SELECT pg_advisory_unlock($1)`, key); err != nil {
			p.s.t.Error(err)
		}
		held.Release()
	})
	p.s.t.Cleanup(release)
	return reached, release
}

func policy() account.AccessPolicy { return account.AccessPolicy{PastDueGrace: 72 * time.Hour} }
