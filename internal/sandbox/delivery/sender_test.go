package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76/webhook"
	svix "github.com/svix/svix-webhooks/go"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
)

const (
	clerkSecret  = "whsec_c2FuZGJveC1vbmx5LW5vdC1hLXNlY3JldA=="
	stripeSecret = "whsec_sandbox_only_not_a_secret"
)

// receiver takes webhooks, and answers as its script says; 200 when that has ended.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	script []int
	got    []string
	header []http.Header
	body   []string
}

func newReceiver(t *testing.T, script ...int) *receiver {
	t.Helper()
	r := &receiver{script: script}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.got = append(r.got, req.Header.Get("Svix-Id"))
		r.header = append(r.header, req.Header)
		r.body = append(r.body, string(body))
		if len(r.script) == 0 {
			return
		}
		status := r.script[0]
		r.script = r.script[1:]
		switch {
		case status == 0:
			panic(http.ErrAbortHandler)
		case status >= 300 && status < 400:
			w.Header().Set("Location", r.URL+"/elsewhere")
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ids() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

func newSender(t *testing.T, url string, change ...func(*delivery.Options)) *delivery.Sender {
	t.Helper()
	sign, err := delivery.SignAsClerk(clerkSecret)
	if err != nil {
		t.Fatal(err)
	}
	o := delivery.Options{URL: url, Sign: sign, Retry: []time.Duration{time.Millisecond, 2 * time.Millisecond}, Seed: 1}
	for _, c := range change {
		c(&o)
	}
	s := delivery.New(o)
	t.Cleanup(s.Close)
	return s
}

func idle(t *testing.T, s *delivery.Sender) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Idle(ctx); err != nil {
		t.Fatal(err)
	}
}

func numbered(n int) (ids []string) {
	for k := range n {
		ids = append(ids, fmt.Sprintf("msg_%03d", k))
	}
	return ids
}

func sendAll(s *delivery.Sender, ids []string) {
	for _, id := range ids {
		s.Send(delivery.Message{ID: id, Body: []byte(`{"id":"` + id + `"}`)})
	}
}

func TestOrderIsKept(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	s := newSender(t, "")
	ids := numbered(50)
	sendAll(s, ids[:20])
	if got := r.ids(); len(got) != 0 {
		t.Fatalf("sent %v without a receiver", got)
	}
	s.SetURL(r.URL)
	sendAll(s, ids[20:])
	idle(t, s)
	if got := r.ids(); !slices.Equal(got, ids) {
		t.Fatalf("arrived as %v", got)
	}
}

func TestSignaturesAreTheProviders(t *testing.T) {
	t.Parallel()
	body := `{"id":"evt_1","object":"event","api_version":"2025-03-31.basil"}`
	t.Run("clerk", func(t *testing.T) {
		t.Parallel()
		r := newReceiver(t)
		s := newSender(t, r.URL)
		s.Send(delivery.Message{ID: "msg_1", Body: []byte(body)})
		idle(t, s)
		hook, err := svix.NewWebhook(clerkSecret)
		if err != nil {
			t.Fatal(err)
		}
		if err := hook.Verify([]byte(r.body[0]), r.header[0]); err != nil {
			t.Fatalf("verify: %v", err)
		}
		if err := hook.Verify([]byte(r.body[0]+" "), r.header[0]); err == nil {
			t.Fatal("another body has the same signature")
		}
	})
	t.Run("stripe", func(t *testing.T) {
		t.Parallel()
		r := newReceiver(t)
		sign, err := delivery.SignAsStripe(stripeSecret)
		if err != nil {
			t.Fatal(err)
		}
		s := newSender(t, r.URL, func(o *delivery.Options) { o.Sign = sign })
		s.Send(delivery.Message{ID: "evt_1", Body: []byte(body)})
		idle(t, s)
		signature := r.header[0].Get("Stripe-Signature")
		if err := webhook.ValidatePayload([]byte(r.body[0]), signature, stripeSecret); err != nil {
			t.Fatalf("verify: %v", err)
		}
		if err := webhook.ValidatePayload([]byte(r.body[0]), signature, "whsec_other"); err == nil {
			t.Fatal("another secret verifies too")
		}
	})
}

func TestUnusableSecretsAreRefused(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{"", "whsec_", "whsec_not base64"} {
		_, err := delivery.SignAsClerk(secret)
		if err == nil {
			t.Errorf("SignAsClerk(%q) works", secret)
		} else if secret != "" && strings.Contains(err.Error(), strings.TrimPrefix(secret, "whsec_")) && secret != "whsec_" {
			t.Errorf("the error quotes the secret: %v", err)
		}
	}
	if _, err := delivery.SignAsStripe(""); err == nil {
		t.Error("SignAsStripe of nothing works")
	}
}

func TestWhatIsNotTakenComesAgain(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, 503, 400, 307, 0)
	taken := make(chan string, 10)
	s := newSender(t, r.URL, func(o *delivery.Options) { o.Taken = func(id string) { taken <- id } })
	sendAll(s, []string{"msg_1"})
	idle(t, s)
	log := s.Log()
	var statuses []int
	for k, a := range log {
		statuses = append(statuses, a.Status)
		if (a.Err == nil) != (k == len(log)-1) {
			t.Errorf("attempt %d: error %v", k, a.Err)
		}
	}
	if want := []int{503, 400, 307, 0, 200}; !slices.Equal(statuses, want) {
		t.Fatalf("statuses %v, want %v", statuses, want)
	}
	if n := len(taken); n != 1 || <-taken != "msg_1" {
		t.Errorf("told %d times that it was taken", n)
	}
	for k := range r.body {
		if r.body[k] != r.body[0] || r.got[k] != "msg_1" {
			t.Fatalf("attempt %d carried %s %s", k, r.got[k], r.body[k])
		}
	}
}

func TestAFailureDoesNotStopTheOthers(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, 500)
	s := newSender(t, r.URL, func(o *delivery.Options) { o.Retry = []time.Duration{100 * time.Millisecond} })
	sendAll(s, []string{"msg_1", "msg_2", "msg_3"})
	idle(t, s)
	if got, want := r.ids(), []string{"msg_1", "msg_2", "msg_3", "msg_1"}; !slices.Equal(got, want) {
		t.Fatalf("arrived as %v, want %v", got, want)
	}
}

func TestHoldAndRelease(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	s := newSender(t, r.URL)
	s.Hold()
	ids := numbered(4)
	sendAll(s, ids)
	idle(t, s)
	held := s.Held()
	if len(held) != 4 || len(r.ids()) != 0 {
		t.Fatalf("%d held, %v sent", len(held), r.ids())
	}
	if got := s.TakeHeld()[0].ID; got != ids[0] {
		t.Fatalf("first held is %s", got)
	}
	status, err := s.Deliver(t.Context(), held[2])
	if err != nil || status != 200 {
		t.Fatalf("deliver by hand: %d, %v", status, err)
	}
	sendAll(s, []string{"msg_x"})
	s.Release()
	sendAll(s, []string{"msg_y"})
	idle(t, s)
	if got, want := r.ids(), []string{ids[2], "msg_x", "msg_y"}; !slices.Equal(got, want) {
		t.Fatalf("arrived as %v, want %v", got, want)
	}
}

func TestDeliverReportsRefusalsAndOutages(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, 503)
	s := newSender(t, r.URL)
	if status, err := s.Deliver(t.Context(), delivery.Message{ID: "msg_1"}); status != 503 || err != nil {
		t.Fatalf("got %d, %v", status, err)
	}
	r.Close()
	if status, err := s.Deliver(t.Context(), delivery.Message{ID: "msg_1"}); status != 0 || err == nil {
		t.Fatalf("got %d, %v", status, err)
	}
	for _, a := range s.Log() {
		if a.Err == nil {
			t.Errorf("logged as taken: %+v", a)
		}
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	const n = 40
	for name, tc := range map[string]struct {
		faults delivery.Faults
		check  func(sent, got []string, log []delivery.Attempt) error
	}{
		"double": {delivery.Faults{Double: 1}, func(sent, got []string, _ []delivery.Attempt) error {
			return eachArrives(sent, got, 2)
		}},
		"lose": {delivery.Faults{Lose: 1}, func(_, got []string, log []delivery.Attempt) error {
			if len(got) != 0 || len(log) != n || !errors.Is(log[0].Err, delivery.ErrLost) {
				return fmt.Errorf("arrived %v, logged %d", got, len(log))
			}
			return nil
		}},
		"unheard": {delivery.Faults{Unheard: 1}, func(sent, got []string, log []delivery.Attempt) error {
			if !errors.Is(log[0].Err, delivery.ErrUnheard) {
				return fmt.Errorf("first attempt: %v", log[0].Err)
			}
			return eachArrives(sent, got, 2)
		}},
		"reorder": {delivery.Faults{Reorder: 0.5}, func(sent, got []string, _ []delivery.Attempt) error {
			if slices.Equal(sent, got) {
				return errors.New("arrived in order")
			}
			return eachArrives(sent, got, 1)
		}},
		"delay": {delivery.Faults{Delay: 50 * time.Millisecond}, func(sent, got []string, _ []delivery.Attempt) error {
			return eachArrives(sent, got, 1)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReceiver(t)
			s := newSender(t, r.URL)
			s.SetFaults(tc.faults)
			sent := numbered(n)
			sendAll(s, sent)
			idle(t, s)
			if err := tc.check(sent, r.ids(), s.Log()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func eachArrives(sent, got []string, times int) error {
	counts := map[string]int{}
	for _, id := range got {
		counts[id]++
	}
	for _, id := range sent {
		if counts[id] != times {
			return fmt.Errorf("%s arrived %d times, want %d", id, counts[id], times)
		}
	}
	if len(got) != times*len(sent) {
		return fmt.Errorf("%d arrived", len(got))
	}
	return nil
}

func TestConcurrentSenderDeliversAll(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, 500, 500, 0)
	s := newSender(t, r.URL, func(o *delivery.Options) { o.Concurrency = 8 })
	ids := numbered(200)
	var wg sync.WaitGroup
	for part := range slices.Chunk(ids, 50) {
		wg.Go(func() { sendAll(s, part) })
	}
	wg.Wait()
	idle(t, s)
	got := slices.Compact(slices.Sorted(slices.Values(r.ids())))
	if !slices.Equal(got, ids) {
		t.Fatalf("%d of %d arrived", len(got), len(ids))
	}
}

// What a closed sender could not deliver is handed over, so that a restart loses nothing.
func TestCloseKeepsWhatIsPending(t *testing.T) {
	t.Parallel()
	entered, leave := make(chan struct{}), make(chan struct{})
	hang := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-leave
	}))
	t.Cleanup(hang.Close)
	t.Cleanup(func() { close(leave) })
	s := newSender(t, hang.URL)
	ids := numbered(3)
	sendAll(s, ids)
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.Idle(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Idle while busy: %v", err)
	}
	s.Close()
	var pending []string
	for _, m := range s.Pending() {
		pending = append(pending, m.ID)
	}
	if !slices.Equal(pending, ids) {
		t.Fatalf("pending %v, want %v", pending, ids)
	}
	if err := s.Idle(t.Context()); !errors.Is(err, delivery.ErrClosed) {
		t.Fatalf("Idle after Close: %v", err)
	}
	s.Send(delivery.Message{ID: "msg_late"})
	s.Close()
}
