package refusals_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// Deliveries as the providers make them, changed at random, signed and not: each is answered as it
// should be, an unsigned one leaves no row, a signed one is stored once, no program falls over it,
// and nobody's subscription changes, since what an event says is read again.
//
// FUZZ_FOR says how long, FUZZ_SEED makes the same again.
func TestFuzzedDeliveries(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	if text := os.Getenv("FUZZ_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal("FUZZ_SEED must be a number")
		}
	}
	length := 3 * time.Second
	if text := os.Getenv("FUZZ_FOR"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal("FUZZ_FOR must be a duration such as 1m")
		}
	}
	t.Logf("FUZZ_SEED=%d FUZZ_FOR=%s go test -run TestFuzzedDeliveries ./test/refusals", seed, length)

	w := newWorld(t, system.Options{Environ: map[string]string{"LOG_LEVEL": "error"}})
	goner := w.signUp(clerksim.UserSpec{FirstName: "Goner", Emails: []clerksim.EmailSpec{{Address: "goner@example.com", Verified: true}}})
	if err := w.Sandbox.Clerk.DeleteUser(goner); err != nil {
		t.Fatal(err)
	}
	w.Rest()
	f := &fuzzer{world: w, signers: w.signers(), samples: w.samples(), answers: map[string]int{}, until: time.Now().Add(length)}
	if len(f.samples) < 10 {
		t.Fatalf("there are only %d deliveries to begin with", len(f.samples))
	}
	var posting sync.WaitGroup
	for n := range uint64(4) {
		posting.Go(func() { f.run(rand.New(rand.NewPCG(seed, n)), n) })
	}
	posting.Wait()

	total := 0
	for _, answer := range slices.Sorted(maps.Keys(f.answers)) {
		t.Logf("%7d %s", f.answers[answer], answer)
		total += f.answers[answer]
	}
	for _, answer := range []string{"200 stored", "200 ignored", "200 known", "400 signature_invalid", "400 body_not_json"} {
		if f.answers[answer] == 0 {
			t.Errorf("none of %d deliveries was answered %s: they are not as different as they should be", total, answer)
		}
	}
	w.Rest()
	w.Agree(w.user, policy())
	w.hasAccess(w.user)
	// What was made up was not taken for what the providers say.
	if n := w.Count(`SELECT count(*) FROM subscriptions`); n != 1 {
		t.Errorf("there are %d subscriptions", n)
	}
}

// sample is a delivery as a provider made it.
type sample struct {
	source string
	body   []byte
}

// samples are all deliveries that were taken.
func (w *world) samples() (list []sample) {
	w.t.Helper()
	var raw []byte
	if err := w.Row(w.t.Context(), `SELECT json_agg(json_build_array(source, payload) ORDER BY seq) FROM webhook_events WHERE payload IS NOT NULL`, nil, &raw); err != nil {
		w.t.Fatal(err)
	}
	var rows [][2]string
	if err := json.Unmarshal(raw, &rows); err != nil {
		w.t.Fatal(err)
	}
	for _, row := range rows {
		list = append(list, sample{row[0], []byte(row[1])})
	}
	return list
}

type fuzzer struct {
	*world
	signers signers
	samples []sample
	until   time.Time

	mu      sync.Mutex
	answers map[string]int
}

// run posts until it is time to end.
func (f *fuzzer) run(d *rand.Rand, lane uint64) {
	client := &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	for n := 0; time.Now().Before(f.until) && f.t.Context().Err() == nil; n++ {
		id := fmt.Sprintf("%d_%d", lane, n)
		if d.IntN(10) == 0 && n > 0 {
			id = fmt.Sprintf("%d_%d", lane, d.IntN(n)) // one that was there before
		}
		f.post(d, client, id)
	}
}

// post makes one delivery, and looks at what came of it.
func (f *fuzzer) post(d *rand.Rand, client *http.Client, id string) {
	s := f.samples[d.IntN(len(f.samples))]
	path, sign := clerkPath, f.signers.clerk
	message := delivery.Message{ID: "msg_fuzz" + id}
	if s.source == "stripe" {
		path, sign, message.ID = stripePath, f.signers.stripe, "evt_fuzz"+id
	}
	message.Body = mutated(d, s, message.ID)
	if s.source == "stripe" {
		// The id is in the body, and may be another one by now.
		var event struct {
			ID string `json:"id"`
		}
		if json.Unmarshal(message.Body, &event) == nil && strings.HasPrefix(event.ID, "evt_") {
			message.ID = event.ID
		}
	}
	header := sign(message.ID, time.Now(), message.Body)
	signed := d.IntN(4) > 0
	if !signed {
		unsign(d, header)
	}
	rows := func() int {
		return f.Count(`SELECT count(*) FROM webhook_events WHERE source = $1 AND event_id = $2`, s.source, message.ID)
	}
	before := rows()
	request, err := http.NewRequestWithContext(f.t.Context(), http.MethodPost, f.URL()+path, bytes.NewReader(message.Body))
	if err != nil {
		f.t.Error(err)
		return
	}
	request.Header = header
	response, err := client.Do(request)
	if err != nil {
		f.t.Errorf("%s: %v: %q", path, err, message.Body)
		return
	}
	defer func() { _ = response.Body.Close() }()
	var p problem
	if err := json.NewDecoder(response.Body).Decode(&p); err != nil {
		f.t.Errorf("%s answered %d, which is not JSON: %q", path, response.StatusCode, message.Body)
	}
	stored := rows() - before
	switch {
	case response.StatusCode == http.StatusOK && (!signed || stored != map[string]int{"stored": 1, "unchanged": 1, "ignored": 1, "known": 0}[p.Result]):
		f.t.Errorf("%s, signed %t, was answered %q and left %d rows: %q", path, signed, p.Result, stored, message.Body)
	case response.StatusCode == http.StatusBadRequest && stored != 0:
		f.t.Errorf("%s was refused with %q and left a row: %q", path, p.Code, message.Body)
	case response.StatusCode != http.StatusOK && response.StatusCode != http.StatusBadRequest:
		f.t.Errorf("%s was answered %d %q: %q", path, response.StatusCode, p.Code, message.Body)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[fmt.Sprint(response.StatusCode, " ", p.Code, p.Result)]++
}

// unsign spoils a signature.
func unsign(d *rand.Rand, header http.Header) {
	for _, name := range []string{"Svix-Signature", "Stripe-Signature"} {
		value := header.Get(name)
		if value == "" {
			continue
		}
		switch d.IntN(4) {
		case 0:
			header.Del(name)
		case 1:
			header.Set(name, strings.ToUpper(value)+"0")
		case 2:
			header.Set(name, value[:len(value)/2])
		default:
			header.Set(name, "t=1,v1=,v1,"+value[:3])
		}
	}
}

// mutated is a delivery's body with something else in a few places. Most keep their id, which has
// to be the delivery's own.
func mutated(d *rand.Rand, s sample, id string) []byte {
	var document any
	if err := json.Unmarshal(s.body, &document); err != nil {
		panic(err) // it was taken as JSON before
	}
	for range d.IntN(4) {
		document = mutate(d, document)
	}
	if fields, ok := document.(map[string]any); ok && s.source == "stripe" && d.IntN(10) > 0 {
		fields["id"] = id
	}
	body, err := json.Marshal(document)
	if err != nil {
		panic(err) // it was made of JSON
	}
	switch d.IntN(20) {
	case 0:
		body = body[:d.IntN(len(body))]
	case 1:
		body[d.IntN(len(body))] = byte(d.IntN(256))
	case 2:
		body = append(body, body...)
	case 3:
		body = bytes.ReplaceAll(body, []byte(`"object"`), []byte(`"object":null,"object"`))
	}
	return body
}

// mutate changes one place of a document.
func mutate(d *rand.Rand, node any) any {
	switch node := node.(type) {
	case map[string]any:
		if len(node) == 0 || d.IntN(12) == 0 {
			return replacement(d)
		}
		key := slices.Sorted(maps.Keys(node))[d.IntN(len(node))]
		switch d.IntN(10) {
		case 0:
			delete(node, key)
		case 1:
			node[fmt.Sprint(replacement(d))] = node[key]
		default:
			node[key] = mutate(d, node[key])
		}
		return node
	case []any:
		if len(node) == 0 || d.IntN(6) == 0 {
			return replacement(d)
		}
		at := d.IntN(len(node))
		if d.IntN(6) == 0 {
			return append(node, node[at])
		}
		node[at] = mutate(d, node[at])
		return node
	default:
		return replacement(d)
	}
}

// replacement is something that may not have been thought of.
func replacement(d *rand.Rand) any {
	deep := any("deep")
	for range 200 {
		deep = []any{deep}
	}
	things := []any{
		nil, true, false, 0, -1, 1e15, 1.5, json.Number("1e400"), json.Number("-9223372036854775809"), "", " ", "\x00", "a\x00b", "\u2028", "☃", "\ufffd",
		strings.Repeat("x", 300), strings.Repeat("y", 70_000), "cus_1", "cus_", "user_2nobody", "sub_1", "evt_", "../..", "'; DROP TABLE webhook_events; --",
		"customer.subscription.updated", "checkout.session.completed", "charge.refunded", "invoice.paid", "user.updated", "price.updated", "customer.deleted",
		[]any{}, map[string]any{}, []any{nil}, map[string]any{"id": "cus_1"}, map[string]any{"clerk_user_id": "user_2somebodyelse"}, deep,
	}
	return things[d.IntN(len(things))]
}
