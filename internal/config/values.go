package config

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// redacted stands wherever a secret would be printed.
const redacted = "[redacted]"

// Secret is text that must not be seen. However it is printed, logged or encoded it shows only that
// it is there; Reveal is the one way to its value.
type Secret string

// Reveal returns the secret itself, for the library that has to have it.
func (s Secret) Reveal() string { return string(s) }

// String tells whether there is a secret, and nothing about it.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// Format covers every verb of package fmt, %#v, %x and %q among them.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// LogValue covers package slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText covers the encodings of the standard library.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Interval is the time between two runs of what is done regularly; 0 (the variable says `off`):
// never.
type Interval time.Duration

// off switches off what a variable sets.
const off = "off"

func parseInterval(value string) (any, error) {
	if strings.EqualFold(value, off) {
		return Interval(0), nil
	}
	d, err := time.ParseDuration(value)
	if err == nil && d <= 0 {
		err = errors.New("not more than zero")
	}
	return Interval(d), err
}

// LogFormat is how log lines are written.
type LogFormat string

// The log formats.
const (
	FormatJSON LogFormat = "json"
	FormatText LogFormat = "text"
)

// debugNamespace is the name of this project in the DEBUG variable, which it may share with others.
const debugNamespace = "clerk-stripe-sync"

// DebugScopes returns the scopes whose debug lines DEBUG asks for, `*` for all of them. DEBUG is a
// list, separated by commas or spaces, of clerk-stripe-sync:* and clerk-stripe-sync:<scope>; names
// of other projects are passed over.
func (l Logging) DebugScopes() []string {
	var scopes []string
	for _, name := range debugNames(l.Debug) {
		switch namespace, scope, _ := strings.Cut(name, ":"); {
		case name == "*", name == debugNamespace:
			scopes = append(scopes, "*")
		case namespace == debugNamespace:
			scopes = append(scopes, scope)
		}
	}
	return scopes
}

// debugNames splits the DEBUG variable.
func debugNames(value string) []string {
	return strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })
}

// isLive reports whether a provider's key belongs to its live mode. Both providers write the mode
// between the first and the second underscore.
func isLive(key Secret) bool {
	parts := strings.SplitN(key.Reveal(), "_", 3)
	return len(parts) == 3 && parts[1] == "live"
}
