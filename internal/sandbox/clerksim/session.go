package clerksim

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// sessionLife is how long a sign-in lasts.
const sessionLife = 7 * 24 * time.Hour

// session is a sign-in of a user.
type session struct {
	ID      string `json:"id"`
	UserID  string `json:"user_id"`
	Status  string `json:"status"` // active, pending, revoked
	Created int64  `json:"created"`
	Updated int64  `json:"updated"`
}

func (n *session) render() map[string]any {
	return map[string]any{
		"object": "session", "id": n.ID, "user_id": n.UserID, "client_id": "client_" + strings.TrimPrefix(n.ID, "sess_"),
		"status": n.Status, "last_active_at": n.Updated, "actor": nil, "last_active_organization_id": nil,
		"expire_at": n.Created + sessionLife.Milliseconds(), "abandon_at": n.Created + 4*sessionLife.Milliseconds(),
		"created_at": n.Created, "updated_at": n.Updated,
	}
}

// signIn finds or starts a session. The caller holds the lock.
func (s *Server) signIn(id, userID, status string) *session {
	if id == "" {
		id = s.newID("sess")
	}
	if s.sessions[id] == nil {
		now := millis(s.now())
		s.sessions[id] = &session{ID: id, UserID: userID, Status: status, Created: now, Updated: now}
	}
	return s.sessions[id]
}

// listSessions answers GET /v1/sessions, in both of its forms.
func (s *Server) listSessions(r *http.Request) (any, error) {
	q := r.URL.Query()
	var found []*session
	for _, n := range s.sessions {
		if (q.Get("user_id") == "" || q.Get("user_id") == n.UserID) && (q.Get("status") == "" || q.Get("status") == n.Status) {
			found = append(found, n)
		}
	}
	slices.SortFunc(found, func(a, b *session) int { return strings.Compare(a.ID, b.ID) })
	out := []any{}
	for _, n := range found {
		out = append(out, n.render())
	}
	if q.Get("paginated") == "true" {
		return map[string]any{"data": out, "total_count": len(out)}, nil
	}
	return out, nil
}

// getSession answers GET /v1/sessions/{id}.
func (s *Server) getSession(r *http.Request) (any, error) {
	n := s.sessions[r.PathValue("id")]
	if n == nil {
		return nil, notFound("No session was found with id " + r.PathValue("id") + ".")
	}
	return n.render(), nil
}

// revokeSession answers POST /v1/sessions/{id}/revoke. Tokens made before stay valid until they
// expire, as with Clerk.
func (s *Server) revokeSession(r *http.Request) (any, error) {
	n := s.sessions[r.PathValue("id")]
	if n == nil {
		return nil, notFound("No session was found with id " + r.PathValue("id") + ".")
	}
	n.Status, n.Updated = "revoked", millis(s.now())
	return n.render(), nil
}
