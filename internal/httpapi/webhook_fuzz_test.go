package httpapi_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
	"unicode/utf8"
)

// FuzzWebhooks sends what it likes to both doors, signed by us or not. What must hold: an answer
// that is one of ours; nothing handed over unless the signature is good; all that is well-formed
// taken.
func FuzzWebhooks(f *testing.F) {
	f.Add(true, "msg_1", int64(0), "", []byte(`{"id":"evt_1","type":"invoice.paid"}`))
	f.Add(true, "msg_1", int64(301), "", []byte(`{"id":"evt_1"}`))
	f.Add(true, "msg 1", int64(-301), "", []byte(` [{"id":"evt_1"}]`))
	f.Add(true, "", int64(0), "", []byte("{\"id\":\"evt_\xff\"}"))
	f.Add(false, "msg_1", int64(0), "t=1,v1=00", []byte(`{"id":"evt_1"}`))
	f.Add(false, "msg_1", int64(0), "v1,AAAA v1, v2,x", []byte(`{}`))
	f.Add(false, "msg_1", int64(0), "t=99999999999999999999,v1=,,=", []byte(``))
	f.Fuzz(func(t *testing.T, sign bool, id string, age int64, signature string, body []byte) {
		e := newEdge(t, edgeOptions{})
		at := time.Now().Add(-time.Duration(age%1000) * time.Second)
		for _, s := range signers() {
			header := s.sign(s.good, id, at, body)
			if !sign {
				for _, name := range []string{"Svix-Signature", "Stripe-Signature"} {
					if header.Get(name) != "" {
						header.Set(name, signature)
					}
				}
			}
			r := httptest.NewRequest(http.MethodPost, s.path(), bytes.NewReader(body))
			r.Header = header
			w := httptest.NewRecorder()
			before := len(e.intake.taken())
			e.router.ServeHTTP(w, r)
			taken := len(e.intake.taken()) - before

			switch {
			case w.Code == http.StatusOK:
				if taken != 1 || !sign || !json.Valid(body) || !utf8.Valid(body) || age%1000 > 301 || age%1000 < -301 {
					t.Errorf("%s took what it should not: %d deliveries, %q", s.source, taken, body)
				}
			case taken != 0:
				t.Errorf("%s handed over what it answered %d", s.source, w.Code)
			case w.Code != http.StatusBadRequest && w.Code != http.StatusRequestEntityTooLarge:
				t.Errorf("%s answered %d", s.source, w.Code)
			case wellFormed(id, age%1000, body) && sign:
				t.Errorf("%s refused a good delivery: %s", s.source, w.Body)
			}
			if !json.Valid(w.Body.Bytes()) {
				t.Errorf("%s answered %q", s.source, w.Body)
			}
		}
	})
}

// wellFormed reports whether a delivery that is signed must be taken at both doors.
func wellFormed(id string, age int64, body []byte) bool {
	var event map[string]any // its id stands once: of two it matters to nobody which counts
	simple := func(text string) bool {
		for _, r := range text {
			if (r < '0' || r > '9') && (r < 'a' || r > 'z') && r != '_' {
				return false
			}
		}
		return text != "" && len(text) < 256
	}
	if !utf8.Valid(body) || !bytes.HasPrefix(body, []byte("{")) || json.Unmarshal(body, &event) != nil || bytes.Count(body, []byte(`"id"`)) != 1 {
		return false
	}
	eventID, _ := event["id"].(string)
	return len(eventID) > 4 && eventID[:4] == "evt_" && simple(eventID) && simple(id) && age > -299 && age < 299
}
