package clerksim

import (
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"time"
)

// tokenLife is how long Clerk's session tokens are good for.
const tokenLife = time.Minute

// TokenSpec describes a session token: a good one, or one that is wrong in some way.
type TokenSpec struct {
	UserID    string         // the subject
	SessionID string         // default: a new session
	Issuer    string         // default: that of the instance
	AZP       string         // authorized party: the origin of the front end; "" leaves the claim out
	TTL       time.Duration  // default one minute; negative makes an expired token
	Claims    map[string]any // custom claims; they win over the others
	NoExp     bool           // without exp
	NoSession bool           // without sid, as tokens made from templates are
	Pending   bool           // of a session whose sign-in is not complete
	KeyID     string         // key id in the header; default: that of the key that signs
}

// signingKey is the key pair of the session tokens.
type signingKey struct {
	id      string
	private *rsa.PrivateKey
}

func newSigningKey() *signingKey {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(fmt.Sprintf("make a key for session tokens: %v", err)) // the size is fixed and fine
	}
	return identify(private)
}

func identify(private *rsa.PrivateKey) *signingKey {
	sum := sha256.Sum256(private.N.Bytes())
	return &signingKey{id: "ins_" + base64.RawURLEncoding.EncodeToString(sum[:15]), private: private}
}

// SessionToken returns a session token in Clerk's version 2 form, signed with RS256, and notes the
// session it belongs to.
func (s *Server) SessionToken(spec TokenSpec) string {
	key := s.signing()
	status := "active"
	if spec.Pending {
		status = "pending"
	}
	s.mu.Lock()
	now := s.now()
	claims := map[string]any{
		"v": 2, "iss": cmp.Or(spec.Issuer, s.issuer), "sub": spec.UserID, "sts": status, "fva": []int{0, -1},
		"iat": now.Unix(), "nbf": now.Unix() - 10,
	}
	if !spec.NoSession {
		claims["sid"] = s.signIn(spec.SessionID, spec.UserID, status).ID
	}
	claims["jti"] = s.newID("jti")
	s.mu.Unlock()
	if spec.AZP != "" {
		claims["azp"] = spec.AZP
	}
	if !spec.NoExp {
		claims["exp"] = now.Add(cmp.Or(spec.TTL, tokenLife)).Unix()
	}
	maps.Copy(claims, spec.Claims)
	return key.sign(cmp.Or(spec.KeyID, key.id), claims)
}

// PublicKeyPEM returns the public key of the session tokens as Clerk's dashboard shows it.
func (s *Server) PublicKeyPEM() string {
	der, err := x509.MarshalPKIXPublicKey(&s.signing().private.PublicKey)
	if err != nil {
		panic(fmt.Sprintf("encode the key of session tokens: %v", err)) // an RSA key always can
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// RotateKey replaces the key of the session tokens. The old one is no longer published.
func (s *Server) RotateKey() { s.useKey(newSigningKey()) }

// serveKeys answers GET /v1/jwks.
func (s *Server) serveKeys(w http.ResponseWriter, _ *http.Request) {
	key := s.signing()
	s.reply(w, http.StatusOK, mustJSON(map[string]any{"keys": []any{map[string]any{
		"use": "sig", "kty": "RSA", "alg": "RS256", "kid": key.id,
		"n": base64.RawURLEncoding.EncodeToString(key.private.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.private.E)).Bytes()),
	}}}))
}

func (s *Server) signing() *signingKey {
	s.mu.Lock()
	keys := s.keys
	s.mu.Unlock()
	return keys()
}

func (s *Server) useKey(key *signingKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = func() *signingKey { return key }
}

// sign makes a compact JWT.
func (k *signingKey) sign(keyID string, claims map[string]any) string {
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			panic(fmt.Sprintf("encode a session token: %v", err)) // claims that JSON has no form for
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	signed := part(map[string]any{"alg": "RS256", "kid": keyID, "typ": "JWT"}) + "." + part(claims)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(nil, k.private, crypto.SHA256, sum[:])
	if err != nil {
		panic(fmt.Sprintf("sign a session token: %v", err)) // the key is long enough for the hash
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}
