package stripeapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"

	"github.com/stripe/stripe-go/v76"

	"github.com/nepfy/clerk-stripe-sync/internal/exchange"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

// CodeReplayed is the code of a failure inside Stripe that it gave before under the same
// idempotency key and would give again for as long as it keeps the key, about a day; see
// [KeySpent].
const CodeReplayed = "replayed_5xx"

// KeySpent tells whether nothing else comes of asking under this idempotency key: Stripe repeats a
// failure that it has stored, or the key was used with other parameters. What was done at that time
// is not known from it. Package stripechanges reads it.
func KeySpent(err error) bool {
	e, ok := errors.AsType[*failure.Error](err)
	if !ok || e.Provider != provider {
		return false
	}
	return e.Stored || e.Code == string(stripe.ErrorTypeIdempotency) || e.Code == "idempotency_key_reused"
}

// codeKeyInUse is the code of a request while another one under the same idempotency key is under
// way. Stripe names it so in newer answers itself.
const codeKeyInUse = "idempotency_key_in_use"

// codeCursorGone is the code of a list that cannot go on behind an object because that was deleted
// since. It says nothing of what is listed.
const codeCursorGone = "cursor_gone"

// classify turns what a failed call recorded into a failure. It is the one place where Stripe's
// answers are judged. Beyond what is common to all providers it knows:
//
//   - A failure that is a replay of an earlier answer; see [KeySpent].
//   - 429 and 409 with lock_timeout: another request held the object. That goes away by itself
//     and says nothing about our rate.
//   - Stripe-Should-Retry, which wins where Stripe knows more than the status says. It cannot
//     make a 5xx permanent, whose outcome is unknown, nor a 429.
func classify(ctx context.Context, rec *exchange.Record, op string) error {
	said := statement(rec.Body)
	e := rec.Failure(ctx, provider, op, said)
	e.RequestID = rec.RequestID("Request-Id")
	if rec.Err != nil || ctx.Err() != nil || rec.Status < 400 {
		return e
	}
	e.Stored = replayed(rec.Header)
	if said.Missing {
		e.Named = said.Named
	}
	retry := rec.Header.Get("Stripe-Should-Retry")
	switch {
	case said.Code == codeCursorGone:
		e.Class = failure.Transient
	case rec.Status >= 500:
		if e.Stored {
			e.Code = CodeReplayed
		}
	case said.Code == string(stripe.ErrorCodeLockTimeout):
		e.Class = failure.Transient
	case rec.Status == http.StatusConflict && said.Code == string(stripe.ErrorTypeIdempotency):
		// Another request under the key is under way: the key is not spent, and what comes of it will be
		// stored under it.
		e.Class, e.Code = failure.Transient, codeKeyInUse
	case e.Class == failure.Operator, e.Class == failure.Throttled:
		// Neither a wrong key nor our rate is a matter of trying again at once or never.
	case retry == "true":
		e.Class = failure.Transient
	case retry == "false":
		e.Class = failure.Permanent
	}
	return e
}

// statement reads Stripe's error document. Its parameters and objects are left alone, and of its
// message only the id of what is missing is taken: they hold names, addresses and client secrets.
func statement(body []byte) exchange.Statement {
	var document struct {
		Error *struct {
			Type    string `json:"type"`
			Code    string `json:"code"`
			Message string `json:"message"`
			// Param is a parameter's name.
			Param string `json:"param"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &document) != nil || document.Error == nil {
		return exchange.Statement{}
	}
	said := exchange.Statement{Given: true, Code: document.Error.Code}
	if said.Code == "" && document.Error.Type == string(stripe.ErrorTypeIdempotency) {
		said.Code = document.Error.Type
	}
	if said.Missing = said.Code == string(stripe.ErrorCodeResourceMissing); said.Missing && document.Error.Param == "starting_after" {
		said.Missing, said.Code = false, codeCursorGone
	}
	if id := quotedID.FindStringSubmatch(document.Error.Message); said.Missing && id != nil {
		said.Named = id[1]
		if id[2] != "" {
			said.Named = otherMode
		}
	}
	return said
}

// otherMode is named in the place of an object that the other mode of the account has: it is not
// missing.
const otherMode = "in_the_other_mode"

// quotedID is how Stripe names in its message what it does not have: "No such customer: 'cus_1'".
var quotedID = regexp.MustCompile(`^No such [a-z_ -]+: '([A-Za-z0-9_.-]{1,255})'(; a similar object exists in)?`)

// replayed tells whether an answer is the one that Stripe stored under the idempotency key.
func replayed(h http.Header) bool { return h.Get("Idempotent-Replayed") == "true" }

// badID is the failure of an id that is not asked for because it cannot be one.
func badID(op string) error { return failure.New(failure.Permanent, provider, op, "bad_id", nil) }

// badBody is the failure of an answer that is not what was asked for. It is transient: it does
// not come from Stripe's data but from something that mangled the answer.
func badBody(op string) error { return failure.New(failure.Transient, provider, op, "bad_body", nil) }

// badKey is the failure of a change without a usable idempotency key. Without one, repeating
// it after a timeout could make it twice.
func badKey(op string) error {
	return failure.New(failure.Permanent, provider, op, "bad_idempotency_key", nil)
}
