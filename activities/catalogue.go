package activities

import (
	"context"
	"slices"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeevent"
)

// Catalogue brings our plans to Stripe's products and prices. Its activity runs on Stripe's
// task queue.
type Catalogue struct {
	Store  *store.Store
	Stripe Stripe
	// RereadDelay is how long to wait before reading again what does not show an event yet.
	RereadDelay time.Duration
}

// ProductInput names the product.
type ProductInput struct {
	ProductID string `json:"productId"`
}

// ProductResult says what came of it.
type ProductResult struct {
	Outcome Outcome `json:"outcome"`
	Prices  int     `json:"prices,omitempty"`
	// Affected is how many customers are looked at again because of it.
	Affected int `json:"affected,omitempty"`
}

// readWanted reads those prices by their ids that our rows have and that a list with very many did
// not show. What Stripe does not know stays as it is, and so does one that fails, which is left: it
// holds up no other, and is come back to.
func readWanted(ctx context.Context, st *store.Store, stripe Stripe, product *account.Product) (left, err error) {
	listed := make([]string, len(product.Prices))
	for i, p := range product.Prices {
		listed[i] = p.ID
	}
	wanted, err := st.PricesWanted(ctx, product.ID, listed)
	if err != nil {
		return nil, err
	}
	for _, id := range wanted {
		price, err := stripe.Price(ctx, id)
		switch {
		case failure.Of(err) == failure.Permanent || err == nil && price.ProductID != product.ID:
		case err != nil && ofAll(ctx, err):
			return nil, err
		case err != nil:
			left = err
		default:
			product.Prices = append(product.Prices, price)
		}
	}
	return left, nil
}

// RecordProduct reads a product with all its prices and commits plan and prices. Customers whose
// price was not known until now, or whose plan has another name now or is an add-on now or no more,
// are poked.
//
// Stripe does not promise that a read shows at once what an event tells: see [Catalogue.told].
//
// Idempotent: it stores a state under the product's read fence.
func (a *Catalogue) RecordProduct(ctx context.Context, in ProductInput) (result ProductResult, err error) {
	entity := account.ProductEntity(in.ProductID)
	defer func() { showFailing(ctx, a.Store, entity, err) }()
	number, err := a.Store.NextRead(ctx)
	if err != nil {
		return result, err
	}
	product, err := a.Stripe.Product(ctx, in.ProductID)
	missing := failure.IsNotFound(err)
	var left error
	if err == nil && product.PricesPartial {
		left, err = readWanted(ctx, a.Store, a.Stripe, &product)
	}
	if err != nil && !missing {
		return result, err
	}
	err = a.Store.Update(ctx, "record a product", cause(ctx), func(ctx context.Context, tx *store.Tx) error {
		result = ProductResult{Outcome: OutcomeSynced, Prices: len(product.Prices)}
		stored, err := tx.PlanNumber(ctx, in.ProductID)
		if err != nil {
			return err
		}
		if err := tx.Reading(ctx, number, stored); err != nil {
			return err
		}
		due, err := tx.TakeEvents(ctx, entity, number)
		if err != nil {
			return err
		}
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		if missing {
			deleted := slices.ContainsFunc(due, func(d store.Due) bool { return d.Type == "product.deleted" })
			if !deleted {
				result.Outcome = OutcomeMissing
				_, early := parted(due, now, func(store.Due) bool { return false })
				if err := readAgain(ctx, tx, entity, early, now, a.RereadDelay); err != nil {
					return err
				}
				return tx.HoldEvents(ctx, due, store.EventWaiting, "Stripe does not know this product", false)
			}
			product = account.Product{ID: in.ProductID, Deleted: true}
		}
		done, newer, err := a.told(ctx, tx, product, due, now)
		if err != nil {
			return err
		}
		planID, readSeq, err := tx.LockPlan(ctx, in.ProductID, product.Name)
		if err != nil {
			return err
		}
		if len(newer) > 0 && readSeq > 0 {
			return nil // what is older than what we know replaces nothing, and answers no event
		}
		before, wasAddOn, err := tx.PlanTold(ctx, planID)
		if err != nil {
			return err
		}
		if number > readSeq {
			if err := tx.SetPlan(ctx, planID, product, number); err != nil {
				return err
			}
		}
		changed := product.Name != "" && product.Name != before || !product.Deleted && product.AddOn != wasAddOn
		affected, err := tx.CustomersAffectedByPlan(ctx, in.ProductID, changed)
		if err != nil {
			return err
		}
		entities := make([]account.Entity, len(affected))
		for i, id := range affected {
			entities[i] = account.CustomerEntity(id)
		}
		result.Affected = len(entities)
		if len(product.Prices) > 0 || product.PricesPartial {
			if err := tx.PokeRoutinely(ctx, account.JobSync, entities...); err != nil {
				return err
			}
		}
		return tx.CompleteEvents(ctx, done, false)
	})
	if err == nil {
		err = left
	}
	return result, err
}

// told parts a product's due events into those that a read answers and those that it is behind, and
// has the product read again in a moment where it is behind any. newer are those, and those of the
// last minute which an earlier read has answered and this one does not show any more: not each of
// Stripe's copies shows the same.
func (a *Catalogue) told(ctx context.Context, tx *store.Tx, product account.Product, due []store.Due, now time.Time) (done, newer []store.Due, err error) {
	entity := account.ProductEntity(product.ID)
	before, err := tx.ToldSince(ctx, entity, now.Add(-account.ReadsBehind))
	if err != nil {
		return nil, nil, err
	}
	shows := catalogueEvidence(product, append(slices.Clone(before), due...))
	done, newer = parted(due, now, shows)
	_, forgotten := parted(before, now, shows)
	newer = append(newer, forgotten...)
	return done, newer, readAgain(ctx, tx, entity, newer, now, a.RereadDelay)
}

// catalogueEvidence answers whether a read of a product shows what an event tells of it or of one
// of its prices: what was made is there, what was deleted is not, and nothing is as it was before,
// unless a later one of the events says that it is so again. Of a price that is not among those
// shown, because there are very many, nothing is said.
func catalogueEvidence(product account.Product, told []store.Due) func(store.Due) bool {
	has, ended, moments := lastTold{}, map[string]bool{}, map[string]moment{}
	for i, d := range told {
		event, err := stripeevent.Parse(d.Payload)
		if err != nil {
			continue // it was parsed when it came; see take
		}
		for _, c := range event.ChangedProduct() {
			has.tell(fieldValue{event.ObjectID, c.Field, c.After}, moment{event.Created, i})
		}
		moments[d.EventID] = moment{event.Created, i}
		ended[event.Ended()] = true
	}
	return func(d store.Due) bool {
		event, err := stripeevent.Parse(d.Payload)
		if err != nil || product.Deleted {
			return true
		}
		i := slices.IndexFunc(product.Prices, func(p account.Price) bool { return p.ID == event.ObjectID })
		price := event.ObjectKind == "price"
		switch {
		case event.Ended() != "":
			return price && i < 0
		case price && i < 0:
			return product.PricesPartial || ended[event.ObjectID]
		}
		return !slices.ContainsFunc(event.ChangedProduct(), func(c stripeevent.CatalogueChange) bool {
			shown := c.Shown(product)
			if price {
				shown = c.ShownOfPrice(product.Prices[i])
			}
			return shown == c.Before && !has.again(fieldValue{event.ObjectID, c.Field, c.Before}, moments[d.EventID])
		})
	}
}
