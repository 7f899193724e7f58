package sandbox

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
)

// address names one email address of a user.
type address struct {
	Address string `json:"address"`
}

// tokenRequest is a session token as a person asks for it.
type tokenRequest struct {
	SessionID string         `json:"session_id,omitempty"`
	AZP       string         `json:"azp,omitempty"`
	TTL       duration       `json:"ttl,omitempty"`
	Claims    map[string]any `json:"claims,omitempty"`
}

// clerkActions are what people do with their account, and what an operator does to Clerk.
func (s *Sandbox) clerkActions() []action {
	return []action{
		{"GET /_sandbox/users", "all users", nil, func(*http.Request) (any, error) {
			users := []json.RawMessage{}
			for _, id := range s.Clerk.Users() {
				if u, ok := s.Clerk.User(id); ok {
					users = append(users, u)
				}
			}
			return users, nil
		}},
		{"POST /_sandbox/users", "sign up", map[string]any{"first_name": "Ana", "emails": []any{map[string]any{"address": "ana@example.com", "verified": true}}},
			with(func(_ *http.Request, in clerksim.UserSpec) (any, error) {
				return map[string]string{"id": s.Clerk.AddUser(in)}, nil
			})},
		{"PATCH /_sandbox/users/{id}", `change a profile; "" removes`, map[string]any{"last_name": "Silva"},
			with(func(r *http.Request, in clerksim.UserChange) (any, error) {
				return nil, s.Clerk.UpdateUser(r.PathValue("id"), in)
			})},
		{"DELETE /_sandbox/users/{id}", "delete an account", nil, byID(s.Clerk.DeleteUser)},
		{"POST /_sandbox/users/{id}/emails", "add an address", clerksim.EmailSpec{Address: "ana@work.example", Verified: true},
			with(func(r *http.Request, in clerksim.EmailSpec) (any, error) {
				return nil, s.Clerk.AddEmail(r.PathValue("id"), in)
			})},
		{"POST /_sandbox/users/{id}/verify", "verify an address", address{"ana@work.example"},
			with(func(r *http.Request, in address) (any, error) {
				return nil, s.Clerk.VerifyEmail(r.PathValue("id"), in.Address)
			})},
		{"POST /_sandbox/users/{id}/primary", "make an address the primary one", address{"ana@work.example"},
			with(func(r *http.Request, in address) (any, error) {
				return nil, s.Clerk.SetPrimaryEmail(r.PathValue("id"), in.Address)
			})},
		{"POST /_sandbox/users/{id}/wipe-metadata", "empty public_metadata, as a careless application does", nil, byID(s.Clerk.WipeMetadata)},
		{"POST /_sandbox/users/{id}/forget", "answer 404 for a user who exists", nil, byID(s.Clerk.ForgetUser)},
		{"POST /_sandbox/users/{id}/remember", "end that", nil, byID(s.Clerk.RememberUser)},
		{"POST /_sandbox/users/{id}/token", "a session token of the user", tokenRequest{TTL: duration(time.Hour), Claims: map[string]any{"metadata": map[string]string{"role": "admin"}}},
			with(func(r *http.Request, in tokenRequest) (any, error) {
				id := r.PathValue("id")
				if _, ok := s.Clerk.User(id); !ok {
					return nil, clerksim.ErrNoUser
				}
				return map[string]string{"token": s.Clerk.SessionToken(clerksim.TokenSpec{UserID: id, SessionID: in.SessionID, AZP: in.AZP,
					TTL: time.Duration(in.TTL), Claims: in.Claims})}, nil
			})},
		{"GET /_sandbox/token-key", "the public key of the session tokens, in PEM", nil, func(*http.Request) (any, error) {
			return map[string]string{"pem": s.Clerk.PublicKeyPEM()}, nil
		}},
	}
}
