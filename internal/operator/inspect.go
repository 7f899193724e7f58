package operator

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/runs"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// Stripe is what is asked of Stripe to show how somebody stands there.
type Stripe interface {
	CustomerSubscriptions(ctx context.Context, customerID string) ([]account.Subscription, *account.Customer, error)
	Customer(ctx context.Context, customerID string) (account.Customer, error)
}

// Clerk is what is asked of Clerk.
type Clerk interface {
	User(ctx context.Context, clerkUserID string) (user account.User, held json.RawMessage, err error)
}

// Inspector shows one user in the three systems side by side.
type Inspector struct {
	Console
	Stripe Stripe
	Clerk  Clerk
	// Namespace is Temporal's, UIURL the address of its Web UI; "" for no links.
	Namespace, UIURL string
}

// Inspection is how one user stands.
type Inspection struct {
	UserID   string        `json:"userId"`
	Clerk    ClerkView     `json:"clerk"`
	Postgres *PostgresView `json:"postgres"` // nil where we do not know them
	Stripe   []StripeView  `json:"stripe"`
	// Findings say in a sentence each what does not agree, or stands in the way.
	Findings    []string               `json:"findings"`
	Differences []store.OpenDifference `json:"differences"`
	// Unsettled is what may still bill a user who is being deleted.
	Unsettled []account.Unsettled `json:"unsettled"`
	// Operations are those that have not ended.
	Operations []OperationView `json:"operations"`
	Runs       []RunView       `json:"runs"`
	Events     []store.Event   `json:"events"`
	Audit      []AuditView     `json:"audit"`
}

// ClerkView is what Clerk says.
type ClerkView struct {
	Profile
	// Known is false where Clerk has no such user.
	Known bool `json:"known"`
	// Metadata is what stands under the key "stripe" of the public metadata.
	Metadata json.RawMessage `json:"metadata,omitempty"`
	// Error is why Clerk could not be asked.
	Error string `json:"error,omitempty"`
}

// Projection is what Clerk's metadata say of the user's subscription; empty where they hold nothing
// of ours.
func (c ClerkView) Projection() account.Projection {
	var p account.Projection
	if json.Unmarshal(c.Metadata, &p) != nil {
		return account.Projection{}
	}
	return p
}

// SubscriptionPair is a subscription as we have it and as Stripe has it; "" where one does not.
type SubscriptionPair struct{ ID, Postgres, Stripe string }

// Subscriptions lists all subscriptions that either has.
func (v Inspection) Subscriptions() []SubscriptionPair {
	var pairs []SubscriptionPair
	index := map[string]int{}
	at := func(id string) *SubscriptionPair {
		i, ok := index[id]
		if !ok {
			i, index[id] = len(pairs), len(pairs)
			pairs = append(pairs, SubscriptionPair{ID: id})
		}
		return &pairs[i]
	}
	if v.Postgres != nil {
		for _, s := range v.Postgres.Subscriptions {
			at(s.ID).Postgres = standing(s)
		}
	}
	for _, c := range v.Stripe {
		for _, s := range c.Subscriptions {
			at(s.ID).Stripe = standing(s)
		}
	}
	return pairs
}

// Profile is a name and an address.
type Profile struct {
	Name  string `json:"name,omitempty"`
	Email string `json:"email,omitempty"`
}

// PostgresView is what is stored.
type PostgresView struct {
	Profile
	DeletionRequestedAt *time.Time         `json:"deletionRequestedAt,omitempty"`
	DeletedAt           *time.Time         `json:"deletedAt,omitempty"`
	Projection          account.Projection `json:"projection"`
	Published           int64              `json:"published"`
	PublishError        *string            `json:"publishError,omitempty"`
	Customers           []string           `json:"customers"`
	Subscriptions       []SubscriptionView `json:"subscriptions"`
}

// SubscriptionView is a subscription, as one of the systems has it.
type SubscriptionView struct {
	ID               string         `json:"id"`
	CustomerID       string         `json:"customerId"`
	Status           account.Status `json:"status"`
	PriceID          string         `json:"priceId,omitempty"`
	Plan             string         `json:"plan,omitempty"`
	CurrentPeriodEnd time.Time      `json:"currentPeriodEnd,omitzero"`
	EndsAt           time.Time      `json:"endsAt,omitzero"`
	Ends             bool           `json:"ends"`
}

// StripeView is what Stripe says of one customer.
type StripeView struct {
	Profile
	CustomerID string `json:"customerId"`
	// Known is false where Stripe has no such customer.
	Known         bool               `json:"known"`
	Deleted       bool               `json:"deleted"`
	Subscriptions []SubscriptionView `json:"subscriptions"`
	// Error is why Stripe could not be asked.
	Error string `json:"error,omitempty"`
}

// OperationView is something that was asked for and has not ended.
type OperationView struct {
	ID        string    `json:"id"`
	Action    string    `json:"action"`
	Status    string    `json:"status"`
	CreatedAt time.Time `json:"createdAt"`
}

// RunView is a workflow's latest run.
type RunView struct {
	runs.Run
	// Link leads to it in Temporal's Web UI; "" where there is none.
	Link string `json:"link,omitempty"`
}

// AuditView is a line of the audit log.
type AuditView struct {
	At      time.Time `json:"at"`
	Action  string    `json:"action"`
	Subject string    `json:"subject"`
	Caller  string    `json:"caller,omitempty"`
}

const (
	// eventsShown and linesShown are how many of the latest are shown.
	eventsShown = 15
	linesShown  = 10
	// patience bounds what is asked of a provider.
	patience = 5 * time.Second
)

// Resolve answers the Clerk user id that an id leads to: of a user, of a customer, of a
// subscription or of an event; "" where it leads to nobody.
func (i *Inspector) Resolve(ctx context.Context, id string) (clerkUserID string, err error) {
	switch {
	case account.ValidUserID(id):
		return id, nil
	case account.ValidCustomerID(id):
		return i.Store.OwnerOfCustomer(ctx, id)
	case account.ValidSubscriptionID(id):
		_, clerkUserID, err = i.Store.OwnerOf(ctx, id)
		return clerkUserID, err
	}
	event, _, err := i.Event(ctx, "", id)
	if err != nil || event == nil || event.Entity == nil {
		return "", err
	}
	switch kind, id := account.Entity(*event.Entity).Split(); kind {
	case account.KindUser:
		return id, nil
	case account.KindCustomer:
		return i.Store.OwnerOfCustomer(ctx, id)
	case account.KindProduct, account.KindCharge:
		return "", nil
	default:
		return "", nil
	}
}

// Inspect asks all three systems how a user stands. What cannot be asked says so in its place.
func (i *Inspector) Inspect(ctx context.Context, clerkUserID string) (Inspection, error) {
	view := Inspection{UserID: clerkUserID, Clerk: i.clerk(ctx, clerkUserID), Stripe: []StripeView{}, Findings: []string{},
		Unsettled: []account.Unsettled{}, Operations: []OperationView{}, Runs: []RunView{}, Audit: []AuditView{}}
	user, err := i.Store.UserByClerkID(ctx, clerkUserID)
	if err != nil {
		return view, err
	}
	if user != nil {
		if view.Postgres, err = i.postgres(ctx, user); err != nil {
			return view, err
		}
	}
	if user != nil && user.Deleting() {
		open, err := i.Store.UnsettledOfUser(ctx, user, account.DeleteCancelAtPeriodEnd)
		if err != nil {
			return view, err
		}
		view.Unsettled = append(view.Unsettled, open...)
	}
	entities, err := i.entitiesOf(ctx, clerkUserID)
	if err != nil {
		return view, err
	}
	for _, entity := range entities {
		if kind, id := entity.Split(); kind == account.KindCustomer {
			view.Stripe = append(view.Stripe, i.stripe(ctx, id))
		}
		run, err := i.Runs.Of(ctx, entity)
		if err != nil {
			view.Findings = append(view.Findings, "Temporal cannot be asked: "+err.Error())
			break
		}
		if run != nil {
			view.Runs = append(view.Runs, RunView{Run: *run, Link: i.link(run)})
		}
	}
	if view.Events, err = i.Store.Events(ctx, store.EventFilter{Entities: entities}, store.EventPlace{}, eventsShown); err != nil {
		return view, err
	}
	if view.Differences, err = i.Store.OpenDifferences(ctx, store.DriftFilter{Entities: entities}, 0, eventsShown); err != nil {
		return view, err
	}
	if err := i.operations(ctx, entities, &view); err != nil {
		return view, err
	}
	if user != nil {
		lines, err := i.Store.AuditOfUser(ctx, user, 0, linesShown)
		if err != nil {
			return view, err
		}
		for _, l := range lines {
			view.Audit = append(view.Audit, AuditView{l.At, l.Action, l.Subject, l.Caller})
		}
	}
	view.Findings = append(view.Findings, view.compare()...)
	return view, nil
}

func (i *Inspector) clerk(ctx context.Context, clerkUserID string) ClerkView {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	user, held, err := i.Clerk.User(ctx, clerkUserID)
	switch {
	case failure.IsNotFound(err):
		return ClerkView{}
	case err != nil:
		return ClerkView{Error: err.Error()}
	default:
		return ClerkView{Known: true, Profile: Profile{user.FullName(), user.Email}, Metadata: held}
	}
}

func (i *Inspector) postgres(ctx context.Context, user *store.User) (*PostgresView, error) {
	profile := user.Profile()
	view := &PostgresView{
		Profile:             Profile{profile.FullName(), profile.Email},
		DeletionRequestedAt: user.DeletionRequestedAt, DeletedAt: user.ErasedAt, Published: user.PublishedVersion, PublishError: user.PublishError,
		Customers: []string{}, Subscriptions: []SubscriptionView{},
	}
	var err error
	if view.Projection, err = user.Projection(); err != nil {
		return nil, err
	}
	customers, err := i.Store.CustomersOf(ctx, user)
	if err != nil {
		return nil, err
	}
	for _, c := range customers {
		if !c.DeletedInStripe {
			view.Customers = append(view.Customers, c.ID)
		}
	}
	rows, err := i.Store.SubscriptionsOfUser(ctx, user)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		held := row.Held()
		s := subscriptionView(held.Subscription)
		s.PriceID, s.Plan = held.PriceID, held.Plan
		view.Subscriptions = append(view.Subscriptions, s)
	}
	return view, nil
}

func subscriptionView(s account.Subscription) SubscriptionView {
	view := SubscriptionView{ID: s.ID, CustomerID: s.CustomerID, Status: s.Status, CurrentPeriodEnd: s.CurrentPeriodEnd}
	view.EndsAt, view.Ends = s.ScheduledToEnd()
	if len(s.Items) > 0 {
		view.PriceID = s.Items[0].PriceID
	}
	return view
}

func (i *Inspector) stripe(ctx context.Context, customerID string) StripeView {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	view := StripeView{CustomerID: customerID, Subscriptions: []SubscriptionView{}}
	list, customer, err := i.Stripe.CustomerSubscriptions(ctx, customerID)
	if customer == nil && (err == nil || failure.IsNotFound(err)) {
		var found account.Customer
		if found, err = i.Stripe.Customer(ctx, customerID); err == nil {
			customer = &found
		}
	}
	switch {
	case failure.IsNotFound(err):
		return view
	case err != nil:
		view.Error = err.Error()
		return view
	}
	view.Known, view.Deleted, view.Profile = true, customer.Deleted, Profile{customer.Name, customer.Email}
	for _, s := range list {
		view.Subscriptions = append(view.Subscriptions, subscriptionView(s))
	}
	return view
}

func (i *Inspector) operations(ctx context.Context, entities []account.Entity, view *Inspection) error {
	list, err := i.Store.Unsettled(ctx, entities)
	for _, o := range list {
		view.Operations = append(view.Operations, OperationView{o.ID, string(o.Action), string(o.Status), o.CreatedAt})
	}
	return err
}

// link is the address of a run in Temporal's Web UI.
func (i *Inspector) link(run *runs.Run) string {
	if i.UIURL == "" {
		return ""
	}
	return strings.TrimRight(i.UIURL, "/") + "/namespaces/" + url.PathEscape(i.Namespace) + "/workflows/" + url.PathEscape(run.WorkflowID) + "/" + run.RunID + "/history"
}
