package refusals_test

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

const (
	clerkPath  = "/api/webhooks/clerk"
	stripePath = "/api/webhooks/stripe"

	otherClerkSecret  = "whsec_b3RoZXItc2VjcmV0LW9mLWNsZXJrLTAwMDAwMDAwMDA="
	otherStripeSecret = "whsec_other_secret_of_stripe_0000000000"
)

// signers sign as both providers do, with the right secret or another.
type signers struct{ clerk, stripe, otherClerk, otherStripe delivery.Signer }

func (w *world) signers() (s signers) {
	w.t.Helper()
	for _, each := range []struct {
		to     *delivery.Signer
		make   func(string) (delivery.Signer, error)
		secret string
	}{
		{&s.clerk, delivery.SignAsClerk, w.Sandbox.ClerkWebhookSecret}, {&s.stripe, delivery.SignAsStripe, w.Sandbox.StripeWebhookSecret},
		{&s.otherClerk, delivery.SignAsClerk, otherClerkSecret}, {&s.otherStripe, delivery.SignAsStripe, otherStripeSecret},
	} {
		signer, err := each.make(each.secret)
		if err != nil {
			w.t.Fatal(err)
		}
		*each.to = signer
	}
	return s
}

// Each of these deliveries would delete our user, or take their customer away, if it were taken. It
// is refused, and nothing is stored, not even that it came; the same delivery made right is taken,
// so it was for the fault alone that it was refused.
func TestRefusedDeliveries(t *testing.T) {
	t.Parallel()
	w := newWorld(t, system.Options{})
	s := w.signers()
	now := time.Now()
	deletion, cancellation := w.clerkEvent("user.deleted", nil), w.stripeEvent("customer.subscription.deleted", nil)
	without := func(h http.Header, name string) http.Header { h = h.Clone(); h.Del(name); return h }
	altered := func(m delivery.Message) []byte { return bytes.Replace(m.Body, []byte(`"`), []byte(` "`), 1) }
	large := delivery.Message{ID: deletion.ID, Body: append(bytes.Repeat([]byte(" "), 2<<20), deletion.Body...)}
	largeStripe := delivery.Message{ID: cancellation.ID, Body: append(bytes.Repeat([]byte(" "), 2<<20), cancellation.Body...)}
	text := []byte("user.deleted")
	list := append(append([]byte("["), cancellation.Body...), ']')

	for name, refused := range map[string]struct {
		method, path string
		header       http.Header
		body         []byte
		status       int
		code         string
	}{
		"Clerk, another secret":        {"POST", clerkPath, s.otherClerk(deletion.ID, now, deletion.Body), deletion.Body, 400, "signature_invalid"},
		"Clerk, another body":          {"POST", clerkPath, s.clerk(deletion.ID, now, deletion.Body), altered(deletion), 400, "signature_invalid"},
		"Clerk, another id":            {"POST", clerkPath, with(s.clerk(deletion.ID, now, deletion.Body), "Svix-Id", "msg_another"), deletion.Body, 400, "signature_invalid"},
		"Clerk, another time":          {"POST", clerkPath, with(s.clerk(deletion.ID, now, deletion.Body), "Svix-Timestamp", unix(now.Add(-time.Minute))), deletion.Body, 400, "signature_invalid"},
		"Clerk, no time":               {"POST", clerkPath, with(s.clerk(deletion.ID, now, deletion.Body), "Svix-Timestamp", "now"), deletion.Body, 400, "signature_invalid"},
		"Clerk, stale":                 {"POST", clerkPath, s.clerk(deletion.ID, now.Add(-6*time.Minute), deletion.Body), deletion.Body, 400, "timestamp_stale"},
		"Clerk, future":                {"POST", clerkPath, s.clerk(deletion.ID, now.Add(6*time.Minute), deletion.Body), deletion.Body, 400, "timestamp_future"},
		"Clerk, no signature":          {"POST", clerkPath, without(s.clerk(deletion.ID, now, deletion.Body), "Svix-Signature"), deletion.Body, 400, "signature_missing"},
		"Clerk, no id":                 {"POST", clerkPath, without(s.clerk(deletion.ID, now, deletion.Body), "Svix-Id"), deletion.Body, 400, "signature_missing"},
		"Clerk, no timestamp":          {"POST", clerkPath, without(s.clerk(deletion.ID, now, deletion.Body), "Svix-Timestamp"), deletion.Body, 400, "signature_missing"},
		"Clerk, no headers":            {"POST", clerkPath, http.Header{}, deletion.Body, 400, "signature_missing"},
		"Clerk, the unbranded headers": {"POST", clerkPath, unbranded(s.clerk(deletion.ID, now, deletion.Body)), deletion.Body, 400, "signature_missing"},
		"Clerk, Stripe's signature":    {"POST", clerkPath, s.stripe(deletion.ID, now, deletion.Body), deletion.Body, 400, "signature_missing"},
		"Clerk, not JSON":              {"POST", clerkPath, s.clerk("msg_text", now, text), text, 400, "body_not_json"},
		"Clerk, cut off":               {"POST", clerkPath, s.clerk("msg_cut", now, deletion.Body[:40]), deletion.Body[:40], 400, "body_not_json"},
		"Clerk, empty":                 {"POST", clerkPath, s.clerk("msg_empty", now, nil), nil, 400, "body_not_json"},
		"Clerk, an id of no form":      {"POST", clerkPath, s.clerk("msg 1; drop", now, deletion.Body), deletion.Body, 400, "event_id_invalid"},
		"Clerk, 2 MiB":                 {"POST", clerkPath, s.clerk(large.ID, now, large.Body), large.Body, 413, "body_too_large"},
		"Clerk, GET":                   {"GET", clerkPath, s.clerk(deletion.ID, now, deletion.Body), deletion.Body, 405, "method_not_allowed"},
		"Clerk, PUT":                   {"PUT", clerkPath, s.clerk(deletion.ID, now, deletion.Body), deletion.Body, 405, "method_not_allowed"},
		"Clerk, another path":          {"POST", clerkPath + "/", s.clerk(deletion.ID, now, deletion.Body), deletion.Body, 404, "route_not_found"},

		"Stripe, another secret":     {"POST", stripePath, s.otherStripe("", now, cancellation.Body), cancellation.Body, 400, "signature_invalid"},
		"Stripe, another body":       {"POST", stripePath, s.stripe("", now, cancellation.Body), altered(cancellation), 400, "signature_invalid"},
		"Stripe, the test scheme":    {"POST", stripePath, with(http.Header{}, "Stripe-Signature", strings.Replace(s.stripe("", now, cancellation.Body).Get("Stripe-Signature"), "v1=", "v0=", 1)), cancellation.Body, 400, "signature_invalid"},
		"Stripe, no time":            {"POST", stripePath, with(http.Header{}, "Stripe-Signature", "v1=00"), cancellation.Body, 400, "signature_invalid"},
		"Stripe, stale":              {"POST", stripePath, s.stripe("", now.Add(-6*time.Minute), cancellation.Body), cancellation.Body, 400, "timestamp_stale"},
		"Stripe, future":             {"POST", stripePath, s.stripe("", now.Add(6*time.Minute), cancellation.Body), cancellation.Body, 400, "timestamp_future"},
		"Stripe, no headers":         {"POST", stripePath, http.Header{}, cancellation.Body, 400, "signature_missing"},
		"Stripe, Clerk's signature":  {"POST", stripePath, s.clerk(cancellation.ID, now, cancellation.Body), cancellation.Body, 400, "signature_missing"},
		"Stripe, not JSON":           {"POST", stripePath, s.stripe("", now, text), text, 400, "body_not_json"},
		"Stripe, a list":             {"POST", stripePath, s.stripe("", now, list), list, 400, "body_not_json"},
		"Stripe, cut off":            {"POST", stripePath, s.stripe("", now, cancellation.Body[:40]), cancellation.Body[:40], 400, "body_not_json"},
		"Stripe, no id":              {"POST", stripePath, s.stripe("", now, []byte(`{"object":"event"}`)), []byte(`{"object":"event"}`), 400, "event_id_invalid"},
		"Stripe, another kind of id": {"POST", stripePath, s.stripe("", now, []byte(`{"id":"cus_1"}`)), []byte(`{"id":"cus_1"}`), 400, "event_id_invalid"},
		"Stripe, 2 MiB":              {"POST", stripePath, s.stripe("", now, largeStripe.Body), largeStripe.Body, 413, "body_too_large"},
		"Stripe, GET":                {"GET", stripePath, s.stripe("", now, cancellation.Body), cancellation.Body, 405, "method_not_allowed"},
		"Stripe, DELETE":             {"DELETE", stripePath, s.stripe("", now, cancellation.Body), cancellation.Body, 405, "method_not_allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.on(t)
			number := w.number()
			before := w.state(number)
			response, p := w.post(refused.method, refused.path, refused.header, refused.body)
			if response.StatusCode != refused.status || p.Code != refused.code || p.Status != refused.status {
				t.Errorf("answered %d %q (%d in the document), want %d %q", response.StatusCode, p.Code, p.Status, refused.status, refused.code)
			}
			if kind := response.Header.Get("Content-Type"); kind != "application/problem+json" {
				t.Errorf("answered with a %s", kind)
			}
			if refused.status == 405 && response.Header.Get("Allow") == "" {
				t.Error("does not say which methods it takes")
			}
			before.unchanged(t, w.state(number))
			if w.number() != number {
				t.Error("a number was drawn: something was stored or read")
			}
		})
	}

	for _, right := range []struct {
		source, path string
		header       http.Header
		message      delivery.Message
	}{
		{"stripe", stripePath, s.stripe("", now, cancellation.Body), cancellation},
		{"clerk", clerkPath, s.clerk(deletion.ID, now, deletion.Body), deletion},
	} {
		response, p := w.post(http.MethodPost, right.path, right.header, right.message.Body)
		if response.StatusCode != http.StatusOK || p.Result != "stored" {
			t.Errorf("%s, made right: answered %d %q %q", right.source, response.StatusCode, p.Code, p.Result)
		}
		if _, ok := w.event(right.source, right.message.ID); !ok {
			t.Errorf("%s, made right: not stored", right.source)
		}
	}
}

// A body whose length nobody announced is cut off all the same, and a caller who announces too much
// is refused before they send it.
func TestLargeBodyIsNotReadToItsEnd(t *testing.T) {
	t.Parallel()
	s := system.Start(t, servers, system.Options{Stopped: true})
	s.StartAPI()
	var send func(length int64, headers map[string]string, attempts int) (status int, sent int64)
	send = func(length int64, headers map[string]string, attempts int) (status int, sent int64) {
		body := &counted{left: 64 << 20}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL()+stripePath, body)
		if err != nil {
			t.Fatal(err)
		}
		request.ContentLength = length
		request.Header.Set("Stripe-Signature", "t=1,v1=00")
		for k, v := range headers {
			request.Header.Set(k, v)
		}
		response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true, ExpectContinueTimeout: time.Minute}}).Do(request)
		if err != nil && attempts > 1 {
			return send(length, headers, attempts-1) // the answer came and was not looked at in time
		}
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		return response.StatusCode, body.read.Load()
	}
	if status, sent := send(-1, nil, 10); status != http.StatusRequestEntityTooLarge || sent >= 64<<20 {
		t.Errorf("a body of unknown length: answered %d after %d bytes", status, sent)
	}
	if status, sent := send(64<<20, map[string]string{"Expect": "100-continue"}, 10); status != http.StatusRequestEntityTooLarge || sent != 0 {
		t.Errorf("a body that was announced: answered %d after %d bytes", status, sent)
	}
	if n := s.Count(`SELECT count(*) FROM webhook_events`); n != 0 {
		t.Errorf("%d events are stored", n)
	}
}

// While a secret is rolled both the old and the new one are good, and no other.
func TestTwoSecrets(t *testing.T) {
	t.Parallel()
	w := &world{System: system.Start(t, servers, system.Options{Stopped: true}), t: t, user: "user_2nobody", customer: "cus_nobody1", subscriptionID: "sub_1"}
	w.Environ["CLERK_WEBHOOK_SECRET"] = otherClerkSecret + "," + w.Environ["CLERK_WEBHOOK_SECRET"]
	w.Environ["STRIPE_WEBHOOK_SECRET"] = otherStripeSecret + "," + w.Environ["STRIPE_WEBHOOK_SECRET"]
	w.StartAPI()
	s := w.signers()
	thirdClerk, err := delivery.SignAsClerk("whsec_dGhpcmQtc2VjcmV0LW9mLWNsZXJrLTAwMDAwMDAwMDA=")
	if err != nil {
		t.Fatal(err)
	}
	thirdStripe, err := delivery.SignAsStripe("whsec_third_secret_of_stripe_0000000000")
	if err != nil {
		t.Fatal(err)
	}
	for _, each := range []struct {
		name, source, path string
		signer             delivery.Signer
		status             int
	}{
		{"Clerk, new", "clerk", clerkPath, s.otherClerk, 200}, {"Clerk, old", "clerk", clerkPath, s.clerk, 200}, {"Clerk, neither", "clerk", clerkPath, thirdClerk, 400},
		{"Stripe, new", "stripe", stripePath, s.otherStripe, 200}, {"Stripe, old", "stripe", stripePath, s.stripe, 200}, {"Stripe, neither", "stripe", stripePath, thirdStripe, 400},
	} {
		m := w.clerkEvent("user.updated", nil)
		if each.source == "stripe" {
			m = w.stripeEvent("customer.updated", nil)
		}
		response, p := w.post(http.MethodPost, each.path, each.signer(m.ID, time.Now(), m.Body), m.Body)
		if response.StatusCode != each.status {
			t.Errorf("%s: answered %d %q, want %d", each.name, response.StatusCode, p.Code, each.status)
		}
		if _, ok := w.event(each.source, m.ID); ok != (each.status == 200) {
			t.Errorf("%s: stored is %t", each.name, ok)
		}
	}
}

// What cannot be stored is refused with 503, and the provider's own redelivery brings it.
func TestDatabaseDown(t *testing.T) {
	t.Parallel()
	sys := system.Start(t, servers, system.Options{Stopped: true})
	relay := system.RelayDatabase(t, sys.DSN)
	sys.Environ["DATABASE_URL"] = relay.DSN()
	sys.StartAPI()
	w := &world{System: sys, t: t, user: "user_2nobody"}
	s := w.signers()
	relay.Cut()
	m := w.clerkEvent("user.updated", nil)
	response, p := w.post(http.MethodPost, clerkPath, s.clerk(m.ID, time.Now(), m.Body), m.Body)
	if response.StatusCode != http.StatusServiceUnavailable || p.Code != "not_stored" || response.Header.Get("Retry-After") == "" {
		t.Errorf("answered %d %q, Retry-After %q", response.StatusCode, p.Code, response.Header.Get("Retry-After"))
	}
	// A real delivery of the provider's, which it makes again by itself.
	user := w.Sandbox.Clerk.AddUser(clerksimNobody())
	w.Until("a delivery was refused", func(context.Context) error { return w.attempted(http.StatusServiceUnavailable) })
	if n := w.Count(`SELECT count(*) FROM webhook_events`); n != 0 {
		t.Errorf("%d events are stored while the database is down", n)
	}
	relay.Mend()
	w.Until("the delivery was taken", func(context.Context) error { return w.attempted(http.StatusOK) })
	if n := w.Count(`SELECT count(*) FROM webhook_events WHERE type = 'user.created' AND entity = $1 AND payload IS NOT NULL`, "user/"+user); n != 1 {
		t.Errorf("%d events are stored after it came back, want 1", n)
	}
	w.StartWorker()
	w.Until("the event is completed", func(context.Context) error { return w.completed("clerk", "user.created") })
}
