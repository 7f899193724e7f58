package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/nepfy/clerk-stripe-sync/internal/httpapi"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
)

// Requests made from the description, as it wants them and in many ways as it does not, by people
// who may and who may not: none is answered 500, and no answer is one that is not described.
//
// FUZZ_REQUESTS says how many, FUZZ_SEED makes the same again.
func TestFuzz(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	if text := os.Getenv("FUZZ_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal("FUZZ_SEED must be a number")
		}
	}
	requests := numberFrom(t, "FUZZ_REQUESTS", 1000)
	t.Logf("FUZZ_SEED=%d FUZZ_REQUESTS=%d go test -run TestFuzz ./test/api", seed, requests)
	w := start(t, map[string]string{"COMMAND_WAIT": "300ms", "STRIPE_RATE": "80", "CLERK_RATE": "80"})
	f := newFuzzer(t, w)
	var mu sync.Mutex
	answers := map[string]int{}
	const fuzzers, rounds = 8, 10
	missing := func() (statuses []string) {
		for _, status := range []string{"200", "400", "401", "403", "404", "409"} {
			if !slices.ContainsFunc(slices.Collect(maps.Keys(answers)), func(key string) bool { return strings.HasPrefix(key, status) }) {
				statuses = append(statuses, status)
			}
		}
		return statuses
	}
	// Some answers are rare: which of the requests meet something that they conflict with is a matter
	// of luck.
	for round := range rounds {
		if round > 0 && len(missing()) == 0 {
			break
		}
		var asking sync.WaitGroup
		for n := range fuzzers {
			asking.Go(func() {
				dice := &dice{rand.New(rand.NewPCG(seed, uint64(round*fuzzers+n)))}
				for range requests / fuzzers {
					r := f.ask(dice)
					mu.Lock()
					answers[r]++
					mu.Unlock()
				}
			})
		}
		asking.Wait()
	}
	total := 0
	for _, key := range slices.Sorted(maps.Keys(answers)) {
		t.Logf("%6d %s", answers[key], key)
		total += answers[key]
	}
	for _, status := range missing() {
		t.Errorf("none of %d requests was answered %s: they are not as different as they should be", total, status)
	}
}

// fuzzer makes requests from the description.
type fuzzer struct {
	w          *world
	operations []operation
	people     []map[string]string
	ids        []string
}

// operation is one method of one path of the description.
type operation struct {
	method, path string
	Parameters   []parameter `yaml:"parameters"`
	RequestBody  struct {
		Content map[string]struct {
			Schema schema `yaml:"schema"`
		} `yaml:"content"`
	} `yaml:"requestBody"`
}

type parameter struct {
	Ref      string `yaml:"$ref"`
	Name     string `yaml:"name"`
	In       string `yaml:"in"`
	Required bool   `yaml:"required"`
	Schema   schema `yaml:"schema"`
}

type schema struct {
	Ref        string            `yaml:"$ref"`
	Type       any               `yaml:"type"`
	Enum       []string          `yaml:"enum"`
	Properties map[string]schema `yaml:"properties"`
	Required   []string          `yaml:"required"`
}

func newFuzzer(t *testing.T, w *world) *fuzzer {
	t.Helper()
	var document struct {
		Paths      map[string]map[string]operation `yaml:"paths"`
		Components struct {
			Parameters map[string]parameter `yaml:"parameters"`
			Schemas    map[string]schema    `yaml:"schemas"`
		} `yaml:"components"`
	}
	if err := yaml.Unmarshal(httpapi.Description(), &document); err != nil {
		t.Fatal(err)
	}
	f := &fuzzer{w: w}
	for _, path := range slices.Sorted(maps.Keys(document.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(document.Paths[path])) {
			o := document.Paths[path][method]
			o.method, o.path = strings.ToUpper(method), path
			for i, p := range o.Parameters {
				if name, ok := strings.CutPrefix(p.Ref, "#/components/parameters/"); ok {
					o.Parameters[i] = document.Components.Parameters[name]
				}
			}
			for kind, content := range o.RequestBody.Content {
				if name, ok := strings.CutPrefix(content.Schema.Ref, "#/components/schemas/"); ok {
					content.Schema = document.Components.Schemas[name]
					o.RequestBody.Content[kind] = content
				}
			}
			f.operations = append(f.operations, o)
		}
	}
	if len(f.operations) < 15 {
		t.Fatalf("only %d operations were read from the description", len(f.operations))
	}
	ada, eve := w.subscriber("Ada"), w.subscriber("Eve")
	session := ada.opensQuietly()
	for _, spec := range []clerksim.TokenSpec{
		{UserID: ada.user}, {UserID: ada.user}, {UserID: eve.user}, {UserID: adminID}, {UserID: "user_newcomer"}, {UserID: ada.user, Pending: true},
	} {
		spec.AZP, spec.TTL = party, 12*60*60*1e9
		f.people = append(f.people, map[string]string{"Authorization": "Bearer " + w.Sandbox.Clerk.SessionToken(spec)})
	}
	f.people = append(f.people, nil, map[string]string{"Authorization": "Bearer nonsense"}, map[string]string{"Cookie": "__session=nonsense"})
	f.ids = []string{ada.subscription, ada.subscription, eve.subscription, ada.user, eve.user, ada.customer, w.price, session, "sub_none", "op_none",
		"user_none", "", "..", "../x", "%", "a b", "☃", "\x00", "evt_\xff", "null", strings.Repeat("x", 300), party, "https://evil.example", "period_end", "now"}
	return f
}

// opensQuietly opens a checkout of another product, which may be bought beside what the user has.
func (p *person) opensQuietly() string {
	p.w.t.Helper()
	return p.opens(p.w.addPrice(p.besideProduct("Extra"), 300))
}

// dice draws.
type dice struct{ *rand.Rand }

func (d *dice) one(in int) bool { return d.IntN(in) == 0 }

func draw[T any](d *dice, from []T) T { return from[d.IntN(len(from))] }

// ask makes one request and answers how it was answered, in short.
func (f *fuzzer) ask(d *dice) string {
	o := draw(d, f.operations)
	header := maps.Clone(draw(d, f.people))
	if header == nil {
		header = map[string]string{}
	}
	path, query := o.path, url.Values{}
	for _, p := range o.Parameters {
		value := f.text(d, p.Schema)
		if p.In == "path" && strings.Contains(path, "/subscriptions/") && !d.one(3) {
			value = f.ids[d.IntN(3)]
		}
		switch {
		case p.In == "path":
			path = strings.ReplaceAll(path, "{"+p.Name+"}", url.PathEscape(value))
		case d.one(2): // left out
		case p.In == "query":
			query.Set(p.Name, value)
		case p.In == "header":
			if value = strings.Map(printable, value); value != "" {
				header[p.Name] = value
			}
		}
	}
	if d.one(10) {
		query.Set("unknown", "1")
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	body := ""
	if content, ok := o.RequestBody.Content["application/json"]; ok {
		body = f.body(d, content.Schema)
	} else if d.one(4) {
		body = draw(d, []string{"{}", "[]", "{", `{"at":"now"}`})
	}
	if o.method == http.MethodGet || o.method == http.MethodHead {
		body = ""
	}
	r, err := f.w.try(f.w.t.Context(), o.method, path, body, header)
	if err != nil {
		f.w.t.Errorf("%s %s %s: %v", o.method, path, body, err)
		return "broken"
	}
	if r.status == http.StatusInternalServerError || r.code() == "not_accepted" && o.method == http.MethodGet {
		f.w.t.Errorf("%s %s %s was answered %s", o.method, path, body, r)
	}
	return fmt.Sprintf("%d %-6s %s %s", r.status, o.method, o.path, r.code())
}

// printable keeps what a header can hold.
func printable(r rune) rune {
	if r < ' ' || r > '~' {
		return -1
	}
	return r
}

// text is a value for a parameter.
func (f *fuzzer) text(d *dice, s schema) string {
	switch s.Type {
	case "integer":
		return draw(d, []string{"1", "2", "50", "200", "201", "0", "-1", "9223372036854775807", "99999999999999999999", "x", "1e3"})
	case "boolean":
		return draw(d, []string{"true", "false", "1", "yes"})
	default:
		return draw(d, f.ids)
	}
}

// body is a body that the schema wants, or nearly.
func (f *fuzzer) body(d *dice, s schema) string {
	if d.one(12) {
		return draw(d, []string{"", "null", "[]", "{", `"text"`, "7", "{}{}", "\x00", strings.Repeat("[", 5000), `{"a":` + strings.Repeat(`{"a":`, 500)})
	}
	document := map[string]any{}
	for name, property := range s.Properties {
		if !slices.Contains(s.Required, name) && d.one(2) || d.one(8) {
			continue
		}
		document[name] = f.value(d, name, property)
	}
	if d.one(8) {
		document[draw(d, []string{"unknown", "Action", "__proto__"})] = 1
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(d.one(2))
	if err := encoder.Encode(document); err != nil {
		return "{}"
	}
	return b.String()
}

func (f *fuzzer) value(d *dice, name string, s schema) any {
	switch {
	case d.one(10):
		return draw(d, []any{nil, true, 7, -1, 1.5, "", []any{}, map[string]any{"a": 1}, strings.Repeat("y", 3000)})
	case len(s.Enum) > 0 && !d.one(8):
		return draw(d, s.Enum)
	case s.Type == "integer":
		return draw(d, []any{1, 2, 10000, 10001, 0, -1})
	case strings.HasSuffix(name, "Url") && !d.one(4):
		return party + "/back"
	case name == "priceId" && !d.one(4):
		return f.w.price
	case strings.Contains(strings.ToLower(name), "subscriptionid") && !d.one(3):
		return f.ids[d.IntN(3)]
	default:
		return draw(d, f.ids)
	}
}
