package activities

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeevent"
)

// Reconciler compares everything that Clerk, Stripe and PostgreSQL hold, tells of what differs, and
// has repaired what may be. It changes nothing itself: a repair is a poke of the entity, whose
// workflow takes what the provider says for true.
type Reconciler struct {
	Store  *store.Store
	Stripe interface {
		Stripe
		StripeLists
	}
	Clerk interface {
		Clerk
		UserList
	}
	Watchers Watchers
	Deletion account.DeletionPolicy
	// LinkByEmail is [SubscriptionPolicy.LinkByEmail].
	LinkByEmail bool
	// Repair lists the classes that a run by schedule repairs.
	Repair []account.Drift
	// MaxChanges is the most entities that one run has repaired.
	MaxChanges int
	// Settle is how long what differs is left to what may be on its way.
	Settle time.Duration
	// Observe is told how a run ended; it may be nil.
	Observe func(complete bool)
}

// The lists of Stripe, in the order in which they are compared: what a later one refers to is known
// by then.
const (
	ListProducts      = "products"
	ListPrices        = "prices"
	ListCustomers     = "customers"
	ListSubscriptions = "subscriptions"
)

// ReconciliationStart says what a run is to do.
type ReconciliationStart struct {
	RunID  string `json:"runId"`
	Caller string `json:"caller,omitempty"`
	// Repair are the classes that whoever asked for the run wants repaired; none for a run by
	// schedule.
	Repair []account.Drift `json:"repair,omitempty"`
}

// ReconciliationPlan is how a run goes about it.
type ReconciliationPlan struct {
	Repair     []account.Drift `json:"repair,omitempty"`
	MaxChanges int             `json:"maxChanges"`
	Settle     time.Duration   `json:"settle"`
}

// BeginReconciliation records the run and answers the plan. A run that nobody asked for repairs
// what is configured, and never what only a person can ask for. It runs on the database's task
// queue.
//
// Idempotent: the run is recorded under its id.
func (a *Reconciler) BeginReconciliation(ctx context.Context, in ReconciliationStart) (ReconciliationPlan, error) {
	repair := in.Repair
	if in.Caller == "" {
		repair = slices.DeleteFunc(slices.Clone(a.Repair), func(class account.Drift) bool { return class.Repair() != account.RepairAlone })
	}
	run := store.Reconciliation{ID: in.RunID, WorkflowID: cause(ctx).WorkflowID}
	if in.Caller != "" {
		run.Caller = &in.Caller
	}
	for _, class := range repair {
		run.Repair = append(run.Repair, string(class))
	}
	return ReconciliationPlan{Repair: repair, MaxChanges: a.MaxChanges, Settle: a.Settle}, a.Store.BeginReconciliation(ctx, run)
}

// ScanInput says how far a list has been compared.
type ScanInput struct {
	RunID string `json:"runId"`
	// List is one of Stripe's; "" for all others.
	List string `json:"list,omitempty"`
	// After is what the next page continues behind, "" for the first.
	After string `json:"after,omitempty"`
}

// ScanResult says how far the list has been compared now.
type ScanResult struct {
	After    string `json:"after,omitempty"`
	Complete bool   `json:"complete,omitempty"`
	// Compared counts what was looked at, Found the differences; either may be counted twice where
	// pages overlap.
	Compared int `json:"compared,omitempty"`
	Found    int `json:"found,omitempty"`
}

// CompareUsers compares Clerk's list of users with what is stored. It runs on Clerk's task queue.
//
// Idempotent: what was seen and found is noted once.
func (a *Reconciler) CompareUsers(ctx context.Context, in ScanInput) (ScanResult, error) {
	compare := a.Store.Compare(in.RunID, a.Deletion)
	return a.scan(ctx, in, store.SeenUser, func(ctx context.Context, after string) (scanned, error) {
		users, next, err := a.Clerk.UsersPage(ctx, after)
		if err != nil {
			return scanned{}, err
		}
		page := scanned{ids: idsOf(users, func(u account.ListedUser) string { return u.ID }), next: next}
		page.found, err = compare.Users(ctx, users)
		return page, err
	})
}

func idsOf[T any](list []T, id func(T) string) []string {
	ids := make([]string, len(list))
	for i, each := range list {
		ids[i] = id(each)
	}
	return ids
}

// CompareStripe compares one of Stripe's lists with what is stored. It runs on Stripe's task queue.
//
// Idempotent: what was seen and found is noted once.
func (a *Reconciler) CompareStripe(ctx context.Context, in ScanInput) (ScanResult, error) {
	compare := a.Store.Compare(in.RunID, a.Deletion).LinkingByEmail(a.LinkByEmail)
	switch in.List {
	case ListProducts:
		return a.scan(ctx, in, "", listed(a.Stripe.ProductsPage, compare.Products, func(p account.Product) string { return p.ID }, productMade))
	case ListPrices:
		return a.scan(ctx, in, "", listed(a.Stripe.PricesPage, compare.Prices, func(p account.Price) string { return p.ID }, priceMade))
	case ListCustomers:
		return a.scan(ctx, in, store.SeenCustomer, listed(a.Stripe.CustomersPage, compare.Customers, func(c account.Customer) string { return c.ID }, customerMade))
	case ListSubscriptions:
		return a.scan(ctx, in, store.SeenSubscription, listed(a.Stripe.SubscriptionsPage, compare.Subscriptions, func(s account.Subscription) string { return s.ID }, subscriptionMade))
	default:
		return ScanResult{}, failure.New(failure.Permanent, "worker", "compare a list", "no_such_list", nil)
	}
}

// behind is the place behind a page of one of Stripe's lists: the id of its last object, and when
// that was made, "" after the last page.
func behind[T any](next string, page []T, made func(T) time.Time) string {
	if next == "" || len(page) == 0 {
		return next
	}
	at := made(page[len(page)-1])
	if at.IsZero() {
		return next
	}
	return next + "@" + strconv.FormatInt(at.Unix(), 10)
}

func productMade(p account.Product) time.Time           { return p.Created }
func priceMade(p account.Price) time.Time               { return p.Created }
func customerMade(c account.Customer) time.Time         { return c.Created }
func subscriptionMade(s account.Subscription) time.Time { return s.Created }
func eventMade(e stripeevent.Listed) time.Time          { return e.Created }

// listed makes a page of one of Stripe's lists what it comes to.
func listed[T any](list func(context.Context, string) ([]T, string, error), compare func(context.Context, []T) ([]store.Difference, error), id func(T) string, made func(T) time.Time) func(context.Context, string) (scanned, error) {
	return func(ctx context.Context, after string) (scanned, error) {
		objects, next, err := list(ctx, after)
		if err != nil {
			return scanned{}, err
		}
		found, err := compare(ctx, objects)
		return scanned{ids: idsOf(objects, id), next: behind(next, objects, made), found: found}, err
	}
}

// CompareWatched notes for which customers a workflow is open. It runs on the database's task
// queue.
//
// Idempotent: what was seen is noted once.
func (a *Reconciler) CompareWatched(ctx context.Context, in ScanInput) (ScanResult, error) {
	return a.scan(ctx, in, store.SeenWatched, func(ctx context.Context, after string) (scanned, error) {
		ids, next, err := a.Watchers.WatchedPage(ctx, after)
		return scanned{ids: ids, next: next}, err
	})
}

// storedPage is how many users are compared at once with what the lists have shown.
const storedPage = 200

// CompareStored compares what is stored with what the lists have shown: what is in none of them,
// and what is wrong in itself. It runs on the database's task queue.
//
// Idempotent: what was found is noted once.
func (a *Reconciler) CompareStored(ctx context.Context, in ScanInput) (ScanResult, error) {
	compare := a.Store.Compare(in.RunID, a.Deletion)
	return a.scan(ctx, in, "", func(ctx context.Context, after string) (page scanned, err error) {
		page.found, page.size, page.next, err = compare.StoredPage(ctx, after, storedPage)
		return page, err
	})
}

// scanned is what one page came to.
type scanned struct {
	ids   []string
	size  int // where it is not that of ids
	next  string
	found []store.Difference
}

// scan compares pages for as long as an attempt may, and notes what each has shown.
func (a *Reconciler) scan(ctx context.Context, in ScanInput, kind string, page func(context.Context, string) (scanned, error)) (ScanResult, error) {
	result := ScanResult{After: in.After}
	complete, err := pages(ctx, func(ctx context.Context) (last bool, err error) {
		p, err := page(ctx, result.After)
		if err != nil {
			return false, err
		}
		if err := a.Store.NotePage(ctx, in.RunID, kind, p.ids, p.found); err != nil {
			return false, err
		}
		result.After = p.next
		result.Compared += max(len(p.ids), p.size)
		result.Found += len(p.found)
		return p.next == "", nil
	})
	result.Complete = complete
	return result, err
}

// ConcludeInput says what was compared.
type ConcludeInput struct {
	RunID    string           `json:"runId"`
	Compared map[string]int64 `json:"compared"`
}

// ConcludeComparison closes what the run has not met again; every list was read to its end. It
// answers how many differences of each class are confirmed. It runs on the database's task queue.
//
// Idempotent: it counts, and what is closed stays closed.
func (a *Reconciler) ConcludeComparison(ctx context.Context, in ConcludeInput) (map[string]int64, error) {
	return a.Store.ConcludeComparison(ctx, in.RunID, in.Compared)
}

// RepairInput says what is to be repaired.
type RepairInput struct {
	RunID   string          `json:"runId"`
	Caller  string          `json:"caller,omitempty"`
	Classes []account.Drift `json:"classes"`
	// MaxChanges is the most entities that the whole run may have repaired.
	MaxChanges int `json:"maxChanges"`
}

// RepairResult says of how many entities the run has asked for the repair by now.
type RepairResult struct {
	Asked    int  `json:"asked"`
	Complete bool `json:"complete,omitempty"`
}

// repairPage is how many entities one transaction asks to be repaired.
const repairPage = 20

// RepairDrift asks for the repair of confirmed differences. It runs on the database's task queue.
//
// Idempotent: what was asked for is counted in the transaction that asks, and not asked for again.
func (a *Reconciler) RepairDrift(ctx context.Context, in RepairInput) (result RepairResult, err error) {
	why := cause(ctx)
	why.Caller = in.Caller
	result.Complete, err = pages(ctx, func(ctx context.Context) (last bool, err error) {
		result.Asked, last, err = a.Store.RepairPage(ctx, in.RunID, in.Classes, repairPage, in.MaxChanges, why)
		return last, err
	})
	return result, err
}

// FinishInput says how a run ended.
type FinishInput struct {
	RunID   string `json:"runId"`
	Failure string `json:"failure,omitempty"`
}

// forgetPage is how much one statement removes of what a run has noted.
const forgetPage = 5000

// FinishReconciliation records the end of a run and removes what it has noted for itself. It
// answers whether all of that is gone. It runs on the database's task queue.
//
// Idempotent: what is recorded and removed stays so.
func (a *Reconciler) FinishReconciliation(ctx context.Context, in FinishInput) (complete bool, err error) {
	if err := a.Store.FinishReconciliation(ctx, in.RunID, in.Failure); err != nil {
		return false, err
	}
	complete, err = pages(ctx, func(ctx context.Context) (last bool, err error) {
		more, err := a.Store.ForgetRun(ctx, in.RunID, forgetPage)
		return !more, err
	})
	if complete && err == nil && a.Observe != nil {
		a.Observe(in.Failure == "")
	}
	return complete, err
}
