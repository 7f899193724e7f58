package stripesim

import (
	"fmt"
	"net/http"
	"strings"
)

// apiError is an answer that is not 2xx, in Stripe's form.
type apiError struct {
	status      int
	typ         string
	code        string
	message     string
	param       string
	declineCode string
	// early marks a request that was refused before it was executed: its answer is not kept under its
	// idempotency key.
	early bool
}

func (e *apiError) Error() string { return e.message }

func (e *apiError) body(requestID string) object {
	inner := object{"type": e.typ, "message": e.message}
	if e.code != "" {
		inner["code"] = e.code
		inner["doc_url"] = "https://stripe.com/docs/error-codes/" + strings.ReplaceAll(e.code, "_", "-")
	}
	if e.param != "" {
		inner["param"] = e.param
	}
	if e.declineCode != "" {
		inner["decline_code"] = e.declineCode
	}
	if requestID != "" {
		inner["request_log_url"] = "https://dashboard.stripe.com/test/logs/" + requestID
	}
	return object{"error": inner}
}

func invalid(code, param, format string, args ...any) *apiError {
	return &apiError{status: http.StatusBadRequest, typ: "invalid_request_error", code: code, param: param,
		message: fmt.Sprintf(format, args...)}
}

func unknownParam(name string) *apiError {
	e := invalid("parameter_unknown", name, "Received unknown parameter: %s", name)
	e.early = true
	return e
}

func missingParam(name string) *apiError {
	e := invalid("parameter_missing", name, "Missing required param: %s.", name)
	e.early = true
	return e
}

func badValue(code, name, format string, args ...any) *apiError {
	e := invalid(code, name, format, args...)
	e.early = true
	return e
}

// missing is the answer for an id in the address that names nothing.
func missing(kind, id string) *apiError {
	e := invalid("resource_missing", "id", "No such %s: '%s'", kind, id)
	e.status = http.StatusNotFound
	return e
}

// missingRef is the answer for a parameter that names nothing: 400, with the parameter's name.
func missingRef(kind, id, param string) *apiError {
	return invalid("resource_missing", param, "No such %s: '%s'", kind, id)
}

func noRoute(method, path string) *apiError {
	return &apiError{status: http.StatusNotFound, typ: "invalid_request_error", early: true,
		message: fmt.Sprintf("Unrecognized request URL (%s: %s). Please see https://stripe.com/docs or we can help at https://support.stripe.com/.", method, path)}
}

func declined() *apiError {
	return &apiError{status: http.StatusPaymentRequired, typ: "card_error", code: "card_declined",
		declineCode: "generic_decline", message: "Your card was declined."}
}

func brokenInside() *apiError {
	return &apiError{status: http.StatusInternalServerError, typ: "api_error",
		message: "An unknown error occurred. We have been notified of the problem."}
}

func unauthorized(key string) *apiError {
	e := &apiError{status: http.StatusUnauthorized, typ: "invalid_request_error", early: true}
	if key == "" {
		e.message = "You did not provide an API key. You need to provide your API key in the Authorization header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY')."
		return e
	}
	e.message = "Invalid API Key provided: " + redacted(key)
	return e
}

func redacted(key string) string {
	if len(key) <= 12 {
		return strings.Repeat("*", len(key))
	}
	return key[:8] + strings.Repeat("*", len(key)-12) + key[len(key)-4:]
}
