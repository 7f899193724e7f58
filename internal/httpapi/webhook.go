package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/nepfy/clerk-stripe-sync/internal/config"
	"github.com/nepfy/clerk-stripe-sync/internal/inbox"
	"github.com/nepfy/clerk-stripe-sync/internal/intake"
	"github.com/nepfy/clerk-stripe-sync/internal/telemetry"
)

const (
	// defaultAcceptTimeout bounds the storing of a delivery: Clerk gives up after 15 s, and an answer
	// that nobody waits for any more is worth nothing.
	defaultAcceptTimeout = 10 * time.Second
	// notStoredRetry is when a sender may try again. The providers keep to a schedule of their own.
	notStoredRetry = 5 * time.Second
	// defaultMaxInHand is as many deliveries as one commit takes: of one source alone none waits for
	// more than the commit under way and its own.
	defaultMaxInHand = inbox.DefaultGroup
)

// Intake stores deliveries.
type Intake interface {
	// Accept stores a verified delivery and returns after the commit. Any error is answered 503, and
	// the provider sends the event again.
	Accept(ctx context.Context, d inbox.Delivery) (inbox.Outcome, error)
}

// WebhookMetrics counts deliveries.
type WebhookMetrics interface {
	// Delivery is told the source, the result (an [inbox.Outcome] or a problem's code) and the time to
	// answer.
	Delivery(source, result string, took time.Duration)
	// SecretMatched is told the place, from 0, of the secret that verified a delivery.
	SecretMatched(source string, index int)
}

// WebhookOptions is what a webhook endpoint stands on.
type WebhookOptions struct {
	// Secrets are the endpoint's signing secrets: at least one, none empty.
	Secrets []config.Secret
	Intake  Intake
	Metrics WebhookMetrics
	Logger  *slog.Logger
	// AcceptTimeout bounds the storing of one delivery; 0 stands for 10 s.
	AcceptTimeout time.Duration
	// MaxInHand is how many deliveries are verified and stored at once, at most; 0 stands for
	// [inbox.DefaultGroup]. What comes beside them is answered 503 as soon as it has been read.
	MaxInHand int
}

// verifier knows how one provider signs and names its deliveries.
type verifier interface {
	// signed reports whether the headers of a signature are there, whatever they hold.
	signed(header http.Header) bool
	// verify checks signature and time, and returns the place of the secret that matched. The code is
	// that of the problem, empty if there is none.
	verify(header http.Header, body []byte, now time.Time) (index int, code string)
	// eventID returns the event's id from a verified delivery. The code is that of the problem with
	// the body or the id, empty if there is none.
	eventID(header http.Header, body string) (id, code string)
}

// NewClerkWebhook returns the endpoint that Clerk delivers to, by way of Svix.
func NewClerkWebhook(o WebhookOptions) (http.Handler, error) {
	v, err := newClerkVerifier(o.Secrets)
	if err != nil {
		return nil, fmt.Errorf("make Clerk's webhook endpoint: %w", err)
	}
	return newDoor(intake.SourceClerk, v, o), nil
}

// NewStripeWebhook returns the endpoint that Stripe delivers to.
func NewStripeWebhook(o WebhookOptions) (http.Handler, error) {
	v, err := newStripeVerifier(o.Secrets)
	if err != nil {
		return nil, fmt.Errorf("make Stripe's webhook endpoint: %w", err)
	}
	return newDoor(intake.SourceStripe, v, o), nil
}

// HandleWebhooks adds both endpoints to a router.
func (r *Router) HandleWebhooks(clerk, stripe http.Handler) {
	r.Handle(http.MethodPost, "/api/webhooks/clerk", clerk)
	r.Handle(http.MethodPost, "/api/webhooks/stripe", stripe)
}

// door lets deliveries of one provider in.
type door struct {
	source   string
	verifier verifier
	o        WebhookOptions
	// inHand holds a place for each delivery that is being verified and stored.
	inHand chan struct{}
	// buffers are for bodies that are being read and verified; of what is taken a copy is made.
	buffers sync.Pool
	// refused counts what was too much since it was last told of, which is done once a second: a line
	// for each would cost more than the refusal.
	refused atomic.Int64
	tell    rate.Sometimes
}

func newDoor(source string, v verifier, o WebhookOptions) *door {
	if o.AcceptTimeout <= 0 {
		o.AcceptTimeout = defaultAcceptTimeout
	}
	if o.MaxInHand <= 0 {
		o.MaxInHand = defaultMaxInHand
	}
	o.Logger = telemetry.Scope(o.Logger, telemetry.ScopeWebhook)
	return &door{source: source, verifier: v, o: o, inHand: make(chan struct{}, o.MaxInHand), tell: rate.Sometimes{Interval: time.Second}}
}

// ServeHTTP implements http.Handler: read once, verify, look for the id, hand over, answer.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	op := telemetry.Operation{
		Name:       "receive_webhook",
		Parameters: map[string]string{"source": d.source, "request_id": RequestID(r.Context())},
	}
	started := time.Now()
	result, id, err := d.receive(w, r)
	op.EventID = id
	took := time.Since(started)
	d.o.Metrics.Delivery(d.source, result, took)

	outcome := telemetry.Outcome{Result: result, Err: err}
	switch {
	case err == nil:
		WriteJSON(w, http.StatusOK, taken{result})
	case result == codeOverloaded:
		WriteProblem(w, r, webhookProblem(result))
		refused, told := d.refused.Add(1), false
		d.tell.Do(func() { told = true })
		if !told {
			return
		}
		d.refused.Add(-refused)
		op.Parameters["refused"] = strconv.FormatInt(refused, 10)
		outcome.ErrorClass = "transient"
	case result == codeNotStored:
		outcome.ErrorClass = "transient"
		WriteProblem(w, r, webhookProblem(result))
	default:
		outcome.ErrorClass = telemetry.ClassRefused
		WriteProblem(w, r, webhookProblem(result))
	}
	telemetry.BeginAt(d.o.Logger, op, started).End(r.Context(), outcome)
}

// taken is the answer to a delivery that need not be sent again.
type taken struct {
	Result string `json:"result"`
}

// receive returns the outcome or the problem's code as result, the verified event's id, and the
// error if there was a problem.
func (d *door) receive(w http.ResponseWriter, r *http.Request) (result, id string, err error) {
	refused := func(code string) (string, string, error) { return code, "", errors.New(code) }
	if !d.verifier.signed(r.Header) {
		return refused(codeSignatureMissing)
	}
	body, now, code := d.open(w, r)
	if code != "" {
		return refused(code)
	}
	defer func() { <-d.inHand }()
	id, code = d.verifier.eventID(r.Header, body)
	if code != "" {
		return refused(code)
	}
	ctx, cancel := context.WithTimeout(r.Context(), d.o.AcceptTimeout)
	defer cancel()
	outcome, err := d.o.Intake.Accept(ctx, inbox.Delivery{Source: d.source, EventID: id, Body: body, ReceivedAt: now})
	if err != nil {
		return codeNotStored, id, fmt.Errorf("store the delivery: %w", err)
	}
	return string(outcome), id, nil
}

// open reads a delivery and verifies its signature. It answers when the body had been read, and the
// problem's code. If there is none, one of the places is held for the delivery, and the caller
// gives it back.
func (d *door) open(w http.ResponseWriter, r *http.Request) (body string, read time.Time, code string) {
	buffer := d.buffer()
	defer d.giveBack(buffer)
	if code = readBody(w, r, buffer); code != "" {
		return "", read, code
	}
	// Not before the body has been read: a place is held for as long as our own work takes, never for
	// as long as a sender likes.
	select {
	case d.inHand <- struct{}{}:
	default:
		return "", read, codeOverloaded
	}
	verified := false
	defer func() {
		if !verified {
			<-d.inHand
		}
	}()
	read = time.Now()
	index, code := d.verifier.verify(r.Header, buffer.Bytes(), read)
	if code != "" {
		return "", read, code
	}
	d.o.Metrics.SecretMatched(d.source, index)
	verified = true
	return buffer.String(), read, ""
}

// keptBuffer is the largest buffer that is kept for the next body, in bytes: that of nearly every
// event, and little for a hundred of them.
const keptBuffer = 64 << 10

// buffer is an empty one for a body.
func (d *door) buffer() *bytes.Buffer {
	if buffer, ok := d.buffers.Get().(*bytes.Buffer); ok {
		return buffer
	}
	return new(bytes.Buffer)
}

func (d *door) giveBack(buffer *bytes.Buffer) {
	if buffer.Cap() > keptBuffer {
		return
	}
	buffer.Reset()
	d.buffers.Put(buffer)
}

// webhookProblem is the answer to a delivery that was not taken, by its code.
func webhookProblem(code string) Problem {
	p := Problem{Status: http.StatusBadRequest, Code: code}
	switch code {
	case codeSignatureMissing:
		p.Detail = "The headers of a webhook signature are missing."
	case codeSignatureInvalid:
		p.Detail = "No configured secret matches the signature."
	case codeTimestampStale:
		p.Detail = "The signature is too old."
	case codeTimestampFuture:
		p.Detail = "The signature is from the future; a clock is wrong."
	case codeBodyNotJSON:
		p.Detail = "The body is not a JSON object."
	case codeEventIDInvalid:
		p.Detail = "The event has no id of the provider's form."
	case codeBodyIncomplete:
		p.Detail = "The body ended early."
	case codeBodyTooLarge:
		p.Status, p.Detail = http.StatusRequestEntityTooLarge, "The body is larger than 1 MiB."
	case codeBodyTimeout:
		p.Status, p.Detail = http.StatusRequestTimeout, "The body did not arrive in time."
	case codeNotStored:
		p.Status, p.Detail = http.StatusServiceUnavailable, "The event could not be stored; send it again."
		p.RetryAfter = notStoredRetry
	case codeOverloaded:
		p.Status, p.Detail = http.StatusServiceUnavailable, "Too many deliveries come at once; send it again."
		p.RetryAfter = notStoredRetry
	}
	return p
}
