// Package failure is the one vocabulary in which everything that talks to the outside says what
// went wrong: Stripe's client, Clerk's client and the database.
//
// A failure says who failed, at what, and above all what to do about it: its class. It never
// carries a provider's text, since such text holds names, email addresses and secrets, and
// failures end up in logs and in workflow histories.
package failure

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Class says what is to be done about a failure.
type Class string

// The classes.
const (
	// Transient goes away by itself: try again, with backoff, for as long as it takes.
	Transient Class = "transient"
	// Throttled goes away after RetryAfter: we asked too often.
	Throttled Class = "throttled"
	// Operator needs a person: a wrong key, a missing permission, a wrong address. It is tried
	// again, loudly, so that work resumes by itself once it is mended.
	Operator Class = "operator"
	// Permanent never gets better by repeating: somebody has to decide what follows from it.
	Permanent Class = "permanent"
)

// codeMissing is the code of what the provider says it does not have.
const codeMissing = "resource_missing"

// Error is a failure that has been classified. All of its text is safe to log.
type Error struct {
	Class Class
	// Provider is who failed: "stripe", "clerk", "postgres".
	Provider string
	// Op is what was attempted, in our words: "read customer".
	Op string
	// Code is short and stable: the provider's own code ("resource_missing") where it gave one,
	// else one of ours ("http_502", "timeout", "bad_body").
	Code string
	// Status is the HTTP status, zero where no answer came.
	Status int
	// RetryAfter is how long the provider asks us to wait, zero where it does not say.
	RetryAfter time.Duration
	// RequestID is the provider's name for the request, for its support and its own logs.
	RequestID string
	// Stored is set where the provider gave this answer before and repeats it for as long as it keeps
	// it, whatever is true by now.
	Stored bool
	// Named is the id that the provider says it does not have, "" where it names none.
	Named string

	cause error
}

// New makes a failure. cause may be nil; of it only a context's end is kept, so that errors.Is
// finds context.Canceled and context.DeadlineExceeded. Its text is dropped.
func New(class Class, provider, op, code string, cause error) *Error {
	return &Error{Class: class, Provider: provider, Op: op, Code: Code(code), cause: contextEnd(cause)}
}

// NotFound is the permanent failure of what the provider says it does not have.
func NotFound(provider, op string) *Error {
	return New(Permanent, provider, op, codeMissing, nil)
}

// NotShownYet is the transient failure of what the provider says it does not have, though it has
// said a moment before that it has it: the copy that answers is behind.
func NotShownYet(provider, op string) *Error {
	return New(Transient, provider, op, "not_shown_yet", nil)
}

// Error names provider, operation, code, class, status and request, never a provider's text.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s: %s (%s", e.Provider, e.Op, e.Code, e.Class)
	if e.Status != 0 {
		fmt.Fprintf(&b, ", HTTP %d", e.Status)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, ", request %s", e.RequestID)
	}
	b.WriteString(")")
	return b.String()
}

// Unwrap answers context.Canceled or context.DeadlineExceeded if the caller's own context ended
// the work, else nil.
func (e *Error) Unwrap() error { return e.cause }

// Join is the failure of several things that were done beside each other, each whether or not the
// others went well; nil errors are left out, and nil is answered where there is no other. It is as
// good as the best of them: what can be tried again is, see [Leading].
func Join(errs ...error) error {
	var failed []error
	for _, err := range errs {
		if err == nil {
			continue
		}
		if _, ok := Leading(err); !ok {
			// Beside what was classified it counts as what it is alone.
			err = New(Of(err), "worker", "do one of several things", "unexpected", err)
		}
		failed = append(failed, err)
	}
	if len(failed) == 1 {
		return failed[0]
	}
	return errors.Join(failed...)
}

// Leading answers the failure that decides what is to be done about an error. Where several were
// joined that is the one which a person has to mend, since nobody else does; else one that goes
// away by itself; and one for good only if all are. Of the last, what the provider does not have
// comes after all else.
func Leading(err error) (*Error, bool) {
	var leading *Error
	each(err, func(e *Error) {
		if leading == nil || precedence(e) < precedence(leading) {
			leading = e
		}
	})
	return leading, leading != nil
}

func precedence(e *Error) int {
	switch {
	case e.Class == Operator:
		return 0
	case e.Class == Throttled:
		return 1
	case e.Class != Permanent:
		return 2
	case !e.missing():
		return 3
	default:
		return 4
	}
}

// each visits the failures in an error.
func each(err error, visit func(*Error)) {
	switch err := err.(type) { //nolint:errorlint // this is what walks the tree
	case nil:
	case *Error:
		visit(err)
	case interface{ Unwrap() []error }:
		for _, one := range err.Unwrap() {
			each(one, visit)
		}
	case interface{ Unwrap() error }:
		each(err.Unwrap(), visit)
	}
}

// Of answers the class of an error. What nobody classified is Transient: trying again is the
// answer that does least harm to what we do not understand. Of(nil) is "".
func Of(err error) Class {
	if err == nil {
		return ""
	}
	if e, ok := Leading(err); ok {
		return e.Class
	}
	return Transient
}

// IsNotFound tells whether the provider itself said that it does not have what was asked for, and
// where several things failed, any of them. A bare 404, as a proxy or a wrong address gives, is not
// that.
func IsNotFound(err error) bool {
	e, ok := Leading(err)
	return ok && e.missing()
}

func (e *Error) missing() bool {
	return e.Class == Permanent && (e.Status == 404 || e.Code == codeMissing)
}

// IsMissing tells whether the provider itself said, to a question for the object of this id, that
// it does not have it. An answer that names another object says nothing about this one.
func IsMissing(err error, id string) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && IsNotFound(err) && e.Code == codeMissing && (e.Named == "" || e.Named == id)
}

// CodeOf answers the code of an error, "" where there is none.
func CodeOf(err error) string {
	if e, ok := Leading(err); ok {
		return e.Code
	}
	return ""
}

// ProviderOf answers who failed, "" where that is not known.
func ProviderOf(err error) string {
	if e, ok := Leading(err); ok {
		return e.Provider
	}
	return ""
}

// RetryAfterOf answers how long the provider asked us to wait, zero where it did not say; of
// several waits it is the longest.
func RetryAfterOf(err error) (wait time.Duration) {
	each(err, func(e *Error) { wait = max(wait, e.RetryAfter) })
	return wait
}

var codeForm = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// Code answers s if it has the form of a code, else "unknown". It keeps a text that a provider
// puts where a code belongs out of our logs.
func Code(s string) string {
	if codeForm.MatchString(s) {
		return s
	}
	return "unknown"
}

func contextEnd(err error) error {
	for _, end := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, end) {
			return end
		}
	}
	return nil
}
