package store

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// scheduleRank orders the statuses of a schedule as [account.ScheduleStatus.Rank] does.
func scheduleRank(column string) string {
	return `CASE ` + column + ` WHEN 'not_started' THEN 1 WHEN 'active' THEN 2 ELSE 3 END`
}

// RecordSchedules stores subscription schedules, as a list shows them or an event tells of one.
// What is stored already moves forward only.
func (t *Tx) RecordSchedules(ctx context.Context, schedules ...account.Schedule) error {
	for _, s := range schedules {
		if s.Status.Rank() == 0 {
			continue // of a status that is not known nothing follows
		}
		if err := t.tx.Later(ctx, "store a schedule", `INSERT INTO subscription_schedules AS s (stripe_schedule_id, stripe_customer_id, stripe_subscription_id, status, begins_at)
			VALUES ($1, $2, nullif($3, ''), $4, $5) ON CONFLICT (stripe_schedule_id) DO UPDATE SET status = excluded.status,
			stripe_subscription_id = coalesce(excluded.stripe_subscription_id, s.stripe_subscription_id), begins_at = coalesce(excluded.begins_at, s.begins_at), updated_at = now()
			WHERE `+scheduleRank("excluded.status")+` >= `+scheduleRank("s.status"),
			s.ID, s.CustomerID, s.SubscriptionID, string(s.Status), nullTime(s.Begins())); err != nil {
			return err
		}
	}
	return nil
}

// SchedulesListed notes that a read of this number listed all schedules of a customer, and all of
// its pending charges.
func (t *Tx) SchedulesListed(ctx context.Context, c *Customer, read int64) error {
	c.SchedulesReadSeq = max(c.SchedulesReadSeq, read)
	return t.tx.Later(ctx, "note that schedules were listed", `UPDATE stripe_customers SET schedules_read_seq = greatest(schedules_read_seq, $2) WHERE stripe_customer_id = $1`, c.ID, read)
}

// NotBegunSchedules lists the schedules of a customer that are stored as not begun.
func (s *Store) NotBegunSchedules(ctx context.Context, customerID string) ([]string, error) {
	rows, _ := s.pool.Query(ctx, `SELECT stripe_schedule_id FROM subscription_schedules WHERE stripe_customer_id = $1 AND status = 'not_started' ORDER BY 1`, customerID)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return ids, classify("list schedules that have not begun", err)
}

// SchedulesAhead lists those of them that begin in an hour at the earliest: that they have not
// begun needs no proof.
func (s *Store) SchedulesAhead(ctx context.Context, customerID string) ([]string, error) {
	rows, _ := s.pool.Query(ctx, `SELECT stripe_schedule_id FROM subscription_schedules
		WHERE stripe_customer_id = $1 AND status = 'not_started' AND begins_at > now() + interval '1 hour' ORDER BY 1`, customerID)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return ids, classify("list schedules that are ahead", err)
}

// otherSchedules are the schedules of an operation's customer that a command leaves alone: those
// that have not begun, and those that manage another subscription.
const otherSchedules = `CASE WHEN action IN ('cancel', 'cancel_now', 'reactivate') THEN ARRAY(
		SELECT stripe_schedule_id FROM subscription_schedules s WHERE s.stripe_customer_id = substr(entity, 10) AND s.status IN ('not_started', 'active')
			AND s.stripe_schedule_id IS DISTINCT FROM release_schedule AND s.stripe_subscription_id IS DISTINCT FROM operations.stripe_subscription_id
		ORDER BY 1) ELSE '{}' END AS other_schedules`

// ReadOf is a read of a customer that is about to begin.
type ReadOf struct {
	// Number is [Store.NextRead]'s.
	Number int64
	// Deleting is set where the deletion of the customer's owner was asked for, as committed by now.
	// It may be asked for under a lower number and be committed only later.
	Deleting bool
	// Began is the database's time before the read.
	Began time.Time
}

// NextReadOf is [Store.NextRead] for a customer, in the same statement.
func (s *Store) NextReadOf(ctx context.Context, customerID string) (r ReadOf, err error) {
	_, err = s.inOrder(ctx, func() (int64, error) {
		err := s.pool.QueryRow(ctx, `SELECT nextval('sync_seq'), EXISTS (SELECT FROM stripe_customers c JOIN person_user u ON u.id = c.user_id
			WHERE c.stripe_customer_id = $1 AND u.deletion_requested_at IS NOT NULL), now()`, customerID).Scan(&r.Number, &r.Deleting, &r.Began)
		return r.Number, classify("draw a read number", err)
	})
	return r, err
}

// Sighting is one read of what Stripe has of a customer whose user is being deleted.
type Sighting struct {
	// CustomerID is "" for subscriptions that the product has noted without their customer.
	CustomerID string
	// Found and Missing are ids of customers, subscriptions and schedules.
	Found, Missing []string
	// Began is when the read began; ConfirmedAfter is how long after the first answer that an object
	// is missing another one confirms it.
	Began          time.Time
	ConfirmedAfter time.Duration
}

// RecordSighting keeps count of what is missing. An object that is missing in two reads that are
// far enough apart is confirmed to be; one that is found again is not missing any more. Both are
// audited.
func (t *Tx) RecordSighting(ctx context.Context, u *User, s Sighting) error {
	rows, _ := t.tx.Query(ctx, `DELETE FROM missing_objects WHERE stripe_customer_id = $1 AND stripe_id = ANY($2) RETURNING stripe_id, confirmed_at IS NOT NULL`, s.CustomerID, s.Found)
	type object struct {
		ID        string
		Confirmed bool
	}
	entity := account.CustomerEntity(s.CustomerID)
	if s.CustomerID == "" {
		entity = account.UserEntity(u.ClerkUserID)
	}
	again, err := pgx.CollectRows(rows, pgx.RowToStructByPos[object])
	if err != nil {
		return classify("note what was found again", err)
	}
	for _, o := range again {
		if !o.Confirmed {
			continue
		}
		if err := t.Audit(ctx, Entry{Action: "missing.found_again", User: u, Entity: entity, Subject: o.ID}); err != nil {
			return err
		}
	}
	if len(s.Missing) == 0 {
		return nil
	}
	// What was recorded as missing by now was answered before; what is being read now was asked for
	// after that.
	rows, _ = t.tx.Query(ctx, `UPDATE missing_objects SET confirmed_at = now() WHERE stripe_customer_id = $1 AND stripe_id = ANY($2) AND confirmed_at IS NULL
		AND missing_since + $3::interval <= $4 RETURNING stripe_id, missing_since`, s.CustomerID, s.Missing, s.ConfirmedAfter, s.Began)
	type confirmed struct {
		ID    string
		Since time.Time
	}
	done, err := pgx.CollectRows(rows, pgx.RowToStructByPos[confirmed])
	if err != nil {
		return classify("confirm what is missing", err)
	}
	for _, o := range done {
		if err := t.Audit(ctx, Entry{Action: "missing.confirmed", User: u, Entity: entity, Subject: o.ID,
			After: map[string]any{"missing_since": o.Since.UTC().Format(time.RFC3339)}}); err != nil {
			return err
		}
	}
	return t.tx.Later(ctx, "note what is missing", `INSERT INTO missing_objects (stripe_id, stripe_customer_id) SELECT unnest($2::text[]), $1 ON CONFLICT (stripe_id) DO NOTHING`,
		s.CustomerID, s.Missing)
}

// Unsettled lists why a user may still be billed: for all their customers, or for one of them where
// customerID is given. It is empty once nothing can bill them any more, as far as the policy wants
// that.
func (t *Tx) Unsettled(ctx context.Context, u *User, policy account.DeletionPolicy, customerID string) ([]account.Unsettled, error) {
	return t.store.unsettled(ctx, t.tx, u, policy, customerID)
}

// UnsettledOfUser is [Tx.Unsettled] for all customers of a user.
func (s *Store) UnsettledOfUser(ctx context.Context, u *User, policy account.DeletionPolicy) ([]account.Unsettled, error) {
	return s.unsettled(ctx, s.pool, u, policy, "")
}

func (s *Store) unsettled(ctx context.Context, q querier, u *User, policy account.DeletionPolicy, customerID string) ([]account.Unsettled, error) {
	customers, err := customersOf(ctx, q, u.ID)
	if err != nil {
		return nil, err
	}
	subscriptions, err := subscriptionsWhere(ctx, q, `user_id = $1`, u.ID)
	if err != nil {
		return nil, err
	}
	type charge struct{ ID, CustomerID string }
	rows, _ := q.Query(ctx, `SELECT p.stripe_id, p.stripe_customer_id FROM pending_charges p JOIN stripe_customers c USING (stripe_customer_id)
		WHERE c.user_id = $1 ORDER BY 1`, u.ID)
	charges, err := pgx.CollectRows(rows, pgx.RowToStructByPos[charge])
	if err != nil {
		return nil, classify("list pending charges", err)
	}
	type schedule struct{ ID, CustomerID string }
	rows, _ = q.Query(ctx, `SELECT s.stripe_schedule_id, s.stripe_customer_id FROM subscription_schedules s JOIN stripe_customers c USING (stripe_customer_id)
		WHERE c.user_id = $1 AND s.status = 'not_started' ORDER BY 1`, u.ID)
	schedules, err := pgx.CollectRows(rows, pgx.RowToStructByPos[schedule])
	if err != nil {
		return nil, classify("list schedules that have not begun", err)
	}
	missing := map[string]bool{} // whether it is confirmed
	rows, _ = q.Query(ctx, `SELECT m.stripe_id, m.confirmed_at IS NOT NULL FROM missing_objects m JOIN stripe_customers c USING (stripe_customer_id) WHERE c.user_id = $1
		UNION ALL `+missingUnplaced("m.stripe_id, m.confirmed_at IS NOT NULL"), u.ID)
	var id string
	var confirmed bool
	if _, err := pgx.ForEachRow(rows, []any{&id, &confirmed}, func() error { missing[id] = confirmed; return nil }); err != nil {
		return nil, classify("list what is missing", err)
	}
	var found []account.Unsettled
	// note adds a reason, or what stands in its place where Stripe does not have the object any more.
	note := func(customerID, subject string, reason account.UnsettledReason) {
		confirmed, isMissing := missing[subject]
		if isMissing {
			reason = account.UnsettledMissing
		}
		if !confirmed {
			found = append(found, account.Unsettled{CustomerID: customerID, Subject: subject, Reason: reason})
		}
	}
	deleted := map[string]bool{}
	for _, c := range customers {
		_, gone := missing[c.ID]
		deleted[c.ID] = c.DeletedInStripe
		switch {
		case gone:
			note(c.ID, c.ID, account.UnsettledNotRead)
		case u.DeletionSeq == nil: // only the product has noted it: nobody is erased for that, and no read is behind it
		case c.ReadSeq <= *u.DeletionSeq:
			note(c.ID, c.ID, account.UnsettledNotRead)
		case policy != account.DeleteKeep && c.SchedulesReadSeq <= *u.DeletionSeq:
			note(c.ID, c.ID, account.UnsettledSchedulesNotListed)
		case policy != account.DeleteKeep && c.WholeSeq <= *u.DeletionSeq: // an event says that the last read is behind
			note(c.ID, c.ID, account.UnsettledNotRead)
		}
	}
	// What the product has noted, and what evidence names them for, is theirs until it is known to be
	// somebody else's, or gone.
	named, err := undecided(ctx, q, u, customers)
	if err != nil {
		return nil, err
	}
	if named.CustomerID != "" && !named.Taken {
		note(named.CustomerID, named.CustomerID, account.UnsettledNotRead)
	}
	if customerID == "" {
		toLink, err := s.toLink(ctx, q, u.ClerkUserID)
		if err != nil {
			return nil, err
		}
		for _, id := range toLink {
			if id != named.CustomerID {
				note(id, id, account.UnsettledNotRead)
			}
		}
	}
	for _, s := range subscriptions {
		switch unplaced := s.CustomerID == "" && policy != account.DeleteKeep; {
		case unplaced && !account.ValidSubscriptionID(s.StripeID): // which bills nobody at Stripe
		case policy.Stop(s.Held().Subscription) != account.StopNothing:
			note(s.CustomerID, s.StripeID, account.UnsettledSubscription)
		case unplaced && !s.Missing: // it is as the product has noted it, and nobody has asked Stripe
			note(s.CustomerID, s.StripeID, account.UnsettledNotRead)
		}
	}
	for _, s := range schedules {
		// Stripe cancels what a customer has when it is deleted.
		if policy != account.DeleteKeep && !deleted[s.CustomerID] {
			note(s.CustomerID, s.ID, account.UnsettledScheduleNotBegun)
		}
	}
	for _, each := range charges {
		if policy != account.DeleteKeep && !deleted[each.CustomerID] {
			note(each.CustomerID, each.ID, account.UnsettledCharge)
		}
	}
	if customerID != "" {
		found = slices.DeleteFunc(found, func(f account.Unsettled) bool { return f.CustomerID != customerID })
	}
	return found, nil
}

// missingUnplaced selects what is missing of those subscriptions of the user $1 whose rows do not
// say which customer's they are.
func missingUnplaced(columns string) string {
	return `SELECT ` + columns + ` FROM subscriptions s JOIN missing_objects m ON m.stripe_id = s.stripe_subscription_id WHERE s.user_id = $1 AND m.stripe_customer_id = ''`
}

// confirmedMissing lists what of a user's customers is confirmed to be missing at Stripe.
func (t *Tx) confirmedMissing(ctx context.Context, u *User) ([]string, error) {
	rows, _ := t.tx.Query(ctx, `SELECT m.stripe_id FROM missing_objects m JOIN stripe_customers c USING (stripe_customer_id)
		WHERE c.user_id = $1 AND m.confirmed_at IS NOT NULL UNION ALL `+missingUnplaced("m.stripe_id")+` AND m.confirmed_at IS NOT NULL ORDER BY 1`, u.ID)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return ids, classify("list what is missing", err)
}

// EraseLater notes when the sweep is to have a user looked at whose erasure is not done.
func (t *Tx) EraseLater(ctx context.Context, u *User, pause time.Duration) error {
	return t.tx.Later(ctx, "note an erasure's retry", `UPDATE person_user SET erase_retry_at = now() + $2::interval WHERE id = $1`, u.ID, pause)
}

// sweepErasures has users looked at whose erasure is not done and of which nobody has reported for
// a while, and those whose deletion the product had noted before.
func (t *Tx) sweepErasures(ctx context.Context, limit int, jobs map[account.Entity]account.Job) error {
	rows, _ := t.tx.Query(ctx, `UPDATE person_user SET erase_retry_at = now() + interval '1 hour' WHERE id = ANY(ARRAY(SELECT id FROM person_user
			WHERE erased_at IS NULL AND erase_retry_at <= now() ORDER BY erase_retry_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED))
		RETURNING clerk_user_id`, limit)
	users, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, id := range users {
		jobs[account.UserEntity(id)] = max(jobs[account.UserEntity(id)], account.JobOffboard)
	}
	return classify("sweep erasures", err)
}
