package clerkevent_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/clerkevent"
)

const ada = "user_2adaLovelace"

func TestParse(t *testing.T) {
	t.Parallel()
	noon := time.Date(2024, 5, 28, 8, 0, 0, 0, time.UTC)
	tests := []struct {
		name, body string
		want       clerkevent.Event
		entity     account.Entity
		job        account.Job
	}{
		{
			"created, with a phone only",
			`{"type":"user.created","object":"event","instance_id":"ins_2abc","timestamp":1716883200000,"event_attributes":{"http_request":{"client_ip":"192.0.2.1"}},
			  "data":{"id":"user_2adaLovelace","object":"user","email_addresses":[],"first_name":null,"phone_numbers":[{"id":"idn_1","phone_number":"+15555550100"}]}}`,
			clerkevent.Event{Type: "user.created", InstanceID: "ins_2abc", UserID: ada, Timestamp: noon}, "user/" + ada, account.JobOnboard,
		},
		{
			"updated, in seconds",
			`{"type":"user.updated","object":"event","instance_id":"ins_2abc","timestamp":1716883200,"data":{"id":"user_2adaLovelace","object":"user"}}`,
			clerkevent.Event{Type: "user.updated", InstanceID: "ins_2abc", UserID: ada, Timestamp: noon, Shows: &account.ListedUser{User: account.User{ID: ada}}}, "user/" + ada, account.JobSync,
		},
		{
			"updated, with all that concerns us",
			`{"type":"user.updated","data":{"id":"user_2adaLovelace","object":"user","first_name":"Ada","last_name":"Lovelace","username":null,"created_at":1716883200000,"updated_at":1716883200000,
			  "primary_email_address_id":"idn_2","email_addresses":[{"id":"idn_1","email_address":"old@example.com"},{"id":"idn_2","email_address":"ada@example.com","verification":{"status":"verified"}}],
			  "public_metadata":{"theme":"dark","stripe":{"version":7}},"unsafe_metadata":{"stripe":"cus_1"}}}`,
			clerkevent.Event{Type: "user.updated", UserID: ada, Shows: &account.ListedUser{
				User: account.User{ID: ada, FirstName: "Ada", LastName: "Lovelace", Email: "ada@example.com", EmailVerified: true, CustomerHint: "cus_1", CreatedAt: noon, UpdatedAt: noon},
				Held: json.RawMessage(`{"version":7}`)}}, "user/" + ada, account.JobSync,
		},
		{
			"updated, with a user who is none", `{"type":"user.updated","data":{"id":"user_2adaLovelace","first_name":7}}`,
			clerkevent.Event{Type: "user.updated", UserID: ada}, "user/" + ada, account.JobSync,
		},
		{
			"updated, with metadata that are none", `{"type":"user.updated","data":{"id":"user_2adaLovelace","public_metadata":[]}}`,
			clerkevent.Event{Type: "user.updated", UserID: ada}, "user/" + ada, account.JobSync,
		},
		{
			"deleted",
			`{"type":"user.deleted","object":"event","data":{"deleted":true,"external_id":"x","id":"user_2adaLovelace","object":"user"}}`,
			clerkevent.Event{Type: "user.deleted", UserID: ada}, "user/" + ada, account.JobOffboard,
		},
		{
			"another type, even of a user's id",
			`{"type":"session.created","instance_id":"ins_2abc","data":{"id":"user_2adaLovelace"}}`,
			clerkevent.Event{Type: "session.created", InstanceID: "ins_2abc"}, "", 0,
		},
		{
			"a type in two words", `{"type":"organizationMembership.created","data":{}}`,
			clerkevent.Event{Type: "organizationMembership.created"}, "", 0,
		},
		{
			"an id that would reach another address", `{"type":"user.updated","data":{"id":"user_1/../../x"}}`,
			clerkevent.Event{Type: "user.updated"}, "", account.JobSync,
		},
		{
			"deleted without an id", `{"type":"user.deleted","data":{"deleted":true}}`,
			clerkevent.Event{Type: "user.deleted"}, "", account.JobOffboard,
		},
		{
			"fields of other types", `{"type":"user.updated","instance_id":7,"timestamp":"soon","data":"x"}`,
			clerkevent.Event{Type: "user.updated"}, "", account.JobSync,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := clerkevent.Parse(test.body)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
			if got.Entity() != test.entity || got.Job() != test.job {
				t.Errorf("entity %q, job %d; want %q, %d", got.Entity(), got.Job(), test.entity, test.job)
			}
		})
	}
}

func TestParseRefusesWhatIsNoEvent(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "null", "[]", "{", "{}", `{"type":""}`, `{"type":7}`, `{"type":"ada@example.com"}`, `{"type":"user.created"} x`} {
		_, err := clerkevent.Parse(body)
		if !errors.Is(err, clerkevent.ErrNotAnEvent) {
			t.Errorf("Parse(%s): error is %v", body, err)
		}
		if err != nil && strings.Contains(err.Error(), "@") {
			t.Errorf("the error shows the body: %v", err)
		}
	}
}

func TestHandled(t *testing.T) {
	t.Parallel()
	for _, eventType := range clerkevent.HandledTypes() {
		if !clerkevent.Handled(eventType) {
			t.Errorf("%s is subscribed to and not handled", eventType)
		}
	}
	for _, eventType := range []string{"", "user", "user.createdx", "session.created", "email.created"} {
		if clerkevent.Handled(eventType) {
			t.Errorf("%s is handled", eventType)
		}
	}
}

// The address that an event of a user shows to be verified is the primary one, and nothing else is.
func TestVerifiedAddress(t *testing.T) {
	t.Parallel()
	const user = `"data":{"id":"user_2adaLovelace","primary_email_address_id":"idn_2","email_addresses":[
		{"id":"idn_1","email_address":"old@example.com","verification":{"status":"verified"}},{"id":"idn_2","email_address":"ada@example.com","verification":{"status":"%s"}}]}}`
	for name, c := range map[string]struct{ body, want string }{
		"who signs up":                     {`{"type":"user.created",` + fmt.Sprintf(user, "verified"), "ada@example.com"},
		"who changes":                      {`{"type":"user.updated",` + fmt.Sprintf(user, "verified"), "ada@example.com"},
		"a primary one that is not":        {`{"type":"user.updated",` + fmt.Sprintf(user, "unverified"), ""},
		"who is deleted":                   {`{"type":"user.deleted",` + fmt.Sprintf(user, "verified"), ""},
		"what is no user":                  {`{"type":"session.created",` + fmt.Sprintf(user, "verified"), ""},
		"a user who is none":               {`{"type":"user.created","data":{"id":7}}`, ""},
		"a payload that was not kept":      {"", ""},
		"a user without a primary address": {`{"type":"user.created","data":{"id":"user_2adaLovelace","email_addresses":[{"id":"idn_1","email_address":"old@example.com","verification":{"status":"verified"}}]}}`, ""},
	} {
		if got := clerkevent.VerifiedAddress(c.body); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
