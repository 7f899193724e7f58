package stripesim

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// params reads typed values out of a request. The first value that cannot be read is kept in err;
// handlers read all they need, then look at err, then act.
type params struct {
	root *field
	err  *apiError
}

func (p *params) fail(e *apiError) {
	if p.err == nil {
		p.err = e
	}
}

func (p *params) has(path ...string) bool { return p.root.at(path...) != nil }

// text is a string parameter; ok tells "absent" from "empty", which clears.
func (p *params) text(path ...string) (value string, ok bool) {
	f := p.root.at(path...)
	if f == nil {
		return "", false
	}
	if !f.given {
		p.fail(badValue("", f.name, "Invalid string: %s", f.name))
		return "", false
	}
	return f.value, true
}

// or is a string parameter with a default.
func (p *params) or(fallback string, path ...string) string {
	if v, ok := p.text(path...); ok && v != "" {
		return v
	}
	return fallback
}

// required is a string parameter that must be there.
func (p *params) required(path ...string) string {
	v, _ := p.text(path...)
	if v == "" {
		p.fail(missingParam(bracketed(path)))
	}
	return v
}

func (p *params) integer(path ...string) (value int64, ok bool) {
	v, ok := p.text(path...)
	if !ok || v == "" {
		return 0, false
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		p.fail(badValue("parameter_invalid_integer", bracketed(path), "Invalid integer: %s", v))
		return 0, false
	}
	return n, true
}

func (p *params) boolean(path ...string) (value, ok bool) {
	v, ok := p.text(path...)
	if !ok {
		return false, false
	}
	switch v {
	case "true":
		return true, true
	case "false", "":
		return false, true
	}
	p.fail(badValue("parameter_invalid_boolean", bracketed(path), "Invalid boolean: %s", v))
	return false, false
}

// choice is a string parameter out of a fixed set.
func (p *params) choice(options []string, path ...string) (value string, ok bool) {
	v, ok := p.text(path...)
	if !ok || v == "" {
		return "", false
	}
	if slices.Contains(options, v) {
		return v, true
	}
	p.fail(notOneOf(bracketed(path), v, options))
	return "", false
}

// notOneOf refuses a value that is none of those that there are.
func notOneOf(name, value string, options []string) *apiError {
	if value == "" {
		return badValue("parameter_invalid_empty", name, "You passed an empty string for '%s'. We assume empty values are an attempt to unset a parameter; however '%s' cannot be unset. You should remove '%s' from your request or supply a non-empty value.", name, name, name)
	}
	options = slices.DeleteFunc(slices.Clone(options), func(o string) bool { return o == "" })
	last := len(options) - 1
	listed := strings.Join(options[:last], ", ")
	switch {
	case last > 1:
		listed += ", or "
	case last == 1:
		listed += " or "
	}
	return badValue("", name, "Invalid %s: must be one of %s", name, listed+options[last])
}

const (
	maxMetadataKeys  = 50
	maxMetadataKey   = 40
	maxMetadataValue = 500
)

// metadata merges the parameter into old by Stripe's rule: a key with an empty value is removed, an
// empty parameter removes all, keys that are not named stay.
func (p *params) metadata(old map[string]string, path ...string) map[string]string {
	f := p.root.at(path...)
	out := make(map[string]string, len(old))
	if f == nil || !f.given {
		maps.Copy(out, old)
	}
	if f == nil {
		return out
	}
	if f.given && f.value != "" {
		p.fail(badValue("", f.name, "Invalid object"))
	}
	for _, k := range f.order {
		v := f.fields[k].value
		switch {
		case strings.ContainsAny(k, "[]"):
			p.fail(badValue("", f.name, "Invalid key: %s. Metadata keys cannot contain square brackets ([ and ])", k))
		case !f.fields[k].given:
			p.fail(badValue("", f.name, "Invalid val: the value of %s must be a string under %d characters", k, maxMetadataValue))
		case utf8.RuneCountInString(k) > maxMetadataKey:
			p.fail(badValue("parameter_invalid_string_length", f.fields[k].name, "Metadata keys must be at most %d characters", maxMetadataKey))
		case utf8.RuneCountInString(v) > maxMetadataValue:
			p.fail(badValue("parameter_invalid_string_length", f.fields[k].name, "Metadata values must be at most %d characters", maxMetadataValue))
		case v == "":
			delete(out, k)
		default:
			out[k] = v
		}
	}
	if len(out) > maxMetadataKeys {
		p.fail(badValue("", f.name, "Metadata can have up to %d keys, but you've set %d.", maxMetadataKeys, len(out)))
	}
	return out
}

// tree copies a section of the parameters as an object of strings, for parts that are kept but not
// understood.
func (p *params) tree(path ...string) object {
	f := p.root.at(path...)
	if f == nil || f.given {
		return nil
	}
	out := object{}
	for _, k := range f.order {
		if c := f.fields[k]; c.given {
			out[k] = orNull(c.value)
		}
	}
	return out
}

// span is a range of times, as in created[gte]=...; a plain value means exactly then.
type span struct{ gt, gte, lt, lte, exact *int64 }

func (p *params) span(path ...string) span {
	var out span
	f := p.root.at(path...)
	if f == nil {
		return out
	}
	read := func(path ...string) *int64 {
		if n, ok := p.integer(path...); ok {
			return &n
		}
		return nil
	}
	if f.given {
		out.exact = read(path...)
		return out
	}
	out.gt, out.gte = read(append(path, "gt")...), read(append(path, "gte")...)
	out.lt, out.lte = read(append(path, "lt")...), read(append(path, "lte")...)
	return out
}

func (w span) holds(t int64) bool {
	return (w.gt == nil || t > *w.gt) && (w.gte == nil || t >= *w.gte) && (w.lt == nil || t < *w.lt) &&
		(w.lte == nil || t <= *w.lte) && (w.exact == nil || t == *w.exact)
}

func bracketed(path []string) string {
	if len(path) == 1 {
		return path[0]
	}
	return path[0] + "[" + strings.Join(path[1:], "][") + "]"
}
