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

// Of several things that failed, what can be tried again decides, and what a person has to mend is
// heard of.
func TestJoin(t *testing.T) {
	t.Parallel()
	throttled := failure.New(failure.Throttled, "stripe", "x", "rate_limit", nil)
	throttled.RetryAfter = 7 * time.Second
	busy := failure.New(failure.Throttled, "stripe", "x", "busy", nil)
	busy.RetryAfter = 9 * time.Second
	transient := failure.New(failure.Transient, "stripe", "x", "timeout", context.DeadlineExceeded)
	operator := failure.New(failure.Operator, "stripe", "x", "http_401", nil)
	refused := failure.New(failure.Permanent, "stripe", "x", "refused", nil)
	missing := failure.NotFound("stripe", "x")
	for name, c := range map[string]struct {
		errs    []error
		class   failure.Class
		code    string
		wait    time.Duration
		missing bool
	}{
		"nothing":                             {errs: []error{nil, nil}},
		"one":                                 {errs: []error{nil, refused}, class: failure.Permanent, code: "refused"},
		"refused first, then what passes":     {errs: []error{refused, transient}, class: failure.Transient, code: "timeout"},
		"what passes first, then refused":     {errs: []error{transient, refused}, class: failure.Transient, code: "timeout"},
		"throttled twice, and the longer one": {errs: []error{refused, throttled, busy, transient}, class: failure.Throttled, code: "rate_limit", wait: 9 * time.Second},
		"what a person has to mend":           {errs: []error{transient, operator, refused}, class: failure.Operator, code: "http_401"},
		"missing, then refused":               {errs: []error{missing, refused}, class: failure.Permanent, code: "refused"},
		"all missing":                         {errs: []error{missing, missing}, class: failure.Permanent, code: "resource_missing", missing: true},
		"refused, and nobody knows":           {errs: []error{refused, errors.New("ada@example.com")}, class: failure.Transient, code: "unexpected"},
		"joined again and wrapped":            {errs: []error{fmt.Errorf("a: %w", failure.Join(refused, missing)), fmt.Errorf("b: %w", throttled)}, class: failure.Throttled, code: "rate_limit", wait: 7 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := failure.Join(c.errs...)
			if got := failure.Of(err); got != c.class {
				t.Errorf("the class is %q, want %q", got, c.class)
			}
			if got := failure.CodeOf(err); got != c.code {
				t.Errorf("the code is %q, want %q", got, c.code)
			}
			if got := failure.RetryAfterOf(err); got != c.wait {
				t.Errorf("it waits %v, want %v", got, c.wait)
			}
			if got := failure.IsNotFound(err); got != c.missing {
				t.Errorf("it is missing: %t", got)
			}
			if (err == nil) != (c.class == "") || err != nil && strings.Contains(err.Error(), "@") {
				t.Errorf("the error is %v", err)
			}
		})
	}
	if !errors.Is(failure.Join(refused, transient), context.DeadlineExceeded) {
		t.Error("the end of a context is lost")
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
