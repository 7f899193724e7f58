package clerksim

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
)

// maxMetadata is the size of one kind of metadata of a user, in bytes of JSON, above which Clerk
// refuses a write.
const maxMetadata = 8 << 10

// metadata is one of a user's three kinds of metadata: a JSON object. Numbers stay as they were
// written.
type metadata map[string]any

// merge applies a patch by Clerk's rules: objects merge at every level, null removes a key at every
// level, and everything else, arrays included, replaces what was there. It leaves m and patch
// alone.
func (m metadata) merge(patch metadata) metadata {
	out := m.copy()
	for k, v := range patch {
		switch v := v.(type) {
		case nil:
			delete(out, k)
		case map[string]any:
			old, _ := out[k].(map[string]any)
			out[k] = map[string]any(metadata(old).merge(v))
		default:
			out[k] = v
		}
	}
	return out
}

// copy returns a deep copy, never nil.
func (m metadata) copy() metadata {
	out := metadata{}
	for k, v := range m {
		out[k] = copyValue(v)
	}
	return out
}

func copyValue(v any) any {
	switch v := v.(type) {
	case map[string]any:
		return map[string]any(metadata(v).copy())
	case []any:
		out := slices.Clone(v)
		for i := range out {
			out[i] = copyValue(out[i])
		}
		return out
	default:
		return v
	}
}

// parseMetadata reads what a request sets one kind of metadata to. Absent is nil and false.
func parseMetadata(raw json.RawMessage, param string) (m metadata, given bool, err error) {
	if len(raw) == 0 {
		return nil, false, nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, false, invalid("form_param_invalid", param, "is invalid")
	}
	switch v := v.(type) {
	case nil:
		return metadata{}, true, nil
	case map[string]any:
		return v, true, nil
	default:
		return nil, false, invalid("form_param_type_invalid", param, "must be an object")
	}
}

// fits refuses metadata that is too long.
func (m metadata) fits(param string) error {
	if len(mustJSON(m)) > maxMetadata {
		return &apiError{status: http.StatusUnprocessableEntity, code: "form_param_exceeds_allowed_size",
			message: "exceeds the allowed size", long: param + " exceeds the maximum allowed size of 8KB", param: param}
	}
	return nil
}

// metadataChange holds the three fields that requests change metadata with.
type metadataChange struct {
	Public  json.RawMessage `json:"public_metadata"`
	Private json.RawMessage `json:"private_metadata"`
	Unsafe  json.RawMessage `json:"unsafe_metadata"`
}

// apply computes the three kinds after the change, by combine, and then stores all or none.
func (c metadataChange) apply(u *user, combine func(old, given metadata) metadata) error {
	next := [3]metadata{u.Public, u.Private, u.Unsafe}
	for i, field := range []struct {
		raw  json.RawMessage
		name string
	}{{c.Public, "public_metadata"}, {c.Private, "private_metadata"}, {c.Unsafe, "unsafe_metadata"}} {
		given, ok, err := parseMetadata(field.raw, field.name)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		next[i] = combine(next[i], given)
		if err := next[i].fits(field.name); err != nil {
			return err
		}
	}
	u.Public, u.Private, u.Unsafe = next[0], next[1], next[2]
	return nil
}

func merged(old, given metadata) metadata { return old.merge(given) }

func replaced(_, given metadata) metadata { return given.copy() }
