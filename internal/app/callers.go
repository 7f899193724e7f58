package app

import (
	"context"
	"errors"
	"slices"

	"github.com/nepfy/clerk-stripe-sync/internal/clerkapi"
	"github.com/nepfy/clerk-stripe-sync/internal/config"
	"github.com/nepfy/clerk-stripe-sync/internal/selfservice"
)

// callers tells who asks, from a session token and the list of admins.
type callers struct {
	sessions *clerkapi.SessionVerifier
	admins   []string
}

// roleAdmin is the value of the custom claim metadata.role that makes an admin.
const roleAdmin = "admin"

// newCallers verifies with the configured key, or with Clerk's own, which are fetched when a token
// needs them.
func newCallers(r *runtime, c config.API, clerk *clerkapi.Client) (*callers, error) {
	var keys clerkapi.Keys = clerkapi.NewKeyCache(clerk.SigningKeys, r.logger)
	if c.ClerkJWTKey != "" {
		static, err := clerkapi.NewStaticKey(c.ClerkJWTKey)
		if err != nil {
			return nil, err
		}
		keys = static
	}
	return &callers{
		sessions: &clerkapi.SessionVerifier{Keys: keys, Issuer: c.ClerkIssuer, Parties: c.ClerkAuthorizedParties},
		admins:   c.AdminUserIDs,
	}, nil
}

// Caller implements httpapi.Callers.
func (c *callers) Caller(ctx context.Context, token string) (selfservice.Caller, error) {
	session, err := c.sessions.Verify(ctx, token)
	if refused, ok := errors.AsType[*clerkapi.TokenError](err); ok {
		return selfservice.Caller{}, selfservice.NotAuthenticated(refused.Reason)
	}
	if err != nil {
		return selfservice.Caller{}, selfservice.NotKnownYet(err)
	}
	return selfservice.Caller{
		UserID: session.UserID, ActorID: session.ActorID,
		Admin: session.Role == roleAdmin || slices.Contains(c.admins, session.UserID),
	}, nil
}
