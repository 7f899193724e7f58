package activities_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

const ada = "user_2adaLovelace"

// world is a user at Clerk with customers at Stripe, and the activities on a real database.
type world struct {
	store         *store.Store
	stripe        *stripeWorld
	clerk         *clerkWorld
	users         *activities.Users
	subscriptions *activities.Subscriptions
	projections   *activities.Projections
	catalogue     *activities.Catalogue
}

func newWorld(t *testing.T, customers ...string) *world {
	t.Helper()
	w := &world{store: openStore(t), stripe: newStripe(), clerk: newClerk()}
	w.users = &activities.Users{Store: w.store, Clerk: w.clerk, Deletion: account.DeleteCancelAtPeriodEnd}
	w.subscriptions = &activities.Subscriptions{Store: w.store, Stripe: w.stripe, Policy: activities.SubscriptionPolicy{
		Deletion: account.DeleteCancelAtPeriodEnd, BoundaryDelay: time.Minute, RereadDelay: time.Second}}
	w.projections = &activities.Projections{Store: w.store, Clerk: w.clerk}
	w.catalogue = &activities.Catalogue{Store: w.store, Stripe: w.stripe}
	w.clerk.users[ada] = account.User{ID: ada, FirstName: "Ada", Email: "ada@example.com", EmailVerified: true}
	w.syncUser(t)
	for i, id := range customers {
		w.stripe.customers[id] = account.Customer{ID: id, Created: time.Unix(int64(1700000000+i), 0), Metadata: map[string]string{"clerk_user_id": ada}}
		w.record(t, id)
	}
	return w
}

func (w *world) syncUser(t *testing.T) activities.UserResult {
	t.Helper()
	result, err := w.users.SyncUser(t.Context(), activities.UserInput{ClerkUserID: ada})
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func (w *world) record(t *testing.T, customer string) activities.RecordResult {
	t.Helper()
	result, err := w.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: customer})
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func (w *world) publish(t *testing.T, forced bool) activities.PublishResult {
	t.Helper()
	result, err := w.projections.PublishProjection(t.Context(), activities.PublishInput{ClerkUserID: ada, Forced: forced})
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func (w *world) user(t *testing.T) *store.User {
	t.Helper()
	user, err := w.store.UserByClerkID(t.Context(), ada)
	if err != nil || user == nil {
		t.Fatalf("reading the user: %v, %v", user, err)
	}
	return user
}

func (w *world) status(t *testing.T, customer, subscription string) account.Status {
	t.Helper()
	rows, err := w.store.SubscriptionsOfCustomer(t.Context(), customer)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		if row.StripeID == subscription {
			return account.Status(row.Status)
		}
	}
	return ""
}

func subscription(id, customer string, status account.Status) account.Subscription {
	return account.Subscription{ID: id, CustomerID: customer, Status: status, Created: time.Unix(1700000000, 0),
		CurrentPeriodStart: time.Unix(1700000000, 0), CurrentPeriodEnd: time.Unix(1900000000, 0),
		Items: []account.Item{{PriceID: "price_1", ProductID: "prod_1", Quantity: 1, Currency: "usd", Interval: "month", IntervalCount: 1}}}
}

// inBackground runs an attempt that will wake up late and answers how to wait for its end.
func inBackground(t *testing.T, attempt func(context.Context) error) (wait func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- attempt(context.WithoutCancel(t.Context())) }()
	return func() {
		t.Helper()
		if err := <-done; err != nil {
			t.Fatal("the late attempt:", err)
		}
	}
}

// An attempt that read before its successor did, and commits after it, changes nothing back.
func TestLateAttemptsAreDropped(t *testing.T) {
	t.Parallel()
	t.Run("RecordSubscriptions", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, "cus_1")
		w.stripe.put(subscription("sub_1", "cus_1", account.StatusTrialing))
		held := w.stripe.hold()
		wait := inBackground(t, func(ctx context.Context) error {
			_, err := w.subscriptions.RecordSubscriptions(ctx, activities.RecordInput{CustomerID: "cus_1"})
			return err
		})
		<-held.read
		w.stripe.put(subscription("sub_1", "cus_1", account.StatusActive))
		w.record(t, "cus_1")
		version := w.user(t).ProjectionVersion
		close(held.release)
		wait()
		if got := w.status(t, "cus_1", "sub_1"); got != account.StatusActive {
			t.Fatalf("the row says %s: a late attempt put an older read back", got)
		}
		if got := w.user(t).ProjectionVersion; got != version {
			t.Fatalf("the projection went from version %d to %d", version, got)
		}
	})
	t.Run("SyncUser", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		held := w.clerk.hold()
		wait := inBackground(t, func(ctx context.Context) error {
			_, err := w.users.SyncUser(ctx, activities.UserInput{ClerkUserID: ada})
			return err
		})
		<-held.read
		w.clerk.mu.Lock()
		w.clerk.users[ada] = account.User{ID: ada, FirstName: "Augusta"}
		w.clerk.mu.Unlock()
		w.syncUser(t)
		close(held.release)
		wait()
		if name := w.user(t).Profile().FirstName; name != "Augusta" {
			t.Fatalf("the row says %s: a late attempt put an older read back", name)
		}
	})
	t.Run("RecordProduct", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.stripe.products["prod_1"] = account.Product{ID: "prod_1", Name: "Old", Active: true, Prices: []account.Price{{ID: "price_1", ProductID: "prod_1", UnitAmount: 100, Currency: "usd"}}}
		held := w.stripe.hold()
		record := func(ctx context.Context) error {
			_, err := w.catalogue.RecordProduct(ctx, activities.ProductInput{ProductID: "prod_1"})
			return err
		}
		wait := inBackground(t, record)
		<-held.read
		w.stripe.mu.Lock()
		w.stripe.products["prod_1"] = account.Product{ID: "prod_1", Name: "New", Active: true, Prices: []account.Price{{ID: "price_1", ProductID: "prod_1", UnitAmount: 200, Currency: "usd"}}}
		w.stripe.mu.Unlock()
		if err := record(t.Context()); err != nil {
			t.Fatal(err)
		}
		close(held.release)
		wait()
		var name string
		err := w.store.Update(t.Context(), "look", store.Cause{}, func(ctx context.Context, tx *store.Tx) error {
			id, _, err := tx.LockPlan(ctx, "prod_1", "")
			if err != nil {
				return err
			}
			name, err = tx.PlanName(ctx, id)
			return err
		})
		if err != nil || name != "New" {
			t.Fatalf("the plan is called %q (%v): a late attempt put an older read back", name, err)
		}
	})
}

// Customers of one user that change at the same time leave the projection that follows from all
// rows, with one version for each change of it.
func TestProjectionOfCustomersThatChangeAtOnce(t *testing.T) {
	t.Parallel()
	customers := []string{"cus_1", "cus_2", "cus_3", "cus_4"}
	w := newWorld(t, customers...)
	statuses := []account.Status{account.StatusActive, account.StatusCanceled, account.StatusPastDue, account.StatusTrialing}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for round := range 120 {
		for _, id := range customers {
			w.stripe.put(subscription("sub_"+id, id, statuses[random.IntN(len(statuses))]))
		}
		var all sync.WaitGroup
		for _, id := range customers {
			all.Go(func() {
				if _, err := w.subscriptions.RecordSubscriptions(t.Context(), activities.RecordInput{CustomerID: id}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if err := w.projectionFollows(t); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	w.publish(t, false)
	user := w.user(t)
	if got := w.clerk.version(t, ada); got != user.ProjectionVersion || user.PublishDue() {
		t.Fatalf("Clerk has version %d, stored is %d, published %d", got, user.ProjectionVersion, user.PublishedVersion)
	}
}

// projectionFollows compares the stored projection with one computed from the rows.
func (w *world) projectionFollows(t *testing.T) error {
	t.Helper()
	user := w.user(t)
	stored, err := user.Projection()
	if err != nil {
		return err
	}
	customers, err := w.store.CustomersOf(t.Context(), user)
	if err != nil {
		return err
	}
	var ids []string
	var held []account.Held
	for _, c := range customers {
		ids = append(ids, c.ID)
		rows, err := w.store.SubscriptionsOfCustomer(t.Context(), c.ID)
		if err != nil {
			return err
		}
		for _, row := range rows {
			held = append(held, row.Held())
		}
	}
	if want := account.Project(held, ids, account.AccessPolicy{}, time.Now()); !want.SameContent(stored) {
		return fmt.Errorf("the projection is %+v, the rows say %+v", stored, want)
	}
	return nil
}

// A publisher that read an older projection and writes it after a newer one was published
// records what it wrote, sees that it is not what is stored, and puts the newer one back.
func TestPublisherThatWritesLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "cus_1")
	w.publish(t, false)
	w.stripe.put(subscription("sub_1", "cus_1", account.StatusTrialing))
	w.record(t, "cus_1")
	stalled := w.clerk.holdWrite()
	wait := inBackground(t, func(ctx context.Context) error {
		_, err := w.projections.PublishProjection(ctx, activities.PublishInput{ClerkUserID: ada})
		return err
	})
	<-stalled.read
	w.stripe.put(subscription("sub_1", "cus_1", account.StatusActive))
	w.record(t, "cus_1")
	w.publish(t, false)
	close(stalled.release)
	wait()
	user := w.user(t)
	if got := w.clerk.version(t, ada); got != user.ProjectionVersion {
		t.Fatalf("Clerk is left with version %d of %d", got, user.ProjectionVersion)
	}
	if user.PublishDue() {
		t.Fatalf("published %d of %d", user.PublishedVersion, user.ProjectionVersion)
	}
}

// A sync publishes what it has changed where Clerk takes it at once. Where it does not, the sync
// has recorded all the same, says that a publish is due, and the next ones leave Clerk alone for a
// while.
func TestASyncPublishesAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "cus_1")
	w.publish(t, false)
	w.subscriptions.Prompt = &activities.PromptPublisher{Projections: w.projections, Rest: time.Minute}
	w.stripe.put(subscription("sub_1", "cus_1", account.StatusTrialing))
	result := w.record(t, "cus_1")
	if user := w.user(t); result.PublishDue || result.Published != user.ProjectionVersion || user.PublishDue() || w.clerk.version(t, ada) != user.ProjectionVersion {
		t.Fatalf("the sync came to %+v, Clerk holds version %d of %d", result, w.clerk.version(t, ada), user.ProjectionVersion)
	}
	writes := w.clerk.writes
	if again := w.record(t, "cus_1"); again.PublishDue || again.Published != 0 || w.clerk.writes != writes {
		t.Errorf("a sync that changes nothing came to %+v and %d writes", again, w.clerk.writes-writes)
	}

	stalled := w.clerk.holdWrite()
	w.stripe.put(subscription("sub_1", "cus_1", account.StatusActive))
	result = w.record(t, "cus_1")
	if user := w.user(t); !result.PublishDue || result.Published != 0 || !user.PublishDue() || result.Status != account.StatusActive {
		t.Fatalf("with a Clerk that does not answer the sync came to %+v", result)
	}
	<-stalled.read
	if again := w.record(t, "cus_1"); !again.PublishDue || w.clerk.writes != writes {
		t.Errorf("right after that a sync came to %+v and %d writes", again, w.clerk.writes-writes)
	}
	w.publish(t, false)
	if user := w.user(t); user.PublishDue() || w.clerk.version(t, ada) != user.ProjectionVersion {
		t.Errorf("then Clerk holds version %d of %d", w.clerk.version(t, ada), user.ProjectionVersion)
	}
}

// What a publisher wrote is what is recorded, even if it is lower than what was recorded: a
// publisher that dies right after that leaves a difference that the sweep finds.
func TestALowerVersionIsRecorded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "cus_1")
	w.stripe.put(subscription("sub_1", "cus_1", account.StatusActive))
	w.record(t, "cus_1")
	w.publish(t, false)
	user := w.user(t)
	more, err := w.store.Published(t.Context(), ada, user.ProjectionVersion-1, 0, store.Cause{})
	if err != nil {
		t.Fatal(err)
	}
	if user = w.user(t); !more || !user.PublishDue() {
		t.Fatalf("published %d of %d: an older write went unnoticed", user.PublishedVersion, user.ProjectionVersion)
	}
}

// A write that Clerk applies after we gave it up, and somebody's replacing update, are seen by
// the sync that their own event causes, which orders a publish that may not skip.
func TestWhatSomebodyElseWroteIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "cus_1")
	w.publish(t, false)
	if result := w.syncUser(t); result.PublishForced || result.PublishDue {
		t.Fatalf("the echo of our own write asks for another: %+v", result)
	}
	for name, change := range map[string]func(map[string]any){
		"older":   func(m map[string]any) { m["version"] = float64(1) },
		"wiped":   func(m map[string]any) { clear(m) },
		"foreign": func(m map[string]any) { m["isAdmin"] = true },
	} {
		w.clerk.mu.Lock()
		change(w.clerk.metadata[ada])
		w.clerk.mu.Unlock()
		w.publish(t, false) // an ordinary publish skips: the versions agree
		result := w.syncUser(t)
		if !result.PublishForced {
			t.Fatalf("%s: not noticed, or not left to whoever notices it: %+v", name, result)
		}
		w.publish(t, true)
		if result := w.syncUser(t); result.PublishForced || result.PublishDue {
			t.Fatalf("%s: not mended: Clerk holds %v", name, w.clerk.metadata[ada])
		}
	}
}
