package clerksim

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ErrNoUser answers a change to a user that does not exist.
var ErrNoUser = errors.New("no such user")

// EmailSpec is an email address of a user.
type EmailSpec struct {
	Address  string `json:"address"`
	Verified bool   `json:"verified"`
}

// UserSpec describes a person who signs up. Everything may be left out: there are users without a
// name, without an email address, or with a phone number only.
type UserSpec struct {
	FirstName      string         `json:"first_name"`
	LastName       string         `json:"last_name"`
	Username       string         `json:"username"`
	ExternalID     string         `json:"external_id"`
	Phone          string         `json:"phone"`
	Emails         []EmailSpec    `json:"emails"`
	PrimaryEmail   int            `json:"primary_email"` // which of Emails; -1 is none of them
	PublicMetadata map[string]any `json:"public_metadata"`
	UnsafeMetadata map[string]any `json:"unsafe_metadata"`
	CreatedAt      time.Time      `json:"created_at"`     // default: now
	LastActiveAt   time.Time      `json:"last_active_at"` // default: never
}

// AddUser signs a person up and returns the user's id. It emits user.created. PrimaryEmail outside
// of Emails leaves the user without a primary address. Unlike the API it does not refuse an address
// that somebody else has, since two users may both claim one that neither has verified.
func (s *Server) AddUser(spec UserSpec) string {
	s.mu.Lock()
	u := &user{FirstName: maybe(spec.FirstName), LastName: maybe(spec.LastName), Username: maybe(spec.Username),
		ExternalID: maybe(spec.ExternalID), Public: metadata(spec.PublicMetadata), Unsafe: metadata(spec.UnsafeMetadata)}
	for _, e := range spec.Emails {
		u.Emails = append(u.Emails, ident{ID: s.newID("idn"), Value: strings.ToLower(e.Address), Verified: e.Verified})
	}
	if spec.Phone != "" {
		u.Phones = []ident{{ID: s.newID("idn"), Value: spec.Phone, Verified: true}}
	}
	if !spec.CreatedAt.IsZero() {
		u.Created = millis(spec.CreatedAt)
	}
	if !spec.LastActiveAt.IsZero() {
		at := millis(spec.LastActiveAt)
		u.LastActive, u.LastSignIn = &at, &at
	}
	if spec.PrimaryEmail >= 0 && spec.PrimaryEmail < len(u.Emails) {
		u.Primary = &u.Emails[spec.PrimaryEmail].ID
	}
	s.add(u)
	s.mu.Unlock()
	s.flush()
	return u.ID
}

// UserChange changes a profile: what is nil stays, and "" removes.
type UserChange struct {
	FirstName  *string `json:"first_name"`
	LastName   *string `json:"last_name"`
	Username   *string `json:"username"`
	ExternalID *string `json:"external_id"`
	Banned     *bool   `json:"banned"`
}

// UpdateUser changes a user's profile and emits user.updated.
func (s *Server) UpdateUser(id string, c UserChange) error {
	return s.change(id, func(u *user) error {
		for _, f := range []struct {
			to    *string
			field **string
		}{{c.FirstName, &u.FirstName}, {c.LastName, &u.LastName}, {c.Username, &u.Username}, {c.ExternalID, &u.ExternalID}} {
			if f.to != nil {
				*f.field = maybe(*f.to)
			}
		}
		if c.Banned != nil {
			u.Banned = *c.Banned
		}
		return nil
	})
}

// AddEmail gives a user one more address, which does not become the primary one, and emits
// user.updated.
func (s *Server) AddEmail(id string, e EmailSpec) error {
	return s.change(id, func(u *user) error {
		if named(u.Emails, e.Address) >= 0 {
			return errors.New("the user has this address")
		}
		u.Emails = append(u.Emails, ident{ID: s.newID("idn"), Value: strings.ToLower(e.Address), Verified: e.Verified})
		return nil
	})
}

// RemoveEmail takes an address from a user and emits user.updated. If it was the primary one, the
// first verified address takes its place, if there is one.
func (s *Server) RemoveEmail(id, address string) error {
	return s.change(id, func(u *user) error {
		at := named(u.Emails, address)
		if at < 0 {
			return errNoAddress
		}
		gone := u.Emails[at].ID
		u.Emails = slices.Delete(slices.Clone(u.Emails), at, at+1)
		if deref(u.Primary) == gone {
			u.Primary = nil
			if next := slices.IndexFunc(u.Emails, func(i ident) bool { return i.Verified }); next >= 0 {
				u.Primary = &u.Emails[next].ID
			}
		}
		return nil
	})
}

// VerifyEmail marks an address as verified and emits user.updated.
func (s *Server) VerifyEmail(id, address string) error {
	return s.change(id, func(u *user) error {
		at := named(u.Emails, address)
		if at < 0 {
			return errNoAddress
		}
		u.Emails = slices.Clone(u.Emails)
		u.Emails[at].Verified = true
		return nil
	})
}

// SetPrimaryEmail makes an address the primary one and emits user.updated.
func (s *Server) SetPrimaryEmail(id, address string) error {
	return s.change(id, func(u *user) error {
		at := named(u.Emails, address)
		if at < 0 {
			return errNoAddress
		}
		u.Primary = &u.Emails[at].ID
		return nil
	})
}

var errNoAddress = errors.New("the user has no such address")

// SetPublicMetadata replaces the public metadata, as an application does that does not merge, and
// emits user.updated.
func (s *Server) SetPublicMetadata(id string, m map[string]any) error {
	return s.change(id, func(u *user) error {
		u.Public = metadata(m).copy()
		return nil
	})
}

// WipeMetadata empties the public metadata and emits user.updated.
func (s *Server) WipeMetadata(id string) error { return s.SetPublicMetadata(id, nil) }

// DeleteUser deletes a user and emits user.deleted.
func (s *Server) DeleteUser(id string) error {
	s.mu.Lock()
	u := s.users[id]
	if u != nil {
		s.remove(u)
	}
	s.mu.Unlock()
	s.flush()
	if u == nil {
		return fmt.Errorf("delete user %s: %w", id, ErrNoUser)
	}
	return nil
}

// ForgetUser makes the API answer 404 for a user that exists, and says so to nobody. RememberUser
// ends it.
func (s *Server) ForgetUser(id string) error { return s.setForgotten(id, true) }

// RememberUser ends what ForgetUser began.
func (s *Server) RememberUser(id string) error { return s.setForgotten(id, false) }

func (s *Server) setForgotten(id string, to bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.users[id]
	if u == nil {
		return fmt.Errorf("forget or remember user %s: %w", id, ErrNoUser)
	}
	u.Forgotten = to
	return nil
}

// User returns a user as the API would, forgotten or not, and whether it exists.
func (s *Server) User(id string) (json.RawMessage, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.users[id]
	if u == nil {
		return nil, false
	}
	return mustJSON(u.render()), true
}

// Users returns the ids of all users, oldest first.
func (s *Server) Users() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.order)
}

// PublicMetadata returns a copy of a user's public metadata as encoding/json decodes it, nil for a
// user who does not exist.
func (s *Server) PublicMetadata(id string) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.users[id]
	if u == nil {
		return nil
	}
	var m map[string]any
	if err := json.Unmarshal(mustJSON(u.Public), &m); err != nil {
		panic(err) // it was encoded one line above
	}
	return m
}

// change applies what somebody does to a user, and emits user.updated if that works.
func (s *Server) change(id string, apply func(*user) error) error {
	err := func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		u := s.users[id]
		if u == nil {
			return ErrNoUser
		}
		if err := apply(u); err != nil {
			return err
		}
		s.changed(u)
		return nil
	}()
	s.flush()
	if err != nil {
		return fmt.Errorf("change user %s: %w", id, err)
	}
	return nil
}
