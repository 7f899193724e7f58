package stripesim

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// field is a node of a request's parameters: a[b][0][c]=v is a tree of four of them. A field has a
// value, or fields beneath.
type field struct {
	name   string // in the bracket form, for error messages
	value  string
	given  bool
	order  []string
	fields map[string]*field
}

func (f *field) child(key string) *field {
	if c := f.fields[key]; c != nil {
		return c
	}
	if f.fields == nil {
		f.fields = map[string]*field{}
	}
	c := &field{name: key}
	if f.name != "" {
		c.name = f.name + "[" + key + "]"
	}
	f.fields[key] = c
	f.order = append(f.order, key)
	return c
}

// at follows a path of keys; nil when nothing is there.
func (f *field) at(path ...string) *field {
	for _, key := range path {
		if f == nil {
			return nil
		}
		f = f.fields[key]
	}
	return f
}

// list gives the elements of a[0], a[1], ... in the order of their indices.
func (f *field) list() []*field {
	if f == nil {
		return nil
	}
	keys := slices.Clone(f.order)
	slices.SortStableFunc(keys, func(a, b string) int {
		x, _ := strconv.Atoi(a)
		y, _ := strconv.Atoi(b)
		return x - y
	})
	out := make([]*field, 0, len(keys))
	for _, k := range keys {
		out = append(out, f.fields[k])
	}
	return out
}

// add puts the pairs of one form-encoded string into the tree.
func (f *field) add(encoded string) error {
	for pair := range strings.SplitSeq(encoded, "&") {
		if pair == "" {
			continue
		}
		k, v, _ := strings.Cut(pair, "=")
		key, err := url.QueryUnescape(k)
		if err != nil {
			return fmt.Errorf("unescape parameter name: %w", err)
		}
		value, err := url.QueryUnescape(v)
		if err != nil {
			return fmt.Errorf("unescape parameter value: %w", err)
		}
		at := f
		for _, part := range keyParts(key) {
			if part == "" { // a[]=v: the next index
				part = strconv.Itoa(len(at.order))
			}
			at = at.child(part)
		}
		at.value, at.given = value, true
	}
	return nil
}

func keyParts(key string) []string {
	head, rest, nested := strings.Cut(key, "[")
	if !nested || head == "" {
		return []string{key}
	}
	parts := strings.Split(strings.TrimSuffix(rest, "]"), "][")
	return append([]string{head}, parts...)
}

// fingerprint is the same for two requests with the same parameters, in whatever order.
func (f *field) fingerprint() string {
	var lines []string
	f.walk(func(leaf *field) { lines = append(lines, leaf.name+"="+leaf.value) })
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(sum[:])
}

func (f *field) walk(visit func(*field)) {
	if f.given {
		visit(f)
	}
	for _, k := range f.order {
		f.fields[k].walk(visit)
	}
}

// accepted is a tree of the parameter names that a route knows. "#" stands for a list index, "*"
// for anything beneath.
type accepted struct {
	names  map[string]*accepted
	values []string // the values that Stripe takes; none for any
	most   int      // the most characters
}

// accept reads names such as "items.#.price metadata.*". What follows a name says which values
// Stripe takes: "=none|void" these (with nothing before the first "|" an empty one too, which
// clears), "=..350" texts of up to 350 characters.
func accept(names string) *accepted {
	root := &accepted{names: map[string]*accepted{}}
	for name := range strings.FieldsSeq(names) {
		name, values, limited := strings.Cut(name, "=")
		at := root
		for part := range strings.SplitSeq(name, ".") {
			if at.names[part] == nil {
				at.names[part] = &accepted{names: map[string]*accepted{}, most: maxText}
			}
			at = at.names[part]
		}
		if most, ok := strings.CutPrefix(values, ".."); ok {
			at.most, _ = strconv.Atoi(most)
		} else if limited {
			at.values = strings.Split(values, "|")
		}
	}
	return root
}

// check answers the first parameter that the route does not know, or whose value Stripe does not
// take.
func (a *accepted) check(f *field) *apiError {
	for _, key := range f.order {
		next, at := a.names[key], f.fields[key]
		if _, err := strconv.Atoi(key); err == nil && next == nil {
			next = a.names["#"]
		}
		switch {
		case next == nil && a.names["*"] != nil:
			continue
		case next == nil:
			return unknownParam(at.name)
		}
		if e := next.takes(at); e != nil {
			return e
		}
		if e := next.check(at); e != nil {
			return e
		}
	}
	return nil
}

// takes answers why Stripe does not take the value of a parameter.
func (a *accepted) takes(f *field) *apiError {
	switch {
	case !f.given:
		return nil
	case len(a.values) > 0 && !slices.Contains(a.values, f.value):
		return notOneOf(f.name, f.value, a.values)
	default:
		return tooLong(f.name, f.value, a.most)
	}
}
