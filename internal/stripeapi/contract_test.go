package stripeapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeapi"
)

// obligation is one method's part of the contract.
type obligation struct {
	call func(context.Context, *stripeapi.Client) error
	// asks are the requests that the call makes, in their order.
	asks []string
	// change alters an accepted answer, so that the call goes on to ask all that it can ask.
	change func(method, path, body string) (status int, changed string)
	// foreign is set where the example is of another object than was asked for, which the client
	// rightly refuses.
	foreign bool
}

const contractKey = "contract-1"

func noElements(string, string, string) (int, string) { return http.StatusOK, listJSON(false) }

// presentIsFirst makes the first phase of an example the one that runs.
func presentIsFirst(_, _, body string) (int, string) {
	var schedule map[string]any
	if json.Unmarshal([]byte(body), &schedule) != nil {
		return http.StatusOK, body
	}
	if phases, _ := schedule["phases"].([]any); len(phases) > 0 {
		schedule["current_phase"] = phases[0]
	}
	changed, err := json.Marshal(schedule)
	if err != nil {
		return http.StatusOK, body
	}
	return http.StatusOK, string(changed)
}

// TestContract sends every request that the client makes to a program that checks requests
// against Stripe's own specification and refuses routes, parameters and types that are not in
// it. It keeps no state: what it answers are Stripe's examples.
func TestContract(t *testing.T) {
	t.Parallel()
	contract := contract()

	asksNothing := map[string]bool{"Close": true}
	for method := range reflect.TypeFor[*stripeapi.Client]().Methods() {
		if _, covered := contract[method.Name]; !covered && !asksNothing[method.Name] {
			t.Errorf("the contract does not cover %s", method.Name)
		}
	}

	base := startSpecification(t)
	for name, o := range contract {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			witness := &witness{base: &http.Transport{}, change: o.change}
			t.Cleanup(witness.base.CloseIdleConnections)
			var asked []string
			client := stripeapi.New(stripeapi.Options{
				Key: "sk_test_123", BaseURL: base, Timeout: 20 * time.Second, Transport: witness,
				Observe: func(_ context.Context, c stripeapi.Call) { asked = append(asked, c.Method+" "+c.Route) },
			})
			err := o.call(t.Context(), client)
			for _, refusal := range witness.refused {
				t.Errorf("refused: %s", refusal)
			}
			if o.foreign {
				if failure.CodeOf(err) != "bad_body" {
					t.Errorf("error is %v, want bad_body for a foreign object", err)
				}
			} else if err != nil {
				t.Error(err)
			}
			if !slices.Equal(asked, o.asks) {
				t.Errorf("asked %q, want %q", asked, o.asks)
			}
		})
	}
}

func contract() map[string]obligation {
	return map[string]obligation{
		"Account": {
			asks: []string{"GET /v1/account"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, err := c.Account(ctx)
				return err
			},
		},
		"CustomerSubscriptions": {
			asks:    []string{"GET /v1/subscriptions"},
			foreign: true,
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, _, err := c.CustomerSubscriptions(ctx, adasCus)
				return err
			},
		},
		"Subscription": {
			asks: []string{"GET /v1/subscriptions/{id}", "GET /v1/subscription_items"},
			change: func(_, path, body string) (int, string) {
				if path == "/v1/subscription_items" {
					return http.StatusOK, body
				}
				return http.StatusOK, strings.ReplaceAll(strings.ReplaceAll(body, `"has_more": false`, `"has_more": true`), `"has_more":false`, `"has_more":true`)
			},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, err := c.Subscription(ctx, "sub_1")
				return err
			},
		},
		"Customer": {
			asks: []string{"GET /v1/customers/{id}"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, err := c.Customer(ctx, adasCus)
				return err
			},
		},
		"CreateCustomer": {
			asks: []string{"POST /v1/customers"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, _, err := c.CreateCustomer(ctx, account.NewCustomer{
					ClerkUserID: ada, Email: "ada@example.com", Name: "Ada Lovelace", IdempotencyKey: contractKey,
				})
				return err
			},
		},
		"UpdateCustomer": {
			asks: []string{"POST /v1/customers/{id}"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, err := c.UpdateCustomer(ctx, adasCus, ptr("ada@example.com"), ptr("Ada King"), contractKey)
				return err
			},
		},
		"DeleteCustomer": {
			asks: []string{"DELETE /v1/customers/{id}"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				return c.DeleteCustomer(ctx, adasCus, contractKey)
			},
		},
		"CustomersNaming": {
			asks:   []string{"GET /v1/customers/search"},
			change: noElements,
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, err := c.CustomersNaming(ctx, "user_1")
				return err
			},
		},
		"CustomersSubscribedFor": {
			asks:   []string{"GET /v1/subscriptions/search"},
			change: noElements,
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, err := c.CustomersSubscribedFor(ctx, "user_1")
				return err
			},
		},
		"CustomerIsUnused": {
			asks:   []string{"GET /v1/subscriptions", "GET /v1/customers/{id}/payment_methods", "GET /v1/checkout/sessions"},
			change: noElements,
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, err := c.CustomerIsUnused(ctx, adasCus)
				return err
			},
		},
		"SetEnding": {
			asks: slices.Repeat([]string{"POST /v1/subscriptions/{id}"}, 4),
			call: func(ctx context.Context, c *stripeapi.Client) error {
				flag, date := account.Ending{AtPeriodEnd: true}, account.Ending{At: time.Unix(2_000_000_000, 0)}
				for _, change := range []struct{ from, to account.Ending }{{to: flag}, {to: date}, {from: flag}, {from: date}} {
					if _, err := c.SetEnding(ctx, "sub_1", change.from, change.to, contractKey); err != nil {
						return err
					}
				}
				return nil
			},
		},
		"TakeKey": {
			asks: []string{"POST /v1/subscriptions/{id}"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				return c.TakeKey(ctx, "sub_1", contractKey)
			},
		},
		"CancelNow": {
			asks: []string{"DELETE /v1/subscriptions/{id}"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, err := c.CancelNow(ctx, "sub_1", contractKey)
				return err
			},
		},
		"ReleaseSchedule": {
			asks: []string{"POST /v1/subscription_schedules/{id}/release"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				return c.ReleaseSchedule(ctx, "sub_sched_1", contractKey)
			},
		},
		"CustomersSince": {
			asks:   []string{"GET /v1/customers"},
			change: noElements,
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, _, err := c.CustomersSince(ctx, time.Unix(1_700_000_000, 0), func(account.Customer) bool { return false })
				return err
			},
		},
		"CheckoutSessionsSince": {
			asks:   []string{"GET /v1/checkout/sessions"},
			change: noElements,
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, err := c.CheckoutSessionsSince(ctx, adasCus, time.Unix(1_700_000_000, 0))
				return err
			},
		},
		"CustomerSchedules": {
			asks:   []string{"GET /v1/subscription_schedules"},
			change: noElements,
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, err := c.CustomerSchedules(ctx, adasCus)
				return err
			},
		},
		"Schedule": {
			asks: []string{"GET /v1/subscription_schedules/{id}"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, err := c.Schedule(ctx, "sub_sched_1")
				return err
			},
		},
		"EndThroughSchedule": {
			asks: []string{"GET /v1/subscription_schedules/{id}", "POST /v1/subscription_schedules/{id}"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				return c.EndThroughSchedule(ctx, "sub_sched_1", time.Unix(1790000000, 0), contractKey)
			},
		},
		"EndWithPresentPhase": {
			asks:   []string{"GET /v1/subscription_schedules/{id}", "POST /v1/subscription_schedules/{id}"},
			change: presentIsFirst,
			call: func(ctx context.Context, c *stripeapi.Client) error {
				return c.EndWithPresentPhase(ctx, "sub_sched_1", time.Unix(1790000000, 0), contractKey)
			},
		},
		"ContinueThroughSchedule": {
			asks: []string{"POST /v1/subscription_schedules/{id}"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				return c.ContinueThroughSchedule(ctx, "sub_sched_1", contractKey)
			},
		},
		"CancelSchedule": {
			asks: []string{"POST /v1/subscription_schedules/{id}/cancel"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				return c.CancelSchedule(ctx, "sub_sched_1", contractKey)
			},
		},
		"OpenCheckout": {
			asks: []string{"POST /v1/checkout/sessions"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, _, err := c.OpenCheckout(ctx, account.NewCheckout{ClerkUserID: ada, CustomerID: adasCus, PriceID: "price_1", ProductID: "prod_1", Quantity: 2,
					SuccessURL: "https://app.example.com/thanks?session={CHECKOUT_SESSION_ID}", CancelURL: "https://app.example.com/plans", IdempotencyKey: contractKey})
				return err
			},
		},
		"CheckoutSession": {
			asks: []string{"GET /v1/checkout/sessions/{id}"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, err := c.CheckoutSession(ctx, "cs_test_1")
				return err
			},
		},
		"OpenPortal": {
			asks: []string{"POST /v1/billing_portal/sessions"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, _, err := c.OpenPortal(ctx, adasCus, "https://app.example.com/account", contractKey)
				return err
			},
		},
		"OpenCheckoutSessions": {
			asks: []string{"GET /v1/checkout/sessions"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, err := c.OpenCheckoutSessions(ctx, adasCus)
				return err
			},
		},
		"ExpireCheckoutSession": {
			asks: []string{"POST /v1/checkout/sessions/{id}/expire", "GET /v1/checkout/sessions/{id}"},
			change: func(method, _, _ string) (int, string) {
				if method == http.MethodPost {
					return http.StatusBadRequest, stripeError("invalid_request_error", "", "not open")
				}
				return http.StatusOK, `{"object":"checkout.session","id":"cs_test_1","status":"complete"}`
			},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				return c.ExpireCheckoutSession(ctx, "cs_test_1", contractKey)
			},
		},
		"Product": {
			asks: []string{"GET /v1/products/{id}", "GET /v1/prices"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, err := c.Product(ctx, "prod_1")
				return err
			},
		},
		"ProductPrices": {
			asks: []string{"GET /v1/prices"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, err := c.ProductPrices(ctx, "prod_1")
				return err
			},
		},
		"Price": {
			asks: []string{"GET /v1/prices/{id}"},
			change: func(_, _, body string) (int, string) {
				return http.StatusOK, `{"id":"price_1","object":"price","product":"prod_1"}`
			},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, err := c.Price(ctx, "price_1")
				return err
			},
		},
		"EventsPage": {
			asks: []string{"GET /v1/events"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, _, err := c.EventsPage(ctx, time.Unix(1_700_000_000, 0), "evt_1")
				return err
			},
		},
		"CustomersPage": {
			asks: []string{"GET /v1/customers"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, _, err := c.CustomersPage(ctx, "cus_1")
				return err
			},
		},
		"SubscriptionsPage": {
			asks: []string{"GET /v1/subscriptions"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, _, err := c.SubscriptionsPage(ctx, "sub_1")
				return err
			},
		},
		"ProductsPage": {
			asks: []string{"GET /v1/products"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, _, err := c.ProductsPage(ctx, "prod_1")
				return err
			},
		},
		"PricesPage": {
			asks: []string{"GET /v1/prices"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, _, err := c.PricesPage(ctx, "price_1")
				return err
			},
		},
		"OpenInvoices": {
			asks:   []string{"GET /v1/invoices"},
			change: noElements,
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, err := c.OpenInvoices(ctx, "sub_1")
				return err
			},
		},
		"PendingCharges": {
			asks:   []string{"GET /v1/invoiceitems", "GET /v1/invoices"},
			change: noElements,
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, err := c.PendingCharges(ctx, adasCus)
				return err
			},
		},
		"StopCollecting": {
			asks: []string{"POST /v1/invoices/{id}"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				return c.StopCollecting(ctx, "in_1", contractKey)
			},
		},
		"Collecting": {
			asks: []string{"GET /v1/invoices/{id}"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				_, err := c.Collecting(ctx, "in_1")
				return err
			},
		},
		"DeleteInvoiceItem": {
			asks: []string{"DELETE /v1/invoiceitems/{id}"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				return c.DeleteInvoiceItem(ctx, "ii_1")
			},
		},
		"ChargeCustomer": {
			asks: []string{"GET /v1/charges/{id}", "GET /v1/payment_intents/{id}"},
			call: func(ctx context.Context, c *stripeapi.Client) error {
				if _, err := c.ChargeCustomer(ctx, "ch_1"); err != nil {
					return err
				}
				_, err := c.ChargeCustomer(ctx, "pi_1")
				return err
			},
		},
	}
}

// TestContractRefuses shows that the specification does refuse what it does not know.
func TestContractRefuses(t *testing.T) {
	t.Parallel()
	base := startSpecification(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/v1/customers", strings.NewReader("no_such_parameter=1"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer sk_test_123")
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("status %d, want 400", resp.StatusCode)
	}
}

// witness keeps the answers that refuse a request, since the client's failures hide their text.
// One call of the client uses it, which asks one thing after the other.
type witness struct {
	base    *http.Transport
	change  func(method, path, body string) (status int, changed string)
	refused []string
}

func (w *witness) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := w.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		return nil, err
	}
	answered := string(body)
	if resp.StatusCode >= 400 {
		w.refused = append(w.refused, fmt.Sprintf("%s %s: %d %s", req.Method, req.URL.Path, resp.StatusCode, answered))
	} else if w.change != nil {
		resp.StatusCode, answered = w.change(req.Method, req.URL.Path, answered)
	}
	resp.Body = io.NopCloser(strings.NewReader(answered))
	return resp, nil
}

// startSpecification starts stripe-mock on a free port and answers its address. It is stopped
// with the test.
func startSpecification(t *testing.T) string {
	t.Helper()
	// Both addresses are given: with one alone the program also opens a port on all interfaces.
	cmd := exec.Command(specificationBinary(t), "-http-addr", "127.0.0.1:0", "-https-addr", "127.0.0.1:0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting stripe-mock: %v", err)
	}
	address := make(chan string, 1)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		defer close(address)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if _, found, ok := strings.Cut(lines.Text(), "Listening for HTTP at address: "); ok {
				address <- "http://" + found
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-drained
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
			t.Errorf("waiting for stripe-mock: %v", err)
		}
	})
	select {
	case a, ok := <-address:
		if !ok {
			t.Fatal("stripe-mock ended without listening")
		}
		return a
	case <-time.After(time.Minute):
		t.Fatal("stripe-mock does not listen")
		return ""
	}
}

// specificationBinary answers the pinned program in bin/, building it if it is not there.
func specificationBinary(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(root, "bin", "stripe-mock")
	if _, err := os.Stat(binary); err == nil {
		return binary
	}
	if err := os.MkdirAll(filepath.Dir(binary), 0o755); err != nil {
		t.Fatal(err)
	}
	// Built beside and renamed, so that nobody runs a half of it.
	dir, err := os.MkdirTemp(filepath.Dir(binary), ".stripe-mock-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	built := filepath.Join(dir, "stripe-mock")
	build := exec.Command("go", "build", "-C", filepath.Join(root, "tools", "stripemock"), "-o", built, "github.com/stripe/stripe-mock")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building stripe-mock: %v\n%s", err, out)
	}
	if err := os.Rename(built, binary); err != nil {
		t.Fatal(err)
	}
	return binary
}
