package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
)

// autosave is how often a changed state is written.
const autosave = time.Second

// keeper keeps the state of a sandbox in a file. Without a file it does nothing.
type keeper struct {
	file    string
	sandbox *Sandbox
	changed atomic.Bool
	end     context.CancelFunc
	saving  sync.WaitGroup
}

// kept is what the file holds: both providers as they save themselves, and the webhooks that nobody
// has taken yet, which a provider would go on delivering.
type kept struct {
	Clerk         json.RawMessage `json:"clerk"`
	Stripe        json.RawMessage `json:"stripe"`
	ClerkPending  []keptMessage   `json:"clerk_pending"`
	StripePending []keptMessage   `json:"stripe_pending"`
}

type keptMessage struct {
	ID   string `json:"id"`
	Body []byte `json:"body"` // in base64, since the bytes are what is signed
}

func newKeeper(file string, s *Sandbox) *keeper {
	return &keeper{file: file, sandbox: s, end: func() {}}
}

// touch notes that the state has changed.
func (k *keeper) touch() { k.changed.Store(true) }

// noticing notes a change after each request that may have made one.
func (k *keeper) noticing(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			defer k.touch()
		}
		h.ServeHTTP(w, r)
	})
}

// load reads the file into the sandbox. A file that does not exist is a first start.
func (k *keeper) load() error {
	if k.file == "" {
		return nil
	}
	b, err := os.ReadFile(k.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read sandbox state: %w", err)
	}
	var st kept
	if err := json.Unmarshal(b, &st); err != nil {
		return fmt.Errorf("read sandbox state in %s: %w", k.file, err)
	}
	s := k.sandbox
	if err := s.Clerk.Load(bytes.NewReader(st.Clerk)); err != nil {
		return fmt.Errorf("read sandbox state in %s: %w", k.file, err)
	}
	if err := s.Stripe.Load(bytes.NewReader(st.Stripe)); err != nil {
		return fmt.Errorf("read sandbox state in %s: %w", k.file, err)
	}
	for _, m := range st.ClerkPending {
		s.ClerkWebhooks.Send(delivery.Message{ID: m.ID, Body: m.Body})
	}
	for _, m := range st.StripePending {
		s.StripeWebhooks.Send(delivery.Message{ID: m.ID, Body: m.Body})
	}
	return nil
}

// start saves from now on whenever something has changed, until stop; ctx gives values, not its
// end.
func (k *keeper) start(ctx context.Context) {
	if k.file == "" {
		return
	}
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	k.end = end
	k.saving.Go(func() {
		tick := time.NewTicker(autosave)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			if k.changed.Swap(false) {
				if err := k.save(context.WithoutCancel(ctx)); err != nil {
					k.sandbox.log.Error("sandbox state not saved", "error", err)
				}
			}
		}
	})
}

// stop saves a last time, whether or not ctx has ended: the data is worth the moment.
func (k *keeper) stop(ctx context.Context) error {
	k.end()
	k.saving.Wait()
	if k.file == "" {
		return nil
	}
	return k.save(context.WithoutCancel(ctx))
}

// save writes the file anew, by way of another, so that it is whole at every moment.
func (k *keeper) save(ctx context.Context) error {
	s := k.sandbox
	var clerk, stripe bytes.Buffer
	if err := errors.Join(s.Clerk.Save(&clerk), s.Stripe.Save(&stripe)); err != nil {
		return err
	}
	// What is pending comes last, and after every event has reached its sender: so the webhook of each
	// change that the file holds was taken, or is in the file too.
	ctx, cancel := context.WithTimeout(ctx, autosave)
	defer cancel()
	if err := errors.Join(s.Clerk.Settled(ctx), s.Stripe.Settled(ctx)); err != nil {
		return fmt.Errorf("save sandbox state: %w", err)
	}
	st := kept{Clerk: clerk.Bytes(), Stripe: stripe.Bytes(),
		ClerkPending: keepMessages(s.ClerkWebhooks.Pending()), StripePending: keepMessages(s.StripeWebhooks.Pending())}
	b, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("encode sandbox state: %w", err)
	}
	next := k.file + ".next"
	if err := os.MkdirAll(filepath.Dir(k.file), 0o755); err != nil {
		return fmt.Errorf("save sandbox state: %w", err)
	}
	if err := os.WriteFile(next, b, 0o600); err != nil {
		return fmt.Errorf("save sandbox state: %w", err)
	}
	if err := os.Rename(next, k.file); err != nil {
		return fmt.Errorf("save sandbox state: %w", err)
	}
	return nil
}

func keepMessages(ms []delivery.Message) (out []keptMessage) {
	for _, m := range ms {
		out = append(out, keptMessage{ID: m.ID, Body: m.Body})
	}
	return out
}
