package clerkapi

import (
	"context"
	"encoding/json"

	"github.com/nepfy/clerk-stripe-sync/internal/exchange"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

// do runs one call to the SDK and classifies its failure.
func do[T any](ctx context.Context, op string, call func(context.Context) (T, error)) (T, error) {
	recorded, rec := exchange.Start(ctx)
	answer, err := call(recorded)
	if err != nil || rec.Unsound {
		var none T
		return none, classify(ctx, rec, op)
	}
	return answer, nil
}

// classify turns what a failed call recorded into a failure. It is the one place where Clerk's
// answers are judged; Clerk has nothing beyond what is common to all providers. 422, with which
// it refuses values, is permanent like 400.
func classify(ctx context.Context, rec *exchange.Record, op string) error {
	e := rec.Failure(ctx, provider, op, statement(rec.Body))
	e.RequestID = rec.RequestID("Clerk-Trace-Id")
	return e
}

// statement reads Clerk's error document, of which only the first code: its messages hold what
// the user typed.
func statement(body []byte) exchange.Statement {
	var document struct {
		Errors []struct {
			Code string `json:"code"`
		} `json:"errors"`
	}
	if json.Unmarshal(body, &document) != nil || document.Errors == nil {
		return exchange.Statement{}
	}
	said := exchange.Statement{Given: true}
	if len(document.Errors) > 0 {
		said.Code = document.Errors[0].Code
	}
	said.Missing = said.Code == "resource_not_found"
	return said
}

// sound tells whether a successful answer is one of Clerk's objects, a list of them, a count, or
// its set of keys.
func sound(body []byte) bool {
	if soundList(body) {
		return true
	}
	var answer struct {
		ID    string     `json:"id"`
		Keys  []struct{} `json:"keys"`
		Total *int64     `json:"total_count"`
	}
	return json.Unmarshal(body, &answer) == nil && (answer.ID != "" || len(answer.Keys) > 0 || answer.Total != nil)
}

func badID(op string) error { return failure.New(failure.Permanent, provider, op, "bad_id", nil) }

// badBody is the failure of an answer that is not what was asked for. It is transient: it comes
// from something that mangled the answer, not from the user's data.
func badBody(op string) error { return failure.New(failure.Transient, provider, op, "bad_body", nil) }
