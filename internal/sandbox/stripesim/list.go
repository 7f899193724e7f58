package stripesim

import "slices"

const (
	defaultLimit = 10
	maxLimit     = 100
)

// listParams are the parameters that every list takes.
const listParams = " limit starting_after ending_before "

// listed answers one page of a table, newest first.
func listed[T any](c *call, t *table[T], keep func(*T) bool) (any, *apiError) {
	limit, after, before := c.page()
	if c.err != nil {
		return nil, c.err
	}
	if after != "" && isGone(t.get(after)) {
		return nil, missingRef("object", after, "starting_after")
	}
	if before != "" && isGone(t.get(before)) {
		return nil, missingRef("object", before, "ending_before")
	}
	// The cursor itself need not match the filter, as with Stripe: it is only a place in the order.
	var page []any
	r := c.s.renderer(c.v)
	more := false
	take := func(row *T) (full bool) {
		if keep != nil && !keep(row) {
			return false
		}
		if len(page) == limit {
			more = true
			return true
		}
		page = append(page, r.resource(row))
		return false
	}
	if before != "" {
		at := position(t.Order, before)
		for i := at + 1; i < len(t.Order) && !take(t.Rows[t.Order[i]]); i++ {
		}
		reverse(page)
	} else {
		start := len(t.Order) - 1
		if after != "" {
			start = position(t.Order, after) - 1
		}
		for i := start; i >= 0 && !take(t.Rows[t.Order[i]]); i-- {
		}
	}
	return object{"object": "list", "url": c.path, "has_more": more, "data": orEmpty(page)}, nil
}

// isGone tells whether a list cannot go on behind an object: there is none, or it was deleted,
// although it can still be read.
func isGone[T any](row *T) bool {
	deleted, is := any(row).(interface{ gone() bool })
	return row == nil || is && deleted.gone()
}

func (c *call) page() (limit int, after, before string) {
	limit = defaultLimit
	if n, ok := c.integer("limit"); ok {
		switch {
		case n < 1:
			c.fail(badValue("parameter_invalid_integer", "limit", "This value must be greater than or equal to 1."))
		case n > maxLimit:
			c.fail(badValue("parameter_invalid_integer", "limit", "This value must be less than or equal to %d.", maxLimit))
		}
		limit = int(n)
	}
	after, _ = c.text("starting_after")
	before, _ = c.text("ending_before")
	if after != "" && before != "" {
		c.fail(badValue("", "starting_after", "You may only specify one of these parameters: starting_after, ending_before."))
	}
	return limit, after, before
}

func position(order []string, id string) int {
	for i, o := range slices.Backward(order) {
		if o == id {
			return i
		}
	}
	return -1
}

func reverse(page []any) {
	for i, j := 0, len(page)-1; i < j; i, j = i+1, j-1 {
		page[i], page[j] = page[j], page[i]
	}
}

func orEmpty(page []any) []any {
	if page == nil {
		return []any{}
	}
	return page
}
