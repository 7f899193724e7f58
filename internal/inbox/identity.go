package inbox

import (
	"context"
	"sync"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// Identity remembers which accounts the database belongs to. They are set once and never
// change, so what is known is never asked again.
type Identity struct {
	read func(context.Context) (store.Identity, error)

	mu    sync.Mutex
	known store.Identity
	asked time.Time
}

// identityPause is how often what is not known yet is looked for.
const identityPause = 5 * time.Second

// NewIdentity makes an Identity that has not looked yet.
func NewIdentity(read func(context.Context) (store.Identity, error)) *Identity {
	return &Identity{read: read}
}

// Get answers what is known. What is not is empty, which compares with nothing.
func (i *Identity) Get(ctx context.Context) store.Identity {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.known.ClerkInstanceID != "" && i.known.StripeAccountID != "" || time.Since(i.asked) < identityPause {
		return i.known
	}
	i.asked = time.Now()
	if known, err := i.read(ctx); err == nil {
		i.known = known
	}
	return i.known
}
