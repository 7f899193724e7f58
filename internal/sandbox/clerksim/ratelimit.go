package clerksim

import (
	"fmt"
	"net/http"
	"time"
)

// window is the span over which Clerk counts requests.
const window = 10 * time.Second

// limiter counts requests within fixed windows. Zero limits nothing.
type limiter struct {
	perKey, perUser int
	from            time.Time
	all             int
	writes          map[string]int // by user
}

// SetRateLimit limits requests as Clerk does, in each window of ten seconds: all requests, and the
// writes of one user. Clerk's own numbers are 1000 (100 for a development instance) and 10; zero
// switches a limit off, which is the default.
func (s *Server) SetRateLimit(requests, writesOfOneUser int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = limiter{perKey: requests, perUser: writesOfOneUser}
}

// admit counts a request, or refuses it with the seconds until the next window.
func (l *limiter) admit(r *http.Request, now time.Time) error {
	if l.perKey == 0 && l.perUser == 0 {
		return nil
	}
	if l.writes == nil || now.Sub(l.from) >= window {
		l.from, l.all, l.writes = now, 0, map[string]int{}
	}
	refusal := &apiError{status: http.StatusTooManyRequests, code: "too_many_requests", message: "Too many requests. Please try again in a bit.",
		long:       fmt.Sprintf("Too many requests within %s.", window),
		retryAfter: int((window - now.Sub(l.from) + time.Second - 1) / time.Second)}
	if l.perKey > 0 && l.all >= l.perKey {
		return refusal
	}
	id := r.PathValue("id")
	if r.Method != http.MethodGet && id != "" {
		if l.perUser > 0 && l.writes[id] >= l.perUser {
			return refusal
		}
		l.writes[id]++
	}
	l.all++
	return nil
}
