package activities

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"golang.org/x/sync/errgroup"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/intake"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// Bulk brings in what both providers hold, page by page: it compares a page with what is stored, and for
// what differs, and for nothing else, does what the workflows do, beside them. The fences that keep two
// reads of one workflow apart keep this one apart from theirs.
type Bulk struct {
	Store  *store.Store
	Stripe interface {
		StripeLists
		EventLister
	}
	Clerk interface {
		UserList
		ChangeLister
		UserCount
	}
	Users         *Users
	Customers     *Customers
	Subscriptions *Subscriptions
	Projections   *Projections
	Catalogue     *Catalogue
	Deletion      account.DeletionPolicy
	// Livemode is the mode of our Stripe key.
	Livemode bool
	// AtOnce is how many entities are brought in at the same time. The clients keep to the providers' rates.
	AtOnce int
}

// UserCount tells how many users there are.
type UserCount interface {
	CountUsers(ctx context.Context) (int64, error)
}

// The lists of a bulk sync, in the order in which they are read: what a later one refers to is known by then. Users
// are stored before anything is linked to them, and given a customer only when every customer that names them is.
const (
	BulkProducts      = "products"
	BulkPrices        = "prices"
	BulkUsers         = "users"
	BulkCustomers     = "customers"
	BulkSubscriptions = "subscriptions"
	BulkOnboarding    = "onboarding"
	// BulkNamed are the entities that were asked for, and the only list where any were.
	BulkNamed = "named"
	// BulkChangedUsers and BulkChanges are what has changed since a moment: Clerk's users by their own time of change,
	// and what Stripe's events are about. They are read instead of the lists of everything, before BulkOnboarding.
	BulkChangedUsers = "changed users"
	BulkChanges      = "changes"
)

// BulkReachesBack is how far back a bulk sync of what has changed can reach: Stripe lists events of 30 days. A day of
// it is left for the pass itself.
const BulkReachesBack = eventsListed - 24*time.Hour

// BulkInput names the pass and the list.
type BulkInput struct {
	ID   string `json:"id"`
	Step string `json:"step"`
}

// BulkResult says how far the pass is.
type BulkResult struct {
	// Complete is set when the list has been read to its end.
	Complete bool `json:"complete,omitempty"`
	// Paused is set when somebody has paused the pass.
	Paused bool `json:"paused,omitempty"`
}

// BulkClerk reads Clerk's list. It runs on Clerk's task queue.
//
// Idempotent: what is stored is a state, under the fences; a page that was not noted is read once more.
func (a *Bulk) BulkClerk(ctx context.Context, in BulkInput) (BulkResult, error) {
	return a.read(ctx, in)
}

// BulkStripe reads one of Stripe's lists, gives users their customers, or brings in what is named. It runs on
// Stripe's task queue.
//
// Idempotent: as [Bulk.BulkClerk].
func (a *Bulk) BulkStripe(ctx context.Context, in BulkInput) (BulkResult, error) {
	return a.read(ctx, in)
}

// FinishBulk records the end of a pass. It runs on the database's task queue.
//
// Idempotent: the first end is kept.
func (a *Bulk) FinishBulk(ctx context.Context, in FinishInput) error {
	return a.Store.FinishBulk(ctx, in.RunID, in.Failure)
}

// read takes a list on for as long as an attempt may. How far it is stands in the database, where it was
// written with what the page came to.
func (a *Bulk) read(ctx context.Context, in BulkInput) (result BulkResult, err error) {
	complete, err := pages(ctx, func(ctx context.Context) (last bool, err error) {
		run, err := a.Store.Bulk(ctx, in.ID)
		switch {
		case err != nil:
			return false, err
		case run == nil || run.FinishedAt != nil:
			return false, failure.New(failure.Permanent, "postgres", "read a bulk sync", "ended", nil)
		case run.Paused:
			result.Paused = true
			return true, nil
		}
		after := ""
		if run.Step == in.Step {
			if after = run.After; after == "" && run.Pages > 0 {
				return true, nil // its last page was noted, and the answer was lost
			}
		}
		return a.page(ctx, run, in.Step, after)
	})
	result.Complete = complete && !result.Paused
	return result, err
}

// bulkPage is what a list shows, what of it differs, and what a look at it takes.
type bulkPage struct {
	next  string
	seen  int
	found []store.Difference
	// entities are those to bring in whatever differs.
	entities []account.Entity
}

// page reads, brings in and notes one page.
func (a *Bulk) page(ctx context.Context, run *store.BulkRun, step, after string) (last bool, err error) {
	shown, err := a.show(ctx, run, step, after)
	if err != nil {
		return false, err
	}
	noted := store.BulkPage{Step: step, Next: shown.next, Seen: shown.seen, Found: map[string]int64{}}
	due := shown.entities
	for _, d := range shown.found {
		noted.Found[string(d.Class)]++
		if d.Class.Repair() == account.RepairAlone {
			due = append(due, d.Entity)
		}
	}
	if !run.DryRun {
		if noted.Done, noted.Failures, err = a.bringIn(ctx, run, step, store.Distinct(due), shown.found); err != nil {
			return false, err
		}
	}
	return shown.next == "", a.Store.NoteBulkPage(ctx, run.ID, noted)
}

// show reads a page of a list.
func (a *Bulk) show(ctx context.Context, run *store.BulkRun, step, after string) (bulkPage, error) {
	compare := a.Store.Compare(run.ID, a.Deletion)
	switch step {
	case BulkProducts:
		return shownBy(ctx, after, a.Stripe.ProductsPage, compare.Products)
	case BulkPrices:
		return shownBy(ctx, after, a.Stripe.PricesPage, compare.Prices)
	case BulkCustomers:
		return shownBy(ctx, after, a.Stripe.CustomersPage, compare.Customers)
	case BulkSubscriptions:
		return shownBy(ctx, after, a.Stripe.SubscriptionsPage, compare.Subscriptions)
	case BulkUsers:
		return a.showUsers(ctx, run, after)
	case BulkChangedUsers:
		return a.showChangedUsers(ctx, run, after)
	case BulkChanges:
		return a.showChanges(ctx, run, after)
	case BulkOnboarding:
		ids, next, err := a.Store.WithoutCustomer(ctx, after, onboardingPage)
		page := bulkPage{next: next, seen: len(ids)}
		for _, id := range ids {
			page.found = append(page.found, store.Difference{Entity: account.UserEntity(id), Class: account.DriftUserWithoutCustomer, Subject: id})
		}
		return page, err
	case BulkNamed:
		return showNamed(run.Entities, after)
	default:
		return bulkPage{}, failure.New(failure.Permanent, "worker", "bring in a list", "no_such_list", nil)
	}
}

func shownBy[T any](ctx context.Context, after string, list func(context.Context, string) ([]T, string, error), compare func(context.Context, []T) ([]store.Difference, error)) (page bulkPage, err error) {
	objects, next, err := list(ctx, after)
	if err != nil {
		return page, err
	}
	page.next, page.seen = next, len(objects)
	page.found, err = compare(ctx, objects)
	return page, err
}

func offsetOf(after string) (int, error) {
	offset, err := strconv.Atoi(orZero(after))
	if err != nil {
		return 0, failure.New(failure.Permanent, "worker", "bring in users", "bad_offset", nil)
	}
	return offset, nil
}

func (a *Bulk) showUsers(ctx context.Context, run *store.BulkRun, after string) (page bulkPage, err error) {
	offset, err := offsetOf(after)
	if err != nil {
		return page, err
	}
	if after == "" {
		count, err := a.Clerk.CountUsers(ctx)
		if err != nil {
			return page, err
		}
		if err := a.Store.SetBulkUsers(ctx, run.ID, count); err != nil {
			return page, err
		}
	}
	users, next, err := a.Clerk.UsersPage(ctx, offset)
	if err != nil {
		return page, err
	}
	return a.shownUsers(ctx, run, users, next)
}

func (a *Bulk) shownUsers(ctx context.Context, run *store.BulkRun, users []account.ListedUser, next int) (page bulkPage, err error) {
	if next > 0 {
		page.next = strconv.Itoa(next)
	}
	page.seen = len(users)
	page.found, err = a.Store.Compare(run.ID, a.Deletion).Users(ctx, users)
	return page, err
}

// showChangedUsers reads those users first that were changed last. One who is changed meanwhile moves others to a later
// page, so that some are looked at twice and none is passed over.
func (a *Bulk) showChangedUsers(ctx context.Context, run *store.BulkRun, after string) (page bulkPage, err error) {
	offset, err := offsetOf(after)
	if err != nil {
		return page, err
	}
	users, next, err := a.Clerk.ChangedUsersPage(ctx, offset)
	if err != nil {
		return page, err
	}
	if older := slices.IndexFunc(users, func(u account.ListedUser) bool { return u.UpdatedAt.Before(*run.Since) }); older >= 0 {
		users, next = users[:older], 0
	}
	return a.shownUsers(ctx, run, users, next)
}

// showChanges reads what Stripe's events are about, from the newest back. An event says that something has changed;
// what it is now is read.
func (a *Bulk) showChanges(ctx context.Context, run *store.BulkRun, after string) (page bulkPage, err error) {
	identity, err := a.Store.Identity(ctx)
	if err != nil {
		return page, err
	}
	listed, next, err := a.Stripe.EventsPage(ctx, *run.Since, after)
	if err != nil {
		return page, err
	}
	page.next, page.seen = next, len(listed)
	for _, e := range recovered(intake.Rules{Livemode: a.Livemode, Identity: identity}, listed) {
		switch kind, _ := e.Entity.Split(); {
		case e.Ignore != "":
		case kind == account.KindProduct, kind == account.KindCustomer:
			page.entities = append(page.entities, e.Entity)
		}
	}
	return page, nil
}

const (
	// onboardingPage is how many users are given customers before that is noted.
	onboardingPage = 100
	// namedPage is how many of those that were asked for are brought in before that is noted.
	namedPage = 50
)

func showNamed(entities []string, after string) (page bulkPage, err error) {
	from, err := strconv.Atoi(orZero(after))
	if err != nil || from > len(entities) {
		return page, failure.New(failure.Permanent, "worker", "bring in what is named", "bad_offset", nil)
	}
	to := min(from+namedPage, len(entities))
	for _, name := range entities[from:to] {
		page.entities = append(page.entities, account.Entity(name))
	}
	if page.seen = to - from; to < len(entities) {
		page.next = strconv.Itoa(to)
	}
	return page, nil
}

// bringIn brings entities in, several at a time. What fails for good is told of, and the others go on; what
// may succeed later ends the page, which is read again then.
func (a *Bulk) bringIn(ctx context.Context, run *store.BulkRun, step string, due []account.Entity, found []store.Difference) (done int, failures map[account.Entity]string, err error) {
	var mu sync.Mutex
	failures = map[account.Entity]string{}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(max(a.AtOnce, 1))
	for _, entity := range due {
		group.Go(func() error {
			err := a.one(ctx, run, step, entity, found)
			activity.RecordHeartbeat(ctx)
			mu.Lock()
			defer mu.Unlock()
			doubt, doubtful := errors.AsType[*unconfirmed](err)
			switch {
			case err == nil:
				done++
			case doubtful:
				failures[entity] = doubt.Error()
			case failure.Of(err) == failure.Permanent:
				failures[entity] = failure.CodeOf(err)
			default:
				return err
			}
			return nil
		})
	}
	err = group.Wait()
	return done, failures, err
}

// unconfirmed says that a user's own notes point at a customer that nothing else says is theirs.
type unconfirmed struct{ customerID string }

func (u *unconfirmed) Error() string { return "hint_not_confirmed: " + u.customerID }

// one brings one entity in, as its workflow does.
func (a *Bulk) one(ctx context.Context, run *store.BulkRun, step string, entity account.Entity, found []store.Difference) error {
	switch kind, id := entity.Split(); kind {
	case account.KindProduct:
		_, err := a.Catalogue.RecordProduct(ctx, ProductInput{ProductID: id})
		return err
	case account.KindUser:
		return a.user(ctx, run, step, id)
	case account.KindCustomer:
		return a.customer(ctx, id, found)
	case account.KindCharge:
	}
	return failure.New(failure.Permanent, "worker", "bring in an entity", "no_such_kind", nil)
}

func (a *Bulk) user(ctx context.Context, run *store.BulkRun, step, id string) error {
	// Who is named or has changed may have a customer that this pass has not read.
	in := UserInput{ClerkUserID: id, InBulk: true, Existing: len(run.Entities) > 0 || run.Since != nil}
	publish, forced, doubtful := true, false, ""
	if step != BulkOnboarding {
		synced, err := a.Users.SyncUser(ctx, in)
		if err != nil {
			return err
		}
		if synced.Deleting || synced.Outcome != OutcomeSynced {
			return nil
		}
		publish, forced = synced.PublishDue, synced.PublishForced
	}
	// Who is stored first may have a customer on a later page.
	if step == BulkOnboarding || step == BulkNamed {
		customer, err := a.Customers.EnsureStripeCustomer(ctx, in)
		if err != nil {
			return err
		}
		publish = publish || customer.PublishDue
		switch {
		case customer.Claimed && customer.Hinted != "":
			if err := a.customer(ctx, customer.Hinted, nil); err != nil {
				return err
			}
		case customer.Hinted != "":
			doubtful = customer.Hinted
		}
		if customer.CustomerID == "" && !(customer.Claimed && customer.Hinted != "") {
			// A person has to decide on a customer, or its own look is about to link it. What there is to tell meanwhile is that there is none.
			synced, err := a.Users.SyncUser(ctx, UserInput{ClerkUserID: id})
			if err != nil {
				return err
			}
			publish, forced = synced.PublishDue, synced.PublishForced
		}
	}
	if publish || forced {
		if _, err := a.Projections.PublishProjection(ctx, PublishInput{ClerkUserID: id, Forced: forced}); err != nil {
			return err
		}
	}
	if doubtful != "" {
		return &unconfirmed{doubtful}
	}
	return nil
}

func (a *Bulk) customer(ctx context.Context, id string, found []store.Difference) error {
	recorded, err := a.Subscriptions.RecordSubscriptions(ctx, RecordInput{CustomerID: id, InBulk: true})
	if err != nil || recorded.ClerkUserID == "" {
		return err
	}
	owner := UserInput{ClerkUserID: recorded.ClerkUserID}
	stale := has(found, account.CustomerEntity(id), account.DriftStaleCustomer)
	if stale {
		if err := a.Store.ForgetProfile(ctx, id); err != nil {
			return err
		}
	}
	if stale || recorded.ProfileDue {
		if _, err := a.Customers.EnsureStripeCustomer(ctx, owner); err != nil {
			return err
		}
	}
	if recorded.PublishDue {
		if _, err := a.Projections.PublishProjection(ctx, PublishInput{ClerkUserID: owner.ClerkUserID}); err != nil {
			return err
		}
	}
	if recorded.Live || recorded.StopDue {
		// Somebody has to look at its boundaries, or to stop it: its workflow does.
		return a.Store.PokeRoutinely(ctx, account.JobSync, account.CustomerEntity(id))
	}
	return nil
}

func has(found []store.Difference, entity account.Entity, class account.Drift) bool {
	for _, d := range found {
		if d.Entity == entity && d.Class == class {
			return true
		}
	}
	return false
}
