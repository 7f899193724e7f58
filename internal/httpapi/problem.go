package httpapi

import (
	"encoding/json"
	"maps"
	"math"
	"net/http"
	"strconv"
	"time"
)

// Problem is an error as callers see it: an RFC 9457 problem document, whose type is always
// about:blank, told apart by its code. Its text is our own; what a provider said never goes out.
type Problem struct {
	// Status is the HTTP status.
	Status int
	// Code is a stable word for programs, such as signature_invalid.
	Code string
	// Detail is a sentence for people.
	Detail string
	// RetryAfter, if positive, asks the caller to try again after that time, in whole seconds.
	RetryAfter time.Duration
	// Extra holds further members of the document.
	Extra map[string]any
}

// WriteProblem answers a request with a problem document, which carries the request's id.
func WriteProblem(w http.ResponseWriter, r *http.Request, p Problem) {
	document := maps.Clone(p.Extra)
	if document == nil {
		document = map[string]any{}
	}
	document["title"] = http.StatusText(p.Status)
	document["status"] = p.Status
	document["code"] = p.Code
	if p.Detail != "" {
		document["detail"] = p.Detail
	}
	if id := RequestID(r.Context()); id != "" {
		document["requestId"] = id
	}
	if p.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(p.RetryAfter.Seconds()))))
	}
	writeDocument(w, p.Status, "application/problem+json", document)
}

// WriteJSON answers a request with a JSON document.
func WriteJSON(w http.ResponseWriter, status int, document any) {
	writeDocument(w, status, "application/json", document)
}

// writeDocument encodes before it writes, so that a document that cannot be encoded is a panic with
// an answer and not half a document.
func writeDocument(w http.ResponseWriter, status int, kind string, document any) {
	body, err := json.Marshal(document)
	if err != nil {
		panic(err)
	}
	header := w.Header()
	header.Set("Content-Type", kind)
	header.Set("Content-Length", strconv.Itoa(len(body)+1))
	// Answers tell the state of a moment, many of them that of one person.
	header.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// There is nobody left to tell about a connection that broke.
	_, _ = w.Write(append(body, '\n'))
}
