package clerkapi_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/nepfy/clerk-stripe-sync/internal/clerkapi"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

// issuer publishes keys, slowly.
type issuer struct {
	fetches atomic.Int32
	takes   time.Duration

	mu   sync.Mutex
	ids  []string
	fail error
}

func (i *issuer) publish(fail error, ids ...string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ids, i.fail = ids, fail
}

func (i *issuer) fetch(context.Context) ([]*clerk.JSONWebKey, error) {
	i.fetches.Add(1)
	time.Sleep(i.takes) // in a bubble, where time is free
	i.mu.Lock()
	defer i.mu.Unlock()
	keys := make([]*clerk.JSONWebKey, len(i.ids))
	for n, id := range i.ids {
		keys[n] = &clerk.JSONWebKey{KeyID: id}
	}
	return keys, i.fail
}

func (i *issuer) cache() *clerkapi.KeyCache {
	return clerkapi.NewKeyCache(i.fetch, slog.New(slog.DiscardHandler))
}

// is fails the test unless a key is found, is unknown, or cannot be known, after so many fetches.
func (i *issuer) is(t *testing.T, c *clerkapi.KeyCache, id, want string, fetches int32) {
	t.Helper()
	key, err := c.Key(t.Context(), id)
	got := "found"
	refused, unknown := errors.AsType[*clerkapi.TokenError](err)
	switch {
	case unknown && refused.Reason == clerkapi.TokenKeyUnknown:
		got = "unknown"
	case err != nil:
		got = "not known now"
	case key.KeyID != id:
		got = "another"
	}
	if got != want || i.fetches.Load() != fetches {
		t.Errorf("key %q is %s (%v) after %d fetches, want %s after %d", id, got, err, i.fetches.Load(), want, fetches)
	}
}

// However many ask, one fetch is in flight, and all have its answer.
func TestOneFetchForMany(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{takes: time.Second}
		i.publish(nil, "a")
		c := i.cache()
		var asking sync.WaitGroup
		for range 50 {
			asking.Go(func() { i.is(t, c, "a", "found", 1) })
		}
		asking.Wait()
	})
}

// Tokens with made-up key ids cost one fetch in ten seconds; a key that is new is found at the
// next.
func TestMadeUpKeysCostNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{}
		i.publish(nil, "a")
		c := i.cache()
		i.is(t, c, "a", "found", 1)
		for range 100 {
			i.is(t, c, "madeup", "unknown", 1)
		}
		i.is(t, c, "", "unknown", 1)
		i.publish(nil, "a", "b")
		time.Sleep(10 * time.Second)
		i.is(t, c, "b", "found", 2)
		i.is(t, c, "madeup", "unknown", 2)
		i.is(t, c, "a", "found", 2)
	})
}

// Keys are fetched anew every hour: one that was withdrawn is not accepted for longer. While Clerk
// is gone the keys that are known stay good, and of others nobody can tell.
func TestKeysAge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{}
		down := failure.New(failure.Transient, "clerk", "read signing keys", "timeout", nil)
		i.publish(down)
		c := i.cache()
		i.is(t, c, "a", "not known now", 1)
		i.is(t, c, "a", "not known now", 1) // not asked again at once
		i.publish(nil, "a", "b")
		time.Sleep(10 * time.Second)
		i.is(t, c, "a", "found", 2)
		i.publish(down)
		time.Sleep(2 * time.Hour)
		i.is(t, c, "a", "found", 3)
		i.is(t, c, "c", "not known now", 3)
		i.publish(nil, "b")
		time.Sleep(10 * time.Second)
		i.is(t, c, "a", "unknown", 4)
		i.is(t, c, "b", "found", 4)
	})
}

// Whoever waits for a fetch does not wait for longer than they have.
func TestPatienceWithAFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{takes: 5 * time.Second}
		i.publish(nil, "a")
		c := i.cache()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Key(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) || failure.Of(err) != failure.Transient {
			t.Errorf("after a second: %v", err)
		}
		i.is(t, c, "a", "found", 1) // the fetch went on
	})
}
