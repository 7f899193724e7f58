package stripesim

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"
)

// What is written without reflection is to the byte what encoding/json writes, and what is decoded without
// being written is what encoding/json reads.
func TestObjectsAreWrittenAndReadAsEncodingJSONDoes(t *testing.T) {
	t.Parallel()
	text := "plain"
	odd := "a \"quoted\" \\ <b>&amp;</b> \u2028 \x00 \x7f é 💶"
	o := object{
		"nothing": nil, "text": text, odd: odd, "empty": "", "yes": true, "no": false,
		"int": -7, "large": int64(math.MaxInt64), "unsigned": uint8(3), "fraction": 0.1, "big": 1e21,
		"object": object{"b": object{}, "a": 1, "": ""}, "nil object": object(nil), "strings": map[string]string{"z": odd, "a": text}, "nil strings": map[string]string(nil),
		"list": []any{nil, 1, object{"x": []any{}}}, "nil list": []any(nil), "objects": []object{{"id": "1"}, nil}, "nil objects": []object(nil),
		"words": []string{text, odd}, "raw": json.RawMessage(`{"b": 1, "a": [1.5, "<"]}`), "pointer": &text, "nil pointer": (*string)(nil),
		"struct": struct {
			A string `json:"a,omitempty"`
			B int64
		}{B: 2},
	}
	want, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	if got := mustJSON(o); string(got) != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := mustJSON("a\xff\xfe"); string(got) != `"a\ufffd\ufffd"` {
		t.Errorf("what is no UTF-8 is written as %s", got)
	}
	var read map[string]any
	if err := json.Unmarshal(want, &read); err != nil {
		t.Fatal(err)
	}
	if got := asJSON(o); !reflect.DeepEqual(got, read) {
		t.Errorf("got\n%#v\nwant\n%#v", got, read)
	}
}
