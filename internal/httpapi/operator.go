package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/operator"
	"github.com/nepfy/clerk-stripe-sync/internal/selfservice"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// Operator answers admins: what is stuck, in what the systems differ, and how one user stands. What
// cannot be understood is an [operator.Mistake].
type Operator interface {
	Events(ctx context.Context, s operator.Selection, after store.EventPlace, limit int) ([]store.Event, *store.EventPlace, error)
	Event(ctx context.Context, source, id string) (event *store.Event, payload string, err error)
	Retry(ctx context.Context, o operator.Order, after store.EventPlace) (operator.Done, error)
	Replay(ctx context.Context, o operator.Order, after store.EventPlace) (operator.Done, error)
	Drift(ctx context.Context) ([]operator.ClassOfDrift, error)
	OpenDifferences(ctx context.Context, class account.Drift, after int64, limit int) ([]store.OpenDifference, error)
	Comparisons(ctx context.Context, limit int) ([]store.Reconciliation, error)
	Reconcile(ctx context.Context, caller string, repair []account.Drift) (runID string, begun bool, err error)
	Resolve(ctx context.Context, id string) (clerkUserID string, err error)
	Inspect(ctx context.Context, clerkUserID string) (operator.Inspection, error)
	BulkOperator
}

// admin lets only admins through to what operators ask.
func (a *API) admin(do func(*asked) error) func(*asked) error {
	return func(in *asked) error {
		if !in.caller.Admin {
			return &selfservice.Refusal{Kind: selfservice.Forbidden, Code: "not_admin", Detail: "Only an admin may ask for this."}
		}
		if !in.storable() {
			return invalid(codeFieldInvalid, "What is asked for is not text.")
		}
		return unanswered(in.Method, do(in))
	}
}

// storable tells whether all of a request is text as PostgreSQL has it: nothing else can be looked
// for.
func (in *asked) storable() bool {
	texts := []string{string(in.body)}
	for _, parameter := range in.parameters {
		texts = append(texts, parameter.Value)
	}
	for _, values := range in.URL.Query() {
		texts = append(texts, values...)
	}
	return !slices.ContainsFunc(texts, func(text string) bool {
		return !utf8.ValidString(text) || strings.ContainsRune(text, 0) || strings.Contains(text, `\u0000`)
	})
}

// codeOutcomeUnknown says that what was asked for may have been done.
const codeOutcomeUnknown = "outcome_unknown"

// unanswered makes a refusal of what an operator's request came to. What changes something may have
// changed it before it failed.
func unanswered(method string, err error) error {
	if err == nil {
		return nil
	}
	if mistake, ok := errors.AsType[*operator.Mistake](err); ok {
		return invalid(codeFieldInvalid, mistake.Text)
	}
	if _, ok := errors.AsType[*selfservice.Refusal](err); ok {
		return err
	}
	refusal := &selfservice.Refusal{Kind: selfservice.Unavailable, Code: "not_accepted", Detail: "The request could not be answered; try again."}
	if method != http.MethodGet && method != http.MethodHead {
		refusal.Code, refusal.Detail = codeOutcomeUnknown, "It may have been done, or not; look whether it was before asking again."
	}
	return fmt.Errorf("%w (%w)", refusal, err)
}

// listEvents answers GET /api/events.
func (a *API) listEvents(in *asked) error {
	query := in.URL.Query()
	selected, err := selectionOf(query)
	if err != nil {
		return err
	}
	after, err := placeOf(query.Get("after"))
	if err != nil {
		return err
	}
	limit, err := pageOf(in.Request)
	if err != nil {
		return err
	}
	events, next, err := a.o.Operator.Events(in.Context(), selected, after, limit)
	if err != nil {
		return err
	}
	WriteJSON(in.w, http.StatusOK, struct {
		Events []store.Event `json:"events"`
		Next   string        `json:"next,omitempty"`
	}{events, placeText(next)})
	return nil
}

func selectionOf(query url.Values) (s operator.Selection, err error) {
	s = operator.Selection{IDs: query["id"], Type: query.Get("type"), UserID: query.Get("userId"), Entity: query.Get("entity"), Source: query.Get("source")}
	for _, status := range query["status"] {
		s.Statuses = append(s.Statuses, store.EventStatus(status))
	}
	if s.Since, err = timeOf("since", query.Get("since")); err != nil {
		return s, err
	}
	s.Until, err = timeOf("until", query.Get("until"))
	return s, err
}

func timeOf(name, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, invalid(codeFieldInvalid, name+" is a time such as 2026-01-31T08:00:00Z.")
	}
	return at, nil
}

// placeText is a place in the order of events as callers have it: a word that means nothing to
// them.
func placeText(place *store.EventPlace) string {
	if place == nil {
		return ""
	}
	raw, err := json.Marshal(place)
	if err != nil {
		panic(err) // a time and a text always can be
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

func placeOf(text string) (place store.EventPlace, err error) {
	if text == "" {
		return place, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(raw, &place)
	}
	if err != nil {
		return place, invalid(codeFieldInvalid, "after is the next of the page before.")
	}
	return place, nil
}

// pageOf is how long a page is to be.
func pageOf(r *http.Request) (int, error) {
	limit, err := number(r, "limit")
	switch {
	case err != nil:
		return 0, err
	case limit > 200:
		return 0, invalid(codeFieldInvalid, "limit is at most 200.")
	case limit == 0:
		return defaultLines, nil
	default:
		return int(limit), nil
	}
}

// showEvent answers GET /api/events/{source}/{id}.
func (a *API) showEvent(in *asked) error {
	event, payload, err := a.o.Operator.Event(in.Context(), in.parameters.ByName("source"), in.id())
	if err != nil {
		return err
	}
	if event == nil {
		return notFound("event_not_found", "There is no such event.")
	}
	var kept json.RawMessage // null where it is not
	if payload != "" {
		kept = json.RawMessage(payload)
	}
	WriteJSON(in.w, http.StatusOK, map[string]any{"event": event, "payload": kept})
	return nil
}

func notFound(code, detail string) error {
	return &selfservice.Refusal{Kind: selfservice.NotFound, Code: code, Detail: detail}
}

// orderBody says which events are meant, and what of it is wanted.
type orderBody struct {
	IDs      []string            `json:"ids"`
	Type     string              `json:"type"`
	UserID   string              `json:"userId"`
	Entity   string              `json:"entity"`
	Source   string              `json:"source"`
	Statuses []store.EventStatus `json:"statuses"`
	Since    string              `json:"since"`
	Until    string              `json:"until"`
	DryRun   bool                `json:"dryRun"`
	After    string              `json:"after"`
}

// retryEvents answers POST /api/events/retry.
func (a *API) retryEvents(in *asked) error { return a.order(in, a.o.Operator.Retry) }

// replayEvents answers POST /api/events/replay.
func (a *API) replayEvents(in *asked) error { return a.order(in, a.o.Operator.Replay) }

func (a *API) order(in *asked, do func(context.Context, operator.Order, store.EventPlace) (operator.Done, error)) error {
	var body orderBody
	if err := decode(in.body, &body, true, true); err != nil {
		return err
	}
	order := operator.Order{DryRun: body.DryRun, Caller: in.caller.Name(), Selection: operator.Selection{
		IDs: body.IDs, Type: body.Type, UserID: body.UserID, Entity: body.Entity, Source: body.Source, Statuses: body.Statuses,
	}}
	var err error
	if order.Since, err = timeOf("since", body.Since); err != nil {
		return err
	}
	if order.Until, err = timeOf("until", body.Until); err != nil {
		return err
	}
	after, err := placeOf(body.After)
	if err != nil {
		return err
	}
	done, err := do(in.Context(), order, after)
	if err != nil {
		return err
	}
	if done.Skipped == nil {
		done.Skipped = map[string]int{}
	}
	WriteJSON(in.w, http.StatusOK, struct {
		DryRun  bool           `json:"dryRun"`
		Events  int            `json:"events"`
		ByType  map[string]int `json:"byType"`
		Skipped map[string]int `json:"skipped"`
		Next    string         `json:"next,omitempty"`
	}{body.DryRun, done.Events, done.ByType, done.Skipped, placeText(done.Next)})
	return nil
}

// countDrift answers GET /api/drift.
func (a *API) countDrift(in *asked) error {
	classes, err := a.o.Operator.Drift(in.Context())
	if err != nil {
		return err
	}
	WriteJSON(in.w, http.StatusOK, map[string]any{"classes": classes})
	return nil
}

// listDifferences answers GET /api/drift/differences.
func (a *API) listDifferences(in *asked) error {
	after, err := number(in.Request, "after")
	if err != nil {
		return err
	}
	limit, err := pageOf(in.Request)
	if err != nil {
		return err
	}
	list, err := a.o.Operator.OpenDifferences(in.Context(), account.Drift(in.URL.Query().Get("class")), after, limit)
	if err != nil {
		return err
	}
	page := map[string]any{"differences": list}
	if len(list) == limit {
		page["next"] = list[len(list)-1].ID
	}
	WriteJSON(in.w, http.StatusOK, page)
	return nil
}

// listComparisons answers GET /api/drift/runs.
func (a *API) listComparisons(in *asked) error {
	limit, err := pageOf(in.Request)
	if err != nil {
		return err
	}
	list, err := a.o.Operator.Comparisons(in.Context(), limit)
	if err != nil {
		return err
	}
	WriteJSON(in.w, http.StatusOK, map[string]any{"runs": list})
	return nil
}

type compareBody struct {
	Repair []account.Drift `json:"repair"`
}

// compare answers POST /api/drift/runs.
func (a *API) compare(in *asked) error {
	var body compareBody
	if err := decode(in.body, &body, true, true); err != nil {
		return err
	}
	runID, begun, err := a.o.Operator.Reconcile(in.Context(), in.caller.Name(), body.Repair)
	if err != nil {
		return err
	}
	WriteJSON(in.w, http.StatusAccepted, map[string]any{"runId": runID, "begun": begun})
	return nil
}

// inspect answers GET /api/users/{id}.
func (a *API) inspect(in *asked) error {
	user, err := a.o.Operator.Resolve(in.Context(), in.id())
	if err != nil {
		return err
	}
	if user == "" {
		return notFound("user_not_found", "That leads to no user.")
	}
	view, err := a.o.Operator.Inspect(in.Context(), user)
	if err != nil {
		return err
	}
	WriteJSON(in.w, http.StatusOK, view)
	return nil
}
