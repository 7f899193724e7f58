// Package client is a typed client of the API. client.gen.go is made from the API's own description
// (make generate); this file adds what a description does not say: who asks, and what an answer that
// is not a success means.
package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

//go:generate ../bin/oapi-codegen -config oapi-codegen.yaml ../internal/httpapi/openapi.yaml

// Token answers a session token. Clerk's live for a minute, so it is asked for with each request.
type Token func(ctx context.Context) (string, error)

// Connect makes a client of the API at an address such as https://api.example.com. httpClient may be nil.
func Connect(address string, token Token, httpClient *http.Client) (*ClientWithResponses, error) {
	options := []ClientOption{WithRequestEditorFn(func(ctx context.Context, r *http.Request) error {
		value, err := token(ctx)
		if err != nil {
			return fmt.Errorf("getting a session token: %w", err)
		}
		r.Header.Set("Authorization", "Bearer "+value)
		return nil
	})}
	if httpClient != nil {
		options = append(options, WithHTTPClient(httpClient))
	}
	c, err := NewClientWithResponses(address, options...)
	if err != nil {
		return nil, fmt.Errorf("%q is not an address: %w", address, err)
	}
	return c, nil
}

// Failure is an answer that is not a success.
type Failure struct {
	Problem
}

// Error implements error.
func (f *Failure) Error() string {
	detail := f.Title
	if f.Detail != nil {
		detail = *f.Detail
	}
	return fmt.Sprintf("%d %s: %s", f.Status, f.Code, detail)
}

// Answer is what all typed answers have in common.
type Answer interface {
	StatusCode() int
	GetBody() []byte
}

// Check answers the failure that an answer tells, or nil: 200 is done, 202 is accepted and not done yet.
func Check(a Answer) error {
	if a.StatusCode() == http.StatusOK || a.StatusCode() == http.StatusAccepted {
		return nil
	}
	f := &Failure{}
	if err := json.Unmarshal(a.GetBody(), &f.Problem); err != nil || f.Code == "" {
		f.Problem = Problem{Title: http.StatusText(a.StatusCode()), Status: int32(a.StatusCode()), Code: "unknown"}
	}
	return f
}
