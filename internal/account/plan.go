package account

import (
	"cmp"
	"math/big"
	"slices"
)

// PlanCandidate is an item that may make a subscription's plan.
type PlanCandidate struct {
	Item
	// AddOn is what the catalogue says of the item's product.
	AddOn bool
}

// PlanItem answers which of several items makes the plan, and false where there is none. It never
// depends on the order in which Stripe lists them: licensed goes before metered, which is an
// addition by its nature; a base product before an add-on; then the item that was the plan, so that
// a plan does not change because something was added; then the larger monthly amount; then the
// smaller id.
//
// was is the item that was the plan as far as it is known: by its id, which it keeps when it is
// moved to another price, else by its price, else by its product.
func PlanItem(candidates []PlanCandidate, was Item) (Item, bool) {
	if len(candidates) == 0 {
		return Item{}, false
	}
	return slices.MinFunc(candidates, func(a, b PlanCandidate) int {
		return cmp.Or(
			compareBool(a.Metered, b.Metered),
			compareBool(a.AddOn, b.AddOn),
			cmp.Compare(kinship(a.Item, was), kinship(b.Item, was)),
			b.monthly().Cmp(a.monthly()),
			cmp.Compare(a.ID, b.ID),
			cmp.Compare(a.PriceID, b.PriceID),
		)
	}).Item, true
}

// kinship is how nearly an item is the one that was the plan, the nearest first.
func kinship(i, was Item) int {
	switch {
	case was.ID != "" && i.ID == was.ID:
		return 0
	case was.PriceID != "" && i.PriceID == was.PriceID:
		return 1
	case was.ProductID != "" && i.ProductID == was.ProductID:
		return 2
	default:
		return 3
	}
}

// monthly is what the item comes to in a month; what is unpriced counts as less than any amount.
func (i Item) monthly() *big.Rat {
	if i.Unpriced {
		return big.NewRat(-1, 1)
	}
	amount := new(big.Rat).SetInt(new(big.Int).Mul(big.NewInt(i.UnitAmount), big.NewInt(i.Quantity)))
	return amount.Mul(amount, perMonth(i.Interval, i.IntervalCount))
}
