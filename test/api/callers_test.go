package api_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// issuer is that of the sandbox's session tokens.
const issuer = "https://sandbox.clerk.accounts.dev"

// tokens are all ways in which a token can be wrong, and a few in which it is right.
func tokens(w *world, user string) map[string]struct{ token, why string } {
	clerk := w.Sandbox.Clerk
	stranger := clerksim.New(clerksim.Options{Seed: 99})
	spec := func(change func(*clerksim.TokenSpec)) string {
		s := clerksim.TokenSpec{UserID: user, AZP: party}
		if change != nil {
			change(&s)
		}
		return clerk.SessionToken(s)
	}
	good := spec(nil)
	parts := strings.Split(good, ".")
	return map[string]struct{ token, why string }{
		"good":                   {good, ""},
		"of another key":         {stranger.SessionToken(clerksim.TokenSpec{UserID: user, AZP: party}), "signature_invalid key_unknown"},
		"of a made-up key":       {spec(func(s *clerksim.TokenSpec) { s.KeyID = "ins_madeup" }), "key_unknown -"},
		"expired":                {spec(func(s *clerksim.TokenSpec) { s.TTL = -time.Minute }), "expired"},
		"without an expiry":      {spec(func(s *clerksim.TokenSpec) { s.NoExp = true }), "no_expiry"},
		"that lives for a week":  {spec(func(s *clerksim.TokenSpec) { s.TTL = 7 * 24 * time.Hour }), "lives_too_long"},
		"without a session":      {spec(func(s *clerksim.TokenSpec) { s.NoSession = true }), "no_session"},
		"of a pending session":   {spec(func(s *clerksim.TokenSpec) { s.Pending = true }), "session_pending"},
		"of another issuer":      {spec(func(s *clerksim.TokenSpec) { s.Issuer = "https://evil.example/.clerk.accounts" }), "issuer_invalid"},
		"for another party":      {spec(func(s *clerksim.TokenSpec) { s.AZP = "https://evil.example" }), "party_invalid"},
		"for no party":           {spec(func(s *clerksim.TokenSpec) { s.AZP = "" }), "party_invalid"},
		"not yet valid":          {spec(func(s *clerksim.TokenSpec) { s.Claims = map[string]any{"nbf": time.Now().Add(time.Hour).Unix()} }), "not_yet_valid"},
		"of something else":      {spec(func(s *clerksim.TokenSpec) { s.UserID = "org_1" }), "subject_invalid"},
		"of another's making":    {parts[0] + "." + parts[1] + ".c2lnbmF0dXJl", "signature_invalid"},
		"that is none":           {"token", "malformed"},
		"without a signature":    {parts[0] + "." + parts[1] + ".", "malformed signature_invalid"},
		"as long as a book":      {strings.Repeat("a", 20_000), "malformed"},
		"with an algorithm none": {"eyJhbGciOiJub25lIn0." + parts[1] + ".", "malformed signature_invalid key_unknown"},
	}
}

// Whoever cannot prove who they are is answered 401, with a word that says why, whether the key is
// configured or fetched; nobody is let in by mistake.
func TestTokens(t *testing.T) {
	t.Parallel()
	for name, configured := range map[string]bool{"the key is configured": true, "the keys are fetched": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := system.Start(t, servers, system.Options{Stopped: true, Environ: map[string]string{
				"CLERK_AUTHORIZED_PARTIES": party, "CLERK_ISSUER": issuer,
			}})
			if configured {
				// As a variable in one line has it.
				s.Environ["CLERK_JWT_KEY"] = strings.ReplaceAll(s.Sandbox.Clerk.PublicKeyPEM(), "\n", `\n`)
			}
			s.StartAPI()
			s.StartWorker()
			w := furnish(t, s)
			ada := w.somebody("Ada").onboarded()
			s.Sandbox.ClerkFaults.Reset()
			for name, c := range tokens(w, ada.user) {
				r := w.ask(http.MethodGet, "/api/subscriptions", "", map[string]string{"Authorization": "Bearer " + c.token})
				if c.why == "" || configured && strings.HasSuffix(c.why, " -") {
					// A configured key is the only one, whatever the token calls it.
					want(t, r, http.StatusOK, "")
					continue
				}
				want(t, r, http.StatusUnauthorized, "token_invalid")
				if r.header.Get("WWW-Authenticate") == "" {
					t.Errorf("a token %s: the answer does not say how to authenticate", name)
				}
				found := false
				for why := range strings.FieldsSeq(c.why) {
					found = found || strings.Contains(r.text("detail"), why)
				}
				if !found {
					t.Errorf("a token %s is refused with %q, want %s", name, r.text("detail"), c.why)
				}
			}
			asked := s.Sandbox.ClerkFaults.Requests()["GET /v1/jwks"]
			if configured && asked != 0 || !configured && (asked < 1 || asked > 2) {
				t.Errorf("Clerk was asked for its keys %d times", asked)
			}
		})
	}
}

// Without a token, or with a header of another form, nobody is anybody.
func TestNoToken(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	ada := w.somebody("Ada")
	for _, path := range []string{"/api/subscriptions", "/api/sync/clerk-stripe", "/api/operations/op_x", "/api/audit"} {
		want(t, w.ask(http.MethodGet, path, "", nil), http.StatusUnauthorized, "token_missing")
	}
	for _, path := range []string{"/api/subscriptions/sub_1/cancel", "/api/subscriptions/sub_1/reactivate", "/api/users/me/sync", "/api/sync/clerk-stripe",
		"/api/checkout", "/api/checkout/return", "/api/portal"} {
		want(t, w.ask(http.MethodPost, path, "{}", nil), http.StatusUnauthorized, "token_missing")
	}
	for _, header := range []string{"Basic " + ada.token(), "Bearer", "Bearer ", ada.token()} {
		want(t, w.ask(http.MethodGet, "/api/subscriptions", "", map[string]string{"Authorization": header}), http.StatusUnauthorized, "token_invalid")
	}
	if n := w.Count(`SELECT count(*) FROM operations`); n != 0 {
		t.Errorf("%d operations were begun for nobody", n)
	}
}

// A browser sends the cookie with requests of anybody's pages: those of other origins change
// nothing.
func TestCookie(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	ada := w.subscriber("Ada")
	cookie := "__session=" + ada.token()
	cancel := "/api/subscriptions/" + ada.subscription + "/cancel"
	want(t, w.ask(http.MethodGet, "/api/subscriptions", "", map[string]string{"Cookie": cookie}), http.StatusOK, "")
	for name, header := range map[string]map[string]string{
		"of another site":   {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
		"of another origin": {"Origin": "https://evil.example"},
	} {
		header["Cookie"] = cookie
		if r := w.ask(http.MethodPost, cancel, "", header); r.code() != "cross_origin" || r.status != http.StatusForbidden {
			t.Errorf("a request %s is answered %s", name, r)
		}
		// Who has the token itself is not a browser that was tricked.
		header["Authorization"] = "Bearer " + ada.token()
		want(t, w.ask(http.MethodPost, "/api/subscriptions/sub_none/cancel", "", header), http.StatusNotFound, "subscription_not_found")
	}
	ada.is("active")
	want(t, w.ask(http.MethodPost, cancel, "", map[string]string{"Cookie": cookie, "Sec-Fetch-Site": "cross-site", "Origin": party}), http.StatusOK, "")
	ada.is("active, ends with its period")
}

// Pages of the product may call from their own origin, and no others; what answers them is
// readable.
func TestOrigins(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	for origin, allowed := range map[string]bool{party: true, "https://evil.example": false} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, w.URL()+"/api/subscriptions/sub_1/cancel", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Origin", origin)
		request.Header.Set("Access-Control-Request-Method", http.MethodPost)
		request.Header.Set("Access-Control-Request-Headers", "authorization,idempotency-key")
		answer, err := w.http.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if got := answer.Header.Get("Access-Control-Allow-Origin"); (got == origin) != allowed {
			t.Errorf("%s: allowed is %q", origin, got)
		}
	}
}

// A user whom Clerk knows and we do not yet is onboarded by their first call.
func TestFirstCallOnboards(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	w.Sandbox.ClerkWebhooks.Hold() // nobody tells of the sign-up
	ada := w.somebody("Ada")
	r := ada.asks(http.MethodGet, "/api/sync/clerk-stripe", "")
	want(t, r, http.StatusOK, "")
	ada.onboarded()
	ada.agrees()
	if n := w.Count(`SELECT count(*) FROM stripe_customers`); n != 1 {
		t.Errorf("%d customers were made, want 1", n)
	}
}

// While Clerk does not answer, nobody can tell whose token it is: that is not the caller's fault.
// Once its keys are known, tokens are good without it.
func TestKeysWhileClerkIsGone(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	ada := w.somebody("Ada").onboarded()
	down := w.Sandbox.ClerkFaults.Add
	down(outage())
	r := ada.asks(http.MethodGet, "/api/subscriptions", "")
	want(t, r, http.StatusServiceUnavailable, "not_accepted")
	if r.header.Get("Retry-After") == "" {
		t.Error("the answer does not say when to try again")
	}
	w.Sandbox.ClerkFaults.Clear()
	w.Until("the keys are fetched", func(context.Context) error {
		if r := ada.asks(http.MethodGet, "/api/subscriptions", ""); r.status != http.StatusOK {
			return fmt.Errorf("answered %s", r)
		}
		return nil
	})
	down(outage())
	want(t, ada.asks(http.MethodGet, "/api/subscriptions", ""), http.StatusOK, "")
	r = ada.asks(http.MethodGet, "/api/sync/clerk-stripe", "")
	want(t, r, http.StatusOK, "")
	if !strings.Contains(string(r.body), `"clerk":null`) || !strings.Contains(string(r.body), `"inSync":null`) {
		t.Errorf("without Clerk the data are %s", r.body)
	}
}

// A valid token of a user whom Clerk does not have is answered 404 while its caller waits, whatever
// they ask for, and nothing is left to be done: with no row of theirs, and with one. What an admin
// asks for somebody who is not there is answered the same.
func TestUserWhomClerkDoesNotHave(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	known := w.subscriber("Ada")
	if err := w.Sandbox.Clerk.ForgetUser(known.user); err != nil {
		t.Fatal(err)
	}
	nobody := w.as("user_2bNobodyOfThisNameIsHere1")
	for _, c := range []struct{ method, path, body string }{
		{http.MethodGet, single, ""},
		{http.MethodPost, single, `{"action":"get-subscription-data"}`},
		{http.MethodPost, single, `{"action":"sync-user"}`},
		{http.MethodPost, "/api/users/me/sync", ""},
		{http.MethodGet, "/api/subscriptions", ""},
		{http.MethodPost, "/api/checkout", checkout(w.price, 1)},
		{http.MethodPost, "/api/portal", `{"returnUrl":"` + party + `"}`},
	} {
		want(t, nobody.asks(c.method, c.path, c.body), http.StatusNotFound, "user_not_found")
	}
	want(t, known.asks(http.MethodPost, "/api/users/me/sync", ""), http.StatusNotFound, "user_not_found")
	want(t, w.as(adminID).asks(http.MethodPost, single, `{"action":"sync-user","targetUserId":"user_2bNobodyOfThisNameIsHere2"}`), http.StatusNotFound, "user_not_found")
	if n := w.Count(`SELECT count(*) FROM operations WHERE status IN ('accepted', 'acting', 'recorded') OR retry_at IS NOT NULL`); n != 0 {
		t.Errorf("%d operations go on", n)
	}
	if n := w.Count(`SELECT count(*) FROM person_user WHERE clerk_user_id LIKE 'user_2bNobody%'`); n != 0 {
		t.Errorf("%d rows were made", n)
	}
	if n := w.Count(`SELECT count(*) FROM subscriptions WHERE status = 'active'`); n != 1 {
		t.Error("the known user's subscription was changed")
	}
}

// Somebody who has just signed up may not be shown by each of Clerk's reads yet: they are asked for
// once more, and onboarded.
func TestNewcomerWhomClerkDoesNotShowAtOnce(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	w.Sandbox.ClerkWebhooks.Hold() // nobody tells of the sign-up
	ada := w.somebody("Ada")
	if err := w.Sandbox.Clerk.ForgetUser(ada.user); err != nil {
		t.Fatal(err)
	}
	var reads atomic.Int64
	w.Sandbox.ClerkFaults.Add(faults.Rule{Method: http.MethodGet, PathContains: ada.user, OnHit: func() {
		if reads.Add(1) == 2 {
			if err := w.Sandbox.Clerk.RememberUser(ada.user); err != nil {
				t.Error(err)
			}
		}
	}})
	want(t, ada.asks(http.MethodGet, single, ""), http.StatusOK, "")
	ada.onboarded()
}

// A user whom we have and whom Clerk does not have any more is not found, whichever way they ask.
func TestAUserWhomClerkDoesNotHaveAnyMoreIsNotFound(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	ada := w.subscriber("Ada")
	w.Quiet(true)
	token := ada.token()
	if err := w.Sandbox.Clerk.ForgetUser(ada.user); err != nil {
		t.Fatal(err)
	}
	as := map[string]string{"Authorization": "Bearer " + token}
	want(t, w.ask(http.MethodPost, "/api/sync/clerk-stripe", `{"action":"sync-user"}`, as), http.StatusNotFound, "user_not_found")
	want(t, w.ask(http.MethodGet, "/api/sync/clerk-stripe", "", as), http.StatusNotFound, "user_not_found")
}
