//go:build unix

package devstack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// state is what the three systems say of one person at one moment.
type state struct {
	clerk  clerkState
	stripe stripeState
	rows   rowState
}

type clerkState struct {
	exists    bool
	name      string
	projected json.RawMessage // public_metadata.stripe, null if there is none
}

type stripeState struct {
	customers     []stripeCustomer
	subscriptions []stripeSubscription
}

type stripeCustomer struct {
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	Metadata map[string]string `json:"metadata"`
}

type stripeSubscription struct {
	ID                string `json:"id"`
	Status            string `json:"status"`
	CurrentPeriodEnd  int64  `json:"current_period_end"`
	CancelAtPeriodEnd bool   `json:"cancel_at_period_end"`
	CancelAt          int64  `json:"cancel_at"` // 0 is never
	Items             struct {
		Data []struct {
			Price struct {
				ID string `json:"id"`
			} `json:"price"`
		} `json:"data"`
	} `json:"items"`
}

func (x stripeSubscription) priceID() string {
	if len(x.Items.Data) == 0 {
		return ""
	}
	return x.Items.Data[0].Price.ID
}

// rowState is what PostgreSQL holds; user is nil where it knows nobody.
type rowState struct {
	user          *store.User
	subscriptions []store.Subscription
	// completed and due count the webhook events about the person, pokes what is still to be
	// looked at.
	completed, due, pokes int
	payments              int // paid invoices
}

// observer reads the three systems.
type observer struct {
	sandbox *sandbox.Sandbox
	store   *store.Store
	conn    *pgx.Conn
}

func newObserver(ctx context.Context, databaseURL string, sb *sandbox.Sandbox) (*observer, error) {
	db, err := store.Open(ctx, store.Options{DSN: databaseURL, MaxConns: 2})
	if err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		db.Close()
		// The library's error repeats the address.
		return nil, errors.New("connect to PostgreSQL to look at its rows: it does not answer")
	}
	return &observer{sandbox: sb, store: db, conn: conn}, nil
}

func (o *observer) close(ctx context.Context) {
	_ = o.conn.Close(ctx)
	o.store.Close()
}

// look reads what is said of a Clerk user, once every webhook that is on its way has arrived.
func (o *observer) look(ctx context.Context, clerkUserID string) (state, error) {
	if err := o.sandbox.Idle(ctx); err != nil {
		return state{}, fmt.Errorf("webhooks are still on their way: %w", err)
	}
	var st state
	var err error
	if st.clerk, err = o.lookAtClerk(clerkUserID); err != nil {
		return st, err
	}
	if st.stripe, err = o.lookAtStripe(clerkUserID); err != nil {
		return st, err
	}
	st.rows, err = o.lookAtRows(ctx, clerkUserID, st.stripe)
	return st, err
}

func (o *observer) lookAtClerk(clerkUserID string) (clerkState, error) {
	raw, ok := o.sandbox.Clerk.User(clerkUserID)
	if !ok {
		return clerkState{}, nil
	}
	var user struct {
		FirstName string `json:"first_name"`
		LastName  string `json:"last_name"`
		Public    struct {
			Stripe json.RawMessage `json:"stripe"`
		} `json:"public_metadata"`
	}
	if err := json.Unmarshal(raw, &user); err != nil {
		return clerkState{}, fmt.Errorf("read Clerk's user: %w", err)
	}
	return clerkState{exists: true, name: fullName(user.FirstName, user.LastName), projected: user.Public.Stripe}, nil
}

// lookAtStripe finds the customers that say whose they are.
func (o *observer) lookAtStripe(clerkUserID string) (stripeState, error) {
	var st stripeState
	for _, raw := range o.sandbox.Stripe.Customers() {
		var customer stripeCustomer
		if err := json.Unmarshal(raw, &customer); err != nil {
			return st, fmt.Errorf("read Stripe's customer: %w", err)
		}
		if customer.Metadata["clerk_user_id"] != clerkUserID {
			continue
		}
		st.customers = append(st.customers, customer)
		for _, raw := range o.sandbox.Stripe.Subscriptions(customer.ID) {
			var subscription stripeSubscription
			if err := json.Unmarshal(raw, &subscription); err != nil {
				return st, fmt.Errorf("read Stripe's subscription: %w", err)
			}
			st.subscriptions = append(st.subscriptions, subscription)
		}
	}
	return st, nil
}

func (o *observer) lookAtRows(ctx context.Context, clerkUserID string, stripe stripeState) (rowState, error) {
	var st rowState
	var err error
	if st.user, err = o.store.UserByClerkID(ctx, clerkUserID); err != nil {
		return st, fmt.Errorf("read the user's row: %w", err)
	}
	entities, customers := []string{"user/" + clerkUserID}, []string{}
	for _, c := range stripe.customers {
		rows, err := o.store.SubscriptionsOfCustomer(ctx, c.ID)
		if err != nil {
			return st, fmt.Errorf("read the subscriptions' rows: %w", err)
		}
		st.subscriptions = append(st.subscriptions, rows...)
		entities, customers = append(entities, "customer/"+c.ID), append(customers, c.ID)
	}
	err = o.conn.QueryRow(ctx, `SELECT
			(SELECT count(*) FROM webhook_events WHERE entity = ANY($1) AND status = 'completed'),
			(SELECT count(*) FROM webhook_events WHERE entity = ANY($1) AND status IN ('pending', 'failing', 'waiting')),
			(SELECT count(*) FROM pokes WHERE entity = ANY($1) AND due_at IS NOT NULL),
			(SELECT count(*) FROM payments WHERE stripe_customer_id = ANY($2) AND kind = 'invoice' AND status = 'paid')`,
		entities, customers).Scan(&st.completed, &st.due, &st.pokes, &st.payments)
	if err != nil {
		return st, fmt.Errorf("count events and payments: %w", err)
	}
	return st, nil
}

// difference says where the systems disagree, or what is still to be done. Clerk is the truth about
// who somebody is, Stripe about what they pay for.
func (s state) difference() error {
	switch user := s.rows.user; {
	case user == nil:
		return errors.New("PostgreSQL does not know the user yet")
	case s.rows.due > 0:
		return fmt.Errorf("%d events are still due", s.rows.due)
	case s.rows.pokes > 0:
		return errors.New("a workflow is still to be poked")
	case s.clerk.exists:
		if err := s.profileDiffers(user); err != nil {
			return err
		}
	case user.ErasedAt == nil:
		return errors.New("PostgreSQL has not erased the deleted user yet")
	case user.FirstName != nil || user.LastName != nil || user.Email != nil:
		return errors.New("PostgreSQL still holds personal data of a deleted user")
	}
	return s.subscriptionsDiffer()
}

func (s state) profileDiffers(user *store.User) error {
	if name := rowName(user); name != s.clerk.name {
		return fmt.Errorf("Clerk says %q, PostgreSQL %q", s.clerk.name, name)
	}
	if len(s.stripe.customers) == 0 {
		return errors.New("Stripe has no customer for the user yet")
	}
	for _, c := range s.stripe.customers {
		if c.Name != s.clerk.name {
			return fmt.Errorf("Clerk says %q, Stripe %q", s.clerk.name, c.Name)
		}
	}
	projection, err := user.Projection()
	if err != nil {
		return err
	}
	if user.PublishDue() || !projection.Equals(s.clerk.projected) {
		return fmt.Errorf("Clerk does not hold version %d of the subscription yet", user.ProjectionVersion)
	}
	if projection.CustomerID == "" {
		return errors.New("PostgreSQL has no customer for the user yet")
	}
	return nil
}

func (s state) subscriptionsDiffer() error {
	rows := map[string]string{}
	for _, r := range s.rows.subscriptions {
		h := r.Held()
		rows[r.StripeID] = terms(r.Status, h.PriceID, unix(h.CurrentPeriodEnd), h.CancelAtPeriodEnd, unix(h.CancelAt))
	}
	if len(rows) != len(s.stripe.subscriptions) {
		return fmt.Errorf("Stripe has %d subscriptions, PostgreSQL %d", len(s.stripe.subscriptions), len(rows))
	}
	for _, x := range s.stripe.subscriptions {
		truth := terms(x.Status, x.priceID(), x.CurrentPeriodEnd, x.CancelAtPeriodEnd, x.CancelAt)
		if rows[x.ID] != truth {
			return fmt.Errorf("of %s Stripe says %s, PostgreSQL %s", x.ID, truth, rows[x.ID])
		}
	}
	return nil
}

func terms(status, price string, periodEnd int64, atPeriodEnd bool, cancelAt int64) string {
	return fmt.Sprintf("%s, %s, period ends %d, ends with it %t, ends at %d", status, price, periodEnd, atPeriodEnd, cancelAt)
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func rowName(u *store.User) string {
	p := u.Profile()
	return fullName(p.FirstName, p.LastName)
}

func fullName(first, last string) string { return strings.TrimSpace(first + " " + last) }
