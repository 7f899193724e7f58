package clerksim_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/jwks"
	"github.com/clerk/clerk-sdk-go/v2/jwt"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
)

// custom are the claims beside the SDK's own.
type custom struct {
	Status   string `json:"sts"`
	Metadata struct {
		Role string `json:"role"`
	} `json:"metadata"`
}

type worldClock struct{ *world }

func (c worldClock) Now() time.Time { return c.clock() }

// verify checks a token with the real SDK and the keys that the instance publishes.
func verify(t *testing.T, w *world, token string) (*clerk.SessionClaims, error) {
	t.Helper()
	return jwt.Verify(t.Context(), &jwt.VerifyParams{Token: token, JWKSClient: jwks.NewClient(w.config), Clock: worldClock{w},
		CustomClaimsConstructor: func(context.Context) any { return &custom{} }})
}

func TestSessionTokenVerifies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.sim.SessionToken(clerksim.TokenSpec{UserID: "user_1", AZP: "https://app.example", Claims: map[string]any{"metadata": map[string]any{"role": "admin"}}})
	claims, err := verify(t, w, token)
	if err != nil {
		t.Fatal(err)
	}
	c, ok := claims.Custom.(*custom)
	if claims.Subject != "user_1" || claims.SessionID == "" || claims.Issuer != w.sim.Issuer() || claims.AuthorizedParty != "https://app.example" ||
		*claims.Expiry != w.clock().Add(time.Minute).Unix() || !ok || c.Status != "active" || c.Metadata.Role != "admin" {
		t.Errorf("claims %+v, %+v", claims, claims.Custom)
	}
	jwk, err := clerk.JSONWebKeyFromPEM(w.sim.PublicKeyPEM())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jwt.Verify(t.Context(), &jwt.VerifyParams{Token: token, JWK: jwk, Clock: worldClock{w}}); err != nil {
		t.Errorf("with the PEM: %v", err)
	}
}

func TestTokensThatAreWrongInOneWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, tc := range map[string]struct {
		spec  clerksim.TokenSpec
		check func(*clerk.SessionClaims, error) bool
	}{
		"expired":     {clerksim.TokenSpec{TTL: -time.Minute}, func(_ *clerk.SessionClaims, err error) bool { return err != nil }},
		"unknown key": {clerksim.TokenSpec{KeyID: "ins_unknown"}, func(_ *clerk.SessionClaims, err error) bool { return err != nil }},
		"foreign issuer": {clerksim.TokenSpec{Issuer: "https://example.com"}, func(_ *clerk.SessionClaims, err error) bool {
			return err != nil
		}},
		"no expiry":  {clerksim.TokenSpec{NoExp: true}, func(c *clerk.SessionClaims, err error) bool { return err == nil && c.Expiry == nil }},
		"no session": {clerksim.TokenSpec{NoSession: true}, func(c *clerk.SessionClaims, err error) bool { return err == nil && c.SessionID == "" }},
		"pending": {clerksim.TokenSpec{Pending: true}, func(c *clerk.SessionClaims, err error) bool {
			return err == nil && c.Custom.(*custom).Status == "pending"
		}},
		"no party": {clerksim.TokenSpec{}, func(c *clerk.SessionClaims, err error) bool { return err == nil && c.AuthorizedParty == "" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc.spec.UserID = "user_1"
			if claims, err := verify(t, w, w.sim.SessionToken(tc.spec)); !tc.check(claims, err) {
				t.Errorf("got %+v, %v", claims, err)
			}
		})
	}
}

func TestRotatedKeysEndOldTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.sim.SessionToken(clerksim.TokenSpec{UserID: "user_1"})
	w.sim.RotateKey()
	if _, err := verify(t, w, token); err == nil {
		t.Error("a token of the old key verifies")
	}
	if _, err := verify(t, w, w.sim.SessionToken(clerksim.TokenSpec{UserID: "user_1"})); err != nil {
		t.Error(err)
	}
}

func TestKeysOfTheIssuerArePublic(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/.well-known/jwks.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var set clerk.JSONWebKeySet
	if err := json.NewDecoder(res.Body).Decode(&set); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(set.Keys, func(k *clerk.JSONWebKey) bool { return k.Algorithm == "RS256" && k.KeyID != "" }) {
		t.Errorf("keys %+v", set.Keys)
	}
	expectError(t, second(jwks.NewClient(w.client("sk_test_other")).Get(t.Context(), &jwks.GetParams{})), 401, "clerk_key_invalid")
}
