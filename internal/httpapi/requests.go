package httpapi

import (
	"encoding/json"
	"net/http"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/selfservice"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// listSubscriptions answers GET /api/subscriptions.
func (a *API) listSubscriptions(in *asked) error {
	list, pending, err := a.o.Desk.Subscriptions(in.Context(), in.caller, in.named())
	if err != nil || pending != nil {
		return in.pending(pending, err)
	}
	out := make([]subscription, len(list))
	for i, s := range list {
		out[i] = subscriptionOf(s)
	}
	WriteJSON(in.w, http.StatusOK, map[string]any{"subscriptions": out})
	return nil
}

// pending answers what is in the way of an answer: a refusal, or an operation that has to end
// first.
func (in *asked) pending(op *store.Operation, err error) error {
	if err != nil {
		return err
	}
	return in.answer(op)
}

// The moments at which a cancellation can end a subscription.
const (
	atPeriodEnd = "period_end"
	atOnce      = "now"
)

type cancelBody struct {
	At string `json:"at"`
}

// cancel answers POST /api/subscriptions/{id}/cancel.
func (a *API) cancel(in *asked) error {
	var body cancelBody
	if err := decode(in.body, &body, true, true); err != nil {
		return err
	}
	command, err := cancelCommand(body.At)
	if err != nil {
		return err
	}
	return a.command(in, command, in.named(), in.id())
}

func cancelCommand(at string) (account.Command, error) {
	switch at {
	case "", atPeriodEnd:
		return account.CommandCancel, nil
	case atOnce:
		return account.CommandCancelNow, nil
	default:
		return "", invalid(codeFieldInvalid, "at is period_end or now.")
	}
}

// reactivate answers POST /api/subscriptions/{id}/reactivate.
func (a *API) reactivate(in *asked) error {
	if err := decode(in.body, &struct{}{}, true, true); err != nil {
		return err
	}
	return a.command(in, account.CommandReactivate, in.named(), in.id())
}

// command does a command for both forms of the API.
func (a *API) command(in *asked, command account.Command, named, subscriptionID string) error {
	op, err := a.o.Desk.Command(in.Context(), selfservice.CommandRequest{
		Caller: in.caller, Key: in.key, Command: command, UserID: named, SubscriptionID: subscriptionID,
	})
	return in.pending(op, err)
}

// sync answers POST /api/users/me/sync.
func (a *API) sync(in *asked) error {
	if err := decode(in.body, &struct{}{}, true, true); err != nil {
		return err
	}
	op, err := a.o.Desk.Sync(in.Context(), in.caller, in.key, in.named())
	return in.pending(op, err)
}

// operation answers GET /api/operations/{id}.
func (a *API) operation(in *asked) error {
	op, err := a.o.Desk.Operation(in.Context(), in.caller, in.id())
	if err != nil {
		return err
	}
	WriteJSON(in.w, http.StatusOK, operationOf(op))
	return nil
}

// defaultLines is how long a page of the audit log is where nobody says.
const defaultLines = 50

// audit answers GET /api/audit.
func (a *API) audit(in *asked) error {
	before, err := number(in.Request, "before")
	if err != nil {
		return err
	}
	limit, err := pageOf(in.Request)
	if err != nil {
		return err
	}
	all, err := truth(in.Request, "all")
	if err != nil {
		return err
	}
	lines, err := a.o.Desk.Audit(in.Context(), in.caller, in.named(), all, before, limit)
	if err != nil {
		return err
	}
	entries := make([]auditEntry, len(lines))
	for i, l := range lines {
		entries[i] = auditEntryOf(l)
	}
	page := map[string]any{"entries": entries}
	if len(lines) == limit {
		page["next"] = lines[len(lines)-1].ID
	}
	WriteJSON(in.w, http.StatusOK, page)
	return nil
}

type checkoutBody struct {
	PriceID    string `json:"priceId"`
	Quantity   int64  `json:"quantity"`
	SuccessURL string `json:"successUrl"`
	CancelURL  string `json:"cancelUrl"`
}

// checkout answers POST /api/checkout.
func (a *API) checkout(in *asked) error {
	var body checkoutBody
	if err := decode(in.body, &body, true, false); err != nil {
		return err
	}
	if err := given(map[string]string{"priceId": body.PriceID, "successUrl": body.SuccessURL, "cancelUrl": body.CancelURL}); err != nil {
		return err
	}
	opened, pending, err := a.o.Desk.Checkout(in.Context(), selfservice.CheckoutRequest{
		Caller: in.caller, Key: in.key, PriceID: body.PriceID, Quantity: body.Quantity, SuccessURL: body.SuccessURL, CancelURL: body.CancelURL,
	})
	if err != nil || pending != nil {
		return in.pending(pending, err)
	}
	in.operation = opened.OperationID
	WriteJSON(in.w, http.StatusOK, map[string]string{"id": opened.SessionID, "url": opened.URL})
	return nil
}

// given tells which field is missing.
func given(fields map[string]string) error {
	missing := map[string]bool{}
	for name, value := range fields {
		if value == "" {
			missing[name] = true
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return invalid(codeFieldMissing, sortedKeys(missing)[0]+" is missing.")
}

type returnBody struct {
	SessionID string `json:"sessionId"`
}

// returned answers POST /api/checkout/return.
func (a *API) returned(in *asked) error {
	var body returnBody
	if err := decode(in.body, &body, true, false); err != nil {
		return err
	}
	if err := given(map[string]string{"sessionId": body.SessionID}); err != nil {
		return err
	}
	op, err := a.o.Desk.Return(in.Context(), in.caller, in.key, body.SessionID)
	return in.pending(op, err)
}

type portalBody struct {
	ReturnURL string `json:"returnUrl"`
}

// portal answers POST /api/portal.
func (a *API) portal(in *asked) error {
	var body portalBody
	if err := decode(in.body, &body, true, false); err != nil {
		return err
	}
	if err := given(map[string]string{"returnUrl": body.ReturnURL}); err != nil {
		return err
	}
	address, pending, err := a.o.Desk.Portal(in.Context(), in.caller, in.key, body.ReturnURL)
	if err != nil || pending != nil {
		return in.pending(pending, err)
	}
	WriteJSON(in.w, http.StatusOK, map[string]string{"url": address})
	return nil
}

// The actions of the single address, as its clients know them.
const (
	actionSync       = "sync-user"
	actionRead       = "get-subscription-data"
	actionCancel     = "cancel-subscription"
	actionReactivate = "reactivate-subscription"
)

// syncBody is a request at the single address. Members that are not known are passed over, as they
// always were.
type syncBody struct {
	Action                     string `json:"action"`
	TargetUserID               string `json:"targetUserId"`
	SubscriptionID             string `json:"subscriptionId"`
	ReactivationSubscriptionID string `json:"reactivationSubscriptionId"`
	ReactivateSubscriptionID   string `json:"reactivateSubscriptionId"` // the older name
	At                         string `json:"at"`
}

// postSync answers POST /api/sync/clerk-stripe.
func (a *API) postSync(in *asked) error {
	var body syncBody
	if err := decode(in.body, &body, false, false); err != nil {
		return err
	}
	switch body.Action {
	case actionSync:
		op, err := a.o.Desk.Sync(in.Context(), in.caller, in.key, body.TargetUserID)
		return in.pending(op, err)
	case actionRead:
		return a.state(in, body.TargetUserID)
	case actionCancel:
		if err := given(map[string]string{"subscriptionId": body.SubscriptionID}); err != nil {
			return err
		}
		command, err := cancelCommand(body.At)
		if err != nil {
			return err
		}
		return a.command(in, command, body.TargetUserID, body.SubscriptionID)
	case actionReactivate:
		id := body.ReactivationSubscriptionID
		if id == "" {
			id = body.ReactivateSubscriptionID
		}
		if err := given(map[string]string{"reactivationSubscriptionId": id}); err != nil {
			return err
		}
		return a.command(in, account.CommandReactivate, body.TargetUserID, id)
	case "":
		return invalid(codeFieldMissing, "action is missing.")
	default:
		return invalid("action_invalid", "action is sync-user, get-subscription-data, cancel-subscription or reactivate-subscription.")
	}
}

// readSync answers GET /api/sync/clerk-stripe.
func (a *API) readSync(in *asked) error { return a.state(in, in.URL.Query().Get("targetUserId")) }

// state answers what PostgreSQL and Clerk say of a user.
func (a *API) state(in *asked, named string) error {
	state, pending, err := a.o.Desk.State(in.Context(), in.caller, named)
	if err != nil || pending != nil {
		return in.pending(pending, err)
	}
	type person struct {
		ID        string  `json:"id"`
		Email     *string `json:"email"`
		FirstName *string `json:"firstName"`
		LastName  *string `json:"lastName"`
	}
	type data struct {
		Clerk    json.RawMessage     `json:"clerk"`
		Database *account.Projection `json:"database"`
		User     person              `json:"user"`
		InSync   *bool               `json:"inSync"`
	}
	out := data{Clerk: state.Clerk, Database: state.Database, InSync: state.InSync, User: person{
		ID: state.User.ID, Email: text(state.User.Email), FirstName: text(state.User.FirstName), LastName: text(state.User.LastName),
	}}
	WriteJSON(in.w, http.StatusOK, map[string]any{"success": true, "data": out})
	return nil
}

// text is a text, nil for an empty one.
func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
