package api_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"github.com/nepfy/clerk-stripe-sync/internal/httpapi"
)

// description checks answers against the API's description.
type description struct {
	mu        sync.Mutex // the validator builds its schemas as it needs them
	validator validator.Validator
}

// described is the description, read once for all tests.
var described = sync.OnceValues(func() (*description, error) {
	document, err := libopenapi.NewDocument(httpapi.Description())
	if err != nil {
		return nil, err
	}
	v, faults := validator.NewValidator(document)
	if len(faults) > 0 {
		return nil, faults[0]
	}
	return &description{validator: v}, nil
})

// undescribed tells in what an answer is not as the description says.
func (d *description) undescribed(request *http.Request, answer *http.Response, body []byte) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	answer.Body = io.NopCloser(bytes.NewReader(body))
	_, faults := d.validator.ValidateHttpResponse(request, answer)
	var found []string
	for _, f := range faults {
		text := f.Message + ": " + f.Reason
		for _, s := range f.SchemaValidationErrors {
			text += "; " + s.Reason
		}
		found = append(found, text)
	}
	return found
}

// The description is a valid OpenAPI document, and is served.
func TestDescriptionIsValid(t *testing.T) {
	t.Parallel()
	d, err := described()
	if err != nil {
		t.Fatal(err)
	}
	if valid, faults := d.validator.ValidateDocument(); !valid {
		for _, f := range faults {
			t.Error(f.Message, f.Reason)
		}
	}
	if !strings.HasPrefix(string(httpapi.Description()), "openapi: 3.1") {
		t.Error("the description is not of OpenAPI 3.1")
	}
}
