package sandbox

import (
	"encoding/json"
	"net/http"
)

// stripeErrorBody renders an error of Stripe's that fits the status, for faults that answer in its
// place.
func stripeErrorBody(status int) (contentType string, body []byte) {
	e := map[string]string{"type": "api_error", "message": "An unexpected error occurred. If this problem persists please contact us."}
	switch status {
	case http.StatusTooManyRequests:
		e = map[string]string{"type": "invalid_request_error", "code": "rate_limit",
			"message": "Request rate limit exceeded. Please slow down and try again."}
	case http.StatusConflict:
		e = map[string]string{"type": "invalid_request_error", "code": "lock_timeout",
			"message": "This object cannot be accessed right now because another API request or Stripe process is currently accessing it."}
	case http.StatusUnauthorized:
		e = map[string]string{"type": "invalid_request_error", "message": "Invalid API Key provided."}
	case http.StatusForbidden:
		e = map[string]string{"type": "invalid_request_error", "code": "more_permissions_required", "message": "The provided key does not have the required permissions."}
	case http.StatusNotFound:
		e = map[string]string{"type": "invalid_request_error", "code": "resource_missing", "message": "No such object."}
	case http.StatusBadRequest:
		e = map[string]string{"type": "invalid_request_error", "message": "Invalid request."}
	}
	b, err := json.Marshal(map[string]any{"error": e})
	if err != nil {
		panic(err) // maps of strings only
	}
	return "application/json", b
}
