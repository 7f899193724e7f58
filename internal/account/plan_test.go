package account_test

import (
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

func TestPlanItem(t *testing.T) {
	t.Parallel()
	item := func(id, price string, amount, quantity int64, interval string) account.PlanCandidate {
		return account.PlanCandidate{Item: account.Item{ID: id, PriceID: price, ProductID: "prod_" + price, UnitAmount: amount, Quantity: quantity, Interval: interval, IntervalCount: 1}}
	}
	metered := account.PlanCandidate{Item: account.Item{ID: "si_0", PriceID: "calls", ProductID: "prod_calls", UnitAmount: 1, Metered: true, Interval: "month", IntervalCount: 1}}
	pro, basic, support := item("si_1", "pro", 2000, 3, "month"), item("si_2", "basic", 900, 1, "month"), item("si_3", "support", 9900, 1, "month")
	support.AddOn = true
	yearly := item("si_4", "yearly", 24000, 1, "year") // 2000 a month
	unpriced := item("si_5", "unpriced", 0, 500, "month")
	unpriced.Unpriced = true
	one, two := item("si_6", "one", 500, 2, "month"), item("si_7", "two", 1000, 1, "month")
	list := func(c ...account.PlanCandidate) []account.PlanCandidate { return c }
	for name, c := range map[string]struct {
		candidates []account.PlanCandidate
		was        account.Item
		want       string
	}{
		"metered beside licensed":               {list(metered, pro), account.Item{}, "pro"},
		"metered that was the plan":             {list(metered, pro), metered.Item, "pro"},
		"metered that was, by its price":        {list(metered, pro), account.Item{PriceID: "calls"}, "pro"},
		"metered alone":                         {list(metered), account.Item{}, "calls"},
		"an add-on that costs more":             {list(support, basic), account.Item{}, "basic"},
		"an add-on that was the plan":           {list(support, basic), support.Item, "basic"},
		"an add-on beside metered":              {list(metered, support), account.Item{}, "support"},
		"what was the plan, beside more":        {list(pro, basic), basic.Item, "basic"},
		"what was, moved to another price":      {list(pro, basic), account.Item{ID: "si_2", PriceID: "older", ProductID: "prod_older"}, "basic"},
		"what was, by its price":                {list(pro, basic), account.Item{PriceID: "basic"}, "basic"},
		"what was, by its product":              {list(pro, basic), account.Item{ID: "si_gone", PriceID: "gone", ProductID: "prod_basic"}, "basic"},
		"the larger amount, by quantity":        {list(basic, pro), account.Item{}, "pro"},
		"the larger amount of a month":          {list(yearly, basic, pro), account.Item{}, "pro"},
		"a year is twelve months":               {list(yearly, basic), account.Item{}, "yearly"},
		"what is known before what is unpriced": {list(unpriced, basic), account.Item{}, "basic"},
		"the id, of equal ones":                 {list(one, two), account.Item{}, "one"},
	} {
		permutations(len(c.candidates), func(order []int) {
			var shuffled []account.PlanCandidate
			for _, i := range order {
				shuffled = append(shuffled, c.candidates[i])
			}
			if got, ok := account.PlanItem(shuffled, c.was); !ok || got.PriceID != c.want {
				t.Errorf("%s, in the order %v: %s, want %s", name, order, got.PriceID, c.want)
			}
		})
	}
	if got, ok := account.PlanItem(nil, pro.Item); ok {
		t.Errorf("of nothing: %+v", got)
	}
}

// permutations calls fn with every order of n things.
func permutations(n int, fn func(order []int)) {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	var rest func(k int)
	rest = func(k int) {
		if k == n {
			fn(order)
			return
		}
		for i := k; i < n; i++ {
			order[k], order[i] = order[i], order[k]
			rest(k + 1)
			order[k], order[i] = order[i], order[k]
		}
	}
	rest(0)
}
