package telemetry

import (
	"encoding"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"
)

// redacted stands for what was taken out of a log line.
const redacted = "[redacted]"

var (
	// emailText finds email addresses. The last label must be letters, or the module paths of a stack
	// (name@v1.2.3) would be taken for one.
	emailText = regexp.MustCompile(`[\w.%+-]+@(?:[\w-]+\.)+[A-Za-z]{2,}\b`)
	// loginText finds the user and password of a URL.
	loginText = regexp.MustCompile(`\w+:[^\s@/]+@[\w.-]+`)
	// secretText finds the providers' keys, webhook secrets, tokens and client secrets.
	secretText = regexp.MustCompile(`\b(?:sk|rk)_(?:live|test)_[\w-]+|\bwhsec_[\w+/=-]+|\beyJ[\w-]+\.[\w-]+\.[\w-]+|\b(?:pi|seti|cs)_\w+_secret_\w+`)
)

// redaction is the safety net under everything that is logged: by key, by kind and by content.
type redaction struct {
	// judged tells of the keys that have been seen whether they are telling. A program uses few, and
	// ten in each line.
	judged  atomic.Pointer[map[string]bool]
	judging sync.Mutex
}

// mostJudged bounds how many keys are remembered, should they ever come from outside.
const mostJudged = 1000

// attr is a slog.HandlerOptions.ReplaceAttr.
func (r *redaction) attr(groups []string, a slog.Attr) slog.Attr {
	if r.telling(a.Key) || slices.ContainsFunc(groups, r.telling) {
		return slog.String(a.Key, redacted)
	}
	value := a.Value.Resolve()
	switch value.Kind() {
	case slog.KindString:
		return slog.String(a.Key, redactText(value.String()))
	case slog.KindAny:
		return slog.Attr{Key: a.Key, Value: redactAny(value.Any())}
	default:
		return slog.Attr{Key: a.Key, Value: value}
	}
}

// telling is isTelling, which is asked once for each key.
func (r *redaction) telling(key string) bool {
	if judged := r.judged.Load(); judged != nil {
		if telling, known := (*judged)[key]; known {
			return telling
		}
	}
	telling := isTelling(key)
	r.judging.Lock()
	defer r.judging.Unlock()
	next := map[string]bool{}
	if judged := r.judged.Load(); judged != nil {
		if len(*judged) >= mostJudged {
			return telling
		}
		next = maps.Clone(*judged)
	}
	next[strings.Clone(key)] = telling
	r.judged.Store(&next)
	return telling
}

// redactAny lets through what prints itself and plain values; what is inside a struct, a map or raw
// bytes cannot be judged, so only its type is named.
func redactAny(v any) slog.Value {
	switch v := v.(type) {
	case nil:
		return slog.AnyValue(nil)
	case *slog.Source, slog.Level:
		return slog.AnyValue(v)
	case error:
		return slog.StringValue(redactText(v.Error()))
	case fmt.Stringer:
		return slog.StringValue(redactText(v.String()))
	case encoding.TextMarshaler:
		text, err := v.MarshalText()
		if err != nil {
			return slog.StringValue(redacted)
		}
		return slog.StringValue(redactText(string(text)))
	}
	kind := reflect.TypeOf(v)
	switch kind.Kind() {
	case reflect.String:
		return slog.StringValue(redactText(reflect.ValueOf(v).String()))
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
		return slog.AnyValue(v)
	case reflect.Slice:
		if kind.Elem().Kind() == reflect.String {
			return slog.StringValue(redactText(fmt.Sprint(v)))
		}
	}
	return slog.StringValue("[" + kind.String() + "]")
}

// redactText takes addresses and secrets out of free text, such as an error's.
func redactText(text string) string {
	if strings.ContainsRune(text, '@') {
		text = loginText.ReplaceAllString(text, redacted)
		text = emailText.ReplaceAllString(text, redacted)
	}
	if mayHoldSecret(text) {
		text = secretText.ReplaceAllString(text, redacted)
	}
	return text
}

// mayHoldSecret reports whether it is worth looking for secrets in a text: most have none of what
// they begin with, and the expression takes much longer than this.
func mayHoldSecret(text string) bool {
	return strings.Contains(text, "k_") || strings.Contains(text, "whsec_") || strings.Contains(text, "eyJ") || strings.Contains(text, "_secret_")
}

// isTelling reports whether a key announces personal data or a secret. "name" alone is telling, and
// after a word such as first or user, but not in update_name or namespace.
func isTelling(key string) bool {
	words := keyWords(key)
	for i, word := range words {
		switch strings.TrimSuffix(word, "s") {
		case "email", "token", "authorization", "secret", "password", "cookie", "payload", "body", "phone":
			return true
		case "username", "firstname", "lastname", "fullname":
			return true
		case "name":
			if i == 0 || slices.Contains([]string{"first", "last", "full", "user", "display", "given", "family"}, words[i-1]) {
				return true
			}
		}
	}
	return false
}

// keyWords splits a key such as user_email, user.email or userEmail into lower-case words.
func keyWords(key string) []string {
	var words []string
	var word strings.Builder
	flush := func() {
		if word.Len() > 0 {
			words = append(words, word.String())
			word.Reset()
		}
	}
	var previous rune
	for _, r := range key {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			flush()
		} else {
			if unicode.IsUpper(r) && unicode.IsLower(previous) {
				flush()
			}
			word.WriteRune(unicode.ToLower(r))
		}
		previous = r
	}
	flush()
	return words
}
