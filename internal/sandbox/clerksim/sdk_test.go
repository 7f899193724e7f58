package clerksim_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/jwks"
	"github.com/clerk/clerk-sdk-go/v2/session"
	"github.com/clerk/clerk-sdk-go/v2/user"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
)

const key = "sk_test_for_these_tests"

// world is a simulated Clerk, the real SDK in front of it, and the webhooks it sent.
type world struct {
	sim    *clerksim.Server
	url    string
	config *clerk.ClientConfig
	users  *user.Client

	mu     sync.Mutex
	now    time.Time
	events []event
}

type event struct {
	ID, Type string
	Body     struct {
		Object     string          `json:"object"`
		Type       string          `json:"type"`
		Timestamp  int64           `json:"timestamp"`
		InstanceID string          `json:"instance_id"`
		Data       json.RawMessage `json:"data"`
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	w.sim = clerksim.New(clerksim.Options{SecretKey: key, Seed: 5, Now: w.clock, Emit: func(id, typ string, body []byte) {
		e := event{ID: id, Type: typ}
		if err := json.Unmarshal(body, &e.Body); err != nil {
			t.Errorf("webhook is not JSON: %v", err)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, e)
	}})
	server := httptest.NewServer(w.sim)
	t.Cleanup(server.Close)
	w.url = server.URL
	w.config = w.client(key)
	w.users = user.NewClient(w.config)
	return w
}

func (w *world) client(key string) *clerk.ClientConfig {
	return &clerk.ClientConfig{BackendConfig: clerk.BackendConfig{
		HTTPClient: &http.Client{Timeout: 10 * time.Second}, URL: clerk.String(w.url + "/v1"), Key: clerk.String(key)}}
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// news returns the webhooks since it was last called.
func (w *world) news() []event {
	w.mu.Lock()
	defer w.mu.Unlock()
	events := w.events
	w.events = nil
	return events
}

func (w *world) expectNews(t *testing.T, types ...string) []event {
	t.Helper()
	events := w.news()
	var got []string
	for _, e := range events {
		got = append(got, e.Type)
		if e.Body.Object != "event" || e.Body.Type != e.Type || e.Body.InstanceID != w.sim.InstanceID() || e.Body.Timestamp < 1e12 ||
			!strings.HasPrefix(e.ID, "msg_") {
			t.Errorf("malformed webhook %+v", e)
		}
	}
	if !slices.Equal(got, types) {
		t.Fatalf("webhooks %v, want %v", got, types)
	}
	return events
}

func raw(s string) *json.RawMessage {
	m := json.RawMessage(s)
	return &m
}

func ana() clerksim.UserSpec {
	return clerksim.UserSpec{FirstName: "Ana", LastName: "Silva", Emails: []clerksim.EmailSpec{
		{Address: "Ana@example.com"}, {Address: "ana.work@example.com", Verified: true}}, PrimaryEmail: 1}
}

func TestUserAsTheSDKReadsIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.sim.AddUser(ana())
	u, err := w.users.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if u.ID != id || *u.FirstName != "Ana" || *u.LastName != "Silva" || u.Username != nil || u.CreatedAt != w.clock().UnixMilli() {
		t.Errorf("user %+v", u)
	}
	if len(u.EmailAddresses) != 2 || *u.PrimaryEmailAddressID != u.EmailAddresses[1].ID ||
		u.EmailAddresses[0].EmailAddress != "ana@example.com" || u.EmailAddresses[0].Verification.Status != "unverified" ||
		u.EmailAddresses[1].Verification.Status != "verified" {
		t.Errorf("addresses %+v, primary %v", u.EmailAddresses, u.PrimaryEmailAddressID)
	}
	if string(u.PublicMetadata) != "{}" {
		t.Errorf("public metadata %s", u.PublicMetadata)
	}

	created := w.expectNews(t, "user.created")[0]
	var inEvent clerk.User
	if err := json.Unmarshal(created.Body.Data, &inEvent); err != nil {
		t.Fatal(err)
	}
	u.APIResource = clerk.APIResource{}
	if !reflect.DeepEqual(&inEvent, u) {
		t.Errorf("the webhook tells of\n%+v\nthe API of\n%+v", inEvent, *u)
	}
}

func TestUsersWithoutNameOrAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, spec := range []clerksim.UserSpec{{}, {Phone: "+15555550100"}, {Emails: ana().Emails, PrimaryEmail: -1}} {
		u, err := w.users.Get(t.Context(), w.sim.AddUser(spec))
		if err != nil {
			t.Fatal(err)
		}
		if u.FirstName != nil || u.PrimaryEmailAddressID != nil || (u.PrimaryPhoneNumberID != nil) != (spec.Phone != "") {
			t.Errorf("%+v became %+v", spec, u)
		}
		if u.EmailAddresses == nil || u.PhoneNumbers == nil {
			t.Errorf("lists are null: %+v", u)
		}
	}
}

func TestUserThroughTheAPI(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	u, err := w.users.Create(ctx, &user.CreateParams{EmailAddresses: &[]string{"Bo@example.com"}, FirstName: clerk.String("Bo"),
		SkipPasswordRequirement: clerk.Bool(true), PublicMetadata: raw(`{"plan":"none"}`)})
	if err != nil {
		t.Fatal(err)
	}
	if u.EmailAddresses[0].Verification.Status != "verified" || *u.PrimaryEmailAddressID != u.EmailAddresses[0].ID {
		t.Errorf("created %+v", u)
	}
	w.expectNews(t, "user.created")

	w.pass(time.Second)
	changed, err := w.users.Update(ctx, u.ID, &user.UpdateParams{LastName: clerk.String("Berg"), FirstName: clerk.String(""),
		ExternalID: clerk.String("ext_1"), PublicMetadata: raw(`{"a":1}`)})
	if err != nil {
		t.Fatal(err)
	}
	if changed.FirstName != nil || *changed.LastName != "Berg" || *changed.ExternalID != "ext_1" || string(changed.PublicMetadata) != `{"a":1}` ||
		changed.UpdatedAt != u.UpdatedAt+1000 || changed.CreatedAt != u.CreatedAt {
		t.Errorf("changed to %+v", changed)
	}
	w.expectNews(t, "user.updated")

	gone, err := w.users.Delete(ctx, u.ID)
	if err != nil || !gone.Deleted || gone.ID != u.ID {
		t.Fatalf("deleted: %+v, %v", gone, err)
	}
	e := w.expectNews(t, "user.deleted")[0]
	if got, want := string(e.Body.Data), `{"deleted":true,"external_id":"ext_1","id":"`+u.ID+`","object":"user"}`; got != want {
		t.Errorf("user.deleted carries %s, want %s", got, want)
	}
	expectError(t, second(w.users.Get(ctx, u.ID)), 404, "resource_not_found")
}

func TestErrorsAreClerks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	id := w.sim.AddUser(clerksim.UserSpec{Username: "taken", Emails: []clerksim.EmailSpec{{Address: "taken@example.com", Verified: true}}})
	other := w.sim.AddUser(ana())
	w.news()
	create := func(p user.CreateParams) error { return second(w.users.Create(ctx, &p)) }
	list := func(p user.ListParams) error { return second(w.users.List(ctx, &p)) }
	for name, tc := range map[string]struct {
		err    error
		status int
		code   string
	}{
		"unknown user":      {second(w.users.Get(ctx, "user_unknown")), 404, "resource_not_found"},
		"update unknown":    {second(w.users.Update(ctx, "user_unknown", &user.UpdateParams{})), 404, "resource_not_found"},
		"merge unknown":     {second(w.users.UpdateMetadata(ctx, "user_unknown", &user.UpdateMetadataParams{})), 404, "resource_not_found"},
		"delete unknown":    {second(w.users.Delete(ctx, "user_unknown")), 404, "resource_not_found"},
		"unknown route":     {second(w.users.Ban(ctx, id)), 404, "resource_not_found"},
		"wrong key":         {second(user.NewClient(w.client("sk_test_other")).Get(ctx, id)), 401, "clerk_key_invalid"},
		"nothing to be":     {create(user.CreateParams{FirstName: clerk.String("x")}), 422, "form_data_missing"},
		"address taken":     {create(user.CreateParams{EmailAddresses: &[]string{"Taken@example.com"}}), 422, "form_identifier_exists"},
		"no address":        {create(user.CreateParams{EmailAddresses: &[]string{"nobody"}}), 422, "form_param_format_invalid"},
		"username taken":    {second(w.users.Update(ctx, other, &user.UpdateParams{Username: clerk.String("TAKEN")})), 422, "form_identifier_exists"},
		"foreign primary":   {second(w.users.Update(ctx, other, &user.UpdateParams{PrimaryEmailAddressID: clerk.String("idn_x")})), 422, "form_param_invalid"},
		"metadata no map":   {second(w.users.UpdateMetadata(ctx, id, &user.UpdateMetadataParams{PublicMetadata: raw(`[1]`)})), 422, "form_param_type_invalid"},
		"limit too high":    {list(user.ListParams{ListParams: clerk.ListParams{Limit: clerk.Int64(501)}}), 422, "form_param_value_invalid"},
		"limit zero":        {list(user.ListParams{ListParams: clerk.ListParams{Limit: clerk.Int64(0)}}), 422, "form_param_value_invalid"},
		"unknown order":     {list(user.ListParams{OrderBy: clerk.String("height")}), 422, "form_param_value_invalid"},
		"metadata too long": {second(w.users.UpdateMetadata(ctx, id, &user.UpdateMetadataParams{PublicMetadata: raw(`{"x":"` + strings.Repeat("x", 8<<10) + `"}`)})), 422, "form_param_exceeds_allowed_size"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			expectError(t, tc.err, tc.status, tc.code)
		})
	}
	w.expectNews(t) // none of them changed anything
}

func second[T any](_ T, err error) error { return err }

func expectError(t *testing.T, err error, status int, code string) {
	t.Helper()
	var e *clerk.APIErrorResponse
	if !errors.As(err, &e) {
		t.Fatalf("got %v, which is no error of Clerk's", err)
	}
	if e.Response.StatusCode != status || len(e.Errors) != 1 || e.Errors[0].Code != code || e.Errors[0].LongMessage == "" || e.TraceID == "" {
		t.Fatalf("got %d %+v, want %d %s", e.Response.StatusCode, e.Errors, status, code)
	}
}

func TestListFiltersOrdersAndPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	start := w.clock()
	var ids []string
	for k := range 25 {
		ids = append(ids, w.sim.AddUser(clerksim.UserSpec{FirstName: fmt.Sprintf("Name%02d", k), ExternalID: fmt.Sprintf("ext_%d", k),
			Emails: []clerksim.EmailSpec{{Address: fmt.Sprintf("u%02d@example.com", k), Verified: true}}, LastActiveAt: w.clock()}))
		w.pass(time.Minute)
	}
	if err := w.sim.UpdateUser(ids[3], clerksim.UserChange{FirstName: clerk.String("Zoe")}); err != nil {
		t.Fatal(err)
	}
	reversed := slices.Clone(ids)
	slices.Reverse(reversed)
	at := func(k int) *int64 { return clerk.Int64(start.Add(time.Duration(k) * time.Minute).UnixMilli()) }
	page := func(limit, offset int64) clerk.ListParams { return clerk.ListParams{Limit: &limit, Offset: &offset} }
	for name, tc := range map[string]struct {
		params user.ListParams
		want   []string
		total  int64
	}{
		"default":      {user.ListParams{}, reversed[:10], 25},
		"oldest first": {user.ListParams{OrderBy: clerk.String("+created_at"), ListParams: page(500, 0)}, ids, 25},
		"a page":       {user.ListParams{OrderBy: clerk.String("created_at"), ListParams: page(10, 20)}, ids[20:], 25},
		"beyond":       {user.ListParams{ListParams: page(10, 30)}, nil, 25},
		"updated last": {user.ListParams{OrderBy: clerk.String("-updated_at"), ListParams: page(2, 0)}, []string{ids[3], ids[24]}, 25},
		"by address":   {user.ListParams{EmailAddresses: []string{"U02@example.com", "u04@example.com"}}, []string{ids[4], ids[2]}, 2},
		"by id":        {user.ListParams{UserIDs: []string{ids[7], "user_none"}}, ids[7:8], 1},
		"but not":      {user.ListParams{UserIDs: []string{"-" + ids[24]}, ListParams: page(1, 0)}, ids[23:24], 24},
		"external id":  {user.ListParams{ExternalIDs: []string{"ext_9"}}, ids[9:10], 1},
		"query":        {user.ListParams{Query: clerk.String("name07")}, ids[7:8], 1},
		"part":         {user.ListParams{EmailAddressQuery: clerk.String("u1"), ListParams: page(1, 0)}, ids[19:20], 10},
		"name":         {user.ListParams{NameQuery: clerk.String("zoe")}, ids[3:4], 1},
		"created":      {user.ListParams{CreatedAtAfter: at(5), CreatedAtBefore: at(8)}, []string{ids[7], ids[6]}, 2},
		"active":       {user.ListParams{LastActiveAtAfter: at(22)}, []string{ids[24], ids[23]}, 2},
		"banned":       {user.ListParams{Banned: clerk.Bool(true)}, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			list, err := w.users.List(ctx, &tc.params)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, u := range list.Users {
				got = append(got, u.ID)
			}
			if !slices.Equal(got, tc.want) || list.TotalCount != tc.total {
				t.Fatalf("got %v of %d, want %v of %d", got, list.TotalCount, tc.want, tc.total)
			}
		})
	}
}

func TestRateLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	id, other := w.sim.AddUser(ana()), w.sim.AddUser(clerksim.UserSpec{})
	w.sim.SetRateLimit(20, 3)
	write := func(id string) error {
		return second(w.users.UpdateMetadata(ctx, id, &user.UpdateMetadataParams{PublicMetadata: raw(`{}`)}))
	}
	for range 3 {
		if err := write(id); err != nil {
			t.Fatal(err)
		}
	}
	w.pass(2500 * time.Millisecond)
	err := write(id)
	expectError(t, err, 429, "too_many_requests")
	var e *clerk.APIErrorResponse
	if errors.As(err, &e); e.Response.Header.Get("Retry-After") != "8" {
		t.Errorf("Retry-After %q, want 8", e.Response.Header.Get("Retry-After"))
	}
	if err := write(other); err != nil {
		t.Fatalf("the limit of one user holds for another: %v", err)
	}
	for range 16 {
		if _, err := w.users.Get(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	expectError(t, second(w.users.Get(ctx, id)), 429, "too_many_requests")
	if _, err := jwks.NewClient(w.config).Get(ctx, &jwks.GetParams{}); err != nil {
		t.Fatalf("keys are limited: %v", err)
	}
	w.pass(8 * time.Second)
	if err := write(id); err != nil {
		t.Fatalf("in the next window: %v", err)
	}
}

func TestSessions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	id := w.sim.AddUser(ana())
	w.sim.SessionToken(clerksim.TokenSpec{UserID: id})
	sessions := session.NewClient(w.config)
	list, err := sessions.List(ctx, &session.ListParams{UserID: &id, Status: clerk.String("active")})
	if err != nil || list.TotalCount != 1 {
		t.Fatalf("sessions %+v, %v", list, err)
	}
	revoked, err := sessions.Revoke(ctx, &session.RevokeParams{ID: list.Sessions[0].ID})
	if err != nil || revoked.Status != "revoked" {
		t.Fatalf("revoked %+v, %v", revoked, err)
	}
	expectError(t, second(sessions.Revoke(ctx, &session.RevokeParams{ID: "sess_unknown"})), 404, "resource_not_found")
}

func TestInstance(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, tc := range []struct{ secret, want string }{{key, "development"}, {"sk_live_x", "production"}} {
		w.sim.SetKey(tc.secret)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/v1/instance", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+tc.secret)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			ID          string `json:"id"`
			Environment string `json:"environment_type"`
		}
		err = json.NewDecoder(res.Body).Decode(&got)
		res.Body.Close()
		if err != nil || got.ID != w.sim.InstanceID() || got.Environment != tc.want {
			t.Errorf("with key %s: %+v, %v", tc.secret, got, err)
		}
	}
	expectError(t, second(w.users.Get(t.Context(), "user_x")), 401, "clerk_key_invalid")
}
