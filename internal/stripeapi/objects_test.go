package stripeapi_test

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

const customerJSON = `{"object":"customer","id":"cus_ada1","email":"ada@example.com","name":"Ada Lovelace",
	"created":1700000000,"metadata":{"clerk_user_id":"user_2adaLovelace"}}`

const itemJSON = `{"object":"subscription_item","id":"si_1","quantity":2%s,"price":{"object":"price","id":"price_1",
	"product":"prod_1","unit_amount":1500,"currency":"usd","recurring":{"interval":"month","interval_count":3}}}`

// subscriptionJSON renders a subscription as the versions before and since 2025-03-31.basil do.
func subscriptionJSON(id string, basil bool) string {
	period, onItem := `"current_period_start":1700000000,"current_period_end":1702592000,`, ""
	if basil {
		period, onItem = "", `,"current_period_start":1700000000,"current_period_end":1702592000`
	}
	return fmt.Sprintf(`{"object":"subscription","id":%q,"status":"past_due","customer":%s,%s
		"cancel_at_period_end":true,"cancel_at":1702592000,"canceled_at":1700000500,"ended_at":null,
		"trial_start":1699000000,"trial_end":1700000000,"pause_collection":{"behavior":"void"},
		"latest_invoice":{"object":"invoice","id":"in_1","created":1700000042},
		"schedule":"sub_sched_1","created":1699000000,"metadata":{"clerk_user_id":"user_2adaLovelace"},
		"items":{"object":"list","has_more":false,"data":[%s]}}`,
		id, customerJSON, period, fmt.Sprintf(itemJSON, onItem))
}

func listJSON(more bool, objects ...string) string {
	return fmt.Sprintf(`{"object":"list","url":"/v1/x","has_more":%v,"data":[%s]}`, more, strings.Join(objects, ","))
}

func at(seconds int64) time.Time { return time.Unix(seconds, 0).UTC() }

func wantSubscription(id string) account.Subscription {
	return account.Subscription{
		ID: id, CustomerID: adasCus, Status: account.StatusPastDue,
		Items: []account.Item{{
			ID: "si_1", PriceID: "price_1", ProductID: "prod_1", Quantity: 2, UnitAmount: 1500, Currency: "usd",
			Interval: "month", IntervalCount: 3,
		}},
		CurrentPeriodStart: at(1700000000), CurrentPeriodEnd: at(1702592000),
		TrialStart: at(1699000000), TrialEnd: at(1700000000),
		CancelAtPeriodEnd: true, CancelAt: at(1702592000), CanceledAt: at(1700000500),
		CollectionPaused: true, LatestInvoiceCreated: at(1700000042), ScheduleID: "sub_sched_1",
		Created:  at(1699000000),
		Metadata: map[string]string{"clerk_user_id": ada},
	}
}

func TestSubscriptionInBothShapes(t *testing.T) {
	t.Parallel()
	for _, basil := range []bool{false, true} {
		t.Run(fmt.Sprintf("basil=%v", basil), func(t *testing.T) {
			t.Parallel()
			_, client := serve(t, answer(200, subscriptionJSON("sub_1", basil)))
			got, err := client.Subscription(t.Context(), "sub_1")
			if err != nil {
				t.Fatal(err)
			}
			if want := wantSubscription("sub_1"); !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestCustomerSubscriptionsReadsAllPages(t *testing.T) {
	t.Parallel()
	s, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.FormValue("starting_after") {
		case "":
			answer(200, listJSON(true, subscriptionJSON("sub_3", false), subscriptionJSON("sub_2", true)))(w, r)
		case "sub_2":
			answer(200, listJSON(false, subscriptionJSON("sub_1", true)))(w, r)
		default:
			answer(400, `{"error":{"type":"invalid_request_error"}}`)(w, r)
		}
	})
	got, customer, err := client.CustomerSubscriptions(t.Context(), adasCus)
	if err != nil {
		t.Fatal(err)
	}
	want := []account.Subscription{wantSubscription("sub_3"), wantSubscription("sub_2"), wantSubscription("sub_1")}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	wantCustomer := &account.Customer{
		ID: adasCus, Email: "ada@example.com", Name: "Ada Lovelace", Created: at(1700000000),
		Metadata: map[string]string{"clerk_user_id": ada},
	}
	if !reflect.DeepEqual(customer, wantCustomer) {
		t.Errorf("customer = %+v, want %+v", customer, wantCustomer)
	}
	for _, r := range s.seen() {
		if r.form["status"] != "all" || r.form["customer"] != adasCus || r.form["limit"] != "100" {
			t.Errorf("asked with %v", r.form)
		}
	}
}

func TestCustomerSubscriptionsOfNone(t *testing.T) {
	t.Parallel()
	_, client := serve(t, answer(200, listJSON(false)))
	got, customer, err := client.CustomerSubscriptions(t.Context(), adasCus)
	if err != nil || len(got) != 0 || customer != nil {
		t.Errorf("got %v, %v, %v; want nothing", got, customer, err)
	}
}

// TestAnIncompleteListIsAnError has lists that a careless reader takes for "no more
// subscriptions", which would take somebody's access away.
func TestAnIncompleteListIsAnError(t *testing.T) {
	t.Parallel()
	first := listJSON(true, subscriptionJSON("sub_2", false))
	tests := []struct {
		name           string
		first, second  string
		secondStatus   int
		wantClass      failure.Class
		wantCode       string
		wantOnlyOneAsk bool
	}{
		{"an empty object", "{}", "", 0, failure.Transient, "bad_body", true},
		{"a list without its elements", `{"object":"list","has_more":false}`, "", 0, failure.Transient, "bad_body", true},
		{"elements without has_more", `{"object":"list","data":[]}`, "", 0, failure.Transient, "bad_body", true},
		{"more announced behind nothing", listJSON(true), "", 0, failure.Transient, "bad_body", true},
		{"an element without an id", listJSON(false, `{"object":"subscription"}`), "", 0, failure.Transient, "bad_body", true},
		{"a subscription of another customer", listJSON(false, strings.ReplaceAll(subscriptionJSON("sub_1", false), adasCus, "cus_eve")), "", 0, failure.Transient, "bad_body", true},
		{"a subscription without a status", listJSON(false, `{"object":"subscription","id":"sub_1","customer":"cus_ada1"}`), "", 0, failure.Transient, "bad_body", true},
		{"the second page fails", first, "", 503, failure.Transient, "http_503", false},
		{"the second page is an empty object", first, "{}", 200, failure.Transient, "bad_body", false},
		{"the second page is the first again", first, first, 200, failure.Transient, "list_does_not_advance", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.FormValue("starting_after") == "" {
					answer(200, test.first)(w, r)
					return
				}
				answer(test.secondStatus, test.second)(w, r)
			})
			got, customer, err := client.CustomerSubscriptions(t.Context(), adasCus)
			if failure.Of(err) != test.wantClass || failure.CodeOf(err) != test.wantCode {
				t.Errorf("error is %v, want %s %s", err, test.wantClass, test.wantCode)
			}
			if got != nil || customer != nil {
				t.Errorf("a part was answered with the error: %v, %v", got, customer)
			}
			if asked := len(s.seen()); test.wantOnlyOneAsk && asked != 1 {
				t.Errorf("asked %d times", asked)
			}
		})
	}
}

func TestItemsThatStripeLeftOut(t *testing.T) {
	t.Parallel()
	full := subscriptionJSON("sub_1", false)
	cut := strings.Replace(full, `"items":{"object":"list","has_more":false`, `"items":{"object":"list","has_more":true`, 1)
	s, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/subscription_items" {
			item := fmt.Sprintf(itemJSON, "")
			answer(200, listJSON(false, item, strings.ReplaceAll(item, "si_1", "si_2")))(w, r)
			return
		}
		answer(200, cut)(w, r)
	})
	got, err := client.Subscription(t.Context(), "sub_1")
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Items) != 2 {
		t.Errorf("%d items, want 2", len(got.Items))
	}
	if r := s.seen()[1]; r.form["subscription"] != "sub_1" {
		t.Errorf("asked for items with %v", r.form)
	}
}

func TestCustomers(t *testing.T) {
	t.Parallel()
	t.Run("deleted", func(t *testing.T) {
		t.Parallel()
		_, client := serve(t, answer(200, `{"object":"customer","id":"cus_ada1","deleted":true}`))
		got, err := client.Customer(t.Context(), adasCus)
		if err != nil || !got.Deleted {
			t.Errorf("got %+v, %v; want a deleted customer", got, err)
		}
	})
	t.Run("create", func(t *testing.T) {
		t.Parallel()
		s, client := serve(t, answer(200, customerJSON))
		_, replay, err := client.CreateCustomer(t.Context(), account.NewCustomer{ClerkUserID: ada, Name: "Ada", Request: "r1", IdempotencyKey: "k1"})
		if err != nil || replay {
			t.Fatalf("replayed, err = %v, %v", replay, err)
		}
		want := map[string]string{"name": "Ada", "metadata[clerk_user_id]": ada, "metadata[sync_request]": "r1"}
		if r := s.seen()[0]; r.method != "POST" || r.header.Get("Idempotency-Key") != "k1" || !reflect.DeepEqual(r.form, want) {
			t.Errorf("sent %s %v, want %v", r.method, r.form, want)
		}
	})
	t.Run("create, replayed", func(t *testing.T) {
		t.Parallel()
		_, client := serve(t, answer(200, customerJSON, "Idempotent-Replayed", "true"))
		_, replay, err := client.CreateCustomer(t.Context(), account.NewCustomer{ClerkUserID: ada, IdempotencyKey: "k1"})
		if err != nil || !replay {
			t.Errorf("replayed, err = %v, %v; want true", replay, err)
		}
	})
	t.Run("update sends what is given", func(t *testing.T) {
		t.Parallel()
		s, client := serve(t, answer(200, customerJSON))
		if _, err := client.UpdateCustomer(t.Context(), adasCus, ptr("ada@example.com"), ptr(""), "k1"); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"email": "ada@example.com"}
		if r := s.seen()[0]; r.method != "POST" || !reflect.DeepEqual(r.form, want) {
			t.Errorf("sent %s %v, want %v", r.method, r.form, want)
		}
	})
	t.Run("update with nothing reads", func(t *testing.T) {
		t.Parallel()
		s, client := serve(t, answer(200, customerJSON))
		if _, err := client.UpdateCustomer(t.Context(), adasCus, nil, ptr(""), "k1"); err != nil {
			t.Fatal(err)
		}
		if r := s.seen()[0]; r.method != "GET" {
			t.Errorf("sent %s %v", r.method, r.form)
		}
	})
	t.Run("delete what is gone", func(t *testing.T) {
		t.Parallel()
		_, client := serve(t, answer(404, stripeError("invalid_request_error", "resource_missing", "x")))
		if err := client.DeleteCustomer(t.Context(), adasCus, "k1"); err != nil {
			t.Errorf("error is %v, want none", err)
		}
	})
	t.Run("delete that did not", func(t *testing.T) {
		t.Parallel()
		_, client := serve(t, answer(200, customerJSON))
		if err := client.DeleteCustomer(t.Context(), adasCus, "k1"); failure.CodeOf(err) != "bad_body" {
			t.Errorf("error is %v, want bad_body", err)
		}
	})
}

func TestCustomersNaming(t *testing.T) {
	t.Parallel()
	result := func(next, objects string) string {
		more := next != "null"
		return fmt.Sprintf(`{"object":"search_result","url":"/v1/customers/search","has_more":%v,"next_page":%s,"data":[%s]}`, more, next, objects)
	}
	t.Run("all pages, by every key", func(t *testing.T) {
		t.Parallel()
		s, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Form.Get("page") == "" {
				answer(200, result(`"two"`, customerJSON))(w, r)
				return
			}
			answer(200, result("null", strings.ReplaceAll(customerJSON, adasCus, "cus_ada2")))(w, r)
		})
		found, err := client.CustomersNaming(t.Context(), "user_1")
		if err != nil || len(found) != 2 || found[0].ID != adasCus || found[1].ID != "cus_ada2" {
			t.Errorf("got %+v, %v", found, err)
		}
		const want = "metadata['clerk_user_id']:'user_1' OR metadata['clerkUserId']:'user_1' OR metadata['userId']:'user_1' OR metadata['user_id']:'user_1'"
		if query := s.seen()[0].form["query"]; query != want {
			t.Errorf("asked for %q", query)
		}
	})
	for name, body := range map[string]string{"an empty object": "{}", "half a result": `{"object":"search_result","url":"/v1/customers/search"}`, "a customer": customerJSON} {
		t.Run(name+" is no proof that there is none", func(t *testing.T) {
			t.Parallel()
			_, client := serve(t, answer(200, body))
			if found, err := client.CustomersNaming(t.Context(), "user_1"); err == nil {
				t.Errorf("got %v, want an error", found)
			}
		})
	}
	t.Run("an id that is none", func(t *testing.T) {
		t.Parallel()
		s, client := serve(t, answer(200, result("null", "")))
		if _, err := client.CustomersNaming(t.Context(), "user_1' OR name:'a"); failure.CodeOf(err) != "bad_id" || len(s.seen()) != 0 {
			t.Errorf("got %v after %d requests", err, len(s.seen()))
		}
	})
}

func TestCustomersSubscribedFor(t *testing.T) {
	t.Parallel()
	result := func(objects ...string) string {
		return `{"object":"search_result","url":"/v1/subscriptions/search","has_more":false,"next_page":null,"data":[` + strings.Join(objects, ",") + `]}`
	}
	first, second := subscriptionJSON("sub_1", false), subscriptionJSON("sub_2", false)
	s, client := serve(t, answer(200, result(first, strings.ReplaceAll(second, adasCus, "cus_ada2"), second)))
	found, err := client.CustomersSubscribedFor(t.Context(), "user_1")
	if err != nil || fmt.Sprint(found) != fmt.Sprint([]string{adasCus, "cus_ada2"}) {
		t.Errorf("got %v, %v", found, err)
	}
	const want = "metadata['clerk_user_id']:'user_1' OR metadata['clerkUserId']:'user_1' OR metadata['userId']:'user_1' OR metadata['user_id']:'user_1'"
	if asked := s.seen(); len(asked) != 1 || asked[0].form["query"] != want {
		t.Errorf("asked for %+v", asked)
	}
	for name, body := range map[string]string{"an empty object": "{}", "a subscription": first, "one of nobody": result(`{"id":"sub_1","object":"subscription"}`)} {
		t.Run(name+" is no proof that there is none", func(t *testing.T) {
			t.Parallel()
			_, client := serve(t, answer(200, body))
			if found, err := client.CustomersSubscribedFor(t.Context(), "user_1"); err == nil {
				t.Errorf("got %v, want an error", found)
			}
		})
	}
}

func TestCustomerIsUnused(t *testing.T) {
	t.Parallel()
	lists := map[string]string{
		"/v1/subscriptions":                      subscriptionJSON("sub_1", false),
		"/v1/customers/cus_ada1/payment_methods": `{"object":"payment_method","id":"pm_1"}`,
		"/v1/checkout/sessions":                  `{"object":"checkout.session","id":"cs_test_1"}`,
	}
	used := func(path string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if _, known := lists[r.URL.Path]; !known {
				answer(404, html)(w, r)
				return
			}
			if r.URL.Path == path {
				answer(200, listJSON(false, lists[path]))(w, r)
				return
			}
			answer(200, listJSON(false))(w, r)
		}
	}
	for path := range lists {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			_, client := serve(t, used(path))
			if unused, err := client.CustomerIsUnused(t.Context(), adasCus); err != nil || unused {
				t.Errorf("got %v, %v; want false", unused, err)
			}
		})
	}
	t.Run("nothing", func(t *testing.T) {
		t.Parallel()
		s, client := serve(t, used("none"))
		if unused, err := client.CustomerIsUnused(t.Context(), adasCus); err != nil || !unused {
			t.Errorf("got %v, %v; want true", unused, err)
		}
		if asked := len(s.seen()); asked != 3 {
			t.Errorf("looked at %d lists, want 3", asked)
		}
	})
	t.Run("an empty object is no proof", func(t *testing.T) {
		t.Parallel()
		_, client := serve(t, answer(200, "{}"))
		if unused, err := client.CustomerIsUnused(t.Context(), adasCus); err == nil || unused {
			t.Errorf("got %v, %v; want an error", unused, err)
		}
	})
}

func TestExpireCheckoutSession(t *testing.T) {
	t.Parallel()
	refused := stripeError("invalid_request_error", "", "Only Checkout Sessions with a status in [open] can be expired.")
	for status, wantErr := range map[string]bool{"complete": false, "expired": false, "open": true} {
		t.Run(status, func(t *testing.T) {
			t.Parallel()
			_, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					answer(400, refused)(w, r)
					return
				}
				answer(200, fmt.Sprintf(`{"object":"checkout.session","id":"cs_test_1","status":%q}`, status))(w, r)
			})
			err := client.ExpireCheckoutSession(t.Context(), "cs_test_1", "k1")
			if (err != nil) != wantErr {
				t.Errorf("error is %v, want one: %v", err, wantErr)
			}
		})
	}
}

func TestProduct(t *testing.T) {
	t.Parallel()
	_, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/prices" {
			answer(200, listJSON(false,
				`{"object":"price","id":"price_1","product":"prod_1","active":true,"unit_amount":1500,"currency":"usd","lookup_key":"pro",
					"recurring":{"interval":"year","interval_count":1,"usage_type":"licensed"}}`,
				`{"object":"price","id":"price_2","product":"prod_1","active":false,"unit_amount":null,"currency":"eur","recurring":null}`,
			))(w, r)
			return
		}
		answer(200, `{"object":"product","id":"prod_1","name":"Pro","active":true,"metadata":{"beside":"allow"}}`)(w, r)
	})
	got, err := client.Product(t.Context(), "prod_1")
	if err != nil {
		t.Fatal(err)
	}
	want := account.Product{ID: "prod_1", Name: "Pro", Active: true, Beside: true, Prices: []account.Price{
		{ID: "price_1", ProductID: "prod_1", Active: true, UnitAmount: 1500, Currency: "usd", Interval: "year", IntervalCount: 1, LookupKey: "pro", UsageType: account.UsageLicensed},
		{ID: "price_2", ProductID: "prod_1", Currency: "eur"},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// What a unit costs is a whole number of the smallest unit of the subscription's currency, or it is
// unpriced: never nothing, never in another currency.
func TestItemsArePricedExactlyOrNotAtAll(t *testing.T) {
	t.Parallel()
	const body = `{"id":"sub_1","object":"subscription","status":"active","currency":%q,"customer":"cus_ada1","created":1700000000,"items":{"object":"list",
		"has_more":false,"url":"/v1/subscription_items","data":[{"id":"si_1","object":"subscription_item","quantity":5000,"price":{"id":"price_1","object":"price",%s}}]}}`
	for name, c := range map[string]struct {
		currency, price string
		want            account.Item
	}{
		"whole":                    {"usd", `"currency":"usd","unit_amount":1000,"unit_amount_decimal":"1000"`, account.Item{UnitAmount: 1000, Currency: "usd"}},
		"free":                     {"usd", `"currency":"usd","unit_amount":0,"unit_amount_decimal":"0"`, account.Item{Currency: "usd"}},
		"half a cent":              {"usd", `"currency":"usd","unit_amount":null,"unit_amount_decimal":"0.5"`, account.Item{Unpriced: true, Currency: "usd"}},
		"a thousand and a half":    {"usd", `"currency":"usd","unit_amount":null,"unit_amount_decimal":"1000.5"`, account.Item{Unpriced: true, Currency: "usd"}},
		"by package":               {"usd", `"currency":"usd","unit_amount":1000,"transform_quantity":{"divide_by":1000,"round":"up"}`, account.Item{Unpriced: true, Currency: "usd"}},
		"by tier":                  {"usd", `"currency":"usd","unit_amount":null,"billing_scheme":"tiered","tiers_mode":"graduated"`, account.Item{Unpriced: true, Currency: "usd"}},
		"billed in another":        {"eur", `"currency":"usd","unit_amount":1000`, account.Item{Unpriced: true, Currency: "eur"}},
		"billed in another, free":  {"eur", `"currency":"usd","unit_amount":0`, account.Item{Unpriced: true, Currency: "eur"}},
		"metered, and by the tier": {"usd", `"currency":"usd","unit_amount":null,"billing_scheme":"tiered","recurring":{"interval":"month","interval_count":1,"usage_type":"metered"}`, account.Item{Metered: true, Currency: "usd"}},
	} {
		_, client := serve(t, answer(200, fmt.Sprintf(body, c.currency, c.price)))
		s, err := client.Subscription(t.Context(), "sub_1")
		if err != nil || len(s.Items) != 1 {
			t.Errorf("%s: %+v, %v", name, s.Items, err)
			continue
		}
		got := account.Item{UnitAmount: s.Items[0].UnitAmount, Unpriced: s.Items[0].Unpriced, Metered: s.Items[0].Metered, Currency: s.Items[0].Currency}
		if got != c.want || s.Items[0].Metered != (s.Items[0].Quantity == 0) {
			t.Errorf("%s: %+v x%d, want %+v", name, got, s.Items[0].Quantity, c.want)
		}
	}
}

func TestOpenInvoices(t *testing.T) {
	t.Parallel()
	const invoice = `{"object":"invoice","id":"in_1","customer":"cus_ada1","subscription":"sub_1","status":%q,"billing_reason":"subscription_cycle","total":1500,
		"amount_paid":0,"currency":"usd","created":1700000000,"due_date":1702592000,"attempt_count":2,"payment_intent":"pi_1","charge":null,
		"status_transitions":{"finalized_at":1700003600,"paid_at":null}}`
	s, client := serve(t, answer(200, listJSON(true, fmt.Sprintf(invoice, "open"))))
	got, err := client.OpenInvoices(t.Context(), "sub_1")
	want := []account.Payment{{
		ID: "in_1", Kind: account.PaymentInvoice, CustomerID: adasCus, SubscriptionID: "sub_1", InvoiceID: "in_1", IntentID: "pi_1", Status: "open",
		Reason: "subscription_cycle", Amount: 1500, Currency: "usd", Created: at(1700000000), DueAt: at(1702592000), FinalizedAt: at(1700003600), Attempts: 2,
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if seen := s.seen(); len(seen) != 1 || seen[0].form["status"] != "open" || seen[0].form["subscription"] != "sub_1" || seen[0].form["limit"] != "100" {
		t.Errorf("asked %+v", seen)
	}
	_, client = serve(t, answer(200, listJSON(false, fmt.Sprintf(invoice, "paid"))))
	if _, err := client.OpenInvoices(t.Context(), "sub_1"); failure.CodeOf(err) != "bad_body" {
		t.Errorf("a paid invoice among the open ones: %v", err)
	}
}

func TestChargeCustomer(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"object":"charge","id":"ch_1","customer":"cus_ada1"}`: adasCus,
		`{"object":"charge","id":"ch_1","customer":null}`:       "",
	} {
		_, client := serve(t, answer(200, body))
		if got, err := client.ChargeCustomer(t.Context(), "ch_1"); err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", body, got, err, want)
		}
	}
	s, client := serve(t, answer(200, `{"object":"payment_intent","id":"pi_1","customer":"cus_ada1"}`))
	if got, err := client.ChargeCustomer(t.Context(), "pi_1"); err != nil || got != adasCus || s.seen()[0].path != "/v1/payment_intents/pi_1" {
		t.Errorf("of a payment intent: got %q, %v from %+v", got, err, s.seen())
	}
}
