package store

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// The kinds of what a run notes of the providers' lists.
const (
	SeenUser         = "user"
	SeenCustomer     = "customer"
	SeenSubscription = "subscription"
	// SeenWatched are customers for whom a workflow is open.
	SeenWatched = "watched"
)

// StoredPage compares what is stored with what the lists of the run have shown, for one page of
// users in the order of our own ids: what no list shows, and what is wrong in itself. It answers
// the id that the next page continues behind, "" after the last.
//
// What a list did not show is only suspected here: it has to be asked for by its id.
func (c Comparison) StoredPage(ctx context.Context, after string, limit int) (found []Difference, users int, next string, err error) {
	rows, _ := c.store.pool.Query(ctx, `SELECT `+userColumns+` FROM person_user WHERE id > $1 ORDER BY id LIMIT $2`, orFirst(after), limit)
	page, err := pgx.CollectRows(rows, pgx.RowToAddrOfStructByName[User])
	if err != nil {
		return nil, 0, "", classify("read a page of users", err)
	}
	if found, err = c.stored(ctx, page); err != nil {
		return nil, 0, "", err
	}
	if len(page) == limit {
		next = page[len(page)-1].ID
	}
	return found, len(page), next, nil
}

// orFirst is the id before all others for none.
func orFirst(id string) string {
	if id == "" {
		return "00000000-0000-0000-0000-000000000000"
	}
	return id
}

// StoredUser is [Comparison.StoredPage] for one user, of whom we may know nothing.
func (c Comparison) StoredUser(ctx context.Context, clerkUserID string) ([]Difference, error) {
	user, err := c.store.UserByClerkID(ctx, clerkUserID)
	if err != nil || user == nil {
		return nil, err
	}
	return c.about(ctx, account.UserEntity(clerkUserID), user)
}

// StoredCustomer is [Comparison.StoredPage] for the owner of one customer, if it has one.
func (c Comparison) StoredCustomer(ctx context.Context, customerID string) ([]Difference, error) {
	rows, _ := c.store.pool.Query(ctx, `SELECT `+userColumns+` FROM person_user WHERE id = (SELECT user_id FROM stripe_customers WHERE stripe_customer_id = $1)`, customerID)
	user, err := oneUser("read a customer's owner", rows)
	if err != nil || user == nil {
		return nil, err
	}
	return c.about(ctx, account.CustomerEntity(customerID), user)
}

func (c Comparison) about(ctx context.Context, entity account.Entity, user *User) ([]Difference, error) {
	found, err := c.stored(ctx, []*User{user})
	return slices.DeleteFunc(found, func(d Difference) bool { return d.Entity != entity }), err
}

// holding is what one user has.
type holding struct {
	user          *User
	customers     []Customer // those that are not deleted at Stripe; some may be missing there
	subscriptions []account.Held
}

func (c Comparison) stored(ctx context.Context, users []*User) ([]Difference, error) {
	holdings, err := c.holdings(ctx, users)
	if err != nil {
		return nil, err
	}
	var userIDs, customerIDs, subscriptionIDs []string
	for _, h := range holdings {
		userIDs = append(userIDs, h.user.ClerkUserID)
		for _, each := range h.customers {
			customerIDs = append(customerIDs, each.ID)
		}
		for _, each := range h.subscriptions {
			subscriptionIDs = append(subscriptionIDs, each.ID)
		}
	}
	seen := map[string]map[string]bool{}
	for kind, ids := range map[string][]string{SeenUser: userIDs, SeenCustomer: customerIDs, SeenWatched: customerIDs, SeenSubscription: subscriptionIDs} {
		if seen[kind], err = c.seen(ctx, kind, ids); err != nil {
			return nil, err
		}
	}
	var found []Difference
	for _, h := range holdings {
		found = append(found, c.ofUser(h, seen)...)
		found = append(found, c.ofCustomers(h, seen)...)
	}
	return found, nil
}

// ofUser says what is wrong with a user.
func (c Comparison) ofUser(h holding, seen map[string]map[string]bool) (found []Difference) {
	id := h.user.ClerkUserID
	if h.user.Deleting() && !h.user.Noted {
		return nil
	}
	note := func(class account.Drift, subject string, detail map[string]any) {
		found = append(found, Difference{Entity: account.UserEntity(id), Class: class, Subject: subject, Detail: detail})
	}
	if !seen[SeenUser][id] {
		note(account.DriftUserMissing, id, nil)
	}
	if h.user.Deleting() {
		return found
	}
	switch len(h.customers) {
	case 0:
		if !h.user.Noted { // whoever the product has noted as deleted is given none
			note(account.DriftUserWithoutCustomer, id, nil)
		}
	case 1:
	default:
		ids := make([]string, len(h.customers))
		for i, each := range h.customers {
			ids[i] = each.ID
		}
		note(account.DriftDuplicateCustomer, id, map[string]any{"customers": ids})
	}
	if subject := misprojected(h); subject != "" {
		note(account.DriftStaleMetadata, subject, map[string]any{"version": h.user.ProjectionVersion, "published": h.user.PublishedVersion})
	}
	running := map[string][]string{}
	for _, s := range h.subscriptions {
		switch s.Status {
		case account.StatusActive, account.StatusTrialing, account.StatusPastDue:
			if product := s.Items[0].ProductID; product != "" {
				running[product] = append(running[product], s.ID)
			}
		case account.StatusIncomplete, account.StatusIncompleteExpired, account.StatusUnpaid, account.StatusPaused, account.StatusCanceled:
		}
	}
	for product, ids := range running {
		if len(ids) > 1 {
			note(account.DriftDoubleSubscription, product, map[string]any{"subscriptions": ids})
		}
	}
	return found
}

// misprojected answers a subscription about which a user's stored projection is wrong, whatever the
// policy and the time: it gives access by one that is not theirs, or none beside one that does; ""
// where there is none. What was never told to Clerk cannot be wrong.
func misprojected(h holding) (subscriptionID string) {
	projection, err := h.user.Projection()
	if err != nil || h.user.ProjectionVersion == 0 {
		return "" // one that cannot be decoded is not what Clerk holds either
	}
	if theirs := func(s account.Held) bool { return s.ID == projection.SubscriptionID }; projection.SubscriptionActive && !slices.ContainsFunc(h.subscriptions, theirs) {
		return projection.SubscriptionID
	}
	for _, s := range h.subscriptions {
		grants := s.Status == account.StatusActive || s.Status == account.StatusTrialing
		if grants && !s.CollectionPaused && !projection.SubscriptionActive {
			return s.ID
		}
	}
	return ""
}

// ofCustomers says what is wrong with a user's customers.
func (c Comparison) ofCustomers(h holding, seen map[string]map[string]bool) (found []Difference) {
	for _, each := range h.customers {
		if !seen[SeenCustomer][each.ID] {
			found = append(found, Difference{Entity: account.CustomerEntity(each.ID), Class: account.DriftCustomerMissing, Subject: each.ID})
		}
	}
	unwatched := map[string]bool{}
	for _, s := range h.subscriptions {
		entity := account.CustomerEntity(s.CustomerID)
		if s.CustomerID == "" {
			entity = account.UserEntity(h.user.ClerkUserID) // whose own look finds its customer
		}
		if !seen[SeenSubscription][s.ID] {
			found = append(found, Difference{Entity: entity, Class: account.DriftSubscriptionMissing, Subject: s.ID, Detail: map[string]any{"postgres": string(s.Status)}})
		}
		if h.user.Deleting() && c.deletion.Stop(s.Subscription) != account.StopNothing {
			found = append(found, Difference{Entity: entity, Class: account.DriftDeletedUserBilled, Subject: s.ID, Detail: map[string]any{"postgres": string(s.Status)}})
		}
		if s.CustomerID != "" && !seen[SeenWatched][s.CustomerID] && !unwatched[s.CustomerID] {
			unwatched[s.CustomerID] = true
			found = append(found, Difference{Entity: entity, Class: account.DriftUnwatched, Subject: s.CustomerID})
		}
	}
	return found
}

// holdings reads what users have: customers that are not deleted, subscriptions that can still
// change.
func (c Comparison) holdings(ctx context.Context, users []*User) ([]holding, error) {
	ids := make([]string, len(users))
	holdings := make([]holding, len(users))
	index := make(map[string]int, len(users))
	for i, u := range users {
		ids[i], holdings[i].user, index[u.ID] = u.ID, u, i
	}
	rows, _ := c.store.pool.Query(ctx, `SELECT `+customerColumns+` FROM stripe_customers WHERE user_id = ANY($1) AND NOT deleted_in_stripe`, ids)
	customers, err := pgx.CollectRows(rows, pgx.RowToStructByName[Customer])
	if err != nil {
		return nil, classify("read customers", err)
	}
	for _, each := range customers {
		h := &holdings[index[deref(each.UserID)]]
		h.customers = append(h.customers, each)
	}
	rows, _ = c.store.pool.Query(ctx, `SELECT `+subscriptionColumns+` FROM subscriptions
		WHERE user_id = ANY($1) AND status NOT IN ('canceled', 'incomplete_expired')`, ids)
	subscriptions, err := pgx.CollectRows(rows, pgx.RowToStructByName[Subscription])
	if err != nil {
		return nil, classify("read subscriptions", err)
	}
	for _, each := range subscriptions {
		h := &holdings[index[each.UserID]]
		held := each.Held()
		held.Items = []account.Item{{ProductID: deref(each.ProductID)}}
		h.subscriptions = append(h.subscriptions, held)
	}
	return holdings, nil
}

// seen tells which of these the run's lists have shown.
func (c Comparison) seen(ctx context.Context, kind string, ids []string) (map[string]bool, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	rows, _ := c.store.pool.Query(ctx, `SELECT id FROM reconciliation_seen WHERE run_id = $1 AND kind = $2 AND id = ANY($3)`, c.run, kind, ids)
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return setOf(list), classify("look what was seen", err)
}
