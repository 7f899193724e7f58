package activities

import (
	"cmp"
	"context"
	"slices"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// LookInput says which entities are to be looked at once more.
type LookInput struct {
	RunID string       `json:"runId"`
	Kind  account.Kind `json:"kind"`
	// Repairing is set to look at what is under repair.
	Repairing bool `json:"repairing,omitempty"`
	// After is the entity behind which the look goes on.
	After account.Entity `json:"after,omitempty"`
	// Unread is how many could not be read in the round before.
	Unread int `json:"unread,omitempty"`
}

// LookResult says how far the look has come.
type LookResult struct {
	After    account.Entity `json:"after,omitempty"`
	Complete bool           `json:"complete,omitempty"`
	// Confirmed counts the differences that are there still, Gone those that are not, and Undecided
	// the entities that something is under way for.
	Confirmed int `json:"confirmed,omitempty"`
	Gone      int `json:"gone,omitempty"`
	Undecided int `json:"undecided,omitempty"`
	// Unread counts those of the undecided that could not be read.
	Unread int `json:"unread,omitempty"`
}

// LookAtUsers looks once more at users with whom something was found to be wrong, each by its id.
// It runs on Clerk's task queue.
//
// Idempotent: it stores what is so.
func (a *Reconciler) LookAtUsers(ctx context.Context, in LookInput) (LookResult, error) {
	return a.lookAgain(ctx, in, a.lookAtUser)
}

// LookAtStripe looks once more at customers or products with which something was found to be wrong,
// each by its id. It runs on Stripe's task queue.
//
// Idempotent: it stores what is so.
func (a *Reconciler) LookAtStripe(ctx context.Context, in LookInput) (LookResult, error) {
	if in.Kind == account.KindProduct {
		return a.lookAgain(ctx, in, a.lookAtProduct)
	}
	return a.lookAgain(ctx, in, a.lookAtCustomer)
}

// lookPage is how many entities are listed at once.
const lookPage = 50

func (a *Reconciler) lookAgain(ctx context.Context, in LookInput, look func(ctx context.Context, run, id string) ([]store.Difference, error)) (LookResult, error) {
	result := LookResult{After: in.After}
	complete, err := pages(ctx, func(ctx context.Context) (last bool, err error) {
		entities, err := a.Store.FoundPage(ctx, in.RunID, in.Kind, in.Repairing, result.After, lookPage)
		if err != nil {
			return false, err
		}
		unread, read := map[account.Entity]string{}, []account.Entity(nil)
		next := result
		for _, found := range entities {
			err := a.lookAt(ctx, in, found, look, &next)
			switch {
			case err == nil:
				read = append(read, found.Entity)
			case ofAll(ctx, err) || !a.answers(ctx, in.Kind):
				return false, err
			default:
				// It is the entity. It stays undecided, and is looked at again in the next round; the others go
				// on.
				unread[found.Entity] = cmp.Or(failure.CodeOf(err), "unknown")
				next.Undecided++
				next.Unread++
			}
			next.After = found.Entity
		}
		if len(unread) > 0 || in.Unread > 0 {
			if err := a.Store.NoteUnread(ctx, in.RunID, unread, read); err != nil {
				return false, err
			}
		}
		result = next
		return len(entities) < lookPage, nil
	})
	result.Complete = complete
	return result, err
}

// answers tells whether the provider of a kind answers something else.
func (a *Reconciler) answers(ctx context.Context, kind account.Kind) bool {
	if kind != account.KindUser {
		return answers(ctx, a.Stripe.ProductsPage, nil)
	}
	return answers(ctx, nil, func(ctx context.Context) (int64, error) {
		_, _, err := a.Clerk.UsersPage(ctx, "")
		return 0, err
	})
}

// lookAt decides about one entity. What is under way for it, or has been read after this look
// began, makes it undecided: then nothing is said of it.
func (a *Reconciler) lookAt(ctx context.Context, in LookInput, found store.Found, look func(ctx context.Context, run, id string) ([]store.Difference, error), result *LookResult) error {
	if found.Busy {
		result.Undecided++
		return nil
	}
	number, err := a.Store.NextRead(ctx)
	if err != nil {
		return err
	}
	_, id := found.Entity.Split()
	shown, err := look(ctx, in.RunID, id)
	if err != nil {
		return err
	}
	overtaken, err := a.Store.Overtaken(ctx, found.Entity, number)
	if err != nil {
		return err
	}
	if overtaken {
		result.Undecided++
		return nil
	}
	still, gone, instead := tellApart(found.Differences, shown)
	if !in.Repairing {
		still = append(still, instead...)
	}
	result.Confirmed += len(still)
	result.Gone += len(gone)
	if in.Repairing {
		return a.Store.Mended(ctx, in.RunID, gone)
	}
	return a.Store.Confirm(ctx, in.RunID, still, gone)
}

// tellApart tells what is still there from what is not. instead is what the id of something showed
// that no list did.
func tellApart(found, shown []store.Difference) (still, gone, instead []store.Difference) {
	suspected := false
	for _, f := range found {
		i := slices.IndexFunc(shown, f.Same)
		if i >= 0 {
			still = append(still, shown[i])
			continue
		}
		gone = append(gone, f)
		switch f.Class { //nolint:exhaustive // the classes of what no list showed
		case account.DriftUserMissing, account.DriftCustomerMissing, account.DriftSubscriptionMissing:
			suspected = true
		default:
		}
	}
	for _, s := range shown {
		if suspected && !slices.ContainsFunc(found, s.Same) {
			instead = append(instead, s)
		}
	}
	return still, gone, instead
}

func (a *Reconciler) lookAtUser(ctx context.Context, run, id string) ([]store.Difference, error) {
	compare := a.Store.Compare(run, a.Deletion)
	stored, err := compare.StoredUser(ctx, id)
	if err != nil {
		return nil, err
	}
	user, held, err := a.Clerk.User(ctx, id)
	if failure.IsNotFound(err) {
		return stored, nil
	}
	if err != nil {
		return nil, err
	}
	stored = without(stored, account.DriftUserMissing)
	shown, err := compare.Users(ctx, []account.ListedUser{{User: user, Held: held}})
	return append(stored, shown...), err
}

func (a *Reconciler) lookAtProduct(ctx context.Context, run, id string) ([]store.Difference, error) {
	product, err := a.Stripe.Product(ctx, id)
	if failure.IsNotFound(err) {
		return nil, nil
	}
	if err == nil && product.PricesPartial {
		// What the list of all prices has shown to be archived, and is believed to be sold, is not among
		// them.
		var left error
		if left, err = readWanted(ctx, a.Store, a.Stripe, &product); err == nil {
			err = left
		}
	}
	if err != nil {
		return nil, err
	}
	compare := a.Store.Compare(run, a.Deletion)
	shown, err := compare.Products(ctx, []account.Product{product})
	if err != nil {
		return nil, err
	}
	prices, err := compare.Prices(ctx, product.Prices)
	return append(shown, prices...), err
}

// lookAtCustomer asks for a customer, all its subscriptions, and those that we hold and that are
// not among them.
func (a *Reconciler) lookAtCustomer(ctx context.Context, run, id string) ([]store.Difference, error) {
	seen, err := readCustomer(ctx, a.Store, a.Stripe, id)
	if err != nil {
		return nil, err
	}
	if seen.unread != nil {
		return nil, &inPart{seen.unread} // nothing is concluded from a part
	}
	compare := a.Store.Compare(run, a.Deletion).LinkingByEmail(a.LinkByEmail)
	stored, err := compare.StoredCustomer(ctx, id)
	if err != nil {
		return nil, err
	}
	if seen.customerMissing {
		return slices.DeleteFunc(stored, func(d store.Difference) bool { return d.Class != account.DriftCustomerMissing }), nil
	}
	stored = without(stored, account.DriftCustomerMissing)
	if stored, err = a.verified(ctx, stored, seen); err != nil {
		return nil, err
	}
	shown, err := compare.Customers(ctx, []account.Customer{seen.customer})
	if err != nil {
		return nil, err
	}
	subscriptions, err := compare.Subscriptions(ctx, seen.subscriptions)
	return slices.Concat(stored, shown, subscriptions), err
}

// verified keeps of what is suspected of a customer what its reads bear out.
func (a *Reconciler) verified(ctx context.Context, suspected []store.Difference, seen shown) ([]store.Difference, error) {
	var kept []store.Difference
	for _, d := range suspected {
		i := slices.IndexFunc(seen.subscriptions, func(s account.Subscription) bool { return s.ID == d.Subject })
		so := true
		switch d.Class { //nolint:exhaustive // the classes of what is suspected
		case account.DriftSubscriptionMissing:
			so = slices.Contains(seen.missing, d.Subject)
		case account.DriftDeletedUserBilled:
			so = i >= 0 && a.Deletion.Stop(seen.subscriptions[i]) != account.StopNothing
		case account.DriftUnwatched:
			open, err := a.Watchers.Watched(ctx, d.Subject)
			if err != nil {
				return nil, err
			}
			so = !open
		default:
		}
		if so {
			kept = append(kept, d)
		}
	}
	return kept, nil
}

func without(found []store.Difference, class account.Drift) []store.Difference {
	return slices.DeleteFunc(found, func(d store.Difference) bool { return d.Class == class })
}
