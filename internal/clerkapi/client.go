// Package clerkapi asks Clerk who a user is and keeps the key "stripe" of a user's public
// metadata: it is Clerk's SDK behind our own types and our own failures.
//
// Nothing else of a user is ever written. unsafe_metadata can be written by the user's own
// browser, and so is never written, and read only for where to look.
//
// Clerk takes ten writes of one user in ten seconds, and has no idempotency keys: a request that
// timed out here may still take effect there, even after a later one.
package clerkapi

import (
	"context"
	"encoding/json"
	"net/http"
	"regexp"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/user"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/clerkuser"
	"github.com/nepfy/clerk-stripe-sync/internal/exchange"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

const (
	provider = "clerk"
	// maxBody is well above a page of users with all that can hang on them.
	maxBody = 16 << 20
	// DefaultTimeout is how long one request may take, its answer included.
	DefaultTimeout = 15 * time.Second
)

// Call is what may be told of one request to Clerk.
type Call = exchange.Call

// Options says how to reach Clerk.
type Options struct {
	// Key is the secret key. It must not be empty.
	Key string
	// BaseURL is where Clerk's backend API is, with "/v1"; empty for the real one.
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

// Client talks to one Clerk instance. It is safe for use by many goroutines.
type Client struct {
	backend clerk.Backend
	users   *user.Client
	pool    *http.Transport
}

// New makes a client. It asks Clerk nothing yet.
func New(o Options) *Client {
	c := &Client{}
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
		url = clerk.APIURL
	}
	c.backend = clerk.NewBackend(&clerk.BackendConfig{
		HTTPClient: exchange.NewClient(&exchange.Transport{
			Provider:  provider,
			Base:      base,
			Words:     []string{"v1", "instance", "jwks", "metadata", "users"},
			UserAgent: o.UserAgent,
			Timeout:   timeout,
			MaxBody:   maxBody,
			Sound:     sound,
			Observe:   o.Observe,
		}),
		URL: clerk.String(url),
		Key: clerk.String(o.Key),
	})
	c.users = &user.Client{Backend: c.backend}
	return c
}

// Close drops the idle connections of the client's own pool.
func (c *Client) Close() {
	if c.pool != nil {
		c.pool.CloseIdleConnections()
	}
}

// User reads a user, and what stands under the key "stripe" of the user's public metadata: nil
// where there is nothing. A user who is not there is an error for which failure.IsNotFound holds;
// that alone never means that the user was deleted.
func (c *Client) User(ctx context.Context, clerkUserID string) (account.User, json.RawMessage, error) {
	const op = "read user"
	if !account.ValidUserID(clerkUserID) {
		return account.User{}, nil, badID(op)
	}
	u, err := do(ctx, op, func(ctx context.Context) (*clerk.User, error) { return c.users.Get(ctx, clerkUserID) })
	if err != nil {
		return account.User{}, nil, err
	}
	if u.ID != clerkUserID {
		return account.User{}, nil, badBody(op)
	}
	shown, err := clerkuser.Read(u)
	if err != nil {
		return account.User{}, nil, badBody(op)
	}
	return shown.User, shown.Held, nil
}

// SetStripeMetadata merges value into what stands under the key "stripe" of a user's public
// metadata; the other keys stay as they are. Clerk merges at every level and removes what is set
// to null, so that a key which value does not name stays too.
func (c *Client) SetStripeMetadata(ctx context.Context, clerkUserID string, value json.RawMessage) error {
	const op = "write user metadata"
	if !account.ValidUserID(clerkUserID) {
		return badID(op)
	}
	metadata, err := json.Marshal(map[string]json.RawMessage{clerkuser.MetadataKey: value})
	if err != nil {
		return failure.New(failure.Permanent, provider, op, "bad_metadata", nil)
	}
	u, err := do(ctx, op, func(ctx context.Context) (*clerk.User, error) {
		return c.users.UpdateMetadata(ctx, clerkUserID, &user.UpdateMetadataParams{PublicMetadata: new(json.RawMessage(metadata))})
	})
	if err != nil {
		return err
	}
	if u.ID != clerkUserID {
		return badBody(op)
	}
	return nil
}

var instanceForm = regexp.MustCompile(`^ins_[A-Za-z0-9]{1,128}$`)

// Instance answers the id of the instance that the key belongs to ("ins_...").
func (c *Client) Instance(ctx context.Context) (string, error) {
	const op = "read instance"
	type instance struct {
		clerk.APIResource
		ID string `json:"id"`
	}
	found, err := do(ctx, op, func(ctx context.Context) (*instance, error) {
		// The SDK has no method for it.
		found := &instance{}
		err := c.backend.Call(ctx, clerk.NewAPIRequest(http.MethodGet, "/instance"), found)
		return found, err
	})
	if err != nil {
		return "", err
	}
	if !instanceForm.MatchString(found.ID) {
		return "", badBody(op)
	}
	return found.ID, nil
}
