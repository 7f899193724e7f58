package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/nepfy/clerk-stripe-sync/internal/selfservice"
)

// idempotencyHeader carries the caller's own name for a request.
const idempotencyHeader = "Idempotency-Key"

// keyForm is what such a name looks like: printable, without blanks.
var keyForm = regexp.MustCompile(`^[!-~]{1,200}$`)

// keyOf reads the Idempotency-Key of a request.
func keyOf(r *http.Request, route string) (selfservice.Key, error) {
	key := selfservice.Key{Method: r.Method, Route: route}
	values := r.Header.Values(idempotencyHeader)
	switch {
	case len(values) == 0:
		return key, nil
	case len(values) > 1 || !keyForm.MatchString(values[0]):
		return key, invalid("idempotency_key_invalid", "Idempotency-Key is 1 to 200 printable characters without blanks, and is sent once.")
	}
	key.Value = values[0]
	return key, nil
}

func invalid(code, detail string) error {
	return &selfservice.Refusal{Kind: selfservice.Invalid, Code: code, Detail: detail}
}

// Codes of the problems with what a body says.
const (
	codeFieldInvalid = "field_invalid"
	codeFieldMissing = "field_missing"
	codeFieldUnknown = "field_unknown"
)

// decode reads a JSON object into a struct. strict refuses members that the struct does not have:
// what is misspelt is not silently left out. An empty body is an empty object where optional says
// so.
func decode(body []byte, into any, strict, optional bool) error {
	if optional && len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil || members == nil {
		return invalid(codeBodyNotJSON, "The body is not a JSON object.")
	}
	if strict {
		known := memberNames(into)
		for name := range members {
			if !known[name] {
				return invalid(codeFieldUnknown, "The body has a field that is not known here; known are "+strings.Join(sortedKeys(known), ", ")+".")
			}
		}
	}
	err := json.Unmarshal(body, into)
	if mistyped, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return invalid(codeFieldInvalid, fmt.Sprintf("%s is a %s.", mistyped.Field, jsonKind(mistyped.Type.Kind())))
	}
	if err != nil {
		return invalid(codeBodyNotJSON, "The body is not a JSON object.")
	}
	return nil
}

func jsonKind(k reflect.Kind) string {
	switch k { //nolint:exhaustive // the kinds that our requests have
	case reflect.Int64, reflect.Int32, reflect.Int:
		return "whole number"
	case reflect.Bool:
		return "truth value"
	case reflect.String:
		return "text"
	case reflect.Slice:
		return "list"
	default:
		return k.String()
	}
}

// memberNames are the names that a struct has in JSON.
func memberNames(of any) map[string]bool {
	names := map[string]bool{}
	for field := range reflect.TypeOf(of).Elem().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names[name] = true
	}
	return names
}

// number reads a number from a query, 0 where it is not given.
func number(r *http.Request, name string) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, invalid(codeFieldInvalid, name+" is a whole number from 1.")
	}
	return n, nil
}

// truth reads a truth value from a query, false where it is not given.
func truth(r *http.Request, name string) (bool, error) {
	switch r.URL.Query().Get(name) {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, invalid(codeFieldInvalid, name+" is true or false.")
	}
}
