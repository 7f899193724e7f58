// Package stripeapi asks Stripe what is true, and makes the few changes that we make: it is
// stripe-go behind our own types and our own failures.
//
// Every read is rendered by Stripe at the API version that stripe-go pins, whatever version the
// account's webhooks use; where a newer shape shows through (periods on items), it is understood.
// The SDK neither retries nor logs here: retrying is the callers' business, who know how long
// something is worth waiting for, and the SDK's own texts hold what must not be logged.
//
// Nothing in this package charges, pays, refunds or attaches anything. No idempotency key is made
// up here: every change takes the caller's, who alone knows which attempts are the same change.
// Stripe keeps a key, with the answer it gave (a 5xx included), for about a day.
package stripeapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/client"

	"github.com/nepfy/clerk-stripe-sync/internal/exchange"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

const (
	provider = "stripe"
	// maxBody is well above a full page of expanded subscriptions.
	maxBody = 16 << 20
	// DefaultTimeout is how long one request may take, its answer included.
	DefaultTimeout = 20 * time.Second
	// pageSize is the most that Stripe lists at once.
	pageSize = 100
	// maxPages bounds what is read of one list; more is a sign that paging does not advance.
	maxPages = 100
	// maxKey is the longest idempotency key that Stripe takes.
	maxKey = 255
)

// Call is what may be told of one request to Stripe.
type Call = exchange.Call

// Options says how to reach Stripe.
type Options struct {
	// Key is the secret key. It must not be empty.
	Key string
	// BaseURL is where Stripe is, without "/v1"; empty for the real one.
	BaseURL string
	// Timeout bounds each request; zero for [DefaultTimeout].
	Timeout time.Duration
	// UserAgent replaces the SDK's, unless it is empty.
	UserAgent string
	// Observe is told of each request, for metrics and logs. It may be nil and must not block.
	Observe func(context.Context, Call)
	// Transport sends the requests; nil for a connection pool of the client's own.
	Transport http.RoundTripper
}

// Client talks to one Stripe account. It is safe for use by many goroutines.
type Client struct {
	sdk     *client.API
	backend stripe.Backend
	key     string
	pool    *http.Transport
}

// New makes a client. It asks Stripe nothing yet.
func New(o Options) *Client {
	c := &Client{key: o.Key}
	base := o.Transport
	if base == nil {
		c.pool = exchange.NewBase()
		base = c.pool
	}
	timeout := o.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	url := o.BaseURL
	if url == "" {
		url = stripe.APIURL
	}
	transport := &exchange.Transport{
		Provider: provider,
		Base:     base,
		Words: []string{
			"v1", "account", "billing_portal", "cancel", "charges", "checkout", "customers", "events", "expire", "invoiceitems", "invoices",
			"payment_intents", "payment_methods", "prices",
			"products", "release", "search", "sessions", "subscription_items", "subscription_schedules", "subscriptions",
		},
		// It holds this machine's name.
		Drop:      []string{"X-Stripe-Client-User-Agent"},
		UserAgent: o.UserAgent,
		Timeout:   timeout,
		MaxBody:   maxBody,
		Sound:     sound,
		Observe:   o.Observe,
	}
	c.backend = stripe.GetBackendWithConfig(stripe.APIBackend, &stripe.BackendConfig{
		URL:               stripe.String(url),
		HTTPClient:        exchange.NewClient(transport),
		MaxNetworkRetries: stripe.Int64(0),
		EnableTelemetry:   stripe.Bool(false),
		LeveledLogger:     &stripe.LeveledLogger{Level: stripe.LevelNull},
	})
	c.sdk = client.New(o.Key, &stripe.Backends{API: c.backend, Connect: c.backend, Uploads: c.backend})
	return c
}

// Close drops the idle connections of the client's own pool.
func (c *Client) Close() {
	if c.pool != nil {
		c.pool.CloseIdleConnections()
	}
}

// Account answers the id of the account that the key belongs to ("acct_...").
func (c *Client) Account(ctx context.Context) (string, error) {
	const op = "read account"
	account, err := do(ctx, op, func(ctx context.Context) (*stripe.Account, error) {
		// The SDK's own method takes no parameters, and so no context.
		params := &stripe.AccountParams{}
		params.Context = ctx
		account := &stripe.Account{}
		err := c.backend.Call(http.MethodGet, "/v1/account", c.key, params, account)
		return account, err
	})
	if err != nil {
		return "", err
	}
	if !wellFormed("acct_", account.ID) {
		return "", badBody(op)
	}
	return account.ID, nil
}

// do runs one call to the SDK and classifies its failure.
func do[T any](ctx context.Context, op string, call func(context.Context) (T, error)) (T, error) {
	recorded, rec := exchange.Start(ctx)
	answer, err := call(recorded)
	if err != nil || rec.Unsound {
		var none T
		return none, classify(ctx, rec, op)
	}
	return answer, nil
}

// page is one page of a list.
type page[T any] struct {
	objects []T
	more    bool
}

// all reads a list to its end, or fails: a part of a list looks like things that are gone. fetch is
// told the id to continue behind, nil on the first page.
func all[T any](
	ctx context.Context, op string, id func(T) string, fetch func(ctx context.Context, after *string) (page[T], error),
) ([]T, error) {
	objects, complete, err := upTo(ctx, op, maxPages, id, fetch)
	if err == nil && !complete {
		return nil, failure.New(failure.Transient, provider, op, "list_does_not_end", nil)
	}
	return objects, err
}

// upTo reads so many pages of a list at most, and tells whether that is all of it. Where the object
// that a page is to go on behind was deleted meanwhile, it begins anew.
func upTo[T any](
	ctx context.Context, op string, most int, id func(T) string, fetch func(ctx context.Context, after *string) (page[T], error),
) (objects []T, complete bool, err error) {
	const begun = 3
	var after string
	again := 0
	for read := 0; read < most; read++ {
		list, next, err := onePage(ctx, op, after, id, fetch)
		if failure.CodeOf(err) == codeCursorGone && again < begun {
			objects, after, read, again = nil, "", -1, again+1
			continue
		}
		if err != nil {
			return nil, false, err
		}
		if objects = append(objects, list...); next == "" {
			return objects, true, nil
		}
		after = next
	}
	return objects, false, nil
}

// resume reads the page behind a place in a list of the newest first: the id of the last object
// before it, and behind an "@" when that was made, in Unix seconds. Stripe refuses to go on behind
// an object that was deleted since. Then it goes on from what was made when the object was, or
// before; what is of the same second comes twice, and nothing is passed over. Without the time it
// begins anew.
func resume[T any](after string, read func(after string, until int64) ([]T, string, error)) (list []T, next string, err error) {
	id, made, _ := strings.Cut(after, "@")
	if list, next, err = read(id, 0); failure.CodeOf(err) != codeCursorGone {
		return list, next, err
	}
	until, err := strconv.ParseInt(made, 10, 64)
	if err != nil {
		until = 0
	}
	return read("", until)
}

// madeUntil is the range of what was made at a moment or before, nil for everything.
func madeUntil(seconds int64) *stripe.RangeQueryParams {
	if seconds == 0 {
		return nil
	}
	return &stripe.RangeQueryParams{LesserThanOrEqual: seconds}
}

// onePage reads one page of a list, or fails, and answers the id that the next one continues
// behind, "" after the last.
func onePage[T any](
	ctx context.Context, op, after string, id func(T) string, fetch func(ctx context.Context, after *string) (page[T], error),
) (objects []T, next string, err error) {
	p, err := do(ctx, op, func(ctx context.Context) (page[T], error) { return fetch(ctx, optional(&after)) })
	if err != nil {
		return nil, "", err
	}
	for _, object := range p.objects {
		if id(object) == "" {
			return nil, "", badBody(op)
		}
	}
	if !p.more {
		return p.objects, "", nil
	}
	if len(p.objects) == 0 {
		return nil, "", badBody(op)
	}
	if next = id(p.objects[len(p.objects)-1]); next == after {
		return nil, "", failure.New(failure.Transient, provider, op, "list_does_not_advance", nil)
	}
	return p.objects, next, nil
}

// listParams are those of one page.
func listParams(ctx context.Context, limit int64, after *string) stripe.ListParams {
	return stripe.ListParams{Context: ctx, Single: true, Limit: stripe.Int64(limit), StartingAfter: after}
}

// iterator is what all of the SDK's lists have in common.
type iterator interface {
	Next() bool
	Err() error
	Meta() *stripe.ListMeta
}

// collect takes the page that an iterator holds.
func collect[T any](it iterator, current func() T) (page[T], error) {
	var p page[T]
	for it.Next() {
		p.objects = append(p.objects, current())
	}
	if err := it.Err(); err != nil {
		return page[T]{}, err
	}
	if it.Meta().URL == "" {
		// Each of Stripe's lists has its address; what has none is something else, and no empty list.
		return page[T]{}, errNoList
	}
	p.more = it.Meta().HasMore
	return p, nil
}

var errNoList = errors.New("the answer is not a list")

// sound tells whether a successful answer is one of Stripe's: an object that says what it is,
// and if it is a list, its elements and whether there are more.
func sound(body []byte) bool {
	var answer struct {
		Object  string      `json:"object"`
		HasMore *bool       `json:"has_more"`
		Data    *[]struct{} `json:"data"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Object == "" {
		return false
	}
	return answer.Object != "list" && answer.Object != "search_result" || answer.HasMore != nil && answer.Data != nil
}

var idForm = regexp.MustCompile(`^[A-Za-z0-9_]{1,200}$`)

// wellFormed tells whether id has the form of one of Stripe's ids with the given prefix. An
// empty or foreign id would ask for something else: "/v1/customers/" is a list.
func wellFormed(prefix, id string) bool {
	return strings.HasPrefix(id, prefix) && len(id) > len(prefix) && idForm.MatchString(id)
}

func unix(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}
