package store

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

// pokeChannel is the channel on which transactions of workers tell dispatchers that there is
// something to poke. Deliveries do without: their dispatcher lives in the same program.
const pokeChannel = "clerk_stripe_sync_pokes"

// Poke asks for entities to be looked at once this transaction has committed, before what is
// routine.
func (t *Tx) Poke(ctx context.Context, job account.Job, entities ...account.Entity) error {
	return t.pokeAll(ctx, job, true, entities)
}

// PokeRoutinely is [Tx.Poke] for what nobody waits for: it may stand in line.
func (t *Tx) PokeRoutinely(ctx context.Context, job account.Job, entities ...account.Entity) error {
	return t.pokeAll(ctx, job, false, entities)
}

func (t *Tx) pokeAll(ctx context.Context, job account.Job, urgent bool, entities []account.Entity) error {
	if len(entities) == 0 {
		return nil
	}
	jobs := make(map[account.Entity]account.Job, len(entities))
	for _, e := range entities {
		jobs[e] = job
	}
	if err := t.poke(ctx, jobs, urgent, 0); err != nil {
		return err
	}
	return t.announce(ctx)
}

// PokeWithin is [Tx.PokeRoutinely] for somebody who sees to the entities first, and may die before:
// they are looked at after a while at the latest.
func (t *Tx) PokeWithin(ctx context.Context, after time.Duration, job account.Job, entities ...account.Entity) error {
	names := make([]string, len(entities))
	for i, e := range entities {
		names[i] = string(e)
	}
	slices.Sort(names)
	return t.tx.Later(ctx, "poke within a while", `INSERT INTO pokes AS p (entity, job, due_at, token)
		SELECT entity, $2, clock_timestamp() + $3::interval, nextval('sync_seq') FROM unnest($1::text[]) AS d (entity)
		ON CONFLICT (entity) DO UPDATE SET due_at = least(p.due_at, excluded.due_at), token = excluded.token, event_token = 0,
			job = greatest(CASE WHEN p.due_at IS NULL THEN 0 ELSE p.job END, excluded.job), urgent = p.due_at IS NOT NULL AND p.urgent`, names, int16(job), after)
}

// announce wakes the dispatchers of all programs once the transaction has committed.
func (t *Tx) announce(ctx context.Context) error {
	return t.tx.Later(ctx, "announce pokes", `SELECT pg_notify('`+pokeChannel+`', '')`)
}

// Poke is [Tx.Poke] in a transaction of its own.
func (s *Store) Poke(ctx context.Context, job account.Job, entities ...account.Entity) error {
	return s.Update(ctx, "poke", Cause{}, func(ctx context.Context, tx *Tx) error { return tx.Poke(ctx, job, entities...) })
}

// PokeRoutinely is [Tx.PokeRoutinely] in a transaction of its own.
func (s *Store) PokeRoutinely(ctx context.Context, job account.Job, entities ...account.Entity) error {
	return s.Update(ctx, "poke", Cause{}, func(ctx context.Context, tx *Tx) error { return tx.PokeRoutinely(ctx, job, entities...) })
}

// poke makes entities due: at once if they were not poked for longer than spacing, else that
// long after their last poke, so that a burst costs one poke at its start and one at its end, if
// that still finds an event. The rows are written in order, so that two transactions do not wait
// for each other.
func (t *Tx) poke(ctx context.Context, jobs map[account.Entity]account.Job, urgent bool, spacing time.Duration) error {
	if len(jobs) == 0 {
		return nil
	}
	entities := slices.Sorted(maps.Keys(jobs))
	names, kinds := make([]string, len(entities)), make([]int16, len(entities))
	for i, e := range entities {
		names[i], kinds[i] = string(e), int16(jobs[e])
	}
	return t.tx.Later(ctx, "poke", `INSERT INTO pokes AS p (entity, job, urgent, due_at, token, event_token)
		SELECT entity, job, $4, clock_timestamp(), token, 0
		FROM (SELECT *, nextval('sync_seq') AS token FROM unnest($2::text[], $3::smallint[]) AS d (entity, job)) AS d `+onPoke,
		spacing, names, kinds, urgent)
}

// onPoke is what a poke does to one that is there already; $1 is the spacing.
const onPoke = `ON CONFLICT (entity) DO UPDATE SET job = greatest(CASE WHEN p.due_at IS NULL THEN 0 ELSE p.job END, excluded.job),
	urgent = excluded.urgent OR p.due_at IS NOT NULL AND p.urgent,
	token = excluded.token, event_token = CASE WHEN p.due_at IS NULL OR p.event_token IN (p.token, -1) THEN excluded.event_token ELSE 0 END,
	due_at = least(p.due_at, greatest(clock_timestamp(), p.poked_at + $1::interval))`

// Poke is a claimed row of the outbox.
type Poke struct {
	Entity   string `db:"entity"`
	Job      int16  `db:"job"`
	Token    int64  `db:"token"`
	Attempts int    `db:"attempts"`
	// Urgent is set where somebody waits for what comes of it.
	Urgent bool `db:"urgent"`
	// forEvents is set where nobody but deliveries has asked.
	forEvents bool
}

// claimRoutine takes what is routine of customers, or of all else, so much that no more than a
// window of them are under way: poked a little while ago, with an event that no look has taken yet,
// or a customer whom no look begun since has read. Who has not been looked at after that while will
// not be soon: a worker is gone, or a provider. What waits for Clerk does so apart from what waits
// for Stripe.
func claimRoutine(kind string) string {
	return `ARRAY(SELECT entity FROM pokes WHERE NOT urgent AND entity ` + kind + ` AND due_at <= clock_timestamp() ORDER BY due_at
		LIMIT CASE WHEN $3::int > 0 THEN greatest($3::int - (SELECT count(*) FROM pokes p
				WHERE due_at IS NULL AND poked_at > now() - interval '10 seconds' AND entity ` + kind + `
				AND (EXISTS (SELECT FROM webhook_events e WHERE e.entity = p.entity AND e.status = 'pending')
					OR EXISTS (SELECT FROM stripe_customers c WHERE c.stripe_customer_id = substr(p.entity, 10) AND c.read_seq < p.token))), 0) ELSE 0 END
		FOR UPDATE SKIP LOCKED)`
}

// ClaimPokes takes what is due for as long as the lease lasts: of what is urgent at most limit, and
// of what is routine so much that no more than window are under way then, of customers and of all
// else each. A dispatcher that dies after this call leaves them to the next one.
//
// wait is how long until something else falls due, at most the lease, and zero if there may be more
// due now. held is set where that is routine, or where a window of zero has left it out: it may be
// asked for again after a pause.
func (s *Store) ClaimPokes(ctx context.Context, limit, window int, lease time.Duration) (claimed []Poke, wait time.Duration, held bool, err error) {
	// Behind the claim the mark of deliveries is -1, which is no token: whoever claims once more when
	// the lease is over pokes, whatever has become of the events.
	rows, _ := s.pool.Query(ctx, `UPDATE pokes SET due_at = clock_timestamp() + $2::interval, poked_at = clock_timestamp(),
			attempts = attempts + 1, token = nextval('sync_seq'), event_token = CASE WHEN event_token = token THEN -1 ELSE 0 END
		WHERE entity = ANY(ARRAY(SELECT entity FROM pokes WHERE urgent AND due_at <= clock_timestamp() ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
			|| `+claimRoutine(`LIKE 'customer/%'`)+` || `+claimRoutine(`NOT LIKE 'customer/%'`)+`)
		RETURNING entity, job, token, attempts, urgent, event_token = -1`, limit, lease, window)
	urgent := 0
	claimed, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (p Poke, err error) {
		err = row.Scan(&p.Entity, &p.Job, &p.Token, &p.Attempts, &p.Urgent, &p.forEvents)
		urgent += btoi(p.Urgent)
		return p, err
	})
	if err != nil {
		return nil, 0, false, classify("claim pokes", err)
	}
	if claimed, err = s.withoutIdle(ctx, claimed); err != nil || urgent == limit {
		return claimed, 0, false, err
	}
	if window <= 0 {
		return claimed, 0, true, nil
	}
	var next *float64
	err = s.pool.QueryRow(ctx, `SELECT extract(epoch FROM min(due_at) - clock_timestamp())::float8 FROM pokes WHERE due_at IS NOT NULL`).Scan(&next)
	if err != nil {
		return claimed, 0, false, classify("look for the next poke", err)
	}
	if next == nil {
		return claimed, lease, false, nil
	}
	wait = min(lease, max(time.Duration(*next*float64(time.Second)), 0))
	return claimed, wait, wait == 0, nil
}

// withoutIdle clears and leaves out the customers for whom nobody but deliveries has asked and
// whose events have been taken since. As a rule that is the rest of a burst, which the look at its
// start has caught. A delivery that commits while this looks asks anew.
func (s *Store) withoutIdle(ctx context.Context, claimed []Poke) ([]Poke, error) {
	var told []string
	for _, p := range claimed {
		if kind, _ := account.Entity(p.Entity).Split(); p.forEvents && kind == account.KindCustomer && account.Job(p.Job) == account.JobSync {
			told = append(told, p.Entity)
		}
	}
	if len(told) == 0 {
		return claimed, nil
	}
	rows, _ := s.pool.Query(ctx, `SELECT entity FROM unnest($1::text[]) AS d (entity) WHERE NOT EXISTS
		(SELECT 1 FROM webhook_events e WHERE e.entity = d.entity AND e.status IN ('pending', 'failing', 'waiting'))`, told)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, classify("look for events of those that are due", err)
	}
	if len(names) == 0 {
		return claimed, nil
	}
	var due, idle []Poke
	for _, p := range claimed {
		if slices.Contains(names, p.Entity) {
			idle = append(idle, p)
		} else {
			due = append(due, p)
		}
	}
	return due, s.PokesDone(ctx, idle)
}

// PokesDone clears what was poked, unless it has been asked for again meanwhile.
func (s *Store) PokesDone(ctx context.Context, done []Poke) error {
	if len(done) == 0 {
		return nil
	}
	entities, tokens := make([]string, len(done)), make([]int64, len(done))
	for i, p := range done {
		entities[i], tokens[i] = p.Entity, p.Token
	}
	_, err := s.pool.Exec(ctx, `UPDATE pokes p SET due_at = NULL, attempts = 0 FROM unnest($1::text[], $2::bigint[]) AS d (entity, token)
		WHERE p.entity = d.entity AND p.token = d.token`, entities, tokens)
	return classify("clear pokes", err)
}

// PokesFailed gives back what could not be poked, to be tried again after a pause.
func (s *Store) PokesFailed(ctx context.Context, failed []Poke, pause time.Duration) error {
	entities := make([]string, len(failed))
	for i, p := range failed {
		entities[i] = p.Entity
	}
	_, err := s.pool.Exec(ctx, `UPDATE pokes SET due_at = clock_timestamp() + $2::interval WHERE entity = ANY($1)`, entities, pause)
	return classify("give pokes back", err)
}

// ForgetIdlePokes removes rows of entities that nothing was asked of for a while.
func (s *Store) ForgetIdlePokes(ctx context.Context, idle time.Duration, limit int) (int64, error) {
	tag, err := s.pool.Exec(ctx, `DELETE FROM pokes WHERE entity = ANY(ARRAY(SELECT entity FROM pokes WHERE due_at IS NULL
		AND poked_at < now() - $1::interval ORDER BY poked_at LIMIT $2 FOR UPDATE SKIP LOCKED))`, idle, limit)
	return tag.RowsAffected(), classify("forget idle pokes", err)
}

// ListenForPokes calls wake whenever a transaction elsewhere has asked for a poke, and once when it
// begins to listen, since what was announced before that went unheard. It holds one connection of
// its own and returns when that is lost or the context ends.
func (s *Store) ListenForPokes(ctx context.Context, wake func()) error {
	config := s.pool.Config().ConnConfig.Copy()
	delete(config.RuntimeParams, "statement_timeout")
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return classify("connect to listen", err)
	}
	defer func() {
		// The context may have ended; closing must still say goodbye, but not for long.
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing)
	}()
	if _, err := conn.Exec(ctx, `LISTEN `+pokeChannel); err != nil {
		return classify("listen", err)
	}
	wake()
	for {
		if _, err := conn.WaitForNotification(ctx); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if pgconn.Timeout(err) {
				continue
			}
			return failure.New(failure.Transient, "postgres", "listen", "connection_lost", err)
		}
		wake()
	}
}
