package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/config"
	"github.com/nepfy/clerk-stripe-sync/internal/httpapi"
	"github.com/nepfy/clerk-stripe-sync/internal/inbox"
)

const (
	messageID = "msg_2abc-DEF"
	eventID   = "evt_1Abc"
)

// goodBody passes at both doors.
func goodBody() []byte { return []byte(`{"id": "evt_1Abc", "type": "x.y", "data": {"name": "Ánn"}}`) }

// Buffers are used again and again: whose body is handed over is that of the event, whatever comes
// beside it and however large it is.
func TestEachDeliveryHasItsOwnBody(t *testing.T) {
	t.Parallel()
	e := newEdge(t, edgeOptions{})
	server := e.serve(t)
	const senders, each = 8, 30
	body := func(sender, n int) string {
		size := n * 97
		if n%10 == 0 {
			size = 100 << 10 // more than is kept
		}
		return fmt.Sprintf(`{"id": "evt_%d_%d", "filling": %q}`, sender, n, strings.Repeat(strconv.Itoa(sender), size))
	}
	var wait sync.WaitGroup
	for sender := range senders {
		wait.Go(func() {
			for n := range each {
				sent := []byte(body(sender, n))
				a := send(t, server, http.MethodPost, "/api/webhooks/stripe", signStripe(stripeSecret, "", time.Now(), sent), bytes.NewReader(sent))
				if a.status != http.StatusOK {
					t.Errorf("%d %s", a.status, a.raw)
				}
			}
		})
	}
	wait.Wait()
	taken := map[string]string{}
	for _, d := range e.intake.taken() {
		taken[d.EventID] = d.Body
	}
	for sender := range senders {
		for n := range each {
			if id := fmt.Sprintf("evt_%d_%d", sender, n); taken[id] != body(sender, n) {
				t.Errorf("%s was handed over as %.40q", id, taken[id])
			}
		}
	}
}

func TestDeliveryIsHandedOver(t *testing.T) {
	t.Parallel()
	e := newEdge(t, edgeOptions{})
	server := e.serve(t)
	before := time.Now()
	for i, s := range signers() {
		a := send(t, server, http.MethodPost, s.path(), s.sign(s.good, messageID, time.Now(), goodBody()), bytes.NewReader(goodBody()))
		if a.status != http.StatusOK || a.body["result"] != "stored" {
			t.Fatalf("%s: %d %s", s.source, a.status, a.raw)
		}
		d := e.intake.taken()[i]
		wantID := map[string]string{"clerk": messageID, "stripe": eventID}[s.source]
		if d.Source != s.source || d.EventID != wantID || d.Body != string(goodBody()) {
			t.Errorf("%s: handed over %+v", s.source, d)
		}
		if d.ReceivedAt.Before(before) || d.ReceivedAt.After(time.Now()) {
			t.Errorf("%s: received at %v", s.source, d.ReceivedAt)
		}
		if !strings.Contains(e.logs.String(), `"event_id":"`+wantID+`"`) {
			t.Errorf("%s: the event's id is not in the log", s.source)
		}
		for _, key := range []string{"delivery %s stored", "secret %s 0", "request POST /api/webhooks/%s 200"} {
			if key = fmt.Sprintf(key, s.source); e.counts.of(key) != 1 {
				t.Errorf("%q was counted %d times", key, e.counts.of(key))
			}
		}
	}
	if strings.Contains(e.logs.String(), "Ánn") {
		t.Error("the payload is in the log")
	}
}

func TestOutcomesAreAnswered200(t *testing.T) {
	t.Parallel()
	for _, outcome := range []inbox.Outcome{inbox.Stored, inbox.Known, inbox.Unchanged, inbox.Ignored} {
		e := newEdge(t, edgeOptions{})
		e.intake.accept = func(context.Context, inbox.Delivery) (inbox.Outcome, error) { return outcome, nil }
		server := e.serve(t)
		for _, s := range signers() {
			a := send(t, server, http.MethodPost, s.path(), s.sign(s.good, messageID, time.Now(), goodBody()), bytes.NewReader(goodBody()))
			if a.status != http.StatusOK || a.body["result"] != string(outcome) {
				t.Errorf("%s %s: %d %s", s.source, outcome, a.status, a.raw)
			}
		}
	}
}

func TestSecondSecret(t *testing.T) {
	t.Parallel()
	e := newEdge(t, edgeOptions{})
	server := e.serve(t)
	for _, s := range signers() {
		a := send(t, server, http.MethodPost, s.path(), s.sign(s.second, messageID, time.Now(), goodBody()), bytes.NewReader(goodBody()))
		if a.status != http.StatusOK || e.counts.of("secret "+s.source+" 1") != 1 || e.counts.of("secret "+s.source+" 0") != 0 {
			t.Errorf("%s: %d %s", s.source, a.status, a.raw)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	type request struct {
		header http.Header
		body   []byte
	}
	signed := func(s signer, body string) request {
		return request{s.sign(s.good, messageID, time.Now(), []byte(body)), []byte(body)}
	}
	aged := func(s signer, age time.Duration) request {
		return request{s.sign(s.good, messageID, time.Now().Add(-age), goodBody()), goodBody()}
	}
	without := func(r request, names ...string) request {
		for _, name := range names {
			r.header.Del(name)
		}
		return r
	}
	for name, c := range map[string]struct {
		only string // the door it is for; empty for both
		make func(signer) request
		code string
	}{
		"no headers": {"", func(signer) request { return request{nil, goodBody()} }, "signature_missing"},
		"no id":      {"clerk", func(s signer) request { return without(signed(s, string(goodBody())), "Svix-Id") }, "signature_missing"},
		"no time": {"clerk", func(s signer) request {
			return without(signed(s, string(goodBody())), "Svix-Timestamp")
		}, "signature_missing"},
		"no signature": {"clerk", func(s signer) request {
			return without(signed(s, string(goodBody())), "Svix-Signature")
		}, "signature_missing"},
		"the other header set": {"clerk", func(s signer) request {
			r := signed(s, string(goodBody()))
			for _, part := range []string{"Id", "Timestamp", "Signature"} {
				r.header.Set("Webhook-"+part, r.header.Get("Svix-"+part))
			}
			return without(r, "Svix-Id")
		}, "signature_missing"},
		"stranger's secret": {"", func(s signer) request {
			return request{s.sign(s.stranger, messageID, time.Now(), goodBody()), goodBody()}
		}, "signature_invalid"},
		"changed body": {"", func(s signer) request {
			r := signed(s, string(goodBody()))
			r.body = bytes.Replace(r.body, []byte("x.y"), []byte("x.z"), 1)
			return r
		}, "signature_invalid"},
		"other id than signed": {"clerk", func(s signer) request {
			r := signed(s, string(goodBody()))
			r.header.Set("Svix-Id", "msg_other")
			return r
		}, "signature_invalid"},
		"nonsense for a signature": {"stripe", func(signer) request {
			return request{http.Header{"Stripe-Signature": {"a=b=c,,v1"}}, goodBody()}
		}, "signature_invalid"},
		"no time in the signature": {"stripe", func(s signer) request {
			r := signed(s, string(goodBody()))
			_, rest, _ := strings.Cut(r.header.Get("Stripe-Signature"), ",")
			r.header.Set("Stripe-Signature", rest)
			return r
		}, "signature_invalid"},
		"empty secret": {"stripe", func(s signer) request {
			return request{s.sign("", messageID, time.Now(), goodBody()), goodBody()}
		}, "signature_invalid"},
		"stale":         {"", func(s signer) request { return aged(s, 6*time.Minute) }, "timestamp_stale"},
		"from 1969":     {"", func(s signer) request { return aged(s, 57*365*24*time.Hour) }, "timestamp_stale"},
		"from tomorrow": {"", func(s signer) request { return aged(s, -24*time.Hour) }, "timestamp_future"},
		"future":        {"", func(s signer) request { return aged(s, -6*time.Minute) }, "timestamp_future"},
		"empty body":    {"", func(s signer) request { return signed(s, "") }, "body_not_json"},
		"not JSON":      {"", func(s signer) request { return signed(s, `{"id": "evt_1"`) }, "body_not_json"},
		"more than one": {"", func(s signer) request { return signed(s, `{"id": "evt_1"} {}`) }, "body_not_json"},
		"an array":      {"", func(s signer) request { return signed(s, `[{"id": "evt_1"}]`) }, "body_not_json"},
		"null":          {"", func(s signer) request { return signed(s, `null`) }, "body_not_json"},
		"not UTF-8":     {"", func(s signer) request { return signed(s, "{\"id\": \"evt_1\", \"a\": \"\xff\"}") }, "body_not_json"},
		"no event id":   {"stripe", func(s signer) request { return signed(s, `{"a": "evt_1"}`) }, "event_id_invalid"},
		"numeric id":    {"stripe", func(s signer) request { return signed(s, `{"id": 1}`) }, "event_id_invalid"},
		"other id":      {"stripe", func(s signer) request { return signed(s, `{"id": "cus_1"}`) }, "event_id_invalid"},
		"odd id":        {"stripe", func(s signer) request { return signed(s, `{"id": "evt_1/../2"}`) }, "event_id_invalid"},
		"long id": {"", func(s signer) request {
			long := strings.Repeat("a", 256)
			body := []byte(`{"id": "evt_` + long + `"}`)
			return request{s.sign(s.good, long, time.Now(), body), body}
		}, "event_id_invalid"},
		"odd message id": {"clerk", func(s signer) request {
			return request{s.sign(s.good, "msg.1 2", time.Now(), goodBody()), goodBody()}
		}, "event_id_invalid"},
	} {
		for _, s := range signers() {
			if c.only != "" && c.only != s.source {
				continue
			}
			t.Run(name+" "+s.source, func(t *testing.T) {
				t.Parallel()
				e := newEdge(t, edgeOptions{})
				r := c.make(s)
				a := send(t, e.serve(t), http.MethodPost, s.path(), r.header, bytes.NewReader(r.body))
				if a.status != http.StatusBadRequest || a.code() != c.code {
					t.Errorf("got %d %s, want 400 %s", a.status, a.raw, c.code)
				}
				if kind := a.header.Get("Content-Type"); kind != "application/problem+json" {
					t.Errorf("content type is %q", kind)
				}
				if n := len(e.intake.taken()); n != 0 {
					t.Errorf("%d deliveries were handed over", n)
				}
				if e.counts.of("delivery "+s.source+" "+c.code) != 1 {
					t.Error("the refusal was not counted")
				}
			})
		}
	}
}

func TestTimesNearTheLimitAreTaken(t *testing.T) {
	t.Parallel()
	e := newEdge(t, edgeOptions{})
	server := e.serve(t)
	for _, s := range signers() {
		for _, age := range []time.Duration{4 * time.Minute, -4 * time.Minute} {
			a := send(t, server, http.MethodPost, s.path(), s.sign(s.good, messageID, time.Now().Add(-age), goodBody()), bytes.NewReader(goodBody()))
			if a.status != http.StatusOK {
				t.Errorf("%s, %s old: %d %s", s.source, age, a.status, a.raw)
			}
		}
	}
}

func TestLargeBody(t *testing.T) {
	t.Parallel()
	e := newEdge(t, edgeOptions{})
	server := e.serve(t)
	filler := func(size int) []byte {
		return fmt.Appendf(nil, `{"id": "evt_1Abc", "a": "%s"}`, strings.Repeat("a", size-27))
	}
	for _, s := range signers() {
		large, most := filler(2<<20), filler(httpapi.MaxBody)
		if len(most) != httpapi.MaxBody {
			t.Fatalf("the filler makes %d bytes", len(most))
		}
		header := s.sign(s.good, messageID, time.Now(), large)
		for name, body := range map[string]io.Reader{
			"announced": bytes.NewReader(large),
			"chunked":   struct{ io.Reader }{bytes.NewReader(large)},
		} {
			a := send(t, server, http.MethodPost, s.path(), header, body)
			if a.status != http.StatusRequestEntityTooLarge || a.code() != "body_too_large" {
				t.Errorf("%s, %s: %d %s", s.source, name, a.status, a.raw)
			}
		}
		if n := len(e.intake.taken()); n != 0 {
			t.Fatalf("%d deliveries were handed over", n)
		}
		a := send(t, server, http.MethodPost, s.path(), s.sign(s.good, messageID, time.Now(), most), bytes.NewReader(most))
		if a.status != http.StatusOK {
			t.Errorf("%s, just 1 MiB: %d %s", s.source, a.status, a.raw)
		}
		e.intake.deliveries = nil
	}
}

func TestWrongMethod(t *testing.T) {
	t.Parallel()
	e := newEdge(t, edgeOptions{})
	server := e.serve(t)
	for _, s := range signers() {
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, "BREW"} {
			a := send(t, server, method, s.path(), s.sign(s.good, messageID, time.Now(), goodBody()), bytes.NewReader(goodBody()))
			if a.status != http.StatusMethodNotAllowed || a.code() != "method_not_allowed" || a.header.Get("Allow") != "OPTIONS, POST" {
				t.Errorf("%s %s: %d %s, Allow %q", method, s.source, a.status, a.raw, a.header.Get("Allow"))
			}
		}
	}
	if len(e.intake.taken()) != 0 {
		t.Error("a delivery was handed over")
	}
}

func TestNotStored(t *testing.T) {
	t.Parallel()
	e := newEdge(t, edgeOptions{})
	e.intake.accept = func(context.Context, inbox.Delivery) (inbox.Outcome, error) {
		return "", errors.New("no database at 10.0.0.1")
	}
	server := e.serve(t)
	for _, s := range signers() {
		a := send(t, server, http.MethodPost, s.path(), s.sign(s.good, messageID, time.Now(), goodBody()), bytes.NewReader(goodBody()))
		if a.status != http.StatusServiceUnavailable || a.code() != "not_stored" || a.header.Get("Retry-After") != "5" {
			t.Errorf("%s: %d %s, Retry-After %q", s.source, a.status, a.raw, a.header.Get("Retry-After"))
		}
		if strings.Contains(a.raw, "10.0.0.1") {
			t.Errorf("%s: the cause was sent out: %s", s.source, a.raw)
		}
		if e.counts.of("delivery "+s.source+" not_stored") != 1 {
			t.Errorf("%s: not counted", s.source)
		}
	}
	if !strings.Contains(e.logs.String(), "no database at 10.0.0.1") {
		t.Error("the cause is not in the log")
	}
}

func TestStoringIsBounded(t *testing.T) {
	t.Parallel()
	e := newEdge(t, edgeOptions{acceptTimeout: 20 * time.Millisecond})
	e.intake.accept = func(ctx context.Context, _ inbox.Delivery) (inbox.Outcome, error) {
		<-ctx.Done()
		return "", ctx.Err()
	}
	server := e.serve(t)
	for _, s := range signers() {
		a := send(t, server, http.MethodPost, s.path(), s.sign(s.good, messageID, time.Now(), goodBody()), bytes.NewReader(goodBody()))
		if a.status != http.StatusServiceUnavailable {
			t.Errorf("%s: %d %s", s.source, a.status, a.raw)
		}
	}
}

// What comes while a door has its hands full is refused at once, and told of once however much it
// is; a place is held until its delivery is answered, and by no sender who takes its time with a
// body.
func TestHandsFull(t *testing.T) {
	t.Parallel()
	for _, s := range signers() {
		t.Run(s.source, func(t *testing.T) {
			t.Parallel()
			const places, more = 3, 40
			e := newEdge(t, edgeOptions{maxInHand: places})
			storing, release := make(chan struct{}, places), make(chan struct{})
			e.intake.accept = func(context.Context, inbox.Delivery) (inbox.Outcome, error) {
				storing <- struct{}{}
				<-release
				return inbox.Stored, nil
			}
			server := e.serve(t)
			deliver := func() answer {
				return send(t, server, http.MethodPost, s.path(), s.sign(s.good, messageID, time.Now(), goodBody()), bytes.NewReader(goodBody()))
			}
			dribble, end := io.Pipe()
			var slow sync.WaitGroup
			slow.Go(func() {
				send(t, server, http.MethodPost, s.path(), s.sign(s.good, messageID, time.Now(), goodBody()), dribble)
			})
			var held sync.WaitGroup
			for range places {
				held.Go(func() {
					if a := deliver(); a.status != http.StatusOK {
						t.Errorf("a delivery that has a place is answered %d %s", a.status, a.raw)
					}
				})
				<-storing
			}
			for range more {
				if a := deliver(); a.status != http.StatusServiceUnavailable || a.code() != "overloaded" || a.header.Get("Retry-After") != "5" {
					t.Errorf("one too much is answered %d %s, Retry-After %q", a.status, a.raw, a.header.Get("Retry-After"))
				}
			}
			close(release)
			held.Wait()
			if a := deliver(); a.status != http.StatusOK {
				t.Errorf("with places free again a delivery is answered %d %s", a.status, a.raw)
			}
			_ = end.Close()
			slow.Wait()
			if n := e.counts.of("delivery " + s.source + " overloaded"); n != more {
				t.Errorf("%d of %d are counted", n, more)
			}
			if n := strings.Count(e.logs.String(), `"result":"overloaded"`); n == 0 || n > more/2 {
				t.Errorf("%d lines tell of %d", n, more)
			}
		})
	}
}

func TestPanickingIntake(t *testing.T) {
	t.Parallel()
	e := newEdge(t, edgeOptions{})
	e.intake.accept = func(context.Context, inbox.Delivery) (inbox.Outcome, error) { panic("out of order") }
	server := e.serve(t)
	for _, s := range signers() {
		a := send(t, server, http.MethodPost, s.path(), s.sign(s.good, messageID, time.Now(), goodBody()), bytes.NewReader(goodBody()))
		if a.status != http.StatusInternalServerError || a.code() != "internal_error" || strings.Contains(a.raw, "out of order") {
			t.Errorf("%s: %d %s", s.source, a.status, a.raw)
		}
	}
	for _, want := range []string{"out of order", "TestPanickingIntake", `"route":"/api/webhooks/stripe"`} {
		if !strings.Contains(e.logs.String(), want) {
			t.Errorf("%q is not in the log", want)
		}
	}
}

func TestBodyThatDoesNotArrive(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		hangUp bool
		status string
		result string
	}{
		"slow":  {false, "HTTP/1.1 408 Request Timeout", "body_timeout"},
		"ended": {true, "HTTP/1.1 400 Bad Request", "body_incomplete"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timeout := 50 * time.Millisecond
			if c.hangUp {
				timeout = time.Minute
			}
			e := newEdge(t, edgeOptions{bodyTimeout: timeout})
			server := e.serve(t)
			var dialer net.Dialer
			conn, err := dialer.DialContext(t.Context(), "tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "POST /api/webhooks/stripe HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nStripe-Signature: t=1,v1=00\r\n\r\n{\"id\":")
			if c.hangUp {
				if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			status, err := bufio.NewReader(conn).ReadString('\n')
			if err != nil || strings.TrimSpace(status) != c.status {
				t.Errorf("answer %q, %v", status, err)
			}
			if e.counts.of("delivery stripe "+c.result) != 1 {
				t.Error("not counted")
			}
		})
	}
}

// TestSlowStoringOutlivesTheBodyTimeout: the deadline is for the body alone.
func TestSlowStoringOutlivesTheBodyTimeout(t *testing.T) {
	t.Parallel()
	const bodyTimeout = 200 * time.Millisecond
	e := newEdge(t, edgeOptions{bodyTimeout: bodyTimeout})
	e.intake.accept = func(ctx context.Context, _ inbox.Delivery) (inbox.Outcome, error) {
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-time.After(2 * bodyTimeout):
			return inbox.Stored, nil
		}
	}
	header := signStripe(stripeSecret, "", time.Now(), goodBody())
	if a := send(t, e.serve(t), http.MethodPost, "/api/webhooks/stripe", header, bytes.NewReader(goodBody())); a.status != http.StatusOK {
		t.Errorf("%d %s\n%s", a.status, a.raw, e.logs.String())
	}
}

func TestEmptySecretsAreRefused(t *testing.T) {
	t.Parallel()
	for name, secrets := range map[string][]config.Secret{
		"none": nil, "empty": {""}, "only the prefix": {"whsec_"}, "one of two": {"whsec_c29tZXRoaW5nIGxvbmc=", ""},
	} {
		o := httpapi.WebhookOptions{Secrets: secrets, Intake: &intake{}, Metrics: &counts{}}
		if _, err := httpapi.NewClerkWebhook(o); err == nil {
			t.Errorf("clerk takes secrets: %s", name)
		}
		if _, err := httpapi.NewStripeWebhook(o); err == nil {
			t.Errorf("stripe takes secrets: %s", name)
		}
	}
	_, err := httpapi.NewClerkWebhook(httpapi.WebhookOptions{Secrets: []config.Secret{"whsec_not*base64"}})
	if err == nil || strings.Contains(err.Error(), "not*") {
		t.Errorf("got %v", err)
	}
}
