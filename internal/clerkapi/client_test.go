package clerkapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/clerkapi"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ada = "user_2adaLovelace"

func serve(t *testing.T, handle http.HandlerFunc, change ...func(*clerkapi.Options)) *clerkapi.Client {
	t.Helper()
	s := httptest.NewServer(handle)
	options := clerkapi.Options{Key: "sk_test_1", BaseURL: s.URL + "/v1", Timeout: 5 * time.Second}
	for _, c := range change {
		c(&options)
	}
	client := clerkapi.New(options)
	t.Cleanup(func() {
		client.Close()
		s.CloseClientConnections()
		s.Close()
	})
	return client
}

func answer(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Clerk-Trace-Id", "trace1")
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

func TestUser(t *testing.T) {
	t.Parallel()
	const emails = `"email_addresses":[
		{"id":"idn_1","object":"email_address","email_address":"old@example.com","verification":{"status":"verified"}},
		{"id":"idn_2","object":"email_address","email_address":"ada@example.com","verification":%s}]`
	tests := []struct {
		name, fields string
		want         account.User
		held         string
	}{
		{
			"everything",
			`"created_at":1716883200000,"first_name":"Ada","last_name":"Lovelace","username":"ada","primary_email_address_id":"idn_2",` + fmt.Sprintf(emails, `{"status":"verified"}`) +
				`,"public_metadata":{"stripe":{"status":"active"},"department":"engineering"}`,
			account.User{ID: ada, FirstName: "Ada", LastName: "Lovelace", Username: "ada", Email: "ada@example.com", EmailVerified: true,
				CreatedAt: time.UnixMilli(1716883200000).UTC()},
			`{"status":"active"}`,
		},
		{
			"an unverified primary email beside a verified one",
			`"primary_email_address_id":"idn_2",` + fmt.Sprintf(emails, `{"status":"unverified"}`),
			account.User{ID: ada, Email: "ada@example.com"}, "",
		},
		{
			"an email without a verification",
			`"primary_email_address_id":"idn_2",` + fmt.Sprintf(emails, `null`),
			account.User{ID: ada, Email: "ada@example.com"}, "",
		},
		{
			"emails, but none of them primary",
			`"primary_email_address_id":null,` + fmt.Sprintf(emails, `null`), account.User{ID: ada}, "",
		},
		{
			"a primary email that is not listed",
			`"primary_email_address_id":"idn_9","email_addresses":[]`, account.User{ID: ada}, "",
		},
		{
			"a phone only",
			`"first_name":null,"last_name":null,"username":null,"primary_email_address_id":null,"email_addresses":[],
			 "phone_numbers":[{"id":"idn_3","object":"phone_number","phone_number":"+15555550100"}],"public_metadata":{}`,
			account.User{ID: ada}, "",
		},
		{
			"an earlier application's notes", `"unsafe_metadata":{"stripe":{"subscriptionId":"sub_1","customerId":"cus_1"}}`,
			account.User{ID: ada, CustomerHint: "cus_1"}, "",
		},
		{"a note by itself", `"unsafe_metadata":{"stripe":"cus_1"}`, account.User{ID: ada, CustomerHint: "cus_1"}, ""},
		{"a whole customer as a note", `"unsafe_metadata":{"stripe":{"customer":{"id":"cus_1"}}}`, account.User{ID: ada, CustomerHint: "cus_1"}, ""},
		{"notes that are of no use", `"unsafe_metadata":{"stripe":{"customerId":"../cus_1","customer":7},"customerId":"cus_1"}`, account.User{ID: ada}, ""},
		{"notes that are no object", `"unsafe_metadata":"cus_1"`, account.User{ID: ada}, ""},
		{"metadata null", `"public_metadata":null`, account.User{ID: ada}, ""},
		{"our key null", `"public_metadata":{"stripe":null}`, account.User{ID: ada}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			client := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodGet || r.URL.Path != "/v1/users/"+ada || r.Header.Get("Authorization") != "Bearer sk_test_1" {
					t.Errorf("asked %s %s", r.Method, r.URL.Path)
				}
				answer(200, fmt.Sprintf(`{"object":"user","id":%q,%s}`, ada, test.fields))(w, r)
			})
			got, held, err := client.User(t.Context(), ada)
			if err != nil {
				t.Fatal(err)
			}
			if got != test.want || string(held) != test.held {
				t.Errorf("got %+v, %s; want %+v, %s", got, held, test.want, test.held)
			}
		})
	}
}

func TestSetStripeMetadata(t *testing.T) {
	t.Parallel()
	var sent string
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		sent = r.Method + " " + r.URL.Path + " " + string(body)
		answer(200, `{"object":"user","id":"`+ada+`"}`)(w, r)
	})
	if err := client.SetStripeMetadata(t.Context(), ada, json.RawMessage(`{"status":"active","plan":null}`)); err != nil {
		t.Fatal(err)
	}
	want := `PATCH /v1/users/` + ada + `/metadata {"public_metadata":{"stripe":{"status":"active","plan":null}}}`
	if sent != want {
		t.Errorf("sent %s\nwant %s", sent, want)
	}
	err := client.SetStripeMetadata(t.Context(), ada, json.RawMessage(`{"status":`))
	if failure.Of(err) != failure.Permanent || failure.CodeOf(err) != "bad_metadata" {
		t.Errorf("error is %v, want permanent bad_metadata", err)
	}
}

func TestInstance(t *testing.T) {
	t.Parallel()
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/v1/instance" {
			t.Errorf("asked %s %s", r.Method, r.URL.Path)
		}
		answer(200, `{"object":"instance","id":"ins_2abc","environment_type":"development"}`)(w, r)
	})
	if got, err := client.Instance(t.Context()); err != nil || got != "ins_2abc" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	clerkError := func(code string) string {
		return fmt.Sprintf(`{"errors":[{"code":%q,"message":"ada@example.com is taken","long_message":"secret"}],"status":200,"clerk_trace_id":"x"}`, code)
	}
	drop := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte(`{"object":"user","id":"` + ada + `",`))
		panic(http.ErrAbortHandler)
	}
	date := time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat)
	tests := []struct {
		name    string
		handle  http.HandlerFunc
		class   failure.Class
		code    string
		missing bool
		waits   bool
	}{
		{"HTML 502", answer(502, "<html>secret</html>"), failure.Transient, "http_502", false, false},
		{"empty 503", answer(503, ""), failure.Transient, "http_503", false, false},
		{"429 as text, seconds", answer(429, "slow down", "Retry-After", "7"), failure.Throttled, "http_429", false, true},
		{"429 with a document, date", answer(429, clerkError("too_many_requests"), "Retry-After", date), failure.Throttled, "too_many_requests", false, true},
		{"wrong key", answer(401, clerkError("authentication_invalid")), failure.Operator, "authentication_invalid", false, false},
		{"forbidden", answer(403, clerkError("forbidden")), failure.Operator, "forbidden", false, false},
		{"no such user", answer(404, clerkError("resource_not_found")), failure.Permanent, "resource_not_found", true, false},
		{"a 404 of something in between", answer(404, "<html>"), failure.Operator, "http_404", false, false},
		{"a 404 for another reason", answer(404, clerkError("route_not_found")), failure.Operator, "route_not_found", false, false},
		{"refused value", answer(422, clerkError("form_param_invalid")), failure.Permanent, "form_param_invalid", false, false},
		{"bad request", answer(400, clerkError("bad_request")), failure.Permanent, "bad_request", false, false},
		{"conflict", answer(409, clerkError("conflict")), failure.Transient, "conflict", false, false},
		{"200 with {}", answer(200, "{}"), failure.Transient, "bad_body", false, false},
		{"200 with nothing", answer(200, ""), failure.Transient, "bad_body", false, false},
		{"200 with HTML", answer(200, "<html>secret</html>"), failure.Transient, "bad_body", false, false},
		{"200 with another user", answer(200, `{"object":"user","id":"user_2eve"}`), failure.Transient, "bad_body", false, false},
		{"200 with metadata that is none", answer(200, `{"object":"user","id":"`+ada+`","public_metadata":"x"}`), failure.Transient, "bad_body", false, false},
		{"dropped in the middle of a body", drop, failure.Transient, "connection_lost", false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			client := serve(t, test.handle)
			_, _, err := client.User(t.Context(), ada)
			e, ok := errors.AsType[*failure.Error](err)
			if !ok {
				t.Fatalf("error is %v, want a failure", err)
			}
			if e.Class != test.class || e.Code != test.code || failure.IsNotFound(err) != test.missing || (e.RetryAfter > 0) != test.waits {
				t.Errorf("failure is %v, not found %v, to wait %v", e, failure.IsNotFound(err), e.RetryAfter)
			}
			for _, leak := range []string{"@", "secret", "html", "127.0.0.1", ada} {
				if text := fmt.Sprintf("%v %#v", err, err); strings.Contains(text, leak) {
					t.Errorf("the failure shows %q: %s", leak, text)
				}
			}
			if e.Status >= 400 && e.RequestID != "trace1" {
				t.Errorf("RequestID = %q", e.RequestID)
			}
		})
	}
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	stall := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	client := serve(t, stall, func(o *clerkapi.Options) { o.Timeout = 50 * time.Millisecond })
	if _, _, err := client.User(t.Context(), ada); failure.CodeOf(err) != "timeout" || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v, want a timeout that is not the caller's", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, _, err := client.User(ctx, ada); failure.Of(err) != failure.Transient || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v, want the caller's deadline", err)
	}
}

func TestNothingIsAskedForABadID(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		answer(200, "{}")(w, r)
	})
	for _, id := range []string{"", "user_", "cus_1", "../organizations/x?y=1", "user_1/../x", "user_1?x=1", "user_1\n"} {
		_, _, err := client.User(t.Context(), id)
		if failure.Of(err) != failure.Permanent || failure.CodeOf(err) != "bad_id" {
			t.Errorf("User(%q): error is %v", id, err)
		}
		err = client.SetStripeMetadata(t.Context(), id, json.RawMessage(`{}`))
		if failure.Of(err) != failure.Permanent || failure.CodeOf(err) != "bad_id" {
			t.Errorf("SetStripeMetadata(%q): error is %v", id, err)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("Clerk was asked %d times", n)
	}
}

func TestObserve(t *testing.T) {
	t.Parallel()
	var calls []clerkapi.Call
	client := serve(t, answer(503, ""), func(o *clerkapi.Options) {
		o.Observe = func(_ context.Context, c clerkapi.Call) { calls = append(calls, c) }
	})
	if err := client.SetStripeMetadata(t.Context(), ada, json.RawMessage(`{}`)); err == nil {
		t.Fatal("no error")
	}
	if len(calls) != 1 || calls[0].Route != "/v1/users/{id}/metadata" || calls[0].Method != "PATCH" || calls[0].Status != 503 || calls[0].Provider != "clerk" {
		t.Errorf("observed %+v, want one PATCH", calls)
	}
}
