package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// Subscription is a row of subscriptions.
type Subscription struct {
	StripeID string `db:"stripe_subscription_id"`
	UserID   string `db:"user_id"`
	// CustomerID is "" where the row, which is the product's own then, does not name a customer.
	CustomerID           string     `db:"stripe_customer_id"`
	PlanID               *int32     `db:"plan_id"`
	PlanName             *string    `db:"plan_name"`
	Status               string     `db:"status"`
	Type                 *string    `db:"subscription_type"`
	CurrentPeriodStart   *time.Time `db:"current_period_start"`
	CurrentPeriodEnd     *time.Time `db:"current_period_end"`
	CancelAtPeriodEnd    bool       `db:"cancel_at_period_end"`
	CancelAt             *time.Time `db:"cancel_at"`
	CanceledAt           *time.Time `db:"canceled_at"`
	EndedAt              *time.Time `db:"ended_at"`
	TrialStart           *time.Time `db:"trial_start"`
	TrialEnd             *time.Time `db:"trial_end"`
	Metadata             *string    `db:"metadata"`
	PriceID              *string    `db:"stripe_price_id"`
	ProductID            *string    `db:"stripe_product_id"`
	PriceKnown           bool       `db:"price_known"`
	Quantity             int64      `db:"quantity"`
	UnitAmount           *int64     `db:"unit_amount"`
	Currency             *string    `db:"currency"`
	Interval             *string    `db:"billing_interval"`
	IntervalCount        *int64     `db:"interval_count"`
	CollectionPaused     bool       `db:"collection_paused"`
	LatestInvoiceCreated *time.Time `db:"latest_invoice_created"`
	ScheduleID           *string    `db:"schedule_id"`
	ScheduleEndsAt       *time.Time `db:"schedule_ends_at"`
	// Outstanding and PhasesAhead are those of [account.Subscription], and false where the user stays:
	// nobody asks for them then.
	Outstanding bool       `db:"outstanding"`
	PhasesAhead bool       `db:"phases_ahead"`
	CreatedAt   *time.Time `db:"stripe_created_at"`
	// PastDueSince and PastDueInvoice are set while the status is past_due; see
	// [account.PastDueSince].
	PastDueSince   *time.Time `db:"past_due_since"`
	PastDueInvoice *string    `db:"past_due_invoice"`
	// ItemID is the item that makes the plan.
	ItemID *string `db:"stripe_item_id"`
	// Items are all items; nil in a row from before they were kept.
	Items []StoredItem `db:"items"`
	// Missing is set while Stripe answers 404 for it.
	Missing bool `db:"missing"`
	// KeptSeq is the number of the last read that showed it, where the last one of its customer did
	// not; nil where it did.
	KeptSeq *int64 `db:"kept_read_seq"`
	// UpdatedAt is when the row was last changed, by the database's clock; nil in a row of the
	// product's own.
	UpdatedAt *time.Time `db:"updated_at"`
}

const subscriptionColumns = `stripe_subscription_id, user_id, ` + namedCustomer + ` AS stripe_customer_id, plan_id,
	(SELECT plan_name FROM plans WHERE plans.id = plan_id) AS plan_name, status, subscription_type,
	current_period_start, current_period_end, coalesce(cancel_at_period_end, false) AS cancel_at_period_end, cancel_at, canceled_at, ended_at,
	trial_start, trial_end, metadata, stripe_price_id, stripe_product_id, price_known, quantity, unit_amount, currency,
	billing_interval, interval_count, collection_paused, latest_invoice_created, schedule_id, schedule_ends_at, stripe_created_at, missing_since IS NOT NULL AS missing,
	past_due_since, past_due_invoice, stripe_item_id, items, kept_read_seq,
	coalesce(outstanding, false) AS outstanding, coalesce(phases_ahead, false) AS phases_ahead,
	updated_at AT TIME ZONE 'utc' AS updated_at`

// StoredItem is an item of a subscription as it is stored. What the plan's costs stands in the row.
type StoredItem struct {
	ID      string `json:"id,omitempty"`
	Price   string `json:"price"`
	Product string `json:"product,omitempty"`
	// More is how many there are beyond one.
	More    int64 `json:"more,omitempty"`
	Metered bool  `json:"metered,omitempty"`
	// Unknown is set where the price was not in the catalogue: the plan may be another once it is.
	Unknown bool `json:"unknown,omitempty"`
}

// Held is the row as the pure decisions take it. Where a program of before has stored that it is
// past_due, without since when, that is from its latest invoice on until the next read says it.
func (s Subscription) Held() account.Held {
	since := s.PastDueSince
	if since == nil && s.Status == string(account.StatusPastDue) {
		since = cmp.Or(s.LatestInvoiceCreated, s.CurrentPeriodStart)
	}
	return account.Held{
		Subscription: account.Subscription{
			ID: s.StripeID, CustomerID: s.CustomerID, Status: account.Status(s.Status),
			CurrentPeriodStart: derefTime(s.CurrentPeriodStart), CurrentPeriodEnd: derefTime(s.CurrentPeriodEnd),
			TrialStart: derefTime(s.TrialStart), TrialEnd: derefTime(s.TrialEnd),
			CancelAtPeriodEnd: s.CancelAtPeriodEnd, CancelAt: derefTime(s.CancelAt),
			CanceledAt: derefTime(s.CanceledAt), EndedAt: derefTime(s.EndedAt),
			CollectionPaused: s.CollectionPaused, LatestInvoiceCreated: derefTime(s.LatestInvoiceCreated), PastDueSince: derefTime(since),
			ScheduleID: deref(s.ScheduleID), ScheduleEndsAt: derefTime(s.ScheduleEndsAt), Created: derefTime(s.CreatedAt),
			Metered: slices.ContainsFunc(s.Items, func(i StoredItem) bool { return i.Metered }), Outstanding: s.Outstanding, PhasesAhead: s.PhasesAhead,
		},
		Plan: deref(s.PlanName), PriceID: deref(s.PriceID), Type: deref(s.Type),
	}
}

// Plan is what the catalogue says of a price.
type Plan struct {
	PriceID string `db:"stripe_price_id"`
	PlanID  int32  `db:"plan_id"`
	Name    string `db:"plan_name"`
	// AddOn is set where its product only adds to another; see [account.PlanItem].
	AddOn bool `db:"add_on"`
}

// PlansOf looks prices up in the catalogue. Prices that are not in it are absent from the answer.
func (t *Tx) PlansOf(ctx context.Context, prices []string) (map[string]Plan, error) {
	return plansOf(ctx, t.tx, prices)
}

func plansOf(ctx context.Context, q querier, prices []string) (map[string]Plan, error) {
	rows, _ := q.Query(ctx, `SELECT stripe_price_id, plan_id, plan_name, add_on FROM plan_prices JOIN plans ON plans.id = plan_id
		WHERE stripe_price_id = ANY($1)`, prices)
	found, err := pgx.CollectRows(rows, pgx.RowToStructByName[Plan])
	if err != nil {
		return nil, classify("look prices up", err)
	}
	plans := make(map[string]Plan, len(found))
	for _, p := range found {
		plans[p.PriceID] = p
	}
	return plans, nil
}

// SubscriptionsOfCustomer lists a customer's stored subscriptions.
func (t *Tx) SubscriptionsOfCustomer(ctx context.Context, customerID string) ([]Subscription, error) {
	return subscriptionsWhere(ctx, t.tx, `stripe_customer_id = $1`, customerID)
}

// SubscriptionsOfCustomer lists a customer's stored subscriptions.
func (s *Store) SubscriptionsOfCustomer(ctx context.Context, customerID string) ([]Subscription, error) {
	return subscriptionsWhere(ctx, s.pool, `stripe_customer_id = $1`, customerID)
}

// SubscriptionsShown lists a customer's stored subscriptions, and those among some ids that are
// stored as another customer's, or as nobody's: Stripe has shown them to be this one's.
func (t *Tx) SubscriptionsShown(ctx context.Context, customerID string, ids []string) ([]Subscription, error) {
	return subscriptionsWhere(ctx, t.tx, `stripe_customer_id = $1 OR stripe_subscription_id = ANY($2)`, customerID, ids)
}

// SubscriptionsOfUser lists a user's stored subscriptions over all their customers.
func (t *Tx) SubscriptionsOfUser(ctx context.Context, u *User) ([]Subscription, error) {
	return subscriptionsWhere(ctx, t.tx, `user_id = $1`, u.ID)
}

func subscriptionsWhere(ctx context.Context, q querier, where string, values ...any) ([]Subscription, error) {
	rows, _ := q.Query(ctx, `SELECT `+subscriptionColumns+` FROM subscriptions WHERE `+where+` ORDER BY stripe_subscription_id`, values...)
	subscriptions, err := pgx.CollectRows(rows, pgx.RowToStructByName[Subscription])
	return subscriptions, classify("list subscriptions", err)
}

// SetSubscription stores what a read of Stripe showed of a subscription. Where that differs
// from the stored row, or that is another user's, it writes the row, a line of history and a line of
// audit, and answers true. The other user is to be reprojected: see [Tx.ReprojectFormer]. plans is
// the catalogue's word on the prices of its items; a subscription whose prices are all unknown keeps
// the plan it had.
func (t *Tx) SetSubscription(ctx context.Context, u *User, stored []Subscription, seen account.Subscription, plans map[string]Plan, read int64, eventIDs []string) (changed bool, err error) {
	before, known := find(stored, seen.ID)
	after, err := rowOf(seen, before, plans, u.Deleting())
	if err != nil {
		return false, err
	}
	if err := t.noteOwed(ctx, &after, before, seen); err != nil {
		return false, err
	}
	items, err := json.Marshal(after.Items)
	if err != nil {
		return false, fmt.Errorf("encoding a subscription's items: %w", err)
	}
	moves := known && before.UserID != u.ID
	if known && !moves && sameRow(before, after) {
		if before.Items != nil && deref(before.ItemID) == deref(after.ItemID) && deref(before.PastDueInvoice) == deref(after.PastDueInvoice) {
			return false, nil
		}
		// Nothing that anybody is told: it had not been kept.
		return false, t.tx.Later(ctx, "keep a subscription's items", `UPDATE subscriptions SET items = $2, stripe_item_id = $3, past_due_invoice = $4
			WHERE stripe_subscription_id = $1`, after.StripeID, items, after.ItemID, after.PastDueInvoice)
	}
	if err := t.tx.Later(ctx, "store a subscription", `INSERT INTO subscriptions AS s (user_id, stripe_subscription_id, stripe_customer_id, plan_id, status, subscription_type,
			current_period_start, current_period_end, cancel_at_period_end, canceled_at, trial_start, trial_end, metadata,
			stripe_price_id, stripe_product_id, price_known, quantity, unit_amount, currency, billing_interval, interval_count,
			cancel_at, ended_at, collection_paused, latest_invoice_created, schedule_id, stripe_created_at, past_due_since, past_due_invoice, stripe_item_id, items, schedule_ends_at)
		VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19,$20,$21,$22,$23,$24,$25,$26,$27,$28,$29,$30,$31,$32)
		ON CONFLICT (stripe_subscription_id) DO UPDATE SET user_id = excluded.user_id, stripe_customer_id = excluded.stripe_customer_id,
			plan_id = excluded.plan_id, status = excluded.status, subscription_type = excluded.subscription_type,
			current_period_start = excluded.current_period_start, current_period_end = excluded.current_period_end,
			cancel_at_period_end = excluded.cancel_at_period_end, canceled_at = excluded.canceled_at,
			trial_start = excluded.trial_start, trial_end = excluded.trial_end, metadata = excluded.metadata,
			stripe_price_id = excluded.stripe_price_id, stripe_product_id = excluded.stripe_product_id, price_known = excluded.price_known,
			quantity = excluded.quantity, unit_amount = excluded.unit_amount, currency = excluded.currency,
			billing_interval = excluded.billing_interval, interval_count = excluded.interval_count, cancel_at = excluded.cancel_at,
			ended_at = excluded.ended_at, collection_paused = excluded.collection_paused,
			latest_invoice_created = excluded.latest_invoice_created, schedule_id = excluded.schedule_id,
			stripe_created_at = excluded.stripe_created_at, past_due_since = excluded.past_due_since, past_due_invoice = excluded.past_due_invoice,
			schedule_ends_at = excluded.schedule_ends_at, stripe_item_id = excluded.stripe_item_id, items = excluded.items, missing_since = NULL, updated_at = now()`,
		u.ID, after.StripeID, after.CustomerID, after.PlanID, after.Status, after.Type,
		after.CurrentPeriodStart, after.CurrentPeriodEnd, after.CancelAtPeriodEnd, after.CanceledAt, after.TrialStart, after.TrialEnd, after.Metadata,
		after.PriceID, after.ProductID, after.PriceKnown, after.Quantity, after.UnitAmount, after.Currency, after.Interval, after.IntervalCount,
		after.CancelAt, after.EndedAt, after.CollectionPaused, after.LatestInvoiceCreated, after.ScheduleID, after.CreatedAt, after.PastDueSince, after.PastDueInvoice, after.ItemID, items,
		after.ScheduleEndsAt); err != nil {
		return false, err
	}
	if after.Outstanding != before.Outstanding || after.PhasesAhead != before.PhasesAhead {
		if err := t.tx.Later(ctx, "store what a subscription would still bill", `UPDATE subscriptions SET outstanding = nullif($2, false), phases_ahead = nullif($3, false)
			WHERE stripe_subscription_id = $1`, after.StripeID, after.Outstanding, after.PhasesAhead); err != nil {
			return false, err
		}
	}
	var statusBefore *string
	if known {
		statusBefore = &before.Status
	}
	endsAt, _ := seen.ScheduledToEnd()
	if err := t.tx.Later(ctx, "store a subscription's history", `INSERT INTO subscription_changes (stripe_subscription_id, user_id, status_before, status, plan_id, stripe_price_id,
			quantity, unit_amount, currency, billing_interval, interval_count, collection_paused, ends_at, read_seq)
		VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14)`,
		after.StripeID, u.ID, statusBefore, after.Status, after.PlanID, after.PriceID, after.Quantity, after.UnitAmount, after.Currency,
		after.Interval, after.IntervalCount, after.CollectionPaused, nullTime(endsAt), read); err != nil {
		return false, err
	}
	entry := Entry{Action: "subscription.changed", User: u, Entity: account.CustomerEntity(after.CustomerID), Subject: after.StripeID, EventIDs: eventIDs}
	entry.Before, entry.After = difference(before, after, known)
	if moves {
		entry.Before["user_id"], entry.After["user_id"] = before.UserID, u.ID
	}
	return true, t.Audit(ctx, entry)
}

// Outlived tells whether a read shows a stored subscription in a status in which it cannot be any
// more; see [account.Status.Outlives]. That is known only where a read of ours has shown it so
// before: what the product has written into the row may be wrong, and Stripe is right then.
func (t *Tx) Outlived(ctx context.Context, row Subscription, shown account.Status) (bool, error) {
	return outlived(ctx, t.tx, row, shown)
}

// Outlived is [Tx.Outlived] outside of a transaction.
func (s *Store) Outlived(ctx context.Context, row Subscription, shown account.Status) (bool, error) {
	return outlived(ctx, s.pool, row, shown)
}

func outlived(ctx context.Context, q querier, row Subscription, shown account.Status) (bool, error) {
	if !account.Status(row.Status).Outlives(shown) {
		return false, nil
	}
	rows, _ := q.Query(ctx, `SELECT DISTINCT status FROM subscription_changes WHERE stripe_subscription_id = $1`, row.StripeID)
	were, err := pgx.CollectRows(rows, pgx.RowTo[account.Status])
	return slices.ContainsFunc(were, func(was account.Status) bool { return was.Outlives(shown) }), classify("look for what a subscription was", err)
}

// turnable are the columns of which a read can show what was before: how a subscription stands and
// ends, and what of. The others follow from these, or from the catalogue.
func turnable() []string {
	return []string{
		"status", "cancel_at_period_end", "cancel_at", "canceled_at", "ended_at", "trial_end", "current_period_end", "collection_paused",
		"stripe_price_id", "quantity", "schedule_ends_at",
	}
}

// Telling is what events say of the value that a read shows in a column.
type Telling int

const (
	// ToldNothing means that none of them tells of the value.
	ToldNothing Telling = iota
	// ToldSo means that the last of them says that the column has the value.
	ToldSo
	// ToldBefore means that the last of them says otherwise, and that the column had the value before.
	ToldBefore
	// ToldAtOnce means the same, but within one second, so that nobody knows the order.
	ToldAtOnce
)

// TurnsBack tells whether a read shows a stored subscription as it was before a change that came
// after since: then it may have been answered by a copy of Stripe's that is behind. told tells what
// the events since say of a column's value. Nothing is asked of the database unless the row has
// changed since, and the read would change it otherwise than to its end or into a period that
// follows. sure is false where the column has been turned back itself since, and no event says in
// which order.
func (t *Tx) TurnsBack(ctx context.Context, since time.Time, stored []Subscription, seen account.Subscription, plans map[string]Plan,
	told func(column string) (Telling, error),
) (back, sure bool, err error) {
	before, known := find(stored, seen.ID)
	ended := seen.Status.Terminal() && !account.Status(before.Status).Terminal()
	if !known || ended || seen.CurrentPeriodStart.After(derefTime(before.CurrentPeriodStart)) {
		return false, false, nil
	}
	after, err := rowOf(seen, before, plans, false)
	if err != nil {
		return false, false, err
	}
	is, shown := before.columns(), after.columns()
	var columns []string
	for _, name := range turnable() {
		if is[name] == shown[name] {
			continue
		}
		switch said, err := told(name); {
		case err != nil:
			return false, false, err
		case said == ToldNothing:
			columns = append(columns, name)
		case said != ToldSo:
			back, sure = true, sure || said == ToldBefore
		}
	}
	if len(columns) == 0 || before.UpdatedAt == nil || before.UpdatedAt.Before(since) {
		return back, sure, nil
	}
	rows, _ := t.tx.Query(ctx, `SELECT before FROM audit_log WHERE entity = $1 AND subject = $2 AND action = 'subscription.changed'
		AND at > $3 AND before IS NOT NULL`, string(account.CustomerEntity(seen.CustomerID)), seen.ID, since)
	former, err := pgx.CollectRows(rows, pgx.RowTo[map[string]json.RawMessage])
	if err != nil {
		return false, false, classify("look for what a subscription was", err)
	}
	was := func(name string, value any) (bool, error) {
		text, err := json.Marshal(value)
		if err != nil {
			return false, fmt.Errorf("encoding a column: %w", err)
		}
		return slices.ContainsFunc(former, func(row map[string]json.RawMessage) bool { return string(row[name]) == string(text) }), nil
	}
	for _, name := range columns {
		turns, err := was(name, shown[name])
		if err != nil {
			return false, false, err
		}
		turned, err := was(name, is[name])
		if err != nil {
			return false, false, err
		}
		back, sure = back || turns, sure || turns && !turned
	}
	return back, sure, nil
}

// Keep notes which of a customer's stored subscriptions a read did not show, whose rows stay as
// they are: what was asked for before it was not seen of them. last is the number of the read
// before. Of all others of the customer the read is the last that has shown them.
func (t *Tx) Keep(ctx context.Context, stored []Subscription, kept []string, last int64) error {
	var before, shown []string
	for _, s := range stored {
		switch isKept := slices.Contains(kept, s.StripeID); {
		case isKept && s.KeptSeq == nil:
			before = append(before, s.StripeID)
		case !isKept && s.KeptSeq != nil:
			shown = append(shown, s.StripeID)
		}
	}
	if len(before) == 0 && len(shown) == 0 {
		return nil
	}
	return t.tx.Later(ctx, "note which subscriptions were not shown", `UPDATE subscriptions SET kept_read_seq = CASE WHEN stripe_subscription_id = ANY($1::text[]) THEN $3::bigint END
		WHERE stripe_subscription_id = ANY($1::text[] || $2::text[])`, before, shown, last)
}

// NoteMissing marks a stored subscription that Stripe answers 404 for. Its row stays as it is:
// nobody loses access because something could not be found.
func (t *Tx) NoteMissing(ctx context.Context, stripeSubscriptionID string) error {
	return t.tx.Later(ctx, "note a missing subscription", `UPDATE subscriptions SET missing_since = coalesce(missing_since, now()) WHERE stripe_subscription_id = $1`, stripeSubscriptionID)
}

func find(stored []Subscription, id string) (Subscription, bool) {
	i := slices.IndexFunc(stored, func(s Subscription) bool { return s.StripeID == id })
	if i < 0 {
		return Subscription{}, false
	}
	return stored[i], true
}

// noteOwed sets since when a past_due subscription owes, from the rows of its invoices. Where none
// of them says it, it is as good as can be known when that is first met, and stays: the invoices
// that Stripe goes on making do not move it.
func (t *Tx) noteOwed(ctx context.Context, row *Subscription, before Subscription, seen account.Subscription) error {
	if seen.Status != account.StatusPastDue {
		return nil
	}
	was := before.delinquency()
	invoices, err := invoicesOwed(ctx, t.tx, seen.ID, was.InvoiceID)
	if err != nil {
		return err
	}
	owed := account.PastDueSince(invoices, was, account.Cycle(seen.Items))
	if owed.Since.IsZero() {
		owed.Since = seen.LatestInvoiceCreated
	}
	if owed.Since.IsZero() {
		owed.Since = seen.CurrentPeriodStart
	}
	row.PastDueSince, row.PastDueInvoice = nullTime(owed.Since), nullString(owed.InvoiceID)
	return nil
}

// delinquency is what was found of a subscription that is past_due. A row of before any of it was
// kept says nothing.
func (s *Subscription) delinquency() (was account.Delinquency) {
	if s.Status == string(account.StatusPastDue) && (s.PastDueInvoice != nil || s.Items != nil) {
		was = account.Delinquency{Since: derefTime(s.PastDueSince), InvoiceID: deref(s.PastDueInvoice)}
	}
	return was
}

// rowOf turns a read into a row. The plan is that of one of the items whose prices are in the
// catalogue, by [account.PlanItem]; where none is, it is the last known one.
func rowOf(seen account.Subscription, before Subscription, plans map[string]Plan, deleting bool) (Subscription, error) {
	row := Subscription{
		StripeID: seen.ID, CustomerID: seen.CustomerID, Status: string(seen.Status),
		CurrentPeriodStart: nullTime(seen.CurrentPeriodStart), CurrentPeriodEnd: nullTime(seen.CurrentPeriodEnd),
		CancelAtPeriodEnd: seen.CancelAtPeriodEnd, CancelAt: nullTime(seen.CancelAt), CanceledAt: nullTime(seen.CanceledAt),
		EndedAt: nullTime(seen.EndedAt), TrialStart: nullTime(seen.TrialStart), TrialEnd: nullTime(seen.TrialEnd),
		CollectionPaused: seen.CollectionPaused, LatestInvoiceCreated: nullTime(seen.LatestInvoiceCreated),
		ScheduleID: nullString(seen.ScheduleID), ScheduleEndsAt: nullTime(seen.ScheduleEndsAt), CreatedAt: nullTime(seen.Created), Quantity: 1,
		PlanID: before.PlanID, Type: before.Type, Items: storedItems(seen.Items, plans),
		Outstanding: deleting && seen.Outstanding, PhasesAhead: deleting && seen.PhasesAhead,
	}
	if seen.Status == account.StatusPastDue {
		row.PastDueSince, row.PastDueInvoice = before.PastDueSince, before.PastDueInvoice
	}
	if !deleting && len(seen.Metadata) > 0 {
		raw, err := json.Marshal(seen.Metadata)
		if err != nil {
			return row, fmt.Errorf("encoding a subscription's metadata: %w", err)
		}
		row.Metadata = nullString(string(raw))
	}
	if len(seen.Items) == 0 {
		row.PriceID, row.ProductID, row.PriceKnown, row.ItemID = before.PriceID, before.ProductID, before.PriceKnown, before.ItemID
		return row, nil
	}
	var known, all []account.PlanCandidate
	for _, item := range seen.Items {
		plan, ok := plans[item.PriceID]
		candidate := account.PlanCandidate{Item: item, AddOn: plan.AddOn}
		if all = append(all, candidate); ok {
			known = append(known, candidate)
		}
	}
	was := account.Item{ID: deref(before.ItemID), PriceID: deref(before.PriceID), ProductID: deref(before.ProductID)}
	item, ok := account.PlanItem(known, was)
	if ok {
		plan := plans[item.PriceID]
		row.PriceKnown, row.PlanID = true, &plan.PlanID
	} else {
		item, _ = account.PlanItem(all, was)
	}
	row.ItemID, row.PriceID, row.ProductID = nullString(item.ID), nullString(item.PriceID), nullString(item.ProductID)
	row.Quantity, row.Currency = item.Quantity, nullString(item.Currency)
	if !item.Unpriced {
		row.UnitAmount = &item.UnitAmount
	}
	row.Interval, row.IntervalCount = nullString(item.Interval), &item.IntervalCount
	if kind := item.Type(); kind != "" && (row.PriceKnown || row.Type == nil) {
		row.Type = &kind
	}
	return row, nil
}

// storedItems are the items to be stored, in an order that is not Stripe's.
func storedItems(items []account.Item, plans map[string]Plan) []StoredItem {
	stored := make([]StoredItem, 0, len(items))
	for _, i := range items {
		_, known := plans[i.PriceID]
		item := StoredItem{ID: i.ID, Price: i.PriceID, Product: i.ProductID, Metered: i.Metered, Unknown: !known}
		if !i.Metered {
			item.More = i.Quantity - 1
		}
		stored = append(stored, item)
	}
	slices.SortFunc(stored, func(a, b StoredItem) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Price, b.Price)) })
	return stored
}

func sameRow(a, b Subscription) bool {
	before, after := difference(a, b, true)
	return len(before) == 0 && len(after) == 0
}

// difference lists the columns in which two rows differ, with their values before and after. The
// metadata may hold anything, so only that it changed is told. Items that were not kept have not
// changed.
func difference(a, b Subscription, known bool) (before, after map[string]any) {
	before, after = map[string]any{}, map[string]any{}
	av, bv := a.columns(), b.columns()
	for name, value := range bv {
		if av[name] != value {
			after[name] = value
			if known {
				before[name] = av[name]
			}
		}
	}
	if deref(a.Metadata) != deref(b.Metadata) {
		after["metadata"] = "changed"
	}
	if a.Items != nil && !slices.Equal(a.Items, b.Items) {
		after["items"] = "changed"
	}
	return before, after
}

func (s Subscription) columns() map[string]any {
	at := func(t *time.Time) string {
		if t == nil {
			return ""
		}
		return t.UTC().Format(time.RFC3339)
	}
	number := func(n *int64) int64 {
		if n == nil {
			return 0
		}
		return *n
	}
	amount := ""
	if s.UnitAmount != nil {
		amount = strconv.FormatInt(*s.UnitAmount, 10)
	}
	var plan int32
	if s.PlanID != nil {
		plan = *s.PlanID
	}
	return map[string]any{
		"stripe_customer_id": s.CustomerID, "status": s.Status, "plan_id": plan, "subscription_type": deref(s.Type),
		"current_period_start": at(s.CurrentPeriodStart), "current_period_end": at(s.CurrentPeriodEnd),
		"cancel_at_period_end": s.CancelAtPeriodEnd, "cancel_at": at(s.CancelAt), "canceled_at": at(s.CanceledAt), "ended_at": at(s.EndedAt),
		"trial_start": at(s.TrialStart), "trial_end": at(s.TrialEnd), "stripe_price_id": deref(s.PriceID), "stripe_product_id": deref(s.ProductID),
		"price_known": s.PriceKnown, "quantity": s.Quantity, "unit_amount": amount, "currency": deref(s.Currency),
		"billing_interval": deref(s.Interval), "interval_count": number(s.IntervalCount), "collection_paused": s.CollectionPaused,
		"latest_invoice_created": at(s.LatestInvoiceCreated), "schedule_id": deref(s.ScheduleID), "schedule_ends_at": at(s.ScheduleEndsAt), "stripe_created_at": at(s.CreatedAt),
		"outstanding": s.Outstanding, "phases_ahead": s.PhasesAhead, "missing": s.Missing, "past_due_since": at(s.PastDueSince),
	}
}

func derefTime(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

func nullString(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// OwnerOf answers whose a stored subscription is: its customer, "" where the row does not name one,
// and its user's Clerk id, or two empty strings where we do not know it.
func (s *Store) OwnerOf(ctx context.Context, subscriptionID string) (customerID, clerkUserID string, err error) {
	err = s.pool.QueryRow(ctx, `SELECT coalesce(s.stripe_customer_id, ''), u.clerk_user_id FROM subscriptions s JOIN person_user u ON u.id = s.user_id
		WHERE s.stripe_subscription_id = $1`, subscriptionID).Scan(&customerID, &clerkUserID)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", "", nil
	}
	if !account.ValidCustomerID(customerID) {
		customerID = ""
	}
	return customerID, clerkUserID, classify("look for a subscription's owner", err)
}

// SubscriptionsOfUser lists a user's stored subscriptions over all their customers.
func (s *Store) SubscriptionsOfUser(ctx context.Context, u *User) ([]Subscription, error) {
	return subscriptionsWhere(ctx, s.pool, `user_id = $1`, u.ID)
}
