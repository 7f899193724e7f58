package httpapi

import (
	"net/http"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/selfservice"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// operationAddress is where an operation is looked up.
func operationAddress(id string) string { return "/api/operations/" + id }

// done is the answer to what was done, and to what is still being settled.
type done struct {
	Success   bool   `json:"success"`
	Message   string `json:"message"`
	Operation string `json:"operation"`
	scheduled
}

// scheduled is what an operation has to do with schedules.
type scheduled struct {
	// OtherSchedules are those of the same customer that a command has left alone.
	OtherSchedules []string `json:"otherSchedules,omitempty"`
	// ReleasedSchedule is the schedule that was taken off the subscription, DroppedPhases what is gone
	// with it.
	ReleasedSchedule string          `json:"releasedSchedule,omitempty"`
	DroppedPhases    []account.Phase `json:"droppedPhases,omitempty"`
}

func scheduledOf(op *store.Operation) (s scheduled, err error) {
	s.OtherSchedules = op.OtherSchedules
	dropped, err := op.Dropped()
	if dropped == nil || op.Status == store.OperationActing || op.Status == store.OperationFailed && op.Reason != reasonReleased {
		return s, err // none was to be released, or none was, or nobody knows yet
	}
	s.ReleasedSchedule, s.DroppedPhases = op.ReleaseSchedule, dropped
	return s, err
}

// extra are the members of a problem document.
func (s scheduled) extra(address string) map[string]any {
	members := map[string]any{"operation": address}
	if len(s.OtherSchedules) > 0 {
		members["otherSchedules"] = s.OtherSchedules
	}
	if s.ReleasedSchedule != "" {
		members["releasedSchedule"], members["droppedPhases"] = s.ReleasedSchedule, s.DroppedPhases
	}
	return members
}

// reasonReleased is why an operation failed whose schedule was released before the rest was
// refused.
const reasonReleased = "schedule_released"

// answer tells the caller how an operation stands: the truth, whichever it is.
func (in *asked) answer(op *store.Operation) error {
	in.operation, in.result = op.ID, statusWord(op.Status)
	address := operationAddress(op.ID)
	schedules, err := scheduledOf(op)
	if err != nil {
		return err
	}
	problem := func(status int, code, detail string) { in.problem(status, code, detail, schedules.extra(address)) }
	switch op.Status {
	case store.OperationAccepted, store.OperationActing, store.OperationRecorded:
		in.w.Header().Set("Location", address)
		WriteJSON(in.w, http.StatusAccepted, done{true, "The request was accepted and is still being settled.", address, schedules})
	case store.OperationDone:
		WriteJSON(in.w, http.StatusOK, done{true, doneMessage(op.Action), address, schedules})
	case store.OperationRefused:
		problem(http.StatusConflict, op.Reason, refusedDetail(op.Reason))
	case store.OperationFailed:
		if op.Reason == store.NotRecorded {
			problem(http.StatusServiceUnavailable, "not_accepted", "It cannot be stored; nothing was done.")
			return nil
		}
		if op.Reason == reasonReleased {
			problem(http.StatusBadGateway, reasonReleased, "The subscription's schedule was taken off, and its later phases are gone; Stripe then refused the rest.")
			return nil
		}
		if detail := missingDetail(op.Reason); detail != "" {
			problem(http.StatusNotFound, op.Reason, detail)
			return nil
		}
		problem(http.StatusBadGateway, "provider_refused", "Stripe refused it; how the subscription ends was not changed.")
	case store.OperationUndone:
		problem(http.StatusBadGateway, "undone", "It could not be done everywhere, and what was done has been put back.")
	case store.OperationSuperseded:
		problem(http.StatusConflict, "superseded", "It was changed by somebody else meanwhile, and is as they left it.")
	case store.OperationExpired:
		problem(http.StatusServiceUnavailable, "not_accepted", "It could not be begun in time; nothing was done.")
	}
	return nil
}

func (in *asked) problem(status int, code, detail string, extra map[string]any) {
	p := Problem{Status: status, Code: code, Detail: detail, Extra: extra}
	if status == http.StatusServiceUnavailable {
		p.RetryAfter = retryLater
	}
	WriteProblem(in.w, in.Request, p)
}

// statusWord is how callers see a status: what has not ended is pending, however far it is.
func statusWord(s store.OperationStatus) string {
	if !s.Settled() {
		return "pending"
	}
	return string(s)
}

func doneMessage(a store.Action) string {
	switch a {
	case store.ActionSync:
		return "The user is in step."
	case store.ActionCancel:
		return "The subscription is set to end."
	case store.ActionCancelNow:
		return "The subscription has ended."
	case store.ActionReactivate:
		return "The subscription is not set to end."
	case store.ActionReturn:
		return "What was bought is there."
	case store.ActionCheckout:
		return "The checkout was opened."
	case store.ActionPortal:
		return "The portal was opened."
	default:
		return "Done."
	}
}

// missingDetail tells of what a provider does not have; "" for any other reason.
func missingDetail(reason string) string {
	switch reason {
	case store.NoSuchUser:
		return "There is no such user."
	case store.NoSuchCustomer:
		return "Stripe does not have the customer."
	default:
		return ""
	}
}

func refusedDetail(reason string) string {
	switch account.Refusal(reason) {
	case account.RefusedEnded:
		return "The subscription has ended."
	case account.RefusedUnpaid:
		return "The first payment has not been made; cancel it at once instead."
	case account.RefusedPaused:
		return "The trial has ended without a way to pay, and the subscription is paused. It is resumed in the billing portal (POST /api/portal), which bills."
	case account.RefusedUserDeleted:
		return "The user is being deleted."
	case account.RefusedContested:
		return "It is not settled whose the customer at Stripe is."
	default:
		return "The state does not allow it."
	}
}

// subscription is one subscription as callers see it.
type subscription struct {
	ID                 string     `json:"id"`
	CustomerID         string     `json:"customerId"`
	Status             string     `json:"status"`
	Active             bool       `json:"active"`
	Plan               string     `json:"plan,omitempty"`
	PriceID            string     `json:"priceId,omitempty"`
	Type               string     `json:"type,omitempty"`
	Quantity           int64      `json:"quantity"`
	CurrentPeriodStart *time.Time `json:"currentPeriodStart,omitempty"`
	CurrentPeriodEnd   *time.Time `json:"currentPeriodEnd,omitempty"`
	CancelAtPeriodEnd  bool       `json:"cancelAtPeriodEnd"`
	CancelAt           *time.Time `json:"cancelAt,omitempty"`
	CanceledAt         *time.Time `json:"canceledAt,omitempty"`
	EndedAt            *time.Time `json:"endedAt,omitempty"`
	TrialStart         *time.Time `json:"trialStart,omitempty"`
	TrialEnd           *time.Time `json:"trialEnd,omitempty"`
	Paused             bool       `json:"paused"`
}

func subscriptionOf(s selfservice.Subscription) subscription {
	return subscription{
		ID: s.ID, CustomerID: s.CustomerID, Status: string(s.Status), Active: s.Grants, Plan: s.Plan, PriceID: s.PriceID, Type: s.Type,
		Quantity: s.Quantity, CurrentPeriodStart: moment(s.CurrentPeriodStart), CurrentPeriodEnd: moment(s.CurrentPeriodEnd),
		CancelAtPeriodEnd: s.CancelAtPeriodEnd, CancelAt: moment(s.Ending().At), CanceledAt: moment(s.CanceledAt), EndedAt: moment(s.EndedAt),
		TrialStart: moment(s.TrialStart), TrialEnd: moment(s.TrialEnd), Paused: s.CollectionPaused,
	}
}

// operation is an operation as callers see it.
type operation struct {
	ID             string     `json:"id"`
	Action         string     `json:"action"`
	Status         string     `json:"status"`
	Reason         string     `json:"reason,omitempty"`
	Settled        bool       `json:"settled"`
	UserID         string     `json:"userId,omitempty"`
	SubscriptionID string     `json:"subscriptionId,omitempty"`
	CreatedAt      *time.Time `json:"createdAt"`
	SettledAt      *time.Time `json:"settledAt,omitempty"`
	ExpiresAt      *time.Time `json:"expiresAt"`
	scheduled
}

func operationOf(op *store.Operation) operation {
	// What cannot be decoded is left out: it is in the audit log all the same.
	schedules, _ := scheduledOf(op)
	o := operation{
		ID: op.ID, Action: string(op.Action), Status: statusWord(op.Status), Settled: op.Status.Settled(),
		UserID: op.ClerkUserID, SubscriptionID: op.SubscriptionID, CreatedAt: moment(op.CreatedAt), ExpiresAt: moment(op.ExpiresAt), scheduled: schedules,
	}
	if o.Settled {
		o.Reason = op.Reason
	}
	if op.SettledAt != nil {
		o.SettledAt = moment(*op.SettledAt)
	}
	return o
}

// auditEntry is a line of the audit log as callers see it.
type auditEntry struct {
	ID          int64          `json:"id"`
	At          time.Time      `json:"at"`
	Action      string         `json:"action"`
	UserID      string         `json:"userId,omitempty"`
	Entity      string         `json:"entity"`
	Subject     string         `json:"subject"`
	Before      map[string]any `json:"before,omitempty"`
	After       map[string]any `json:"after,omitempty"`
	EventIDs    []string       `json:"eventIds,omitempty"`
	Caller      string         `json:"caller,omitempty"`
	OperationID string         `json:"operationId,omitempty"`
}

func auditEntryOf(l store.AuditLine) auditEntry {
	return auditEntry{ID: l.ID, At: l.At.UTC(), Action: l.Action, UserID: l.ClerkUserID, Entity: l.Entity, Subject: l.Subject,
		Before: l.Before, After: l.After, EventIDs: l.EventIDs, Caller: l.Caller, OperationID: l.OperationID}
}

// moment is a time in UTC, nil for none.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
