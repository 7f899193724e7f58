package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// EventFilter chooses events of the inbox. What is left out chooses nothing; the rest has to hold
// together.
type EventFilter struct {
	Source string
	// IDs are the providers' ids of events.
	IDs []string
	// Type is an event type, or the beginning of some with a * behind it.
	Type string
	// Entities are whom the events are about.
	Entities []account.Entity
	Statuses []EventStatus
	// Since and Until bound when the events were received: from the one until before the other.
	Since, Until time.Time
	// Kept leaves out events whose payload is not kept any more.
	Kept bool
}

// Empty tells whether the filter chooses nothing in particular, and so everything.
func (f EventFilter) Empty() bool {
	return f.Source == "" && len(f.IDs) == 0 && f.Type == "" && len(f.Entities) == 0 && len(f.Statuses) == 0 && f.Since.IsZero() && f.Until.IsZero()
}

// Event is an event of the inbox, without its payload.
type Event struct {
	Source      string      `db:"source" json:"source"`
	EventID     string      `db:"event_id" json:"id"`
	Type        string      `db:"type" json:"type"`
	Entity      *string     `db:"entity" json:"entity"`
	Status      EventStatus `db:"status" json:"status"`
	Reason      *string     `db:"reason" json:"reason"`
	ReceivedAt  time.Time   `db:"received_at" json:"receivedAt"`
	CompletedAt *time.Time  `db:"completed_at" json:"completedAt"`
	// HeldSince is since when it waits or fails for its reason.
	HeldSince *time.Time `db:"held_since" json:"heldSince"`
	// RetryAt is when the sweep has it tried again by itself.
	RetryAt   *time.Time `db:"retry_at" json:"retryAt"`
	Attempts  int        `db:"attempts" json:"attempts"`
	Recovered bool       `db:"recovered" json:"recovered"`
	Replays   int        `db:"replays" json:"replays"`
	// Kept tells whether its payload is kept.
	Kept bool `db:"kept" json:"payloadKept"`
}

const eventColumns = `source, event_id, type, entity, status, reason, received_at, completed_at, held_since, retry_at, attempts, recovered, replays,
	payload IS NOT NULL AS kept`

// EventPlace is a place in the order of events, the newest first; zero is before all of them.
type EventPlace struct {
	ReceivedAt time.Time `json:"receivedAt,omitzero"`
	EventID    string    `json:"id,omitempty"`
}

// Events lists events, the newest first, behind a place.
func (s *Store) Events(ctx context.Context, f EventFilter, after EventPlace, limit int) ([]Event, error) {
	where, args := f.where(after)
	rows, _ := s.pool.Query(ctx, `SELECT `+eventColumns+` FROM webhook_events WHERE `+where+fmt.Sprintf(` ORDER BY received_at DESC, event_id LIMIT $%d`, len(args)+1),
		append(args, limit)...)
	events, err := pgx.CollectRows(rows, pgx.RowToStructByName[Event])
	return events, classify("list events", err)
}

// where is the filter as a condition. Every part of it is one of a few texts; what comes from
// outside is an argument. Statuses are written out, so that the planner knows that an index of what
// is due holds them.
func (f EventFilter) where(after EventPlace) (condition string, args []any) {
	var parts []string
	add := func(part string, values ...any) {
		for _, v := range values {
			args = append(args, v)
			part = strings.Replace(part, "?", fmt.Sprintf("$%d", len(args)), 1)
		}
		parts = append(parts, part)
	}
	switch {
	case f.Source != "":
		add(`source = ?`, f.Source)
	case len(f.IDs) > 0:
		add(`source IN ('clerk', 'stripe')`)
	}
	if len(f.IDs) > 0 {
		add(`event_id = ANY(?)`, f.IDs)
	}
	if prefix, some := strings.CutSuffix(f.Type, "*"); some {
		add(`starts_with(type, ?)`, prefix)
	} else if f.Type != "" {
		add(`type = ?`, f.Type)
	}
	if len(f.Entities) > 0 {
		names := make([]string, len(f.Entities))
		for i, e := range f.Entities {
			names[i] = string(e)
		}
		add(`entity = ANY(?)`, names)
	}
	if len(f.Statuses) > 0 {
		var known []string
		for _, status := range []EventStatus{EventPending, EventCompleted, EventIgnored, EventWaiting, EventFailing} {
			if slices.Contains(f.Statuses, status) {
				known = append(known, `'`+string(status)+`'`)
			}
		}
		add(`status IN (` + strings.Join(append(known, `''`), ", ") + `)`)
	}
	since := f.Since
	add(`received_at >= ?`, since.UTC())
	if !f.Until.IsZero() {
		add(`received_at < ?`, f.Until.UTC())
	}
	if !after.ReceivedAt.IsZero() {
		add(`(received_at < ? OR received_at = ? AND event_id > ?)`, after.ReceivedAt, after.ReceivedAt, after.EventID)
	}
	if f.Kept {
		parts = append(parts, `payload IS NOT NULL`)
	}
	return strings.Join(parts, " AND "), args
}

// Event reads one event, nil where there is none. payload is "" where it is not kept.
func (s *Store) Event(ctx context.Context, source, eventID string) (event *Event, payload string, err error) {
	type row struct {
		Event
		Payload string `db:"payload"`
	}
	rows, _ := s.pool.Query(ctx, `SELECT `+eventColumns+`, coalesce(payload, '') AS payload FROM webhook_events WHERE source = $1 AND event_id = $2`, source, eventID)
	found, err := pgx.CollectOneRow(rows, pgx.RowToStructByName[row])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", classify("read an event", err)
	}
	return &found.Event, found.Payload, nil
}

// RetryEvents has events that have not ended tried now, and answers how many of them had not.
func (s *Store) RetryEvents(ctx context.Context, events []Event, why Cause) (retried int, err error) {
	sources, ids := eventKeys(events)
	err = s.Update(ctx, "retry events", why, func(ctx context.Context, tx *Tx) error {
		rows, _ := tx.tx.Query(ctx, `UPDATE webhook_events e SET retry_at = now() + $3::interval FROM unnest($1::text[], $2::text[]) AS k (source, event_id)
			WHERE e.source = k.source AND e.event_id = k.event_id AND status IN ('pending', 'failing', 'waiting') RETURNING e.event_id, e.type, e.entity`,
			sources, ids, sweepAfter)
		due, err := pgx.CollectRows(rows, pgx.RowToStructByPos[again])
		if err != nil {
			return classify("retry events", err)
		}
		retried = len(due)
		return tx.takeAgain(ctx, "events.retried", due)
	})
	return retried, err
}

// Replay is an event that has ended and is to be taken again, with the evidence in it.
type Replay struct {
	Event
	Claims []account.Claim
}

// ReplayEvents has events that have ended, and whose payload is kept, taken again as if they had
// just been delivered, and answers how many of them that is true of. What they told is not applied
// again: their entity is read once more.
func (s *Store) ReplayEvents(ctx context.Context, replays []Replay, why Cause) (replayed int, err error) {
	events := make([]Event, len(replays))
	for i, r := range replays {
		events[i] = r.Event
	}
	sources, ids := eventKeys(events)
	err = s.Update(ctx, "replay events", why, func(ctx context.Context, tx *Tx) error {
		rows, _ := tx.tx.Query(ctx, `UPDATE webhook_events e SET status = 'pending', reason = NULL, held_since = NULL, completed_at = NULL, attempts = 0,
				seq = nextval('sync_seq'), replays = replays + 1, retry_at = now() + $3::interval
			FROM unnest($1::text[], $2::text[]) AS k (source, event_id)
			WHERE e.source = k.source AND e.event_id = k.event_id AND status IN ('completed', 'ignored') AND payload IS NOT NULL AND entity IS NOT NULL
			RETURNING e.event_id, e.type, e.entity`, sources, ids, sweepAfter)
		due, err := pgx.CollectRows(rows, pgx.RowToStructByPos[again])
		if err != nil {
			return classify("replay events", err)
		}
		taken := make(map[string]bool, len(due))
		for _, d := range due {
			taken[d.EventID] = true
		}
		var claims []claimOf
		for _, r := range replays {
			for _, c := range r.Claims {
				if taken[r.EventID] {
					claims = append(claims, claimOf{c, r.EventID})
				}
			}
		}
		if err := tx.addClaims(ctx, claims); err != nil {
			return err
		}
		replayed = len(due)
		return tx.takeAgain(ctx, "events.replayed", due)
	})
	return replayed, err
}

// again is an event that is to be taken again.
type again struct{ EventID, Type, Entity string }

// takeAgain has the entities of events poked, and writes a line of audit for each.
func (t *Tx) takeAgain(ctx context.Context, action string, events []again) error {
	jobs := map[account.Entity]account.Job{}
	ids := map[account.Entity][]string{}
	for _, e := range events {
		entity := account.Entity(e.Entity)
		jobs[entity] = max(jobs[entity], JobOf(e.Type))
		ids[entity] = append(ids[entity], e.EventID)
	}
	for entity, events := range ids {
		slices.Sort(events)
		_, subject := entity.Split()
		if err := t.Audit(ctx, Entry{Action: action, Entity: entity, Subject: subject, EventIDs: events}); err != nil {
			return err
		}
	}
	if err := t.poke(ctx, jobs, false, 0); err != nil {
		return err
	}
	return t.announce(ctx)
}

func eventKeys(events []Event) (sources, ids []string) {
	for _, e := range events {
		sources, ids = append(sources, e.Source), append(ids, e.EventID)
	}
	return sources, ids
}

// DriftFilter chooses open differences.
type DriftFilter struct {
	Class account.Drift // "" for all
	// Entities are those that they are about; none for all.
	Entities []account.Entity
}

// OpenDifference is a difference that is not resolved.
type OpenDifference struct {
	ID       int64          `db:"id" json:"id"`
	Class    account.Drift  `db:"class" json:"class"`
	Entity   account.Entity `db:"entity" json:"entity"`
	Subject  string         `db:"subject" json:"subject"`
	Detail   map[string]any `db:"detail" json:"detail"`
	SeenAt   time.Time      `db:"seen_at" json:"seenAt"`
	LastSeen time.Time      `db:"last_seen_at" json:"lastSeenAt"`
	// RunID is the comparison that met it last, nil where a sync did.
	RunID         *string    `db:"run_id" json:"runId"`
	RepairAskedAt *time.Time `db:"repair_asked_at" json:"repairAskedAt"`
}

const openDifferenceColumns = `id, class, entity, subject, detail, seen_at, last_seen_at, run_id, repair_asked_at`

// OpenDifferences lists open differences in the order in which they were found, behind the one
// named.
func (s *Store) OpenDifferences(ctx context.Context, f DriftFilter, after int64, limit int) ([]OpenDifference, error) {
	var rows pgx.Rows
	switch {
	case len(f.Entities) > 0:
		names := make([]string, len(f.Entities))
		for i, e := range f.Entities {
			names[i] = string(e)
		}
		rows, _ = s.pool.Query(ctx, `SELECT `+openDifferenceColumns+` FROM drift WHERE resolved_at IS NULL AND entity = ANY($1) AND id > $2 ORDER BY id LIMIT $3`, names, after, limit)
	case f.Class != "":
		rows, _ = s.pool.Query(ctx, `SELECT `+openDifferenceColumns+` FROM drift WHERE resolved_at IS NULL AND class = $1 AND id > $2 ORDER BY id LIMIT $3`, string(f.Class), after, limit)
	default:
		rows, _ = s.pool.Query(ctx, `SELECT `+openDifferenceColumns+` FROM drift WHERE resolved_at IS NULL AND id > $1 ORDER BY id LIMIT $2`, after, limit)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[OpenDifference])
	return list, classify("list differences", err)
}

// DriftCount is how many differences of a class are open, and since when the oldest of them is.
type DriftCount struct {
	Class  account.Drift `db:"class" json:"class"`
	Open   int64         `db:"open" json:"open"`
	Oldest time.Time     `db:"oldest" json:"oldest"`
}

// DriftCounts counts the open differences by class.
func (s *Store) DriftCounts(ctx context.Context) ([]DriftCount, error) {
	rows, _ := s.pool.Query(ctx, `SELECT class, count(*) AS open, min(seen_at) AS oldest FROM drift WHERE resolved_at IS NULL GROUP BY class ORDER BY class`)
	counts, err := pgx.CollectRows(rows, pgx.RowToStructByName[DriftCount])
	return counts, classify("count differences", err)
}
