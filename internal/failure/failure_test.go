package failure_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

func TestOf(t *testing.T) {
	t.Parallel()
	permanent := failure.New(failure.Permanent, "stripe", "read customer", "parameter_invalid", nil)
	tests := []struct {
		name string
		err  error
		want failure.Class
	}{
		{"nil has no class", nil, ""},
		{"what nobody classified is transient", errors.New("boom"), failure.Transient},
		{"as it is", permanent, failure.Permanent},
		{"wrapped", fmt.Errorf("syncing: %w", permanent), failure.Permanent},
		{"joined", errors.Join(errors.New("other"), permanent), failure.Permanent},
		{"a bare context error", context.Canceled, failure.Transient},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := failure.Of(test.err); got != test.want {
				t.Errorf("Of(%v) = %q, want %q", test.err, got, test.want)
			}
		})
	}
}

func TestIsNotFound(t *testing.T) {
	t.Parallel()
	bare404 := failure.New(failure.Operator, "clerk", "read user", "http_404", nil)
	bare404.Status = 404
	stated := failure.New(failure.Permanent, "clerk", "read user", "resource_not_found", nil)
	stated.Status = 404
	tests := []struct {
		name string
		err  error
		want bool
	}{
		{"our own", failure.NotFound("postgres", "read user"), true},
		{"wrapped", fmt.Errorf("syncing: %w", failure.NotFound("stripe", "read customer")), true},
		{"the provider's 404", stated, true},
		{"a 404 of something in between", bare404, false},
		{"another permanent one", failure.New(failure.Permanent, "stripe", "x", "parameter_invalid", nil), false},
		{"nil", nil, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := failure.IsNotFound(test.err); got != test.want {
				t.Errorf("IsNotFound(%v) = %v, want %v", test.err, got, test.want)
			}
		})
	}
}

func TestErrorKeepsForeignTextOut(t *testing.T) {
	t.Parallel()
	secret := errors.New("no such customer: ada@example.com pi_1_secret_2")
	err := failure.New(failure.Permanent, "stripe", "read customer", "Text with spaces, ada@example.com", secret)
	err.Status, err.RequestID = 400, "req_1"
	want := "stripe: read customer: unknown (permanent, HTTP 400, request req_1)"
	if got := err.Error(); got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
	if printed := fmt.Sprintf("%+v %#v", err, err); strings.Contains(printed, "ada@") {
		t.Errorf("printed in full it shows %q", printed)
	}
	if errors.Is(err, secret) {
		t.Error("the cause is still in the chain")
	}
}

func TestUnwrapShowsTheEndOfAContextOnly(t *testing.T) {
	t.Parallel()
	for _, end := range []error{context.Canceled, context.DeadlineExceeded} {
		err := failure.New(failure.Transient, "stripe", "x", "timeout", fmt.Errorf("Get https://example.com: %w", end))
		if !errors.Is(err, end) {
			t.Errorf("errors.Is(%v, %v) = false", err, end)
		}
		if strings.Contains(fmt.Sprintf("%#v", err), "example.com") {
			t.Errorf("%#v holds the address", err)
		}
	}
}

func TestDetails(t *testing.T) {
	t.Parallel()
	err := failure.New(failure.Throttled, "clerk", "read user", "http_429", nil)
	err.RetryAfter = 3 * time.Second
	wrapped := fmt.Errorf("publishing: %w", err)
	if got := failure.RetryAfterOf(wrapped); got != 3*time.Second {
		t.Errorf("RetryAfterOf = %v", got)
	}
	if got := failure.CodeOf(wrapped); got != "http_429" {
		t.Errorf("CodeOf = %q", got)
	}
	other := errors.New("other")
	if failure.RetryAfterOf(other) != 0 || failure.CodeOf(other) != "" {
		t.Error("an unclassified error has details")
	}
}
