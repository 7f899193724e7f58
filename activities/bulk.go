package activities

import (
	"cmp"
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

// Bulk brings in what both providers hold, page by page: it compares a page with what is stored,
// and for what differs, and for nothing else, does what the workflows do, beside them. The fences
// that keep two reads of one workflow apart keep this one apart from theirs.
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
	// LinkByEmail is [SubscriptionPolicy.LinkByEmail].
	LinkByEmail bool
	// Livemode is the mode of our Stripe key.
	Livemode bool
	// AtOnce is how many entities are brought in at the same time. The clients keep to the providers'
	// rates.
	AtOnce int
}

// UserCount tells how many users there are.
type UserCount interface {
	CountUsers(ctx context.Context) (int64, error)
}

// The lists of a bulk sync, in the order in which they are read: what a later one refers to is
// known by then. Users are stored before anything is linked to them, and given a customer only when
// every customer that names them is.
const (
	BulkProducts      = "products"
	BulkPrices        = "prices"
	BulkUsers         = "users"
	BulkCustomers     = "customers"
	BulkSubscriptions = "subscriptions"
	BulkOnboarding    = "onboarding"
	// BulkQuarantine are those that could not be brought in for now, after all lists.
	BulkQuarantine = "quarantine"
	// BulkNamed are the entities that were asked for, and the only list where any were.
	BulkNamed = "named"
	// BulkChangedUsers and BulkChanges are what has changed since a moment: Clerk's users by their own
	// time of change, and what Stripe's events are about. They are read instead of the lists of
	// everything, before BulkOnboarding.
	BulkChangedUsers = "changed users"
	BulkChanges      = "changes"
)

// BulkReachesBack is how far back a bulk sync of what has changed can reach: Stripe lists events of
// 30 days. A day of it is left for the pass itself.
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
	// Quarantined is set where something could not be brought in for now: it is to be come back to
	// after the lists.
	Quarantined bool `json:"quarantined,omitempty"`
	// Wait is how long it is until something in quarantine is to be tried again.
	Wait time.Duration `json:"wait,omitempty"`
}

// BulkClerk reads Clerk's list. It runs on Clerk's task queue.
//
// Idempotent: what is stored is a state, under the fences; a page that was not noted is read once
// more.
func (a *Bulk) BulkClerk(ctx context.Context, in BulkInput) (BulkResult, error) {
	return a.read(ctx, in)
}

// BulkStripe reads one of Stripe's lists, gives users their customers, or brings in what is named.
// It runs on Stripe's task queue.
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

// read takes a list on for as long as an attempt may. How far it is stands in the database, where
// it was written with what the page came to.
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
		case in.Step == BulkQuarantine:
			last, result.Wait, err = a.retry(ctx, run)
			return last, err
		}
		result.Quarantined = result.Quarantined || run.Quarantined > 0
		after := ""
		if run.Step == in.Step {
			if after = run.After; after == "" && run.Pages > 0 {
				return true, nil // its last page was noted, and the answer was lost
			}
		}
		last, quarantined, err := a.page(ctx, run, in.Step, after)
		result.Quarantined = result.Quarantined || quarantined
		return last, err
	})
	result.Complete = complete && !result.Paused && result.Wait == 0
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
func (a *Bulk) page(ctx context.Context, run *store.BulkRun, step, after string) (last, quarantined bool, err error) {
	shown, err := a.show(ctx, run, step, after)
	if err != nil {
		return false, false, err
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
		came, err := a.bringIn(ctx, run, step, store.Distinct(due), shown.found)
		if err != nil {
			return false, false, err
		}
		if err := a.quarantine(ctx, run, came.Again, shown.found); err != nil {
			return false, false, err
		}
		noted.Done, noted.Failures, noted.Quarantined = len(came.Done), came.Failures, came.Again
	}
	return shown.next == "", len(noted.Quarantined) > 0, a.Store.NoteBulkPage(ctx, run.ID, noted)
}

// mostQuarantined is how many one pass comes back to. More than that is no matter of single ones:
// the page waits.
const mostQuarantined = 1000

// quarantine keeps of those that could not be brought in what the list has shown and their own
// reads have not: whom a customer names, so that nobody is given another, and that it is to be
// given its user's name and email.
func (a *Bulk) quarantine(ctx context.Context, run *store.BulkRun, again map[account.Entity]string, found []store.Difference) error {
	if len(again) == 0 {
		return nil
	}
	if run.Quarantined+int64(len(again)) > mostQuarantined {
		return failure.New(failure.Transient, "worker", "bring in a page", "too_many_fail", nil)
	}
	for _, d := range found {
		if _, is := again[d.Entity]; !is {
			continue
		}
		for _, claim := range d.Claims {
			if err := a.Store.KeepClaim(ctx, claim); err != nil {
				return err
			}
		}
		if d.Class == account.DriftStaleCustomer {
			if err := a.Store.ForgetProfile(ctx, d.Subject); err != nil {
				return err
			}
		}
	}
	return nil
}

// retry tries those again that could not be brought in before, as many as are due.
func (a *Bulk) retry(ctx context.Context, run *store.BulkRun) (last bool, wait time.Duration, err error) {
	due, wait, err := a.Store.BulkRetries(ctx, run.ID, namedPage)
	if err != nil || len(due) == 0 {
		return true, wait, err
	}
	came, err := a.bringIn(ctx, run, BulkQuarantine, due, nil)
	if err != nil {
		return false, 0, err
	}
	return false, 0, a.Store.NoteBulkRetries(ctx, run.ID, BulkQuarantine, came)
}

// show reads a page of a list.
func (a *Bulk) show(ctx context.Context, run *store.BulkRun, step, after string) (bulkPage, error) {
	compare := a.Store.Compare(run.ID, a.Deletion).LinkingByEmail(a.LinkByEmail)
	switch step {
	case BulkProducts:
		return shownBy(ctx, after, a.Stripe.ProductsPage, compare.Products, productMade)
	case BulkPrices:
		return shownBy(ctx, after, a.Stripe.PricesPage, compare.Prices, priceMade)
	case BulkCustomers:
		return shownBy(ctx, after, a.Stripe.CustomersPage, compare.Customers, customerMade)
	case BulkSubscriptions:
		return shownBy(ctx, after, a.Stripe.SubscriptionsPage, compare.Subscriptions, subscriptionMade)
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

func shownBy[T any](ctx context.Context, after string, list func(context.Context, string) ([]T, string, error), compare func(context.Context, []T) ([]store.Difference, error), made func(T) time.Time) (page bulkPage, err error) {
	objects, next, err := list(ctx, after)
	if err != nil {
		return page, err
	}
	page.next, page.seen = behind(next, objects, made), len(objects)
	page.found, err = compare(ctx, objects)
	return page, err
}

func (a *Bulk) showUsers(ctx context.Context, run *store.BulkRun, after string) (page bulkPage, err error) {
	if after == "" {
		count, err := a.Clerk.CountUsers(ctx)
		if err != nil {
			return page, err
		}
		if err := a.Store.SetBulkUsers(ctx, run.ID, count); err != nil {
			return page, err
		}
	}
	users, next, err := a.Clerk.UsersPage(ctx, after)
	if err != nil {
		return page, err
	}
	return a.shownUsers(ctx, run, users, next)
}

func (a *Bulk) shownUsers(ctx context.Context, run *store.BulkRun, users []account.ListedUser, next string) (page bulkPage, err error) {
	page.next, page.seen = next, len(users)
	page.found, err = a.Store.Compare(run.ID, a.Deletion).Users(ctx, users)
	return page, err
}

// showChangedUsers reads those users first that were changed last. One who is changed meanwhile
// moves others to a later page, so that some are looked at twice and none is passed over.
func (a *Bulk) showChangedUsers(ctx context.Context, run *store.BulkRun, after string) (page bulkPage, err error) {
	users, next, err := a.Clerk.ChangedUsersPage(ctx, after)
	if err != nil {
		return page, err
	}
	if older := slices.IndexFunc(users, func(u account.ListedUser) bool { return u.UpdatedAt.Before(*run.Since) }); older >= 0 {
		users, next = users[:older], ""
	}
	return a.shownUsers(ctx, run, users, next)
}

// showChanges reads what Stripe's events are about, from the newest back. An event says that
// something has changed; what it is now is read.
func (a *Bulk) showChanges(ctx context.Context, run *store.BulkRun, after string) (page bulkPage, err error) {
	identity, err := a.Store.Identity(ctx)
	if err != nil {
		return page, err
	}
	listed, next, err := a.Stripe.EventsPage(ctx, *run.Since, after)
	if err != nil {
		return page, err
	}
	page.next, page.seen = behind(next, listed, eventMade), len(listed)
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
	from, err := strconv.Atoi(cmp.Or(after, "0"))
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

// entityFor is how long one entity may take: what hangs is come back to.
const entityFor = 3 * time.Minute

// bringIn brings entities in, several at a time. What fails for good is told of, what may succeed
// later is to be tried again, and the others go on meanwhile: nobody is held up by somebody else.
// Only what is no matter of one entity, such as a provider that does not answer at all, a wrong key
// or our own rate, ends the page, which is read again then.
func (a *Bulk) bringIn(ctx context.Context, run *store.BulkRun, step string, due []account.Entity, found []store.Difference) (came store.BulkRetried, err error) {
	var mu sync.Mutex
	came.Failures, came.Again = map[account.Entity]string{}, map[account.Entity]string{}
	var held error
	group, working := errgroup.WithContext(ctx)
	group.SetLimit(max(a.AtOnce, 1))
	for _, entity := range due {
		group.Go(func() error {
			one, cancel := context.WithTimeout(working, entityFor)
			defer cancel()
			err := a.one(one, run, step, entity, found)
			activity.RecordHeartbeat(ctx)
			mu.Lock()
			defer mu.Unlock()
			unsure, doubtful := errors.AsType[*doubt](err)
			switch {
			case err == nil:
				came.Done = append(came.Done, entity)
			case doubtful:
				came.Failures[entity] = unsure.Error()
			case failure.Of(err) == failure.Permanent:
				came.Failures[entity] = failure.CodeOf(err)
			case ofAll(working, err):
				return err
			default:
				came.Again[entity], held = cmp.Or(failure.CodeOf(err), "unknown"), err
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return came, err
	}
	if len(came.Again) > 0 && !answers(ctx, a.Stripe.ProductsPage, a.Clerk.CountUsers) {
		return came, held
	}
	return came, nil
}

// ofAll tells whether a failure concerns more than the one entity that met it. A right that our key
// does not have concerns that entity alone if the provider has shown a part of it.
func ofAll(ctx context.Context, err error) bool {
	class := failure.Of(err)
	_, some := errors.AsType[*inPart](err)
	return ctx.Err() != nil || class == failure.Throttled || class == failure.Operator && !some
}

// inPart is the failure to read all of something of which a part was read.
type inPart struct{ error }

func (p *inPart) Unwrap() error { return p.error }

// answers tells whether both providers answer something else, after one of them has failed for an
// entity: then it is the entity.
func answers(ctx context.Context, stripe func(context.Context, string) ([]account.Product, string, error), clerk func(context.Context) (int64, error)) bool {
	if stripe != nil {
		if _, _, err := stripe(ctx, ""); err != nil {
			return false
		}
	}
	if clerk != nil {
		if _, err := clerk(ctx); err != nil {
			return false
		}
	}
	return true
}

// doubt says that a person has to decide on a customer, and why.
type doubt struct{ reason, customerID string }

const (
	// hintNotConfirmed: a user's own notes point at it, and nothing else says that it is theirs.
	hintNotConfirmed = "hint_not_confirmed"
	// customerContested: the product's own table names it for a user, and something else names it for
	// another.
	customerContested = string(account.RefusedContested)
)

func (d *doubt) Error() string { return d.reason + ": " + d.customerID }

// one brings one entity in, as its workflow does.
func (a *Bulk) one(ctx context.Context, run *store.BulkRun, step string, entity account.Entity, found []store.Difference) error {
	switch kind, id := entity.Split(); kind {
	case account.KindProduct:
		_, err := a.Catalogue.RecordProduct(ctx, ProductInput{ProductID: id})
		return err
	case account.KindUser:
		return a.user(ctx, run, step, id)
	case account.KindCustomer:
		return a.customer(ctx, run, id, found)
	case account.KindCharge:
	}
	return failure.New(failure.Permanent, "worker", "bring in an entity", "no_such_kind", nil)
}

func (a *Bulk) user(ctx context.Context, run *store.BulkRun, step, id string) error {
	// Who is named or has changed may have a customer that this pass has not read.
	in := UserInput{ClerkUserID: id, InBulk: true, Existing: len(run.Entities) > 0 || run.Since != nil}
	publish, forced := true, false
	var doubtful error
	if step != BulkOnboarding {
		synced, err := a.Users.SyncUser(ctx, in)
		if err != nil {
			return err
		}
		if synced.Deleting || synced.Outcome != OutcomeSynced {
			return a.compensate(ctx, id, "")
		}
		publish, forced = synced.PublishDue, synced.PublishForced
	}
	// Who is stored first may have a customer on a later page.
	if step == BulkOnboarding || step == BulkNamed || step == BulkQuarantine {
		customer, err := a.ensure(ctx, in)
		if err != nil || customer.Deleting {
			return err
		}
		publish = publish || customer.PublishDue
		switch {
		case customer.Claimed && customer.Hinted != "":
			if err := a.customer(ctx, run, customer.Hinted, nil); err != nil {
				return err
			}
		case customer.Undecided:
			doubtful = &doubt{customerContested, customer.Hinted}
		case customer.Hinted != "":
			doubtful = &doubt{hintNotConfirmed, customer.Hinted}
		}
		if customer.CustomerID == "" && !(customer.Claimed && customer.Hinted != "") {
			// A person has to decide on a customer, or its own look is about to link it. What there is to
			// tell meanwhile is that there is none.
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
	return doubtful
}

// ensure gives a user a customer, or their customers the user's name and email, and undoes one that
// was made in vain.
func (a *Bulk) ensure(ctx context.Context, in UserInput) (CustomerResult, error) {
	result, err := a.Customers.EnsureStripeCustomer(ctx, in)
	if err != nil {
		return result, err
	}
	return result, a.compensate(ctx, in.ClerkUserID, result.Undo)
}

// compensate undoes a customer that was made for a user in vain, "" for one that nobody has heard
// of.
func (a *Bulk) compensate(ctx context.Context, clerkUserID, customerID string) (err error) {
	if customerID == "" {
		if customerID, err = a.Store.MadeInVain(ctx, clerkUserID); err != nil || customerID == "" {
			return err
		}
	}
	_, err = a.Customers.UndoStripeCustomer(ctx, UndoInput{ClerkUserID: clerkUserID, CustomerID: customerID})
	return err
}

// askedFor asks Clerk for users whom a customer names and whom nobody knows here, and records the
// customer once more: it is theirs where Clerk has them, and may be whose address it has where it
// does not. Whoever is given a customer later in the same pass would be given a second one.
func (a *Bulk) askedFor(ctx context.Context, run *store.BulkRun, id string, unknown []string) (recorded RecordResult, err error) {
	var unlisted time.Time
	if len(run.Entities) == 0 && run.Since == nil {
		unlisted = run.StartedAt // all of Clerk's users were read before
	}
	for _, user := range unknown {
		if _, err := a.Users.SyncUser(ctx, UserInput{ClerkUserID: user, InBulk: true, Unlisted: unlisted}); err != nil {
			return recorded, err
		}
	}
	return a.Subscriptions.RecordSubscriptions(ctx, RecordInput{CustomerID: id, InBulk: true})
}

func (a *Bulk) customer(ctx context.Context, run *store.BulkRun, id string, found []store.Difference) error {
	recorded, err := a.Subscriptions.RecordSubscriptions(ctx, RecordInput{CustomerID: id, InBulk: true})
	if err == nil && a.LinkByEmail && len(recorded.Unknown) > 0 {
		recorded, err = a.askedFor(ctx, run, id, recorded.Unknown)
	}
	if err == nil && recorded.UndoFor != "" {
		err = a.compensate(ctx, recorded.UndoFor, id)
	}
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
		if _, err := a.ensure(ctx, owner); err != nil {
			return err
		}
	}
	if recorded.PublishDue {
		if _, err := a.Projections.PublishProjection(ctx, PublishInput{ClerkUserID: owner.ClerkUserID}); err != nil {
			return err
		}
	}
	if recorded.Live || recorded.StopDue || recorded.RereadAfter > 0 {
		// Its workflow goes on with it from now on.
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
