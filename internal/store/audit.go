package store

import (
	"context"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// Entry is one line of the audit log: what was changed, from what, to what, and why. The
// database refuses to change or remove a line. Personal values never stand in one.
type Entry struct {
	// Action is a stable name such as "subscription.changed".
	Action  string
	User    *User // nil where no user is known
	Entity  account.Entity
	Subject string // the id of what changed
	Before  map[string]any
	After   map[string]any
	// EventIDs are the events that caused it, if any.
	EventIDs []string
}

// Audit writes a line into the audit log, in the transaction of the change.
func (t *Tx) Audit(ctx context.Context, e Entry) error {
	var userID, clerkUserID *string
	if e.User != nil {
		userID, clerkUserID = &e.User.ID, &e.User.ClerkUserID
	}
	if e.EventIDs == nil {
		e.EventIDs = []string{}
	}
	return t.tx.Later(ctx, "write the audit log", `INSERT INTO audit_log (action, user_id, clerk_user_id, entity, subject, before, after, event_ids, caller, operation_id, workflow_id, run_id)
		VALUES ($1,$2,$3,$4,$5,$6,$7,$8,nullif($9,''),nullif($10,''),nullif($11,''),nullif($12,''))`,
		e.Action, userID, clerkUserID, string(e.Entity), e.Subject, nullMap(e.Before), nullMap(e.After), e.EventIDs,
		t.why.Caller, t.why.OperationID, t.why.WorkflowID, t.why.RunID)
}

func nullMap(m map[string]any) any {
	if len(m) == 0 {
		return nil
	}
	return m
}

// AuditLine is a line of the audit log.
type AuditLine struct {
	ID          int64          `db:"id"`
	At          time.Time      `db:"at"`
	Action      string         `db:"action"`
	ClerkUserID string         `db:"clerk_user_id"`
	Entity      string         `db:"entity"`
	Subject     string         `db:"subject"`
	Before      map[string]any `db:"before"`
	After       map[string]any `db:"after"`
	EventIDs    []string       `db:"event_ids"`
	Caller      string         `db:"caller"`
	OperationID string         `db:"operation_id"`
	WorkflowID  string         `db:"workflow_id"`
}

const auditColumns = `id, at, action, coalesce(clerk_user_id, '') AS clerk_user_id, entity, subject, before, after, event_ids,
	coalesce(caller, '') AS caller, coalesce(operation_id, '') AS operation_id, coalesce(workflow_id, '') AS workflow_id`

// AuditOfUser lists what was changed about a user, the newest first, of the lines before one: those
// with a lower id, or all with 0.
func (s *Store) AuditOfUser(ctx context.Context, u *User, before int64, limit int) ([]AuditLine, error) {
	rows, _ := s.pool.Query(ctx, `SELECT `+auditColumns+` FROM audit_log WHERE user_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3`, u.ID, orLast(before), limit)
	lines, err := pgx.CollectRows(rows, pgx.RowToStructByName[AuditLine])
	return lines, classify("read the audit log", err)
}

// Audit lists everything that was changed, as [Store.AuditOfUser] does.
func (s *Store) Audit(ctx context.Context, before int64, limit int) ([]AuditLine, error) {
	rows, _ := s.pool.Query(ctx, `SELECT `+auditColumns+` FROM audit_log WHERE id < $1 ORDER BY id DESC LIMIT $2`, orLast(before), limit)
	lines, err := pgx.CollectRows(rows, pgx.RowToStructByName[AuditLine])
	return lines, classify("read the audit log", err)
}

func orLast(id int64) int64 {
	if id <= 0 {
		return math.MaxInt64
	}
	return id
}
