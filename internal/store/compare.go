package store

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// Difference is one way in which the systems differ.
type Difference struct {
	Entity account.Entity
	Class  account.Drift
	// Subject is the id of what differs.
	Subject string
	// Detail says in what, by names of fields, ids and statuses; no personal value stands in it.
	Detail map[string]any
	// Claims are the evidence that was shown with it. It is stored with the difference, so that a user
	// who is onboarded meanwhile is given no second customer.
	Claims []account.Claim
}

// Same tells whether two differences are about the same.
func (d Difference) Same(e Difference) bool {
	return d.Entity == e.Entity && d.Class == e.Class && d.Subject == e.Subject
}

// Comparison holds what a provider shows against what is stored. The answers of its methods are
// true of the moment in which they were made: what is on its way shows as a difference, too.
type Comparison struct {
	store *Store
	// run is the comparison's run, whose record of what the lists showed is looked at.
	run      string
	deletion account.DeletionPolicy
	byEmail  bool
}

// Compare answers comparisons for a run. The policy says which subscriptions of a deleted user may
// go on.
func (s *Store) Compare(run string, deletion account.DeletionPolicy) Comparison {
	return Comparison{store: s, run: run, deletion: deletion}
}

// LinkingByEmail is the same comparison where a customer whom nobody is named for belongs to
// whoever has verified its address.
func (c Comparison) LinkingByEmail(on bool) Comparison {
	c.byEmail = on
	return c
}

// Users compares users as Clerk shows them.
func (c Comparison) Users(ctx context.Context, shown []account.ListedUser) ([]Difference, error) {
	ids := make([]string, len(shown))
	for i, u := range shown {
		ids[i] = u.ID
	}
	known, err := c.store.UsersByClerkIDs(ctx, ids)
	if err != nil {
		return nil, err
	}
	var found []Difference
	for _, u := range shown {
		entity := account.UserEntity(u.ID)
		row, ok := known[u.ID]
		switch {
		case !ok:
			found = append(found, Difference{Entity: entity, Class: account.DriftMissingUser, Subject: u.ID})
			continue
		case row.Deleting():
			continue // a tombstone, which nothing undoes
		}
		if fields := profileDifference(row.Profile(), fitted(u.User)); len(fields) > 0 {
			found = append(found, Difference{Entity: entity, Class: account.DriftStaleUser, Subject: u.ID, Detail: map[string]any{"fields": fields}})
		}
		if row.ProjectionVersion == 0 {
			continue // nobody has been told anything yet
		}
		// One that cannot be decoded is no reason to compare nobody.
		if projection, err := row.Projection(); err != nil || !projection.Equals(u.Held) {
			found = append(found, Difference{Entity: entity, Class: account.DriftStaleMetadata, Subject: u.ID,
				Detail: map[string]any{"version": row.ProjectionVersion, "published": row.PublishedVersion}})
		}
	}
	return found, nil
}

// profileDifference names the fields in which two profiles differ.
func profileDifference(a, b account.User) (fields []string) {
	for name, differs := range map[string]bool{
		"first_name": a.FirstName != b.FirstName, "last_name": a.LastName != b.LastName, "user_name": a.Username != b.Username,
		"email": a.Email != b.Email, "email_verified": a.EmailVerified != b.EmailVerified,
	} {
		if differs {
			fields = append(fields, name)
		}
	}
	slices.Sort(fields)
	return fields
}

// owned is a customer's row with what is to be known of its owner.
type owned struct {
	Customer
	ClerkUserID    *string `db:"clerk_user_id"`
	FirstName      *string `db:"first_name"`
	LastName       *string `db:"last_name"`
	UserEmail      *string `db:"user_email"`
	UserIsDeleting bool    `db:"user_is_deleting"`
	// Unverified is set where the link rests on a reference alone.
	Unverified bool `db:"unverified"`
	// Contested is set where the product's own table names the customer for another user than the
	// owner.
	Contested bool `db:"contested"`
}

const ownedColumns = `c.stripe_customer_id, c.user_id, c.link_source, c.read_seq, c.email, c.name, c.profile_version, c.stripe_created_at, c.deleted_in_stripe, c.missing_since, coalesce(c.schedules_read_seq, 0) AS schedules_read_seq, coalesce(c.whole_read_seq, c.read_seq) AS whole_seq, c.made_in_vain_for,
	u.clerk_user_id, u.first_name, u.last_name, u.email AS user_email, u.deletion_requested_at IS NOT NULL AS user_is_deleting,
	u.id IS NOT NULL AND split_part(coalesce(c.link_source, ''), ':', 1) = ANY($2) AND c.link_source NOT LIKE '%' || $3 AND NOT EXISTS (SELECT FROM customer_claims cl
		WHERE cl.stripe_customer_id = c.stripe_customer_id AND cl.clerk_user_id = u.clerk_user_id AND split_part(cl.source, ':', 1) <> ALL($2)) AS unverified,
	u.id IS NOT NULL AND EXISTS (SELECT FROM person_user o WHERE o.stripe_customer_id = c.stripe_customer_id AND o.id <> u.id) AS contested`

func (s *Store) ownedCustomers(ctx context.Context, ids []string) (map[string]owned, error) {
	rows, _ := s.pool.Query(ctx, `SELECT `+ownedColumns+` FROM stripe_customers c LEFT JOIN person_user u ON u.id = c.user_id
		WHERE c.stripe_customer_id = ANY($1)`, ids, account.UnverifiedPlaces(s.trustReferences), account.VerifiedBeside)
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[owned])
	if err != nil {
		return nil, classify("read customers", err)
	}
	customers := make(map[string]owned, len(list))
	for _, c := range list {
		customers[c.ID] = c
	}
	return customers, nil
}

// Customers compares customers as Stripe shows them, without their subscriptions.
func (c Comparison) Customers(ctx context.Context, shown []account.Customer) ([]Difference, error) {
	ids := make([]string, len(shown))
	for i, each := range shown {
		ids[i] = each.ID
	}
	known, err := c.store.ownedCustomers(ctx, ids)
	if err != nil {
		return nil, err
	}
	var found []Difference
	claims, others := map[string][]account.Claim{}, map[string][]account.Claim{}
	var nobodys []account.Customer
	for _, each := range shown {
		row, ok := known[each.ID]
		read := account.ReadClaims(each, nil)
		switch {
		case ok && row.UserID != nil:
			found = append(found, linkedDifferences(row, each)...)
			if row.Contested || slices.ContainsFunc(read, func(cl account.Claim) bool { return cl.ClerkUserID != deref(row.ClerkUserID) }) {
				others[each.ID] = read
			}
		case !each.Deleted:
			claims[each.ID] = read
			nobodys = append(nobodys, each)
		}
	}
	against, err := c.against(ctx, known, others)
	if err != nil {
		return nil, err
	}
	var addressed map[string]string
	if c.byEmail {
		if addressed, err = c.store.UsersByAddress(ctx, nobodys); err != nil {
			return nil, err
		}
	}
	unlinked, err := c.unlinked(ctx, known, claims, addressed)
	return slices.Concat(found, against, unlinked), err
}

// against says of which customers the evidence names another than the owner.
func (c Comparison) against(ctx context.Context, known map[string]owned, shown map[string][]account.Claim) (found []Difference, err error) {
	if len(shown) == 0 {
		return nil, nil
	}
	evidence, err := c.store.evidence(ctx, c.store.pool, c.run, slices.Sorted(maps.Keys(shown)), shown)
	for id, e := range evidence {
		if e.Against(deref(known[id].ClerkUserID)) {
			found = append(found, Difference{Entity: account.CustomerEntity(id), Class: account.DriftConflictingClaims, Subject: id})
		}
	}
	return found, err
}

// linkedDifferences compares a customer that a user owns.
func linkedDifferences(row owned, shown account.Customer) []Difference {
	var found []Difference
	entity := account.CustomerEntity(shown.ID)
	stale := func(fields ...string) {
		found = append(found, Difference{Entity: entity, Class: account.DriftStaleCustomer, Subject: shown.ID, Detail: map[string]any{"fields": fields}})
	}
	if named, ok := account.UserInMetadata(shown.Metadata); row.Unverified && !(ok && named == deref(row.ClerkUserID)) {
		found = append(found, Difference{Entity: entity, Class: account.DriftUnverifiedLink, Subject: shown.ID, Detail: map[string]any{"source": deref(row.LinkSource)}})
	}
	switch {
	case row.DeletedInStripe != shown.Deleted:
		stale("deleted")
	case row.MissingSince != nil && !shown.Deleted:
		stale("missing")
	case shown.Deleted || row.UserIsDeleting:
		// Nothing is written on either any more.
	default:
		user := account.User{FirstName: deref(row.FirstName), LastName: deref(row.LastName)}
		var fields []string
		if has := deref(row.UserEmail); has != "" && !strings.EqualFold(has, fit(strings.TrimSpace(shown.Email))) {
			fields = append(fields, "email")
		}
		if has := user.FullName(); has != "" && fit(has) != fit(strings.TrimSpace(shown.Name)) {
			fields = append(fields, "name")
		}
		if len(fields) > 0 {
			stale(fields...)
		}
	}
	return found
}

// unlinked says what is wrong with customers that no user owns, by the evidence about them: what is
// shown, and what is stored. addressed are the users who have the address of those whom nobody who
// is here is named for.
func (c Comparison) unlinked(ctx context.Context, known map[string]owned, shown map[string][]account.Claim, addressed map[string]string) ([]Difference, error) {
	if len(shown) == 0 {
		return nil, nil
	}
	evidence, err := c.store.evidence(ctx, c.store.pool, c.run, slices.Sorted(maps.Keys(shown)), shown)
	if err != nil {
		return nil, err
	}
	var found []Difference
	for id, e := range evidence {
		d := Difference{Entity: account.CustomerEntity(id), Subject: id, Claims: shown[id]}
		owner := account.Claimant(e.Evidence)
		_, isKnown := known[id]
		claimed, here := owner.ClerkUserID, e.here[owner.ClerkUserID]
		if byAddress := addressed[id]; byAddress != "" && !owner.Conflict && !here {
			claimed, here = byAddress, true
		}
		switch {
		case owner.Conflict:
			d.Class = account.DriftConflictingClaims
		case claimed == "" && len(owner.Unverified) > 0:
			d.Class, d.Detail = account.DriftUnverifiedReference, map[string]any{"claimed": account.NamedUsers(owner.Unverified)}
		case claimed == "":
			continue // somebody else's customer, or one without anything on it
		case !here:
			d.Class, d.Detail = account.DriftClaimedUserMissing, map[string]any{"claimed": claimed}
		case isKnown:
			d.Class, d.Detail = account.DriftUnlinkedCustomer, map[string]any{"claimed": claimed}
		default:
			d.Class, d.Detail = account.DriftMissingCustomer, map[string]any{"claimed": claimed}
		}
		found = append(found, d)
	}
	return found, nil
}

func setOf(list []string) map[string]bool {
	set := make(map[string]bool, len(list))
	for _, id := range list {
		set[id] = true
	}
	return set
}

// Subscriptions compares subscriptions of any status as Stripe shows them.
func (c Comparison) Subscriptions(ctx context.Context, shown []account.Subscription) ([]Difference, error) {
	var ids, customers, prices []string
	for _, s := range shown {
		ids, customers = append(ids, s.ID), append(customers, s.CustomerID)
		for _, item := range s.Items {
			prices = append(prices, item.PriceID)
		}
	}
	rows, _ := c.store.pool.Query(ctx, `SELECT `+subscriptionColumns+` FROM subscriptions WHERE stripe_subscription_id = ANY($1)`, ids)
	stored, err := pgx.CollectRows(rows, pgx.RowToStructByName[Subscription])
	if err != nil {
		return nil, classify("read subscriptions", err)
	}
	plans, err := plansOf(ctx, c.store.pool, prices)
	if err != nil {
		return nil, err
	}
	known, err := c.store.ownedCustomers(ctx, customers)
	if err != nil {
		return nil, err
	}
	var found []Difference
	claims := map[string][]account.Claim{}
	for _, s := range shown {
		entity := account.CustomerEntity(s.CustomerID)
		owner, isKnown := known[s.CustomerID]
		before, has := find(stored, s.ID)
		linked := isKnown && owner.UserID != nil
		switch {
		case s.Unread && (has || linked):
			// Whether it differs is not known: whoever looks at the customer by itself finds out.
			found = append(found, Difference{Entity: entity, Class: account.DriftStaleSubscription, Subject: s.ID, Detail: map[string]any{"fields": []string{"unread"}}})
		case has:
			fields, err := staleFields(before, s, plans, owner.UserIsDeleting)
			if err != nil {
				return nil, err
			}
			if linked && *owner.UserID != before.UserID {
				fields = append(fields, "user_id")
			}
			if len(fields) > 0 {
				found = append(found, Difference{Entity: entity, Class: account.DriftStaleSubscription, Subject: s.ID,
					Detail: map[string]any{"fields": fields, "stripe": string(s.Status), "postgres": before.Status}})
			}
		case linked:
			found = append(found, Difference{Entity: entity, Class: account.DriftMissingSubscription, Subject: s.ID, Detail: map[string]any{"stripe": string(s.Status)}})
		case len(account.ReadClaims(account.Customer{ID: s.CustomerID}, []account.Subscription{s})) > 0:
			claims[s.CustomerID] = append(claims[s.CustomerID], account.ReadClaims(account.Customer{ID: s.CustomerID}, []account.Subscription{s})...)
		case !s.Status.Terminal():
			found = append(found, Difference{Entity: entity, Class: account.DriftOrphanCustomer, Subject: s.CustomerID, Detail: map[string]any{"subscription": s.ID}})
		}
		priced := slices.ContainsFunc(s.Items, func(i account.Item) bool { _, ok := plans[i.PriceID]; return ok })
		if linked && !priced && len(s.Items) > 0 && !s.Status.Terminal() {
			found = append(found, Difference{Entity: entity, Class: account.DriftUnknownPrice, Subject: s.ID, Detail: map[string]any{"price": s.Items[0].PriceID}})
		}
	}
	unlinked, err := c.unlinked(ctx, known, claims, nil)
	if err != nil {
		return nil, err
	}
	return withoutOrphansOf(unlinked, append(found, unlinked...)), nil
}

// withoutOrphansOf drops what says that nobody owns a customer for whom more is known.
func withoutOrphansOf(known, found []Difference) []Difference {
	return slices.DeleteFunc(found, func(d Difference) bool {
		return d.Class == account.DriftOrphanCustomer && slices.ContainsFunc(known, func(k Difference) bool { return k.Entity == d.Entity })
	})
}

// staleFields names the columns that a sync would change.
func staleFields(before Subscription, shown account.Subscription, plans map[string]Plan, deleting bool) ([]string, error) {
	after, err := rowOf(shown, before, plans, deleting)
	if err != nil {
		return nil, err
	}
	old, changed := difference(before, after, true)
	fields := slices.Collect(maps.Keys(changed))
	for name := range old {
		if _, both := changed[name]; !both {
			fields = append(fields, name)
		}
	}
	slices.Sort(fields)
	return fields, nil
}

// Products compares products as Stripe shows them, without their prices.
func (c Comparison) Products(ctx context.Context, shown []account.Product) ([]Difference, error) {
	ids := make([]string, len(shown))
	for i, p := range shown {
		ids[i] = p.ID
	}
	type plan struct {
		ProductID string `db:"stripe_product_id"`
		Name      string `db:"plan_name"`
		Active    bool   `db:"active"`
		Beside    bool   `db:"beside"`
		AddOn     bool   `db:"add_on"`
	}
	rows, _ := c.store.pool.Query(ctx, `SELECT stripe_product_id, plan_name, active, beside, add_on FROM plans WHERE stripe_product_id = ANY($1)`, ids)
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[plan])
	if err != nil {
		return nil, classify("read plans", err)
	}
	known := make(map[string]plan, len(list))
	for _, p := range list {
		known[p.ProductID] = p
	}
	var found []Difference
	for _, p := range shown {
		d := Difference{Entity: account.ProductEntity(p.ID), Subject: p.ID}
		has, ok := known[p.ID]
		switch {
		case !ok:
			d.Class = account.DriftMissingPlan
		case has.Active != (p.Active && !p.Deleted) || has.Beside != p.Beside || !p.Deleted && has.AddOn != p.AddOn || p.Name != "" && has.Name != fit(p.Name):
			d.Class = account.DriftStalePlan
		default:
			continue
		}
		found = append(found, d)
	}
	return found, nil
}

// Prices compares prices as Stripe shows them.
func (c Comparison) Prices(ctx context.Context, shown []account.Price) ([]Difference, error) {
	ids := make([]string, len(shown))
	for i, p := range shown {
		ids[i] = p.ID
	}
	rows, _ := c.store.pool.Query(ctx, `SELECT stripe_price_id AS id, coalesce(stripe_product_id, '') AS product_id, p.active, coalesce(unit_amount, 0),
			unit_amount IS NULL AS unpriced, currency,
			coalesce(billing_interval, '') AS interval, interval_count, coalesce(lookup_key, '') AS lookup_key,
			coalesce(usage_type, '') AS usage_type
		FROM plan_prices p JOIN plans ON plans.id = plan_id WHERE stripe_price_id = ANY($1)`, ids)
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p account.Price, err error) {
		err = row.Scan(&p.ID, &p.ProductID, &p.Active, &p.UnitAmount, &p.Unpriced, &p.Currency, &p.Interval, &p.IntervalCount, &p.LookupKey, &p.UsageType)
		return p, err //nolint:wrapcheck // classified below
	})
	if err != nil {
		return nil, classify("read prices", err)
	}
	known := make(map[string]account.Price, len(list))
	for _, p := range list {
		known[p.ID] = p
	}
	var found []Difference
	for _, p := range shown {
		d := Difference{Entity: account.ProductEntity(p.ProductID), Subject: p.ID}
		has, ok := known[p.ID]
		p.IntervalCount, p.Created = max(p.IntervalCount, 1), time.Time{}
		switch {
		case !ok && !p.Active:
			// Nobody is sold it any more, and who has it is found by the subscription: a product can have
			// any number of such.
			continue
		case !ok:
			d.Class = account.DriftMissingPlan
		case has != p:
			d.Class = account.DriftStalePlan
		default:
			continue
		}
		found = append(found, d)
	}
	return found, nil
}
