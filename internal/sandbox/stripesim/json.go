package stripesim

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
)

// mustJSON encodes what was rendered, to the same bytes as [json.Marshal]: everything that is said here passes through it.
func mustJSON(v any) json.RawMessage { return appendJSON(nil, v) }

// appendJSON knows what objects are made of, and needs no reflection for it.
func appendJSON(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case string:
		return appendString(b, v)
	case bool:
		return strconv.AppendBool(b, v)
	case int:
		return strconv.AppendInt(b, int64(v), 10)
	case int64:
		return strconv.AppendInt(b, v, 10)
	case object:
		return appendMap(b, v)
	case map[string]string:
		return appendMap(b, v)
	case []any:
		return appendList(b, v)
	case []object:
		return appendList(b, v)
	case []string:
		return appendList(b, v)
	default:
		encoded, err := json.Marshal(v)
		if err != nil {
			panic("stripesim: render: " + err.Error()) // only plain maps, slices and scalars are rendered
		}
		return append(b, encoded...)
	}
}

func appendMap[V any](b []byte, m map[string]V) []byte {
	if m == nil {
		return append(b, "null"...)
	}
	b = append(b, '{')
	for i, key := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, key), ':')
		b = appendJSON(b, m[key])
	}
	return append(b, '}')
}

func appendList[V any](b []byte, list []V) []byte {
	if list == nil {
		return append(b, "null"...)
	}
	b = append(b, '[')
	for i, v := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendJSON(b, v)
	}
	return append(b, ']')
}

func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			encoded, _ := json.Marshal(s) // a string has no error
			return append(b, encoded...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// asJSON is what somebody reads who decodes an object: numbers are float64, lists are []any.
func asJSON(o object) map[string]any {
	out := make(map[string]any, len(o))
	for key, v := range o {
		out[key] = decoded(v)
	}
	return out
}

func decoded(v any) any {
	switch v := v.(type) {
	case nil, string, bool:
		return v
	case int:
		return float64(v)
	case int64:
		return float64(v)
	case object:
		if v == nil {
			return nil
		}
		return asJSON(v)
	case []any:
		return decodedList(v)
	case []object:
		return decodedList(v)
	default:
		var out any
		if err := json.Unmarshal(mustJSON(v), &out); err != nil {
			panic("stripesim: render: " + err.Error())
		}
		return out
	}
}

func decodedList[V any](list []V) any {
	if list == nil {
		return nil
	}
	out := make([]any, len(list))
	for i, v := range list {
		out[i] = decoded(v)
	}
	return out
}
