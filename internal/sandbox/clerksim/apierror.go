package clerksim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

const maxRequestBody = 1 << 20 // bytes

// apiError is an error as the Backend API answers it.
type apiError struct {
	status     int
	code       string
	message    string
	long       string // "" repeats the message
	param      string // the field at fault, if one is
	retryAfter int    // seconds; 0 is none
}

func (e *apiError) Error() string { return fmt.Sprintf("clerk %d %s: %s", e.status, e.code, e.message) }

func notFound(long string) *apiError {
	return &apiError{status: http.StatusNotFound, code: "resource_not_found", message: "not found", long: long}
}

func invalid(code, param, message string) *apiError {
	return &apiError{status: http.StatusUnprocessableEntity, code: code, message: message, param: param}
}

// ErrorBody renders an error of the Backend API that fits the status, for faults that answer in its
// place.
func ErrorBody(status int) (contentType string, body []byte) {
	code, message := "internal_clerk_error", "There was an internal error on our servers. We've been notified and are working on fixing it."
	switch status {
	case http.StatusTooManyRequests:
		code, message = "too_many_requests", "Too many requests. Please try again in a bit."
	case http.StatusUnauthorized:
		code, message = "clerk_key_invalid", "The provided Clerk Secret Key is invalid."
	case http.StatusForbidden:
		code, message = "authorization_invalid", "You are not authorized to perform this request"
	case http.StatusNotFound:
		code, message = "resource_not_found", "not found"
	case http.StatusUnprocessableEntity, http.StatusBadRequest:
		code, message = "form_param_invalid", "is invalid"
	}
	return "application/json", (&apiError{status: status, code: code, message: message}).body("")
}

func (e *apiError) body(trace string) []byte {
	entry := map[string]any{"code": e.code, "message": e.message, "long_message": e.long}
	if e.long == "" {
		entry["long_message"] = e.message
	}
	if e.param != "" {
		entry["meta"] = map[string]any{"param_name": e.param}
	}
	answer := map[string]any{"errors": []any{entry}}
	if trace != "" {
		answer["clerk_trace_id"] = trace
	}
	b, err := json.Marshal(answer)
	if err != nil {
		panic(err) // maps of strings only
	}
	return b
}

// fail answers an error. What is not an *apiError is a fault of this package.
func (s *Server) fail(w http.ResponseWriter, err error) {
	var e *apiError
	if !errors.As(err, &e) {
		e = &apiError{status: http.StatusInternalServerError, code: "internal_clerk_error", message: err.Error()}
	}
	trace := s.trace()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Clerk-Trace-Id", trace)
	if e.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(e.retryAfter))
	}
	w.WriteHeader(e.status)
	_, _ = w.Write(e.body(trace)) // a client that has gone
}

// buffer reads the request's body into memory.
func buffer(r *http.Request) error {
	b, err := io.ReadAll(io.LimitReader(r.Body, maxRequestBody+1))
	if err != nil {
		return &apiError{status: http.StatusBadRequest, code: "request_body_invalid", message: "Request body invalid"}
	}
	if len(b) > maxRequestBody {
		return &apiError{status: http.StatusRequestEntityTooLarge, code: "request_body_too_large", message: "Request body too large"}
	}
	r.Body = io.NopCloser(bytes.NewReader(b))
	return nil
}

// decode reads a JSON body into v and refuses fields that v does not have, as Clerk does.
func decode(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	d.UseNumber()
	if err := d.Decode(v); err != nil && !errors.Is(err, io.EOF) {
		return &apiError{status: http.StatusUnprocessableEntity, code: "request_body_invalid", message: "Request body invalid",
			long: "The request body is invalid: " + err.Error()}
	}
	return nil
}
