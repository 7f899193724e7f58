package httpapi

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"time"
)

// MaxBody is the most bytes of a request's body that are read: 1 MiB, many times the largest event.
const MaxBody = 1 << 20

// Codes of the problems with reading a body.
const (
	codeBodyTooLarge   = "body_too_large"
	codeBodyTimeout    = "body_timeout"
	codeBodyIncomplete = "body_incomplete"
)

// firstRead bounds what is set aside for a body before any of it has arrived: what a caller
// announces costs the caller nothing.
const firstRead = 16 << 10

// readBody reads the whole body into an empty buffer, once. The code says what was wrong, and is
// empty if nothing was.
func readBody(w http.ResponseWriter, r *http.Request, buffer *bytes.Buffer) (code string) {
	if r.ContentLength > MaxBody {
		return codeBodyTooLarge
	}
	buffer.Grow(int(min(max(r.ContentLength, 0), firstRead)) + bytes.MinRead)
	switch _, err := buffer.ReadFrom(http.MaxBytesReader(w, r.Body, MaxBody)); {
	case err == nil:
	case isTooLarge(err):
		return codeBodyTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		// The rest may still arrive, and must not be taken for the next request.
		w.Header().Set("Connection", "close")
		return codeBodyTimeout
	default:
		return codeBodyIncomplete
	}
	// The deadline was for the body. Left in place, the server would take it for the caller's leaving
	// while the handler is at work.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return ""
}

func isTooLarge(err error) bool {
	_, ok := errors.AsType[*http.MaxBytesError](err)
	return ok
}
