package stripechanges_test

import (
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/client"
	"go.uber.org/goleak"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeapi"
	"github.com/nepfy/clerk-stripe-sync/internal/stripechanges"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ada = "user_2adaLovelace"
	key = "op_1:step"
)

// ledger is a store's in memory.
type ledger struct {
	mu       sync.Mutex
	requests map[string]store.StripeRequest
}

func (l *ledger) StripeRequest(_ context.Context, key string) (store.StripeRequest, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.requests[key]; !known {
		l.requests[key] = store.StripeRequest{Key: key, Generation: 1, Since: time.Now()}
	}
	return l.requests[key], nil
}

func (l *ledger) NextStripeRequest(_ context.Context, r store.StripeRequest) (store.StripeRequest, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.requests[r.Key].Generation == r.Generation {
		l.requests[r.Key] = store.StripeRequest{Key: r.Key, Generation: r.Generation + 1, Since: time.Now()}
	}
	return l.requests[r.Key], nil
}

// ahead makes the ledger's time be hours ahead of that in which Stripe has made something, and the
// ledger know that Stripe may have forgotten the keys.
func (w *world) ahead() {
	w.t.Helper()
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	for key, r := range w.ledger.requests {
		r.Old, r.Since = true, r.Since.Add(12*time.Hour)
		w.ledger.requests[key] = r
	}
}

// An open checkout of a customer who lives in another time, as on a test clock, is found again: no
// other is opened beside it.
func TestAnOpenCheckoutOfAnotherTimeIsFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	opened, err := w.stripe.OpenCheckout(t.Context(), w.newCheckout())
	w.must(err)
	w.ahead()
	again, err := w.stripe.OpenCheckout(t.Context(), w.newCheckout())
	if err != nil || again.ID != opened.ID {
		t.Errorf("opened %s, and then %s (%v)", opened.ID, again.ID, err)
	}
}

// old makes Stripe forget what was asked under every key, and the ledger know that it may have.
func (w *world) old() {
	w.t.Helper()
	w.must(w.sim.Advance(w.t.Context(), 25*time.Hour))
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	for key, r := range w.ledger.requests {
		r.Old = true
		w.ledger.requests[key] = r
	}
}

// world is a Stripe, and us.
type world struct {
	t      *testing.T
	sim    *stripesim.Server
	url    string
	stripe *stripechanges.Client
	ledger *ledger

	mu    sync.Mutex
	asked []string
	lose  string // the next answer to a request that begins so is lost
	hide  string // what a request that begins so asks for is not found

	customer, subscription, price, schedule, session string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, sim: stripesim.New(stripesim.Options{Seed: 1}), ledger: &ledger{requests: map[string]store.StripeRequest{}}}
	server := httptest.NewServer(http.HandlerFunc(w.serve))
	w.url = server.URL
	reader := stripeapi.New(stripeapi.Options{Key: "sk_test_1", BaseURL: server.URL})
	t.Cleanup(func() {
		reader.Close()
		server.CloseClientConnections()
		server.Close()
	})
	w.stripe = stripechanges.New(reader, w.ledger)
	w.price = w.sim.AddPrice(w.sim.AddProduct("Pro"), 2000, "month")
	bought, err := w.sim.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{Email: "ada@example.com", PriceID: w.price})
	w.must(err)
	w.customer, w.subscription = bought.CustomerID, bought.SubscriptionID
	return w
}

func (w *world) serve(out http.ResponseWriter, r *http.Request) {
	request := r.Method + " " + r.URL.Path
	w.mu.Lock()
	w.asked = append(w.asked, request)
	lost := w.lose != "" && strings.HasPrefix(request, w.lose)
	if lost {
		w.lose = ""
	}
	hidden := w.hide != "" && strings.HasPrefix(request, w.hide)
	w.mu.Unlock()
	if hidden {
		out.Header().Set("Content-Type", "application/json")
		out.WriteHeader(http.StatusNotFound)
		fmt.Fprint(out, `{"error":{"type":"invalid_request_error","code":"resource_missing","message":"No such object"}}`)
		return
	}
	if lost {
		w.sim.ServeHTTP(httptest.NewRecorder(), r)
		out.WriteHeader(http.StatusBadGateway) // of something in between
		return
	}
	w.sim.ServeHTTP(out, r)
}

// requests are those since it was called last.
func (w *world) requests() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	asked := w.asked
	w.asked = nil
	return asked
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// shows answers a field of something at Stripe.
func (w *world) shows(path, field string) string {
	w.t.Helper()
	answer := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(w.t.Context(), http.MethodGet, path, nil)
	r.Header.Set("Authorization", "Bearer sk_test_1")
	w.sim.ServeHTTP(answer, r)
	var object map[string]any
	w.must(json.Unmarshal(answer.Body.Bytes(), &object))
	return fmt.Sprint(object[field])
}

func (w *world) newCustomer(name string) account.NewCustomer {
	return account.NewCustomer{ClerkUserID: ada, Email: "ada@example.com", Name: name, IdempotencyKey: key}
}

func (w *world) newCheckout() account.NewCheckout {
	return account.NewCheckout{ClerkUserID: ada, CustomerID: w.customer, PriceID: w.price, ProductID: "prod_1", Quantity: 1,
		SuccessURL: "https://app.example.com/ok", CancelURL: "https://app.example.com/no", IdempotencyKey: key}
}

// posts are all POSTs that we make to Stripe.
func posts() map[string]post {
	ending := account.Ending{AtPeriodEnd: true}
	name := "Augusta"
	return map[string]post{
		"create customer": {
			path: "/v1/customers", creates: "customer",
			ask: func(ctx context.Context, w *world) (string, error) {
				made, _, err := w.stripe.CreateCustomer(ctx, w.newCustomer("Ada"))
				return made.ID, err
			},
			is: func(w *world, id string) bool { return w.shows("/v1/customers/"+id, "name") == "Ada" },
		},
		"update customer": {
			path: "/v1/customers/",
			ask: func(ctx context.Context, w *world) (string, error) {
				_, err := w.stripe.UpdateCustomer(ctx, w.customer, nil, &name, key)
				return "", err
			},
			is: func(w *world, _ string) bool { return w.shows("/v1/customers/"+w.customer, "name") == name },
		},
		"set end": {
			path: "/v1/subscriptions/",
			ask: func(ctx context.Context, w *world) (string, error) {
				now, err := w.stripe.SetEnding(ctx, w.subscription, account.Ending{}, ending, key)
				if err == nil && !now.CancelAtPeriodEnd {
					err = fmt.Errorf("answered as %+v", now.Ending())
				}
				return "", err
			},
			is: func(w *world, _ string) bool {
				return w.shows("/v1/subscriptions/"+w.subscription, "cancel_at_period_end") == "true"
			},
		},
		"release schedule": {
			path: "/v1/subscription_schedules/",
			make: func(w *world) {
				backend := stripe.GetBackendWithConfig(stripe.APIBackend, &stripe.BackendConfig{URL: stripe.String(w.url), LeveledLogger: &stripe.LeveledLogger{}})
				made, err := client.New("sk_test_1", &stripe.Backends{API: backend}).SubscriptionSchedules.New(&stripe.SubscriptionScheduleParams{FromSubscription: &w.subscription})
				w.must(err)
				w.schedule = made.ID
			},
			ask: func(ctx context.Context, w *world) (string, error) {
				return "", w.stripe.ReleaseSchedule(ctx, w.schedule, key)
			},
			is: func(w *world, _ string) bool {
				return w.shows("/v1/subscription_schedules/"+w.schedule, "status") == "released"
			},
		},
		"open checkout": {
			path: "/v1/checkout/sessions", creates: "checkout.session",
			ask: func(ctx context.Context, w *world) (string, error) {
				opened, err := w.stripe.OpenCheckout(ctx, w.newCheckout())
				if err == nil && opened.URL == "" {
					err = fmt.Errorf("a checkout without an address: %s", opened.ID)
				}
				return opened.ID, err
			},
			is: func(w *world, id string) bool { return w.shows("/v1/checkout/sessions/"+id, "status") == "open" },
		},
		"expire checkout": {
			path: "/v1/checkout/sessions/",
			make: func(w *world) {
				n := w.newCheckout()
				n.IdempotencyKey = "another"
				opened, err := w.stripe.OpenCheckout(w.t.Context(), n)
				w.must(err)
				w.session = opened.ID
			},
			ask: func(ctx context.Context, w *world) (string, error) {
				return "", w.stripe.ExpireCheckoutSession(ctx, w.session, key)
			},
			is: func(w *world, _ string) bool {
				return w.shows("/v1/checkout/sessions/"+w.session, "status") == "expired"
			},
		},
		"open portal": {
			path: "/v1/billing_portal/sessions",
			ask: func(ctx context.Context, w *world) (string, error) {
				address, err := w.stripe.OpenPortal(ctx, w.customer, "https://app.example.com/", key)
				if err == nil && address == "" {
					err = fmt.Errorf("no address")
				}
				return "", err
			},
			is: func(*world, string) bool { return true },
		},
	}
}

type post struct {
	path string
	// creates is what it makes, as the sandbox counts it; "" for nothing that can be counted.
	creates string
	make    func(w *world)
	ask     func(ctx context.Context, w *world) (id string, err error)
	is      func(w *world, id string) bool
}

// prepare puts what the change is about into a world of its own.
func (p post) prepare(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	if p.make != nil {
		p.make(w)
	}
	w.requests()
	return w
}

// Stripe fails inside, before or after it has done what was asked for, and repeats that for a day.
// The next attempt makes the change, or finds that it is made, and there is one of what is created;
// so does each attempt after it.
func TestAStoredFailureIsLeftBehindAtEveryPost(t *testing.T) {
	t.Parallel()
	for name, p := range posts() {
		for _, done := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, done %t", name, done), func(t *testing.T) {
				t.Parallel()
				w := p.prepare(t)
				before := w.sim.Counts()[p.creates]
				w.sim.Break(stripesim.Breakage{PathPrefix: p.path, Done: done, Times: 1})
				if _, err := p.ask(t.Context(), w); failure.Of(err) != failure.Transient {
					t.Fatalf("the failure is answered %v", err)
				}
				id, err := p.ask(t.Context(), w)
				w.must(err)
				if !p.is(w, id) {
					t.Error("it has not come to be")
				}
				again, err := p.ask(t.Context(), w)
				w.must(err)
				if again != id {
					t.Errorf("another attempt answers %q, the one before it %q", again, id)
				}
				if made := w.sim.Counts()[p.creates] - before; p.creates != "" && made != 1 {
					t.Errorf("%d were made", made)
				}
			})
		}
	}
}

// Stripe fails inside twice in a row, after it has done it the second time.
func TestStoredFailuresInARow(t *testing.T) {
	t.Parallel()
	for name, p := range posts() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := p.prepare(t)
			before := w.sim.Counts()[p.creates]
			w.sim.Break(stripesim.Breakage{PathPrefix: p.path, Times: 1})
			w.sim.Break(stripesim.Breakage{PathPrefix: p.path, Done: true, Times: 1})
			for range 2 {
				if _, err := p.ask(t.Context(), w); failure.Of(err) != failure.Transient {
					t.Fatalf("a failure is answered %v", err)
				}
			}
			id, err := p.ask(t.Context(), w)
			w.must(err)
			if made := w.sim.Counts()[p.creates] - before; !p.is(w, id) || p.creates != "" && made != 1 {
				t.Errorf("%d were made", made)
			}
		})
	}
}

// Where nothing was stored nothing is asked besides.
func TestOrdinaryChangesAreOneRequest(t *testing.T) {
	t.Parallel()
	for name, p := range posts() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := p.prepare(t)
			id, err := p.ask(t.Context(), w)
			w.must(err)
			if asked := w.requests(); len(asked) != 1 || !p.is(w, id) {
				t.Errorf("asked %q", asked)
			}
		})
	}
}

// The answer is lost, and the next attempt comes when Stripe has forgotten the key: there is one of
// what is created.
func TestAForgottenKeyIsNotAskedUnderAgain(t *testing.T) {
	t.Parallel()
	for name, p := range posts() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := p.prepare(t)
			before := w.sim.Counts()[p.creates]
			w.lose = "POST " + p.path
			if _, err := p.ask(t.Context(), w); failure.Of(err) != failure.Transient {
				t.Fatalf("the lost answer is %v", err)
			}
			w.old()
			_, err := p.ask(t.Context(), w)
			w.must(err)
			made := w.sim.Counts()[p.creates] - before
			// A checkout has expired by then, and is of no use to anybody.
			if want := map[string]int{"customer": 1, "checkout.session": 2}[p.creates]; p.creates != "" && made != want {
				t.Errorf("%d were made, want %d", made, want)
			}
		})
	}
}

// The answer is lost, and the next attempt says something else, which Stripe refuses under this
// key. The customer that was made is found; those of other requests are none of it, however alike.
func TestASpentKeyFindsWhatWasMade(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := w.newCustomer("Ada")
	other.IdempotencyKey = "another"
	_, _, err := w.stripe.CreateCustomer(t.Context(), other)
	w.must(err)
	w.lose = "POST /v1/customers"
	if _, _, err := w.stripe.CreateCustomer(t.Context(), w.newCustomer("Ada")); err == nil {
		t.Fatal("the answer was not lost")
	}
	before := w.sim.Counts()["customer"]
	w.sim.SetSearchLag(time.Hour)
	found, made, err := w.stripe.CreateCustomer(t.Context(), w.newCustomer("Augusta"))
	w.must(err)
	if !made || found.Metadata[account.MetadataRequest] != key || w.sim.Counts()["customer"] != before {
		t.Errorf("answered %+v, made before: %t", found, made)
	}
	for _, asked := range w.requests() {
		if strings.Contains(asked, "search") {
			t.Error("search was asked, which is behind")
		}
	}
}

// What Stripe has stored under the key is gone, or of no use, by now: another is made.
func TestAnAnswerOfNoUseIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made, before, err := w.stripe.CreateCustomer(t.Context(), w.newCustomer("Ada"))
	if err != nil || before {
		t.Fatal(before, err)
	}
	again, before, err := w.stripe.CreateCustomer(t.Context(), w.newCustomer("Ada"))
	if err != nil || !before || again.ID != made.ID {
		t.Errorf("asked again: %s, %t, %v", again.ID, before, err)
	}
	w.must(w.sim.DeleteCustomer(made.ID))
	instead, before, err := w.stripe.CreateCustomer(t.Context(), w.newCustomer("Ada"))
	if err != nil || before || instead.ID == made.ID {
		t.Errorf("after it was deleted: %s, %t, %v", instead.ID, before, err)
	}

	opened, err := w.stripe.OpenCheckout(t.Context(), w.newCheckout())
	w.must(err)
	w.must(w.stripe.ExpireCheckoutSession(t.Context(), opened.ID, "expire:"+opened.ID))
	reopened, err := w.stripe.OpenCheckout(t.Context(), w.newCheckout())
	if err != nil || reopened.ID == opened.ID || reopened.Status != account.CheckoutOpen {
		t.Errorf("after it has expired: %+v, %v", reopened, err)
	}
}

// What Stripe's stored answer says that it has just made, and a read does not show, may not show yet:
// nothing is made in its place. Once it is older, or where its time is not ours, it is gone.
func TestWhatWasMadeJustNowIsNotGoneForANotFound(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		read string
		make func(w *world) (id string, err error)
	}{
		"a customer": {"GET /v1/customers/", func(w *world) (string, error) {
			made, _, err := w.stripe.CreateCustomer(w.t.Context(), w.newCustomer("Ada"))
			return made.ID, err
		}},
		"a checkout": {"GET /v1/checkout/sessions/", func(w *world) (string, error) {
			opened, err := w.stripe.OpenCheckout(w.t.Context(), w.newCheckout())
			return opened.ID, err
		}},
	} {
		for when, at := range map[string]time.Duration{"later": 10 * time.Minute, "in another time": -24 * time.Hour} {
			t.Run(name+" "+when, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				made, err := c.make(w)
				w.must(err)
				hide := func(prefix string) {
					w.mu.Lock()
					defer w.mu.Unlock()
					w.hide = prefix
				}
				for range 2 {
					hide(c.read)
					if id, err := c.make(w); failure.Of(err) != failure.Transient || failure.CodeOf(err) != "not_shown_yet" {
						t.Errorf("not shown: answered %s, %v", id, err)
					}
					hide("")
					if id, err := c.make(w); err != nil || id != made {
						t.Errorf("shown: answered %s, %v, want %s", id, err, made)
					}
				}
				hide(c.read)
				w.stripe.At(func() time.Time { return time.Now().Add(at) })
				if id, err := c.make(w); err != nil || id == made {
					t.Errorf("%s: answered %s, %v", when, id, err)
				}
			})
		}
	}
}

// Somebody has set another end since, and whether ours was set is not known: it is not set over
// theirs.
func TestAnotherMindIsNotOverruled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sim.BreakNext(1)
	set := func() error {
		_, err := w.stripe.SetEnding(t.Context(), w.subscription, account.Ending{}, account.Ending{AtPeriodEnd: true}, key)
		return err
	}
	if set() == nil {
		t.Fatal("Stripe did not break")
	}
	w.must(w.sim.CancelAt(w.subscription, time.Now().AddDate(0, 3, 0)))
	if err := set(); failure.Of(err) != failure.Transient || failure.CodeOf(err) != "changed_meanwhile" {
		t.Errorf("answered %v", err)
	}
	if w.shows("/v1/subscriptions/"+w.subscription, "cancel_at_period_end") != "false" {
		t.Error("it was set over theirs")
	}
}

// Several who have met the same stored failure make one customer, under generations that none of
// them uses twice.
func TestSeveralLeaveOneFailureBehind(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.sim.Counts()["customer"]
	w.sim.BreakNext(1)
	if _, _, err := w.stripe.CreateCustomer(t.Context(), w.newCustomer("Ada")); err == nil {
		t.Fatal("Stripe did not break")
	}
	var all sync.WaitGroup
	ids := make([]string, 8)
	for i := range ids {
		all.Go(func() {
			for range 10_000 {
				made, _, err := w.stripe.CreateCustomer(t.Context(), w.newCustomer("Ada"))
				if failure.Of(err) == failure.Transient {
					continue // another is at it
				}
				if err != nil {
					t.Error(err)
				}
				ids[i] = made.ID
				return
			}
		})
	}
	all.Wait()
	for _, id := range ids {
		if id == "" || id != ids[0] {
			t.Errorf("they have %q", ids)
			break
		}
	}
	if made := w.sim.Counts()["customer"] - before; made != 1 {
		t.Errorf("%d customers were made", made)
	}
}

// No change goes past the one place that decides: every method of stripeapi that takes a key is one
// of ours.
func TestEveryChangeIsMadeOnce(t *testing.T) {
	t.Parallel()
	theirs, ours := methods(t, "../stripeapi"), methods(t, ".")
	if len(theirs) < 8 {
		t.Fatalf("only %v are changes: the source is read wrongly", theirs)
	}
	for name := range theirs {
		if !ours[name] {
			t.Errorf("%s is asked for past this package", name)
		}
	}
}

// methods are the methods of Client that take an idempotency key, or an object with one.
func methods(t *testing.T, dir string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv == nil || !f.Name.IsExported() {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if id, ok := n.(*ast.Ident); ok && (id.Name == "idempotencyKey" || id.Name == "IdempotencyKey" || id.Name == "SetIdempotencyKey") {
					found[f.Name.Name] = true
				}
				return true
			})
		}
	}
	return found
}
