package store

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

// Action is what an operation does.
type Action string

// The actions. Cancel, cancel now and reactivate are an [account.Command] each.
const (
	ActionSync       Action = "sync"
	ActionCancel     Action = Action(account.CommandCancel)
	ActionCancelNow  Action = Action(account.CommandCancelNow)
	ActionReactivate Action = Action(account.CommandReactivate)
	ActionCheckout   Action = "checkout"
	ActionReturn     Action = "return"
	ActionPortal     Action = "portal"
)

// Command is the command that an action is.
func (a Action) Command() account.Command { return account.Command(a) }

// OperationStatus is how far an operation has come.
type OperationStatus string

// The statuses of an operation.
const (
	// OperationAccepted: committed; nothing was done yet.
	OperationAccepted OperationStatus = "accepted"
	// OperationActing: Stripe is being asked; the outcome is not known.
	OperationActing OperationStatus = "acting"
	// OperationRecorded: done at Stripe and in PostgreSQL; Clerk may not know it yet.
	OperationRecorded OperationStatus = "recorded"
	// OperationDone: done in all three.
	OperationDone OperationStatus = "done"
	// OperationRefused: the state does not allow it; nothing was done. The reason says why.
	OperationRefused OperationStatus = "refused"
	// OperationFailed: a provider refuses it for good; nothing was done.
	OperationFailed OperationStatus = "failed"
	// OperationUndone: Clerk refused it for good; Stripe and PostgreSQL are as before.
	OperationUndone OperationStatus = "undone"
	// OperationSuperseded: somebody else changed the same thing since; it is as they want it.
	OperationSuperseded OperationStatus = "superseded"
	// OperationExpired: its time ran out before anything was done.
	OperationExpired OperationStatus = "expired"
)

// Settled tells whether an operation of this status has ended.
func (s OperationStatus) Settled() bool {
	return s != OperationAccepted && s != OperationActing && s != OperationRecorded
}

// Operation is a row of operations.
type Operation struct {
	ID             string          `db:"id"`
	RequestHash    []byte          `db:"request_hash"`
	Caller         string          `db:"caller"`
	Action         Action          `db:"action"`
	ClerkUserID    string          `db:"clerk_user_id"`
	Entity         account.Entity  `db:"entity"`
	SubscriptionID string          `db:"stripe_subscription_id"`
	SessionID      string          `db:"stripe_session_id"`
	Seq            int64           `db:"seq"`
	Status         OperationStatus `db:"status"`
	Reason         string          `db:"reason"`
	StatusBefore   account.Status  `db:"status_before"`
	BeforeJSON     []byte          `db:"ending_before"`
	LeftJSON       []byte          `db:"ending_left"`
	// ReleaseSchedule is the schedule that managed the subscription when the operation began to act.
	ReleaseSchedule string `db:"release_schedule"`
	// DroppedJSON is set once that schedule was to be released: the phases that it loses with that.
	DroppedJSON []byte `db:"dropped_phases"`
	// OtherSchedules are those of the same customer that a command leaves alone, as far as events and
	// lists have told.
	OtherSchedules []string `db:"other_schedules"`
	// OutdoneBy is what was asked for the same subscription later, of several the last, and is done,
	// or is being done and something else, where this command has not ended; "" where there is none.
	// Commands that are asked for within five seconds have no order: each is done in the order in
	// which the workflow receives them, which is that in which they begin to act.
	OutdoneBy Action `db:"outdone_by"`
	// LaterDone is the same whenever it was asked for, for one of which it is known that it gave way.
	LaterDone   Action     `db:"later_done"`
	Reversible  bool       `db:"reversible"`
	ActingSince *time.Time `db:"acting_since"`
	CreatedAt   time.Time  `db:"created_at"`
	ExpiresAt   time.Time  `db:"expires_at"`
	SettledAt   *time.Time `db:"settled_at"`
}

// laterDone are those that were asked for the same subscription later than an operation that has
// not ended, and are done, or are being done and ask for something else.
const laterDone = `FROM operations later WHERE operations.status IN ('accepted', 'acting')
	AND later.stripe_subscription_id = operations.stripe_subscription_id AND later.seq > operations.seq
	AND later.status IN ('acting', 'recorded', 'done') AND later.action IN ('cancel', 'cancel_now', 'reactivate')
	AND (later.status <> 'acting' OR later.action <> operations.action)`

const operationColumns = `id, request_hash, caller, action, clerk_user_id, entity, coalesce(stripe_subscription_id, '') AS stripe_subscription_id,
	coalesce(stripe_session_id, '') AS stripe_session_id, seq, status, coalesce(reason, '') AS reason,
	coalesce(status_before, '') AS status_before, ending_before,
	ending_left, coalesce(release_schedule, '') AS release_schedule, reversible, acting_since, created_at, expires_at, settled_at,
	dropped_phases, coalesce((SELECT later.action ` + laterDone + ` AND (operations.acting_since < coalesce(later.acting_since, later.settled_at)
		OR later.created_at > operations.created_at + interval '5 seconds') ORDER BY later.seq DESC LIMIT 1), '') AS outdone_by,
	coalesce((SELECT later.action ` + laterDone + ` ORDER BY later.seq DESC LIMIT 1), '') AS later_done, ` + otherSchedules

// Before is how the subscription was set to end before the operation's step.
func (o *Operation) Before() (account.Ending, error) { return endingOf(o.BeforeJSON) }

// Left is how the operation's step left it.
func (o *Operation) Left() (account.Ending, error) { return endingOf(o.LeftJSON) }

// NotRecorded is why an operation came to nothing that our own database refuses to store. While the
// operation is acting it says that what Stripe has done is being taken back.
const NotRecorded = "not_recorded"

// NotPublished is why an operation was undone that Clerk refuses for good. While the operation is
// recorded it says that it is being undone.
const NotPublished = "not_published"

// TakenBack tells whether what Stripe has done for an operation is being taken back, because our
// own database refuses it, or Clerk does.
func (o *Operation) TakenBack() bool {
	return o.Status == OperationActing && o.Reason == NotRecorded || o.Status == OperationRecorded && o.Reason == NotPublished
}

// Dropped are the phases of the schedule that the operation was about to release, or has.
func (o *Operation) Dropped() ([]account.Phase, error) {
	if len(o.DroppedJSON) == 0 {
		return nil, nil
	}
	phases := []account.Phase{}
	if err := json.Unmarshal(o.DroppedJSON, &phases); err != nil {
		return nil, fmt.Errorf("decoding the phases of a schedule: %w", err)
	}
	return phases, nil
}

func endingOf(raw []byte) (account.Ending, error) {
	var e account.Ending
	if len(raw) == 0 {
		return e, nil
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		return e, fmt.Errorf("decoding how a subscription ends: %w", err)
	}
	return e, nil
}

// NewOperation is a request on its way into the table.
type NewOperation struct {
	// ID is from [NewOperationID]. The same again begins the same operation.
	ID string
	// KeyHash is nil where the caller gave no key.
	KeyHash        []byte
	RequestHash    []byte
	Caller         string
	Action         Action
	ClerkUserID    string
	Entity         account.Entity
	SubscriptionID string
	SessionID      string
	// Lifetime is how long the same key means the same operation, and how long it may take to begin.
	Lifetime time.Duration
}

// operationRetry is how long an operation is left to the request that began it before the sweep
// pokes its workflow.
const operationRetry = 5 * time.Second

// operationPrefix is how the ids of operations begin; letters and digits follow.
const operationPrefix = "op_"

// ValidOperationID tells whether a text has the form of an operation's id.
func ValidOperationID(id string) bool {
	rest, ok := strings.CutPrefix(id, operationPrefix)
	return ok && rest != "" && len(rest) <= 100 && strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

// NewOperationID makes an id up. It is not made from the caller's key: a workflow remembers an
// update's id for as long as a run lasts, which may be longer than a key is kept.
func NewOperationID() string { return operationPrefix + strings.ToLower(rand.Text()) }

// CommitUnknown is the code of the failure of a commit whose outcome is not known: it was sent, and
// no answer came.
const CommitUnknown = "commit_unknown"

// BeginOperation commits a request, and answers it; or, where the same key has been used within its
// lifetime, the operation that it began. The caller compares the request hashes.
//
// A failure of the code [CommitUnknown] may have begun the operation. Beginning it again, with the
// same id, tells.
func (s *Store) BeginOperation(ctx context.Context, n NewOperation) (op *Operation, isNew bool, err error) {
	if n.ID == "" {
		n.ID = NewOperationID()
	}
	sent := false
	err = s.Update(ctx, "begin an operation", Cause{}, func(ctx context.Context, tx *Tx) error {
		sent = false
		if n.KeyHash != nil {
			if err := tx.tx.Later(ctx, "free an expired key", `UPDATE operations SET key_hash = NULL WHERE key_hash = $1 AND expires_at <= now()`, n.KeyHash); err != nil {
				return err
			}
		}
		_, err := tx.tx.Exec(ctx, `INSERT INTO operations (id, key_hash, request_hash, caller, action, clerk_user_id, entity, stripe_subscription_id,
				stripe_session_id, expires_at, retry_at)
			VALUES ($1,$2,$3,$4,$5,$6,$7,nullif($8,''),nullif($9,''),now() + $10::interval, now() + $11::interval)
			ON CONFLICT DO NOTHING`, n.ID, n.KeyHash, n.RequestHash, n.Caller, string(n.Action), n.ClerkUserID, string(n.Entity),
			n.SubscriptionID, n.SessionID, n.Lifetime, operationRetry)
		if err != nil {
			return classify("begin an operation", err)
		}
		rows, _ := tx.tx.Query(ctx, `SELECT `+operationColumns+` FROM operations WHERE id = $1`, n.ID)
		if op, err = oneOperation("begin an operation", rows); err == nil && op == nil {
			rows, _ = tx.tx.Query(ctx, `SELECT `+operationColumns+` FROM operations WHERE key_hash = $1`, n.KeyHash)
			op, err = oneOperation("begin an operation", rows)
		}
		if err == nil && op == nil {
			return failure.New(failure.Transient, "postgres", "begin an operation", "expired_meanwhile", nil)
		}
		sent = err == nil
		return err
	})
	if refused := (*pgconn.PgError)(nil); err != nil && sent && !errors.As(err, &refused) {
		err = failure.New(failure.Transient, "postgres", "begin an operation", CommitUnknown, err)
	}
	return op, err == nil && op.ID == n.ID, err
}

// Operation reads an operation, or nil where there is none. One that only waits for something to be
// seen is settled if it can be seen by now.
func (s *Store) Operation(ctx context.Context, id string) (*Operation, error) {
	if err := s.settleSeen(ctx, s.pool, `o.id = $1`, id); err != nil {
		return nil, err
	}
	rows, _ := s.pool.Query(ctx, `SELECT `+operationColumns+` FROM operations WHERE id = $1`, id)
	return oneOperation("read an operation", rows)
}

// settleSeen ends those of some operations that only wait for something to be seen, where it can be
// seen by now. Nothing is written where there are none. A sync waits as well for the customers that
// are about to become the user's.
func (s *Store) settleSeen(ctx context.Context, q executor, which string, argument any) error {
	const of = ` AND o.status = 'accepted' AND o.action IN ('sync', 'return') AND u.clerk_user_id = o.clerk_user_id AND ` + seen
	rows, _ := q.Query(ctx, `SELECT o.id, u.clerk_user_id, CASE o.action WHEN 'sync' THEN ARRAY(`+s.unlinkedClaimed("u.clerk_user_id")+`) ELSE '{}' END
		FROM operations o, person_user u WHERE `+which+of, argument)
	shown, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct {
		ID, ClerkUserID string
		Named           []string
	}])
	if err != nil {
		return classify("look whether an operation is done", err)
	}
	var done []string
	for _, o := range shown {
		if toLink, err := s.theirs(ctx, q, o.ClerkUserID, o.Named); err != nil {
			return err
		} else if len(toLink) == 0 {
			done = append(done, o.ID)
		}
	}
	if len(done) == 0 {
		return nil
	}
	_, err = q.Exec(ctx, `UPDATE operations o SET status = 'done', settled_at = now(), retry_at = NULL FROM person_user u WHERE o.id = ANY($1)`+of, done)
	return classify("end what was waited for", err)
}

// seen holds of an operation o and its user u once both providers have been read since the request,
// and Clerk has what came of it: for a sync the user and all of their linked customers, each of
// them whole, for a return from a checkout the subscription that it names, whatever else of the
// customer could not be read, or where it names none the customer who paid, whole. A customer that
// a read begun since has shown to be missing is not waited for. A subscription that is not paid yet
// is waited for as long as returnWaits, since Stripe's session says that it is.
const seen = `u.projection_version = u.published_version AND u.repair_seq IS NULL AND u.projection_version > 0 AND CASE o.action
	WHEN 'sync' THEN u.read_seq > o.seq AND EXISTS (SELECT FROM stripe_customers p WHERE p.stripe_customer_id = u.stripe_customer_id AND p.user_id = u.id)
		AND NOT EXISTS (SELECT FROM stripe_customers c
		WHERE c.user_id = u.id AND NOT c.deleted_in_stripe
			AND (c.missing_since IS NULL OR c.missing_read_at IS NULL OR c.missing_read_at <= o.created_at)
			AND (coalesce(c.whole_read_seq, c.read_seq) <= o.seq OR c.profile_version < u.profile_version))
	ELSE EXISTS (SELECT FROM stripe_customers c WHERE 'customer/' || c.stripe_customer_id = o.entity AND c.user_id = u.id AND CASE
		WHEN o.stripe_subscription_id IS NULL THEN coalesce(c.whole_read_seq, c.read_seq) > o.seq
		ELSE EXISTS (SELECT FROM subscriptions s WHERE s.stripe_subscription_id = o.stripe_subscription_id AND s.stripe_customer_id = c.stripe_customer_id
			AND s.user_id = u.id AND coalesce(s.kept_read_seq, c.read_seq) > o.seq
			AND (s.status <> 'incomplete' OR o.created_at <= now() - interval '` + returnWaits + `')) END)
	END`

// LockOperation locks an operation until the transaction ends, or answers nil where there is none.
// It is locked after its user and customer.
func (t *Tx) LockOperation(ctx context.Context, id string) (*Operation, error) {
	rows, _ := t.tx.Query(ctx, `SELECT `+operationColumns+` FROM operations WHERE id = $1 FOR UPDATE`, id)
	return oneOperation("lock an operation", rows)
}

// Rivals lists and locks the other commands of a subscription whose late requests would undo what
// this one is about to do: those that act and ask for something else, and those that are being
// undone. The oldest comes first.
func (t *Tx) Rivals(ctx context.Context, o *Operation) ([]*Operation, error) {
	return t.commandsBeside(ctx, "list rival operations", o,
		`(status = 'acting' AND (action <> $3 OR reason = 'not_recorded') OR status = 'recorded' AND reason = 'not_published')`)
}

// Reliant lists and locks the other commands of a subscription that have asked for the same, have
// it, and wait for Clerk. The oldest comes first. Those with a command between that asked for
// something else do not rely on this one: that command has changed what they did.
func (t *Tx) Reliant(ctx context.Context, o *Operation) ([]*Operation, error) {
	return t.commandsBeside(ctx, "list reliant operations", o, `status = 'recorded' AND action = $3
		AND NOT EXISTS (SELECT FROM operations other WHERE other.stripe_subscription_id = $1 AND other.action IN ('cancel', 'cancel_now', 'reactivate')
			AND other.action <> $3 AND other.status IN ('acting', 'recorded') AND other.seq BETWEEN least(operations.seq, $4) AND greatest(operations.seq, $4))`, o.Seq)
}

// commandsBeside lists and locks the commands under way beside another one for which a condition
// holds. The condition has the subscription as $1, the other command's id and action as $2 and $3,
// and its own arguments from $4 on.
func (t *Tx) commandsBeside(ctx context.Context, what string, o *Operation, condition string, arguments ...any) ([]*Operation, error) {
	rows, _ := t.tx.Query(ctx, `SELECT `+operationColumns+` FROM operations WHERE stripe_subscription_id = $1 AND id <> $2
			AND status IN ('acting', 'recorded') AND action IN ('cancel', 'cancel_now', 'reactivate') AND `+condition+`
		ORDER BY seq FOR UPDATE`, append([]any{o.SubscriptionID, o.ID, string(o.Action)}, arguments...)...)
	list, err := pgx.CollectRows(rows, pgx.RowToAddrOfStructByName[Operation])
	return list, classify(what, err)
}

// ActOn notes that Stripe is about to be asked, and what there is to know for taking it back.
func (t *Tx) ActOn(ctx context.Context, o *Operation, before account.Subscription, d account.Decision) error {
	raw, err := json.Marshal(before.Ending())
	if err != nil {
		return fmt.Errorf("encoding how a subscription ends: %w", err)
	}
	o.Status, o.StatusBefore, o.BeforeJSON = OperationActing, before.Status, raw
	o.ReleaseSchedule, o.Reversible = d.ReleaseSchedule, d.Reversible(o.Action.Command())
	return t.tx.Later(ctx, "note that an operation acts", `UPDATE operations SET status = 'acting', status_before = $2, ending_before = $3, release_schedule = nullif($4, ''),
		reversible = $5, acting_since = now() WHERE id = $1`, o.ID, string(before.Status), raw, d.ReleaseSchedule, o.Reversible)
}

// Undoing notes that a recorded command is about to be undone. From then on no publish marks a
// command of its subscription done: another may rely on what is undone.
func (t *Tx) Undoing(ctx context.Context, o *Operation) error {
	o.Reason = NotPublished
	return t.tx.Later(ctx, "note that an operation is undone", `UPDATE operations SET reason = $2 WHERE id = $1 AND status = 'recorded'`, o.ID, NotPublished)
}

// Stays notes that a recorded command cannot be undone, since Stripe refuses that for good. It goes
// forward.
func (t *Tx) Stays(ctx context.Context, o *Operation) error {
	o.Reason, o.Reversible = "", false
	return t.tx.Later(ctx, "note that an operation stays", `UPDATE operations SET reason = NULL, reversible = false WHERE id = $1 AND status = 'recorded'`, o.ID)
}

// TakeBack notes that what Stripe has done for an operation is about to be taken back, and how it
// left the subscription.
func (s *Store) TakeBack(ctx context.Context, o *Operation, left account.Ending) error {
	raw, err := json.Marshal(left)
	if err != nil {
		return fmt.Errorf("encoding how a subscription ends: %w", err)
	}
	_, err = s.pool.Exec(ctx, `UPDATE operations SET reason = $2, ending_left = $3 WHERE id = $1 AND status = 'acting'`, o.ID, NotRecorded, raw)
	if err == nil {
		o.Reason, o.LeftJSON = NotRecorded, raw
	}
	return classify("note that an operation is taken back", err)
}

// RecordOperation notes that Stripe has confirmed an operation's step and that our rows show it. It
// is done where Clerk has nothing to be told; else it is done when Clerk has the user's projection
// of now.
func (t *Tx) RecordOperation(ctx context.Context, o *Operation, left account.Ending, u *User) error {
	raw, err := json.Marshal(left)
	if err != nil {
		return fmt.Errorf("encoding how a subscription ends: %w", err)
	}
	o.Status, o.Reason, o.LeftJSON = OperationRecorded, "", raw
	if !u.PublishDue() {
		o.Status = OperationDone
	}
	return t.tx.Later(ctx, "record an operation", `UPDATE operations SET status = $2, reason = NULL, ending_left = $3, projection_version = $4,
		settled_at = CASE WHEN $2 = 'done' THEN now() END, retry_at = CASE WHEN $2 = 'done' THEN NULL ELSE now() + $5::interval END
		WHERE id = $1`, o.ID, string(o.Status), raw, u.ProjectionVersion, sweepAfter)
}

// SettleOperation ends an operation.
func (t *Tx) SettleOperation(ctx context.Context, o *Operation, status OperationStatus, reason string) error {
	o.Status, o.Reason = status, reason
	return t.tx.Later(ctx, "settle an operation", `UPDATE operations SET status = $2, reason = nullif($3, ''), settled_at = now(), retry_at = NULL WHERE id = $1`,
		o.ID, string(status), reason)
}

// SettleOperation is [Tx.SettleOperation] in a transaction of its own, with a line of audit. It
// does nothing where the operation has ended.
func (s *Store) SettleOperation(ctx context.Context, id string, status OperationStatus, reason string) error {
	return s.Update(ctx, "settle an operation", Cause{}, func(ctx context.Context, tx *Tx) error {
		o, err := tx.LockOperation(ctx, id)
		if err != nil || o == nil || o.Status.Settled() {
			return err
		}
		return tx.settle(ctx, o, status, reason)
	})
}

// NoteRelease notes, before Stripe is asked to, that the schedule which manages an operation's
// subscription is to be released, and which phases are dropped with that, beside those of another
// one that was to be released before. What was done cannot be taken back from then on.
func (s *Store) NoteRelease(ctx context.Context, o *Operation, schedule string, dropped []account.Phase) error {
	if dropped == nil {
		dropped = []account.Phase{} // there are none, which is not that none was released
	}
	raw, err := json.Marshal(dropped)
	if err != nil {
		return fmt.Errorf("encoding the phases of a schedule: %w", err)
	}
	err = s.pool.QueryRow(ctx, `UPDATE operations SET release_schedule = $2, reversible = false,
			dropped_phases = CASE WHEN release_schedule = $2 THEN coalesce(dropped_phases, $3) ELSE coalesce(dropped_phases, '[]') || $3 END
		WHERE id = $1 RETURNING release_schedule, dropped_phases`, o.ID, schedule, raw).Scan(&o.ReleaseSchedule, &o.DroppedJSON)
	o.Reversible = o.Reversible && err != nil
	return classify("note that a schedule is to be released", err)
}

// ForgetRelease forgets, when an operation is recorded or ends, that its schedule was to be
// released: it never was.
func (t *Tx) ForgetRelease(ctx context.Context, o *Operation) error {
	o.DroppedJSON = nil
	return t.tx.Later(ctx, "forget that a schedule was to be released", `UPDATE operations SET dropped_phases = NULL WHERE id = $1`, o.ID)
}

// Because makes an operation the cause of what this transaction changes from here on.
func (t *Tx) Because(o *Operation) { t.why.Caller, t.why.OperationID = o.Caller, o.ID }

// AuditOperation writes what became of a command into the audit log: what the subscription was,
// what it is, and how the operation stands. The caller has called [Tx.Because].
func (t *Tx) AuditOperation(ctx context.Context, o *Operation, before, after *account.Subscription) error {
	entry := Entry{Action: "operation." + string(o.Action), Entity: o.Entity, Subject: o.SubscriptionID, Before: endOf(before), After: endOf(after)}
	if entry.Subject == "" {
		entry.Subject = o.ClerkUserID
	}
	if entry.After == nil {
		entry.After = map[string]any{}
	}
	entry.After["outcome"] = string(o.Status)
	if o.Reason != "" {
		entry.After["reason"] = o.Reason
	}
	if o.ReleaseSchedule != "" && after != nil {
		entry.After["schedule"] = o.ReleaseSchedule
	}
	dropped, err := o.Dropped()
	if err != nil {
		return err
	}
	if dropped != nil {
		entry.After["schedule_released"], entry.After["dropped_phases"] = o.ReleaseSchedule, dropped
	}
	rows, _ := t.tx.Query(ctx, `SELECT `+userColumns+` FROM person_user WHERE clerk_user_id = $1`, o.ClerkUserID)
	user, err := oneUser("read a user", rows)
	if err != nil {
		return err
	}
	entry.User = user
	return t.Audit(ctx, entry)
}

func endOf(s *account.Subscription) map[string]any {
	if s == nil {
		return nil
	}
	m := map[string]any{"status": string(s.Status), "cancel_at_period_end": s.CancelAtPeriodEnd}
	if at := s.Ending().At; !at.IsZero() {
		m["cancel_at"] = at.UTC().Format(time.RFC3339)
	}
	return m
}

// Unsettled is what has not ended of what was asked for of a customer or of their user.
type Unsettled struct {
	// Commands are the ids of the customer's commands.
	Commands []string
	// Awaited is set where somebody waits for any of it.
	Awaited bool
	// Returning is set where somebody has come back from a checkout within the last half minute.
	Returning bool
}

// UnsettledOperations tells what has not ended of what was asked for of a customer or of their
// user.
func (t *Tx) UnsettledOperations(ctx context.Context, customer, user account.Entity) (u Unsettled, err error) {
	rows, _ := t.tx.Query(ctx, `SELECT id, action, created_at > now() - interval '2 minutes', created_at > now() - $3::interval FROM operations
		WHERE entity = ANY(ARRAY[$1::text, $2::text]) AND status IN ('accepted', 'acting', 'recorded') ORDER BY seq`, string(customer), string(user), returnWaits)
	var id string
	var action Action
	var young, justNow bool
	_, err = pgx.ForEachRow(rows, []any{&id, &action, &young, &justNow}, func() error {
		switch action {
		case ActionCancel, ActionCancelNow, ActionReactivate:
			u.Commands = append(u.Commands, id)
			u.Awaited = u.Awaited || young
		case ActionSync, ActionReturn:
			u.Awaited = u.Awaited || young
			u.Returning = u.Returning || action == ActionReturn && justNow
		case ActionCheckout, ActionPortal:
		}
		return nil
	})
	return u, classify("list unsettled operations", err)
}

// settlePublished ends the commands that only waited for Clerk to have this version.
func (t *Tx) settlePublished(ctx context.Context, clerkUserID string, version int64) error {
	return t.tx.Later(ctx, "settle published operations", `UPDATE operations SET status = 'done', settled_at = now(), retry_at = NULL
		WHERE clerk_user_id = $1 AND status = 'recorded' AND projection_version <= $2
		AND NOT EXISTS (SELECT FROM operations undone WHERE undone.stripe_subscription_id = operations.stripe_subscription_id
			AND undone.status = 'recorded' AND undone.reason = 'not_published' AND undone.action IN ('cancel', 'cancel_now', 'reactivate'))`, clerkUserID, version)
}

// SettleUnpublishable ends what waits for a user whom Clerk does not have, as a read of this number
// has shown: what was asked for of their customers before, and commands that only waited for Clerk,
// since there is no third system to bring anything to. The caller has locked the user.
func (t *Tx) SettleUnpublishable(ctx context.Context, u *User, read int64) error {
	customers, err := t.CustomersOf(ctx, u)
	if err != nil {
		return err
	}
	for _, c := range customers {
		if err := t.EndWaits(ctx, account.CustomerEntity(c.ID), read, NoSuchUser); err != nil {
			return err
		}
	}
	return t.settlePublished(ctx, u.ClerkUserID, u.ProjectionVersion)
}

// Awaited tells whether anything has not ended of what was asked for of a user or their customers.
func (s *Store) Awaited(ctx context.Context, clerkUserID string) (awaited bool, err error) {
	err = s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM operations WHERE status IN ('accepted', 'acting', 'recorded')
		AND entity = ANY(ARRAY['user/' || $1::text] || ARRAY(SELECT 'customer/' || c.stripe_customer_id FROM stripe_customers c
			JOIN person_user u ON u.id = c.user_id WHERE u.clerk_user_id = $1::text)))`, clerkUserID).Scan(&awaited)
	return awaited, classify("look for who waits", err)
}

// Why what only waits for something to be seen has failed: the provider says that it does not have
// it.
const (
	NoSuchUser     = "user_not_found"
	NoSuchCustomer = "customer_not_found"
)

// EndWaits ends what only waits for an entity to be read that its provider does not have, as a read
// of that number has shown. What was asked for after that read began goes on waiting.
func (t *Tx) EndWaits(ctx context.Context, entity account.Entity, read int64, reason string) error {
	return t.endWaits(ctx, entity, read, reason, "0")
}

// returnWaits is for how long a return from a checkout waits for a customer who does not show, or
// for a subscription that is not shown as paid: Stripe has said to the caller that it is.
const returnWaits = "30 seconds"

// EndCustomerWaits is [Tx.EndWaits] for a customer. waits tells whether a return from a checkout
// goes on waiting, for half a minute at most.
func (t *Tx) EndCustomerWaits(ctx context.Context, customerID string, read int64) (waits bool, err error) {
	entity := account.CustomerEntity(customerID)
	if err := t.endWaits(ctx, entity, read, NoSuchCustomer, returnWaits); err != nil {
		return false, err
	}
	err = t.tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM operations WHERE entity = $1 AND status = 'accepted' AND action = 'return')`, string(entity)).Scan(&waits)
	return waits, classify("look for who waits", err)
}

func (t *Tx) endWaits(ctx context.Context, entity account.Entity, read int64, reason, returnsFor string) error {
	return t.tx.Later(ctx, "end waits", `UPDATE operations SET status = 'failed', reason = $3, settled_at = now(), retry_at = NULL
		WHERE entity = $1 AND status = 'accepted' AND seq < $2 AND (action = 'sync' OR action = 'return' AND created_at <= now() - $4::interval)`,
		string(entity), read, reason, returnsFor)
}

// Interrupted is why an operation failed that was to open something, if the request which was to open
// it has ended before that was known: nobody else does it. Who asks again under its key goes on with
// it.
const Interrupted = "interrupted"

// openedWithin is longer than a request takes to open something.
const openedWithin = 2 * time.Minute

// sweepOperations ends those that only wait for something to be read that was, where nobody has
// asked since, and those that a request has left, pokes the workflows of operations that have not
// ended long after they were asked for, and gives up on those that nobody began in time.
func (t *Tx) sweepOperations(ctx context.Context, limit int, jobs map[account.Entity]account.Job) error {
	if err := t.store.settleSeen(ctx, t.tx, `o.id = ANY(ARRAY(SELECT id FROM operations WHERE status IN ('accepted', 'acting', 'recorded') AND retry_at <= now()
			ORDER BY retry_at LIMIT $1 FOR UPDATE SKIP LOCKED))`, limit); err != nil {
		return err
	}
	rows, _ := t.tx.Query(ctx, `UPDATE operations SET retry_at = now() + least(interval '1 hour', greatest(interval '30 seconds', (now() - created_at) / 2))
		WHERE id = ANY(ARRAY(SELECT id FROM operations WHERE status IN ('accepted', 'acting', 'recorded') AND retry_at <= now()
			ORDER BY retry_at LIMIT $1 FOR UPDATE SKIP LOCKED))
		RETURNING entity, action, status, expires_at <= now() AS expired, id, ARRAY(SELECT 'customer/' || c.stripe_customer_id FROM stripe_customers c
			JOIN person_user u ON u.id = c.user_id WHERE action = 'sync' AND u.clerk_user_id = operations.clerk_user_id AND NOT c.deleted_in_stripe) AS customers,
		action IN ('checkout', 'portal') AND created_at < now() - $2::interval AND NOT EXISTS (SELECT FROM checkout_leases l
			JOIN person_user u ON u.id = l.user_id WHERE u.clerk_user_id = operations.clerk_user_id AND l.until > now()) AS alone`, limit, openedWithin)
	due, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct {
		Entity  account.Entity
		Action  Action
		Status  OperationStatus
		Expired bool
		ID      string
		// Customers are those that a sync is of, beside the user.
		Customers []account.Entity
		// Alone is set where it is opened by the request itself, which has ended.
		Alone bool
	}])
	if err != nil {
		return classify("sweep operations", err)
	}
	for _, d := range due {
		if d.Expired && d.Status == OperationAccepted {
			if err := t.SettleOperation(ctx, &Operation{ID: d.ID}, OperationExpired, "not begun in time"); err != nil {
				return err
			}
			continue
		}
		if d.Alone {
			if err := t.SettleOperation(ctx, &Operation{ID: d.ID}, OperationFailed, Interrupted); err != nil {
				return err
			}
			continue
		}
		if d.Action != ActionCheckout && d.Action != ActionPortal {
			for _, entity := range append(d.Customers, d.Entity) {
				jobs[entity] = max(jobs[entity], account.JobSync)
			}
		}
	}
	return nil
}

// ForgetOperations removes operations that have ended and whose key means nothing any more.
func (s *Store) ForgetOperations(ctx context.Context, limit int) (int64, error) {
	tag, err := s.pool.Exec(ctx, `DELETE FROM operations WHERE id = ANY(ARRAY(SELECT id FROM operations
		WHERE status NOT IN ('accepted', 'acting', 'recorded') AND expires_at < now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED))`, limit)
	return tag.RowsAffected(), classify("forget operations", err)
}

// settle ends an operation, with a line of audit.
func (t *Tx) settle(ctx context.Context, o *Operation, status OperationStatus, reason string) error {
	if err := t.SettleOperation(ctx, o, status, reason); err != nil {
		return err
	}
	t.Because(o)
	return t.AuditOperation(ctx, o, nil, nil)
}

func oneOperation(operation string, rows pgx.Rows) (*Operation, error) {
	o, err := pgx.CollectOneRow(rows, pgx.RowToAddrOfStructByName[Operation])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return o, classify(operation, err)
}

// Unsettled lists the operations of these entities that have not ended, the oldest first.
func (s *Store) Unsettled(ctx context.Context, entities []account.Entity) ([]Operation, error) {
	names := make([]string, len(entities))
	for i, e := range entities {
		names[i] = string(e)
	}
	rows, _ := s.pool.Query(ctx, `SELECT `+operationColumns+` FROM operations WHERE entity = ANY($1) AND status IN ('accepted', 'acting', 'recorded') ORDER BY seq`, names)
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[Operation])
	return list, classify("list unsettled operations", err)
}
