package stripesim

import (
	"iter"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// clause is one condition of a search: field:'value', field~'part', -field:'value'.
type clause struct {
	field, key string // key of metadata['key']
	op, value  string
	negated    bool
}

var clauseForm = regexp.MustCompile(`^(-?)([a-z_]+)(?:\[['"]([^'"]+)['"]\])?(:|~)(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|([^\s'"]+))\s*`)

// document is an object as the index has it. Search knows the fields given and metadata only.
type document struct {
	id       string
	fields   map[string]string
	metadata map[string]string
	render   func() object
}

// searchCustomers answers from the index, which lags behind as SetSearchLag says.
func (s *Server) searchCustomers(c *call) (any, *apiError) {
	r := s.renderer(c.v)
	return s.search(c, "customers", []string{"email", "name", "phone"}, func(yield func(document) bool) {
		for _, cus := range s.db.Customers.newest(nil) {
			seen := s.indexed(cus)
			if seen == nil || seen.Deleted {
				continue
			}
			fields := map[string]string{"email": seen.Email, "name": seen.Name, "phone": seen.Phone}
			if !yield(document{cus.ID, fields, seen.Metadata, func() object { return r.customer(seen) }}) {
				return
			}
		}
	})
}

// searchSubscriptions answers from the same index; those that have ended are in it too.
func (s *Server) searchSubscriptions(c *call) (any, *apiError) {
	r, lag := s.renderer(c.v), int64(s.db.SearchLag.Seconds())
	return s.search(c, "subscriptions", []string{"status"}, func(yield func(document) bool) {
		for _, sub := range s.db.Subscriptions.newest(func(x *subscription) bool { return x.Created+lag <= s.unix() }) {
			metadata := sub.Metadata
			if sub.MetadataAt+lag > s.unix() {
				metadata = sub.MetadataBefore
			}
			render := func() object { return r.subscription(sub) }
			if !yield(document{sub.ID, map[string]string{"status": sub.Status}, metadata, render}) {
				return
			}
		}
	})
}

// setMetadata changes a subscription's metadata, which search goes on showing as they were for as
// long as its index lags behind.
func (s *Server) setMetadata(sub *subscription, metadata map[string]string) {
	if maps.Equal(sub.Metadata, metadata) {
		return
	}
	if sub.MetadataAt+int64(s.db.SearchLag.Seconds()) <= s.unix() {
		sub.MetadataBefore = sub.Metadata
	}
	sub.Metadata, sub.MetadataAt = metadata, s.unix()
}

func (s *Server) search(c *call, resource string, fields []string, index iter.Seq[document]) (any, *apiError) {
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
	for _, clause := range clauses {
		if clause.field != "metadata" && !slices.Contains(fields, clause.field) {
			return nil, badValue("", "query", "Field `%s` is an unsupported search field for resource `%s`.", clause.field, resource)
		}
	}
	data, more, last := []any{}, false, ""
	past := page == ""
	for d := range index {
		if !past {
			past = d.id == page
			continue
		}
		if !d.matches(clauses, anyOf) {
			continue
		}
		if len(data) == limit {
			more = true
			break
		}
		data, last = append(data, d.render()), d.id
	}
	out := object{"object": "search_result", "url": c.path, "has_more": more, "data": data, "next_page": nil}
	if more {
		out["next_page"] = last
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
	return clauses, joins["OR "], nil
}

func (d document) matches(clauses []clause, anyOf bool) bool {
	for _, c := range clauses {
		value, want := strings.ToLower(d.fields[c.field]), strings.ToLower(c.value)
		if c.field == "metadata" {
			value, want = d.metadata[c.key], c.value
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
