package stripesim

import (
	"maps"
	"net/http"
	"time"
)

// keptAnswer is what the account remembers of a request that carried an idempotency key.
type keptAnswer struct {
	Print   string // method, path and parameters
	Request string
	At      int64
	Done    bool
	Answer  kept
}

// keyLife is how long Stripe remembers a key, in seconds of its clock, unless SetKeyLife says
// otherwise.
const keyLife = 24 * 60 * 60

// SetKeyLife has keys remembered for so long by Stripe's clock: where that is moved on faster than
// the clocks of those who ask, a day of theirs is more.
func (s *Server) SetKeyLife(d time.Duration) {
	s.view(func() { s.keyLife = int64(d.Seconds()) })
}

// replay answers a request that was seen before: with the answer it got then, or with why it gets
// none.
func (s *Server) replay(key, fingerprint string) (kept, bool) {
	if len(key) > 255 {
		return badValue("", "", "Idempotency keys must be at most 255 characters").answer(""), true
	}
	old := s.keys[key]
	if key == "" || old == nil {
		return kept{}, false
	}
	if old.Done && old.At+s.keyLife < s.unix() {
		delete(s.keys, key)
		return kept{}, false
	}
	switch {
	case old.Print != fingerprint:
		return (&apiError{status: http.StatusBadRequest, typ: "idempotency_error", early: true,
			message: "Keys for idempotent requests can only be used with the same parameters they were first used with. Try using a key other than '" +
				key + "' if you meant to execute a different request."}).answer(""), true
	case !old.Done:
		return (&apiError{status: http.StatusConflict, typ: "idempotency_error", code: "idempotency_key_in_use", early: true,
			message: "There is currently another in-progress request using this Idempotent Key (that probably means you submitted twice, and the other request is still going through): " +
				key + "."}).answer(""), true
	}
	out := old.Answer
	out.origin = old.Request
	return out, true
}

func (s *Server) begin(key, fingerprint, requestID string) {
	if len(s.keys)%1024 == 1023 {
		maps.DeleteFunc(s.keys, func(_ string, k *keptAnswer) bool { return k.Done && k.At+s.keyLife < s.unix() })
	}
	if key != "" {
		s.keys[key] = &keptAnswer{Print: fingerprint, Request: requestID, At: s.unix()}
	}
}

func (s *Server) abandon(key string) {
	if key != "" {
		delete(s.keys, key)
	}
}

// finish keeps the answer, be it 200 or 500; a request that was refused before it was executed
// frees its key.
func (s *Server) finish(key string, out kept) {
	if key == "" {
		return
	}
	if out.early {
		delete(s.keys, key)
		return
	}
	s.keys[key].Answer, s.keys[key].Done = out, true
}
