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

// field is a node of a request's parameters: a[b][0][c]=v is a tree of four of them. A field has a value, or fields beneath.
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

// accepted is a tree of the parameter names that a route knows. "#" stands for a list index, "*" for anything beneath.
type accepted struct{ names map[string]*accepted }

// accept reads names such as "items.#.price metadata.*".
func accept(names string) *accepted {
	root := &accepted{names: map[string]*accepted{}}
	for name := range strings.FieldsSeq(names) {
		at := root
		for part := range strings.SplitSeq(name, ".") {
			if at.names[part] == nil {
				at.names[part] = &accepted{names: map[string]*accepted{}}
			}
			at = at.names[part]
		}
	}
	return root
}

// check answers the first parameter that the route does not know, as Stripe does.
func (a *accepted) check(f *field) *apiError {
	for _, key := range f.order {
		if a.names["*"] != nil {
			return nil
		}
		next := a.names[key]
		if _, err := strconv.Atoi(key); err == nil && next == nil {
			next = a.names["#"]
		}
		if next == nil {
			return unknownParam(f.fields[key].name)
		}
		if e := next.check(f.fields[key]); e != nil {
			return e
		}
	}
	return nil
}
