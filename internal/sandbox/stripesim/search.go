package stripesim

import (
	"regexp"
	"strings"
)

// clause is one condition of a search: field:'value', field~'part', -field:'value'.
type clause struct {
	field, key string // key of metadata['key']
	op, value  string
	negated    bool
}

var clauseForm = regexp.MustCompile(`^(-?)([a-z_]+)(?:\[['"]([^'"]+)['"]\])?(:|~)(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|([^\s'"]+))\s*`)

// searchCustomers answers from the index, which lags behind as SetSearchLag says.
func (s *Server) searchCustomers(c *call) (any, *apiError) {
	query := c.required("query")
	limit, _, _ := c.page()
	page := c.or("", "page")
	if c.err != nil {
		return nil, c.err
	}
	clauses, anyOf, e := parseSearch(query)
	if e != nil {
		return nil, e
	}
	data, more := []any{}, false
	r := s.renderer(c.v)
	past := page == ""
	for _, cus := range s.db.Customers.newest(nil) {
		seen := s.indexed(cus)
		if !past {
			past = cus.ID == page
			continue
		}
		if seen == nil || seen.Deleted || !matches(seen, clauses, anyOf) {
			continue
		}
		if len(data) == limit {
			more = true
			break
		}
		data = append(data, r.customer(seen))
	}
	out := object{"object": "search_result", "url": c.path, "has_more": more, "data": data, "next_page": nil}
	if more {
		out["next_page"] = data[len(data)-1].(object)["id"]
	}
	return out, nil
}

// indexed is the customer as the index has it; nil while it has not arrived there.
func (s *Server) indexed(cus *customer) *customer {
	lag := int64(s.db.SearchLag.Seconds())
	switch {
	case cus.Deleted && cus.ChangedAt+searchForgets > s.unix() && cus.Created+lag <= s.unix():
		return cus.Before // for a day as they were
	case cus.ChangedAt+lag <= s.unix():
		return cus
	case cus.Created+lag > s.unix():
		return nil
	}
	return cus.Before
}

func parseSearch(query string) (clauses []clause, anyOf bool, e *apiError) {
	bad := func() *apiError {
		return badValue("", "query", "We were unable to parse your search query. Try using the format `metadata[\"key\"]:\"value\"` to query for metadata or key:\"value\" to query for other fields.")
	}
	rest := strings.TrimSpace(query)
	joins := map[string]bool{}
	for rest != "" {
		m := clauseForm.FindStringSubmatch(rest)
		if m == nil {
			return nil, false, bad()
		}
		value := strings.NewReplacer(`\'`, `'`, `\"`, `"`, `\\`, `\`).Replace(m[5] + m[6] + m[7])
		clauses = append(clauses, clause{negated: m[1] == "-", field: m[2], key: m[3], op: m[4], value: value})
		rest = rest[len(m[0]):]
		for _, join := range []string{"AND ", "OR "} {
			if after, ok := strings.CutPrefix(strings.ToUpper(rest), join); ok {
				joins[join] = true
				rest = strings.TrimSpace(rest[len(rest)-len(after):])
			}
		}
	}
	if len(clauses) == 0 || len(joins) > 1 {
		return nil, false, bad()
	}
	for _, c := range clauses {
		if _, known := searchable(&customer{}, c); !known {
			return nil, false, badValue("", "query", "Field `%s` is an unsupported search field for resource `customers`.", c.field)
		}
	}
	return clauses, joins["OR "], nil
}

func searchable(cus *customer, c clause) (value string, known bool) {
	switch c.field {
	case "email":
		return cus.Email, true
	case "name":
		return cus.Name, true
	case "phone":
		return cus.Phone, true
	case "metadata":
		return cus.Metadata[c.key], true
	}
	return "", false
}

func matches(cus *customer, clauses []clause, anyOf bool) bool {
	for _, c := range clauses {
		value, _ := searchable(cus, c)
		value, want := strings.ToLower(value), strings.ToLower(c.value)
		if c.field == "metadata" {
			value, want = cus.Metadata[c.key], c.value
		}
		hit := value != "" && value == want
		if c.op == "~" {
			hit = strings.Contains(value, want)
		}
		if (hit != c.negated) == anyOf {
			return anyOf
		}
	}
	return !anyOf
}
