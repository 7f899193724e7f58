// Package delivery sends webhooks as providers do: signed, asynchronously, at least once, and again
// after a while when the receiver did not take them. On demand it is as unreliable as a provider
// may be: it doubles, loses, delays and reorders.
package delivery

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	answerPatience = 15 * time.Second       // how long a provider waits for an answer
	reorderWindow  = 300 * time.Millisecond // how far a reordered message is put back at most
	maxLog         = 10_000                 // attempts remembered
)

var (
	// ErrLost is logged for a message that Faults.Lose took: it is never sent.
	ErrLost = errors.New("lost on purpose")
	// ErrUnheard is logged for an attempt whose success Faults.Unheard hid: it is made again.
	ErrUnheard = errors.New("answer lost on purpose")
	// ErrClosed answers what is asked of a closed sender.
	ErrClosed = errors.New("webhook sender is closed")
)

// Message is one webhook. ID is the provider's id of the event (evt_... or msg_...), the same in
// every attempt; Body is sent, and signed, byte for byte.
type Message struct {
	ID   string
	Body []byte
}

// Signer returns the headers that prove to the receiver who sent the body, at the time of the
// attempt.
type Signer func(id string, at time.Time, body []byte) http.Header

// Options configure a Sender. Only Sign is required.
type Options struct {
	URL  string // of the receiver; while empty, messages queue
	Sign Signer
	// Retry holds the pauses after the first, second, ... failed attempt; the last repeats. The
	// default is 200ms, 1s, 5s, 15s, 30s: the providers' schedules, which end after days, compressed.
	Retry       []time.Duration
	Seed        uint64       // of the dice that Faults throw
	Client      *http.Client // default: one that gives up after 15s; redirects are never followed
	Logger      *slog.Logger // default: none
	Concurrency int          // attempts at a time; default 1, which keeps the order
	// Taken, if set, is called when the receiver has taken a message and the sender has heard so.
	Taken func(id string)
}

// Faults are probabilities from 0 to 1, drawn for each message when it is given to Send.
type Faults struct {
	Double  float64       // it is delivered twice
	Lose    float64       // it is never delivered, and never tried again
	Unheard float64       // the receiver takes it, the sender does not hear so, and delivers it again
	Reorder float64       // it is put back by up to 300ms, so that later ones overtake it
	Delay   time.Duration // no probability: each waits a random time up to this
}

// Attempt is one try to deliver a message. Err is nil exactly when the receiver took it; Status is
// 0 when there was no answer.
type Attempt struct {
	ID     string
	Status int
	Err    error
	At     time.Time
}

// A Sender delivers messages to one receiver. It is safe for concurrent use.
type Sender struct {
	sign   Signer
	retry  []time.Duration
	client *http.Client
	log    *slog.Logger
	taken  func(id string)
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	changed  chan struct{} // closed, and replaced, whenever what follows changes
	url      string
	rand     *rand.Rand
	faults   Faults
	queue    []*job // by due, then seq
	seq      int
	inflight []*job
	holding  bool
	held     []Message
	attempts []Attempt
	closed   bool
}

type job struct {
	Message
	due     time.Time
	seq     int
	failed  int // attempts so far that were not taken
	unheard bool
}

// New starts a sender. Close ends it.
func New(o Options) *Sender {
	if len(o.Retry) == 0 {
		o.Retry = []time.Duration{200 * time.Millisecond, time.Second, 5 * time.Second, 15 * time.Second, 30 * time.Second}
	}
	client := &http.Client{Timeout: answerPatience}
	if o.Client != nil {
		*client = *o.Client
	}
	// A redirected webhook counts as failed with both providers.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if o.Taken == nil {
		o.Taken = func(string) {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Sender{
		taken: o.Taken,
		sign:  o.Sign, retry: o.Retry, client: client, log: cmp.Or(o.Logger, slog.New(slog.DiscardHandler)), cancel: cancel,
		changed: make(chan struct{}), url: o.URL, rand: rand.New(rand.NewPCG(o.Seed, 0x64656c6976657279)),
	}
	for range max(1, o.Concurrency) {
		s.wg.Go(func() { s.work(ctx) })
	}
	return s
}

// SetURL names the receiver. With "" messages queue until there is one.
func (s *Sender) SetURL(url string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.url = url
	s.notify()
}

// SetFaults replaces the faults. Messages that were sent before keep what was drawn for them.
func (s *Sender) SetFaults(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = f
}

// Send delivers a message some time later, again and again until it is taken. With Concurrency 1,
// no faults and a receiver that takes everything, messages arrive in the order of Send. It never
// blocks; a closed sender forgets the message.
func (s *Sender) Send(m Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
	case s.holding:
		s.held = append(s.held, m)
	default:
		s.enqueue(m)
	}
}

// Hold collects the messages that are sent from now on instead of delivering them. What is already
// on its way goes on.
func (s *Sender) Hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holding = true
}

// Release delivers what Hold collected, in order, and ends the hold.
func (s *Sender) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holding = false
	for _, m := range s.held {
		s.enqueue(m)
	}
	s.held = nil
}

// Held returns the messages collected since Hold, in order, and keeps them.
func (s *Sender) Held() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.held)
}

// TakeHeld returns the messages collected since Hold, in order, and forgets them: for a caller who
// delivers them itself.
func (s *Sender) TakeHeld() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.held
	s.held = nil
	return taken
}

// Pending returns what has not been taken yet: queued, waiting to be tried again, in flight or
// held. A program that stops can keep it and Send it when it is back.
func (s *Sender) Pending() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	jobs := slices.Concat(s.inflight, s.queue)
	slices.SortFunc(jobs, func(a, b *job) int { return cmp.Compare(a.seq, b.seq) })
	var pending []Message
	for _, j := range jobs {
		pending = append(pending, j.Message)
	}
	return append(pending, s.held...)
}

// Idle returns when nothing is queued, in flight or waiting for redelivery. Held messages do not
// count. Without a receiver, or with one that refuses, it returns the error of ctx in the end.
func (s *Sender) Idle(ctx context.Context) error {
	for {
		s.mu.Lock()
		idle, closed, changed := len(s.queue) == 0 && len(s.inflight) == 0, s.closed, s.changed
		s.mu.Unlock()
		switch {
		case idle:
			return nil
		case closed:
			return ErrClosed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for webhooks to be taken: %w", context.Cause(ctx))
		}
	}
}

// Log returns the attempts made so far, oldest first, at most the last ten thousand.
func (s *Sender) Log() []Attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.attempts)
}

// Deliver makes one signed attempt now and reports the receiver's status. The error is nil when
// there was an answer, whatever its status. Queue, hold and faults play no part.
func (s *Sender) Deliver(ctx context.Context, m Message) (status int, err error) {
	s.mu.Lock()
	url := s.url
	s.mu.Unlock()
	at := time.Now()
	status, err = s.post(ctx, url, m, at)
	logged := err
	switch {
	case err == nil && success(status):
		s.taken(m.ID)
	case err == nil:
		logged = fmt.Errorf("receiver answered %d", status)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.record(Attempt{ID: m.ID, Status: status, Err: logged, At: at})
	return status, err
}

// Close stops delivering, breaks off what is in flight and waits until nothing runs any more.
func (s *Sender) Close() {
	s.mu.Lock()
	s.closed = true
	s.notify()
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
	s.client.CloseIdleConnections()
}

// enqueue throws the dice for a message and queues it. The caller holds the lock.
func (s *Sender) enqueue(m Message) {
	now := time.Now()
	hit := func(p float64) bool { return p > 0 && s.rand.Float64() < p }
	if hit(s.faults.Lose) {
		s.record(Attempt{ID: m.ID, Err: ErrLost, At: now})
		return
	}
	copies := 1
	if hit(s.faults.Double) {
		copies = 2
	}
	for range copies {
		j := &job{Message: m, due: now, seq: s.seq, unheard: hit(s.faults.Unheard)}
		s.seq++
		if s.faults.Delay > 0 {
			j.due = j.due.Add(time.Duration(s.rand.Int64N(int64(s.faults.Delay))))
		}
		if hit(s.faults.Reorder) {
			j.due = j.due.Add(time.Duration(s.rand.Int64N(int64(reorderWindow))))
		}
		s.insert(j)
	}
}

func (s *Sender) insert(j *job) {
	at, _ := slices.BinarySearchFunc(s.queue, j, func(a, b *job) int {
		return cmp.Or(a.due.Compare(b.due), cmp.Compare(a.seq, b.seq))
	})
	s.queue = slices.Insert(s.queue, at, j)
	s.notify()
}

func (s *Sender) record(a Attempt) {
	if len(s.attempts) == maxLog {
		s.attempts = slices.Delete(s.attempts, 0, maxLog/10)
	}
	s.attempts = append(s.attempts, a)
	s.notify()
}

func (s *Sender) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// work delivers one message after the other until the sender closes.
func (s *Sender) work(ctx context.Context) {
	for {
		j, url := s.next(ctx)
		if j == nil {
			return
		}
		at := time.Now()
		status, err := s.post(ctx, url, j.Message, at)
		switch {
		case err != nil:
		case !success(status):
			err = fmt.Errorf("receiver answered %d", status)
		case j.unheard:
			err, j.unheard = ErrUnheard, false
		}
		if err == nil {
			s.taken(j.ID) // before Idle can return
		}
		s.settle(j, Attempt{ID: j.ID, Status: status, Err: err, At: at})
	}
}

// next waits for a message that is due and a receiver to send it to. It returns nil when the sender
// is closed.
func (s *Sender) next(ctx context.Context) (*job, string) {
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return nil, ""
		}
		var due <-chan time.Time
		if len(s.queue) > 0 && s.url != "" {
			wait := time.Until(s.queue[0].due)
			if wait <= 0 {
				j, url := s.queue[0], s.url
				s.queue = slices.Delete(s.queue, 0, 1)
				s.inflight = append(s.inflight, j)
				s.mu.Unlock()
				return j, url
			}
			due = time.After(wait)
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-due:
		case <-ctx.Done():
		}
	}
}

// settle records an attempt and puts the message back if it was not taken.
func (s *Sender) settle(j *job, a Attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inflight = slices.DeleteFunc(s.inflight, func(other *job) bool { return other == j })
	if a.Err != nil {
		pause := s.retry[min(j.failed, len(s.retry)-1)]
		j.failed++
		j.due = time.Now().Add(pause)
		s.insert(j)
		if !s.closed {
			s.log.Debug("webhook not taken", "event_id", j.ID, "status", a.Status, "error", a.Err, "attempt", j.failed, "again_in", pause)
		}
	}
	s.record(a)
}

func (s *Sender) post(ctx context.Context, url string, m Message, at time.Time) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(m.Body))
	if err != nil {
		return 0, fmt.Errorf("make webhook request: %w", err)
	}
	for k, v := range s.sign(m.ID, at, m.Body) {
		req.Header[http.CanonicalHeaderKey(k)] = v
	}
	if req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	res, err := s.client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("deliver webhook: %w", err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // so that the connection is used again
	return res.StatusCode, nil
}

func success(status int) bool { return status >= 200 && status < 300 }
