package system

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// Owned is what a test knows to belong to one user: every customer that the user has or had at
// Stripe.
type Owned struct {
	ClerkUserID string
	Customers   []string
}

// Truth compares PostgreSQL and Clerk with what Stripe's sandbox says, whole: customers, every
// subscription in every column, and the projection, which is computed here from Stripe's objects
// alone.
type Truth struct {
	// Plans names the plan of each price.
	Plans    map[string]string
	Policy   account.AccessPolicy
	Deletion account.DeletionPolicy

	s *System
}

// NewTruth answers a comparison for one System.
func (s *System) NewTruth(policy account.AccessPolicy, deletion account.DeletionPolicy, plans map[string]string) *Truth {
	return &Truth{Plans: plans, Policy: policy, Deletion: deletion, s: s}
}

// Of tells where the systems disagree about users, all of them, or answers nil. A user whom Clerk
// does not know any more has to be a tombstone whom nothing bills.
func (t *Truth) Of(ctx context.Context, users ...Owned) error {
	conn, err := pgx.Connect(ctx, t.s.DSN)
	if err != nil {
		return fmt.Errorf("connecting for an assertion: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	var all []error
	for _, u := range users {
		if err := t.of(ctx, conn, u); err != nil {
			all = append(all, fmt.Errorf("user %s: %w", u.ClerkUserID, err))
		}
	}
	return errors.Join(all...)
}

func (t *Truth) of(ctx context.Context, conn *pgx.Conn, u Owned) error {
	customers, held, err := t.stripe(u)
	if err != nil {
		return err
	}
	if err := sameCustomers(ctx, conn, u); err != nil {
		return err
	}
	for i := range held {
		if err := t.sinceFailureThatWasTold(ctx, conn, &held[i]); err != nil {
			return err
		}
	}
	if err := sameRows(ctx, conn, u, held); err != nil {
		return err
	}
	var deleted bool
	var version, published int64
	if err := conn.QueryRow(ctx, `SELECT deleted_at IS NOT NULL, projection_version, published_version FROM person_user WHERE clerk_user_id = $1`,
		u.ClerkUserID).Scan(&deleted, &version, &published); err != nil {
		return fmt.Errorf("reading the user's row: %w", err)
	}
	if _, lives := t.s.Sandbox.Clerk.User(u.ClerkUserID); !lives {
		if !deleted {
			return errors.New("Clerk does not know them and they are no tombstone")
		}
		for _, h := range held {
			if t.Deletion.Stop(h.Subscription) != account.StopNothing {
				return fmt.Errorf("subscription %s of a deleted user runs on as %s", h.ID, h.Status)
			}
		}
		return nil
	}
	if deleted {
		return errors.New("a tombstone of a user whom Clerk knows")
	}
	want := account.Project(held, customers, t.Policy, time.Now())
	want.Version = version
	has, err := json.Marshal(t.s.Sandbox.Clerk.PublicMetadata(u.ClerkUserID)["stripe"])
	if err != nil {
		return fmt.Errorf("encoding Clerk's metadata: %w", err)
	}
	if !want.Equals(has) {
		said, _ := json.Marshal(want) // a struct of strings
		return fmt.Errorf("Clerk holds %s, want %s (published %d)", has, said, published)
	}
	return nil
}

// stripe reads what Stripe says of a user: the customers that are not deleted, oldest first, and
// all subscriptions. It asks the server itself, so that no fault hits and nothing is counted.
func (t *Truth) stripe(u Owned) (customers []string, held []account.Held, err error) {
	created := map[string]int64{}
	for _, id := range u.Customers {
		var customer struct {
			Deleted bool  `json:"deleted"`
			Created int64 `json:"created"`
		}
		if err := t.get("/v1/customers/"+id, &customer); err != nil {
			return nil, nil, err
		}
		if !customer.Deleted {
			created[id] = customer.Created
			customers = append(customers, id)
		}
		var list struct {
			Data []stripeSubscription `json:"data"`
		}
		if err := t.get("/v1/subscriptions?status=all&limit=100&expand[]=data.latest_invoice&customer="+id, &list); err != nil {
			return nil, nil, err
		}
		for _, s := range list.Data {
			h, err := s.held(t.Plans)
			if err != nil {
				return nil, nil, err
			}
			if h.Status == account.StatusPastDue {
				if h.PastDueSince, err = t.pastDueSince(h.ID, h.LatestInvoiceCreated); err != nil {
					return nil, nil, err
				}
			}
			held = append(held, h)
		}
	}
	slices.SortFunc(customers, func(a, b string) int { return cmp.Or(cmp.Compare(created[a], created[b]), cmp.Compare(a, b)) })
	return customers, held, nil
}

// pastDueSince says since when a subscription owes: when the earliest invoice that it left open
// after its last paid one was due, or was opened and charged.
func (t *Truth) pastDueSince(subscription string, otherwise time.Time) (time.Time, error) {
	var list struct {
		Data []struct {
			Status            string `json:"status"`
			Created           int64  `json:"created"`
			DueDate           int64  `json:"due_date"`
			StatusTransitions struct {
				FinalizedAt int64 `json:"finalized_at"`
			} `json:"status_transitions"`
		} `json:"data"`
	}
	if err := t.get("/v1/invoices?limit=100&subscription="+subscription, &list); err != nil {
		return time.Time{}, err
	}
	var paid, since int64
	for _, i := range list.Data {
		if i.Status == "paid" {
			paid = max(paid, i.Created)
		}
	}
	for _, i := range list.Data {
		if due := cmp.Or(i.DueDate, i.StatusTransitions.FinalizedAt); i.Status == "open" && i.Created > paid && (since == 0 || due < since) {
			since = due
		}
	}
	if since == 0 {
		return otherwise, nil
	}
	return at(since), nil
}

// sinceFailureThatWasTold has grace count from the first failure of the invoice that a delivery has
// told of, since the events of earlier ones may be lost. What counts is what was received, whatever
// has become of it in our rows. A failure of a later attempt does not move a moment that was taken
// from the invoice's opening first.
func (t *Truth) sinceFailureThatWasTold(ctx context.Context, conn *pgx.Conn, h *account.Held) error {
	if h.Status != account.StatusPastDue {
		return nil
	}
	var invoice string
	var stored time.Time
	err := conn.QueryRow(ctx, `SELECT p.id, s.past_due_since FROM subscriptions s JOIN payments p ON p.kind = 'invoice' AND p.id = s.past_due_invoice
		WHERE s.stripe_subscription_id = $1 AND p.due_at IS NULL AND p.first_failed_at IS NOT NULL`, h.ID).Scan(&invoice, &stored)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("reading the invoice that is owed: %w", err)
	}
	var first, attempt int64
	err = conn.QueryRow(ctx, `SELECT (payload::jsonb ->> 'created')::bigint, coalesce((payload::jsonb #>> '{data,object,attempt_count}')::bigint, 1) FROM webhook_events
		WHERE source = 'stripe' AND type = 'invoice.payment_failed' AND status <> 'ignored' AND payload::jsonb #>> '{data,object,id}' = $1
		ORDER BY 1, 2 LIMIT 1`, invoice).Scan(&first, &attempt)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("reading which failures were told: %w", err)
	}
	told := time.Unix(first, 0).UTC()
	if attempt > 1 && stored.Equal(h.PastDueSince) {
		return nil
	}
	if told.After(h.PastDueSince) {
		h.PastDueSince = told
	}
	return nil
}

func (t *Truth) get(path string, into any) error {
	request := httptest.NewRequest(http.MethodGet, path, http.NoBody)
	request.Header.Set("Authorization", "Bearer "+t.s.Sandbox.StripeSecretKey)
	request.Header.Set("Stripe-Version", "2023-10-16")
	answer := httptest.NewRecorder()
	t.s.Sandbox.Stripe.ServeHTTP(answer, request)
	if answer.Code != http.StatusOK {
		return fmt.Errorf("the sandbox answers GET %s with %d", path, answer.Code)
	}
	if err := json.Unmarshal(answer.Body.Bytes(), into); err != nil {
		return fmt.Errorf("decoding the answer to GET %s: %w", path, err)
	}
	return nil
}

// stripeSubscription is a subscription as API version 2023-10-16 shows it.
type stripeSubscription struct {
	ID                 string    `json:"id"`
	Customer           string    `json:"customer"`
	Status             string    `json:"status"`
	Created            int64     `json:"created"`
	CurrentPeriodStart int64     `json:"current_period_start"`
	CurrentPeriodEnd   int64     `json:"current_period_end"`
	TrialStart         int64     `json:"trial_start"`
	TrialEnd           int64     `json:"trial_end"`
	CancelAtPeriodEnd  bool      `json:"cancel_at_period_end"`
	CancelAt           int64     `json:"cancel_at"`
	CanceledAt         int64     `json:"canceled_at"`
	EndedAt            int64     `json:"ended_at"`
	PauseCollection    *struct{} `json:"pause_collection"`
	LatestInvoice      *struct {
		Created int64 `json:"created"`
	} `json:"latest_invoice"`
	Items struct {
		Data []struct {
			Quantity int64 `json:"quantity"`
			Price    struct {
				ID        string `json:"id"`
				Recurring struct {
					Interval      string `json:"interval"`
					IntervalCount int64  `json:"interval_count"`
				} `json:"recurring"`
			} `json:"price"`
		} `json:"data"`
	} `json:"items"`
}

func (s stripeSubscription) held(plans map[string]string) (account.Held, error) {
	if len(s.Items.Data) != 1 {
		return account.Held{}, fmt.Errorf("subscription %s has %d items, and only one is understood here", s.ID, len(s.Items.Data))
	}
	item := s.Items.Data[0]
	plan, known := plans[item.Price.ID]
	if !known {
		return account.Held{}, fmt.Errorf("subscription %s has price %s, of a plan that is not known here", s.ID, item.Price.ID)
	}
	h := account.Held{
		Subscription: account.Subscription{
			ID: s.ID, CustomerID: s.Customer, Status: account.Status(s.Status), Created: at(s.Created),
			CurrentPeriodStart: at(s.CurrentPeriodStart), CurrentPeriodEnd: at(s.CurrentPeriodEnd),
			TrialStart: at(s.TrialStart), TrialEnd: at(s.TrialEnd),
			CancelAtPeriodEnd: s.CancelAtPeriodEnd, CancelAt: at(s.CancelAt), CanceledAt: at(s.CanceledAt), EndedAt: at(s.EndedAt),
			CollectionPaused: s.PauseCollection != nil,
			Items:            []account.Item{{PriceID: item.Price.ID, Quantity: item.Quantity}},
		},
		Plan: plan, PriceID: item.Price.ID, Type: account.IntervalType(item.Price.Recurring.Interval, item.Price.Recurring.IntervalCount),
	}
	if s.LatestInvoice != nil {
		h.LatestInvoiceCreated = at(s.LatestInvoice.Created)
	}
	return h, nil
}

func at(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

// sameCustomers tells whether exactly the user's customers are linked to the user.
func sameCustomers(ctx context.Context, conn *pgx.Conn, u Owned) error {
	rows, _ := conn.Query(ctx, `SELECT c.stripe_customer_id FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE clerk_user_id = $1`, u.ClerkUserID)
	linked, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("listing customers: %w", err)
	}
	want := slices.Sorted(slices.Values(u.Customers))
	slices.Sort(linked)
	if !slices.Equal(linked, want) {
		return fmt.Errorf("linked are the customers %v, want %v", linked, want)
	}
	return nil
}

// sameRows tells whether the user's rows of subscriptions are exactly what Stripe says.
func sameRows(ctx context.Context, conn *pgx.Conn, u Owned, held []account.Held) error {
	rows, _ := conn.Query(ctx, `SELECT concat_ws(' ', stripe_subscription_id, s.stripe_customer_id, s.status, stripe_price_id, subscription_type,
			coalesce(plan_name, '-'), 'x' || quantity,
			'period ' || coalesce(extract(epoch FROM current_period_start)::bigint, 0), coalesce(extract(epoch FROM current_period_end)::bigint, 0),
			'trial ' || coalesce(extract(epoch FROM trial_start)::bigint, 0), coalesce(extract(epoch FROM trial_end)::bigint, 0),
			'ends', cancel_at_period_end, coalesce(extract(epoch FROM cancel_at)::bigint, 0), coalesce(extract(epoch FROM canceled_at)::bigint, 0),
			coalesce(extract(epoch FROM ended_at)::bigint, 0), 'paused', collection_paused,
			'invoice ' || coalesce(extract(epoch FROM latest_invoice_created)::bigint, 0), 'created ' || extract(epoch FROM stripe_created_at)::bigint)
		FROM subscriptions s JOIN person_user u ON u.id = s.user_id LEFT JOIN plans ON plans.id = plan_id WHERE clerk_user_id = $1`, u.ClerkUserID)
	has, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("listing subscriptions: %w", err)
	}
	want := make([]string, len(held))
	for i, h := range held {
		want[i] = rowText(h)
	}
	slices.Sort(has)
	slices.Sort(want)
	if !slices.Equal(has, want) {
		return fmt.Errorf("PostgreSQL holds the subscriptions\n%s\nwant\n%s", strings.Join(has, "\n"), strings.Join(want, "\n"))
	}
	return nil
}

func rowText(h account.Held) string {
	seconds := func(t time.Time) int64 {
		if t.IsZero() {
			return 0
		}
		return t.Unix()
	}
	truth := func(b bool) string { return fmt.Sprintf("%t", b)[:1] }
	return fmt.Sprintf("%s %s %s %s %s %s x%d period %d %d trial %d %d ends %s %d %d %d paused %s invoice %d created %d",
		h.ID, h.CustomerID, h.Status, h.PriceID, h.Type, h.Plan, h.Items[0].Quantity, seconds(h.CurrentPeriodStart), seconds(h.CurrentPeriodEnd),
		seconds(h.TrialStart), seconds(h.TrialEnd), truth(h.CancelAtPeriodEnd), seconds(h.CancelAt), seconds(h.CanceledAt), seconds(h.EndedAt),
		truth(h.CollectionPaused), seconds(h.LatestInvoiceCreated), seconds(h.Created))
}
