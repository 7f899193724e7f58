package refusals_test

import (
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
)

// with is a copy of headers with one replaced.
func with(h http.Header, name, value string) http.Header {
	h = h.Clone()
	h.Set(name, value)
	return h
}

// unbranded are Svix's headers under the names that the library understands too.
func unbranded(h http.Header) http.Header {
	renamed := http.Header{}
	for name, values := range h {
		renamed[strings.Replace(name, "Svix-", "Webhook-", 1)] = values
	}
	return renamed
}

func unix(at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }

// counted is a body of blanks that counts what was read of it.
type counted struct {
	left int64
	read atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), c.left)
	for i := range n {
		p[i] = ' '
	}
	c.left -= n
	c.read.Add(n)
	return int(n), nil
}

// clerksimNobody is a person who told nothing about themselves.
func clerksimNobody() clerksim.UserSpec { return clerksim.UserSpec{PrimaryEmail: -1} }

// attempted answers nil once the last attempt of Clerk's to deliver something ended with a status.
func (w *world) attempted(status int) error {
	log := w.Sandbox.ClerkWebhooks.Log()
	if len(log) == 0 || log[len(log)-1].Status != status {
		return fmt.Errorf("attempts so far: %v", log)
	}
	return nil
}

// completed answers nil once all events of a type are completed, of which there are some.
func (w *world) completed(source, kind string) error {
	all := w.Count(`SELECT count(*) FROM webhook_events WHERE source = $1 AND type = $2`, source, kind)
	done := w.Count(`SELECT count(*) FROM webhook_events WHERE source = $1 AND type = $2 AND status = 'completed'`, source, kind)
	if all == 0 || done < all {
		return fmt.Errorf("%d of %d are", done, all)
	}
	return nil
}

func stringsOf(bodies []json.RawMessage) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, b := range bodies {
			if !yield(string(b)) {
				return
			}
		}
	}
}

// same compares what two readings of metadata hold.
func same(a, b map[string]any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}
