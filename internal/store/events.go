package store

import (
	"context"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// EventStatus is how far an event of the inbox has come.
type EventStatus string

// The statuses. Only completed and ignored end an event.
const (
	// EventPending: stored, not yet taken by a sync.
	EventPending EventStatus = "pending"
	// EventCompleted: PostgreSQL holds what the event told.
	EventCompleted EventStatus = "completed"
	// EventIgnored: nothing follows from it; the reason says why.
	EventIgnored EventStatus = "ignored"
	// EventWaiting: its customer belongs to nobody yet, or what it is about is not to be found.
	EventWaiting EventStatus = "waiting"
	// EventFailing: taking it failed; the reason says how. It is tried again.
	EventFailing EventStatus = "failing"
)

// NewEvent is a verified delivery on its way into the inbox.
type NewEvent struct {
	Source  string // "clerk" or "stripe"
	EventID string
	Type    string
	Entity  account.Entity // "" where none
	Job     account.Job
	// Ignore is why the event is ignored at the door, "" if it is not. Ignored events are kept
	// without their payload.
	Ignore string
	// Payload is the event as it was sent: JSON in UTF-8.
	Payload    string
	ReceivedAt time.Time
	Claims     []account.Claim
	// Recovered is set for an event that was not delivered but found in the provider's own list.
	Recovered bool
	// Urgent is set where somebody waits for what comes of it: its entity is poked before those of a
	// wave.
	Urgent bool
	// Shows is what the event itself shows of its user, nil where it shows nothing. One that shows
	// what is stored is completed at once.
	Shows *account.ListedUser
}

// Added is what became of a delivery.
type Added int8

const (
	// AddedBefore is for one that had been stored before, and is not stored again.
	AddedBefore Added = iota
	// AddedDue is for one whose entity is poked and has to be looked at.
	AddedDue
	// AddedDone is for one with which nothing is left to do: it is ignored, or PostgreSQL has held
	// before what it tells.
	AddedDone
)

// AddEvents commits deliveries in one transaction: events, the evidence in them, and the poke
// of each of their entities. It answers for each what became of it. An event that is already
// known is not stored again, whatever its state.
func (s *Store) AddEvents(ctx context.Context, events []NewEvent, spacing time.Duration) (added []Added, err error) {
	shows := slices.ContainsFunc(events, func(e NewEvent) bool { return e.Shows != nil })
	err = tryAgain(ctx, func() error {
		if !shows {
			// One statement is a transaction of its own, and takes one turn between the program and
			// PostgreSQL.
			added, err = addEvents(ctx, s.pool, events, nil, spacing)
			return err
		}
		return pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{}, func(tx pgx.Tx) error {
			held, err := heldAlready(ctx, tx, events)
			if err != nil {
				return err
			}
			added, err = addEvents(ctx, tx, events, held, spacing)
			return err
		})
	})
	return added, classify("store deliveries", err)
}

// errNotMeant undoes what was only tried.
var errNotMeant = errors.New("not meant")

// TryAddEvents stores a delivery of the usual size and takes it back before anyone can see it: the
// error is what keeps deliveries from being stored now, such as a full disk.
func (s *Store) TryAddEvents(ctx context.Context) error {
	// As random as text can be, since what can be compressed takes no room.
	filling := make([]byte, 16<<10)
	_, _ = cryptorand.Read(filling) // it cannot fail
	word := cryptorand.Text()
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{}, func(tx pgx.Tx) error {
		_, err := addEvents(ctx, tx, []NewEvent{{Source: "stripe", EventID: "evt_" + word, Type: "none", Entity: account.CustomerEntity("cus_" + word),
			Payload: fmt.Sprintf(`{"filling":"%x"}`, filling), ReceivedAt: time.Now()}}, nil, 0)
		if err != nil {
			return err
		}
		return errNotMeant
	})
	if errors.Is(err, errNotMeant) {
		return nil
	}
	return classify("try to store a delivery", err)
}

// storeEvents numbers events as they came, and writes events, claims and pokes each in one order,
// so that two copies that are given the same deliveries do not wait for each other. Only what is
// new makes claims and pokes.
const storeEvents = `WITH d AS MATERIALIZED (
		SELECT nextval('sync_seq') AS seq, * FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::smallint[], $8::text[], $9::timestamptz[], $10::text[], $11::boolean[], $16::boolean[], $17::text[])
			AS d (source, event_id, type, entity, job, reason, received_at, status, recovered, urgent, payload)),
	stored AS (
		INSERT INTO webhook_events (source, event_id, type, entity, seq, status, reason, received_at, completed_at, retry_at, payload, recovered)
		SELECT source, event_id, type, nullif(entity, ''), seq, status, nullif(reason, ''), received_at,
		       CASE WHEN status <> 'pending' THEN now() END, CASE WHEN status = 'pending' THEN now() + $2::interval END, nullif(payload, ''), recovered
		FROM d ORDER BY source, event_id, seq
		ON CONFLICT (source, event_id) DO NOTHING RETURNING source, event_id, seq),
	claims AS (SELECT c.* FROM unnest($12::text[], $13::text[], $14::text[], $15::text[]) WITH ORDINALITY AS c (customer, clerk_user, place, event_id, n)
		JOIN stored ON stored.source = 'stripe' AND stored.event_id = c.event_id),
	claimed AS (` + upsertClaims + ` RETURNING 1),
	poked AS (INSERT INTO pokes AS p (entity, job, urgent, due_at, token, event_token)
		SELECT entity, job, urgent, clock_timestamp(), token, token FROM (SELECT *, nextval('sync_seq') AS token FROM (
			SELECT entity, max(job) AS job, bool_or(urgent) AS urgent FROM d JOIN stored USING (source, event_id, seq)
			-- Claims before pokes, as everywhere.
			WHERE status = 'pending' AND (SELECT count(*) FROM claimed) >= 0 GROUP BY entity ORDER BY entity) AS d) AS d
		` + onPoke + `)
	SELECT source, event_id FROM stored`

// addEvents stores deliveries, of which those at the places in held are completed.
func addEvents(ctx context.Context, q querier, events []NewEvent, held map[int]bool, spacing time.Duration) ([]Added, error) {
	n := len(events)
	sources, ids, types, entities, jobs := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]int16, n)
	reasons, payloads, times, recovered := make([]string, n), make([]string, n), make([]time.Time, n), make([]bool, n)
	statuses, urgent := make([]EventStatus, n), make([]bool, n)
	index := make(map[[2]string]int, n)
	var claims []claimOf
	for i, e := range events {
		sources[i], ids[i], types[i], entities[i], jobs[i] = e.Source, e.EventID, e.Type, string(e.Entity), int16(max(e.Job, account.JobSync))
		reasons[i], times[i], recovered[i], urgent[i] = e.Ignore, e.ReceivedAt, e.Recovered, e.Urgent
		switch {
		case e.Ignore != "":
			statuses[i] = EventIgnored
		case held[i]:
			statuses[i] = EventCompleted
		default:
			statuses[i] = EventPending
		}
		if e.Ignore == "" {
			payloads[i] = e.Payload
			for _, c := range e.Claims {
				claims = append(claims, claimOf{c, e.EventID})
			}
		}
		if _, twice := index[[2]string{e.Source, e.EventID}]; !twice {
			index[[2]string{e.Source, e.EventID}] = i
		}
	}
	arguments := append([]any{spacing, sweepAfter, sources, ids, types, entities, jobs, reasons, times, statuses, recovered}, columnsOf(claims)...)
	// The payloads last: the driver's buffer is made once for all that comes before them, and once for
	// them.
	rows, err := q.Query(ctx, storeEvents, append(arguments, urgent, payloads)...)
	if err != nil {
		return nil, classify("store deliveries", err)
	}
	stored, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Source, ID string }])
	if err != nil {
		return nil, classify("store deliveries", err)
	}
	added := make([]Added, n)
	for _, key := range stored {
		i := index[[2]string{key.Source, key.ID}]
		added[i] = AddedDone
		if statuses[i] == EventPending {
			added[i] = AddedDue
		}
	}
	return added, nil
}

// heldAlready answers the places of those events that show a user exactly as they are stored: a
// user who has a customer with their latest name and email, whom Clerk holds the stored projection
// of, and about whom nothing is open. Nothing would come of looking at them. As a rule it is what
// Clerk tells of our own write.
//
// What an event shows can be older than what a look that is under way has read, and that look may
// be about to store something older still. So the users' rows are locked against a change of the
// profile, and who changes one asks for events that were completed here meanwhile: see
// [Tx.SetProfile]. A user whose profile is being changed in this moment is looked at.
func heldAlready(ctx context.Context, tx pgx.Tx, events []NewEvent) (map[int]bool, error) {
	var ids []string
	for _, e := range events {
		if e.Shows != nil && e.Ignore == "" {
			ids = append(ids, e.Shows.ID)
		}
	}
	rows, _ := tx.Query(ctx, `SELECT `+userColumns+` FROM person_user WHERE clerk_user_id = ANY($1) AND deletion_requested_at IS NULL
		AND EXISTS (SELECT FROM stripe_customers c WHERE c.user_id = person_user.id AND NOT deleted_in_stripe)
		AND NOT EXISTS (SELECT FROM stripe_customers c WHERE c.user_id = person_user.id AND NOT deleted_in_stripe AND c.profile_version < person_user.profile_version)
		AND NOT EXISTS (SELECT FROM drift d WHERE d.entity = 'user/' || person_user.clerk_user_id AND d.resolved_at IS NULL)
		FOR KEY SHARE OF person_user SKIP LOCKED`, ids)
	users, err := pgx.CollectRows(rows, pgx.RowToStructByName[User])
	if err != nil {
		return nil, classify("read users that deliveries show", err)
	}
	byID := make(map[string]*User, len(users))
	for i := range users {
		byID[users[i].ClerkUserID] = &users[i]
	}
	held := make(map[int]bool, len(users))
	for i, e := range events {
		if e.Shows != nil && byID[e.Shows.ID] != nil {
			held[i] = byID[e.Shows.ID].isAs(*e.Shows)
		}
	}
	return held, nil
}

// Due is an event that a sync takes.
type Due struct {
	Source     string      `db:"source"`
	EventID    string      `db:"event_id"`
	Type       string      `db:"type"`
	Status     EventStatus `db:"status"`
	Payload    string      `db:"payload"`
	ReceivedAt time.Time   `db:"received_at"`
	// Ahead is the event's number where the sequence has not reached it, else zero.
	Ahead int64 `db:"ahead"`
	// Beside is set where other events of the entity that came within the last minute were completed
	// before.
	Beside bool `db:"beside"`
}

// TakeEvents locks and answers every event of an entity that is due and was received before the
// read with this number began, in the order in which they were received. [Tx.Reading] has been
// asked about that number.
//
// One whose own number the sequence has not reached is no later than the read: it is a failure.
func (t *Tx) TakeEvents(ctx context.Context, entity account.Entity, read int64) ([]Due, error) {
	const operation = "take events"
	rows, _ := t.tx.Query(ctx, `SELECT source, event_id, type, status, coalesce(payload, '') AS payload, received_at, CASE WHEN seq < $2 THEN 0 ELSE seq END AS ahead,
			EXISTS (SELECT FROM webhook_events WHERE entity = $1 AND received_at > now() - interval '1 minute' AND status = 'completed' AND payload IS NOT NULL) AS beside
		FROM webhook_events WHERE entity = $1 AND (seq < $2 OR seq > pg_sequence_last_value('sync_seq')) AND status IN ('pending', 'failing', 'waiting')
		ORDER BY seq FOR UPDATE`, string(entity), read)
	due, err := pgx.CollectRows(rows, pgx.RowToStructByName[Due])
	if err != nil {
		return nil, classify(operation, err)
	}
	for _, d := range due {
		if d.Ahead > 0 {
			t.met = d.Ahead
			return nil, errBehind(operation)
		}
	}
	return due, nil
}

// ToldSince answers the payloads of an entity's events that came after a moment and were completed
// by reads before: what they tell is as old as they are, and newer than what a read shows that does
// not show it any more.
func (t *Tx) ToldSince(ctx context.Context, entity account.Entity, since time.Time) ([]Due, error) {
	rows, _ := t.tx.Query(ctx, `SELECT source, event_id, type, status, payload, received_at, 0 AS ahead, true AS beside FROM webhook_events
		WHERE entity = $1 AND received_at > $2 AND status = 'completed' AND payload IS NOT NULL ORDER BY seq`, string(entity), since)
	told, err := pgx.CollectRows(rows, pgx.RowToStructByName[Due])
	return told, classify("list what was told lately", err)
}

// Beginnings answers the due events of some customers that tell of a subscription that has begun,
// and that came after a moment: no read has shown it yet.
func (s *Store) Beginnings(ctx context.Context, customers []account.Entity, since time.Time) (payloads []string, err error) {
	rows, _ := s.pool.Query(ctx, `SELECT payload FROM webhook_events WHERE entity = ANY($1) AND status IN ('pending', 'failing', 'waiting') AND payload IS NOT NULL
		AND received_at > $2 AND type IN ('checkout.session.completed', 'checkout.session.async_payment_succeeded', 'customer.subscription.created')`, customers, since)
	payloads, err = pgx.CollectRows(rows, pgx.RowTo[string])
	return payloads, classify("look for what has been bought", err)
}

// CompleteEvents ends events: PostgreSQL now holds what they told. erase drops their payloads,
// because their user's data is to be forgotten.
func (t *Tx) CompleteEvents(ctx context.Context, events []Due, erase bool) error {
	if len(events) == 0 {
		return nil
	}
	sources, ids := keysOf(events)
	return t.tx.Later(ctx, "complete events", `UPDATE webhook_events e SET status = 'completed', reason = NULL, completed_at = now(), retry_at = NULL, held_since = NULL,
			payload = CASE WHEN $3 THEN NULL ELSE payload END
		FROM unnest($1::text[], $2::text[]) AS k (source, event_id) WHERE e.source = k.source AND e.event_id = k.event_id`, sources, ids, erase)
}

// HoldEvents leaves events due, with the cause. They are retried by the sweep, half their age
// later: soon at first, ever more slowly then, at least once an hour. erase drops their payloads,
// as in [Tx.CompleteEvents]: nobody knows whether such an event will ever end otherwise than by
// being given up.
func (t *Tx) HoldEvents(ctx context.Context, events []Due, status EventStatus, reason string, erase bool) error {
	if len(events) == 0 {
		return nil
	}
	sources, ids := keysOf(events)
	return t.tx.Later(ctx, "hold events", `UPDATE webhook_events e SET status = $3, reason = $4, attempts = attempts + 1, retry_at = `+nextRetry+`,
			held_since = CASE WHEN status = $3 AND reason = $4 THEN coalesce(held_since, now()) ELSE now() END,
			payload = CASE WHEN $5 THEN NULL ELSE payload END
		FROM unnest($1::text[], $2::text[]) AS k (source, event_id) WHERE e.source = k.source AND e.event_id = k.event_id`,
		sources, ids, string(status), reason, erase)
}

// IgnoreEvents ends events from which nothing follows. As with those that are ignored at the door
// their payload is not kept: whose data is in it nobody knows, and so nobody could have it erased.
func (t *Tx) IgnoreEvents(ctx context.Context, events []Due, reason string) error {
	sources, ids := keysOf(events)
	return t.tx.Later(ctx, "ignore events", `UPDATE webhook_events e SET status = 'ignored', reason = $3, completed_at = now(), retry_at = NULL, held_since = NULL, payload = NULL
		FROM unnest($1::text[], $2::text[]) AS k (source, event_id) WHERE e.source = k.source AND e.event_id = k.event_id`, sources, ids, reason)
}

const nextRetry = `now() + least(interval '1 hour', greatest(interval '30 seconds', (now() - received_at) / 2))`

// MarkFailing says of an entity's due events why taking them failed. They stay due.
func (s *Store) MarkFailing(ctx context.Context, entity account.Entity, reason string) error {
	_, err := s.pool.Exec(ctx, `UPDATE webhook_events SET status = 'failing', reason = $2, attempts = attempts + 1, retry_at = `+nextRetry+`,
			held_since = CASE WHEN status = 'failing' AND reason = $2 THEN coalesce(held_since, now()) ELSE now() END
		WHERE entity = $1 AND status IN ('pending', 'failing')`, string(entity), reason)
	return classify("mark events failing", err)
}

// HasDue tells whether an event of this type is due for an entity and was received before the
// read with this number.
func (s *Store) HasDue(ctx context.Context, entity account.Entity, eventType string, read int64) (bool, error) {
	var due bool
	err := s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM webhook_events WHERE entity = $1 AND seq < $2 AND type = $3
		AND status IN ('pending', 'failing', 'waiting'))`, string(entity), read, eventType).Scan(&due)
	return due, classify("look for a due event", err)
}

// MoveEvents gives an entity's due events to another entity, and pokes that.
func (t *Tx) MoveEvents(ctx context.Context, from, to account.Entity) error {
	if err := t.tx.Later(ctx, "move events", `UPDATE webhook_events SET entity = $2, status = 'pending', reason = NULL, held_since = NULL, retry_at = now() + $3::interval
		WHERE entity = $1 AND status IN ('pending', 'failing', 'waiting')`, string(from), string(to), sweepAfter); err != nil {
		return err
	}
	return t.Poke(ctx, account.JobSync, to)
}

// The statements that take a bounded number of rows choose them in a WITH or an ARRAY of their
// own, which runs once: a subquery of IN may run once a row, and then its LIMIT bounds nothing.
// They look the chosen ones up by arrays of keys, which the planner takes for few: of a LIMIT that
// it does not know it believes that it takes a tenth of the table.
const dueKeys = `unnest((SELECT array_agg(source) FROM due), (SELECT array_agg(event_id) FROM due)) AS k (source, event_id)
	WHERE e.source = k.source AND e.event_id = k.event_id`

// Sweep pokes whatever is still due although its poke was long ago: events, users whose projection
// Clerk may not hold, and operations that have not ended. It answers how many entities it poked.
func (s *Store) Sweep(ctx context.Context, limit int) (poked int, err error) {
	err = s.Update(ctx, "sweep", Cause{}, func(ctx context.Context, tx *Tx) error {
		jobs := map[account.Entity]account.Job{}
		rows, _ := tx.tx.Query(ctx, `WITH due AS MATERIALIZED (
				SELECT source, event_id FROM webhook_events WHERE status IN ('pending', 'failing', 'waiting') AND retry_at <= now()
				ORDER BY retry_at LIMIT $1 FOR UPDATE SKIP LOCKED)
			UPDATE webhook_events e SET retry_at = `+nextRetry+` FROM `+dueKeys+`
			RETURNING e.entity, e.type`, limit)
		due, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Entity, Type string }])
		if err != nil {
			return classify("sweep events", err)
		}
		for _, d := range due {
			jobs[account.Entity(d.Entity)] = max(jobs[account.Entity(d.Entity)], JobOf(d.Type))
		}
		rows, _ = tx.tx.Query(ctx, `UPDATE person_user SET publish_retry_at = now() + least(interval '1 hour', greatest($2::interval, (now() - coalesce(publish_due_since, now())) / 2))
			WHERE id = ANY(ARRAY(SELECT id FROM person_user WHERE `+publishDue+` AND publish_retry_at <= now()
				ORDER BY publish_retry_at LIMIT $1 FOR UPDATE SKIP LOCKED))
			RETURNING clerk_user_id`, limit, sweepAfter)
		users, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return classify("sweep publishes", err)
		}
		for _, id := range users {
			jobs[account.UserEntity(id)] = max(jobs[account.UserEntity(id)], account.JobSync)
		}
		if err := tx.sweepOperations(ctx, limit, jobs); err != nil {
			return err
		}
		if err := tx.sweepCheckouts(ctx, limit, jobs); err != nil {
			return err
		}
		if err := tx.sweepErasures(ctx, limit, jobs); err != nil {
			return err
		}
		poked = len(jobs)
		return tx.poke(ctx, jobs, false, 0)
	})
	return poked, err
}

// JobOf is what an event of this type asks of its entity's workflow.
func JobOf(eventType string) account.Job {
	switch eventType {
	case "user.created":
		return account.JobOnboard
	case "user.deleted":
		return account.JobOffboard
	default:
		return account.JobSync
	}
}

// WaitingNoUser begins the reasons of events that wait because their customer belongs to nobody.
const WaitingNoUser = "no user: "

// ExpireWaiting gives up on events that have waited longer than ttl, most of them for a user. Their
// facts and claims are kept: a later link still syncs the customer. The payloads of whoever is
// being deleted, or is, are dropped.
func (s *Store) ExpireWaiting(ctx context.Context, ttl time.Duration, limit int) (int64, error) {
	tag, err := s.pool.Exec(ctx, `WITH due AS MATERIALIZED (
			SELECT source, event_id FROM webhook_events WHERE status = 'waiting' AND received_at < now() - $1::interval
			ORDER BY received_at LIMIT $2 FOR UPDATE SKIP LOCKED)
		UPDATE webhook_events e SET status = 'ignored', completed_at = now(), retry_at = NULL, held_since = NULL,
			reason = CASE WHEN starts_with(reason, $3) THEN 'no user' ELSE 'gave up: ' || reason END,
			payload = CASE WHEN `+ofDeleted("e.entity")+` THEN NULL ELSE payload END
		FROM `+dueKeys, ttl, limit, WaitingNoUser)
	return tag.RowsAffected(), classify("expire waiting events", err)
}

// DropPayloads deletes the payloads of events that ended longer ago than the retention period.
func (s *Store) DropPayloads(ctx context.Context, retention time.Duration, limit int) (int64, error) {
	tag, err := s.pool.Exec(ctx, `WITH due AS MATERIALIZED (
			SELECT source, event_id FROM webhook_events WHERE payload IS NOT NULL AND status IN ('completed', 'ignored')
			AND completed_at < now() - $1::interval ORDER BY completed_at LIMIT $2 FOR UPDATE SKIP LOCKED)
		UPDATE webhook_events e SET payload = NULL FROM `+dueKeys, retention, limit)
	return tag.RowsAffected(), classify("drop old payloads", err)
}

// InboxDepth is how much is due in the inbox.
type InboxDepth struct {
	Status    string  `db:"status"`
	Count     int64   `db:"count"`
	OldestAge float64 `db:"oldest"` // seconds
}

// InboxDepth counts the events that are due, by status, and says how old the oldest of each is.
func (s *Store) InboxDepth(ctx context.Context) ([]InboxDepth, error) {
	rows, _ := s.pool.Query(ctx, `SELECT status, count(*) AS count, extract(epoch FROM now() - min(received_at))::float8 AS oldest
		FROM webhook_events WHERE status IN ('pending', 'failing', 'waiting') GROUP BY status`)
	depth, err := pgx.CollectRows(rows, pgx.RowToStructByName[InboxDepth])
	return depth, classify("measure the inbox", err)
}

// PublishLag counts the users whose projection Clerk may not hold, with the greatest age in
// seconds.
func (s *Store) PublishLag(ctx context.Context) (users int64, oldest float64, err error) {
	err = s.pool.QueryRow(ctx, `SELECT count(*), greatest(coalesce(extract(epoch FROM now() - min(publish_due_since)), 0), 0)::float8
		FROM person_user WHERE `+publishDue).Scan(&users, &oldest)
	return users, oldest, classify("measure the publish lag", err)
}

func keysOf(events []Due) (sources, ids []string) {
	for _, e := range events {
		sources, ids = append(sources, e.Source), append(ids, e.EventID)
	}
	return sources, ids
}
