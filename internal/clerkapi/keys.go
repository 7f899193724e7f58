package clerkapi

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/jwks"
	"golang.org/x/sync/singleflight"

	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

// SigningKeys reads the public keys with which the instance's session tokens are signed.
func (c *Client) SigningKeys(ctx context.Context) ([]*clerk.JSONWebKey, error) {
	const op = "read signing keys"
	client := jwks.Client{Backend: c.backend}
	set, err := do(ctx, op, func(ctx context.Context) (*clerk.JSONWebKeySet, error) { return client.Get(ctx, &jwks.GetParams{}) })
	if err != nil {
		return nil, err
	}
	if len(set.Keys) == 0 {
		return nil, badBody(op)
	}
	return set.Keys, nil
}

// KeyCache keeps the issuer's keys. One fetch is in flight at a time and no two are closer together
// than keysPause, so that tokens with made-up key ids cost nobody anything; keys that are known go
// on being good while Clerk cannot be reached.
type KeyCache struct {
	fetch  func(context.Context) ([]*clerk.JSONWebKey, error)
	now    func() time.Time
	logger *slog.Logger
	flight singleflight.Group

	mu      sync.Mutex
	keys    map[string]*clerk.JSONWebKey
	fetched time.Time // when the keys were fetched
	tried   time.Time // when somebody last tried
	failure error     // what came of it
}

const (
	// keysLife is after how long the keys are fetched anew, so that one that was withdrawn stops
	// being accepted.
	keysLife = time.Hour
	// keysPause is the least time between two fetches.
	keysPause = 10 * time.Second
	// keysTimeout bounds one fetch. Whoever asked may be gone before; others wait for the same one.
	keysTimeout = 10 * time.Second
)

// NewKeyCache makes a cache that has fetched nothing yet.
func NewKeyCache(fetch func(context.Context) ([]*clerk.JSONWebKey, error), logger *slog.Logger) *KeyCache {
	return &KeyCache{fetch: fetch, now: time.Now, logger: logger}
}

// Key implements [Keys].
func (c *KeyCache) Key(ctx context.Context, keyID string) (*clerk.JSONWebKey, error) {
	if keyID == "" {
		return nil, &TokenError{TokenKeyUnknown}
	}
	key, fresh, mayFetch := c.look(keyID)
	switch {
	case key != nil && fresh, key != nil && !mayFetch:
		return key, nil
	case mayFetch:
		err := c.refresh(ctx)
		switch {
		case err == nil:
			key, _, _ = c.look(keyID)
		case key == nil:
			return nil, err
		}
	}
	if key == nil {
		if err := c.lastFailure(); err != nil {
			return nil, err // whether there is such a key is not known
		}
		return nil, &TokenError{TokenKeyUnknown}
	}
	return key, nil
}

func (c *KeyCache) look(keyID string) (key *clerk.JSONWebKey, fresh, mayFetch bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keys[keyID], c.now().Sub(c.fetched) < keysLife, c.now().Sub(c.tried) >= keysPause
}

func (c *KeyCache) lastFailure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure
}

// refresh fetches the keys, or waits for whoever does.
func (c *KeyCache) refresh(ctx context.Context) error {
	done := c.flight.DoChan("keys", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keysTimeout)
		defer cancel()
		keys, err := c.fetch(ctx)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.tried, c.failure = c.now(), err
		if err != nil {
			c.logger.WarnContext(ctx, "the keys of session tokens could not be read", "operation", "read_signing_keys",
				"error_class", string(failure.Of(err)), "error", err.Error())
			return nil, err
		}
		c.keys, c.fetched = make(map[string]*clerk.JSONWebKey, len(keys)), c.now()
		for _, key := range keys {
			if key != nil && key.KeyID != "" {
				c.keys[key.KeyID] = key
			}
		}
		return nil, nil
	})
	select {
	case r := <-done:
		return r.Err
	case <-ctx.Done():
		return failure.New(failure.Transient, provider, "read signing keys", "timeout", ctx.Err())
	}
}
