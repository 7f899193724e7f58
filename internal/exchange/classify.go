package exchange

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

// maxRetryAfter bounds what we believe of a Retry-After: no provider means longer, and a
// mistaken date must not put work to sleep for a year.
const maxRetryAfter = time.Hour

// Statement is what the provider itself said of a failure, in its own error document.
type Statement struct {
	// Given is set if the body was the provider's error document at all. If it was not, the
	// answer comes from something in between, or from a wrong address.
	Given bool
	// Code is the provider's code for it.
	Code string
	// Missing is set if the provider says that it does not have what was asked for.
	Missing bool
	// Named is the id of what is missing, "" where the provider does not name it.
	Named string
}

// Failure classifies a call that did not succeed, by what its record holds. ctx is the caller's
// context: its own end is told apart from a timeout of ours.
func (r *Record) Failure(ctx context.Context, provider, op string, said Statement) *failure.Error {
	if r.Err != nil || ctx.Err() != nil {
		code := networkCode(r.Err)
		if ctx.Err() != nil {
			code = "context_ended"
		}
		e := failure.New(failure.Transient, provider, op, code, ctx.Err())
		e.Status = r.Status
		return e
	}
	e := failure.New(r.class(said), provider, op, r.code(said), nil)
	e.Status = r.Status
	e.RetryAfter = retryAfter(r.Header, time.Now())
	return e
}

func (r *Record) class(said Statement) failure.Class {
	switch {
	case r.Status == 0:
		// The SDK refused to send it; it will refuse again.
		return failure.Permanent
	case r.Status < 400:
		return failure.Transient
	case r.Status == http.StatusUnauthorized, r.Status == http.StatusForbidden:
		return failure.Operator
	case r.Status == http.StatusTooManyRequests:
		return failure.Throttled
	case r.Status >= 500, r.Status == http.StatusRequestTimeout, r.Status == http.StatusConflict:
		return failure.Transient
	case !said.Given, r.Status == http.StatusNotFound && !said.Missing:
		// Not the provider speaking, or a route that it does not know: the address is wrong, or
		// something stands in between. Nothing follows from it for the object asked for.
		return failure.Operator
	default:
		return failure.Permanent
	}
}

func (r *Record) code(said Statement) string {
	switch {
	case r.Status == 0:
		return "not_sent"
	case r.Status < 300:
		return "bad_body"
	case said.Code != "":
		return said.Code
	default:
		return fmt.Sprintf("http_%d", r.Status)
	}
}

// networkCode names why there was no answer, without the addresses and ids in the error's text.
func networkCode(err error) string {
	var timeout net.Error
	var dns *net.DNSError
	switch {
	case errors.Is(err, ErrTooLarge):
		return "too_large"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.As(err, &dns):
		return "name_not_resolved"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection_refused"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection_lost"
	default:
		return "no_answer"
	}
}

// retryAfter reads the header in both of its forms: seconds, and a date.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseFloat(value, 64); err == nil {
		// Compared before it is converted: a huge number would overflow, and NaN compares to nothing.
		switch {
		case seconds >= maxRetryAfter.Seconds():
			return maxRetryAfter
		case seconds > 0:
			return time.Duration(seconds * float64(time.Second))
		default:
			return 0
		}
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}

var requestIDForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// RequestID answers the named header if it has the form of a request id, else "".
func (r *Record) RequestID(header string) string {
	if id := r.Header.Get(header); requestIDForm.MatchString(id) {
		return id
	}
	return ""
}
