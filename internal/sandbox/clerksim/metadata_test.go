package clerksim_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/clerk/clerk-sdk-go/v2/user"
)

func TestMetadataMerges(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ before, patch, after string }{
		"adds":                         {`{"a":1}`, `{"b":2}`, `{"a":1,"b":2}`},
		"replaces values":              {`{"a":1}`, `{"a":"x"}`, `{"a":"x"}`},
		"merges below":                 {`{"s":{"a":1,"t":{"x":1,"y":2}}}`, `{"s":{"b":2,"t":{"x":3}}}`, `{"s":{"a":1,"b":2,"t":{"x":3,"y":2}}}`},
		"null removes":                 {`{"a":1,"b":2}`, `{"a":null}`, `{"b":2}`},
		"null removes below":           {`{"s":{"a":1,"t":{"x":1,"y":2}}}`, `{"s":{"a":null,"t":{"x":null}}}`, `{"s":{"t":{"y":2}}}`},
		"null in what is new":          {`{}`, `{"s":{"a":null,"b":1}}`, `{"s":{"b":1}}`},
		"null removes objects":         {`{"s":{"a":1}}`, `{"s":null}`, `{}`},
		"arrays are replaced":          {`{"l":[1,2,{"a":1}]}`, `{"l":[3]}`, `{"l":[3]}`},
		"object over value":            {`{"a":1}`, `{"a":{"b":1}}`, `{"a":{"b":1}}`},
		"value over object":            {`{"a":{"b":1}}`, `{"a":false}`, `{"a":false}`},
		"nothing":                      {`{"a":1}`, `{}`, `{"a":1}`},
		"numbers keep their precision": {`{}`, `{"n":9007199254740993}`, `{"n":9007199254740993}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			ctx := t.Context()
			id := w.sim.AddUser(ana())
			w.news()
			if _, err := w.users.Update(ctx, id, &user.UpdateParams{PublicMetadata: raw(tc.before), PrivateMetadata: raw(`{"kept":true}`)}); err != nil {
				t.Fatal(err)
			}
			u, err := w.users.UpdateMetadata(ctx, id, &user.UpdateMetadataParams{PublicMetadata: raw(tc.patch)})
			if err != nil {
				t.Fatal(err)
			}
			if string(u.PublicMetadata) != tc.after || string(u.PrivateMetadata) != `{"kept":true}` {
				t.Errorf("public %s, private %s; want %s", u.PublicMetadata, u.PrivateMetadata, tc.after)
			}
			var want map[string]any
			if err := json.Unmarshal([]byte(tc.after), &want); err != nil {
				t.Fatal(err)
			}
			if got := w.sim.PublicMetadata(id); !reflect.DeepEqual(got, want) {
				t.Errorf("PublicMetadata %v, want %v", got, want)
			}
			w.expectNews(t, "user.updated", "user.updated")
		})
	}
}

func TestMetadataKindsAreApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.sim.AddUser(ana())
	u, err := w.users.UpdateMetadata(t.Context(), id, &user.UpdateMetadataParams{PublicMetadata: raw(`{"a":1}`), UnsafeMetadata: raw(`{"b":1}`)})
	if err != nil {
		t.Fatal(err)
	}
	if string(u.PublicMetadata) != `{"a":1}` || string(u.UnsafeMetadata) != `{"b":1}` || string(u.PrivateMetadata) != `{}` {
		t.Errorf("public %s, unsafe %s, private %s", u.PublicMetadata, u.UnsafeMetadata, u.PrivateMetadata)
	}
	// One kind that is refused takes the others with it.
	if _, err := w.users.UpdateMetadata(t.Context(), id, &user.UpdateMetadataParams{PublicMetadata: raw(`{"a":2}`), UnsafeMetadata: raw(`3`)}); err == nil {
		t.Fatal("a number is no metadata")
	}
	if got := w.sim.PublicMetadata(id)["a"]; got != 1.0 {
		t.Errorf("half of a refused write took effect: %v", got)
	}
}
