package clerkapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/jwt"
	josejwt "github.com/go-jose/go-jose/v3/jwt"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// Session is what a valid session token says.
type Session struct {
	// UserID is whose session it is.
	UserID string
	// SessionID is Clerk's id of the session ("sess_...").
	SessionID string
	// Role is the custom claim metadata.role, "" where the token has none. Only the product's own
	// back end can write what it is made of.
	Role string
	// ActorID is who acts as the user, where Clerk lets somebody impersonate them; else "".
	ActorID string
}

// TokenError says why a token is not a valid one. Its text is our own and safe to log.
type TokenError struct {
	// Reason is a stable word.
	Reason string
}

// Error implements error.
func (e *TokenError) Error() string { return "the session token is not valid: " + e.Reason }

// The reasons for which a token is refused.
const (
	TokenMalformed    = "malformed"
	TokenKeyUnknown   = "key_unknown"
	TokenSignature    = "signature_invalid"
	TokenExpired      = "expired"
	TokenNotYetValid  = "not_yet_valid"
	TokenNoExpiry     = "no_expiry"
	TokenNoSession    = "no_session"
	TokenPending      = "session_pending"
	TokenSubject      = "subject_invalid"
	TokenIssuer       = "issuer_invalid"
	TokenParty        = "party_invalid"
	tokenLeeway       = 5 * time.Second // between Clerk's clock and ours
	longestToken      = 8 << 10         // well above what fits into a cookie
	statusActive      = "active"
	longestTokenLife  = 24 * time.Hour // Clerk's live for a minute; one that lives for ever was made by somebody else
	tokenTooLongLived = "lives_too_long"
)

// Keys finds the public key that a token was signed with.
type Keys interface {
	// Key answers the key of this id. It answers a [TokenError] where the issuer has no such key,
	// and any other error where that cannot be known now.
	Key(ctx context.Context, keyID string) (*clerk.JSONWebKey, error)
}

// SessionVerifier tells whose session a token belongs to. Beside what Clerk's SDK checks (the
// signature with RS256 only, and the times) it insists on what the SDK does not: an expiry, a
// session, a user, a session whose sign-in is complete, and, where they are configured, the exact
// issuer and an authorized party.
type SessionVerifier struct {
	// Keys are the issuer's.
	Keys Keys
	// Issuer is the exact issuer; "" for any that looks like Clerk's.
	Issuer string
	// Parties are the acceptable authorized parties; none for any.
	Parties []string
	// Now is the clock; nil for time.Now.
	Now func() time.Time
}

// Verify answers the session of a token. The error is a [TokenError], or says that it cannot be
// known now.
func (v *SessionVerifier) Verify(ctx context.Context, token string) (Session, error) {
	if len(token) > longestToken {
		return Session{}, &TokenError{TokenMalformed}
	}
	unverified, err := jwt.Decode(ctx, &jwt.DecodeParams{Token: token})
	if err != nil {
		return Session{}, &TokenError{TokenMalformed}
	}
	key, err := v.Keys.Key(ctx, unverified.KeyID)
	if err != nil {
		return Session{}, err
	}
	params := &jwt.VerifyParams{
		Token: token, JWK: key, Leeway: tokenLeeway, Clock: clock{v.Now},
		CustomClaimsConstructor: func(context.Context) any { return &customClaims{} },
	}
	if v.Issuer != "" {
		params.ProxyURL = &v.Issuer // compared exactly
	}
	claims, err := jwt.Verify(ctx, params)
	if err != nil {
		return Session{}, &TokenError{reasonOf(err, v.issuerAccepted(unverified.Issuer))}
	}
	return v.accept(claims)
}

// customClaims are those that the SDK does not know.
type customClaims struct {
	// Status is that of the session.
	Status   string `json:"sts"`
	Metadata struct {
		Role string `json:"role"`
	} `json:"metadata"`
}

func (v *SessionVerifier) accept(claims *clerk.SessionClaims) (Session, error) {
	custom, ok := claims.Custom.(*customClaims)
	switch {
	case claims.Expiry == nil:
		return Session{}, &TokenError{TokenNoExpiry}
	case time.Unix(*claims.Expiry, 0).Sub(clock{v.Now}.Now()) > longestTokenLife:
		return Session{}, &TokenError{tokenTooLongLived}
	case claims.SessionID == "":
		return Session{}, &TokenError{TokenNoSession}
	case !account.ValidUserID(claims.Subject):
		return Session{}, &TokenError{TokenSubject}
	case !ok || custom.Status != "" && custom.Status != statusActive:
		return Session{}, &TokenError{TokenPending}
	case len(v.Parties) > 0 && !slices.Contains(v.Parties, claims.AuthorizedParty):
		return Session{}, &TokenError{TokenParty}
	}
	session := Session{UserID: claims.Subject, SessionID: claims.SessionID, Role: custom.Metadata.Role}
	var actor struct {
		Subject string `json:"sub"`
	}
	if len(claims.Actor) > 0 && json.Unmarshal(claims.Actor, &actor) == nil && account.ValidUserID(actor.Subject) {
		session.ActorID = actor.Subject
	}
	return session, nil
}

// issuerAccepted tells whether the SDK's refusal was about something else than the issuer.
func (v *SessionVerifier) issuerAccepted(issuer string) bool {
	return v.Issuer == "" || issuer == v.Issuer
}

// reasonOf keeps of the SDK's error which check failed.
func reasonOf(err error, issuerAccepted bool) string {
	switch {
	case errors.Is(err, josejwt.ErrExpired):
		return TokenExpired
	case errors.Is(err, josejwt.ErrNotValidYet), errors.Is(err, josejwt.ErrIssuedInTheFuture):
		return TokenNotYetValid
	case !issuerAccepted:
		return TokenIssuer
	default:
		return TokenSignature
	}
}

// clock is the SDK's idea of one.
type clock struct{ now func() time.Time }

// Now implements clerk.Clock.
func (c clock) Now() time.Time {
	if c.now == nil {
		return time.Now()
	}
	return c.now()
}

// StaticKey is the one public key that an operator has configured. Tokens are verified with it
// whatever key they name, and without asking anyone.
type StaticKey struct{ key *clerk.JSONWebKey }

// NewStaticKey reads a public key in PEM form.
func NewStaticKey(pem string) (*StaticKey, error) {
	key, err := clerk.JSONWebKeyFromPEM(pem)
	if err != nil {
		return nil, fmt.Errorf("CLERK_JWT_KEY is not a public key in PEM form: %w", err)
	}
	return &StaticKey{key}, nil
}

// Key implements [Keys].
func (k *StaticKey) Key(context.Context, string) (*clerk.JSONWebKey, error) { return k.key, nil }
