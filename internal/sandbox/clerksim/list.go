package clerksim

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// maxPage is the most users that one request lists.
const maxPage = 500

// listUsers answers GET /v1/users. The default order is the newest first; ties keep the order of
// creation.
func (s *Server) listUsers(r *http.Request) (any, error) {
	q := r.URL.Query()
	limit, err := number(q, "limit", 10, 1, maxPage)
	if err != nil {
		return nil, err
	}
	offset, err := number(q, "offset", 0, 0, 1<<31)
	if err != nil {
		return nil, err
	}
	users, err := s.selected(q)
	if err != nil {
		return nil, err
	}
	if err := sortUsers(users, q.Get("order_by")); err != nil {
		return nil, err
	}
	users = users[min(offset, len(users)):min(offset+limit, len(users))]
	page := []any{}
	for _, u := range users {
		page = append(page, u.render())
	}
	return page, nil
}

// countUsers answers GET /v1/users/count.
func (s *Server) countUsers(r *http.Request) (any, error) {
	users, err := s.selected(r.URL.Query())
	if err != nil {
		return nil, err
	}
	return map[string]any{"object": "total_count", "total_count": len(users)}, nil
}

// selected returns the users that pass every filter of the query, in order of creation.
func (s *Server) selected(q url.Values) ([]*user, error) {
	filters, err := filtersOf(q)
	if err != nil {
		return nil, err
	}
	var users []*user
	for _, id := range s.order {
		u := s.users[id]
		if !u.Forgotten && !slices.ContainsFunc(filters, func(pass filter) bool { return !pass(u) }) {
			users = append(users, u)
		}
	}
	return users, nil
}

type filter func(*user) bool

// filtersOf turns the query into filters. Different filters narrow, several values of one widen.
func filtersOf(q url.Values) ([]filter, error) {
	var filters []filter
	for name, values := range map[string]func(*user) []string{
		"email_address": func(u *user) []string { return valuesOf(u.Emails) },
		"phone_number":  func(u *user) []string { return valuesOf(u.Phones) },
		"username":      func(u *user) []string { return []string{deref(u.Username)} },
		"external_id":   func(u *user) []string { return []string{deref(u.ExternalID)} },
		"user_id":       func(u *user) []string { return []string{u.ID} },
		"web3_wallet":   func(*user) []string { return nil },
	} {
		if wanted := listed(q, name); len(wanted) > 0 {
			filters = append(filters, func(u *user) bool { return among(values(u), wanted) })
		}
	}
	for name, texts := range map[string]func(*user) []string{
		"query": func(u *user) []string {
			return append(append(valuesOf(u.Emails), valuesOf(u.Phones)...), u.ID, deref(u.Username), deref(u.FirstName), deref(u.LastName))
		},
		"email_address_query": func(u *user) []string { return valuesOf(u.Emails) },
		"phone_number_query":  func(u *user) []string { return valuesOf(u.Phones) },
		"username_query":      func(u *user) []string { return []string{deref(u.Username)} },
		"name_query":          func(u *user) []string { return []string{deref(u.FirstName) + " " + deref(u.LastName)} },
	} {
		if part := strings.ToLower(q.Get(name)); part != "" {
			filters = append(filters, func(u *user) bool {
				return slices.ContainsFunc(texts(u), func(t string) bool { return strings.Contains(strings.ToLower(t), part) })
			})
		}
	}
	for name, pass := range map[string]func(u *user, bound int64) bool{
		"created_at_after":      func(u *user, b int64) bool { return u.Created > b },
		"created_at_before":     func(u *user, b int64) bool { return u.Created < b },
		"last_active_at_after":  func(u *user, b int64) bool { return u.LastActive != nil && *u.LastActive > b },
		"last_active_at_since":  func(u *user, b int64) bool { return u.LastActive != nil && *u.LastActive >= b },
		"last_active_at_before": func(u *user, b int64) bool { return u.LastActive != nil && *u.LastActive < b },
	} {
		if !q.Has(name) {
			continue
		}
		bound, err := strconv.ParseInt(q.Get(name), 10, 64)
		if err != nil {
			return nil, invalid("form_param_type_invalid", name, "must be a time in milliseconds")
		}
		filters = append(filters, func(u *user) bool { return pass(u, bound) })
	}
	if q.Has("banned") {
		filters = append(filters, func(u *user) bool { return strconv.FormatBool(u.Banned) == q.Get("banned") })
	}
	return filters, nil
}

// listed returns the values of a parameter that may be repeated, with or without brackets.
func listed(q url.Values, name string) []string { return slices.Concat(q[name], q[name+"[]"]) }

// among reports whether one of the values is wanted. A "-" before a wanted value excludes it, a "+"
// is for show.
func among(values, wanted []string) bool {
	included, anyInclusion := false, false
	for _, w := range wanted {
		w, excluded := strings.CutPrefix(w, "-")
		w = strings.TrimPrefix(w, "+")
		has := slices.ContainsFunc(values, func(v string) bool { return v != "" && strings.EqualFold(v, w) })
		switch {
		case excluded && has:
			return false
		case !excluded:
			anyInclusion = true
			included = included || has
		}
	}
	return included || !anyInclusion
}

func valuesOf(idents []ident) (values []string) {
	for _, i := range idents {
		values = append(values, i.Value)
	}
	return values
}

// sortUsers orders by "+created_at", "-updated_at" and the like; no sign is ascending, and a plus
// that a client forgot to escape arrives as a space.
func sortUsers(users []*user, by string) error {
	by = cmp.Or(by, "-created_at")
	name, descending := strings.CutPrefix(by, "-")
	name = strings.TrimLeft(name, "+ ")
	at := func(t *int64) int64 {
		if t == nil {
			return 0
		}
		return *t
	}
	compare, ok := map[string]func(a, b *user) int{
		"created_at":      func(a, b *user) int { return cmp.Compare(a.Created, b.Created) },
		"updated_at":      func(a, b *user) int { return cmp.Compare(a.Updated, b.Updated) },
		"last_active_at":  func(a, b *user) int { return cmp.Compare(at(a.LastActive), at(b.LastActive)) },
		"last_sign_in_at": func(a, b *user) int { return cmp.Compare(at(a.LastSignIn), at(b.LastSignIn)) },
		"first_name":      func(a, b *user) int { return cmp.Compare(deref(a.FirstName), deref(b.FirstName)) },
		"last_name":       func(a, b *user) int { return cmp.Compare(deref(a.LastName), deref(b.LastName)) },
		"username":        func(a, b *user) int { return cmp.Compare(deref(a.Username), deref(b.Username)) },
		"email_address":   func(a, b *user) int { return slices.Compare(valuesOf(a.Emails), valuesOf(b.Emails)) },
		"phone_number":    func(a, b *user) int { return slices.Compare(valuesOf(a.Phones), valuesOf(b.Phones)) },
		"web3wallet":      func(*user, *user) int { return 0 },
	}[name]
	if !ok {
		return invalid("form_param_value_invalid", "order_by", "is not an order of users")
	}
	if descending {
		slices.Reverse(users)
		slices.SortStableFunc(users, func(a, b *user) int { return compare(b, a) })
		return nil
	}
	slices.SortStableFunc(users, compare)
	return nil
}

// number reads a whole number within bounds.
func number(q url.Values, name string, fallback, low, high int) (int, error) {
	if !q.Has(name) {
		return fallback, nil
	}
	n, err := strconv.Atoi(q.Get(name))
	if err != nil || n < low || n > high {
		return 0, invalid("form_param_value_invalid", name, "must be between "+strconv.Itoa(low)+" and "+strconv.Itoa(high))
	}
	return n, nil
}
